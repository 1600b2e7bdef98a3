//! A CPU without checks: each method is the instruction it is named after, behind a bounds check.
//!
//! The bounds check is what makes a wild descriptor a report instead of undefined behaviour. There are no TLBs:
//! barriers order the host's memory accesses and are counted, invalidates are only counted. A thread takes no
//! interrupts: `send_ipi` and `stop_machine_begin` are counted and stop nobody, so schemes that rely on them belong on
//! the explored machine.

use core::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use vmemmap_arch::{
    Alloc, Barrier, Cpu, Data, Desc, Entry, Fault, Frame, FrameKind, FrameList, Geometry, InUse, Invariant, Level,
    LockId, Mode, Order, Pa, RangeOp, Rmw, Slot, Template, Tlbi, Until, Va, Var, Zone,
};

use crate::native::barriers::{counted, ordering};
use crate::native::contents::{Filling, Reached, apply_rmw, load_order, rmw_order, store_order};
use crate::native::counters::{Count, Tally};
use crate::native::frame_state::bit;
use crate::native::locks::Patience;
use crate::native::machine::Machine;
use crate::native::ranges::Freeing;
use crate::native::running::{Change, Seat};

/// The table of PTEs that a walk ended in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walked {
    /// The address that its first entry maps.
    pub first: Va,
    pub table: Pa,
    /// The number of its first word.
    pub words: u64,
    /// `Machine::upper_stores` before the walk.
    pub version: u64,
}

impl Walked {
    /// None: no table maps that address first.
    pub const NONE: Self = Self { first: Va(u64::MAX), table: Pa(0), words: 0, version: 0 };
}

/// One CPU of a machine, for one thread.
#[derive(Debug)]
pub struct Native<'m> {
    pub(crate) machine: &'m Machine,
    pub(crate) cpu: u8,
    pub(super) seat: Seat<'m>,
    pub(crate) tally: Tally,
    pub(crate) label: Cell<&'static str>,
    pub(crate) rcu_depth: Cell<u32>,
    pub(super) walked: Cell<Walked>,
    /// `attempt` is under way: a translation fault is its answer and no violation.
    pub(crate) attempt: Cell<Attempt>,
}

/// Where an `attempt` is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attempt {
    Not,
    UnderWay,
    Faulted,
}

/// What an access through a virtual address is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Load,
    Store,
}

impl Machine {
    /// A CPU without checks. At most one CPU of a number may be in use at a time.
    #[must_use]
    pub fn cpu(&self, number: u8) -> Native<'_> {
        self.void_records();
        Native::new(self, number.min(self.cpus() - 1))
    }
}

impl<'m> Native<'m> {
    pub(crate) fn new(machine: &'m Machine, cpu: u8) -> Self {
        Self {
            machine,
            cpu,
            seat: machine.running.begin(cpu),
            tally: Tally::default(),
            label: Cell::new("start"),
            rcu_depth: Cell::new(0),
            walked: Cell::new(Walked::NONE),
            attempt: Cell::new(Attempt::Not),
        }
    }
    #[must_use]
    pub fn machine(&self) -> &'m Machine {
        self.machine
    }
    /// Add this CPU's counts to the machine's; also done on drop.
    pub fn flush(&self) {
        self.tally.fold(&self.machine.counters, self.cpu);
    }

    #[cold]
    pub(crate) fn report(&self, invariant: Invariant, address: u64, message: String, frame: Option<Pa>) {
        self.machine.report(self.cpu, self.label.get(), invariant, address, message, frame);
    }
    #[cold]
    #[inline(never)]
    pub(super) fn wild(&self, pa: Pa) -> Desc {
        self.report(
            Invariant::TreeWellFormed,
            pa.0,
            format!("access to {pa}, which is not memory of this machine"),
            None,
        );
        Desc::NONE
    }

    /// The access, of which a translation fault is an answer: `perform` makes it as always.
    pub(crate) fn attempted(&self, perform: impl FnOnce() -> u64) -> Result<u64, Fault> {
        self.attempt.set(Attempt::UnderWay);
        let value = perform();
        if self.attempt.replace(Attempt::Not) == Attempt::Faulted { Err(Fault) } else { Ok(value) }
    }
    /// Whether a translation fault is taken as an answer.
    #[cold]
    pub(crate) fn takes_fault(&self) -> bool {
        let taken = self.attempt.get() != Attempt::Not;
        if taken {
            self.attempt.set(Attempt::Faulted);
        }
        taken
    }

    /// `change` of what CPUs share, by plain loads and stores if no other CPU runs meanwhile.
    #[inline(always)]
    pub(super) fn changing<R>(&self, change: impl FnOnce(Change) -> R) -> R {
        let section = self.seat.section();
        change(section.change())
    }
    /// Access what `va` translates to; again, if the frame was taken out of the tables in between.
    #[inline(always)]
    fn reach<T: Default>(&self, va: Va, access: Access, perform: impl Fn(u64, u64) -> Reached<T>) -> T {
        let Some((frame, index)) = self.translate(va, access) else { return T::default() };
        match perform(frame, index) {
            Reached::Done(value) => value,
            Reached::Outside => self.outside(frame),
            Reached::Listed => self.reach_again(va, access, perform),
        }
    }
    #[cold]
    #[inline(never)]
    fn reach_again<T: Default>(&self, va: Va, access: Access, perform: impl Fn(u64, u64) -> Reached<T>) -> T {
        let mut patience = Patience::default();
        loop {
            patience.wait();
            let Some((frame, index)) = self.translate(va, access) else { return T::default() };
            match perform(frame, index) {
                Reached::Done(value) => return value,
                Reached::Outside => return self.outside(frame),
                Reached::Listed => {}
            }
        }
    }
    /// A descriptor was stored in a table of that level.
    #[inline(always)]
    fn stored(&self, level: Level) {
        if level != Level::PTE {
            self.machine.stored_above_ptes();
        }
    }
    /// A word that data access found outside memory.
    #[cold]
    #[inline(never)]
    pub(super) fn outside<T: Default>(&self, frame: u64) -> T {
        self.wild(self.machine.frame_pa(frame));
        T::default()
    }
    #[cold]
    #[inline(never)]
    fn not_held(&self, lock: LockId) {
        self.report(Invariant::LockOrder, 0, format!("release of {}, which is not held", lock.name()), None);
    }
}

impl Drop for Native<'_> {
    fn drop(&mut self) {
        // A thread that panicked in an access may have left its pin.
        self.machine.watch.pins.unpin(self.cpu);
        self.machine.frames.drain(self.cpu);
        self.flush();
    }
}

/// READ_ONCE.
#[inline(always)]
pub(super) fn word(at: &AtomicU64) -> u64 {
    at.load(Ordering::Relaxed)
}

impl Cpu for Native<'_> {
    type Tok = ();
    const LIST_BATCH: usize = 8;
    const KEEPS_TABLES: bool = true;

    #[inline]
    fn id(&self) -> u8 {
        self.cpu
    }
    #[inline]
    fn label(&self, function: &'static str) {
        self.label.set(function);
    }

    #[inline]
    fn root(&self) -> Frame<()> {
        Frame { pa: self.machine.root(), tok: () }
    }
    #[inline]
    fn read(&self, at: Slot<()>, order: Order) -> Entry<()> {
        self.tally.count(Count::Read);
        let desc = match self.machine.word_at(at.table, u64::from(at.index)) {
            Some(word) => Desc(word.load(load_order(order))),
            None => self.wild(at.table),
        };
        Entry { desc, tok: () }
    }
    #[inline]
    fn read_each(&self, at: Slot<()>, count: usize, mut each: impl FnMut(u16, Entry<()>)) {
        let Some(words) = self.words_from(at, count) else {
            self.wild(at.table);
            return;
        };
        self.tally.add(Count::Read, count as u64);
        for (index, word) in (at.index..).zip(words) {
            each(index, Entry { desc: Desc(word.load(Ordering::Relaxed)), tok: () });
        }
    }
    #[inline]
    fn read_changes(&self, at: Slot<()>, count: usize, mask: u64, each: impl FnMut(u16, u64)) {
        self.changes_from(at, count, mask, each);
    }
    #[inline]
    fn skip_none(&self, at: Slot<()>, entries: usize) -> usize {
        self.none_from(at, entries)
    }
    #[inline]
    fn write_each(&self, at: Slot<()>, count: usize, then: &[Barrier], mut new: impl FnMut(u16) -> Desc) {
        let Some(words) = self.words_from(at, count) else {
            self.wild(at.table);
            return;
        };
        self.tally.add(Count::Write, count as u64);
        then.iter().for_each(|&barrier| self.tally.add(counted(barrier), count as u64));
        let orders = !then.is_empty();
        for (index, word) in (at.index..).zip(words) {
            word.store(new(index).0, Ordering::Relaxed);
            if orders {
                fence(Ordering::AcqRel);
            }
        }
        self.stored(at.level);
    }
    #[inline]
    fn update_each(&self, slot: Slot<()>, count: usize, mut each: impl FnMut(u16, Entry<()>) -> Option<Desc>) {
        let Some(words) = self.words_from(slot, count) else {
            self.wild(slot.table);
            return;
        };
        let mut writes = 0;
        for (index, at) in (slot.index..).zip(words) {
            if let Some(new) = each(index, Entry { desc: Desc(word(at)), tok: () }) {
                at.store(new.0, Ordering::Relaxed);
                writes += 1;
            }
        }
        self.tally.add(Count::Read, count as u64);
        self.tally.add(Count::Write, writes);
        self.stored(slot.level);
    }
    #[inline]
    fn write(&self, at: Slot<()>, new: Desc, order: Order) {
        self.tally.count(Count::Write);
        match self.machine.word_at(at.table, u64::from(at.index)) {
            Some(word) => word.store(new.0, store_order(order)),
            None => {
                self.wild(at.table);
            }
        }
        self.stored(at.level);
    }
    #[inline]
    fn swap(&self, at: Slot<()>, new: Desc, order: Order) -> Entry<()> {
        self.tally.count(Count::Exchange);
        let desc = match self.machine.word_at(at.table, u64::from(at.index)) {
            Some(word) => Desc(word.swap(new.0, rmw_order(order))),
            None => self.wild(at.table),
        };
        self.stored(at.level);
        Entry { desc, tok: () }
    }
    #[inline(always)]
    fn swap_each(
        &self,
        at: Slot<()>,
        count: usize,
        new: Desc,
        order: Order,
        then: &[Barrier],
        mut each: impl FnMut(Entry<()>),
    ) {
        let Some(words) = self.words_from(at, count) else {
            self.wild(at.table);
            return;
        };
        self.tally.add(Count::Exchange, count as u64);
        then.iter().for_each(|&barrier| self.tally.add(counted(barrier), count as u64));
        let full = then.contains(&Barrier::SmpMb);
        let order = rmw_order(order);
        for word in words {
            let old = word.swap(new.0, order);
            fence(if full { Ordering::SeqCst } else { Ordering::AcqRel });
            each(Entry { desc: Desc(old), tok: () });
        }
        self.stored(at.level);
    }
    #[inline]
    fn compare_exchange(&self, at: Slot<()>, old: Desc, new: Desc, order: Order) -> Result<Entry<()>, Entry<()>> {
        self.tally.count(Count::Exchange);
        let entry = |word| Entry { desc: Desc(word), tok: () };
        let found = match self.machine.word_at(at.table, u64::from(at.index)) {
            Some(word) => {
                word.compare_exchange(old.0, new.0, rmw_order(order), load_order(order)).map(entry).map_err(entry)
            }
            None => Err(Entry { desc: self.wild(at.table), tok: () }),
        };
        self.stored(at.level);
        found
    }

    #[inline]
    fn barrier(&self, barrier: Barrier) {
        self.tally.count(counted(barrier));
        if let Some(order) = ordering(barrier) {
            fence(order);
        }
    }
    #[inline]
    fn tlbi(&self, _op: Tlbi) {
        self.tally.count(Count::Tlbi);
    }

    fn load(&self, va: Va, order: Order) -> u64 {
        self.tally.count(Count::Load);
        self.reach(va, Access::Load, |frame, index| self.machine.read_word(frame, index, order))
    }
    fn store(&self, va: Va, value: u64, order: Order) {
        self.tally.count(Count::Store);
        self.reach(va, Access::Store, |frame, index| {
            self.changing(|how| self.machine.store_word(frame, index, value, order, how))
        });
    }
    fn rmw(&self, va: Va, op: Rmw, order: Order) -> u64 {
        self.tally.count(Count::Store);
        if let Rmw::StoreExclusive { old, .. } = op {
            // Without a store there is nothing to be refused.
            let found = self.load(va, order);
            if found != old {
                return found;
            }
        }
        self.reach(va, Access::Store, |frame, index| {
            self.changing(|how| self.machine.rmw_word(frame, index, op, order, how))
        })
    }
    fn store_each(&self, va: Va, words: &[(u64, u64)]) {
        let entries = self.geometry().entries() as u64;
        let Some((frame, first)) = self.translate(va, Access::Store) else { return };
        let inside = words.iter().all(|&(index, _)| first + index < entries);
        if inside && self.changing(|how| self.machine.store_symbol(frame, first, words, how)) {
            self.tally.add(Count::Store, words.len() as u64);
        } else {
            words.iter().for_each(|&(index, value)| self.store(va.plus(index * 8), value, Order::Plain));
        }
    }
    fn fill(&self, va: Va, template: Template) {
        self.tally.count(Count::Store);
        let Some((frame, _)) = self.translate(va, Access::Store) else { return };
        self.fill_found(frame, template);
    }
    fn fill_each(&self, va: Va, pages: u64, template: Template) {
        let filling = Filling::of(template);
        self.changing(|how| {
            self.each_leaf(va, pages, |va, level, desc| {
                self.tally.count(Count::Store);
                if let Some((frame, _)) = self.output(va, level, desc, Access::Store) {
                    self.machine.fill(frame, filling, how).unwrap_or_else(|| self.outside(frame));
                }
                true
            });
        });
    }
    fn skip_filled(&self, va: Va, pages: u64, template: Template) -> u64 {
        let (filling, mut filled) = (Filling::of(template), 0);
        self.each_leaf(va, pages, |va, level, desc| {
            let Some((frame, _)) = self.found(va, level, desc, Access::Load) else { return false };
            let found = self.machine.is_filled(frame, filling);
            filled += u64::from(found);
            found
        });
        self.tally.add(Count::Load, filled * self.geometry().entries() as u64);
        filled
    }
    fn attempt(&self, access: Data<()>) -> Result<u64, Fault> {
        self.attempted(|| access.perform(self))
    }
    #[inline]
    fn speculate(&self, _va: Va) {}
    fn iommu_walk(&self, _va: Va) {}
    fn iommu_invalidate(&self) {}
    fn memory_gone(&self, _start: Pa, _bytes: u64) {}

    fn alloc(&self, request: Alloc) -> Option<Frame<()>> {
        self.take(request).map(|f| Frame { pa: self.machine.frame_pa(f), tok: () })
    }
    #[inline]
    fn alloc_each(&self, request: Alloc, count: usize, mut each: impl FnMut(Frame<()>)) -> usize {
        let m = self.machine;
        let plain = matches!(request.kind, FrameKind::Vmemmap | FrameKind::Data) && request.zone == Zone::Normal;
        if !plain || request.order != 0 || request.at.is_some() || m.injection.is_armed(self.cpu) {
            return (0..count).take_while(|_| self.alloc(request).map(&mut each).is_some()).count();
        }
        let frame = |n| Frame { pa: m.frame_pa(n), tok: () };
        let taken = m.take_each(self.cpu, &self.seat, request.kind, request.top_down, count, |n| each(frame(n)));
        self.tally.add(Count::FrameAllocated, taken as u64);
        self.tally.add(Count::AllocFailure, u64::from(taken < count));
        taken
    }
    fn free(&self, frame: Frame<()>, order: u8, kind: FrameKind) {
        self.give(frame.pa, order, kind, Freeing::default(), |_| {});
    }
    #[inline]
    fn frame_of(&self, _entry: Entry<()>, pa: Pa) -> Frame<()> {
        Frame { pa, tok: () }
    }
    fn split_frame(&self, frame: Frame<()>, order: u8) {
        self.machine.split_run(frame.pa, order, 0);
    }
    fn split_run(&self, frame: Frame<()>, order: u8, into: u8) {
        self.machine.split_run(frame.pa, order, into);
    }
    fn is_reserved(&self, frame: Frame<()>) -> bool {
        self.machine.states.get(self.machine.frame_of(frame.pa)).has(bit::RESERVED)
    }
    fn copy_frame(&self, from: Frame<()>, to: Frame<()>) {
        let (from, to) = (self.machine.frame_of(from.pa), self.machine.frame_of(to.pa));
        self.machine.copy_words(from, to).directly().unwrap_or_else(|| self.outside(to));
    }
    fn copy_from_va(&self, from: Va, to: Frame<()>) {
        let to = self.machine.frame_of(to.pa);
        self.reach(from, Access::Load, |from, _| self.machine.copy_words(from, to));
    }
    fn copy_tail_frame(&self, from: Frame<()>, to: Frame<()>, reset: u16) {
        self.copy_tail_frames(from, core::iter::once(to), reset);
    }
    fn copy_tail_from_va(&self, from: Va, to: Frame<()>, reset: u16) {
        let Some((frame, _)) = self.translate(from, Access::Load) else { return };
        let from = Frame { pa: self.machine.frame_pa(frame), tok: () };
        self.copy_tail_frame(from, to, reset);
    }
    fn copy_tails_from_va(&self, from: Va, mut to: impl Iterator<Item = Frame<()>>, reset: u16) {
        let Some(first) = to.next() else { return };
        let Some((frame, _)) = self.translate(from, Access::Load) else { return };
        let from = Frame { pa: self.machine.frame_pa(frame), tok: () };
        self.copy_tail_frames(from, core::iter::once(first).chain(to), reset);
    }
    fn fill_frame(&self, frame: Frame<()>, template: Template) {
        self.fill_found(self.machine.frame_of(frame.pa), template);
    }
    fn load_frame(&self, frame: Frame<()>, index: u16) -> u64 {
        let f = self.machine.frame_of(frame.pa);
        self.machine.read_word(f, u64::from(index), Order::Plain).directly().unwrap_or_else(|| self.outside(f))
    }
    fn store_frame(&self, frame: Frame<()>, index: u16, value: u64) {
        let f = self.machine.frame_of(frame.pa);
        let stored = self.changing(|how| self.machine.store_word(f, u64::from(index), value, Order::Plain, how));
        stored.directly().unwrap_or_else(|| self.outside(f));
    }
    #[inline(always)]
    fn list_push(&self, list: &mut FrameList<()>, frame: Frame<()>) {
        self.push(list, frame);
    }
    #[inline(always)]
    fn list_push_each(&self, list: &mut FrameList<()>, frames: impl Iterator<Item = Frame<()>>) {
        self.push_each(list, frames);
    }
    fn list_pop(&self, list: &mut FrameList<()>) -> Option<Frame<()>> {
        self.pop(list, |n| Frame { pa: self.machine.frame_pa(n), tok: () })
    }
    fn list_shift(&self, list: &mut FrameList<()>) -> Option<Frame<()>> {
        self.shift(list, |n| Frame { pa: self.machine.frame_pa(n), tok: () })
    }
    fn list_free(&self, list: &mut FrameList<()>, kind: FrameKind) {
        self.give_each(list, kind);
    }
    fn range_op(&self, start: Pa, bytes: u64, op: RangeOp) -> Result<(), InUse> {
        self.machine.apply_range_op(start, bytes, op)
    }
    fn range_in_use(&self, start: Pa, bytes: u64) -> Option<InUse> {
        self.machine.in_use(start, bytes)
    }
    fn claim_self_hosted(&self, start: Pa, frames: u64) -> Frame<()> {
        self.machine.claim_storage(start, frames);
        Frame { pa: start, tok: () }
    }
    fn release_self_hosted(&self, frame: Frame<()>, frames: u64) {
        self.machine.release_storage(frame.pa, frames);
    }
    fn is_self_hosted(&self, frame: Frame<()>) -> bool {
        self.machine.states.get(self.machine.frame_of(frame.pa)).has(bit::SELF_HOSTED)
    }

    #[inline]
    fn acquire(&self, lock: LockId, mode: Mode) {
        self.tally.count(Count::Lock);
        let lock = self.machine.locks.get(lock);
        if !self.changing(|how| lock.try_acquire(mode, how)) {
            lock.wait(mode);
        }
    }
    fn try_acquire(&self, lock: LockId, mode: Mode) -> bool {
        let taken = self.changing(|how| self.machine.locks.get(lock).try_acquire(mode, how));
        if taken {
            self.tally.count(Count::Lock);
        }
        taken
    }
    #[inline]
    fn release(&self, lock: LockId, mode: Mode) {
        if !self.changing(|how| self.machine.locks.get(lock).release(mode, how)) {
            self.not_held(lock);
        }
    }

    fn var_load(&self, var: Var, order: Order) -> u64 {
        self.machine.vars.get(u64::from(var.0)).map_or(0, |w| w.load(load_order(order)))
    }
    fn var_store(&self, var: Var, value: u64, order: Order) {
        if let Some(w) = self.machine.vars.get(u64::from(var.0)) {
            w.store(value, store_order(order));
        }
    }
    fn var_rmw(&self, var: Var, op: Rmw, order: Order) -> u64 {
        self.machine.vars.get(u64::from(var.0)).map_or(0, |w| self.changing(|how| apply_rmw(w, op, order, how)))
    }
    fn wait_until(&self, var: Var, condition: Until) -> u64 {
        let mut patience = Patience::default();
        loop {
            let word = self.var_load(var, Order::Acquire);
            if condition.holds(word) || self.signal_pending() {
                return word;
            }
            patience.wait();
        }
    }

    fn rcu_read_lock(&self) {
        if self.rcu_depth.replace(self.rcu_depth.get() + 1) == 0 {
            self.machine.rcu.enter(self.cpu);
        }
    }
    fn rcu_read_unlock(&self) {
        let depth = self.rcu_depth.get();
        if depth == 0 {
            self.report(Invariant::LockOrder, 0, "rcu_read_unlock without rcu_read_lock".to_owned(), None);
            return;
        }
        self.rcu_depth.set(depth - 1);
        if depth == 1 {
            self.machine.rcu.leave(self.cpu);
        }
    }
    fn synchronize_rcu(&self) {
        self.tally.count(Count::GracePeriod);
        if self.rcu_depth.get() != 0 {
            self.report(
                Invariant::LockOrder,
                0,
                "synchronize_rcu inside an RCU read section waits for itself".to_owned(),
                None,
            );
            return;
        }
        self.machine.rcu.synchronize();
    }
    #[inline]
    fn irq_disable(&self) {}
    #[inline]
    fn irq_enable(&self) {}
    fn send_ipi(&self, _line: Var) -> u64 {
        self.tally.add(Count::Ipi, u64::from(self.machine.cpus()) - 1);
        0
    }
    fn stop_machine_begin(&self) {
        self.tally.add(Count::Ipi, u64::from(self.machine.cpus()) - 1);
    }
    fn stop_machine_end(&self) {}

    fn signal_pending(&self) -> bool {
        self.machine.signal()
    }
    fn warn(&self, what: Invariant, address: u64, message: &'static str) {
        self.report(what, address, message.to_owned(), None);
    }
    #[inline]
    fn expect_stable(&self, _on: bool) {}
    fn exclusive(&self, what: Invariant, begin: bool) {
        if let Some(others) = self.machine.watch.exclusive(self.cpu, what, begin) {
            let other = self.machine.actor(others.trailing_zeros() as u8);
            self.report(
                what,
                0,
                format!("{} overlaps with {other}, which holds the same exclusive right", self.label.get()),
                None,
            );
        }
    }
    #[inline]
    fn choose(&self, _n: u32, _why: &'static str) -> u32 {
        0
    }
    #[inline]
    fn round(&self, _state: u64) {}

    #[inline]
    fn geometry(&self) -> &Geometry {
        self.machine.geometry()
    }
}
