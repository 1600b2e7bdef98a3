//! Real threads on a native machine: each actor repeats its program until the time is over.
//!
//! Nothing is proven here; what is counted happened. A native machine has no TLB: it cannot show I4, I5 and I19.
//! What the setup did is not counted, as in an exploration, and what the scenario does not judge decides nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::Serialize;
use thiserror::Error;
use vmemmap_arch::{Cpu, Invariant};
use vmemmap_kernel::operation::Class;
use vmemmap_kernel::policy::{PmdSplit, PteUpdate};
use vmemmap_kernel::{Errno, Kernel, Operation};
use vmemmap_machine::{Checked, Machine, Native, Violation};

use crate::scenario::{Body, Scenario};
use crate::script::{Source, Transcript, sent};
use vmemmap_explore::runtime::execution::Answer;
use vmemmap_explore::runtime::scripted::{Next, ROOT, ScriptError};

/// How to stress.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Options {
    /// `None`: one for each actor. More repeat the actors in turn; fewer share them.
    pub threads: Option<usize>,
    pub seconds: f64,
    /// Rounds of its program that each actor makes at most.
    pub rounds: Option<u64>,
    /// With the sanitizer of the checked machine.
    pub checked: bool,
    /// Of the short pauses between operations that vary how threads meet.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: None, seconds: 2.0, rounds: None, checked: true, seed: 0 }
    }
}

/// Why a stress did not start.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum StressError {
    #[error("{asked} threads: this machine has {cpus} CPUs")]
    Threads { asked: usize, cpus: u8 },
    #[error("a stress needs at least one actor with a program")]
    NoActor,
    #[error(transparent)]
    Scripted(#[from] ScriptError),
}

/// What a stress did so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StressProgress {
    pub operations: u64,
    pub violations: u64,
    pub elapsed: Duration,
    /// What the machine counted since the beginning.
    pub counters: Vec<(&'static str, u64)>,
}

/// One violation, with the keys of `stress --json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StressViolation {
    pub invariant: String,
    pub actor: String,
    pub cpu: u8,
    pub step: u64,
    pub address: u64,
    pub message: String,
    pub freed: Option<String>,
    pub held: Option<String>,
}

impl From<&Violation> for StressViolation {
    fn from(v: &Violation) -> Self {
        Self {
            invariant: v.invariant.to_string(),
            actor: v.actor.name.clone(),
            cpu: v.actor.cpu,
            step: v.step,
            address: v.address,
            message: v.message.clone(),
            freed: v.evidence.freed.as_ref().map(ToString::to_string),
            held: v.evidence.held.as_ref().map(ToString::to_string),
        }
    }
}

/// What one thread's actor did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ActorCount {
    pub name: String,
    pub cpu: u8,
    /// Completed operations, with or without an error.
    pub operations: u64,
    pub rounds: u64,
    pub by_kind: BTreeMap<&'static str, u64>,
    /// By `ENOMEM`, `EBUSY`, ….
    pub errors: BTreeMap<String, u64>,
}

/// Nanoseconds from an operation's begin to its end. Actors are closed loops: the next operation begins when the last
/// one is done, nobody's schedule is missed, and so nothing is corrected for coordinated omission. What an operation
/// would have waited behind a slow one, had it come at a time of its own, is not in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Latency {
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
    pub count: u64,
}

/// How often operations of one class ran while one of another class was in progress on another thread; only
/// operations that succeeded count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Overlaps {
    pub alloc_free_while_add_remove: u64,
    pub walk_while_add_remove: u64,
    pub walk_while_alloc_free: u64,
}

/// The answer, with the keys of `stress --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Stressed {
    pub scenario: String,
    pub variant: String,
    pub operations: u64,
    pub seconds: f64,
    pub threads: usize,
    pub checked: bool,
    pub seed: u64,
    pub interrupted: bool,
    /// The first that were kept, in order of their steps.
    pub violations: Vec<StressViolation>,
    pub violation_count: u64,
    /// Of these, of invariants that the scenario judges.
    pub judged_violations: u64,
    pub violations_by_invariant: BTreeMap<String, u64>,
    pub judged: Vec<String>,
    /// Each one → `violated`, `not seen`, `not judged` or `not visible`; one that is not judged may be violated all the
    /// same.
    pub invariants: BTreeMap<String, &'static str>,
    pub not_visible: Vec<String>,
    pub counters: BTreeMap<&'static str, u64>,
    pub latency_ns: BTreeMap<&'static str, Latency>,
    pub actors: Vec<ActorCount>,
    pub errors: BTreeMap<String, u64>,
    pub overlaps: Overlaps,
}

/// Operations of one class that run now, and how many have succeeded: an interval met another if one was running at its
/// beginning or its end, or succeeded in between.
#[derive(Default)]
#[repr(align(128))]
struct Running {
    now: AtomicU32,
    /// One that failed in between makes no overlap.
    succeeded: AtomicU64,
}

#[derive(Default)]
struct Traffic {
    alloc_free: Running,
    add_remove: Running,
    operations: AtomicU64,
    over: AtomicBool,
}

/// What was running or had succeeded when an operation began.
struct Seen {
    now: bool,
    succeeded: u64,
}

impl Running {
    /// What is under way first: an operation that ends in between has been counted by then.
    fn look(&self) -> Seen {
        Seen { now: self.now.load(Ordering::SeqCst) != 0, succeeded: self.succeeded.load(Ordering::SeqCst) }
    }
    /// Whether one of these was under way at some time since `seen`.
    fn met(&self, seen: &Seen) -> bool {
        let after = self.look();
        seen.now || after.now || after.succeeded > seen.succeeded
    }
    fn enter(&self) {
        self.now.fetch_add(1, Ordering::SeqCst);
    }
    fn leave(&self, succeeded: bool) {
        if succeeded {
            self.succeeded.fetch_add(1, Ordering::SeqCst);
        }
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How far behind the counters of a progress may be.
const FLUSH: Duration = Duration::from_millis(100);

/// Highest latency told apart: a minute.
const LONGEST_NS: u64 = 60_000_000_000;

struct Worker<'w> {
    kernel: &'w Kernel,
    traffic: &'w Traffic,
    bodies: Vec<(usize, &'w Body)>,
    /// For steps that look at results, this thread's own.
    transcript: Option<Transcript<'w>>,
    rounds: u64,
    rng: Xoshiro256PlusPlus,
    counts: Vec<ActorCount>,
    overlaps: Overlaps,
    latency: BTreeMap<&'static str, Histogram<u64>>,
}

impl Worker<'_> {
    fn work(&mut self, machine: &Machine, cpu: u8, checked: bool) {
        let scenario_names: Vec<String> = self.counts.iter().map(|c| c.name.clone()).collect();
        let named = |i: usize| machine.set_actor(cpu, &scenario_names[i]);
        if checked {
            self.repeat(&machine.checked_cpu(cpu), named, Checked::flush);
        } else {
            self.repeat(&machine.cpu(cpu), named, Native::flush);
        }
    }

    fn repeat<C: Cpu>(&mut self, cpu: &C, named: impl Fn(usize), flush: impl Fn(&C)) {
        let mut flushed = Instant::now();
        for _ in 0..self.rounds {
            for i in 0..self.bodies.len() {
                if self.bodies.len() > 1 || self.counts[i].rounds == 0 {
                    named(i);
                }
                match self.bodies[i] {
                    (_, Body::Program(program)) => {
                        for operation in program {
                            if self.traffic.over.load(Ordering::Relaxed) {
                                return;
                            }
                            if is_for_the_end(operation) {
                                continue;
                            }
                            let _observed = self.once(cpu, i, operation);
                        }
                    }
                    (actor, Body::Scripted) => {
                        if let Some(transcript) = self.transcript.take() {
                            self.ask_and_run(cpu, i, actor, &transcript);
                            self.transcript = Some(transcript);
                        }
                        if self.traffic.over.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                }
                self.counts[i].rounds += 1;
            }
            if flushed.elapsed() >= FLUSH {
                flush(cpu);
                flushed = Instant::now();
            }
        }
    }

    /// One round of steps that look at results. Where they have no answer it is over for everybody.
    fn ask_and_run<C: Cpu>(&mut self, cpu: &C, i: usize, actor: usize, transcript: &Transcript<'_>) {
        transcript.thin_out();
        let mut node = ROOT;
        while !self.traffic.over.load(Ordering::Relaxed) {
            match transcript.next(actor, node) {
                Next::Run(operation) => node = transcript.after(actor, node, sent(self.once(cpu, i, &operation))),
                Next::End => return,
                Next::Unknown => match transcript.ask(actor, node) {
                    Answer::Given => {}
                    Answer::Beyond => return,
                    Answer::None => self.traffic.over.store(true, Ordering::Relaxed),
                },
            }
        }
    }

    fn once<C: Cpu>(&mut self, cpu: &C, actor: usize, operation: &Operation) -> Result<u64, Errno> {
        for _ in 0..self.rng.random_range(0..64u32) {
            std::hint::spin_loop();
        }
        let (name, class) = (operation.name(), operation.class());
        let (seen_add_remove, seen_alloc_free) = (self.traffic.add_remove.look(), self.traffic.alloc_free.look());
        let own = match class {
            Class::AllocFree => Some(&self.traffic.alloc_free),
            Class::AddRemove => Some(&self.traffic.add_remove),
            Class::Walk | Class::Other => None,
        };
        if let Some(running) = own {
            running.enter();
        }
        let began = Instant::now();
        let result: Result<u64, Errno> = operation.run(self.kernel, cpu);
        let nanoseconds = u64::try_from(began.elapsed().as_nanos()).unwrap_or(LONGEST_NS);
        if let Some(running) = own {
            running.leave(result.is_ok());
        }
        if result.is_ok() {
            let hotplug = self.traffic.add_remove.met(&seen_add_remove);
            match class {
                Class::AllocFree => self.overlaps.alloc_free_while_add_remove += u64::from(hotplug),
                Class::Walk => {
                    self.overlaps.walk_while_add_remove += u64::from(hotplug);
                    self.overlaps.walk_while_alloc_free += u64::from(self.traffic.alloc_free.met(&seen_alloc_free));
                }
                Class::AddRemove | Class::Other => {}
            }
        }
        self.traffic.operations.fetch_add(1, Ordering::Relaxed);
        let count = &mut self.counts[actor];
        count.operations += 1;
        *count.by_kind.entry(name).or_default() += 1;
        if let Err(errno) = result {
            *count.errors.entry(errno.to_string()).or_default() += 1;
        }
        let histogram = self.latency.entry(name).or_insert_with(|| {
            Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds and precision are constants")
        });
        histogram.saturating_record(nanoseconds.max(1));
        result
    }
}

/// Run the actors of a scenario in real threads on `machine`, which is set up already. Blocks until the time is over,
/// all rounds are made, or `stop` (polled every 20 ms on the calling thread) says so. `source` answers for the actors
/// whose steps look at results; without it they do nothing.
///
/// # Errors
/// No actor, more threads than the machine has CPUs, or steps that failed.
///
/// # Panics
/// If kernel code panics: a bug of ours.
pub fn stress(
    kernel: &Kernel,
    machine: &Machine,
    scenario: &Scenario,
    source: Option<&Source<'_>>,
    options: &Options,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(StressProgress),
) -> Result<Stressed, StressError> {
    let actors: Vec<usize> = (0..scenario.actors.len())
        .filter(|i| scenario.actors[*i].body.program().is_none_or(|p| !p.iter().all(is_for_the_end)))
        .collect();
    if actors.is_empty() {
        return Err(StressError::NoActor);
    }
    let threads = options.threads.unwrap_or(actors.len()).max(1);
    if threads > usize::from(machine.cpus()) {
        return Err(StressError::Threads { asked: threads, cpus: machine.cpus() });
    }
    let traffic = Traffic::default();
    let names = || scenario.actors.iter().map(|a| a.name.clone()).collect();
    let transcript = || source.map(|source| Transcript::new(&(), names(), source));
    let workers: Vec<Worker<'_>> = (0..threads)
        .map(|t| Worker {
            transcript: transcript(),
            ..worker(kernel, &traffic, scenario, &actors, t, threads, options)
        })
        .collect();
    // What happened on the machine before is given, and judged by nobody; an exploration does not either.
    let _of_the_setup = machine.take_violations();
    let counters_before = machine.counters();
    let began = Instant::now();
    let (workers, mut interrupted) = std::thread::scope(|scope| {
        let handles: Vec<_> = workers
            .into_iter()
            .enumerate()
            .map(|(cpu, mut worker)| {
                scope.spawn(move || {
                    worker.work(machine, cpu as u8, options.checked);
                    worker
                })
            })
            .collect();
        let so_far = |elapsed| StressProgress {
            operations: traffic.operations.load(Ordering::Relaxed),
            violations: machine.violation_count(),
            elapsed,
            counters: counted(machine, &counters_before).collect(),
        };
        let interrupted =
            watch(&handles, &traffic, machine, began, options.seconds, stop, &mut |elapsed| progress(so_far(elapsed)));
        let joined: Vec<Worker<'_>> = handles
            .into_iter()
            .map(|h| match h.join() {
                Ok(worker) => worker,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect();
        (joined, interrupted)
    });
    let seconds = began.elapsed().as_secs_f64();
    machine.set_signal(false);
    for transcript in workers.iter().filter_map(|w| w.transcript.as_ref()) {
        transcript.check()?;
        interrupted |= transcript.is_over();
    }
    if options.checked {
        judge_at_rest(kernel, machine, scenario);
    }
    let done = collect(kernel, machine, scenario, options, workers, &counters_before, seconds);
    Ok(Stressed { interrupted, ..done })
}

/// Whether an operation judges a machine at rest: while rounds are repeated none is, so it is done once, at the end.
const fn is_for_the_end(operation: &Operation) -> bool {
    matches!(operation, Operation::PoolAtRest { .. })
}

fn judge_at_rest(kernel: &Kernel, machine: &Machine, scenario: &Scenario) {
    for actor in &scenario.actors {
        for operation in actor.body.program().unwrap_or_default() {
            if let Operation::PoolAtRest { hstate, .. } = operation {
                machine.set_actor(0, &actor.name);
                let cpu = machine.checked_cpu(0);
                // Everybody is done, whatever they said: a round may have been cut between two operations.
                let _pages = Operation::PoolAtRest { hstate: *hstate, after: 0 }.run(kernel, &cpu);
                cpu.flush();
            }
        }
    }
}

/// What real threads on a native machine cannot show: it has no TLB, and a thread takes no IPI. A policy that breaks
/// before it makes while the other CPUs are paused pauses nobody, so that a hole that is met says nothing of it.
fn not_visible(kernel: &Kernel) -> Vec<Invariant> {
    let p = &kernel.policies;
    let pauses = matches!(p.update, PteUpdate::BbmIpiPause | PteUpdate::BbmStopMachine)
        || matches!(p.split, PmdSplit::BbmIpiPause | PmdSplit::BbmStopMachine);
    let hole = pauses.then_some(Invariant::AlwaysTranslates);
    let stale = [
        Invariant::NoStaleTranslation,
        Invariant::NoStaleWalkCache,
        Invariant::BreakBeforeMake,
        Invariant::ContentBeforePte,
        Invariant::SingleCopyAtomic,
    ];
    hole.into_iter().chain(stale).collect()
}

fn worker<'w>(
    kernel: &'w Kernel,
    traffic: &'w Traffic,
    scenario: &'w Scenario,
    actors: &[usize],
    thread: usize,
    threads: usize,
    options: &Options,
) -> Worker<'w> {
    let mine: Vec<usize> = if threads >= actors.len() {
        vec![actors[thread % actors.len()]]
    } else {
        actors.iter().copied().skip(thread).step_by(threads).collect()
    };
    Worker {
        kernel,
        traffic,
        bodies: mine.iter().map(|a| (*a, &scenario.actors[*a].body)).collect(),
        transcript: None,
        rounds: options.rounds.unwrap_or(u64::MAX),
        rng: Xoshiro256PlusPlus::seed_from_u64(options.seed.wrapping_add(thread as u64)),
        counts: mine
            .iter()
            .map(|a| ActorCount { name: scenario.actors[*a].name.clone(), cpu: thread as u8, ..ActorCount::default() })
            .collect(),
        overlaps: Overlaps::default(),
        latency: BTreeMap::new(),
    }
}

/// Waits for the end; `true` if it was asked for.
fn watch<T>(
    handles: &[std::thread::ScopedJoinHandle<'_, T>],
    traffic: &Traffic,
    machine: &Machine,
    began: Instant,
    seconds: f64,
    stop: &dyn Fn() -> bool,
    tell: &mut dyn FnMut(Duration),
) -> bool {
    let mut interrupted = false;
    let mut asked: Option<Instant> = None;
    while !handles.iter().all(|h| h.is_finished()) {
        std::thread::park_timeout(Duration::from_millis(20));
        let elapsed = began.elapsed();
        if asked.is_none() {
            interrupted = stop();
            if interrupted || elapsed.as_secs_f64() >= seconds {
                traffic.over.store(true, Ordering::Relaxed);
                asked = Some(Instant::now());
            }
        }
        // An operation that takes long is told by a signal, as user space would.
        if asked.is_some_and(|since| since.elapsed() > Duration::from_millis(300)) {
            machine.set_signal(true);
        }
        tell(elapsed);
    }
    traffic.over.store(true, Ordering::Relaxed);
    interrupted
}

/// What a machine counted since `before`.
fn counted(machine: &Machine, before: &vmemmap_machine::Counters) -> impl Iterator<Item = (&'static str, u64)> {
    machine
        .counters()
        .named()
        .into_iter()
        .zip(before.named())
        .map(|((name, after), (_, before))| (name, after - before))
}

fn collect(
    kernel: &Kernel,
    machine: &Machine,
    scenario: &Scenario,
    options: &Options,
    workers: Vec<Worker<'_>>,
    before: &vmemmap_machine::Counters,
    seconds: f64,
) -> Stressed {
    let mut latency: BTreeMap<&'static str, Histogram<u64>> = BTreeMap::new();
    let mut overlaps = Overlaps::default();
    let mut errors = BTreeMap::new();
    let mut actors = Vec::new();
    let threads = workers.len();
    for worker in workers {
        overlaps.alloc_free_while_add_remove += worker.overlaps.alloc_free_while_add_remove;
        overlaps.walk_while_add_remove += worker.overlaps.walk_while_add_remove;
        overlaps.walk_while_alloc_free += worker.overlaps.walk_while_alloc_free;
        for (name, histogram) in worker.latency {
            match latency.entry(name) {
                std::collections::btree_map::Entry::Vacant(v) => {
                    v.insert(histogram);
                }
                std::collections::btree_map::Entry::Occupied(mut o) => {
                    let sum = o.get_mut();
                    sum.add(histogram).expect("all have the same bounds");
                }
            }
        }
        for count in worker.counts {
            for (errno, n) in &count.errors {
                *errors.entry(errno.clone()).or_default() += n;
            }
            actors.push(count);
        }
    }
    let violation_count = machine.violation_count();
    let not_visible = not_visible(kernel);
    let judged = |i: Invariant| scenario.judged.contains(&i) && !not_visible.contains(&i);
    let state = |i: Invariant| match (not_visible.contains(&i), machine.violations_of(i)) {
        (true, _) => "not visible",
        (false, 0) if judged(i) => "not seen",
        (false, 0) => "not judged",
        (false, _) => "violated",
    };
    let by_invariant = Invariant::ALL
        .into_iter()
        .map(|i| (i.to_string(), machine.violations_of(i)))
        .filter(|(_, n)| *n != 0)
        .collect();
    Stressed {
        scenario: scenario.name.clone(),
        variant: scenario.variant.clone(),
        operations: actors.iter().map(|a| a.operations).sum(),
        seconds,
        threads,
        checked: options.checked,
        seed: options.seed,
        interrupted: false,
        violations: machine.violations().iter().map(StressViolation::from).collect(),
        violation_count,
        judged_violations: Invariant::ALL.into_iter().filter(|i| judged(*i)).map(|i| machine.violations_of(i)).sum(),
        judged: scenario.judged.iter().map(ToString::to_string).collect(),
        invariants: Invariant::ALL.into_iter().map(|i| (i.to_string(), state(i))).collect(),
        violations_by_invariant: by_invariant,
        not_visible: not_visible.iter().map(ToString::to_string).collect(),
        counters: counted(machine, before).collect(),
        latency_ns: latency.iter().map(|(name, h)| (*name, reported(h))).collect(),
        actors,
        errors,
        overlaps,
    }
}

fn reported(histogram: &Histogram<u64>) -> Latency {
    Latency {
        p50: histogram.value_at_quantile(0.5),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        max: histogram.max(),
        count: histogram.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ends between two reads of a look, well or not, is no overlap of those that come after it, and none from
    /// nowhere.
    #[test]
    fn operations_that_fail_beside_a_look_are_no_overlap() {
        for succeeds in [false, true] {
            let running = Running::default();
            let over = AtomicBool::new(false);
            std::thread::scope(|s| {
                s.spawn(|| {
                    for _ in 0..200_000 {
                        running.enter();
                        running.leave(succeeds);
                    }
                    over.store(true, Ordering::SeqCst);
                });
                let mut last = 0;
                while !over.load(Ordering::SeqCst) {
                    let seen = running.look();
                    assert!(
                        seen.succeeded >= last && seen.succeeded <= if succeeds { 200_000 } else { 0 },
                        "{}",
                        seen.succeeded
                    );
                    last = seen.succeeded;
                }
            });
            assert!(!running.met(&running.look()));
            let before = running.look();
            running.enter();
            running.leave(succeeds);
            assert_eq!(running.met(&before), succeeds);
            running.enter();
            assert!(running.met(&running.look()));
        }
    }
}
