//! A bit for each frame, set while the frame is unavailable: allocated, kept at hand by a CPU, or absent.
//!
//! What the bits of a chunk are worth, and when they may be searched, is the protocol of `frames`.

use std::io;

use crate::native::arena::Arena;
use crate::native::chunk::CHUNK;
use crate::native::sync::{AtomicU64, Ordering, relax};

/// Words of a chunk.
pub const WORDS: u64 = CHUNK / 64;

#[derive(Debug)]
pub struct Bitmap(Arena);

impl Bitmap {
    /// Of so many chunks, all bits clear.
    ///
    /// # Errors
    /// Of `mmap`.
    pub fn new(chunks: u64) -> io::Result<Self> {
        Arena::new(chunks * WORDS).map(Self)
    }
    fn at(&self, word: u64) -> Option<&AtomicU64> {
        self.0.get(word)
    }
    /// A word of it; none is set where there is none.
    pub fn word(&self, word: u64) -> u64 {
        self.at(word).map_or(0, |w| w.load(Ordering::Acquire))
    }
    /// Whether a bit is set; it is where there is none.
    pub fn has(&self, frame: u64) -> bool {
        self.at(frame / 64).is_none_or(|w| w.load(Ordering::Acquire) >> (frame % 64) & 1 != 0)
    }
    /// How many bits of a chunk are set, one word after the other.
    pub fn count(&self, chunk: u64) -> u64 {
        (chunk * WORDS..(chunk + 1) * WORDS).map(|word| u64::from(self.word(word).count_ones())).sum()
    }

    /// Set bits, whether or not they are set already; `false` if there is no such word.
    pub fn set(&self, word: u64, mask: u64) -> bool {
        self.at(word).map(|w| w.fetch_or(mask, Ordering::AcqRel)).is_some()
    }
    /// Set every bit of a chunk.
    pub fn fill(&self, chunk: u64) {
        for word in chunk * WORDS..(chunk + 1) * WORDS {
            if let Some(w) = self.at(word) {
                w.store(u64::MAX, Ordering::Release);
            }
        }
    }
    pub fn clear_mask(&self, word: u64, mask: u64) {
        if let Some(w) = self.at(word) {
            w.fetch_and(!mask, Ordering::AcqRel);
        }
    }
    /// Clear the bits of a run that begins at a multiple of its length, or of 64.
    pub fn clear(&self, first: u64, n: u64) {
        let mask = if n < 64 { ((1 << n) - 1) << (first % 64) } else { u64::MAX };
        (0..n.div_ceil(64)).for_each(|i| self.clear_mask(first / 64 + i, mask));
    }

    /// Set exactly these bits; none if any is set already.
    pub fn take(&self, first: u64, n: u64) -> bool {
        if n < 64 {
            return self.take_in_word(first / 64, ((1 << n) - 1) << (first % 64));
        }
        for i in 0..n / 64 {
            let taken = self
                .at(first / 64 + i)
                .is_some_and(|w| w.compare_exchange(0, u64::MAX, Ordering::AcqRel, Ordering::Relaxed).is_ok());
            if !taken {
                for j in 0..i {
                    if let Some(w) = self.at(first / 64 + j) {
                        w.store(0, Ordering::Release);
                    }
                }
                return false;
            }
        }
        true
    }
    pub fn take_in_word(&self, word: u64, mask: u64) -> bool {
        let Some(w) = self.at(word) else { return false };
        let mut old = w.load(Ordering::Relaxed);
        while old & mask == 0 {
            match w.compare_exchange(old, old | mask, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => old = now,
            }
        }
        false
    }
    /// Find and take a run in a chunk where that many frames are reserved.
    pub fn find(&self, chunk: u64, order: u8, top_down: bool) -> Option<u64> {
        loop {
            for i in 0..WORDS {
                let word = chunk * WORDS + if top_down { WORDS - 1 - i } else { i };
                let found = if order < 6 {
                    self.find_in_word(word, order, top_down)
                } else {
                    let first = word * 64;
                    (first.is_multiple_of(1 << order) && self.take(first, 1 << order)).then_some(first)
                };
                if found.is_some() {
                    return found;
                }
            }
            if order != 0 {
                return None;
            }
            // A free bit is promised; another thread is between its two steps.
            relax();
        }
    }
    /// A run shorter than a word. Bits of `taken` are folded until the one that a run begins with says whether any of
    /// its frames is taken.
    fn find_in_word(&self, word: u64, order: u8, top_down: bool) -> Option<u64> {
        /// Where runs of each order may begin.
        const BEGINS: [u64; 6] = [
            u64::MAX,
            0x5555_5555_5555_5555,
            0x1111_1111_1111_1111,
            0x0101_0101_0101_0101,
            0x0001_0001_0001_0001,
            0x0000_0001_0000_0001,
        ];
        let at = self.at(word)?;
        let run = (1u64 << (1u32 << order)) - 1;
        let mut old = at.load(Ordering::Relaxed);
        loop {
            let taken = (0..order).fold(old, |bits, fold| bits | bits >> (1u32 << fold));
            let free = !taken & BEGINS[usize::from(order)];
            if free == 0 {
                return None;
            }
            let first = if top_down { free.ilog2() } else { free.trailing_zeros() };
            match at.compare_exchange(old, old | run << first, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(word * 64 + u64::from(first)),
                Err(now) => old = now,
            }
        }
    }
    /// Of some bits of a word, take those that are clear; which those were.
    pub fn take_clear(&self, word: u64, wanted: u64) -> u64 {
        let Some(w) = self.at(word) else { return 0 };
        let mut old = w.load(Ordering::Relaxed);
        while let now @ 1.. = !old & wanted {
            match w.compare_exchange(old, old | now, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return now,
                Err(other) => old = other,
            }
        }
        0
    }
}
