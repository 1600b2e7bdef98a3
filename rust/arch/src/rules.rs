//! What must hold of the entries of the kernel's tables at rest (I9, I30 to I32), whoever looks at them: the tables of
//! a machine, an image, or the lines of a `kernel_page_tables` text. A text has permissions and no output addresses; a
//! rule here looks at what both have, and what only tables show is judged beside them.

use crate::address::Va;
use crate::descriptor::{Attr, Desc, Kind, mair};
use crate::geometry::{Geometry, Level};
use crate::invariant::Invariant;
use crate::layout::Layout;

/// An invariant and how it is violated.
pub type Broken = (Invariant, &'static str);

fn broken(violated: bool, invariant: Invariant, message: &'static str) -> Option<Broken> {
    violated.then_some((invariant, message))
}

/// Of an entry that is not valid and not zero.
#[must_use]
pub fn invalid_entry(in_vmemmap: bool) -> Option<Broken> {
    broken(in_vmemmap, Invariant::TreeWellFormed, "an invalid descriptor in vmemmap is not zero")
}

/// Of a valid entry that is no table.
#[must_use]
pub fn leaf_type(g: &Geometry, desc: Desc, level: Level) -> Option<Broken> {
    let leaf = matches!(g.kind(desc, level), Kind::Page(_) | Kind::Block(_));
    broken(!leaf, Invariant::TreeWellFormed, "a descriptor type that its level does not have")
}

/// Of a leaf. `ptdump_check_wx` looks at leaves only, so a table above that forbids execution (`pxn`) excuses nothing.
pub fn executable(desc: Desc, pxn: bool) -> impl Iterator<Item = Broken> {
    let both = if pxn {
        "writable, and executable but for the table above (ptdump_check_wx counts it)"
    } else {
        "writable and executable"
    };
    let user = "executable at EL0 (ptdump_check_wx counts it as non-UXN)";
    let writable = desc.is_writable() && !desc.has(Attr::PXN);
    let found = [
        broken(writable, Invariant::NoWritableExecutable, both),
        broken(!desc.has(Attr::UXN), Invariant::NoWritableExecutable, user),
    ];
    found.into_iter().flatten()
}

/// Of a leaf that maps struct pages.
#[must_use]
pub fn vmemmap_attributes(desc: Desc) -> Option<Broken> {
    let message = if desc.attr_index() != mair::NORMAL {
        "struct pages are mapped with another memory type than Normal"
    } else if !desc.has(Attr::AF) {
        "the access flag of a vmemmap leaf is clear: an access faults"
    } else if desc.has(Attr::USER) {
        "struct pages are accessible at EL0"
    } else if desc.has(Attr::CONT) {
        "a vmemmap leaf has the Contiguous bit: no kernel sets it there, and hot remove warns of it"
    } else {
        return None;
    };
    Some((Invariant::TreeWellFormed, message))
}

/// Entries of a contiguous set at that level.
#[must_use]
pub fn contiguous_entries(g: &Geometry, level: Level) -> u64 {
    if level == Level::PTE { g.cont_ptes() } else { g.cont_pmds() }
}

/// Of a set with the Contiguous bit, whether or not all its entries agree.
#[must_use]
pub fn contiguous_set(agrees: bool) -> Option<Broken> {
    broken(!agrees, Invariant::TreeWellFormed, "a contiguous set whose entries do not agree")
}

/// Of a table without entries whose span begins at `start`.
#[must_use]
pub fn empty_table(layout: &Layout, level: Level, start: Va) -> Option<Broken> {
    let last = start.plus(layout.geometry.table_span(level) - 1);
    let owned = level != layout.geometry.top() && layout.in_vmemmap(start) && layout.in_vmemmap(last);
    broken(owned, Invariant::NoEmptyTableLinked, "an empty table is linked in vmemmap")
}

/// Of a hugepage's vmemmap, whether it keeps as many pages as this kernel leaves.
#[must_use]
pub fn kept_pages(as_many: bool) -> Option<Broken> {
    broken(
        !as_many,
        Invariant::OneWritableHead,
        "the page keeps another number of vmemmap pages than this kernel leaves",
    )
}
