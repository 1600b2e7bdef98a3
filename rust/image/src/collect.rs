//! Tables found in physical memory: every table page that can be reached from `swapper_pg_dir`, each once, and what the
//! linear map says about RAM. The memory may be damaged or hostile: what cannot be read is left out, and whether the
//! tables that were found agree with each other is asked later (`TableImage::new`, the invariants).

use std::collections::BTreeSet;
use std::ops::Range;

use vmemmap_arch::{Desc, Geometry, Kind, Level, Pa, Va};

/// More tables than the memory can hold pages: some of its ranges show the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("more than {most} table pages are reachable from the root, and the dump holds no more pages than that")]
pub struct TooManyTables {
    pub most: usize,
}

/// The arrays of a capture: tables by ascending address, a row of words for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub pa: Vec<u64>,
    /// In the Arm ARM's numbers; a byte holds -1 as 255.
    pub level: Vec<u8>,
    pub words: Vec<u64>,
}

/// A breadth-first walk, one level at a time: read what is `wanted`, `store` each page that could be read, `advance`.
///
/// A page that is reached at two levels keeps the first, which is the one nearer to the root; so a cycle ends.
#[derive(Clone, Debug)]
pub struct Collector {
    geometry: Geometry,
    most: usize,
    level: Level,
    wanted: Vec<Pa>,
    /// Everything that was ever wanted.
    seen: BTreeSet<u64>,
    /// First row of the current level.
    fresh: usize,
    found: Collected,
}

impl Collector {
    /// A walk from `root` that finds at most `most` tables.
    #[must_use]
    pub fn new(geometry: Geometry, root: Pa, most: usize) -> Self {
        let seen = BTreeSet::from([root.0]);
        Self { geometry, most, level: geometry.top(), wanted: vec![root], seen, fresh: 0, found: Collected::default() }
    }

    /// Addresses of the table pages of the current level, ascending; empty when the walk has ended.
    #[must_use]
    pub fn wanted(&self) -> &[Pa] {
        &self.wanted
    }

    /// The bytes of one wanted page; a page that is cut short is left out like one that cannot be read.
    ///
    /// # Errors
    /// `TooManyTables`.
    pub fn store(&mut self, pa: Pa, page: &[u8]) -> Result<(), TooManyTables> {
        if page.len() as u64 != self.geometry.page_size() {
            return Ok(());
        }
        if self.found.pa.len() == self.most {
            return Err(TooManyTables { most: self.most });
        }
        self.found.pa.push(pa.0);
        self.found.level.push(self.level.0 as u8);
        self.found.words.extend(page.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)));
        Ok(())
    }

    /// Decode what was stored of the current level; `wanted` are then the tables of the next.
    pub fn advance(&mut self) {
        self.wanted.clear();
        let g = self.geometry;
        let first = self.fresh * g.entries();
        self.fresh = self.found.pa.len();
        if self.level == Level::PTE {
            return;
        }
        for table in self.found.words[first..].chunks_exact(g.entries()) {
            for &word in &table[..g.entries_at(self.level)] {
                if let Kind::Table(next) = g.kind(Desc(word), self.level)
                    && self.seen.insert(next.0)
                {
                    self.wanted.push(next);
                }
            }
        }
        self.wanted.sort_unstable();
        self.level = self.level.next();
    }

    /// What was found, by ascending address.
    #[must_use]
    pub fn finish(self) -> Collected {
        let width = self.geometry.entries();
        let found = self.found;
        let mut order: Vec<usize> = (0..found.pa.len()).collect();
        order.sort_unstable_by_key(|&row| found.pa[row]);
        if order.is_sorted() {
            return found;
        }
        let mut words = Vec::with_capacity(found.words.len());
        for &row in &order {
            words.extend_from_slice(&found.words[row * width..(row + 1) * width]);
        }
        Collected {
            pa: order.iter().map(|&row| found.pa[row]).collect(),
            level: order.iter().map(|&row| found.level[row]).collect(),
            words,
        }
    }
}

/// The physical memory that `range` of the kernel's addresses is mapped to: ascending ranges that do not touch.
///
/// A page that was made invalid by clearing its valid bit alone, as the kernel does for `debug_pagealloc`, KFENCE
/// (`set_memory_valid`) and `memfd_secret`, still names its memory and counts. Each table is visited once.
#[must_use]
pub fn mapped(geometry: Geometry, root: Pa, pa: &[u64], words: &[u64], range: Range<Va>) -> Vec<Range<Pa>> {
    let g = geometry;
    let mut seen = BTreeSet::new();
    let mut found: Vec<Range<Pa>> = Vec::new();
    // The sign bits are taken off: offsets from the lowest kernel address neither wrap nor overflow.
    let lowest = 0u64.wrapping_sub(1 << g.va_bits);
    let (start, end) = (range.start.0.saturating_sub(lowest), range.end.0.saturating_sub(lowest));
    let mut waiting = vec![(root, g.top(), 0u64)];
    while let Some((table, level, base)) = waiting.pop() {
        let Ok(row) = pa.binary_search(&table.0) else { continue };
        if !seen.insert(table.0) {
            continue;
        }
        let span = g.entry_span(level);
        let Some(page) = words.get(row * g.entries()..(row + 1) * g.entries()) else { continue };
        for (index, &word) in page[..g.entries_at(level)].iter().enumerate() {
            let at = base + index as u64 * span;
            if at >= end || at + span <= start {
                continue;
            }
            let hidden = if level == Level::PTE { 3 } else { 1 };
            let desc = match g.kind(Desc(word), level) {
                Kind::Invalid => Desc(word | hidden),
                _ => Desc(word),
            };
            match g.kind(desc, level) {
                Kind::Table(next) => waiting.push((next, level.next(), at)),
                Kind::Page(to) | Kind::Block(to) => {
                    let to = to.0..to.0.saturating_add(span);
                    match found.last_mut() {
                        Some(last) if last.end.0 == to.start => last.end = Pa(to.end),
                        _ => found.push(Pa(to.start)..Pa(to.end)),
                    }
                }
                Kind::None | Kind::Invalid | Kind::Reserved => {}
            }
        }
    }
    found.sort_unstable_by_key(|range| (range.start, range.end));
    found.dedup_by(|next, before| {
        let joined = next.start <= before.end;
        if joined {
            before.end = before.end.max(next.end);
        }
        joined
    });
    found
}
