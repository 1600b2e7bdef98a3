//! Several workers, each with actors and a machine of its own, go on where a search of one branches: they share the
//! states they have come to, and hand each other the shallowest choices that are left (docs/search.md §4.5).
//!
//! What they answer is what the search would have answered by itself. So whatever depends on who comes first to where
//! is no matter of theirs: a violation not seen before, something new that actors share, something that the machine
//! numbers for the first time. If one of them meets it, all of it is thrown away, and the search goes on by itself.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use rustc_hash::FxHashSet;
use vmemmap_arch::Invariant;

use crate::model::{InvariantSet, Model};
use crate::reduction::conflicts::Sharing;
use crate::reduction::options::Reduction;
use crate::runtime::execution::{Actors, Phase, Shared};
use crate::runtime::runner::Runner;
use crate::runtime::schedule::{Choice, Found};
use crate::search::dfs::{Branched, Search, Workers};
use crate::search::limits::Limits;
use crate::search::node::{End, Next, Node};
use crate::search::report::{Ended, Final, Progress};
use crate::search::states::{At, Common, States};

impl<M: Model, A: Actors<M>> Search<'_, '_, M, A> {
    /// Long iterations are left to so many workers; what the search answers is the same.
    #[must_use]
    pub fn with_workers(mut self, workers: usize) -> Self
    where
        M: Clone + Send,
        A: Sync,
    {
        let shares = workers > 1 && self.runner.actors().on_threads();
        self.workers = shares.then_some(Workers { count: workers, set_to: go_on });
        self
    }
}

/// A node whose chosen subtree is somebody else's, and the choices that lead to it.
struct Job {
    prefix: Vec<Choice>,
    node: Node,
}

impl Job {
    /// What is left to choose at a node on this path, if anything is.
    fn of(path: &[Node], at: usize, base: &[Choice]) -> Option<Self> {
        let mut node = path[at];
        let outcomes = node.choice.outcome + 1 < node.outcomes;
        if !outcomes && node.open & !node.done & !(1 << node.choice.actor) == 0 {
            return None;
        }
        // The other's part of it is not settled before it is.
        node.given |= 1 << node.choice.actor;
        node.unsettled |= node.given;
        let prefix = base.iter().copied().chain(path[..at].iter().map(|n| n.choice)).collect();
        Some(Self { prefix, node })
    }
}

#[derive(Default)]
struct Jobs {
    open: Vec<Job>,
    busy: usize,
}

/// What workers share beside the states.
struct Pool {
    jobs: Mutex<Jobs>,
    changed: Condvar,
    /// Workers without a job, and jobs without a worker.
    hungry: AtomicUsize,
    open: AtomicUsize,
    stopped: AtomicBool,
    surprised: AtomicBool,
    executions: AtomicU64,
    steps: AtomicU64,
}

/// How often the thread that waits looks at the time, at Ctrl-C and at the budget.
const LOOK: Duration = Duration::from_millis(20);

impl Pool {
    fn new(open: Vec<Job>) -> Self {
        Self {
            jobs: Mutex::new(Jobs { open, busy: 0 }),
            changed: Condvar::new(),
            hungry: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            surprised: AtomicBool::new(false),
            executions: AtomicU64::new(0),
            steps: AtomicU64::new(0),
        }
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.stopped.store(true, Relaxed);
        let _jobs = self.jobs();
        self.changed.notify_all();
    }

    fn surprise(&self) {
        self.surprised.store(true, Relaxed);
        self.stop();
    }

    fn is_over(&self, jobs: &Jobs) -> bool {
        self.stopped.load(Relaxed) || (jobs.open.is_empty() && jobs.busy == 0)
    }

    /// The next job; `None` when all is done. `had`: the worker is done with one.
    fn take(&self, had: bool) -> Option<Job> {
        let mut jobs = self.jobs();
        jobs.busy -= usize::from(had);
        self.hungry.fetch_add(1, Relaxed);
        loop {
            if self.is_over(&jobs) {
                self.changed.notify_all();
                return None;
            }
            if let Some(job) = jobs.open.pop() {
                jobs.busy += 1;
                self.open.store(jobs.open.len(), Relaxed);
                self.hungry.fetch_sub(1, Relaxed);
                return Some(job);
            }
            jobs = self.changed.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give(&self, job: Job) {
        let mut jobs = self.jobs();
        jobs.open.push(job);
        self.open.store(jobs.open.len(), Relaxed);
        drop(jobs);
        self.changed.notify_one();
    }

    /// Until the workers are done or one of the limits is reached; looks at these now and then.
    fn wait(&self, mut look: impl FnMut() -> Option<Ended>) -> Ended {
        let mut jobs = self.jobs();
        loop {
            if self.is_over(&jobs) {
                return Ended::Exhausted;
            }
            jobs = self.changed.wait_timeout(jobs, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            if let Some(ended) = look() {
                drop(jobs);
                self.stop();
                return ended;
            }
        }
    }
}

/// A worker that panics leaves nobody waiting for it.
struct Present<'p>(&'p Pool);

impl Drop for Present<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.surprise();
        }
    }
}

/// What all workers begin with.
#[derive(Clone)]
struct Known {
    reduction: Reduction,
    ending: InvariantSet,
    step_bound: u32,
    sharing: Sharing,
    dead_continuations: FxHashSet<(u8, u128)>,
    found: BTreeMap<Invariant, Found>,
    numbered: usize,
}

/// What a worker comes back with.
struct Learned {
    sharing: Sharing,
    finals: HashSet<Final>,
    overflowed: bool,
}

fn go_on<M: Model + Clone + Send, A: Actors<M> + Sync>(
    search: &mut Search<'_, '_, M, A>,
    count: usize,
    limits: &mut Limits<'_>,
) -> Branched {
    let common = Common::default();
    for (keys, decides) in [(&search.states.decided, true), (&search.states.passed, false)] {
        keys.iter().for_each(|key| common.bring(At { key: *key, decides }, 0));
    }
    let jobs: Vec<Option<Job>> = (0..search.nodes.len()).map(|at| Job::of(&search.nodes, at, &[])).collect();
    // On the path, a node is pending until its job is done and the next one is settled.
    search.nodes.iter().for_each(|node| common.bring(node.at, 1));
    search.nodes.windows(2).for_each(|pair| common.wait(pair[0].at, pair[1].at));
    for (node, _) in search.nodes.iter().zip(&jobs).filter(|(_, job)| job.is_none()) {
        common.release(node.at);
    }
    let pool = Pool::new(jobs.into_iter().flatten().collect());
    let actors = search.runner.actors();
    let (known, models) = {
        let inner = search.runner.inner();
        let known = Known {
            reduction: search.reduction,
            ending: inner.ending,
            step_bound: inner.step_bound,
            sharing: inner.sharing.clone(),
            dead_continuations: inner.dead_continuations.clone(),
            found: search.report.found.clone(),
            numbered: inner.model.numbered(),
        };
        let models: Vec<M> = (0..count).map(|_| inner.model.clone()).collect();
        (known, models)
    };
    let progress = search.progress();
    let (ended, learned) = thread::scope(|scope| {
        let workers: Vec<_> = models
            .into_iter()
            .map(|model| {
                let (pool, common, known) = (&pool, &common, known.clone());
                scope.spawn(move || work(pool, common, known, model, actors))
            })
            .collect();
        let ended = pool.wait(|| {
            (limits.progress)(Progress {
                executions: progress.executions + pool.executions.load(Relaxed),
                steps: progress.steps + pool.steps.load(Relaxed),
                states: common.decided() as u64,
                ..progress
            });
            if (limits.stop)() {
                return Some(Ended::Interrupted);
            }
            let late = limits.deadline.is_some_and(|end| Instant::now() >= end);
            (late || common.len() > limits.states).then_some(Ended::Budget)
        });
        let learned: Vec<io::Result<Learned>> =
            workers.into_iter().map(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect();
        (ended, learned)
    });
    // No memory for one's stacks: then the search does without.
    let Ok(learned) = learned.into_iter().collect::<io::Result<Vec<_>>>() else { return Branched::Surprised };
    if ended == Ended::Exhausted && (pool.surprised.load(Relaxed) || surprises(&known.sharing, &learned)) {
        return Branched::Surprised;
    }
    let mut sharing = known.sharing;
    learned.iter().for_each(|l| sharing.merge(&l.sharing));
    if ended == Ended::Exhausted && sharing.grew() {
        return Branched::Surprised;
    }
    search.runner.inner().sharing = sharing;
    search.report.executions += pool.executions.load(Relaxed);
    search.steps_of_workers += pool.steps.load(Relaxed);
    search.report.states = common.decided() as u64;
    search.report.workers = count;
    search.report.overflowed |= learned.iter().any(|l| l.overflowed);
    learned.into_iter().flat_map(|l| l.finals).for_each(|f| (search.on_final)(f));
    Branched::Over(ended)
}

/// Whether what one learned makes wrong what another assumed.
fn surprises(began_with: &Sharing, learned: &[Learned]) -> bool {
    let pairs =
        || learned.iter().enumerate().flat_map(|(i, one)| learned.iter().enumerate().map(move |(j, o)| (i, one, j, o)));
    pairs().any(|(i, one, j, other)| i != j && began_with.surprises(&one.sharing, &other.sharing))
}

/// One worker: job after job, until there are none.
fn work<M: Model, A: Actors<M>>(
    pool: &Pool,
    common: &Common,
    known: Known,
    model: M,
    actors: &A,
) -> io::Result<Learned> {
    let _present = Present(pool);
    let shared = Shared::new(model);
    let mut runner = Runner::new(&shared, actors).inspect_err(|_| pool.surprise())?;
    {
        let mut inner = runner.inner();
        inner.begin(known.reduction, known.ending, known.step_bound);
        inner.sharing = known.sharing;
        inner.dead_continuations = known.dead_continuations;
    }
    let mut finals = HashSet::new();
    let mut keep = |f| {
        finals.insert(f);
    };
    let mut search = Search::among(&mut runner, known.reduction, &mut keep, common);
    search.report.found = known.found;
    search.branched = true;
    let found = search.report.found.len();
    let mut overflowed = false;
    let mut had = false;
    let mut told = 0;
    while let Some(Job { prefix, node }) = pool.take(had) {
        had = true;
        search.begin_at(&prefix, node);
        let mut end = if matches!(search.next(None), Next::Choice) { End::Running } else { continue };
        loop {
            let End::Over { unsettled } = end else {
                end = search.go_on();
                continue;
            };
            pool.executions.fetch_add(1, Relaxed);
            let surprised = {
                let inner = search.runner.inner();
                pool.steps.fetch_add(inner.total_steps - told, Relaxed);
                told = inner.total_steps;
                overflowed |= inner.bound_hit || inner.model.overflowed();
                let new = inner.model.numbered() != known.numbered || !inner.lock_orders.is_empty();
                new || inner.sharing.grew() || inner.unanswered || search.report.found.len() != found
            };
            if surprised {
                pool.surprise();
            }
            if pool.stopped.load(Relaxed) {
                break;
            }
            if pool.hungry.load(Relaxed) > pool.open.load(Relaxed) {
                search.give_away(&prefix).into_iter().for_each(|job| pool.give(job));
            }
            if !search.backtrack(unsettled) {
                break;
            }
            end = End::Running;
        }
    }
    drop(search);
    let sharing = std::mem::take(&mut runner.inner().sharing);
    Ok(Learned { sharing, finals, overflowed })
}

impl<M: Model, A: Actors<M>, S: States> Search<'_, '_, M, A, S> {
    /// To where the choices lead, at a node of which a part has been searched.
    fn begin_at(&mut self, prefix: &[Choice], node: Node) {
        self.runner.start();
        for choice in prefix {
            self.runner.advance(usize::from(choice.actor), choice.outcome, Phase::Frontier);
        }
        self.nodes.clear();
        self.nodes.push(node);
    }

    /// What is left at the shallowest node where something is, which is somebody else's from now on.
    fn give_away(&mut self, base: &[Choice]) -> Option<Job> {
        let (at, job) = (0..self.nodes.len()).find_map(|at| Some((at, Job::of(&self.nodes, at, base)?)))?;
        let node = &mut self.nodes[at];
        let outcomes = node.choice.outcome + 1;
        if outcomes < node.outcomes {
            node.given |= 1 << node.choice.actor;
            node.unsettled |= node.given;
        }
        node.open = node.done | 1 << node.choice.actor;
        node.outcomes = outcomes;
        let held = node.at;
        self.states.hold(held);
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::states::Met;
    use crate::toy::{Line, Op, Programs, Toy};

    /// Two actors whose order nobody can tell. Another worker is still behind the first one's move, and may itself
    /// leave to us what comes of the second one's: so both orders have to be tried.
    #[test]
    fn who_led_to_what_another_is_searching_does_not_sleep() {
        let reduction = Reduction::CACHE_SLEEP;
        let programs = Programs(vec![vec![Line::Do(Op::Write(0, 1))], vec![Line::Do(Op::Write(1, 1))]]);
        let shared = Shared::new(Toy::default());
        let mut runner = Runner::new(&shared, &programs).expect("stacks");
        runner.inner().begin(reduction, InvariantSet::NONE, u32::MAX);
        let here = |runner: &Runner<'_, Toy, Programs>| At { key: runner.inner().key(2, false), decides: true };
        runner.start();
        let from = here(&runner);
        runner.advance(0, 0, Phase::Frontier);
        let behind = here(&runner);
        let common = Common::default();
        assert_eq!([from, behind].map(|at| (&common).meet(at)), [Met::New, Met::New]);
        let mut finals = 0;
        let mut count = |_| finals += 1;
        let mut search = Search::among(&mut runner, reduction, &mut count, &common);
        let choice = Choice { actor: 0, outcome: 0 };
        let (open, sleep, elsewhere, done, unsettled, given) = (0b11, 0, 0, 0, 0, 0);
        let (outcomes, ran, lead, ways) = (0, 0, 0, 0.0);
        let node = Node { at: from, open, sleep, elsewhere, done, unsettled, given, choice, outcomes, ran, lead, ways };
        search.begin_at(&[], node);
        loop {
            match search.go_on() {
                End::Running => {}
                End::Over { unsettled } if !search.backtrack(unsettled) => break,
                End::Over { .. } => {}
            }
        }
        drop(search);
        assert_eq!(finals, 1);
        assert!(!(&common).is_settled(from), "it waits for the other worker");
    }

    /// The last to look for a job wakes those that wait for one.
    #[test]
    fn all_workers_leave_when_all_is_done() {
        let pool = Pool::new(Vec::new());
        thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| pool.take(false).is_none())).collect();
            assert!(workers.into_iter().all(|w| w.join().expect("no panic")));
        });
        assert_eq!(pool.wait(|| None), Ended::Exhausted);
    }
}
