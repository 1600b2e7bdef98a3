//! The reductions against the naive search, on thousands of small random programs on the World (explorer.md §9, family B).

mod family;

use std::collections::HashSet;

use family::programs::{Corpus, Shape};
use family::{Mutant, Programs, search, shrunk};
use vmemmap_explore::model::Invariants;
use vmemmap_explore::search::{Ended, Final, Reduction};

const REDUCED: [Reduction; 4] = [Reduction::MERGED, Reduction::CACHE_SLEEP, Reduction::SLEEP, Reduction::CACHE];
const NAIVE_LIMIT: u64 = 6_000;

const TABLES: Shape = Shape { sections: 10, actors: (2, 3), lines: (5, 3) };
const MIXED: Shape = Shape { sections: 45, actors: (2, 3), lines: (5, 3) };
const WAITING: Shape = Shape { sections: 90, actors: (2, 3), lines: (5, 4) };

fn whole(reduction: Reduction) -> Reduction {
    Reduction { keep_finished: true, ..reduction }
}

/// Final states under a reduction (on a machine that has numbered nothing yet) and under the naive search; `None` if that
/// takes too long.
fn both(programs: &Programs, reduction: Reduction, mutant: Option<Mutant>) -> Option<(HashSet<Final>, HashSet<Final>)> {
    let (world, _, reduced) = search(programs.stage.world.clone(), mutant, programs, whole(reduction), Invariants::NONE, u64::MAX);
    let (_, naive, finals) = search(world, None, programs, whole(Reduction::NAIVE), Invariants::NONE, NAIVE_LIMIT);
    (naive.ended == Ended::Exhausted).then_some((reduced, finals))
}

fn differs(programs: &Programs, reduction: Reduction) -> bool {
    both(programs, reduction, None).is_some_and(|(reduced, naive)| reduced != naive)
}

#[derive(Default, Debug)]
struct Counts {
    used: usize,
    deadlocks: usize,
    violated: usize,
    finals: usize,
    executions: u64,
}

/// Compares all reductions with the naive search on `n` programs.
fn compare(seed: u64, shape: Shape, n: usize) -> Counts {
    let mut corpus = Corpus::new(seed, shape);
    let mut counts = Counts::default();
    for nth in 0..n {
        let programs = corpus.draw();
        // The first has a machine that has numbered nothing yet, as the product has; hence each comes first at times.
        let mut world = programs.stage.world.clone();
        let mut all = Vec::new();
        for k in 0..REDUCED.len() {
            let reduction = REDUCED[(nth + k) % REDUCED.len()];
            let (back, report, finals) = search(world, None, &programs, whole(reduction), Invariants::NONE, 4 * NAIVE_LIMIT);
            world = back;
            all.push((reduction, report, finals));
        }
        let (_, naive, finals) = search(world, None, &programs, whole(Reduction::NAIVE), Invariants::NONE, NAIVE_LIMIT);
        if naive.ended != Ended::Exhausted {
            continue;
        }
        counts.used += 1;
        counts.executions += naive.executions;
        counts.finals += finals.len();
        counts.deadlocks += usize::from(finals.iter().any(|f| f.deadlock));
        counts.violated += usize::from(!naive.found.is_empty());
        for (reduction, report, reduced) in &all {
            let same = *reduced == finals && report.found.keys().eq(naive.found.keys());
            assert!(
                same,
                "seed {seed}, program {nth}, {reduction:?}: {} final states of {}\nminimal: {:?}",
                reduced.len(),
                finals.len(),
                shrunk(&programs, |p| differs(p, *reduction))
            );
        }
        let states = |wanted: Reduction| all.iter().find(|(r, ..)| *r == wanted).map(|(_, report, _)| report.states);
        assert_eq!(states(Reduction::CACHE), states(Reduction::CACHE_SLEEP), "seed {seed}, program {nth}: {programs:?}");
    }
    counts
}

#[test]
fn every_reduction_reaches_the_final_states_of_the_naive_search() {
    for (seed, shape) in [(101, TABLES), (102, MIXED), (103, WAITING)] {
        let began = std::time::Instant::now();
        let counts = compare(seed, shape, 500);
        println!("{counts:?} {:?}", began.elapsed());
    }
}
