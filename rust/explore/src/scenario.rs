//! Scenarios as data: who runs, what is judged.

use vmemmap_arch::Invariant;
use vmemmap_kernel::Operation;

use crate::model::Invariants;

/// Where an actor's operations come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Listed beforehand.
    Program(Vec<Operation>),
    /// Asked for one after the other, each with the results of those before (`foreign`).
    Foreign,
}

impl Body {
    /// The operations, if they are known.
    #[must_use]
    pub fn program(&self) -> Option<&[Operation]> {
        match self {
            Body::Program(program) => Some(program),
            Body::Foreign => None,
        }
    }
}

/// A CPU's work: kernel operations, some rounds of them. An errno is an observation and ends nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actor {
    pub name: String,
    pub cpu: u8,
    pub rounds: u32,
    pub body: Body,
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
