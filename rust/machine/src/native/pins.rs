//! Which table each CPU is about to read or store in, so that nobody frees it meanwhile: a hazard pointer for each CPU.
//!
//! # Protocol
//! A CPU says which frame it pins by a plain store, then looks at the frame's state; whoever wants a frame for itself
//! marks its state, then looks at the pins. Each must see the other's word if the other did not see its own, which
//! takes a full fence on both sides. Accesses are many and frees are few, so the fence is asymmetric: on the side of
//! the accesses it only keeps the compiler from moving anything (`light`), on the other side the operating system makes
//! every thread of the process execute one (`heavy`: `membarrier(2)`).
//!
//! The same slot says whether the CPU is storing, for those who were promised that nobody is.

use crate::native::sync::{AtomicU64, Ordering, heavy, light, relax};

const STORING: u64 = 1;

#[derive(Debug)]
#[repr(align(128))]
struct Slot(AtomicU64);

#[derive(Debug)]
pub struct Pins(Box<[Slot]>);

impl Pins {
    #[must_use]
    pub fn new(cpus: u8) -> Self {
        Self((0..cpus).map(|_| Slot(AtomicU64::new(0))).collect())
    }
    /// From here on until `unpin`, `wait_for` of another CPU waits; what it did before its fence is seen. At most one
    /// frame at a time.
    #[inline]
    pub fn pin(&self, cpu: u8, frame: u64, storing: bool) {
        self.0[usize::from(cpu)].0.store((frame + 1) << 1 | u64::from(storing), Ordering::Relaxed);
        light();
    }
    #[inline]
    pub fn unpin(&self, cpu: u8) {
        self.0[usize::from(cpu)].0.store(0, Ordering::Release);
    }
    fn wait(&self, pinned: impl Fn(u64) -> bool, except: Option<u8>) {
        heavy();
        for (cpu, slot) in self.0.iter().enumerate() {
            while except != Some(cpu as u8) && pinned(slot.0.load(Ordering::Acquire)) {
                relax();
            }
        }
    }
    /// Every access of a CPU that has pinned the frame, and has not seen what this one did to its state, is done.
    pub fn wait_for(&self, frame: u64) {
        self.wait(|pin| pin >> 1 == frame + 1, None);
    }
    /// Every store of another CPU that has not seen what this one did before is done.
    pub fn wait_for_stores(&self, cpu: u8) {
        self.wait(|pin| pin & STORING != 0, Some(cpu));
    }
}
