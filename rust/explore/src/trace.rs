//! Traces: what happened, step by step, and the schedule that makes it happen again.
//!
//! A schedule is a list of segments, in actors and operations rather than in decisions of the search, so that it does
//! not depend on what the search merged. A trace carries its format, the version of the tool and a digest of the
//! scenario; `replay` says which differs.

use serde::{Deserialize, Serialize};
use vmemmap_arch::Invariant;

use crate::execution::{Actors, Merge, Runner, Step};
use crate::model::{Invariants, Model};
use crate::search::Choice;

/// The trace format that this version writes and reads.
pub const FORMAT: u32 = 1;

/// Runs of private operations longer than this are shown as one line.
const FOLD: usize = 6;

/// One operation on the machine. `old` and `new` are the word before and after, where it has one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TraceStep {
    pub step: u32,
    pub cpu: u8,
    pub actor: String,
    pub op: String,
    pub address: Option<u64>,
    pub old: Option<u64>,
    pub new: Option<u64>,
    pub note: String,
}

/// An alternative of the environment that was taken (a stale translation, a failed allocation), in a segment's nth operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Alternative {
    pub nth: u32,
    pub op: String,
    pub outcome: u16,
}

/// Run `actor` for `operations`, up to and including `last`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Segment {
    pub actor: String,
    pub operations: u32,
    /// The last operation of the segment, by name, kernel function and place.
    pub last: String,
    pub alternatives: Vec<Alternative>,
    /// Hash of everything the actor has observed in its current operation, at the end of the segment.
    pub observed: String,
}

/// What fell at the end of a trace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TraceViolation {
    pub invariant: String,
    pub actor: String,
    pub step: u32,
    pub address: Option<u64>,
    pub message: String,
}

/// A violating execution.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trace {
    pub format: u32,
    pub version: String,
    pub scenario: String,
    pub variant: String,
    pub digest: String,
    pub segments: Vec<Segment>,
    /// All operations up to the violation; long runs that nobody else can notice are folded.
    pub steps: Vec<TraceStep>,
    pub violation: TraceViolation,
    pub switches: u32,
    /// No trace with fewer context switches, or as many and fewer operations, exists.
    pub shortest: bool,
}

/// One recorded execution: its operations, and the violation it ends in.
pub(crate) struct Recording {
    pub steps: Vec<Step>,
    pub violation: TraceViolation,
}

/// Replays `choices`, moves private operations to where they are needed, and records the result.
pub(crate) fn record<M: Model, A: Actors<M>>(runner: &mut Runner<'_, M, A>, choices: &[Choice], target: Invariant) -> Option<Recording> {
    runner.inner().record = Some(Vec::new());
    let followed = runner.follow(choices, target);
    let steps = runner.inner().record.take().unwrap_or_default();
    followed?;
    let (_, blocked) = runner.enabled();
    // A ring of waiters needs only its own past; somebody whom nobody wakes, or a judgement at rest, needs everybody's. The
    // order as it was found reproduces by construction.
    let plain = steps.iter().filter(|s| !s.local).map(|s| Choice { actor: s.actor, outcome: s.outcome }).collect();
    let schedules = [postpone(&steps, target, blocked), postpone(&steps, target, u16::MAX), plain];
    let recording = schedules.iter().find_map(|schedule| run_schedule(runner, schedule, target))?;
    Some(mark_private(recording, &steps))
}

/// Every operation was a choice in the second run; which of them nobody else can notice is known from the first.
fn mark_private(mut recording: Recording, merged: &[Step]) -> Recording {
    for actor in 0..crate::model::MAX_ACTORS as u8 {
        let flags = merged.iter().filter(|s| s.actor == actor && !s.local).map(|s| s.private);
        for (step, private) in recording.steps.iter_mut().filter(|s| s.actor == actor && !s.local).zip(flags) {
            step.private = private;
        }
    }
    recording
}

/// The schedule of all operations, each private one only when its actor is next seen; at the end those of `needed` actors.
fn postpone(steps: &[Step], target: Invariant, needed: u16) -> Vec<Choice> {
    let mut pending: Vec<Vec<Choice>> = vec![Vec::new(); crate::model::MAX_ACTORS];
    let mut schedule = Vec::with_capacity(steps.len());
    for step in steps {
        let actor = usize::from(step.actor);
        if !step.local {
            pending[actor].push(Choice { actor: step.actor, outcome: step.outcome });
        }
        let fell = step.broke.contains(target);
        if !step.private || fell {
            schedule.append(&mut pending[actor]);
        }
        if fell {
            return schedule;
        }
    }
    for (_, mut rest) in pending.into_iter().enumerate().filter(|(actor, _)| needed & 1 << actor != 0) {
        schedule.append(&mut rest);
    }
    schedule
}

/// Runs a schedule in which every operation is a choice, recording.
pub(crate) fn run_schedule<M: Model, A: Actors<M>>(
    runner: &mut Runner<'_, M, A>,
    schedule: &[Choice],
    target: Invariant,
) -> Option<Recording> {
    {
        let mut inner = runner.inner();
        inner.merge = Merge::Local;
        inner.record = Some(Vec::new());
    }
    runner.start();
    for choice in schedule {
        let actor = usize::from(choice.actor);
        if runner.halted() || runner.outcomes(actor) <= choice.outcome {
            break;
        }
        runner.advance(actor, choice.outcome, crate::execution::Phase::Frontier);
        if runner.inner().violated().contains(target) {
            break;
        }
    }
    let fell = runner.inner().violated().contains(target);
    if !fell && !runner.halted() {
        runner.settle();
    }
    let mut inner = runner.inner();
    inner.merge = Merge::Private;
    let mut steps = inner.record.take().unwrap_or_default();
    if !inner.violated().contains(target) {
        return None;
    }
    if let Some(end) = steps.iter().position(|s| s.broke.contains(target)) {
        steps.truncate(end + 1);
    }
    steps.retain(|s| !s.local || !s.broke.is_empty());
    let breach = inner.breaches().into_iter().find(|b| b.invariant == target)?;
    let violation = TraceViolation {
        invariant: target.to_string(),
        actor: runner.actors().name(usize::from(breach.actor)).to_owned(),
        step: steps.len() as u32,
        address: breach.address,
        message: breach.message,
    };
    Some(Recording { steps, violation })
}

impl Recording {
    /// Operations that count (a `warn` is a judgement, not an operation).
    pub fn operations(&self) -> u32 {
        self.steps.iter().filter(|s| !s.local).count() as u32
    }

    pub fn switches(&self) -> u32 {
        self.steps.windows(2).filter(|w| w[0].actor != w[1].actor).count() as u32
    }

    /// For reading: kernel function, place and what fell beside each operation.
    pub fn trace_steps<M: Model, A: Actors<M>>(&self, actors: &A) -> Vec<TraceStep> {
        let mut shown = Vec::new();
        let mut at = 0;
        while at < self.steps.len() {
            let first = &self.steps[at];
            let run = self.steps[at..].iter().take_while(|s| alike(first, s) && s.private).count();
            let mut step = trace_step::<M, A>(actors, at, first);
            if run > FOLD {
                step.note = format!("{} (and {} more like it that nobody else can notice)", step.note, run - 1).trim_start().to_owned();
                at += run;
            } else {
                at += 1;
            }
            shown.push(step);
        }
        shown
    }

    pub fn segments<M: Model, A: Actors<M>>(&self, actors: &A) -> Vec<Segment> {
        let counted: Vec<&Step> = self.steps.iter().filter(|s| !s.local).collect();
        counted
            .chunk_by(|a, b| a.actor == b.actor)
            .map(|run| {
                let last = run[run.len() - 1];
                Segment {
                    actor: actors.name(usize::from(last.actor)).to_owned(),
                    operations: run.len() as u32,
                    last: named(last),
                    alternatives: run
                        .iter()
                        .enumerate()
                        .filter(|(_, s)| s.outcome != 0)
                        .map(|(nth, s)| Alternative { nth: nth as u32, op: named(s), outcome: s.outcome })
                        .collect(),
                    observed: format!("{:032x}", last.observed),
                }
            })
            .collect()
    }
}

fn alike(a: &Step, b: &Step) -> bool {
    a.actor == b.actor && a.text.op == b.text.op && a.label == b.label && b.broke.is_empty()
}

/// Stable name of a step: operation, kernel function, place.
pub(crate) fn named(step: &Step) -> String {
    [step.text.op.as_str(), step.label, step.text.place.as_str()].iter().filter(|s| !s.is_empty()).copied().collect::<Vec<_>>().join(" ")
}

fn trace_step<M: Model, A: Actors<M>>(actors: &A, at: usize, step: &Step) -> TraceStep {
    let mut note = Vec::new();
    if !step.label.is_empty() {
        note.push(step.label.to_owned());
    }
    if !step.text.place.is_empty() {
        note.push(step.text.place.clone());
    }
    note.extend(step.broke.iter().map(|i| format!("{i} falls: {}", i.short())));
    let actor = usize::from(step.actor);
    TraceStep {
        step: at as u32 + 1,
        cpu: actors.cpu(actor),
        actor: actors.name(actor).to_owned(),
        op: step.text.op.clone(),
        address: step.text.address,
        old: step.text.old,
        new: step.text.new,
        note: note.join(": "),
    }
}

/// Names of a set, `["I1", "I6"]`.
#[must_use]
pub fn names(set: Invariants) -> Vec<String> {
    set.iter().map(|i| i.to_string()).collect()
}
