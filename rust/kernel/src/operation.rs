//! The operations that actors are made of, and the one `match` that runs them.

use vmemmap_arch::{Cpu, Order, Pa, Pfn, Va, VaRange, Zone};

use crate::fault::{Handled, show_pte};
use crate::hugetlb::{demote, dissolve, fault, resize};
use crate::mmzone::pfn_to_online_page;
use crate::policy::FaultHandler;
use crate::state::Scalar;
use crate::{
    Errno, Kernel, hugetlb, memory_block, memory_failure, memory_hotplug, page, page_alloc, pfn_walkers, ptdump,
    quiesce, sparse_vmemmap, vmalloc,
};

/// One kernel operation, as data: what a scenario lists, a script yields, a trace names.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// `echo count > …/nr_hugepages`; returns what was reached.
    NrHugepages {
        hstate: u8,
        count: u64,
    },
    /// A fresh page into the pool, optimised if HVO is on (`alloc_fresh_huge_page`, `prep_new_huge_page`); exactly the
    /// page at `at` if given. Returns its head PFN.
    HugetlbAlloc {
        hstate: u8,
        at: Option<Pfn>,
    },
    /// A free page out of the pool and back to the page allocator (`update_and_free_page`); the page at `at` if given,
    /// else the one on top of the free list. Returns its head PFN.
    HugetlbFree {
        hstate: u8,
        at: Option<Pfn>,
    },
    /// A page fault takes a free page, its struct pages are used, and the last reference puts it back. Returns its head
    /// PFN.
    HugetlbUse {
        hstate: u8,
    },
    /// `echo count > …/demote`; returns how many were demoted.
    HugetlbDemote {
        hstate: u8,
        count: u64,
    },
    /// `echo count > …/nr_overcommit_hugepages`.
    HugetlbOvercommit {
        hstate: u8,
        count: u64,
    },
    /// `hugetlb_acct_memory`: reserve (positive) or give back (negative) pages.
    HugetlbReserve {
        hstate: u8,
        delta: i64,
    },
    /// A page fault takes a free page and keeps it (until `HugetlbPut`). Returns its head PFN.
    HugetlbGet {
        hstate: u8,
    },
    HugetlbPut {
        hstate: u8,
        at: Pfn,
    },
    /// `dissolve_free_huge_page`, by memory failure on a free page. Returns 1 if there was one.
    HugetlbDissolve {
        at: Pfn,
    },
    /// Worker: `free_hpage_workfn`.
    HugetlbDeferredFree,
    /// `vm.hugetlb_optimize_vmemmap`.
    SetHvo {
        on: bool,
    },

    /// `add_memory`; leaves blocks offline.
    MemoryAdd {
        start: Pa,
        bytes: u64,
        memmap_on_memory: bool,
    },
    MemoryOnline {
        start: Pa,
        bytes: u64,
        zone: Zone,
    },
    MemoryOffline {
        start: Pa,
        bytes: u64,
    },
    /// `remove_memory`: EBUSY unless offline.
    MemoryRemove {
        start: Pa,
        bytes: u64,
    },
    /// `offline_and_remove_memory`.
    MemoryOfflineAndRemove {
        start: Pa,
        bytes: u64,
    },
    /// `memremap_pages` of a ZONE_DEVICE range, sub-section granularity; no device_hotplug_lock.
    DeviceAdd {
        start: Pa,
        bytes: u64,
    },
    DeviceRemove {
        start: Pa,
        bytes: u64,
    },
    /// A struct page of device memory is looked at by whoever uses that memory. Returns its reference count.
    DeviceUse {
        pfn: Pfn,
    },

    /// `ptdump_walk_pgd` of a range, lines discarded. Returns the number of ranges noted.
    PtdumpWalk {
        range: VaRange,
    },
    /// `ptdump_check_wx`. Returns the number of W+X pages.
    PtdumpCheckWx,
    /// A lockless PFN walker (`pfn_to_online_page`, `compound_head`, flags and refcount of every `step`-th page), as
    /// compaction or /proc/kpageflags. Returns the number of pages looked at.
    PfnWalk {
        start: Pfn,
        end: Pfn,
        step: u64,
    },
    /// `get_page_unless_zero` and `put_page`: a speculative reference (R1). Returns 1 if it was had.
    SpeculativeRef {
        pfn: Pfn,
    },
    /// The same by a reader that keeps others away while it takes the reference. Returns 1 if it got it.
    GuardedRef {
        pfn: Pfn,
        guard: Guard,
    },
    /// `pfn_valid` by a caller that holds nothing, which then (`access`) reads the struct page (R18). Returns 1 if
    /// valid.
    PfnValid {
        pfn: Pfn,
        access: bool,
    },
    /// `kmemleak_scan` over struct pages: `pfn_to_online_page` under `get_online_mems`. Returns the number looked at.
    KmemleakScan {
        start: Pfn,
        end: Pfn,
        step: u64,
    },
    /// Worker: `kfree_rcu` of the section's `usage`, once it is handed over and a grace period has passed.
    KfreeRcuWork {
        start: Pa,
    },
    /// `memory_failure`: SetPageHWPoison on one page.
    MemoryFailure {
        pfn: Pfn,
    },
    /// The end of a hard offline (`memory_failure` → `page_handle_poison`) of a free HugeTLB page: dissolve it, and
    /// keep the page out of the per-CPU lists meanwhile. Only the locks and the dissolve (R17).
    PageHandlePoison {
        pfn: Pfn,
    },
    /// A CPU comes online: `cpus_write_lock`, `page_alloc_cpu_online` → `zone_pcp_update`. Only the locks (R17).
    CpuOnline,
    /// Handler of the IPI with which `update=bbm-ipi-pause` pauses a CPU; an explorer gives each CPU one.
    PauseLocalCpu,
    /// `show_pte` of an address: a walk with no lock.
    ShowPte {
        at: Pfn,
    },
    /// No kernel code: a CPU's own walk for the address of a struct page, as it may make one at any time.
    Speculate {
        pfn: Pfn,
    },
    /// The same, by an IOMMU that shares the kernel's tables (R22).
    IommuWalk {
        pfn: Pfn,
    },

    /// `vmalloc` of that many pages and `vfree`: tables built and freed at run time, the contrast case.
    VmallocCycle {
        pages: u64,
    },
    /// `vmalloc` of that many pages, which stay mapped. Returns their address.
    VmallocAndKeep {
        pages: u64,
    },
}

impl Operation {
    /// Run the operation on this CPU. What the number means is said at each operation; 0 where nothing is.
    ///
    /// # Errors
    /// What the kernel function returns.
    pub fn run<C: Cpu>(&self, k: &Kernel, cpu: &C) -> Result<u64, Errno> {
        self.handled(k, cpu, true)
    }

    /// The same for somebody who looks at no result: an explored machine need not know what a dump would have printed.
    pub fn run_unread<C: Cpu>(&self, k: &Kernel, cpu: &C) {
        let _unread = self.handled(k, cpu, false);
    }

    fn handled<C: Cpu>(&self, k: &Kernel, cpu: &C, read: bool) -> Result<u64, Errno> {
        match k.policies.fault {
            FaultHandler::Oops => self.perform(k, cpu, read),
            FaultHandler::Recheck | FaultHandler::Wait => self.perform(k, &Handled::new(k, cpu), read),
        }
    }

    /// `read`: somebody looks at the result.
    fn perform<C: Cpu>(&self, k: &Kernel, cpu: &C, read: bool) -> Result<u64, Errno> {
        match *self {
            Operation::NrHugepages { hstate, count } => resize::set_max_huge_pages(k, cpu, hstate, count),
            Operation::HugetlbAlloc { hstate, at } => hugetlb::alloc_pool_huge_folio(k, cpu, hstate, at),
            Operation::HugetlbFree { hstate, at } => hugetlb::remove_pool_hugetlb_folio(k, cpu, hstate, at),
            Operation::HugetlbUse { hstate } => fault::fault_and_unmap(k, cpu, hstate),
            Operation::HugetlbDemote { hstate, count } => demote::demote_store(k, cpu, hstate, count),
            Operation::HugetlbOvercommit { hstate, count } => {
                resize::nr_overcommit_hugepages_store(k, cpu, hstate, count)
            }
            Operation::HugetlbReserve { hstate, delta } => resize::hugetlb_acct_memory(k, cpu, hstate, delta),
            Operation::HugetlbGet { hstate } => fault::hugetlb_no_page(k, cpu, hstate),
            Operation::HugetlbPut { hstate, at } => fault::__unmap_hugepage_range(k, cpu, hstate, at),
            Operation::HugetlbDissolve { at } => dissolve::__page_handle_poison(k, cpu, at),
            Operation::HugetlbDeferredFree => hugetlb::free_hpage_workfn(k, cpu),
            Operation::SetHvo { on } => {
                cpu.label("hugetlb_vmemmap_sysctl_handler");
                cpu.var_store(k.vars.scalar(Scalar::HvoEnabled), u64::from(on), Order::Plain);
                Ok(0)
            }
            Operation::MemoryAdd { start, bytes, memmap_on_memory } => {
                memory_hotplug::add_memory(k, cpu, start, bytes, memmap_on_memory)
            }
            Operation::MemoryOnline { start, bytes, zone } => memory_block::online(k, cpu, start, bytes, zone),
            Operation::MemoryOffline { start, bytes } => {
                memory_block::offline(k, cpu, start, bytes).map_err(|failure| failure.errno)
            }
            Operation::MemoryRemove { start, bytes } => memory_hotplug::remove_memory(k, cpu, start, bytes),
            Operation::MemoryOfflineAndRemove { start, bytes } => {
                memory_hotplug::offline_and_remove_memory(k, cpu, start, bytes)
            }
            Operation::DeviceAdd { start, bytes } => memory_hotplug::pagemap_range(k, cpu, start, bytes),
            Operation::DeviceRemove { start, bytes } => memory_hotplug::pageunmap_range(k, cpu, start, bytes),
            Operation::DeviceUse { pfn } => memory_hotplug::device_use(k, cpu, pfn),
            Operation::PtdumpWalk { ref range } if !read => {
                ptdump::ptdump_walk_pgd(k, cpu, range.clone(), &mut ptdump::Unread);
                Ok(0)
            }
            Operation::PtdumpWalk { ref range } => {
                let mut count = ptdump::RangeCount::default();
                ptdump::ptdump_walk_pgd(k, cpu, range.clone(), &mut count);
                Ok(count.ranges)
            }
            Operation::PtdumpCheckWx => Ok(ptdump::ptdump_check_wx(k, cpu).wx_pages),
            Operation::PfnWalk { start, end, step } => Ok(pfn_walkers::pfn_walk(k, cpu, start, end, step)),
            Operation::SpeculativeRef { pfn } => Ok(u64::from(speculative_ref(k, cpu, pfn))),
            Operation::GuardedRef { pfn, guard } => Ok(u64::from(guarded_ref(k, cpu, pfn, guard))),
            Operation::PfnValid { pfn, access } => Ok(u64::from(pfn_walkers::pfn_valid_user(k, cpu, pfn, access))),
            Operation::KmemleakScan { start, end, step } => Ok(pfn_walkers::kmemleak_scan(k, cpu, start, end, step)),
            Operation::KfreeRcuWork { start } => sparse_vmemmap::kfree_rcu_work(k, cpu, start),
            Operation::MemoryFailure { pfn } => {
                memory_failure::memory_failure(k, cpu, pfn).map(u64::from).ok_or(Errno::ENODEV)
            }
            Operation::PageHandlePoison { pfn } => memory_failure::page_handle_poison(k, cpu, pfn).map(u64::from),
            Operation::CpuOnline => {
                page_alloc::page_alloc_cpu_online(cpu);
                Ok(0)
            }
            Operation::PauseLocalCpu => {
                quiesce::pause_local_cpu(k, cpu);
                Ok(0)
            }
            Operation::ShowPte { at } => Ok(show_pte(cpu, k.layout.page_va(at))),
            Operation::Speculate { pfn } => {
                cpu.label("speculative walk");
                cpu.speculate(k.layout.page_va(pfn));
                Ok(0)
            }
            Operation::IommuWalk { pfn } => {
                cpu.label("IOMMU walk");
                cpu.iommu_walk(k.layout.page_va(pfn));
                Ok(0)
            }
            Operation::VmallocCycle { pages } => vmalloc::vmalloc_cycle(k, cpu, pages),
            Operation::VmallocAndKeep { pages } => vmalloc::vmalloc_and_keep(k, cpu, pages),
        }
    }
}

/// A reference to whatever the PFN is, and its end. Dropping the last one frees the page, as `put_page` does.
fn speculative_ref<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> bool {
    cpu.label("get_page_unless_zero");
    let Some(page) = pfn_to_online_page(k, cpu, pfn) else { return false };
    if !page::get_page_unless_zero(k, cpu, page) {
        return false;
    }
    put_page(k, cpu, page);
    true
}

/// `put_page`.
fn put_page<C: Cpu>(k: &Kernel, cpu: &C, page: Va) {
    cpu.label("put_page");
    if page::put_page_testzero(cpu, page) {
        hugetlb::__folio_put(k, cpu, page);
    }
}

/// What a reader of struct pages holds while it takes a reference.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Guard {
    /// Interrupts are off, as in GUP-fast.
    IrqsOff,
    /// The lock under which pages leave the list that the reader found it on: `hugetlb_lock` here, where page and list
    /// are HugeTLB's; `lruvec->lru_lock` in `isolate_lru_folios`.
    ListLock,
}

fn guarded_ref<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn, guard: Guard) -> bool {
    cpu.label("get_page_unless_zero");
    let Some(page) = pfn_to_online_page(k, cpu, pfn) else { return false };
    let got = match guard {
        Guard::IrqsOff => {
            cpu.irq_disable();
            let got = page::get_page_unless_zero(k, cpu, page);
            cpu.irq_enable();
            got
        }
        Guard::ListLock => {
            hugetlb::lock(cpu);
            let got = page::page_huge(k, cpu, page) && page::get_page_unless_zero(k, cpu, page);
            hugetlb::unlock(cpu);
            got
        }
    };
    if got {
        put_page(k, cpu, page);
    }
    got
}
