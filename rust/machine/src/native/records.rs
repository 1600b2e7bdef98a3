//! What descriptors named when they were written, as checked CPUs record it: as many words as memory has, of which
//! those of tables are used.
//!
//! They are mapped in pieces, where one is first stored, and not as long as memory is: the host has to find room for
//! memory once, and beside it for the pieces that have tables. A piece stays until the machine is gone.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use crate::native::arena::Arena;

/// log2 of the words of a piece: 16 GiB, of whole tables. There are few in the largest machine, and all pieces of one
/// are as little against the host's address space as what it has mapped besides.
const PIECE_SHIFT: u32 = 31;
const PIECE: u64 = 1 << PIECE_SHIFT;

/// A word for each descriptor, by the descriptor's number: the frame that it named when it was written (low half) and
/// that frame's generation (high half); 0 where there is none.
#[derive(Debug)]
pub struct Records {
    pieces: Box<[OnceLock<Arena>]>,
    /// As memory has.
    words: u64,
}

impl Records {
    /// For a memory of so many words.
    pub fn new(words: u64) -> Self {
        Self { pieces: (0..words.div_ceil(PIECE)).map(|_| OnceLock::new()).collect(), words }
    }
    /// Of a descriptor, if there may be one.
    #[inline]
    pub fn get(&self, number: u64) -> Option<&AtomicU64> {
        self.pieces.get((number >> PIECE_SHIFT) as usize)?.get()?.get(number & (PIECE - 1))
    }
    /// Of a descriptor that is about to be stored; `None` outside memory, or if the host has no address space left:
    /// then the descriptor has no record.
    #[inline(always)]
    pub fn make(&self, number: u64) -> Option<&AtomicU64> {
        self.get(number).or_else(|| self.map(number))
    }
    #[cold]
    fn map(&self, number: u64) -> Option<&AtomicU64> {
        let at = number >> PIECE_SHIFT;
        let piece = self.pieces.get(at as usize)?;
        if piece.get().is_none() {
            let mapped = Arena::new(PIECE.min(self.words - (at << PIECE_SHIFT))).ok()?;
            // Another CPU may have been first.
            let _ = piece.set(mapped);
        }
        piece.get()?.get(number & (PIECE - 1))
    }
    /// Those of a table, by the number of its first descriptor; none if its piece has none.
    pub fn of_table(&self, first: u64, entries: usize) -> &[AtomicU64] {
        let piece = self.pieces.get((first >> PIECE_SHIFT) as usize).and_then(OnceLock::get);
        let first = (first & (PIECE - 1)) as usize;
        piece.and_then(|piece| piece.words().get(first..first + entries)).unwrap_or_default()
    }
    /// Those of a table are gone, and what they took is given back.
    pub fn discard(&self, first: u64, entries: usize) {
        if let Some(piece) = self.pieces.get((first >> PIECE_SHIFT) as usize).and_then(OnceLock::get) {
            piece.discard(first & (PIECE - 1), entries as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn a_piece_is_mapped_where_a_record_is_made() {
        let records = Records::new(PIECE * 3 + 8);
        assert_eq!(records.pieces.len(), 4);
        for number in [PIECE - 1, PIECE, PIECE * 3 + 7] {
            assert!(records.get(number).is_none());
            records.make(number).unwrap().store(number, Ordering::Relaxed);
        }
        for number in [PIECE - 1, PIECE, PIECE * 3 + 7] {
            assert_eq!(records.get(number).unwrap().load(Ordering::Relaxed), number);
        }
        assert!(records.pieces[2].get().is_none());
        for outside in [PIECE * 3 + 8, PIECE * 4, u64::MAX] {
            assert!(records.get(outside).is_none() && records.make(outside).is_none(), "{outside:#x}");
        }
    }

    #[test]
    fn the_records_of_a_table_are_of_its_piece() {
        let records = Records::new(PIECE * 2);
        let (first, entries) = (PIECE + 512, 512);
        assert!(records.of_table(first, entries).is_empty());
        records.make(first + 511).unwrap().store(7, Ordering::Relaxed);
        let of = |first| records.of_table(first, entries).iter().map(|word| word.load(Ordering::Relaxed)).sum::<u64>();
        assert_eq!((of(first), of(PIECE), of(0)), (7, 0, 0));
        records.discard(first, 512);
        records.discard(0, 512);
        assert_eq!(of(first), 0);
    }
}
