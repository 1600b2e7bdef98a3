//! What the page allocator writes into struct pages, and what it looks at in them (`mm/page_alloc.c`; kernel-semantics
//! §H7).
//!
//! Its checks are reports here and end nothing, as in a kernel that does not make them: both make those of tails only
//! under `CONFIG_DEBUG_VM`, 6.12 also where `init_on_alloc`, `init_on_free`, `debug_pagealloc` or page poisoning is on.
//! Where they are made, `bad_page` prints and taints, and the block is kept from the free lists; neither stops the
//! kernel.
//!
//! What a free does *not* reset is a page's type. A tail has none, except where 6.12.117 restored it: slot 0 of such a
//! vmemmap page is a copy of the head, made while the head had the HugeTLB type. So under 6.12.117, and only there, an
//! aligned struct page may keep that type after its page was freed.

use core::ops::Range;

use vmemmap_arch::contents::{TAIL_MAPPING, word};
use vmemmap_arch::{Cpu, Invariant, LockId, Mode, Order, Pfn, Rmw, STRUCT_PAGE_SIZE, Template, Va};

use crate::Kernel;
use crate::page::{
    COMPOUND_PAGE_DTOR, PAGE_TYPE, compound_order, flag, folio_test_hugetlb, init_struct_pages, is_hugetlb_type,
    nth_page, read_word, tail_head, tail_word, word_va, write_word,
};

/// Struct pages at the start of a vmemmap page that may differ from the others: the head's, and the first two tails'.
const SPECIAL: u64 = 3;

/// `fill` of a whole vmemmap page, by which a type that its first struct page should not have survives: neither
/// `prep_compound_tail` nor `free_tail_page_prepare` writes it. A free does not write `private` either.
fn fill_but_type<C: Cpu>(cpu: &C, at: Va, template: Template) {
    let count = read_word(cpu, at, word::COUNT);
    if !is_hugetlb_type(count) {
        return cpu.fill(at, template);
    }
    let private = if template == Template::FREE { read_word(cpu, at, word::PRIVATE) } else { 0 };
    cpu.fill(at, template);
    write_word(cpu, at, word::COUNT, template.word(word::COUNT) & !PAGE_TYPE | count & PAGE_TYPE);
    write_word(cpu, at, word::PRIVATE, private);
}

/// `fill_but_type` of so many vmemmap pages.
fn fill_each_but_type<C: Cpu>(k: &Kernel, cpu: &C, first: Va, pages: u64, template: Template) {
    if !k.features.stray_types() {
        return cpu.fill_each(first, pages, template);
    }
    for page in 0..pages {
        fill_but_type(cpu, first.plus(page << k.geometry.page_shift()), template);
    }
}

/// `prep_compound_page`: the 2^order struct pages from `head` become a head and its tails, refcounts 0.
pub fn prep_compound_page<C: Cpu>(k: &Kernel, cpu: &C, head: Pfn, order: u8) {
    prep_compound_pages(k, cpu, head, order, 1 << order);
}

/// The same of the first `nr` struct pages.
///
/// A vmemmap page that the compound owns whole is written by one bulk store of tails; in the first one the head's own
/// slot is then put right, its `compound_head` last. Meanwhile that slot reads as a tail of itself, which is the head.
pub(crate) fn prep_compound_pages<C: Cpu>(k: &Kernel, cpu: &C, head: Pfn, order: u8, nr: u64) {
    cpu.label("prep_compound_page");
    let page = k.layout.page_va(head);
    let word = tail_word(k, page, order);
    let per_page = k.geometry.struct_pages_per_page();
    if nr < per_page {
        for n in 1..nr {
            let tail = nth_page(page, n);
            write_word(cpu, tail, word::MAPPING, TAIL_MAPPING);
            write_word(cpu, tail, word::COMPOUND_HEAD, word);
            write_word(cpu, tail, word::COUNT, Template::FREE.word(word::COUNT));
        }
    } else {
        fill_each_but_type(k, cpu, page, nr / per_page, Template::tail(word));
    }
    let at = |n: u64, word: u8| n * (STRUCT_PAGE_SIZE / 8) + u64::from(word);
    let info = (at(1, word::COMPOUND_INFO), u64::from(order) << 8 | COMPOUND_PAGE_DTOR);
    let [mapping, private, flags, count, compound_head] = [
        (at(0, word::MAPPING), 0),
        (at(0, word::PRIVATE), 0),
        (at(0, word::FLAGS), flag::HEAD),
        (at(0, word::COUNT), Template::FREE.word(word::COUNT)),
        (at(0, word::COMPOUND_HEAD), 0),
    ];
    if k.features.folio_words_in_tails {
        // In its place `_nr_pages_mapped` and `_pincount`, and `_hugetlb_cgroup`.
        let folio = [(at(1, word::MAPPING), 0), (at(2, word::MAPPING), 0)];
        cpu.store_each(page, &[info, folio[0], folio[1], mapping, private, flags, count, compound_head]);
    } else {
        cpu.store_each(page, &[info, mapping, private, flags, count, compound_head]);
    }
}

/// `free_pages_prepare` of a compound page: the struct pages are those of free base pages again.
pub fn free_pages_prepare<C: Cpu>(k: &Kernel, cpu: &C, head: Pfn, order: u8) {
    cpu.label("free_pages_prepare");
    let per_page = k.geometry.struct_pages_per_page();
    let nr = 1u64 << order;
    if nr < per_page {
        return init_struct_pages(k, cpu, head, nr, Template::FREE);
    }
    fill_each_but_type(k, cpu, k.layout.page_va(head), nr / per_page, Template::FREE);
}

/// What `free_tail_page_prepare` finds wrong with a tail of the compound page at `head`.
fn bad_tail<C: Cpu>(k: &Kernel, cpu: &C, head: Va, tail: Va) -> Option<&'static str> {
    if read_word(cpu, tail, word::MAPPING) != TAIL_MAPPING {
        return Some("bad page: corrupted mapping in tail page");
    }
    match tail_head(k, tail, read_word(cpu, tail, word::COMPOUND_HEAD)) {
        Some(found) if found == head => None,
        None => Some("bad page: PageTail not set"),
        Some(_) => Some("bad page: compound_head not consistent"),
    }
}

/// `free_tail_page_prepare` (6.1: `free_tail_pages_check`) of the tails of a compound page of which `restored` vmemmap
/// pages at the end may have been written by a restore: their first struct pages stand for all tails.
pub fn free_tail_page_prepare<C: Cpu>(k: &Kernel, cpu: &C, head: Va, order: u8, restored: Range<u64>) {
    let word = tail_word(k, head, order);
    let page = |i: u64| head.plus(i << k.geometry.page_shift());
    let right = |i: u64| (0..SPECIAL).all(|slot| tail_head(k, nth_page(page(i), slot), word) == Some(head));
    let mut i = restored.start;
    while i < restored.end {
        // One walk for all of them, where a machine may walk once for several.
        let most = if C::KEEPS_TABLES { restored.end - i } else { 1 };
        let rights = (i..i + most).take_while(|&i| right(i)).count() as u64;
        let filled = if rights == 0 { 0 } else { cpu.skip_filled(page(i), rights, Template::tail(word)) };
        i += filled;
        if filled != 0 || i == restored.end {
            continue;
        }
        for slot in 0..SPECIAL {
            let tail = nth_page(page(i), slot);
            if let Some(message) = bad_tail(k, cpu, head, tail) {
                cpu.warn(Invariant::RestoredPrivate, tail.0, message);
            }
        }
        i += 1;
    }
}

/// `check_new_pages`: a block of 2^order pages comes from the free lists. `__SetPageBuddy` and `__ClearPageBuddy` have
/// put right the type of its first page, which was the head of a free block; `check_new_pages` would find what the
/// others have.
#[inline]
pub fn check_new_pages<C: Cpu>(k: &Kernel, cpu: &C, first: Pfn, order: u8) {
    if k.features.stray_types() {
        check_new_types(k, cpu, first, order);
    }
}

#[inline(never)]
fn check_new_types<C: Cpu>(k: &Kernel, cpu: &C, first: Pfn, order: u8) {
    let per_page = k.geometry.struct_pages_per_page();
    let page = k.layout.page_va(first);
    if first.is_aligned(per_page) && folio_test_hugetlb(cpu, page) {
        cpu.rmw(word_va(page, word::COUNT), Rmw::FetchOr(PAGE_TYPE), Order::Relaxed);
    }
    for n in 1..(1u64 << order) / per_page {
        let page = nth_page(page, n * per_page);
        if folio_test_hugetlb(cpu, page) {
            cpu.warn(
                Invariant::RestoredPrivate,
                page.0,
                "bad page: nonzero mapcount of a page just allocated: the HugeTLB type",
            );
        }
    }
}

/// `__free_page` of one page of a block that was split: `free_page_is_bad` would find its type. Unchecked, the page
/// goes to a per-CPU list, and to its next user, with the type on.
pub fn check_free_page<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) {
    if k.features.stray_types() && pfn.is_aligned(k.geometry.struct_pages_per_page()) {
        let page = k.layout.page_va(pfn);
        if folio_test_hugetlb(cpu, page) {
            cpu.warn(
                Invariant::RestoredPrivate,
                page.0,
                "bad page: nonzero mapcount of a page just freed: the HugeTLB type",
            );
        }
    }
}

/// The page at `head` answers to `folio_test_hugetlb`, and whoever asked takes it for a hugepage: `folio_hstate` is
/// NULL if it is none.
pub fn warn_stray_type<C: Cpu>(k: &Kernel, cpu: &C, head: Va) {
    if k.features.stray_types() && compound_order(cpu, head) == 0 {
        cpu.warn(
            Invariant::FlagWithState,
            head.0,
            "the HugeTLB type on a page that is no hugepage: folio_hstate is NULL",
        );
    }
}

/// `zone_pcp_disable`: the per-CPU lists stay empty until `zone_pcp_enable`. Of it only the mutex is there.
pub(crate) fn zone_pcp_disable<C: Cpu>(cpu: &C) {
    cpu.acquire(LockId::PcpBatchHigh, Mode::Write);
}

/// `zone_pcp_enable`.
pub(crate) fn zone_pcp_enable<C: Cpu>(cpu: &C) {
    cpu.release(LockId::PcpBatchHigh, Mode::Write);
}

/// The part of `cpu_up` that meets memory management: `page_alloc_cpu_online` → `zone_pcp_update`
/// (`mm/page_alloc.c`), under `cpus_write_lock`. Only the locks (R17).
pub fn page_alloc_cpu_online<C: Cpu>(cpu: &C) {
    cpu.label("page_alloc_cpu_online");
    cpu.acquire(LockId::CpuHotplug, Mode::Write);
    cpu.acquire(LockId::PcpBatchHigh, Mode::Write);
    cpu.release(LockId::PcpBatchHigh, Mode::Write);
    cpu.release(LockId::CpuHotplug, Mode::Write);
}
