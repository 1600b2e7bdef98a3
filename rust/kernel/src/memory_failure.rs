//! Memory errors (`mm/memory-failure.c`), as far as they meet HugeTLB pages. What a HugeTLB page keeps of one is in
//! `hugetlb::hwpoison`.

use vmemmap_arch::{Cpu, LockId, Mode, Order, Pfn, Rmw};

use crate::hugetlb::dissolve::dissolve_free_hugetlb_folio;
use crate::hugetlb::folio_put;
use crate::hugetlb::hwpoison::folio_set_hugetlb_hwpoison;
use crate::hugetlb::page::{HPG_FREED, HPG_MIGRATABLE, HugePage};
use crate::mmzone::pfn_to_online_page;
use crate::page::{compound_head, flag, get_page_unless_zero, page_huge, set_flag};
use crate::page_alloc::{warn_stray_type, zone_pcp_disable, zone_pcp_enable};
use crate::policy::{HardOffline, HwpoisonPut};
use crate::state::Block;
use crate::{Errno, Kernel, hugetlb};

/// `memory_failure`, as far as it writes struct pages: under hugetlb_lock a HugeTLB page is marked on its head
/// (`get_huge_page_for_hwpoison`), anything else on the page itself. Returns whether the page was not marked before.
pub fn memory_failure<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> Option<bool> {
    cpu.label("memory_failure");
    let page = pfn_to_online_page(k, cpu, pfn)?;
    cpu.acquire(LockId::Hugetlb, Mode::Write);
    let huge = page_huge(k, cpu, page);
    if huge {
        warn_stray_type(k, cpu, compound_head(k, cpu, page));
    }
    let was = huge && folio_set_hugetlb_hwpoison(cpu, compound_head(k, cpu, page), pfn);
    cpu.release(LockId::Hugetlb, Mode::Write);
    let was = if huge { was } else { set_flag(cpu, page, flag::HWPOISON) };
    if !was {
        // `memblk_nr_poison_inc`
        let block = k.vars.section_number(k.geometry.pa(pfn));
        cpu.var_rmw(k.vars.block(block, Block::NrHwpoison), Rmw::FetchAdd(1), Order::Relaxed);
    }
    Some(!was)
}

/// `get_huge_page_for_hwpoison`, `__get_huge_page_for_hwpoison`: under hugetlb_lock, a reference to the HugeTLB page in
/// use that `pfn` belongs to, and its mark. Of a page that is marked already the reference goes back, and it may be the
/// last. Returns 1 with a reference, 0 for a free page.
///
/// # Errors
/// `ENODEV`: no such page. `EINVAL`: no HugeTLB page. `EBUSY`: neither free nor to be migrated. `EHWPOISON`: marked
/// already.
pub fn get_huge_page_for_hwpoison<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> Result<u64, Errno> {
    cpu.label("get_huge_page_for_hwpoison");
    let page = pfn_to_online_page(k, cpu, pfn).ok_or(Errno::ENODEV)?;
    hugetlb::lock(cpu);
    let head = compound_head(k, cpu, page);
    let Some(pool) = page_huge(k, cpu, page).then(|| hugetlb::Pool::of(k, cpu, head).ok()).flatten() else {
        hugetlb::unlock(cpu);
        return Err(Errno::EINVAL);
    };
    let folio = HugePage { head: k.layout.page_pfn(head), pages: pool.pages };
    let free = folio.has_flag(k, cpu, HPG_FREED);
    let got = !free && folio.has_flag(k, cpu, HPG_MIGRATABLE) && get_page_unless_zero(k, cpu, head);
    let result = match (free, got) {
        (false, false) => Err(Errno::EBUSY),
        _ if folio_set_hugetlb_hwpoison(cpu, head, pfn) => Err(Errno::EHWPOISON),
        _ => Ok(u64::from(got)),
    };
    let back = got && result.is_err();
    match k.policies.hwpoison_put {
        HwpoisonPut::AfterUnlock => {
            hugetlb::unlock(cpu);
            if back {
                folio_put(k, cpu, head);
            }
        }
        HwpoisonPut::UnderLock => {
            if back {
                folio_put(k, cpu, head);
            }
            hugetlb::unlock(cpu);
        }
    }
    result
}

/// `page_handle_poison` (`mm/memory-failure.c`) of a HugeTLB page, as far as locks are concerned: `zone_pcp_disable`
/// keeps the freed page out of the per-CPU lists while `take_page_off_buddy` looks for it. Returns whether a hugepage
/// was dissolved. Restoring vmemmap takes cpu_hotplug_lock (static key), which CPU hotplug holds when it takes
/// pcp_batch_high_lock: hence the order since 1983184c22dd (R17).
///
/// # Errors
/// As `dissolve_free_hugetlb_folios`.
pub fn page_handle_poison<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> Result<bool, Errno> {
    cpu.label("page_handle_poison");
    let dissolve = || dissolve_free_hugetlb_folio(k, cpu, k.layout.page_va(pfn));
    match k.policies.hwpoison {
        HardOffline::DissolveFirst => {
            let dissolved = dissolve()?;
            zone_pcp_disable(cpu);
            zone_pcp_enable(cpu);
            Ok(dissolved)
        }
        HardOffline::DrainFirst => {
            zone_pcp_disable(cpu);
            let dissolved = dissolve();
            zone_pcp_enable(cpu);
            dissolved
        }
    }
}
