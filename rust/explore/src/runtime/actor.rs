//! One actor of an execution: what it has done and observed, and how far it is.

use crate::model::{Described, InvariantSet};
use crate::reduction::phase;

/// What one actor has done so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActorState<O> {
    pub pending: Option<O>,
    pub finished: bool,
    /// Rolling hash of every value observed since the last boundary.
    pub hash: u128,
    /// The same since the start of the execution.
    pub history: u128,
    /// `history` after the operation that was pending last.
    pub marked: u128,
    pub steps: u32,
    pub label: &'static str,
    /// Name of the kernel operation it is in, by position.
    pub position: u32,
    /// Does the same for ever.
    pub recurring: bool,
    /// Since the operation that was pending last: met nothing that others ever do.
    pub unobserved: bool,
    /// Its pending operation could have executed at once: a cache checkpoint.
    pub at_checkpoint: bool,
    /// What else its future depends on: the operations before this one, as far as they decide which come later.
    pub past: u32,
}

impl<O> ActorState<O> {
    /// How far it is: never less later on, and a function of what its future depends on.
    pub(crate) fn phase(&self) -> u32 {
        match () {
            () if self.finished => phase::FINISHED,
            () if self.recurring => phase::LAST,
            () => phase::of(self.position),
        }
    }
    pub const fn new() -> Self {
        Self {
            pending: None,
            finished: false,
            hash: 1,
            history: 1,
            marked: 1,
            steps: 0,
            label: "",
            position: 0,

            recurring: false,
            unobserved: true,
            at_checkpoint: false,
            past: 0,
        }
    }
}

/// One executed operation, as recorded for a trace.
#[derive(Clone, Debug)]
pub struct Step {
    pub actor: u8,
    pub outcome: u16,
    pub label: &'static str,
    pub position: u32,
    pub invisible: bool,
    pub local: bool,
    pub text: Described,
    /// The alternative taken, in words, unless it was the first.
    pub taken: Option<String>,
    /// Violations that this step added.
    pub broke: InvariantSet,
    /// Hash of the actor's observations after the step.
    pub observed: u128,
}
