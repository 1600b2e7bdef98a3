//! Locks, RCU and the other ways in which CPUs wait for each other. A blocked operation is not executed: it has no
//! outcome until it can.

use vmemmap_arch::{Invariant, LockId, Mode};

use super::cells::Cell;
use super::context::depth;
use super::lock_order::NewOrder;
use super::world::World;
use crate::op::{Op, is_rwsem};

/// Every lock once, by its dense number.
pub(super) const ALL: [LockId; LockId::COUNT] = [
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
    LockId::Subpool,
];

/// Those whose readers keep writers out.
const RWSEMS: u64 = {
    let (mut set, mut i) = (0, 0);
    while i < ALL.len() {
        if is_rwsem(ALL[i]) {
            set |= 1 << ALL[i].index();
        }
        i += 1;
    }
    set
};

/// `synchronize_rcu` is under way, in the actor's snapshot cell.
const SNAPSHOT: u64 = 1 << 32;

impl World {
    /// Owner + 1, then a bit for each queued writer from bit 16.
    #[inline]
    pub(super) fn lock_cell(&self, lock: LockId) -> Cell {
        self.fixed.locks + 2 * lock.index() as Cell
    }
    /// Location of the writers that queue. Only readers that come ask for them: a writer that queues commutes with
    /// other writers, and with whoever gives the lock back.
    #[inline]
    pub(super) fn queue_location(&self, lock: LockId) -> Cell {
        self.lock_cell(lock) + 1
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
        } else if self.options.preempt_rt && self.is_hard_atomic(actor) {
            self.violate(
                Invariant::LockOrder,
                actor,
                0,
                "a spinlock, which sleeps on PREEMPT_RT, is taken in atomic context",
            );
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
        self.note_order(actor, lock);
        let cell = self.lock_cell(lock);
        match mode {
            Mode::Read => self.memory.cells.set(cell + 1, self.readers(lock).wrapping_add(1 << (4 * u32::from(actor)))),
            Mode::Write => {
                let queued = u64::from(self.queued(lock) & !(1 << actor)) << 16;
                self.memory.cells.set(cell, queued | (u64::from(actor) + 1));
            }
        }
        self.note_held(actor, lock);
        if lock.is_spinlock() {
            self.shift_context(actor, self.spin(lock), true);
        }
    }

    pub(super) fn release(&mut self, actor: u8, lock: LockId, mode: Mode) {
        let cell = self.lock_cell(lock);
        let held = match mode {
            Mode::Read => self.readers(lock) >> (4 * u32::from(actor)) & 0xf != 0,
            Mode::Write => self.owner(lock) == Some(actor),
        };
        if !held {
            self.violate(Invariant::LockOrder, actor, lock.index() as u64, "a lock is released that is not held");
            return;
        }
        match mode {
            Mode::Read => self.memory.cells.set(cell + 1, self.readers(lock).wrapping_sub(1 << (4 * u32::from(actor)))),
            Mode::Write => self.memory.cells.set(cell, self.memory.cells.get(cell) & !0xff),
        }
        self.note_held(actor, lock);
        if lock.is_spinlock() {
            self.shift_context(actor, self.spin(lock), false);
        }
    }

    /// What holding this spinlock adds to the context: `hugetlb_lock` is taken with interrupts off, and on PREEMPT_RT a
    /// spinlock is a mutex that adds nothing.
    const fn spin(&self, lock: LockId) -> u64 {
        if self.options.preempt_rt {
            return 0;
        }
        depth::SPIN + if matches!(lock, LockId::Hugetlb) { depth::IRQ } else { 0 }
    }

    #[inline]
    pub(super) fn holds(&self, actor: u8, lock: LockId) -> bool {
        self.owner(lock) == Some(actor) || self.readers(lock) >> (4 * u32::from(actor)) & 0xf != 0
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

    /// Locks that the actor holds, as bits by their number: all that keep somebody out, and those that keep everybody
    /// out.
    #[must_use]
    pub fn locks(&self, actor: u8) -> (u64, u64) {
        let cell = self.fixed.held + 2 * Cell::from(actor);
        (self.memory.cells.get(cell), self.memory.cells.get(cell + 1))
    }

    /// Those of `locks` that the actor holds, and the one that this operation waits for: whenever it executes, nobody
    /// else holds one of them in a way that keeps it out.
    #[must_use]
    pub fn locks_at(&self, actor: u8, op: &Op) -> (u64, u64) {
        let (any, alone) = self.locks(actor);
        match *op {
            Op::Acquire { lock, mode } => {
                let (bit, writes) = (1 << lock.index(), mode == Mode::Write);
                let keeps_out = writes || is_rwsem(lock);
                (any | if keeps_out { bit } else { 0 }, alone | if writes { bit } else { 0 })
            }
            _ => (any, alone),
        }
    }

    /// Keeps `locks` in step with a lock that was taken or released.
    fn note_held(&mut self, actor: u8, lock: LockId) {
        let bit = 1 << lock.index();
        let alone = self.owner(lock) == Some(actor);
        let any = alone || (RWSEMS & bit != 0 && self.holds(actor, lock));
        let cell = self.fixed.held + 2 * Cell::from(actor);
        for (cell, holds) in [(cell, any), (cell + 1, alone)] {
            let others = self.memory.cells.get(cell) & !bit;
            self.memory.cells.set(cell, if holds { others | bit } else { others });
        }
    }

    // ---- order ----
    fn note_order(&mut self, actor: u8, taken: LockId) {
        if self.holds(actor, taken) {
            return;
        }
        for held in ALL {
            if self.holds(actor, held) {
                self.orders.note(NewOrder { held, taken, actor });
            }
        }
    }
    /// Orders that nobody has asked for yet.
    #[inline]
    pub fn new_order(&mut self) -> Option<NewOrder> {
        self.orders.fresh.pop()
    }

    // ---- RCU ----
    fn rcu_cell(&self, actor: u8) -> Cell {
        self.fixed.rcu + Cell::from(actor)
    }
    pub(super) fn rcu_depth(&self, actor: u8) -> u64 {
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

    // ---- waiting ----
    /// Actors (bits) that a blocked operation waits for; 0 if it is not blocked, or waits for a variable or a line.
    #[must_use]
    pub fn waits_for(&self, actor: u8, op: &Op) -> u16 {
        let own = match *op {
            Op::Acquire { lock, mode } => self.holders(actor, lock, mode, true),
            Op::RcuWait => self.memory.cells.get(self.snapshot_cell(actor)) as u16,
            Op::StopMachineBegin => self.not_preemptible(actor),
            Op::InterruptEnter if self.is_silent(actor) => return 0,
            _ => 0,
        };
        own | self.barred_by(actor, op) | self.awaited_buffers(actor, op)
    }

    /// Whether the operation cannot execute now.
    #[inline]
    pub(super) fn is_blocked(&self, actor: u8, op: &Op) -> bool {
        let own = match *op {
            Op::WaitUntil { var, condition } => !condition.holds(self.memory.cells.get(self.var_cell(var))),
            Op::InterruptEnter => self.is_silent(actor),
            Op::Acquire { .. } | Op::RcuWait | Op::StopMachineBegin => return self.waits_for(actor, op) != 0,
            _ => false,
        };
        own || self.barred_by(actor, op) != 0
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
            self.violate(what, actor, 0, "two CPUs are inside a section that only one may be in");
        }
        self.memory.cells.set(cell, if begin { old | bit } else { old & !bit });
    }
    pub(super) fn exclusive_cell(&self, what: Invariant) -> Cell {
        self.fixed.exclusive + Cell::from(what.number())
    }
}
