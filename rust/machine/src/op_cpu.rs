//! Kernel code that *asks*: every method of `Cpu` becomes one `Op`, which somebody else interprets.
//!
//! The actor never holds a reference into the machine; its local state is a function of the replies it had. A search
//! sees each actor's next operation before it happens.

use vmemmap_arch::{
    Alloc, Barrier, Cpu, Data, Desc, Entry, Fault, Frame, FrameKind, FrameList, Geometry, InUse, Invariant, LockId,
    Mode, Observed, Order, Pa, RangeOp, Rmw, Slot, Template, Tlbi, Until, Va, Var,
};

use crate::op::{Op, Reply, Tok, is_rwsem};

/// Where an `OpCpu` sends its operations: a coroutine's way out, or a machine that executes at once.
pub trait Port {
    /// Have `op` executed; returns when it has been.
    fn call(&self, op: Op) -> Reply;
    /// `Cpu::skip_none`.
    fn skip_none(&self, _at: Slot<Tok>, _entries: usize) -> usize {
        0
    }
    /// `Cpu::skip_tlbi`.
    fn skip_tlbi(&self, _first: Va, _pages: usize) -> usize {
        0
    }
    /// `Cpu::observed`.
    fn observed(&self) -> Observed {
        Observed(0)
    }
    /// `Cpu::conclude`.
    fn conclude(&self, _since: Observed, _outcome: u64) {}
    /// Number of this CPU (actor), from 0.
    fn id(&self) -> u8;
    /// Name of the function whose operations follow.
    fn label(&self, function: &'static str);
    fn geometry(&self) -> &Geometry;
}

/// The `Cpu` of explored and costed machines. Owns nothing but its port, so an actor may be abandoned at any operation.
#[derive(Clone, Copy, Debug)]
pub struct OpCpu<P: Port> {
    port: P,
}

impl<P: Port> OpCpu<P> {
    pub const fn new(port: P) -> Self {
        Self { port }
    }
    pub const fn port(&self) -> &P {
        &self.port
    }
}

impl<P: Port> Cpu for OpCpu<P> {
    type Tok = Tok;

    fn id(&self) -> u8 {
        self.port.id()
    }
    fn label(&self, function: &'static str) {
        self.port.label(function);
    }

    fn root(&self) -> Frame<Tok> {
        let r = self.port.call(Op::Root);
        Frame { pa: Pa(r.value), tok: r.tok }
    }
    fn read(&self, at: Slot<Tok>, order: Order) -> Entry<Tok> {
        self.port.call(Op::Read { at, order }).as_entry()
    }
    fn skip_none(&self, at: Slot<Tok>, entries: usize) -> usize {
        self.port.skip_none(at, entries)
    }
    fn skip_tlbi(&self, first: Va, pages: usize) -> usize {
        self.port.skip_tlbi(first, pages)
    }
    fn write(&self, at: Slot<Tok>, new: Desc, order: Order) {
        self.port.call(Op::Write { at, new, order });
    }
    fn swap(&self, at: Slot<Tok>, new: Desc, order: Order) -> Entry<Tok> {
        self.port.call(Op::Swap { at, new, order }).as_entry()
    }
    fn compare_exchange(&self, at: Slot<Tok>, old: Desc, new: Desc, order: Order) -> Result<Entry<Tok>, Entry<Tok>> {
        let found = self.port.call(Op::CompareExchange { at, old, new, order }).as_entry();
        if found.desc == old { Ok(found) } else { Err(found) }
    }

    fn barrier(&self, barrier: Barrier) {
        self.port.call(Op::Barrier(barrier));
    }
    fn tlbi(&self, op: Tlbi) {
        self.port.call(Op::Tlbi(op));
    }

    fn load(&self, va: Va, order: Order) -> u64 {
        self.port.call(Op::Load { va, order }).value
    }
    fn store(&self, va: Va, value: u64, order: Order) {
        self.port.call(Op::Store { va, value, order });
    }
    fn rmw(&self, va: Va, op: Rmw, order: Order) -> u64 {
        self.port.call(Op::Rmw { va, op, order }).value
    }
    fn fill(&self, va: Va, template: Template) {
        self.port.call(Op::Fill { va, template });
    }
    fn attempt(&self, access: Data<Tok>) -> Result<u64, Fault> {
        let reply = self.port.call(Op::Attempt(access));
        if reply == Reply::FAULT { Err(Fault) } else { Ok(reply.value) }
    }
    fn iommu_invalidate(&self) {
        self.port.call(Op::IommuInvalidate);
    }
    fn iommu_walk(&self, va: Va) {
        self.port.call(Op::IommuWalk { va });
    }
    fn speculate(&self, va: Va) {
        self.port.call(Op::Speculate { va });
    }

    fn alloc(&self, request: Alloc) -> Option<Frame<Tok>> {
        self.port.call(Op::Alloc(request)).as_frame()
    }
    fn free(&self, frame: Frame<Tok>, order: u8, kind: FrameKind) {
        self.port.call(Op::Free { frame, order, kind });
    }
    /// All frames of a run are of one generation, so the entry's token is that of each of them.
    fn frame_of(&self, entry: Entry<Tok>, pa: Pa) -> Frame<Tok> {
        Frame { pa, tok: entry.tok }
    }
    fn split_frame(&self, frame: Frame<Tok>, order: u8) {
        self.port.call(Op::SplitFrame { frame, order });
    }
    fn split_run(&self, frame: Frame<Tok>, order: u8, into: u8) {
        self.port.call(Op::SplitRun { frame, order, into });
    }
    fn is_reserved(&self, frame: Frame<Tok>) -> bool {
        self.port.call(Op::IsReserved { frame }).value != 0
    }
    fn copy_frame(&self, from: Frame<Tok>, to: Frame<Tok>) {
        self.port.call(Op::CopyFrame { from, to });
    }
    fn copy_from_va(&self, from: Va, to: Frame<Tok>) {
        self.port.call(Op::CopyFromVa { from, to });
    }
    fn fill_frame(&self, frame: Frame<Tok>, template: Template) {
        self.port.call(Op::FillFrame { frame, template });
    }
    fn load_frame(&self, frame: Frame<Tok>, index: u16) -> u64 {
        self.port.call(Op::LoadFrame { frame, index }).value
    }
    fn store_frame(&self, frame: Frame<Tok>, index: u16, value: u64) {
        self.port.call(Op::StoreFrame { frame, index, value });
    }
    fn list_push(&self, list: &mut FrameList<Tok>, frame: Frame<Tok>) {
        self.port.call(Op::ListLink { before: list.last, frame });
        if list.first.is_none() {
            list.first = Some(frame);
        }
        list.last = Some(frame);
        list.len += 1;
    }
    fn list_pop(&self, list: &mut FrameList<Tok>) -> Option<Frame<Tok>> {
        let frame = list.last?;
        list.len -= 1;
        if list.len == 0 {
            (list.first, list.last) = (None, None);
        } else {
            list.last = self.port.call(Op::ListPrevious { frame }).as_frame();
        }
        Some(frame)
    }
    fn list_shift(&self, list: &mut FrameList<Tok>) -> Option<Frame<Tok>> {
        let frame = list.first?;
        list.len -= 1;
        if list.len == 0 {
            (list.first, list.last) = (None, None);
        } else {
            list.first = self.port.call(Op::ListNext { frame }).as_frame();
        }
        Some(frame)
    }
    fn range_op(&self, start: Pa, bytes: u64, op: RangeOp) -> Result<(), InUse> {
        match self.port.call(Op::Range { start, bytes, op }).as_obstacle() {
            Some(found) => Err(found),
            None => Ok(()),
        }
    }
    fn memory_gone(&self, start: Pa, bytes: u64) {
        self.port.call(Op::MemoryGone { start, bytes });
    }
    fn range_in_use(&self, start: Pa, bytes: u64) -> Option<InUse> {
        self.port.call(Op::RangeInUse { start, bytes }).as_obstacle()
    }
    fn claim_self_hosted(&self, start: Pa, frames: u64) -> Frame<Tok> {
        Frame { pa: start, tok: self.port.call(Op::ClaimSelfHosted { start, frames }).tok }
    }
    fn is_self_hosted(&self, frame: Frame<Tok>) -> bool {
        self.port.call(Op::IsSelfHosted { frame }).value != 0
    }

    fn acquire(&self, lock: LockId, mode: Mode) {
        if mode == Mode::Write && is_rwsem(lock) {
            self.port.call(Op::Queue { lock });
        }
        self.port.call(Op::Acquire { lock, mode });
    }
    fn try_acquire(&self, lock: LockId, mode: Mode) -> bool {
        self.port.call(Op::TryAcquire { lock, mode }).value != 0
    }
    fn release(&self, lock: LockId, mode: Mode) {
        self.port.call(Op::Release { lock, mode });
    }

    fn var_load(&self, var: Var, order: Order) -> u64 {
        self.port.call(Op::VarLoad { var, order }).value
    }
    fn var_store(&self, var: Var, value: u64, order: Order) {
        self.port.call(Op::VarStore { var, value, order });
    }
    fn var_rmw(&self, var: Var, op: Rmw, order: Order) -> u64 {
        self.port.call(Op::VarRmw { var, op, order }).value
    }
    fn var_add(&self, var: Var, n: i64, order: Order) {
        self.port.call(Op::VarAdd { var, n, order });
    }
    fn wait_until(&self, var: Var, condition: Until) -> u64 {
        self.port.call(Op::WaitUntil { var, condition }).value
    }

    fn rcu_read_lock(&self) {
        self.port.call(Op::RcuReadLock);
    }
    fn rcu_read_unlock(&self) {
        self.port.call(Op::RcuReadUnlock);
    }
    fn synchronize_rcu(&self) {
        self.port.call(Op::RcuSnapshot);
        self.port.call(Op::RcuWait);
    }
    fn irq_disable(&self) {
        self.port.call(Op::IrqDisable);
    }
    fn irq_enable(&self) {
        self.port.call(Op::IrqEnable);
    }
    fn send_ipi(&self, line: Var) -> u64 {
        self.port.call(Op::SendIpi { line }).value
    }
    fn stop_machine_begin(&self) {
        self.port.call(Op::StopMachineBegin);
    }
    fn stop_machine_end(&self) {
        self.port.call(Op::StopMachineEnd);
    }

    fn signal_pending(&self) -> bool {
        self.port.call(Op::SignalPending).value != 0
    }
    fn warn(&self, what: Invariant, address: u64, message: &'static str) {
        self.port.call(Op::Warn { what, address, message });
    }
    fn expect_stable(&self, on: bool) {
        self.port.call(Op::ExpectStable { on });
    }
    fn exclusive(&self, what: Invariant, begin: bool) {
        self.port.call(Op::Exclusive { what, begin });
    }
    fn choose(&self, n: u32, why: &'static str) -> u32 {
        self.port.call(Op::Choose { n, why }).value as u32
    }
    fn round(&self, state: u64) {
        self.port.call(Op::Round { state });
    }
    fn observed(&self) -> Observed {
        self.port.observed()
    }
    fn conclude(&self, since: Observed, outcome: u64) {
        self.port.conclude(since, outcome);
    }

    fn geometry(&self) -> &Geometry {
        self.port.geometry()
    }
}
