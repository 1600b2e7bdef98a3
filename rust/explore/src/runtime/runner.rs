//! Runs the actors of an execution: from one scheduling point to the next, back to an earlier one, or all from the
//! beginning.

use std::cell::RefMut;
use std::io;

use crate::model::{AccessSet, InvariantSet, MAX_ACTORS, Model};
use crate::reduction::conflicts::Sharing;
use crate::reduction::options::Fusion;
use crate::reduction::phase;
use crate::runtime::actor::ActorState;
use crate::runtime::coroutine::{Coroutine, Saved, Stacks, Suspender};
use crate::runtime::execution::{ActorPort, Actors, Answer, Inner, Phase, Shared, TRANSITION};
use crate::runtime::schedule::Prefix;

/// Invisible operations at an actor's end that are worth remembering to leave out.
const LONG_INVISIBLE_WORK: u32 = 64;

/// What an actor is about to change by running on.
struct Before<M: Model> {
    actor: usize,
    state: ActorState<M::Op>,
    stack: Saved,
    mark: M::Mark,
    seen: InvariantSet,
    steps: u32,
    own_violations: usize,
}

/// Runs actors, one execution after the other, or back and forth along one.
pub struct Runner<'env, M: Model, A: Actors<M>> {
    shared: &'env Shared<M>,
    actors: &'env A,
    stacks: Stacks,
    running: Vec<Coroutine<'env>>,
    count: usize,
    /// What each step since the last `reset` that may be taken back has changed, the last on top.
    before: Vec<Before<M>>,
    /// Buffers of steps taken back.
    spare: Vec<Saved>,
    pub(crate) over_approximates: bool,
    sharing_of_other: Sharing,
    /// With which each execution begins.
    pub(crate) prefix: Option<Prefix>,
}

impl<'env, M: Model, A: Actors<M>> Runner<'env, M, A> {
    /// # Errors
    /// No memory for stacks.
    ///
    /// # Panics
    /// More than `MAX_ACTORS` actors.
    pub fn new(shared: &'env Shared<M>, actors: &'env A) -> io::Result<Self> {
        let count = actors.count();
        assert!(count <= MAX_ACTORS, "at most {MAX_ACTORS} actors");
        let mut stacks = Stacks::default();
        stacks.reserve(count)?;
        Ok(Self {
            shared,
            actors,
            stacks,
            running: Vec::with_capacity(count),
            count,
            before: Vec::new(),
            spare: Vec::new(),
            over_approximates: false,
            sharing_of_other: Sharing::default(),
            prefix: None,
        })
    }

    pub(crate) fn inner(&self) -> RefMut<'env, Inner<M>> {
        self.shared.inner.borrow_mut()
    }

    /// See `Inner::work`.
    pub(crate) fn work(&self) -> u64 {
        self.inner().work
    }

    pub(crate) fn halted(&self) -> bool {
        self.inner().halted
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn actors(&self) -> &'env A {
        self.actors
    }

    /// Take what has become shared into account from now on. `true` if something had.
    ///
    /// `always` as in `Sharing::adopt`.
    pub(crate) fn adopt_shared(&mut self, always: bool) -> bool {
        let mut inner = self.inner();
        let Inner { sharing, model, .. } = &mut *inner;
        let again = |actor, now| phase::again(now, self.actors.rounds(actor));
        let grew = sharing.adopt(self.count, always, again, |location| model.alias(location));
        if grew {
            // What counts as invisible has changed.
            inner.dead_continuations.clear();
        }
        grew
    }

    /// See `Model::over_approximate`. All actors have to start again. What is known of who meets whom where is known of
    /// each of the two: fewer accesses conflict in the over-approximation.
    pub(crate) fn over_approximate(&mut self, on: bool) -> bool {
        let mut inner = self.shared.inner.borrow_mut();
        let has = inner.model.over_approximate(on);
        if has && self.over_approximates != on {
            self.over_approximates = on;
            std::mem::swap(&mut inner.sharing, &mut self.sharing_of_other);
            inner.dead_continuations.clear();
        }
        has
    }

    /// Whether one of these is about to do what conflicts with fewer in the over-approximation.
    pub(crate) fn is_over_approximated(&self, actors: u16) -> bool {
        let inner = self.inner();
        (0..self.count).filter(|actor| actors & 1 << actor != 0).any(|actor| {
            inner.actors[actor].pending.is_some_and(|op| inner.model.is_over_approximated(actor as u8, &op))
        })
    }

    pub(crate) fn grew(&self) -> bool {
        self.inner().sharing.grew()
    }

    /// Before `actor` runs on: what `undo` takes back.
    pub(crate) fn save(&mut self, actor: usize) {
        let mut stack = self.spare.pop().unwrap_or_default();
        self.running[actor].save(&mut stack);
        let mut inner = self.inner();
        let mark = inner.model.checkpoint();
        let (state, seen, steps, own_violations) =
            (inner.actors[actor], inner.seen, inner.steps, inner.own_violations.len());
        drop(inner);
        self.before.push(Before { actor, state, stack, mark, seen, steps, own_violations });
    }

    /// Back to where the last `save` was, which is forgotten.
    ///
    /// # Panics
    /// If nothing is left to take back.
    pub(crate) fn undo(&mut self) {
        let before = self.before.pop().expect("a step was saved");
        self.running[before.actor].restore(&before.stack);
        let mut inner = self.inner();
        inner.model.rollback(&before.mark);
        while let Some((actor, state)) = inner.retired.pop() {
            inner.actors[actor] = state;
        }
        inner.actors[before.actor] = before.state;
        inner.seen = before.seen;
        inner.steps = before.steps;
        inner.own_violations.truncate(before.own_violations);
        inner.halted = false;
        drop(inner);
        self.spare.push(before.stack);
    }

    /// How many steps may be taken back.
    pub(crate) fn saved(&self) -> usize {
        self.before.len()
    }

    /// Back to where so many could be. Of several steps of one actor in between the first alone need have been saved.
    pub(crate) fn undo_to(&mut self, saved: usize) {
        while self.saved() > saved {
            self.undo();
        }
    }

    /// Back to the beginning; no actor has started.
    pub(crate) fn reset(&mut self) {
        self.spare.extend(self.before.drain(..).map(|b| b.stack));
        for coroutine in self.running.drain(..) {
            coroutine.abandon(&mut self.stacks);
        }
        {
            let mut inner = self.inner();
            inner.model.reset();
            for state in &mut inner.actors[..self.count] {
                *state = ActorState::new();
            }
            inner.halted = false;
            inner.seen = InvariantSet::NONE;
            inner.steps = 0;
            inner.own_violations.clear();
            inner.pasts.clear();
            inner.retired.clear();
        }
        for actor in 0..self.count {
            let (shared, actors) = (self.shared, self.actors);
            self.running.push(Coroutine::new(&mut self.stacks, move |suspender: Suspender<'_>| {
                actors.run(actor, &ActorPort::new(shared, suspender, actor as u8));
            }));
        }
    }

    /// Everybody up to the first scheduling point, or to the end of the prefix; how many operations each ran before it.
    pub(crate) fn start(&mut self) -> [u32; MAX_ACTORS] {
        self.reset();
        let Some(prefix) = self.prefix.take() else { return self.set_out() };
        let (ran, _) = self.along(&prefix.choices);
        self.prefix = Some(prefix);
        ran
    }

    /// Everybody up to the first scheduling point; how many operations each ran before it.
    pub(crate) fn set_out(&mut self) -> [u32; MAX_ACTORS] {
        let mut ran = [0; MAX_ACTORS];
        for (actor, ran) in ran.iter_mut().enumerate().take(self.count()) {
            *ran = self.advance(actor, 0, Phase::Frontier);
            if self.halted() {
                break;
            }
        }
        ran
    }

    /// What a path has come to: everybody done (then what must hold at rest is judged), or a deadlock (which is
    /// recorded).
    pub(crate) fn judge_end(&mut self) -> bool {
        let done = self.inner().actors[..self.count()].iter().all(|a| a.finished);
        if done {
            self.inner().model.at_rest();
            return true;
        }
        let (enabled, blocked) = self.enabled();
        self.find_deadlock(enabled, blocked);
        enabled == 0
    }

    /// Whoever has not finished waits for something that may never come and cannot come now: nobody is left to wait
    /// for.
    fn retire_the_idle(&self, inner: &mut Inner<M>) {
        let count = self.count;
        let waiting = |inner: &mut Inner<M>, i: usize| {
            inner.actors[i]
                .pending
                .is_some_and(|op| inner.model.may_never_come(i as u8, &op) && inner.model.outcomes(i as u8, &op) == 0)
        };
        if (0..count).all(|i| inner.actors[i].finished || waiting(inner, i)) {
            for i in 0..count {
                let state = inner.actors[i];
                if !state.finished {
                    inner.retired.push((i, state));
                    inner.actors[i] = ActorState { finished: true, pending: None, ..state };
                }
            }
        }
    }

    /// Start actor `actor`, or let its pending operation execute with that outcome, and run it to its next
    /// scheduling point. Returns how many operations ran after the pending one.
    pub(crate) fn advance(&mut self, actor: usize, outcome: u16, phase: Phase) -> u32 {
        let (before, own, broken) = {
            let mut inner = self.inner();
            inner.phase = phase;
            inner.work += TRANSITION;
            (inner.steps, u32::from(inner.actors[actor].pending.is_some()), inner.model.violated())
        };
        let mut alive = self.running[actor].resume(outcome);
        while let Some(query) = self.query() {
            match self.actors.answer(actor, query) {
                Answer::Given => alive = self.running[actor].resume(0),
                given => {
                    let mut inner = self.inner();
                    inner.halted = true;
                    inner.unanswered |= given == Answer::None;
                    inner.bound_hit |= given == Answer::Beyond;
                }
            }
        }
        let mut inner = self.inner();
        let ran = inner.steps - before - own;
        if !alive {
            let state = &mut inner.actors[actor];
            state.finished = true;
            let key = (actor as u8, state.marked);
            if own != 0
                && phase == Phase::Frontier
                && state.unobserved
                && ran >= LONG_INVISIBLE_WORK
                && inner.fusion == Fusion::Invisible
                && inner.model.violated() == broken
            {
                inner.died = inner.dead_continuations.insert(key);
            }
        }
        if !inner.halted {
            self.retire_the_idle(&mut inner);
        }
        ran
    }

    /// Whether the last `advance` was the first to come to what is a dead continuation.
    pub(crate) fn has_died(&self) -> bool {
        std::mem::take(&mut self.inner().died)
    }

    /// What the actor that ran last has stopped to ask.
    fn query(&self) -> Option<u32> {
        self.inner().asked.take()
    }

    /// Whether a query had no answer: the search is to end, and has not covered everything.
    pub(crate) fn unanswered(&self) -> bool {
        self.inner().unanswered
    }

    /// Actors that could go now, as bits, and those blocked.
    pub(crate) fn enabled(&self) -> (u16, u16) {
        let mut inner = self.inner();
        let (mut enabled, mut blocked) = (0, 0);
        for i in 0..self.count {
            if let Some(op) = inner.actors[i].pending {
                if inner.model.outcomes(i as u8, &op) != 0 {
                    enabled |= 1 << i;
                } else if !inner.model.may_never_come(i as u8, &op) {
                    blocked |= 1 << i;
                }
            }
        }
        (enabled, blocked)
    }

    /// An actor whose pending operation alone is a persistent set: it is independent of everything that other actors
    /// can still do, so exploring it first loses no behaviour up to commutation. An actor at a cache checkpoint is one:
    /// its operation was found so when it was reached, and stays so until the actor moves (`Sharing::is_independent`).
    pub(crate) fn singleton_persistent_set(&self, enabled: u16, last: Option<u8>) -> Option<u8> {
        let mut inner = self.inner();
        if inner.fusion != Fusion::Invisible {
            return None;
        }
        for actor in (0..self.count as u8).filter(|a| enabled & 1 << a != 0) {
            let state = &inner.actors[usize::from(actor)];
            if state.at_checkpoint {
                return Some(actor);
            }
            // Who went last has just been asked, when its operation became pending.
            if last != Some(actor)
                && let Some(op) = state.pending
                && inner.goes_alone(actor, &op)
            {
                return Some(actor);
            }
        }
        None
    }

    /// Whether the pending operation of the actor is one that could have executed at once.
    pub(crate) fn at_checkpoint(&self, actor: u8) -> bool {
        self.inner().actors[usize::from(actor)].at_checkpoint
    }

    /// How far the actor is, in kernel operations.
    pub(crate) fn position(&self, actor: usize) -> u32 {
        self.inner().actors[actor].position
    }

    pub(crate) fn outcomes(&self, actor: usize) -> u16 {
        let mut inner = self.inner();
        match inner.actors[actor].pending {
            Some(op) => inner.model.outcomes(actor as u8, &op),
            None => 0,
        }
    }

    pub(crate) fn access_set(&self, actor: usize, out: &mut AccessSet) {
        out.clear();
        let mut inner = self.inner();
        if let Some(op) = inner.actors[actor].pending {
            inner.model.access_set(actor as u8, &op, out);
        }
    }
}
