//! What a dump shows of vmemmap, whatever kind of dump it is: descriptors by level and address, and tables. An image
//! shows every word; a text shows where tables are and the attributes of leaves, but no output address.

use core::ops::Range;

use vmemmap_arch::descriptor::prot::PTDUMP_MASK;
use vmemmap_arch::geometry::OutputFormat;
use vmemmap_arch::{Attr, Desc, Geometry, Kind, Layout, Level, Pa, Pfn, STRUCT_PAGE_SIZE, TableView, Va};

use crate::ptdump_parse::{Line, Lines, NO_LEVEL, TextError};
use crate::table_image::TableImage;

/// Descriptors of one level, side by side, of which the dump shows the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// First address that the first of them maps.
    pub va: Va,
    pub count: u64,
    /// The word; of a text the bits that ptdump shows, and 3 for a descriptor that points at a table.
    pub word: u64,
}

/// Tables of one level side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tables {
    pub level: Level,
    /// First address that the first of them maps.
    pub va: Va,
    pub count: u64,
    /// Where it is, if the dump shows it; then `count` is 1.
    pub pa: Option<Pa>,
}

/// A hugepage whose tails share a frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Optimised {
    /// Address of the struct page of its head.
    pub va: Va,
    /// Length in base pages.
    pub pages: u64,
    /// vmemmap pages that it keeps: 1, or 2 as 2021 leaves it.
    pub kept: u64,
}

/// Totals of vmemmap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Base pages of vmemmap that translate.
    pub mapped_pages: u64,
    /// Distinct base pages that they translate to; `None` if the dump shows no addresses.
    pub distinct_frames: Option<u64>,
    /// Block descriptors.
    pub blocks: u64,
    /// Tables whose first address lies in vmemmap.
    pub tables: u64,
}

/// See the module documentation.
#[derive(Clone, Debug)]
pub struct Shape {
    pub geometry: Geometry,
    pub vmemmap: Range<Va>,
    /// PFN whose struct page is at the start of vmemmap, where the dump or its reader knows `memstart_addr`.
    pub first_pfn: Option<Pfn>,
    /// Words are whole.
    pub exact: bool,
    /// Descriptors that are not zero and whose first address lies in vmemmap, by level (from -1) and address.
    levels: [Vec<Run>; 5],
    tables: Vec<Tables>,
}

impl Shape {
    fn empty(layout: &Layout, first_pfn: Option<Pfn>, exact: bool) -> Self {
        let vmemmap = layout.vmemmap_start..layout.vmemmap_end;
        Self { geometry: layout.geometry, vmemmap, first_pfn, exact, levels: Default::default(), tables: Vec::new() }
    }

    /// Of tables. Of a table that is reached at two places, as none of vmemmap's should be, the first counts.
    #[must_use]
    pub fn of_image(image: &TableImage) -> Self {
        let layout = image.layout();
        let mut shape = Self::empty(layout, Some(layout.first_linear_pfn()), true);
        let g = shape.geometry;
        let mut seen = vec![false; image.len()];
        shape.add_table(image, image.root(), g.top(), Va(0u64.wrapping_sub(1 << g.va_bits)), &mut seen);
        shape
    }

    fn add_table(&mut self, image: &TableImage, table: Pa, level: Level, base: Va, seen: &mut [bool]) {
        let g = self.geometry;
        let Some(row) = image.row(table).filter(|&row| !core::mem::replace(&mut seen[row], true)) else { return };
        let words = image.row_words(row);
        if self.vmemmap.contains(&base) {
            self.tables.push(Tables { level, va: base, count: 1, pa: Some(table) });
        }
        for (index, &word) in words[..g.entries_at(level)].iter().enumerate() {
            let va = base.plus((index as u64) << g.level_shift(level));
            let last = va.plus(g.entry_span(level) - 1);
            if word == 0 || last < self.vmemmap.start || va >= self.vmemmap.end {
                continue;
            }
            if self.vmemmap.contains(&va) {
                self.level_mut(level).push(Run { va, count: 1, word });
            }
            if let Kind::Table(next) = g.kind(Desc(word), level) {
                self.add_table(image, next, level.next(), va, seen);
            }
        }
    }

    /// Of a text. `memstart` is what the text does not say.
    ///
    /// # Errors
    /// The first line that is none of a dump's.
    pub fn of_text(text: &[u8], layout: &Layout, memstart_known: bool) -> Result<Self, TextError> {
        let mut shape = Self::empty(layout, memstart_known.then(|| layout.first_linear_pfn()), false);
        let g = shape.geometry;
        for line in Lines::new(text) {
            let Line::Range(range) = line? else { continue };
            if range.depth == NO_LEVEL {
                continue;
            }
            let (start, end) =
                (range.start.max(shape.vmemmap.start), range.end.0.wrapping_sub(1).min(shape.vmemmap.end.0 - 1));
            if start.0 > end {
                continue;
            }
            let level = level_of_depth(&g, range.depth);
            for above in (g.top().0 + 1..=level.0).map(Level) {
                shape.add_tables(above, start, Va(end));
            }
            let span = g.entry_span(level);
            if range.prot != 0 && range.start.is_aligned(span) && range.end.is_aligned(span) {
                let count = (end - start.0 + 1) / span;
                shape.level_mut(level).push(Run { va: start, count, word: range.prot });
            }
        }
        Ok(shape)
    }

    /// Tables of `level` that map [first, last], and the descriptors that point at them.
    fn add_tables(&mut self, level: Level, first: Va, last: Va) {
        let g = self.geometry;
        let above = Level(level.0 - 1);
        let span = g.entry_span(above);
        let mut va = first.align_down(span);
        if let Some(before) = self.tables.iter().rev().find(|t| t.level == level) {
            va = va.max(before.va.plus(before.count * span));
        }
        if va < self.vmemmap.start {
            // A table that maps other regions too is not counted, nor is the descriptor that points at it.
            let Some(next) = va.0.checked_add(span) else { return };
            va = Va(next);
        }
        if va > last {
            return;
        }
        let count = (last.0 - va.0) / span + 1;
        self.tables.push(Tables { level, va, count, pa: None });
        self.level_mut(above).push(Run { va, count, word: 3 });
    }

    fn level_mut(&mut self, level: Level) -> &mut Vec<Run> {
        &mut self.levels[(level.0 + 1) as usize]
    }
    /// Descriptors of that level, by address.
    #[must_use]
    pub fn level(&self, level: Level) -> &[Run] {
        &self.levels[(level.0 + 1) as usize]
    }
    #[must_use]
    pub fn tables(&self) -> &[Tables] {
        &self.tables
    }
    /// Whether a word found at that level is a leaf.
    #[must_use]
    pub fn is_leaf(&self, level: Level, word: u64) -> bool {
        matches!(self.geometry.kind(Desc(word), level), Kind::Page(_) | Kind::Block(_))
    }
    /// Leaves: level and run, level by level.
    pub fn leaves(&self) -> impl Iterator<Item = (Level, &Run)> {
        (self.geometry.top().0..=3).map(Level).flat_map(move |level| {
            self.level(level).iter().filter(move |run| self.is_leaf(level, run.word)).map(move |run| (level, run))
        })
    }

    /// What a dump of this kind and `other` both show of a word.
    #[must_use]
    pub fn comparable(&self, other: &Shape, level: Level, word: u64) -> u64 {
        if self.exact && other.exact {
            word
        } else if level != Level::PTE && word & 3 == 3 {
            3
        } else if self.geometry.output_format() == OutputFormat::Lpa2 {
            // There the shareability bits are address bits, and a text shows them only if both are set.
            word & PTDUMP_MASK & !Attr::SHARED.bits()
        } else {
            word & PTDUMP_MASK
        }
    }

    /// The block that maps `va`, and the distance from its start.
    #[must_use]
    pub fn block_at(&self, va: Va) -> Option<(u64, u64)> {
        let span = self.geometry.entry_span(Level::PMD);
        let runs = self.level(Level::PMD);
        let run = runs.get(runs.partition_point(|run| run.va <= va).checked_sub(1)?)?;
        let inside = va.since(run.va) / span < run.count && self.is_leaf(Level::PMD, run.word);
        inside.then_some((run.word, va.since(run.va) & (span - 1)))
    }

    /// PFN of the struct page at `va`; counted from the first PFN of the linear map where `memstart_addr` is not known.
    #[must_use]
    pub fn pfn(&self, va: Va) -> u64 {
        (va.since(self.vmemmap.start) / STRUCT_PAGE_SIZE).wrapping_add(self.first_pfn.map_or(0, |pfn| pfn.0))
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        let g = self.geometry;
        let mut counts = Counts::default();
        for (level, run) in self.leaves() {
            counts.mapped_pages += run.count * (g.entry_span(level) >> g.page_shift());
            counts.blocks += if level == Level::PTE { 0 } else { run.count };
        }
        counts.tables = self.tables.iter().map(|t| t.count).sum();
        counts.distinct_frames = self.exact.then(|| self.frames().iter().map(|r| r.end - r.start).sum());
        counts
    }

    /// Base pages that vmemmap maps, as sorted ranges of PFNs that neither overlap nor touch. Empty for a text.
    #[must_use]
    pub fn frames(&self) -> Vec<Range<u64>> {
        let g = self.geometry;
        if !self.exact {
            return Vec::new();
        }
        let frames = self.leaves().map(|(level, run)| {
            let (Kind::Page(pa) | Kind::Block(pa)) = g.kind(Desc(run.word), level) else { return 0..0 };
            let first = g.pfn(pa).0;
            first..first + (g.entry_span(level) >> g.page_shift())
        });
        union(frames.collect())
    }

    /// Sections of which some vmemmap is mapped, by number from the start of vmemmap, as ranges.
    #[must_use]
    pub fn sections(&self) -> Vec<Range<u64>> {
        let unit = self.geometry.section_vmemmap();
        let sections = self.leaves().map(|(level, run)| {
            let first = run.va.since(self.vmemmap.start);
            first / unit..(first + run.count * self.geometry.entry_span(level)).div_ceil(unit)
        });
        union(sections.collect())
    }

    /// Hugepages whose tails share a frame, by address, found by their pattern: a page, and the rest of an aligned
    /// group of pages read-only over the same frame. Every HugeTLB size has at least four vmemmap pages or less than
    /// two.
    #[must_use]
    pub fn optimised(&self) -> Vec<Optimised> {
        let mut found = Vec::new();
        if self.exact {
            let ptes = self.level(Level::PTE);
            let mut at = 0;
            while at < ptes.len() {
                let head = &ptes[at];
                let frame = self.geometry.output(Desc(head.word));
                let page = self.geometry.page_size();
                let tail = |(i, run): (usize, &Run)| {
                    self.is_leaf(Level::PTE, run.word)
                        && run.va == head.va.plus((i as u64 + 1) * page)
                        && self.geometry.output(Desc(run.word)) == frame
                };
                let tails = ptes[at + 1..].iter().enumerate().take_while(|&t| tail(t)).count();
                if tails != 0 && self.is_leaf(Level::PTE, head.word) {
                    found.extend(self.hugepage(head.va, tails as u64));
                }
                at += tails + 1;
            }
        } else {
            for run in self.level(Level::PTE) {
                if run.word & Attr::RDONLY.bits() != 0 && run.va > self.vmemmap.start {
                    found.extend(self.hugepage(Va(run.va.0 - self.geometry.page_size()), run.count));
                }
            }
        }
        found
    }

    /// Whether tails of optimised hugepages share a frame of their own, as in 7.x: the first of them is read-only and
    /// maps another frame than the head. (2021 keeps the second page writable.)
    #[must_use]
    pub fn has_zone_tails(&self) -> bool {
        let g = self.geometry;
        let ptes = self.level(Level::PTE);
        let word = |va: Va| Some(ptes.get(ptes.partition_point(|run| run.va < va)).filter(|run| run.va == va)?.word);
        let read_only =
            |p: &Optimised| word(p.va.plus(g.page_size())).is_some_and(|word| word & Attr::RDONLY.bits() != 0);
        self.exact && self.optimised().iter().any(|p| p.kept == 2 && read_only(p))
    }

    /// The hugepage whose last kept vmemmap page is at `va` and is followed by so many tails that share it.
    #[must_use]
    pub fn hugepage(&self, va: Va, tails: u64) -> Option<Optimised> {
        let g = self.geometry;
        let (sizes, count) = g.hugetlb_sizes();
        let per = g.struct_pages_per_page();
        (1..=2).find_map(|kept| {
            let (start, length) = (Va(va.0 - (kept - 1) * g.page_size()), tails + kept);
            let pages = length.checked_mul(per)?;
            let aligned =
                start >= self.vmemmap.start && start.since(self.vmemmap.start).is_multiple_of(length * g.page_size());
            (aligned && sizes[..count].contains(&pages)).then_some(Optimised { va: start, pages, kept })
        })
    }
}

/// The level that ptdump's depth (0 = PGD to 4 = PTE) names on that machine: folded levels are called PGD.
#[must_use]
pub fn level_of_depth(g: &Geometry, depth: u8) -> Level {
    if depth == 0 { g.top() } else { Level((depth as i8 - 1).max(g.top().0)) }
}

/// Sorted ranges that neither overlap nor touch, with the same numbers in them.
pub(crate) fn union(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|r| r.start < r.end);
    ranges.sort_unstable_by_key(|r| r.start);
    ranges.dedup_by(|next, last| {
        let joined = next.start <= last.end;
        if joined {
            last.end = last.end.max(next.end);
        }
        joined
    });
    ranges
}
