//! A CPU without checks: each method is the instruction it is named after, behind a bounds check.
//!
//! The bounds check is what makes a wild descriptor a report instead of undefined behaviour. There are no TLBs:
//! barriers order the host's memory accesses and are counted, invalidates are only counted. A thread takes no
//! interrupts: `send_ipi` and `stop_machine_begin` are counted and stop nobody, so schemes that rely on them belong on
//! the explored machine.

use core::cell::Cell;
use std::sync::atomic::{Ordering, fence};

use vmemmap_arch::{
    Alloc, Barrier, Cpu, Data, Desc, Entry, Fault, Frame, FrameKind, FrameList, Geometry, InUse, Invariant, Kind,
    LockId, Mode, Order, Pa, RangeOp, Rmw, Slot, Template, Tlbi, Until, Va, Var,
};

use crate::native::contents::{apply_rmw, load_order, rmw_order, store_order};
use crate::native::counters::{Count, Tally};
use crate::native::frame_state::bit;
use crate::native::locks::Patience;
use crate::native::machine::Machine;
use crate::native::ranges::{BadFree, Freeing};

/// One CPU of a machine, for one thread.
#[derive(Debug)]
pub struct Native<'m> {
    pub(crate) machine: &'m Machine,
    pub(crate) cpu: u8,
    pub(crate) tally: Tally,
    pub(crate) label: Cell<&'static str>,
    pub(crate) rcu_depth: Cell<u32>,
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
enum Access {
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
            tally: Tally::default(),
            label: Cell::new("start"),
            rcu_depth: Cell::new(0),
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
    fn wild(&self, pa: Pa) -> Desc {
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

    /// Walk the tables as they are now: the frame that `va` translates to, and the number of the word in it.
    fn translate(&self, va: Va, access: Access) -> Option<(u64, u64)> {
        let g = self.machine.geometry();
        let mut table = self.machine.root();
        let mut level = g.top();
        loop {
            let Some(word) = self.machine.word_at(table, u64::from(g.index(va, level))) else {
                self.wild(table);
                return None;
            };
            let desc = Desc(word.load(Ordering::Relaxed));
            match g.kind(desc, level) {
                Kind::Table(next) => {
                    table = next;
                    level = level.next();
                }
                Kind::Page(pa) | Kind::Block(pa) => {
                    if access == Access::Store && !desc.is_writable() {
                        self.report(
                            Invariant::SharedTailsReadOnly,
                            va.0,
                            format!("store to {va} through the read-only leaf {desc} of level {}", level.0),
                            Some(pa),
                        );
                        return None;
                    }
                    let pa = pa.plus(va.0 & (g.entry_span(level) - 1));
                    return Some((self.machine.frame_of(pa), (pa.0 & (g.page_size() - 1)) >> 3));
                }
                Kind::None | Kind::Invalid | Kind::Reserved if self.takes_fault() => return None,
                Kind::None | Kind::Invalid | Kind::Reserved => {
                    self.report(
                        Invariant::AlwaysTranslates,
                        va.0,
                        format!("{va} does not translate: {desc} at level {}", level.0),
                        None,
                    );
                    return None;
                }
            }
        }
    }
    /// A word that data access found outside memory.
    fn outside<T: Default>(&self, frame: u64) -> T {
        self.wild(self.machine.frame_pa(frame));
        T::default()
    }

    pub(crate) fn take(&self, request: Alloc) -> Option<u64> {
        let m = self.machine;
        let at = request.at.map(|pa| m.frame_of(pa));
        let found = if m.injection.fails(self.cpu) {
            None
        } else {
            m.take_run(request.order, request.kind, request.zone, at, request.top_down)
        };
        match found {
            Some(_) => self.tally.add(Count::FrameAllocated, 1 << request.order),
            None => self.tally.count(Count::AllocFailure),
        }
        found
    }
    /// Returns whether it was freed.
    pub(crate) fn give(&self, pa: Pa, order: u8, kind: FrameKind, how: Freeing, each: impl Fn(u64)) -> bool {
        match self.machine.give_run(pa, order, kind, how, each) {
            Ok(()) => {
                self.tally.add(Count::FrameFreed, 1 << order);
                if kind == FrameKind::Table {
                    self.tally.count(Count::TableFreed);
                }
                return true;
            }
            Err(BadFree::NotAllocated) => {
                self.report(
                    Invariant::FramesConserved,
                    pa.0,
                    format!("free of {pa}, which is not allocated"),
                    Some(pa),
                );
            }
            Err(BadFree::Mismatch(found)) => {
                let message = match found.kind() {
                    _ if found.has(bit::TAIL) => {
                        format!("free of {pa}, which lies inside a run of order {}", found.order())
                    }
                    Some(k) => {
                        format!("free of {pa} as {kind:?} of order {order}; it is {k:?} of order {}", found.order())
                    }
                    None => format!("free of {pa}, which is not allocated"),
                };
                self.report(Invariant::FramesConserved, pa.0, message, Some(pa));
            }
            Err(BadFree::SelfHosted) => {
                self.report(
                    Invariant::SelfHostedUntouched,
                    pa.0,
                    format!("self-hosted frame {pa} returned to the allocator"),
                    Some(pa),
                );
            }
        }
        false
    }

    // ---- lists: previous frame in the high half of a frame's link word, next in the low half; itself: none ----
    #[inline(always)]
    pub(crate) fn push<T: Copy>(&self, list: &mut FrameList<T>, frame: Frame<T>) {
        let n = self.machine.frame_of(frame.pa) & 0xffff_ffff;
        let Some(link) = self.machine.states.link(n) else {
            self.wild(frame.pa);
            return;
        };
        match list.last {
            None => {
                link.store(n << 32 | n, Ordering::Relaxed);
                list.first = Some(frame);
            }
            Some(last) => {
                let l = self.machine.frame_of(last.pa);
                link.store(l << 32 | n, Ordering::Relaxed);
                if let Some(before) = self.machine.states.link(l) {
                    let old = before.load(Ordering::Relaxed);
                    before.store(old & !0xffff_ffff | n, Ordering::Relaxed);
                }
            }
        }
        list.last = Some(frame);
        list.len += 1;
    }
    /// `push` of all of them: each link is stored once, when the frame after it is known.
    #[inline(always)]
    pub(crate) fn push_each<T: Copy>(&self, list: &mut FrameList<T>, frames: impl Iterator<Item = Frame<T>>) {
        let (number, links) = (self.machine.frame_numbers(), self.machine.states.links());
        let linked = |frame: Frame<T>| {
            let n = number(frame.pa) & 0xffff_ffff;
            let link = links.get(n as usize);
            if link.is_none() {
                self.wild(frame.pa);
            }
            link.map(|link| (frame, n, link))
        };
        let mut frames = frames.filter_map(linked);
        let (mut previous, mut end) = match list.last {
            Some(last) => {
                let Some(end) = linked(last) else { return };
                (end.2.load(Ordering::Relaxed) >> 32, end)
            }
            None => {
                let Some(end) = frames.next() else { return };
                list.first = Some(end.0);
                list.len = 1;
                (end.1, end)
            }
        };
        let mut len = list.len;
        for next in frames {
            end.2.store(previous << 32 | next.1, Ordering::Relaxed);
            (previous, end) = (end.1, next);
            len += 1;
        }
        end.2.store(previous << 32 | end.1, Ordering::Relaxed);
        list.last = Some(end.0);
        list.len = len;
    }
    /// Number of the neighbour of a frame on its list.
    fn neighbour(&self, pa: Pa, previous: bool) -> Option<u64> {
        let n = self.machine.frame_of(pa);
        let link = self.machine.states.link(n)?.load(Ordering::Relaxed);
        let other = if previous { link >> 32 } else { link & 0xffff_ffff };
        (other != n).then_some(other)
    }
    /// `handle` makes a handle of the frame's number.
    pub(crate) fn pop<T: Copy>(&self, list: &mut FrameList<T>, handle: impl Fn(u64) -> Frame<T>) -> Option<Frame<T>> {
        let last = list.last?;
        list.last = if list.len > 1 { self.neighbour(last.pa, true).map(handle) } else { None };
        self.shrink(list, false);
        Some(last)
    }
    pub(crate) fn shift<T: Copy>(&self, list: &mut FrameList<T>, handle: impl Fn(u64) -> Frame<T>) -> Option<Frame<T>> {
        let first = list.first?;
        list.first = if list.len > 1 { self.neighbour(first.pa, false).map(handle) } else { None };
        self.shrink(list, true);
        Some(first)
    }
    fn shrink<T: Copy>(&self, list: &mut FrameList<T>, at_front: bool) {
        list.len = list.len.saturating_sub(1);
        let end = if at_front { list.first } else { list.last };
        let Some(end) = end else {
            *list = FrameList::new();
            return;
        };
        let n = self.machine.frame_of(end.pa);
        if let Some(link) = self.machine.states.link(n) {
            let old = link.load(Ordering::Relaxed);
            link.store(if at_front { n << 32 | old & 0xffff_ffff } else { old & !0xffff_ffff | n }, Ordering::Relaxed);
        }
    }
}

impl Drop for Native<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// What a barrier counts as.
#[inline]
fn counted(barrier: Barrier) -> Count {
    match barrier {
        Barrier::DsbIshst | Barrier::DsbIsh | Barrier::DsbNsh => Count::Dsb,
        Barrier::Isb => Count::Isb,
        Barrier::SmpMb | Barrier::SmpRmb | Barrier::SmpWmb => Count::Smp,
    }
}

/// What a barrier orders among the host's accesses.
#[inline]
fn ordering(barrier: Barrier) -> Option<Ordering> {
    match barrier {
        Barrier::DsbIshst | Barrier::SmpWmb => Some(Ordering::Release),
        Barrier::DsbIsh | Barrier::DsbNsh => Some(Ordering::AcqRel),
        Barrier::SmpMb => Some(Ordering::SeqCst),
        Barrier::SmpRmb => Some(Ordering::Acquire),
        Barrier::Isb => None,
    }
}

impl Cpu for Native<'_> {
    type Tok = ();
    const LIST_BATCH: usize = 8;

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
        let first = self.machine.word_number(at.table, u64::from(at.index)) as usize;
        let Some(words) = first.checked_add(count).and_then(|end| self.machine.words.words().get(first..end)) else {
            self.wild(at.table);
            return;
        };
        self.tally.add(Count::Read, count as u64);
        for (index, word) in (at.index..).zip(words) {
            each(index, Entry { desc: Desc(word.load(Ordering::Relaxed)), tok: () });
        }
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
    }
    #[inline]
    fn swap(&self, at: Slot<()>, new: Desc, order: Order) -> Entry<()> {
        self.tally.count(Count::Exchange);
        let desc = match self.machine.word_at(at.table, u64::from(at.index)) {
            Some(word) => Desc(word.swap(new.0, rmw_order(order))),
            None => self.wild(at.table),
        };
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
        let first = self.machine.word_number(at.table, u64::from(at.index)) as usize;
        let Some(words) = first.checked_add(count).and_then(|end| self.machine.words.words().get(first..end)) else {
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
    }
    #[inline]
    fn compare_exchange(&self, at: Slot<()>, old: Desc, new: Desc, order: Order) -> Result<Entry<()>, Entry<()>> {
        self.tally.count(Count::Exchange);
        let entry = |word| Entry { desc: Desc(word), tok: () };
        match self.machine.word_at(at.table, u64::from(at.index)) {
            Some(word) => {
                word.compare_exchange(old.0, new.0, rmw_order(order), load_order(order)).map(entry).map_err(entry)
            }
            None => Err(Entry { desc: self.wild(at.table), tok: () }),
        }
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
        let Some((frame, index)) = self.translate(va, Access::Load) else { return 0 };
        self.machine.read_word(frame, index, order).unwrap_or_else(|| self.outside(frame))
    }
    fn store(&self, va: Va, value: u64, order: Order) {
        self.tally.count(Count::Store);
        let Some((frame, index)) = self.translate(va, Access::Store) else { return };
        match self.machine.real_word(frame, index) {
            Some(word) => word.store(value, store_order(order)),
            None => self.outside(frame),
        }
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
        let Some((frame, index)) = self.translate(va, Access::Store) else { return 0 };
        match self.machine.real_word(frame, index) {
            Some(word) => apply_rmw(word, op, order),
            None => self.outside(frame),
        }
    }
    fn fill(&self, va: Va, template: Template) {
        self.tally.count(Count::Store);
        let Some((frame, _)) = self.translate(va, Access::Store) else { return };
        self.machine.set_template(frame, template).unwrap_or_else(|| self.outside(frame));
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
        self.machine.copy_words(from, to).unwrap_or_else(|| self.outside(to));
    }
    fn copy_from_va(&self, from: Va, to: Frame<()>) {
        let Some((from, _)) = self.translate(from, Access::Load) else { return };
        let to = self.machine.frame_of(to.pa);
        self.machine.copy_words(from, to).unwrap_or_else(|| self.outside(to));
    }
    fn copy_tail_frame(&self, from: Frame<()>, to: Frame<()>, reset: u16) {
        if !self.machine.copy_as_tails(self.machine.frame_of(from.pa), self.machine.frame_of(to.pa), reset) {
            self.copy_frame(from, to);
            self.reset_tails(to, reset);
        }
    }
    fn copy_tail_from_va(&self, from: Va, to: Frame<()>, reset: u16) {
        let Some((frame, _)) = self.translate(from, Access::Load) else { return };
        let from = Frame { pa: self.machine.frame_pa(frame), tok: () };
        self.copy_tail_frame(from, to, reset);
    }
    fn fill_frame(&self, frame: Frame<()>, template: Template) {
        let f = self.machine.frame_of(frame.pa);
        self.machine.set_template(f, template).unwrap_or_else(|| self.outside(f));
    }
    fn load_frame(&self, frame: Frame<()>, index: u16) -> u64 {
        let f = self.machine.frame_of(frame.pa);
        self.machine.read_word(f, u64::from(index), Order::Plain).unwrap_or_else(|| self.outside(f))
    }
    fn store_frame(&self, frame: Frame<()>, index: u16, value: u64) {
        let f = self.machine.frame_of(frame.pa);
        match self.machine.real_word(f, u64::from(index)) {
            Some(word) => word.store(value, Ordering::Relaxed),
            None => self.outside(f),
        }
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

    fn acquire(&self, lock: LockId, mode: Mode) {
        self.tally.count(Count::Lock);
        self.machine.locks.get(lock).acquire(mode);
    }
    fn try_acquire(&self, lock: LockId, mode: Mode) -> bool {
        let taken = self.machine.locks.get(lock).try_acquire(mode);
        if taken {
            self.tally.count(Count::Lock);
        }
        taken
    }
    fn release(&self, lock: LockId, mode: Mode) {
        if !self.machine.locks.get(lock).release(mode) {
            self.report(Invariant::LockOrder, 0, format!("release of {}, which is not held", lock.name()), None);
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
        self.machine.vars.get(u64::from(var.0)).map_or(0, |w| apply_rmw(w, op, order))
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
