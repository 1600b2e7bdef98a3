//! What the tests of both families, and of traces, ask a search for.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashSet;

use vmemmap_explore::model::{InvariantSet, Model};
use vmemmap_explore::reduction::options::{Fusion, Reduction};
use vmemmap_explore::runtime::execution::{Actors, Shared};
use vmemmap_explore::runtime::runner::Runner;
use vmemmap_explore::runtime::schedule::Prefix;
use vmemmap_explore::search::dfs::Search;
use vmemmap_explore::search::limits::Limits;
use vmemmap_explore::search::report::{Final, Progress, Report};

/// Operations of an actor.
const STEP_BOUND: u32 = 100_000;

/// The same of so many workers, which begin as soon as they can.
pub fn finals_by<M: Model + Clone + Send, A: Actors<M> + Sync>(
    workers: usize,
    shared: &Shared<M>,
    actors: &A,
    reduction: Reduction,
    ending: InvariantSet,
) -> (Report, HashSet<Final>) {
    let mut runner = Runner::new(shared, actors).expect("stacks");
    let mut finals = HashSet::new();
    let mut keep = |f: Final| {
        finals.insert(f);
    };
    let search = Search::new(&mut runner, reduction, &mut keep).with_workers(workers).branching_after(0);
    let report = search.run(ending, STEP_BOUND, &mut limits(u64::MAX, &mut |_| {}));
    (report, finals)
}

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
    let report =
        Search::new(&mut runner, reduction, &mut keep).run(ending, STEP_BOUND, &mut limits(executions, &mut |_| {}));
    (report, finals)
}

/// No limits but so many executions.
pub fn limits(executions: u64, progress: &mut dyn FnMut(Progress)) -> Limits<'_> {
    Limits {
        executions,
        deadline: None,
        work: u64::MAX,
        settle: None,
        settle_work: u64::MAX,
        states: usize::MAX,
        stop: &|| false,
        progress,
    }
}

/// The same of a search that is split by the prefixes of so many operations: what all parts come to, one after the
/// other, and how each of them ended, that of the tree first. No part learns from another.
pub fn finals_of_parts<M: Model, A: Actors<M>>(
    mut model: M,
    actors: &A,
    reduction: Reduction,
    ending: InvariantSet,
    depth: usize,
) -> (M, Vec<Report>, HashSet<Final>) {
    let mut finals = HashSet::new();
    let mut reports: Vec<Report> = Vec::new();
    let mut waiting: Vec<Option<Prefix>> = vec![None];
    while let Some(prefix) = waiting.pop() {
        let shared = Shared::new(model);
        {
            let mut runner = Runner::new(&shared, actors).expect("stacks");
            let (fusion, to) = match &prefix {
                None => (Fusion::Local, Some(depth)),
                Some(_) => (reduction.fusion, None),
            };
            if let Some(prefix) = prefix {
                // As it travels.
                let text = prefix.to_string();
                assert_eq!(text.parse(), Ok(prefix.clone()), "{text}");
                runner.begin_behind(prefix).expect("a prefix of these actors");
            }
            let mut keep = |f: Final| {
                finals.insert(f);
            };
            let report = Search::new(&mut runner, Reduction { fusion, ..reduction }, &mut keep).to_depth(to).run(
                ending,
                STEP_BOUND,
                &mut limits(u64::MAX, &mut |_| {}),
            );
            waiting.extend(report.prefixes.iter().cloned().map(Some));
            reports.push(report);
        }
        model = shared.into_model();
    }
    (model, reports, finals)
}
