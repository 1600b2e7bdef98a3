//! Interrupt actors of a scenario enter once and leave once a round, and hold their CPU from the one to the other.

#[path = "../../explore/tests/common/mod.rs"]
mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::finals;
use serde_json::json;
use vmemmap_explore::model::{AccessSet, Described, InvariantSet, Model, Violation};
use vmemmap_explore::reduction::options::Reduction;
use vmemmap_explore::runtime::execution::Shared;
use vmemmap_kernel::{Kernel, Operation};
use vmemmap_lab::document::MachineDocument;
use vmemmap_lab::programs::Programs;
use vmemmap_lab::scenario::{Actor, Body, Scenario};
use vmemmap_lab::world::{Explored, booted};
use vmemmap_machine::explored::{Context, Mark, WorldOptions};
use vmemmap_machine::op::{Op, Reply};

/// Executed operations, each with its actor.
type History = Vec<(u8, Op)>;

/// A world that writes down what executes in it. It is one state a history, so no search can prune what it does.
struct Recorder {
    world: Explored,
    history: History,
    complete: Rc<RefCell<Vec<History>>>,
}

impl Model for Recorder {
    type Op = Op;
    type Reply = Reply;
    type Mark = (Mark, usize);

    fn reset(&mut self) {
        Model::reset(&mut self.world);
        self.history.clear();
    }
    fn checkpoint(&mut self) -> Self::Mark {
        (Model::checkpoint(&mut self.world), self.history.len())
    }
    fn rollback(&mut self, mark: &Self::Mark) {
        Model::rollback(&mut self.world, &mark.0);
        self.history.truncate(mark.1);
    }
    fn is_local(op: &Op) -> bool {
        <Explored as Model>::is_local(op)
    }
    fn outcomes(&mut self, actor: u8, op: &Op) -> u16 {
        Model::outcomes(&mut self.world, actor, op)
    }
    fn access_set(&mut self, actor: u8, op: &Op, out: &mut AccessSet) {
        Model::access_set(&mut self.world, actor, op, out);
    }
    fn observed(reply: Reply) -> u64 {
        Explored::observed(reply)
    }
    fn execute(&mut self, actor: u8, op: &Op, outcome: u16) -> Reply {
        self.history.push((actor, *op));
        Model::execute(&mut self.world, actor, op, outcome)
    }
    fn fingerprint(&self) -> u128 {
        Model::fingerprint(&self.world)
    }
    fn violated(&self) -> InvariantSet {
        Model::violated(&self.world)
    }
    fn waits_for(&self, actor: u8, op: &Op) -> u16 {
        Model::waits_for(&self.world, actor, op)
    }
    fn may_never_come(&self, actor: u8, op: &Op) -> bool {
        Model::may_never_come(&self.world, actor, op)
    }
    fn at_rest(&mut self) {
        self.complete.borrow_mut().push(self.history.clone());
    }
    fn violations(&self) -> Vec<Violation> {
        Model::violations(&self.world)
    }
    fn describe(&self, actor: u8, op: &Op) -> Described {
        Model::describe(&self.world, actor, op)
    }
    fn describe_after(&self, actor: u8, op: &Op, reply: Reply, text: &mut Described) {
        Model::describe_after(&self.world, actor, op, reply, text);
    }
}

fn kernel() -> Kernel {
    let machine =
        json!({"granule": 4096, "va_bits": 48, "kernel": "6.1", "boot": [[1u64 << 30, 128 << 20]], "hotplug": []});
    serde_json::from_value::<MachineDocument>(machine).expect("a machine").kernel().expect("a kernel")
}

/// An actor of one round that does nothing.
fn task(name: &str, cpu: u8) -> Actor {
    Actor { name: name.into(), cpu, rounds: 1, body: Body::Program(Vec::new()), context: Context::Task, line: None }
}

/// A task that leaves its mark once, and interrupts without work, all on CPU 0.
fn scenario(interrupts: &[(Context, u32)]) -> Scenario {
    let mut actors = vec![Actor { body: Body::Program(vec![Operation::SetHvo { on: true }]), ..task("task", 0) }];
    actors.extend(interrupts.iter().map(|(context, rounds)| Actor {
        context: *context,
        rounds: *rounds,
        ..task("interrupt", 0)
    }));
    Scenario { name: "interrupts".into(), variant: "only".into(), digest: String::new(), actors, judged: Vec::new() }
}

/// The complete histories of all executions.
fn histories(scenario: &Scenario) -> Vec<History> {
    let kernel = kernel();
    let mut world = booted(&kernel, scenario.actors.len() as u8, WorldOptions::default(), &[]).expect("it boots");
    world.place(&scenario.places());
    let complete = Rc::default();
    let recorder = Recorder { world, history: Vec::new(), complete: Rc::clone(&complete) };
    let (report, _) = finals(
        &Shared::new(recorder),
        &Programs { kernel: &kernel, scenario, transcript: None },
        Reduction::NAIVE,
        InvariantSet::NONE,
        u64::MAX,
    );
    assert!(report.exhaustive());
    complete.take()
}

#[test]
fn a_round_of_an_interrupt_has_one_entry_and_one_exit() {
    for context in [Context::Irq, Context::Nmi] {
        for rounds in 1..=3 {
            let all = histories(&scenario(&[(context, rounds)]));
            assert!(!all.is_empty());
            for history in all {
                let own: Vec<Op> = history.iter().filter(|(actor, _)| *actor == 1).map(|(_, op)| *op).collect();
                assert_eq!(own, [Op::InterruptEnter, Op::InterruptExit].repeat(rounds as usize));
            }
        }
    }
}

#[test]
fn nobody_runs_beneath_an_interrupt_whoever_came_before_it() {
    use Context::{Irq, Nmi};
    for contexts in [[Irq, Irq], [Nmi, Nmi], [Irq, Nmi]] {
        let scenario = scenario(&contexts.map(|context| (context, 1)));
        let all = histories(&scenario);
        assert!(all.len() > 4, "{} executions", all.len());
        for history in all {
            // Who is inside, the innermost last: entries and exits nest, and only the innermost does anything.
            let mut inside: Vec<u8> = vec![0];
            for (actor, op) in history.iter().filter(|(_, op)| !op.is_local()) {
                if *op == Op::InterruptEnter {
                    let context = |a: u8| scenario.actors[usize::from(a)].context;
                    assert!(inside.iter().all(|a| context(*a) != context(*actor) && context(*a) != Nmi), "{history:?}");
                    inside.push(*actor);
                }
                assert_eq!(inside.last(), Some(actor), "{history:?}");
                if *op == Op::InterruptExit {
                    inside.pop();
                }
            }
            assert_eq!(inside, [0]);
        }
    }
}
