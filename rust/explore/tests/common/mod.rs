//! What the tests of both families, and of traces, ask a search for.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashSet;

use vmemmap_explore::execution::{Actors, Shared};
use vmemmap_explore::model::{Invariants, Model};
use vmemmap_explore::runner::Runner;
use vmemmap_explore::scenario::{Actor, Body};
use vmemmap_explore::search::{Final, Limits, Reduction, Report, Search};
use vmemmap_machine::explored::Context;

/// Operations of an actor.
const STEP_BOUND: u32 = 100_000;

/// The complete final states that a search comes to.
pub fn finals<M: Model, A: Actors<M>>(
    shared: &Shared<M>,
    actors: &A,
    reduction: Reduction,
    ending: Invariants,
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
        &mut Limits { executions, deadline: None, settle: None, states: usize::MAX, stop: &|| false, progress: &mut |_| {} },
    );
    (report, finals)
}

/// A task that a scenario names; what it does the test says elsewhere.
pub fn task(name: &str, cpu: usize) -> Actor {
    Actor { name: name.into(), cpu: cpu as u8, rounds: 1, body: Body::Program(Vec::new()), context: Context::Task, line: None }
}
