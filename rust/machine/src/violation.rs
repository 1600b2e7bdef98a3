//! What a machine reports instead of faulting: an invariant that was violated, who violated it, and both histories.

use core::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use vmemmap_arch::{ByInvariant, Invariant};

/// Most violations of one invariant that are kept with all details; further ones are only counted. A rare one is so
/// never hidden behind many of another.
pub const MAX_KEPT: u64 = 256;

/// Something that happened to a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub cpu: u8,
    pub actor: String,
    /// Kernel function (or the step of it) that did it.
    pub label: &'static str,
    pub step: u64,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (CPU {}) in {} at step {}", self.actor, self.cpu, self.label, self.step)
    }
}

/// Who violated an invariant on a machine of threads, and in which kernel function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actor {
    pub cpu: u8,
    pub name: String,
    pub label: &'static str,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (CPU {}) in {}", self.name, self.cpu, self.label)
    }
}

/// What happened to the frame that a violation is about, if it is about one and the machine keeps histories.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// Who returned it to the allocator last.
    pub freed: Option<Event>,
    /// Who allocated it last.
    pub held: Option<Event>,
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(e) = &self.freed {
            write!(f, "; freed by {e}")?;
        }
        if let Some(e) = &self.held {
            write!(f, "; allocated by {e}")?;
        }
        Ok(())
    }
}

/// A violated invariant of a machine of threads; its step is comparable with those of the history.
pub type Violation = vmemmap_arch::Violation<Actor, String, History>;

/// Where violations of all CPUs go. Costs nothing until one happens.
#[derive(Debug, Default)]
pub struct Sink {
    kept: Mutex<Vec<Violation>>,
    counts: ByInvariant<AtomicU64>,
}

impl Sink {
    pub fn record(&self, violation: Violation) {
        let before = self.counts[violation.invariant].fetch_add(1, Ordering::Relaxed);
        if before < MAX_KEPT {
            self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(violation);
        }
    }
    #[must_use]
    pub fn kept(&self) -> Vec<Violation> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
    /// Those kept so far, which are forgotten; and their counts with them.
    #[must_use]
    pub fn take(&self) -> Vec<Violation> {
        for (_, c) in self.counts.iter() {
            c.store(0, Ordering::Relaxed);
        }
        std::mem::take(&mut self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|(_, c)| c.load(Ordering::Relaxed)).sum()
    }
    #[must_use]
    pub fn count(&self, invariant: Invariant) -> u64 {
        self.counts[invariant].load(Ordering::Relaxed)
    }
}
