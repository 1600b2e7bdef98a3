//! Shorter traces: a minimiser that starts from any violating trace.
//!
//! Length is (context switches, operations), in this order. `proof` shows that there is no shorter
//! one.

use vmemmap_arch::Invariant;

use crate::model::Model;
use crate::runtime::execution::Actors;
use crate::runtime::runner::Runner;
use crate::runtime::schedule::{Choice, Found};

/// Replays that the minimiser may spend on one trace.
const MINIMISER_REPLAYS: u32 = 3000;

/// Consecutive choices of one actor.
type Block = Vec<Choice>;

fn blocks_of(choices: &[Choice]) -> Vec<Block> {
    choices.chunk_by(|a, b| a.actor == b.actor).map(<[Choice]>::to_vec).collect()
}

/// Drops, joins and delays blocks, and drops single choices, as long as the same invariant is violated sooner. `true`
/// if nothing of that helps any more: no choice of the trace can be left out. Ends when the runner's `work` is done, or
/// at `stop`.
pub(crate) fn minimise<M: Model, A: Actors<M>>(
    runner: &mut Runner<'_, M, A>,
    target: Invariant,
    found: &Found,
    work: u64,
    stop: &dyn Fn() -> bool,
) -> (Found, bool) {
    let mut best = found.clone();
    let mut replays = 0;
    'again: loop {
        let blocks = blocks_of(&best.choices);
        for candidate in candidates(&blocks) {
            replays += 1;
            if replays > MINIMISER_REPLAYS || runner.work() >= work || (replays % 64 == 0 && stop()) {
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
