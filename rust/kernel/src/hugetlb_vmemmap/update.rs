//! How vmemmap PTEs are pointed at other frames (`mm/hugetlb_vmemmap.c: vmemmap_remap_pte`, `vmemmap_restore_pte`;
//! kernel-semantics §H4, §H5, §H7).

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{
    Barrier, Cpu, Desc, Entry, Frame, Invariant, Level, LockId, Mode, Order, Slot, Va, VaRange, Version,
};

use super::walk::{Action, Pass, RemapWalk};
use crate::Kernel;
use crate::pgtable::{clear_entry, flush_tlb_kernel_range, leaf, offset, read_once, set_entry};
use crate::policy::{Invalidate, Mutant, PteUpdate};

/// Struct pages at the start of a restored tail page that hold the head's own metadata (`NR_RESET_STRUCT_PAGE`);
/// `reset_struct_pages` overwrites 0 to 2 with 3 to 5, which are plain tails.
const NR_RESET_STRUCT_PAGE: u16 = 3;

/// The PTEs of [start, end), which one table holds, changed one by one. The walk calls it once for each PMD entry; a
/// caller that has found the table itself needs no walk.
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

/// The PTEs of one table. 6.1 and 2021 take the first PTE of the range as the one that defines the shared frame, and
/// leave it as it is; 6.12 rewrites it when it optimises.
pub(super) fn pte_pass<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    table: Frame<C::Tok>,
    range: &VaRange,
    walk: &mut RemapWalk<C::Tok>,
    pass: Pass,
) {
    let mut addr = range.start;
    if !k.version.is_6_12() && walk.nr_walked == 0 {
        let at = offset(cpu, table, Level::PTE, addr);
        let entry = read_once(cpu, at);
        let reuse = cpu.frame_of(entry, k.geometry.output(entry.desc));
        walk.shared = Some(reuse);
        if walk.action == Action::Remap && k.policies.mutant == Mutant::ReadOnlyHead {
            set_entry(cpu, at, leaf(&k.geometry, reuse.pa, prot::PAGE_KERNEL_RO | k.extra_prot));
        }
        walk.nr_walked = 1;
        addr = addr.plus(k.geometry.page_size());
    }
    let rest = addr..range.end;
    match (walk.action, pass) {
        (Action::Split, _) => {}
        (Action::Remap, Pass::Clear) => clear_ptes(k, cpu, table, &rest, walk, true),
        (Action::Restore | Action::Rollback, Pass::Clear) => clear_ptes(k, cpu, table, &rest, walk, false),
        (Action::Remap, Pass::Set) => set_ptes(k, cpu, table, &rest, walk),
        (Action::Remap, Pass::Exchange)
            if k.policies.update == PteUpdate::Swap && k.policies.invalidate != Invalidate::Page =>
        {
            if let Some(tails) = remap_head(k, cpu, table, &rest, walk, |at, _, new| Some(swap_pte(cpu, at, new))) {
                swap_tails(k, cpu, tails, walk);
            }
        }
        (Action::Remap, Pass::Exchange) => exchange_ptes(k, cpu, table, &rest, walk),
        (Action::Restore | Action::Rollback, Pass::Exchange | Pass::Set) => {
            restore_ptes(k, cpu, table, &rest, walk, pass)
        }
    }
}

/// The PTEs one after the other, as `PteUpdate` says. Out of the way of the swaps that need no invalidate between them.
#[inline(never)]
fn exchange_ptes<C: Cpu>(k: &Kernel, cpu: &C, table: Frame<C::Tok>, range: &VaRange, walk: &mut RemapWalk<C::Tok>) {
    let page = k.geometry.page_size();
    match k.policies.update {
        PteUpdate::Swap => remap_ptes(k, cpu, table, range, walk, |at, _, new| Some(swap_pte(cpu, at, new))),
        PteUpdate::ClearThenSetEach => remap_ptes(k, cpu, table, range, walk, |at, _, new| {
            let old = read_once(cpu, at);
            clear_entry(cpu, at);
            set_entry(cpu, at, new);
            Some(old)
        }),
        PteUpdate::BbmEach => remap_ptes(k, cpu, table, range, walk, |at, va, new| {
            let old = read_once(cpu, at);
            clear_entry(cpu, at);
            flush_tlb_kernel_range(cpu, va..va.plus(page));
            set_entry(cpu, at, new);
            Some(old)
        }),
        PteUpdate::BbmFaultWaits | PteUpdate::BbmFaultWaitsIrqsOff => {
            remap_ptes(k, cpu, table, range, walk, |at, va, new| {
                let old = read_once(cpu, at);
                vmemmap_update_pte(k, cpu, at, va..va.plus(page), new);
                Some(old)
            })
        }
        _ => remap_ptes(k, cpu, table, range, walk, |at, _, new| {
            let old = read_once(cpu, at);
            set_pte(cpu, at, new);
            Some(old)
        }),
    }
}

/// `vmemmap_update_pte` of approach A: break-before-make under the lock for which the fault handler waits. With plain
/// `spin_lock` interrupts stay on, which R4 is about.
fn vmemmap_update_pte<C: Cpu>(k: &Kernel, cpu: &C, at: Slot<C::Tok>, range: VaRange, new: Desc) {
    let irqs_off = k.policies.update == PteUpdate::BbmFaultWaitsIrqsOff;
    cpu.label("vmemmap_update_pte");
    if irqs_off {
        cpu.irq_disable();
    }
    cpu.acquire(LockId::InitMmPageTable, Mode::Write);
    clear_entry(cpu, at);
    flush_tlb_kernel_range(cpu, range);
    set_pte(cpu, at, new);
    cpu.release(LockId::InitMmPageTable, Mode::Write);
    if irqs_off {
        cpu.irq_enable();
    }
}

/// `set_pte`: `set_entry` without the tests for the levels above.
#[inline(always)]
fn set_pte<C: Cpu>(cpu: &C, at: Slot<C::Tok>, new: Desc) {
    cpu.write(at, new, Order::Plain);
    if new.is_valid_not_user() {
        cpu.barrier(Barrier::DsbIshst);
        cpu.barrier(Barrier::Isb);
    }
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

/// PTEs that are at most changed before the frames that they gave up are listed.
const BATCH: usize = 8;

/// PTEs that get the shared frame, and their new word.
struct Tails<T> {
    at: Slot<T>,
    addr: Va,
    count: u64,
    new: Desc,
}

/// `vmemmap_remap_pte` over the PTEs of one table. `put` makes the change and returns what it replaced.
#[inline(always)]
fn remap_ptes<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    table: Frame<C::Tok>,
    range: &VaRange,
    walk: &mut RemapWalk<C::Tok>,
    put: impl Fn(Slot<C::Tok>, Va, Desc) -> Option<Entry<C::Tok>>,
) {
    let Some(tails) = remap_head(k, cpu, table, range, walk, &put) else { return };
    let page = k.geometry.page_size();
    let output = k.geometry.output_bits();
    let flush_each = k.policies.invalidate == Invalidate::Page;
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
                flush_tlb_kernel_range(cpu, addr..addr.plus(page));
            }
            addr = addr.plus(page);
            at.index = at.index.wrapping_add(1);
        }
        cpu.list_push_each(&mut walk.frames, given_up[..frames].iter().copied());
        left -= batch;
    }
    walk.nr_walked += count;
}

/// 6.12's change of the head page, and what is left to do.
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
        cpu.barrier(Barrier::SmpWmb);
        let prot = if k.policies.mutant == Mutant::ReadOnlyHead { prot::PAGE_KERNEL_RO } else { prot::PAGE_KERNEL };
        if let Some(old) = put(at, addr, leaf(g, head.pa, prot | k.extra_prot)) {
            cpu.list_push(&mut walk.frames, cpu.frame_of(old, g.output(old.desc)));
        }
        if k.policies.invalidate == Invalidate::Page {
            flush_tlb_kernel_range(cpu, addr..addr.plus(page));
        }
        walk.nr_walked += 1;
        addr = addr.plus(page);
        at.index += 1;
    }
    let shared = walk.shared?;
    let prot = if k.policies.mutant == Mutant::WritableTails { prot::PAGE_KERNEL } else { prot::PAGE_KERNEL_RO };
    let new = leaf(g, shared.pa, prot | k.extra_prot);
    Some(Tails { at, addr, count: range.end.since(addr) >> g.page_shift(), new })
}

/// The tails by `swap_pte`, so many in one look-up of the table. An exchange waits until the stores before it are done,
/// so the frames given up, which nobody else can see, are listed between batches.
#[inline(always)]
fn swap_tails<C: Cpu>(k: &Kernel, cpu: &C, tails: Tails<C::Tok>, walk: &mut RemapWalk<C::Tok>) {
    let Tails { mut at, count, new, .. } = tails;
    let output = k.geometry.output_bits();
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
        let frame = cpu.frame_of(old, g.output(old.desc));
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
    remap_ptes(k, cpu, table, range, walk, |at, _, new| {
        set_entry(cpu, at, new);
        None
    });
}

/// `vmemmap_restore_pte` over the PTEs of one table.
///
/// 6.1 copies the head's vmemmap page through its address, 6.12 the frame that the PTE maps now. 2021's shared page
/// holds tails only and needs no reset; 6.12.117 leaves the reset out (kernel-semantics §H7).
#[inline(never)]
fn restore_ptes<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    table: Frame<C::Tok>,
    range: &VaRange,
    walk: &mut RemapWalk<C::Tok>,
    pass: Pass,
) {
    let g = &k.geometry;
    let page = g.page_size();
    let mutant = k.policies.mutant;
    let prot = if mutant == Mutant::Executable { prot::PAGE_KERNEL_EXEC } else { prot::PAGE_KERNEL } | k.extra_prot;
    let mut addr = range.start;
    while addr != range.end {
        let at = offset(cpu, table, Level::PTE, addr);
        let va = addr;
        addr = addr.plus(page);
        let first = walk.nr_walked == 0;
        walk.nr_walked += 1;
        let source = match pass {
            Pass::Set => walk.shared.unwrap_or(table),
            _ => {
                let old = read_once(cpu, at);
                cpu.frame_of(old, g.output(old.desc))
            }
        };
        if walk.action == Action::Rollback && k.version.is_6_12() {
            // Intended: the head stays on its copy. As written in 6.12.117 the test compares with the tail frame, which
            // is the same one, so that the head PTE is restored over its copy.
            let skip = if k.version == Version::V6_12 { first } else { walk.shared.is_some_and(|t| t.pa != source.pa) };
            if skip {
                continue;
            }
        }
        if !k.version.is_6_12() && walk.shared.is_some_and(|reuse| reuse.pa != source.pa) {
            cpu.warn(Invariant::RestoredPrivate, va.0, "BUG: restored PTE does not map the reuse page");
        }
        let Some(frame) = next_frame(k, cpu, walk) else {
            cpu.warn(Invariant::FramesConserved, va.0, "restore ran out of frames");
            return;
        };
        let reset = if matches!(k.version, Version::V6_1 | Version::V6_12) { NR_RESET_STRUCT_PAGE } else { 0 };
        if k.version.is_6_12() {
            cpu.copy_tail_frame(source, frame, reset);
        } else {
            cpu.copy_tail_from_va(reuse_va(k, walk, va), frame, reset);
        }
        cpu.barrier(Barrier::SmpWmb);
        let new = leaf(g, frame.pa, prot);
        match (pass, k.policies.update) {
            (Pass::Exchange, PteUpdate::Swap) => {
                swap_pte(cpu, at, new);
            }
            (Pass::Exchange, PteUpdate::ClearThenSetEach) => {
                clear_entry(cpu, at);
                set_pte(cpu, at, new);
            }
            (Pass::Exchange, PteUpdate::BbmEach) => {
                clear_entry(cpu, at);
                flush_tlb_kernel_range(cpu, va..va.plus(page));
                set_pte(cpu, at, new);
            }
            (Pass::Exchange, PteUpdate::BbmFaultWaits | PteUpdate::BbmFaultWaitsIrqsOff) => {
                vmemmap_update_pte(k, cpu, at, va..va.plus(page), new);
            }
            _ => set_pte(cpu, at, new),
        }
        if k.policies.invalidate == Invalidate::Page {
            flush_tlb_kernel_range(cpu, va..va.plus(page));
        }
    }
}

/// `walk->reuse_addr`: the page just below the first restored one, `nr_walked` pages below the one after `va`.
fn reuse_va<T>(k: &Kernel, walk: &RemapWalk<T>, va: Va) -> Va {
    Va(va.0 - ((walk.nr_walked - 1) << k.geometry.page_shift()))
}

/// The next frame of the walk's list, in the kernel's order: 6.1 appends to its list and takes from the front, so that
/// a rollback gives every PTE its own frame back; 6.12 pushes and pops.
fn next_frame<C: Cpu>(k: &Kernel, cpu: &C, walk: &mut RemapWalk<C::Tok>) -> Option<Frame<C::Tok>> {
    if k.policies.mutant == Mutant::RestoreShared
        && let Some(shared) = walk.previous.take()
    {
        return Some(shared);
    }
    let frame = if k.version.is_6_12() { cpu.list_pop(&mut walk.frames) } else { cpu.list_shift(&mut walk.frames) };
    if k.policies.mutant == Mutant::RestoreShared {
        walk.previous = frame;
    }
    frame
}
