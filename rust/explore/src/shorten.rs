//! Shorter traces: a minimiser that starts from any violating trace, and a bounded search that proves there is no shorter one.
//!
//! Length is (context switches, operations), in this order (explorer.md §2.6).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use vmemmap_arch::Invariant;

use crate::execution::{Actors, Phase, Runner, roll};
use crate::model::{MAX_ACTORS, Model};
use crate::search::{Choice, Clock, Cost, Found, KeyBuilder, Limits};

/// Replays that the minimiser may spend on one trace.
const MINIMISER_REPLAYS: u32 = 3000;

impl<M: Model, A: Actors<M>> Runner<'_, M, A> {
    /// Everybody up to the first announcement; how many operations each ran before it.
    pub(crate) fn start(&mut self) -> [u32; MAX_ACTORS] {
        self.reset();
        let mut ran = [0; MAX_ACTORS];
        for (actor, ran) in ran.iter_mut().enumerate().take(self.count()) {
            *ran = self.advance(actor, 0, Phase::Frontier);
            if self.halted() {
                break;
            }
        }
        ran
    }

    /// What a path has come to: everybody done (then what must hold at rest is judged), or a deadlock (which is recorded).
    pub(crate) fn settle(&mut self) -> bool {
        let done = self.inner().actors[..self.count()].iter().all(|a| a.finished);
        if done {
            self.inner().model.at_rest();
            return true;
        }
        let (enabled, blocked) = self.enabled();
        self.find_deadlock(enabled, blocked);
        enabled == 0
    }

    /// Runs these choices as far as they can be followed (one that cannot is left out), then whoever can go, until
    /// `target` falls. Returns what was really chosen, up to there.
    pub(crate) fn follow(&mut self, choices: &[Choice], target: Invariant) -> Option<Found> {
        let mut leads = self.start();
        let mut made: Vec<Choice> = Vec::with_capacity(choices.len());
        let mut cost = Cost { switches: 0, steps: 0 };
        let mut rest = choices.iter().copied();
        loop {
            {
                let over = self.halted() || self.settle();
                let inner = self.inner();
                if inner.violated().contains(target) {
                    return Some(Found { choices: made, cost });
                }
                if over || inner.halted {
                    return None;
                }
            }
            let mut picked = None;
            for choice in rest.by_ref() {
                let outcomes = self.outcomes(usize::from(choice.actor));
                if outcomes != 0 {
                    picked = Some(Choice { outcome: choice.outcome.min(outcomes - 1), ..choice });
                    break;
                }
            }
            let choice = match picked {
                Some(choice) => choice,
                None => {
                    let (enabled, _) = self.enabled();
                    let last = made.last().map(|c| c.actor).filter(|a| enabled & 1 << a != 0);
                    Choice { actor: last.unwrap_or(enabled.trailing_zeros() as u8), outcome: 0 }
                }
            };
            let actor = usize::from(choice.actor);
            let before = self.inner().steps;
            let ran = self.advance(actor, choice.outcome, Phase::Frontier);
            cost.switches += u32::from(made.last().is_some_and(|c| c.actor != choice.actor));
            made.push(choice);
            let inner = self.inner();
            if inner.violated().contains(target) && inner.model.violated().contains(target) {
                cost.steps += leads[actor] + inner.broke_at[usize::from(target.number()) - 1] - before;
                return Some(Found { choices: made, cost });
            }
            cost.steps += leads[actor] + 1;
            leads[actor] = ran;
        }
    }
}

/// Consecutive choices of one actor.
type Block = Vec<Choice>;

fn blocks_of(choices: &[Choice]) -> Vec<Block> {
    choices.chunk_by(|a, b| a.actor == b.actor).map(<[Choice]>::to_vec).collect()
}

/// Drops, joins and delays blocks as long as the same invariant falls sooner.
pub(crate) fn minimise<M: Model, A: Actors<M>>(
    runner: &mut Runner<'_, M, A>,
    target: Invariant,
    found: &Found,
    stop: &dyn Fn() -> bool,
) -> Found {
    let mut best = found.clone();
    let mut replays = 0;
    'again: loop {
        let blocks = blocks_of(&best.choices);
        for candidate in candidates(&blocks) {
            replays += 1;
            if replays > MINIMISER_REPLAYS || (replays % 64 == 0 && stop()) {
                return best;
            }
            if let Some(shorter) = runner.follow(&candidate, target)
                && shorter.cost < best.cost
            {
                best = shorter;
                continue 'again;
            }
        }
        return best;
    }
}

fn candidates(blocks: &[Block]) -> impl Iterator<Item = Vec<Choice>> + '_ {
    let n = blocks.len();
    let drop = (0..n).map(move |i| without(blocks, i));
    let join = (0..n).flat_map(move |i| {
        let actor = blocks[i][0].actor;
        let earlier = (0..i).rev().find(|j| blocks[*j][0].actor == actor);
        let later = (i + 1..n).find(|j| blocks[*j][0].actor == actor);
        [earlier.map(|j| moved(blocks, i, j, false)), later.map(|j| moved(blocks, i, j, true))].into_iter().flatten()
    });
    let delay = (0..n).flat_map(move |i| {
        let actor = blocks[i][0].actor;
        let later = (i + 1..n).find(|j| blocks[*j][0].actor == actor);
        let length = blocks[i].len();
        cuts(length).map(move |cut| {
            let mut changed = blocks.to_vec();
            let tail = changed[i].split_off(cut);
            if let Some(j) = later {
                changed[j].splice(0..0, tail);
            }
            changed.concat()
        })
    });
    drop.chain(join).chain(delay)
}

/// Where to cut a block of that length: everywhere if it is short, else at halves and near the ends.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    let few: Vec<usize> = if length <= 24 {
        (1..length).rev().collect()
    } else {
        [1, 2, length / 4, length / 2, length * 3 / 4, length - 2, length - 1].to_vec()
    };
    few.into_iter()
}

fn without(blocks: &[Block], i: usize) -> Vec<Choice> {
    blocks.iter().enumerate().filter(|(j, _)| *j != i).flat_map(|(_, b)| b.iter().copied()).collect()
}

/// Block `i` at the end of block `j`, or in front of it.
fn moved(blocks: &[Block], i: usize, j: usize, front: bool) -> Vec<Choice> {
    let mut changed = blocks.to_vec();
    let block = std::mem::take(&mut changed[i]);
    if front {
        changed[j].splice(0..0, block);
    } else {
        changed[j].extend(block);
    }
    changed.concat()
}

struct Vertex {
    parent: u32,
    choice: Choice,
    ran: u32,
    cost: Cost,
}

const ROOT: u32 = u32::MAX;

/// Searches in the order of cost, without sleep sets (they remove the cheap paths), until no trace shorter than those
/// in `found` can exist; improves them on the way. Returns those proven shortest.
pub(crate) fn prove<M: Model, A: Actors<M>>(
    runner: &mut Runner<'_, M, A>,
    found: &mut BTreeMap<Invariant, Found>,
    limits: &mut Limits<'_>,
) -> BTreeSet<Invariant> {
    let mut proof =
        Proof { vertices: Vec::new(), heap: BinaryHeap::new(), best: HashMap::default(), start: runner.start(), found, path: Vec::new() };
    if runner.halted() {
        return proof.found.keys().copied().collect();
    }
    proof.heap.push(Reverse((Cost { switches: 0, steps: 0 }, ROOT)));
    let mut clock = Clock::new();
    let mut executions = 0;
    while let Some(Reverse((cost, at))) = proof.heap.pop() {
        if proof.found.values().all(|f| f.cost <= cost) {
            return proof.found.keys().copied().collect();
        }
        executions += proof.expand(runner, at);
        let time_over = clock.tick().is_some_and(|now| (limits.stop)() || limits.deadline.is_some_and(|end| now >= end));
        if time_over || executions > limits.executions || proof.best.len() > limits.states {
            return proof.found.iter().filter(|(_, f)| f.cost <= cost).map(|(i, _)| *i).collect();
        }
    }
    proof.found.keys().copied().collect()
}

struct Proof<'f> {
    vertices: Vec<Vertex>,
    heap: BinaryHeap<Reverse<(Cost, u32)>>,
    best: HashMap<u128, Cost, KeyBuilder>,
    start: [u32; MAX_ACTORS],
    found: &'f mut BTreeMap<Invariant, Found>,
    path: Vec<u32>,
}

impl Proof<'_> {
    /// Replays to a vertex; operations each actor has run ahead there.
    fn goto<M: Model, A: Actors<M>>(&self, runner: &mut Runner<'_, M, A>) -> [u32; MAX_ACTORS] {
        let mut leads = self.start;
        runner.reset();
        for (actor, ran) in self.start.iter().enumerate().take(runner.count()) {
            runner.advance(actor, 0, Phase::Silent(*ran));
        }
        for v in self.path.iter().rev() {
            let v = &self.vertices[*v as usize];
            let actor = usize::from(v.choice.actor);
            leads[actor] = runner.advance(actor, v.choice.outcome, Phase::Silent(v.ran));
        }
        leads
    }

    fn choices(&self, last: Choice) -> Vec<Choice> {
        self.path.iter().rev().map(|v| self.vertices[*v as usize].choice).chain([last]).collect()
    }

    /// Tries every choice at a vertex; returns the executions it took.
    fn expand<M: Model, A: Actors<M>>(&mut self, runner: &mut Runner<'_, M, A>, at: u32) -> u64 {
        self.path.clear();
        let mut v = at;
        while v != ROOT {
            self.path.push(v);
            v = self.vertices[v as usize].parent;
        }
        let cost = if at == ROOT { Cost { switches: 0, steps: 0 } } else { self.vertices[at as usize].cost };
        let last = (at != ROOT).then(|| self.vertices[at as usize].choice.actor);
        let leads = self.goto(runner);
        let (enabled, _) = runner.enabled();
        let alternatives: Vec<Choice> = (0..runner.count() as u8)
            .filter(|a| enabled & 1 << a != 0)
            .flat_map(|actor| (0..runner.outcomes(usize::from(actor))).map(move |outcome| Choice { actor, outcome }))
            .collect();
        let mut executions = 0;
        for choice in alternatives {
            let actor = usize::from(choice.actor);
            let switches = cost.switches + u32::from(last.is_some_and(|l| l != choice.actor));
            let reached = Cost { switches, steps: cost.steps + leads[actor] + 1 };
            if self.found.values().all(|f| f.cost <= reached) {
                continue;
            }
            if executions != 0 {
                self.goto(runner);
            }
            executions += 1;
            self.edge(runner, at, choice, reached, leads[actor]);
        }
        executions
    }

    fn edge<M: Model, A: Actors<M>>(&mut self, runner: &mut Runner<'_, M, A>, at: u32, choice: Choice, reached: Cost, lead: u32) {
        let (before, known) = {
            let inner = runner.inner();
            (inner.steps, inner.violated())
        };
        let ran = runner.advance(usize::from(choice.actor), choice.outcome, Phase::Frontier);
        let within = runner.inner().violated().minus(known);
        let over = runner.halted() || runner.settle();
        let inner = runner.inner();
        for invariant in inner.violated().minus(known).iter() {
            let steps = if within.contains(invariant) {
                reached.steps - lead - 1 + lead + inner.broke_at[usize::from(invariant.number()) - 1] - before
            } else {
                reached.steps
            };
            let cost = Cost { steps, ..reached };
            if self.found.get(&invariant).is_some_and(|f| cost < f.cost) {
                self.found.insert(invariant, Found { choices: self.choices(choice), cost });
            }
        }
        if over || inner.halted {
            return;
        }
        let key = roll(inner.key(runner.count(), false), u64::from(choice.actor) + 1);
        let better = self.best.get(&key).is_none_or(|known| reached < *known);
        if better {
            self.best.insert(key, reached);
            let number = self.vertices.len() as u32;
            self.vertices.push(Vertex { parent: at, choice, ran, cost: reached });
            self.heap.push(Reverse((reached, number)));
        }
    }
}
