//! Atomics of the allocator core: the real ones, or loom's when its tests are built with `--cfg loom`.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering};

/// The cheap half of an asymmetric fence: with `heavy` on another thread it orders as two sequentially consistent
/// fences do.
#[inline(always)]
pub fn light() {
    #[cfg(not(loom))]
    membarrier::light();
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}
/// The dear half of it.
pub fn heavy() {
    #[cfg(not(loom))]
    membarrier::heavy();
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// Tell the processor (or loom's scheduler) that this thread waits for another one.
#[inline]
pub fn relax() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}
