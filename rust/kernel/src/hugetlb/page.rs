//! A HugeTLB page, and what the pool keeps in its struct pages: `page->private` flags (`include/linux/hugetlb.h`).
//!
//! All of it is read and written through vmemmap addresses, so that a remap can lose or misdirect a store.

use vmemmap_arch::contents::word;
use vmemmap_arch::{Cpu, Invariant, Order, Pfn, Rmw, Va};

use crate::Kernel;
use crate::page::{self, compound_head, nth_page, read_word, word_va};

/// `HPG_migratable`: isolation for migration may take the page.
pub const HPG_MIGRATABLE: u64 = 1 << 1;
/// `HPG_temporary`: freed on the last reference, whatever the pool's counters.
pub const HPG_TEMPORARY: u64 = 1 << 2;
/// `HPG_freed`: on the free list.
pub const HPG_FREED: u64 = 1 << 3;
/// `HPG_vmemmap_optimized`.
pub const HPG_VMEMMAP_OPTIMIZED: u64 = 1 << 4;

/// A HugeTLB page: its head PFN and its length in base pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HugePage {
    pub head: Pfn,
    pub pages: u64,
}

impl HugePage {
    /// Address of the head's struct page.
    #[must_use]
    pub fn va(self, k: &Kernel) -> Va {
        k.layout.page_va(self.head)
    }
    #[must_use]
    pub const fn order(self) -> u8 {
        self.pages.trailing_zeros() as u8
    }
    /// Test bits of `page->private`.
    pub fn has_flag<C: Cpu>(self, k: &Kernel, cpu: &C, flag: u64) -> bool {
        read_word(cpu, self.va(k), word::PRIVATE) & flag != 0
    }
    /// Set bits of `page->private` (`set_bit`, atomic).
    pub fn set_flag<C: Cpu>(self, k: &Kernel, cpu: &C, flag: u64) {
        cpu.rmw(word_va(self.va(k), word::PRIVATE), Rmw::FetchOr(flag), Order::Relaxed);
    }
    /// Clear bits of `page->private` (`clear_bit`, atomic).
    pub fn clear_flag<C: Cpu>(self, k: &Kernel, cpu: &C, flag: u64) {
        cpu.rmw(word_va(self.va(k), word::PRIVATE), Rmw::FetchAnd(!flag), Order::Relaxed);
    }

    /// What a user's access makes of the struct pages: a flag on the head, and tails looked up through `compound_head`
    /// (of each vmemmap page the slot that may be a fake head and one that may not; at most 16 vmemmap pages).
    pub fn touch<C: Cpu>(self, k: &Kernel, cpu: &C) {
        const PG_REFERENCED: u64 = 1 << 1;
        let head = self.va(k);
        page::set_flag(cpu, head, PG_REFERENCED);
        let per_page = k.geometry.struct_pages_per_page();
        let step = (self.pages / per_page / 16).max(1) * per_page;
        let mut i = 0;
        while i < self.pages {
            for n in [i, i + 1] {
                let tail = nth_page(head, n);
                if compound_head(k, cpu, tail) != head {
                    cpu.warn(Invariant::TailsResolveToHead, tail.0, "compound_head of a tail is not the head");
                }
            }
            i += step;
        }
        if !page::test_flag(cpu, head, PG_REFERENCED) {
            cpu.warn(Invariant::NoLostStore, head.0, "a flag set in the head's struct page is lost");
        }
        page::clear_flag(cpu, head, PG_REFERENCED);
    }
}
