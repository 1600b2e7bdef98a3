//! A CPU that charges: the native CPU's effects, at a time.

use std::cell::Cell;

use vmemmap_arch::{
    Alloc, Barrier, Cpu, Data, Desc, Entry, Fault, Frame, FrameKind, FrameList, Geometry, InUse, Invariant, Kind,
    Level, LockId, Mode, Order, Pa, RangeOp, Rmw, Slot, Template, Tlbi, Until, Va, Var,
};

use super::costs::{Costs, Time};
use super::hub::Hub;
use crate::native::cpu::Native;

/// One CPU of a costed machine, for one actor.
pub struct Costed<'h> {
    hub: &'h Hub,
    native: &'h Native<'h>,
    cpu: u16,
    /// Lets the CPUs that are behind go on; returns when it is this one's turn.
    suspend: &'h dyn Fn(),
    /// Handler of the interrupt with which others pause this CPU.
    handler: &'h dyn Fn(&Costed<'_>),
    label: Cell<(&'static str, Time)>,
}

impl std::fmt::Debug for Costed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Costed").field("cpu", &self.cpu).finish_non_exhaustive()
    }
}

impl<'h> Costed<'h> {
    /// `native` does what the operations do; all CPUs of a hub share one.
    #[must_use]
    pub fn new(
        hub: &'h Hub,
        native: &'h Native<'h>,
        cpu: u16,
        suspend: &'h dyn Fn(),
        handler: &'h dyn Fn(&Costed<'_>),
    ) -> Self {
        Self { hub, native, cpu, suspend, handler, label: Cell::new(("start", 0)) }
    }
    /// Clock of this CPU.
    #[must_use]
    pub fn now(&self) -> Time {
        self.hub.now(self.cpu)
    }
    #[must_use]
    pub const fn hub(&self) -> &'h Hub {
        self.hub
    }
    /// Runs no actor: takes interrupts as they come, and does not return from the last.
    pub fn idle(&self) -> ! {
        self.hub.own(self.cpu).idle.set(true);
        loop {
            self.block();
            self.turn();
        }
    }

    #[inline]
    const fn costs(&self) -> &'h Costs {
        &self.hub.options.costs
    }
    #[inline]
    fn pay(&self, cost: Time) {
        self.hub.clocks.advance(self.cpu, cost);
    }
    /// Before an operation: everybody who is behind goes first, and an interrupt that has arrived is taken.
    #[inline]
    fn turn(&self) {
        if self.hub.clocks.is_ahead(self.cpu) || self.hub.own(self.cpu).pending.get().is_some() {
            self.let_others();
        }
        self.hub.count(|c| c.events += 1);
    }
    #[cold]
    fn let_others(&self) {
        loop {
            if self.has_interrupt() {
                self.interrupted();
            } else if self.hub.clocks.is_ahead(self.cpu) {
                self.hub.clocks.queue(self.cpu);
                (self.suspend)();
            } else {
                return;
            }
        }
    }
    fn has_interrupt(&self) -> bool {
        let own = self.hub.own(self.cpu);
        let masked = own.irqs_off.get() != 0 && !self.hub.options.pause_is_nmi;
        !masked && !own.in_interrupt.get() && own.pending.get().is_some_and(|at| at <= self.now())
    }
    fn interrupted(&self) {
        let own = self.hub.own(self.cpu);
        own.pending.set(None);
        own.in_interrupt.set(true);
        let label = self.label.get().0;
        (self.handler)(self);
        self.label(label);
        own.in_interrupt.set(false);
        self.pay(self.costs().ipi_return);
    }
    /// Until somebody wakes this CPU, for whatever reason: its interrupt, too.
    fn block(&self) {
        let own = self.hub.own(self.cpu);
        let masked = own.irqs_off.get() != 0 && !self.hub.options.pause_is_nmi;
        match own.pending.get() {
            Some(at) if !masked && !own.in_interrupt.get() => self.hub.clocks.delay(self.cpu, at),
            Some(_) | None => {
                self.hub.clocks.wait(self.cpu);
                (self.suspend)();
            }
        }
    }
    #[inline]
    fn charge(&self, cost: Time) {
        self.turn();
        self.pay(cost);
    }
    fn touch(&self, var: Var, cost: Time, writes: bool) {
        self.turn();
        self.pay(cost + self.hub.line(self.cpu, var, writes));
    }

    /// What a change of a descriptor means to those who translate through it.
    #[inline]
    fn changed(&self, at: Slot<()>, old: Desc, new: Desc) {
        let hub = self.hub;
        if old.is_valid() && new.is_valid() {
            let g = self.geometry();
            let block = |d| matches!(g.kind(d, at.level), Kind::Block(_));
            if at.level == Level::PMD && block(old) && !block(new) {
                hub.count(|c| c.splits += 1);
            }
            return;
        }
        let place = at.table.0 | u64::from(at.index);
        if old.is_valid() {
            hub.holes.borrow_mut().insert(place, self.now());
        } else if new.is_valid()
            && let Some(since) = hub.holes.borrow_mut().remove(&place)
        {
            let open = self.now() - since;
            hub.count(|c| {
                c.holes += 1;
                c.hole_total += open;
                c.hole_longest = c.hole_longest.max(open);
                c.splits += u64::from(at.level == Level::PMD);
            });
        }
    }
    fn exchange(&self, at: Slot<()>, cost: Time, change: impl FnOnce() -> Entry<()>, new: Desc) -> Entry<()> {
        self.charge(cost);
        self.hub.count(|c| c.writes += 1);
        let old = change();
        self.changed(at, old.desc, new);
        old
    }
    fn is_gigantic(&self, order: u8) -> bool {
        1u64 << order > self.geometry().entries() as u64
    }
    fn attempted(&self, access: Data<()>) -> Time {
        let c = self.costs();
        match access {
            Data::Load { .. } | Data::Probe { .. } => c.load,
            Data::Store { .. } => c.store,
            Data::Rmw { .. } => c.store + c.atomic,
            Data::Fill { .. } => c.page_fill,
            Data::Copy { .. } => c.page_copy,
        }
    }
}

impl Cpu for Costed<'_> {
    type Tok = ();

    fn id(&self) -> u8 {
        self.cpu.min(255) as u8
    }
    fn label(&self, function: &'static str) {
        let now = self.now();
        let (before, since) = self.label.replace((function, now));
        self.hub.spent(before, now - since);
    }

    fn root(&self) -> Frame<()> {
        self.native.root()
    }
    fn read(&self, at: Slot<()>, order: Order) -> Entry<()> {
        self.charge(self.costs().read);
        self.native.read(at, order)
    }
    fn write(&self, at: Slot<()>, new: Desc, order: Order) {
        let change = || {
            let old = self.native.read(at, Order::Plain);
            self.native.write(at, new, order);
            old
        };
        self.exchange(at, self.costs().write, change, new);
    }
    fn swap(&self, at: Slot<()>, new: Desc, order: Order) -> Entry<()> {
        self.exchange(at, self.costs().atomic, || self.native.swap(at, new, order), new)
    }
    fn compare_exchange(&self, at: Slot<()>, old: Desc, new: Desc, order: Order) -> Result<Entry<()>, Entry<()>> {
        self.charge(self.costs().atomic);
        let found = self.native.compare_exchange(at, old, new, order);
        if found.is_ok() {
            self.hub.count(|c| c.writes += 1);
            self.changed(at, old, new);
        }
        found
    }

    fn barrier(&self, barrier: Barrier) {
        let c = self.costs();
        match barrier {
            Barrier::DsbIshst => self.charge(c.dsb_ishst),
            Barrier::DsbNsh => self.charge(c.dsb_ish),
            Barrier::DsbIsh => {
                self.turn();
                self.pay(self.hub.await_invalidates(self.cpu) + c.dsb_ish);
            }
            Barrier::Isb => self.charge(c.isb),
            Barrier::SmpMb | Barrier::SmpRmb | Barrier::SmpWmb => self.charge(c.smp_barrier),
        }
        if matches!(barrier, Barrier::DsbIshst | Barrier::DsbNsh | Barrier::DsbIsh) {
            self.hub.count(|c| c.dsb += 1);
        }
    }
    fn tlbi(&self, op: Tlbi) {
        self.turn();
        self.hub.count(|c| c.tlbi += 1);
        if op.is_local() {
            let c = self.costs();
            self.pay(if op.pages().is_some() { c.tlbi_local } else { c.tlbi_local_all });
        } else {
            self.pay(self.costs().tlbi_issue);
            self.hub.invalidate(self.cpu, op.pages().map(|(_, pages)| pages));
        }
    }
    fn iommu_invalidate(&self) {}

    fn load(&self, va: Va, order: Order) -> u64 {
        self.charge(self.costs().load);
        self.native.load(va, order)
    }
    fn store(&self, va: Va, value: u64, order: Order) {
        self.charge(self.costs().store);
        self.native.store(va, value, order);
    }
    fn rmw(&self, va: Va, op: Rmw, order: Order) -> u64 {
        self.charge(self.costs().store + self.costs().atomic);
        self.native.rmw(va, op, order)
    }
    fn fill(&self, va: Va, template: Template) {
        self.charge(self.costs().page_fill);
        self.native.fill(va, template);
    }
    fn attempt(&self, access: Data<()>) -> Result<u64, Fault> {
        self.charge(self.attempted(access));
        let done = self.native.attempt(access);
        if done.is_err() {
            self.pay(self.costs().fault);
        }
        done
    }
    fn speculate(&self, _va: Va) {}
    fn iommu_walk(&self, _va: Va) {}

    fn alloc(&self, request: Alloc) -> Option<Frame<()>> {
        let c = self.costs();
        self.charge(match request.kind {
            FrameKind::Huge if self.is_gigantic(request.order) => c.gigantic_alloc,
            FrameKind::Huge => c.hugepage_alloc,
            FrameKind::Table => c.table_alloc,
            FrameKind::Vmemmap | FrameKind::Data => c.frame_alloc,
        });
        self.native.alloc(request)
    }
    fn free(&self, frame: Frame<()>, order: u8, kind: FrameKind) {
        let c = self.costs();
        self.charge(match kind {
            FrameKind::Huge if self.is_gigantic(order) => c.gigantic_free,
            FrameKind::Huge => c.hugepage_free,
            FrameKind::Table | FrameKind::Vmemmap | FrameKind::Data => c.frame_free,
        });
        self.native.free(frame, order, kind);
    }
    fn frame_of(&self, entry: Entry<()>, pa: Pa) -> Frame<()> {
        self.native.frame_of(entry, pa)
    }
    fn split_frame(&self, frame: Frame<()>, order: u8) {
        self.native.split_frame(frame, order);
    }
    fn split_run(&self, frame: Frame<()>, order: u8, into: u8) {
        self.charge(self.costs().demoted_part << (order - into.min(order)));
        self.native.split_run(frame, order, into);
    }
    fn is_reserved(&self, frame: Frame<()>) -> bool {
        self.native.is_reserved(frame)
    }
    fn copy_frame(&self, from: Frame<()>, to: Frame<()>) {
        self.charge(self.costs().page_copy);
        self.native.copy_frame(from, to);
    }
    fn copy_from_va(&self, from: Va, to: Frame<()>) {
        self.charge(self.costs().page_copy);
        self.native.copy_from_va(from, to);
    }
    fn copy_tail_frame(&self, from: Frame<()>, to: Frame<()>, reset: u16) {
        self.charge(self.costs().page_copy);
        self.native.copy_tail_frame(from, to, reset);
    }
    fn copy_tail_from_va(&self, from: Va, to: Frame<()>, reset: u16) {
        self.charge(self.costs().page_copy);
        self.native.copy_tail_from_va(from, to, reset);
    }
    fn fill_frame(&self, frame: Frame<()>, template: Template) {
        self.charge(self.costs().page_fill);
        self.native.fill_frame(frame, template);
    }
    fn load_frame(&self, frame: Frame<()>, index: u16) -> u64 {
        self.charge(self.costs().read);
        self.native.load_frame(frame, index)
    }
    fn store_frame(&self, frame: Frame<()>, index: u16, value: u64) {
        self.charge(self.costs().write);
        self.native.store_frame(frame, index, value);
    }
    fn list_push(&self, list: &mut FrameList<()>, frame: Frame<()>) {
        self.native.list_push(list, frame);
    }
    fn list_pop(&self, list: &mut FrameList<()>) -> Option<Frame<()>> {
        self.native.list_pop(list)
    }
    fn list_shift(&self, list: &mut FrameList<()>) -> Option<Frame<()>> {
        self.native.list_shift(list)
    }
    fn range_op(&self, start: Pa, bytes: u64, op: RangeOp) -> Result<(), InUse> {
        self.turn();
        self.native.range_op(start, bytes, op)
    }
    fn memory_gone(&self, _start: Pa, _bytes: u64) {}
    fn range_in_use(&self, start: Pa, bytes: u64) -> Option<InUse> {
        self.turn();
        self.native.range_in_use(start, bytes)
    }
    fn claim_self_hosted(&self, start: Pa, frames: u64) -> Frame<()> {
        self.native.claim_self_hosted(start, frames)
    }
    fn release_self_hosted(&self, frame: Frame<()>, frames: u64) {
        self.native.release_self_hosted(frame, frames);
    }
    fn is_self_hosted(&self, frame: Frame<()>) -> bool {
        self.native.is_self_hosted(frame)
    }

    fn acquire(&self, lock: LockId, mode: Mode) {
        self.charge(self.costs().lock);
        if let Some(line) = self.hub.try_lock(self.cpu, lock, mode, false) {
            self.pay(line);
            return;
        }
        self.hub.enqueue(self.cpu, lock);
        loop {
            self.block();
            self.turn();
            if let Some(line) = self.hub.try_lock(self.cpu, lock, mode, true) {
                self.pay(line);
                return;
            }
        }
    }
    fn try_acquire(&self, lock: LockId, mode: Mode) -> bool {
        self.charge(self.costs().lock);
        self.hub.try_lock(self.cpu, lock, mode, false).inspect(|line| self.pay(*line)).is_some()
    }
    fn release(&self, lock: LockId, mode: Mode) {
        self.charge(self.costs().lock);
        self.hub.unlock(self.cpu, lock, mode);
    }

    fn var_load(&self, var: Var, order: Order) -> u64 {
        self.touch(var, self.costs().read, false);
        self.native.var_load(var, order)
    }
    fn var_store(&self, var: Var, value: u64, order: Order) {
        self.touch(var, self.costs().write, true);
        self.native.var_store(var, value, order);
        self.hub.changed(self.cpu, var, value);
    }
    fn var_rmw(&self, var: Var, op: Rmw, order: Order) -> u64 {
        self.touch(var, self.costs().atomic, true);
        let old = self.native.var_rmw(var, op, order);
        self.hub.changed(self.cpu, var, op.apply(old));
        old
    }
    fn wait_until(&self, var: Var, condition: Until) -> u64 {
        loop {
            self.touch(var, self.costs().read, false);
            let word = self.native.var_load(var, Order::Acquire);
            if condition.holds(word) {
                return word;
            }
            self.hub.wait_for(self.cpu, var, condition);
            self.block();
            self.hub.no_longer_waits(self.cpu);
        }
    }

    fn rcu_read_lock(&self) {
        self.turn();
        let depth = &self.hub.own(self.cpu).rcu_depth;
        depth.set(depth.get() + 1);
    }
    fn rcu_read_unlock(&self) {
        self.turn();
        let depth = &self.hub.own(self.cpu).rcu_depth;
        depth.set(depth.get().saturating_sub(1));
        if depth.get() == 0 {
            self.hub.leaves_section(self.cpu);
        }
    }
    fn synchronize_rcu(&self) {
        self.turn();
        self.hub.count(|c| c.grace_periods += 1);
        self.hub.await_readers(self.cpu);
        self.pay(self.costs().grace_period);
        self.turn();
        while self.hub.has_readers(self.cpu) {
            self.block();
            self.turn();
        }
    }
    fn irq_disable(&self) {
        self.turn();
        let off = &self.hub.own(self.cpu).irqs_off;
        off.set(off.get() + 1);
    }
    fn irq_enable(&self) {
        let off = &self.hub.own(self.cpu).irqs_off;
        off.set(off.get().saturating_sub(1));
        self.turn();
    }
    fn send_ipi(&self, _line: Var) -> u64 {
        self.turn();
        let (sent, cost) = self.hub.interrupt_others(self.cpu);
        self.pay(cost);
        sent
    }
    fn stop_machine_begin(&self) {
        self.turn();
        self.pay(self.hub.stop_others(self.cpu));
    }
    fn stop_machine_end(&self) {
        self.turn();
        self.hub.start_others(self.cpu);
    }

    fn signal_pending(&self) -> bool {
        false
    }
    fn warn(&self, what: Invariant, address: u64, message: &'static str) {
        self.native.warn(what, address, message);
    }
    fn expect_stable(&self, _on: bool) {}
    fn exclusive(&self, _what: Invariant, _begin: bool) {}
    fn choose(&self, _n: u32, _why: &'static str) -> u32 {
        0
    }
    fn round(&self, _state: u64) {}
    fn geometry(&self) -> &Geometry {
        self.native.geometry()
    }
}
