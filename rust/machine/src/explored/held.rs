//! Words that CPUs may load early, and the cells of what they hold of them.

use vmemmap_arch::{Va, Var};

use super::cells::Cell;

/// A word that a CPU may load early.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Early {
    Var(Var),
    /// At a virtual address.
    Word(Va),
}

/// A word, the CPU that may load it early, and which of its loads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EarlyLoad {
    pub cpu: u8,
    pub of: Early,
    /// Only the first of its program: later ones may have an address that comes from a load.
    pub once: bool,
}

/// What a CPU may hold of such a word, in cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub cpu: u8,
    pub of: Early,
    pub once: bool,
    /// The frame that was read + 1, shifted left by one, and 1; 0: nothing is held. The location of all of it.
    pub cell: Cell,
}

impl Held {
    pub const fn value(self) -> Cell {
        self.cell + 1
    }
    /// Whether an entry on the way to the word has changed.
    pub const fn changed(self) -> Cell {
        self.cell + 2
    }
    /// Whether it is loaded early no more.
    pub const fn spent(self) -> Cell {
        self.cell + 3
    }
}
