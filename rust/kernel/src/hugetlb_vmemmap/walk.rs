//! What a walk over vmemmap PTEs is told and what it keeps (`struct vmemmap_remap_walk`).

use vmemmap_arch::{Frame, FrameList};

/// Struct pages at the start of a restored tail page that hold the head's own metadata (`NR_RESET_STRUCT_PAGE`);
/// `reset_struct_pages` overwrites 0 to 2 with 3 to 5, which are plain tails.
pub(super) const NR_RESET_STRUCT_PAGE: u16 = 3;

/// What a walk does to the PTEs that it meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Only split PMD blocks (`vmemmap_remap_split`).
    Split,
    /// Point the tails at the shared frame (`vmemmap_remap_pte`).
    Remap,
    /// Give every tail a frame of its own again (`vmemmap_restore_pte`).
    Restore,
    /// `Restore` of a walk that failed half way.
    Rollback,
}

/// `struct vmemmap_remap_walk`.
#[derive(Debug)]
pub struct RemapWalk<T> {
    pub action: Action,
    pub nr_walked: u64,
    /// `reuse_page` (6.1), `vmemmap_tail` (6.12).
    pub shared: Option<Frame<T>>,
    /// 6.12: the fresh copy of the head page, until the first PTE takes it.
    pub head: Option<Frame<T>>,
    /// Frames taken out of the tables (remap), frames to put in (restore).
    pub frames: FrameList<T>,
    /// 6.12 batch: the caller flushes.
    pub no_tlb_flush: bool,
    /// Every other CPU is paused.
    pub paused: bool,
    /// Frame given out last (mutant `restore-shared`).
    pub previous: Option<Frame<T>>,
}

impl<T> RemapWalk<T> {
    pub const fn new(action: Action) -> Self {
        Self {
            action,
            nr_walked: 0,
            shared: None,
            head: None,
            frames: FrameList::new(),
            no_tlb_flush: false,
            paused: false,
            previous: None,
        }
    }
}

/// Which half of a change a pass over the PTEs makes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Old entry to new entry.
    Exchange,
    /// Old entry to none: the first half of the policies that clear the whole hugepage.
    Clear,
    /// None to new entry.
    Set,
    /// Permissions alone: the half of approach C in which no address changes.
    Protect,
}
