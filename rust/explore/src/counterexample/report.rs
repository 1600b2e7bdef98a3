//! The answer to a replay: what happened again, what differs, and both histories of what was violated.

use serde::Serialize;

use crate::counterexample::history::{Held, History, histories, locks};
use crate::counterexample::replay::{Divergence, Replayed, Resync};
use crate::counterexample::trace::{Recording, TraceStep, TraceViolation};
use crate::model::Model;
use crate::runtime::execution::Actors;

/// The first difference.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// Numbers from 1; absent where the trace as a whole does not fit.
    pub segment: Option<usize>,
    pub step: Option<u32>,
    pub expected: Option<String>,
    pub found: Option<String>,
    pub message: String,
}

impl From<Divergence> for Difference {
    fn from(divergence: Divergence) -> Self {
        let message = divergence.to_string();
        match divergence {
            Divergence::Step { segment, step, expected, found } => {
                Self { segment: Some(segment), step: Some(step), expected: Some(expected), found: Some(found), message }
            }
            Divergence::Scenario { expected, found } => {
                Self { segment: None, step: None, expected: Some(expected), found: Some(found), message }
            }
            Divergence::Held { expected } => {
                Self { segment: None, step: None, expected: Some(expected), found: None, message }
            }
            Divergence::Format { .. } => Self { segment: None, step: None, expected: None, found: None, message },
        }
    }
}

/// The report of a replay; keys of `replay --json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ReplayReport {
    /// Every step as recorded, and the same violation.
    pub identical: bool,
    /// The invariant of the trace was violated, in whatever way.
    #[serde(rename = "fell")]
    pub violated: bool,
    pub divergence: Option<Difference>,
    pub resynchronised: Vec<Resync>,
    /// Operations after the last segment.
    pub continued: u32,
    pub violation: Option<TraceViolation>,
    /// Operations, and context switches among them.
    pub steps: u32,
    pub switches: u32,
    pub histories: Vec<History>,
    pub locks: Vec<Held>,
    pub trace: Vec<TraceStep>,
}

impl ReplayReport {
    pub fn new<M: Model, A: Actors<M>>(replayed: Replayed, actors: &A) -> Self {
        let identical = replayed.identical();
        let reported = replayed.violation.as_ref().map_or_else(Vec::new, |v| histories(&replayed.steps, v, actors));
        let held = locks(&replayed.steps, actors);
        let recording = Recording { steps: replayed.steps };
        Self {
            identical,
            violated: replayed.violation.is_some(),
            divergence: replayed.divergence.map(Difference::from),
            resynchronised: replayed.resyncs,
            continued: replayed.continued,
            violation: replayed.violation,
            steps: recording.operations(),
            switches: recording.switches(),
            histories: reported,
            locks: held,
            trace: recording.trace_steps::<M, A>(actors),
        }
    }
}
