//! Many entries of one table looked at: those that are none, and those that differ from the one before.

use std::sync::atomic::AtomicU64;

use vmemmap_arch::Slot;

use crate::native::arena::all_zero;
use crate::native::counters::Count;
use crate::native::cpu::{Native, word};

impl Native<'_> {
    /// So many words of a table; `None` outside the machine.
    #[inline(always)]
    pub(super) fn words_from(&self, at: Slot<()>, count: usize) -> Option<&[AtomicU64]> {
        let first = self.machine.word_number(at.table, u64::from(at.index)) as usize;
        self.machine.words.words().get(first..first.checked_add(count)?)
    }
    /// How many entries are none before the first that is not; eight at a time, as long as all of them are none.
    #[inline]
    pub(super) fn none_from(&self, at: Slot<()>, entries: usize) -> usize {
        let Some(words) = self.words_from(at, entries) else { return 0 };
        let mut none = words.as_chunks::<8>().0.iter().take_while(|eight| all_zero(eight)).count() * 8;
        none += words[none..].iter().take_while(|w| word(w) == 0).count();
        self.tally.add(Count::Read, none as u64);
        none
    }
    /// The bits in `mask` of each entry that differs in them from the one before, and of the first. Four at a time, as
    /// long as none differs.
    #[inline]
    pub(super) fn changes_from(&self, at: Slot<()>, count: usize, mask: u64, mut each: impl FnMut(u16, u64)) {
        let Some(words) = self.words_from(at, count) else {
            self.wild(at.table);
            return;
        };
        self.tally.add(Count::Read, count as u64);
        let (mut before, mut any) = (0, false);
        let mut look = |index, found| {
            if found != before || !any {
                each(index, found);
                (before, any) = (found, true);
            }
            before
        };
        let (fours, rest) = words.as_chunks::<4>();
        let (mut index, mut like) = (at.index, None);
        for four in fours {
            // Each word is read once: what differs is what was seen to differ.
            let [a, b, c, d] =
                [word(&four[0]) & mask, word(&four[1]) & mask, word(&four[2]) & mask, word(&four[3]) & mask];
            if like.is_none_or(|like| (a ^ like) | (b ^ like) | (c ^ like) | (d ^ like) != 0) {
                look(index, a);
                look(index.wrapping_add(1), b);
                look(index.wrapping_add(2), c);
                like = Some(look(index.wrapping_add(3), d));
            }
            index = index.wrapping_add(4);
        }
        for at in rest {
            look(index, word(at) & mask);
            index = index.wrapping_add(1);
        }
    }
}
