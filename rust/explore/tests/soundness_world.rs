//! The reductions against the naive search, on thousands of small random programs on the World (explorer.md §9, family B).

mod family;

use std::collections::HashSet;

use family::mutants::MUTANTS;
use family::programs::{Corpus, Shape};
use family::{Line, Mutant, Programs, search, shrunk};
use vmemmap_arch::Invariant;
use vmemmap_explore::model::Invariants;
use vmemmap_explore::search::{Ended, Final, Reduction, Report};
use vmemmap_machine::model::World;

const REDUCED: [Reduction; 4] = [Reduction::MERGED, Reduction::CACHE_SLEEP, Reduction::SLEEP, Reduction::CACHE];
const NAIVE_LIMIT: u64 = 2_000;

const TABLES: Shape = Shape { sections: 10, actors: (2, 3), lines: (5, 3) };
const MIXED: Shape = Shape { sections: 45, actors: (2, 3), lines: (5, 3) };
const WAITING: Shape = Shape { sections: 90, actors: (2, 3), lines: (5, 4) };

/// Complete final states, and violations end nothing.
fn whole(world: World, mutant: Option<Mutant>, programs: &Programs, r: Reduction, limit: u64) -> (World, Report, HashSet<Final>) {
    search(world, mutant, programs, Reduction { keep_finished: true, ..r }, Invariants::NONE, limit)
}

/// Whether a reduction loses final states of the reference, on a machine that has numbered nothing yet.
fn differs(programs: &Programs, reduction: Reduction, reference: Reduction) -> bool {
    let (world, _, reduced) = whole(programs.stage.world.clone(), None, programs, reduction, u64::MAX);
    let (_, report, finals) = whole(world, None, programs, reference, 4 * NAIVE_LIMIT);
    report.ended == Ended::Exhausted && reduced != finals
}

#[derive(Default, Debug)]
struct Counts {
    programs: usize,
    deadlocks: usize,
    violated: usize,
    finals: usize,
    executions: u64,
}

/// Compares reductions with a reference on `n` programs, those left out for which it takes more than `limit` executions.
fn compare(seed: u64, shape: Shape, n: usize, reduced: &[Reduction], reference: Reduction, limit: u64) -> Counts {
    let mut corpus = Corpus::new(seed, shape);
    let mut counts = Counts::default();
    for nth in 0..n {
        let programs = corpus.draw();
        // The first has a machine that has numbered nothing yet, as the product has; hence each comes first at times.
        let mut world = programs.stage.world.clone();
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
                *its == finals && reduced.found.keys().eq(report.found.keys()),
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

/// The same where a fall ends its execution: judged are all that these programs can make fall, or one of them.
fn verdicts_agree(mut world: World, programs: &Programs, nth: usize, reference: Reduction) {
    const JUDGED: [Invariant; 6] = [
        Invariant::AlwaysTranslates,
        Invariant::NoUseOfFreedFrame,
        Invariant::NoStaleTranslation,
        Invariant::FreedTableIsEmpty,
        Invariant::BreakBeforeMake,
        Invariant::LockOrder,
    ];
    let ending = JUDGED.get(nth % 8).map_or(Invariants::of(&JUDGED), |one| Invariants::only(*one));
    let mut fell = |reduction| {
        let (back, report, _) = search(world.clone(), None, programs, reduction, ending, u64::MAX);
        world = back;
        report.found.keys().any(|i| ending.contains(*i))
    };
    let expected = fell(reference);
    for reduction in [Reduction::MERGED, Reduction::CACHE_SLEEP] {
        assert_eq!(fell(reduction), expected, "verdict under {reduction:?}, program {nth}, judged {ending:?}: {programs:?}");
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
    assert!(mixed.programs + waiting.programs > 1000, "{mixed:?} {waiting:?}");
    assert!(mixed.deadlocks + waiting.deadlocks > 150, "{mixed:?} {waiting:?}");
}

/// Of so many programs, how many give other final states with a rule left out, by mutant: under `CACHE_SLEEP`, `MERGED`.
/// A mutant noticed `enough` times under both is not tried again.
fn noticed(n: usize, enough: usize) -> (usize, Vec<[usize; 2]>) {
    let mut counts = vec![[0; 2]; MUTANTS.len()];
    let mut used = 0;
    for (seed, shape) in [(104, TABLES), (105, MIXED), (106, WAITING)] {
        let mut corpus = Corpus::new(seed, shape);
        for _ in 0..n {
            let programs = corpus.draw();
            let (mut world, naive, finals) = whole(programs.stage.world.clone(), None, &programs, Reduction::NAIVE, NAIVE_LIMIT);
            if naive.ended != Ended::Exhausted {
                continue;
            }
            used += 1;
            for (mutant, counts) in MUTANTS.iter().zip(&mut counts) {
                let concerns = |line: &Line| !matches!(line, Line::Do(op) if !mutant.concerns(op));
                if !programs.lines.iter().flatten().any(concerns) {
                    continue;
                }
                for (reduction, count) in [Reduction::CACHE_SLEEP, Reduction::MERGED].into_iter().zip(counts) {
                    if *count < enough {
                        let (back, _, its) = whole(world, Some(*mutant), &programs, reduction, u64::MAX);
                        world = back;
                        *count += usize::from(its != finals);
                    }
                }
            }
        }
    }
    (used, counts)
}

#[test]
fn a_footprint_with_a_rule_less_is_noticed() {
    let (used, counts) = noticed(250, 2);
    for (mutant, [sleep, merged]) in MUTANTS.iter().zip(counts) {
        assert!(sleep > 0 || mutant.merged_only, "{} under CACHE_SLEEP, in {used} programs", mutant.name);
        assert!(merged > 0, "{} under MERGED, in {used} programs", mutant.name);
    }
}

/// Prints the table of counts (nightly).
#[test]
#[ignore = "takes minutes; run by make nightly"]
fn how_often_each_mutant_is_noticed() {
    let (used, counts) = noticed(1000, usize::MAX);
    println!("of {used} programs, differences under CACHE_SLEEP / MERGED:");
    for (mutant, [sleep, merged]) in MUTANTS.iter().zip(counts) {
        println!("{:6} / {:6}  {}", sleep, merged, mutant.name);
    }
}

/// More programs of the same size (nightly).
#[test]
#[ignore = "takes minutes; run by make nightly"]
fn more_programs_reach_the_final_states_of_the_naive_search() {
    for (seed, shape) in [(201, TABLES), (202, MIXED), (203, WAITING)] {
        let counts = compare(seed, shape, 7000, &REDUCED, Reduction::NAIVE, 6000);
        println!("{shape:?}: {counts:?}");
    }
}

/// Larger than the naive search can do; the reference is `CACHE`, itself without a difference above (nightly).
#[test]
#[ignore = "takes minutes; run by make nightly"]
fn larger_programs_agree_with_the_cached_search() {
    let reduced = [Reduction::MERGED, Reduction::CACHE_SLEEP];
    for (seed, sections) in [(301, 15), (302, 50), (303, 90)] {
        let shape = Shape { sections, actors: (3, 4), lines: (5, 5) };
        let counts = compare(seed, shape, 1800, &reduced, Reduction::CACHE, 60_000);
        println!("{shape:?}: {counts:?}");
    }
}
