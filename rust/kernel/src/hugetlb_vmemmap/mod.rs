//! HugeTLB vmemmap optimisation (`mm/hugetlb_vmemmap.c`; kernel-semantics §6), in the behaviours 2021, 6.1, 6.12,
//! 6.12.117, 7.2 and 7.3. The walk over the tables is in `remap`, the split of a block in `split`,
//! the change of PTEs in `update`.

mod read_only_first;
pub mod remap;
mod split;
pub mod update;
pub mod walk;
pub(crate) mod zone_tail;

use vmemmap_arch::{
    Alloc, Cpu, Frame, FrameKind, FrameList, Invariant, LockId, Mode, Order, Pa, STRUCT_PAGE_SIZE, Va, VaRange, Zone,
};

use crate::features::{EmptyBatch, RestoreSource, SelfHostedTest, TailSource};
use crate::hugetlb::page::{HPG_VMEMMAP_OPTIMIZED, HugePage};
use crate::page::page_huge;
use crate::page_alloc::{check_free_page, check_new_pages};
use crate::pgtable::{flush_tlb_all, flush_tlb_kernel_range, flush_tlb_kernel_range_op, walk as walk_tables};
use crate::policy::{DtorClear, FreeOrder, Invalidate, RemapGrace};
use crate::quiesce::{Pause, with_others_paused};
use crate::state::Scalar;
use crate::static_key::static_branch_add;
use crate::{Errno, Kernel, mutants};
use remap::{vmemmap_is_self_hosted, walk_range};
use update::BATCH;
use walk::{Action, RemapWalk};
use zone_tail::vmemmap_get_tail;

/// Whole vmemmap pages of a hugepage of `pages` base pages; 0 if its struct pages do not fill one.
#[must_use]
pub const fn vmemmap_pages(k: &Kernel, pages: u64) -> u64 {
    (pages * STRUCT_PAGE_SIZE) >> k.geometry.page_shift()
}

/// `hugetlb_vmemmap_optimizable_size`, in vmemmap pages: how many of a hugepage's are shared when it is optimised.
#[must_use]
pub const fn optimizable_pages(k: &Kernel, pages: u64) -> u64 {
    vmemmap_pages(k, pages).saturating_sub(k.features.reserved_vmemmap_pages)
}

impl HugePage {
    fn vmemmap(self, k: &Kernel) -> VaRange {
        let start = self.va(k);
        start..start.plus(self.pages * STRUCT_PAGE_SIZE)
    }
    /// `HPageVmemmapOptimized`.
    pub fn is_optimized<C: Cpu>(self, k: &Kernel, cpu: &C) -> bool {
        self.has_flag(k, cpu, HPG_VMEMMAP_OPTIMIZED)
    }
}

/// `static_branch_inc(&hugetlb_optimize_vmemmap_key)`. Without fake heads there is no key.
fn static_branch_inc<C: Cpu>(k: &Kernel, cpu: &C) {
    if k.features.fake_heads {
        static_branch_add(k, cpu, Scalar::HvoKey, 1);
    }
}

/// `static_branch_dec`.
fn static_branch_dec<C: Cpu>(k: &Kernel, cpu: &C) {
    if k.features.fake_heads {
        static_branch_add(k, cpu, Scalar::HvoKey, -1);
    }
}

/// `free_vmemmap_page`: back to the allocator, whether it came from there or from memblock at boot.
fn free_vmemmap_page<C: Cpu>(k: &Kernel, cpu: &C, frame: Frame<C::Tok>) {
    if k.features.memmap_counters {
        let counter = if cpu.is_reserved(frame) { Scalar::NrMemmapBootPages } else { Scalar::NrMemmapPages };
        cpu.var_add(k.vars.scalar(counter), -1, Order::Relaxed);
    }
    check_free_page(k, cpu, k.geometry.pfn(frame.pa));
    cpu.free(frame, 0, FrameKind::Vmemmap);
}

/// `free_vmemmap_page_list`.
fn free_vmemmap_page_list<C: Cpu>(k: &Kernel, cpu: &C, list: &mut FrameList<C::Tok>) {
    if !k.features.memmap_counters && !k.features.stray_types() {
        // Nothing is looked at or counted between two of them.
        return cpu.list_free(list, FrameKind::Vmemmap);
    }
    while let Some(frame) = cpu.list_shift(list) {
        free_vmemmap_page(k, cpu, frame);
    }
}

const VMEMMAP_PAGE: Alloc =
    Alloc { order: 0, kind: FrameKind::Vmemmap, zone: Zone::Normal, at: None, may_sleep: true, top_down: false };

/// One frame of `alloc_vmemmap_page_list`, or the head's copy.
fn alloc_vmemmap_page<C: Cpu>(k: &Kernel, cpu: &C) -> Option<Frame<C::Tok>> {
    let frame = cpu.alloc(VMEMMAP_PAGE)?;
    check_new_pages(k, cpu, k.geometry.pfn(frame.pa), 0);
    Some(frame)
}

/// `alloc_vmemmap_page_list`: all or nothing.
fn alloc_vmemmap_page_list<C: Cpu>(k: &Kernel, cpu: &C, count: u64) -> Result<FrameList<C::Tok>, Errno> {
    let mut list = FrameList::new();
    let mut left = count as usize;
    while left != 0 {
        let batch = left.min(C::LIST_BATCH.clamp(1, BATCH));
        let (mut fresh, mut allocated) = ([Frame { pa: Pa(0), tok: Default::default() }; BATCH], 0);
        cpu.alloc_each(VMEMMAP_PAGE, batch, |frame| {
            check_new_pages(k, cpu, k.geometry.pfn(frame.pa), 0);
            fresh[allocated] = frame;
            allocated += 1;
        });
        cpu.list_push_each(&mut list, fresh[..allocated].iter().copied());
        if allocated < batch {
            while let Some(frame) = cpu.list_pop(&mut list) {
                cpu.free(frame, 0, FrameKind::Vmemmap);
            }
            return Err(Errno::ENOMEM);
        }
        left -= batch;
    }
    Ok(list)
}

/// The invalidate that ends a walk, unless the policy has another place for it.
fn flush_after_walk<C: Cpu>(k: &Kernel, cpu: &C, range: VaRange) {
    match k.policies.invalidate {
        Invalidate::Range => flush_tlb_kernel_range(k, cpu, range),
        Invalidate::RangeOp => flush_tlb_kernel_range_op(cpu, range),
        Invalidate::Page | Invalidate::Missing => {}
    }
}

/// The frames of a remap, if the policy frees them before the invalidate.
fn free_before_flush<C: Cpu>(k: &Kernel, cpu: &C, frames: &mut FrameList<C::Tok>) {
    match k.policies.free_order {
        FreeOrder::InvalidateThenFree => {}
        FreeOrder::FreeThenInvalidate => free_vmemmap_page_list(k, cpu, frames),
    }
}

/// `flush_tlb_all` of a batch.
fn flush_after_batch<C: Cpu>(k: &Kernel, cpu: &C) {
    match k.policies.invalidate {
        Invalidate::Range | Invalidate::RangeOp | Invalidate::Page => flush_tlb_all(cpu),
        Invalidate::Missing => {}
    }
}

/// The grace period that pairs with the RCU section of `page_ref_add_unless` (bd225530a4c7): whoever saw a count before
/// the page was frozen has done its read-modify-write. `first`: of a batch only the first page waits.
fn wait_for_speculative_refs<C: Cpu>(k: &Kernel, cpu: &C, first: bool) {
    let waits = match k.policies.remap_grace {
        RemapGrace::ByKernel => k.features.waits_for_grace_period,
        RemapGrace::Missing => false,
        RemapGrace::SynchronizeRcu => true,
        RemapGrace::EachPage => return cpu.synchronize_rcu(),
        RemapGrace::Ipi => {
            return if first {
                with_others_paused(k, cpu, Pause::Ipi, || {})
            };
        }
    };
    if waits && first {
        cpu.synchronize_rcu();
    }
}

fn enabled<C: Cpu>(k: &Kernel, cpu: &C) -> bool {
    k.hvo_configured() && cpu.var_load(k.vars.scalar(Scalar::HvoEnabled), Order::Plain) != 0
}

/// `hugetlb_vmemmap_optimize_folio` (6.1: `hugetlb_vmemmap_optimize`, 2021: `free_huge_page_vmemmap`). The page has no
/// references; failure leaves it as it was and is silent.
pub fn hugetlb_vmemmap_optimize_folio<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage) {
    cpu.label("hugetlb_vmemmap_optimize");
    cpu.concluding(|| {
        if k.features.head_is_copied {
            let mut list = FrameList::new();
            let flags = Flags { synchronize_rcu: true, no_tlb_flush: false };
            let _ = __hugetlb_vmemmap_optimize_folio(k, cpu, page, &mut list, flags);
            free_vmemmap_page_list(k, cpu, &mut list);
        } else {
            hugetlb_vmemmap_optimize(k, cpu, page);
        }
    });
}

/// Runs `remap` with the static key raised, from before the first alias appears; lowered again if it fails.
fn with_static_branch<C: Cpu>(k: &Kernel, cpu: &C, remap: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    if mutants::key_too_late(k) {
        return remap().inspect(|()| static_branch_inc(k, cpu));
    }
    static_branch_inc(k, cpu);
    remap().inspect_err(|_| static_branch_dec(k, cpu))
}

/// Whether the storage is to be looked at before the walk, and is self-hosted.
fn is_self_hosted_before_walk<C: Cpu>(k: &Kernel, cpu: &C, vmemmap: &VaRange) -> bool {
    match k.features.self_hosted_test {
        SelfHostedTest::BeforeWalk => !mutants::ignore_self_hosted(k) && vmemmap_is_self_hosted(k, cpu, vmemmap.start),
        SelfHostedTest::InWalk => false,
    }
}

/// `hugetlb_vmemmap_optimize` of 6.1, `free_huge_page_vmemmap` of 2021: where the head stays.
fn hugetlb_vmemmap_optimize<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage) {
    if !enabled(k, cpu) || optimizable_pages(k, page.pages) == 0 {
        return;
    }
    let vmemmap = page.vmemmap(k);
    if is_self_hosted_before_walk(k, cpu, &vmemmap) {
        return;
    }
    let done = with_static_branch(k, cpu, || {
        wait_for_speculative_refs(k, cpu, true);
        let reuse = vmemmap.start.plus((k.features.reserved_vmemmap_pages - 1) << k.geometry.page_shift());
        vmemmap_remap_free_from_reuse(k, cpu, reuse..vmemmap.end)
    });
    if done.is_ok() {
        page.set_flag(k, cpu, HPG_VMEMMAP_OPTIMIZED);
    }
}

/// `vmemmap_remap_free` of 6.1 and 2021: `range` begins with the reuse page, which stays as it is.
fn vmemmap_remap_free_from_reuse<C: Cpu>(k: &Kernel, cpu: &C, range: VaRange) -> Result<(), Errno> {
    let page = k.geometry.page_size();
    cpu.acquire(LockId::InitMmMmap, Mode::Read);
    let mut walk = RemapWalk::new(Action::Remap);
    let done = walk_range(k, cpu, &range, &mut walk);
    if done.is_ok() {
        free_before_flush(k, cpu, &mut walk.frames);
        flush_after_walk(k, cpu, range.start.plus(page)..range.end);
    } else if walk.nr_walked != 0 {
        let end = rollback_end(k, range.start, walk.nr_walked);
        let mut back = RemapWalk { frames: walk.frames, ..RemapWalk::new(Action::Rollback) };
        // Splits nothing, hence cannot fail.
        let _ = walk_range(k, cpu, &(range.start..end), &mut back);
        flush_after_walk(k, cpu, range.start.plus(page)..end);
        walk.frames = back.frames;
    }
    cpu.release(LockId::InitMmMmap, Mode::Read);
    free_vmemmap_page_list(k, cpu, &mut walk.frames);
    done
}

/// End of the range that a rollback walks again.
fn rollback_end(k: &Kernel, start: Va, nr_walked: u64) -> Va {
    start.plus(mutants::rolled_back(k, nr_walked) << k.geometry.page_shift())
}

/// `VMEMMAP_REMAP_NO_TLB_FLUSH`, `VMEMMAP_SYNCHRONIZE_RCU`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags {
    pub synchronize_rcu: bool,
    pub no_tlb_flush: bool,
}

/// `__hugetlb_vmemmap_optimize_folio` (6.12). Frames taken out of the tables go to `list`, for the caller to free after
/// the flush.
///
/// # Errors
/// `ENOMEM`: no frame for the head's copy, or no table for a split. `ENOTSUPP`: self-hosted storage.
fn __hugetlb_vmemmap_optimize_folio<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    page: HugePage,
    list: &mut FrameList<C::Tok>,
    flags: Flags,
) -> Result<(), Errno> {
    if page.is_optimized(k, cpu) || !enabled(k, cpu) || optimizable_pages(k, page.pages) == 0 {
        return Ok(());
    }
    let shared = match k.features.tail_source {
        TailSource::RetainedPage => None,
        // Before anything has changed.
        TailSource::ZoneTail => {
            Some(vmemmap_get_tail(k, cpu, page, || alloc_vmemmap_page(k, cpu)).ok_or(Errno::ENOMEM)?)
        }
    };
    // Before the copy: a later store could reach the old head page through a stale translation and be lost (R11).
    let flag_first = !mutants::flag_after_copy(k);
    let done = with_static_branch(k, cpu, || {
        wait_for_speculative_refs(k, cpu, flags.synchronize_rcu);
        if flag_first {
            page.set_flag(k, cpu, HPG_VMEMMAP_OPTIMIZED);
        }
        if !k.copies_head() {
            let vmemmap = page.vmemmap(k);
            let tail = shared.unwrap_or_else(|| mapped_frame(k, cpu, vmemmap.start));
            let tails = vmemmap.start.plus(k.geometry.page_size())..vmemmap.end;
            return vmemmap_remap_free(k, cpu, tails, None, tail, list, flags);
        }
        let head = alloc_vmemmap_page(k, cpu).ok_or(Errno::ENOMEM)?;
        if k.features.memmap_counters {
            cpu.var_add(k.vars.scalar(Scalar::NrMemmapPages), 1, Order::Relaxed);
        }
        cpu.copy_from_va(page.va(k), head);
        vmemmap_remap_free(k, cpu, page.vmemmap(k), Some(head), shared.unwrap_or(head), list, flags)
    });
    match done {
        Ok(()) if !flag_first => page.set_flag(k, cpu, HPG_VMEMMAP_OPTIMIZED),
        Err(_) if flag_first => page.clear_flag(k, cpu, HPG_VMEMMAP_OPTIMIZED),
        Ok(()) | Err(_) => {}
    }
    done
}

/// The frame that backs an address of vmemmap, by the tables.
fn mapped_frame<C: Cpu>(k: &Kernel, cpu: &C, va: Va) -> Frame<C::Tok> {
    let (slot, entry) = walk_tables(cpu, va);
    let inside = va.0 & (k.geometry.entry_span(slot.level) - 1) & !(k.geometry.page_size() - 1);
    cpu.frame_of(entry, k.geometry.output(entry.desc).plus(inside))
}

/// `vmemmap_remap_free` of 6.12: the head PTE, if it is in the range, moves to `head`, the tails share `tail`.
fn vmemmap_remap_free<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    range: VaRange,
    head: Option<Frame<C::Tok>>,
    tail: Frame<C::Tok>,
    list: &mut FrameList<C::Tok>,
    flags: Flags,
) -> Result<(), Errno> {
    let (no_tlb_flush, before) = (flags.no_tlb_flush, list.len);
    let mut walk = RemapWalk { head, shared: Some(tail), frames: *list, no_tlb_flush, ..RemapWalk::new(Action::Remap) };
    let done = vmemmap_remap_range(k, cpu, &range, &mut walk);
    if let Some(head) = walk.head {
        cpu.list_push(&mut walk.frames, head);
    }
    *list = walk.frames;
    if done.is_ok() || walk.nr_walked == 0 {
        return done;
    }
    let end = rollback_end(k, range.start, walk.nr_walked);
    let mut back = RemapWalk { shared: Some(tail), frames: walk.frames, ..RemapWalk::new(Action::Rollback) };
    // Splits nothing, hence cannot fail.
    let _ = vmemmap_remap_range(k, cpu, &(range.start..end), &mut back);
    // Every frame is back in its place but one: the copy of the head, or (if the head stays on it) the old head.
    if head.is_some() && back.frames.len <= before {
        cpu.warn(
            Invariant::FramesConserved,
            range.start.0,
            "rollback: the fresh head frame is mapped nowhere and on no list",
        );
    }
    *list = back.frames;
    done
}

/// `vmemmap_remap_range` of 6.12: the walk under the mmap lock, the flush after it.
fn vmemmap_remap_range<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    range: &VaRange,
    walk: &mut RemapWalk<C::Tok>,
) -> Result<(), Errno> {
    cpu.acquire(LockId::InitMmMmap, Mode::Read);
    let done = walk_range(k, cpu, range, walk);
    cpu.release(LockId::InitMmMmap, Mode::Read);
    if done.is_ok() && !walk.no_tlb_flush {
        if walk.action == Action::Remap {
            free_before_flush(k, cpu, &mut walk.frames);
        }
        flush_after_walk(k, cpu, range.clone());
    }
    done
}

/// `hugetlb_vmemmap_optimize_folios` (6.12): all splits, one flush, all remaps, one flush, all frees.
///
/// `folios` is called with a function to run for each page, once per pass.
pub fn hugetlb_vmemmap_optimize_folios<C: Cpu>(k: &Kernel, cpu: &C, folios: impl Fn(&mut dyn FnMut(HugePage) -> bool)) {
    cpu.label("hugetlb_vmemmap_optimize_folios");
    let empty = core::cell::Cell::new(true);
    folios(&mut |page| {
        empty.set(false);
        if !enabled(k, cpu) || optimizable_pages(k, page.pages) == 0 {
            return true;
        }
        let mut walk = RemapWalk { no_tlb_flush: true, ..RemapWalk::new(Action::Split) };
        vmemmap_remap_range(k, cpu, &page.vmemmap(k), &mut walk) != Err(Errno::ENOMEM)
    });
    if empty.get() {
        match k.features.empty_batch {
            EmptyBatch::TwoFlushes => {}
            EmptyBatch::OneFlush => return flush_after_batch(k, cpu),
            EmptyBatch::NoFlush => return,
        }
    }
    flush_after_batch(k, cpu);
    let list = core::cell::Cell::new(FrameList::new());
    let flags = core::cell::Cell::new(Flags { synchronize_rcu: true, no_tlb_flush: true });
    folios(&mut |page| {
        let mut frames = list.take();
        let mut done = __hugetlb_vmemmap_optimize_folio(k, cpu, page, &mut frames, flags.get());
        flags.set(Flags { synchronize_rcu: false, no_tlb_flush: true });
        if done == Err(Errno::ENOMEM) && !frames.is_empty() {
            flush_after_batch(k, cpu);
            free_vmemmap_page_list(k, cpu, &mut frames);
            done = __hugetlb_vmemmap_optimize_folio(k, cpu, page, &mut frames, flags.get());
        }
        let _ = done;
        list.set(frames);
        true
    });
    let mut frames = list.take();
    free_before_flush(k, cpu, &mut frames);
    flush_after_batch(k, cpu);
    free_vmemmap_page_list(k, cpu, &mut frames);
}

/// `hugetlb_vmemmap_restore_folio` (6.1: `hugetlb_vmemmap_restore`, 2021: `alloc_huge_page_vmemmap`): every tail gets a
/// frame of its own again. Nothing to do if the page is not optimised.
///
/// # Errors
/// `ENOMEM`: not enough frames; nothing is changed.
pub fn hugetlb_vmemmap_restore_folio<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage) -> Result<(), Errno> {
    cpu.concluding(|| {
        __hugetlb_vmemmap_restore_folio(k, cpu, page, Flags { synchronize_rcu: true, no_tlb_flush: false })
    })
}

/// `__hugetlb_vmemmap_restore_folio`, and with it `vmemmap_remap_alloc`.
fn __hugetlb_vmemmap_restore_folio<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage, flags: Flags) -> Result<(), Errno> {
    cpu.label("hugetlb_vmemmap_restore");
    if !page.is_optimized(k, cpu) {
        return Ok(());
    }
    // 6.12 warns of it; in 6.1 whoever finds the page without its mark meets the read-only tails (R14).
    let checked = match k.policies.dtor_clear {
        DtorClear::BeforeRestore => true,
        DtorClear::Kernel | DtorClear::Sampled | DtorClear::HwpoisonFirst => k.features.restore_checks_mark,
    };
    if checked && !page_huge(k, cpu, page.va(k)) {
        cpu.warn(Invariant::FlagWithState, page.va(k).0, "the HugeTLB mark is gone and the vmemmap is not back");
    }
    wait_for_speculative_refs(k, cpu, flags.synchronize_rcu);
    let vmemmap = page.vmemmap(k);
    let size = k.geometry.page_size();
    let count = optimizable_pages(k, page.pages);
    let frames = alloc_vmemmap_page_list(k, cpu, count)?;
    if mutants::leak_on_restore(k) {
        let _ = alloc_vmemmap_page(k, cpu);
    }
    let tails = Va(vmemmap.end.0 - count * size);
    let mut walk = RemapWalk { frames, no_tlb_flush: flags.no_tlb_flush, ..RemapWalk::new(Action::Restore) };
    if k.features.memmap_counters && !mutants::restore_uncounted(k) {
        cpu.var_add(k.vars.scalar(Scalar::NrMemmapPages), count as i64, Order::Relaxed);
    }
    match k.features.restore_source {
        RestoreSource::MappedFrame => {
            let _ = vmemmap_remap_range(k, cpu, &(tails..vmemmap.end), &mut walk);
        }
        RestoreSource::ReusePage => {
            cpu.acquire(LockId::InitMmMmap, Mode::Read);
            let _ = walk_range(k, cpu, &(Va(tails.0 - size)..vmemmap.end), &mut walk);
            flush_after_walk(k, cpu, tails..vmemmap.end);
            cpu.release(LockId::InitMmMmap, Mode::Read);
        }
    }
    // Empty unless a hole was skipped (6.12) or a mutant shared frames.
    free_vmemmap_page_list(k, cpu, &mut walk.frames);
    page.clear_flag(k, cpu, HPG_VMEMMAP_OPTIMIZED);
    static_branch_dec(k, cpu);
    Ok(())
}

/// One page of `hugetlb_vmemmap_restore_folios`: no flush; `first` waits for the grace period of the batch.
///
/// # Errors
/// `ENOMEM`: not enough frames; nothing is changed.
pub fn restore_in_batch<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage, first: bool) -> Result<(), Errno> {
    cpu.concluding(|| {
        __hugetlb_vmemmap_restore_folio(k, cpu, page, Flags { synchronize_rcu: first, no_tlb_flush: true })
    })
}

/// The flush that ends a batch of `restore_in_batch`.
pub fn end_restore_batch<C: Cpu>(k: &Kernel, cpu: &C) {
    flush_after_batch(k, cpu);
}
