//! What an answer says that is made of more than one search: of the over-approximation, of the model after it.

use std::collections::BTreeMap;

use vmemmap_arch::Invariant;

use crate::model::{InvariantSet, Model};
use crate::runtime::execution::Actors;
use crate::runtime::runner::Runner;
use crate::runtime::schedule::PrefixStep;
use crate::search::report::{Ended, Report};

/// A search, and what of it an execution of the model has shown, as prefixes.
pub(crate) struct Before {
    report: Report,
    shown: BTreeMap<Invariant, Vec<PrefixStep>>,
}

impl Before {
    pub(crate) fn new<M: Model, A: Actors<M>>(
        runner: &mut Runner<'_, M, A>,
        mut report: Report,
        sought: InvariantSet,
    ) -> Self {
        report.first = report.first.filter(|_| report.has_found(sought));
        let shown = report.found.iter().map(|(i, found)| (*i, runner.prefix_of(&found.choices))).collect();
        Self { report, shown }
    }

    /// What is to be said after another search, and whether the figures are still those of this one: if the other was
    /// cut, what was shown before stays so, and the figures are of the one that came further.
    pub(crate) fn and_then<M: Model, A: Actors<M>>(
        self,
        runner: &mut Runner<'_, M, A>,
        mut next: Report,
    ) -> (Report, bool) {
        if next.ended != Ended::Budget {
            return (next, false);
        }
        runner.recall(&self.shown, &mut next.found);
        next.first = next.first.or(self.report.first);
        if next.steps >= self.report.steps {
            return (next, false);
        }
        (Report { ended: next.ended, found: next.found, first: next.first, ..self.report }, true)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;
    use crate::reduction::options::Reduction;
    use crate::runtime::execution::Shared;
    use crate::search::dfs::Search;
    use crate::search::limits::Limits;
    use crate::toy::{Toy, random_programs};

    #[test]
    fn what_was_shown_before_a_search_that_was_cut_stays_so() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut shown = 0;
        for _ in 0..100 {
            let programs = random_programs(&mut rng, 30);
            let toy = Shared::new(Toy::default());
            let mut runner = Runner::new(&toy, &programs).expect("stacks");
            let report = Search::new(&mut runner, Reduction::MERGED, &mut |_| {}).run(
                InvariantSet::NONE,
                u32::MAX,
                &mut Limits {
                    executions: u64::MAX,
                    deadline: None,
                    work: u64::MAX,
                    settle: None,
                    settle_work: u64::MAX,
                    states: usize::MAX,
                    stop: &|| false,
                    progress: &mut |_| {},
                },
            );
            for ended in [Ended::Budget, Ended::Enough, Ended::Exhausted] {
                let before = Before::new(&mut runner, report.clone(), InvariantSet::NONE);
                let next = Report { ended, steps: report.steps + 1, ..Report::new() };
                let (said, figures_of_before) = before.and_then(&mut runner, next);
                let kept = if ended == Ended::Budget { report.found.len() } else { 0 };
                assert_eq!((said.found.len(), said.steps, figures_of_before), (kept, report.steps + 1, false));
            }
            shown += usize::from(!report.found.is_empty());
        }
        assert!(shown > 10, "{shown}");
    }
}
