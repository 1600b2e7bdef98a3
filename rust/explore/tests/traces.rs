//! Shortest traces, their replay, and what an answer says of its coverage.

mod toy;

use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use toy::{Line, Op, Programs, Toy, random_programs};
use vmemmap_arch::Invariant;
use vmemmap_explore::execution::{Runner, Shared};
use vmemmap_explore::replay::Divergence;
use vmemmap_explore::scenario::{Actor, Scenario};
use vmemmap_explore::search::Reduction;
use vmemmap_explore::trace::Trace;
use vmemmap_explore::verdict::{Options, Outcome, Status, Strategy, Verdict, again, ask};
use vmemmap_machine::model::Context;

const I1: Invariant = Invariant::NoWalkOfFreedTable;

fn scenario(programs: &Programs, judged: &[Invariant]) -> Scenario {
    let actor = |i: usize| Actor {
        name: ["a", "b", "c", "d"][i].into(),
        cpu: i as u8,
        rounds: 1,
        program: Vec::new(),
        context: Context::Task,
        line: None,
    };
    Scenario {
        name: "toy".into(),
        variant: "only".into(),
        digest: "0123".into(),
        actors: (0..programs.0.len()).map(actor).collect(),
        judged: judged.to_vec(),
    }
}

fn answer(programs: &Programs, judged: &[Invariant], options: Options) -> Outcome {
    let shared = Shared::new(Toy::default());
    let mut runner = Runner::new(&shared, programs).expect("stacks");
    ask(&mut runner, &scenario(programs, judged), &options, &|| false, &mut |_| {})
}

fn replayed(programs: &Programs, judged: &[Invariant], trace: &Trace) -> Result<(), Divergence> {
    let shared = Shared::new(Toy::default());
    let mut runner = Runner::new(&shared, programs).expect("stacks");
    again(&mut runner, &scenario(programs, judged), trace).map(|_| ())
}

fn program(ops: &[Op]) -> Vec<Line> {
    ops.iter().copied().map(Line::Do).collect()
}

/// a makes word 0 odd for a moment, in between private work; b looks.
fn window() -> Programs {
    let a = program(&[Op::Write(1, 2), Op::Write(1, 4), Op::Write(0, 1), Op::Write(1, 6), Op::Write(0, 2), Op::Write(1, 8)]);
    let b = program(&[Op::Read(2), Op::Read(2), Op::Expect(0), Op::Read(2)]);
    Programs(vec![a, b])
}

#[test]
fn the_trace_of_a_window_has_one_switch_and_no_operation_too_many() {
    let outcome = answer(&window(), &[I1], Options::default());
    assert_eq!(outcome.verdict, Verdict::Violated);
    assert!(outcome.exhaustive && outcome.shortest);
    let witness = &outcome.witnesses[&I1];
    // Three writes of a up to the odd one, two reads and the look of b: the private write after the odd one is left out.
    assert_eq!((witness.switches, witness.steps), (1, 6));
    assert_eq!(witness.violation.actor, "a", "the toy accuses nobody in particular");
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
fn what_falls_behind_the_first_violation_is_found_too() {
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

#[test]
fn a_trace_runs_again_through_json_and_names_what_differs() {
    let programs = window();
    let outcome = answer(&programs, &[I1], Options::default());
    let text = serde_json::to_string(&outcome.witnesses[&I1].trace).expect("a trace is plain data");
    let trace: Trace = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(replayed(&programs, &[I1], &trace), Ok(()));

    let mut other = programs.clone();
    other.0[1][0] = Line::Do(Op::Read(1));
    other.0[0][1] = Line::Do(Op::Write(2, 0));
    assert!(
        matches!(replayed(&other, &[I1], &trace), Err(Divergence::Step { .. } | Divergence::Held { .. }))
            || replayed(&other, &[I1], &trace).is_ok()
    );
    let mut stopped = programs.clone();
    stopped.0[1].remove(2);
    assert!(matches!(replayed(&stopped, &[I1], &trace), Err(Divergence::Step { segment: 1, .. })));
    let wrong = Trace { digest: "4567".into(), ..trace.clone() };
    assert!(matches!(replayed(&programs, &[I1], &wrong), Err(Divergence::Scenario { .. })));
    let newer = Trace { format: 99, ..trace };
    assert_eq!(replayed(&programs, &[I1], &newer), Err(Divergence::Format { found: 99 }));
}

#[test]
fn every_violation_of_random_programs_has_a_shortest_trace_that_runs_again() {
    let judged = [Invariant::NoWalkOfFreedTable, Invariant::AlwaysTranslates, Invariant::NoUseOfFreedFrame, Invariant::LockOrder];
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(11);
    let mut traces = 0;
    for nth in 0..300 {
        let programs = random_programs(&mut rng, 40);
        let outcome = answer(&programs, &judged, Options::default());
        let plain = answer(&programs, &judged, Options { reduction: Reduction::CACHE, ..Options::default() });
        assert_eq!(outcome.verdict, plain.verdict, "seed 11, program {nth}: {programs:?}");
        for (invariant, witness) in &outcome.witnesses {
            assert!(witness.shortest);
            if outcome.judged.len() == 4 && outcome.violation.as_ref().is_some_and(|v| v.invariant == invariant.to_string()) {
                traces += 1;
                assert_eq!(replayed(&programs, &judged, &witness.trace), Ok(()), "seed 11, program {nth}: {programs:?}");
                let other = &plain.witnesses[invariant];
                assert_eq!(
                    (witness.switches, witness.steps),
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
        let outcome = answer(&window(), &[I1], options);
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
