//! Allocation failures on demand: the nth of a CPU, or each with a probability.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::native::counters::CachePadded;

#[derive(Debug, Default)]
struct PerCpu {
    /// Allocations until the one that fails; 0: none.
    countdown: AtomicU64,
    /// State of a splitmix64 generator.
    random: AtomicU64,
}

#[derive(Debug)]
pub struct Injection {
    cpus: Box<[CachePadded<PerCpu>]>,
    /// A draw below this fails.
    threshold: AtomicU64,
}

impl Injection {
    #[must_use]
    pub fn new(cpus: u8, seed: u64) -> Self {
        let cpu =
            |c| CachePadded(PerCpu { countdown: AtomicU64::new(0), random: AtomicU64::new(seed ^ u64::from(c) << 56) });
        Self { cpus: (0..cpus).map(cpu).collect(), threshold: AtomicU64::new(0) }
    }
    pub fn arm(&self, cpu: u8, nth: u64) {
        if let Some(c) = self.cpus.get(usize::from(cpu)) {
            c.0.countdown.store(nth, Ordering::Relaxed);
        }
    }
    pub fn set_probability(&self, probability: f64) {
        self.threshold.store((probability.clamp(0.0, 1.0) * u64::MAX as f64) as u64, Ordering::Relaxed);
    }
    /// Whether any allocation of this CPU may be made to fail.
    #[must_use]
    pub fn is_armed(&self, cpu: u8) -> bool {
        self.threshold.load(Ordering::Relaxed) != 0
            || self.cpus.get(usize::from(cpu)).is_some_and(|c| c.0.countdown.load(Ordering::Relaxed) != 0)
    }
    /// Whether the allocation that this CPU makes now is to fail. Only that CPU calls it, so loads and stores suffice.
    #[must_use]
    pub fn fails(&self, cpu: u8) -> bool {
        let Some(c) = self.cpus.get(usize::from(cpu)) else { return false };
        let left = c.0.countdown.load(Ordering::Relaxed);
        if left != 0 {
            c.0.countdown.store(left - 1, Ordering::Relaxed);
            if left == 1 {
                return true;
            }
        }
        let threshold = self.threshold.load(Ordering::Relaxed);
        threshold != 0 && {
            let state = c.0.random.load(Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
            c.0.random.store(state, Ordering::Relaxed);
            let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31 < threshold
        }
    }
}
