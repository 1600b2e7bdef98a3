//! A user's side of a hugepage: fault, use, unmap (`mm/hugetlb.c: alloc_huge_page`, `hugetlb_no_page`,
//! `unmap_hugepage_range`; kernel-semantics §7.3, §7.8).

use vmemmap_arch::contents::word;
use vmemmap_arch::{Cpu, Order, Pfn};

use super::page::HPG_MIGRATABLE;
use super::page::HugePage;
use super::resize::alloc_surplus_hugetlb_folio;
use super::{Pool, activate, dequeue_hugetlb_folio_node_exact, free_huge_folio, lock, unlock};
use crate::page::{page_ref_count, put_page_testzero, read_word, write_word};
use crate::policy::UserFlush;
use crate::quiesce::{Pause, with_others_paused};
use crate::state::{Hstate, Scalar};
use crate::{Errno, Kernel};

/// `alloc_hugetlb_folio` (6.1: `alloc_huge_page`) for a fault that has no reservation: a free page that is not
/// reserved, else a surplus page.
///
/// # Errors
/// `ENOSPC`: neither is to be had.
fn alloc_hugetlb_folio<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool) -> Result<HugePage, Errno> {
    cpu.label("alloc_huge_page");
    lock(cpu);
    let page = if pool.available_huge_pages(k, cpu) == 0 {
        None
    } else {
        dequeue_hugetlb_folio_node_exact(k, cpu, pool, |_| true)
    };
    unlock(cpu);
    if let Some(page) = page {
        return Ok(page);
    }
    let page = alloc_surplus_hugetlb_folio(k, cpu, pool).ok_or(Errno::ENOSPC)?;
    lock(cpu);
    activate(k, cpu, pool, page);
    unlock(cpu);
    Ok(page)
}

/// A page fault (`hugetlb_fault`) takes a free page, its struct pages are used, and the last reference puts it back.
/// Returns its head PFN.
///
/// # Errors
/// `ENOSPC`: no page free, and no surplus page allowed or to be had.
pub fn fault_and_unmap<C: Cpu>(k: &Kernel, cpu: &C, h: u8) -> Result<u64, Errno> {
    let pool = Pool::new(k, h)?;
    let page = alloc_hugetlb_folio(k, cpu, pool)?;
    cpu.label("hugetlb_fault");
    page.touch(k, cpu);
    if put_page_testzero(cpu, page.va(k)) {
        free_huge_folio(k, cpu, pool, page);
    }
    Ok(page.head.0)
}

/// `hugetlb_no_page`: a page fault takes a free page and keeps it. Returns its head PFN, by which
/// `__unmap_hugepage_range` gives it back.
///
/// # Errors
/// `ENOSPC`: no page free, and no surplus page allowed or to be had.
pub fn hugetlb_no_page<C: Cpu>(k: &Kernel, cpu: &C, h: u8) -> Result<u64, Errno> {
    let pool = Pool::new(k, h)?;
    let page = alloc_hugetlb_folio(k, cpu, pool)?;
    cpu.label("hugetlb_fault");
    page.touch(k, cpu);
    // The index tells its user's mapping from others, also after a migration.
    write_word(cpu, page.va(k), word::INDEX, page.head.0);
    match k.policies.user_flush {
        UserFlush::NotModelled => {}
        UserFlush::Broadcast | UserFlush::Ipi => {
            cpu.var_store(k.vars.scalar(Scalar::UserPte), page.head.0 + 1, Order::Release);
        }
    }
    // Last, as `hugetlb_no_page` does: until then migration keeps off.
    page.set_flag(k, cpu, HPG_MIGRATABLE);
    Ok(page.head.0)
}

/// `__unmap_hugepage_range`: the user to whom `hugetlb_no_page` gave the page at `at` unmaps it, wherever migration has
/// put it since. Returns the head PFN that it had.
///
/// # Errors
/// `EINVAL`: nobody holds that page.
pub fn __unmap_hugepage_range<C: Cpu>(k: &Kernel, cpu: &C, h: u8, at: Pfn) -> Result<u64, Errno> {
    cpu.label("put_page");
    let pool = Pool::new(k, h)?;
    match k.policies.user_flush {
        UserFlush::NotModelled => {}
        UserFlush::Broadcast => cpu.var_store(k.vars.scalar(Scalar::UserPte), 0, Order::Release),
        UserFlush::Ipi => {
            cpu.var_store(k.vars.scalar(Scalar::UserPte), 0, Order::Release);
            // `flush_tlb_range`, `on_each_cpu_mask`
            with_others_paused(k, cpu, Pause::Ipi, || {});
        }
    }
    lock(cpu);
    let mut found = pool.first(k, cpu, Hstate::ActiveList);
    while let Some(page) = found {
        if read_word(cpu, page.va(k), word::INDEX) == at.0 && page_ref_count(cpu, page.va(k)) != 0 {
            break;
        }
        found = pool.next(k, cpu, page);
    }
    // Under the lock, or migration could take the same reference.
    let last = found.map(|page| {
        write_word(cpu, page.va(k), word::INDEX, u64::MAX);
        (page, put_page_testzero(cpu, page.va(k)))
    });
    unlock(cpu);
    let (page, last) = last.ok_or(Errno::EINVAL)?;
    if last {
        free_huge_folio(k, cpu, pool, page);
    }
    Ok(page.head.0)
}
