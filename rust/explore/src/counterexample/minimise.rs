//! Shorter traces: a minimiser that starts from any violating trace.
//!
//! Length is (context switches, operations), in this order. `proof` shows that there is no shorter
//! one.

use vmemmap_arch::Invariant;

use crate::model::Model;
use crate::runtime::execution::Actors;
use crate::runtime::follow::Follower;
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
    let mut follower = Follower::new(runner, target);
    // Where something helped, more of the same may; so the next pass over all candidates begins behind it.
    let (mut next, mut helped) = (0, false);
    loop {
        let blocks = blocks_of(&best.choices);
        let mut shorter = None;
        for (nth, candidate) in candidates(&blocks).enumerate().skip(next) {
            replays += 1;
            if replays > MINIMISER_REPLAYS || follower.runner.work() >= work || (replays % 64 == 0 && stop()) {
                return (best, false);
            }
            // What is not shorter is given up as soon as that shows.
            shorter = follower.follow(&candidate, best.cost).filter(|found| found.cost < best.cost);
            if shorter.is_some() {
                next = nth;
                break;
            }
        }
        match shorter {
            Some(shorter) => (best, helped) = (shorter, true),
            None if helped => (next, helped) = (0, false),
            None => return (best, true),
        }
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
    let fewer = (0..n).flat_map(move |i| {
        let length = blocks[i].len();
        powers(length).rev().map(move |less| {
            let mut changed = blocks.to_vec();
            changed[i].truncate(length - less);
            changed.concat()
        })
    });
    drop.chain(join).chain(delay).chain(fewer)
}

/// Where to cut a block of that length, the most behind the cut first: everywhere if it is short, else so that what can
/// be behind it is known but for a factor of two.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    let cuts: Vec<usize> = if length <= 8 {
        (1..length).rev().collect()
    } else {
        let near = powers(length / 2 + 1);
        near.clone().chain(near.rev().map(|less| length - less)).collect()
    };
    cuts.into_iter()
}

/// 1, 2, 4, … below `length`.
fn powers(length: usize) -> impl DoubleEndedIterator<Item = usize> + Clone {
    (0..length.next_power_of_two().trailing_zeros()).map(|n| 1 << n)
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

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;
    use crate::model::InvariantSet;
    use crate::reduction::options::{Fusion, Reduction};
    use crate::runtime::execution::Shared;
    use crate::toy::{Toy, random_programs};

    #[test]
    fn nothing_of_what_is_tried_makes_a_minimised_trace_shorter() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        let mut shorter = 0;
        for nth in 0..2000 {
            let programs = random_programs(&mut rng, 30);
            let shared = Shared::new(Toy::default());
            let mut runner = Runner::new(&shared, &programs).expect("stacks");
            // Every operation is a choice, so that traces are long.
            runner.inner().begin(
                Reduction { fusion: Fusion::Local, ..Reduction::MERGED },
                InvariantSet::NONE,
                u32::MAX,
            );
            for target in [Invariant::NoWalkOfFreedTable, Invariant::NoUseOfFreedFrame, Invariant::LockOrder] {
                let choice = |rng: &mut Xoshiro256PlusPlus| Choice { actor: rng.random_range(0..3), outcome: 0 };
                let drawn: Vec<Choice> = (0..60).map(|_| choice(&mut rng)).collect();
                let drawn: Vec<Choice> = drawn.into_iter().filter(|c| usize::from(c.actor) < runner.count()).collect();
                let Some(found) = runner.follow(&drawn, target) else { continue };
                let (best, done) = minimise(&mut runner, target, &found, u64::MAX, &|| false);
                assert!(done && best.cost <= found.cost, "program {nth}: {programs:?}");
                assert_eq!(runner.follow(&best.choices, target).map(|f| f.cost), Some(best.cost), "program {nth}");
                shorter += u32::from(best.cost < found.cost);
                for candidate in candidates(&blocks_of(&best.choices)) {
                    let better = runner.follow(&candidate, target).filter(|f| f.cost < best.cost);
                    assert_eq!(better, None, "program {nth}, {best:?}: {programs:?}");
                }
            }
        }
        assert!(shorter > 100, "{shorter}");
    }
}
