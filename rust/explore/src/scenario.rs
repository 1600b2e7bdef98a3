//! Scenarios as data: who runs, what is judged.

use vmemmap_arch::{Invariant, Var};
use vmemmap_kernel::policy::{PauseIpi, PmdSplit, PteUpdate};
use vmemmap_kernel::state::Scalar;
use vmemmap_kernel::{Kernel, Operation};
use vmemmap_machine::model::{Context, Place};

use crate::model::Invariants;

/// A CPU's work: a program of kernel operations, some rounds of it. An errno is an observation and ends nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actor {
    pub name: String,
    pub cpu: u8,
    pub rounds: u32,
    pub program: Vec<Operation>,
    /// An interrupt enters before and leaves after each round.
    pub context: Context,
    /// An interrupt that comes whenever its line is raised, and only then.
    pub line: Option<Var>,
}

/// Who runs, and what is judged. The machine and what happened on it before are given apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scenario {
    pub name: String,
    pub variant: String,
    /// Of everything that the scenario was made of; a trace names it.
    pub digest: String,
    pub actors: Vec<Actor>,
    pub judged: Vec<Invariant>,
}

impl Scenario {
    /// Where each actor runs.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        self.actors.iter().map(|a| Place { cpu: a.cpu, context: a.context, line: a.line }).collect()
    }
    /// Under a policy that pauses CPUs by IPI, each CPU has the kernel's handler for it.
    pub fn add_ipi_handlers(&mut self, kernel: &Kernel) {
        let p = &kernel.policies;
        if p.update != PteUpdate::BbmIpiPause && p.split != PmdSplit::BbmIpiPause {
            return;
        }
        let context = if p.ipi == PauseIpi::Irq { Context::Irq } else { Context::Nmi };
        let mut cpus: Vec<u8> = self.actors.iter().map(|a| a.cpu).collect();
        cpus.sort_unstable();
        cpus.dedup();
        self.actors.extend(cpus.into_iter().map(|cpu| Actor {
            name: format!("IPI on CPU {cpu}"),
            cpu,
            rounds: 1,
            program: vec![Operation::PauseLocalCpu],
            context,
            line: Some(kernel.vars.scalar(Scalar::IpiCpuPause)),
        }));
    }
    #[must_use]
    pub fn judged(&self) -> Invariants {
        Invariants::of(&self.judged)
    }
}
