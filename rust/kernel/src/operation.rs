//! The operations that actors are made of, and the one `match` that runs them.

use vmemmap_arch::{Pa, Pfn, VaRange, Zone};

/// One kernel operation, as data: what a scenario lists, a script yields, a trace names.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// `echo count > …/nr_hugepages`; returns what was reached.
    NrHugepages { hstate: u8, count: u64 },
    /// A fresh page into the pool, optimised if HVO is on (`alloc_fresh_huge_page`, `prep_new_huge_page`); exactly the
    /// page at `at` if given. Returns its head PFN.
    HugetlbAlloc { hstate: u8, at: Option<Pfn> },
    /// A free page out of the pool and back to the page allocator (`update_and_free_page`); the page at `at` if given,
    /// else the one on top of the free list. Returns its head PFN.
    HugetlbFree { hstate: u8, at: Option<Pfn> },
    /// A page fault takes a free page, its struct pages are used, and the last reference puts it back. Returns its head PFN.
    HugetlbUse { hstate: u8 },
    /// `echo count > …/demote`; returns how many were demoted.
    HugetlbDemote { hstate: u8, count: u64 },
    /// `echo count > …/nr_overcommit_hugepages`.
    HugetlbOvercommit { hstate: u8, count: u64 },
    /// `hugetlb_acct_memory`: reserve (positive) or give back (negative) pages.
    HugetlbReserve { hstate: u8, delta: i64 },
    /// A page fault takes a free page and keeps it (until `HugetlbPut`). Returns its head PFN.
    HugetlbGet { hstate: u8 },
    HugetlbPut { hstate: u8, at: Pfn },
    /// Worker: `free_hpage_workfn`.
    HugetlbDeferredFree,
    /// `vm.hugetlb_optimize_vmemmap`.
    SetHvo { on: bool },

    /// `add_memory`; leaves blocks offline.
    MemoryAdd { start: Pa, bytes: u64, memmap_on_memory: bool },
    MemoryOnline { start: Pa, bytes: u64, zone: Zone },
    MemoryOffline { start: Pa, bytes: u64 },
    /// `remove_memory`: EBUSY unless offline.
    MemoryRemove { start: Pa, bytes: u64 },
    /// `offline_and_remove_memory`.
    MemoryOfflineAndRemove { start: Pa, bytes: u64 },
    /// `memremap_pages` of a ZONE_DEVICE range, sub-section granularity; no device_hotplug_lock.
    DeviceAdd { start: Pa, bytes: u64 },
    DeviceRemove { start: Pa, bytes: u64 },

    /// `ptdump_walk_pgd` of a range, lines discarded. Returns the number of ranges noted.
    PtdumpWalk { range: VaRange },
    /// `ptdump_check_wx`. Returns the number of W+X pages.
    PtdumpCheckWx,
    /// A lockless PFN walker (`pfn_to_online_page`, `compound_head`, flags and refcount of every `step`-th page), as
    /// compaction or /proc/kpageflags. Returns the number of pages looked at.
    PfnWalk { start: Pfn, end: Pfn, step: u64 },
    /// `get_page_unless_zero` and `put_page`: a speculative reference (R1). Returns 1 if it was had.
    SpeculativeRef { pfn: Pfn },
    /// `memory_failure`: SetPageHWPoison on one page.
    MemoryFailure { pfn: Pfn },
    /// `show_pte` of an address: a walk with no lock.
    ShowPte { at: Pfn },

    /// `vmalloc` of that many pages and `vfree`: tables built and freed at run time, the contrast case.
    VmallocCycle { pages: u64 },
}
