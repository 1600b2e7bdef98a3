//! Splitting free hugepages into pages of the next smaller size (`mm/hugetlb.c: demote_store`,
//! `demote_pool_huge_page`; kernel-semantics §7.6).

use vmemmap_arch::{Cpu, LockId, Mode};

use super::page::HugePage;
use super::resize::{drop_uncounted, hugetlb_vmemmap_restore_folios, prep_and_add_allocated_folios};
use super::{
    __prep_new_hugetlb_folio, PageList, Pool, add_hugetlb_folio, clear_hugetlb_and_destroy, enqueue_hugetlb_folio,
    frames, lock, must_be_surplus, remove_hugetlb_folio, restore_and_destroy, unlock, update_and_free_hugetlb_folio,
};
use crate::page::{flag, set_hugetlb_mark, test_flag};
use crate::page_alloc::prep_compound_page;
use crate::state::Hstate;
use crate::{Errno, Kernel};

/// `demote_store`, `echo count > …/demote`: up to `count` available pages become pages of the size in `demote_size`.
/// Returns how many did; fewer are available is no error, and a pending signal none either.
///
/// # Errors
/// `EINVAL`: no such size, or none smaller. `EBUSY`: all free pages are poisoned. `ENOMEM`: a page's vmemmap could not
/// be restored; it is back in its pool, and what was demoted before stays so.
pub fn demote_store<C: Cpu>(k: &Kernel, cpu: &C, h: u8, count: u64) -> Result<u64, Errno> {
    let pool = Pool::new(k, h)?;
    let target = Pool::new(k, pool.get(k, cpu, Hstate::DemoteOrder) as u8)?;
    if target.pages >= pool.pages {
        return Err(Errno::EINVAL);
    }
    cpu.label("demote_store");
    cpu.acquire(LockId::HugetlbResize(h), Mode::Write);
    lock(cpu);
    let mut demoted = 0;
    let mut done = Ok(());
    while demoted < count && done.is_ok() && !cpu.signal_pending() {
        let most = pool.available_huge_pages(k, cpu).min(count - demoted);
        if most == 0 {
            break;
        }
        done = demote_pool_huge_page(k, cpu, pool, target, most).map(|more| demoted += more);
    }
    unlock(cpu);
    cpu.release(LockId::HugetlbResize(h), Mode::Write);
    done.map(|()| demoted)
}

/// `demote_pool_huge_page`: up to `most` pages as a batch, or one. `hugetlb_lock` is held at entry and exit.
fn demote_pool_huge_page<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, target: Pool, most: u64) -> Result<u64, Errno> {
    let next = || pool.find_free(k, cpu, |page| !test_flag(cpu, page.va(k), flag::HWPOISON));
    if !k.batches() {
        return demote_free_huge_page(k, cpu, pool, target, next().ok_or(Errno::EBUSY)?).map(|()| 1);
    }
    let mut list = PageList::default();
    let (mut demoted, mut surplus) = (0, 0);
    while demoted < most {
        let Some(page) = next() else { break };
        let adjust_surplus = must_be_surplus(k, cpu, pool);
        remove_hugetlb_folio(k, cpu, pool, page, adjust_surplus);
        list.add(k, cpu, page);
        demoted += 1;
        surplus += u64::from(adjust_surplus);
    }
    unlock(cpu);
    let done = demote_free_hugetlb_folios(k, cpu, pool, target, &mut list);
    lock(cpu);
    while let Some(page) = list.pop(k, cpu, pool) {
        // Persistent pages went first, so that a surplus one comes back first.
        let adjust_surplus = surplus != 0;
        add_hugetlb_folio(k, cpu, pool, page, adjust_surplus);
        demoted -= 1;
        surplus -= u64::from(adjust_surplus);
    }
    count_demoted(k, cpu, pool, target, demoted, surplus);
    match done {
        // All free pages are poisoned.
        Ok(()) if demoted == 0 && !cpu.signal_pending() => Err(Errno::EBUSY),
        Ok(()) => Ok(demoted),
        Err(errno) => Err(errno),
    }
}

/// `demote_free_hugetlb_folios`: one batch of restores, one of optimisations. What could not be restored stays on
/// `list`; behind a failure too, what never was optimised is split.
fn demote_free_hugetlb_folios<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    pool: Pool,
    target: Pool,
    list: &mut PageList,
) -> Result<(), Errno> {
    let mut restored = PageList::default();
    let done = hugetlb_vmemmap_restore_folios(k, cpu, pool, list, &mut restored);
    // The larger size's mutex is always taken first.
    cpu.acquire(LockId::HugetlbResize(target.h), Mode::Write);
    let mut parts = PageList::default();
    let mut demote = |page| {
        clear_hugetlb_and_destroy(k, cpu, page, None);
        split(k, cpu, target, page, |part| {
            set_hugetlb_mark(k, cpu, part.va(k), true);
            parts.add(k, cpu, part);
        });
    };
    while let Some(page) = restored.pop(k, cpu, pool) {
        demote(page);
    }
    let mut left = PageList::default();
    while let Some(page) = list.pop(k, cpu, pool) {
        if page.is_optimized(k, cpu) {
            left.add(k, cpu, page);
        } else {
            demote(page);
        }
    }
    while let Some(page) = left.pop(k, cpu, pool) {
        list.add(k, cpu, page);
    }
    prep_and_add_allocated_folios(k, cpu, target, parts);
    cpu.release(LockId::HugetlbResize(target.h), Mode::Write);
    done.map(drop).map_err(|_| Errno::ENOMEM)
}

/// `demote_free_huge_page` of 6.1: a page by itself. `hugetlb_lock` is held at entry and exit.
fn demote_free_huge_page<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, target: Pool, page: HugePage) -> Result<(), Errno> {
    let adjust_surplus = must_be_surplus(k, cpu, pool);
    remove_hugetlb_folio(k, cpu, pool, page, adjust_surplus);
    unlock(cpu);
    if let Err(errno) = restore_and_destroy(k, cpu, pool, page, adjust_surplus) {
        lock(cpu);
        return Err(errno);
    }
    cpu.acquire(LockId::HugetlbResize(target.h), Mode::Write);
    split(k, cpu, target, page, |part| {
        __prep_new_hugetlb_folio(k, cpu, part);
        lock(cpu);
        target.add(k, cpu, Hstate::NrHugePages, 1);
        free_new_huge_page(k, cpu, target, part);
    });
    cpu.release(LockId::HugetlbResize(target.h), Mode::Write);
    lock(cpu);
    count_demoted(k, cpu, pool, target, 1, u64::from(adjust_surplus));
    Ok(())
}

/// `free_huge_page` of a page that nobody had yet: in the place of a surplus page back to the page allocator, else onto
/// the free list. `hugetlb_lock` is held at entry and dropped.
fn free_new_huge_page<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, page: HugePage) {
    if pool.get(k, cpu, Hstate::SurplusHugePages) == 0 {
        enqueue_hugetlb_folio(k, cpu, pool, page);
        unlock(cpu);
        return;
    }
    pool.add(k, cpu, Hstate::SurplusHugePages, -1);
    drop_uncounted(k, cpu, pool, page);
    unlock(cpu);
    update_and_free_hugetlb_folio(k, cpu, pool, page, true);
}

/// An ordinary run of pages becomes compound pages of the target's size, first to last.
fn split<C: Cpu>(k: &Kernel, cpu: &C, target: Pool, page: HugePage, mut each: impl FnMut(HugePage)) {
    cpu.split_run(frames::<C>(k, page), page.order(), target.order());
    for i in 0..page.pages / target.pages {
        let part = HugePage { head: page.head.plus(i * target.pages), pages: target.pages };
        prep_compound_page(k, cpu, part.head, part.order());
        each(part);
    }
}

/// `max_huge_pages` of both sizes after so many demoted pages, `surplus` of them surplus ones.
fn count_demoted<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, target: Pool, demoted: u64, surplus: u64) {
    pool.add(k, cpu, Hstate::MaxHugePages, -((demoted - surplus) as i64));
    target.add(k, cpu, Hstate::MaxHugePages, (demoted * (pool.pages / target.pages)) as i64);
}
