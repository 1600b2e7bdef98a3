//! Shortest traces, their replay, and what an answer says of its coverage.

mod toy;

use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use toy::{Line, Op, Programs, Toy, random_programs};
use vmemmap_arch::Invariant;
use vmemmap_explore::check::options::{Options, Strategy};
use vmemmap_explore::check::outcome::{Outcome, Status, Verdict};
use vmemmap_explore::check::subject::Subject;
use vmemmap_explore::check::verdict::{again, ask};
use vmemmap_explore::counterexample::replay::{self, Divergence, Replayed};
use vmemmap_explore::counterexample::trace::{Trace, TraceError};
use vmemmap_explore::reduction::options::Reduction;
use vmemmap_explore::runtime::execution::Shared;
use vmemmap_explore::runtime::runner::Runner;

const I1: Invariant = Invariant::NoWalkOfFreedTable;

fn subject(programs: &Programs, judged: &[Invariant]) -> Subject {
    Subject {
        name: "toy".into(),
        variant: "only".into(),
        digest: "0123".into(),
        actors: (0..programs.0.len()).map(|i| (["a", "b", "c", "d"][i].to_owned(), 1)).collect(),
        judged: judged.to_vec(),
    }
}

fn answer(programs: &Programs, judged: &[Invariant], options: Options) -> Outcome {
    let shared = Shared::new(Toy::default());
    let mut runner = Runner::new(&shared, programs).expect("stacks");
    ask(&mut runner, &subject(programs, judged), &options, &|| false, &mut |_| {})
}

fn replayed(programs: &Programs, judged: &[Invariant], trace: &Trace, how: replay::Options) -> Replayed {
    let shared = Shared::new(Toy::default());
    let mut runner = Runner::new(&shared, programs).expect("stacks");
    again(&mut runner, &subject(programs, judged), trace, how)
}

/// Exactly; the first difference if there is one.
fn exactly(programs: &Programs, judged: &[Invariant], trace: &Trace) -> Result<(), Divergence> {
    let replayed = replayed(programs, judged, trace, replay::Options::default());
    assert_eq!(replayed.identical(), replayed.divergence.is_none());
    replayed.divergence.map_or(Ok(()), Err)
}

fn program(ops: &[Op]) -> Vec<Line> {
    ops.iter().copied().map(Line::Do).collect()
}

/// a makes word 0 odd for a moment, in between invisible work; b looks.
fn window() -> Programs {
    let a = program(&[
        Op::Write(1, 2),
        Op::Write(1, 4),
        Op::Write(0, 1),
        Op::Write(1, 6),
        Op::Write(0, 2),
        Op::Write(1, 8),
    ]);
    let b = program(&[Op::Read(2), Op::Read(2), Op::Expect(0), Op::Read(2)]);
    Programs(vec![a, b])
}

#[test]
fn the_trace_of_a_window_has_one_switch_and_no_operation_too_many() {
    let outcome = answer(&window(), &[I1], Options::default());
    assert_eq!(outcome.verdict, Verdict::Violated);
    assert!(outcome.exhaustive && outcome.shortest);
    let counterexample = &outcome.counterexamples[&I1];
    // Three writes of a up to the odd one, two reads and the look of b: the invisible write after the odd one is left
    // out.
    assert_eq!((counterexample.switches, counterexample.steps), (1, 6));
    assert_eq!(counterexample.violation.actor, "a", "the toy accuses nobody in particular");
    assert_eq!(outcome.trace.as_ref().map(|t| t.last().map(|s| s.actor.clone())), Some(Some("b".into())));
    assert_eq!(outcome.invariants[&I1], Status::Violated);
    assert_eq!(outcome.invariants[&Invariant::ContentBeforePte], Status::NotVisible);
}

#[test]
fn a_mutex_closes_the_window_and_the_answer_is_safe() {
    let mut programs = window();
    for p in &mut programs.0 {
        p.insert(0, Line::Do(Op::Lock(0)));
        p.push(Line::Do(Op::Unlock(0)));
    }
    let outcome = answer(&programs, &[I1], Options::default());
    assert_eq!(outcome.verdict, Verdict::Safe);
    assert_eq!(outcome.invariants[&I1], Status::Held);
    assert!(outcome.trace.is_none());
}

#[test]
fn what_is_violated_behind_the_first_violation_is_found_too() {
    let a = program(&[Op::Write(0, 1), Op::Write(1, 1)]);
    let b = program(&[Op::Expect(0), Op::Expect(1)]);
    let both = [I1, Invariant::AlwaysTranslates];
    let outcome = answer(&Programs(vec![a, b]), &both, Options::default());
    assert!(both.iter().all(|i| outcome.invariants[i] == Status::Violated));
    // A read that always meets an odd word before the second can: only a search past violations sees I2.
    let chained = Programs(vec![program(&[Op::Write(0, 1), Op::Expect(0), Op::Write(1, 1), Op::Expect(1)])]);
    let outcome = answer(&chained, &both, Options::default());
    assert_eq!(outcome.violation.as_ref().map(|v| v.invariant.as_str()), Some("I1"));
    assert_eq!(outcome.invariants[&Invariant::AlwaysTranslates], Status::Violated);
    assert_eq!(outcome.invariant_steps[&Invariant::AlwaysTranslates], 4);
}

/// The trace of the window's violation, through JSON.
fn window_trace() -> Trace {
    let outcome = answer(&window(), &[I1], Options::default());
    let text = serde_json::to_string(&outcome.counterexamples[&I1].trace).expect("a trace is plain data");
    Trace::parse(&text).expect("what was written can be read")
}

const TOLERANT: replay::Options = replay::Options { tolerant: true, seed: None, changed: false };

#[test]
fn a_trace_says_until_which_operation_each_actor_runs() {
    let trace = window_trace();
    let ends: Vec<(&str, &str, u32)> =
        trace.segments.iter().map(|s| (s.actor.as_str(), s.until.op.as_str(), s.until.nth)).collect();
    assert_eq!(ends, [("a", "Write(0, 1)", 1), ("b", "Expect(0)", 1)]);
    assert_eq!((trace.operations, trace.switches, trace.steps.len()), (6, 1, 6));
    assert_eq!((trace.strategy.as_str(), trace.seed, trace.bounds.rounds["a"]), ("exhaustive", None, 1));
}

#[test]
fn a_trace_runs_again_and_names_what_differs() {
    let (programs, trace) = (window(), window_trace());
    assert_eq!(exactly(&programs, &[I1], &trace), Ok(()));

    // The second operation of a is another one.
    let mut other = programs.clone();
    other.0[0][1] = Line::Do(Op::Write(2, 0));
    let differs = exactly(&other, &[I1], &trace).expect_err("it differs");
    let expected = String::from("diverged in segment 1, step 2: expected a: Write(1, 4) → 0x0, found a: Write(2, 0)");
    assert_eq!(differs.to_string(), expected);

    // The same operations, and another value read.
    let mut other = programs.clone();
    other.0[0].insert(0, Line::Do(Op::Write(2, 6)));
    let early = Trace { segments: vec![trace.segments[1].clone(), trace.segments[0].clone()], ..trace.clone() };
    assert!(Trace::parse(&serde_json::to_string(&early).expect("plain data")).is_err(), "segments and steps disagree");
    assert!(matches!(exactly(&other, &[I1], &trace), Err(Divergence::Step { segment: 1, step: 1, .. })));

    let mut stopped = programs.clone();
    stopped.0[1].truncate(1);
    let differs = exactly(&stopped, &[I1], &trace).expect_err("b is done");
    assert!(differs.to_string().ends_with("found b: nothing more to do"), "{differs}");

    let mut harmless = programs.clone();
    harmless.0[0][2] = Line::Do(Op::Write(0, 4));
    assert!(matches!(exactly(&harmless, &[I1], &trace), Err(Divergence::Step { segment: 1, step: 3, .. })));
}

#[test]
fn a_value_that_differs_is_named_though_all_operations_are_the_same() {
    let mut programs = Programs(vec![program(&[Op::Write(0, 1)]), program(&[Op::Read(0), Op::Expect(0)])]);
    let outcome = answer(&programs, &[I1], Options::default());
    let trace = outcome.counterexamples[&I1].trace.clone();
    assert_eq!(exactly(&programs, &[I1], &trace), Ok(()));
    // As it would be if the store had another value: the step that reads it says so.
    let mut changed = trace.clone();
    changed.steps[1].new = Some(7);
    let differs = exactly(&programs, &[I1], &changed).expect_err("another value");
    assert_eq!(differs.to_string(), "diverged in segment 2, step 2: expected b: Read(0) → 0x7, found b: Read(0) → 0x1");
    let mut changed = trace;
    changed.segments[1].observed = format!("{:032x}", 5);
    assert!(matches!(exactly(&programs, &[I1], &changed), Err(Divergence::Step { segment: 2, step: 3, .. })));
    programs.0.pop();
    assert!(
        exactly(&programs, &[I1], &changed).expect_err("no b").to_string().ends_with("found b: there is no such actor")
    );
}

#[test]
fn a_trace_of_something_else_is_refused_with_what_differs() {
    let (programs, trace) = (window(), window_trace());
    let wrong = Trace { digest: "4567".into(), ..trace.clone() };
    assert!(matches!(exactly(&programs, &[I1], &wrong), Err(Divergence::Scenario { .. })));
    let changed = replay::Options { changed: true, ..replay::Options::default() };
    assert!(replayed(&programs, &[I1], &wrong, changed).identical(), "unless the change is meant");
    let newer = Trace { format: 99, ..trace.clone() };
    assert_eq!(exactly(&programs, &[I1], &newer), Err(Divergence::Format { found: 99 }));
    let text = serde_json::to_string(&trace).expect("plain data");
    assert_eq!(Trace::parse(&text.replacen("\"format\":2", "\"format\":1", 1)), Err(TraceError::Format(1)));
    for cut in [0, 1, text.len() / 2, text.len() - 1] {
        assert!(matches!(Trace::parse(&text[..cut]), Err(TraceError::Json(_))), "cut at {cut}");
    }
    assert_eq!(Trace::parse("{}"), Err(TraceError::NoFormat));
}

#[test]
fn a_tolerant_replay_finds_the_same_violation_in_changed_code() {
    let (programs, trace) = (window(), window_trace());
    // More and other invisible work within the segments.
    let mut longer = programs.clone();
    longer.0[0].splice(1..1, program(&[Op::Read(1), Op::Write(1, 8), Op::Read(1)]));
    longer.0[1][0] = Line::Do(Op::Write(2, 2));
    let found = replayed(&longer, &[I1], &trace, TOLERANT);
    assert!(found.violation.is_some() && !found.identical());
    assert!(matches!(found.divergence, Some(Divergence::Step { segment: 1, step: 2, .. })));
    assert_eq!((found.resyncs.len(), found.continued, found.steps.len()), (0, 0, 9));

    // Nobody to be found: the segment is left out, and with it the violation.
    let mut closed = programs.clone();
    closed.0[0].remove(2);
    let held = replayed(&closed, &[I1], &trace, TOLERANT);
    assert!(held.violation.is_none());
    assert_eq!(held.resyncs, [replay::Resync { segment: 1, actor: "a".into(), by: None }]);
    // b had its turn; what was left of a and b went on to the end.
    assert_eq!(held.continued, 6);

    // An identical run needs none of it.
    assert!(replayed(&programs, &[I1], &trace, TOLERANT).identical());
}

#[test]
fn past_the_last_segment_a_seed_decides_and_the_same_seed_the_same() {
    // The end of a's segment is gone, b looks too early; whether it meets the window when it looks again is left to
    // chance.
    let trace = window_trace();
    let mut other = window();
    other.0[1] = program(&[Op::Read(2), Op::Read(2), Op::Expect(0), Op::Read(2), Op::Expect(0)]);
    other.0[0] = program(&[Op::Write(1, 2), Op::Write(0, 3), Op::Write(1, 6), Op::Write(0, 2), Op::Write(1, 8)]);
    let run = |seed| {
        let r = replayed(&other, &[I1], &trace, replay::Options { seed: Some(seed), ..TOLERANT });
        (r.violation.is_some(), r.steps.iter().map(|s| s.actor).collect::<Vec<_>>())
    };
    let runs: Vec<_> = (0..20).map(run).collect();
    assert_eq!(runs, (0..20).map(run).collect::<Vec<_>>());
    assert!(runs.iter().any(|r| r.0) && runs.iter().any(|r| !r.0), "20 seeds, {runs:?}");
}

#[test]
fn alternatives_are_recorded_by_what_they_are() {
    let a = vec![Line::Do(Op::Choose(3)), Line::WriteNext(0)];
    let programs = Programs(vec![a, program(&[Op::Expect(0)])]);
    // Only the choice of 0 leaves an odd word.
    let mut outcome = answer(&programs, &[I1], Options::default());
    assert_eq!(outcome.counterexamples[&I1].trace.segments[0].alternatives, []);
    // 2 + 1 is odd as well; 1 + 1 is not.
    let mut trace = outcome.counterexamples.remove(&I1).expect("it was violated").trace;
    trace.steps[0].taken = Some("alternative 2".into());
    trace.steps[0].new = Some(2);
    let differs = exactly(&programs, &[I1], &trace).expect_err("the step that stores it differs");
    assert!(matches!(differs, Divergence::Step { step: 2, .. }), "{differs}");
    trace.steps[0].taken = Some("alternative 7".into());
    let differs = exactly(&programs, &[I1], &trace).expect_err("no such alternative");
    assert!(
        differs.to_string().ends_with("found a: Choose(3), which has no alternative \"alternative 7\""),
        "{differs}"
    );
}

#[test]
fn a_trace_may_have_more_than_a_hundred_thousand_steps() {
    let mut programs = window();
    let work = vec![Line::Do(Op::Read(1)); 120_000];
    programs.0[0].splice(0..0, work);
    let outcome = answer(&programs, &[I1], Options::default());
    let counterexample = &outcome.counterexamples[&I1];
    assert_eq!((counterexample.steps, counterexample.switches, counterexample.shortest), (120_006, 1, true));
    assert!(outcome.trace.as_ref().is_some_and(|t| t.len() < 10), "folded for reading");
    let text = serde_json::to_string(&counterexample.trace).expect("plain data");
    let trace = Trace::parse(&text).expect("it is whole");
    assert_eq!((trace.segments.len(), trace.steps.len()), (2, 120_006));
    assert_eq!(exactly(&programs, &[I1], &trace), Ok(()));
    programs.0[0][110_000] = Line::Do(Op::Write(1, 0));
    assert!(matches!(exactly(&programs, &[I1], &trace), Err(Divergence::Step { segment: 1, step: 110_001, .. })));
}

#[test]
fn every_violation_of_random_programs_has_a_shortest_trace_that_runs_again() {
    let judged = [
        Invariant::NoWalkOfFreedTable,
        Invariant::AlwaysTranslates,
        Invariant::NoUseOfFreedFrame,
        Invariant::LockOrder,
    ];
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(11);
    let mut traces = 0;
    for nth in 0..450 {
        let programs = random_programs(&mut rng, 40);
        let outcome = answer(&programs, &judged, Options::default());
        let plain = answer(&programs, &judged, Options { reduction: Reduction::CACHE, ..Options::default() });
        assert_eq!(outcome.verdict, plain.verdict, "seed 11, program {nth}: {programs:?}");
        for (invariant, counterexample) in &outcome.counterexamples {
            assert!(counterexample.shortest);
            if outcome.judged.len() == 4
                && outcome.violation.as_ref().is_some_and(|v| v.invariant == invariant.to_string())
            {
                traces += 1;
                assert_eq!(
                    exactly(&programs, &judged, &counterexample.trace),
                    Ok(()),
                    "seed 11, program {nth}: {programs:?}"
                );
                let other = &plain.counterexamples[invariant];
                assert_eq!(
                    (counterexample.switches, counterexample.steps),
                    (other.switches, other.steps),
                    "seed 11, program {nth}: {invariant} {programs:?}"
                );
            }
        }
    }
    assert!(traces > 50, "only {traces} traces");
}

#[test]
fn sampling_finds_an_easy_window_and_never_says_safe() {
    for strategy in [Strategy::Random, Strategy::Pct { depth: 3 }] {
        let options = Options { strategy, executions: Some(2000), seed: 7, ..Options::default() };
        let outcome = answer(&window(), &[I1], options.clone());
        assert_eq!(outcome.verdict, Verdict::Violated, "{strategy:?}, seed 7");
        assert_eq!(outcome.seed, Some(7));
        let harmless = answer(&window(), &[Invariant::AlwaysTranslates], options);
        assert_eq!(harmless.verdict, Verdict::Inconclusive);
        assert_eq!(harmless.invariants[&Invariant::AlwaysTranslates], Status::NotJudged);
    }
}

#[test]
fn a_budget_that_is_too_small_is_inconclusive() {
    let busy = || vec![Line::Do(Op::Write(0, 2)), Line::WriteNext(1), Line::Do(Op::Read(0)), Line::WriteNext(2)];
    let programs = Programs(vec![busy(), busy(), busy()]);
    let outcome = answer(&programs, &[Invariant::LockOrder], Options { executions: Some(3), ..Options::default() });
    assert_eq!(outcome.verdict, Verdict::Inconclusive);
    assert!(!outcome.exhaustive);
    assert!(outcome.scope.bounds.contains("budget"));
}

#[test]
fn a_ring_of_waiters_is_shown_without_others_who_wait_for_it() {
    let ab = [Op::Lock(0), Op::Lock(1), Op::Unlock(1), Op::Unlock(0)];
    let ba = [Op::Expect(1), Op::Lock(1), Op::Lock(0), Op::Unlock(0), Op::Unlock(1)];
    let bystander = [Op::Expect(0), Op::Lock(1), Op::Expect(2), Op::Unlock(1)];
    let programs = Programs([&ab[..], &ba, &bystander].map(program).to_vec());
    let outcome = answer(&programs, &[Invariant::LockOrder], Options::default());
    let counterexample = &outcome.counterexamples[&Invariant::LockOrder];
    assert_eq!((counterexample.switches, counterexample.steps, counterexample.shortest), (1, 3, true));
}
