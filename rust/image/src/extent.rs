//! How much a walk of an image finds. Tables may be used at many places, as KASAN uses its early shadow; so a few
//! tables can describe more than any memory holds, and the size of the image says nothing about the size of its dump.

use std::collections::HashMap;

use vmemmap_arch::{Desc, Kind, Level, TableView};

use crate::ptdump_text::PROT_MASK;
use crate::table_image::{ImageError, TableImage};

/// Most descriptors that a walk may read. KASAN's shadow with 4K pages and 48 bits has 2^33 of them.
const MOST_READ: u64 = 1 << 34;

/// What ptdump tells one descriptor from the next by: the level that it is noted at, and its attributes.
type Note = (i8, u64);

/// What a walk of a part finds.
#[derive(Clone, Copy)]
struct Extent {
    first: Note,
    last: Note,
    /// Ranges of the dump.
    ranges: u64,
    /// Descriptors read, of tables too.
    read: u64,
}

impl Extent {
    const fn of(note: Note) -> Self {
        Self { first: note, last: note, ranges: 1, read: 1 }
    }
    /// Of a table of PTEs, which are most of an image: what `then` makes of them one by one.
    fn of_ptes(words: &[u64]) -> Option<Self> {
        let note = |word: &u64| (Level::PTE.0, word & PROT_MASK);
        let breaks = words.iter().zip(words.iter().skip(1)).filter(|(a, b)| (**a ^ **b) & PROT_MASK != 0).count();
        let (first, last) = (note(words.first()?), note(words.last()?));
        Some(Self { first, last, ranges: 1 + breaks as u64, read: words.len() as u64 })
    }
    fn then(self, next: Self) -> Self {
        let ranges = self.ranges + next.ranges - u64::from(self.last == next.first);
        Self { first: self.first, last: next.last, ranges, read: self.read + next.read }
    }
}

impl TableImage {
    /// That a dump has no more ranges than the image has descriptors, and a walk ends in reasonable time.
    pub(crate) fn verify_extent(&self) -> Result<(), ImageError> {
        let g = self.geometry();
        let Some(root) = self.row(self.root()) else { return Ok(()) };
        // Tables by level, each once for each level at which it is reached.
        let mut reached = vec![vec![root]];
        for level in (g.top().0..3).map(Level) {
            let mut below: Vec<usize> = Vec::new();
            for &row in reached.last().into_iter().flatten() {
                let words = &self.row_words(row)[..g.entries_at(level)];
                below.extend(words.iter().filter_map(|&word| self.below(Desc(word), level)));
            }
            below.sort_unstable();
            below.dedup();
            reached.push(below);
        }
        let mut known: HashMap<usize, Extent> = HashMap::new();
        for (rows, level) in reached.iter().zip((g.top().0..=3).map(Level)).rev() {
            let found = rows.iter().filter_map(|&row| Some((row, self.extent(row, level, &known)?)));
            known = found.collect();
        }
        let descriptors = self.len() * g.entries();
        match known.get(&root) {
            Some(all) if all.read > MOST_READ => Err(ImageError::Read { read: all.read, most: MOST_READ }),
            Some(all) if all.ranges > descriptors as u64 => Err(ImageError::Ranges { ranges: all.ranges, descriptors }),
            _ => Ok(()),
        }
    }

    fn below(&self, desc: Desc, level: Level) -> Option<usize> {
        match self.geometry().kind(desc, level) {
            Kind::Table(next) => self.row(next),
            _ => None,
        }
    }

    fn extent(&self, row: usize, level: Level, below: &HashMap<usize, Extent>) -> Option<Extent> {
        let words = &self.row_words(row)[..self.geometry().entries_at(level)];
        if level == Level::PTE {
            return Extent::of_ptes(words);
        }
        let extents = words.iter().map(|&word| match self.below(Desc(word), level).and_then(|row| below.get(&row)) {
            Some(extent) => Extent { read: extent.read + 1, ..*extent },
            None => Extent::of((level.0, word & PROT_MASK)),
        });
        extents.reduce(Extent::then)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_table_of_ptes_is_its_entries_one_after_the_other(
            words in prop::collection::vec(prop_oneof![Just(0), 0x703..0x706u64, any::<u64>()], 0..20)
        ) {
            let parts = |e: Extent| (e.first, e.last, e.ranges, e.read);
            let each = words.iter().map(|word| Extent::of((Level::PTE.0, word & PROT_MASK)));
            prop_assert_eq!(Extent::of_ptes(&words).map(parts), each.reduce(Extent::then).map(parts));
        }
    }
}
