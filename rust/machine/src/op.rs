//! The operations of a CPU and their replies, as values.

use vmemmap_arch::{
    Alloc, Barrier, Data, Desc, Entry, Frame, FrameKind, InUse, Invariant, LockId, Mode, Order, Pa, RangeOp, Rmw, Slot,
    Template, Tlbi, Until, Va, Var,
};

/// Generation of a frame as it was when it was named.
pub type Tok = u32;

/// One operation of a CPU, as a value. A writer of a read-write semaphore and `synchronize_rcu` take two: they first
/// make themselves known (`Queue`, `RcuSnapshot`), then wait.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    Root,
    Read {
        at: Slot<Tok>,
        order: Order,
    },
    Write {
        at: Slot<Tok>,
        new: Desc,
        order: Order,
    },
    Swap {
        at: Slot<Tok>,
        new: Desc,
        order: Order,
    },
    CompareExchange {
        at: Slot<Tok>,
        old: Desc,
        new: Desc,
        order: Order,
    },
    Barrier(Barrier),
    Tlbi(Tlbi),
    Load {
        va: Va,
        order: Order,
    },
    Store {
        va: Va,
        value: u64,
        order: Order,
    },
    Rmw {
        va: Va,
        op: Rmw,
        order: Order,
    },
    Fill {
        va: Va,
        template: Template,
    },
    /// A data access whose translation fault is a reply (`Reply::FAULT`) and no violation.
    Attempt(Data<Tok>),
    IommuInvalidate,
    IommuWalk {
        va: Va,
    },
    Speculate {
        va: Va,
    },
    Alloc(Alloc),
    Free {
        frame: Frame<Tok>,
        order: u8,
        kind: FrameKind,
    },
    SplitFrame {
        frame: Frame<Tok>,
        order: u8,
    },
    /// Cut a run of HugeTLB frames into runs of order `into`.
    SplitRun {
        frame: Frame<Tok>,
        order: u8,
        into: u8,
    },
    IsReserved {
        frame: Frame<Tok>,
    },
    CopyFrame {
        from: Frame<Tok>,
        to: Frame<Tok>,
    },
    CopyFromVa {
        from: Va,
        to: Frame<Tok>,
    },
    FillFrame {
        frame: Frame<Tok>,
        template: Template,
    },
    LoadFrame {
        frame: Frame<Tok>,
        index: u16,
    },
    StoreFrame {
        frame: Frame<Tok>,
        index: u16,
        value: u64,
    },
    /// Link `frame` behind `before`, the last of a private list (`None`: the list is empty).
    ListLink {
        before: Option<Frame<Tok>>,
        frame: Frame<Tok>,
    },
    ListPrevious {
        frame: Frame<Tok>,
    },
    ListNext {
        frame: Frame<Tok>,
    },
    Range {
        start: Pa,
        bytes: u64,
        op: RangeOp,
    },
    /// Memory has left the machine: no translation to it may be left.
    MemoryGone {
        start: Pa,
        bytes: u64,
    },
    RangeInUse {
        start: Pa,
        bytes: u64,
    },
    ClaimSelfHosted {
        start: Pa,
        frames: u64,
    },
    IsSelfHosted {
        frame: Frame<Tok>,
    },
    /// A writer queues; new readers stay out from here on.
    Queue {
        lock: LockId,
    },
    Acquire {
        lock: LockId,
        mode: Mode,
    },
    TryAcquire {
        lock: LockId,
        mode: Mode,
    },
    Release {
        lock: LockId,
        mode: Mode,
    },
    VarLoad {
        var: Var,
        order: Order,
    },
    VarStore {
        var: Var,
        value: u64,
        order: Order,
    },
    VarRmw {
        var: Var,
        op: Rmw,
        order: Order,
    },
    /// Adds; there is no answer, so additions commute.
    VarAdd {
        var: Var,
        n: i64,
        order: Order,
    },
    WaitUntil {
        var: Var,
        condition: Until,
    },
    RcuReadLock,
    RcuReadUnlock,
    /// `synchronize_rcu` notes who is inside a read section.
    RcuSnapshot,
    /// `synchronize_rcu` waits until each of those has left once.
    RcuWait,
    IrqDisable,
    IrqEnable,
    /// Sets the bits of all other CPUs that have a handler for the line.
    SendIpi {
        line: Var,
    },
    /// First operation of an interrupt; takes the CPU's bit of its line, if it has one.
    InterruptEnter,
    /// Last operation of an interrupt.
    InterruptExit,
    StopMachineBegin,
    StopMachineEnd,
    SignalPending,
    Warn {
        what: Invariant,
        address: u64,
        message: &'static str,
    },
    ExpectStable {
        on: bool,
    },
    Exclusive {
        what: Invariant,
        begin: bool,
    },
    Choose {
        n: u32,
        why: &'static str,
    },
    /// A store that waits in the buffer of this CPU becomes visible to all. Of the buffer itself, no code does it.
    Commit,
    /// A load of this CPU's takes effect before its place in the program. Of the load queue, no code does it.
    LoadEarly,
    Round {
        state: u64,
    },
}

impl Op {
    /// Touches nothing that another actor can see or change, never blocks and has one outcome: never a scheduling
    /// point.
    #[must_use]
    #[inline]
    pub const fn is_local(&self) -> bool {
        matches!(
            self,
            Op::Root
                | Op::SplitFrame { .. }
                | Op::IsReserved { .. }
                | Op::ListLink { .. }
                | Op::ListPrevious { .. }
                | Op::ListNext { .. }
                | Op::SignalPending
                | Op::Warn { .. }
                | Op::Round { .. }
        )
    }

    /// The operation is a release: what its CPU did before is seen by whoever acquires it.
    #[must_use]
    #[inline]
    pub const fn releases(&self) -> bool {
        match *self {
            Op::Write { order, .. }
            | Op::Swap { order, .. }
            | Op::CompareExchange { order, .. }
            | Op::Store { order, .. }
            | Op::Rmw { order, .. }
            | Op::Attempt(Data::Store { order, .. } | Data::Rmw { order, .. })
            | Op::VarStore { order, .. }
            | Op::VarRmw { order, .. }
            | Op::VarAdd { order, .. } => matches!(order, Order::Release | Order::AcqRel),
            Op::Release { .. } => true,
            _ => false,
        }
    }

    /// Name of the operation in traces and replay files.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Op::Root => "root",
            Op::Read { .. } => "read",
            Op::Write { .. } => "write",
            Op::Swap { .. } => "swap",
            Op::CompareExchange { .. } => "cmpxchg",
            Op::Barrier(Barrier::DsbIshst) => "dsb ishst",
            Op::Barrier(Barrier::DsbIsh) => "dsb ish",
            Op::Barrier(Barrier::DsbNsh) => "dsb nsh",
            Op::Barrier(Barrier::Isb) => "isb",
            Op::Barrier(Barrier::SmpMb) => "smp_mb",
            Op::Barrier(Barrier::SmpRmb) => "smp_rmb",
            Op::Barrier(Barrier::SmpWmb) => "smp_wmb",
            Op::Tlbi(Tlbi::Vmalle1is) => "tlbi vmalle1is",
            Op::Tlbi(Tlbi::Vmalle1) => "tlbi vmalle1",
            Op::Tlbi(Tlbi::Vaale1is(_)) => "tlbi vaale1is",
            Op::Tlbi(Tlbi::Vaale1(_)) => "tlbi vaale1",
            Op::Tlbi(Tlbi::Vaae1is(_)) => "tlbi vaae1is",
            Op::Tlbi(Tlbi::Vaae1(_)) => "tlbi vaae1",
            Op::Tlbi(Tlbi::Vale1is(..)) => "tlbi vale1is",
            Op::Tlbi(Tlbi::Vae1is(..)) => "tlbi vae1is",
            Op::Tlbi(Tlbi::Aside1is(_)) => "tlbi aside1is",
            Op::Tlbi(Tlbi::Rvaale1is(..)) => "tlbi rvaale1is",
            Op::Tlbi(Tlbi::Rvaae1is(..)) => "tlbi rvaae1is",
            Op::Load { .. } => "load",
            Op::Store { .. } => "store",
            Op::Rmw { .. } => "rmw",
            Op::Fill { .. } => "fill",
            Op::IommuInvalidate => "iommu invalidate",
            Op::IommuWalk { .. } => "iommu walk",
            Op::Speculate { .. } => "speculate",
            Op::Attempt(Data::Load { .. }) => "load",
            Op::Attempt(Data::Store { .. }) => "store",
            Op::Attempt(Data::Rmw { .. }) => "rmw",
            Op::Attempt(Data::Fill { .. }) => "fill",
            Op::Attempt(Data::Copy { .. }) => "copy_page",
            Op::Attempt(Data::Probe { .. }) => "at s1e1r",
            Op::Alloc(_) => "alloc",
            Op::Free { .. } => "free",
            Op::SplitFrame { .. } | Op::SplitRun { .. } => "split_page",
            Op::IsReserved { .. } => "is_reserved",
            Op::CopyFrame { .. } | Op::CopyFromVa { .. } => "copy_page",
            Op::FillFrame { .. } => "fill_frame",
            Op::LoadFrame { .. } => "load_frame",
            Op::StoreFrame { .. } => "store_frame",
            Op::ListLink { .. } => "list_add_tail",
            Op::ListPrevious { .. } => "list_prev",
            Op::ListNext { .. } => "list_next",
            Op::Range { op: RangeOp::OnlineNormal, .. } => "online_kernel",
            Op::Range { op: RangeOp::OnlineMovable, .. } => "online_movable",
            Op::Range { op: RangeOp::Isolate, .. } => "isolate",
            Op::Range { op: RangeOp::UndoIsolate, .. } => "undo_isolate",
            Op::Range { op: RangeOp::Offline, .. } => "offline",
            Op::MemoryGone { .. } => "memory_gone",
            Op::RangeInUse { .. } => "scan_movable_pages",
            Op::ClaimSelfHosted { .. } => "altmap_alloc",
            Op::IsSelfHosted { .. } => "is_self_hosted",
            Op::Queue { .. } => "queue",
            Op::Acquire { .. } => "lock",
            Op::TryAcquire { .. } => "trylock",
            Op::Release { .. } => "unlock",
            Op::VarLoad { .. } => "var_load",
            Op::VarStore { .. } => "var_store",
            Op::VarRmw { .. } | Op::VarAdd { .. } => "var_rmw",
            Op::WaitUntil { .. } => "wait_until",
            Op::RcuReadLock => "rcu_read_lock",
            Op::RcuReadUnlock => "rcu_read_unlock",
            Op::RcuSnapshot => "synchronize_rcu",
            Op::RcuWait => "rcu_wait",
            Op::IrqDisable => "irq_disable",
            Op::IrqEnable => "irq_enable",
            Op::SendIpi { .. } => "send_ipi",
            Op::InterruptEnter => "interrupt",
            Op::InterruptExit => "eret",
            Op::StopMachineBegin => "stop_machine",
            Op::StopMachineEnd => "stop_machine_end",
            Op::SignalPending => "signal_pending",
            Op::Warn { .. } => "warn",
            Op::ExpectStable { on: true } => "stable",
            Op::ExpectStable { on: false } => "stable_end",
            Op::Exclusive { begin: true, .. } => "exclusive",
            Op::Exclusive { begin: false, .. } => "exclusive_end",
            Op::Choose { .. } => "choose",
            Op::Commit => "commit",
            Op::LoadEarly => "load early",
            Op::Round { .. } => "round",
        }
    }
}

/// What an operation returned. Two words: a value, and the generation of the frame that it names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Reply {
    pub value: u64,
    pub tok: Tok,
}

impl Reply {
    /// "There is no such frame".
    pub const NOTHING: Reply = Reply { value: u64::MAX, tok: 0 };
    /// Answer to `Attempt`: the access takes a translation fault.
    pub const FAULT: Reply = Reply { value: 0, tok: 1 };
    /// The same: it takes a permission fault. Only where `WorldOptions::permission_faults` is set.
    pub const PERMISSION_FAULT: Reply = Reply { value: 0, tok: 2 };

    #[must_use]
    #[inline]
    pub const fn of(value: u64) -> Self {
        Self { value, tok: 0 }
    }
    #[must_use]
    #[inline]
    pub const fn frame(frame: Frame<Tok>) -> Self {
        Self { value: frame.pa.0, tok: frame.tok }
    }
    /// Answer to `Range` and `RangeInUse`: the kind travels in place of the generation, 0 = no obstacle.
    #[must_use]
    #[inline]
    pub const fn obstacle(found: Option<InUse>) -> Self {
        match found {
            Some(f) => Self { value: f.pa.0, tok: f.kind as u32 },
            None => Self { value: 0, tok: 0 },
        }
    }
    #[inline]
    pub(crate) fn as_frame(self) -> Option<Frame<Tok>> {
        (self.value != u64::MAX).then_some(Frame { pa: Pa(self.value), tok: self.tok })
    }
    #[inline]
    pub(crate) fn as_entry(self) -> Entry<Tok> {
        Entry { desc: Desc(self.value), tok: self.tok }
    }
    #[inline]
    pub(crate) fn as_obstacle(self) -> Option<InUse> {
        let kind = match self.tok {
            1 => FrameKind::Table,
            2 => FrameKind::Vmemmap,
            3 => FrameKind::Huge,
            4 => FrameKind::Data,
            _ => return None,
        };
        Some(InUse { pa: Pa(self.value), kind })
    }
}

/// A lock whose writers queue and shut new readers out.
#[must_use]
#[inline]
pub const fn is_rwsem(lock: LockId) -> bool {
    matches!(lock, LockId::CpuHotplug | LockId::MemHotplug | LockId::InitMmMmap)
}
