//! Splitting free hugepages into pages of the next smaller size (`mm/hugetlb.c: demote_store`,
//! `demote_free_huge_page`; kernel-semantics §7.6).

use vmemmap_arch::{Cpu, LockId, Mode};

use super::page::HugePage;
use super::resize::prep_and_add_allocated_folios;
use super::{
    __prep_new_hugetlb_folio, PageList, Pool, enqueue_hugetlb_folio, frames, lock, must_be_surplus,
    remove_hugetlb_folio, restore_and_destroy, unlock,
};
use crate::page::{flag, set_hugetlb_mark, test_flag};
use crate::page_alloc::prep_compound_page;
use crate::state::Hstate;
use crate::{Errno, Kernel};

/// `demote_store`, `echo count > …/demote`: up to `count` free pages become pages of the size in `demote_size`. Returns
/// how many did; fewer are free is no error.
///
/// # Errors
/// `EINVAL`: no such size, or none smaller. `EBUSY`: all free pages are poisoned. `ENOMEM`: a page's vmemmap could not
/// be restored; it is back in its pool.
pub fn demote_store<C: Cpu>(k: &Kernel, cpu: &C, h: u8, count: u64) -> Result<u64, Errno> {
    let pool = Pool::new(k, h)?;
    let target = Pool::new(k, pool.get(k, cpu, Hstate::DemoteOrder) as u8)?;
    if target.pages >= pool.pages {
        return Err(Errno::EINVAL);
    }
    cpu.label("demote_store");
    cpu.acquire(LockId::HugetlbResize(h), Mode::Write);
    let mut demoted = 0;
    let mut done = Ok(());
    while demoted < count && done.is_ok() {
        lock(cpu);
        if pool.available_huge_pages(k, cpu) == 0 {
            unlock(cpu);
            break;
        }
        done = match pool.find_free(k, cpu, |page| !test_flag(cpu, page.va(k), flag::HWPOISON)) {
            Some(page) => demote_free_huge_page(k, cpu, pool, target, page),
            None => {
                unlock(cpu);
                Err(Errno::EBUSY)
            }
        };
        demoted += u64::from(done.is_ok());
    }
    cpu.release(LockId::HugetlbResize(h), Mode::Write);
    done.map(|()| demoted)
}

/// `demote_free_huge_page`; `hugetlb_lock` is held at entry and dropped.
fn demote_free_huge_page<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, target: Pool, page: HugePage) -> Result<(), Errno> {
    let adjust_surplus = must_be_surplus(k, cpu, pool);
    remove_hugetlb_folio(k, cpu, pool, page, adjust_surplus);
    unlock(cpu);
    restore_and_destroy(k, cpu, pool, page, adjust_surplus)?;
    cpu.split_run(frames::<C>(k, page), page.order(), target.order());
    // The larger size's mutex is always taken first.
    cpu.acquire(LockId::HugetlbResize(target.h), Mode::Write);
    let mut batch = PageList::default();
    let parts = pool.pages / target.pages;
    for i in 0..parts {
        let part = HugePage { head: page.head.plus(i * target.pages), pages: target.pages };
        prep_compound_page(k, cpu, part.head, part.order());
        if k.batches() {
            set_hugetlb_mark(k, cpu, part.va(k), true);
            batch.add(k, cpu, part);
        } else {
            __prep_new_hugetlb_folio(k, cpu, part);
            lock(cpu);
            target.add(k, cpu, Hstate::NrHugePages, 1);
            enqueue_hugetlb_folio(k, cpu, target, part);
            unlock(cpu);
        }
    }
    if k.batches() {
        prep_and_add_allocated_folios(k, cpu, target, batch);
    }
    cpu.release(LockId::HugetlbResize(target.h), Mode::Write);
    lock(cpu);
    pool.add(k, cpu, Hstate::MaxHugePages, -i64::from(!adjust_surplus));
    target.add(k, cpu, Hstate::MaxHugePages, parts as i64);
    unlock(cpu);
    Ok(())
}
