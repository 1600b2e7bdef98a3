//! The reductions against the naive search, on thousands of small random programs (docs/search.md §3).

mod common;
mod toy;

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use common::{finals, finals_by, finals_of_parts, limits};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use toy::{Flaw, Line, Op, Programs, Toy, random_interrupts, random_programs};
use vmemmap_arch::Invariant;
use vmemmap_explore::model::InvariantSet;
use vmemmap_explore::reduction::options::Fault;
use vmemmap_explore::reduction::options::Reduction;
use vmemmap_explore::runtime::execution::{ActorPort, Actors, Shared};
use vmemmap_explore::runtime::runner::Runner;
use vmemmap_explore::runtime::schedule::Prefix;
use vmemmap_explore::search::dfs::Search;
use vmemmap_explore::search::limits::Limits;
use vmemmap_explore::search::report::{Ended, Final, Report};

fn search(
    programs: &Programs,
    reduction: Reduction,
    flaw: Flaw,
    ending: InvariantSet,
    executions: u64,
) -> (Report, HashSet<Final>) {
    let shared = Shared::new(Toy { flaw, ..Toy::default() });
    finals(&shared, programs, reduction, ending, executions)
}

/// What all of `Reduction::MERGED` learns it learns on the way.
const UNREHEARSED: Reduction = Reduction { fault: Fault::NoWarmUp, ..Reduction::MERGED };

const NAIVE_LIMIT: u64 = 6_000;

/// The naive answer, or `None` if it would take too long.
fn naive(programs: &Programs) -> Option<(Report, HashSet<Final>)> {
    let reduction = Reduction { keep_finished: true, ..Reduction::NAIVE };
    let (report, finals) = search(programs, reduction, Flaw::None, InvariantSet::NONE, NAIVE_LIMIT);
    (report.ended == Ended::Exhausted).then_some((report, finals))
}

fn corpus(seed: u64, n: usize, locks: u32, each: impl FnMut(&Programs, &Report, &HashSet<Final>)) -> (usize, usize) {
    corpus_of(seed, n, |rng| random_programs(rng, locks), each)
}

fn corpus_of(
    seed: u64,
    n: usize,
    make: impl Fn(&mut Xoshiro256PlusPlus) -> Programs,
    mut each: impl FnMut(&Programs, &Report, &HashSet<Final>),
) -> (usize, usize) {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let (mut used, mut deadlocks) = (0, 0);
    for _ in 0..n {
        let programs = make(&mut rng);
        if let Some((report, finals)) = naive(&programs) {
            used += 1;
            deadlocks += usize::from(finals.iter().any(|f| f.deadlock));
            each(&programs, &report, &finals);
        }
    }
    (used, deadlocks)
}

#[test]
fn every_reduction_reaches_the_final_states_of_the_naive_search() {
    let (mut used, mut deadlocks) = (0, 0);
    for (seed, locks) in [(1, 0), (2, 25), (3, 60), (7, 95)] {
        let (u, d) = corpus(seed, 800, locks, |programs, naive_report, naive_finals| {
            for reduction in Reduction::ALL.into_iter().chain([UNREHEARSED]) {
                let reduction = Reduction { keep_finished: true, ..reduction };
                let (report, finals) = search(programs, reduction, Flaw::None, InvariantSet::NONE, u64::MAX);
                assert_eq!(&finals, naive_finals, "seed {seed}, {reduction:?}, {programs:?}");
                assert_eq!(
                    report.found.keys().collect::<Vec<_>>(),
                    naive_report.found.keys().collect::<Vec<_>>(),
                    "seed {seed}, {reduction:?}, {programs:?}"
                );
            }
        });
        used += u;
        deadlocks += d;
    }
    assert!(used > 1200, "only {used} programs were small enough");
    assert!(deadlocks > 50, "only {deadlocks} programs could deadlock");
}

/// Any number of workers reaches the final states of the naive search, counts the states that one counts, and finds the
/// same invariants violated, whether violations end executions or not.
#[test]
fn any_number_of_workers_answers_what_one_does() {
    const JUDGED: InvariantSet = InvariantSet::of(&[Invariant::NoWalkOfFreedTable]);
    let (mut used, mut shared_searches) = (0, 0);
    for (seed, locks) in [(81, 0), (82, 30), (83, 90)] {
        let (u, _) = corpus(seed, 500, locks, |programs, naive_report, naive_finals| {
            for reduction in [Reduction::MERGED, UNREHEARSED, Reduction::CACHE_SLEEP] {
                let reduction = Reduction { keep_finished: true, ..reduction };
                let by = |workers: usize, ending: InvariantSet| {
                    finals_by(workers, &Shared::new(Toy::default()), programs, reduction, ending)
                };
                let found = |r: &Report| r.found.iter().map(|(i, f)| (*i, f.clone())).collect::<Vec<_>>();
                for ending in [InvariantSet::NONE, JUDGED] {
                    let (one, one_finals) = by(1, ending);
                    for workers in 2..=3 {
                        let (report, finals) = by(workers, ending);
                        let what = format!("seed {seed}, {workers} workers, {reduction:?}, {programs:?}");
                        assert_eq!(finals, one_finals, "{what}");
                        assert_eq!(report.states, one.states, "states, {what}");
                        assert_eq!(report.iterations, one.iterations, "iterations, {what}");
                        assert_eq!(found(&report), found(&one), "{what}");
                        shared_searches += usize::from(report.workers == workers);
                    }
                    if ending == InvariantSet::NONE {
                        assert_eq!(&one_finals, naive_finals, "seed {seed}, {reduction:?}, {programs:?}");
                        assert!(one.found.keys().eq(naive_report.found.keys()), "seed {seed}, {programs:?}");
                    }
                }
            }
        });
        used += u;
    }
    assert!(used > 400, "only {used} programs were small enough");
    assert!(shared_searches > 4 * used, "only {shared_searches} searches of {used} programs were shared");
}

fn comparable(finals: &HashSet<Final>, reduction: Reduction) -> HashSet<Final> {
    finals.iter().map(|f| f.but_invisible_work(reduction)).collect()
}

/// All parts of a split search together, and how each ended.
fn parts(
    programs: &Programs,
    reduction: Reduction,
    ending: InvariantSet,
    depth: usize,
) -> (Vec<Report>, HashSet<Final>) {
    let (_, reports, finals) = finals_of_parts(Toy::default(), programs, reduction, ending, depth);
    assert!(reports.iter().all(Report::exhaustive));
    (reports, finals)
}

fn violated(reports: &[Report]) -> Vec<Invariant> {
    let all: BTreeSet<_> = reports.iter().flat_map(|report| report.found.keys().copied()).collect();
    all.into_iter().collect()
}

#[test]
fn the_parts_of_a_split_search_come_to_what_the_whole_comes_to() {
    let (mut used, mut deadlocks, mut most, mut nth) = (0, 0, 0, 0);
    for (seed, locks) in [(41, 0), (42, 25), (43, 60), (44, 95)] {
        let (u, d) = corpus(seed, 250, locks, |programs, naive_report, naive_finals| {
            for depth in 1..=4 {
                nth += 1;
                let all = [Reduction::MERGED, UNREHEARSED, Reduction::CACHE_SLEEP, Reduction::MERGED, Reduction::CACHE];
                let reduction = Reduction { keep_finished: true, ..all[nth % all.len()] };
                let (reports, finals) = parts(programs, reduction, InvariantSet::NONE, depth);
                assert_eq!(&finals, naive_finals, "seed {seed}, depth {depth}, {reduction:?}, {programs:?}");
                assert_eq!(
                    violated(&reports),
                    violated(std::slice::from_ref(naive_report)),
                    "seed {seed}, depth {depth}, {reduction:?}, {programs:?}"
                );
                most = most.max(reports.len());
            }
        });
        used += u;
        deadlocks += d;
    }
    assert!(used > 400 && deadlocks > 20 && most > 20, "{used} programs, {deadlocks} deadlocks, {most} parts");
}

#[test]
fn the_parts_of_a_split_search_with_interrupts_come_to_what_the_whole_comes_to() {
    let mut used = 0;
    for (seed, locks) in [(45, 0), (46, 60)] {
        let (u, _) = corpus_of(
            seed,
            120,
            |rng| random_interrupts(rng, locks),
            |programs, naive_report, naive_finals| {
                for depth in 1..=4 {
                    let reduction = Reduction { keep_finished: true, ..Reduction::MERGED };
                    let (reports, finals) = parts(programs, reduction, InvariantSet::NONE, depth);
                    assert_eq!(
                        comparable(&finals, reduction),
                        comparable(naive_finals, reduction),
                        "seed {seed}, depth {depth}, {programs:?}"
                    );
                    assert_eq!(violated(&reports), violated(std::slice::from_ref(naive_report)));
                }
            },
        );
        used += u;
    }
    assert!(used > 80, "only {used} programs were small enough");
}

#[test]
fn the_parts_of_a_split_search_violate_what_the_whole_does_when_violations_end_executions() {
    let ending = InvariantSet::of(&[Invariant::NoWalkOfFreedTable, Invariant::AlwaysTranslates, Invariant::LockOrder]);
    corpus(47, 200, 30, |programs, _, _| {
        let (expected, _) = search(programs, Reduction::CACHE, Flaw::None, ending, u64::MAX);
        for depth in 1..=4 {
            let (reports, _) = parts(programs, Reduction::MERGED, ending, depth);
            let judged = |all: Vec<Invariant>| all.into_iter().any(|i| ending.contains(i));
            assert_eq!(judged(violated(&reports)), judged(expected.found.keys().copied().collect()), "{programs:?}");
        }
    });
}

#[test]
fn a_prefix_that_is_none_is_refused() {
    for text in ["0 x", "16", "0:", "0:65536", "0|", "0|1,x", "-1", "0 1|2|3", &"0 ".repeat(65)] {
        assert!(text.parse::<Prefix>().is_err_and(|e| e.starts_with("prefix: ") && e.len() < 120), "{text:?}");
    }
    let shared = Shared::new(Toy::default());
    let programs = Programs(vec![vec![Line::Do(Op::Write(0, 1))], vec![Line::Do(Op::Read(0))]]);
    let mut runner = Runner::new(&shared, &programs).expect("stacks");
    for (text, operation) in [("0 0", "operation 2 is 0:0"), ("0:7", "operation 1 is 0:7"), ("5", "operation 1 is 5:0")]
    {
        let error = runner.begin_behind(text.parse().expect("a prefix")).expect_err("it cannot be followed");
        assert!(error.contains(operation), "{error}");
    }
    assert_eq!(runner.begin_behind("0 1|0,1".parse().expect("a prefix")), Ok(()));
}

#[test]
fn interrupts_masks_and_pauses_are_reduced_without_loss() {
    let (mut used, mut deadlocks) = (0, 0);
    for (seed, locks) in [(31, 0), (32, 40), (33, 90)] {
        let (u, d) = corpus_of(
            seed,
            220,
            |rng| random_interrupts(rng, locks),
            |programs, naive_report, naive_finals| {
                for reduction in Reduction::ALL {
                    let reduction = Reduction { keep_finished: true, ..reduction };
                    let (report, finals) = search(programs, reduction, Flaw::None, InvariantSet::NONE, u64::MAX);
                    assert_eq!(
                        comparable(&finals, reduction),
                        comparable(naive_finals, reduction),
                        "seed {seed}, {reduction:?}, {programs:?}"
                    );
                    let violated = |r: &Report| r.found.keys().copied().collect::<Vec<_>>();
                    assert_eq!(violated(&report), violated(naive_report), "seed {seed}, {reduction:?}, {programs:?}");
                }
            },
        );
        used += u;
        deadlocks += d;
    }
    assert!(used > 300, "only {used} programs were small enough");
    assert!(deadlocks > 40, "only {deadlocks} programs could deadlock");
}

#[test]
fn an_interrupt_is_merged_with_what_it_does_not_meet() {
    // Ten words of invisible work under an interrupt that meets one: the handler comes before or after that one only.
    let task: Vec<Line> = (0..10).map(|_| Line::WriteNext(1)).chain([Line::Do(Op::Write(0, 1))]).collect();
    let handler = [Op::Enter, Op::Read(0), Op::Exit].map(Line::Do).to_vec();
    let programs = Programs(vec![task, handler]);
    let (merged, _) = search(&programs, Reduction::MERGED, Flaw::None, InvariantSet::NONE, u64::MAX);
    let (plain, _) = search(&programs, Reduction::CACHE_SLEEP, Flaw::None, InvariantSet::NONE, u64::MAX);
    assert!(merged.states <= 8, "{} states", merged.states);
    assert!(plain.states > 30, "{} states", plain.states);
}

#[test]
fn an_interrupt_that_takes_a_lock_of_the_task_under_it_deadlocks_and_a_mask_helps() {
    let task = [Op::Lock(0), Op::Read(0), Op::Unlock(0)].map(Line::Do).to_vec();
    let masked = [Op::Mask, Op::Lock(0), Op::Read(0), Op::Unlock(0), Op::Unmask].map(Line::Do).to_vec();
    let handler = [Op::Enter, Op::Lock(0), Op::Unlock(0), Op::Exit].map(Line::Do).to_vec();
    let run = |task: Vec<Line>| {
        search(&Programs(vec![task, handler.clone()]), Reduction::MERGED, Flaw::None, InvariantSet::NONE, u64::MAX).0
    };
    assert_eq!(run(task).found[&Invariant::LockOrder].cost.switches, 1);
    let safe = run(masked);
    assert!(safe.exhaustive() && safe.found.is_empty());
}

#[test]
fn an_interrupt_that_never_comes_is_no_deadlock() {
    let task = [Op::Mask, Op::Read(0)].map(Line::Do).to_vec();
    let handler = [Op::Enter, Op::Write(0, 1), Op::Exit].map(Line::Do).to_vec();
    let (report, finals) =
        search(&Programs(vec![task, handler]), Reduction::MERGED, Flaw::None, InvariantSet::NONE, u64::MAX);
    assert!(report.exhaustive() && report.found.is_empty());
    assert!(finals.iter().all(|f| !f.deadlock));
}

#[test]
fn an_actor_that_goes_on_for_ever_makes_the_answer_inconclusive() {
    struct Endless;
    impl Actors<Toy> for Endless {
        fn count(&self) -> usize {
            2
        }
        fn name(&self, actor: usize) -> &str {
            ["spinner", "writer"][actor]
        }
        fn run(&self, actor: usize, port: &ActorPort<'_, Toy>) {
            let mut seen = 0;
            while actor == 0 && port.call(Op::Read(0)) != 7 {
                seen += 1;
                port.call(Op::Write(1, seen));
            }
            port.call(Op::Read(1));
            port.call(Op::Write(0, 1));
        }
    }
    let shared = Shared::new(Toy::default());
    let mut runner = Runner::new(&shared, &Endless).expect("stacks");
    let report = Search::new(&mut runner, Reduction::MERGED, &mut |_| {}).run(
        InvariantSet::NONE,
        50,
        &mut limits(200, &mut |_| {}),
    );
    assert!(report.overflowed && !report.exhaustive(), "a livelock is never safe");
}

#[test]
fn the_interleavings_counted_over_the_cached_graph_are_the_executions_of_the_naive_search() {
    for (seed, locks) in [(8, 0), (9, 60)] {
        corpus(seed, 300, locks, |programs, naive_report, _| {
            let (counted, _) = search(programs, Reduction::CACHE, Flaw::None, InvariantSet::NONE, u64::MAX);
            assert_eq!(counted.interleavings, Some(naive_report.executions as f64), "seed {seed}, {programs:?}");
            assert_eq!(naive_report.interleavings, None);
        });
    }
    // Cut at a violation, as the naive search cuts.
    let ending = InvariantSet::of(&[Invariant::NoWalkOfFreedTable, Invariant::LockOrder]);
    corpus(10, 200, 40, |programs, _, _| {
        let (naive, _) = search(programs, Reduction::NAIVE, Flaw::None, ending, u64::MAX);
        let (counted, _) = search(programs, Reduction::CACHE, Flaw::None, ending, u64::MAX);
        assert_eq!(counted.interleavings, Some(naive.executions as f64), "seed 10, {programs:?}");
    });
}

#[test]
fn sleep_sets_remove_executions_but_never_states() {
    let mut saved = 0;
    corpus(4, 400, 40, |programs, _, _| {
        let (plain, _) = search(programs, Reduction::CACHE, Flaw::None, InvariantSet::NONE, u64::MAX);
        let (slept, _) = search(programs, Reduction::CACHE_SLEEP, Flaw::None, InvariantSet::NONE, u64::MAX);
        assert_eq!(plain.states, slept.states, "seed 4, {programs:?}");
        assert!(slept.executions <= plain.executions);
        saved += plain.executions - slept.executions;
    });
    assert!(saved > 0);
}

#[test]
fn the_invariants_violated_do_not_depend_on_the_reduction_when_violations_end_executions() {
    let ending = InvariantSet::of(&[Invariant::NoWalkOfFreedTable, Invariant::AlwaysTranslates, Invariant::LockOrder]);
    corpus(5, 300, 30, |programs, _, _| {
        let (expected, _) = search(programs, Reduction::CACHE, Flaw::None, ending, u64::MAX);
        for reduction in Reduction::ALL {
            let (report, _) = search(programs, reduction, Flaw::None, ending, u64::MAX);
            let judged = |r: &Report| r.found.keys().copied().any(|i| ending.contains(i));
            assert_eq!(judged(&report), judged(&expected), "seed 5, {reduction:?}, {programs:?}");
        }
    });
}

/// How many programs of a corpus give other final states under a fault.
fn differences(reduction: Reduction, flaw: Flaw) -> usize {
    let mut differ = 0;
    let locks = if flaw == Flaw::QueueTouchesNothing { 90 } else { 30 };
    corpus(6, 600, locks, |programs, _, naive_finals| {
        let (_, finals) =
            search(programs, Reduction { keep_finished: true, ..reduction }, flaw, InvariantSet::NONE, u64::MAX);
        differ += usize::from(&finals != naive_finals);
    });
    differ
}

#[test]
fn readers_of_a_lock_do_not_keep_each_other_out() {
    let reads =
        |inside: &[Op]| [&[Op::ReadLock(0)], inside, &[Op::ReadUnlock(0)]].concat().into_iter().map(Line::Do).collect();
    let programs = Programs(vec![reads(&[Op::Write(0, 1), Op::Read(0)]), reads(&[Op::Write(0, 2)])]);
    let ends = |reduction: Reduction| {
        search(&programs, Reduction { keep_finished: true, ..reduction }, Flaw::None, InvariantSet::NONE, u64::MAX).1
    };
    let naive = ends(Reduction::NAIVE);
    assert_eq!(ends(Reduction::MERGED), naive);
    let fault = Fault::ReadersExclude;
    assert_ne!(ends(Reduction { fault, ..Reduction::MERGED }), naive);
}

/// Who holds a lock is not kept apart from those who wait for it by giving it back; who comes to it is not yet in.
#[test]
fn giving_a_lock_back_is_no_scheduling_point_and_taking_it_is_one() {
    let section = |n| [Op::Lock(0), Op::Write(0, n), Op::Unlock(0)].map(Line::Do).to_vec();
    let programs = Programs(vec![section(1), section(2)]);
    let ends = |reduction: Reduction| {
        search(&programs, Reduction { keep_finished: true, ..reduction }, Flaw::None, InvariantSet::NONE, u64::MAX)
    };
    let (_, naive) = ends(Reduction::NAIVE);
    let (merged, finals) = ends(Reduction::MERGED);
    assert_eq!(finals, naive);
    // Both wait; one is done and the other has the choice no more; two ends.
    assert_eq!(merged.states, 3);
    assert_ne!(ends(Reduction { fault: Fault::HoldsWhatItTakes, ..Reduction::MERGED }).1, naive);
}

/// Who has made one access under a lock may make the next without.
#[test]
fn what_was_once_done_under_a_lock_is_not_taken_to_be_done_so_always() {
    let locked = |inside: &[Op]| [&[Op::Lock(0)], inside, &[Op::Unlock(0)]].concat();
    let twice = [locked(&[Op::Write(0, 1)]), vec![Op::Write(0, 2)]].concat();
    let reads = locked(&[Op::Read(0), Op::Read(0)]);
    let programs =
        Programs(vec![twice, reads].into_iter().map(|ops| ops.into_iter().map(Line::Do).collect()).collect());
    let ends = |reduction: Reduction| {
        let reduction = Reduction { keep_finished: true, ..reduction };
        search(&programs, reduction, Flaw::None, InvariantSet::NONE, u64::MAX).1
    };
    assert_eq!(ends(Reduction::MERGED), ends(Reduction::NAIVE));
    assert_eq!(ends(UNREHEARSED), ends(Reduction::NAIVE));
}

#[test]
fn what_happens_under_a_lock_is_no_scheduling_point_for_others_under_it() {
    let section = [Op::Lock(0), Op::Write(0, 1), Op::Swap(0, 2), Op::Read(0), Op::Unlock(0)];
    let programs = Programs(vec![section.map(Line::Do).to_vec(), section.map(Line::Do).to_vec()]);
    let (merged, finals) = search(&programs, Reduction::MERGED, Flaw::None, InvariantSet::NONE, u64::MAX);
    let (plain, all) = search(&programs, Reduction::CACHE_SLEEP, Flaw::None, InvariantSet::NONE, u64::MAX);
    assert_eq!(finals.len(), all.len());
    assert!(2 * merged.states <= plain.states, "{} states of {}", merged.states, plain.states);
}

#[test]
fn seeded_faults_of_the_reduction_are_noticed() {
    for (reduction, fault) in [
        (Reduction::CACHE_SLEEP, Fault::SleepNotFiltered),
        (Reduction::MERGED, Fault::SleepNotFiltered),
        (Reduction::MERGED, Fault::NoFixpoint),
        (Reduction::MERGED, Fault::BrokenAssumptionUnnoticed),
        (Reduction::CACHE, Fault::HashWithoutValues),
        (Reduction::MERGED, Fault::HashWithoutValues),
        (Reduction::MERGED, Fault::OutcomeForgotten),
    ] {
        assert!(differences(Reduction { fault, ..reduction }, Flaw::None) > 0, "{fault:?} under {reduction:?}");
    }
    {
        // Not to read the mask costs sleep sets nothing: the task wakes when the interrupt leaves its CPU.
        for (flaw, reduction) in [
            (Flaw::NoControl, Reduction::CACHE_SLEEP),
            (Flaw::NoControl, Reduction::MERGED),
            (Flaw::EnterReadsNoMask, Reduction::MERGED),
            (Flaw::UnlockReadsNoControl, Reduction::MERGED),
        ] {
            let mut differ = 0;
            corpus_of(
                34,
                120,
                |rng| random_interrupts(rng, 40),
                |programs, _, naive_finals| {
                    let (_, finals) = search(
                        programs,
                        Reduction { keep_finished: true, ..reduction },
                        flaw,
                        InvariantSet::NONE,
                        u64::MAX,
                    );
                    differ += usize::from(comparable(&finals, reduction) != comparable(naive_finals, reduction));
                },
            );
            assert!(differ > 0, "{flaw:?} under {reduction:?}");
        }
    }
    for flaw in
        [Flaw::WriteTouchesNothing, Flaw::ReadTouchesNothing, Flaw::QueueTouchesNothing, Flaw::ExpectTouchesNothing]
    {
        for reduction in [Reduction::CACHE_SLEEP, Reduction::MERGED] {
            assert!(differences(reduction, flaw) > 0, "{flaw:?} under {reduction:?}");
        }
    }
}

#[test]
fn two_locks_in_opposite_order_deadlock_with_both_named() {
    let ab = [Op::Lock(0), Op::Lock(1), Op::Unlock(1), Op::Unlock(0)].map(Line::Do).to_vec();
    let ba = [Op::Lock(1), Op::Lock(0), Op::Unlock(0), Op::Unlock(1)].map(Line::Do).to_vec();
    let (report, _) = search(
        &Programs(vec![ab, ba]),
        Reduction::MERGED,
        Flaw::None,
        InvariantSet::only(Invariant::LockOrder),
        u64::MAX,
    );
    assert_eq!(report.ended, Ended::Exhausted);
    let found = &report.found[&Invariant::LockOrder];
    assert_eq!(found.cost.switches, 1);
}

#[test]
fn a_reader_inside_a_reader_deadlocks_with_a_queued_writer() {
    let nested = [Op::ReadLock(0), Op::ReadLock(0), Op::ReadUnlock(0)].map(Line::Do).to_vec();
    let writer = [Op::Queue(0), Op::WriteLock(0), Op::WriteUnlock(0)].map(Line::Do).to_vec();
    let (report, _) =
        search(&Programs(vec![nested, writer]), Reduction::MERGED, Flaw::None, InvariantSet::NONE, u64::MAX);
    assert!(report.found.contains_key(&Invariant::LockOrder));
}

#[test]
fn two_writers_of_one_word_have_two_orders_and_the_search_says_so() {
    let w = |v| vec![Line::Do(Op::Write(0, v))];
    let reduction = Reduction { keep_finished: true, ..Reduction::MERGED };
    let (report, finals) = search(&Programs(vec![w(1), w(2)]), reduction, Flaw::None, InvariantSet::NONE, u64::MAX);
    assert_eq!(finals.len(), 2);
    assert!(report.exhaustive());
    let (naive, _) = search(&Programs(vec![w(1), w(2)]), Reduction::NAIVE, Flaw::None, InvariantSet::NONE, u64::MAX);
    assert_eq!(naive.executions, 2);
}

#[test]
fn a_request_to_stop_is_obeyed_and_reported() {
    let busy = || {
        vec![
            Line::Do(Op::Write(0, 1)),
            Line::WriteNext(0),
            Line::Do(Op::Read(0)),
            Line::WriteNext(0),
            Line::Do(Op::Read(0)),
            Line::WriteNext(1),
        ]
    };
    let programs = Programs(vec![busy(), busy(), busy(), busy()]);
    let shared = Shared::new(Toy::default());
    let mut runner = Runner::new(&shared, &programs).expect("stacks");
    let asked = std::cell::Cell::new(0);
    let began = Instant::now();
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > 1
    };
    let report = Search::new(&mut runner, Reduction::NAIVE, &mut |_| {}).run(
        InvariantSet::NONE,
        100_000,
        &mut Limits { stop: &stop, ..limits(u64::MAX, &mut |_| {}) },
    );
    assert_eq!(report.ended, Ended::Interrupted);
    assert!(!report.exhaustive());
    assert!(began.elapsed() < Duration::from_secs(1));
}

/// Larger than the naive search can do; the reference is `cache`, itself without a difference above (nightly).
#[test]
#[ignore = "takes minutes; run by make nightly"]
fn larger_programs_agree_with_the_cached_search() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(21);
    for nth in 0..6000 {
        let mut programs = random_programs(&mut rng, 30);
        programs.0.extend(random_programs(&mut rng, 30).0);
        programs.0.truncate(4);
        let keep = |r: Reduction| Reduction { keep_finished: true, ..r };
        let (_, expected) = search(&programs, keep(Reduction::CACHE), Flaw::None, InvariantSet::NONE, u64::MAX);
        for reduction in [Reduction::CACHE_SLEEP, Reduction::MERGED] {
            let (_, finals) = search(&programs, keep(reduction), Flaw::None, InvariantSet::NONE, u64::MAX);
            assert_eq!(finals, expected, "seed 21, program {nth}, {reduction:?}, {programs:?}");
        }
    }
}

#[test]
fn a_panic_of_an_actor_reaches_the_caller_while_others_are_suspended() {
    struct Faulty(Programs);
    impl Actors<Toy> for Faulty {
        fn count(&self) -> usize {
            self.0.count()
        }
        fn name(&self, actor: usize) -> &str {
            self.0.name(actor)
        }
        fn run(&self, actor: usize, port: &ActorPort<'_, Toy>) {
            self.0.run(actor, port);
            assert!(actor == 0, "an actor's own bug");
        }
    }
    let shared = Shared::new(Toy::default());
    let faulty =
        Faulty(Programs(vec![vec![Line::Do(Op::Write(0, 1)), Line::Do(Op::Read(0))], vec![Line::Do(Op::Write(0, 2))]]));
    let mut runner = Runner::new(&shared, &faulty).expect("stacks");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Search::new(&mut runner, Reduction::CACHE, &mut |_| {}).run(
            InvariantSet::NONE,
            100,
            &mut limits(u64::MAX, &mut |_| {}),
        )
    }));
    assert!(caught.is_err());
}
