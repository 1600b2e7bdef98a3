//! Locks, RCU, interrupts and the other ways in which CPUs wait for each other. A blocked operation is not executed:
//! it has no outcome until it can.

use vmemmap_arch::{Invariant, LockId, Mode};

use super::World;
use super::cells::Cell;
use crate::op::{Op, is_rwsem};

/// Every lock once, by its dense number.
const ALL: [LockId; LockId::COUNT] = [
    LockId::DeviceHotplug,
    LockId::CpuHotplug,
    LockId::MemHotplug,
    LockId::PcpBatchHigh,
    LockId::InitMmMmap,
    LockId::InitMmPageTable,
    LockId::SwapperPgdir,
    LockId::Fixmap,
    LockId::Hugetlb,
    LockId::VmapArea,
    LockId::HugetlbResize(0),
    LockId::HugetlbResize(1),
    LockId::HugetlbResize(2),
    LockId::HugetlbResize(3),
    LockId::HugetlbResize(4),
    LockId::HugetlbResize(5),
    LockId::HugetlbResize(6),
    LockId::HugetlbResize(7),
];

/// Who pauses the others, and how, in the cell `pause`.
const STOP_MACHINE: u64 = 1 << 8;
/// `synchronize_rcu` is under way, in the actor's snapshot cell.
const SNAPSHOT: u64 = 1 << 32;

/// What an actor may not do now, in its context cell.
mod context {
    pub const SPIN: u64 = 1;
    pub const IRQ: u64 = 1 << 8;
    pub const IRQ_MASK: u64 = 0xff << 8;
}

impl World {
    /// Owner + 1, then a bit for each queued writer from bit 16.
    #[inline]
    pub(super) fn lock_cell(&self, lock: LockId) -> Cell {
        self.fixed.locks + 2 * lock.index() as Cell
    }
    fn owner(&self, lock: LockId) -> Option<u8> {
        ((self.memory.cells.get(self.lock_cell(lock)) & 0xff) as u8).checked_sub(1)
    }
    fn queued(&self, lock: LockId) -> u16 {
        (self.memory.cells.get(self.lock_cell(lock)) >> 16) as u16
    }
    /// How often each actor holds it for reading, four bits each.
    fn readers(&self, lock: LockId) -> u64 {
        self.memory.cells.get(self.lock_cell(lock) + 1)
    }
    fn reading(&self, lock: LockId) -> u16 {
        let r = self.readers(lock);
        (0..16).filter(|a| r >> (4 * a) & 0xf != 0).fold(0, |m, a| m | 1 << a)
    }

    /// Actors (bits) that keep `actor` from taking the lock.
    fn holders(&self, actor: u8, lock: LockId, mode: Mode, queue: bool) -> u16 {
        let owner = self.owner(lock).map_or(0, |a| 1u16 << a);
        match mode {
            Mode::Write if is_rwsem(lock) => owner | self.reading(lock),
            Mode::Write => owner,
            Mode::Read if queue => owner | (self.queued(lock) & !(1 << actor)),
            Mode::Read => owner,
        }
    }

    pub(super) fn queue(&mut self, actor: u8, lock: LockId) {
        let cell = self.lock_cell(lock);
        self.memory.cells.set(cell, self.memory.cells.get(cell) | 1 << (16 + actor));
    }

    pub(super) fn acquire(&mut self, actor: u8, lock: LockId, mode: Mode) {
        if !lock.is_spinlock() {
            self.may_sleep(actor, "a sleeping lock is taken in atomic context");
        }
        self.take(actor, lock, mode);
    }

    pub(super) fn try_acquire(&mut self, actor: u8, lock: LockId, mode: Mode) -> bool {
        let free = self.holders(actor, lock, mode, true) == 0;
        if free {
            self.take(actor, lock, mode);
        }
        free
    }

    fn take(&mut self, actor: u8, lock: LockId, mode: Mode) {
        let cell = self.lock_cell(lock);
        match mode {
            Mode::Read => self.memory.cells.set(cell + 1, self.readers(lock).wrapping_add(1 << (4 * u32::from(actor)))),
            Mode::Write => {
                let queued = u64::from(self.queued(lock) & !(1 << actor)) << 16;
                self.memory.cells.set(cell, queued | (u64::from(actor) + 1));
            }
        }
        if lock.is_spinlock() {
            self.shift_context(actor, spin(lock), true);
        }
    }

    pub(super) fn release(&mut self, actor: u8, lock: LockId, mode: Mode) {
        let cell = self.lock_cell(lock);
        let held = match mode {
            Mode::Read => self.readers(lock) >> (4 * u32::from(actor)) & 0xf != 0,
            Mode::Write => self.owner(lock) == Some(actor),
        };
        if !held {
            self.breach(Invariant::LockOrder, actor, lock.index() as u64, "a lock is released that is not held");
            return;
        }
        match mode {
            Mode::Read => self.memory.cells.set(cell + 1, self.readers(lock).wrapping_sub(1 << (4 * u32::from(actor)))),
            Mode::Write => self.memory.cells.set(cell, self.memory.cells.get(cell) & !0xff),
        }
        if lock.is_spinlock() {
            self.shift_context(actor, spin(lock), false);
        }
    }

    /// Locks that the actor holds, with the mode.
    pub fn held(&self, actor: u8) -> impl Iterator<Item = (LockId, Mode)> + '_ {
        ALL.into_iter().filter_map(move |lock| {
            if self.owner(lock) == Some(actor) {
                Some((lock, Mode::Write))
            } else {
                (self.readers(lock) >> (4 * u32::from(actor)) & 0xf != 0).then_some((lock, Mode::Read))
            }
        })
    }

    #[inline]
    pub(super) fn context_cell(&self, actor: u8) -> Cell {
        self.fixed.context + Cell::from(actor)
    }
    fn shift_context(&mut self, actor: u8, unit: u64, up: bool) {
        let cell = self.context_cell(actor);
        let old = self.memory.cells.get(cell);
        self.memory.cells.set(cell, if up { old.wrapping_add(unit) } else { old.wrapping_sub(unit) });
    }
    pub(super) fn irq(&mut self, actor: u8, off: bool) {
        let nested = self.memory.cells.get(self.context_cell(actor)) & context::IRQ_MASK != 0;
        if off || nested {
            self.shift_context(actor, context::IRQ, off);
        }
    }
    fn irqs_off(&self, actor: u8) -> bool {
        self.memory.cells.get(self.context_cell(actor)) & context::IRQ_MASK != 0
    }
    /// Whoever sleeps under a spinlock, with interrupts off or in an RCU read section breaks I25.
    pub(super) fn may_sleep(&mut self, actor: u8, message: &'static str) {
        if self.memory.cells.get(self.context_cell(actor)) != 0 || self.rcu_depth(actor) != 0 {
            self.breach(Invariant::LockOrder, actor, 0, message);
        }
    }

    // ---- RCU ----
    fn rcu_cell(&self, actor: u8) -> Cell {
        self.fixed.rcu + Cell::from(actor)
    }
    fn rcu_depth(&self, actor: u8) -> u64 {
        self.memory.cells.get(self.rcu_cell(actor))
    }
    pub(super) fn rcu_lock(&mut self, actor: u8) {
        let cell = self.rcu_cell(actor);
        self.memory.cells.set(cell, self.rcu_depth(actor) + 1);
    }
    pub(super) fn rcu_unlock(&mut self, actor: u8) {
        let depth = self.rcu_depth(actor).saturating_sub(1);
        let cell = self.rcu_cell(actor);
        self.memory.cells.set(cell, depth);
        if depth == 0 {
            for waiter in 0..self.cpus {
                let cell = self.snapshot_cell(waiter);
                self.memory.cells.set(cell, self.memory.cells.get(cell) & !(1 << actor));
            }
        }
    }
    pub(super) fn snapshot_cell(&self, actor: u8) -> Cell {
        self.fixed.snapshot + Cell::from(actor)
    }
    pub(super) fn rcu_snapshot(&mut self, actor: u8) {
        self.may_sleep(actor, "synchronize_rcu in atomic context");
        let inside = (0..self.cpus).filter(|a| self.rcu_depth(*a) != 0).fold(0, |m, a| m | 1u64 << a);
        let cell = self.snapshot_cell(actor);
        self.memory.cells.set(cell, inside | SNAPSHOT);
    }

    // ---- pauses ----
    fn pauser(&self) -> Option<u8> {
        ((self.memory.cells.get(self.fixed.pause) & 0xff) as u8).checked_sub(1)
    }
    pub(super) fn pause(&mut self, actor: u8, stop_machine: bool) {
        if stop_machine {
            self.may_sleep(actor, "stop_machine in atomic context");
        }
        self.memory.cells.set(self.fixed.pause, (u64::from(actor) + 1) | if stop_machine { STOP_MACHINE } else { 0 });
    }
    pub(super) fn resume(&mut self) {
        self.memory.cells.set(self.fixed.pause, 0);
    }

    // ---- waiting ----
    /// Actors (bits) that a blocked operation waits for; 0 if it is not blocked, or waits for a variable.
    #[must_use]
    pub fn waits_for(&self, actor: u8, op: &Op) -> u16 {
        if let Some(p) = self.pauser().filter(|p| *p != actor && !op.is_local()) {
            return 1 << p;
        }
        let others = (0..self.cpus).filter(|a| *a != actor);
        match *op {
            Op::Acquire { lock, mode } => self.holders(actor, lock, mode, true),
            Op::RcuWait => self.memory.cells.get(self.snapshot_cell(actor)) as u16,
            Op::IpiPause => others.filter(|a| self.irqs_off(*a)).fold(0, |m, a| m | 1 << a),
            Op::StopMachineBegin => {
                let busy = |a: &u8| self.memory.cells.get(self.context_cell(*a)) != 0 || self.rcu_depth(*a) != 0;
                others.filter(busy).fold(0, |m, a| m | 1 << a)
            }
            _ => 0,
        }
    }

    /// Whether the operation cannot execute now.
    #[inline]
    pub(super) fn is_blocked(&self, actor: u8, op: &Op) -> bool {
        match *op {
            Op::WaitUntil { var, condition } => self.paused_by_other(actor) || !condition.holds(self.memory.cells.get(self.var_cell(var))),
            Op::Acquire { .. } | Op::RcuWait | Op::IpiPause | Op::StopMachineBegin => self.waits_for(actor, op) != 0,
            _ => self.paused_by_other(actor) && !op.is_local(),
        }
    }
    #[inline]
    fn paused_by_other(&self, actor: u8) -> bool {
        self.pauser().is_some_and(|p| p != actor)
    }

    // ---- promises that kernel code makes to itself ----
    pub(super) fn expect_stable(&mut self, actor: u8, on: bool) {
        let old = self.memory.cells.get(self.fixed.stable);
        let bit = 1 << actor;
        self.memory.cells.set(self.fixed.stable, if on { old | bit } else { old & !bit });
    }
    pub(super) fn exclusive(&mut self, actor: u8, what: Invariant, begin: bool) {
        let cell = self.exclusive_cell(what);
        let old = self.memory.cells.get(cell);
        let bit = 1 << actor;
        if begin && old & !bit != 0 {
            self.breach(what, actor, 0, "two CPUs are inside a section that only one may be in");
        }
        self.memory.cells.set(cell, if begin { old | bit } else { old & !bit });
    }
    pub(super) fn exclusive_cell(&self, what: Invariant) -> Cell {
        self.fixed.exclusive + Cell::from(what.number())
    }
}

/// What holding this spinlock adds to the context. `hugetlb_lock` is taken with interrupts off.
const fn spin(lock: LockId) -> u64 {
    context::SPIN + if matches!(lock, LockId::Hugetlb) { context::IRQ } else { 0 }
}
