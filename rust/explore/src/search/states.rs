//! The states that a search has come to: of one worker, or of several that share them (docs/search.md §4.5).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::reduction::history::KeyBuilder;

/// A state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct At {
    pub key: u128,
    /// Whether there is something to choose; if not, one actor goes alone from there, and it is no state to count.
    pub decides: bool,
}

/// What a search finds where it comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Met {
    /// Nobody has been here.
    New,
    /// Somebody was. `settled`: all terminal states that it leads to have been visited.
    Known { settled: bool },
}

pub trait States {
    /// Comes to a state; who is the first holds it until it leaves.
    fn meet(&mut self, at: At) -> Met;
    /// One who held a state has tried what it wanted to, and these of the states it led to were not settled. Whether
    /// this one is.
    fn leave(&mut self, at: At, waits_for: impl Iterator<Item = At>) -> bool;
    fn is_settled(&self, at: At) -> bool;
    /// One more holds a state that is held.
    fn hold(&mut self, at: At);
}

/// Of one worker, depth first: a state that is met again has been left, hence is settled.
#[derive(Default)]
pub struct Own {
    pub(crate) decided: HashSet<u128, KeyBuilder>,
    /// Where actors were left to go alone.
    pub(crate) passed: HashSet<u128, KeyBuilder>,
}

impl Own {
    pub fn len(&self) -> usize {
        self.decided.len() + self.passed.len()
    }
    pub fn clear(&mut self) {
        self.decided.clear();
        self.passed.clear();
    }
}

impl States for Own {
    #[inline]
    fn meet(&mut self, at: At) -> Met {
        let set = if at.decides { &mut self.decided } else { &mut self.passed };
        if set.insert(at.key) { Met::New } else { Met::Known { settled: true } }
    }
    #[inline]
    fn leave(&mut self, _at: At, _waits_for: impl Iterator<Item = At>) -> bool {
        true
    }
    fn is_settled(&self, _at: At) -> bool {
        true
    }
    fn hold(&mut self, _at: At) {}
}

/// A state's key, in two halves: so an entry takes 24 bytes and not 32.
type Key = (u64, u64);

#[derive(Default)]
struct Shard {
    /// Of each state: who holds it, and for how many others it waits. 0: it is settled.
    pending: HashMap<Key, u32, KeyBuilder>,
    /// Who waits for a state that is not settled.
    waiting: HashMap<Key, Vec<At>, KeyBuilder>,
}

/// Parts of the set, each under a lock of its own.
const SHARDS: usize = 256;

/// Of several workers.
pub struct Common {
    shards: Vec<Mutex<Shard>>,
    decided: AtomicUsize,
    passed: AtomicUsize,
}

impl Default for Common {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, decided: AtomicUsize::new(0), passed: AtomicUsize::new(0) }
    }
}

/// Keeps states where one actor goes alone apart from those where somebody chooses.
const ALONE: u64 = 0x9e37_79b9_7f4a_7c15;

impl Common {
    fn shard(&self, at: At) -> (MutexGuard<'_, Shard>, Key) {
        let (high, low) = ((at.key >> 64) as u64, at.key as u64);
        let key = (low, if at.decides { high } else { high ^ ALONE });
        let shard = &self.shards[(high >> 32) as usize % SHARDS];
        // Whoever panicked has changed one number, or has not.
        (shard.lock().unwrap_or_else(PoisonError::into_inner), key)
    }

    /// A state that is settled, or has so many pending; nobody has been there.
    pub(crate) fn bring(&self, at: At, pending: u32) {
        let (mut shard, key) = self.shard(at);
        if shard.pending.insert(key, pending).is_none() {
            drop(shard);
            self.count(at);
        }
    }

    fn count(&self, at: At) {
        let count = if at.decides { &self.decided } else { &self.passed };
        count.fetch_add(1, Relaxed);
    }

    /// `who` waits for `at`, unless that is settled.
    pub(crate) fn wait(&self, who: At, at: At) {
        {
            let (mut shard, key) = self.shard(who);
            *shard.pending.entry(key).or_default() += 1;
        }
        let settled = {
            let (mut shard, key) = self.shard(at);
            let settled = shard.pending.get(&key) == Some(&0);
            if !settled {
                shard.waiting.entry(key).or_default().push(who);
            }
            settled
        };
        if settled {
            self.release(who);
        }
    }

    /// One thing less is pending of a state; if it was the last, the state is settled, and so may be those that wait
    /// for it.
    pub(crate) fn release(&self, at: At) -> bool {
        let mut first = None;
        let mut less = vec![at];
        while let Some(at) = less.pop() {
            let (mut shard, key) = self.shard(at);
            let pending = shard.pending.entry(key).or_insert(1);
            *pending -= 1;
            let settled = *pending == 0;
            if settled {
                less.extend(shard.waiting.remove(&key).into_iter().flatten());
            }
            first.get_or_insert(settled);
        }
        first == Some(true)
    }

    /// States in which something was chosen.
    pub(crate) fn decided(&self) -> usize {
        self.decided.load(Relaxed)
    }
    pub(crate) fn len(&self) -> usize {
        self.decided() + self.passed.load(Relaxed)
    }
}

impl States for &Common {
    fn meet(&mut self, at: At) -> Met {
        let (mut shard, key) = self.shard(at);
        match shard.pending.entry(key) {
            Entry::Occupied(known) => Met::Known { settled: *known.get() == 0 },
            Entry::Vacant(place) => {
                place.insert(1);
                drop(shard);
                self.count(at);
                Met::New
            }
        }
    }
    fn leave(&mut self, at: At, waits_for: impl Iterator<Item = At>) -> bool {
        waits_for.for_each(|other| self.wait(at, other));
        self.release(at)
    }
    fn is_settled(&self, at: At) -> bool {
        let (shard, key) = self.shard(at);
        shard.pending.get(&key) == Some(&0)
    }
    fn hold(&mut self, at: At) {
        let (mut shard, key) = self.shard(at);
        *shard.pending.entry(key).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    const STATES: u128 = 40;

    fn at(n: u128) -> At {
        At { key: n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835), decides: n.is_multiple_of(2) }
    }

    /// Searches a random graph without cycles from a state on, each edge from a smaller to a larger number. Notes what
    /// was settled when, and asserts that all behind it was settled before.
    fn search(mut states: &Common, edges: &[Vec<u128>], from: u128, rng: &mut Xoshiro256PlusPlus) -> bool {
        match states.meet(at(from)) {
            Met::Known { settled } => return settled,
            Met::New => {}
        }
        let mut next = edges[from as usize].clone();
        next.shuffle(rng);
        let waits: Vec<u128> = next.into_iter().filter(|to| !search(states, edges, *to, rng)).collect();
        if rng.random_range(0..4) == 0 {
            std::thread::yield_now();
        }
        let settled = states.leave(at(from), waits.into_iter().map(at));
        if settled {
            let behind = edges[from as usize].iter();
            behind.for_each(|to| assert!(states.is_settled(at(*to)), "{to} behind {from} is not settled"));
        }
        settled
    }

    /// Whatever the threads do in whatever order, each state has one who is the first there, none is settled before
    /// those that it leads to, and all are in the end.
    #[test]
    fn a_state_is_settled_after_all_behind_it_and_in_the_end_all_are() {
        for seed in 0..300 {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            let edges: Vec<Vec<u128>> = (0..STATES)
                .map(|from| (from + 1..STATES.min(from + 8)).filter(|_| rng.random_range(0..3) == 0).collect())
                .collect();
            let common = Common::default();
            std::thread::scope(|scope| {
                for n in 0..3u64 {
                    let (common, edges) = (&common, &edges);
                    scope.spawn(move || {
                        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed << 8 | n);
                        for _ in 0..STATES {
                            let from = rng.random_range(0..STATES);
                            search(common, edges, from, &mut rng);
                        }
                        (0..STATES).for_each(|from| {
                            search(common, edges, from, &mut rng);
                        });
                    });
                }
            });
            assert_eq!(common.len(), STATES as usize, "seed {seed}");
            assert_eq!(common.decided(), STATES as usize / 2, "seed {seed}");
            assert!((0..STATES).all(|n| (&common).is_settled(at(n))), "seed {seed}");
        }
    }

    #[test]
    fn a_state_that_two_hold_is_settled_when_both_have_left() {
        let common = Common::default();
        let mut states = &common;
        assert_eq!((states.meet(at(2)), states.meet(at(1))), (Met::New, Met::New));
        states.hold(at(2));
        assert!(!states.leave(at(2), std::iter::once(at(1))));
        assert!(!states.leave(at(2), std::iter::empty()));
        assert_eq!(states.meet(at(2)), Met::Known { settled: false });
        assert!(states.leave(at(1), std::iter::empty()));
        assert_eq!(states.meet(at(2)), Met::Known { settled: true });
    }
}
