//! Where a search for room begins.

use crate::native::sync::{AtomicU64, Ordering};

/// Position (24 bits of version above 40 bits) before which no chunk has room.
#[derive(Debug)]
pub struct Hint(AtomicU64);

pub const POSITION: u64 = (1 << 40) - 1;

impl Hint {
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
    pub fn lower(&self, position: u64) {
        let mut old = self.0.load(Ordering::Relaxed);
        loop {
            let new = ((old & !POSITION).wrapping_add(POSITION + 1)) | position.min(old & POSITION);
            match self.0.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }
    pub fn raise(&self, seen: u64, position: u64) {
        if position > seen & POSITION {
            let _ = self.0.compare_exchange(seen, (seen & !POSITION) | position, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}
