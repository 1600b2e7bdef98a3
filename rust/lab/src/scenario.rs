//! Scenarios as data: who runs, what is judged.

use vmemmap_arch::contents::word;
use vmemmap_arch::{Invariant, Var};
use vmemmap_kernel::page::{nth_page, word_va};
use vmemmap_kernel::policy::{PauseIpi, PmdSplit, PteUpdate, RemapGrace, UserFlush};
use vmemmap_kernel::state::Scalar;
use vmemmap_kernel::{Kernel, Operation};
use vmemmap_machine::explored::{Context, Early, EarlyLoad, Place};

use vmemmap_explore::check::subject::Subject;

/// Where an actor's operations come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Listed beforehand.
    Program(Vec<Operation>),
    /// Asked for one after the other, each with the results of those before (`foreign`).
    Scripted,
}

impl Body {
    /// The operations, if they are known.
    #[must_use]
    pub fn program(&self) -> Option<&[Operation]> {
        match self {
            Body::Program(program) => Some(program),
            Body::Scripted => None,
        }
    }
}

/// A CPU's work: kernel operations, some rounds of them. An errno is an observation and ends nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actor {
    pub name: String,
    pub cpu: u8,
    pub rounds: u32,
    pub body: Body,
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
        let pauses = p.update == PteUpdate::BbmIpiPause || p.split == PmdSplit::BbmIpiPause;
        if !pauses && p.remap_grace != RemapGrace::Ipi && p.user_flush != UserFlush::Ipi {
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
            body: Body::Program(vec![Operation::PauseLocalCpu]),
            context,
            line: Some(kernel.vars.scalar(Scalar::IpiCpuPause)),
        }));
    }
    /// In weak memory, each CPU has a store buffer whose stores commit in their own time.
    pub fn add_store_buffers(&mut self) {
        let mut cpus: Vec<u8> = self.actors.iter().map(|a| a.cpu).collect();
        cpus.sort_unstable();
        cpus.dedup();
        self.add_memory(cpus, "store buffer", Context::StoreBuffer);
    }
    /// In weak memory, some loads take effect early. The words, and an actor for each CPU that loads some.
    ///
    /// They are those of `page_ref_add_unless`, whose addresses are the page's that the program names: the fake-head
    /// test and the count. What comes after them, or before, may find its page through `compound_head`: so they are
    /// those of a program's first operation, and only the first load of each is early.
    pub fn add_load_queues(&mut self, kernel: &Kernel) -> Vec<EarlyLoad> {
        let alone = |cpu| self.actors.iter().filter(|a| a.cpu == cpu && a.context != Context::StoreBuffer).count() == 1;
        let mut words = Vec::new();
        for actor in self.actors.iter().filter(|a| a.context == Context::Task && alone(a.cpu)) {
            let Some([Operation::SpeculativeRef { pfn }, ..]) = actor.body.program() else { continue };
            let page = kernel.layout.page_va(*pfn);
            let of = [(page, word::FLAGS), (nth_page(page, 1), word::COMPOUND_HEAD), (page, word::COUNT)];
            let of = of.map(|(page, word)| Early::Word(word_va(page, word)));
            words.extend(of.map(|of| EarlyLoad { cpu: actor.cpu, of, once: true }));
        }
        let mut cpus: Vec<u8> = words.iter().map(|load| load.cpu).collect();
        cpus.dedup();
        self.add_memory(cpus, "early loads", Context::LoadQueue);
        words
    }
    /// What each of these CPUs' accesses go through: actors without a program of their own.
    fn add_memory(&mut self, cpus: Vec<u8>, name: &str, context: Context) {
        self.actors.extend(cpus.into_iter().map(|cpu| Actor {
            name: format!("{name} of CPU {cpu}"),
            cpu,
            rounds: 1,
            body: Body::Program(Vec::new()),
            context,
            line: None,
        }));
    }
    /// What the engine is told of it.
    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject {
            name: self.name.clone(),
            variant: self.variant.clone(),
            digest: self.digest.clone(),
            actors: self.actors.iter().map(|a| (a.name.clone(), a.rounds)).collect(),
            judged: self.judged.clone(),
        }
    }
}
