//! What the page frame allocator keeps beside the cells.

use super::cells::Cell;

/// Frames for one actor: `[next, end)` small ones from the start, long runs from the middle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pool {
    pub first: u64,
    pub frames: u64,
    /// Frames taken of the small half; the next cell counts those of the half with runs.
    pub taken: Cell,
    /// Allocations made, failed ones included.
    pub count: Cell,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Allocator {
    pub pools: Vec<Pool>,
    /// First of the section cells.
    pub sections: Cell,
    /// Page frame number of the first section.
    pub base: u64,
    pub limit: u64,
    /// Where the search from below, from above, starts while the machine is set up.
    pub low: u64,
    pub high: u64,
    pub sealed: bool,
}
