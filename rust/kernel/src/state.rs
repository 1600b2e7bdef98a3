//! Kernel variables that CPUs share, by number: pool counters, section flags, static keys.
//!
//! A machine holds one 64-bit word per number and knows nothing of their meaning.

use vmemmap_arch::{Geometry, Pa, Var};

/// Most hugepage sizes a granule has.
pub const MAX_HSTATES: usize = 4;

/// Scalars with a fixed number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Scalar {
    /// `hugetlb_optimize_vmemmap_key`: number of optimised pages.
    HvoKey = 1,
    /// `vm.hugetlb_optimize_vmemmap`.
    HvoEnabled = 2,
    /// `max_pfn`.
    MaxPfn = 3,
    /// Head of the deferred-free list: hugepage slot + 1, 0 = empty.
    HpageFreelist = 4,
    /// Non-boot memmap frames counted by 6.12 (`nr_memmap_pages`); two's complement.
    NrMemmapPages = 5,
    /// `nr_memmap_boot_pages`.
    NrMemmapBootPages = 6,
    /// VA bump pointer of the vmalloc contrast case.
    VmallocNext = 7,
    /// `arm64_ptdump_lock_key`: dumps under way (policy `vmap`).
    PtdumpLockKey = 8,
    /// Line of `IPI_CPU_PAUSE`: a bit for each CPU that it is pending on.
    IpiCpuPause = 9,
    /// CPUs that are paused.
    NrPausedCpus = 10,
    /// Resumes so far.
    NrResumes = 11,
    /// `NR_PAGETABLE` since boot, where hot remove runs the destructor of tables; two's complement.
    NrPagetable = 12,
    /// `hugepage_subpool.count`, of the only subpool.
    SubpoolCount = 13,
    /// `hugepage_subpool.used_hpages`.
    SubpoolUsed = 14,
    /// `hugepage_subpool.min_hpages`.
    SubpoolMin = 15,
    /// How often the subpool was freed.
    SubpoolFreed = 16,
    /// Actors that have said that they are done.
    ActorsDone = 17,
    /// The user's page table entry (policy `user-flush`): head PFN + 1, 0 = none. One page is mapped at a time.
    UserPte = 18,
    /// Address of the entry of the top table that other copies of it have not got yet, 0 = none (policy `pgd-copies`).
    TopEntryUnsynced = 24,
}

/// Fields of one `struct hstate`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Hstate {
    NrHugePages = 0,
    FreeHugePages = 1,
    ResvHugePages = 2,
    SurplusHugePages = 3,
    MaxHugePages = 4,
    NrOvercommit = 5,
    /// `hugepage_freelists`: hugepage slot + 1 of the first page, 0 = empty.
    FreeList = 6,
    /// `hugepage_activelist`.
    ActiveList = 7,
    /// Index of the size demoted to.
    DemoteOrder = 8,
}

/// Words of one `struct mem_section`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Section {
    /// `section_mem_map`: flag bits only.
    MemMap = 0,
    /// `usage.subsection_map`, four words (256 sub-sections with 64K pages).
    SubsectionMap = 1,
    /// `ms->usage`: 0 = NULL, `USAGE_BOOT` = from boot, more = the number of the object that it points to; every one
    /// that is allocated for this section gets a higher number.
    Usage = 5,
    /// Number of the last of those objects that was freed.
    UsageFreed = 6,
    /// Number of the last of them that was handed to `kfree_rcu`.
    UsageQueued = 7,
}

/// `ms->usage` in `PageReserved` memory, which is never freed.
pub const USAGE_BOOT: u64 = 1;

/// Flags in `section_mem_map`.
pub mod section_flag {
    pub const MARKED_PRESENT: u64 = 1 << 0;
    pub const HAS_MEM_MAP: u64 = 1 << 1;
    pub const IS_ONLINE: u64 = 1 << 2;
    pub const IS_EARLY: u64 = 1 << 3;
    pub const TAINT_ZONE_DEVICE: u64 = 1 << 4;
}

/// Words of one memory block device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Block {
    /// 0 = no such device, else `BlockState`.
    State = 0,
    /// `MMOP_ONLINE_KERNEL` or `_MOVABLE`.
    Zone = 1,
    /// `nr_vmemmap_pages` of a block with altmap.
    NrVmemmapPages = 2,
    /// Frames taken from the altmap so far (`altmap.alloc`), and `align` in the high half.
    AltmapAlloc = 3,
    /// `nr_hwpoison`: poisoned pages in the block.
    NrHwpoison = 4,
    /// 1 while `offline_and_remove_memory` must bring the block online again if it fails.
    Reonline = 5,
    /// `PAGE_EXT_INVALID`: 1 once nobody is to take up the section's `page_ext`.
    PageExtInvalid = 6,
    /// 1 once it is freed.
    PageExtFreed = 7,
}

/// Words of one possible HugeTLB page (of the smallest size of the granule): its place in a pool's list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Hpage {
    /// Next slot + 1, 0 = end.
    Next = 0,
    /// Previous slot + 1, 0 = first.
    Prev = 1,
}

/// Slots of `zone->vmemmap_tails`: at most 16 a zone (4K: orders 7 to 22).
pub const ZONE_TAILS: u32 = 16;
/// Zones that have them: `ZONE_DMA`, `ZONE_MOVABLE`, `ZONE_NORMAL`.
pub const ZONES: u32 = 3;
const FIRST_ZONE_TAIL: u32 = 32;
const SCALARS: u32 = 80;
const HSTATE_WORDS: u32 = 16;
const SECTION_WORDS: u32 = 8;
const BLOCK_WORDS: u32 = 8;
const HPAGE_WORDS: u32 = 2;

/// Where each variable lives, for RAM within [base, limit).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VarMap {
    /// First physical address, section aligned.
    pub base: Pa,
    pub limit: Pa,
    section_shift: u32,
    /// log2 of the smallest hugepage, in bytes.
    hpage_shift: u32,
    sections: u32,
    hpages: u32,
    /// Slots of the smallest size for each page of the next one, or 1 where all are few.
    stride: u32,
}

/// So many slots, in 4 GiB of 64K pages, take 1 MiB as they come.
const FEW_SLOTS: u32 = 1 << 16;

impl VarMap {
    #[must_use]
    pub const fn new(geometry: &Geometry, base: Pa, limit: Pa) -> Self {
        let section_shift = geometry.section_shift();
        let hpage_shift = geometry.hugetlb_sizes().0[0].trailing_zeros() + geometry.page_shift();
        let bytes = limit.0 - base.0;
        let hpages = (bytes >> hpage_shift) as u32;
        let (sizes, _) = geometry.hugetlb_sizes();
        let stride = if hpages <= FEW_SLOTS { 1 } else { (sizes[1] / sizes[0]) as u32 };
        Self {
            base,
            limit,
            section_shift,
            hpage_shift,
            sections: (bytes >> section_shift) as u32,
            hpages: hpages.next_multiple_of(stride),
            stride,
        }
    }
    #[must_use]
    pub const fn sections(&self) -> u32 {
        self.sections
    }
    /// Total number of variables: what a machine must hold.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.hpage_base() as u64 + self.hpages as u64 * HPAGE_WORDS as u64
    }
    const fn section_base(&self) -> u32 {
        SCALARS + MAX_HSTATES as u32 * HSTATE_WORDS
    }
    const fn block_base(&self) -> u32 {
        self.section_base() + self.sections * SECTION_WORDS
    }
    const fn hpage_base(&self) -> u32 {
        self.block_base() + self.sections * BLOCK_WORDS
    }
    #[must_use]
    #[inline]
    pub const fn scalar(&self, which: Scalar) -> Var {
        Var(which as u32)
    }
    /// `zone->vmemmap_tails[index]`: the frame that tails of one order share in a zone, 0 before the first.
    #[must_use]
    #[inline]
    pub const fn zone_tail(&self, zone: u32, index: u32) -> Var {
        Var(FIRST_ZONE_TAIL + zone * ZONE_TAILS + index)
    }
    #[must_use]
    #[inline]
    pub const fn hstate(&self, index: u8, field: Hstate) -> Var {
        Var(SCALARS + index as u32 * HSTATE_WORDS + field as u32)
    }
    /// Section (and memory block) number of a physical address, counted from `base`.
    #[must_use]
    #[inline]
    pub const fn section_number(&self, pa: Pa) -> u32 {
        ((pa.0 - self.base.0) >> self.section_shift) as u32
    }
    #[must_use]
    #[inline]
    pub const fn contains(&self, pa: Pa) -> bool {
        pa.0 >= self.base.0 && pa.0 < self.limit.0
    }
    #[must_use]
    #[inline]
    pub const fn section(&self, number: u32, field: Section) -> Var {
        Var(self.section_base() + number * SECTION_WORDS + field as u32)
    }
    /// Word `word` (0 to 3) of `subsection_map`.
    #[must_use]
    #[inline]
    pub const fn subsection_map(&self, number: u32, word: u32) -> Var {
        Var(self.section(number, Section::SubsectionMap).0 + word)
    }
    #[must_use]
    #[inline]
    pub const fn block(&self, number: u32, field: Block) -> Var {
        Var(self.block_base() + number * BLOCK_WORDS + field as u32)
    }
    /// Slot number of a hugepage that starts at `pa`.
    #[must_use]
    #[inline]
    pub const fn hpage_slot(&self, pa: Pa) -> u32 {
        ((pa.0 - self.base.0) >> self.hpage_shift) as u32
    }
    #[must_use]
    #[inline]
    pub const fn hpage_pa(&self, slot: u32) -> Pa {
        Pa(self.base.0 + ((slot as u64) << self.hpage_shift))
    }
    #[must_use]
    #[inline]
    pub const fn hpage(&self, slot: u32, field: Hpage) -> Var {
        // First the slots where a page of the second size may begin: a machine of terabytes has nothing but those.
        let place = slot % self.stride * (self.hpages / self.stride) + slot / self.stride;
        Var(self.hpage_base() + place * HPAGE_WORDS + field as u32)
    }
}
