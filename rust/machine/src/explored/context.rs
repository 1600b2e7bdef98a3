//! Who may run: interrupts on the CPUs whose work they interrupt, `stop_machine`, sections in which nobody may sleep.
//!
//! An interrupt is an actor with a place of its own. It may enter its CPU between any two
//! operations of the task there, as long as its kind is not masked; the task goes on when it has left. Entry and return
//! are exceptions, hence context synchronisation events.

use vmemmap_arch::{Barrier, Invariant, Var};

use super::accesses::Touch;
use super::cells::Cell;
use super::place::{Context, MAX_ACTORS, Place};
use super::world::World;
use crate::op::Op;

/// What an actor may not do now, in its context cell.
pub(super) mod depth {
    pub const SPIN: u64 = 1;
    pub const IRQ: u64 = 1 << 8;
    pub const IRQ_MASK: u64 = 0xff << 8;
}

/// Bits of the actors in `mask`.
fn actors(mask: u16) -> impl Iterator<Item = u8> {
    (0..16u8).filter(move |a| mask >> a & 1 != 0)
}

/// The bit of the actor stored as itself + 1 in a byte of a cell.
const fn bit_of(byte: u64) -> u16 {
    match byte & 0xff {
        0 => 0,
        n => 1 << (n - 1),
    }
}

impl World {
    /// Where each actor runs; without it actor n is the task of CPU n. Call it before anybody runs.
    ///
    /// # Panics
    /// A CPU number of `MAX_ACTORS` or more.
    pub fn place(&mut self, places: &[Place]) {
        assert!(places.iter().all(|p| p.cpu < MAX_ACTORS), "at most {MAX_ACTORS} CPUs");
        let n = places.len().min(usize::from(MAX_ACTORS));
        self.places[..n].copy_from_slice(&places[..n]);
        self.all_cpus = places[..n].iter().fold(0, |m, p| m | 1 << p.cpu);
        for (a, place) in places[..n].iter().enumerate() {
            let runs = |p: &Place| p.context.runs();
            let beside = (0..n).filter(|b| *b != a && places[*b].cpu == place.cpu && runs(&places[*b]));
            self.beside[a] = if runs(place) { beside.fold(0, |m, b| m | 1 << b) } else { 0 };
        }
        let buffers = places[..n].iter().filter(|p| p.context == Context::StoreBuffer);
        self.buffered = buffers.fold(0, |m, p| m | 1 << p.cpu);
        self.reserve_late();
    }

    #[inline]
    pub(super) const fn cpu_of(&self, actor: u8) -> u8 {
        self.places[actor as usize].cpu
    }
    #[inline]
    pub(super) const fn shares_cpu(&self, actor: u8) -> bool {
        self.beside[actor as usize] != 0
    }
    #[inline]
    fn context_of(&self, actor: u8) -> Context {
        self.places[usize::from(actor)].context
    }
    /// The interrupt that runs on a CPU, and above it the pseudo-NMI: each an actor + 1 in a byte.
    #[inline]
    fn cpu_cell(&self, cpu: u8) -> Cell {
        self.fixed.cpu + Cell::from(cpu)
    }
    fn running(&self, cpu: u8) -> (u16, u16) {
        let word = self.memory.cells.get(self.cpu_cell(cpu));
        (bit_of(word), bit_of(word >> 8))
    }

    // ---- masks ----
    #[inline]
    pub(super) fn context_cell(&self, actor: u8) -> Cell {
        self.fixed.context + Cell::from(actor)
    }
    pub(super) fn shift_context(&mut self, actor: u8, unit: u64, up: bool) {
        let cell = self.context_cell(actor);
        let old = self.memory.cells.get(cell);
        self.memory.cells.set(cell, if up { old.wrapping_add(unit) } else { old.wrapping_sub(unit) });
    }
    pub(super) fn irq(&mut self, actor: u8, off: bool) {
        if off || self.irqs_off(actor) {
            self.shift_context(actor, depth::IRQ, off);
        }
    }
    fn irqs_off(&self, actor: u8) -> bool {
        self.memory.cells.get(self.context_cell(actor)) & depth::IRQ_MASK != 0
    }
    fn is_preemptible(&self, actor: u8) -> bool {
        self.memory.cells.get(self.context_cell(actor)) == 0
    }
    /// Interrupts masked or an interrupt itself: not even PREEMPT_RT's spinlocks, which sleep, may be taken.
    pub(super) fn is_hard_atomic(&self, actor: u8) -> bool {
        self.irqs_off(actor) || self.context_of(actor) != Context::Task
    }
    /// Whoever sleeps under a spinlock, with interrupts off, in an RCU read section or in an interrupt breaks I25.
    pub(super) fn may_sleep(&mut self, actor: u8, message: &'static str) {
        if !self.is_preemptible(actor) || self.rcu_depth(actor) != 0 || self.is_hard_atomic(actor) {
            self.violate(Invariant::LockOrder, actor, 0, message);
        }
    }

    // ---- interrupts ----
    /// Whether the interrupt need not come: no bit of its line is set, or it has none.
    #[must_use]
    pub fn may_never_come(&self, actor: u8) -> bool {
        !self.places[usize::from(actor)].line.is_some_and(|line| self.is_raised(actor, line))
    }
    fn is_raised(&self, actor: u8, line: Var) -> bool {
        self.var(line) >> self.cpu_of(actor) & 1 != 0
    }
    /// Actors (bits) that mask the entry of an interrupt on its CPU.
    fn masked_by(&self, actor: u8) -> u16 {
        let (irq, nmi) = self.running(self.cpu_of(actor));
        if self.context_of(actor) == Context::Nmi {
            return nmi;
        }
        let beside = self.beside[usize::from(actor)];
        actors(beside).filter(|a| self.irqs_off(*a)).fold(irq | nmi, |m, a| m | 1 << a)
    }
    pub(super) fn interrupt_enter(&mut self, actor: u8) {
        let place = self.places[usize::from(actor)];
        let cell = self.cpu_cell(place.cpu);
        self.memory.cells.set(cell, self.memory.cells.get(cell) | (u64::from(actor) + 1) << place.context.shift());
        if let Some(line) = place.line {
            let cell = self.var_cell(line);
            self.memory.cells.set(cell, self.memory.cells.get(cell) & !(1 << place.cpu));
        }
        self.barrier(actor, Barrier::Isb);
    }
    /// One occupant for each kind is enough: arm64 takes an interrupt with `DAIF.I` set and never clears it in a
    /// handler, so no interrupt comes above one, and a pseudo-NMI masks both kinds. Who is not inside leaves nothing.
    pub(super) fn interrupt_exit(&mut self, actor: u8) {
        self.barrier(actor, Barrier::Isb);
        let place = self.places[usize::from(actor)];
        let (cell, shift) = (self.cpu_cell(place.cpu), place.context.shift());
        let word = self.memory.cells.get(cell);
        if word >> shift & 0xff == u64::from(actor) + 1 {
            self.memory.cells.set(cell, word & !(0xff << shift));
        }
    }
    /// CPUs (bits) other than the sender's that have a handler for the line.
    fn listeners(&self, actor: u8, line: Var) -> u64 {
        let all = self.places.iter().filter(|p| p.line == Some(line)).fold(0, |m, p| m | 1 << p.cpu);
        all & !(1 << self.cpu_of(actor))
    }
    /// Returns how many CPUs it was sent to.
    pub(super) fn send_ipi(&mut self, actor: u8, line: Var) -> u64 {
        let targets = self.listeners(actor, line);
        let cell = self.var_cell(line);
        self.memory.cells.set(cell, self.memory.cells.get(cell) | targets);
        u64::from(targets.count_ones())
    }

    // ---- stop_machine ----
    fn stopper(&self) -> u16 {
        bit_of(self.memory.cells.get(self.fixed.pause))
    }
    pub(super) fn stop_machine(&mut self, actor: u8) {
        self.may_sleep(actor, "stop_machine in atomic context");
        self.memory.cells.set(self.fixed.pause, u64::from(actor) + 1);
        self.shift_context(actor, depth::IRQ, true);
        // The others run their stoppers.
        self.synchronize_context(!(1 << self.cpu_of(actor)));
    }
    pub(super) fn restart_machine(&mut self, actor: u8) {
        self.memory.cells.set(self.fixed.pause, 0);
        self.irq(actor, false);
    }
    /// Actors (bits) that cannot be preempted yet: in a section where nobody may sleep, or an interrupt under way.
    pub(super) fn not_preemptible(&self, actor: u8) -> u16 {
        let busy = |a: &u8| *a != actor && (!self.is_preemptible(*a) || self.rcu_depth(*a) != 0);
        let tasks = (0..self.cpus).filter(busy).fold(0, |m, a| m | 1 << a);
        (0..MAX_ACTORS)
            .filter(|c| self.all_cpus >> c & 1 != 0)
            .map(|c| self.running(c))
            .fold(tasks, |m, (irq, nmi)| m | irq | nmi)
    }

    // ---- waiting for the CPU ----
    /// Actors (bits) that keep `actor` from running at all. What hardware does alone goes on.
    #[inline]
    pub(super) fn barred_by(&self, actor: u8, op: &Op) -> u16 {
        // Most are alone on their CPU while nobody has stopped the machine, and are asked this at each operation.
        if !self.shares_cpu(actor) && self.memory.cells.get(self.fixed.pause) == 0 && !matches!(op, Op::InterruptEnter)
        {
            return 0;
        }
        self.barred_by_others(actor, op)
    }
    fn barred_by_others(&self, actor: u8, op: &Op) -> u16 {
        if op.is_local() || matches!(op, Op::Speculate { .. }) {
            return 0;
        }
        let me = self.context_of(actor);
        if me == Context::StoreBuffer {
            return 0;
        }
        let stopped = if me == Context::Nmi { 0 } else { self.stopper() & !(1 << actor) };
        let beside = self.beside[usize::from(actor)];
        if matches!(op, Op::InterruptEnter) {
            return stopped | self.masked_by(actor);
        }
        if beside == 0 {
            return stopped;
        }
        let (irq, nmi) = self.running(self.cpu_of(actor));
        match me {
            Context::Nmi => stopped,
            Context::Irq => stopped | nmi,
            Context::Task | Context::StoreBuffer | Context::LoadQueue => {
                let tasks = actors(beside).filter(|a| self.context_of(*a) == Context::Task && !self.is_preemptible(*a));
                tasks.fold(stopped | irq | nmi, |m, a| m | 1 << a)
            }
        }
    }
    /// Whether an interrupt runs on the CPU of this actor, above it.
    #[must_use]
    pub fn is_interrupted(&self, actor: u8) -> bool {
        let (irq, nmi) = self.running(self.cpu_of(actor));
        match self.context_of(actor) {
            Context::Task => irq | nmi != 0,
            Context::Irq => nmi != 0,
            Context::Nmi | Context::StoreBuffer | Context::LoadQueue => false,
        }
    }
    /// An interrupt that nothing has raised.
    pub(super) fn is_silent(&self, actor: u8) -> bool {
        self.places[usize::from(actor)].line.is_some_and(|line| !self.is_raised(actor, line))
    }

    // ---- access sets ----
    /// What decides whether the actor may run at all.
    ///
    /// Whoever gives a lock back decides whether others go, too: if its CPU is taken away before, those who took it may
    /// wait for the lock for ever. So it does read this, and is a scheduling point wherever an interrupt may come.
    #[inline]
    pub(super) fn touch_control(&self, actor: u8, op: &Op, out: &mut impl Touch) {
        if matches!(op, Op::Speculate { .. } | Op::Commit) {
            return;
        }
        let me = self.context_of(actor);
        let commutes = !matches!(op, Op::Release { .. });
        if me != Context::Nmi {
            out.relation_read(self.fixed.pause, commutes);
        }
        let beside = self.beside[usize::from(actor)];
        if beside != 0 && me != Context::Nmi {
            out.relation_read(self.cpu_cell(self.cpu_of(actor)), commutes);
            if me == Context::Task || matches!(op, Op::InterruptEnter) {
                actors(beside).for_each(|a| out.relation_read(self.context_cell(a), commutes));
            }
        }
    }
    pub(super) fn touch_interrupt(&self, actor: u8, enter: bool, out: &mut impl Touch) {
        let place = self.places[usize::from(actor)];
        out.write(self.cpu_cell(place.cpu));
        if let (true, Some(line)) = (enter, place.line) {
            out.write(self.var_cell(line));
        }
        self.touch_barrier(actor, Barrier::Isb, out);
    }
    pub(super) fn touch_stop(&self, actor: u8, out: &mut impl Touch) {
        out.write(self.fixed.pause);
        out.write(self.context_cell(actor));
        self.touch_synchronized(!(1 << self.cpu_of(actor)), out);
        (0..self.cpus).filter(|a| *a != actor).for_each(|a| out.enabledness_read(self.context_cell(a)));
        (0..MAX_ACTORS).filter(|c| self.all_cpus >> c & 1 != 0).for_each(|c| out.enabledness_read(self.cpu_cell(c)));
    }
}
