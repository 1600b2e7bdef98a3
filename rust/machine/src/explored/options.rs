//! What the oracles of an explored machine look at, and which choices its environment has.

use core::ops::Range;

use vmemmap_arch::bbm::FeatBbm;
use vmemmap_arch::{Asid, Va};

/// What an access does that could use two conflicting translations. The store that made them so is judged in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Conflict {
    /// It uses one of them.
    #[default]
    AtWrite,
    /// The same, and is a breach of its own.
    AtAccess,
    /// A load may also take its first bytes through one and the rest through the other. Stores, read-modify-writes and
    /// copies use one.
    Amalgamate,
    /// It may also end in a TLB conflict abort.
    Abort,
}

/// What the oracles look at, and which choices the environment has.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// Judge translations that survive when a frame is freed; otherwise only accesses that go wrong count.
    pub strict: bool,
    /// Of each CPU; those beyond the list are as its last, without any at level 0.
    pub feat_bbm: Vec<FeatBbm>,
    /// What an access does that could use two conflicting translations.
    pub conflict: Conflict,
    /// A spurious fault (a new entry not yet published) counts as a hole (I2).
    pub spurious_fault_is_fatal: bool,
    /// FEAT_ETS2: a new entry is seen by every later translation once the writer's DSB is done. Without it a CPU may
    /// take the old invalid entry until its own ISB or exception entry.
    pub ets: bool,
    /// How many allocations of an execution may fail as a choice of the environment.
    pub alloc_failures: u32,
    /// Allocations that fail always: actor, and the number of its allocation from 1.
    pub fail_alloc: Vec<(u8, u64)>,
    /// What `signal_pending` says.
    pub signal_pending: bool,
    /// The linear map, which the rules about freed frames leave out.
    pub linear_map: Option<Range<Va>>,
    /// The vmalloc area, of which no dump may expect that it is stable (I18).
    pub vmalloc: Option<Range<Va>>,
    /// PREEMPT_RT: spinlocks sleep, leave interrupts on, and may not be taken in an interrupt.
    pub preempt_rt: bool,
    /// Address space of each CPU; absent ones run 0. Those beyond the last CPU ran before, and may still be cached.
    pub asids: Vec<Asid>,
    /// An IOMMU shares the kernel's tables (SVA). It caches table entries, and no TLBI reaches it (R22).
    pub iommu: bool,
    /// Frames in each actor's pool; 0: by granule.
    pub pool_frames: u64,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            strict: true,
            feat_bbm: Vec::new(),
            conflict: Conflict::AtWrite,
            spurious_fault_is_fatal: false,
            ets: true,
            alloc_failures: 0,
            fail_alloc: Vec::new(),
            signal_pending: false,
            linear_map: None,
            vmalloc: None,
            preempt_rt: false,
            asids: Vec::new(),
            iommu: false,
            pool_frames: 0,
        }
    }
}
