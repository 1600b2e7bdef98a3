//! Kernel operations as bodies of actors, and the two questions asked of them: explore, replay.

use std::io;

use vmemmap_arch::Geometry;
use vmemmap_kernel::Kernel;
use vmemmap_machine::model::Context;
use vmemmap_machine::op::{Op, OpCpu, Port, Reply};

use crate::execution::{ActorPort, Actors, Runner, Shared};
use crate::model::Model;
use crate::replay;
use crate::retold::Retold;
use crate::scenario::Scenario;
use crate::search::Progress;
use crate::trace::Trace;
use crate::verdict::{Options, Outcome, again, ask};

/// The actors of a scenario as coroutine bodies: kernel code on a CPU that asks.
pub struct Programs<'a> {
    pub kernel: &'a Kernel,
    pub scenario: &'a Scenario,
}

struct KernelPort<'p, 'c, M: Model<Op = Op>> {
    port: &'p ActorPort<'c, M>,
    geometry: &'p Geometry,
}

impl<M: Model<Op = Op>> Port for KernelPort<'_, '_, M> {
    #[inline]
    fn call(&self, op: Op) -> Reply {
        self.port.call(op)
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

impl<M: Model<Op = Op>> Actors<M> for Programs<'_> {
    fn count(&self) -> usize {
        self.scenario.actors.len()
    }
    fn name(&self, actor: usize) -> &str {
        &self.scenario.actors[actor].name
    }
    fn cpu(&self, actor: usize) -> u8 {
        self.scenario.actors[actor].cpu
    }
    fn run(&self, actor: usize, port: &ActorPort<'_, M>) {
        let me = &self.scenario.actors[actor];
        let cpu = OpCpu::new(KernelPort { port, geometry: &self.kernel.geometry });
        let mut position = 0;
        let mut rounds = 0;
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
            for operation in &me.program {
                // A program does not look at results, so its future is its position alone.
                port.boundary(position);
                position += 1;
                let _observed = operation.run(self.kernel, &cpu);
            }
            if me.context != Context::Task {
                port.boundary(position);
                position += 1;
                port.call(Op::InterruptExit);
            }
        }
        port.boundary(position);
    }
}

/// Explore the actors of a scenario on `world`, which is set up already and goes back to that state at each `reset`.
///
/// # Errors
/// No memory for the actors' stacks.
pub fn explore<M: Model<Op = Op>>(
    kernel: &Kernel,
    world: M,
    scenario: &Scenario,
    options: &Options,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(Progress),
) -> io::Result<Outcome> {
    let shared = Shared::new(world);
    let programs = Programs { kernel, scenario };
    let mut runner = Runner::new(&shared, &programs)?;
    Ok(ask(&mut runner, scenario, options, stop, progress))
}

/// The same execution again, on a world as it was explored.
///
/// # Errors
/// No memory for the actors' stacks.
pub fn replay<M: Model<Op = Op>>(
    kernel: &Kernel,
    world: M,
    scenario: &Scenario,
    trace: &Trace,
    how: replay::Options,
) -> io::Result<Retold> {
    let shared = Shared::new(world);
    let programs = Programs { kernel, scenario };
    let mut runner = Runner::new(&shared, &programs)?;
    let replayed = again(&mut runner, scenario, trace, how);
    Ok(Retold::new::<M, _>(replayed, &programs))
}
