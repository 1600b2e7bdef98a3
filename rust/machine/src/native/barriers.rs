//! What a barrier of the modelled CPU is on a machine of real threads.

use std::sync::atomic::Ordering;

use vmemmap_arch::Barrier;

use crate::native::counters::Count;

/// What a barrier counts as.
#[inline]
pub(super) fn counted(barrier: Barrier) -> Count {
    match barrier {
        Barrier::DsbIshst | Barrier::DsbIsh | Barrier::DsbNsh => Count::Dsb,
        Barrier::Isb => Count::Isb,
        Barrier::SmpMb | Barrier::SmpRmb | Barrier::SmpWmb => Count::Smp,
    }
}

/// What a barrier orders among the host's accesses.
#[inline]
pub(super) fn ordering(barrier: Barrier) -> Option<Ordering> {
    match barrier {
        Barrier::DsbIshst | Barrier::SmpWmb => Some(Ordering::Release),
        Barrier::DsbIsh | Barrier::DsbNsh => Some(Ordering::AcqRel),
        Barrier::SmpMb => Some(Ordering::SeqCst),
        Barrier::SmpRmb => Some(Ordering::Acquire),
        Barrier::Isb => None,
    }
}
