//! Which CPUs there are, and how words that they share are changed: by atomic instructions, or by plain loads and
//! stores while one of them is the only one.
//!
//! # Protocol
//! A CPU that begins counts itself, then waits until no other one is in a `Section`. A CPU that enters a section says
//! so by a plain store, then looks at the count. Each must see the other's word if the other did not see its own. CPUs
//! begin rarely and enter sections all the time, so that the fence between the two is asymmetric, as that of `pins`:
//! whoever begins makes every thread of the process execute one. So in a section of the only CPU nobody else changes
//! anything, and who begins after it, or after this CPU ended, sees all that it stored.

use crate::native::sync::{AtomicU64, Ordering, heavy, light, relax};

/// On a cache line (pair) of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Padded(AtomicU64);

impl Padded {
    fn zero() -> Self {
        Self(AtomicU64::new(0))
    }
}

/// The CPUs of a machine that run.
#[derive(Debug)]
pub struct Running {
    count: Padded,
    /// Of each CPU, whether it is in a section.
    inside: Box<[Padded]>,
}

impl Running {
    #[must_use]
    pub fn new(cpus: u8) -> Self {
        Self { count: Padded::zero(), inside: (0..cpus).map(|_| Padded::zero()).collect() }
    }
    /// A CPU begins; it ends with what is returned.
    ///
    /// # Panics
    /// There is no such CPU.
    #[must_use]
    pub fn begin(&self, cpu: u8) -> Seat<'_> {
        let seat = Seat { count: &self.count.0, inside: &self.inside[usize::from(cpu)].0 };
        if seat.count.fetch_add(1, Ordering::AcqRel) != 0 {
            heavy();
            for other in &self.inside {
                while other.0.load(Ordering::Acquire) != 0 {
                    relax();
                }
            }
        }
        seat
    }
}

/// A CPU that runs.
#[derive(Debug)]
pub struct Seat<'m> {
    count: &'m AtomicU64,
    inside: &'m AtomicU64,
}

impl<'m> Seat<'m> {
    fn is_alone(&self) -> bool {
        self.count.load(Ordering::Acquire) == 1
    }
    /// Until it is dropped no other CPU begins, if this one is the only one now. Short, and never one in another.
    #[inline(always)]
    pub fn section(&self) -> Section<'m> {
        debug_assert_eq!(self.inside.load(Ordering::Relaxed), 0, "a section in a section");
        if !self.is_alone() {
            return Section(None);
        }
        self.inside.store(1, Ordering::Relaxed);
        light();
        if self.is_alone() {
            return Section(Some(self.inside));
        }
        self.inside.store(0, Ordering::Release);
        Section(None)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Release);
    }
}

/// See `Seat::section`.
#[derive(Debug)]
pub struct Section<'a>(Option<&'a AtomicU64>);

impl Section<'_> {
    /// How words are changed in it.
    #[inline]
    #[must_use]
    pub const fn change(&self) -> Change {
        if self.0.is_some() { Change::Plain } else { Change::Atomic }
    }
}

impl Drop for Section<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(inside) = self.0 {
            inside.store(0, Ordering::Release);
        }
    }
}

/// How a word that CPUs share is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// By an atomic instruction.
    Atomic,
    /// By a load and a store, in a section of the only CPU.
    Plain,
}

impl Change {
    /// Replace `old`, which was read in the same section, by `new`.
    ///
    /// # Errors
    /// What is there instead; never in a section of the only CPU.
    #[inline]
    pub fn replace(self, word: &AtomicU64, old: u64, new: u64) -> Result<(), u64> {
        match self {
            Change::Atomic => word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).map(|_| ()),
            Change::Plain => {
                word.store(new, Ordering::Release);
                Ok(())
            }
        }
    }
}
