//! The answer to a check, with what it covers.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use vmemmap_arch::Invariant;

use crate::check::lock_order::Inversion;
use crate::check::part::Part;
use crate::counterexample::trace::{Trace, TraceStep, TraceViolation};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Safe,
    Violated,
    Inconclusive,
}

/// What is known of one invariant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Status {
    /// In every execution; only said when all were covered.
    #[serde(rename = "held")]
    Held,
    #[serde(rename = "violated")]
    Violated,
    /// Not asked for, or asked for and not decided.
    #[serde(rename = "not judged")]
    NotJudged,
    /// This machine cannot show it.
    #[serde(rename = "not visible")]
    NotVisible,
}

/// The shortest trace known to one violation.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Counterexample {
    pub violation: TraceViolation,
    /// Operations of the trace, and its context switches.
    pub steps: u32,
    pub switches: u32,
    pub shortest: bool,
    /// No choice of it can be left out; always so of a shortest one, of others unless the budget ended the minimiser.
    pub minimal: bool,
    /// For reading; the trace has every step.
    pub shown: Vec<TraceStep>,
    pub trace: Trace,
    /// Actors and what their operations depended on, one after the other (`ActorPort::past`).
    #[serde(skip)]
    pub pasts: Vec<(u8, u32)>,
}

/// What the verdict covers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Scope {
    pub memory_model: String,
    pub actors: Vec<String>,
    pub rounds: BTreeMap<String, u32>,
    pub strategy: String,
    pub covered: Covered,
    pub bounds: String,
}

/// How much of the executions within the declared bounds was covered. A violation of a judged invariant ends its
/// execution in the search that decides the verdict; what lies behind is searched afterwards, with work of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Covered {
    #[serde(rename = "every execution")]
    Whole,
    /// All that can be violated first is known; what is violated only behind that may not be.
    #[serde(rename = "every execution up to its first violation")]
    ToFirstViolation,
    #[serde(rename = "some executions")]
    Part,
}

/// The answer, with the keys of `explore --json`; those of invariants are `I1` to `I34`.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub scenario: String,
    pub variant: String,
    pub digest: String,
    pub verdict: Verdict,
    /// Every execution within the declared bounds was covered, at least up to its first violation (`Scope::covered`).
    pub exhaustive: bool,
    pub interrupted: bool,
    pub executions: u64,
    pub steps: u64,
    /// `None` for strategies that do not count them.
    pub states: Option<u64>,
    pub seconds: f64,
    pub seed: Option<u64>,
    pub judged: Vec<String>,
    #[serde(serialize_with = "by_name")]
    pub invariants: BTreeMap<Invariant, Status>,
    /// Length of each violation's own shortest known trace.
    #[serde(serialize_with = "by_name")]
    pub invariant_steps: BTreeMap<Invariant, u32>,
    pub scope: Scope,
    /// The judged invariant with the shortest trace.
    pub violation: Option<TraceViolation>,
    pub trace: Option<Vec<TraceStep>>,
    pub shortest: bool,
    pub switches: Option<u32>,
    /// One for each invariant that was violated, judged or not.
    #[serde(rename = "witnesses", serialize_with = "by_name")]
    pub counterexamples: BTreeMap<Invariant, Counterexample>,
    /// Fixpoint iterations until the set of shared locations was complete.
    #[serde(rename = "rounds")]
    pub iterations: u32,
    /// How many workers searched to the end: one where a search was short, or surprised (`search::parallel`).
    pub workers: usize,
    /// See `Report`: only an exhausted search with the cache alone counts them.
    pub interleavings: Option<f64>,
    /// When a judged invariant was first violated, from the start of the search.
    pub first_violation: Option<FirstViolation>,
    /// Locks that were taken in both orders: a warning, never a violation.
    pub lock_order: Vec<Inversion>,
    /// The part of a split search that this is: `exhaustive` and invariants speak of it alone, and nothing is safe.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

/// How soon a search met a violation.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct FirstViolation {
    pub executions: u64,
    pub seconds: f64,
}

fn by_name<T: Serialize, S: Serializer>(map: &BTreeMap<Invariant, T>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(map.iter().map(|(invariant, value)| (invariant.to_string(), value)))
}
