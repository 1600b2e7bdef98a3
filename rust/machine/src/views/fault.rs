//! What an entry is to an access: which fault, and whether a TLB may hold it.

use vmemmap_arch::{Attr, Desc};

/// What an access asks of a translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Load,
    Store,
}

/// Why a translation faults.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FaultKind {
    Translation,
    AccessFlag,
    Permission,
}

impl FaultKind {
    /// Of an access through this entry, if it faults. The order is that of the walk: valid, AF, AP.
    #[must_use]
    pub const fn of(entry: Desc, kind: Kind) -> Option<Self> {
        match kind {
            _ if !entry.is_valid() => Some(Self::Translation),
            _ if !entry.has(Attr::AF) => Some(Self::AccessFlag),
            Kind::Store if !entry.is_writable() => Some(Self::Permission),
            _ => None,
        }
    }
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Translation => "Translation",
            Self::AccessFlag => "AccessFlag",
            Self::Permission => "Permission",
        }
    }
}

/// A TLB may hold the entry: it is valid and its AF is set (Arm ARM, TLB matching).
#[must_use]
pub const fn is_cacheable(entry: Desc) -> bool {
    entry.is_valid() && entry.has(Attr::AF)
}
