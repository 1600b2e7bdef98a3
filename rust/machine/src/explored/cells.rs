//! The whole state of an explored machine as numbered 64-bit cells, with undo and a running hash.
//!
//! A cell that holds 0 adds nothing to the hash, so a large machine that is mostly empty costs nothing. Cells are never
//! given back: a number means the same thing in every execution, which is what lets it serve as a location too.

/// Number of a cell.
pub type Cell = u32;

/// Unused locations on both sides of one that nearly every barrier touches: a search takes even rows of shared
/// locations to go on, and this one must not be taken for part of a row of the locks and variables beside it.
pub const ASIDE: Cell = 32;

/// So many cells in one row lie in pages of their own.
const MANY: usize = 1 << 14;

#[derive(Clone, Debug, Default)]
pub struct Cells {
    value: Vec<u64>,
    /// Value before each change since `mark`.
    log: Vec<(Cell, u64)>,
    hash: u128,
    marked: u128,
}

/// A place in the log, and the hash there.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    log: usize,
    hash: u128,
}

impl Cells {
    /// `n` new cells in a row, all 0; the number of the first.
    pub fn reserve(&mut self, n: usize) -> Cell {
        let first = self.value.len();
        if n < MANY {
            self.value.resize(first + n, 0);
        } else {
            // Zeros from the host, which gives memory to those only that are written to.
            let before = std::mem::replace(&mut self.value, vec![0; first + n]);
            self.value[..first].copy_from_slice(&before);
        }
        first as Cell
    }
    /// How many there are.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.value.len()
    }
    #[must_use]
    #[inline]
    pub fn get(&self, cell: Cell) -> u64 {
        self.value[cell as usize]
    }
    /// How many of the `n` cells from `first` on hold 0, up to the first that does not.
    #[must_use]
    pub fn zeros(&self, first: Cell, n: usize) -> usize {
        let row = &self.value[first as usize..first as usize + n];
        let (chunks, _) = row.as_chunks::<16>();
        let clear = 16 * chunks.iter().take_while(|c| c.iter().fold(0, |all, v| all | v) == 0).count();
        clear + row[clear..].iter().take_while(|v| **v == 0).count()
    }
    #[inline]
    pub fn set(&mut self, cell: Cell, new: u64) {
        let slot = &mut self.value[cell as usize];
        let old = *slot;
        if old != new {
            *slot = new;
            self.log.push((cell, old));
            self.hash ^= mix(cell, old) ^ mix(cell, new);
        }
    }
    /// What `undo` returns to is the state now.
    pub fn mark(&mut self) {
        self.log.clear();
        self.marked = self.hash;
    }
    /// Back to the state of `mark`; costs as much as was written since.
    pub fn undo(&mut self) {
        while let Some((cell, old)) = self.log.pop() {
            self.value[cell as usize] = old;
        }
        self.hash = self.marked;
    }
    #[must_use]
    pub fn position(&self) -> Position {
        Position { log: self.log.len(), hash: self.hash }
    }
    /// Back to a position on the way from `mark` to here.
    pub fn undo_to(&mut self, position: &Position) {
        for (cell, old) in self.log.drain(position.log.min(self.log.len())..).rev() {
            self.value[cell as usize] = old;
        }
        self.hash = position.hash;
    }
    /// Hash of all cells.
    #[must_use]
    #[inline]
    pub fn hash(&self) -> u128 {
        self.hash
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    wide as u64 ^ (wide >> 64) as u64
}

#[inline]
fn mix(cell: Cell, value: u64) -> u128 {
    if value == 0 {
        return 0;
    }
    let key = (u64::from(cell) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let low = fold(value ^ key, key.rotate_left(31) ^ 0xd6e8_feb8_6659_fd93);
    let high = fold(value.wrapping_add(0xa076_1d64_78bd_642f) ^ key.rotate_left(17), key ^ 0xe703_7ed1_a0b4_28db);
    u128::from(fold(high, low | 1)) << 64 | u128::from(low ^ high.rotate_left(23))
}
