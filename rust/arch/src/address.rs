//! Addresses of three kinds, never mixed: virtual, physical, page frame number.

use core::fmt;
use core::ops::Range;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The address `bytes` (or, for a PFN, frames) further on; wraps like the kernel's arithmetic.
            #[must_use]
            #[inline]
            pub const fn plus(self, offset: u64) -> Self {
                Self(self.0.wrapping_add(offset))
            }
            /// Distance in bytes (frames for a PFN) from `start` up to `self`; wraps.
            #[must_use]
            #[inline]
            pub const fn since(self, start: Self) -> u64 {
                self.0.wrapping_sub(start.0)
            }
            /// Rounded down to a multiple of `unit`, a power of two.
            #[must_use]
            #[inline]
            pub const fn align_down(self, unit: u64) -> Self {
                Self(self.0 & !(unit - 1))
            }
            /// Whether a multiple of `unit`, a power of two.
            #[must_use]
            #[inline]
            pub const fn is_aligned(self, unit: u64) -> bool {
                self.0 & (unit - 1) == 0
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#018x}", self.0)
            }
        }
    };
}

address!(
    /// A kernel virtual address.
    Va
);
address!(
    /// A physical address.
    Pa
);
address!(
    /// A page frame number: physical address divided by the granule.
    Pfn
);

/// Half-open range of virtual addresses. `end` may be 0, one past the last address of all.
pub type VaRange = Range<Va>;
/// Half-open range of page frame numbers.
pub type PfnRange = Range<Pfn>;
