//! What changed in vmemmap between two dumps of one machine, in the words of the subsystem: hugepages, blocks, tables,
//! sections, frames.

use core::ops::Range;
use std::collections::HashSet;

use vmemmap_arch::{Attr, Desc, Kind, Level, Pa, TableView, Va};

use crate::shape::{Optimised, Run, Shape, Tables, union};
use crate::table_image::TableImage;

/// Changes listed one by one that nothing else explains; more are only counted.
pub const MOST_OTHER: usize = 1000;

/// Why two dumps cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incomparable {
    #[error("one has {0} pages, the other {1}")]
    Granule(&'static str, &'static str),
    #[error("one has {0}-bit addresses, the other {1}-bit")]
    VaBits(u32, u32),
    #[error("vmemmap is at {0}-{1} in one and at {2}-{3} in the other: not the same kernel")]
    Vmemmap(Va, Va, Va, Va),
    #[error("the first struct page is that of PFN {0:#x} in one and of PFN {1:#x} in the other: not the same boot")]
    Memstart(u64, u64),
}

/// A change of descriptors side by side that is part of no hugepage's or section's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OtherChange {
    pub va: Va,
    pub level: Level,
    pub count: u64,
    /// 0: nothing there.
    pub old: u64,
    pub new: u64,
}

/// What changed in vmemmap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Descriptors whose word differs, at any level, absent = zero; of texts those of which a text shows it.
    pub changed: u64,
    pub tables_added: u64,
    pub tables_removed: u64,
    /// Base pages that vmemmap maps only in the first, only in the second; `None` if either is a text.
    pub frames: Option<(u64, u64)>,
    pub optimised: Vec<Optimised>,
    pub restored: Vec<Optimised>,
    /// First address of each block that became a table.
    pub blocks_split: Vec<Va>,
    /// Numbers from the start of vmemmap.
    pub sections_added: Vec<Range<u64>>,
    pub sections_removed: Vec<Range<u64>>,
    pub other: Vec<OtherChange>,
    pub other_count: u64,
}

/// Compare two dumps of one machine.
///
/// # Errors
/// `Incomparable`.
pub fn diff(a: &Shape, b: &Shape) -> Result<Diff, Incomparable> {
    comparable(a, b)?;
    let mut d = Diff::default();
    let (before, after) = (a.optimised(), b.optimised());
    let missing = |from: &[Optimised], of: &[Optimised]| {
        of.iter().filter(|p| from.binary_search(p).is_err()).copied().collect::<Vec<_>>()
    };
    d.optimised = missing(&before, &after);
    let (sections_a, sections_b) = (a.sections(), b.sections());
    d.sections_added = subtract(&sections_b, &sections_a);
    d.sections_removed = subtract(&sections_a, &sections_b);
    let unit = a.geometry.section_vmemmap();
    // A page whose struct pages are gone was not restored.
    d.restored = missing(&after, &before);
    d.restored.retain(|p| contains(&sections_b, p.va.since(b.vmemmap.start) / unit));
    if a.exact && b.exact {
        let (lost, gained) = (subtract(&a.frames(), &b.frames()), subtract(&b.frames(), &a.frames()));
        d.frames = Some((size(&lost), size(&gained)));
    }
    (d.tables_removed, d.tables_added) = tables(a, b);
    let explained = explained(a, &d);
    for level in (a.geometry.top().0..=3).map(Level) {
        sweep(a, b, level, |va, count, old, new| {
            d.changed += count;
            let split = level != Level::PTE
                && a.is_leaf(level, old)
                && matches!(b.geometry.kind(Desc(new), level), Kind::Table(_));
            if split {
                let span = a.geometry.entry_span(level);
                d.blocks_split.extend((0..count).map(|i| va.plus(i * span)));
            } else if (a.is_leaf(level, old) || b.is_leaf(level, new))
                && !contains(&explained, va.since(a.vmemmap.start) >> a.geometry.page_shift())
                && !(old == 0 && level == Level::PTE && is_piece_of_block(a, b, va, count, new))
            {
                d.other_count += count;
                if d.other.len() < MOST_OTHER {
                    d.other.push(OtherChange { va, level, count, old, new });
                }
            }
        });
    }
    d.blocks_split.sort_unstable();
    Ok(d)
}

fn comparable(a: &Shape, b: &Shape) -> Result<(), Incomparable> {
    let (g, h) = (&a.geometry, &b.geometry);
    if g.granule != h.granule {
        return Err(Incomparable::Granule(g.granule.name(), h.granule.name()));
    }
    if g.va_bits != h.va_bits {
        return Err(Incomparable::VaBits(g.va_bits, h.va_bits));
    }
    if a.vmemmap != b.vmemmap {
        return Err(Incomparable::Vmemmap(a.vmemmap.start, a.vmemmap.end, b.vmemmap.start, b.vmemmap.end));
    }
    match (a.first_pfn, b.first_pfn) {
        (Some(p), Some(q)) if p != q => Err(Incomparable::Memstart(p.0, q.0)),
        _ => Ok(()),
    }
}

/// Pages of vmemmap, counted from its start, whose changes other words tell: of hugepages, split blocks, sections.
fn explained(a: &Shape, d: &Diff) -> Vec<Range<u64>> {
    let g = a.geometry;
    let per_section = g.section_vmemmap() >> g.page_shift();
    let page = |va: Va| va.since(a.vmemmap.start) >> g.page_shift();
    let of = |p: &Optimised| page(p.va)..page(p.va) + p.pages / g.struct_pages_per_page();
    let mut all: Vec<Range<u64>> = d.optimised.iter().chain(&d.restored).map(of).collect();
    all.extend(d.sections_added.iter().chain(&d.sections_removed).map(|s| s.start * per_section..s.end * per_section));
    union(all)
}

/// Whether the pages from `va` on are what a split leaves of the block that was there: the same frames, as PAGE_KERNEL
/// (`vmemmap_split_pmd`). A text hides the frames.
fn is_piece_of_block(a: &Shape, b: &Shape, va: Va, count: u64, new: u64) -> bool {
    let g = a.geometry;
    let last = va.plus((count - 1) << g.page_shift());
    let (Some((block, at)), Some(_)) = (a.block_at(va), a.block_at(last)) else { return false };
    let page = Desc(block | (Attr::TABLE_BIT | Attr::WRITE | Attr::DIRTY).bits());
    let page = if a.exact { g.with_output(page, g.output(Desc(block)).plus(at)) } else { page };
    a.comparable(b, Level::PTE, page.0) == b.comparable(a, Level::PTE, new)
}

/// Every stretch of one level in which the two dumps show different descriptors: address, number, the word in each.
fn sweep(a: &Shape, b: &Shape, level: Level, mut differs: impl FnMut(Va, u64, u64, u64)) {
    let shift = a.geometry.level_shift(level);
    let (mut xs, mut ys) = (a.level(level).iter().copied().peekable(), b.level(level).iter().copied().peekable());
    // A run cut at the front.
    let rest = |run: Run, by: u64| {
        (run.count > by).then(|| Run { va: run.va.plus(by << shift), count: run.count - by, word: run.word })
    };
    let (mut x, mut y) = (xs.next(), ys.next());
    loop {
        let (va, count, old, new) = match (x, y) {
            (None, None) => return,
            (Some(p), None) => (p.va, p.count, p.word, 0),
            (None, Some(q)) => (q.va, q.count, 0, q.word),
            (Some(p), Some(q)) if p.va < q.va => (p.va, p.count.min(q.va.since(p.va) >> shift), p.word, 0),
            (Some(p), Some(q)) if q.va < p.va => (q.va, q.count.min(p.va.since(q.va) >> shift), 0, q.word),
            (Some(p), Some(q)) => (p.va, p.count.min(q.count), p.word, q.word),
        };
        if a.comparable(b, level, old) != b.comparable(a, level, new) {
            differs(va, count, old, new);
        }
        let count = count.max(1);
        if let Some(p) = x.filter(|p| p.va == va) {
            x = rest(p, count).or_else(|| xs.next());
        }
        if let Some(q) = y.filter(|q| q.va == va) {
            y = rest(q, count).or_else(|| ys.next());
        }
    }
}

/// Tables only in the first, only in the second: by level and address, and by where they are if both say so.
fn tables(a: &Shape, b: &Shape) -> (u64, u64) {
    let (mut removed, mut added) = (0, 0);
    for level in (a.geometry.top().0 + 1..=3).map(Level) {
        let shift = a.geometry.level_shift(Level(level.0 - 1));
        let of = |shape: &Shape| -> Vec<Range<u64>> {
            let number = |va: Va| va.since(shape.vmemmap.start.align_down(1 << shift)) >> shift;
            shape.tables().iter().filter(|t| t.level == level).map(|t| number(t.va)..number(t.va) + t.count).collect()
        };
        let (mine, theirs) = (of(a), of(b));
        removed += size(&subtract(&mine, &theirs));
        added += size(&subtract(&theirs, &mine));
    }
    if a.exact && b.exact {
        let place = |t: &Tables| (t.level, t.va);
        let mut others: Vec<_> = b.tables().iter().collect();
        others.sort_unstable_by_key(|t| place(t));
        let moved = a
            .tables()
            .iter()
            .filter(|t| others.binary_search_by_key(&place(t), |o| place(o)).is_ok_and(|i| others[i].pa != t.pa))
            .count();
        removed += moved as u64;
        added += moved as u64;
    }
    (removed, added)
}

/// Descriptors outside vmemmap that differ between two images.
#[must_use]
pub fn changed_elsewhere(a: &TableImage, b: &TableImage) -> u64 {
    let g = a.geometry();
    if g != b.geometry() {
        return 0;
    }
    elsewhere(
        a,
        b,
        [Some(a.root()), Some(b.root())],
        g.top(),
        Va(0u64.wrapping_sub(1 << g.va_bits)),
        &mut HashSet::new(),
    )
}

/// Tables that are used at many places, as KASAN's early shadow is, are compared once.
fn elsewhere(
    a: &TableImage,
    b: &TableImage,
    tables: [Option<Pa>; 2],
    level: Level,
    base: Va,
    seen: &mut HashSet<[Option<Pa>; 2]>,
) -> u64 {
    let g = a.geometry();
    if !seen.insert(tables) {
        return 0;
    }
    let words = [tables[0].and_then(|pa| a.words(pa)), tables[1].and_then(|pa| b.words(pa))];
    if words[0].is_none() && words[1].is_none() {
        return 0;
    }
    let mut changed = 0;
    for index in 0..g.entries_at(level) {
        let [old, new] = words.map(|w| w.map_or(0, |w| w[index]));
        if old == 0 && new == 0 {
            continue;
        }
        let va = base.plus((index as u64) << g.level_shift(level));
        changed += u64::from(old != new && !a.layout().in_vmemmap(va));
        let next = |word| match g.kind(Desc(word), level) {
            Kind::Table(next) => Some(next),
            _ => None,
        };
        let below = [next(old), next(new)];
        let inside = a.layout().in_vmemmap(va) && a.layout().in_vmemmap(va.plus(g.entry_span(level) - 1));
        if below != [None, None] && !inside {
            changed += elsewhere(a, b, below, level.next(), va, seen);
        }
    }
    changed
}

fn size(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|r| r.end - r.start).sum()
}

fn contains(ranges: &[Range<u64>], number: u64) -> bool {
    let after = ranges.partition_point(|r| r.start <= number);
    after != 0 && ranges[after - 1].contains(&number)
}

/// What is in the first and not in the second; both sorted, without overlaps.
fn subtract(from: &[Range<u64>], what: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    let mut at = 0;
    for range in from {
        let mut start = range.start;
        while at < what.len() && what[at].end <= start {
            at += 1;
        }
        let mut i = at;
        while start < range.end {
            match what.get(i) {
                Some(hole) if hole.start < range.end => {
                    if hole.start > start {
                        left.push(start..hole.start);
                    }
                    start = start.max(hole.end);
                    i += 1;
                }
                _ => {
                    left.push(start..range.end);
                    break;
                }
            }
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::shape::union;

    fn ranges() -> impl Strategy<Value = Vec<Range<u64>>> {
        proptest::collection::vec((0u64..40, 0u64..6), 0..8)
            .prop_map(|pairs| union(pairs.into_iter().map(|(start, length)| start..start + length).collect()))
    }

    proptest! {
        #[test]
        fn a_difference_has_what_is_in_one_and_not_in_the_other(from in ranges(), what in ranges()) {
            let numbers = |ranges: &[Range<u64>]| ranges.iter().cloned().flatten().collect::<BTreeSet<u64>>();
            let left = subtract(&from, &what);
            prop_assert_eq!(numbers(&left), &numbers(&from) - &numbers(&what));
            prop_assert!(left.windows(2).all(|pair| pair[0].end <= pair[1].start), "{:?}", left);
        }
    }
}
