//! Read-only view of translation tables: a live machine, an image, a vmcore.

use crate::address::{Pa, Va};
use crate::descriptor::{Desc, Kind};
use crate::geometry::{Geometry, Level};

/// Words by the physical address of the table page that holds them.
pub trait TableView {
    fn geometry(&self) -> Geometry;
    /// Physical address of `swapper_pg_dir`.
    fn root(&self) -> Pa;
    /// The descriptor, or `None` if there is no such table page here.
    fn word(&self, table: Pa, index: usize) -> Option<Desc>;
    /// All words of the table page at once, where the view holds them side by side: `word` for many, without the
    /// search.
    fn words(&self, table: Pa) -> Option<&[u64]> {
        let _ = table;
        None
    }
}

/// Where a walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    /// Table that holds the last descriptor read, and its index there.
    pub table: Pa,
    pub index: u16,
    pub level: Level,
    pub desc: Desc,
    /// Physical address the VA translates to, if it does.
    pub output: Option<Pa>,
}

/// Walk `va` in a view. `None` if a table descriptor points outside the view.
#[must_use]
#[inline]
pub fn walk<V: TableView + ?Sized>(view: &V, va: Va) -> Option<Walk> {
    walk_noting(view, va, |_| {})
}

/// The same; `note` sees every descriptor on the way, the last too.
#[inline]
pub fn walk_noting<V: TableView + ?Sized>(view: &V, va: Va, mut note: impl FnMut(&Walk)) -> Option<Walk> {
    let g = view.geometry();
    let mut table = view.root();
    let mut level = g.top();
    loop {
        let index = g.index(va, level);
        let desc = view.word(table, usize::from(index))?;
        let mut step = Walk { table, index, level, desc, output: None };
        match g.kind(desc, level) {
            Kind::Table(next) => {
                note(&step);
                table = next;
                level = level.next();
            }
            found => {
                if let Kind::Page(pa) | Kind::Block(pa) = found {
                    step.output = Some(pa.plus(va.0 & (g.entry_span(level) - 1)));
                }
                note(&step);
                return Some(step);
            }
        }
    }
}
