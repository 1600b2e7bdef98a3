//! Which chunks may have room: a tree of bits over the chunks, so that a search goes from one that may to the next
//! whatever lies between them.
//!
//! # Protocol
//! A word is 32 bits and a version. A bit that is set says that the chunk has none, in the levels above that all of 32
//! have none. Untouched memory says that everything may have room, or that nothing has, as one likes. Whoever makes
//! room clears the bit of each level, from below, after the chunk's word says so, and makes each word's next version. A
//! search looks at a word, then at what the bit stands for, and sets the bit only if the word is as it was: it never
//! hides room that was made in between.

use std::io;

use crate::native::arena::Arena;
use crate::native::sync::{AtomicU64, Ordering};

const FAN: u64 = 32;
const FULL: u64 = (1 << FAN) - 1;
const VERSION: u64 = 1 << FAN;

#[derive(Debug)]
pub struct Rooms {
    /// From the chunks up; the last is one word.
    levels: Vec<Arena>,
    len: u64,
    /// The bits that are stored inverted, as untouched memory says the other thing: all or none.
    inverted: u64,
}

impl Rooms {
    /// Of so many chunks, all of which may have room, or none has.
    ///
    /// # Errors
    /// Of `mmap`.
    pub fn new(len: u64, open: bool) -> io::Result<Self> {
        let mut levels = Vec::new();
        let mut words = len.div_ceil(FAN).max(1);
        loop {
            levels.push(Arena::new(words)?);
            if words == 1 {
                return Ok(Self { levels, len, inverted: if open { 0 } else { FULL } });
            }
            words = words.div_ceil(FAN);
        }
    }
    /// The bits that are clear.
    fn open(&self, word: &AtomicU64) -> u64 {
        !(word.load(Ordering::Acquire) ^ self.inverted) & FULL
    }

    /// Room was made in the chunk.
    pub fn may_have(&self, chunk: u64) {
        let mut index = chunk;
        for level in &self.levels {
            if let Some(word) = level.get(index / FAN) {
                let clear = |old: u64| {
                    let cleared = (old ^ self.inverted) & !(1 << (index % FAN));
                    Some((cleared ^ self.inverted).wrapping_add(VERSION))
                };
                let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, clear);
            }
            index /= FAN;
        }
    }
    /// A search found none in the chunk; `has_room` looks again.
    pub fn has_none(&self, chunk: u64, has_room: impl FnOnce() -> bool) {
        let Some(word) = self.levels.first().and_then(|level| level.get(chunk / FAN)) else { return };
        let seen = word.load(Ordering::Acquire);
        if has_room() || !self.set(word, seen, chunk % FAN) {
            return;
        }
        let mut index = chunk / FAN;
        for (below, level) in self.levels.iter().zip(self.levels.iter().skip(1)) {
            let (Some(below), Some(word)) = (below.get(index), level.get(index / FAN)) else { return };
            let seen = word.load(Ordering::Acquire);
            if self.open(below) != 0 || !self.set(word, seen, index % FAN) {
                return;
            }
            index /= FAN;
        }
    }
    fn set(&self, word: &AtomicU64, seen: u64, bit: u64) -> bool {
        let new = ((seen ^ self.inverted) | 1 << bit) ^ self.inverted;
        word.compare_exchange(seen, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The first chunk from `from` on that may have room.
    pub fn next(&self, from: u64) -> Option<u64> {
        let (mut level, mut index) = (0, from);
        loop {
            let word = self.levels.get(level).filter(|_| index < self.len)?.get(index / FAN);
            let open = word.map_or(0, |word| self.open(word)) & FULL << (index % FAN);
            if open == 0 {
                (level, index) = (level + 1, index / FAN + 1);
                continue;
            }
            index = index / FAN * FAN + u64::from(open.trailing_zeros());
            if level == 0 {
                return (index < self.len).then_some(index);
            }
            (level, index) = (level - 1, index * FAN);
        }
    }
    /// The last chunk up to `from` that may have room.
    pub fn last(&self, from: u64) -> Option<u64> {
        let (mut level, mut index) = (0, from.min(self.len.checked_sub(1)?));
        loop {
            let word = self.levels.get(level)?.get(index / FAN);
            let open = word.map_or(0, |word| self.open(word)) & FULL >> (FAN - 1 - index % FAN);
            if open == 0 {
                (level, index) = (level + 1, (index / FAN).checked_sub(1)?);
                continue;
            }
            index = index / FAN * FAN + u64::from(open.ilog2());
            if level == 0 {
                return Some(index);
            }
            (level, index) = (level - 1, index * FAN + FAN - 1);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_search_goes_from_one_open_chunk_to_the_next(
            len in 1u64..9000,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..60),
            open_at_first in any::<bool>(),
            full in any::<bool>(),
            from in any::<prop::sample::Index>(),
        ) {
            let rooms = Rooms::new(len, open_at_first).unwrap();
            let mut open = vec![open_at_first; len as usize];
            if full {
                (0..len).for_each(|c| rooms.has_none(c, || false));
                open.fill(false);
            }
            for (at, room) in changes {
                let chunk = at.index(len as usize);
                if room { rooms.may_have(chunk as u64) } else { rooms.has_none(chunk as u64, || false) }
                open[chunk] = room;
            }
            let from = from.index(len as usize);
            let next = (from..open.len()).find(|&c| open[c]).map(|c| c as u64);
            let last = (0..=from).rev().find(|&c| open[c]).map(|c| c as u64);
            prop_assert_eq!(rooms.next(from as u64), next);
            prop_assert_eq!(rooms.last(from as u64), last);
            let highest = open.iter().rposition(|&open| open).map(|c| c as u64);
            prop_assert_eq!((rooms.next(len), rooms.last(len + 70)), (None, highest));
        }
    }

    #[test]
    fn room_that_is_made_while_the_bit_is_set_is_seen() {
        let rooms = Rooms::new(200, true).unwrap();
        (0..200).for_each(|c| rooms.has_none(c, || c == 130));
        assert_eq!((rooms.next(0), rooms.last(199)), (Some(130), Some(130)));
    }
}
