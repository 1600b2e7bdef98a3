//! Kernel operations as bodies of actors, and what is asked of them: a check, a replay.

use std::io;

use vmemmap_arch::{Geometry, Observed, Order, Slot, Tlbi, Va};
use vmemmap_kernel::{Kernel, Operation};
use vmemmap_machine::explored::Context;
use vmemmap_machine::op::{Op, Reply, Tok};
use vmemmap_machine::op_cpu::{OpCpu, Port};

use crate::scenario::{Body, Scenario};
use crate::script::{Transcript, sent};
use vmemmap_explore::check::options::Options;
use vmemmap_explore::check::outcome::Outcome;
use vmemmap_explore::check::verdict::{again, ask};
use vmemmap_explore::counterexample::replay;
use vmemmap_explore::counterexample::report::ReplayReport;
use vmemmap_explore::counterexample::trace::Trace;
use vmemmap_explore::model::Model;
use vmemmap_explore::runtime::execution::{ActorPort, Actors, Answer, Shared};
use vmemmap_explore::runtime::runner::Runner;
use vmemmap_explore::runtime::scripted::{Next, ROOT};
use vmemmap_explore::search::report::Progress;

/// The actors of a scenario as coroutine bodies: kernel code on a CPU that asks.
pub struct Programs<'a> {
    pub kernel: &'a Kernel,
    pub scenario: &'a Scenario,
    /// For actors whose operations are asked for; without it they have none.
    pub transcript: Option<&'a Transcript<'a>>,
}

/// An actor's way out, for kernel code on an `OpCpu`.
pub struct KernelPort<'p, 'c, M: Model<Op = Op, Reply = Reply>> {
    pub port: &'p ActorPort<'c, M>,
    pub geometry: &'p Geometry,
}

impl<M: Model<Op = Op, Reply = Reply>> Port for KernelPort<'_, '_, M> {
    #[inline]
    fn call(&self, op: Op) -> Reply {
        self.port.call(op)
    }
    fn skip_none(&self, at: Slot<Tok>, entries: usize) -> usize {
        self.port.skip(&Op::Read { at, order: Order::Plain }, entries)
    }
    fn skip_tlbi(&self, first: Va, pages: usize) -> usize {
        self.port.skip(&Op::Tlbi(Tlbi::Vaale1is(first)), pages)
    }
    fn observed(&self) -> Observed {
        self.port.observed()
    }
    fn conclude(&self, since: Observed, outcome: u64) {
        self.port.abstract_observations(since, outcome);
    }
    fn id(&self) -> u8 {
        self.port.id()
    }
    fn label(&self, function: &'static str) {
        self.port.label(function);
    }
    fn geometry(&self) -> &Geometry {
        self.geometry
    }
}

impl<M: Model<Op = Op, Reply = Reply>> Actors<M> for Programs<'_> {
    fn count(&self) -> usize {
        self.scenario.actors.len()
    }
    fn name(&self, actor: usize) -> &str {
        &self.scenario.actors[actor].name
    }
    fn cpu(&self, actor: usize) -> u8 {
        self.scenario.actors[actor].cpu
    }
    fn on_threads(&self) -> bool {
        // Whoever answers is asked by one.
        self.transcript.is_none()
    }
    fn rounds(&self, actor: usize) -> (u32, u32) {
        let me = &self.scenario.actors[actor];
        match &me.body {
            Body::Program(program) if me.context == Context::Task => (program.len() as u32, me.rounds),
            _ => (0, 1),
        }
    }
    fn run(&self, actor: usize, port: &ActorPort<'_, M>) {
        let me = &self.scenario.actors[actor];
        let cpu = OpCpu::new(KernelPort { port, geometry: &self.kernel.geometry });
        if let Some(op) = machine_step(me.context) {
            port.recurs();
            loop {
                // What commits, or is loaded, is a matter of the machine's state alone.
                port.boundary(0);
                port.call(op);
            }
        }
        let mut position = 0;
        let mut rounds = 0;
        if me.line.is_some() {
            port.recurs();
        }
        // A handler is there for as long as its line may be raised.
        while me.line.is_some() || rounds < me.rounds {
            rounds += 1;
            if me.line.is_some() {
                position = 0;
            }
            if me.context != Context::Task {
                port.boundary(position);
                position += 1;
                port.call(Op::InterruptEnter);
            }
            match (&me.body, self.transcript) {
                (Body::Program(program), _) => {
                    for operation in program {
                        // A program does not look at results, so its future is its position alone.
                        port.boundary(position);
                        position += 1;
                        operation.run_unread(self.kernel, &cpu);
                    }
                }
                (Body::Scripted, Some(transcript)) => {
                    let mut node = ROOT;
                    while let Some(operation) = next(transcript, actor, node, port) {
                        port.boundary(position);
                        port.past(node);
                        position += 1;
                        node = transcript.after(actor, node, sent(operation.run(self.kernel, &cpu)));
                    }
                }
                (Body::Scripted, None) => {}
            }
            if me.context != Context::Task {
                port.boundary(position);
                position += 1;
                port.call(Op::InterruptExit);
            }
        }
        port.boundary(position);
    }
    fn answer(&self, actor: usize, query: u32) -> Answer {
        self.transcript.map_or(Answer::None, |transcript| transcript.ask(actor, query))
    }
}

/// What an actor does that is no work of its CPU's.
const fn machine_step(context: Context) -> Option<Op> {
    match context {
        Context::StoreBuffer => Some(Op::Commit),
        Context::LoadQueue => Some(Op::LoadEarly),
        Context::Task | Context::Irq | Context::Nmi => None,
    }
}

/// What the actor does after the history `node`; the search finds it out if nobody knows yet.
fn next<M: Model>(transcript: &Transcript<'_>, actor: usize, node: u32, port: &ActorPort<'_, M>) -> Option<Operation> {
    loop {
        match transcript.next(actor, node) {
            Next::Run(operation) => return Some(operation),
            Next::End => return None,
            Next::Unknown => port.ask(node),
        }
    }
}

/// Explore the actors of a scenario on `world`, which is set up already and goes back to that state at each `reset`.
/// Whether `transcript` failed on the way is for the caller to ask.
///
/// # Errors
/// No memory for the actors' stacks, or a prefix that cannot be followed (`InvalidInput`).
pub fn explore<M: Model<Op = Op, Reply = Reply> + Clone + Send>(
    kernel: &Kernel,
    world: M,
    scenario: &Scenario,
    transcript: Option<&Transcript<'_>>,
    options: &Options,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(Progress),
) -> io::Result<Outcome> {
    let shared = Shared::new(world);
    let programs = Programs { kernel, scenario, transcript };
    let mut runner = Runner::new(&shared, &programs)?;
    if let Some(prefix) = &options.prefix {
        runner.begin_behind(prefix.clone()).map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))?;
    }
    let stop = || stop() || transcript.is_some_and(Transcript::is_over);
    Ok(ask(&mut runner, &scenario.subject(), options, &stop, progress))
}

/// The same execution again, on a world as it was explored.
///
/// # Errors
/// No memory for the actors' stacks.
pub fn replay<M: Model<Op = Op, Reply = Reply>>(
    kernel: &Kernel,
    world: M,
    scenario: &Scenario,
    trace: &Trace,
    how: replay::Options,
) -> io::Result<ReplayReport> {
    let shared = Shared::new(world);
    let programs = Programs { kernel, scenario, transcript: None };
    let mut runner = Runner::new(&shared, &programs)?;
    let replayed = again(&mut runner, &scenario.subject(), trace, how);
    Ok(ReplayReport::new::<M, _>(replayed, &programs))
}
