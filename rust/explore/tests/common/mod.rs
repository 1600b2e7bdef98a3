//! What the tests of both families, and of traces, ask a search for.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashSet;

use vmemmap_explore::model::{InvariantSet, Model};
use vmemmap_explore::reduction::options::Reduction;
use vmemmap_explore::runtime::execution::{Actors, Shared};
use vmemmap_explore::runtime::runner::Runner;
use vmemmap_explore::search::dfs::Search;
use vmemmap_explore::search::limits::Limits;
use vmemmap_explore::search::report::{Final, Report};

/// Operations of an actor.
const STEP_BOUND: u32 = 100_000;

/// The complete final states that a search comes to.
pub fn finals<M: Model, A: Actors<M>>(
    shared: &Shared<M>,
    actors: &A,
    reduction: Reduction,
    ending: InvariantSet,
    executions: u64,
) -> (Report, HashSet<Final>) {
    let mut runner = Runner::new(shared, actors).expect("stacks");
    let mut finals = HashSet::new();
    let mut keep = |f: Final| {
        finals.insert(f);
    };
    let report = Search::new(&mut runner, reduction, &mut keep).run(
        ending,
        STEP_BOUND,
        &mut Limits {
            executions,
            deadline: None,
            work: u64::MAX,
            settle: None,
            settle_work: u64::MAX,
            states: usize::MAX,
            stop: &|| false,
            progress: &mut |_| {},
        },
    );
    (report, finals)
}
