//! What each frame is: kind, generation, contents, history. One word a frame is enough for a frame in its simplest
//! life; the other words are touched only when there is something to say.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use vmemmap_arch::FrameKind;

use crate::native::ahead::Ahead;
use crate::native::arena::Arena;
use crate::native::frames::CHUNK;
use crate::native::running::Change;

/// State word of a frame. The generation is odd while the frame is allocated and even while it is free; every
/// allocation and every free makes the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State(pub u64);

/// How a frame's words are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Contents {
    Zero = 0,
    Poison = 1,
    Free = 2,
    /// The frame's symbol word says.
    Other = 3,
    /// The frame's own words are real.
    Words = 4,
}

pub mod bit {
    /// Number of CPUs that access the frame right now (checked machine).
    pub const READERS: u64 = 0xff;
    /// One CPU changes the frame (checked machine).
    pub const WRITER: u64 = 1 << 8;
    /// Somebody changes how the contents are kept.
    pub const CONTENTS_BUSY: u64 = 1 << 9;
    pub const KIND_SHIFT: u32 = 10;
    pub const KIND: u64 = 7 << KIND_SHIFT;
    /// Allocated before the end of boot (`PG_reserved`).
    pub const RESERVED: u64 = 1 << 13;
    pub const SELF_HOSTED: u64 = 1 << 14;
    /// Not the first frame of its run.
    pub const TAIL: u64 = 1 << 15;
    pub const ORDER_SHIFT: u32 = 16;
    pub const ORDER: u64 = 0x1f << ORDER_SHIFT;
    pub const CONTENTS_SHIFT: u32 = 21;
    pub const CONTENTS: u64 = 7 << CONTENTS_SHIFT;
    /// The frame's words may differ from 0.
    pub const DIRTY: u64 = 1 << 24;
    /// A table descriptor has named this frame since it was allocated.
    pub const LINKED: u64 = 1 << 25;
    pub const GENERATION_SHIFT: u32 = 32;
}

impl State {
    /// `None`: free, or a tail of a HugeTLB page.
    #[must_use]
    #[inline]
    pub const fn kind(self) -> Option<FrameKind> {
        match (self.0 & bit::KIND) >> bit::KIND_SHIFT {
            1 => Some(FrameKind::Table),
            2 => Some(FrameKind::Vmemmap),
            3 => Some(FrameKind::Huge),
            4 => Some(FrameKind::Data),
            _ => None,
        }
    }
    /// Not memory of the allocator, though its chunk is.
    #[must_use]
    pub const fn is_absent(self) -> bool {
        self.0 & bit::KIND == bit::KIND
    }
    #[must_use]
    #[inline]
    pub const fn order(self) -> u8 {
        ((self.0 & bit::ORDER) >> bit::ORDER_SHIFT) as u8
    }
    #[must_use]
    #[inline]
    pub const fn generation(self) -> u32 {
        (self.0 >> bit::GENERATION_SHIFT) as u32
    }
    #[must_use]
    #[inline]
    pub const fn has(self, bits: u64) -> bool {
        self.0 & bits != 0
    }
    #[must_use]
    #[inline]
    pub const fn contents(self) -> Contents {
        match (self.0 & bit::CONTENTS) >> bit::CONTENTS_SHIFT {
            0 => Contents::Zero,
            1 => Contents::Poison,
            2 => Contents::Free,
            3 => Contents::Other,
            _ => Contents::Words,
        }
    }
    #[must_use]
    #[inline]
    pub const fn with_contents(self, contents: Contents) -> State {
        State(self.0 & !bit::CONTENTS | (contents as u64) << bit::CONTENTS_SHIFT)
    }
    /// The next generation, as an allocated frame.
    #[must_use]
    pub const fn allocated(self, generation: u32, kind: FrameKind, order: u8, tail: bool, flags: u64) -> State {
        let keep = self.0 & (bit::READERS | bit::WRITER | bit::CONTENTS_BUSY | bit::DIRTY);
        let tail = if tail { bit::TAIL } else { 0 };
        State(
            keep | flags
                | tail
                | (kind as u64) << bit::KIND_SHIFT
                | (order as u64) << bit::ORDER_SHIFT
                | (generation as u64) << bit::GENERATION_SHIFT,
        )
    }
    /// The next generation, as a run of this frame alone that reads as zero.
    #[must_use]
    #[inline]
    pub const fn single(self, kind: FrameKind, flags: u64) -> State {
        self.allocated(self.generation().wrapping_add(1) | 1, kind, 0, false, flags).with_contents(Contents::Zero)
    }
    /// The next generation, as a free frame.
    #[must_use]
    pub const fn freed(self, contents: Contents) -> State {
        let keep = self.0 & (bit::READERS | bit::WRITER | bit::CONTENTS_BUSY | bit::DIRTY);
        let generation = self.generation().wrapping_add(1) as u64;
        State(keep | generation << bit::GENERATION_SHIFT).with_contents(contents)
    }
}

/// Something that happened to a frame, as one word: CPU (8 bits), label (16), step (40). 0: nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PackedEvent(pub u64);

impl PackedEvent {
    #[must_use]
    pub const fn new(cpu: u8, label: u16, step: u64) -> Self {
        Self((cpu as u64) << 56 | (label as u64) << 40 | step & ((1 << 40) - 1))
    }
    #[must_use]
    pub const fn cpu(self) -> u8 {
        (self.0 >> 56) as u8
    }
    #[must_use]
    pub const fn label(self) -> u16 {
        (self.0 >> 40) as u16
    }
    #[must_use]
    pub const fn step(self) -> u64 {
        self.0 & ((1 << 40) - 1)
    }
}

/// Words of all frames by index.
#[derive(Debug)]
pub struct FrameStates {
    states: Arena,
    /// States of the frames that chunks begin with: all that a large hugepage has, and close together.
    heads: Arena,
    /// Symbols, where the contents are `Other`; the links of frames that are on a `FrameList` (`symbol`).
    symbols: Arena,
    /// Generation with which a frame was put on its list.
    list_toks: Arena,
    freed: Arena,
    held: Arena,
    /// Of the pages of `states`.
    ahead: Ahead,
}

/// Words of the smallest page that a host has.
const SMALLEST_PAGE: u64 = 512;

impl FrameStates {
    /// # Errors
    /// Of `mmap`.
    pub fn new(frames: u64) -> io::Result<Self> {
        let map = || Arena::new(frames);
        let heads = Arena::new(frames.div_ceil(CHUNK))?;
        Ok(Self {
            states: map()?,
            heads,
            symbols: map()?,
            list_toks: map()?,
            freed: map()?,
            held: map()?,
            ahead: Ahead::new(),
        })
    }
    /// Whether the frame has its state among the heads'.
    #[inline]
    #[must_use]
    pub const fn is_head(frame: u64) -> bool {
        frame.is_multiple_of(CHUNK)
    }
    #[inline]
    #[must_use]
    pub fn word(&self, frame: u64) -> Option<&AtomicU64> {
        if Self::is_head(frame) { self.heads.get(frame / CHUNK) } else { self.states.get(frame) }
    }
    /// Before the states around a frame are read and then changed: a host that has no page for them would give one of
    /// zeroes to read, and make another at the first store.
    #[inline]
    pub fn touch(&self, frame: u64) {
        if let Some((first, count)) = self.ahead.pages(frame / SMALLEST_PAGE) {
            self.states.populate(first * SMALLEST_PAGE, count * SMALLEST_PAGE);
        }
        if let Some(word) = self.states.get(frame) {
            // A store of what is there; not `fetch_or(0)`, which is compiled to a load.
            let _ = word.compare_exchange(0, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
    /// A free frame's, if there is no such frame.
    #[inline]
    #[must_use]
    pub fn get(&self, frame: u64) -> State {
        State(self.word(frame).map_or(0, |w| w.load(Ordering::Acquire)))
    }
    /// Replace the state by `change` of it, unless that is `None`. `Ok` is the old state, `Err` the one refused.
    ///
    /// # Errors
    /// The state for which `change` gave `None`; an all-zero one if there is no such frame.
    pub fn update(&self, frame: u64, change: impl Fn(State) -> Option<State>) -> Result<State, State> {
        self.change(frame, Change::Atomic, change)
    }
    /// The same, also in a section of the only CPU.
    ///
    /// # Errors
    /// As `update`.
    #[inline]
    pub fn change(&self, frame: u64, how: Change, change: impl Fn(State) -> Option<State>) -> Result<State, State> {
        let word = self.word(frame).ok_or(State(0))?;
        let mut old = word.load(Ordering::Acquire);
        loop {
            let new = change(State(old)).ok_or(State(old))?;
            match how.replace(word, old, new.0) {
                Ok(()) => return Ok(State(old)),
                Err(now) => old = now,
            }
        }
    }
    #[must_use]
    #[inline]
    pub fn symbol(&self, frame: u64) -> Option<&AtomicU64> {
        self.symbols.get(frame)
    }
    /// Of all frames, for who needs many.
    #[must_use]
    #[inline]
    pub fn symbols(&self) -> &[AtomicU64] {
        self.symbols.words()
    }
    #[must_use]
    pub fn list_tok(&self, frame: u64) -> Option<&AtomicU64> {
        self.list_toks.get(frame)
    }
    #[must_use]
    pub fn freed_event(&self, frame: u64) -> Option<&AtomicU64> {
        self.freed.get(frame)
    }
    #[must_use]
    pub fn held_event(&self, frame: u64) -> Option<&AtomicU64> {
        self.held.get(frame)
    }
}
