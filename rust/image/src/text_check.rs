//! What a `kernel_page_tables` text can show of the invariants: it has levels, holes and permissions, but no addresses
//! that anything maps to, no contents and no list of hugepages.

use vmemmap_arch::{Attr, Geometry, Invariant, Layout, Level, Va};

use crate::ptdump_parse::{Line, Lines, NO_LEVEL, RangeLine, TextError};
use crate::shape::level_of_depth;

/// The invariants that a text can show broken; all others are not visible.
pub const VISIBLE_IN_TEXT: [Invariant; 4] = [
    Invariant::OneWritableHead,
    Invariant::TreeWellFormed,
    Invariant::NoWritableExecutable,
    Invariant::NoEmptyTableLinked,
];

/// A broken promise, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TextFinding {
    pub invariant: Invariant,
    pub va: Va,
    pub message: &'static str,
}

/// Check every invariant that the text shows; each finding goes to `sink`. `kept`: vmemmap pages of an optimised
/// hugepage that stay.
///
/// # Errors
/// The first line that is none of a dump's.
pub fn check_text(text: &[u8], layout: &Layout, kept: u64, mut sink: impl FnMut(TextFinding)) -> Result<(), TextError> {
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
    sink: &mut impl FnMut(TextFinding),
) {
    let level = level_of_depth(g, range.depth);
    let mut report = |invariant, va, message| sink(TextFinding { invariant, va, message });
    if range.prot == 0 {
        if range.depth != NO_LEVEL
            && let Some(va) = machine.and_then(|(layout, _)| empty_table(range, layout, level))
        {
            report(Invariant::NoEmptyTableLinked, va, "an empty table is linked in vmemmap");
        }
        return;
    }
    let has = |attr: Attr| range.prot & attr.bits() == attr.bits();
    let in_vmemmap = machine.is_some_and(|(layout, _)| layout.in_vmemmap(range.start));
    if range.depth != NO_LEVEL {
        check_leaves(range, g, level, in_vmemmap, &mut report);
    }
    if !has(Attr::VALID) {
        return;
    }
    if !has(Attr::RDONLY) && !has(Attr::PXN) {
        report(Invariant::NoWritableExecutable, range.start, "writable and executable");
    }
    if !has(Attr::UXN) {
        report(
            Invariant::NoWritableExecutable,
            range.start,
            "executable at EL0 (ptdump_check_wx counts it as non-UXN)",
        );
    }
    if let Some((layout, kept)) = machine.filter(|_| in_vmemmap && range.depth != NO_LEVEL) {
        check_struct_pages(range, layout, level, kept, &mut report);
    }
}

fn check_leaves(
    range: &RangeLine<'_>,
    g: &Geometry,
    level: Level,
    in_vmemmap: bool,
    report: &mut impl FnMut(Invariant, Va, &'static str),
) {
    let span = g.entry_span(level);
    let has = |attr: Attr| range.prot & attr.bits() == attr.bits();
    if !range.start.is_aligned(span) || !range.end.is_aligned(span) {
        report(Invariant::TreeWellFormed, range.start, "a range of leaves is no whole number of its level's");
    }
    if !has(Attr::VALID) {
        if in_vmemmap {
            report(Invariant::TreeWellFormed, range.start, "an invalid descriptor in vmemmap is not zero");
        }
        return;
    }
    let block = level != Level::PTE;
    if block == has(Attr::TABLE_BIT) || block && !g.block_allowed(level) {
        report(Invariant::TreeWellFormed, range.start, "a descriptor type that its level does not have");
    }
    if has(Attr::CONT) {
        let size = span * if block { g.cont_pmds() } else { g.cont_ptes() };
        if !range.start.is_aligned(size) || !range.end.is_aligned(size) {
            report(Invariant::TreeWellFormed, range.start, "a contiguous set whose entries do not agree");
        }
    }
}

/// A table whose whole span lies inside one hole of its own level.
fn empty_table(range: &RangeLine<'_>, layout: &Layout, level: Level) -> Option<Va> {
    let g = layout.geometry;
    if level == g.top() {
        return None;
    }
    let span = g.entry_span(Level(level.0 - 1));
    let start = range.start.max(layout.vmemmap_start).0.checked_next_multiple_of(span)?;
    let last = range.end.0.wrapping_sub(1).min(layout.vmemmap_end.0 - 1);
    (start < last && last - start >= span - 1).then_some(Va(start))
}

fn check_struct_pages(
    range: &RangeLine<'_>,
    layout: &Layout,
    level: Level,
    kept: u64,
    report: &mut impl FnMut(Invariant, Va, &'static str),
) {
    let g = layout.geometry;
    let has = |attr: Attr| range.prot & attr.bits() == attr.bits();
    let odd = if range.prot >> 2 & 7 != 0 {
        Some("struct pages are mapped with another memory type than Normal")
    } else if !has(Attr::AF) {
        Some("the access flag of a vmemmap leaf is clear: an access faults")
    } else if has(Attr::USER) {
        Some("struct pages are accessible at EL0")
    } else if has(Attr::CONT) {
        Some("a vmemmap leaf has the Contiguous bit: no kernel sets it there, and hot remove warns of it")
    } else {
        None
    };
    if let Some(message) = odd {
        report(Invariant::TreeWellFormed, range.start, message);
    }
    if !has(Attr::RDONLY) {
        return;
    }
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
        return;
    }
    let message = if is_hugepage(3 - kept) {
        "the page keeps another number of vmemmap pages than this kernel leaves"
    } else {
        "read-only struct pages that are not the tails of one hugepage behind a writable head"
    };
    report(Invariant::OneWritableHead, range.start, message);
}
