//! What is checked of a scenario: a search, its counterexamples, what lies behind a first violation; then the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use vmemmap_arch::Invariant;

use crate::check::before::Before;
use crate::check::lock_order::inversions;
use crate::check::options::{Options, Strategy};
use crate::check::outcome::{Counterexample, Covered, FirstViolation, Outcome, Scope, Status, Verdict};
use crate::check::part::Part;
use crate::check::subject::Subject;
use crate::counterexample::minimise;
use crate::counterexample::replay::{self, Replayed};
use crate::counterexample::shortest::Proof;
use crate::counterexample::trace::{Bounds, FORMAT, Trace, record};
use crate::model::{InvariantSet, Model};
use crate::reduction::options::{Fault, Fusion, Reduction};
use crate::runtime::execution::Actors;
use crate::runtime::runner::Runner;
use crate::runtime::schedule::{Cost, Found};
use crate::search::dfs::Search;
use crate::search::limits::Limits;
use crate::search::random::{Draw, sample};
use crate::search::report::{Ended, Progress, Report};

/// Transitions that a proof may take before anything was minimised.
const FEW_STATES: u64 = 20_000;

/// Work (`Inner::work`) that a search may do after its first violation, that the search behind it may do, and that
/// making the traces of one search shorter and proving them shortest may do, where no seconds are asked for: those
/// would make what a verdict lists depend on the host. A million takes less than a second.
const SETTLE_WORK: u64 = 3_000_000;
const BEHIND_WORK: u64 = 4_000_000;
const MINIMISE_WORK: u64 = 8_000_000;
const PROVE_WORK: u64 = 4_000_000;

/// Check any model with any bodies.
pub fn ask<M: Model + Clone + Send, A: Actors<M> + Sync>(
    runner: &mut Runner<'_, M, A>,
    subject: &Subject,
    options: &Options,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(Progress),
) -> Outcome {
    Check { subject, options, stop, began: Instant::now() }.answer(runner, progress)
}

/// A trace of `ask`, again.
pub fn again<M: Model, A: Actors<M>>(
    runner: &mut Runner<'_, M, A>,
    subject: &Subject,
    trace: &Trace,
    how: replay::Options,
) -> Replayed {
    replay::replay(runner, trace, &subject.digest, how)
}

fn set_of<'i>(invariants: impl Iterator<Item = &'i Invariant>) -> InvariantSet {
    invariants.fold(InvariantSet::NONE, |all, i| all.or(InvariantSet::only(*i)))
}

/// The bound of work, or none where one of time was asked for.
fn unless_timed(seconds: f64, work: u64) -> u64 {
    if seconds.is_finite() { u64::MAX } else { work }
}

struct Check<'q> {
    subject: &'q Subject,
    options: &'q Options,
    stop: &'q dyn Fn() -> bool,
    began: Instant,
}

impl Check<'_> {
    /// Seconds after the beginning, at most the budget's.
    fn at(&self, part: f64, most: f64) -> Option<Instant> {
        let budget = self.options.seconds.map(|s| s * part);
        let end = budget.unwrap_or(f64::INFINITY).min(most);
        end.is_finite().then(|| self.began + Duration::from_secs_f64(end.max(0.0)))
    }

    /// A search, and whether it was one of the over-approximation. Where the model has an over-approximation that is
    /// asked first, `known` are the invariants of which a counterexample is at hand.
    ///
    /// What does not go wrong there goes wrong nowhere. What does counts once an execution of the model itself has
    /// shown it; if one stays without, the model itself is searched. A search that is soon over, or soon finds what
    /// ends executions, needs none of this.
    fn search<M: Model + Clone + Send, A: Actors<M> + Sync>(
        &self,
        runner: &mut Runner<'_, M, A>,
        ending: InvariantSet,
        known: InvariantSet,
        limits: (Option<Instant>, u64),
        progress: &mut dyn FnMut(Progress),
    ) -> (Report, bool) {
        let sought = self.sought(runner, ending);
        let gives_way_after = self.asks_first().then_some(self.options.over_approximate_after);
        if gives_way_after != Some(0) {
            let report = self.run(runner, ending, limits, self.settle(), gives_way_after, progress);
            if !report.gave_way {
                return (report, false);
            }
        }
        let mut before = None;
        if runner.over_approximate(true) {
            // Up to a first violation, which is the model's or not: if not, nothing is gained by going on.
            let mut report = self.run(runner, ending, limits, Some(Duration::ZERO), None, progress);
            let mut confirmed = self.confirm(runner, &mut report, known);
            let waits = self.options.settle_seconds != 0.0;
            if confirmed && report.ended == Ended::Enough && report.has_found(sought) && waits {
                let (first, begun) = (report.first, Before::new(runner, report, sought));
                runner.over_approximate(true);
                report = self.run(runner, ending, limits, self.settle(), None, progress);
                confirmed = self.confirm(runner, &mut report, known);
                report = Report { first, ..begun.and_then(runner, report).0 };
            }
            // What was cut there would be cut here.
            if confirmed || matches!(report.ended, Ended::Budget | Ended::Interrupted) {
                return (report, true);
            }
            before = Some(Before::new(runner, report, sought));
        }
        let report = self.run(runner, ending, limits, self.settle(), None, progress);
        match before {
            Some(before) => before.and_then(runner, report),
            None => (report, false),
        }
    }

    /// Violations that settle the search. In a part of one they end no execution, so that what all parts find is what
    /// is violated, whichever operations stand in the tree.
    fn sought<M: Model, A: Actors<M>>(&self, runner: &Runner<'_, M, A>, ending: InvariantSet) -> InvariantSet {
        if self.is_part(runner) { self.subject.judged() } else { ending }
    }

    fn is_part<M: Model, A: Actors<M>>(&self, runner: &Runner<'_, M, A>) -> bool {
        self.options.split.is_some() || runner.prefix.is_some()
    }

    /// Whether the over-approximation is asked, where the search takes long.
    fn asks_first(&self) -> bool {
        let o = self.options;
        o.strategy == Strategy::Exhaustive
            && o.executions.is_none()
            && o.reduction.over_approximate
            && o.split.is_none()
    }

    /// Back to the model itself: of what was found in its over-approximation stays what an execution of the model
    /// shows. Whether that is all of it, or `known`.
    fn confirm<M: Model, A: Actors<M>>(
        &self,
        runner: &mut Runner<'_, M, A>,
        report: &mut Report,
        known: InvariantSet,
    ) -> bool {
        let found = std::mem::take(&mut report.found);
        let prefixes: Vec<_> = found.into_iter().map(|(i, found)| (i, runner.prefix_of(&found.choices))).collect();
        runner.over_approximate(false);
        let mut confirmed = true;
        for (invariant, prefix) in prefixes {
            let choices = runner.retrace(&prefix);
            let mut shown = runner.follow(&choices, invariant);
            if self.options.reduction.fault == Fault::Unconfirmed {
                shown.get_or_insert(Found { choices, cost: Cost { switches: 0, steps: 0 } });
            }
            confirmed &= shown.is_some() || known.contains(invariant);
            report.found.extend(shown.map(|shown| (invariant, shown)));
        }
        confirmed
    }

    fn settle(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.options.settle_seconds).ok()
    }

    fn run<M: Model + Clone + Send, A: Actors<M> + Sync>(
        &self,
        runner: &mut Runner<'_, M, A>,
        ending: InvariantSet,
        (deadline, work): (Option<Instant>, u64),
        settle: Option<Duration>,
        gives_way_after: Option<u64>,
        progress: &mut dyn FnMut(Progress),
    ) -> Report {
        let work = runner.work().saturating_add(work);
        // A part is its own search behind the first violation.
        let settle_work = SETTLE_WORK + if self.is_part(runner) { BEHIND_WORK } else { 0 };
        let mut limits = Limits {
            executions: self.options.executions.unwrap_or(u64::MAX),
            deadline,
            work,
            settle,
            settle_work: unless_timed(self.options.settle_seconds, settle_work),
            states: self.options.states,
            stop: self.stop,
            progress,
        };
        let draw = match self.options.strategy {
            Strategy::Exhaustive => {
                let split = self.options.split;
                // What is learned of conflicts would change what an operation of a prefix is.
                let fusion = split.map_or(self.options.reduction.fusion, |_| Fusion::Local);
                let reduction = Reduction { fusion, ..self.options.reduction };
                // A tree is of no use with prefixes missing.
                let sought = if split.is_some() { InvariantSet::NONE } else { self.sought(runner, ending) };
                return Search::new(runner, reduction, &mut |_| {})
                    .seeking(sought)
                    .to_depth(split.map(|depth| depth as usize))
                    .giving_way_after(gives_way_after)
                    .with_workers(self.options.workers)
                    .branching_after(self.options.branches_after)
                    .run(ending, self.options.step_bound, &mut limits);
            }
            Strategy::Random => Draw::Uniform,
            Strategy::Pct { depth } => Draw::Pct { depth },
        };
        sample(runner, draw, self.options.seed, ending, self.options.step_bound, &mut limits)
    }

    fn answer<M: Model + Clone + Send, A: Actors<M> + Sync>(
        &self,
        runner: &mut Runner<'_, M, A>,
        progress: &mut dyn FnMut(Progress),
    ) -> Outcome {
        let judged = self.subject.judged();
        let limits = (self.at(0.8, f64::INFINITY), u64::MAX);
        let ending = if self.is_part(runner) { InvariantSet::NONE } else { judged };
        let (mut report, beside) = self.search(runner, ending, InvariantSet::NONE, limits, progress);
        let part = match (&runner.prefix, self.options.split) {
            (Some(prefix), _) => Some(Part::Behind(prefix.clone())),
            (None, Some(_)) => Some(Part::Tree(std::mem::take(&mut report.prefixes))),
            (None, None) => None,
        };
        if part.is_some() {
            report.found = runner.leave_prefix(report.found);
        }
        let visible = runner.inner().model.visible();
        let mut counterexamples = self.counterexamples(runner, ending, &report, part.is_none(), progress);
        let violated = report.has_found(judged);
        let exhaustive = report.exhaustive();
        // A violation ends its execution: whether anything else holds is only known once what lies behind was searched
        // as well.
        let (mut seen_all, mut behind) = (exhaustive && !violated && part.is_none(), InvariantSet::NONE);
        let looks_behind =
            self.options.strategy == Strategy::Exhaustive && self.options.shorten_seconds != 0.0 && part.is_none();
        if violated && report.ended != Ended::Interrupted && looks_behind {
            let (all, found) = self.beyond(runner, beside, &mut counterexamples, progress);
            (seen_all, behind) = (all && exhaustive, found);
        }
        let covered = match (exhaustive && part.is_none(), seen_all) {
            (false, _) => Covered::Part,
            (true, false) => Covered::ToFirstViolation,
            (true, true) => Covered::Whole,
        };
        let verdict = match (violated, exhaustive) {
            (true, _) => Verdict::Violated,
            // A part decides nothing by itself.
            (false, true) if part.is_none() => Verdict::Safe,
            (false, _) => Verdict::Inconclusive,
        };
        let status = |i: Invariant| {
            if counterexamples.contains_key(&i) || report.found.contains_key(&i) || behind.contains(i) {
                Status::Violated
            } else if !visible.contains(i) {
                Status::NotVisible
            } else if seen_all && (judged.contains(i) || i == Invariant::BreakBeforeMake) {
                Status::Held
            } else {
                Status::NotJudged
            }
        };
        let invariants = Invariant::ALL.into_iter().map(|i| (i, status(i))).collect();
        let first = counterexamples
            .iter()
            .filter(|(i, _)| judged.contains(**i) && report.found.contains_key(i))
            .min_by_key(|(i, w)| (w.switches, w.steps, **i))
            .map(|(_, w)| w.clone());
        let lock_order = inversions(runner);
        Outcome {
            scenario: self.subject.name.clone(),
            variant: self.subject.variant.clone(),
            digest: self.subject.digest.clone(),
            verdict,
            exhaustive,
            interrupted: report.ended == Ended::Interrupted,
            executions: report.executions,
            steps: report.steps,
            states: (self.options.strategy == Strategy::Exhaustive).then_some(report.states),
            seconds: self.began.elapsed().as_secs_f64(),
            seed: (self.options.strategy != Strategy::Exhaustive).then_some(self.options.seed),
            judged: crate::counterexample::trace::names(judged),
            invariants,
            invariant_steps: counterexamples.iter().map(|(i, w)| (*i, w.steps)).collect(),
            scope: self.scope(&runner.inner().model.memory_model(), (&report, beside), covered, part.as_ref()),
            violation: first.as_ref().map(|w| w.violation.clone()),
            trace: first.as_ref().map(|w| w.shown.clone()),
            shortest: first.as_ref().is_some_and(|w| w.shortest),
            switches: first.as_ref().map(|w| w.switches),
            counterexamples,
            iterations: report.iterations,
            workers: report.workers,
            first_violation: report
                .first
                .map(|(executions, after)| FirstViolation { executions, seconds: after.as_secs_f64() }),
            interleavings: report.interleavings,
            lock_order,
            part,
        }
    }

    /// Minimised, then proven shortest as far as the budget goes, if all of the search is known.
    fn counterexamples<M: Model, A: Actors<M>>(
        &self,
        runner: &mut Runner<'_, M, A>,
        ending: InvariantSet,
        report: &Report,
        all_known: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> BTreeMap<Invariant, Counterexample> {
        runner.inner().ending = ending;
        let stop_at = self.at(1.0, self.began.elapsed().as_secs_f64() + self.options.shorten_seconds);
        let over = || (self.stop)() || stop_at.is_some_and(|end| Instant::now() >= end);
        let mut found = report.found.clone();
        let as_found = self.options.shorten_seconds == 0.0;
        let timed = self.options.shorten_seconds;
        let mut proof = Proof::default();
        let mut proving = unless_timed(timed, PROVE_WORK);
        let mut prove = |runner: &mut Runner<'_, M, A>, found: &mut BTreeMap<Invariant, Found>, executions| {
            let states = self.options.states / 4;
            let begun = runner.work();
            let mut limits = Limits {
                executions,
                deadline: stop_at,
                work: begun.saturating_add(proving),
                settle: None,
                settle_work: u64::MAX,
                states,
                stop: self.stop,
                progress,
            };
            if found.is_empty() || as_found || !all_known {
                return BTreeSet::new();
            }
            let proven = proof.go_on(runner, found, &mut limits);
            proving = proving.saturating_sub(runner.work() - begun);
            proven
        };
        // Where there are few states the proof finds the shortest traces itself; elsewhere it needs short ones to begin
        // with.
        let mut proven = prove(runner, &mut found, FEW_STATES);
        let mut minimal = proven.clone();
        if proven.len() < found.len() {
            let work = runner.work().saturating_add(unless_timed(timed, MINIMISE_WORK));
            for (invariant, longer) in found.iter_mut().filter(|(i, _)| !proven.contains(i)) {
                let done;
                (*longer, done) = minimise::minimise(runner, *invariant, longer, work, &over);
                minimal.extend(done.then_some(*invariant));
            }
            proven.extend(prove(runner, &mut found, u64::MAX));
            minimal.extend(&proven);
        }
        let mut counterexamples = BTreeMap::new();
        for (invariant, found) in &found {
            if let Some(counterexample) =
                self.counterexample(runner, *invariant, found, proven.contains(invariant), minimal.contains(invariant))
            {
                counterexamples.insert(*invariant, counterexample);
            }
        }
        counterexamples
    }

    /// What else is violated behind a first violation, which ends executions in the search itself; whether all of it
    /// was seen, and what was.
    fn beyond<M: Model + Clone + Send, A: Actors<M> + Sync>(
        &self,
        runner: &mut Runner<'_, M, A>,
        beside: bool,
        counterexamples: &mut BTreeMap<Invariant, Counterexample>,
        progress: &mut dyn FnMut(Progress),
    ) -> (bool, InvariantSet) {
        let spent = self.began.elapsed().as_secs_f64();
        let deadline = self.at(1.0, spent + self.options.shorten_seconds);
        let work = unless_timed(self.options.shorten_seconds, BEHIND_WORK);
        let known = set_of(counterexamples.keys());
        // Where one of the two has been searched, it is known who meets whom.
        let report = if beside {
            self.search(runner, InvariantSet::NONE, known, (deadline, work), progress).0
        } else {
            self.run(runner, InvariantSet::NONE, (deadline, work), None, None, progress)
        };
        let (seen_all, found) = (report.exhaustive(), set_of(report.found.keys()));
        let more = Report {
            found: report.found.into_iter().filter(|(i, _)| !counterexamples.contains_key(i)).collect(),
            ..Report::new()
        };
        counterexamples.extend(self.counterexamples(runner, InvariantSet::NONE, &more, true, progress));
        (seen_all, found)
    }

    fn counterexample<M: Model, A: Actors<M>>(
        &self,
        runner: &mut Runner<'_, M, A>,
        invariant: Invariant,
        found: &Found,
        shortest: bool,
        minimal: bool,
    ) -> Option<Counterexample> {
        let (recording, violation) = record(runner, &found.choices, invariant).or_else(|| {
            // Of every operation (`Runner::leave_prefix`).
            runner.inner().fusion = Fusion::Local;
            let recorded = record(runner, &found.choices, invariant);
            runner.inner().fusion = Fusion::Invisible;
            recorded
        })?;
        let trace = Trace {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: self.subject.name.clone(),
            variant: self.subject.variant.clone(),
            digest: self.subject.digest.clone(),
            policies: BTreeMap::new(),
            strategy: self.strategy(),
            seed: (self.options.strategy != Strategy::Exhaustive).then_some(self.options.seed),
            memory_model: runner.inner().model.memory_model(),
            bounds: Bounds { rounds: self.rounds(), step_bound: self.options.step_bound },
            violation: violation.clone(),
            operations: recording.operations(),
            switches: recording.switches(),
            shortest,
            document: serde_json::Value::Null,
            segments: recording.segments::<M, A>(runner.actors()),
            steps: recording.trace_steps::<M, A>(runner.actors()),
        };
        Some(Counterexample {
            violation,
            steps: recording.operations(),
            switches: recording.switches(),
            shortest,
            minimal,
            shown: recording.folded_steps::<M, A>(runner.actors()),
            trace,
            pasts: runner.inner().pasts.clone(),
        })
    }

    fn scope(
        &self,
        memory_model: &str,
        (report, beside): (&Report, bool),
        covered: Covered,
        part: Option<&Part>,
    ) -> Scope {
        let mut bounds = Vec::new();
        bounds.extend(part.map(|part| part.bounds(self.options.split)));
        match report.ended {
            Ended::Exhausted => {}
            Ended::Budget | Ended::Enough if beside => {
                bounds.push(String::from("budget used up in the over-approximation, which is asked first"));
            }
            Ended::Budget | Ended::Enough => bounds.push(String::from("budget used up")),
            Ended::Interrupted => bounds.push(String::from("interrupted")),
        }
        if covered == Covered::ToFirstViolation {
            bounds.push(String::from("behind the first violation of an execution not all was searched"));
        }
        if report.overflowed {
            bounds.push(format!(
                "a bound was exceeded (of the model, or {} operations of one actor)",
                self.options.step_bound
            ));
        }
        Scope {
            memory_model: memory_model.to_owned(),
            actors: self.subject.actors.iter().map(|(name, _)| name.clone()).collect(),
            rounds: self.rounds(),
            strategy: self.strategy(),
            covered,
            bounds: bounds.join(", "),
        }
    }

    fn rounds(&self) -> BTreeMap<String, u32> {
        self.subject.actors.iter().cloned().collect()
    }

    fn strategy(&self) -> String {
        match self.options.strategy {
            Strategy::Exhaustive => String::from("exhaustive"),
            Strategy::Random => String::from("random"),
            Strategy::Pct { depth } => format!("pct of depth {depth}"),
        }
    }
}
