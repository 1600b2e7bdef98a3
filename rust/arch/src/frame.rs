//! Page frames and what lies in them, as kernel code names them: an address, and the token of the machine that gave it.

use core::fmt;

use crate::address::Pa;
use crate::descriptor::Desc;
use crate::geometry::Level;

/// Bound for `Cpu::Tok`.
pub trait Token: Copy + Default + Eq + fmt::Debug {}
impl<T: Copy + Default + Eq + fmt::Debug> Token for T {}

/// What a frame is used for; a checked machine compares it at every access.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// A translation table of init_mm.
    Table = 1,
    /// Backing of vmemmap: struct pages.
    Vmemmap = 2,
    /// A HugeTLB page (contents never looked at).
    Huge = 3,
    /// Anything else: vmalloc data, ordinary pages.
    Data = 4,
}

/// From which part of RAM a frame may come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Zone {
    /// Boot memory and blocks onlined to the kernel: unmovable allocations.
    Normal,
    /// Also blocks onlined movable: HugeTLB pages, migratable data. Movable memory is tried first.
    Movable,
}

/// A request to the page frame allocator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Alloc {
    /// log2 of the number of frames; the run is naturally aligned. Orders above the buddy allocator's (gigantic pages)
    /// are allowed.
    pub order: u8,
    pub kind: FrameKind,
    pub zone: Zone,
    /// Exactly this run, or nothing (replays, gigantic pages by `alloc_contig_range`).
    pub at: Option<Pa>,
    /// May sleep (GFP_KERNEL); forbidden under a spinlock (I25).
    pub may_sleep: bool,
    /// Take the highest free run rather than the lowest: memblock, at boot. Such frames are `PG_reserved`
    /// (`is_reserved`).
    pub top_down: bool,
}

/// What page_ext and the buddy lists know of a range: the allocator's part of hotplug.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RangeOp {
    /// Hand offline memory to the allocator (`online_pages`).
    OnlineNormal,
    OnlineMovable,
    /// Forbid new allocations in the range (`start_isolate_page_range`).
    Isolate,
    /// Allow them again.
    UndoIsolate,
    /// Take the wholly free, isolated range away from the allocator (`__offline_isolated_pages`).
    Offline,
}

/// First obstacle in a range, as `scan_movable_pages` and the isolation see it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct InUse {
    pub pa: Pa,
    pub kind: FrameKind,
}

/// An allocated frame (or run): its address, and the machine's token for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Frame<T> {
    pub pa: Pa,
    pub tok: T,
}

/// Where a descriptor lives. The token carries the generation of the table frame as of the read that found it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Slot<T> {
    pub table: Pa,
    pub index: u16,
    pub level: Level,
    pub tok: T,
}

/// A descriptor read once. The token carries the generation of the frame that it names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Entry<T> {
    pub desc: Desc,
    pub tok: T,
}

/// A list of frames that kernel code holds on its own stack; links live beside the frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameList<T> {
    pub first: Option<Frame<T>>,
    pub last: Option<Frame<T>>,
    pub len: u32,
}

impl<T> FrameList<T> {
    #[must_use]
    pub const fn new() -> Self {
        Self { first: None, last: None, len: 0 }
    }
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}
impl<T> Default for FrameList<T> {
    fn default() -> Self {
        Self::new()
    }
}
