//! An execution along given choices, as far as they can be followed.

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
        let started = if self.prefix.is_some() {
            self.start();
            // Then it is for whoever searched the prefix to say.
            if self.inner().violated().contains(target) {
                return None;
            }
            u16::MAX
        } else {
            self.reset();
            0
        };
        let mut path = Path {
            leads: [0; MAX_ACTORS],
            started,
            made: Vec::with_capacity(choices.len()),
            cost: Cost { switches: 0, steps: 0 },
        };
        for choice in choices {
            let actor = usize::from(choice.actor);
            if path.started & 1 << actor == 0 && self.set_one_out(&mut path, actor, target) {
                return Some(path.found(actor));
            }
            if self.halted() {
                return None;
            }
            let outcomes = self.outcomes(actor);
            if outcomes != 0
                && self.go(&mut path, Choice { outcome: choice.outcome.min(outcomes - 1), ..*choice }, target)
            {
                return Some(path.found(actor));
            }
            if self.halted() {
                return None;
            }
        }
        for actor in 0..self.count() {
            if path.started & 1 << actor == 0 && self.set_one_out(&mut path, actor, target) {
                return Some(path.found(actor));
            }
            if self.halted() {
                return None;
            }
        }
        loop {
            let over = self.judge_end();
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

    /// An actor runs to its first scheduling point. `true` if `target` is violated.
    fn set_one_out(&mut self, path: &mut Path, actor: usize, target: Invariant) -> bool {
        path.started |= 1 << actor;
        let before = self.inner().steps;
        path.leads[actor] = self.advance(actor, 0, Phase::Frontier);
        self.violated(path, actor, before, target)
    }

    /// One choice. `true` if `target` is violated.
    fn go(&mut self, path: &mut Path, choice: Choice, target: Invariant) -> bool {
        let actor = usize::from(choice.actor);
        let before = self.inner().steps;
        let ran = self.advance(actor, choice.outcome, Phase::Frontier);
        path.cost.switches += u32::from(path.made.last().is_some_and(|c| c.actor != choice.actor));
        path.made.push(choice);
        path.cost.steps += path.leads[actor];
        path.leads[actor] = 0;
        if self.violated(path, actor, before, target) {
            return true;
        }
        path.cost.steps += 1;
        path.leads[actor] = ran;
        false
    }

    /// Whether `target` was violated in what the actor did since `before` operations.
    fn violated(&self, path: &mut Path, actor: usize, before: u32, target: Invariant) -> bool {
        let inner = self.inner();
        let violated = inner.model.violated().contains(target);
        if violated {
            path.cost.switches += u32::from(path.made.last().is_some_and(|c| usize::from(c.actor) != actor));
            path.cost.steps += inner.broke_at(target) - before;
        }
        violated
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
    /// The way to a violation for which this actor was needed last.
    fn found(mut self, actor: usize) -> Found {
        if self.made.last().is_none_or(|c| usize::from(c.actor) != actor) {
            self.made.push(Choice { actor: actor as u8, outcome: 0 });
        }
        Found { choices: self.made, cost: self.cost }
    }
}
