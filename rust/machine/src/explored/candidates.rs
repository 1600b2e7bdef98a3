//! What an access may meet: translations, how walks end, and what goes beyond one of them.

use vmemmap_arch::{Desc, Level, Rmw, Template};

use super::memory::FrameId;

/// One translation that may be used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// The leaf.
    pub desc: Desc,
    pub level: Level,
    pub frame: FrameId,
    pub live: bool,
    /// It may be from before the entry was none for the last time, or one that gives the same result is.
    pub early: bool,
}

/// A leaf that a walk or a stale value ends in, and the address that it gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub desc: Desc,
    pub level: Level,
    pub pa: u64,
    pub live: bool,
    pub early: bool,
}

/// How a walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Leaf(Desc, Level, u64),
    None,
    FreedTable(u64),
}

/// What an access does to the word.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    Load,
    /// All words, out to another frame.
    Copy,
    Rmw(Rmw),
    Fill(Template),
}

impl Access {
    /// Whether a word that holds `word` is stored to.
    pub const fn stores(self, word: u64) -> bool {
        match self {
            Access::Rmw(op) => op.needs_write(word),
            Access::Fill(_) => true,
            Access::Load | Access::Copy => false,
        }
    }
}

/// Ways for an access to go beyond one for each candidate.
#[derive(Clone, Debug, Default)]
pub(super) struct Mishaps {
    /// Words that a load may return and that no candidate holds.
    pub mixed: Vec<u64>,
    pub abort: bool,
}

impl Mishaps {
    pub fn count(&self) -> u16 {
        self.mixed.len() as u16 + u16::from(self.abort)
    }
}
