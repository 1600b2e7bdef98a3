//! The invariants by number, name and sentence (kernel-semantics §12).

use core::fmt;

/// What must hold; `I1` to `I32`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Invariant {
    NoWalkOfFreedTable = 1,
    AlwaysTranslates = 2,
    NoUseOfFreedFrame = 3,
    NoStaleTranslation = 4,
    NoStaleWalkCache = 5,
    FreedTableIsEmpty = 6,
    FloorAndCeiling = 7,
    SharedTailsReadOnly = 8,
    OneWritableHead = 9,
    TailsResolveToHead = 10,
    RestoredPrivate = 11,
    RollbackComplete = 12,
    FramesConserved = 13,
    RemoveMeetsNoOptimised = 14,
    BootVmemmapKept = 15,
    SelfHostedUntouched = 16,
    HotplugExclusive = 17,
    StableDump = 18,
    BreakBeforeMake = 19,
    SplitOnce = 20,
    InitialisedBeforeReachable = 21,
    ContentBeforePte = 22,
    SingleCopyAtomic = 23,
    CountersBalance = 24,
    LockOrder = 25,
    SubsectionMapExact = 26,
    FailureRestores = 27,
    NoLostStore = 28,
    FlagWithState = 29,
    TreeWellFormed = 30,
    NoWritableExecutable = 31,
    NoEmptyTableLinked = 32,
}

impl Invariant {
    pub const ALL: [Invariant; 32] = [
        Invariant::NoWalkOfFreedTable,
        Invariant::AlwaysTranslates,
        Invariant::NoUseOfFreedFrame,
        Invariant::NoStaleTranslation,
        Invariant::NoStaleWalkCache,
        Invariant::FreedTableIsEmpty,
        Invariant::FloorAndCeiling,
        Invariant::SharedTailsReadOnly,
        Invariant::OneWritableHead,
        Invariant::TailsResolveToHead,
        Invariant::RestoredPrivate,
        Invariant::RollbackComplete,
        Invariant::FramesConserved,
        Invariant::RemoveMeetsNoOptimised,
        Invariant::BootVmemmapKept,
        Invariant::SelfHostedUntouched,
        Invariant::HotplugExclusive,
        Invariant::StableDump,
        Invariant::BreakBeforeMake,
        Invariant::SplitOnce,
        Invariant::InitialisedBeforeReachable,
        Invariant::ContentBeforePte,
        Invariant::SingleCopyAtomic,
        Invariant::CountersBalance,
        Invariant::LockOrder,
        Invariant::SubsectionMapExact,
        Invariant::FailureRestores,
        Invariant::NoLostStore,
        Invariant::FlagWithState,
        Invariant::TreeWellFormed,
        Invariant::NoWritableExecutable,
        Invariant::NoEmptyTableLinked,
    ];
    /// 1 to 32.
    #[must_use]
    #[inline]
    pub const fn number(self) -> u8 {
        self as u8
    }
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
    /// What must hold, as a sentence without a full stop.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Invariant::NoWalkOfFreedTable => "no software walker dereferences a freed table page",
            Invariant::AlwaysTranslates => "the struct page address of every valid pfn always translates",
            Invariant::NoUseOfFreedFrame => "a frame is never mapped after it returned to the allocator",
            Invariant::NoStaleTranslation => {
                "no stale TLB entry to a freed frame survives the flush that precedes the free"
            }
            Invariant::NoStaleWalkCache => "no walk-cache entry to a freed table survives",
            Invariant::FreedTableIsEmpty => "a table is freed only if every entry is none at the moment of the clear",
            Invariant::FloorAndCeiling => "only tables whose whole span lies inside [floor, ceiling) are freed",
            Invariant::SharedTailsReadOnly => "shared tails are read-only while optimised",
            Invariant::OneWritableHead => {
                "exactly one retained vmemmap page is writable, and unaliased as writable elsewhere"
            }
            Invariant::TailsResolveToHead => "all tail descriptors of an optimised page resolve to the same head",
            Invariant::RestoredPrivate => {
                "after restore every vmemmap PTE maps a distinct private writable frame with valid tail content"
            }
            Invariant::RollbackComplete => "rollback leaves the page fully unoptimised, no frame lost or doubled",
            Invariant::FramesConserved => "frames are conserved: each frame has one owner",
            Invariant::RemoveMeetsNoOptimised => "hot remove never meets an optimised page",
            Invariant::BootVmemmapKept => "boot vmemmap frames are never freed by hot remove",
            Invariant::SelfHostedUntouched => {
                "self-hosted descriptor storage is never deduplicated and never goes to the buddy allocator"
            }
            Invariant::HotplugExclusive => "add, remove, online and offline are mutually exclusive",
            Invariant::StableDump => "ptdump sees a stable tree",
            Invariant::BreakBeforeMake => {
                "no valid to valid change of output address, size, type or contiguity without break-before-make"
            }
            Invariant::SplitOnce => "a block is split at most once; the loser's table is not published",
            Invariant::InitialisedBeforeReachable => "a new table is fully initialised before it is reachable",
            Invariant::ContentBeforePte => "new content of a frame is visible before the PTE that exposes it",
            Invariant::SingleCopyAtomic => {
                "a page-table store is one 64-bit access, and readers take one snapshot per entry"
            }
            Invariant::CountersBalance => "nr >= surplus, free >= resv, key count = number of optimised pages",
            Invariant::LockOrder => "the lock order holds and holders of spinlocks never sleep; no deadlock",
            Invariant::SubsectionMapExact => "a subsection_map bit is set exactly when its descriptors are mapped",
            Invariant::FailureRestores => "a killed or failed operation leaves state equal to before",
            Invariant::NoLostStore => "a store to a logical struct page survives a remap or restore",
            Invariant::FlagWithState => "a flag that describes a state flips in the same critical section as the state",
            Invariant::TreeWellFormed => {
                "the tree is well formed: each table reached once, entries valid for their level, addresses inside RAM"
            }
            Invariant::NoWritableExecutable => "no address is writable and executable",
            Invariant::NoEmptyTableLinked => "no empty table stays linked in vmemmap after a removal",
        }
    }
    /// Its violation in two or three words, for a column.
    #[must_use]
    pub const fn short(self) -> &'static str {
        match self {
            Invariant::NoWalkOfFreedTable => "table freed in use",
            Invariant::AlwaysTranslates => "hole",
            Invariant::NoUseOfFreedFrame => "use of freed frame",
            Invariant::NoStaleTranslation => "stale translation",
            Invariant::NoStaleWalkCache => "stale walk cache",
            Invariant::FreedTableIsEmpty => "table freed while not empty",
            Invariant::FloorAndCeiling => "table outside bounds",
            Invariant::SharedTailsReadOnly => "store through read-only tail",
            Invariant::OneWritableHead => "writable alias",
            Invariant::TailsResolveToHead => "wrong head",
            Invariant::RestoredPrivate => "bad restore",
            Invariant::RollbackComplete => "bad rollback",
            Invariant::FramesConserved => "frame leaked or doubled",
            Invariant::RemoveMeetsNoOptimised => "optimised page removed",
            Invariant::BootVmemmapKept => "boot vmemmap freed",
            Invariant::SelfHostedUntouched => "self-hosted storage touched",
            Invariant::HotplugExclusive => "hotplug overlap",
            Invariant::StableDump => "tree changed under ptdump",
            Invariant::BreakBeforeMake => "break-before-make",
            Invariant::SplitOnce => "block split twice",
            Invariant::InitialisedBeforeReachable => "table published early",
            Invariant::ContentBeforePte => "content published late",
            Invariant::SingleCopyAtomic => "torn access",
            Invariant::CountersBalance => "counters",
            Invariant::LockOrder => "deadlock or sleep in atomic",
            Invariant::SubsectionMapExact => "subsection map",
            Invariant::FailureRestores => "failed operation left traces",
            Invariant::NoLostStore => "lost store",
            Invariant::FlagWithState => "flag without state",
            Invariant::TreeWellFormed => "malformed tree",
            Invariant::NoWritableExecutable => "W+X",
            Invariant::NoEmptyTableLinked => "empty table linked",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I{}", self.number())
    }
}
