//! How far a search is, why it ended, what it covered and found.

use std::collections::BTreeMap;
use std::time::Duration;

use vmemmap_arch::Invariant;

use crate::model::InvariantSet;
use crate::reduction::options::{Fusion, Reduction};
use crate::runtime::schedule::{Choice, Cost, Found, Prefix};

/// Prefixes at most that one search is split into.
pub const MAX_PREFIXES: usize = 10_000;

/// How far a search is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    pub executions: u64,
    pub steps: u64,
    pub states: u64,
    pub violated: InvariantSet,
}

/// Why a search ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Every execution was covered.
    Exhausted,
    /// Seconds, states or executions were used up: another search would not come as far.
    Budget,
    /// All was done that was to be: with a violation at hand, or with so much work.
    Enough,
    Interrupted,
}

/// What a search covered and found.
#[derive(Clone, Debug)]
pub struct Report {
    pub ended: Ended,
    pub executions: u64,
    pub steps: u64,
    pub states: u64,
    /// Who searched the last iteration to its end: one, or so many workers.
    pub workers: usize,
    /// Fixpoint iterations until the set of shared locations stayed as it was.
    pub iterations: u32,
    /// A bound of the model or of the steps per actor was hit.
    pub overflowed: bool,
    /// Executions that a search without any reduction would have to run. Known if this one was exhausted, with the
    /// cache and nothing else: sleep sets and merging leave out edges that the count needs.
    pub interleavings: Option<f64>,
    pub found: BTreeMap<Invariant, Found>,
    /// When an invariant that ends executions was first violated: after so many executions, and how long.
    pub first: Option<(u64, Duration)>,
    /// Where executions were cut to be gone on with elsewhere (`Search::to_depth`).
    pub prefixes: Vec<Prefix>,
    /// It ended since the over-approximation is likely to be searched sooner.
    pub gave_way: bool,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self {
            ended: Ended::Budget,
            executions: 0,
            steps: 0,
            states: 0,
            workers: 1,
            iterations: 0,
            overflowed: false,
            interleavings: None,
            found: BTreeMap::new(),
            first: None,
            prefixes: Vec::new(),
            gave_way: false,
        }
    }
    /// Whether what was not found does not exist, within the declared bounds.
    #[must_use]
    pub fn exhaustive(&self) -> bool {
        self.ended == Ended::Exhausted && !self.overflowed
    }
    /// Whether any of these was violated.
    pub(crate) fn has_found(&self, any: InvariantSet) -> bool {
        self.found.keys().any(|i| any.contains(*i))
    }
    pub(crate) fn keep(&mut self, invariant: Invariant, cost: Cost, choices: impl FnOnce() -> Vec<Choice>) {
        if self.found.get(&invariant).is_none_or(|f| cost < f.cost) {
            self.found.insert(invariant, Found { choices: choices(), cost });
        }
    }
}

/// A state in which everybody is done, for the soundness tests.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Final {
    pub key: u128,
    pub violated: InvariantSet,
    pub deadlock: bool,
}

impl Final {
    /// What of it a reduction must keep where actors may lose their CPU. A deadlock in which one lost it for good is
    /// the same wherever the actor stood in its invisible work, which transition fusion does ahead.
    #[must_use]
    pub fn but_invisible_work(self, reduction: Reduction) -> Self {
        if self.deadlock && reduction.fusion == Fusion::Invisible {
            Self { key: 0, violated: InvariantSet::NONE, ..self }
        } else {
            self
        }
    }
}
