//! How vmemmap PTEs are pointed at other frames (`mm/hugetlb_vmemmap.c: vmemmap_remap_pte`, `vmemmap_restore_pte`;
//! kernel-semantics §H4, §H5, §H7).

use vmemmap_arch::{Barrier, Cpu, Desc, Entry, Frame, Invariant, Level, LockId, Mode, Order, Slot, Va, VaRange};

use super::read_only_first::{RESTORED_PROT, protect_tails, protects_first, unprotect_tails};
use super::walk::{Action, NR_RESET_STRUCT_PAGE, Pass, RemapWalk};
use crate::features::{FrameOrder, RestoreSource, Rollback};
use crate::pgtable::{clear_entry, flush_tlb_kernel_range, offset, read_once, set_entry, set_pte};
use crate::policy::{Invalidate, PteUpdate};
use crate::{Kernel, mutants};

/// `vmemmap_pte_range`: the PTEs of [start, end), which one table holds, changed one by one. The walk calls it once for
/// each PMD entry; a caller that has found the table itself needs no walk.
#[inline]
pub fn vmemmap_pte_range<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    table: Frame<C::Tok>,
    range: &VaRange,
    walk: &mut RemapWalk<C::Tok>,
) {
    pte_pass(k, cpu, table, range, walk, Pass::Exchange);
}

/// `vmemmap_pte_range` (6.1), `vmemmap_pte_entry` (6.12) over the PTEs of one table. Where the head stays where it is,
/// the first PTE of the range defines the shared frame.
pub(super) fn pte_pass<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    table: Frame<C::Tok>,
    range: &VaRange,
    walk: &mut RemapWalk<C::Tok>,
    pass: Pass,
) {
    let mut addr = range.start;
    if walk.nr_walked == 0 && begins_with_reuse_page(k) {
        let at = offset(cpu, table, Level::PTE, addr);
        let entry = read_once(cpu, at);
        let reuse = cpu.frame_of(entry, k.output.of(entry.desc));
        walk.shared = Some(reuse);
        if walk.action == Action::Remap {
            mutants::reuse_page(k, cpu, at, reuse);
        }
        walk.nr_walked = 1;
        addr = addr.plus(k.geometry.page_size());
    }
    let rest = addr..range.end;
    match (walk.action, pass) {
        (Action::Split, _) => {}
        (Action::Remap, Pass::Clear) => clear_ptes(k, cpu, table, &rest, walk, true),
        (Action::Restore | Action::Rollback, Pass::Clear) => clear_ptes(k, cpu, table, &rest, walk, false),
        (Action::Remap, Pass::Protect) => protect_tails(k, cpu, table, &rest, walk),
        (Action::Restore | Action::Rollback, Pass::Protect) => unprotect_tails(k, cpu, table, &rest, walk),
        (Action::Remap, Pass::Set) => set_ptes(k, cpu, table, &rest, walk),
        (Action::Remap, Pass::Exchange) => match k.policies.update {
            PteUpdate::Swap if !flushes_each_entry(k) => {
                if let Some(tails) = remap_head(k, cpu, table, &rest, walk, |at, _, new| Some(swap_pte(cpu, at, new))) {
                    swap_tails(k, cpu, tails, walk);
                }
            }
            PteUpdate::Swap
            | PteUpdate::Store
            | PteUpdate::ClearThenSet
            | PteUpdate::ClearThenSetEach
            | PteUpdate::Bbm
            | PteUpdate::BbmEach
            | PteUpdate::BbmFaultWaits
            | PteUpdate::BbmFaultWaitsIrqsOff
            | PteUpdate::BbmStopMachine
            | PteUpdate::BbmIpiPause
            | PteUpdate::ReadOnlyFirst => exchange_ptes(k, cpu, table, &rest, walk),
        },
        (Action::Restore | Action::Rollback, Pass::Exchange | Pass::Set) => {
            vmemmap_restore_pte(k, cpu, table, &rest, walk, pass)
        }
    }
}

/// Whether the ranges of all walks begin with the page that stays, rather than with the first PTE that changes.
#[inline]
const fn begins_with_reuse_page(k: &Kernel) -> bool {
    match k.features.restore_source {
        RestoreSource::ReusePage => true,
        RestoreSource::MappedFrame => false,
    }
}

/// Whether every change of an entry is followed by its own invalidate.
#[inline]
const fn flushes_each_entry(k: &Kernel) -> bool {
    match k.policies.invalidate {
        Invalidate::Page => true,
        Invalidate::Range | Invalidate::RangeOp | Invalidate::Missing => false,
    }
}

/// The PTEs one after the other, each by the function of its `PteUpdate`. Out of the way of the swaps that need no
/// invalidate between them.
#[inline(never)]
fn exchange_ptes<C: Cpu>(k: &Kernel, cpu: &C, table: Frame<C::Tok>, range: &VaRange, walk: &mut RemapWalk<C::Tok>) {
    let old = |at| Some(read_once(cpu, at));
    match k.policies.update {
        PteUpdate::Swap => vmemmap_remap_pte(k, cpu, table, range, walk, |at, _, new| Some(swap_pte(cpu, at, new))),
        // Those that clear the whole hugepage first have passes of their own; whoever asks for one table gets a store.
        PteUpdate::Store
        | PteUpdate::ClearThenSet
        | PteUpdate::Bbm
        | PteUpdate::BbmStopMachine
        | PteUpdate::BbmIpiPause
        | PteUpdate::ReadOnlyFirst => {
            vmemmap_remap_pte(k, cpu, table, range, walk, |at, _, new| {
                let old = old(at);
                set_pte(cpu, at, new);
                old
            });
        }
        PteUpdate::ClearThenSetEach => vmemmap_remap_pte(k, cpu, table, range, walk, |at, _, new| {
            let old = old(at);
            clear_then_set_pte(cpu, at, new);
            old
        }),
        PteUpdate::BbmEach => vmemmap_remap_pte(k, cpu, table, range, walk, |at, va, new| {
            let old = old(at);
            bbm_pte(k, cpu, at, va, new);
            old
        }),
        PteUpdate::BbmFaultWaits => vmemmap_remap_pte(k, cpu, table, range, walk, |at, va, new| {
            let old = old(at);
            vmemmap_update_pte(k, cpu, at, va, new);
            old
        }),
        PteUpdate::BbmFaultWaitsIrqsOff => vmemmap_remap_pte(k, cpu, table, range, walk, |at, va, new| {
            let old = old(at);
            vmemmap_update_pte_irqs_off(k, cpu, at, va, new);
            old
        }),
    }
}

/// One PTE that is restored, by the function of its `PteUpdate`.
fn exchange_pte<C: Cpu>(k: &Kernel, cpu: &C, at: Slot<C::Tok>, va: Va, new: Desc) {
    match k.policies.update {
        PteUpdate::Swap => {
            swap_pte(cpu, at, new);
        }
        // Those that clear the whole hugepage first have done so.
        PteUpdate::Store
        | PteUpdate::ClearThenSet
        | PteUpdate::Bbm
        | PteUpdate::BbmStopMachine
        | PteUpdate::BbmIpiPause
        | PteUpdate::ReadOnlyFirst => {
            set_pte(cpu, at, new);
        }
        PteUpdate::ClearThenSetEach => clear_then_set_pte(cpu, at, new),
        PteUpdate::BbmEach => bbm_pte(k, cpu, at, va, new),
        PteUpdate::BbmFaultWaits => vmemmap_update_pte(k, cpu, at, va, new),
        PteUpdate::BbmFaultWaitsIrqsOff => vmemmap_update_pte_irqs_off(k, cpu, at, va, new),
    }
}

/// Clear, set.
fn clear_then_set_pte<C: Cpu>(cpu: &C, at: Slot<C::Tok>, new: Desc) {
    clear_entry(cpu, at);
    set_pte(cpu, at, new);
}

/// Break-before-make: clear, flush, set.
fn bbm_pte<C: Cpu>(k: &Kernel, cpu: &C, at: Slot<C::Tok>, va: Va, new: Desc) {
    clear_entry(cpu, at);
    flush_tlb_kernel_range(k, cpu, va..va.plus(k.geometry.page_size()));
    set_pte(cpu, at, new);
}

/// `vmemmap_update_pte` of approach A: break-before-make under the lock for which the fault handler waits. With plain
/// `spin_lock` interrupts stay on, which R4 is about.
fn vmemmap_update_pte<C: Cpu>(k: &Kernel, cpu: &C, at: Slot<C::Tok>, va: Va, new: Desc) {
    cpu.label("vmemmap_update_pte");
    cpu.acquire(LockId::InitMmPageTable, Mode::Write);
    bbm_pte(k, cpu, at, va, new);
    cpu.release(LockId::InitMmPageTable, Mode::Write);
}

/// The same with `spin_lock_irq`.
fn vmemmap_update_pte_irqs_off<C: Cpu>(k: &Kernel, cpu: &C, at: Slot<C::Tok>, va: Va, new: Desc) {
    cpu.label("vmemmap_update_pte");
    cpu.irq_disable();
    cpu.acquire(LockId::InitMmPageTable, Mode::Write);
    bbm_pte(k, cpu, at, va, new);
    cpu.release(LockId::InitMmPageTable, Mode::Write);
    cpu.irq_enable();
}

/// The exchange as one atomic instruction.
#[inline(always)]
fn swap_pte<C: Cpu>(cpu: &C, at: Slot<C::Tok>, new: Desc) -> Entry<C::Tok> {
    let old = cpu.swap(at, new, Order::AcqRel);
    if new.is_valid_not_user() {
        cpu.barrier(Barrier::DsbIshst);
        cpu.barrier(Barrier::Isb);
    }
    old
}

/// PTEs that are at most changed before the frames that they gave up are listed, and frames that are at most allocated
/// before they are.
pub(super) const BATCH: usize = 8;

/// PTEs that get the shared frame, and their new word.
struct Tails<T> {
    at: Slot<T>,
    addr: Va,
    count: u64,
    new: Desc,
}

/// `vmemmap_remap_pte` over the PTEs of one table. `put` makes the change and returns what it replaced.
#[inline(always)]
fn vmemmap_remap_pte<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    table: Frame<C::Tok>,
    range: &VaRange,
    walk: &mut RemapWalk<C::Tok>,
    put: impl Fn(Slot<C::Tok>, Va, Desc) -> Option<Entry<C::Tok>>,
) {
    let Some(tails) = remap_head(k, cpu, table, range, walk, &put) else { return };
    let page = k.geometry.page_size();
    let output = k.output;
    let flush_each = flushes_each_entry(k);
    let Tails { mut at, mut addr, count, new } = tails;
    let mut left = count as usize;
    while left != 0 {
        let batch = left.min(C::LIST_BATCH.clamp(1, BATCH));
        let (mut given_up, mut frames) = ([table; BATCH], 0);
        for _ in 0..batch {
            let old = put(at, addr, new);
            if let (Some(old), Some(slot)) = (old, given_up.get_mut(frames)) {
                *slot = cpu.frame_of(old, output.of(old.desc));
                frames += 1;
            }
            if flush_each {
                flush_tlb_kernel_range(k, cpu, addr..addr.plus(page));
            }
            addr = addr.plus(page);
            at.index = at.index.wrapping_add(1);
        }
        cpu.list_push_each(&mut walk.frames, given_up[..frames].iter().copied());
        left -= batch;
    }
    walk.nr_walked += count;
}

/// `vmemmap_remap_pte` of the first PTE, where the head is copied, and what is left to do.
#[inline(always)]
fn remap_head<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    table: Frame<C::Tok>,
    range: &VaRange,
    walk: &mut RemapWalk<C::Tok>,
    put: impl Fn(Slot<C::Tok>, Va, Desc) -> Option<Entry<C::Tok>>,
) -> Option<Tails<C::Tok>> {
    let g = &k.geometry;
    let page = g.page_size();
    let mut addr = range.start;
    let mut at = offset(cpu, table, Level::PTE, addr);
    if let Some(head) = walk.head.take_if(|_| addr != range.end) {
        mutants::content_wmb(k, cpu);
        if let Some(old) = put(at, addr, k.output.descriptor(head.pa, mutants::head_prot(k) | k.extra_prot)) {
            cpu.list_push(&mut walk.frames, cpu.frame_of(old, k.output.of(old.desc)));
        }
        if flushes_each_entry(k) {
            flush_tlb_kernel_range(k, cpu, addr..addr.plus(page));
        }
        walk.nr_walked += 1;
        addr = addr.plus(page);
        at.index += 1;
    }
    let shared = walk.shared?;
    let new = k.output.descriptor(shared.pa, mutants::tail_prot(k) | k.extra_prot);
    Some(Tails { at, addr, count: range.end.since(addr) >> g.page_shift(), new })
}

/// `vmemmap_remap_pte` of the tails by `swap_pte`, so many in one look-up of the table. An exchange waits until the
/// stores before it are done, so the frames given up, which nobody else can see, are listed between batches.
#[inline(always)]
fn swap_tails<C: Cpu>(k: &Kernel, cpu: &C, tails: Tails<C::Tok>, walk: &mut RemapWalk<C::Tok>) {
    let Tails { mut at, count, new, .. } = tails;
    let output = k.output;
    let mut left = count as usize;
    while left != 0 {
        let batch = left.min(BATCH);
        let mut replaced = [Entry { desc: Desc::NONE, tok: Default::default() }; BATCH];
        let mut slots = replaced.iter_mut();
        let keep = |old| {
            if let Some(slot) = slots.next() {
                *slot = old;
            }
        };
        // Two calls, so that each is compiled for its barriers.
        if new.is_valid_not_user() {
            cpu.swap_each(at, batch, new, Order::AcqRel, &[Barrier::DsbIshst, Barrier::Isb], keep);
        } else {
            cpu.swap_each(at, batch, new, Order::AcqRel, &[], keep);
        }
        let frames = replaced[..batch].iter().map(|old| cpu.frame_of(*old, output.of(old.desc)));
        cpu.list_push_each(&mut walk.frames, frames);
        at.index = at.index.wrapping_add(batch as u16);
        left -= batch;
    }
    walk.nr_walked += count;
}

/// First half of clear-then-set and of break-before-make over a whole hugepage.
#[inline(never)]
fn clear_ptes<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    table: Frame<C::Tok>,
    range: &VaRange,
    walk: &mut RemapWalk<C::Tok>,
    keep: bool,
) {
    let g = &k.geometry;
    let mut addr = range.start;
    while addr != range.end {
        let at = offset(cpu, table, Level::PTE, addr);
        let old = read_once(cpu, at);
        let frame = cpu.frame_of(old, k.output.of(old.desc));
        if keep {
            cpu.list_push(&mut walk.frames, frame);
        } else if walk.shared.is_none() {
            walk.shared = Some(frame);
        }
        clear_entry(cpu, at);
        walk.nr_walked += 1;
        addr = addr.plus(g.page_size());
    }
}

/// Second half of clear-then-set and of break-before-make over a whole hugepage.
#[inline(never)]
fn set_ptes<C: Cpu>(k: &Kernel, cpu: &C, table: Frame<C::Tok>, range: &VaRange, walk: &mut RemapWalk<C::Tok>) {
    vmemmap_remap_pte(k, cpu, table, range, walk, |at, _, new| {
        set_entry(cpu, at, new);
        None
    });
}

/// `vmemmap_restore_pte` over the PTEs of one table.
#[inline(never)]
fn vmemmap_restore_pte<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    table: Frame<C::Tok>,
    range: &VaRange,
    walk: &mut RemapWalk<C::Tok>,
    pass: Pass,
) {
    let g = &k.geometry;
    let page = g.page_size();
    let (prot, reset) = restored_as(k);
    let mut addr = range.start;
    let mut next = offset(cpu, table, Level::PTE, addr);
    while addr != range.end {
        // So many get their frames, then their contents, then the entries: one, where the order of steps is looked at.
        let mut batch = [Tail { at: next, va: addr, source: table, frame: table }; BATCH];
        let mut tails = 0;
        let mut complete = true;
        while addr != range.end && tails < C::LIST_BATCH.clamp(1, BATCH) {
            let (at, va) = (next, addr);
            next.index = next.index.wrapping_add(1);
            addr = addr.plus(page);
            let first = walk.nr_walked == 0;
            walk.nr_walked += 1;
            let source = match pass {
                Pass::Set => walk.shared.unwrap_or(table),
                Pass::Exchange | Pass::Clear | Pass::Protect => {
                    let old = read_once(cpu, at);
                    cpu.frame_of(old, k.output.of(old.desc))
                }
            };
            if walk.action == Action::Rollback && rollback_keeps(k, walk, first, source) {
                continue;
            }
            if begins_with_reuse_page(k) && walk.shared.is_some_and(|reuse| reuse.pa != source.pa) {
                cpu.warn(Invariant::RestoredPrivate, va.0, "BUG: restored PTE does not map the reuse page");
            }
            let Some(frame) = next_frame(k, cpu, walk) else {
                complete = false;
                break;
            };
            batch[tails] = Tail { at, va, source, frame };
            tails += 1;
        }
        let batch = &batch[..tails];
        match k.features.restore_source {
            RestoreSource::ReusePage => {
                let frames = batch.iter().map(|tail| tail.frame);
                cpu.copy_tails_from_va(reuse_va(k, walk, addr), frames, reset);
            }
            RestoreSource::MappedFrame => {
                batch.iter().for_each(|tail| cpu.copy_tail_frame(tail.source, tail.frame, reset));
            }
        }
        for tail in batch {
            mutants::content_wmb(k, cpu);
            exchange_pte(k, cpu, tail.at, tail.va, k.output.descriptor(tail.frame.pa, prot));
            if flushes_each_entry(k) {
                flush_tlb_kernel_range(k, cpu, tail.va..tail.va.plus(page));
            }
        }
        if !complete {
            cpu.warn(Invariant::FramesConserved, addr.0 - page, "restore ran out of frames");
            return;
        }
    }
}

/// A PTE that is restored: what it maps, and what it is to map.
#[derive(Clone, Copy)]
struct Tail<T> {
    at: Slot<T>,
    va: Va,
    source: Frame<T>,
    frame: Frame<T>,
}

/// Attributes of a restored tail, and how many of its struct pages are reset: approach C does both later.
#[inline]
const fn restored_as(k: &Kernel) -> (u64, u16) {
    let reset = if k.features.restore_resets { NR_RESET_STRUCT_PAGE } else { 0 };
    if protects_first(k.policies.update) {
        (RESTORED_PROT | k.extra_prot, 0)
    } else {
        (mutants::restored_prot(k) | k.extra_prot, reset)
    }
}

/// Whether a rollback leaves a PTE as it is: `first`, the first one walked, or not; it maps `mapped` now.
#[inline]
fn rollback_keeps<T: Copy>(k: &Kernel, walk: &RemapWalk<T>, first: bool, mapped: Frame<T>) -> bool {
    match k.features.rollback {
        Rollback::Everything => false,
        Rollback::KeepsHead => first && k.copies_head(),
        Rollback::KeepsOtherFrames => walk.shared.is_some_and(|tail| tail.pa != mapped.pa),
    }
}

/// `walk->reuse_addr`: the page just below the first restored one, `nr_walked` pages below `end`, where the walk is.
#[inline]
fn reuse_va<T>(k: &Kernel, walk: &RemapWalk<T>, end: Va) -> Va {
    Va(end.0 - (walk.nr_walked << k.geometry.page_shift()))
}

/// The next frame of the walk's list, in the kernel's order.
fn next_frame<C: Cpu>(k: &Kernel, cpu: &C, walk: &mut RemapWalk<C::Tok>) -> Option<Frame<C::Tok>> {
    let frames = &mut walk.frames;
    mutants::next_frame(k, &mut walk.previous, || match k.features.frame_order {
        FrameOrder::Fifo => cpu.list_shift(frames),
        FrameOrder::Lifo => cpu.list_pop(frames),
    })
}
