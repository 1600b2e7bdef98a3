//! A hugepage that a loaded machine already has: taken into its pool as the tables show it.

use vmemmap_arch::{Attr, Cpu, Desc, Frame, Kind, Level, Order, Pfn, Rmw, STRUCT_PAGE_SIZE, Va};

use super::page::HPG_VMEMMAP_OPTIMIZED;
use super::page::HugePage;
use super::{Pool, enqueue_hugetlb_folio, lock, unlock};
use crate::features::TailSource;
use crate::hugetlb_vmemmap::vmemmap_pages;
use crate::hugetlb_vmemmap::zone_tail::adopt_zone_tail;
use crate::page::set_hugetlb_mark;
use crate::page_alloc::{prep_compound_page, prep_compound_pages};
use crate::pgtable::{next_table, offset, read_once};
use crate::sparse::memmap_pages_add;
use crate::state::{Hstate, Scalar, Section, section_flag};
use crate::{Errno, Kernel};

/// The table of PTEs that maps `va`, if the walk gets that far.
fn pte_table_of<C: Cpu>(cpu: &C, va: Va) -> Option<Frame<C::Tok>> {
    let (mut table, mut level) = (cpu.root(), cpu.geometry().top());
    while level < Level::PTE {
        table = next_table(cpu, read_once(cpu, offset(cpu, table, level, va)), level)?;
        level = level.next();
    }
    Some(table)
}

/// The level 3 descriptors of some vmemmap pages of a hugepage, by number; `None` where a walk does not get that far.
/// One walk for those of a table.
fn ptes_of<C: Cpu, const N: usize>(k: &Kernel, cpu: &C, page: HugePage, numbers: [u64; N]) -> [Option<Desc>; N] {
    let mut known = None;
    numbers.map(|number| {
        let va = page.va(k).plus(number << k.geometry.page_shift());
        let start = va.align_down(k.geometry.entry_span(Level::PMD));
        let table = match known {
            Some((from, table)) if from == start => table,
            _ => pte_table_of(cpu, va)?,
        };
        known = Some((start, table));
        Some(read_once(cpu, offset(cpu, table, Level::PTE, va)).desc)
    })
}

/// Whether two PTEs map the same frame.
fn map_same(k: &Kernel, ptes: [Option<Desc>; 2]) -> bool {
    let page = |pte: Option<Desc>| match k.geometry.kind(pte?, Level::PTE) {
        Kind::Page(pa) => Some(pa),
        Kind::None | Kind::Invalid | Kind::Table(_) | Kind::Block(_) | Kind::Reserved => None,
    };
    let [a, b] = ptes.map(page);
    a.is_some() && a == b
}

/// Whether the tables show the vmemmap of the hugepage optimised: its last two vmemmap pages map the same frame.
pub fn is_remapped<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage) -> bool {
    let count = vmemmap_pages(k, page.pages);
    if count < 2 {
        return false;
    }
    map_same(k, ptes_of(k, cpu, page, [count - 2, count - 1]))
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
    let count = vmemmap_pages(k, page.pages);
    let [second, before, last] = ptes_of(k, cpu, page, [1, count.saturating_sub(2), count.saturating_sub(1)]);
    let optimised = count >= 2 && map_same(k, [before, last]);
    if optimised {
        // The tails alias what comes before them; only the vmemmap pages that can be written are.
        let writable = if second.is_some_and(|desc| desc.is_valid() && !desc.has(Attr::RDONLY)) { 2 } else { 1 };
        if writable != k.features.reserved_vmemmap_pages {
            return Err(Errno::EINVAL);
        }
        let kept = writable * k.geometry.page_size() / STRUCT_PAGE_SIZE;
        prep_compound_pages(k, cpu, head, page.order(), kept);
        page.set_flag(k, cpu, HPG_VMEMMAP_OPTIMIZED);
        if let (TailSource::ZoneTail, Some(last)) = (k.features.tail_source, last) {
            adopt_zone_tail(k, cpu, page, k.geometry.output(last));
        }
        // The section was counted in whole; what is left of one from boot is taken to be from boot too.
        let freed = count - k.features.reserved_vmemmap_pages;
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
