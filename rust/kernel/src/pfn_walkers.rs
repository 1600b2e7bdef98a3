//! Readers of struct pages that hold no lock, and one that holds `mem_hotplug_lock` (kernel-semantics §9).

use vmemmap_arch::contents::word;
use vmemmap_arch::{Cpu, Invariant, Pfn};

use crate::Kernel;
use crate::memory_hotplug::{get_online_mems, put_online_mems};
use crate::mmzone::{pfn_to_online_page, pfn_valid};
use crate::page::{compound_head, compound_order, page_ref_count, read_word};

/// A lockless PFN walker (compaction, `stable_page_flags` of /proc/kpageflags): flags, head and count of every
/// `step`-th page. Returns the number of pages looked at.
pub fn pfn_walk<C: Cpu>(k: &Kernel, cpu: &C, start: Pfn, end: Pfn, step: u64) -> u64 {
    cpu.label("pfn_walk");
    let mut seen = 0;
    let mut pfn = start;
    while pfn < end {
        seen += u64::from(cpu.concluding(|| look_at(k, cpu, pfn)));
        pfn = pfn.plus(step.max(1));
    }
    seen
}

/// What a walker does with one PFN. Whether there was a page to look at.
fn look_at<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> bool {
    let Some(page) = pfn_to_online_page(k, cpu, pfn) else { return false };
    // `PagePoisoned`: going offline, or not yet initialised.
    if cpu.concluding(|| read_word(cpu, page, word::FLAGS) == u64::MAX) {
        return false;
    }
    let head = compound_head(k, cpu, page);
    if k.layout.in_vmemmap(head) {
        let pages = 1u64.checked_shl(u32::from(compound_order(cpu, head))).unwrap_or(1);
        // Asked again: it may have become a tail between the two looks.
        if !k.layout.page_pfn(head).is_aligned(pages) && compound_head(k, cpu, page) == head {
            cpu.warn(Invariant::TailsResolveToHead, page.0, "a tail was taken for the head of a compound page");
        }
        page_ref_count(cpu, head);
    }
    true
}

/// A caller of `pfn_valid` that holds nothing; with `access` it goes on to read the struct page. Returns what it was
/// told.
pub fn pfn_valid_user<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn, access: bool) -> bool {
    cpu.label("pfn_valid");
    let valid = pfn_valid(k, cpu, pfn);
    if valid && access {
        read_word(cpu, k.layout.page_va(pfn), word::FLAGS);
    }
    valid
}

/// `kmemleak_scan`, as far as it reads struct pages: `pfn_to_online_page` and the page's count, all of it under
/// `get_online_mems`. Returns the number of pages looked at.
pub fn kmemleak_scan<C: Cpu>(k: &Kernel, cpu: &C, start: Pfn, end: Pfn, step: u64) -> u64 {
    cpu.label("kmemleak_scan");
    get_online_mems(cpu);
    let mut seen = 0;
    let mut pfn = start;
    while pfn < end {
        let look = || pfn_to_online_page(k, cpu, pfn).map(|page| page_ref_count(cpu, page)).is_some();
        seen += u64::from(cpu.concluding(look));
        pfn = pfn.plus(step.max(1));
    }
    put_online_mems(cpu);
    seen
}
