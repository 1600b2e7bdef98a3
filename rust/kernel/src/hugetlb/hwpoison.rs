//! Memory errors in a HugeTLB page (`mm/memory-failure.c: folio_set_hugetlb_hwpoison`, `folio_clear_hugetlb_hwpoison`).
//!
//! While a page is HugeTLB its tails may be read-only, so an error is noted on the head and, for the raw page that has
//! it, in `_hugetlb_hwpoison`, a word of the third struct page. The kernel keeps a list there, the model its last
//! entry.

use vmemmap_arch::contents::word;
use vmemmap_arch::{Cpu, Pfn, Va};

use super::page::HugePage;
use crate::Kernel;
use crate::page::{clear_flag, flag, nth_page, read_word, set_flag, test_flag, write_word};

/// `_hugetlb_hwpoison`.
const fn raw_hwp_page(head: Va) -> Va {
    nth_page(head, 2)
}

/// Note an error at `raw`, under `hugetlb_lock`. Returns whether the page had one before.
pub(crate) fn folio_set_hugetlb_hwpoison<C: Cpu>(cpu: &C, head: Va, raw: Pfn) -> bool {
    let was = set_flag(cpu, head, flag::HWPOISON);
    write_word(cpu, raw_hwp_page(head), word::PRIVATE, raw.0 + 1);
    was
}

/// `folio_test_hwpoison`.
pub(crate) fn folio_test_hwpoison<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage) -> bool {
    test_flag(cpu, page.va(k), flag::HWPOISON)
}

/// Take what was noted; returns the raw page, whose own struct page is to be flagged.
pub(crate) fn folio_clear_hugetlb_hwpoison<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage) -> Option<Pfn> {
    if !folio_test_hwpoison(k, cpu, page) {
        return None;
    }
    clear_flag(cpu, page.va(k), flag::HWPOISON);
    let raw = read_word(cpu, raw_hwp_page(page.va(k)), word::PRIVATE);
    write_word(cpu, raw_hwp_page(page.va(k)), word::PRIVATE, 0);
    raw.checked_sub(1).map(Pfn)
}
