//! The architecture's break-before-make rule as a pure predicate (Arm ARM DDI 0487, rule RWHZWS; kernel-semantics
//! §10.2).

use crate::descriptor::{Attr, Desc, Kind};
use crate::geometry::{Geometry, Level};

/// FEAT_BBM as a CPU implements it (`ID_AA64MMFR2_EL1.BBM`), or the "never a conflict abort" property that Linux
/// trusts by MIDR.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum FeatBbm {
    #[default]
    Level0,
    /// Size changes allowed while nT is set in the block.
    Level1,
    /// Size changes allowed; a conflict abort is still possible.
    Level2,
    /// Level 3, or level 2 without conflict aborts (BBML2_NOABORT).
    NoAbort,
}

impl FeatBbm {
    /// As scenarios write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FeatBbm::Level0 => "0",
            FeatBbm::Level1 => "1",
            FeatBbm::Level2 => "2",
            FeatBbm::NoAbort => "noabort",
        }
    }
}

/// Which of the four cases of the rule a change falls under.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BbmCase {
    /// Memory type, shareability or cacheability changes.
    MemoryType,
    /// Output address changes, and either descriptor is writable or the contents differ.
    OutputAddress,
    /// Block against table, or contiguity, without the FEAT_BBM level that allows it.
    Size,
    /// A global entry where a non-global one may be cached.
    Global,
}

impl BbmCase {
    /// Which requirement of RWHZWS was not met, and what RFVQCK and ITHWDH allow until the invalidate completes.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            BbmCase::MemoryType => {
                "memory type, shareability or cacheability changes without break-before-make (RWHZWS); an access may \
                 abort or use an amalgamation of both entries (RFVQCK), and coherency, ordering or single-copy \
                 atomicity may be lost (ITHWDH)"
            }
            BbmCase::OutputAddress => {
                "output address changes without break-before-make, and an entry is writable or the contents differ \
                 (RWHZWS); an access may abort or use an amalgamation of both entries (RFVQCK), and coherency, \
                 ordering or single-copy atomicity may be lost (ITHWDH)"
            }
            BbmCase::Size => {
                "block size or contiguity changes without break-before-make (RWHZWS); an access may raise a TLB \
                 conflict abort or use an amalgamation of both entries (RFVQCK)"
            }
            BbmCase::Global => {
                "a global entry replaces a non-global one without break-before-make (RWHZWS); an access may raise a \
                 TLB conflict abort or use an amalgamation of both entries (RFVQCK)"
            }
        }
    }
}

/// Whether replacing `old` by `new`, both possibly in use by other observers, requires break-before-make.
///
/// `same_contents`: whether the memory at the two output addresses is equal; asked only when both are read-only leaves
/// with different output addresses. Returns the first case that applies, `None` if no break is required (which includes
/// every change from or to an invalid descriptor, and a change of permissions alone).
#[must_use]
pub fn bbm_required(
    geometry: &Geometry,
    level: Level,
    old: Desc,
    new: Desc,
    feat: FeatBbm,
    same_contents: impl FnOnce() -> bool,
) -> Option<BbmCase> {
    if !old.is_valid() || !new.is_valid() || changes_permissions_alone(old, new) {
        return None;
    }
    let leaf = |k: Kind| matches!(k, Kind::Page(_) | Kind::Block(_));
    let (ko, kn) = (geometry.kind(old, level), geometry.kind(new, level));
    if leaf(ko) != leaf(kn) {
        let allowed = match feat {
            FeatBbm::Level0 => false,
            FeatBbm::Level1 => old.has(Attr::NT) || new.has(Attr::NT),
            FeatBbm::Level2 | FeatBbm::NoAbort => true,
        };
        return if allowed { None } else { Some(BbmCase::Size) };
    }
    if !leaf(ko) {
        // Two table descriptors: what lies below decides; a different next table is judged through its leaves.
        return None;
    }
    if old.attr_index() != new.attr_index() && !both_normal(old, new) {
        return Some(BbmCase::MemoryType);
    }
    // With LPA2 bits 9:8 are address, and shareability comes from TCR.
    let sh = Attr::SHARED.bits() & !geometry.address_mask();
    if old.0 & sh != new.0 & sh {
        return Some(BbmCase::MemoryType);
    }
    if old.has(Attr::CONT) != new.has(Attr::CONT) && feat < FeatBbm::Level1 {
        return Some(BbmCase::Size);
    }
    if old.has(Attr::NG) && !new.has(Attr::NG) {
        return Some(BbmCase::Global);
    }
    if geometry.output(old) != geometry.output(new) && (old.is_writable() || new.is_writable() || !same_contents()) {
        return Some(BbmCase::OutputAddress);
    }
    None
}

/// Whether two descriptors differ in nothing but what may be changed in place: AP[2:1], AF, GP, DBM, PXN, UXN and the
/// bits that are software's.
#[must_use]
#[inline]
pub const fn changes_permissions_alone(old: Desc, new: Desc) -> bool {
    const PERMISSIONS: u64 = 3 << 6 | 1 << 10 | 3 << 50 | 3 << 53 | 0xf << 55;
    (old.0 ^ new.0) & !PERMISSIONS == 0
}

/// Normal against Normal-Tagged is no type change (`pgattr_change_is_safe`).
const fn both_normal(a: Desc, b: Desc) -> bool {
    a.attr_index() <= 1 && b.attr_index() <= 1
}
