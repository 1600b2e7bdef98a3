//! What the oracles of an explored machine look at, and which choices its environment has.

use core::ops::Range;

use vmemmap_arch::bbm::FeatBbm;
use vmemmap_arch::{Asid, Va};

use crate::config::Ets;

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

/// What a store of a descriptor must have done before an invalidate covers it, and before nobody faults on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ordering {
    /// The DSB of its own CPU. Stricter than the architecture where another CPU invalidates.
    Published,
    /// As in Arm's model (docs/memory-model.md): it came before. An own store waits for an own DSB.
    #[default]
    Ordered,
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
    /// FEAT_ETS2: a new entry is seen by every later translation of its own CPU, of those that the writer's release,
    /// DMB or DSB orders, and of those that saw it. Without it a CPU may take the old invalid entry until its own ISB
    /// or exception entry.
    pub ets: Ets,
    /// When an invalidate covers a store, and when a new entry cannot fault any more.
    pub ordering: Ordering,
    /// How many plain stores of a CPU may wait in its buffer, up to `STORE_BUFFER`; 0: sequentially consistent memory.
    /// It has an effect on CPUs that some actor stands for the buffer of (`Context::StoreBuffer`).
    pub store_buffer: u8,
    /// A store of an `Attempt` through a read-only translation is a reply and no violation. For litmus tests: kernel
    /// code has no such handler.
    pub permission_faults: bool,
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

impl WorldOptions {
    /// FEAT_ETS2, or FEAT_ETS3, which has it.
    #[must_use]
    pub fn ets2(&self) -> bool {
        self.ets >= Ets::Two
    }
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        self.ordering == Ordering::Ordered
    }
    /// Less than a DSB ends the faults on a new entry.
    #[must_use]
    pub fn orders_faults(&self) -> bool {
        self.ets2() && self.is_ordered()
    }
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            strict: true,
            feat_bbm: Vec::new(),
            conflict: Conflict::AtWrite,
            spurious_fault_is_fatal: false,
            ets: Ets::Two,
            ordering: Ordering::Ordered,
            store_buffer: 0,
            permission_faults: false,
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
