//! The same execution again, from the segments of a trace: exactly, with the first difference named, or as near to it
//! as other code allows.

use std::collections::HashMap;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::Serialize;
use thiserror::Error;
use vmemmap_arch::Invariant;

use crate::counterexample::trace::{FORMAT, Segment, Trace, TraceStep, TraceViolation, joined, violation_of};
use crate::model::{InvariantSet, Model};
use crate::reduction::options::Fusion;
use crate::runtime::actor::Step;
use crate::runtime::execution::{Actors, Phase};
use crate::runtime::runner::Runner;
use crate::runtime::schedule::{Choice, goes_on};

/// Operations of one actor in a replay, over those of the trace.
const BOUND: u32 = 1_000_000;

/// Why a trace does not run again as recorded.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Divergence {
    #[error("trace format {found}, this version reads format {FORMAT}")]
    Format { found: u32 },
    #[error("the trace belongs to scenario digest {expected}, this one is {found}")]
    Scenario { expected: String, found: String },
    #[error("diverged in segment {segment}, step {step}: expected {expected}, found {found}")]
    Step { segment: usize, step: u32, expected: String, found: String },
    #[error("{expected} was not violated; the trace ran to its end")]
    Held { expected: String },
}

/// How to replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Past the first difference, resynchronise.
    pub tolerant: bool,
    /// Of the scheduler that goes on after the last segment; `None`: whoever went last, else the first that can.
    pub seed: Option<u64>,
    /// The document was changed on purpose: its digest need not be the trace's.
    pub changed: bool,
}

/// How a segment was followed that did not run as recorded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Resync {
    pub segment: usize,
    pub actor: String,
    /// By what its end was found again; `None`: it was left out.
    pub by: Option<&'static str>,
}

/// What came of a replay.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Operations as they executed, up to the violation.
    pub steps: Vec<Step>,
    /// The trace's invariant was violated again.
    pub violation: Option<TraceViolation>,
    pub divergence: Option<Divergence>,
    pub resyncs: Vec<Resync>,
    /// Operations after the last segment.
    pub continued: u32,
}

impl Replayed {
    #[must_use]
    pub const fn identical(&self) -> bool {
        self.divergence.is_none() && self.violation.is_some()
    }
}

/// Replays a trace on a scenario with that digest. Segments and steps in `Divergence` and `Resync` count from 1.
pub(crate) fn replay<M: Model, A: Actors<M>>(
    runner: &mut Runner<'_, M, A>,
    trace: &Trace,
    digest: &str,
    how: Options,
) -> Replayed {
    let refused = |divergence| Replayed { divergence: Some(divergence), ..Replayed::default() };
    if trace.format != FORMAT {
        return refused(Divergence::Format { found: trace.format });
    }
    if trace.digest != digest && !how.changed {
        return refused(Divergence::Scenario { expected: trace.digest.clone(), found: digest.to_owned() });
    }
    let target =
        trace.violation.invariant.strip_prefix('I').and_then(|n| n.parse().ok()).and_then(Invariant::from_number);
    let Some(target) = target else { return refused(Divergence::Held { expected: trace.violation.invariant.clone() }) };
    let mut again = Again { runner, target, bound: trace.operations.saturating_add(BOUND), schedule: Vec::new() };
    let divergence = again.exact(trace).err();
    if divergence.is_none() || !how.tolerant {
        return Replayed { divergence, ..again.end() };
    }
    let resyncs = again.tolerant(trace);
    let continued = again.go_on(how.seed);
    again.record();
    Replayed { divergence, resyncs, continued, ..again.end() }
}

/// By what the end of a segment is found again, from the most to the least telling.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Whole,
    FunctionAndPlace,
    OperationAndPlace,
    OperationAndFunction,
}

impl Key {
    const ALL: [Key; 4] = [Key::Whole, Key::FunctionAndPlace, Key::OperationAndPlace, Key::OperationAndFunction];

    const fn name(self) -> &'static str {
        match self {
            Key::Whole => "operation, function and place",
            Key::FunctionAndPlace => "function and place",
            Key::OperationAndPlace => "operation and place",
            Key::OperationAndFunction => "operation and function",
        }
    }

    fn meets(self, a: Name<'_>, b: Name<'_>) -> bool {
        let (op, label, place) = (a.0 == b.0, a.1 == b.1, a.2 == b.2);
        match self {
            Key::Whole => op && label && place,
            Key::FunctionAndPlace => label && place && !a.2.is_empty(),
            Key::OperationAndPlace => op && place && !a.2.is_empty(),
            Key::OperationAndFunction => op && label,
        }
    }
}

/// Operation, kernel function, place.
type Name<'a> = (&'a str, &'a str, &'a str);

fn name_of(step: &TraceStep) -> Name<'_> {
    (&step.op, &step.label, &step.place)
}

struct Again<'r, 'env, M: Model, A: Actors<M>> {
    runner: &'r mut Runner<'env, M, A>,
    target: Invariant,
    bound: u32,
    schedule: Vec<Choice>,
}

impl<M: Model, A: Actors<M>> Again<'_, '_, M, A> {
    /// From the beginning; every operation is a choice.
    fn begin(&mut self, recording: bool) {
        {
            let mut inner = self.runner.inner();
            inner.fusion = Fusion::Local;
            inner.record = recording.then(Vec::new);
            inner.step_bound = self.bound;
            // A trace may lead past the violation of another invariant.
            inner.ending = InvariantSet::only(self.target);
        }
        self.runner.start();
    }

    fn violated(&self) -> bool {
        self.runner.inner().violated().contains(self.target)
    }

    fn actor(&self, name: &str) -> Option<usize> {
        (0..self.runner.count()).find(|a| self.runner.actors().name(*a) == name)
    }

    /// The operation that the actor is about to do; `None` if it is done.
    fn next(&self, actor: usize) -> Option<(String, &'static str, String)> {
        let inner = self.runner.inner();
        let op = inner.actors[actor].pending?;
        let text = inner.model.describe(actor as u8, &op);
        Some((text.op, inner.actors[actor].label, text.place))
    }

    /// The outcome of the pending operation that is `taken`, if there is one.
    fn outcome(&self, actor: usize, taken: &str) -> Option<u16> {
        let outcomes = self.runner.outcomes(actor);
        let mut inner = self.runner.inner();
        let op = inner.actors[actor].pending?;
        let known = (1..outcomes).find(|outcome| inner.model.alternative(actor as u8, &op, *outcome) == taken);
        // As traces had it that were written before stores that wait were named.
        known.or_else(|| (1..outcomes).find(|outcome| format!("choice {outcome} of {outcomes}") == taken))
    }

    /// Lets the pending operation execute; its place in the record.
    fn go(&mut self, actor: usize, outcome: u16) -> usize {
        let at = self.runner.inner().record.as_ref().map_or(0, Vec::len);
        self.runner.advance(actor, outcome, Phase::Frontier);
        self.schedule.push(Choice { actor: actor as u8, outcome });
        at
    }

    /// Compares as it goes: before each operation its name, after it the words.
    fn exact(&mut self, trace: &Trace) -> Result<(), Divergence> {
        self.begin(true);
        let mut steps = trace.steps.iter().filter(|s| !s.judgement);
        for (at, segment) in trace.segments.iter().enumerate() {
            for nth in 0..segment.operations {
                let Some(expected) = steps.next() else { break };
                let differs = |found: String| Divergence::Step {
                    segment: at + 1,
                    step: expected.step,
                    expected: reported(&segment.actor, expected),
                    found: format!("{}: {found}", segment.actor),
                };
                let actor =
                    self.actor(&segment.actor).ok_or_else(|| differs(String::from("there is no such actor")))?;
                self.step(actor, expected).map_err(differs)?;
                if nth + 1 == segment.operations && format!("{:032x}", self.observed(actor)) != segment.observed {
                    return Err(differs(String::from("the same operation after other observations")));
                }
            }
        }
        if !self.runner.halted() && !self.violated() {
            self.runner.judge_end();
        }
        if self.violated() { Ok(()) } else { Err(Divergence::Held { expected: trace.violation.invariant.clone() }) }
    }

    /// One step as recorded; else what was found instead.
    fn step(&mut self, actor: usize, expected: &TraceStep) -> Result<(), String> {
        if self.runner.halted() {
            let why = if self.violated() {
                format!("{} has been violated already", self.target)
            } else {
                String::from("too many operations")
            };
            return Err(why);
        }
        let Some((op, label, place)) = self.next(actor) else { return Err(String::from("nothing more to do")) };
        let name = joined(&op, label, &place);
        if (op.as_str(), label, place.as_str()) != name_of(expected) {
            return Err(name);
        }
        if self.runner.outcomes(actor) == 0 {
            return Err(format!("{name}, which has to wait"));
        }
        let outcome = match &expected.taken {
            None => 0,
            Some(taken) => {
                self.outcome(actor, taken).ok_or_else(|| format!("{name}, which has no alternative {taken:?}"))?
            }
        };
        let at = self.go(actor, outcome);
        let inner = self.runner.inner();
        let Some(done) = inner.record.as_ref().and_then(|r| r.get(at)) else {
            return Err(String::from("nothing executed"));
        };
        if (done.text.old, done.text.new) != (expected.old, expected.new) {
            return Err(format!("{name}{}", words(done.text.old, done.text.new)));
        }
        Ok(())
    }

    fn observed(&self, actor: usize) -> u128 {
        self.runner
            .inner()
            .record
            .iter()
            .flatten()
            .rfind(|s| !s.local && usize::from(s.actor) == actor)
            .map_or(0, |s| s.observed)
    }

    /// Follows each segment to its end by name; one whose end cannot be reached is left out.
    fn tolerant(&mut self, trace: &Trace) -> Vec<Resync> {
        self.schedule.clear();
        self.begin(false);
        let mut resyncs = Vec::new();
        let mut steps = trace.steps.iter().filter(|s| !s.judgement);
        for (at, segment) in trace.segments.iter().enumerate() {
            let recorded: Vec<&TraceStep> = steps.by_ref().take(segment.operations as usize).collect();
            if self.runner.halted() || self.violated() {
                break;
            }
            let by = self.actor(&segment.actor).and_then(|actor| self.follow(actor, segment, &recorded));
            if by != Some(Key::Whole) {
                resyncs.push(Resync { segment: at + 1, actor: segment.actor.clone(), by: by.map(Key::name) });
            }
        }
        resyncs
    }

    /// The actor up to the segment's end, by the first key that leads there.
    fn follow(&mut self, actor: usize, segment: &Segment, recorded: &[&TraceStep]) -> Option<Key> {
        let until = &segment.until;
        let end: Name<'_> = (&until.op, &until.label, &until.place);
        let before = self.schedule.len();
        for key in Key::ALL {
            let wanted = match key {
                Key::Whole => until.nth as usize,
                _ => recorded.iter().filter(|s| key.meets(end, name_of(s))).count(),
            };
            if wanted != 0 && self.run_to(actor, segment, |name| key.meets(end, name), wanted) {
                return Some(key);
            }
            self.rewind(before);
        }
        None
    }

    fn run_to(
        &mut self,
        actor: usize,
        segment: &Segment,
        is_end: impl Fn(Name<'_>) -> bool,
        mut wanted: usize,
    ) -> bool {
        let mut seen: HashMap<(String, &'static str, String), u32> = HashMap::new();
        while wanted != 0 {
            if self.violated() {
                return true;
            }
            let Some((op, label, place)) = self.next(actor).filter(|_| !self.runner.halted()) else { return false };
            if self.runner.outcomes(actor) == 0 {
                return false;
            }
            wanted -= usize::from(is_end((&op, label, &place)));
            let mut outcome = 0;
            if segment.alternatives.iter().any(|a| a.at.op == op && a.at.label == label && a.at.place == place) {
                let nth = seen.entry((op.clone(), label, place.clone())).or_default();
                *nth += 1;
                let here = |a: &&crate::counterexample::trace::Alternative| {
                    (a.at.op.as_str(), a.at.label.as_str(), a.at.place.as_str(), a.at.nth) == (&op, label, &place, *nth)
                };
                outcome =
                    segment.alternatives.iter().find(here).and_then(|a| self.outcome(actor, &a.taken)).unwrap_or(0);
            }
            self.go(actor, outcome);
        }
        true
    }

    /// Back to the state after so many choices.
    fn rewind(&mut self, choices: usize) {
        if self.schedule.len() == choices {
            return;
        }
        self.schedule.truncate(choices);
        self.rerun(false);
    }

    fn rerun(&mut self, recording: bool) {
        self.begin(recording);
        for choice in std::mem::take(&mut self.schedule) {
            self.go(usize::from(choice.actor), choice.outcome);
        }
    }

    /// What was found by trial, once more for the record.
    fn record(&mut self) {
        self.rerun(true);
        if !self.violated() && !self.runner.halted() {
            self.runner.judge_end();
        }
    }

    /// Past the last segment, until the target is violated or nobody can go; how many operations.
    fn go_on(&mut self, seed: Option<u64>) -> u32 {
        let mut rng = seed.map(Xoshiro256PlusPlus::seed_from_u64);
        let mut went = 0;
        loop {
            if self.violated() || self.runner.halted() || self.runner.judge_end() {
                return went;
            }
            let (enabled, _) = self.runner.enabled();
            let choice = match &mut rng {
                Some(rng) => {
                    let nth = rng.random_range(0..enabled.count_ones()) as usize;
                    let actor = (0..self.runner.count()).filter(|a| enabled & 1 << a != 0).nth(nth).unwrap_or(0);
                    Choice { actor: actor as u8, outcome: rng.random_range(0..self.runner.outcomes(actor).max(1)) }
                }
                None => Choice { actor: goes_on(enabled, self.schedule.last().map(|c| c.actor)), outcome: 0 },
            };
            self.go(usize::from(choice.actor), choice.outcome);
            went += 1;
        }
    }

    /// What was recorded, up to the violation.
    fn end(self) -> Replayed {
        let mut inner = self.runner.inner();
        inner.fusion = Fusion::Invisible;
        let mut steps = inner.record.take().unwrap_or_default();
        if let Some(end) = steps.iter().position(|s| s.broke.contains(self.target)) {
            steps.truncate(end + 1);
        }
        steps.retain(|s| !s.local || !s.broke.is_empty());
        let violation = violation_of(&inner, self.runner.actors(), self.target, steps.len() as u32);
        Replayed { steps, violation, ..Replayed::default() }
    }
}

fn reported(actor: &str, step: &TraceStep) -> String {
    let taken = step.taken.as_ref().map_or_else(String::new, |t| format!(", {t}"));
    format!("{actor}: {}{}{taken}", joined(&step.op, &step.label, &step.place), words(step.old, step.new))
}

fn words(old: Option<u64>, new: Option<u64>) -> String {
    match (old, new) {
        (Some(old), Some(new)) => format!(" {old:#x} → {new:#x}"),
        (Some(word), None) => format!(" = {word:#x}"),
        (None, Some(word)) => format!(" → {word:#x}"),
        (None, None) => String::new(),
    }
}
