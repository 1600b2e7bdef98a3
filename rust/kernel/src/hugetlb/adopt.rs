//! A hugepage that a loaded machine already has: taken into its pool as the tables show it.

use vmemmap_arch::{Attr, Cpu, Desc, Kind, Level, Order, Pfn, Rmw, STRUCT_PAGE_SIZE, Va};

use super::page::HPG_VMEMMAP_OPTIMIZED;
use super::page::HugePage;
use super::{Pool, enqueue_hugetlb_folio, lock, unlock};
use crate::features::TailSource;
use crate::hugetlb_vmemmap::vmemmap_pages;
use crate::hugetlb_vmemmap::zone_tail::adopt_zone_tail;
use crate::page::set_hugetlb_mark;
use crate::page_alloc::{prep_compound_page, prep_compound_pages};
use crate::pgtable::{next_table, offset, pgd_offset_k, read_once};
use crate::sparse::memmap_pages_add;
use crate::state::{Hstate, Scalar, Section, section_flag};
use crate::{Errno, Kernel};

/// The level 3 descriptor of `va`, if the walk gets that far.
fn pte_of<C: Cpu>(cpu: &C, va: Va) -> Option<Desc> {
    let mut entry = read_once(cpu, pgd_offset_k(cpu, va));
    let mut level = cpu.geometry().top();
    while level < Level::PTE {
        let table = next_table(cpu, entry, level)?;
        level = level.next();
        entry = read_once(cpu, offset(cpu, table, level, va));
    }
    Some(entry.desc)
}

/// Whether the tables show the vmemmap of the hugepage optimised: its last two vmemmap pages map the same frame.
pub fn is_remapped<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage) -> bool {
    let count = vmemmap_pages(k, page.pages);
    if count < 2 {
        return false;
    }
    let at = |i: u64| pte_of(cpu, page.va(k).plus(i << k.geometry.page_shift()));
    match (at(count - 2), at(count - 1)) {
        (Some(before), Some(last)) => matches!(
            (k.geometry.kind(before, Level::PTE), k.geometry.kind(last, Level::PTE)),
            (Kind::Page(a), Kind::Page(b)) if a == b
        ),
        _ => false,
    }
}

/// The level 3 descriptor of its last vmemmap page.
fn last_pte<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage) -> Option<Desc> {
    let pages = vmemmap_pages(k, page.pages);
    pte_of(cpu, page.va(k).plus((pages - 1) << k.geometry.page_shift()))
}

/// Put the hugepage at `head` into its pool as a free page. The frames are allocated already; whether its vmemmap is
/// optimised is read from the tables, and the struct pages (of which a table image has none) are made to fit.
/// Returns 1 if it is optimised, else 0.
///
/// # Errors
/// `EINVAL`: no such size, `head` is not aligned, or outside RAM; or it is optimised by a kernel that keeps another
/// number of vmemmap pages (2021 kept two), which this one could not restore.
pub fn adopt_page<C: Cpu>(k: &Kernel, cpu: &C, head: Pfn, h: u8) -> Result<u64, Errno> {
    let pool = Pool::new(k, h)?;
    if !head.is_aligned(pool.pages) || !k.vars.contains(k.geometry.pa(head)) {
        return Err(Errno::EINVAL);
    }
    let page = HugePage { head, pages: pool.pages };
    let optimised = is_remapped(k, cpu, page);
    if optimised {
        // The tails alias what comes before them; only the vmemmap pages that can be written are.
        let second = pte_of(cpu, page.va(k).plus(k.geometry.page_size()));
        let writable = if second.is_some_and(|desc| desc.is_valid() && !desc.has(Attr::RDONLY)) { 2 } else { 1 };
        if writable != k.features.reserved_vmemmap_pages {
            return Err(Errno::EINVAL);
        }
        let kept = writable * k.geometry.page_size() / STRUCT_PAGE_SIZE;
        prep_compound_pages(k, cpu, head, page.order(), kept);
        page.set_flag(k, cpu, HPG_VMEMMAP_OPTIMIZED);
        if let (TailSource::ZoneTail, Some(last)) = (k.features.tail_source, last_pte(k, cpu, page)) {
            adopt_zone_tail(k, cpu, page, k.geometry.output(last));
        }
        // The section was counted in whole; what is left of one from boot is taken to be from boot too.
        let freed = vmemmap_pages(k, page.pages) - k.features.reserved_vmemmap_pages;
        let section = k.vars.section_number(k.geometry.pa(head));
        let flags = cpu.var_load(k.vars.section(section, Section::MemMap), Order::Plain);
        let early = flags & section_flag::IS_EARLY != 0;
        let counter = if early { Scalar::NrMemmapBootPages } else { Scalar::NrMemmapPages };
        memmap_pages_add(k, cpu, counter, -(freed as i64));
        if k.features.fake_heads {
            cpu.var_rmw(k.vars.scalar(Scalar::HvoKey), Rmw::FetchAdd(1), Order::AcqRel);
        }
    } else {
        prep_compound_page(k, cpu, head, page.order());
    }
    set_hugetlb_mark(k, cpu, page.va(k), true);
    lock(cpu);
    pool.add(k, cpu, Hstate::NrHugePages, 1);
    pool.add(k, cpu, Hstate::MaxHugePages, 1);
    enqueue_hugetlb_folio(k, cpu, pool, page);
    unlock(cpu);
    Ok(u64::from(optimised))
}
