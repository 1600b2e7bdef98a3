//! Leaves of the linear map whose attributes change, split where only a part of one does (`arch/arm64/mm/pageattr.c`,
//! `mmu.c: split_kernel_leaf_mapping`, 7.x), and x86's way back from pages to a block (`arch/x86/mm/pat/set_memory.c`).

use vmemmap_arch::{
    Alloc, Attr, Cpu, Desc, Entry, FrameKind, Invariant, Kind, Level, LockId, Mode, Pfn, Slot, Va, Zone,
};

use crate::pgalloc::table_constructed;
use crate::pgtable::{
    __flush_tlb_kernel_pgtable, flush_tlb_kernel_range, leaf, next_table, offset, pgd_offset_k, read_once, set_entry,
    walk,
};
use crate::policy::{Collapse, LinearSplit, SplitCont, SplitInvalid};
use crate::{Errno, Kernel};

/// The linear addresses of so many pages.
fn linear(k: &Kernel, pfn: Pfn, pages: u64) -> (Va, Va) {
    let start = k.layout.linear_va(k.geometry.pa(pfn));
    (start, start.plus(pages << k.geometry.page_shift()))
}

/// Entries of a contiguous run, 1 for an entry that is in none.
fn run(k: &Kernel, desc: Desc, level: Level) -> u64 {
    match level {
        _ if !desc.has(Attr::CONT) => 1,
        Level::PTE => k.geometry.cont_ptes(),
        Level::PMD => k.geometry.cont_pmds(),
        _ => 1,
    }
}

/// A leaf, valid or present and invalid.
fn is_leaf(k: &Kernel, desc: Desc, level: Level) -> bool {
    match k.geometry.kind(desc, level) {
        Kind::Page(_) | Kind::Block(_) => true,
        Kind::Invalid => desc.is_present(k.features.present_bit),
        Kind::None | Kind::Table(_) | Kind::Reserved => false,
    }
}

/// `set_memory_valid` of so many pages: leaves of which only a part is to change are split first, then each is stored,
/// then the range is flushed.
///
/// # Errors
/// `EINVAL`: not mapped, or a leaf that reaches beyond the range. `ENOMEM`: no table for a split.
pub fn set_memory_valid<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn, pages: u64, on: bool) -> Result<(), Errno> {
    let (start, end) = linear(k, pfn, pages);
    for edge in [start, end] {
        split_kernel_leaf_mapping(k, cpu, edge)?;
    }
    cpu.label("set_memory_valid");
    let mut addr = start;
    while addr < end {
        let (slot, entry) = walk(cpu, addr);
        let span = k.geometry.entry_span(slot.level);
        if !is_leaf(k, entry.desc, slot.level) {
            return Err(Errno::EINVAL);
        }
        let whole = span * run(k, entry.desc, slot.level);
        let first = addr.align_down(whole);
        if first < start || first.plus(whole) > end {
            cpu.warn(
                Invariant::TreeWellFormed,
                addr.0,
                "pageattr_pmd_entry, pageattr_pte_entry: a part of a block or of a contiguous run is to change",
            );
            return Err(Errno::EINVAL);
        }
        // `PTE_PRESENT_INVALID` is nG in a valid entry.
        let valid = entry.desc.without(Attr::NG).with(Attr::VALID);
        let invalid = entry.desc.without(Attr::VALID).with(Attr::NG);
        set_entry(cpu, slot, if on { valid } else { invalid });
        addr = addr.plus(span);
    }
    flush_tlb_kernel_range(k, cpu, start..end);
    Ok(())
}

/// `split_kernel_leaf_mapping`, at one address: until no leaf and no contiguous run has the
/// address inside it. Every step stores over a live entry, which the CPU is to allow (BBML2_NOABORT, BBML3), so there
/// is no invalidate. `pgtable_split_lock` is left out: nobody else splits the linear map here.
///
/// # Errors
/// `ENOMEM`: no table.
fn split_kernel_leaf_mapping<C: Cpu>(k: &Kernel, cpu: &C, va: Va) -> Result<(), Errno> {
    cpu.label("split_kernel_leaf_mapping");
    match k.policies.linear_split {
        LinearSplit::Allowed => {}
        LinearSplit::Refused => return Ok(()),
    }
    loop {
        let (slot, entry) = walk(cpu, va);
        let span = k.geometry.entry_span(slot.level);
        let run = run(k, entry.desc, slot.level);
        if !is_leaf(k, entry.desc, slot.level) || va.is_aligned(span * run) {
            return Ok(());
        }
        if !entry.desc.is_valid() && is_taken_for_table(k, cpu, va) {
            return Ok(());
        }
        split_leaf(k, cpu, slot, entry, run, va, true)?;
    }
}

/// Whether the leaf tests call an invalid leaf a table (`!pmd_leaf`, which asked for a valid one).
fn is_taken_for_table<C: Cpu>(k: &Kernel, cpu: &C, va: Va) -> bool {
    match k.policies.split_invalid {
        SplitInvalid::Keeps | SplitInvalid::MakesValid => false,
        SplitInvalid::TakesForTable => {
            cpu.warn(
                Invariant::TreeWellFormed,
                va.0,
                "split_kernel_leaf_mapping descends into a page of data: an invalid block is no table",
            );
            true
        }
    }
}

/// `split_contpte`, `split_contpmd`: the run loses its CONT bits; or, of a block by itself, `split_pud`, `split_pmd`.
fn split_leaf<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    slot: Slot<C::Tok>,
    entry: Entry<C::Tok>,
    run: u64,
    va: Va,
    may_sleep: bool,
) -> Result<(), Errno> {
    let mut entry = entry;
    if run > 1 {
        let first = u64::from(slot.index) / run * run;
        for index in first..first + run {
            let at = Slot { index: index as u16, ..slot };
            let one = read_once(cpu, at);
            cpu.write(at, one.desc.without(Attr::CONT), vmemmap_arch::Order::Plain);
        }
        let again = read_once(cpu, slot);
        match k.policies.split_cont {
            SplitCont::Masked => entry = Entry { desc: entry.desc.without(Attr::CONT), ..entry },
            SplitCont::Inherited => {}
            SplitCont::ReadAgain => entry = again,
        }
    }
    if slot.level == Level::PTE || va.is_aligned(k.geometry.entry_span(slot.level)) {
        return Ok(());
    }
    split_block(k, cpu, slot, entry, may_sleep)
}

/// `split_pud`, `split_pmd`: a table of the same blocks or pages of the level below, filled before it is published.
fn split_block<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    block: Slot<C::Tok>,
    entry: Entry<C::Tok>,
    may_sleep: bool,
) -> Result<(), Errno> {
    cpu.label(if block.level == Level::PMD { "split_pmd" } else { "split_pud" });
    let level = block.level.next();
    let request = Alloc { order: 0, kind: FrameKind::Table, zone: Zone::Normal, at: None, may_sleep, top_down: false };
    let table = cpu.alloc(request).ok_or(Errno::ENOMEM)?;
    table_constructed(k, cpu);
    let mut attributes = if level == Level::PTE { entry.desc.with(Attr::TABLE_BIT) } else { entry.desc };
    match k.policies.split_invalid {
        SplitInvalid::MakesValid => attributes = attributes.without(Attr::NG).with(Attr::VALID),
        SplitInvalid::Keeps | SplitInvalid::TakesForTable => {}
    }
    if attributes.is_valid() && !entry.desc.is_valid() {
        cpu.warn(Invariant::SplitKeepsInvalid, entry.desc.0, "split_pmd: pages of an invalid block are valid again");
    }
    let base = k.geometry.output(entry.desc);
    for index in 0..k.geometry.entries() as u16 {
        let at = Slot { table: table.pa, index, level, tok: table.tok };
        let pa = base.plus(u64::from(index) * k.geometry.entry_span(level));
        cpu.write(at, k.geometry.with_output(attributes, pa), vmemmap_arch::Order::Plain);
    }
    cpu.barrier(vmemmap_arch::Barrier::DsbIshst);
    set_entry(cpu, block, k.geometry.descriptor(table.pa, k.features.linear_table));
    Ok(())
}

/// `linear_map_split_to_ptes` of so many pages: every leaf, in one go with all other CPUs stopped.
///
/// # Errors
/// `ENOMEM`: no table.
pub fn linear_map_split_to_ptes<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn, pages: u64) -> Result<(), Errno> {
    cpu.label("linear_map_split_to_ptes");
    let (start, end) = linear(k, pfn, pages);
    cpu.stop_machine_begin();
    let mut addr = start;
    let mut done = Ok(());
    while addr < end && done.is_ok() {
        let (slot, entry) = walk(cpu, addr);
        let is_block = slot.level != Level::PTE && is_leaf(k, entry.desc, slot.level);
        if is_block {
            // Any address inside the block; with the others stopped, from what is free at once (GFP_ATOMIC).
            done = split_leaf(
                k,
                cpu,
                slot,
                entry,
                run(k, entry.desc, slot.level),
                addr.plus(k.geometry.page_size()),
                false,
            );
        }
        // What was a block of blocks is looked at again.
        if is_block && slot.level != Level::PMD {
            continue;
        }
        addr = addr.align_down(k.geometry.entry_span(Level::PMD)).plus(k.geometry.entry_span(Level::PMD));
    }
    crate::pgtable::flush_tlb_all(cpu);
    cpu.stop_machine_end();
    done
}

/// `collapse_pmd_page` (x86, `cpa_collapse_large_pages`): the PTE table of the linear map at the page, if its pages
/// make a block, is replaced by one and freed. Whether it was.
pub fn collapse_pmd_page<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> bool {
    cpu.label("collapse_pmd_page");
    let span = k.geometry.entry_span(Level::PMD);
    let va = linear(k, pfn, 1).0.align_down(span);
    let mut pmd = pgd_offset_k(cpu, va);
    let table = loop {
        let Some(table) = next_table(cpu, read_once(cpu, pmd), pmd.level) else { return false };
        if pmd.level == Level::PMD {
            break table;
        }
        pmd = offset(cpu, table, pmd.level.next(), va);
    };
    let first = read_once(cpu, Slot { table: table.pa, index: 0, level: Level::PTE, tok: table.tok }).desc;
    let base = k.geometry.output(first);
    let uniform = cpu.concluding(|| {
        (0..k.geometry.entries() as u16).all(|index| {
            let at = Slot { table: table.pa, index, level: Level::PTE, tok: table.tok };
            let pa = base.plus(u64::from(index) << k.geometry.page_shift());
            read_once(cpu, at).desc == k.geometry.with_output(first, pa)
        })
    });
    if !uniform || !first.is_valid() || base.0 & (span - 1) != 0 {
        return false;
    }
    let (around, set) = match k.policies.collapse {
        Collapse::MmapRead => (true, false),
        Collapse::SetLocked => (false, true),
        Collapse::None => (false, false),
    };
    if around || set {
        cpu.acquire(LockId::InitMmMmap, Mode::Read);
    }
    set_entry(cpu, pmd, leaf(&k.geometry, base, first.without(Attr::TABLE_BIT).0 & !k.geometry.address_mask()));
    if set {
        cpu.release(LockId::InitMmMmap, Mode::Read);
    }
    flush_tlb_kernel_range(k, cpu, va..va.plus(span));
    __flush_tlb_kernel_pgtable(cpu, va);
    cpu.free(table, 0, FrameKind::Table);
    if around {
        cpu.release(LockId::InitMmMmap, Mode::Read);
    }
    true
}
