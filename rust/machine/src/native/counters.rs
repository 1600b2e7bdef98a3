//! Event counters: private to a CPU while it runs, folded into the machine's shard of that CPU when it stops.

use core::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// On a cache line (pair) of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CachePadded<T>(pub T);

macro_rules! counters {
    ($( $(#[$doc:meta])* $field:ident: $name:ident ),+ $(,)?) => {
        /// What is counted.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum Count { $( $name ),+ }

        const KINDS: usize = [$( Count::$name ),+].len();

        /// Totals of a machine or of one CPU.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counters { $( $(#[$doc])* pub $field: u64 ),+ }

        impl Counters {
            /// Field names and values, in a fixed order.
            #[must_use]
            pub fn named(&self) -> [(&'static str, u64); KINDS] {
                [$( (stringify!($field), self.$field) ),+]
            }
            fn add(&mut self, shard: &Shard) {
                $( self.$field += shard.0[Count::$name as usize].load(Ordering::Relaxed); )+
            }
        }
    };
}

counters! {
    /// Descriptor reads.
    reads: Read,
    /// Descriptor stores.
    writes: Write,
    /// Atomic exchanges of descriptors (swap and compare-and-exchange).
    exchanges: Exchange,
    tlbi: Tlbi,
    dsb: Dsb,
    isb: Isb,
    /// SMP barriers (`smp_mb`, `smp_rmb`, `smp_wmb`).
    smp_barriers: Smp,
    ipi: Ipi,
    /// Data loads through a virtual address.
    loads: Load,
    /// Data stores and read-modify-writes through a virtual address.
    stores: Store,
    tables_freed: TableFreed,
    /// In base pages.
    frames_allocated: FrameAllocated,
    /// In base pages.
    frames_freed: FrameFreed,
    /// Requests for frames that came back empty, real or injected.
    alloc_failures: AllocFailure,
    lock_acquisitions: Lock,
    grace_periods: GracePeriod,
    /// Stores that the architecture asks break-before-make for (I19), seen by checked CPUs.
    bbm_required: BreakBeforeMake,
}

#[derive(Debug)]
pub struct Shard([AtomicU64; KINDS]);

impl Default for Shard {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; KINDS])
    }
}

/// One shard for each CPU.
#[derive(Debug)]
pub struct Shards(Box<[CachePadded<Shard>]>);

impl Shards {
    #[must_use]
    pub fn new(cpus: u8) -> Self {
        Self((0..cpus).map(|_| CachePadded::default()).collect())
    }
    #[must_use]
    pub fn total(&self) -> Counters {
        let mut sum = Counters::default();
        for shard in &self.0 {
            sum.add(&shard.0);
        }
        sum
    }
    /// Counters of one CPU; zero if there is no such CPU.
    #[must_use]
    pub fn of(&self, cpu: u8) -> Counters {
        let mut sum = Counters::default();
        if let Some(shard) = self.0.get(usize::from(cpu)) {
            sum.add(&shard.0);
        }
        sum
    }
}

/// Counts of one running CPU: plain cells, so that counting is no atomic instruction.
#[derive(Debug)]
pub struct Tally([Cell<u64>; KINDS]);

impl Default for Tally {
    fn default() -> Self {
        Self([const { Cell::new(0) }; KINDS])
    }
}

impl Tally {
    #[inline]
    pub fn count(&self, what: Count) {
        self.add(what, 1);
    }
    #[inline]
    pub fn add(&self, what: Count, n: u64) {
        let cell = &self.0[what as usize];
        cell.set(cell.get().wrapping_add(n));
    }
    /// Add everything to the shard of `cpu` and start again at zero.
    pub fn fold(&self, shards: &Shards, cpu: u8) {
        if let Some(shard) = shards.0.get(usize::from(cpu)) {
            for (cell, sum) in self.0.iter().zip(&shard.0.0) {
                let n = cell.replace(0);
                if n != 0 {
                    sum.fetch_add(n, Ordering::Relaxed);
                }
            }
        }
    }
}
