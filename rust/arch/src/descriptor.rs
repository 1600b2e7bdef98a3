//! A descriptor as a value: bits, kinds, predicates (VMSAv8-64 stage 1 as Linux programs it; kernel-semantics §1.2 to
//! §1.4).

use core::fmt;

use crate::address::Pa;
use crate::geometry::{Geometry, Level, OutputFormat};

bitflags::bitflags! {
    /// Attribute bits of a block or page descriptor, by their Linux names.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
    pub struct Attr: u64 {
        const VALID = 1 << 0;
        /// Set in a table descriptor and in a page descriptor; clear in a block.
        const TABLE_BIT = 1 << 1;
        const ATTRINDX_0 = 1 << 2;
        const ATTRINDX_1 = 1 << 3;
        const ATTRINDX_2 = 1 << 4;
        const USER = 1 << 6;
        const RDONLY = 1 << 7;
        const SHARED = 3 << 8;
        const AF = 1 << 10;
        const NG = 1 << 11;
        /// nT of FEAT_BBM level 1, block descriptors only.
        const NT = 1 << 16;
        const GP = 1 << 50;
        /// DBM; Linux's software "writable".
        const WRITE = 1 << 51;
        const CONT = 1 << 52;
        const PXN = 1 << 53;
        const UXN = 1 << 54;
        const DIRTY = 1 << 55;
        const SPECIAL = 1 << 56;
        const DEVMAP = 1 << 57;
        /// 6.1: PROT_NONE when bit 0 is clear.
        const PROT_NONE = 1 << 58;
        /// 6.1: PMD_PRESENT_INVALID when bit 0 is clear. In a table descriptor: PXNTable.
        const PXN_TABLE = 1 << 59;
        /// In a table descriptor: UXNTable.
        const UXN_TABLE = 1 << 60;
    }
}

/// MAIR index of normal memory, of tagged normal memory, and so on (`arch/arm64/include/asm/memory.h`).
pub mod mair {
    pub const NORMAL: u64 = 0;
    pub const NORMAL_TAGGED: u64 = 1;
    pub const NORMAL_NC: u64 = 2;
    pub const DEVICE_NGNRNE: u64 = 3;
    pub const DEVICE_NGNRE: u64 = 4;
}

/// Composed protections (kernel-semantics §1.3), output address 0, nG off.
pub mod prot {
    pub const PAGE_KERNEL: u64 = 0x00e8_0000_0000_0703;
    pub const PAGE_KERNEL_RO: u64 = 0x00e0_0000_0000_0783;
    pub const PAGE_KERNEL_ROX: u64 = 0x00c0_0000_0000_0783;
    pub const PAGE_KERNEL_EXEC: u64 = 0x00c8_0000_0000_0703;
    /// Linear map of hot-added RAM: `pgprot_mhp(PAGE_KERNEL)`.
    pub const PAGE_KERNEL_TAGGED: u64 = 0x00e8_0000_0000_0707;
    /// vmemmap block of 6.1 (and 2021).
    pub const PROT_SECT_NORMAL_6_1: u64 = 0x0060_0000_0000_0701;
    /// vmemmap block of 6.12.
    pub const PROT_SECT_NORMAL_6_12: u64 = 0x0068_0000_0000_0701;
    /// vmemmap block of 7.x: PAGE_KERNEL made a block.
    pub const PROT_SECT_NORMAL_7: u64 = 0x00e8_0000_0000_0701;
    /// Table entry of init_mm: type 3 + UXNTable.
    pub const TABLE: u64 = 0x1000_0000_0000_0003;
    /// Table entry made by the hot-add linear map: + PXNTable.
    pub const TABLE_LINEAR: u64 = 0x1800_0000_0000_0003;
    /// The access flag of a table (FEAT_HAFT), which 7.x sets in every table entry.
    pub const TABLE_AF: u64 = 0x400;
    /// What ptdump compares and shows of a descriptor (`pte_bits`, kernel-semantics §8.3): neither the output address
    /// nor DBM and software bits.
    pub const PTDUMP_MASK: u64 = 0x0074_0000_0000_0fdf;
}

/// The bit by which an entry whose bit 0 is clear is present all the same (kernel-semantics §1.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PresentBit {
    /// `PTE_PRESENT_INVALID`, of 6.12; the bit is nG in a valid entry.
    PresentInvalid = 11,
    /// `PTE_PROT_NONE`, up to 6.1.
    ProtNone = 58,
}

/// What a descriptor is, decoded at a level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The 64-bit value is 0 (`pte_none`).
    None,
    /// Bit 0 clear but the value is not 0 (software-only bits, or present-invalid).
    Invalid,
    Block(Pa),
    Page(Pa),
    Table(Pa),
    /// Valid, but of no type that exists at this level (block at level 3, block where the granule has none).
    Reserved,
}

/// A 64-bit translation table descriptor, by value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Desc(pub u64);

impl Desc {
    pub const NONE: Desc = Desc(0);

    /// `pte_none`, `pmd_none`, `pud_none`: the whole word is 0.
    #[must_use]
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
    /// Bit 0.
    #[must_use]
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.0 & 1 != 0
    }
    /// `pmd_table`: bits 1:0 == 3 (above level 3).
    #[must_use]
    #[inline]
    pub const fn is_table_type(self) -> bool {
        self.0 & 3 == 3
    }
    /// `pmd_sect`: bits 1:0 == 1.
    #[must_use]
    #[inline]
    pub const fn is_sect(self) -> bool {
        self.0 & 3 == 1
    }
    /// `pte_present` of a kernel with that bit.
    #[must_use]
    #[inline]
    pub const fn is_present(self, bit: PresentBit) -> bool {
        self.0 & (1 | 1 << bit as u8) != 0
    }
    #[must_use]
    #[inline]
    pub const fn has(self, attr: Attr) -> bool {
        self.0 & attr.bits() == attr.bits()
    }
    #[must_use]
    #[inline]
    pub const fn with(self, attr: Attr) -> Desc {
        Desc(self.0 | attr.bits())
    }
    #[must_use]
    #[inline]
    pub const fn without(self, attr: Attr) -> Desc {
        Desc(self.0 & !attr.bits())
    }
    #[must_use]
    #[inline]
    pub const fn attr_index(self) -> u64 {
        self.0 >> 2 & 7
    }
    /// A store through this leaf is allowed at EL1: `AP[2]` clear (DBM without RDONLY is plain writable).
    #[must_use]
    #[inline]
    pub const fn is_writable(self) -> bool {
        self.0 & Attr::RDONLY.bits() == 0
    }
    /// `pte_valid_not_user`: VALID and UXN and not USER; what makes `set_pte` issue its barriers.
    #[must_use]
    #[inline]
    pub const fn is_valid_not_user(self) -> bool {
        self.0 & (Attr::VALID.bits() | Attr::USER.bits() | Attr::UXN.bits()) == (Attr::VALID.bits() | Attr::UXN.bits())
    }
}

impl fmt::Debug for Desc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Desc({:#018x})", self.0)
    }
}
impl fmt::Display for Desc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// Where the output address of a descriptor is: bits that keep their place, and bits that move up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutputBits {
    in_place: u64,
    moved: u64,
    by: u32,
}

impl OutputBits {
    #[must_use]
    #[inline]
    pub const fn of(self, desc: Desc) -> Pa {
        Pa((desc.0 & self.in_place) | (desc.0 & self.moved) << self.by)
    }
    /// `Geometry::descriptor`.
    #[must_use]
    #[inline]
    pub const fn descriptor(self, pa: Pa, prot: u64) -> Desc {
        Desc((pa.0 & self.in_place) | (pa.0 >> self.by & self.moved) | (prot & !self.moved))
    }
}

impl Geometry {
    /// Bits of a descriptor that carry an output or next-table address.
    #[must_use]
    #[inline]
    pub const fn address_mask(&self) -> u64 {
        let page = !(self.page_size() - 1);
        match self.output_format() {
            OutputFormat::Plain48 => page & ((1 << 48) - 1),
            OutputFormat::Lpa64K => (page & ((1 << 48) - 1)) | 0xf000,
            OutputFormat::Lpa2 => (page & ((1 << 50) - 1)) | 0x300,
        }
    }
    /// Bits of a leaf that must be zero: address bits that the format or the size of the leaf does not use, and NS,
    /// which tables of Non-secure EL1 leave alone. nT (bit 16 of a block) is none of them.
    #[must_use]
    pub const fn reserved_leaf_bits(&self, level: Level) -> u64 {
        const ADDRESS: u64 = ((1 << 50) - 1) & !0xfff;
        const NS: u64 = 1 << 5;
        let used = match self.output_format() {
            OutputFormat::Plain48 => (1 << 48) - 1,
            OutputFormat::Lpa64K => ((1 << 48) - 1) | 0xf000,
            OutputFormat::Lpa2 => (1 << 50) - 1,
        } & !(self.entry_span(level) - 1);
        let high = match self.output_format() {
            OutputFormat::Lpa64K => 0xf000,
            _ => 0,
        };
        let nt = if level.0 == 3 { 0 } else { Attr::NT.bits() };
        ADDRESS & !used & !high & !nt | NS
    }
    /// `__pte_to_phys`: the output (or next-table) address of a descriptor.
    #[must_use]
    #[inline]
    pub const fn output(&self, desc: Desc) -> Pa {
        let w = desc.0;
        let page = !(self.page_size() - 1);
        Pa(match self.output_format() {
            OutputFormat::Plain48 => w & page & ((1 << 48) - 1),
            OutputFormat::Lpa64K => (w & page & ((1 << 48) - 1)) | (w & 0xf000) << 36,
            OutputFormat::Lpa2 => (w & page & ((1 << 50) - 1)) | (w & 0x300) << 42,
        })
    }
    /// What `output` asks of the geometry, once for many descriptors.
    #[must_use]
    #[inline]
    pub const fn output_bits(&self) -> OutputBits {
        let page = !(self.page_size() - 1);
        match self.output_format() {
            OutputFormat::Plain48 => OutputBits { in_place: page & ((1 << 48) - 1), moved: 0, by: 0 },
            OutputFormat::Lpa64K => OutputBits { in_place: page & ((1 << 48) - 1), moved: 0xf000, by: 36 },
            OutputFormat::Lpa2 => OutputBits { in_place: page & ((1 << 50) - 1), moved: 0x300, by: 42 },
        }
    }
    /// `__phys_to_pte_val | prot`. With LPA2 the shareability bits of `prot` are dropped (`PTE_MAYBE_SHARED`).
    #[must_use]
    #[inline]
    pub const fn descriptor(&self, pa: Pa, prot: u64) -> Desc {
        Desc(match self.output_format() {
            OutputFormat::Plain48 => pa.0 | prot,
            OutputFormat::Lpa64K => (pa.0 & ((1 << 48) - 1)) | (pa.0 >> 36 & 0xf000) | prot,
            OutputFormat::Lpa2 => (pa.0 & ((1 << 50) - 1)) | (pa.0 >> 42 & 0x300) | (prot & !0x300),
        })
    }
    /// The same attributes with another output address.
    #[must_use]
    #[inline]
    pub const fn with_output(&self, desc: Desc, pa: Pa) -> Desc {
        self.descriptor(pa, desc.0 & !self.address_mask())
    }
    /// Decode a descriptor found in a table of that level.
    #[must_use]
    #[inline]
    pub const fn kind(&self, desc: Desc, level: Level) -> Kind {
        if desc.0 == 0 {
            return Kind::None;
        }
        if desc.0 & 1 == 0 {
            return Kind::Invalid;
        }
        let pa = self.output(desc);
        match (level.0, desc.0 & 2 != 0) {
            (3, true) => Kind::Page(pa),
            (3, false) => Kind::Reserved,
            (_, true) => Kind::Table(pa),
            (_, false) => {
                if self.block_allowed(level) {
                    Kind::Block(Pa(pa.0 & !(self.entry_span(level) - 1)))
                } else {
                    Kind::Reserved
                }
            }
        }
    }
}
