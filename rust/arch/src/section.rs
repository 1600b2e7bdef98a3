//! Sections, sub-sections and who shares a table (`include/linux/mmzone.h`, `asm/sparsemem.h`; kernel-semantics §2.3).

use crate::geometry::{Geometry, Granule, Level, STRUCT_PAGE_SIZE};

/// `SUBSECTION_SHIFT`: 2 MiB whatever the granule.
pub const SUBSECTION_SIZE: u64 = 1 << 21;

/// Section arithmetic of a geometry.
impl Geometry {
    /// `SECTION_SIZE_BITS`: 27 with 4K and 16K pages, 29 with 64K.
    #[must_use]
    #[inline]
    pub const fn section_shift(&self) -> u32 {
        match self.granule {
            Granule::K4 | Granule::K16 => 27,
            Granule::K64 => 29,
        }
    }
    /// Bytes of RAM in a section.
    #[must_use]
    #[inline]
    pub const fn section_size(&self) -> u64 {
        1 << self.section_shift()
    }
    /// `PAGES_PER_SECTION`.
    #[must_use]
    #[inline]
    pub const fn pages_per_section(&self) -> u64 {
        self.section_size() >> self.page_shift()
    }
    /// Bytes of vmemmap VA of one section.
    #[must_use]
    #[inline]
    pub const fn section_vmemmap(&self) -> u64 {
        self.pages_per_section() * STRUCT_PAGE_SIZE
    }
    /// `PAGES_PER_SUBSECTION`.
    #[must_use]
    #[inline]
    pub const fn pages_per_subsection(&self) -> u64 {
        SUBSECTION_SIZE >> self.page_shift()
    }
    /// `SUBSECTIONS_PER_SECTION`.
    #[must_use]
    #[inline]
    pub const fn subsections_per_section(&self) -> u64 {
        self.section_size() / SUBSECTION_SIZE
    }
    /// How many sections' vmemmap one table of `level` maps: at level 3, 1 (4K), 64 (16K), 1024 (64K).
    #[must_use]
    pub const fn sections_per_table(&self, level: Level) -> u64 {
        (self.entries_at(level) as u64).saturating_mul(self.entry_span(level)) / self.section_vmemmap()
    }
}
