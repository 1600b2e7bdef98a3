//! What a translation fault of kernel code comes to (`arch/arm64/mm/fault.c`; kernel-semantics §10.4).
//!
//! A fault is taken by the CPU at whatever access meets it, in whatever context. So the handler is not called by kernel
//! code: `Handled` is the CPU with its exception vector, and every access through a virtual address goes by it.

use vmemmap_arch::{
    Alloc, Barrier, Cpu, Data, Desc, Entry, Fault, Frame, FrameKind, FrameList, Geometry, InUse, Invariant, LockId,
    Mode, Observed, Order, Pa, RangeOp, Rmw, Slot, Template, Tlbi, Until, Va, Var,
};

use crate::Kernel;
use crate::pgtable::{next_table, offset, pgd_offset_k, read_once, walk};
use crate::policy::{FaultHandler, ShowPte};

/// A CPU whose translation faults go to the handler of `policies.fault`.
#[derive(Debug)]
pub struct Handled<'a, C> {
    k: &'a Kernel,
    cpu: &'a C,
}

impl<'a, C: Cpu> Handled<'a, C> {
    pub const fn new(k: &'a Kernel, cpu: &'a C) -> Self {
        Self { k, cpu }
    }

    /// The access, as often as the handler lets it happen again. 0 where it does not: the kernel would be dead.
    fn access(&self, access: Data<C::Tok>) -> u64 {
        loop {
            match self.cpu.attempt(access) {
                Ok(value) => return value,
                Err(Fault) => {
                    // An exception synchronises the context.
                    self.cpu.barrier(Barrier::Isb);
                    let va = access.va();
                    let handled = match self.k.policies.fault {
                        FaultHandler::Wait => vmemmap_handle_page_fault(self.k, self.cpu, va),
                        FaultHandler::Oops | FaultHandler::Recheck => false,
                    };
                    if !handled && !is_spurious_el1_translation_fault(self.cpu, va) {
                        self.cpu.warn(Invariant::AlwaysTranslates, va.0, "unable to handle kernel paging request");
                        return 0;
                    }
                }
            }
        }
    }
}

/// `is_spurious_el1_translation_fault`: the address translates by now (`AT S1E1R`). The access is made again.
fn is_spurious_el1_translation_fault<C: Cpu>(cpu: &C, va: Va) -> bool {
    cpu.label("is_spurious_el1_translation_fault");
    cpu.attempt(Data::Probe { va }).is_ok()
}

/// The handler of approach A (N. Sun, January 2024), after what its reviewers say of it, not after the patch's text: a
/// fault in vmemmap waits for `init_mm.page_table_lock`, which an update holds from clear to set, and looks again. It
/// takes the lock in whatever context the access was made (R4).
fn vmemmap_handle_page_fault<C: Cpu>(k: &Kernel, cpu: &C, va: Va) -> bool {
    if !k.layout.in_vmemmap(va) {
        return false;
    }
    cpu.label("vmemmap_handle_page_fault");
    cpu.acquire(LockId::InitMmPageTable, Mode::Write);
    let (_, entry) = walk(cpu, va);
    cpu.release(LockId::InitMmPageTable, Mode::Write);
    entry.desc.is_valid()
}

/// `show_pte` (`arch/arm64/mm/fault.c`): the walk that an oops prints, interrupts off and no lock. Returns the number
/// of descriptors read.
pub fn show_pte<C: Cpu>(k: &Kernel, cpu: &C, va: Va) -> u64 {
    cpu.label("show_pte");
    cpu.irq_disable();
    let mut slot = pgd_offset_k(cpu, va);
    let mut read = 0;
    loop {
        let mut entry = read_once(cpu, slot);
        read += 1;
        match k.policies.show_pte {
            ShowPte::Snapshot => {}
            ShowPte::Reread if next_table(cpu, entry, slot.level).is_some() => {
                let again = read_once(cpu, slot);
                if again.desc != entry.desc {
                    cpu.warn(
                        Invariant::FlagWithState,
                        va.0,
                        "show_pte descends by an entry that is not the one it printed",
                    );
                }
                entry = again;
            }
            ShowPte::Reread => {}
        }
        let Some(table) = next_table(cpu, entry, slot.level) else { break };
        slot = offset(cpu, table, slot.level.next(), va);
    }
    cpu.irq_enable();
    read
}

/// Every method but the accesses through a virtual address is the CPU's own.
macro_rules! pass_on {
    ($( fn $name:ident ( $( $arg:ident : $ty:ty ),* ) $( -> $ret:ty )?; )*) => {
        $( #[inline] fn $name(&self $(, $arg: $ty)*) $( -> $ret )? { self.cpu.$name($($arg),*) } )*
    };
}

impl<C: Cpu> Cpu for Handled<'_, C> {
    type Tok = C::Tok;
    const LIST_BATCH: usize = C::LIST_BATCH;

    fn load(&self, va: Va, order: Order) -> u64 {
        self.access(Data::Load { va, order })
    }
    fn store(&self, va: Va, value: u64, order: Order) {
        self.access(Data::Store { va, value, order });
    }
    fn rmw(&self, va: Va, op: Rmw, order: Order) -> u64 {
        self.access(Data::Rmw { va, op, order })
    }
    fn fill(&self, va: Va, template: Template) {
        self.access(Data::Fill { va, template });
    }
    fn copy_from_va(&self, from: Va, to: Frame<C::Tok>) {
        self.access(Data::Copy { from, to });
    }

    #[inline]
    fn read_each(&self, at: Slot<C::Tok>, count: usize, each: impl FnMut(u16, Entry<C::Tok>)) {
        self.cpu.read_each(at, count, each);
    }
    #[inline]
    fn swap_each(
        &self,
        at: Slot<C::Tok>,
        count: usize,
        new: Desc,
        order: Order,
        then: &[Barrier],
        each: impl FnMut(Entry<C::Tok>),
    ) {
        self.cpu.swap_each(at, count, new, order, then, each);
    }
    #[inline]
    fn list_push_each(&self, list: &mut FrameList<C::Tok>, frames: impl Iterator<Item = Frame<C::Tok>>) {
        self.cpu.list_push_each(list, frames);
    }
    fn geometry(&self) -> &Geometry {
        self.cpu.geometry()
    }

    pass_on! {
        fn id() -> u8;
        fn label(function: &'static str);
        fn root() -> Frame<C::Tok>;
        fn read(at: Slot<C::Tok>, order: Order) -> Entry<C::Tok>;
        fn skip_none(at: Slot<C::Tok>, entries: usize) -> usize;
        fn skip_tlbi(first: Va, pages: usize) -> usize;
        fn write(at: Slot<C::Tok>, new: Desc, order: Order);
        fn swap(at: Slot<C::Tok>, new: Desc, order: Order) -> Entry<C::Tok>;
        fn compare_exchange(at: Slot<C::Tok>, old: Desc, new: Desc, order: Order) -> Result<Entry<C::Tok>,
            Entry<C::Tok>>;
        fn barrier(barrier: Barrier);
        fn tlbi(op: Tlbi);
        fn attempt(access: Data<C::Tok>) -> Result<u64, Fault>;
        fn speculate(va: Va);
        fn iommu_walk(va: Va);
        fn iommu_invalidate();
        fn alloc(request: Alloc) -> Option<Frame<C::Tok>>;
        fn free(frame: Frame<C::Tok>, order: u8, kind: FrameKind);
        fn frame_of(entry: Entry<C::Tok>, pa: Pa) -> Frame<C::Tok>;
        fn split_frame(frame: Frame<C::Tok>, order: u8);
        fn split_run(frame: Frame<C::Tok>, order: u8, into: u8);
        fn is_reserved(frame: Frame<C::Tok>) -> bool;
        fn copy_frame(from: Frame<C::Tok>, to: Frame<C::Tok>);
        fn copy_tail_frame(from: Frame<C::Tok>, to: Frame<C::Tok>, reset: u16);
        fn reset_tails(frame: Frame<C::Tok>, reset: u16);
        fn load_frame(frame: Frame<C::Tok>, index: u16) -> u64;
        fn store_frame(frame: Frame<C::Tok>, index: u16, value: u64);
        fn list_push(list: &mut FrameList<C::Tok>, frame: Frame<C::Tok>);
        fn list_pop(list: &mut FrameList<C::Tok>) -> Option<Frame<C::Tok>>;
        fn list_shift(list: &mut FrameList<C::Tok>) -> Option<Frame<C::Tok>>;
        fn range_op(start: Pa, bytes: u64, op: RangeOp) -> Result<(), InUse>;
        fn memory_gone(start: Pa, bytes: u64);
        fn range_in_use(start: Pa, bytes: u64) -> Option<InUse>;
        fn claim_self_hosted(start: Pa, frames: u64) -> Frame<C::Tok>;
        fn release_self_hosted(frame: Frame<C::Tok>, frames: u64);
        fn is_self_hosted(frame: Frame<C::Tok>) -> bool;
        fn acquire(lock: LockId, mode: Mode);
        fn try_acquire(lock: LockId, mode: Mode) -> bool;
        fn release(lock: LockId, mode: Mode);
        fn var_load(var: Var, order: Order) -> u64;
        fn var_store(var: Var, value: u64, order: Order);
        fn var_rmw(var: Var, op: Rmw, order: Order) -> u64;
        fn var_add(var: Var, n: i64, order: Order);
        fn wait_until(var: Var, condition: Until) -> u64;
        fn rcu_read_lock();
        fn rcu_read_unlock();
        fn synchronize_rcu();
        fn irq_disable();
        fn irq_enable();
        fn send_ipi(line: Var) -> u64;
        fn stop_machine_begin();
        fn stop_machine_end();
        fn signal_pending() -> bool;
        fn warn(what: Invariant, address: u64, message: &'static str);
        fn expect_stable(on: bool);
        fn exclusive(what: Invariant, begin: bool);
        fn choose(n: u32, why: &'static str) -> u32;
        fn round(state: u64);
        fn observed() -> Observed;
        fn conclude(since: Observed, outcome: u64);
    }
}
