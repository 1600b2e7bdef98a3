//! Kernel operations on a machine that charges for them: so many CPUs, latencies of a machine file, modelled time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use vmemmap_arch::Cpu;
use vmemmap_explore::runtime::coroutine::{Coroutine, Stacks, Suspender};
use vmemmap_kernel::policy::PauseIpi;
use vmemmap_kernel::state::Hstate;
use vmemmap_kernel::{Errno, Kernel, Operation};
use vmemmap_machine::Native;
use vmemmap_machine::costed::{Broadcast, Costed, Costs, Counted, Hub, NANOSECOND, Options};

use crate::document::{DocumentError, MachineDocument, OperationDocument};
use crate::live::{LiveError, LiveMachine};

/// Most CPUs.
pub const MAX_CPUS: u16 = 1024;

/// Why nothing was run.
#[derive(Debug, Error)]
pub enum CostedError {
    #[error("costs: {0}")]
    Json(String),
    #[error("{0} CPUs: it is 1 to {MAX_CPUS}, and one for each actor")]
    Cpus(u16),
    #[error("latency {0:?} is missing, negative or no number")]
    Cost(&'static str),
    #[error("there is no latency {0:?}")]
    UnknownCost(String),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Live(#[from] LiveError),
    #[error("{name} of {phase:?} failed with {errno}")]
    Failed { phase: String, name: &'static str, errno: Errno },
    #[error("everybody waits: {0} of modelled time have passed, {1:?} is under way")]
    Deadlock(String, String),
    #[error("no memory for the stacks of the CPUs: {0}")]
    Stacks(#[from] io::Error),
}

/// How an invalidate reaches the other CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BroadcastName {
    Dvm,
    Ipi,
}

/// Operations that are timed one by one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PhaseDocument {
    name: String,
    operations: Vec<OperationDocument>,
}

/// What to run, and on what.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkDocument {
    machine: MachineDocument,
    costs: BTreeMap<String, f64>,
    broadcast: BroadcastName,
    cpus: u16,
    seed: u64,
    /// Which hugepage size demotion makes, counted from the smallest.
    #[serde(default = "one")]
    demote_to: u8,
    phases: Vec<PhaseDocument>,
    /// Programs of further actors, each repeated without end on a CPU of its own.
    #[serde(default)]
    beside: Vec<Vec<OperationDocument>>,
}

const fn one() -> u8 {
    1
}

/// What one phase took.
#[derive(Debug, Serialize)]
struct Phase {
    name: String,
    /// Modelled, of each operation.
    latencies_ns: Vec<f64>,
    counters: BTreeMap<&'static str, u64>,
    hole_longest_ns: f64,
    hole_total_ns: f64,
    /// Free frames before and after.
    frames_free: (u64, u64),
}

/// The answer.
#[derive(Debug, Serialize)]
struct Costings {
    phases: Vec<Phase>,
    events: u64,
    /// Real time.
    seconds: f64,
    /// Modelled time by kernel function.
    by_function_ns: BTreeMap<&'static str, f64>,
    violations: u64,
}

fn ns(time: u64) -> f64 {
    time as f64 / NANOSECOND as f64
}

/// Runs the document, which is JSON, and answers in JSON.
///
/// # Errors
/// What is wrong with the document; an operation that failed; actors that all wait.
pub fn run(document: &str) -> Result<String, CostedError> {
    let document: WorkDocument = serde_json::from_str(document).map_err(|e| CostedError::Json(e.to_string()))?;
    let names: Vec<&str> = Costs::NAMES.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = document.costs.keys().find(|name| !names.contains(&name.as_str())) {
        return Err(CostedError::UnknownCost(unknown.clone()));
    }
    let costs = Costs::from_ns(|name| document.costs.get(name).copied()).map_err(CostedError::Cost)?;
    if document.cpus > MAX_CPUS || usize::from(document.cpus) <= document.beside.len() {
        return Err(CostedError::Cpus(document.cpus));
    }
    let live = LiveMachine::boot(document.machine.kernel()?, false)?;
    let options = Options {
        costs,
        broadcast: match document.broadcast {
            BroadcastName::Dvm => Broadcast::Dvm,
            BroadcastName::Ipi => Broadcast::Ipi,
        },
        cpus: document.cpus,
        pause_is_nmi: match live.kernel().policies.ipi {
            PauseIpi::PseudoNmi | PauseIpi::WaitFirst => true,
            PauseIpi::Irq => false,
        },
        seed: document.seed,
    };
    let (machine, kernel) = (live.machine(), live.kernel());
    let (_, sizes) = kernel.geometry.hugetlb_sizes();
    // `demote_size`.
    for larger in document.demote_to + 1..sizes as u8 {
        machine.set_var(kernel.vars.hstate(larger, Hstate::DemoteOrder), u64::from(document.demote_to));
    }
    let hub = Hub::new(options);
    let began = Instant::now();
    let phases = Work::new(&live, &hub, &document).run()?;
    let seconds = began.elapsed().as_secs_f64();
    let costings = Costings {
        phases,
        events: hub.counted().events,
        seconds,
        by_function_ns: hub.by_function().into_iter().map(|(name, time)| (name, ns(time))).collect(),
        violations: live.machine().violation_count(),
    };
    Ok(serde_json::to_string(&costings).unwrap_or_default())
}

/// A run, as its coroutines see it.
struct Work<'w> {
    live: &'w LiveMachine,
    hub: &'w Hub,
    phases: Vec<(String, Vec<Operation>)>,
    beside: Vec<Vec<Operation>>,
    done: RefCell<Vec<Phase>>,
    failed: RefCell<Option<CostedError>>,
}

impl<'w> Work<'w> {
    fn new(live: &'w LiveMachine, hub: &'w Hub, document: &WorkDocument) -> Self {
        let program = |operations: &[OperationDocument]| operations.iter().map(OperationDocument::operation).collect();
        Self {
            live,
            hub,
            phases: document.phases.iter().map(|p| (p.name.clone(), program(&p.operations))).collect(),
            beside: document.beside.iter().map(|p| program(p)).collect(),
            done: RefCell::default(),
            failed: RefCell::default(),
        }
    }

    /// CPU 0 makes the phases; the next ones what goes on beside; the others nothing.
    fn run(self) -> Result<Vec<Phase>, CostedError> {
        let (hub, kernel) = (self.hub, self.live.kernel());
        let native: &Native<'_> = &self.live.machine().cpu(0);
        let handler = |cpu: &Costed<'_>| {
            let _nothing = Operation::PauseLocalCpu.run(kernel, cpu);
        };
        let (mut stacks, mut running) = (Stacks::default(), Vec::new());
        let cpus = hub.cpus();
        stacks.reserve(usize::from(cpus))?;
        let (work, handler): (&Self, &dyn Fn(&Costed<'_>)) = (&self, &handler);
        for number in 0..cpus {
            running.push(Coroutine::new(&mut stacks, move |suspender: Suspender<'_>| {
                let suspend = || {
                    suspender.suspend();
                };
                let cpu = Costed::new(hub, native, number, &suspend, handler);
                match (number, work.beside.get(usize::from(number).wrapping_sub(1))) {
                    (0, _) => work.main(kernel, &cpu),
                    (_, Some(program)) => work.repeat(kernel, &cpu, program),
                    (_, None) => cpu.idle(),
                }
            }));
        }
        let mut over = false;
        while !over && let Some(cpu) = hub.next() {
            if !running[usize::from(cpu)].resume(0) {
                hub.done(cpu);
                over = cpu == 0;
            }
        }
        for coroutine in running {
            coroutine.abandon(&mut stacks);
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let done = self.done.take();
        if !over {
            let phase = self.phases.get(done.len()).map_or_else(String::new, |(name, _)| name.clone());
            return Err(CostedError::Deadlock(format!("{:.0} ns", ns(hub.now(0))), phase));
        }
        Ok(done)
    }

    fn main(&self, kernel: &Kernel, cpu: &Costed<'_>) {
        for (name, program) in &self.phases {
            self.begin(name);
            let before = self.hub.counted();
            for operation in program {
                let began = cpu.now();
                if let Err(errno) = operation.run(kernel, cpu) {
                    self.fail(name, operation, errno);
                    return;
                }
                self.took(cpu.now() - began);
            }
            self.end(&before);
        }
        cpu.label("end");
    }

    // What follows borrows, and gives back before anybody is suspended.

    fn begin(&self, name: &str) {
        self.hub.forget_longest();
        let free = self.live.machine().frames_free();
        self.done.borrow_mut().push(Phase {
            name: name.to_owned(),
            latencies_ns: Vec::new(),
            counters: BTreeMap::new(),
            hole_longest_ns: 0.0,
            hole_total_ns: 0.0,
            frames_free: (free, free),
        });
    }
    fn took(&self, time: u64) {
        if let Some(phase) = self.done.borrow_mut().last_mut() {
            phase.latencies_ns.push(ns(time));
        }
    }
    fn end(&self, before: &Counted) {
        let spent = self.hub.counted().since(before);
        if let Some(phase) = self.done.borrow_mut().last_mut() {
            phase.counters = spent.named().into_iter().collect();
            phase.hole_longest_ns = ns(spent.hole_longest);
            phase.hole_total_ns = ns(spent.hole_total);
            phase.frames_free.1 = self.live.machine().frames_free();
        }
    }
    fn fail(&self, phase: &str, operation: &Operation, errno: Errno) {
        let error = CostedError::Failed { phase: phase.to_owned(), name: operation.name(), errno };
        *self.failed.borrow_mut() = Some(error);
    }

    /// Without end; an operation that fails (a page that another actor has taken) is over and the next begins.
    fn repeat(&self, kernel: &Kernel, cpu: &Costed<'_>, program: &[Operation]) {
        while !program.is_empty() {
            for operation in program {
                operation.run_unread(kernel, cpu);
            }
        }
    }
}
