//! Translation granule, table levels and index arithmetic (VMSAv8-64; kernel-semantics §1.1).

use crate::address::{Pa, Pfn, Va};

/// Bytes of a `struct page` on arm64 (`STRUCT_PAGE_MAX_SHIFT` = 6).
pub const STRUCT_PAGE_SIZE: u64 = 64;

/// Translation granule = base page size; each is log2 of its bytes, which addresses are taken apart by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Granule {
    K4 = 12,
    K16 = 14,
    K64 = 16,
}

impl Granule {
    pub const ALL: [Granule; 3] = [Granule::K4, Granule::K16, Granule::K64];

    /// `PAGE_SHIFT`: 12, 14 or 16.
    #[must_use]
    #[inline]
    pub const fn shift(self) -> u32 {
        self as u32
    }
    /// `PAGE_SIZE` in bytes.
    #[must_use]
    #[inline]
    pub const fn size(self) -> u64 {
        1 << self.shift()
    }
    /// Granule of that many bytes.
    #[must_use]
    pub const fn from_size(bytes: u64) -> Option<Self> {
        match bytes {
            4096 => Some(Granule::K4),
            16384 => Some(Granule::K16),
            65536 => Some(Granule::K64),
            _ => None,
        }
    }
    /// `4K`, `16K`, `64K`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Granule::K4 => "4K",
            Granule::K16 => "16K",
            Granule::K64 => "64K",
        }
    }
}

/// Translation table level in the Arm ARM's numbers: -1 (top of a 5-level walk) to 3 (holds pages).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Level(pub i8);

impl Level {
    pub const PTE: Level = Level(3);
    pub const PMD: Level = Level(2);
    pub const PUD: Level = Level(1);
    pub const P4D: Level = Level(0);
    /// The level whose tables this level's table descriptors point at.
    #[must_use]
    #[inline]
    pub const fn next(self) -> Level {
        Level(self.0 + 1)
    }
}

/// How an output address sits in a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OutputFormat {
    /// Bits 47:PAGE_SHIFT.
    Plain48,
    /// 64K granule with 52-bit addresses: bits 47:16 and `PA[51:48]` in bits 15:12.
    Lpa64K,
    /// FEAT_LPA2 (4K, 16K with 52-bit addresses): bits 49:PAGE_SHIFT and `PA[51:50]` in bits 9:8.
    Lpa2,
}

/// Why a combination of granule and VA size is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnsupportedVaBits {
    pub granule: Granule,
    pub va_bits: u32,
}

/// Sizes and index arithmetic of one configuration; checked once when built.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Geometry {
    pub granule: Granule,
    pub va_bits: u32,
    /// Number of table levels, 2 to 5.
    pub levels: u32,
}

impl Geometry {
    /// # Errors
    /// `UnsupportedVaBits` unless arm64 Linux has that pair: 4K 39, 48, 52; 16K 36, 47, 48, 52; 64K 42, 48, 52.
    pub const fn new(granule: Granule, va_bits: u32) -> Result<Self, UnsupportedVaBits> {
        let known = match granule {
            Granule::K4 => matches!(va_bits, 39 | 48 | 52),
            Granule::K16 => matches!(va_bits, 36 | 47 | 48 | 52),
            Granule::K64 => matches!(va_bits, 42 | 48 | 52),
        };
        if !known {
            return Err(UnsupportedVaBits { granule, va_bits });
        }
        Ok(Self { granule, va_bits, levels: (va_bits - 4) / (granule.shift() - 3) })
    }
    #[must_use]
    #[inline]
    pub const fn page_size(&self) -> u64 {
        self.granule.size()
    }
    #[must_use]
    #[inline]
    pub const fn page_shift(&self) -> u32 {
        self.granule.shift()
    }
    /// `PTRS_PER_PTE`: descriptors in a full table page.
    #[must_use]
    #[inline]
    pub const fn entries(&self) -> usize {
        1 << (self.granule.shift() - 3)
    }
    /// Level of `swapper_pg_dir`.
    #[must_use]
    #[inline]
    pub const fn top(&self) -> Level {
        Level(4 - self.levels as i8)
    }
    /// Descriptors in a table of that level that are indexed: `PTRS_PER_PGD` for the top, else `entries()`.
    #[must_use]
    #[inline]
    pub const fn entries_at(&self, level: Level) -> usize {
        if level.0 == self.top().0 { 1 << (self.va_bits - self.level_shift(level)) } else { self.entries() }
    }
    /// `PTE_SHIFT`, `PMD_SHIFT`, `PUD_SHIFT` …: log2 of the bytes one entry of that level maps.
    #[must_use]
    #[inline]
    pub const fn level_shift(&self, level: Level) -> u32 {
        (self.granule.shift() - 3) * (4 - level.0) as u32 + 3
    }
    /// Bytes of VA that one entry of that level maps.
    #[must_use]
    #[inline]
    pub const fn entry_span(&self, level: Level) -> u64 {
        1 << self.level_shift(level)
    }
    /// Bytes of VA that one table of that level maps.
    #[must_use]
    #[inline]
    pub const fn table_span(&self, level: Level) -> u64 {
        (self.entries_at(level) as u64) << self.level_shift(level)
    }
    /// Index of `va` in its table of that level.
    #[must_use]
    #[inline]
    pub const fn index(&self, va: Va, level: Level) -> u16 {
        ((va.0 >> self.level_shift(level)) as usize & (self.entries_at(level) - 1)) as u16
    }
    /// The kernel's `pXd_addr_end`: `end`, or the next boundary of that level if it comes first.
    #[must_use]
    #[inline]
    pub const fn addr_end(&self, addr: Va, end: Va, level: Level) -> Va {
        let boundary = (addr.0.wrapping_add(self.entry_span(level))) & !(self.entry_span(level) - 1);
        if boundary.wrapping_sub(1) < end.0.wrapping_sub(1) { Va(boundary) } else { end }
    }
    /// Whether Linux maps blocks at that level: L2 always, L1 only with 4K pages (`pud_sect_supported`).
    #[must_use]
    #[inline]
    pub const fn block_allowed(&self, level: Level) -> bool {
        level.0 == 2 || (level.0 == 1 && matches!(self.granule, Granule::K4))
    }
    #[must_use]
    #[inline]
    pub const fn output_format(&self) -> OutputFormat {
        match (self.va_bits, self.granule) {
            (52, Granule::K64) => OutputFormat::Lpa64K,
            (52, _) => OutputFormat::Lpa2,
            _ => OutputFormat::Plain48,
        }
    }
    #[must_use]
    #[inline]
    pub const fn pfn(&self, pa: Pa) -> Pfn {
        Pfn(pa.0 >> self.granule.shift())
    }
    #[must_use]
    #[inline]
    pub const fn pa(&self, pfn: Pfn) -> Pa {
        Pa(pfn.0 << self.granule.shift())
    }
    /// Struct pages in one vmemmap page: 64, 256, 1024.
    #[must_use]
    #[inline]
    pub const fn struct_pages_per_page(&self) -> u64 {
        self.page_size() / STRUCT_PAGE_SIZE
    }
    /// Entries of a contiguous set at the PTE level (`CONT_PTES`).
    #[must_use]
    pub const fn cont_ptes(&self) -> u64 {
        match self.granule {
            Granule::K4 => 16,
            Granule::K16 => 128,
            Granule::K64 => 32,
        }
    }
    /// Entries of a contiguous set at the PMD level (`CONT_PMDS`).
    #[must_use]
    pub const fn cont_pmds(&self) -> u64 {
        match self.granule {
            Granule::K4 => 16,
            Granule::K16 | Granule::K64 => 32,
        }
    }
    /// HugeTLB page sizes in base pages, smallest first (`arch/arm64/mm/hugetlbpage.c: hugetlbpage_init`):
    /// contiguous PTEs, PMD block, contiguous PMDs, and with 4K the PUD block.
    #[must_use]
    pub const fn hugetlb_sizes(&self) -> ([u64; 4], usize) {
        let pmd = self.entries() as u64;
        let cont_pmd = pmd * self.cont_pmds();
        match self.granule {
            Granule::K4 => ([self.cont_ptes(), pmd, cont_pmd, pmd * pmd], 4),
            _ => ([self.cont_ptes(), pmd, cont_pmd, 0], 3),
        }
    }
}
