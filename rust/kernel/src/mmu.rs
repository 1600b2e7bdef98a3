//! Page tables of vmemmap and of the linear map (`arch/arm64/mm/mmu.c`; kernel-semantics §3.2, §3.3, §4).
//!
//! Serialised by the caller (`mem_hotplug_lock` for write); no page-table lock, no mmap_lock.

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{
    Alloc, Attr, Barrier, Cpu, Desc, Entry, Frame, FrameKind, Granule, Invariant, Kind, Level, LockId, Mode, Pa, Slot,
    Tlbi, Va, Zone,
};

use crate::pgalloc::{table_constructed, table_destructed};
use crate::pgtable::{
    __flush_tlb_kernel_pgtable, after_set_pte, clear_entry, flush_tlb_kernel_range, leaf, next_table, offset,
    pgd_offset_k, pgtable_range_aligned, read_once, set_entry, walk,
};
use crate::policy::{LinearFlush, LinearMap, Mapping, RemovedTail, TableFree};
use crate::sparse_vmemmap::{Storage, vmemmap_alloc_block_buf, vmemmap_populate_basepages, vmemmap_populate_to};
use crate::{Errno, Kernel};

// ---- vmemmap: populate ----------------------------------------------------------------------------------------------

/// The first question of `vmemmap_populate`: whether a range is mapped by base pages rather than PMD blocks.
#[inline]
fn wants_base_pages(k: &Kernel, bytes: u64, storage: &Storage) -> bool {
    if k.geometry.granule != Granule::K4 {
        return true;
    }
    // Parts of a section (sub-sections) by pages since d4234d131b0a: a block would be freed with the first of them
    // (R20).
    let part = bytes < k.geometry.section_vmemmap();
    match k.policies.mapping {
        Mapping::ByKernel => part || k.features.hvo_populates_base_pages && k.hvo_at_boot && !storage.is_altmap(),
        Mapping::BasePages => true,
        Mapping::Blocks => part,
        Mapping::BlocksForParts => false,
    }
}

/// `vmemmap_populate`.
///
/// # Errors
/// `ENOMEM`: what was made so far stays; the caller undoes it.
pub fn vmemmap_populate<C: Cpu>(k: &Kernel, cpu: &C, start: Va, end: Va, storage: &mut Storage) -> Result<(), Errno> {
    cpu.label("vmemmap_populate");
    warn_outside_vmemmap(k, cpu, start, end, "vmemmap_populate: range outside vmemmap");
    let bytes = end.since(start);
    if bytes > k.geometry.section_vmemmap() {
        cpu.warn(Invariant::FloorAndCeiling, start.0, "vmemmap_populate: range larger than a section");
    }
    if wants_base_pages(k, bytes, storage) {
        return vmemmap_populate_basepages(k, cpu, start, end, storage);
    }
    let mut addr = start;
    while addr != end {
        let next = k.geometry.addr_end(addr, end, Level::PMD);
        vmemmap_populate_hugepages(k, cpu, addr, next, storage)?;
        addr = next;
    }
    Ok(())
}

/// `vmemmap_populate_hugepages`, one PMD-sized piece of it, by base pages if there is no block to be had.
fn vmemmap_populate_hugepages<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    addr: Va,
    next: Va,
    storage: &mut Storage,
) -> Result<(), Errno> {
    let Some(pmd) = vmemmap_populate_to(k, cpu, addr, Level::PMD, storage)? else { return Ok(()) };
    let entry = read_once(cpu, pmd).desc;
    if !entry.is_none() {
        // `vmemmap_check_pmd`: a leaf is there already, a table may have holes.
        let holes = k.features.populate_fills_tables && entry.is_table_type();
        return if holes { vmemmap_populate_basepages(k, cpu, addr, next, storage) } else { Ok(()) };
    }
    let order = k.geometry.level_shift(Level::PMD) - k.geometry.page_shift();
    if let Some(block) = vmemmap_alloc_block_buf(k, cpu, order as u8, storage) {
        set_entry(cpu, pmd, leaf(&k.geometry, block.pa, k.features.vmemmap_block | k.extra_prot));
        return Ok(());
    }
    if storage.is_altmap() && !k.features.altmap_falls_back_to_pages {
        return Err(Errno::ENOMEM);
    }
    vmemmap_populate_basepages(k, cpu, addr, next, storage)
}

fn warn_outside_vmemmap<C: Cpu>(k: &Kernel, cpu: &C, start: Va, end: Va, message: &'static str) {
    if start < k.layout.vmemmap_start || end > k.layout.vmemmap_end {
        cpu.warn(Invariant::FloorAndCeiling, start.0, message);
    }
}

// ---- vmemmap: free --------------------------------------------------------------------------------------------------

/// `vmemmap_free`: leaves first, with their frames, then the tables that became empty.
pub fn vmemmap_free<C: Cpu>(k: &Kernel, cpu: &C, start: Va, end: Va, storage: &mut Storage) {
    cpu.label("vmemmap_free");
    warn_outside_vmemmap(k, cpu, start, end, "vmemmap_free: range outside vmemmap");
    unmap_hotplug_range(k, cpu, start, end, Some(storage));
    free_empty_tables(k, cpu, start, end, k.layout.vmemmap_start, k.layout.vmemmap_end);
}

/// `unmap_hotplug_range`. `free_mapped` in the kernel is `storage.is_some()` here: the leaf frames are freed, to where
/// they came from.
fn unmap_hotplug_range<C: Cpu>(k: &Kernel, cpu: &C, start: Va, end: Va, mut storage: Option<&mut Storage>) {
    cpu.label("unmap_hotplug_range");
    unmap_hotplug_table(k, cpu, cpu.root(), k.geometry.top(), start, end, &mut storage);
    if storage.is_none() {
        match k.policies.linear_flush {
            LinearFlush::Range => flush_tlb_kernel_range(k, cpu, start..end),
            LinearFlush::Entry => {}
        }
    }
}

/// `unmap_hotplug_p4d_range`, `unmap_hotplug_pud_range`, `unmap_hotplug_pmd_range`, `unmap_hotplug_pte_range`: one
/// table's part of [addr, end).
fn unmap_hotplug_table<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    table: Frame<C::Tok>,
    level: Level,
    start: Va,
    end: Va,
    storage: &mut Option<&mut Storage>,
) {
    if level == Level::PTE && storage.is_none() {
        match k.policies.linear_flush {
            LinearFlush::Range => return unmap_hotplug_ptes(k, cpu, offset(cpu, table, level, start), start, end),
            LinearFlush::Entry => {}
        }
    }
    let mut addr = start;
    while addr != end {
        let next = k.geometry.addr_end(addr, end, level);
        let slot = offset(cpu, table, level, addr);
        let entry = read_once(cpu, slot);
        match k.geometry.kind(entry.desc, level) {
            Kind::None => {}
            Kind::Page(pa) | Kind::Block(pa) => unmap_hotplug_leaf(k, cpu, slot, entry, pa, addr, storage),
            Kind::Table(pa) => unmap_hotplug_table(k, cpu, cpu.frame_of(entry, pa), level.next(), addr, next, storage),
            Kind::Invalid | Kind::Reserved => {
                cpu.warn(Invariant::TreeWellFormed, addr.0, "unmap_hotplug_range: entry neither none, leaf nor table");
                if level == Level::PTE {
                    clear_entry(cpu, slot);
                }
            }
        }
        addr = next;
    }
}

/// `unmap_hotplug_pte_range` of the linear map, with one flush for all at its end: nothing but loads and stores.
fn unmap_hotplug_ptes<C: Cpu>(k: &Kernel, cpu: &C, first: Slot<C::Tok>, start: Va, end: Va) {
    let count = (end.since(start) >> k.geometry.page_shift()) as usize;
    cpu.update_each(first, count, |index, entry| {
        if entry.desc.is_none() {
            return None;
        }
        if !entry.desc.is_table_type() {
            let addr = start.plus(u64::from(index - first.index) << k.geometry.page_shift());
            cpu.warn(Invariant::TreeWellFormed, addr.0, "unmap_hotplug_range: entry neither none, leaf nor table");
        }
        Some(Desc::NONE)
    });
}

/// Store 0; if the frame is to be freed: invalidate one page, then free.
fn unmap_hotplug_leaf<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    slot: Slot<C::Tok>,
    entry: Entry<C::Tok>,
    pa: Pa,
    addr: Va,
    storage: &mut Option<&mut Storage>,
) {
    clear_entry(cpu, slot);
    let one = addr..addr.plus(k.geometry.page_size());
    let Some(storage) = storage.as_deref_mut() else {
        match k.policies.linear_flush {
            LinearFlush::Range => {}
            LinearFlush::Entry => flush_tlb_kernel_range(k, cpu, one),
        }
        return;
    };
    if entry.desc.has(Attr::CONT) {
        cpu.warn(Invariant::TreeWellFormed, addr.0, "unmap_hotplug_range: contiguous entry in vmemmap");
    }
    let kept = !entry.desc.is_writable() && keeps_read_only(k);
    if !entry.desc.is_writable() {
        // Only HVO maps vmemmap read-only: this frame would be freed once for each alias.
        cpu.warn(
            Invariant::RemoveMeetsNoOptimised,
            addr.0,
            "unmap_hotplug_range: vmemmap of an optimised page is removed",
        );
    }
    // One page is enough for a block: any overlapping invalidate removes a block entry.
    flush_tlb_kernel_range(k, cpu, one);
    if kept {
        return;
    }
    let order = (k.geometry.level_shift(slot.level) - k.geometry.page_shift()) as u8;
    free_hotplug_page_range(cpu, cpu.frame_of(entry, pa), order, storage, addr);
}

/// Policy `removed-tail`.
const fn keeps_read_only(k: &Kernel) -> bool {
    match k.policies.removed_tail {
        RemovedTail::Freed => false,
        RemovedTail::Kept => true,
    }
}

/// `free_hotplug_page_range`: altmap frames only leave the altmap's count.
fn free_hotplug_page_range<C: Cpu>(cpu: &C, frame: Frame<C::Tok>, order: u8, storage: &mut Storage, addr: Va) {
    if let Storage::Altmap(altmap) = storage {
        altmap.alloc = altmap.alloc.wrapping_sub(1 << order);
        cpu.release_self_hosted(frame, 1 << order);
        return;
    }
    if cpu.is_reserved(frame) {
        cpu.warn(Invariant::BootVmemmapKept, addr.0, "free_hotplug_page_range: frame from boot (PG_reserved)");
        let page_size = cpu.geometry().page_size();
        for n in 0..1u64 << order {
            cpu.free(Frame { pa: frame.pa.plus(n * page_size), ..frame }, 0, FrameKind::Vmemmap);
        }
        return;
    }
    if cpu.is_self_hosted(frame) {
        cpu.warn(
            Invariant::SelfHostedUntouched,
            addr.0,
            "free_hotplug_page_range: self-hosted frame without its altmap",
        );
        return;
    }
    cpu.free(frame, order, FrameKind::Vmemmap);
}

/// `free_empty_tables`: depth first; a table whose whole span lies in [floor, ceiling) goes if every entry is none.
fn free_empty_tables<C: Cpu>(k: &Kernel, cpu: &C, start: Va, end: Va, floor: Va, ceiling: Va) {
    if free_rules(k.policies.table_free).never {
        return;
    }
    cpu.label("free_empty_tables");
    let top = k.geometry.top();
    let mut addr = start;
    while addr != end {
        let next = k.geometry.addr_end(addr, end, top);
        free_empty_below(k, cpu, pgd_offset_k(cpu, addr), addr, next, floor, ceiling);
        addr = next;
    }
}

/// `free_empty_p4d_table`, `free_empty_pud_table`, `free_empty_pmd_table`, `free_empty_pte_table`: what lies below one
/// entry.
fn free_empty_below<C: Cpu>(k: &Kernel, cpu: &C, slot: Slot<C::Tok>, start: Va, end: Va, floor: Va, ceiling: Va) {
    let entry = read_once(cpu, slot);
    if entry.desc.is_none() {
        return;
    }
    let Some(table) = next_table(cpu, entry, slot.level) else {
        cpu.warn(Invariant::FreedTableIsEmpty, start.0, "free_empty_tables: a leaf is left in the range");
        return;
    };
    let level = slot.level.next();
    if level == Level::PTE {
        let first = offset(cpu, table, level, start);
        let count = (end.since(start) >> k.geometry.page_shift()) as usize;
        cpu.read_each(first, count, |index, pte| {
            if !pte.desc.is_none() {
                let addr = start.plus(u64::from(index - first.index) << k.geometry.page_shift());
                cpu.warn(Invariant::FreedTableIsEmpty, addr.0, "free_empty_pte_table: a PTE is left in the range");
            }
        });
    } else {
        let mut addr = start;
        while addr != end {
            let next = k.geometry.addr_end(addr, end, level);
            free_empty_below(k, cpu, offset(cpu, table, level, addr), addr, next, floor, ceiling);
            addr = next;
        }
    }
    let span = k.geometry.entry_span(slot.level);
    let owned = pgtable_range_aligned(&(start..end), floor, ceiling, span);
    let rules = free_rules(k.policies.table_free);
    if !owned && rules.bounds {
        return;
    }
    cpu.label(match level.0 {
        3 => "free_empty_pte_table",
        2 => "free_empty_pmd_table",
        1 => "free_empty_pud_table",
        _ => "free_empty_p4d_table",
    });
    if rules.scan && !is_table_empty(k, cpu, table, level) {
        return;
    }
    if !owned {
        cpu.warn(
            Invariant::FloorAndCeiling,
            start.0,
            "free_empty_tables: a table whose span leaves the region is freed",
        );
    }
    clear_entry(cpu, slot);
    match k.policies.table_free {
        TableFree::AtOnce | TableFree::Never | TableFree::NoScan | TableFree::WrongBounds => {
            __flush_tlb_kernel_pgtable(cpu, start)
        }
        TableFree::AfterGracePeriod => {
            __flush_tlb_kernel_pgtable(cpu, start);
            cpu.synchronize_rcu();
        }
        TableFree::AfterIommu => {
            __flush_tlb_kernel_pgtable(cpu, start);
            // `kernel_pgtable_work_func` does this for a list of tables, later; to a table its order is the same.
            cpu.iommu_invalidate();
        }
        TableFree::LastLevelTlbi => {
            cpu.barrier(Barrier::DsbIshst);
            cpu.tlbi(Tlbi::Vaale1is(start));
            cpu.barrier(Barrier::DsbIsh);
            cpu.barrier(Barrier::Isb);
        }
    }
    table_destructed(k, cpu);
    cpu.free(table, 0, FrameKind::Table);
}

/// What is asked before a table goes.
struct FreeRules {
    never: bool,
    /// Whether its whole span lies in [floor, ceiling).
    bounds: bool,
    /// Whether it is empty.
    scan: bool,
}

#[inline]
const fn free_rules(policy: TableFree) -> FreeRules {
    match policy {
        TableFree::Never => FreeRules { never: true, bounds: true, scan: true },
        TableFree::WrongBounds => FreeRules { never: false, bounds: false, scan: true },
        TableFree::NoScan => FreeRules { never: false, bounds: true, scan: false },
        TableFree::AtOnce | TableFree::AfterGracePeriod | TableFree::AfterIommu | TableFree::LastLevelTlbi => {
            FreeRules { never: false, bounds: true, scan: true }
        }
    }
}

/// The scan: READ_ONCE of each entry, index 0 upward, until one is not none. Not atomic (R35).
fn is_table_empty<C: Cpu>(k: &Kernel, cpu: &C, table: Frame<C::Tok>, level: Level) -> bool {
    let entries = k.geometry.entries();
    cpu.concluding(|| {
        let mut index = 0;
        while index < entries {
            let at = |index: usize| Slot { table: table.pa, index: index as u16, level, tok: table.tok };
            index += cpu.skip_none(at(index), entries - index);
            if index < entries && !read_once(cpu, at(index)).desc.is_none() {
                return false;
            }
            index += 1;
        }
        true
    })
}

// ---- linear map -----------------------------------------------------------------------------------------------------

/// Whether a leaf of `level` may map this piece: everything aligned, and the policy and granule allow blocks.
#[inline]
fn linear_leaf_fits(k: &Kernel, level: Level, addr: Va, next: Va, pa: Pa, start: Va) -> bool {
    addr >= linear_blocks_from(k, start)
        && maps_blocks(k)
        && k.geometry.block_allowed(level)
        && (addr.0 | next.0 | pa.0) & (k.geometry.entry_span(level) - 1) == 0
}

/// Whether the linear map may have blocks and contiguous runs.
#[inline]
const fn maps_blocks(k: &Kernel) -> bool {
    match k.policies.linear_map {
        LinearMap::Pages => false,
        LinearMap::Blocks | LinearMap::Cont => true,
    }
}

/// Where blocks of a linear range may begin.
#[inline]
fn linear_blocks_from(k: &Kernel, start: Va) -> Va {
    match k.policies.linear_map {
        LinearMap::Cont => start.plus(k.geometry.entry_span(Level::PMD)),
        LinearMap::Pages | LinearMap::Blocks => start,
    }
}

/// `alloc_init_cont_pte`, `alloc_init_cont_pmd`: whether the entry belongs to a contiguous set that the range fills.
#[inline]
fn linear_cont(k: &Kernel, level: Level, addr: Va, start: Va, end: Va, pa: Pa) -> bool {
    let set = match level {
        Level::PTE => k.geometry.cont_ptes(),
        Level::PMD => k.geometry.cont_pmds(),
        _ => return false,
    } * k.geometry.entry_span(level);
    let first = addr.align_down(set);
    let start = if level == Level::PMD { linear_blocks_from(k, start) } else { start };
    maps_blocks(k)
        && first >= start
        && first.0.wrapping_add(set).wrapping_sub(1) <= end.0.wrapping_sub(1)
        && pa.0.wrapping_sub(addr.since(first)) & (set - 1) == 0
}

/// `__create_pgd_mapping` of RAM in the linear map, `pgprot_mhp(PAGE_KERNEL)`, tables with UXNTable and PXNTable.
///
/// A failed table allocation is an error, and the caller takes down what was mapped, as in 7.x; older kernels take it
/// for a BUG.
///
/// # Errors
/// `ENOMEM`: no table page; what was mapped stays.
pub fn __create_pgd_mapping<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, bytes: u64, early: bool) -> Result<(), Errno> {
    cpu.label("__create_pgd_mapping");
    let va = k.layout.linear_va(start);
    cpu.acquire(LockId::Fixmap, Mode::Write);
    let result = alloc_init_table(
        k,
        cpu,
        cpu.root(),
        k.geometry.top(),
        &Linear { start: va, end: va.plus(bytes), pa: start, early },
        va..va.plus(bytes),
    );
    cpu.release(LockId::Fixmap, Mode::Write);
    result
}

/// What is mapped where, for the recursion.
struct Linear {
    start: Va,
    end: Va,
    pa: Pa,
    early: bool,
}

/// `alloc_init_cont_pte`, `init_pte`: the PTEs of one table.
fn init_pte<C: Cpu>(k: &Kernel, cpu: &C, first: Slot<C::Tok>, linear: &Linear, part: &vmemmap_arch::VaRange) {
    let attributes = prot::PAGE_KERNEL_TAGGED | k.extra_prot;
    let start = linear.pa.plus(part.start.since(linear.start));
    // Out of the loop, whose stores might change them for all that the compiler knows.
    let (bits, page) = (k.output, k.geometry.page_size());
    let count = (part.end.since(part.start) / page) as usize;
    let then = after_set_pte(Desc(attributes));
    let mut next = start;
    if !maps_blocks(k) {
        return cpu.write_each(first, count, then, move |_| {
            let pa = next;
            next = pa.plus(page);
            bits.descriptor(pa, attributes)
        });
    }
    cpu.write_each(first, count, then, |_| {
        let pa = next;
        next = pa.plus(page);
        let addr = part.start.plus(pa.0 - start.0);
        let cont = linear_cont(k, Level::PTE, addr, linear.start, linear.end, pa);
        bits.descriptor(pa, if cont { attributes | Attr::CONT.bits() } else { attributes })
    });
}

/// `alloc_init_pud`, `alloc_init_cont_pmd`, `init_pmd`: one table's part of a linear mapping.
fn alloc_init_table<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    table: Frame<C::Tok>,
    level: Level,
    linear: &Linear,
    part: vmemmap_arch::VaRange,
) -> Result<(), Errno> {
    if level == Level::PTE {
        init_pte(k, cpu, offset(cpu, table, level, part.start), linear, &part);
        return Ok(());
    }
    let mut addr = part.start;
    while addr != part.end {
        let next = k.geometry.addr_end(addr, part.end, level);
        let slot = offset(cpu, table, level, addr);
        let pa = linear.pa.plus(addr.since(linear.start));
        if linear_leaf_fits(k, level, addr, next, pa, linear.start) {
            let mut attributes = (prot::PAGE_KERNEL_TAGGED | k.extra_prot) & !Attr::TABLE_BIT.bits();
            if linear_cont(k, level, addr, linear.start, linear.end, pa) {
                attributes |= Attr::CONT.bits();
            }
            set_entry(cpu, slot, leaf(&k.geometry, pa, attributes));
        } else {
            let entry = read_once(cpu, slot);
            let below = match next_table(cpu, entry, level) {
                Some(below) => below,
                None => {
                    let request = Alloc {
                        order: 0,
                        kind: FrameKind::Table,
                        zone: Zone::Normal,
                        at: None,
                        may_sleep: true,
                        top_down: linear.early,
                    };
                    let below = cpu.alloc(request).ok_or(Errno::ENOMEM)?;
                    if !linear.early {
                        table_constructed(k, cpu);
                    }
                    // `__pgd_pgtable_alloc`: the zeroes must be visible to walkers before the table is.
                    cpu.barrier(Barrier::DsbIshst);
                    set_entry(cpu, slot, k.geometry.descriptor(below.pa, k.features.linear_table));
                    below
                }
            };
            alloc_init_table(k, cpu, below, level.next(), linear, addr..next)?;
        }
        addr = next;
    }
    Ok(())
}

/// `can_unmap_without_split`: neither end of [start, end) lies strictly inside a leaf, or a contiguous run, of the
/// linear map or of vmemmap. Looks without a lock.
pub(crate) fn can_unmap_without_split<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, end: Pa) -> bool {
    let g = &k.geometry;
    let inside = |va: Va| {
        let (slot, entry) = walk(cpu, va);
        let (Kind::Page(_) | Kind::Block(_)) = g.kind(entry.desc, slot.level) else { return false };
        let run = match slot.level {
            _ if !entry.desc.has(Attr::CONT) => 1,
            Level::PTE => g.cont_ptes(),
            _ => g.cont_pmds(),
        };
        !va.is_aligned(g.entry_span(slot.level) * run)
    };
    [start, end].into_iter().all(|pa| !inside(k.layout.linear_va(pa)) && !inside(k.layout.page_va(g.pfn(pa))))
}

/// `__remove_pgd_mapping`: the linear map of a range, down; no frame is freed but tables.
pub fn __remove_pgd_mapping<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, bytes: u64) {
    cpu.label("__remove_pgd_mapping");
    let va = k.layout.linear_va(start);
    let end = va.plus(bytes);
    unmap_hotplug_range(k, cpu, va, end, None);
    free_empty_tables(k, cpu, va, end, k.layout.page_offset, k.layout.page_end);
    cpu.memory_gone(start, bytes);
}
