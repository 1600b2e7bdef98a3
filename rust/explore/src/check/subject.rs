//! What a check names and judges: the actors themselves are given apart.

use vmemmap_arch::Invariant;

use crate::model::InvariantSet;

/// Names, and what is judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    pub name: String,
    pub variant: String,
    /// Of everything that it was made of; a trace names it.
    pub digest: String,
    /// Each actor's name, and how many rounds it goes.
    pub actors: Vec<(String, u32)>,
    pub judged: Vec<Invariant>,
}

impl Subject {
    #[must_use]
    pub fn judged(&self) -> InvariantSet {
        InvariantSet::of(&self.judged)
    }
}
