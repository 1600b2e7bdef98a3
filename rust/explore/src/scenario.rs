//! Scenarios as data: who runs, what is judged.

use vmemmap_arch::Invariant;
use vmemmap_kernel::Operation;

use crate::model::Invariants;

/// A CPU's work: a program of kernel operations, some rounds of it. An errno is an observation and ends nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actor {
    pub name: String,
    pub cpu: u8,
    pub rounds: u32,
    pub program: Vec<Operation>,
}

/// Who runs, and what is judged. The machine and what happened on it before are given apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scenario {
    pub name: String,
    pub variant: String,
    /// Of everything that the scenario was made of; a trace names it.
    pub digest: String,
    pub actors: Vec<Actor>,
    pub judged: Vec<Invariant>,
}

impl Scenario {
    #[must_use]
    pub fn judged(&self) -> Invariants {
        Invariants::of(&self.judged)
    }
}
