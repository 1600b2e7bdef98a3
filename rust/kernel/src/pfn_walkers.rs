//! Readers of struct pages that hold no lock, and one that holds `mem_hotplug_lock` (kernel-semantics §9).

use vmemmap_arch::contents::word;
use vmemmap_arch::{Cpu, Invariant, Pfn, Va};

use crate::Kernel;
use crate::hotplug_lock::{get_online_mems, put_online_mems};
use crate::mmzone::{pfn_to_online_page, pfn_valid};
use crate::page::{compound_head, compound_order, flag, page_huge, page_ref_count, read_word, tail_head, test_flag};
use crate::policy::{ScanSize, Snapshot};

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

/// How often `snapshot_page` tries.
const SNAPSHOT_TRIES: usize = 5;

/// `stable_page_flags` of /proc/kpageflags, of one page: its own word, and of a tail the head's flags and order.
/// Whether it is part of a compound page.
pub fn stable_page_flags<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> bool {
    cpu.label("stable_page_flags");
    let Some(page) = pfn_to_online_page(k, cpu, pfn) else { return false };
    let head_of = || tail_head(k, page, read_word(cpu, page, word::COMPOUND_HEAD));
    let tries = match k.policies.snapshot {
        Snapshot::Plain => 1,
        Snapshot::Validated | Snapshot::Twice => SNAPSHOT_TRIES,
    };
    for _ in 0..tries {
        let Some(head) = head_of() else { return test_flag(cpu, page, flag::HEAD) };
        if !k.layout.in_vmemmap(head) {
            continue;
        }
        let whole = copies_whole(k, cpu, page, head);
        let used = match k.policies.snapshot {
            Snapshot::Plain => true,
            Snapshot::Twice => head_of() == Some(head),
            Snapshot::Validated => whole && head_of() == Some(head),
        };
        if used {
            if !whole {
                cpu.warn(
                    Invariant::FlagWithState,
                    page.0,
                    "stable_page_flags: a tail and a head that are not of one page (VM_BUG_ON_FOLIO)",
                );
            }
            return true;
        }
    }
    // Not faithful: shown as a page by itself.
    false
}

/// Copies of flags and order of the head: whether they are those of a compound page that `page` lies in.
fn copies_whole<C: Cpu>(k: &Kernel, cpu: &C, page: Va, head: Va) -> bool {
    let order = compound_order(cpu, head);
    order != 0 && k.layout.page_pfn(page).since(k.layout.page_pfn(head)) < 1 << order
}

/// `scan_movable_pages` of [start, end), as far as it reads struct pages: hugepages are skipped by a size that is read
/// without a reference. Returns the number of pages looked at.
pub fn scan_movable_pages<C: Cpu>(k: &Kernel, cpu: &C, start: Pfn, end: Pfn) -> u64 {
    cpu.label("scan_movable_pages");
    let (mut pfn, mut seen) = (start, 0);
    while pfn < end {
        seen += 1;
        pfn = pfn.plus(skip(k, cpu, pfn));
    }
    seen
}

/// How many pages on the scan goes.
fn skip<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> u64 {
    let Some(page) = pfn_to_online_page(k, cpu, pfn) else { return 1 };
    if !page_huge(k, cpu, page) {
        return 1;
    }
    let head = compound_head(k, cpu, page);
    let pages = 1u64.checked_shl(u32::from(compound_order(cpu, head))).unwrap_or(0);
    let inside = pfn.0.wrapping_sub(k.layout.page_pfn(head).0);
    if inside < pages {
        return pages - inside;
    }
    match k.policies.scan_size {
        ScanSize::Checked => {}
        // Unsigned: the scan would go back, or beyond its end. Here it goes on.
        ScanSize::Unchecked => cpu.warn(
            Invariant::FlagWithState,
            page.0,
            "scan_movable_pages: skips by the size of a page that this one is not part of",
        ),
    }
    1
}
