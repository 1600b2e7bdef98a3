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
}

const ROOT: u32 = u32::MAX;

/// How a state was reached.
#[derive(Clone, Copy)]
struct Reached {
    cost: Cost,
    /// Actors that went last, at no greater cost. They seldom differ in it: only where outcomes stand for what was
    /// observed does the same state lie behind more operations.
    last: u16,
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
    next: Vec<u32>,
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
                self.pending = std::mem::take(&mut self.next);
                self.pending.reverse();
                if self.pending.is_empty() || found.values().all(|f| f.cost.switches <= self.switches) {
                    return found.keys().copied().collect();
                }
                self.switches += 1;
            }
        }
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
        let (last, steps) = match self.vertices.get(at as usize) {
            Some(v) => (Some(v.choice.actor), v.steps),
            None => (None, 0),
        };
        let (mut enabled, _) = runner.enabled();
        if let Some(last) = last.filter(|last| runner.at_checkpoint(*last)) {
            // It could have gone on without being seen, which costs no switch.
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
                if let Some(v) = self.edge(runner, at, Choice { actor, outcome }, cost, found) {
                    if same(&actor) { self.pending.push(v) } else { self.next.push(v) }
                }
            }
        }
    }

    /// Runs a choice from `at`, where the runner stands; the new vertex, unless it is known or the execution is over.
    fn edge<M: Model, A: Actors<M>>(
        &mut self,
        runner: &mut Runner<'_, M, A>,
        at: u32,
        choice: Choice,
        cost: Cost,
        found: &mut Traces,
    ) -> Option<u32> {
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
        if over || self.is_covered(key, cost, choice.actor) {
            self.back(runner);
            self.leads[usize::from(choice.actor)] = lead;
            return None;
        }
        self.vertices.push(Vertex { parent: at, choice, ran, steps: cost.steps });
        Some(number)
    }

    /// Whether the state is known at no greater cost; if not, it is now.
    fn is_covered(&mut self, key: u128, cost: Cost, actor: u8) -> bool {
        let last = 1 << actor;
        match self.reached.entry(key) {
            Entry::Vacant(place) => {
                place.insert(Reached { cost, last });
                false
            }
            Entry::Occupied(mut known) => {
                if known.get().covers(cost, last) {
                    return true;
                }
                if cost < known.get().cost {
                    known.insert(Reached { cost, last });
                } else if cost.switches == known.get().cost.switches {
                    let known = known.get_mut();
                    known.last |= last;
                    known.cost.steps = cost.steps;
                }
                false
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
        let mut covered = |switches, steps, actor| proof.is_covered(7, Cost { switches, steps }, actor);
        assert!(!covered(1, 5, 0));
        assert!(covered(1, 5, 0) && covered(2, 5, 1) && covered(1, 6, 0));
        // From there the other actor goes on without a switch.
        assert!(!covered(1, 9, 1));
        assert!(covered(1, 9, 1));
        assert!(!covered(1, 7, 1));
        assert!(!covered(1, 5, 1));
        assert!(covered(1, 6, 1) && covered(2, 5, 2));
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
