//! What a `kernel_page_tables` text can show of the invariants: it has levels, holes and permissions, but no addresses
//! that anything maps to, no contents and no list of hugepages.

use vmemmap_arch::rules::{self, Broken};
use vmemmap_arch::{Attr, Desc, Geometry, Invariant, InvariantSet, Layout, Level, Va, Violation};

use crate::ptdump_parse::{Line, Lines, NO_LEVEL, RangeLine, TextError};
use crate::shape::level_of_depth;

/// The invariants that a text can show broken; all others are not visible.
pub const VISIBLE_IN_TEXT: InvariantSet = InvariantSet::of(&[
    Invariant::OneWritableHead,
    Invariant::TreeWellFormed,
    Invariant::NoWritableExecutable,
    Invariant::NoEmptyTableLinked,
]);

/// A violated invariant, and the first address of it.
pub type TextViolation = Violation;

/// Check every invariant that the text shows; each violation goes to `sink`. `kept`: vmemmap pages of an optimised
/// hugepage that stay.
///
/// # Errors
/// The first line that is none of a dump's.
pub fn check_text(
    text: &[u8],
    layout: &Layout,
    kept: u64,
    mut sink: impl FnMut(TextViolation),
) -> Result<(), TextError> {
    for line in Lines::new(text) {
        if let Line::Range(range) = line? {
            check_range(&range, &layout.geometry, Some((layout, kept)), &mut sink);
        }
    }
    Ok(())
}

/// `machine`: where vmemmap is, and how many pages of an optimised hugepage's stay, if the machine is known.
pub(crate) fn check_range(
    range: &RangeLine<'_>,
    g: &Geometry,
    machine: Option<(&Layout, u64)>,
    sink: &mut impl FnMut(TextViolation),
) {
    let level = level_of_depth(g, range.depth);
    let mut report = |va: Va, (invariant, message): Broken| sink(Violation::at_rest(invariant, va.0, message, ()));
    if range.prot == 0 {
        if range.depth != NO_LEVEL
            && let Some((va, broken)) = machine.and_then(|(layout, _)| empty_table(range, layout, level))
        {
            report(va, broken);
        }
        return;
    }
    let desc = Desc(range.prot);
    let mut all = |broken: &mut dyn Iterator<Item = Broken>| broken.for_each(|broken| report(range.start, broken));
    let in_vmemmap = machine.is_some_and(|(layout, _)| layout.in_vmemmap(range.start));
    if range.depth != NO_LEVEL {
        let span = g.entry_span(level);
        if !range.start.is_aligned(span) || !range.end.is_aligned(span) {
            let torn = "a range of leaves is no whole number of its level's";
            all(&mut Some((Invariant::TreeWellFormed, torn)).into_iter());
        }
        if !desc.is_valid() {
            all(&mut rules::invalid_entry(in_vmemmap).into_iter());
            return;
        }
        all(&mut rules::leaf_type(g, desc, level).into_iter());
        if desc.has(Attr::CONT) {
            let size = span * rules::contiguous_entries(g, level);
            let agrees = range.start.is_aligned(size) && range.end.is_aligned(size);
            all(&mut rules::contiguous_set(agrees).into_iter());
        }
    }
    if !desc.is_valid() {
        return;
    }
    all(&mut rules::executable(desc, false));
    if let Some((layout, kept)) = machine.filter(|_| in_vmemmap && range.depth != NO_LEVEL) {
        all(&mut rules::vmemmap_attributes(desc).into_iter());
        if desc.has(Attr::RDONLY) {
            all(&mut read_only_struct_pages(range, layout, level, kept).into_iter());
        }
    }
}

/// A table whose whole span lies inside one hole of its own level.
fn empty_table(range: &RangeLine<'_>, layout: &Layout, level: Level) -> Option<(Va, Broken)> {
    let g = layout.geometry;
    if level == g.top() {
        return None;
    }
    let span = g.entry_span(Level(level.0 - 1));
    let start = range.start.max(layout.vmemmap_start).0.checked_next_multiple_of(span)?;
    let last = range.end.0.wrapping_sub(1).min(layout.vmemmap_end.0 - 1);
    let inside = start < last && last - start >= span - 1;
    inside.then(|| rules::empty_table(layout, level, Va(start)).map(|broken| (Va(start), broken)))?
}

/// Read-only struct pages are the tails of one hugepage.
fn read_only_struct_pages(range: &RangeLine<'_>, layout: &Layout, level: Level, kept: u64) -> Option<Broken> {
    let g = layout.geometry;
    // Tails of neighbours never touch: the page that each hugepage keeps lies between them, writable.
    let tails = range.end.since(range.start) >> g.page_shift();
    let index = range.start.since(layout.vmemmap_start) >> g.page_shift();
    let (sizes, count) = g.hugetlb_sizes();
    let is_hugepage = |kept: u64| {
        let length = tails + kept;
        level == Level::PTE
            && index.checked_sub(kept).is_some_and(|first| first.is_multiple_of(length))
            && length.checked_mul(g.struct_pages_per_page()).is_some_and(|pages| sizes[..count].contains(&pages))
    };
    if is_hugepage(kept) {
        return None;
    }
    let stray = "read-only struct pages that are not the tails of one hugepage behind a writable head";
    rules::kept_pages(!is_hugepage(3 - kept)).or(Some((Invariant::OneWritableHead, stray)))
}
