//! Traces: what happened, step by step, and the schedule that makes it happen again.
//!
//! A schedule is a list of segments, in actors and operations rather than in decisions of the search, so that it does
//! not depend on what the search fused. A trace carries its format, the version of the tool and a digest of the
//! scenario; `replay` says which differs.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use vmemmap_arch::Invariant;

use crate::model::{InvariantSet, Model};
use crate::reduction::options::Fusion;
use crate::runtime::actor::Step;
use crate::runtime::execution::{Actors, Inner};
use crate::runtime::runner::Runner;
use crate::runtime::schedule::Choice;

/// The trace format that this version writes and reads.
pub const FORMAT: u32 = 2;

/// Runs of invisible operations longer than this are shown as one line.
const FOLD: usize = 6;

/// One operation on the machine. `old` and `new` are the word before and after, where it has one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TraceStep {
    pub step: u32,
    pub cpu: u8,
    pub actor: String,
    pub op: String,
    /// Kernel function.
    pub label: String,
    /// Symbolic place, the same in every run.
    pub place: String,
    pub address: Option<u64>,
    pub old: Option<u64>,
    pub new: Option<u64>,
    /// Which alternative of the environment was taken, unless the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<String>,
    /// Of what takes effect in two steps, the first: that of a store whose waiting ends here, or in which a load was
    /// made early whose value is returned here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u32>,
    /// A judgement on the spot (`warn`) rather than an operation: no step of the schedule.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub judgement: bool,
    /// Function, place and what was violated, for people.
    pub note: String,
}

/// An operation by name: the `nth` of this name in its segment, from 1.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Point {
    pub op: String,
    pub label: String,
    pub place: String,
    pub nth: u32,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(&self.op, &self.label, &self.place))
    }
}

/// An alternative of the environment that was taken (a stale translation, a failed allocation), by what it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Alternative {
    #[serde(flatten)]
    pub at: Point,
    pub taken: String,
}

/// Run `actor` up to and including the operation `until`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Segment {
    pub actor: String,
    pub until: Point,
    /// So many, as recorded.
    pub operations: u32,
    pub alternatives: Vec<Alternative>,
    /// Hash of everything the actor has observed in its current operation, at the end of the segment.
    pub observed: String,
}

/// What was violated at the end of a trace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TraceViolation {
    pub invariant: String,
    pub actor: String,
    pub step: u32,
    pub address: Option<u64>,
    pub message: String,
}

/// Bounds under which the execution was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bounds {
    pub rounds: BTreeMap<String, u32>,
    /// Operations per actor.
    pub step_bound: u32,
}

/// A violating execution, with all that is needed to run it again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Trace {
    pub format: u32,
    pub version: String,
    pub scenario: String,
    pub variant: String,
    /// Of the document.
    pub digest: String,
    /// The choice in each row of the policy table.
    #[serde(default)]
    pub policies: BTreeMap<String, String>,
    pub strategy: String,
    pub seed: Option<u64>,
    /// Memory model and oracle, in words.
    pub memory_model: String,
    pub bounds: Bounds,
    pub violation: TraceViolation,
    /// Operations, and context switches among them.
    pub operations: u32,
    pub switches: u32,
    /// No trace with fewer context switches, or as many and fewer operations, exists.
    pub shortest: bool,
    /// The scenario as the core was given it: machine, setup, actors, environment.
    #[serde(default)]
    pub document: serde_json::Value,
    pub segments: Vec<Segment>,
    /// All operations up to the violation; `explore` folds long runs that nobody else can notice unless told otherwise.
    pub steps: Vec<TraceStep>,
}

/// Why something is no trace; one line for people.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum TraceError {
    #[error("not the JSON of a trace: {0}")]
    Json(String),
    #[error("no trace: it has no format number")]
    NoFormat,
    #[error("trace format {0}, this version reads format {FORMAT}")]
    Format(u64),
    #[error("segment {segment} has {operations} operations of {actor:?}, the list of steps has not")]
    Segment { segment: usize, operations: u32, actor: String },
    #[error("{0} steps behind the last segment")]
    Rest(usize),
}

#[derive(Deserialize)]
struct Head {
    format: Option<u64>,
}

impl Trace {
    /// # Errors
    /// Not JSON, not a trace of this format, or segments that do not belong to the steps.
    pub fn parse(json: &str) -> Result<Self, TraceError> {
        let wrong = |e: serde_json::Error| TraceError::Json(e.to_string());
        let head: Head = serde_json::from_str(json).map_err(wrong)?;
        let format = head.format.ok_or(TraceError::NoFormat)?;
        if format != u64::from(FORMAT) {
            return Err(TraceError::Format(format));
        }
        let trace: Self = serde_json::from_str(json).map_err(wrong)?;
        let mut steps = trace.steps.iter().filter(|s| !s.judgement);
        for (at, Segment { actor, operations, .. }) in trace.segments.iter().enumerate() {
            let own = steps.by_ref().take(*operations as usize).take_while(|s| s.actor == *actor).count();
            if own != *operations as usize || own == 0 {
                return Err(TraceError::Segment { segment: at + 1, operations: *operations, actor: actor.clone() });
            }
        }
        match steps.count() {
            0 => Ok(trace),
            rest => Err(TraceError::Rest(rest)),
        }
    }
}

/// One recorded execution.
pub(crate) struct Recording {
    pub steps: Vec<Step>,
}

/// Replays `choices`, moves invisible operations to where they are needed, and records the result.
pub(crate) fn record<M: Model, A: Actors<M>>(
    runner: &mut Runner<'_, M, A>,
    choices: &[Choice],
    target: Invariant,
) -> Option<(Recording, TraceViolation)> {
    runner.inner().record = Some(Vec::new());
    let followed = runner.follow(choices, target);
    let steps = runner.inner().record.take().unwrap_or_default();
    followed?;
    let (_, blocked) = runner.enabled();
    // A ring of waiters needs only its own past, and of others who wait as well nothing if the ring shows without;
    // somebody whom nobody wakes, or a judgement at rest, needs everybody's. The order as it was found reproduces by
    // construction.
    let plain = steps.iter().filter(|s| !s.local).map(|s| Choice { actor: s.actor, outcome: s.outcome }).collect();
    let schedules =
        [postpone(&steps, target, 0), postpone(&steps, target, blocked), postpone(&steps, target, u16::MAX), plain];
    let (recording, violation) = schedules.iter().find_map(|schedule| run_schedule(runner, schedule, target))?;
    Some((mark_invisible(recording, &steps), violation))
}

/// Every operation was a choice in the second run; which of them nobody else can notice is known from the first.
fn mark_invisible(mut recording: Recording, merged: &[Step]) -> Recording {
    for actor in 0..crate::model::MAX_ACTORS as u8 {
        let flags = merged.iter().filter(|s| s.actor == actor && !s.local).map(|s| s.invisible);
        for (step, invisible) in recording.steps.iter_mut().filter(|s| s.actor == actor && !s.local).zip(flags) {
            step.invisible = invisible;
        }
    }
    recording
}

/// The schedule of all operations, each invisible one only when its actor is next seen. What is left of `needed` actors
/// they did right after they were last seen.
fn postpone(steps: &[Step], target: Invariant, needed: u16) -> Vec<Choice> {
    let mut pending: Vec<Vec<Choice>> = vec![Vec::new(); crate::model::MAX_ACTORS];
    let mut schedule = Vec::with_capacity(steps.len());
    for step in steps {
        let actor = usize::from(step.actor);
        if !step.local {
            pending[actor].push(Choice { actor: step.actor, outcome: step.outcome });
        }
        let violated = step.broke.contains(target);
        if !step.invisible || violated {
            schedule.append(&mut pending[actor]);
        }
        if violated {
            return schedule;
        }
    }
    for (actor, rest) in pending.into_iter().enumerate().filter(|(actor, _)| needed & 1 << actor != 0) {
        let last = schedule.iter().rposition(|c: &Choice| usize::from(c.actor) == actor);
        let after = last.map_or(0, |at| at + 1);
        schedule.splice(after..after, rest);
    }
    schedule
}

/// Runs a schedule in which every operation is a choice, recording.
fn run_schedule<M: Model, A: Actors<M>>(
    runner: &mut Runner<'_, M, A>,
    schedule: &[Choice],
    target: Invariant,
) -> Option<(Recording, TraceViolation)> {
    let bound = {
        let mut inner = runner.inner();
        inner.fusion = Fusion::Local;
        inner.record = Some(Vec::new());
        // As a replay will, whatever the search did.
        inner.abstracts_observations = true;
        // The bound is for the search, where invisible operations do not count.
        std::mem::replace(&mut inner.step_bound, u32::MAX)
    };
    runner.start();
    for choice in schedule {
        let actor = usize::from(choice.actor);
        if runner.halted() || runner.outcomes(actor) <= choice.outcome {
            break;
        }
        runner.advance(actor, choice.outcome, crate::runtime::execution::Phase::Frontier);
        if runner.inner().violated().contains(target) {
            break;
        }
    }
    let violated = runner.inner().violated().contains(target);
    if !violated && !runner.halted() {
        runner.judge_end();
    }
    let mut inner = runner.inner();
    inner.fusion = Fusion::Invisible;
    inner.step_bound = bound;
    let mut steps = inner.record.take().unwrap_or_default();
    if !inner.violated().contains(target) {
        return None;
    }
    if let Some(end) = steps.iter().position(|s| s.broke.contains(target)) {
        steps.truncate(end + 1);
    }
    steps.retain(|s| !s.local || !s.broke.is_empty());
    let violation = violation_of(&inner, runner.actors(), target, steps.len() as u32)?;
    Some((Recording { steps }, violation))
}

/// What the machine says of the violation of `target`, in the step of that number.
pub(crate) fn violation_of<M: Model, A: Actors<M>>(
    inner: &Inner<M>,
    actors: &A,
    target: Invariant,
    step: u32,
) -> Option<TraceViolation> {
    let violation = inner.violations().into_iter().find(|v| v.invariant == target)?;
    Some(TraceViolation {
        invariant: target.to_string(),
        actor: actors.name(usize::from(violation.actor)).to_owned(),
        step,
        address: violation.at(),
        message: violation.message,
    })
}

impl Recording {
    /// Operations that count (a `warn` is a judgement, not an operation).
    pub fn operations(&self) -> u32 {
        self.steps.iter().filter(|s| !s.local).count() as u32
    }

    pub fn switches(&self) -> u32 {
        self.steps.windows(2).filter(|w| w[0].actor != w[1].actor).count() as u32
    }

    /// All of them.
    pub fn trace_steps<M: Model, A: Actors<M>>(&self, actors: &A) -> Vec<TraceStep> {
        self.steps.iter().enumerate().map(|(at, _)| self.trace_step::<M, A>(actors, at)).collect()
    }

    /// For reading: long runs that nobody else can notice are one line.
    pub fn folded_steps<M: Model, A: Actors<M>>(&self, actors: &A) -> Vec<TraceStep> {
        let mut shown = Vec::new();
        let mut at = 0;
        while at < self.steps.len() {
            let first = &self.steps[at];
            let run = self.steps[at..].iter().take_while(|s| alike(first, s) && s.invisible).count();
            let mut step = self.trace_step::<M, A>(actors, at);
            if run > FOLD {
                step.note = format!("{} (and {} more like it that nobody else can notice)", step.note, run - 1)
                    .trim_start()
                    .to_owned();
                at += run;
            } else {
                at += 1;
            }
            shown.push(step);
        }
        shown
    }

    fn trace_step<M: Model, A: Actors<M>>(&self, actors: &A, at: usize) -> TraceStep {
        let step = &self.steps[at];
        let since = self.since(at);
        let mut note = Vec::new();
        if !step.label.is_empty() {
            note.push(step.label.to_owned());
        }
        if !step.text.place.is_empty() {
            note.push(step.text.place.clone());
        }
        note.extend(step.taken.clone());
        note.extend(since.map(|from| self.words(from, at)));
        note.extend(step.broke.iter().map(|i| format!("{i} violated: {}", i.short())));
        let actor = usize::from(step.actor);
        TraceStep {
            step: at as u32 + 1,
            cpu: actors.cpu(actor),
            actor: actors.name(actor).to_owned(),
            op: step.text.op.clone(),
            label: step.label.to_owned(),
            place: step.text.place.clone(),
            address: step.text.address,
            old: step.text.old,
            new: step.text.new,
            taken: step.taken.clone(),
            since: since.map(|from| from as u32 + 1),
            judgement: step.local,
            note: note.join(": "),
        }
    }

    /// Where what ends here began.
    fn since(&self, at: usize) -> Option<usize> {
        let number = self.steps[at].text.ends?;
        (0..at).rev().find(|from| self.steps[*from].text.begins == Some(number))
    }

    /// What it is that took effect in two steps. Of an old value: which store it missed.
    fn words(&self, from: usize, at: usize) -> String {
        let step = &self.steps[at];
        let Some((place, word)) = step.text.instead else { return format!("waited since step {}", from + 1) };
        // It may be older than the early load, which then went through a stale translation.
        let missed = (0..at).rev().find(|n| {
            let other = &self.steps[*n];
            let there = other.text.address == Some(place) || (place == 0 && other.text.place == step.text.place);
            other.actor != step.actor && other.text.new == Some(word) && there
        });
        let missed = match missed {
            Some(n) => format!("it missed the store of step {}", n + 1),
            None => format!("now there is {word:#x} at {place:#x}"),
        };
        match step.text.old == Some(word) {
            true => format!("loaded early, in step {}", from + 1),
            false => format!("old, loaded early in step {}, since when nothing orders it: {missed}", from + 1),
        }
    }

    pub fn segments<M: Model, A: Actors<M>>(&self, actors: &A) -> Vec<Segment> {
        let counted: Vec<&Step> = self.steps.iter().filter(|s| !s.local).collect();
        counted
            .chunk_by(|a, b| a.actor == b.actor)
            .map(|run| segment(actors.name(usize::from(run[0].actor)), run))
            .collect()
    }
}

/// Consecutive operations of one actor.
fn segment(actor: &str, run: &[&Step]) -> Segment {
    let mut named: BTreeMap<(&str, &str, &str), u32> = BTreeMap::new();
    let mut alternatives = Vec::new();
    let mut until = Point { op: String::new(), label: String::new(), place: String::new(), nth: 0 };
    for (at, step) in run.iter().enumerate() {
        let nth = named.entry((&step.text.op, step.label, &step.text.place)).or_default();
        *nth += 1;
        if step.taken.is_none() && at + 1 < run.len() {
            continue;
        }
        let point =
            Point { op: step.text.op.clone(), label: step.label.to_owned(), place: step.text.place.clone(), nth: *nth };
        if let Some(taken) = &step.taken {
            alternatives.push(Alternative { at: point.clone(), taken: taken.clone() });
        }
        until = point;
    }
    let observed = run.last().map_or_else(String::new, |last| format!("{:032x}", last.observed));
    Segment { actor: actor.to_owned(), until, operations: run.len() as u32, alternatives, observed }
}

fn alike(a: &Step, b: &Step) -> bool {
    a.actor == b.actor && a.text.op == b.text.op && a.label == b.label && b.broke.is_empty()
}

/// Stable name of a step: operation, kernel function, place.
pub(crate) fn joined(op: &str, label: &str, place: &str) -> String {
    [op, label, place].iter().filter(|s| !s.is_empty()).copied().collect::<Vec<_>>().join(" ")
}

/// Names of a set, `["I1", "I6"]`.
#[must_use]
pub fn names(set: InvariantSet) -> Vec<String> {
    set.iter().map(|i| i.to_string()).collect()
}
