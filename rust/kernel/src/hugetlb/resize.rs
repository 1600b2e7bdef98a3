//! The size of a pool: `nr_hugepages`, overcommit, reservations (`mm/hugetlb.c: set_max_huge_pages`,
//! `update_and_free_pages_bulk`, `hugetlb_acct_memory`; kernel-semantics §7.2, §7.4, §7.8).

use vmemmap_arch::{Cpu, Invariant, LockId, Mode, Order, Until};

use super::page::HugePage;
use super::{
    __update_and_free_hugetlb_folio, PageList, Pool, add_hugetlb_folio, alloc_buddy_hugetlb_folio,
    alloc_fresh_hugetlb_folio, alloc_uncounted, enqueue_hugetlb_folio, free_hpage_workfn, lock, remove_hugetlb_folio,
    unlock, update_and_free_hugetlb_folio,
};
use crate::features::ShrinkMinimum;
use crate::hugetlb_vmemmap::{
    end_restore_batch, hugetlb_vmemmap_optimize_folios, hugetlb_vmemmap_restore_folio, restore_in_batch,
};
use crate::page::set_hugetlb_mark;
use crate::policy::{ShrinkRule, SurplusCount};
use crate::state::{Hstate, Scalar};
use crate::{Errno, Kernel};

/// `echo count > …/nr_hugepages`. The write succeeds even if the target is not reached; what a read gives then
/// (`nr_hugepages`, surplus included) is returned.
///
/// # Errors
/// `EINVAL`: no such size.
pub fn set_max_huge_pages<C: Cpu>(k: &Kernel, cpu: &C, h: u8, count: u64) -> Result<u64, Errno> {
    let pool = Pool::new(k, h)?;
    cpu.label("set_max_huge_pages");
    cpu.acquire(LockId::HugetlbResize(h), Mode::Write);
    flush_free_hpage_work(k, cpu);
    lock(cpu);
    while pool.get(k, cpu, Hstate::SurplusHugePages) != 0 && count > pool.persistent_huge_pages(k, cpu) {
        pool.add(k, cpu, Hstate::SurplusHugePages, -1);
    }
    let grown = if k.batches() { grow_by_list(k, cpu, pool, count) } else { grow_one_by_one(k, cpu, pool, count) };
    if grown {
        shrink(k, cpu, pool, count);
    }
    let persistent = pool.persistent_huge_pages(k, cpu);
    cpu.var_store(k.vars.hstate(h, Hstate::MaxHugePages), persistent, Order::Plain);
    let reached = pool.get(k, cpu, Hstate::NrHugePages);
    unlock(cpu);
    cpu.release(LockId::HugetlbResize(h), Mode::Write);
    Ok(reached)
}

/// `flush_free_hpage_work`: does the worker's work itself.
fn flush_free_hpage_work<C: Cpu>(k: &Kernel, cpu: &C) {
    let _ = free_hpage_workfn(k, cpu);
}

/// `set_max_huge_pages` of 6.1 by `alloc_pool_huge_page`, one by one: allocate, optimise, count, enqueue.
/// `hugetlb_lock` is held at entry and exit. False if it stopped early.
fn grow_one_by_one<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, count: u64) -> bool {
    while count > pool.persistent_huge_pages(k, cpu) {
        unlock(cpu);
        let page = alloc_fresh_hugetlb_folio(k, cpu, pool, None);
        lock(cpu);
        let Ok(page) = page else { return false };
        enqueue_hugetlb_folio(k, cpu, pool, page);
        if cpu.signal_pending() {
            return false;
        }
    }
    true
}

/// `set_max_huge_pages` of 6.12 by `alloc_pool_huge_folio`: a list, which `prep_and_add_allocated_folios` optimises as
/// a batch, counts and enqueues. Whether there is a page on it is asked only where nothing ended the loop early, so
/// that a batch may be empty.
fn grow_by_list<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, count: u64) -> bool {
    let mut list = PageList::default();
    let mut allocated = 0;
    let mut complete = true;
    while complete && count > pool.persistent_huge_pages(k, cpu) + allocated {
        unlock(cpu);
        match alloc_buddy_hugetlb_folio(k, cpu, pool, None) {
            Ok(page) => {
                set_hugetlb_mark(k, cpu, page.va(k), true);
                list.add(k, cpu, page);
                allocated += 1;
                complete = !cpu.signal_pending();
            }
            Err(_) => complete = false,
        }
        lock(cpu);
    }
    if list.first != 0 || !complete {
        unlock(cpu);
        prep_and_add_allocated_folios(k, cpu, pool, list);
        lock(cpu);
    }
    complete
}

/// `prep_and_add_allocated_folios`.
pub(crate) fn prep_and_add_allocated_folios<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, mut list: PageList) {
    hugetlb_vmemmap_optimize_folios(k, cpu, |each| list.for_each(k, cpu, pool, each));
    lock(cpu);
    while let Some(page) = list.pop(k, cpu, pool) {
        pool.add(k, cpu, Hstate::NrHugePages, 1);
        enqueue_hugetlb_folio(k, cpu, pool, page);
    }
    unlock(cpu);
}

/// The other half of `set_max_huge_pages`: free pages down to `count` (`remove_pool_hugetlb_folio`), but no reserved
/// ones and none in use; those become surplus. `hugetlb_lock` is held at entry and exit.
fn shrink<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, count: u64) {
    let used = in_use(k, cpu, pool);
    let keep = count.max(pool.get(k, cpu, Hstate::ResvHugePages).wrapping_add(used));
    let mut list = PageList::default();
    while keep < pool.persistent_huge_pages(k, cpu) {
        let Some(page) = pool.find_free(k, cpu, |_| true) else { break };
        remove_hugetlb_folio(k, cpu, pool, page, false);
        list.add(k, cpu, page);
    }
    unlock(cpu);
    let complete = update_and_free_pages_bulk(k, cpu, pool, list, false);
    flush_free_hpage_work(k, cpu);
    lock(cpu);
    while complete
        && count < pool.persistent_huge_pages(k, cpu)
        && pool.get(k, cpu, Hstate::SurplusHugePages) < pool.get(k, cpu, Hstate::NrHugePages)
    {
        pool.add(k, cpu, Hstate::SurplusHugePages, 1);
    }
}

/// Pages in use that a shrink must leave, beside the reserved ones: `min_count` of `set_max_huge_pages`, an unsigned
/// long, less `resv_huge_pages`.
fn in_use<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool) -> u64 {
    let free = pool.get(k, cpu, Hstate::FreeHugePages);
    let all = || pool.get(k, cpu, Hstate::NrHugePages).saturating_sub(free);
    let persistent = || {
        let persistent = pool.persistent_huge_pages(k, cpu);
        // Free surplus pages, which failed restores leave, are no persistent ones.
        let surplus = if free > persistent { pool.get(k, cpu, Hstate::SurplusHugePages) } else { 0 };
        persistent.saturating_sub(free.saturating_sub(surplus))
    };
    match k.policies.shrink_minimum {
        ShrinkRule::ByKernel => match k.features.shrink_minimum {
            ShrinkMinimum::AllInUse => all(),
            ShrinkMinimum::PersistentInUse => persistent(),
        },
        ShrinkRule::AllInUse => all(),
        ShrinkRule::PersistentInUse => persistent(),
        ShrinkRule::OneWord => pool.persistent_huge_pages(k, cpu).wrapping_sub(free),
    }
}

/// `update_and_free_pages_bulk`, of surplus pages or others. False if a signal ended it.
fn update_and_free_pages_bulk<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, mut list: PageList, surplus: bool) -> bool {
    cpu.label("update_and_free_pages_bulk");
    if !k.batches() {
        while list.first != 0 && !cpu.signal_pending() {
            let Some(page) = list.pop(k, cpu, pool) else { break };
            update_and_free_hugetlb_folio(k, cpu, pool, page, false);
        }
        return put_back(k, cpu, pool, list, surplus);
    }
    let mut restored = PageList::default();
    loop {
        let done = hugetlb_vmemmap_restore_folios(k, cpu, pool, &mut list, &mut restored);
        while let Some(page) = restored.pop(k, cpu, pool) {
            lock(cpu);
            set_hugetlb_mark(k, cpu, page.va(k), false);
            unlock(cpu);
            update_and_free_hugetlb_folio(k, cpu, pool, page, false);
        }
        match done {
            Ok(_) => return put_back(k, cpu, pool, list, surplus),
            Err(0) => bulk_vmemmap_restore_error(k, cpu, pool, &mut list),
            Err(_) => {}
        }
    }
}

/// What a pending signal leaves of a list: free pages of the pool again. The kernel would go on to the end, for minutes
/// if the pool is large; whoever interrupts a machine wants it back. Returns whether nothing was left.
fn put_back<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, mut list: PageList, surplus: bool) -> bool {
    if list.first == 0 {
        return true;
    }
    lock(cpu);
    while let Some(page) = list.pop(k, cpu, pool) {
        set_hugetlb_mark(k, cpu, page.va(k), true);
        pool.add(k, cpu, Hstate::NrHugePages, 1);
        pool.add(k, cpu, Hstate::SurplusHugePages, i64::from(surplus));
        enqueue_hugetlb_folio(k, cpu, pool, page);
    }
    unlock(cpu);
    false
}

/// `hugetlb_vmemmap_restore_folios`: from `list` to `restored`, up to the first failure (or a pending signal), with one
/// flush at the end. Returns the number of pages moved, as an error if it did not come to the end.
pub(super) fn hugetlb_vmemmap_restore_folios<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    pool: Pool,
    list: &mut PageList,
    restored: &mut PageList,
) -> Result<u64, u64> {
    let (mut moved, mut changed, mut first) = (0, false, true);
    let mut failed = false;
    while list.first != 0 && !cpu.signal_pending() {
        let Some(page) = list.pop(k, cpu, pool) else { break };
        if page.is_optimized(k, cpu) {
            failed = restore_in_batch(k, cpu, page, first).is_err();
            first = false;
            if failed {
                list.add(k, cpu, page);
                break;
            }
            changed = true;
        }
        restored.add(k, cpu, page);
        moved += 1;
    }
    if changed {
        end_restore_batch(k, cpu);
    }
    if failed { Err(moved) } else { Ok(moved) }
}

/// `bulk_vmemmap_restore_error`, its last resort: page by page, turning failures into surplus, until one is freed.
fn bulk_vmemmap_restore_error<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, list: &mut PageList) {
    while let Some(page) = list.pop(k, cpu, pool) {
        if hugetlb_vmemmap_restore_folio(k, cpu, page).is_ok() {
            // Nothing is left that could fail.
            let _ = __update_and_free_hugetlb_folio(k, cpu, pool, page);
            return;
        }
        lock(cpu);
        add_hugetlb_folio(k, cpu, pool, page, true);
        unlock(cpu);
    }
}

/// `alloc_surplus_hugetlb_folio` (6.1: `alloc_surplus_huge_page`): a fresh page beyond the persistent ones, counted, on
/// no list.
pub(crate) fn alloc_surplus_hugetlb_folio<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool) -> Option<HugePage> {
    if pool.hstate_is_gigantic(k) && !k.features.gigantic_surplus {
        return None;
    }
    let room = || pool.get(k, cpu, Hstate::SurplusHugePages) < pool.get(k, cpu, Hstate::NrOvercommit);
    lock(cpu);
    let allowed = room();
    unlock(cpu);
    if !allowed {
        return None;
    }
    let (first, then): (&[Hstate], &[Hstate]) = match k.policies.surplus_count {
        SurplusCount::ByKernel if k.features.surplus_counted_at_once => (&SURPLUS_PAGE, &[]),
        SurplusCount::AtOnce => (&SURPLUS_PAGE, &[]),
        SurplusCount::SurplusFirst => (&[Hstate::SurplusHugePages], &[Hstate::NrHugePages]),
        SurplusCount::ByKernel | SurplusCount::NrFirst => return alloc_counted_surplus(k, cpu, pool, room),
    };
    let page = alloc_uncounted(k, cpu, pool, None).ok()?;
    lock(cpu);
    let allowed = room();
    if allowed {
        count(k, cpu, pool, first);
    } else {
        unmark_uncounted(k, cpu, page);
    }
    unlock(cpu);
    if !allowed {
        let _ = __update_and_free_hugetlb_folio(k, cpu, pool, page);
        return None;
    }
    if !then.is_empty() {
        lock(cpu);
        count(k, cpu, pool, then);
        unlock(cpu);
    }
    Some(page)
}

/// The counters of a surplus page.
const SURPLUS_PAGE: [Hstate; 2] = [Hstate::NrHugePages, Hstate::SurplusHugePages];

fn count<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, fields: &[Hstate]) {
    for &field in fields {
        pool.add(k, cpu, field, 1);
    }
}

/// `alloc_surplus_hugetlb_folio` before 7.x: the page is in `nr_huge_pages` already when it is counted as surplus.
fn alloc_counted_surplus<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, room: impl Fn() -> bool) -> Option<HugePage> {
    let page = alloc_fresh_hugetlb_folio(k, cpu, pool, None).ok()?;
    lock(cpu);
    // The limit may have been lowered, or used up, meanwhile.
    if !room() {
        drop_uncounted(k, cpu, pool, page);
        unlock(cpu);
        let _ = __update_and_free_hugetlb_folio(k, cpu, pool, page);
        return None;
    }
    pool.add(k, cpu, Hstate::SurplusHugePages, 1);
    unlock(cpu);
    Some(page)
}

/// `remove_hugetlb_folio` of a page that is on no list.
pub(crate) fn drop_uncounted<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, page: HugePage) {
    pool.add(k, cpu, Hstate::NrHugePages, -1);
    unmark_uncounted(k, cpu, page);
}

/// The HugeTLB mark off a page that is in no pool, unless its vmemmap is to be restored first.
fn unmark_uncounted<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage) {
    if !page.is_optimized(k, cpu) {
        set_hugetlb_mark(k, cpu, page.va(k), false);
    }
}

/// `nr_overcommit_hugepages_store`: `echo count > …/nr_overcommit_hugepages`. Returns `count`.
///
/// # Errors
/// `EINVAL`: no such size, or a gigantic one.
pub fn nr_overcommit_hugepages_store<C: Cpu>(k: &Kernel, cpu: &C, h: u8, count: u64) -> Result<u64, Errno> {
    let pool = Pool::new(k, h)?;
    if pool.hstate_is_gigantic(k) && !k.features.gigantic_surplus {
        return Err(Errno::EINVAL);
    }
    lock(cpu);
    cpu.var_store(k.vars.hstate(h, Hstate::NrOvercommit), count, Order::Plain);
    unlock(cpu);
    Ok(count)
}

/// `hugetlb_acct_memory`: reserve `delta` pages, allocating surplus pages if too few are free, or give back −`delta`.
/// Returns the number reserved now.
///
/// # Errors
/// `ENOMEM`: not enough pages; nothing is reserved. `EINVAL`: no such size, or more given back than reserved.
pub fn hugetlb_acct_memory<C: Cpu>(k: &Kernel, cpu: &C, h: u8, delta: i64) -> Result<u64, Errno> {
    let pool = Pool::new(k, h)?;
    cpu.label("hugetlb_acct_memory");
    lock(cpu);
    let done = if delta >= 0 {
        gather_surplus_pages(k, cpu, pool, delta as u64)
    } else {
        return_unused_surplus_pages(k, cpu, pool, delta.unsigned_abs())
    };
    let reserved = pool.get(k, cpu, Hstate::ResvHugePages);
    unlock(cpu);
    done.map(|()| reserved)
}

/// `gather_surplus_pages`, `hugetlb_lock` held at entry and exit.
fn gather_surplus_pages<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, delta: u64) -> Result<(), Errno> {
    let mut list = PageList::default();
    let mut allocated = 0;
    let mut done = Ok(());
    loop {
        let have = pool.get(k, cpu, Hstate::FreeHugePages) + allocated;
        let needed = (pool.get(k, cpu, Hstate::ResvHugePages) + delta).saturating_sub(have);
        if needed == 0 {
            break;
        }
        unlock(cpu);
        for _ in 0..needed {
            match alloc_surplus_hugetlb_folio(k, cpu, pool) {
                Some(page) => {
                    list.add(k, cpu, page);
                    allocated += 1;
                }
                None => done = Err(Errno::ENOMEM),
            }
            if done.is_err() {
                break;
            }
        }
        lock(cpu);
        if done.is_err() {
            break;
        }
    }
    if done.is_ok() {
        pool.add(k, cpu, Hstate::ResvHugePages, delta as i64);
        while pool.get(k, cpu, Hstate::FreeHugePages) < pool.get(k, cpu, Hstate::ResvHugePages) {
            let Some(page) = list.pop(k, cpu, pool) else { break };
            enqueue_hugetlb_folio(k, cpu, pool, page);
        }
    }
    // Pages that are not needed after all.
    while let Some(page) = list.pop(k, cpu, pool) {
        pool.add(k, cpu, Hstate::SurplusHugePages, -1);
        drop_uncounted(k, cpu, pool, page);
        unlock(cpu);
        update_and_free_hugetlb_folio(k, cpu, pool, page, true);
        lock(cpu);
    }
    done
}

/// `return_unused_surplus_pages`, `hugetlb_lock` held at entry and exit.
fn return_unused_surplus_pages<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, unused: u64) -> Result<(), Errno> {
    if unused > pool.get(k, cpu, Hstate::ResvHugePages) {
        return Err(Errno::EINVAL);
    }
    pool.add(k, cpu, Hstate::ResvHugePages, -(unused as i64));
    let mut list = PageList::default();
    for _ in 0..unused.min(pool.get(k, cpu, Hstate::SurplusHugePages)) {
        let Some(page) = pool.find_free(k, cpu, |_| true) else { break };
        remove_hugetlb_folio(k, cpu, pool, page, true);
        list.add(k, cpu, page);
    }
    unlock(cpu);
    let _ = update_and_free_pages_bulk(k, cpu, pool, list, true);
    lock(cpu);
    Ok(())
}

/// No kernel code: once `after` actors are done, what a pool's counters must be at rest (I24). Returns `nr_huge_pages`.
///
/// # Errors
/// `EINVAL`: no such size.
pub fn judge_at_rest<C: Cpu>(k: &Kernel, cpu: &C, h: u8, after: u64) -> Result<u64, Errno> {
    let pool = Pool::new(k, h)?;
    cpu.label("pool at rest");
    cpu.wait_until(k.vars.scalar(Scalar::ActorsDone), Until::AtLeast(after));
    lock(cpu);
    let [nr, surplus, free, resv, max] = [
        Hstate::NrHugePages,
        Hstate::SurplusHugePages,
        Hstate::FreeHugePages,
        Hstate::ResvHugePages,
        Hstate::MaxHugePages,
    ]
    .map(|field| pool.get(k, cpu, field));
    unlock(cpu);
    for (holds, message) in [
        (nr >= surplus, "more surplus pages than pages"),
        (free >= resv, "more pages reserved than free"),
        (nr.wrapping_sub(surplus) == max, "max_huge_pages is not the number of persistent pages"),
    ] {
        if !holds {
            cpu.warn(Invariant::CountersBalance, u64::from(h), message);
        }
    }
    Ok(nr)
}
