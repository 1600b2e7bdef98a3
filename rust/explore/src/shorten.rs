//! Shorter traces: a minimiser that starts from any violating trace.
//!
//! Length is (context switches, operations), in this order (explorer.md §2.6). `proof` shows that there is no shorter one.

use vmemmap_arch::Invariant;

use crate::execution::{Actors, Phase};
use crate::model::{MAX_ACTORS, Model};
use crate::runner::Runner;
use crate::search::{Choice, Cost, Found, goes_on};

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
    /// `target` falls. Returns what was really chosen, up to there. An actor starts when it is first chosen, so that what
    /// falls in a start hides nothing that another does without it.
    pub(crate) fn follow(&mut self, choices: &[Choice], target: Invariant) -> Option<Found> {
        self.reset();
        let mut path =
            Path { leads: [0; MAX_ACTORS], started: 0, made: Vec::with_capacity(choices.len()), cost: Cost { switches: 0, steps: 0 } };
        for choice in choices {
            let actor = usize::from(choice.actor);
            if path.started & 1 << actor == 0 && self.set_out(&mut path, actor, target) {
                return Some(path.found(actor));
            }
            if self.halted() {
                return None;
            }
            let outcomes = self.outcomes(actor);
            if outcomes != 0 && self.go(&mut path, Choice { outcome: choice.outcome.min(outcomes - 1), ..*choice }, target) {
                return Some(path.found(actor));
            }
            if self.halted() {
                return None;
            }
        }
        for actor in 0..self.count() {
            if path.started & 1 << actor == 0 && self.set_out(&mut path, actor, target) {
                return Some(path.found(actor));
            }
            if self.halted() {
                return None;
            }
        }
        loop {
            let over = self.settle();
            {
                let inner = self.inner();
                if inner.violated().contains(target) {
                    return Some(Found { choices: path.made, cost: path.cost });
                }
                if over || inner.halted {
                    return None;
                }
            }
            let (enabled, _) = self.enabled();
            let actor = goes_on(enabled, path.made.last().map(|c| c.actor));
            if self.go(&mut path, Choice { actor, outcome: 0 }, target) {
                return Some(path.found(usize::from(actor)));
            }
            if self.halted() {
                return None;
            }
        }
    }

    /// An actor runs to its first announcement. `true` if `target` falls.
    fn set_out(&mut self, path: &mut Path, actor: usize, target: Invariant) -> bool {
        path.started |= 1 << actor;
        let before = self.inner().steps;
        path.leads[actor] = self.advance(actor, 0, Phase::Frontier);
        self.fell(path, actor, before, target)
    }

    /// One choice. `true` if `target` falls.
    fn go(&mut self, path: &mut Path, choice: Choice, target: Invariant) -> bool {
        let actor = usize::from(choice.actor);
        let before = self.inner().steps;
        let ran = self.advance(actor, choice.outcome, Phase::Frontier);
        path.cost.switches += u32::from(path.made.last().is_some_and(|c| c.actor != choice.actor));
        path.made.push(choice);
        path.cost.steps += path.leads[actor];
        path.leads[actor] = 0;
        if self.fell(path, actor, before, target) {
            return true;
        }
        path.cost.steps += 1;
        path.leads[actor] = ran;
        false
    }

    /// Whether `target` fell in what the actor did since `before` operations.
    fn fell(&self, path: &mut Path, actor: usize, before: u32, target: Invariant) -> bool {
        let inner = self.inner();
        let fell = inner.model.violated().contains(target);
        if fell {
            path.cost.switches += u32::from(path.made.last().is_some_and(|c| usize::from(c.actor) != actor));
            path.cost.steps += inner.broke_at(target) - before;
        }
        fell
    }
}

/// How far choices were followed.
struct Path {
    leads: [u32; MAX_ACTORS],
    started: u16,
    made: Vec<Choice>,
    cost: Cost,
}

impl Path {
    /// The way to a fall for which this actor was needed last.
    fn found(mut self, actor: usize) -> Found {
        if self.made.last().is_none_or(|c| usize::from(c.actor) != actor) {
            self.made.push(Choice { actor: actor as u8, outcome: 0 });
        }
        Found { choices: self.made, cost: self.cost }
    }
}

/// Consecutive choices of one actor.
type Block = Vec<Choice>;

fn blocks_of(choices: &[Choice]) -> Vec<Block> {
    choices.chunk_by(|a, b| a.actor == b.actor).map(<[Choice]>::to_vec).collect()
}

/// Drops, joins and delays blocks, and drops single choices, as long as the same invariant falls sooner. `true` if nothing of
/// that helps any more: no choice of the trace can be left out.
pub(crate) fn minimise<M: Model, A: Actors<M>>(
    runner: &mut Runner<'_, M, A>,
    target: Invariant,
    found: &Found,
    stop: &dyn Fn() -> bool,
) -> (Found, bool) {
    let mut best = found.clone();
    let mut replays = 0;
    'again: loop {
        let blocks = blocks_of(&best.choices);
        for candidate in candidates(&blocks) {
            replays += 1;
            if replays > MINIMISER_REPLAYS || (replays % 64 == 0 && stop()) {
                return (best, false);
            }
            if let Some(shorter) = runner.follow(&candidate, target)
                && shorter.cost < best.cost
            {
                best = shorter;
                continue 'again;
            }
        }
        return (best, true);
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
    // The choices of a block differ in their outcomes only, so that any one of them is as good as its last.
    let fewer = (0..n).filter(move |i| blocks[*i].len() > 1).map(move |i| {
        let mut changed = blocks.to_vec();
        changed[i].pop();
        changed.concat()
    });
    drop.chain(join).chain(delay).chain(fewer)
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
