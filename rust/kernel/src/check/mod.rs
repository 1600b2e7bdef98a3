//! Invariants that a machine at rest can show, over a read-only view (kernel-semantics §12): a file-system check for
//! vmemmap. One pass over the tables (`tree`; what they map as struct pages: `vmemmap`), one over the hugepages
//! (`pools`), one over the frames; no heap.

mod pools;
mod tree;
mod view;
mod vmemmap;
mod zone_tails;

use vmemmap_arch::{Invariant, InvariantSet, Va};

use pools::check_pools;
use view::Checker;
pub use view::{FrameInfo, Marks, StateView, Violation};

/// Check everything that the view shows; violations go to `sink`. Returns which invariants could be judged; the
/// others are not visible here.
pub fn check<V: StateView + ?Sized, M: Marks + ?Sized>(
    view: &V,
    marks: &mut M,
    sink: impl FnMut(Violation),
) -> InvariantSet {
    let mut checker = Checker::new(view, marks, sink);
    checker.visible = InvariantSet::of(&[
        Invariant::SharedTailsReadOnly,
        Invariant::OneWritableHead,
        Invariant::FramesConserved,
        Invariant::TreeWellFormed,
        Invariant::NoWritableExecutable,
        Invariant::NoEmptyTableLinked,
    ]);
    checker.zone_tail_frames();
    checker.table(view.root(), view.geometry().top(), Va(0), false);
    checker.boot_sections();
    checker.isolated_blocks();
    checker.absent_sections();
    checker.listed_hugepages();
    check_pools(&mut checker);
    checker.lost_frames();
    checker.counted_frames();
    checker.visible
}
