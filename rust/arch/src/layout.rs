//! Kernel virtual address layout and ptdump markers, per kernel and VA size (kernel-semantics §2, §8.5).

use crate::address::{Pa, Pfn, Va};
use crate::geometry::{Geometry, Granule, STRUCT_PAGE_SIZE};

macro_rules! versions {
    ($( $(#[$doc:meta])* $version:ident = $name:literal ),+ $(,)?) => {
        /// Kernel behaviour that is modelled.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Version { $( $(#[$doc])* $version ),+ }

        impl Version {
            pub const ALL: [Version; [$($name),+].len()] = [$( Version::$version ),+];
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Version::$version => $name ),+ }
            }
        }
    };
}

versions! {
    /// As argued in the May 2021 thread, close to v5.14: two reserved vmemmap pages, base pages when HVO is on.
    V2021 = "2021",
    V6_1 = "6.1",
    /// 6.12 as intended.
    V6_12 = "6.12",
    /// 6.12.117 as written (kernel-semantics §H7, §13.1).
    V6_12_117 = "6.12.117",
    /// 7.2.13.
    V7_2 = "7.2",
    /// 7.3.4.
    V7_3 = "7.3",
}

impl Version {
    /// One kernel of each order of the regions, for whoever has a dump and no name.
    pub const REPRESENTATIVES: [Version; 2] = [Version::V6_1, Version::V6_12];
    #[must_use]
    pub const fn region_order(self) -> RegionOrder {
        match self {
            Version::V7_3 | Version::V7_2 | Version::V6_12_117 | Version::V6_12 => RegionOrder::VmemmapBelowFixmap,
            Version::V6_1 | Version::V2021 => RegionOrder::VmemmapOnTop,
        }
    }
    /// 52-bit addresses with 4K and 16K pages (FEAT_LPA2, `CONFIG_ARM64_VA_BITS_52`).
    #[must_use]
    pub const fn has_lpa2(self) -> bool {
        match self {
            Version::V7_3 | Version::V7_2 | Version::V6_12_117 | Version::V6_12 => true,
            Version::V6_1 | Version::V2021 => false,
        }
    }
    /// Table descriptors have the access flag, bit 10 (`asm/pgalloc.h`).
    #[must_use]
    pub const fn sets_table_af(self) -> bool {
        match self {
            Version::V7_3 | Version::V7_2 => true,
            Version::V6_12_117 | Version::V6_12 | Version::V6_1 | Version::V2021 => false,
        }
    }
    /// ptdump prints BLK where bits 1:0 are 01; before, where bit 1 is clear, so of an invalid block too
    /// (`arch/arm64/mm/ptdump.c: pte_bits`).
    #[must_use]
    pub const fn ptdump_block_is_valid(self) -> bool {
        match self {
            Version::V7_3 | Version::V7_2 => true,
            Version::V6_12_117 | Version::V6_12 | Version::V6_1 | Version::V2021 => false,
        }
    }
    /// ptdump's names of the levels PGD, P4D, PUD, PMD, PTE where there are `levels` (`arch/arm64/mm/ptdump.c:
    /// pg_level`): up to 6.1 a folded level is named after the one that it is folded into; 6.12 notes it as that one
    /// instead.
    #[must_use]
    pub const fn ptdump_level_names(self, levels: u32) -> [&'static str; 5] {
        match self {
            Version::V7_3 | Version::V7_2 | Version::V6_12_117 | Version::V6_12 => ["PGD", "P4D", "PUD", "PMD", "PTE"],
            Version::V6_1 | Version::V2021 => {
                ["PGD", "P4D", if levels > 3 { "PUD" } else { "PGD" }, if levels > 2 { "PMD" } else { "PGD" }, "PTE"]
            }
        }
    }
}

/// Order of the regions above vmalloc (kernel-semantics §2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionOrder {
    /// vmemmap, PCI I/O, fixmap: since 6.12.
    VmemmapBelowFixmap,
    /// Fixmap, PCI I/O, vmemmap: up to 6.1.
    VmemmapOnTop,
}

/// Most markers any layout has, terminator included.
pub const MAX_MARKERS: usize = 16;

/// A line of `/sys/kernel/debug/kernel_page_tables` that names a region; the terminator at ~0 has no name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marker {
    pub start: Va,
    pub name: Option<&'static str>,
}

/// Names a marker may have, in no order; used to give a loaded marker its `'static` name.
pub const MARKER_NAMES: [&str; 15] = [
    "Linear Mapping start",
    "Linear Mapping end",
    "Kasan shadow start",
    "Kasan shadow end",
    "Modules start",
    "Modules end",
    "vmalloc() area",
    "vmalloc() end",
    "Fixmap start",
    "Fixmap end",
    "PCI I/O start",
    "PCI I/O end",
    "vmemmap start",
    "vmemmap end",
    "",
];

/// Why a layout is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LayoutError {
    /// 4K and 16K pages with 52-bit addresses came with LPA2 in 6.12.
    NoLpa2Before6_12,
}

/// The kernel VA layout of one machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    pub geometry: Geometry,
    pub version: Version,
    pub page_offset: Va,
    pub page_end: Va,
    pub modules_start: Va,
    pub modules_end: Va,
    pub vmalloc_start: Va,
    pub vmalloc_end: Va,
    pub vmemmap_start: Va,
    pub vmemmap_end: Va,
    pub fixmap_start: Va,
    pub fixmap_end: Va,
    pub pci_io_start: Va,
    pub pci_io_end: Va,
    /// `memstart_addr`, which KASLR can make negative.
    pub memstart: i64,
    pub markers: [Marker; MAX_MARKERS],
    pub nr_markers: usize,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Layout {
    /// The layout that kernel builds for that geometry, without KASAN or KASLR, for RAM that starts at `memstart`.
    ///
    /// `arch/arm64/include/asm/memory.h`, `pgtable.h`. Fixmap bounds depend on configuration; those of a Debian
    /// kernel of that version are used.
    ///
    /// # Errors
    /// `NoLpa2Before6_12`: 52-bit VA with 4K or 16K pages under 2021 or 6.1.
    pub fn new(geometry: Geometry, version: Version, memstart: i64) -> Result<Self, LayoutError> {
        let v = geometry.va_bits;
        if v == 52 && !version.has_lpa2() && geometry.granule != Granule::K64 {
            return Err(LayoutError::NoLpa2Before6_12);
        }
        let psh = geometry.page_shift();
        let va_bits_min = if v <= 48 {
            v
        } else if version.has_lpa2() && geometry.granule == Granule::K16 {
            47
        } else {
            48
        };
        let minus = |bits: u32| 0u64.wrapping_sub(1 << bits);
        let page_offset = minus(v);
        let page_end = minus(va_bits_min - 1);
        let linear = page_end.wrapping_sub(page_offset);
        let size = linear >> (psh - 6);
        let page = geometry.page_size();
        let mut l = Layout {
            geometry,
            version,
            page_offset: Va(page_offset),
            page_end: Va(page_end),
            modules_start: Va(page_end),
            modules_end: Va(0),
            vmalloc_start: Va(0),
            vmalloc_end: Va(0),
            vmemmap_start: Va(0),
            vmemmap_end: Va(0),
            fixmap_start: Va(0),
            fixmap_end: Va(0),
            pci_io_start: Va(0),
            pci_io_end: Va(0),
            memstart,
            markers: [Marker { start: Va(u64::MAX), name: None }; MAX_MARKERS],
            nr_markers: 0,
        };
        match version.region_order() {
            RegionOrder::VmemmapBelowFixmap => {
                let end = 0u64.wrapping_sub(GIB);
                let start = end.wrapping_sub(size);
                l.modules_end = Va(page_end.wrapping_add(2 * GIB));
                // VMEMMAP_UNUSED_NPAGES is 0: the hardware modelled has all VA bits (`vabits_actual` = VA_BITS).
                l.vmalloc_end = Va(start.wrapping_sub(8 * MIB));
                l.vmemmap_start = Va(start);
                l.vmemmap_end = Va(end);
                l.pci_io_start = Va(end.wrapping_add(8 * MIB));
                l.pci_io_end = Va(end.wrapping_add(24 * MIB));
                l.fixmap_end = Va(0u64.wrapping_sub(8 * MIB));
                let fixmap = match version {
                    Version::V7_3 | Version::V7_2 => 0x3d_5000,
                    Version::V6_12_117 | Version::V6_12 | Version::V6_1 | Version::V2021 => 0x3d_4000,
                };
                l.fixmap_start = Va(l.fixmap_end.0.wrapping_sub(fixmap)).align_down(page);
            }
            RegionOrder::VmemmapOnTop => {
                let start = minus(v - (psh - 6));
                l.modules_end = Va(page_end.wrapping_add(128 * MIB));
                l.vmemmap_start = Va(start);
                l.vmemmap_end = Va(start.wrapping_add(size));
                l.vmalloc_end = Va(start.wrapping_sub(256 * MIB));
                l.fixmap_end = Va(start.wrapping_sub(32 * MIB));
                let fixmap = match geometry.granule {
                    Granule::K4 => 0x40_6000,
                    Granule::K16 => 0x41_8000,
                    Granule::K64 => 0x46_0000,
                };
                l.fixmap_start = Va(l.fixmap_end.0.wrapping_sub(fixmap)).align_down(page);
                l.pci_io_end = Va(start.wrapping_sub(8 * MIB));
                l.pci_io_start = Va(start.wrapping_sub(24 * MIB));
            }
        }
        l.vmalloc_start = l.modules_end;
        l.use_fewer_bits();
        l.set_default_markers();
        Ok(l)
    }

    /// A 64K kernel built for 52 bits on a CPU with 48 keeps its large root, of which the upper part is in use, and has
    /// lowered `memstart_addr` by the difference of the two PAGE_OFFSETs. No linear map is so large that it would be
    /// lower for another reason. Since 6.9 everything begins where the bits in use do (`vabits_actual`,
    /// `VMEMMAP_UNUSED_NPAGES`); before, the unused part of each region stays.
    fn use_fewer_bits(&mut self) {
        let lowered = self.memstart < -(1 << 51);
        let since_6_9 = matches!(self.version.region_order(), RegionOrder::VmemmapBelowFixmap);
        if self.geometry.granule == Granule::K64 && self.geometry.va_bits == 52 && lowered && since_6_9 {
            let unused = (1u64 << 52) - (1 << 48);
            self.page_offset = self.page_offset.plus(unused);
            self.memstart += unused as i64;
            self.vmemmap_start = self.vmemmap_start.plus((unused >> self.geometry.page_shift()) * STRUCT_PAGE_SIZE);
            self.vmalloc_end = Va(self.vmemmap_start.0 - 8 * MIB);
        }
    }

    fn set_default_markers(&mut self) {
        let first_page = self.page_va(self.first_linear_pfn());
        let common = [
            (self.page_offset, "Linear Mapping start"),
            (self.page_end, "Linear Mapping end"),
            (self.modules_start, "Modules start"),
            (self.modules_end, "Modules end"),
            (self.vmalloc_start, "vmalloc() area"),
            (self.vmalloc_end, "vmalloc() end"),
        ];
        let fixmap = [(self.fixmap_start, "Fixmap start"), (self.fixmap_end, "Fixmap end")];
        let pci = [(self.pci_io_start, "PCI I/O start"), (self.pci_io_end, "PCI I/O end")];
        let vmemmap = [(first_page, "vmemmap start"), (self.vmemmap_end, "vmemmap end")];
        let tail = match self.version.region_order() {
            RegionOrder::VmemmapBelowFixmap => [vmemmap, pci, fixmap],
            RegionOrder::VmemmapOnTop => [fixmap, pci, [(self.vmemmap_start, "vmemmap start"), vmemmap[1]]],
        };
        self.nr_markers = 0;
        for (start, name) in common.into_iter().chain(tail.into_iter().flatten()) {
            self.push_marker(Marker { start, name: Some(name) });
        }
        self.push_marker(Marker { start: Va(u64::MAX), name: None });
    }

    /// Append a marker; ignored beyond `MAX_MARKERS`.
    pub fn push_marker(&mut self, marker: Marker) {
        if self.nr_markers < MAX_MARKERS {
            self.markers[self.nr_markers] = marker;
            self.nr_markers += 1;
        }
    }

    /// PFN whose linear address is PAGE_OFFSET.
    #[must_use]
    #[inline]
    pub const fn first_linear_pfn(&self) -> Pfn {
        Pfn((self.memstart >> self.geometry.page_shift()) as u64)
    }
    /// `pfn_to_page`: VA of the struct page of `pfn`. Pure arithmetic.
    #[must_use]
    #[inline]
    pub const fn page_va(&self, pfn: Pfn) -> Va {
        Va(self
            .vmemmap_start
            .0
            .wrapping_add(pfn.0.wrapping_sub(self.first_linear_pfn().0).wrapping_mul(STRUCT_PAGE_SIZE)))
    }
    /// `page_to_pfn`.
    #[must_use]
    #[inline]
    pub const fn page_pfn(&self, page: Va) -> Pfn {
        Pfn((page.0.wrapping_sub(self.vmemmap_start.0) / STRUCT_PAGE_SIZE).wrapping_add(self.first_linear_pfn().0))
    }
    /// `__phys_to_virt`: linear address of a physical address.
    #[must_use]
    #[inline]
    pub const fn linear_va(&self, pa: Pa) -> Va {
        Va(pa.0.wrapping_sub(self.memstart as u64).wrapping_add(self.page_offset.0))
    }
    /// Whether `va` lies in [VMEMMAP_START, VMEMMAP_END).
    #[must_use]
    #[inline]
    pub const fn in_vmemmap(&self, va: Va) -> bool {
        va.0 >= self.vmemmap_start.0 && va.0 < self.vmemmap_end.0
    }
}
