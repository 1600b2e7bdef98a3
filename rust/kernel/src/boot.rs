//! What the kernel has built when user space starts (`paging_init`, `sparse_init`, `memmap_init`), and taking over
//! tables that a real kernel built.

use vmemmap_arch::{Alloc, Attr, Cpu, FrameKind, Granule, Kind, Level, Order, Pa, Template, Va, Zone};

use crate::memory_block::set_block;
use crate::mmzone::section_start;
use crate::mmzone::{MEM_OFFLINE, MEM_ONLINE};
use crate::policy::Mapping;
use crate::sparse::{__populate_section_memmap, memmap_pages_add, subsection_map_init};
use crate::sparse_vmemmap::{Storage, vmemmap_populate_address};
use crate::state::{Block, Scalar, Section, USAGE_BOOT, section_flag};
use crate::{Errno, Kernel, hugetlb, mmu, page, pgtable};

/// `start_kernel`, as far as memory goes (`paging_init`, `sparse_init`, `hugetlb_init`): the linear map of RAM (which
/// the allocator has already), one section after the other populated, struct pages initialised, memory blocks online.
/// Single-threaded.
///
/// # Errors
/// `ENOMEM`: RAM does not hold the tables and the vmemmap.
pub fn boot<C: Cpu>(k: &Kernel, cpu: &C) -> Result<(), Errno> {
    cpu.label("start_kernel");
    early_fixmap_init(k, cpu)?;
    for ram in k.ram().iter().filter(|ram| ram.boot) {
        mmu::__create_pgd_mapping(k, cpu, ram.start, ram.bytes, true)?;
    }
    sparse_init(k, cpu)?;
    set_max_pfn(k, cpu, k.ram().iter().filter(|ram| ram.boot).map(|ram| ram.start.plus(ram.bytes)));
    hugetlb::hugetlb_init(k, cpu)?;
    Ok(())
}

/// `early_fixmap_init`: empty tables under the fixmap (`bm_pud`, `bm_pmd`, `bm_pte`), without UXNTable; one PTE table,
/// or as many as the fixmap needs. A table that vmemmap shares with the fixmap keeps its attributes.
fn early_fixmap_init<C: Cpu>(k: &Kernel, cpu: &C) -> Result<(), Errno> {
    cpu.label("early_fixmap_init");
    let type_table = k.features.table & !Attr::UXN_TABLE.bits();
    let (start, end) = (
        k.layout.fixmap_start,
        if k.features.fixmap_tables_for_all { k.layout.fixmap_end } else { k.layout.fixmap_start.plus(1) },
    );
    let mut addr = start;
    while addr >= start && addr < end {
        let mut slot = pgtable::pgd_offset_k(cpu, addr);
        while slot.level < Level::PTE {
            let entry = pgtable::read_once(cpu, slot);
            let table = match pgtable::next_table(cpu, entry, slot.level) {
                Some(table) => table,
                None => {
                    let kind = FrameKind::Table;
                    let request =
                        Alloc { order: 0, kind, zone: Zone::Normal, at: None, may_sleep: true, top_down: true };
                    let table = cpu.alloc(request).ok_or(Errno::ENOMEM)?;
                    pgtable::set_entry(cpu, slot, k.geometry.descriptor(table.pa, type_table));
                    table
                }
            };
            slot = pgtable::offset(cpu, table, slot.level.next(), addr);
        }
        let span = k.geometry.entry_span(Level::PMD);
        addr = addr.align_down(span).plus(span);
    }
    Ok(())
}

/// `ends`: of the memory that there is.
fn set_max_pfn<C: Cpu>(k: &Kernel, cpu: &C, ends: impl Iterator<Item = Pa>) {
    let max_pfn = ends.map(|end| k.geometry.pfn(end).0).max().unwrap_or(0);
    cpu.var_store(k.vars.scalar(Scalar::MaxPfn), max_pfn, Order::Plain);
}

/// Whether boot RAM lies in the section.
fn is_boot_section(k: &Kernel, section: u32) -> bool {
    let start = section_start(k, section).0;
    let end = start + k.geometry.section_size();
    k.ram().iter().any(|ram| ram.boot && ram.start.0 < end && start < ram.start.0 + ram.bytes)
}

/// `sparse_init`: vmemmap of each present section, whole even if the section is present in part.
///
/// With 4K and 16K pages the storage is carved upwards from one buffer (`sparse_buffer_init`) at the top of RAM; with
/// 64K the buffer would need PMD_SIZE, 512 MiB, for each section, cannot be had, and single pages come top down. Taking
/// pieces top down for the last section first gives the buffer's order.
fn sparse_init<C: Cpu>(k: &Kernel, cpu: &C) -> Result<(), Errno> {
    cpu.label("sparse_init");
    let count = k.vars.sections();
    let buffered = k.features.sparse_buffer && k.geometry.granule != Granule::K64;
    for n in 0..count {
        let section = if buffered { count - 1 - n } else { n };
        if is_boot_section(k, section) {
            sparse_init_nid(k, cpu, section, buffered)?;
        }
    }
    Ok(())
}

/// `sparse_init_nid`, one section of it, and `memmap_init`.
fn sparse_init_nid<C: Cpu>(k: &Kernel, cpu: &C, section: u32, buffered: bool) -> Result<(), Errno> {
    let g = &k.geometry;
    let pfn = g.pfn(section_start(k, section));
    let pages = g.pages_per_section();
    if buffered && is_populated_by_pages(k) {
        let mut addr = k.layout.page_va(pfn.plus(pages));
        while addr > k.layout.page_va(pfn) {
            addr = Va(addr.0 - g.page_size());
            vmemmap_populate_address(k, cpu, addr, &mut Storage::Memblock)?;
        }
    } else {
        __populate_section_memmap(k, cpu, pfn, pages, &mut Storage::Memblock)?;
    }
    memmap_pages_add(k, cpu, Scalar::NrMemmapBootPages, (g.section_vmemmap() >> g.page_shift()) as i64);
    page::init_struct_pages(k, cpu, pfn, pages, Template::FREE);
    for ram in k.ram().iter().filter(|ram| ram.boot) {
        let start = ram.start.0.max(g.pa(pfn).0);
        let end = (ram.start.0 + ram.bytes).min(g.pa(pfn).0 + g.section_size());
        if start < end {
            subsection_map_init(k, cpu, g.pfn(Pa(start)), (end - start) >> g.page_shift());
        }
    }
    set_section(k, cpu, section, true, Some(Zone::Normal));
    Ok(())
}

fn is_populated_by_pages(k: &Kernel) -> bool {
    let by_kernel = k.features.hvo_populates_base_pages && k.hvo_at_boot;
    match k.policies.mapping {
        Mapping::BasePages => true,
        Mapping::ByKernel => k.geometry.granule != Granule::K4 || by_kernel,
        Mapping::Blocks | Mapping::BlocksForParts => k.geometry.granule != Granule::K4,
    }
}

/// Flags, `usage` and memory block of a section that is there. `zone`: online, and where.
fn set_section<C: Cpu>(k: &Kernel, cpu: &C, section: u32, early: bool, zone: Option<Zone>) {
    let mut flags = section_flag::MARKED_PRESENT | section_flag::HAS_MEM_MAP;
    if early {
        flags |= section_flag::IS_EARLY;
    }
    if zone.is_some() {
        flags |= section_flag::IS_ONLINE;
    }
    cpu.var_store(
        k.vars.section(section, Section::Usage),
        if early { USAGE_BOOT } else { USAGE_BOOT + 1 },
        Order::Plain,
    );
    cpu.var_store(k.vars.section(section, Section::MemMap), flags, Order::Plain);
    match zone {
        Some(zone) => set_block(k, cpu, section, MEM_ONLINE, zone),
        None => cpu.var_store(k.vars.block(section, Block::State), MEM_OFFLINE, Order::Release),
    }
}

/// A range of memory that a loaded machine has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Adopted {
    pub start: Pa,
    pub bytes: u64,
    /// There since boot; otherwise hot-added, in whole sections.
    pub early: bool,
    /// Online, and in which zone.
    pub online: Option<Zone>,
}

/// Take over a machine whose tables were loaded: section and block variables for the ranges given, struct pages as far
/// as their vmemmap can be written (HugeTLB pages are put right by `hugetlb::adopt_page` afterwards). A section whose
/// vmemmap lies inside itself is recognised as self-hosted. The frames' own state is the machine's.
///
/// # Errors
/// None yet; kept so that a machine that makes no sense can be refused.
pub fn adopt<C: Cpu>(k: &Kernel, cpu: &C, ranges: &[Adopted]) -> Result<(), Errno> {
    cpu.label("adopt");
    let g = &k.geometry;
    let size = g.section_size();
    for range in ranges {
        let mut at = range.start;
        let end = range.start.0 + range.bytes;
        while at.0 < end {
            let start = at.align_down(size);
            let part = (start.0 + size).min(end) - at.0;
            if k.vars.contains(at) {
                let section = k.vars.section_number(at);
                subsection_map_init(k, cpu, g.pfn(at), part >> g.page_shift());
                set_section(k, cpu, section, range.early, range.online);
                // Before struct pages are written there: storage that is claimed is zero.
                let own = if range.early { 0 } else { adopt_self_hosted(k, cpu, section) };
                adopt_struct_pages(k, cpu, start, range.online.is_some());
                if range.online.is_some() {
                    for n in 0..own {
                        page::set_flag(cpu, k.layout.page_va(g.pfn(at).plus(n)), page::flag::VMEMMAP_SELF_HOSTED);
                    }
                }
                let pages = (g.section_vmemmap() >> g.page_shift()) as i64;
                memmap_pages_add(
                    k,
                    cpu,
                    if range.early { Scalar::NrMemmapBootPages } else { Scalar::NrMemmapPages },
                    pages,
                );
            }
            at = start.plus(size);
        }
    }
    set_max_pfn(k, cpu, ranges.iter().map(|range| range.start.plus(range.bytes)));
    hugetlb::hugetlb_init(k, cpu)?;
    Ok(())
}

/// Struct pages of a section: free pages, or poison while it is offline.
fn adopt_struct_pages<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, online: bool) {
    let g = &k.geometry;
    let mut va = k.layout.page_va(g.pfn(start));
    let end = va.plus(g.section_vmemmap());
    let template = if online { Template::FREE } else { Template::POISON };
    while va < end {
        let (slot, entry) = pgtable::walk(cpu, va);
        if slot.level != Level::PTE {
            if entry.desc.is_writable() && matches!(g.kind(entry.desc, slot.level), Kind::Block(_)) {
                cpu.fill(va, template);
            }
            va = va.plus(g.page_size());
            continue;
        }
        // The pages of one table; those that may be written are filled as far as they come side by side.
        let next = g.addr_end(va, end, Level::PMD);
        let count = (next.since(va) >> g.page_shift()) as usize;
        let (mut at, mut first) = (va, va);
        let fill = |from: Va, to: Va| cpu.fill_each(from, to.since(from) >> g.page_shift(), template);
        cpu.read_each(slot, count, |_, pte| {
            let writable = pte.desc.is_writable() && matches!(g.kind(pte.desc, Level::PTE), Kind::Page(_));
            if !writable {
                fill(first, at);
                first = at.plus(g.page_size());
            }
            at = at.plus(g.page_size());
        });
        fill(first, next);
        va = next;
    }
}

/// Frame that `va` translates to, and whether it may be written there.
fn leaf_of<C: Cpu>(k: &Kernel, cpu: &C, va: Va) -> Option<(Pa, bool)> {
    let (slot, entry) = pgtable::walk(cpu, va);
    match k.geometry.kind(entry.desc, slot.level) {
        Kind::Page(pa) | Kind::Block(pa) => {
            Some((pa.plus(va.0 & (k.geometry.entry_span(slot.level) - 1)), entry.desc.is_writable()))
        }
        Kind::None | Kind::Invalid | Kind::Table(_) | Kind::Reserved => None,
    }
}

/// A hot-added section whose vmemmap starts with its own first frame has an altmap. Returns how many frames that holds.
fn adopt_self_hosted<C: Cpu>(k: &Kernel, cpu: &C, section: u32) -> u64 {
    let g = &k.geometry;
    let start = section_start(k, section);
    let first = k.layout.page_va(g.pfn(start));
    if leaf_of(k, cpu, first).is_none_or(|(pa, _)| pa < start || pa.0 >= start.0 + g.section_size()) {
        return 0;
    }
    let frames = g.section_vmemmap() >> g.page_shift();
    cpu.var_store(k.vars.block(section, Block::NrVmemmapPages), frames, Order::Plain);
    cpu.var_store(k.vars.block(section, Block::AltmapAlloc), frames, Order::Plain);
    cpu.claim_self_hosted(start, frames);
    frames
}
