//! The word of a chunk of frames: how many of them are unavailable, and what the chunk is.

use vmemmap_arch::Zone;

/// Frames in a chunk.
pub const CHUNK: u64 = 512;

pub(super) mod flag {
    pub const USED: u64 = 0x3ff;
    /// All 512 frames belong to a run of at least a chunk; the bitmap is clear.
    pub const WHOLE: u64 = 1 << 16;
    /// Stored inverted in boot chunks.
    pub const PRESENT: u64 = 1 << 17;
    pub const MOVABLE: u64 = 1 << 18;
    pub const ISOLATED: u64 = 1 << 19;
    /// Frames are taken from it one by one (a pageblock of its own, in the kernel), until all of it is free again.
    pub const SINGLES: u64 = 1 << 20;
    /// One for each run of several bitmap words that is being taken.
    pub const SPREAD: u64 = 1 << 24;
}

/// State of a chunk, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk(pub(super) u64);

impl Chunk {
    #[must_use]
    pub const fn used(self) -> u64 {
        self.0 & flag::USED
    }
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.0 & flag::WHOLE != 0
    }
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0 & flag::PRESENT != 0
    }
    #[must_use]
    pub const fn is_isolated(self) -> bool {
        self.0 & flag::ISOLATED != 0
    }
    pub(super) const fn is_spread(self) -> bool {
        self.0 / flag::SPREAD != 0
    }
    #[must_use]
    pub const fn zone(self) -> Zone {
        if self.0 & flag::MOVABLE != 0 { Zone::Movable } else { Zone::Normal }
    }
    pub(super) const fn has_singles(self) -> bool {
        self.0 & flag::SINGLES != 0
    }
    /// New allocations of `frames` frames may be made from it.
    pub(super) const fn has_room(self, frames: u64, movable: bool) -> bool {
        self.is_present()
            && !self.is_isolated()
            && (self.0 & flag::MOVABLE != 0) == movable
            && self.used() + frames <= CHUNK
    }
}
