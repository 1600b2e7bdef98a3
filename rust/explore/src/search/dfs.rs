//! The exhaustive search: depth first, going back by putting actors and machine back where they stood, so that each
//! transition executes once.
//!
//! The reductions, each of which can be switched off: an operation that is independent of all that others can still do
//! runs without a scheduling point (transition fusion), or alone where it had one (a singleton persistent set); a state
//! seen before is not entered again; sleep sets leave out orders of independent operations.
//!
//! # Theorem: any revisit may be pruned, whatever its sleep set
//!
//! Let the graph of states be acyclic. Let D(v) be the final states (everybody done, a deadlock, an execution ended by
//! a violation) that executions from v lead to, and E(v) the actors that the search tries in v: all that are enabled,
//! or the only one of a persistent set. *When the search leaves v, it has visited all of D(v), whatever sleep set it
//! entered v with.* Hence no sleep set is stored with a state: Godefroid's rule for revisits, which explores again what
//! slept the first time, is not needed, neither where all enabled actors are tried nor where one is.
//!
//! Proof, by induction over the order in which states are left.
//!
//! 1. D(v) is the union of D(t(v)) over t in E(v), over all outcomes of t. For all enabled actors that is so by
//!    definition. For a singleton persistent set {a} it is persistence: the pending operation p of a is independent of
//!    all that others can do before a moves, so in each execution from v it can be moved to the front without another
//!    end (but for a deadlock that keeps a off its CPU for ever: `Final::but_invisible_work`).
//! 2. t in E(v) that does not sleep: the search enters t(v) now, or prunes it as visited. Since the graph is acyclic, a
//!    visited t(v) is not on the path to v, so it was left before; one entered now is left before v. By induction
//!    D(t(v)) has been visited.
//! 3. t in E(v) that sleeps: at some u on the path to v, t was tried in all its outcomes and t(u) was left before the
//!    search took the branch o1 … on that leads from u to v; t has not moved since, and each oi was independent of its
//!    pending operation where it executed. So t(v) = o1 … on(t(u)), hence D(t(v)) is a part of D(t(u)), all of which,
//!    by induction, has been visited.
//!
//! The intuition: a sleeping actor is one whose move has been searched *completely*, elsewhere. It does not matter
//! whether the search would come by the very state t(v) there (with persistent sets it may not), only that it has come
//! by everything that t(v) leads to.
//!
//! # Several workers
//!
//! They share the states (`search::states`, `search::parallel`), and a state that is met again may still be searched.
//! So an actor sleeps only where all that its move led to is *settled*: all terminal states behind have been visited.
//! With one worker whatever has been left is. docs/search.md §4.5 has the proof for any number.
//!
//! # What it assumes
//!
//! * Depth first, or settled: what sleeps has been left. In breadth-first order, and in `counterexample::shortest`,
//!   which asks for costs, sleep sets are off.
//! * Acyclic: an operation with a scheduling point adds to its actor's history, a boundary counts its position up, and
//!   a handler, which begins again, enters only when somebody who has moved on raised its line.
//! * E(v) is a function of the state: what is known of conflicts is taken as it was when the fixpoint iteration began,
//!   and the actor that went last, which is not asked again, was asked in the same state. So is a cache checkpoint: a
//!   persistent operation that stops all the same, at places that the actor's own history gives, to find a state that
//!   was visited. Such states count as passed, not as states.
//! * Nothing is cut: a budget, or a bound of the model, makes the verdict inconclusive.
//!
//! The soundness tests compare D of the initial state with that of the naive search on random programs; without the
//! filter of sleep sets, the fixpoint or the values in histories they fail. Sleep sets remove edges, never states: as
//! many states must be found without them.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use vmemmap_arch::Invariant;

use crate::model::{AccessSet, InvariantSet, MAX_ACTORS, Model};
use crate::reduction::history::{KeyBuilder, roll};
use crate::reduction::options::{Fault, Fusion, Reduction};
use crate::reduction::sleep;
use crate::runtime::execution::{Actors, Phase};
use crate::runtime::runner::Runner;
use crate::runtime::schedule::{Choice, Cost, Prefix, PrefixStep, goes_on};
use crate::search::limits::{Clock, Limits, OverApproximated};
use crate::search::node::{End, Next, Node, OVER};
use crate::search::report::{Ended, Final, MAX_PREFIXES, Progress, Report};
use crate::search::states::{At, Met, Own, States};

/// How a search of several workers ended.
pub(crate) enum Branched {
    Over(Ended),
    /// Nothing of it counts.
    Surprised,
}

/// How many, and how they are set to work.
pub(crate) struct Workers<'r, 'env, M: Model, A: Actors<M>> {
    pub count: usize,
    pub set_to: fn(&mut Search<'r, 'env, M, A>, usize, &mut Limits<'_>) -> Branched,
}

impl<M: Model, A: Actors<M>> Clone for Workers<'_, '_, M, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Model, A: Actors<M>> Copy for Workers<'_, '_, M, A> {}

/// Depth-first search over all executions of a runner's actors.
pub struct Search<'r, 'env, M: Model, A: Actors<M>, S = Own> {
    pub(crate) runner: &'r mut Runner<'env, M, A>,
    pub(crate) reduction: Reduction,
    pub(crate) nodes: Vec<Node>,
    pub(crate) states: S,
    /// Of the nodes, by depth: the actors that led to a state that was not settled, and that state.
    unsettled: Vec<(usize, u8, At)>,
    start_ran: [u32; MAX_ACTORS],
    pub(crate) report: Report,
    /// Operations each actor has run since it was last picked, in this execution.
    leads: [u32; MAX_ACTORS],
    pub(crate) on_final: &'r mut dyn FnMut(Final),
    /// Ways to an end from each state that was left, if they are counted.
    ways: Option<HashMap<u128, f64, KeyBuilder>>,
    /// Ways from where the execution stopped: into a state seen before as many as it has, else one.
    ways_on: f64,
    access_sets: (AccessSet, AccessSet),
    /// Executions before this iteration, and before it learned something new.
    began_at: u64,
    grew_at: Option<u64>,
    /// What earlier iterations found, by the prefixes that led there.
    found_earlier: BTreeMap<Invariant, Vec<PrefixStep>>,
    /// What was violated beside the search, by the schedule prefix that led there.
    pub(crate) found_beside: BTreeMap<Invariant, Vec<PrefixStep>>,
    pub(crate) directed: bool,
    /// Operations after which executions end, if they are to be gone on with elsewhere.
    depth: Option<usize>,
    /// See `Prefix::asleep`.
    asleep_before: u16,
    /// Violations that settle it, if not those that end executions.
    sought: Option<InvariantSet>,
    /// What was found stays as it is: from here on several workers may go on, each on ways of its own.
    pub(crate) branched: bool,
    /// Work of this iteration after which it branches, and what earlier ones took.
    branches_after: u64,
    pub(crate) began_at_work: u64,
    /// Work of this iteration that went into executions beside the search.
    pub(crate) work_beside: u64,
    /// What it is searched for as long as it may give way to a search of the over-approximation.
    pub(crate) over_approximated: Option<OverApproximated>,
    pub(crate) workers: Option<Workers<'r, 'env, M, A>>,
    /// Operations that workers executed.
    pub(crate) steps_of_workers: u64,
}

impl<'r, 'env, M: Model, A: Actors<M>, S: States> Search<'r, 'env, M, A, S> {
    pub(crate) fn among(
        runner: &'r mut Runner<'env, M, A>,
        reduction: Reduction,
        on_final: &'r mut dyn FnMut(Final),
        states: S,
    ) -> Self {
        Self {
            runner,
            reduction,
            nodes: Vec::new(),
            states,
            unsettled: Vec::new(),
            start_ran: [0; MAX_ACTORS],
            report: Report::new(),
            leads: [0; MAX_ACTORS],
            on_final,
            ways: (reduction.cache && !reduction.sleep && reduction.fusion == Fusion::Local).then(HashMap::default),
            ways_on: 1.0,
            access_sets: Default::default(),
            began_at: 0,
            grew_at: None,
            found_beside: BTreeMap::new(),
            found_earlier: BTreeMap::new(),
            directed: false,
            depth: None,
            asleep_before: 0,
            sought: None,
            branched: false,
            branches_after: BRANCHES_AFTER,
            began_at_work: 0,
            work_beside: 0,
            over_approximated: None,
            workers: None,
            steps_of_workers: 0,
        }
    }
}

impl<'r, 'env, M: Model, A: Actors<M>> Search<'r, 'env, M, A> {
    pub fn new(runner: &'r mut Runner<'env, M, A>, reduction: Reduction, on_final: &'r mut dyn FnMut(Final)) -> Self {
        Self::among(runner, reduction, on_final, Own::default())
    }

    /// Work of an iteration after which it branches, at the earliest.
    #[must_use]
    pub const fn branching_after(mut self, work: u64) -> Self {
        self.branches_after = work;
        self
    }

    /// A violation of these is what the search is for (`Limits::settle`), whether it ends its execution or not.
    #[must_use]
    pub fn seeking(self, sought: InvariantSet) -> Self {
        Self { sought: Some(sought), ..self }
    }

    /// Nothing behind so many choices is searched: the prefixes that lead there are kept (`Report::prefixes`). Together
    /// with a search behind each of them this search visits all that a search of its own would, each operation being a
    /// choice (`Fusion::Local`): what its theorem needs, that a sleeping actor's going first was searched *before*, may
    /// be at any time, since no search looks at what another has found.
    #[must_use]
    pub fn to_depth(self, depth: Option<usize>) -> Self {
        Self { depth, ..self }
    }

    /// Search everything, or until a limit. Violations of `ending` end their execution.
    pub fn run(mut self, ending: InvariantSet, step_bound: u32, limits: &mut Limits<'_>) -> Report {
        {
            self.runner.inner().begin(self.reduction, ending, step_bound);
        }
        let sought = self.sought.unwrap_or(ending);
        let first_steps = self.runner.inner().total_steps;
        let began = Instant::now();
        let mut clock = Clock::new();
        let mut violated_at: Option<(Instant, u64)> = None;
        let mut end = self.begin_iteration();
        let ended = loop {
            let End::Over { unsettled } = end else {
                self.ways_on = 1.0;
                end = self.go_on();
                continue;
            };
            self.report.executions += 1;
            if let Some(node) = self.nodes.last_mut() {
                node.ways += self.ways_on;
            }
            if self.report.first.is_none() && self.report.has_found(sought) {
                self.report.first = Some((self.report.executions, began.elapsed()));
            }
            {
                let inner = self.runner.inner();
                self.report.overflowed |= inner.bound_hit || inner.model.overflowed();
            }
            if self.runner.unanswered() {
                break Ended::Interrupted;
            }
            if limits.settle == Some(Duration::ZERO) && self.report.has_found(sought) {
                break Ended::Enough;
            }
            let grew = self.runner.grew() && self.reduction.fault != Fault::NoFixpoint;
            if grew && self.report.executions >= limits.executions {
                break Ended::Budget;
            }
            if grew && self.is_over() {
                if self.report.iterations == 1 && self.warms_up() {
                    self.warm_up(ending, began, limits);
                } else if self.is_long() {
                    self.sample(ending, began, limits);
                }
                end = self.begin_iteration();
            } else if self.directs_now() {
                self.directed = true;
                self.explore_directed(ending, began, limits);
                end = self.begin_iteration();
            } else if self.branches(ending.or(sought), grew, limits)
                && let Branched::Over(ended) = self.branch(limits)
            {
                break ended;
            } else if self.backtrack(unsettled) {
                end = End::Running;
            } else if grew {
                end = self.begin_iteration();
            } else {
                break Ended::Exhausted;
            }
            if self.report.executions >= limits.executions
                || self.states.len() > limits.states
                || self.report.prefixes.len() > MAX_PREFIXES
            {
                break Ended::Budget;
            }
            let work = self.runner.work();
            if !self.report.has_found(sought) {
                violated_at = None;
            } else if work - violated_at.get_or_insert_with(|| (Instant::now(), work)).1 >= limits.settle_work {
                break Ended::Enough;
            }
            if work >= limits.work || self.gives_way() {
                break Ended::Enough;
            }
            if let Some(now) = clock.tick() {
                self.report.steps = self.runner.inner().total_steps - first_steps + self.steps_of_workers;
                (limits.progress)(self.progress());
                if (limits.stop)() {
                    break Ended::Interrupted;
                }
                if limits.settle.zip(violated_at).is_some_and(|(more, (since, _))| now >= since + more) {
                    break Ended::Enough;
                }
                if limits.deadline.is_some_and(|end| now >= end) {
                    break Ended::Budget;
                }
            }
        };
        self.report.ended = ended;
        if matches!(ended, Ended::Budget | Ended::Enough) {
            self.keep_earlier();
        }
        self.report.steps = self.runner.inner().total_steps - first_steps + self.steps_of_workers;
        self.report.states = self.report.states.max(self.states.decided.len() as u64);
        // The node popped last was the beginning.
        self.report.interleavings =
            (self.ways.is_some() && self.report.ended == Ended::Exhausted).then_some(self.ways_on);
        (limits.progress)(self.progress());
        self.report
    }

    /// Whether the iteration has gone on for so long that it will most likely be the last.
    ///
    /// From here on nothing better is taken in the place of what was found: what is found now depends on who comes
    /// first to which state. So it is where one search may become several, and a search of one worker answers the same.
    fn branches(&mut self, ending: InvariantSet, grew: bool, limits: &Limits<'_>) -> bool {
        let over = self.branched || grew || self.report.has_found(ending) || !self.reduction.cache;
        // Workers make no directed executions, after which the search would begin again.
        if over || self.is_to_direct() || self.runner.work() - self.began_at_work < self.branches_after {
            return false;
        }
        self.branched = true;
        // What is cut by a count is the same on every host. And a part of a search is one of several already.
        let cut = limits.work != u64::MAX || limits.executions != u64::MAX;
        let cut = cut || self.depth.is_some() || self.runner.prefix.is_some();
        self.workers.is_some() && self.ways.is_none() && !cut
    }

    fn branch(&mut self, limits: &mut Limits<'_>) -> Branched {
        match self.workers {
            Some(Workers { count, set_to }) => set_to(self, count, limits),
            None => Branched::Surprised,
        }
    }

    pub(crate) fn warms_up(&self) -> bool {
        self.reduction.fusion == Fusion::Invisible
            && !matches!(self.reduction.fault, Fault::NoWarmUp | Fault::BrokenAssumptionUnnoticed)
    }

    /// Whether an iteration in which something new was learned is to end. What is learned late seldom comes alone, so
    /// it goes on for a small part of what it took so far.
    fn is_over(&mut self) -> bool {
        let now = self.report.executions;
        let grew = *self.grew_at.get_or_insert(now);
        now - grew >= (grew - self.began_at) / 8
    }

    pub(crate) fn progress(&self) -> Progress {
        let violated = self.report.found.keys().fold(InvariantSet::NONE, |all, i| all.or(InvariantSet::only(*i)));
        Progress {
            executions: self.report.executions,
            steps: self.report.steps,
            states: self.states.decided.len() as u64,
            violated,
        }
    }

    /// Everything learned stays; everything built on less is thrown away. All actors run to their first scheduling
    /// point.
    fn begin_iteration(&mut self) -> End {
        let found: Vec<(Invariant, Vec<Choice>)> =
            self.report.found.iter().map(|(invariant, found)| (*invariant, found.choices.clone())).collect();
        for (invariant, choices) in found {
            let prefix = self.runner.prefix_of(&choices);
            self.found_earlier.insert(invariant, prefix);
        }
        self.runner.adopt_shared(true);
        self.nodes.clear();
        self.states.clear();
        let work = self.runner.work();
        if self.report.iterations != 0 {
            // The next is not likely to learn sooner.
            self.branches_after = self.branches_after.max(work - self.began_at_work - self.work_beside);
        }
        self.work_beside = 0;
        (self.began_at, self.grew_at, self.began_at_work) = (self.report.executions, None, work);
        self.branched = false;
        self.report.iterations += 1;
        self.report.found.clear();
        self.report.prefixes.clear();
        self.runner.recall(&self.found_beside, &mut self.report.found);
        if let Some(asleep) = self.runner.prefix.as_ref().map(|prefix| prefix.asleep) {
            self.asleep_before = asleep;
            self.runner.start();
            (self.start_ran, self.leads) = ([0; MAX_ACTORS], [0; MAX_ACTORS]);
            return if self.runner.halted() { OVER } else { self.arrive(asleep, None) };
        }
        self.runner.reset();
        for actor in 0..self.runner.count() {
            let before = self.runner.inner().steps;
            self.start_ran[actor] = self.runner.advance(actor, 0, Phase::Frontier);
            self.leads[actor] = self.start_ran[actor];
            self.note_start(actor as u8, before);
            if self.runner.halted() {
                return OVER;
            }
        }
        self.arrive(0, None)
    }

    /// What earlier iterations found, if this one ended before it came to it again.
    fn keep_earlier(&mut self) {
        self.runner.recall(&self.found_earlier, &mut self.report.found);
    }
}

impl<M: Model, A: Actors<M>, S: States> Search<'_, '_, M, A, S> {
    /// The choice at the deepest node, to the next one.
    pub(crate) fn go_on(&mut self) -> End {
        let sleep = self.child_sleep();
        let actor = self.nodes.last().map(|n| n.choice.actor);
        match self.step() {
            End::Running => self.arrive(sleep, actor),
            over => over,
        }
    }

    /// The chosen operation of the deepest node executes.
    fn step(&mut self) -> End {
        let node = self.nodes.last_mut().expect("a node was chosen");
        let actor = usize::from(node.choice.actor);
        if node.outcomes == 0 {
            node.outcomes = self.runner.outcomes(actor);
        }
        let (before, known) = {
            let inner = self.runner.inner();
            (inner.steps, inner.violated())
        };
        let lead = self.leads[actor];
        node.lead = lead;
        self.runner.save(actor);
        node.ran = self.runner.advance(actor, node.choice.outcome, Phase::Frontier);
        if self.runner.has_died() {
            // Once more, as it will be left out from now on: a state has one key, whoever comes first.
            self.runner.undo();
            self.runner.save(actor);
            node.ran = self.runner.advance(actor, node.choice.outcome, Phase::Frontier);
        }
        self.leads[actor] = node.ran;
        let inner = self.runner.inner();
        let broke = inner.violated().minus(known);
        let halted = inner.halted;
        for invariant in broke.iter() {
            if !self.takes(invariant) {
                continue;
            }
            let within = inner.broke_at(invariant) - before;
            let cost = self.cost(lead + within);
            self.report.keep(invariant, cost, || chosen(&self.nodes));
        }
        if halted { OVER } else { End::Running }
    }

    /// Whether a way to a violation matters.
    fn takes(&self, invariant: Invariant) -> bool {
        !(self.branched && self.report.found.contains_key(&invariant))
    }

    /// Cost of the current path, of whose last transition only `last_steps` operations count. Operations that an actor
    /// ran ahead without being seen count when it is next picked.
    fn cost(&self, last_steps: u32) -> Cost {
        let mut leads = self.start_ran;
        let mut cost = Cost { switches: 0, steps: 0 };
        let mut previous = None;
        for (depth, node) in self.nodes.iter().enumerate() {
            let actor = usize::from(node.choice.actor);
            cost.switches += u32::from(previous.is_some_and(|p| p != actor));
            cost.steps += if depth + 1 == self.nodes.len() { last_steps } else { leads[actor] + 1 };
            leads[actor] = node.ran;
            previous = Some(actor);
        }
        cost
    }

    /// Violations of actors that had not met a scheduling point yet.
    fn note_start(&mut self, actor: u8, before: u32) {
        let inner = self.runner.inner();
        for invariant in inner.violated().iter() {
            // Nobody else's start is needed for it; what was violated in an earlier start is known.
            let Some(steps) = inner.broke_at(invariant).checked_sub(before) else { continue };
            let cost = Cost { switches: 0, steps };
            // Of no choice, as long as its start is invisible.
            self.report.keep(invariant, cost, || vec![Choice { actor, outcome: 0 }]);
        }
    }

    /// A new state: known, final, stuck, or one to choose in.
    fn arrive(&mut self, sleep: u16, last: Option<u8>) -> End {
        let count = self.runner.count();
        let (key, finished) = {
            let inner = self.runner.inner();
            (inner.key(count, self.reduction.keep_finished), inner.actors[..count].iter().all(|a| a.finished))
        };
        // Nothing is learned here of what follows their going first, so that {them} is not known to be persistent: they
        // wait, as for a lock, for something that conflicts with what they are about to do, and who waits is part of
        // the state.
        let elsewhere = sleep & self.nodes.last().map_or(u16::MAX, |n| n.elsewhere) & self.asleep_before;
        let visited = if elsewhere == 0 { key } else { roll(key, u64::from(elsewhere)) };
        if finished {
            self.finish(At { key, decides: true });
            return OVER;
        }
        let (enabled, blocked) = self.runner.enabled();
        // Nothing is decided here, so this is no state to count. If the actor sleeps, its going first was tried; if
        // somebody was here before, so was all that follows, or will be.
        if let Some(actor) = self.runner.singleton_persistent_set(enabled & !elsewhere, last) {
            if sleep & 1 << actor != 0 {
                return OVER;
            }
            let at = At { key: visited, decides: false };
            return self.enter(at, key, (1 << actor, 0), (sleep, elsewhere), Some(actor));
        }
        let at = At { key: visited, decides: true };
        self.enter(at, key, (enabled, blocked), (sleep, elsewhere), last)
    }

    /// To a state in which these are tried, unless somebody was there.
    fn enter(
        &mut self,
        at: At,
        key: u128,
        (enabled, blocked): (u16, u16),
        (sleep, elsewhere): (u16, u16),
        last: Option<u8>,
    ) -> End {
        if self.reduction.cache
            && let Met::Known { settled } = self.states.meet(at)
        {
            self.ways_on = self.ways.as_ref().and_then(|ways| ways.get(&at.key)).copied().unwrap_or(1.0);
            return End::Over { unsettled: (!settled).then_some(at) };
        }
        if blocked != 0 {
            let known = self.runner.inner().violated().contains(Invariant::LockOrder);
            if self.runner.find_deadlock(enabled, blocked) {
                if !known {
                    self.keep_here(Invariant::LockOrder);
                }
                let inner = self.runner.inner();
                if enabled == 0 || inner.halted {
                    let state = Final { key, violated: inner.violated(), deadlock: enabled == 0 };
                    drop(inner);
                    (self.on_final)(state);
                    self.states.leave(at, std::iter::empty());
                    return OVER;
                }
            }
        }
        let open = enabled & !sleep;
        if open == 0 {
            self.states.leave(at, std::iter::empty());
            return OVER;
        }
        if at.decides && self.depth == Some(self.nodes.len()) {
            self.report.prefixes.push(Prefix { choices: chosen(&self.nodes), asleep: sleep });
            self.states.leave(at, std::iter::empty());
            return OVER;
        }
        if at.decides {
            self.weigh(enabled);
        }
        self.nodes.push(Node {
            at,
            open,
            sleep,
            elsewhere,
            done: 0,
            unsettled: 0,
            given: 0,
            choice: Choice { actor: goes_on(open, last), outcome: 0 },
            // Of one that goes alone, the first stands for all.
            outcomes: u16::from(!at.decides),
            ran: 0,
            lead: 0,
            ways: 0.0,
        });
        End::Running
    }

    /// The deepest node is done with; what it is if it is not settled.
    fn leave(&mut self) -> Option<At> {
        let node = self.nodes.pop()?;
        let depth = self.nodes.len();
        let from = self.unsettled.partition_point(|(d, ..)| *d < depth);
        let settled = self.states.leave(node.at, self.unsettled.drain(from..).map(|(.., at)| at));
        if let Some(known) = &mut self.ways {
            known.insert(node.at.key, node.ways);
            self.ways_on = node.ways;
            if let Some(parent) = self.nodes.last_mut() {
                parent.ways += node.ways;
            }
        }
        (!settled).then_some(node.at)
    }

    /// What was violated in the state that the whole path leads to.
    fn keep_here(&mut self, invariant: Invariant) {
        if !self.takes(invariant) {
            return;
        }
        let cost = self.cost(self.nodes.last().map_or(0, |n| n.ran + 1));
        self.report.keep(invariant, cost, || chosen(&self.nodes));
    }

    fn finish(&mut self, at: At) {
        let mut inner = self.runner.inner();
        let known = inner.violated();
        inner.model.at_rest();
        let broke = inner.violated().minus(known);
        let state = Final { key: at.key, violated: inner.violated(), deadlock: false };
        drop(inner);
        if self.reduction.cache {
            let _ = self.states.meet(at) == Met::New && self.states.leave(at, std::iter::empty());
        }
        for invariant in broke.iter() {
            self.keep_here(invariant);
        }
        (self.on_final)(state);
    }

    /// Who sleeps after the choice of the deepest node: all that slept, or were tried and are settled, and do not
    /// conflict with it.
    fn child_sleep(&mut self) -> u16 {
        let Some(node) = self.nodes.last() else { return 0 };
        let candidates = if self.reduction.sleep { node.sleep | node.done & !node.unsettled } else { 0 };
        if candidates == 0 || self.reduction.fault == Fault::SleepNotFiltered {
            return candidates;
        }
        let (own, other) = &mut self.access_sets;
        self.runner.access_set(usize::from(node.choice.actor), own);
        sleep::independent(candidates, self.runner.count(), own, other, |actor, out| self.runner.access_set(actor, out))
    }

    /// To the next untried choice, its node as it was; `false` if there is none. `unsettled`: what the last choice led
    /// to, if that is not settled.
    pub(crate) fn backtrack(&mut self, mut unsettled: Option<At>) -> bool {
        while let Some(node) = self.nodes.last() {
            self.runner.undo();
            self.leads[usize::from(node.choice.actor)] = node.lead;
            match self.next(unsettled) {
                Next::Choice => return true,
                Next::Left(left) => unsettled = left,
            }
        }
        false
    }

    /// The next choice at the deepest node, where the runner stands.
    pub(crate) fn next(&mut self, unsettled: Option<At>) -> Next {
        let depth = self.nodes.len() - 1;
        let node = &mut self.nodes[depth];
        let actor = node.choice.actor;
        if let Some(at) = unsettled {
            self.unsettled.push((depth, actor, at));
            node.unsettled |= 1 << actor;
        }
        if node.choice.outcome + 1 < node.outcomes {
            node.choice.outcome += 1;
            return Next::Choice;
        }
        node.done |= 1 << actor;
        let rest = node.open & !node.done;
        if rest == 0 {
            return Next::Left(self.leave());
        }
        node.choice = Choice { actor: rest.trailing_zeros() as u8, outcome: 0 };
        node.outcomes = 0;
        if node.unsettled != 0 {
            // What they led to may be settled by now.
            let from = self.unsettled.partition_point(|(d, ..)| *d < depth);
            let mut unsettled = self.unsettled.split_off(from);
            unsettled.retain(|(.., at)| !self.states.is_settled(*at));
            node.unsettled = unsettled.iter().fold(node.given, |all, (_, actor, _)| all | 1 << actor);
            self.unsettled.append(&mut unsettled);
        }
        Next::Choice
    }
}

fn chosen(nodes: &[Node]) -> Vec<Choice> {
    nodes.iter().map(|n| n.choice).collect()
}

/// Work of an iteration after which it may be left to several workers: about as much as starting them costs, many times
/// over.
pub const BRANCHES_AFTER: u64 = 1_000_000;
