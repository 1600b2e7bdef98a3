//! The proof that a trace is the shortest there is: a search in layers of context switches.
//!
//! Length is (context switches, operations), in this order. Sleep sets are off: they remove the
//! cheap paths. A layer holds what can be reached with that many switches; its vertices are visited in the order of the
//! tree that led to them, so that going from one to the next takes back and runs again little more than where they
//! differ.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use vmemmap_arch::Invariant;

use crate::model::{MAX_ACTORS, Model};
use crate::reduction::history::KeyBuilder;
use crate::runtime::execution::{Actors, Phase};
use crate::runtime::runner::Runner;
use crate::runtime::schedule::{Choice, Cost, Found};
use crate::search::limits::{Clock, Limits};

/// A state, by the choice that led to it.
struct Vertex {
    parent: u32,
    choice: Choice,
    /// Operations that ran after the chosen one, before the next scheduling point.
    ran: u32,
    steps: u32,
    /// Nobody but the actor of the choice is to be tried.
    only_own: bool,
}

const ROOT: u32 = u32::MAX;

/// How a state was reached.
#[derive(Clone, Copy)]
struct Reached {
    cost: Cost,
    /// Actors that went last, at no greater cost. They seldom differ in it: only where outcomes stand for what was
    /// observed does the same state lie behind more operations.
    last: u16,
    /// At one of these times everybody is tried, and not only who went last.
    all_tried: bool,
}

/// What is to be tried in a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tried {
    Nobody,
    /// Who went last. Whatever somebody else does was, or will be, tried at no greater cost, since going on is a switch
    /// for all but one.
    OnlyOwn,
    All,
}

impl Reached {
    /// Whether whatever can follow was, or will be, found from there at no greater cost: with fewer switches it does
    /// not matter who went last.
    fn covers(&self, cost: Cost, last: u16) -> bool {
        // The next layer is entered before this one is done, so a state may be known at more switches too.
        let same = self.cost.switches == cost.switches && self.last & last != 0;
        self.cost.steps <= cost.steps && (self.cost.switches < cost.switches || same)
    }
}

type Traces = BTreeMap<Invariant, Found>;

/// A search for traces shorter than those found.
#[derive(Default)]
pub(crate) struct Proof {
    vertices: Vec<Vertex>,
    reached: HashMap<u128, Reached, KeyBuilder>,
    /// Vertices from the root to where the runner stands, each with what its actor had run ahead before.
    path: Vec<(u32, u32)>,
    /// Operations each actor has run since it was last picked.
    leads: [u32; MAX_ACTORS],
    /// Vertices of the current layer to be visited, the next one last, and those with one switch more.
    pending: Vec<u32>,
    next: Vec<(u32, u128)>,
    switches: u32,
    /// States of the runner entered.
    entered: u64,
    begun: bool,
}

impl Proof {
    /// Searches until no trace shorter than those in `found` can exist; improves them on the way. Returns those proven
    /// shortest. A proof that came to a limit goes on where it was, with shorter traces perhaps, which only leave out
    /// more of what is to come.
    pub(crate) fn go_on<M: Model, A: Actors<M>>(
        &mut self,
        runner: &mut Runner<'_, M, A>,
        found: &mut Traces,
        limits: &mut Limits<'_>,
    ) -> BTreeSet<Invariant> {
        let mut clock = Clock::new();
        if !self.begun {
            for actor in 0..runner.count() {
                alone(runner, actor, found);
            }
        }
        'again: loop {
            let grew = runner.grew();
            if grew {
                say_anew(runner, found);
            }
            if grew || !self.begun {
                *self = Self { pending: vec![ROOT], begun: true, ..Self::default() };
            }
            self.path.clear();
            self.leads = runner.start();
            if runner.halted() {
                return found.keys().copied().collect();
            }
            loop {
                while let Some(at) = self.pending.pop() {
                    self.visit(runner, at, found);
                    if runner.grew() {
                        continue 'again;
                    }
                    let time_over = clock
                        .tick()
                        .is_some_and(|now| (limits.stop)() || limits.deadline.is_some_and(|end| now >= end));
                    if time_over
                        || runner.work() >= limits.work
                        || runner.unanswered()
                        || self.entered > limits.executions
                        || self.reached.len() > limits.states
                    {
                        let done = found.iter().filter(|(_, f)| f.cost.switches < self.switches);
                        return done.map(|(i, _)| *i).collect();
                    }
                }
                self.begin_layer();
                if self.pending.is_empty() || found.values().all(|f| f.cost.switches <= self.switches) {
                    return found.keys().copied().collect();
                }
                self.switches += 1;
            }
        }
    }

    /// What has meanwhile been reached without the switch is left out.
    fn begin_layer(&mut self) {
        let next = std::mem::take(&mut self.next);
        let entered = next.into_iter().rev().filter(|(v, key)| {
            let steps = self.vertices[*v as usize].steps;
            !self.reached.get(key).is_some_and(|r| r.cost.switches <= self.switches && r.cost.steps <= steps)
        });
        self.pending = entered.map(|(v, _)| v).collect();
    }
}

/// A search whose executions ended early may not have met everything that actors share. What is learned since starts a
/// proof anew, and what was found is said in the points that there are now.
fn say_anew<M: Model, A: Actors<M>>(runner: &mut Runner<'_, M, A>, found: &mut Traces) {
    let prefixes: Vec<_> = found.values().map(|f| runner.prefix_of(&f.choices)).collect();
    runner.adopt_shared(false);
    for ((invariant, f), prefix) in found.iter_mut().zip(prefixes) {
        // Choices of before may still be followed, and are shorter if somebody's start was not needed; where they lead
        // elsewhere, they were at these operations.
        let now = runner.follow(&f.choices, *invariant).or_else(|| runner.follow_prefix(&prefix, *invariant));
        if let Some(now) = now {
            *f = now;
        }
    }
}

/// What is violated while one actor runs and no other has even started. In all other searches everybody's start, which
/// nobody else can notice, is done first, and what is violated there hides what another actor would do sooner.
fn alone<M: Model, A: Actors<M>>(runner: &mut Runner<'_, M, A>, actor: usize, found: &mut Traces) {
    runner.reset();
    runner.advance(actor, 0, Phase::Frontier);
    let mut path: Vec<(Choice, u16)> = Vec::new();
    loop {
        let steps = {
            let inner = runner.inner();
            for invariant in inner.violated().iter() {
                let cost = Cost { switches: 0, steps: inner.broke_at(invariant) };
                if let Some(known) = found.get_mut(&invariant).filter(|known| cost < known.cost) {
                    let start = Choice { actor: actor as u8, outcome: 0 };
                    let made = path.iter().map(|(choice, _)| *choice);
                    *known = Found { choices: if path.is_empty() { vec![start] } else { made.collect() }, cost };
                }
            }
            inner.steps
        };
        let worth = found.values().any(|f| Cost { switches: 0, steps } < f.cost);
        let outcomes = if runner.halted() || !worth { 0 } else { runner.outcomes(actor) };
        let next = if outcomes != 0 {
            Some((Choice { actor: actor as u8, outcome: 0 }, outcomes))
        } else {
            // Back to the last choice that can go another way.
            loop {
                let Some((choice, outcomes)) = path.pop() else { break None };
                runner.undo();
                if choice.outcome + 1 < outcomes {
                    break Some((Choice { outcome: choice.outcome + 1, ..choice }, outcomes));
                }
            }
        };
        let Some((choice, outcomes)) = next else { return };
        runner.save(actor);
        runner.advance(actor, choice.outcome, Phase::Frontier);
        path.push((choice, outcomes));
    }
}

impl Proof {
    /// Takes back and runs again what lies between.
    fn goto<M: Model, A: Actors<M>>(&mut self, runner: &mut Runner<'_, M, A>, at: u32) {
        let mut wanted = Vec::new();
        let mut v = at;
        while v != ROOT && self.path.last().is_none_or(|(top, _)| *top != v) {
            // Parents have smaller numbers than their children, and lie above them on the path.
            if self.path.last().is_some_and(|(top, _)| *top > v) {
                self.back(runner);
            } else {
                wanted.push(v);
                v = self.vertices[v as usize].parent;
            }
        }
        while v == ROOT && !self.path.is_empty() {
            self.back(runner);
        }
        for v in wanted.into_iter().rev() {
            let Vertex { choice, ran, .. } = self.vertices[v as usize];
            self.forth(runner, v, choice, Phase::Silent(ran));
        }
    }

    /// One choice from where the runner stands; how many operations ran after the chosen one.
    fn forth<M: Model, A: Actors<M>>(
        &mut self,
        runner: &mut Runner<'_, M, A>,
        v: u32,
        choice: Choice,
        phase: Phase,
    ) -> u32 {
        let actor = usize::from(choice.actor);
        runner.save(actor);
        let ran = runner.advance(actor, choice.outcome, phase);
        self.path.push((v, self.leads[actor]));
        self.leads[actor] = ran;
        ran
    }

    fn back<M: Model, A: Actors<M>>(&mut self, runner: &mut Runner<'_, M, A>) {
        let Some((v, lead)) = self.path.pop() else { return };
        runner.undo();
        // A vertex under trial has no number yet; its actor is put right by `edge`.
        if let Some(vertex) = self.vertices.get(v as usize) {
            self.leads[usize::from(vertex.choice.actor)] = lead;
        }
    }

    fn choices(&self, at: u32, last: Choice) -> Vec<Choice> {
        let mut choices = vec![last];
        let mut v = at;
        while v != ROOT {
            choices.push(self.vertices[v as usize].choice);
            v = self.vertices[v as usize].parent;
        }
        choices.reverse();
        choices
    }

    /// Tries every choice at a vertex. Where its own actor goes on, the new vertices are of the same layer.
    fn visit<M: Model, A: Actors<M>>(&mut self, runner: &mut Runner<'_, M, A>, at: u32, found: &mut Traces) {
        self.goto(runner, at);
        let (last, steps, only_own) = match self.vertices.get(at as usize) {
            Some(v) => (Some(v.choice.actor), v.steps, v.only_own),
            None => (None, 0, false),
        };
        let (mut enabled, _) = runner.enabled();
        // At a checkpoint it could have gone on without being seen, which costs no switch.
        if let Some(last) = last.filter(|last| only_own || runner.at_checkpoint(*last)) {
            enabled &= 1 << last;
        }
        let count = runner.count() as u8;
        let same = |actor: &u8| last.is_none_or(|l| l == *actor);
        // Those of the same layer come last, so that the runner stands where the search goes on.
        let order = (0..count).filter(|a| !same(a)).chain((0..count).filter(same)).filter(|a| enabled & 1 << a != 0);
        for actor in order {
            let switches = self.switches + u32::from(!same(&actor));
            self.goto(runner, at);
            let outcomes = runner.outcomes(usize::from(actor));
            for outcome in 0..outcomes {
                self.goto(runner, at);
                let steps = steps + self.leads[usize::from(actor)] + 1;
                let cost = Cost { switches, steps };
                if found.values().all(|f| f.cost <= cost) {
                    continue;
                }
                if let Some((v, key)) = self.edge(runner, at, Choice { actor, outcome }, cost, found) {
                    if same(&actor) { self.pending.push(v) } else { self.next.push((v, key)) }
                }
            }
        }
    }

    /// Runs a choice from `at`, where the runner stands; the new vertex and its state, unless it is known or the
    /// execution is over.
    fn edge<M: Model, A: Actors<M>>(
        &mut self,
        runner: &mut Runner<'_, M, A>,
        at: u32,
        choice: Choice,
        cost: Cost,
        found: &mut Traces,
    ) -> Option<(u32, u128)> {
        let (before, known) = {
            let inner = runner.inner();
            (inner.steps, inner.violated())
        };
        self.entered += 1;
        let number = self.vertices.len() as u32;
        let lead = self.leads[usize::from(choice.actor)];
        let ran = self.forth(runner, number, choice, Phase::Frontier);
        let within = runner.inner().violated().minus(known);
        let over = runner.halted() || runner.judge_end();
        let inner = runner.inner();
        for invariant in inner.violated().minus(known).iter() {
            let steps = if within.contains(invariant) {
                cost.steps - 1 + inner.broke_at(invariant) - before
            } else {
                cost.steps
            };
            let cost = Cost { steps, ..cost };
            if found.get(&invariant).is_some_and(|f| cost < f.cost) {
                found.insert(invariant, Found { choices: self.choices(at, choice), cost });
            }
        }
        let over = over || inner.halted;
        let key = inner.key(runner.count(), false);
        drop(inner);
        let tried =
            if over { Tried::Nobody } else { self.tried(key, cost, choice.actor, !runner.at_checkpoint(choice.actor)) };
        if tried == Tried::Nobody {
            self.back(runner);
            self.leads[usize::from(choice.actor)] = lead;
            return None;
        }
        self.vertices.push(Vertex { parent: at, choice, ran, steps: cost.steps, only_own: tried == Tried::OnlyOwn });
        Some((number, key))
    }

    /// Who is to be tried in a state that is reached at this cost: nobody if it is known at no greater one. `all`: it
    /// may be somebody else than the actor that went last.
    fn tried(&mut self, key: u128, cost: Cost, actor: u8, all: bool) -> Tried {
        let now = Reached { cost, last: 1 << actor, all_tried: all };
        match self.reached.entry(key) {
            Entry::Vacant(place) => {
                place.insert(now);
                Tried::All
            }
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                if known.covers(cost, now.last) {
                    return Tried::Nobody;
                }
                if cost < known.cost {
                    *known = now;
                } else if cost.switches == known.cost.switches {
                    let others_are_tried = known.all_tried;
                    known.last |= now.last;
                    known.cost.steps = cost.steps;
                    known.all_tried |= all;
                    return if others_are_tried { Tried::OnlyOwn } else { Tried::All };
                }
                Tried::All
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;
    use crate::model::InvariantSet;
    use crate::reduction::options::Reduction;
    use crate::runtime::execution::Shared;
    use crate::search::dfs::Search;
    use crate::toy::{Toy, random_programs};

    fn limits(executions: u64, progress: &mut dyn FnMut(crate::search::report::Progress)) -> Limits<'_> {
        let (deadline, settle, work, states) = (None, None, u64::MAX, usize::MAX);
        Limits { executions, deadline, work, settle, settle_work: u64::MAX, states, stop: &|| false, progress }
    }

    #[test]
    fn a_state_that_is_reached_with_fewer_operations_is_searched_again() {
        let mut proof = Proof::default();
        let mut tried = |switches, steps, actor| proof.tried(7, Cost { switches, steps }, actor, true);
        assert_eq!(tried(1, 5, 0), Tried::All);
        assert_eq!([tried(1, 5, 0), tried(2, 5, 1), tried(1, 6, 0)], [Tried::Nobody; 3]);
        // From there the other actor goes on without a switch.
        assert_eq!(tried(1, 9, 1), Tried::OnlyOwn);
        assert_eq!(tried(1, 9, 1), Tried::Nobody);
        assert_eq!(tried(1, 7, 1), Tried::All);
        assert_eq!(tried(1, 5, 1), Tried::All);
        assert_eq!([tried(1, 6, 1), tried(2, 5, 2)], [Tried::Nobody; 2]);
    }

    #[test]
    fn others_need_not_be_tried_again_where_they_were_tried() {
        let mut proof = Proof::default();
        let mut tried = |actor, all| proof.tried(7, Cost { switches: 1, steps: 5 }, actor, all);
        // At a checkpoint it goes on alone, so the next to come tries all.
        assert_eq!([tried(0, false), tried(1, true), tried(2, true)], [Tried::All, Tried::All, Tried::OnlyOwn]);
        assert_eq!([0, 1, 2].map(|actor| tried(actor, true)), [Tried::Nobody; 3]);
    }

    #[test]
    fn a_layer_leaves_out_what_was_reached_at_no_greater_cost_without_the_switch() {
        let entered = |switches, steps| {
            let choice = Choice { actor: 0, outcome: 0 };
            let vertex = Vertex { parent: ROOT, choice, ran: 0, steps: 5, only_own: false };
            let mut proof = Proof { vertices: vec![vertex], next: vec![(0, 7)], switches: 3, ..Proof::default() };
            proof.tried(7, Cost { switches, steps }, 0, true);
            proof.begin_layer();
            proof.pending.len()
        };
        assert_eq!([entered(4, 5), entered(3, 6)], [1, 1]);
        assert_eq!([entered(3, 5), entered(2, 4)], [0, 0]);
    }

    #[test]
    fn a_proof_that_was_stopped_goes_on_to_the_same_traces() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
        let mut stopped = 0;
        for nth in 0..300 {
            let programs = random_programs(&mut rng, 30);
            let shared = Shared::new(Toy::default());
            let mut runner = Runner::new(&shared, &programs).expect("stacks");
            let found = Search::new(&mut runner, Reduction::MERGED, &mut |_| {})
                .run(InvariantSet::NONE, u32::MAX, &mut limits(u64::MAX, &mut |_| {}))
                .found;
            let mut at_once = found.clone();
            let proven = Proof::default().go_on(&mut runner, &mut at_once, &mut limits(u64::MAX, &mut |_| {}));
            assert!(proven.iter().eq(at_once.keys()), "program {nth}: {programs:?}");
            let (mut proof, mut by_and_by) = (Proof::default(), found);
            for executions in 0.. {
                let proven = proof.go_on(&mut runner, &mut by_and_by, &mut limits(executions, &mut |_| {}));
                if proven.len() == by_and_by.len() {
                    break;
                }
                stopped += 1;
            }
            assert_eq!(by_and_by, at_once, "program {nth}: {programs:?}");
        }
        assert!(stopped > 200, "{stopped}");
    }
}
