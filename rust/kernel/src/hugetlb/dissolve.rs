//! HugeTLB pages that are in somebody's way: memory going offline, contiguous allocation (`mm/hugetlb.c:
//! dissolve_free_huge_pages`, `isolate_or_dissolve_huge_page`, `mm/migrate.c`; kernel-semantics §7.5, §7.7).

use vmemmap_arch::contents::word;
use vmemmap_arch::{Cpu, Invariant, Pfn, RangeOp, Template, Va};

use super::page::HugePage;
use super::page::{HPG_FREED, HPG_MIGRATABLE, HPG_TEMPORARY};
use super::resize::drop_uncounted;
use super::{
    __update_and_free_hugetlb_folio, Pool, activate, add_hugetlb_folio, alloc_fresh_hugetlb_folio,
    dequeue_hugetlb_folio_node_exact, enqueue_hugetlb_folio, folio_put, free_hpage_workfn, free_huge_folio, lock,
    must_be_surplus, remove_hugetlb_folio, unlock,
};
use crate::features::HugetlbMark;
use crate::hugetlb_vmemmap::hugetlb_vmemmap_restore_folio;
use crate::mmzone::is_migrate_isolate_page;
use crate::page::{
    compound_head, compound_order, flag, folio_test_hugetlb, page_huge, page_ref_count, put_page_testzero, read_word,
    tail_head, test_flag, write_word,
};
use crate::page_alloc::warn_stray_type;
use crate::policy::{HstateRead, IsolatedTest};
use crate::state::Hstate;
use crate::{Errno, Kernel, mutants};

/// `dissolve_free_hugetlb_folios` (6.1: `dissolve_free_huge_pages`): every free hugepage that overlaps [start, end)
/// goes back to the page allocator, its vmemmap restored first. Returns how many did; those before a failure stay
/// dissolved.
///
/// # Errors
/// `EBUSY`: a page is in use, or all free ones are reserved. `ENOMEM`: no frames for a page's vmemmap; it is back in
/// its pool.
pub fn dissolve_free_hugetlb_folios<C: Cpu>(k: &Kernel, cpu: &C, start: Pfn, end: Pfn) -> Result<u64, Errno> {
    cpu.label("dissolve_free_huge_pages");
    let step = k.geometry.hugetlb_sizes().0[0];
    let mut dissolved = 0;
    let per_page = k.geometry.struct_pages_per_page();
    let mut pfn = start;
    while pfn < end {
        if pfn.is_aligned(per_page) {
            let pages = cpu.skip_filled(k.layout.page_va(pfn), (end.0 - pfn.0) / per_page, Template::FREE);
            pfn = pfn.plus(pages * per_page);
            if pfn >= end {
                break;
            }
        }
        dissolved += u64::from(dissolve_free_hugetlb_folio(k, cpu, k.layout.page_va(pfn))?);
        pfn = pfn.plus(step);
    }
    Ok(dissolved)
}

/// `__page_handle_poison` of the page that `pfn` belongs to, as far as it dissolves. Returns 1 if there was
/// one.
///
/// # Errors
/// Those of `dissolve_free_hugetlb_folios`.
pub fn __page_handle_poison<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> Result<u64, Errno> {
    cpu.label("dissolve_free_huge_page");
    dissolve_free_hugetlb_folio(k, cpu, k.layout.page_va(pfn)).map(u64::from)
}

/// `dissolve_free_hugetlb_folio` (6.1: `dissolve_free_huge_page`); whether there was one.
pub(crate) fn dissolve_free_hugetlb_folio<C: Cpu>(k: &Kernel, cpu: &C, page: Va) -> Result<bool, Errno> {
    // Most pages of a block are no compound pages, and their own struct page says so. 6.1 asks for that
    // (`PageCompound`), 6.12 for the type alone.
    let may_be_head = match k.features.hugetlb_mark {
        HugetlbMark::PageType => folio_test_hugetlb(cpu, page),
        HugetlbMark::Destructor => test_flag(cpu, page, flag::HEAD),
    };
    if !may_be_head && tail_head(k, page, read_word(cpu, page, word::COMPOUND_HEAD)).is_none() {
        return Ok(false);
    }
    loop {
        // Not to disturb others by taking the lock for nothing.
        if !page_huge(k, cpu, page) {
            return Ok(false);
        }
        lock(cpu);
        if !page_huge(k, cpu, page) {
            unlock(cpu);
            return Ok(false);
        }
        let head = compound_head(k, cpu, page);
        let Ok(pool) = Pool::of(k, cpu, head) else {
            // The kernel goes on with a NULL hstate, and not for long; the model leaves the page alone.
            warn_stray_type(k, cpu, head);
            unlock(cpu);
            return match k.features.hugetlb_mark {
                HugetlbMark::PageType => Ok(false),
                HugetlbMark::Destructor => Err(Errno::EBUSY),
            };
        };
        if page_ref_count(cpu, head) != 0 || pool.available_huge_pages(k, cpu) == 0 {
            unlock(cpu);
            return Err(Errno::EBUSY);
        }
        let page = HugePage { head: k.layout.page_pfn(head), pages: pool.pages };
        if !page.has_flag(k, cpu, HPG_FREED) {
            // Its last reference is gone, but it has not reached the free list, or waits for the worker.
            unlock(cpu);
            if free_hpage_workfn(k, cpu)? == 0 {
                cpu.round(page.head.0);
            }
            continue;
        }
        let any_surplus = k.features.dissolve_uses_surplus && pool.get(k, cpu, Hstate::SurplusHugePages) != 0;
        let all_surplus = must_be_surplus(k, cpu, pool);
        let adjust_surplus = any_surplus || all_surplus;
        remove_hugetlb_folio(k, cpu, pool, page, adjust_surplus);
        let kept = any_surplus && k.features.dissolve_keeps_max || all_surplus || mutants::max_kept(k);
        let fewer = i64::from(!kept);
        pool.add(k, cpu, Hstate::MaxHugePages, -fewer);
        unlock(cpu);
        if let Err(errno) = hugetlb_vmemmap_restore_folio(k, cpu, page) {
            lock(cpu);
            add_hugetlb_folio(k, cpu, pool, page, adjust_surplus);
            pool.add(k, cpu, Hstate::MaxHugePages, fewer);
            unlock(cpu);
            return Err(errno);
        }
        return __update_and_free_hugetlb_folio(k, cpu, pool, page).map(|()| true);
    }
}

/// Migration of a hugepage in use: another page takes over its user, and the old one is freed, by the worker if need
/// be, which is waited for. Returns the new head PFN.
///
/// # Errors
/// `EINVAL`: no HugeTLB page. `EBUSY`: nobody uses it, or somebody holds a further reference. `ENOMEM`: no other page.
pub fn migrate_huge_page<C: Cpu>(k: &Kernel, cpu: &C, head: Pfn) -> Result<u64, Errno> {
    let new = unmap_and_move_huge_page(k, cpu, head)?;
    free_hpage_workfn(k, cpu)?;
    Ok(new)
}

/// Where a hugepage in use may move.
#[derive(Clone, Copy)]
enum MigrationTarget {
    /// A free page of its pool, which has its first reference.
    Free(HugePage),
    /// A fresh one, counted and on no list (`HPageTemporary`, which the old page takes over).
    Fresh(HugePage),
}

/// `alloc_hugetlb_folio_nodemask` (6.1: `alloc_huge_page_nodemask`): a free page that is neither reserved nor in memory
/// going offline, else a fresh one (`alloc_migrate_hugetlb_folio`), which no gigantic page can have.
///
/// # Errors
/// `ENOMEM`: neither is to be had.
fn alloc_hugetlb_folio_nodemask<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool) -> Result<MigrationTarget, Errno> {
    lock(cpu);
    let free = if pool.available_huge_pages(k, cpu) == 0 {
        None
    } else {
        dequeue_hugetlb_folio_node_exact(k, cpu, pool, |page| !is_migrate_isolate_page(k, cpu, page.head))
    };
    unlock(cpu);
    match free {
        Some(page) => Ok(MigrationTarget::Free(page)),
        None if pool.hstate_is_gigantic(k) => Err(Errno::ENOMEM),
        None => alloc_fresh_hugetlb_folio(k, cpu, pool, None).map(MigrationTarget::Fresh),
    }
}

/// The same up to the last reference (`unmap_and_move_huge_page`, `migrate_huge_page_move_mapping`,
/// `move_hugetlb_state`): the old page may be left to the worker. It returns to the pool if a free page of the pool
/// took its place, and to the page allocator if a fresh one did.
fn unmap_and_move_huge_page<C: Cpu>(k: &Kernel, cpu: &C, head: Pfn) -> Result<u64, Errno> {
    cpu.label("migrate_huge_page");
    let va = k.layout.page_va(head);
    if !page_huge(k, cpu, va) {
        return Err(Errno::EINVAL);
    }
    lock(cpu);
    let pool = Pool::of(k, cpu, va);
    let old = HugePage { head, pages: pool.map_or(1, |pool| pool.pages) };
    // `isolate_hugetlb`
    let isolated = pool.is_ok() && page_ref_count(cpu, va) == 1 && old.has_flag(k, cpu, HPG_MIGRATABLE);
    if isolated {
        old.clear_flag(k, cpu, HPG_MIGRATABLE);
    }
    unlock(cpu);
    if !isolated {
        return Err(Errno::EBUSY);
    }
    let pool = pool?;
    let target = match alloc_hugetlb_folio_nodemask(k, cpu, pool) {
        Ok(target) => target,
        Err(errno) => {
            lock(cpu);
            old.set_flag(k, cpu, HPG_MIGRATABLE);
            unlock(cpu);
            return Err(errno);
        }
    };
    let (MigrationTarget::Free(new) | MigrationTarget::Fresh(new)) = target;
    lock(cpu);
    // The user may have let go meanwhile.
    let still = page_huge(k, cpu, va) && page_ref_count(cpu, va) == 1 && !old.has_flag(k, cpu, HPG_FREED);
    if still {
        write_word(cpu, new.va(k), word::INDEX, read_word(cpu, va, word::INDEX));
        match target {
            MigrationTarget::Free(_) => {}
            MigrationTarget::Fresh(_) => {
                activate(k, cpu, pool, new);
                old.set_flag(k, cpu, HPG_TEMPORARY);
            }
        }
        new.set_flag(k, cpu, HPG_MIGRATABLE);
        write_word(cpu, va, word::INDEX, u64::MAX);
    } else {
        match target {
            MigrationTarget::Free(_) => {}
            MigrationTarget::Fresh(_) => drop_uncounted(k, cpu, pool, new),
        }
        if page_huge(k, cpu, va) && page_ref_count(cpu, va) != 0 {
            // `putback_active_hugepage`: somebody holds a further reference.
            old.set_flag(k, cpu, HPG_MIGRATABLE);
        }
    }
    unlock(cpu);
    if !still {
        match target {
            MigrationTarget::Free(_) => folio_put(k, cpu, new.va(k)),
            // Fails only to make the page surplus.
            MigrationTarget::Fresh(_) => drop(__update_and_free_hugetlb_folio(k, cpu, pool, new)),
        }
        return Err(Errno::EBUSY);
    }
    if put_page_testzero(cpu, va) {
        free_huge_folio(k, cpu, pool, old);
    }
    Ok(new.head.0)
}

/// `alloc_contig_range` over the hugepage whose head is `pfn`, as far as HugeTLB is concerned: isolate, replace or
/// migrate (`isolate_or_dissolve_huge_page`), wait for what is deferred (`wait_for_freed_hugetlb_folios`), test. The
/// isolation is undone, and the range stays free. Returns the PFN of the replacement.
///
/// # Errors
/// Those of `isolate_or_dissolve_huge_page`. `EBUSY`: the range cannot be isolated, or is not free.
pub fn alloc_contig_range<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> Result<u64, Errno> {
    cpu.label("alloc_contig_range");
    let (flush_before, flush_after) = match k.policies.isolated_test {
        IsolatedTest::ByKernel => (false, k.features.waits_for_deferred_frees),
        IsolatedTest::AfterFlush => (false, true),
        IsolatedTest::AtOnce => (false, false),
        IsolatedTest::FlushFirst => (true, false),
    };
    let pages = 1 << compound_order(cpu, compound_head(k, cpu, k.layout.page_va(pfn)));
    let (start, bytes) = (k.geometry.pa(pfn), pages << k.geometry.page_shift());
    cpu.range_op(start, bytes, RangeOp::Isolate).map_err(|_| Errno::EBUSY)?;
    if flush_before {
        free_hpage_workfn(k, cpu)?;
    }
    let mut result = if page_ref_count(cpu, k.layout.page_va(pfn)) != 0 {
        unmap_and_move_huge_page(k, cpu, pfn)
    } else {
        isolate_or_dissolve_huge_page(k, cpu, pfn)
    };
    if result.is_ok() {
        if flush_after {
            free_hpage_workfn(k, cpu)?;
        }
        cpu.label("test_pages_isolated");
        if cpu.range_in_use(start, bytes).is_some() {
            // One that migrated to a free page of its pool is free in the pool itself: no fault, but no contiguous
            // range either.
            let old = HugePage { head: pfn, pages };
            if !old.has_flag(k, cpu, HPG_FREED) {
                cpu.warn(
                    Invariant::FlagWithState,
                    start.0,
                    "test_pages_isolated: -EBUSY for a page that nobody uses, whose free is deferred",
                );
            }
            result = Err(Errno::EBUSY);
        }
    }
    // Undoing meets no obstacle.
    let _ = cpu.range_op(start, bytes, RangeOp::UndoIsolate);
    result
}

/// `isolate_or_dissolve_huge_page`, for a contiguous allocation that meets the hugepage of `pfn`: a free one is
/// replaced by a fresh page and given back to the allocator, one in use is migrated. Returns the PFN of the
/// replacement.
///
/// # Errors
/// `ENOMEM`: a gigantic page, or no frames. `EBUSY`: in use and not migratable. `EINVAL`: no HugeTLB page.
pub fn isolate_or_dissolve_huge_page<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> Result<u64, Errno> {
    cpu.label("isolate_or_dissolve_huge_page");
    let page = k.layout.page_va(pfn);
    if !page_huge(k, cpu, page) {
        return Err(Errno::EINVAL);
    }
    let head = compound_head(k, cpu, page);
    let pool = Pool::of(k, cpu, head)?;
    if pool.hstate_is_gigantic(k) {
        return Err(Errno::ENOMEM);
    }
    let old = HugePage { head: k.layout.page_pfn(head), pages: pool.pages };
    if page_ref_count(cpu, head) != 0 {
        return migrate_huge_page(k, cpu, old.head);
    }
    // `alloc_and_dissolve_huge_page`: the replacement is not counted, it takes the old page's place.
    let new = alloc_fresh_hugetlb_folio(k, cpu, pool, None)?;
    lock(cpu);
    let same = still_of(k, cpu, pool, head);
    if !same || !old.has_flag(k, cpu, HPG_FREED) {
        drop_uncounted(k, cpu, pool, new);
        unlock(cpu);
        let _ = __update_and_free_hugetlb_folio(k, cpu, pool, new);
        return Err(Errno::EBUSY);
    }
    remove_hugetlb_folio(k, cpu, pool, old, false);
    enqueue_hugetlb_folio(k, cpu, pool, new);
    unlock(cpu);
    // A failed restore makes the old page surplus.
    let _ = __update_and_free_hugetlb_folio(k, cpu, pool, old);
    Ok(new.head.0)
}

/// Whether the hugepage at `head` still is one of `pool`, from which its size class was read before hugetlb_lock was
/// taken. Kernels that do not ask (policy `hstate-read`) go on with what they read: said, and not done.
fn still_of<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, head: Va) -> bool {
    let same = || page_huge(k, cpu, head) && Pool::of(k, cpu, head).is_ok_and(|now| now.pages == pool.pages);
    match k.policies.hstate_read {
        HstateRead::AtUse => same(),
        HstateRead::Before => {
            let same = same();
            if !same {
                cpu.warn(
                    Invariant::FlagWithState,
                    head.0,
                    "alloc_and_dissolve_huge_page: the pool of another size is charged with the page",
                );
            }
            // The kernel goes on with the wrong pool; the model leaves the page alone.
            same
        }
    }
}
