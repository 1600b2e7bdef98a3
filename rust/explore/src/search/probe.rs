//! Executions beside an exhaustive search: from some it learns what actors share, so that fewer of its iterations end
//! late; others show early what is violated where one actor stops once for all others. They are executions like all:
//! what is violated in them has been violated.

use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::model::{InvariantSet, Model};
use crate::runtime::execution::{Actors, Phase};
use crate::runtime::schedule::{Choice, PrefixStep};
use crate::search::dfs::Search;
use crate::search::limits::Limits;

/// Executions in a row that teach nothing, after which it is enough.
const ENOUGH: usize = 4;

/// Warm-up executions, of random schedules.
const WARM_UPS: usize = 20;

/// The part of all work so far that samples may take in vain: one in so many.
const SAMPLED: u64 = 8;

/// Executions without a violation, after which a search goes on to directed executions.
const UNDIRECTED: u64 = 1000;

/// Work of an iteration after which what it learned is worth looking for more of the kind. A tenth of a second.
const LONG: u64 = 500_000;

/// Points of one actor at which a directed execution stops it.
const STOPS: usize = 128;

impl<M: Model, A: Actors<M>> Search<'_, '_, M, A> {
    /// One actor after the other, then in stretches of random length, until nothing new is learned.
    pub(crate) fn warm_up(&mut self, ending: InvariantSet, began: Instant, limits: &Limits<'_>) {
        let count = self.runner.count();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
        let mut in_vain = 0;
        for nth in 0..count + WARM_UPS {
            if !self.may_go_on(limits) {
                return;
            }
            in_vain = if self.runner.adopt_shared(true) { 0 } else { in_vain + 1 };
            if in_vain == ENOUGH {
                return;
            }
            let next = |rng: &mut Xoshiro256PlusPlus, made: &[PrefixStep], _| {
                let moves_on = nth >= count && rng.random_range(0..8) == 0;
                let last = made.last().map_or(nth % count, |t| usize::from(t.choice.actor));
                if moves_on { rng.random_range(0..count) } else { last }
            };
            self.along_prefix(ending, began, next, &mut rng);
        }
    }

    /// What a long iteration learned late seldom comes alone: actors that take turns, each in a place of its own, would
    /// be learned one by one, each in an iteration that is longer than the one before. Random schedules, by whole
    /// kernel operations and in stretches long and short, find most of it soon, so it goes on with them until a part of
    /// all work was in vain.
    pub(crate) fn sample(&mut self, ending: InvariantSet, began: Instant, limits: &Limits<'_>) {
        let count = self.runner.count();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(u64::from(self.report.iterations));
        let in_vain = self.runner.work() / SAMPLED;
        let mut until = self.runner.work() + in_vain;
        for nth in 0.. {
            if self.runner.adopt_shared(true) {
                until = self.runner.work() + in_vain;
            }
            if self.runner.work() >= until || !self.may_go_on(limits) {
                return;
            }
            // Whole operations; then stretches of 2, of 8, of 32 and of 128.
            let kind = nth % 5;
            let next = |rng: &mut Xoshiro256PlusPlus, made: &[PrefixStep], moved_on: bool| {
                let stops = if kind == 0 { moved_on } else { rng.random_range(0..1u32 << (2 * kind - 1)) == 0 };
                match made.last() {
                    Some(last) if !stops => usize::from(last.choice.actor),
                    _ => rng.random_range(0..count),
                }
            };
            self.along_prefix(ending, began, next, &mut rng);
        }
    }

    /// Whether directed executions are still to come, if the search has many.
    pub(crate) fn is_to_direct(&self) -> bool {
        !self.directed && self.report.first.is_none() && self.warms_up()
    }

    pub(crate) fn directs_now(&self) -> bool {
        self.is_to_direct() && self.report.executions >= UNDIRECTED
    }

    /// Whether what the iteration learned late is worth looking for more of the kind.
    pub(crate) fn is_long(&self) -> bool {
        self.warms_up() && self.runner.work() - self.began_at_work >= LONG
    }

    /// Each actor is stopped once, at each of its points in turn, until all others are done or wait. If nothing is
    /// violated, the search may become long, so samples teach it first what it would learn late.
    pub(crate) fn explore_directed(&mut self, ending: InvariantSet, began: Instant, limits: &Limits<'_>) {
        let count = self.runner.count();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        for first in 0..count {
            for stop in 0..STOPS {
                self.runner.adopt_shared(true);
                if !self.may_go_on(limits) {
                    return;
                }
                let next =
                    |_: &mut _, made: &[PrefixStep], _| if made.len() < stop { first } else { (first + 1) % count };
                let followed = self.along_prefix(ending, began, next, &mut rng);
                // It came to its end, or waits, before it was to be stopped.
                if self.report.first.is_some() || followed < stop {
                    break;
                }
            }
        }
        if self.report.first.is_none() {
            self.sample(ending, began, limits);
        }
    }

    fn may_go_on(&self, limits: &Limits<'_>) -> bool {
        let late = limits.deadline.is_some_and(|end| Instant::now() >= end) || (limits.stop)();
        let over = late || self.runner.work() >= limits.work || self.is_to_give_way();
        !over && !self.runner.unanswered() && self.report.executions + 1 < limits.executions
    }

    /// An execution in which whoever is `next` after this prefix goes on if it can, else the one after it that can;
    /// `next` is told whether the last one has come to another kernel operation.
    /// Returns the length of the prefix before somebody else than `next` had to go.
    fn along_prefix(
        &mut self,
        ending: InvariantSet,
        began: Instant,
        mut next: impl FnMut(&mut Xoshiro256PlusPlus, &[PrefixStep], bool) -> usize,
        rng: &mut Xoshiro256PlusPlus,
    ) -> usize {
        let count = self.runner.count();
        let work = self.runner.work();
        let mut operations = self.runner.start();
        let mut prefix = Vec::new();
        let mut followed = None;
        let mut moved_on = false;
        let broke = loop {
            // A deadlock of some ends an execution in which others could go on.
            if self.runner.halted() || self.runner.judge_end() || self.runner.halted() {
                break self.runner.inner().violated();
            }
            let (enabled, _) = self.runner.enabled();
            let wanted = next(rng, &prefix, moved_on);
            let actor = (wanted..wanted + count).map(|a| a % count).find(|a| enabled & 1 << a != 0).unwrap_or(0);
            if actor != wanted {
                followed.get_or_insert(prefix.len());
            }
            let outcome = rng.random_range(0..self.runner.outcomes(actor));
            let choice = Choice { actor: actor as u8, outcome };
            let position = self.runner.position(actor);
            operations[actor] += 1 + self.runner.advance(actor, outcome, Phase::Frontier);
            moved_on = self.runner.position(actor) != position;
            prefix.push(PrefixStep { choice, until: operations[actor] });
        };
        self.work_beside += self.runner.work() - work;
        self.report.executions += 1;
        if self.report.first.is_none() && !broke.and(ending).is_empty() {
            self.report.first = Some((self.report.executions, began.elapsed()));
        }
        for invariant in broke.iter() {
            self.found_beside.entry(invariant).or_insert_with(|| prefix.clone());
        }
        followed.unwrap_or(prefix.len())
    }
}
