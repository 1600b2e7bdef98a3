//! What a machine reports instead of faulting: an invariant that was violated, who violated it, and both histories.

use core::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use vmemmap_arch::Invariant;

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

/// An invariant that was violated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub invariant: Invariant,
    pub cpu: u8,
    pub actor: String,
    /// Kernel function that the actor was in.
    pub label: &'static str,
    /// Number of the machine's step; comparable with those of the events.
    pub step: u64,
    /// Virtual or physical address that the message is about.
    pub address: u64,
    pub message: String,
    /// Who returned the frame to the allocator last, if a frame is concerned and the machine keeps histories.
    pub freed: Option<Event>,
    /// Who allocated it last.
    pub held: Option<Event>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {} (CPU {}) in {} at step {}: {}",
            self.invariant,
            self.invariant.short(),
            self.actor,
            self.cpu,
            self.label,
            self.step,
            self.message
        )?;
        if let Some(e) = &self.freed {
            write!(f, "; freed by {e}")?;
        }
        if let Some(e) = &self.held {
            write!(f, "; allocated by {e}")?;
        }
        Ok(())
    }
}

/// Where violations of all CPUs go. Costs nothing until one happens.
#[derive(Debug)]
pub struct Sink {
    kept: Mutex<Vec<Violation>>,
    /// By invariant number.
    counts: [AtomicU64; 33],
}

impl Default for Sink {
    fn default() -> Self {
        Self { kept: Mutex::new(Vec::new()), counts: [const { AtomicU64::new(0) }; 33] }
    }
}

impl Sink {
    pub fn record(&self, violation: Violation) {
        let before = self.counts[usize::from(violation.invariant.number())].fetch_add(1, Ordering::Relaxed);
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
        for c in &self.counts {
            c.store(0, Ordering::Relaxed);
        }
        std::mem::take(&mut self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|c| c.load(Ordering::Relaxed)).sum()
    }
    #[must_use]
    pub fn count(&self, invariant: Invariant) -> u64 {
        self.counts[usize::from(invariant.number())].load(Ordering::Relaxed)
    }
}
