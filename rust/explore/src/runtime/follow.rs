//! An execution along given choices, as far as they can be followed.

use std::collections::BTreeMap;

use vmemmap_arch::Invariant;

use crate::model::{MAX_ACTORS, Model};
use crate::runtime::execution::{Actors, Phase};
use crate::runtime::runner::Runner;
use crate::runtime::schedule::{Choice, Cost, Found, PrefixStep, goes_on};

impl<M: Model, A: Actors<M>> Runner<'_, M, A> {
    /// Runs these choices as far as they can be followed (one that cannot is left out), then whoever can go, until
    /// `target` is violated. Returns what was really chosen, up to there. An actor starts when it is first chosen, so
    /// that what is violated in a start hides nothing that another does without it.
    pub(crate) fn follow(&mut self, choices: &[Choice], target: Invariant) -> Option<Found> {
        Follower { comes_back: false, ..Follower::new(self, target) }.follow(choices, Cost::MAX)
    }

    /// The prefix that these choices are, which does not depend on what is known of who meets whom where.
    pub(crate) fn prefix_of(&mut self, choices: &[Choice]) -> Vec<PrefixStep> {
        let mut operations = self.start();
        let mut prefix = Vec::new();
        for &choice in choices {
            let actor = usize::from(choice.actor);
            if self.halted() || self.outcomes(actor) <= choice.outcome {
                break;
            }
            operations[actor] += 1 + self.advance(actor, choice.outcome, Phase::Frontier);
            prefix.push(PrefixStep { choice, until: operations[actor] });
        }
        prefix
    }

    /// The choices that lead on the way of this prefix, by what is known now of who meets whom where.
    pub(crate) fn retrace(&mut self, prefix: &[PrefixStep]) -> Vec<Choice> {
        let mut operations = self.start();
        let mut made = Vec::new();
        for &PrefixStep { choice, until } in prefix {
            let actor = usize::from(choice.actor);
            let mut outcome = choice.outcome;
            while operations[actor] < until && !self.halted() {
                let outcomes = self.outcomes(actor);
                if outcomes == 0 {
                    break;
                }
                let choice = Choice { outcome: outcome.min(outcomes - 1), ..choice };
                operations[actor] += 1 + self.advance(actor, choice.outcome, Phase::Frontier);
                made.push(choice);
                outcome = 0;
            }
        }
        made
    }

    /// `follow` on the way of this prefix.
    pub(crate) fn follow_prefix(&mut self, prefix: &[PrefixStep], target: Invariant) -> Option<Found> {
        let choices = self.retrace(prefix);
        self.follow(&choices, target)
    }

    /// What was found before, added to what is found where that lacks it.
    pub(crate) fn recall(
        &mut self,
        before: &BTreeMap<Invariant, Vec<PrefixStep>>,
        found: &mut BTreeMap<Invariant, Found>,
    ) {
        for (invariant, prefix) in before {
            if !found.contains_key(invariant)
                && let Some(again) = self.follow_prefix(prefix, *invariant)
            {
                found.insert(*invariant, again);
            }
        }
    }
}

/// Where a follower stood before a choice, or behind the last one.
struct Mark {
    saved: usize,
    made: usize,
    leads: [u32; MAX_ACTORS],
    started: u16,
    cost: Cost,
}

/// Follows one list of choices after the other (`Runner::follow`). What begins as the list before did is not run again.
pub(crate) struct Follower<'r, 'env, M: Model, A: Actors<M>> {
    pub(crate) runner: &'r mut Runner<'env, M, A>,
    target: Invariant,
    /// There is another list to come.
    comes_back: bool,
    /// The list before, and where it stood before each of its choices that it came to.
    choices: Vec<Choice>,
    marks: Vec<Mark>,
    leads: [u32; MAX_ACTORS],
    started: u16,
    made: Vec<Choice>,
    cost: Cost,
    /// Actors that have been saved since the last mark, for which once is enough.
    saved: u16,
}

impl<'r, 'env, M: Model, A: Actors<M>> Follower<'r, 'env, M, A> {
    pub(crate) fn new(runner: &'r mut Runner<'env, M, A>, target: Invariant) -> Self {
        Self {
            runner,
            target,
            comes_back: true,
            choices: Vec::new(),
            marks: Vec::new(),
            leads: [0; MAX_ACTORS],
            started: 0,
            made: Vec::new(),
            cost: Cost { switches: 0, steps: 0 },
            saved: 0,
        }
    }

    /// `Runner::follow`, given up where it is not less than `bound`.
    pub(crate) fn follow(&mut self, choices: &[Choice], bound: Cost) -> Option<Found> {
        let begin = self.begin(choices)?;
        for choice in &choices[begin..] {
            self.mark();
            let actor = usize::from(choice.actor);
            if self.started & 1 << actor == 0 && self.set_one_out(actor) {
                return Some(self.found(actor));
            }
            if self.runner.halted() {
                return None;
            }
            let outcomes = self.runner.outcomes(actor);
            if outcomes != 0 && self.go(Choice { outcome: choice.outcome.min(outcomes - 1), ..*choice }) {
                return Some(self.found(actor));
            }
            if self.runner.halted() || self.cost >= bound {
                return None;
            }
        }
        self.mark();
        // Anybody, so that what is judged at the end is taken back.
        self.save(0);
        for actor in 0..self.runner.count() {
            if self.started & 1 << actor == 0 && self.set_one_out(actor) {
                return Some(self.found(actor));
            }
            if self.runner.halted() {
                return None;
            }
        }
        loop {
            let over = self.runner.judge_end();
            {
                let inner = self.runner.inner();
                if inner.violated().contains(self.target) {
                    return Some(Found { choices: self.made.clone(), cost: self.cost });
                }
                if over || inner.halted {
                    return None;
                }
            }
            let (enabled, _) = self.runner.enabled();
            let actor = goes_on(enabled, self.made.last().map(|c| c.actor));
            if self.go(Choice { actor, outcome: 0 }) {
                return Some(self.found(usize::from(actor)));
            }
            if self.runner.halted() || self.cost >= bound {
                return None;
            }
        }
    }

    /// To where these choices first differ from those before; how many are made there. `None` if `target` is violated
    /// in the prefix of all executions: then it is for whoever searched that to say.
    fn begin(&mut self, choices: &[Choice]) -> Option<usize> {
        let common = self.choices.iter().zip(choices).take_while(|(a, b)| a == b).count();
        let Some(last) = self.marks.len().checked_sub(1) else {
            if self.runner.prefix.is_some() {
                self.runner.start();
                self.started = u16::MAX;
            } else {
                self.runner.reset();
            }
            self.choices = choices.to_vec();
            return (!self.runner.inner().violated().contains(self.target)).then_some(0);
        };
        let common = common.min(last);
        let mark = &self.marks[common];
        self.runner.undo_to(mark.saved);
        self.made.truncate(mark.made);
        (self.leads, self.started, self.cost) = (mark.leads, mark.started, mark.cost);
        self.marks.truncate(common);
        self.choices.truncate(common);
        self.choices.extend_from_slice(&choices[common..]);
        Some(common)
    }

    fn mark(&mut self) {
        self.saved = if self.comes_back { 0 } else { u16::MAX };
        if self.comes_back {
            let Self { leads, started, cost, .. } = *self;
            self.marks.push(Mark { saved: self.runner.saved(), made: self.made.len(), leads, started, cost });
        }
    }

    fn save(&mut self, actor: usize) {
        if self.saved & 1 << actor == 0 {
            self.saved |= 1 << actor;
            self.runner.save(actor);
        }
    }

    /// An actor runs to its first scheduling point. `true` if `target` is violated.
    fn set_one_out(&mut self, actor: usize) -> bool {
        self.save(actor);
        self.started |= 1 << actor;
        let before = self.runner.inner().steps;
        self.leads[actor] = self.runner.advance(actor, 0, Phase::Frontier);
        self.violated(actor, before)
    }

    /// One choice. `true` if `target` is violated.
    fn go(&mut self, choice: Choice) -> bool {
        let actor = usize::from(choice.actor);
        self.save(actor);
        let before = self.runner.inner().steps;
        let ran = self.runner.advance(actor, choice.outcome, Phase::Frontier);
        self.cost.switches += u32::from(self.made.last().is_some_and(|c| c.actor != choice.actor));
        self.made.push(choice);
        self.cost.steps += self.leads[actor];
        self.leads[actor] = 0;
        if self.violated(actor, before) {
            return true;
        }
        self.cost.steps += 1;
        self.leads[actor] = ran;
        false
    }

    /// Whether `target` was violated in what the actor did since `before` operations.
    fn violated(&mut self, actor: usize, before: u32) -> bool {
        let inner = self.runner.inner();
        let violated = inner.model.violated().contains(self.target);
        if violated {
            self.cost.switches += u32::from(self.made.last().is_some_and(|c| usize::from(c.actor) != actor));
            self.cost.steps += inner.broke_at(self.target) - before;
        }
        violated
    }

    /// The way to a violation for which this actor was needed last.
    fn found(&self, actor: usize) -> Found {
        let mut choices = self.made.clone();
        if choices.last().is_none_or(|c| usize::from(c.actor) != actor) {
            choices.push(Choice { actor: actor as u8, outcome: 0 });
        }
        Found { choices, cost: self.cost }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;
    use crate::runtime::execution::Shared;
    use crate::toy::{Toy, random_interrupts, random_programs};

    /// Some lists, each made of the one before by cutting it, by putting a choice into it, or by taking one out.
    #[test]
    fn a_list_that_begins_as_the_one_before_is_followed_as_if_there_had_been_none() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut violated = 0;
        for nth in 0..400 {
            let programs = if nth % 4 == 0 { random_interrupts(&mut rng, 30) } else { random_programs(&mut rng, 30) };
            let [again, afresh] = [(); 2].map(|()| Shared::new(Toy::default()));
            let [mut again, mut afresh] = [&again, &afresh].map(|s| Runner::new(s, &programs).expect("stacks"));
            let count = again.count();
            for target in [Invariant::NoWalkOfFreedTable, Invariant::NoUseOfFreedFrame, Invariant::LockOrder] {
                let mut follower = Follower::new(&mut again, target);
                let mut list: Vec<Choice> = Vec::new();
                for _ in 0..30 {
                    let at = rng.random_range(0..=list.len());
                    let choice = Choice { actor: rng.random_range(0..count) as u8, outcome: rng.random_range(0..2) };
                    match rng.random_range(0..8) {
                        0 => list.truncate(at),
                        1 if at < list.len() => drop(list.remove(at)),
                        _ => list.insert(at, choice),
                    }
                    let found = afresh.follow(&list, target);
                    let bound = Cost { switches: rng.random_range(0..4), steps: rng.random_range(0..8) };
                    let bound = if rng.random() { bound } else { Cost::MAX };
                    let less = found.filter(|found| found.cost < bound);
                    violated += u32::from(less.is_some());
                    let followed = follower.follow(&list, bound).filter(|found| found.cost < bound);
                    assert_eq!(followed, less, "program {nth}, {list:?}, {bound:?}: {programs:?}");
                }
            }
        }
        assert!(violated > 500, "{violated}");
    }
}
