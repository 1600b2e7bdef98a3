//! The reductions against the naive search, on thousands of small random programs on the World (docs/search.md §3,
//! family B).

#[path = "../../explore/tests/common/mod.rs"]
mod common;
mod family;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use common::limits;
use family::mutants::{EARLY_MUTANTS, MUTANTS, WEAK_MUTANTS};
use family::programs::{Corpus, Shape};
use family::{Line, Mutant, Past, Programs, Setup, Watched, page, search, search_by, search_parts, shrunk};
use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Barrier, Desc, FrameKind, Invariant, Order, Tlbi, Until, Var};
use vmemmap_explore::check::options::Options;
use vmemmap_explore::check::outcome::{Outcome, Status, Verdict};
use vmemmap_explore::check::part::Part;
use vmemmap_explore::check::verdict::ask;
use vmemmap_explore::model::InvariantSet;
use vmemmap_explore::reduction::options::Fault;
use vmemmap_explore::reduction::options::Reduction;
use vmemmap_explore::runtime::execution::Shared;
use vmemmap_explore::runtime::runner::Runner;
use vmemmap_explore::search::dfs::Search;
use vmemmap_explore::search::report::{Ended, Final, Progress, Report};
use vmemmap_machine::config::Ets;
use vmemmap_machine::explored::{LocationKind, World, WorldOptions};
use vmemmap_machine::op::Op;

/// Learns on the way what `MERGED` knows beforehand.
const UNREHEARSED: Reduction = Reduction { fault: Fault::NoWarmUp, ..Reduction::MERGED };
const REDUCED: [Reduction; 5] =
    [Reduction::MERGED, UNREHEARSED, Reduction::CACHE_SLEEP, Reduction::SLEEP, Reduction::CACHE];
const NAIVE_LIMIT: u64 = 2_000;

const TABLES: Shape = Shape { sections: 10, actors: (2, 3), lines: (5, 3), weak: false, early: false };
const MIXED: Shape = Shape { sections: 45, actors: (2, 3), lines: (5, 3), weak: false, early: false };
const WAITING: Shape = Shape { sections: 90, actors: (2, 3), lines: (5, 4), weak: false, early: false };

/// Store buffers add an actor for each CPU, and an outcome to each store.
const WEAK: Shape = Shape { sections: 20, actors: (2, 2), lines: (4, 4), weak: true, early: false };
/// Load queues add another actor for each CPU.
const EARLY: Shape = Shape { sections: 20, actors: (2, 2), lines: (2, 2), weak: true, early: true };

/// Complete final states, and violations end nothing.
fn whole(
    world: World,
    mutant: Option<Mutant>,
    programs: &Programs,
    r: Reduction,
    limit: u64,
) -> (World, Report, HashSet<Final>) {
    search(world, mutant, programs, Reduction { keep_finished: true, ..r }, InvariantSet::NONE, limit)
}

/// Whether a reduction loses final states of the reference, on a machine that has numbered nothing yet.
fn differs(programs: &Programs, reduction: Reduction, reference: Reduction) -> bool {
    loses(programs, reduction, reference, None)
}

/// The same with a rule less.
fn loses(programs: &Programs, reduction: Reduction, reference: Reduction, mutant: Option<Mutant>) -> bool {
    let (world, _, reduced) = whole(programs.setup.world.clone(), mutant, programs, reduction, u64::MAX);
    let (_, report, finals) = whole(world, None, programs, reference, 4 * NAIVE_LIMIT);
    report.ended == Ended::Exhausted
        && comparable(programs, &reduced, reduction) != comparable(programs, &finals, reduction)
}

fn comparable(programs: &Programs, finals: &HashSet<Final>, reduction: Reduction) -> HashSet<Final> {
    let stops = programs.lines.iter().flatten().any(|line| *line == Line::Do(Op::StopMachineBegin));
    finals.iter().map(|f| if stops { f.but_invisible_work(reduction) } else { *f }).collect()
}

#[derive(Default, Debug)]
struct Counts {
    programs: usize,
    deadlocks: usize,
    violated: usize,
    finals: usize,
    executions: u64,
}

/// Compares reductions with a reference on `n` programs, those left out for which it takes more than `limit`
/// executions.
fn compare(seed: u64, shape: Shape, n: usize, reduced: &[Reduction], reference: Reduction, limit: u64) -> Counts {
    let mut corpus = Corpus::new(seed, shape);
    let mut counts = Counts::default();
    for nth in 0..n {
        let programs = corpus.draw();
        // The first has a machine that has numbered nothing yet, as the product has; hence each comes first at times.
        let mut world = programs.setup.world.clone();
        let mut all = Vec::new();
        for k in 0..reduced.len() {
            let reduction = reduced[(nth + k) % reduced.len()];
            let (back, report, finals) = whole(world, None, &programs, reduction, 4 * limit);
            world = back;
            all.push((reduction, report, finals));
        }
        let (world, report, finals) = whole(world, None, &programs, reference, limit);
        if report.ended != Ended::Exhausted {
            continue;
        }
        counts.programs += 1;
        counts.executions += report.executions;
        counts.finals += finals.len();
        counts.deadlocks += usize::from(finals.iter().any(|f| f.deadlock));
        counts.violated += usize::from(!report.found.is_empty());
        for (reduction, reduced, its) in &all {
            assert!(
                comparable(&programs, its, *reduction) == comparable(&programs, &finals, *reduction)
                    && reduced.found.keys().eq(report.found.keys()),
                "seed {seed}, program {nth}, {reduction:?}: {} final states of {}\nminimal: {:?}",
                its.len(),
                finals.len(),
                shrunk(&programs, |p| differs(p, *reduction, reference))
            );
        }
        all.push((reference, report, finals));
        let of = |wanted: Reduction| all.iter().find(|(r, ..)| *r == wanted).map(|(_, report, _)| report);
        if let (Some(cache), Some(sleep)) = (of(Reduction::CACHE), of(Reduction::CACHE_SLEEP)) {
            assert_eq!(cache.states, sleep.states, "states, seed {seed}, program {nth}: {programs:?}");
        }
        if let (Some(cache), Some(naive)) = (of(Reduction::CACHE), of(Reduction::NAIVE)) {
            assert_eq!(cache.interleavings, Some(naive.executions as f64), "seed {seed}, program {nth}: {programs:?}");
        }
        verdicts_agree(world, &programs, nth, reference);
    }
    counts
}

/// The same where a violation ends its execution: judged are all that these programs can violate, or one of them.
fn verdicts_agree(mut world: World, programs: &Programs, nth: usize, reference: Reduction) {
    const JUDGED: [Invariant; 6] = [
        Invariant::AlwaysTranslates,
        Invariant::NoUseOfFreedFrame,
        Invariant::NoStaleTranslation,
        Invariant::FreedTableIsEmpty,
        Invariant::BreakBeforeMake,
        Invariant::LockOrder,
    ];
    let ending = JUDGED.get(nth % 8).map_or(InvariantSet::of(&JUDGED), |one| InvariantSet::only(*one));
    let mut violated = |reduction| {
        let (back, report, _) = search(world.clone(), None, programs, reduction, ending, u64::MAX);
        world = back;
        report.found.keys().any(|i| ending.contains(*i))
    };
    let expected = violated(reference);
    for reduction in [Reduction::MERGED, Reduction::CACHE_SLEEP] {
        assert_eq!(
            violated(reduction),
            expected,
            "verdict under {reduction:?}, program {nth}, judged {ending:?}: {programs:?}"
        );
    }
}

#[test]
fn programs_on_tables_reach_the_final_states_of_the_naive_search() {
    let counts = compare(101, TABLES, 700, &REDUCED, Reduction::NAIVE, NAIVE_LIMIT);
    assert!(counts.programs > 600 && counts.violated > 300, "{counts:?}");
}

#[test]
fn programs_with_locks_and_rcu_reach_the_final_states_of_the_naive_search() {
    let mixed = compare(102, MIXED, 500, &REDUCED, Reduction::NAIVE, NAIVE_LIMIT);
    let waiting = compare(103, WAITING, 800, &REDUCED, Reduction::NAIVE, NAIVE_LIMIT);
    assert!(mixed.programs + waiting.programs > 800, "{mixed:?} {waiting:?}");
    assert!(mixed.deadlocks + waiting.deadlocks > 60, "{mixed:?} {waiting:?}");
}

/// Any number of workers reaches the final states that one does, and counts as many states; copies of one machine say
/// the same of each, or the search is one worker's after all.
#[test]
fn any_number_of_workers_answers_what_one_does() {
    let (mut searched, mut shared) = (0, 0);
    for (seed, shape, n) in [(121, TABLES, 120), (122, MIXED, 120), (123, WAITING, 160), (124, WEAK, 60)] {
        let mut corpus = Corpus::new(seed, shape);
        for nth in 0..n {
            let programs = corpus.draw();
            // Short searches that would make directed executions are not shared.
            for reduction in [UNREHEARSED, Reduction::CACHE_SLEEP] {
                let reduction = Reduction { keep_finished: true, ..reduction };
                let (one, finals) = search_by(1, &programs, reduction);
                for workers in 2..=3 {
                    let (report, its) = search_by(workers, &programs, reduction);
                    let what = format!("seed {seed}, program {nth}, {workers} workers, {reduction:?}: {programs:?}");
                    assert_eq!(report.states, one.states, "states, {what}");
                    assert_eq!(report.iterations, one.iterations, "iterations, {what}");
                    assert!(its == finals, "final states, {what}");
                    assert!(report.found == one.found, "found, {what}");
                    searched += 1;
                    shared += usize::from(report.workers == workers);
                }
            }
        }
    }
    assert!(shared > searched / 3, "{shared} of {searched} searches were shared");
}

/// The over-approximation violates whatever the machine does, on each of these programs, and is itself searched without
/// loss; the answer that begins with it is that without it.
#[test]
fn the_over_approximation_violates_all_that_the_machine_does() {
    let mut compared = 0;
    for (seed, shape) in [(111, TABLES), (112, MIXED), (113, WAITING)] {
        let mut corpus = Corpus::new(seed, shape);
        for nth in 0..300 {
            let programs = corpus.draw();
            let world = programs.setup.world.clone();
            let (mut world, machine, _) = whole(world, None, &programs, Reduction::NAIVE, NAIVE_LIMIT);
            world.over_approximate(true);
            let (world, beyond, all) = whole(world, None, &programs, Reduction::NAIVE, NAIVE_LIMIT);
            if machine.ended != Ended::Exhausted || beyond.ended != Ended::Exhausted {
                continue;
            }
            compared += 1;
            for reduction in REDUCED {
                let (_, reduced, finals) = whole(world.clone(), None, &programs, reduction, u64::MAX);
                assert!(
                    comparable(&programs, &finals, reduction) == comparable(&programs, &all, reduction),
                    "seed {seed}, program {nth}, {reduction:?}: {programs:?}"
                );
                let lost: Vec<_> = machine.found.keys().filter(|i| !reduced.found.contains_key(i)).collect();
                assert!(lost.is_empty(), "seed {seed}, program {nth}: {lost:?} {programs:?}");
            }
            let judged: Vec<_> = beyond.found.keys().copied().take(1).collect();
            let [first, plain] = [Reduction::PRODUCT, Reduction::MERGED].map(|r| answer(&programs, &judged, r));
            assert_eq!(first, plain, "seed {seed}, program {nth}, {judged:?}: {programs:?}");
        }
    }
    assert!(compared > 700, "{compared} programs");
}

/// Verdict, and what is known of each invariant.
fn answer(programs: &Programs, judged: &[Invariant], reduction: Reduction) -> (Verdict, BTreeMap<Invariant, Status>) {
    let shared = Shared::new(Watched::new(programs.setup.world.clone(), None));
    let mut runner = Runner::new(&shared, programs).expect("stacks");
    let options = Options { reduction, over_approximate_after: 0, ..Options::default() };
    let outcome = ask(&mut runner, &programs.subject(judged), &options, &|| false, &mut |_| {});
    (outcome.verdict, outcome.invariants)
}

type Others = fn(&Setup) -> Vec<Op>;

/// One actor clears an entry and frees the frame when the other has done the invalidate for it: sound, and a violation
/// where invalidates reach only what their own CPU overwrote. What others do beside them.
fn flushed_by_another(others: &[Others]) -> Programs {
    let (order, past) = (Order::Plain, Past::Quiet);
    let cpus = 2 + others.len() as u8;
    let setup = Arc::new(Setup::new(&WorldOptions { strict: true, ..WorldOptions::default() }, cpus, past));
    let set = |var, value| Op::VarStore { var: Var(var), value, order };
    let wait = |var| Op::WaitUntil { var: Var(var), condition: Until::Equals(1) };
    let clear = Op::Write { at: setup.pte(0, 0), new: Desc::NONE, order };
    let free = Op::Free { frame: setup.frames[0], order: 0, kind: FrameKind::Vmemmap };
    let mut lines = vec![
        vec![clear, Op::Barrier(Barrier::DsbIshst), set(0, 1), wait(1), free],
        vec![wait(0), Op::Tlbi(Tlbi::Vmalle1is), Op::Barrier(Barrier::DsbIsh), set(1, 1)],
    ];
    lines.extend(others.iter().map(|other| other(&setup)));
    let lines = lines.into_iter().map(|own| own.into_iter().map(Line::Do).collect()).collect();
    Programs { lines, setup, past, early: Vec::new() }
}

#[test]
fn what_goes_wrong_in_the_over_approximation_alone_does_not_count() {
    let programs = flushed_by_another(&[]);
    let judged = [Invariant::NoStaleTranslation];
    assert_eq!(answer(&programs, &judged, Reduction::PRODUCT).0, Verdict::Safe);
    let fault = Fault::Unconfirmed;
    assert_eq!(answer(&programs, &judged, Reduction { fault, ..Reduction::PRODUCT }).0, Verdict::Violated);
}

/// Whichever of the searches behind an answer is cut: the figures are of the one that came furthest, and what has been
/// shown stays so.
#[test]
fn an_answer_that_was_cut_has_the_figures_of_what_was_searched() {
    fn counts(_: &Setup) -> Vec<Op> {
        (0..6).map(|value| Op::VarStore { var: Var(2), value, order: Order::Plain }).collect()
    }
    fn reads(setup: &Setup) -> Vec<Op> {
        [counts(setup), vec![Op::Read { at: setup.pte(1, 0), order: Order::Plain }]].concat()
    }
    fn frees(setup: &Setup) -> Vec<Op> {
        [counts(setup), vec![Op::Free { frame: setup.tables[1], order: 0, kind: FrameKind::Table }]].concat()
    }
    let both: &[Invariant] = &[Invariant::NoStaleTranslation, Invariant::NoUseOfFreedFrame];
    let beside: [(&[Invariant], [Others; 2]); 2] = [(&[], [counts, counts]), (both, [reads, frees])];
    for (judged, others) in beside {
        let programs = flushed_by_another(&others);
        let mut was = Verdict::Inconclusive;
        let mut cut = 0;
        for states in 1.. {
            let shared = Shared::new(Watched::new(programs.setup.world.clone(), None));
            let mut runner = Runner::new(&shared, &programs).expect("stacks");
            let options = Options { states, over_approximate_after: 0, shorten_seconds: 0.0, ..Options::default() };
            let mut furthest = 0;
            let mut look = |progress: Progress| furthest = progress.steps.max(furthest);
            let outcome = ask(&mut runner, &programs.subject(judged), &options, &|| false, &mut look);
            assert!(was != Verdict::Violated || outcome.verdict == was, "{judged:?}, {states} states: no longer shown");
            was = outcome.verdict;
            if outcome.exhaustive {
                break;
            }
            assert_eq!(outcome.steps, furthest, "{judged:?}, {states} states");
            cut += 1;
        }
        assert!(cut > 10, "{judged:?}: {cut} were cut");
    }
}

/// Where no broadcast invalidate is a scheduling point there are no fewer states in the over-approximation.
#[test]
fn only_a_search_in_which_invalidates_are_scheduling_points_gives_way() {
    let (order, past) = (Order::Plain, Past::Quiet);
    let setup = Arc::new(Setup::new(&WorldOptions::default(), 2, past));
    let add = Op::VarStore { var: Var(0), value: 1, order };
    let gives_way = |invalidate: Op| {
        let own = |n| {
            let clear = Op::Write { at: setup.pte(0, n), new: Desc::NONE, order };
            vec![clear, Op::Barrier(Barrier::DsbIshst), invalidate, Op::Barrier(Barrier::DsbIsh), add]
        };
        let lines = [own(0), own(1)].map(|own| own.into_iter().map(Line::Do).collect()).to_vec();
        let programs = Programs { lines, setup: setup.clone(), past, early: Vec::new() };
        let shared = Shared::new(Watched::new(programs.setup.world.clone(), None));
        let mut runner = Runner::new(&shared, &programs).expect("stacks");
        Search::new(&mut runner, UNREHEARSED, &mut |_| {})
            .giving_way_after(Some(1))
            .run(InvariantSet::NONE, u32::MAX, &mut limits(u64::MAX, &mut |_| {}))
            .gave_way
    };
    assert!(gives_way(Op::Tlbi(Tlbi::Vmalle1is)));
    assert!(!gives_way(Op::Tlbi(Tlbi::Vmalle1)));
}

/// An IOMMU's invalidate touches what others overwrite and publish before it executes, though nothing is there yet.
#[test]
fn an_iommu_invalidate_does_not_go_before_what_it_would_end() {
    for ets in [Ets::None, Ets::Two] {
        let past = Past::Quiet;
        let setup = Arc::new(Setup::new(&WorldOptions { ets, iommu: true, ..WorldOptions::default() }, 2, past));
        let relink = Op::Swap { at: setup.pmd(), new: setup.table(1), order: Order::Plain };
        let lines = [vec![Op::IommuInvalidate], vec![relink, Op::Barrier(Barrier::DsbIsh)]];
        let lines = lines.map(|own| own.into_iter().map(Line::Do).collect()).to_vec();
        let programs = Programs { lines, setup, past, early: Vec::new() };
        assert!(!differs(&programs, UNREHEARSED, Reduction::NAIVE), "{ets:?}");
    }
}

#[test]
fn programs_in_weak_memory_reach_the_final_states_of_the_naive_search() {
    let counts = compare(110, WEAK, 700, &REDUCED, Reduction::NAIVE, 4 * NAIVE_LIMIT);
    assert!(counts.programs > 400 && counts.violated > 100, "{counts:?}");
    let counts = compare(114, EARLY, 400, &REDUCED, Reduction::NAIVE, 4 * NAIVE_LIMIT);
    assert!(counts.programs > 150 && counts.violated > 50, "{counts:?}");
}

/// All parts of a split search together come to what the whole comes to; so do the answers, each part on a machine of
/// its own, with all that the product does.
fn compare_parts(seed: u64, shape: Shape, n: usize, limit: u64) -> (usize, usize) {
    let mut corpus = Corpus::new(seed, shape);
    let (mut compared, mut violated) = (0, 0);
    for nth in 0..n {
        let programs = corpus.draw();
        let depth = 1 + nth % 4;
        let reduction =
            Reduction { keep_finished: true, ..[Reduction::MERGED, UNREHEARSED, Reduction::CACHE_SLEEP][nth % 3] };
        let (world, whole, finals) = whole(programs.setup.world.clone(), None, &programs, Reduction::NAIVE, limit);
        if whole.ended != Ended::Exhausted {
            continue;
        }
        let (_, parts, its) = search_parts(world, &programs, reduction, InvariantSet::NONE, depth);
        let found: BTreeSet<_> = parts.iter().flat_map(|part| part.found.keys()).collect();
        assert!(
            parts.iter().all(Report::exhaustive)
                && comparable(&programs, &its, reduction) == comparable(&programs, &finals, reduction)
                && found.into_iter().eq(whole.found.keys()),
            "seed {seed}, program {nth}, depth {depth}, {reduction:?}, {} parts: {} final states of {}: {programs:?}",
            parts.len(),
            its.len(),
            finals.len()
        );
        compared += 1;
        if programs.is_weak() {
            continue;
        }
        let judged: Vec<_> = whole.found.keys().copied().skip(nth % 3).take(1 + nth % 2).collect();
        let whole =
            answer_to(&programs, &judged, &Options { shorten_seconds: f64::INFINITY, ..PART }).expect("no prefix");
        let mut verdicts = HashSet::new();
        let mut found = BTreeSet::new();
        let mut waiting = vec![Options { split: Some(depth as u32), ..PART }];
        while let Some(options) = waiting.pop() {
            let part = answer_to(&programs, &judged, &options).expect("a prefix of these programs");
            assert!(part.exhaustive);
            for (invariant, its) in &part.counterexamples {
                assert_eq!(its.violation.invariant, invariant.to_string());
            }
            let of = |status| part.invariants.iter().filter(move |(_, s)| **s == status).map(|(i, _)| *i);
            assert_eq!(
                of(Status::Violated).collect::<Vec<_>>(),
                part.counterexamples.keys().copied().collect::<Vec<_>>()
            );
            assert_eq!(of(Status::Held).count(), 0, "of a part alone");
            found.extend(of(Status::Violated));
            verdicts.insert(part.verdict);
            if let Some(Part::Tree(prefixes)) = part.part {
                waiting.extend(prefixes.into_iter().map(|prefix| Options { prefix: Some(prefix), ..PART }));
            }
        }
        let all = if verdicts.contains(&Verdict::Violated) { Verdict::Violated } else { Verdict::Safe };
        let expected = whole.invariants.iter().filter(|(_, s)| **s == Status::Violated).map(|(i, _)| *i).collect();
        assert_eq!((all, found), (whole.verdict, expected), "seed {seed}, program {nth}, {judged:?}: {programs:?}");
        violated += usize::from(all == Verdict::Violated);
    }
    (compared, violated)
}

/// The over-approximation at once, and what was found stays as it was.
const PART: Options = Options { over_approximate_after: 0, shorten_seconds: 0.0, ..Options::DEFAULT };

fn answer_to(programs: &Programs, judged: &[Invariant], options: &Options) -> Result<Outcome, String> {
    let shared = Shared::new(Watched::new(programs.setup.world.clone(), None));
    let mut runner = Runner::new(&shared, programs).expect("stacks");
    if let Some(prefix) = &options.prefix {
        runner.begin_behind(prefix.clone())?;
    }
    Ok(ask(&mut runner, &programs.subject(judged), options, &|| false, &mut |_| {}))
}

#[test]
fn the_parts_of_a_split_search_come_to_what_the_whole_comes_to() {
    let (mut compared, mut violated) = (0, 0);
    for (seed, shape) in [(121, TABLES), (122, MIXED), (123, WAITING)] {
        let (c, v) = compare_parts(seed, shape, 240, NAIVE_LIMIT);
        (compared, violated) = (compared + c, violated + v);
    }
    assert!(compared > 500 && violated > 100, "{compared} programs, {violated} violated");
}

#[test]
fn the_parts_of_a_split_search_in_weak_memory_come_to_what_the_whole_comes_to() {
    let (compared, _) = compare_parts(124, WEAK, 160, 4 * NAIVE_LIMIT);
    assert!(compared > 80, "{compared} programs");
}

/// The breadth-first proof and the depth-first search see the same states: what one proves to be the shortest trace is
/// the shortest that the naive search, which runs every execution, meets.
#[test]
fn the_shortest_trace_is_the_shortest_of_all_executions() {
    const JUDGED: [Invariant; 5] = [
        Invariant::NoStaleTranslation,
        Invariant::NoUseOfFreedFrame,
        Invariant::BreakBeforeMake,
        Invariant::AlwaysTranslates,
        Invariant::LockOrder,
    ];
    let mut compared = 0;
    for (seed, shape) in [(107, TABLES), (108, MIXED), (109, WAITING)] {
        let mut corpus = Corpus::new(seed, shape);
        for nth in 0..400 {
            let judged = [JUDGED[nth % JUDGED.len()]];
            let programs = corpus.draw();
            let world = programs.setup.world.clone();
            let (world, naive, _) =
                search(world, None, &programs, Reduction::NAIVE, InvariantSet::of(&judged), NAIVE_LIMIT);
            if naive.ended != Ended::Exhausted {
                continue;
            }
            let shared = Shared::new(Watched::new(world, None));
            let mut runner = Runner::new(&shared, &programs).expect("stacks");
            let outcome = ask(&mut runner, &programs.subject(&judged), &Options::default(), &|| false, &mut |_| {});
            for (invariant, found) in naive.found.iter().filter(|(i, _)| judged.contains(i)) {
                let counterexample = &outcome.counterexamples[invariant];
                assert!(counterexample.shortest, "seed {seed}, program {nth}: {programs:?}");
                let trace = (counterexample.switches, counterexample.steps);
                if outcome.violation.as_ref().is_some_and(|v| v.invariant == invariant.to_string()) {
                    compared += 1;
                    assert_eq!(
                        trace,
                        (found.cost.switches, found.cost.steps),
                        "seed {seed}, program {nth}, {invariant}: {programs:?}"
                    );
                }
            }
        }
    }
    assert!(compared > 20, "only {compared} traces");
}

/// Programs of which final states were lost before the access sets were made complete, and are lost again without the
/// locations that were added.
#[test]
fn programs_that_lost_final_states_keep_them() {
    let order = Order::Plain;
    let write = |at, new| Line::Do(Op::Write { at, new, order });
    let done = |tlbi| [Op::Tlbi(tlbi), Op::Barrier(Barrier::DsbIsh)].map(Line::Do).to_vec();
    let leaf = |setup: &Setup, f: usize, prot| setup.leaf(setup.frames[f], prot);
    let check = |past: Past, without: fn(&Op, LocationKind) -> bool, of: &dyn Fn(&Setup) -> [Vec<Line>; 2]| {
        let setup = Arc::new(Setup::new(&WorldOptions::default(), 2, past));
        let programs = Programs { lines: of(&setup).to_vec(), setup, past, early: Vec::new() };
        for reduction in REDUCED {
            assert!(!differs(&programs, reduction, Reduction::NAIVE), "{reduction:?}: {programs:?}");
        }
        let mutant = Mutant { name: "", loses: without, merged_only: true };
        assert!(
            loses(&programs, Reduction::MERGED, Reduction::NAIVE, Some(mutant)),
            "the rule is not needed: {programs:?}"
        );
    };
    // A store into a table that only a walk cache leads to: what a later store is judged by.
    check(Past::WalkCache, |op, l| matches!(op, Op::Write { .. }) && l == LocationKind::Named, &|s| {
        let store = Op::StoreFrame { frame: s.frames[0], index: 0, value: 1 };
        [vec![Line::Do(store)], vec![write(s.pte(0, 1), leaf(s, 0, prot::PAGE_KERNEL))]]
    });
    // An invalidate that comes too early: what is published only later.
    check(Past::Quiet, |op, l| matches!(op, Op::Tlbi(_)) && l == LocationKind::Stale, &|s| {
        let publish = vec![write(s.pte(0, 1), Desc::NONE), Line::Do(Op::Barrier(Barrier::DsbIsh))];
        [vec![Line::Do(Op::Tlbi(Tlbi::Vaale1is(page(1))))], publish]
    });
    // What comes after a complete invalidate does not see the stale value: an access by the address,
    check(Past::WalkCache, |op, l| matches!(op, Op::Store { .. }) && l == LocationKind::Stale, &|_| {
        [done(Tlbi::Vaae1is(page(1))), vec![Line::Do(Op::Store { va: page(1), value: 1, order })]]
    });
    // an exchange that is judged against it,
    check(Past::Cleared, |op, l| matches!(op, Op::Write { .. }) && l == LocationKind::Stale, &|s| {
        [done(Tlbi::Vaale1is(page(0))), vec![write(s.pte(0, 0), leaf(s, 2, prot::PAGE_KERNEL))]]
    });
    // a store to a frame that is judged against it,
    check(Past::Exchanged, |op, l| matches!(op, Op::Barrier(_)) && l == LocationKind::Compared, &|s| {
        let store = Op::StoreFrame { frame: s.frames[2], index: 0, value: 1 };
        [done(Tlbi::Vaale1is(page(0))), vec![Line::Do(store)]]
    });
    // a free of a frame inside a block that was mapped. The next: whether a table on the way of a store at risk lives.
    check(Past::Empty, |op, l| matches!(op, Op::Barrier(_)) && l == LocationKind::Mapped, &|s| {
        let free = Op::Free { frame: s.frames[1], order: 0, kind: FrameKind::Vmemmap };
        let block = vec![
            write(s.pmd(), s.block(prot::PAGE_KERNEL)),
            write(s.pmd(), Desc::NONE),
            Line::Do(Op::Barrier(Barrier::DsbIsh)),
        ];
        [[block, done(Tlbi::Vmalle1is)].concat(), vec![Line::Do(free)]]
    });
    let life = |op: &Op, l| matches!(op, Op::Free { kind: FrameKind::Vmemmap, .. }) && l == LocationKind::Life;
    check(Past::Cleared, life, &|s| {
        let table = Op::Free { frame: s.tables[1], order: 0, kind: FrameKind::Table };
        let store = Op::Store { va: page(0).plus(8), value: 2, order };
        let free = Op::Free { frame: s.frames[0], order: 0, kind: FrameKind::Vmemmap };
        [vec![Line::Do(table)], vec![write(s.pmd(), s.table(1)), Line::Do(store), Line::Do(free)]]
    });
}

/// How many of at most `n` programs give other final states with a rule left out, by mutant: under `CACHE_SLEEP`,
/// `MERGED`. A mutant noticed `enough` times under both is not tried again; the programs end when none is left.
fn noticed(mutants: &[Mutant], (weak, early): (bool, bool), n: usize, enough: usize) -> (usize, Vec<[usize; 2]>) {
    let mut counts = vec![[0; 2]; mutants.len()];
    let mut used = 0;
    let small = |sections| Shape { sections, actors: (2, 2), lines: (3, 3), weak, early };
    let mut corpora = [(104, 10), (105, 45), (106, 90)].map(|(seed, sections)| Corpus::new(seed, small(sections)));
    for nth in 0..n {
        let programs = corpora[nth % 3].draw();
        let concerned =
            |m: &Mutant| programs.lines.iter().flatten().any(|l| !matches!(l, Line::Do(op) if !m.concerns(op)));
        // A commit is also its store's: one of the two reductions is enough there.
        let open = |count: &[usize; 2]| match weak {
            true => count.iter().sum::<usize>() < enough,
            false => count.iter().any(|c| *c < enough),
        };
        let tried: Vec<usize> = (0..mutants.len()).filter(|m| open(&counts[*m]) && concerned(&mutants[*m])).collect();
        if tried.is_empty() {
            continue;
        }
        let (mut world, naive, finals) =
            whole(programs.setup.world.clone(), None, &programs, Reduction::NAIVE, NAIVE_LIMIT);
        if naive.ended != Ended::Exhausted {
            continue;
        }
        used += 1;
        for mutant in tried {
            for (reduction, count) in [Reduction::CACHE_SLEEP, Reduction::MERGED].into_iter().zip(&mut counts[mutant]) {
                let (back, _, its) = whole(world, Some(mutants[mutant]), &programs, reduction, u64::MAX);
                world = back;
                *count += usize::from(its != finals);
            }
        }
        if !counts.iter().any(open) {
            break;
        }
    }
    (used, counts)
}

#[test]
fn an_access_set_with_a_rule_less_is_noticed() {
    all_are_noticed(MUTANTS, false, false);
}

#[test]
fn an_access_set_of_weak_memory_with_a_rule_less_is_noticed() {
    all_are_noticed(WEAK_MUTANTS, true, false);
}

#[test]
fn an_access_set_of_early_loads_with_a_rule_less_is_noticed() {
    all_are_noticed(EARLY_MUTANTS, true, true);
}

fn all_are_noticed(mutants: &[Mutant], weak: bool, early: bool) {
    let (used, counts) = noticed(mutants, (weak, early), 30_000, 1);
    let missed = |(mutant, [sleep, merged]): (&Mutant, [usize; 2])| {
        let missed = if weak { sleep + merged == 0 } else { (sleep == 0 && !mutant.merged_only) || merged == 0 };
        missed.then_some((mutant.name, sleep, merged))
    };
    let missed: Vec<_> = mutants.iter().zip(counts).filter_map(missed).collect();
    assert!(missed.is_empty(), "not noticed under CACHE_SLEEP, MERGED in {used} programs: {missed:?}");
}

/// Prints the table of counts (nightly).
#[test]
#[ignore = "takes minutes; run by make nightly"]
fn how_often_each_mutant_is_noticed() {
    let (used, counts) = noticed(MUTANTS, (false, false), 30_000, usize::MAX);
    eprintln!("of {used} programs, differences under CACHE_SLEEP / MERGED:");
    for (mutant, [sleep, merged]) in MUTANTS.iter().zip(counts) {
        eprintln!("{:6} / {:6}  {}", sleep, merged, mutant.name);
    }
}

/// More programs of the same size (nightly).
#[test]
#[ignore = "takes minutes; run by make nightly"]
fn more_programs_reach_the_final_states_of_the_naive_search() {
    for (seed, shape) in [(201, TABLES), (202, MIXED), (203, WAITING)] {
        let counts = compare(seed, shape, 7000, &REDUCED, Reduction::NAIVE, 6000);
        eprintln!("{shape:?}: {counts:?}");
    }
}

/// Larger than the naive search can do; the reference is `CACHE`, itself without a difference above (nightly).
#[test]
#[ignore = "takes minutes; run by make nightly"]
fn larger_programs_agree_with_the_cached_search() {
    let reduced = [Reduction::MERGED, Reduction::CACHE_SLEEP];
    for (seed, sections) in [(301, 15), (302, 50), (303, 90)] {
        let shape = Shape { sections, actors: (3, 4), lines: (5, 5), weak: false, early: false };
        let counts = compare(seed, shape, 1800, &reduced, Reduction::CACHE, 60_000);
        eprintln!("{shape:?}: {counts:?}");
    }
}
