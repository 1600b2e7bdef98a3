//! Executions that all begin with one prefix, so that one exhaustive search can be split (docs/search.md §3.15).

use std::collections::BTreeMap;

use vmemmap_arch::Invariant;

use crate::model::{MAX_ACTORS, Model};
use crate::reduction::options::Fusion;
use crate::runtime::execution::{Actors, Phase};
use crate::runtime::runner::Runner;
use crate::runtime::schedule::{Choice, Cost, Found, Prefix, PrefixStep};

impl<M: Model, A: Actors<M>> Runner<'_, M, A> {
    /// From now on each execution begins with this prefix.
    ///
    /// # Errors
    /// It cannot be followed; one line for people.
    pub fn begin_behind(&mut self, prefix: Prefix) -> Result<(), String> {
        self.reset();
        let (_, made) = self.along(&prefix.choices);
        if let Some(choice) = prefix.choices.get(made)
            && !self.unanswered()
        {
            return Err(format!(
                "prefix: operation {} is {}:{}, which cannot go there: the prefix is of another scenario or version",
                made + 1,
                choice.actor,
                choice.outcome
            ));
        }
        self.prefix = Some(prefix);
        Ok(())
    }

    /// From the beginning to the end of these choices, every operation being one: how many operations each actor has
    /// made, and how many of the choices could be.
    ///
    /// In the machine itself, whichever is searched: its over-approximation has other outcomes.
    pub(crate) fn along(&mut self, choices: &[Choice]) -> ([u32; MAX_ACTORS], usize) {
        let fusion = {
            let mut inner = self.inner();
            if self.over_approximates {
                inner.model.over_approximate(false);
            }
            std::mem::replace(&mut inner.fusion, Fusion::Local)
        };
        let mut ran = self.set_out();
        let mut made = 0;
        for choice in choices {
            let actor = usize::from(choice.actor);
            if self.halted() || actor >= self.count() || self.outcomes(actor) <= choice.outcome {
                break;
            }
            ran[actor] += 1 + self.advance(actor, choice.outcome, Phase::Frontier);
            made += 1;
        }
        let mut inner = self.inner();
        inner.fusion = fusion;
        if self.over_approximates {
            inner.model.over_approximate(true);
        }
        if fusion == Fusion::Invisible {
            // What became pending is learned of when it does; here nobody looked.
            for actor in 0..self.count() {
                if let Some(op) = inner.actors[actor].pending {
                    inner.touch(actor as u8, &op);
                }
            }
        }
        (ran, made)
    }

    /// What was found behind the prefix, as choices from the beginning, by what is known of who meets whom where; of
    /// every operation where that does not lead to it. The prefix is forgotten.
    pub(crate) fn leave_prefix(&mut self, found: BTreeMap<Invariant, Found>) -> BTreeMap<Invariant, Found> {
        let mut operations = [0; MAX_ACTORS];
        let choices = self.prefix.as_ref().map_or_else(Vec::new, |prefix| prefix.choices.clone());
        let begun: Vec<PrefixStep> = choices
            .into_iter()
            .map(|choice| {
                let made = &mut operations[usize::from(choice.actor)];
                *made += 1;
                PrefixStep { choice, until: *made }
            })
            .collect();
        let found: Vec<_> =
            found.into_iter().map(|(i, f)| (i, [begun.clone(), self.prefix_of(&f.choices)].concat())).collect();
        self.prefix = None;
        self.inner().fusion = Fusion::Invisible;
        loop {
            let followed: Vec<_> = found.iter().map(|(i, steps)| (*i, self.follow_prefix(steps, *i))).collect();
            // The ways taken may show who meets whom, and with that what a choice is.
            if !self.adopt_shared(true) {
                let all = followed.into_iter().zip(&found);
                return all
                    .map(|((i, merged), (_, steps))| (i, merged.unwrap_or_else(|| self.every_operation(steps))))
                    .collect();
            }
        }
    }

    fn every_operation(&mut self, steps: &[PrefixStep]) -> Found {
        self.inner().fusion = Fusion::Local;
        let choices = self.retrace(steps);
        self.inner().fusion = Fusion::Invisible;
        let switches = choices.windows(2).filter(|w| w[0].actor != w[1].actor).count() as u32;
        Found { cost: Cost { switches, steps: choices.len() as u32 }, choices }
    }
}
