//! The operations that actors are made of: one table, of which the enum, its names and classes, the function that runs
//! them, and (in the laboratory) their form in a document are made. `Operation::ROWS` says the same to everybody else.

use vmemmap_arch::{Cpu, Order, Pa, Pfn, PfnRange, Rmw, Va, VaRange, Zone};

use crate::fault::{Handled, show_pte};
use crate::hugetlb::{demote, dissolve, fault, resize, subpool};
use crate::mmzone::pfn_to_online_page;
use crate::policy::FaultHandler;
use crate::state::Scalar;
use crate::{
    Errno, Kernel, hugetlb, kasan, memory_block, memory_failure, memory_hotplug, page, page_alloc, page_ext, pageattr,
    pfn_walkers, pgalloc, ptdump, quiesce, sparse, vmalloc,
};

/// Hands the table to another macro: names for the kernel, the CPU and whether somebody reads the result; the
/// operations that a document may name; those that only an explorer makes.
///
/// A row: what it does, and the number that it returns; its class; its name; its name in a document; its
/// fields, with what a document may leave out; how it runs.
#[macro_export]
macro_rules! for_each_operation {
    ($each:ident) => {
        $each! { (k, cpu, read) {
            /// `echo count > …/nr_hugepages`; returns what was reached.
            AllocFree NrHugepages "nr_hugepages" { hstate: u8, count: u64 } =>
                resize::set_max_huge_pages(k, cpu, hstate, count);

            /// A fresh page into the pool, optimised if HVO is on (`alloc_fresh_huge_page`, `prep_new_huge_page`);
            /// exactly the page at `at` if given. Returns its head PFN.
            AllocFree HugetlbAlloc "hugetlb_alloc" { hstate: u8, #[serde(default)] at: Option<Pfn> } =>
                hugetlb::alloc_pool_huge_folio(k, cpu, hstate, at);

            /// A free page out of the pool and back to the page allocator (`update_and_free_page`); the page at `at`
            /// if given, else the one on top of the free list. Returns its head PFN.
            AllocFree HugetlbFree "hugetlb_free" { hstate: u8, #[serde(default)] at: Option<Pfn> } =>
                hugetlb::remove_pool_hugetlb_folio(k, cpu, hstate, at);

            /// A page fault takes a free page, its struct pages are used, and the last reference puts it back. Returns
            /// its head PFN.
            Other HugetlbUse "hugetlb_use" { hstate: u8 } => fault::fault_and_unmap(k, cpu, hstate);

            /// `echo count > …/demote`; returns how many were demoted.
            AllocFree HugetlbDemote "hugetlb_demote" { hstate: u8, count: u64 } =>
                demote::demote_store(k, cpu, hstate, count);

            /// `echo count > …/nr_overcommit_hugepages`. Returns `count`.
            Other HugetlbOvercommit "hugetlb_overcommit" { hstate: u8, count: u64 } =>
                resize::nr_overcommit_hugepages_store(k, cpu, hstate, count);

            /// `hugetlb_acct_memory`: reserve (positive) or give back (negative) pages. Returns how many are reserved
            /// now.
            Other HugetlbReserve "hugetlb_reserve" { hstate: u8, delta: i64 } =>
                resize::hugetlb_acct_memory(k, cpu, hstate, delta);

            /// `hugepage_new_subpool`: hugetlbfs is mounted with a minimum of `min` reserved pages. Returns `min`.
            Other SubpoolNew "subpool_new" { hstate: u8, min: u64 } =>
                subpool::hugepage_new_subpool(k, cpu, hstate, min);

            /// `hugepage_subpool_get_pages`: so many pages more are used. Returns how many are.
            Other SubpoolGetPages "subpool_get_pages" { pages: u64 } =>
                subpool::hugepage_subpool_get_pages(k, cpu, pages);

            /// `hugepage_subpool_put_pages`: so many fewer. Returns 1 if that was the subpool's end.
            Other SubpoolPutPages "subpool_put_pages" { hstate: u8, pages: u64 } =>
                subpool::hugepage_subpool_put_pages(k, cpu, hstate, pages);

            /// `hugepage_put_subpool`: hugetlbfs is unmounted. Returns 1 if that was the subpool's end.
            Other SubpoolPut "subpool_put" { hstate: u8 } => subpool::hugepage_put_subpool(k, cpu, hstate);

            /// A page fault takes a free page and keeps it (until `HugetlbPut`). Returns its head PFN.
            Other HugetlbGet "hugetlb_get" { hstate: u8 } => fault::hugetlb_no_page(k, cpu, hstate);

            /// A page that a fault took (`HugetlbGet`) goes back. Returns its head PFN.
            Other HugetlbPut "hugetlb_put" { hstate: u8, at: Pfn } => fault::__unmap_hugepage_range(k, cpu, hstate, at);

            /// `dissolve_free_huge_page`, by memory failure on a free page. Returns 1 if there was one.
            AllocFree HugetlbDissolve "hugetlb_dissolve" { at: Pfn } => dissolve::__page_handle_poison(k, cpu, at);

            /// `alloc_contig_range` over the hugepage at `at`: a page in use is migrated, a free one replaced. Returns
            /// the PFN of the page that took its place.
            AllocFree AllocContig "alloc_contig" { at: Pfn } => dissolve::alloc_contig_range(k, cpu, at);

            /// Worker: `free_hpage_workfn`. Returns how many pages it freed.
            AllocFree HugetlbDeferredFree "hugetlb_deferred_free" => hugetlb::free_hpage_workfn(k, cpu);

            /// `vm.hugetlb_optimize_vmemmap`. Returns 0.
            Other SetHvo "set_hvo" { on: bool } => {
                cpu.label("hugetlb_vmemmap_sysctl_handler");
                cpu.var_store(k.vars.scalar(Scalar::HvoEnabled), u64::from(on), Order::Plain);
                Ok(0)
            };

            /// `add_memory`; leaves blocks offline. Returns the number of blocks.
            AddRemove MemoryAdd "memory_add" { start: Pa, bytes: u64, #[serde(default)] memmap_on_memory: bool } =>
                memory_hotplug::add_memory(k, cpu, start, bytes, memmap_on_memory);

            /// `online_pages` of whole blocks. Returns the number of blocks.
            Other MemoryOnline "memory_online" { start: Pa, bytes: u64, #[serde(default)] zone: Zone } =>
                memory_block::online(k, cpu, start, bytes, zone);

            /// `offline_pages` of whole blocks. Returns the number of blocks.
            Other MemoryOffline "memory_offline" { start: Pa, bytes: u64 } =>
                memory_block::offline(k, cpu, start, bytes).map_err(|failure| failure.errno);

            /// `remove_memory`: EBUSY unless offline. Returns the number of blocks.
            AddRemove MemoryRemove "memory_remove" { start: Pa, bytes: u64 } =>
                memory_hotplug::remove_memory(k, cpu, start, bytes);

            /// `offline_and_remove_memory`. Returns the number of blocks.
            AddRemove MemoryOfflineAndRemove "memory_offline_and_remove" { start: Pa, bytes: u64 } =>
                memory_hotplug::offline_and_remove_memory(k, cpu, start, bytes);

            /// `memremap_pages` of a ZONE_DEVICE range, sub-section granularity; no device_hotplug_lock. Returns the
            /// number of sub-sections.
            AddRemove DeviceAdd "device_add" { start: Pa, bytes: u64 } =>
                memory_hotplug::pagemap_range(k, cpu, start, bytes);

            /// `memunmap_pages`: the end of `DeviceAdd`. Returns the number of sub-sections.
            AddRemove DeviceRemove "device_remove" { start: Pa, bytes: u64 } =>
                memory_hotplug::pageunmap_range(k, cpu, start, bytes);

            /// A struct page of device memory is looked at by whoever uses that memory. Returns its reference count.
            Other DeviceUse "device_use" { pfn: Pfn } => memory_hotplug::device_use(k, cpu, pfn);

            /// `ptdump_walk_pgd` of a range, lines discarded: of addresses, of the vmemmap of these frames, or of all
            /// of the kernel. Returns the number of ranges noted.
            Walk PtdumpWalk "ptdump_walk" {
                #[serde(default)] range: Option<VaRange>,
                #[serde(default)] pfns: Option<PfnRange>,
            } => ptdump(k, cpu, range, pfns, read);

            /// `ptdump_check_wx`. Returns the number of W+X pages.
            Walk PtdumpCheckWx "ptdump_check_wx" => Ok(ptdump::ptdump_check_wx(k, cpu).wx_pages);

            /// A lockless PFN walker (`pfn_to_online_page`, `compound_head`, flags and refcount of every `step`-th
            /// page), as compaction or /proc/kpageflags. Returns the number of pages looked at.
            Walk PfnWalk "pfn_walk" { start: Pfn, end: Pfn, #[serde(default = "one_page")] step: u64 } =>
                Ok(pfn_walkers::pfn_walk(k, cpu, start, end, step));

            /// `get_page_unless_zero` and `put_page`: a speculative reference (R1). Returns 1 if it was had.
            Walk SpeculativeRef "speculative_ref" { pfn: Pfn } => Ok(u64::from(speculative_ref(k, cpu, pfn)));

            /// The same by a reader that keeps others away while it takes the reference. Returns 1 if it got it.
            Walk GuardedRef "guarded_ref" { pfn: Pfn, guard: Guard } => Ok(u64::from(guarded_ref(k, cpu, pfn, guard)));

            /// `pfn_valid` by a caller that holds nothing, which then (`access`) reads the struct page (R18). Returns
            /// 1 if valid.
            Walk PfnValid "pfn_valid" { pfn: Pfn, #[serde(default)] access: bool } =>
                Ok(u64::from(pfn_walkers::pfn_valid_user(k, cpu, pfn, access)));

            /// `kmemleak_scan` over struct pages: `pfn_to_online_page` under `get_online_mems`. Returns the number
            /// looked at.
            Walk KmemleakScan "kmemleak_scan" { start: Pfn, end: Pfn, #[serde(default = "one_page")] step: u64 } =>
                Ok(pfn_walkers::kmemleak_scan(k, cpu, start, end, step));

            /// Worker: `kfree_rcu` of the section's `usage`, once it is handed over and a grace period has passed.
            /// Returns 1 if one was freed.
            Other KfreeRcuWork "kfree_rcu_work" { start: Pa } => sparse::kfree_rcu_work(k, cpu, start);

            /// `memory_failure`: SetPageHWPoison on one page. Returns 1 if it was not marked before, 0 if it was.
            Other MemoryFailure "memory_failure" { pfn: Pfn } =>
                memory_failure::memory_failure(k, cpu, pfn).map(u64::from).ok_or(Errno::ENODEV);

            /// `get_huge_page_for_hwpoison`: a reference to a HugeTLB page in use, and its mark. Returns 1 with a
            /// reference, which nobody gives back, 0 for a free page.
            Other GetHugePageForHwpoison "get_huge_page_for_hwpoison" { pfn: Pfn } =>
                memory_failure::get_huge_page_for_hwpoison(k, cpu, pfn);

            /// The end of a hard offline (`memory_failure` → `page_handle_poison`) of a free HugeTLB page: dissolve it,
            /// and keep the page out of the per-CPU lists meanwhile. Only the locks and the dissolve (R17). Returns 1
            /// if there was one.
            AllocFree PageHandlePoison "page_handle_poison" { pfn: Pfn } =>
                memory_failure::page_handle_poison(k, cpu, pfn).map(u64::from);

            /// A CPU comes online: `cpus_write_lock`, `page_alloc_cpu_online` → `zone_pcp_update`. Only the locks
            /// (R17). Returns 0.
            Other CpuOnline "cpu_online" => {
                page_alloc::page_alloc_cpu_online(cpu);
                Ok(0)
            };

            /// No kernel code: the actor says that it is done, for `PoolAtRest`. Returns 0.
            Other ActorDone "actor_done" => {
                cpu.var_rmw(k.vars.scalar(Scalar::ActorsDone), Rmw::FetchAdd(1), Order::AcqRel);
                Ok(0)
            };

            /// No kernel code: once so many actors have said that they are done, the counters of a pool are judged as
            /// they are then, at rest (I24). Returns the number of pages.
            Other PoolAtRest "pool_at_rest" { hstate: u8, after: u64 } =>
                resize::judge_at_rest(k, cpu, hstate, after);

            /// `show_pte` of an address: a walk with no lock. Returns the number of descriptors read.
            Walk ShowPte "show_pte" { at: Pfn } => Ok(show_pte(k, cpu, k.layout.page_va(at)));

            /// `NR_PAGETABLE` as /proc/meminfo prints it, less what it was at boot: 0 where nothing hot-added is left
            /// and no block was split (R49). Returns it.
            Walk NrPagetable "nr_pagetable" => Ok(pgalloc::nr_pagetable(k, cpu));

            /// A reader of `page_ext` (`page_ext_get`, `page_ext_put`), as page_owner is (R19). Returns 1 if there was
            /// one.
            Walk PageExtGet "page_ext_get" { pfn: Pfn } => Ok(u64::from(page_ext::page_ext_get(k, cpu, pfn)));

            /// `offline_page_ext` of the section at an address: what an offline does of it, alone (R19). Returns 0.
            Other OfflinePageExt "offline_page_ext" { start: Pa } => {
                page_ext::offline_page_ext(k, cpu, start);
                Ok(0)
            };

            /// `kasan_populate_vmalloc_pte`: the shadow page of that number, unless there is one (R24). Returns 0.
            Other KasanPopulate "kasan_populate" { page: u64 } =>
                kasan::kasan_populate_vmalloc_pte(k, cpu, kasan::shadow(k, page)).map(|()| 0);

            /// `kasan_depopulate_vmalloc_pte`: the page away (R24). Returns 0.
            Other KasanDepopulate "kasan_depopulate" { page: u64 } => {
                kasan::kasan_depopulate_vmalloc_pte(k, cpu, kasan::shadow(k, page));
                Ok(0)
            };

            /// `isolate_or_dissolve_huge_page`: a contiguous allocation meets the hugepage of `at`, and a fresh one
            /// takes its place (R56). Returns the PFN of that.
            AllocFree IsolateOrDissolve "isolate_or_dissolve" { at: Pfn } =>
                dissolve::isolate_or_dissolve_huge_page(k, cpu, at);

            /// `stable_page_flags` of one page, for /proc/kpageflags (R30). Returns 1 if it is shown as part of a
            /// compound page.
            Walk StablePageFlags "stable_page_flags" { pfn: Pfn } =>
                Ok(u64::from(pfn_walkers::stable_page_flags(k, cpu, pfn)));

            /// `scan_movable_pages`, as far as it reads struct pages (R55). Returns the number of pages looked at.
            Walk ScanMovablePages "scan_movable_pages" { start: Pfn, end: Pfn } =>
                Ok(pfn_walkers::scan_movable_pages(k, cpu, start, end));

            /// `set_memory_valid` of the linear map of so many pages: `set_direct_map_*`, secret memory (R28, R52,
            /// R53). Returns 0.
            Other SetMemoryValid "set_memory_valid" { pfn: Pfn, pages: u64, on: bool } =>
                pageattr::set_memory_valid(k, cpu, pfn, pages, on).map(|()| 0);

            /// `linear_map_split_to_ptes` of the linear map of so many pages, all other CPUs stopped (R53). Returns 0.
            Other LinearMapSplitToPtes "linear_map_split_to_ptes" { pfn: Pfn, pages: u64 } =>
                pageattr::linear_map_split_to_ptes(k, cpu, pfn, pages).map(|()| 0);

            /// x86's `collapse_pmd_page`: the PTE table that maps the page in the linear map becomes a block, if it can
            /// (R10). Returns 1 if it did.
            Other CollapsePmdPage "collapse_pmd_page" { pfn: Pfn } =>
                Ok(u64::from(pageattr::collapse_pmd_page(k, cpu, pfn)));

            /// No kernel code: a CPU's own walk for the address of a struct page, as it may make one at any time.
            /// Returns 0.
            Walk Speculate "speculate" { pfn: Pfn } => {
                cpu.label("speculative walk");
                cpu.speculate(k.layout.page_va(pfn));
                Ok(0)
            };

            /// The same, by an IOMMU that shares the kernel's tables (R22). Returns 0.
            Walk IommuWalk "iommu_walk" { pfn: Pfn } => {
                cpu.label("IOMMU walk");
                cpu.iommu_walk(k.layout.page_va(pfn));
                Ok(0)
            };

            /// `vmalloc` of that many pages and `vfree`: tables built and freed at run time, the contrast case. Returns
            /// `pages`.
            Other VmallocCycle "vmalloc_cycle" { pages: u64 } => vmalloc::vmalloc_cycle(k, cpu, pages);

            /// `vmalloc` of that many pages, which stay mapped. Returns their address.
            Other VmallocAndKeep "vmalloc_and_keep" { pages: u64 } => vmalloc::vmalloc_and_keep(k, cpu, pages);
        } {
            /// Handler of the IPI with which `update=bbm-ipi-pause` pauses a CPU; an explorer gives each CPU one.
            /// Returns 0.
            Other PauseLocalCpu "pause_local_cpu" => {
                quiesce::pause_local_cpu(k, cpu);
                Ok(0)
            };
        } }
    };
}

/// How operations can get in each other's way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    AllocFree,
    AddRemove,
    Walk,
    Other,
}

/// What the table says of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its name in a document.
    pub name: &'static str,
    pub class: Class,
    /// What it does, by lines.
    pub about: &'static [&'static str],
    pub fields: &'static [Field],
    /// Not for documents: an explorer makes it.
    pub internal: bool,
}

/// A field of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    pub name: &'static str,
    /// Its type in Rust.
    pub kind: &'static str,
    /// A document may leave it out.
    pub optional: bool,
}

macro_rules! row {
    (
        $class:ident $name:literal $internal:literal
        [$($doc:expr),*] [$( [$($attr:meta),*] $field:ident: $type:ty ),*]
    ) => {
        Row {
            name: $name,
            class: Class::$class,
            about: &[$($doc),*],
            fields: &[$( Field {
                name: stringify!($field),
                kind: stringify!($type),
                optional: { const ATTRIBUTES: &[&str] = &[$(stringify!($attr)),*]; !ATTRIBUTES.is_empty() },
            } ),*],
            internal: $internal,
        }
    };
}

macro_rules! operations {
    (
        ($k:ident, $cpu:ident, $read:ident)
        { $( $(#[doc = $doc:expr])* $class:ident $variant:ident $name:literal
            $({ $( $(#[$attr:meta])* $field:ident: $type:ty ),* $(,)? })? => $body:expr; )* }
        { $( $(#[doc = $idoc:expr])* $iclass:ident $ivariant:ident $iname:literal => $ibody:expr; )* }
    ) => {
        /// One kernel operation, as data: what a scenario lists, a script yields, a trace names.
        #[derive(Clone, PartialEq, Eq, Hash, Debug)]
        pub enum Operation {
            $( $(#[doc = $doc])* $variant $({ $( $field: $type ),* })?, )*
            $( $(#[doc = $idoc])* $ivariant, )*
        }

        impl Operation {
            /// The table, in its order.
            pub const ROWS: &'static [Row] = &[
                $( row!($class $name false [$($doc),*] [$($( [$($attr),*] $field: $type ),*)?]), )*
                $( row!($iclass $iname true [$($idoc),*] []), )*
            ];

            /// Its name in a document: `"hugetlb_alloc"`.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $( Operation::$variant { .. } => $name, )*
                    $( Operation::$ivariant => $iname, )*
                }
            }

            #[must_use]
            pub const fn class(&self) -> Class {
                match self {
                    $( Operation::$variant { .. } => Class::$class, )*
                    $( Operation::$ivariant => Class::$iclass, )*
                }
            }

            /// `read`: somebody looks at the result.
            fn perform<C: Cpu>(&self, $k: &Kernel, $cpu: &C, $read: bool) -> Result<u64, Errno> {
                match self.clone() {
                    $( Operation::$variant $({ $($field),* })? => $body, )*
                    $( Operation::$ivariant => $ibody, )*
                }
            }
        }
    };
}

for_each_operation!(operations);

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
}

fn ptdump<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    range: Option<VaRange>,
    pfns: Option<PfnRange>,
    read: bool,
) -> Result<u64, Errno> {
    let frames = pfns.map(|pfns| k.layout.page_va(pfns.start)..k.layout.page_va(pfns.end));
    let range = range.or(frames).unwrap_or(k.layout.page_offset..Va(0));
    if !read {
        ptdump::ptdump_walk_pgd(k, cpu, range, &mut ptdump::Unread);
        return Ok(0);
    }
    let mut count = ptdump::RangeCount::default();
    ptdump::ptdump_walk_pgd(k, cpu, range, &mut count);
    Ok(count.ranges)
}

/// A reference to whatever the PFN is, and its end. Dropping the last one frees the page, as `put_page` does.
fn speculative_ref<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> bool {
    cpu.label("get_page_unless_zero");
    let Some(page) = pfn_to_online_page(k, cpu, pfn) else { return false };
    if !page::get_page_unless_zero(k, cpu, page) {
        return false;
    }
    hugetlb::folio_put(k, cpu, page);
    true
}

/// What a reader of struct pages holds while it takes a reference.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Guard {
    /// Interrupts are off, as in GUP-fast.
    IrqsOff,
    /// Interrupts are off from before it finds the page in the user's page table (`gup_fast_folio_allowed`,
    /// `try_grab_folio_fast`; policy `user-flush`).
    GupFast,
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
        Guard::GupFast => {
            cpu.irq_disable();
            let mapped = cpu.var_load(k.vars.scalar(Scalar::UserPte), Order::Acquire) == pfn.0 + 1;
            let got = mapped && page::get_page_unless_zero(k, cpu, page);
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
        hugetlb::folio_put(k, cpu, page);
    }
    got
}
