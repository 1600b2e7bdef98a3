//! One execution: actors reach their next operation, the scheduler picks, the operation executes.
//!
//! The scheduling point is *before* the effect: an actor runs up to its next pending operation and stops there.
//! Operations that are local, or invisible as far as is known (docs/search.md §3.3), execute at once on the actor's own
//! stack.

use std::cell::RefCell;

use rustc_hash::FxHashSet;
use vmemmap_arch::{ByInvariant, Invariant, Observed};

use crate::model::{AccessSet, InvariantSet, MAX_ACTORS, Model, NewOrder, NoOps, Violation};
use crate::reduction::conflicts::Sharing;
use crate::reduction::history::{ABSTRACTED, FINISHED, SKIPPED, place, roll};
use crate::reduction::options::{Fault, Fusion, Reduction};
use crate::reduction::phase;
use crate::runtime::actor::{ActorState, Step};
use crate::runtime::coroutine::Suspender;

/// The bodies of a scenario.
pub trait Actors<M: Model> {
    /// At most `MAX_ACTORS`.
    fn count(&self) -> usize;
    fn name(&self, actor: usize) -> &str;
    /// CPU that the actor runs on (for traces).
    fn cpu(&self, actor: usize) -> u8 {
        actor as u8
    }
    /// Runs the actor from start to end. May depend on nothing but the replies of its port, and owns nothing that needs
    /// `Drop` while it calls the port (see `coroutine`).
    fn run(&self, actor: usize, port: &ActorPort<'_, M>);
    /// Whether several searches may run these actors at the same time, each on a thread of its own.
    fn on_threads(&self) -> bool {
        true
    }
    /// Positions of one round of its program, and rounds; if there is such a thing.
    fn rounds(&self, _actor: usize) -> (u32, u32) {
        (0, 1)
    }
    /// Finds out what the actor wants to know (`ActorPort::ask`); called on the search's own stack.
    fn answer(&self, _actor: usize, _query: u32) -> Answer {
        Answer::None
    }
}

/// What came of an actor's query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The actor goes on.
    Given,
    /// There is none: this ends the search, which then has not covered everything.
    None,
    /// The query lies beyond a bound: this ends the execution.
    Beyond,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Scheduling points are decided by access set, locations are learned.
    Frontier,
    /// A known prefix: this many more operations run at once, then one is pending.
    Silent(u32),
}

pub(crate) struct Inner<M: Model> {
    pub model: M,
    pub actors: [ActorState<M::Op>; MAX_ACTORS],
    pub sharing: Sharing,
    pub fusion: Fusion,
    pub phase: Phase,
    /// Violations of these end the execution.
    pub ending: InvariantSet,
    /// Broken so far in this execution.
    pub seen: InvariantSet,
    /// `steps` when each invariant first broke in this execution.
    broke_at: ByInvariant<u32>,
    pub halted: bool,
    pub bound_hit: bool,
    /// Actors that go on in singleton persistent sets stop now and then, for the state cache.
    pub checkpoints: bool,
    pub step_bound: u32,
    /// Operations executed in this execution, and since the runner was made.
    pub steps: u32,
    pub total_steps: u64,
    /// What all executions have cost since the runner was made: operations performed, those made at once counting as
    /// one, and `TRANSITION` for each scheduling point. Nearly in proportion to time, and unlike it the same on every
    /// host.
    pub work: u64,
    pub record: Option<Vec<Step>>,
    /// Actors and their `past` at each boundary of this execution, while it is recorded.
    pub pasts: Vec<(u8, u32)>,
    /// The query of the actor that runs.
    pub asked: Option<u32>,
    /// A query had no answer: whatever search this is, it is over.
    pub unanswered: bool,
    pub fault: Fault,
    /// `ActorPort::abstract_observations` has an effect.
    pub abstracts_observations: bool,
    /// Locks taken under others, each pair once, and the kernel function that took the second.
    pub lock_orders: Vec<(NewOrder, &'static str)>,
    /// Deadlocks, which only the scheduler sees.
    pub own_violations: Vec<Violation>,
    /// Actors that wait for what never came, as they were when nobody else was left.
    pub retired: Vec<(usize, ActorState<M::Op>)>,
    /// Histories after which an actor does nothing but long invisible work, and ends: it is not run again. Nobody else
    /// can tell, and what it broke on the way was found the first time.
    pub dead_continuations: FxHashSet<(u8, u128)>,
    /// One was just met for the first time.
    pub died: bool,
    scratch: AccessSet,
}

impl<M: Model> Inner<M> {
    /// An exhaustive search begins.
    pub fn begin(&mut self, reduction: Reduction, ending: InvariantSet, step_bound: u32) {
        self.fusion = reduction.fusion;
        self.fault = reduction.fault;
        self.abstracts_observations = reduction.abstract_observations;
        self.sharing.fault = reduction.fault;
        self.ending = ending;
        self.step_bound = step_bound;
        self.bound_hit = false;
        self.checkpoints = true;
        self.record = None;
    }

    /// Whether the operation is to execute without a scheduling point.
    #[inline]
    fn runs_at_once(&mut self, actor: u8, op: &M::Op) -> bool {
        if M::is_local(op) {
            return true;
        }
        let goes_on = match self.phase {
            Phase::Silent(0) => false,
            Phase::Silent(left) => {
                self.phase = Phase::Silent(left - 1);
                return true;
            }
            Phase::Frontier => true,
        };
        if self.fusion == Fusion::Local || !self.goes_alone(actor, op) {
            return false;
        }
        // Now and then, at a place that depends on nothing but the actor's own state, so that searches which come there
        // on other ways need not run what is left once more.
        let state = &mut self.actors[usize::from(actor)];
        state.at_checkpoint = self.checkpoints && state.hash & CHECKPOINT == 0 && self.sharing.was_noticed();
        goes_on && !state.at_checkpoint
    }

    /// Learns the locations of an operation; `true` if it is independent of everything that other actors can still do,
    /// that is, if the pending operation of this one actor is a singleton persistent set.
    ///
    /// Then exploring it first loses no behaviour up to commutation. An *enabledness read* counts among the reads, so
    /// that whoever changes the location has a scheduling point, but does not itself make the operation dependent.
    /// Proof: let `p` be such an operation of actor T, which follows T's operation `x`, and let others do `o1 … on`
    /// between the two. If `p` commutes with each `oi`, then `x p o1 … on` stands for all places of `p`, and running
    /// `p` at once, before anybody else is scheduled, loses nothing. It does commute:
    ///
    /// * Where the read is *whether T may go on*: `p` is enabled right after `x`, since only others take the CPU from
    ///   T, and they act after `x` (an operation that made its own actor wait would break this; there is none). `p`
    ///   writes no location that decides whether `oi` may go, and where `oi` decides whether T may go, T could at `p`
    ///   in this execution, hence `p` before `oi` ends in the same state. What an interrupt finds is the state that it
    ///   found when it came before `p`. Only in a deadlock that keeps T off its CPU for ever, `p` has run here and has
    ///   not there; the deadlock is the same.
    /// * Where it is *of a relation that is empty after `x`* (stale values of an address, say): an `oi` that ends it
    ///   needs an earlier one that begins it. That one changes another location, which `p` reads, so the first `oi`
    ///   with which `p` does not commute is not one that ends it.
    ///
    /// All that needs only what the others do *from here on*, and what they can do before T moves
    /// (`Sharing::is_independent`).
    pub fn touch(&mut self, actor: u8, op: &M::Op) -> bool {
        self.scratch.clear();
        self.model.access_set(actor, op, &mut self.scratch);
        self.learn(actor, op)
    }

    /// Whether the pending operation is a singleton persistent set: enabled, independent as above, and with one outcome
    /// that matters. Of a store that may wait, that is the first: it happens now. If nobody conflicts with it, nobody
    /// can tell when it does, neither what comes after it on its own CPU.
    pub fn goes_alone(&mut self, actor: u8, op: &M::Op) -> bool {
        let (first, alone) = self.touch_first(actor, op);
        first || (alone && self.model.outcomes(actor, op) == 1)
    }

    /// `touch`, which is made of what the first outcome touches where that one may stand for all: whether it does, and
    /// what `touch` says.
    #[inline]
    fn touch_first(&mut self, actor: u8, op: &M::Op) -> (bool, bool) {
        self.scratch.clear();
        if !self.model.first_for_all(actor, op, &mut self.scratch) {
            return (false, self.touch(actor, op));
        }
        if self.learn(actor, op) {
            return (true, true);
        }
        self.model.beyond_first(actor, op, &mut self.scratch);
        (false, self.learn(actor, op))
    }

    /// Learns the locations of the access set made last; whether it is independent.
    #[inline]
    fn learn(&mut self, actor: u8, op: &M::Op) -> bool {
        if !self.sharing.learn(actor, &self.scratch) {
            return true;
        }
        let at_it = self.model.locks_at(actor, op);
        let held = if self.fault == Fault::HoldsWhatItTakes { at_it } else { self.model.locks(actor) };
        let mut phases = [phase::FINISHED; MAX_ACTORS];
        for (phase, state) in phases.iter_mut().zip(&self.actors[..self.sharing.actors()]) {
            *phase = state.phase();
        }
        self.sharing.is_independent(actor, held, at_it, &phases)
    }

    #[inline]
    fn perform(&mut self, actor: u8, op: &M::Op, outcome: u16, invisible: bool) -> M::Reply {
        let local = M::is_local(op);
        self.work += 1;
        // The access set may have changed since it became pending.
        if !invisible && self.fusion == Fusion::Invisible && self.phase == Phase::Frontier {
            let _ = if outcome == 0 { self.touch_first(actor, op).1 } else { self.touch(actor, op) };
        }
        let text = self.record.is_some().then(|| self.model.describe(actor, op));
        let taken = (text.is_some() && outcome != 0).then(|| self.model.alternative(actor, op, outcome));
        let reply = self.model.execute(actor, op, outcome);
        while let Some(order) = self.model.new_order() {
            self.lock_orders.push((order, self.actors[usize::from(actor)].label));
        }
        let state = &mut self.actors[usize::from(actor)];
        if !local {
            self.steps += 1;
            self.total_steps += 1;
            // An invisible run is bounded by the kernel's own loops; what must not go on for ever is what others
            // notice.
            state.steps += if invisible { 0 } else { 1 };
            if state.steps > self.step_bound || self.steps > INVISIBLE_BOUND {
                self.bound_hit = true;
                self.halted = true;
            }
        }
        let observed = if self.fault == Fault::HashWithoutValues { 0 } else { M::observed(reply) };
        state.hash = roll(state.hash, observed);
        state.history = roll(state.history, observed);
        if !invisible {
            state.at_checkpoint = false;
            state.marked = state.history;
        }
        state.unobserved = !invisible || (state.unobserved && self.sharing.met_nobody());
        let violated = self.model.violated();
        let broke = violated.minus(self.seen);
        if let Some(mut text) = text {
            self.model.describe_after(actor, op, reply, &mut text);
            let state = &self.actors[usize::from(actor)];
            let step = Step {
                actor,
                outcome,
                label: state.label,
                position: state.position,
                invisible,
                local,
                text,
                taken,
                broke,
                observed: state.hash,
            };
            self.record.as_mut().expect("seen above").push(step);
        }
        if !broke.is_empty() {
            self.seen = violated;
            for invariant in broke.iter() {
                self.note_broken(invariant);
            }
            self.halted |= !broke.and(self.ending).is_empty();
        }
        reply
    }

    /// How many operations may execute as one.
    fn may_skip(&self, n: usize) -> usize {
        match self.phase {
            _ if self.fusion != Fusion::Invisible || self.record.is_some() || self.halted => 0,
            Phase::Frontier => n,
            Phase::Silent(left) => n.min(left as usize),
        }
    }

    fn skip(&mut self, actor: u8, op: &M::Op, n: usize) -> usize {
        self.work += 1;
        if !self.touch(actor, op) || self.model.outcomes(actor, op) != 1 {
            return 0;
        }
        let skipped = match self.model.no_ops(op, n) {
            NoOps::Reads(found) => self.sharing.no_op_reads(actor, found),
            NoOps::Alike(n) => n,
        };
        if skipped == 0 {
            return 0;
        }
        if let Phase::Silent(left) = &mut self.phase {
            *left -= skipped as u32;
        }
        self.steps += skipped as u32;
        self.total_steps += skipped as u64;
        if self.steps > INVISIBLE_BOUND {
            self.bound_hit = true;
            self.halted = true;
        }
        let state = &mut self.actors[usize::from(actor)];
        state.hash = roll(state.hash, SKIPPED ^ skipped as u64);
        state.history = roll(state.history, SKIPPED ^ skipped as u64);
        state.unobserved &= self.sharing.met_nobody();
        skipped
    }

    /// Whether what is left of the actor is known to be a dead continuation.
    fn ends_here(&self, actor: u8) -> bool {
        self.fusion == Fusion::Invisible
            && self.record.is_none()
            && !self.dead_continuations.is_empty()
            && self.dead_continuations.contains(&(actor, self.actors[usize::from(actor)].marked))
    }

    /// Hash of everything that the future depends on.
    pub fn key(&self, count: usize, keep_finished: bool) -> u128 {
        let mut key = self.model.fingerprint();
        for (i, actor) in self.actors[..count].iter().enumerate() {
            let past = if actor.past == 0 { actor.hash } else { roll(actor.hash, u64::from(actor.past)) };
            let own = if actor.finished && !keep_finished { FINISHED } else { past ^ u128::from(actor.finished) };
            key ^= place(own, i as u64);
        }
        key
    }

    /// `steps` when the invariant first broke in this execution, which it did.
    pub fn broke_at(&self, invariant: Invariant) -> u32 {
        self.broke_at[invariant]
    }

    pub fn note_broken(&mut self, invariant: Invariant) {
        self.broke_at[invariant] = self.steps;
    }

    pub fn violated(&self) -> InvariantSet {
        self.own_violations.iter().fold(self.model.violated(), |all, b| all.or(InvariantSet::only(b.invariant)))
    }

    pub fn violations(&self) -> Vec<Violation> {
        let mut all = self.model.violations();
        all.extend(self.own_violations.iter().cloned());
        all
    }
}

/// What going to a scheduling point and back costs, in operations: so all of the corpus does about as much work a
/// second.
pub(crate) const TRANSITION: u64 = 16;

/// Operations of one execution, invisible ones included.
const INVISIBLE_BOUND: u32 = 50_000_000;

/// Bits of an actor's hash that are 0 where it has a cache checkpoint: at one of sixteen operations.
const CHECKPOINT: u128 = 0xf;

/// Everything that actors and scheduler share, on one thread.
pub struct Shared<M: Model> {
    pub(crate) inner: RefCell<Inner<M>>,
}

impl<M: Model> Shared<M> {
    pub fn new(model: M) -> Self {
        let actor = ActorState::new();
        Self {
            inner: RefCell::new(Inner {
                model,
                actors: [actor; MAX_ACTORS],
                sharing: Sharing::default(),
                fusion: Fusion::Invisible,
                phase: Phase::Frontier,
                ending: InvariantSet::NONE,
                seen: InvariantSet::NONE,
                broke_at: ByInvariant::default(),
                halted: false,
                bound_hit: false,
                checkpoints: false,
                step_bound: u32::MAX,
                steps: 0,
                total_steps: 0,
                work: 0,
                record: None,
                pasts: Vec::new(),
                asked: None,
                unanswered: false,
                fault: Fault::None,
                abstracts_observations: true,
                lock_orders: Vec::new(),
                own_violations: Vec::new(),
                retired: Vec::new(),
                dead_continuations: FxHashSet::default(),
                died: false,
                scratch: AccessSet::default(),
            }),
        }
    }

    pub fn into_model(self) -> M {
        self.inner.into_inner().model
    }
}

/// An actor's way out of its coroutine.
pub struct ActorPort<'c, M: Model> {
    shared: &'c Shared<M>,
    suspender: Suspender<'c>,
    actor: u8,
}

impl<'c, M: Model> ActorPort<'c, M> {
    pub(crate) const fn new(shared: &'c Shared<M>, suspender: Suspender<'c>, actor: u8) -> Self {
        Self { shared, suspender, actor }
    }
    #[must_use]
    pub fn id(&self) -> u8 {
        self.actor
    }

    pub fn label(&self, label: &'static str) {
        self.shared.inner.borrow_mut().actors[usize::from(self.actor)].label = label;
    }

    /// The actor's past no longer matters, only its position: histories that led to the same state merge here.
    pub fn boundary(&self, position: u32) {
        let mut inner = self.shared.inner.borrow_mut();
        let state = &mut inner.actors[usize::from(self.actor)];
        state.hash = roll(0, u64::from(position).wrapping_add(1));
        state.position = position;
        state.past = 0;
        state.label = "";
    }

    /// How far the actor is, where that is no boundary: a function of what it has observed, and never less than before.
    pub fn reaches(&self, position: u32) {
        self.shared.inner.borrow_mut().actors[usize::from(self.actor)].position = position;
    }

    /// What it has observed since the last boundary.
    pub fn observed(&self) -> Observed {
        Observed(self.shared.inner.borrow().actors[usize::from(self.actor)].hash)
    }

    /// Its future depends on no more of what it has observed since than the outcome. The hash of before is itself a
    /// live local in between, and a function of what has been observed.
    pub fn abstract_observations(&self, since: Observed, outcome: u64) {
        let mut inner = self.shared.inner.borrow_mut();
        if inner.abstracts_observations {
            let outcome = if inner.fault == Fault::OutcomeForgotten { 0 } else { outcome };
            inner.actors[usize::from(self.actor)].hash = roll(since.0, ABSTRACTED ^ outcome);
        }
    }

    /// The actor begins again and again: it is never past anything.
    pub fn recurs(&self) {
        self.shared.inner.borrow_mut().actors[usize::from(self.actor)].recurring = true;
    }

    /// After `boundary`: what the future depends on besides the position.
    pub fn past(&self, past: u32) {
        let mut inner = self.shared.inner.borrow_mut();
        inner.actors[usize::from(self.actor)].past = past;
        if inner.record.is_some() {
            inner.pasts.push((self.actor, past));
        }
    }

    /// Wait until `Actors::answer` has dealt with a query. No operation, and no scheduling point.
    pub fn ask(&self, query: u32) {
        self.shared.inner.borrow_mut().asked = Some(query);
        loop {
            self.suspender.suspend();
            // Without an answer the execution is halted, and nobody comes back here.
            if !self.shared.inner.borrow().halted {
                return;
            }
        }
    }

    /// Execute at once what can be (`Model::no_ops`) of `n` operations in a row; how many. The others are to be called
    /// one by one.
    pub fn skip(&self, op: &M::Op, n: usize) -> usize {
        let mut inner = self.shared.inner.borrow_mut();
        let allowed = inner.may_skip(n);
        if allowed == 0 { 0 } else { inner.skip(self.actor, op, allowed) }
    }

    /// A scheduling point: the operation is pending until the scheduler picks its actor, then it executes.
    pub fn call(&self, op: M::Op) -> M::Reply {
        {
            let mut inner = self.shared.inner.borrow_mut();
            if inner.runs_at_once(self.actor, &op) {
                let reply = inner.perform(self.actor, &op, 0, true);
                if !inner.halted {
                    return reply;
                }
            } else {
                inner.actors[usize::from(self.actor)].pending = Some(op);
            }
        }
        loop {
            let outcome = self.suspender.suspend();
            let mut inner = self.shared.inner.borrow_mut();
            // Nobody resumes a halted execution or a finished actor; should it happen, the actor just stays where it
            // is.
            if inner.halted || inner.actors[usize::from(self.actor)].finished {
                continue;
            }
            inner.actors[usize::from(self.actor)].pending = None;
            let reply = inner.perform(self.actor, &op, outcome, false);
            if inner.ends_here(self.actor) {
                inner.actors[usize::from(self.actor)].finished = true;
            } else if !inner.halted {
                return reply;
            }
        }
    }
}
