//! When a search gives way to one of the over-approximation (docs/search.md §3.13): where that is likely to be over
//! sooner. Where no operation that has fewer conflicts there is a scheduling point, or few are, it has the same states.

use crate::model::Model;
use crate::runtime::execution::Actors;
use crate::search::dfs::Search;
use crate::search::limits::OverApproximated;
use crate::search::states::States;

/// More than one such state in so many makes a search give way.
const CONCERNED: u64 = 20;

impl<M: Model, A: Actors<M>> Search<'_, '_, M, A> {
    /// Gives way to a search of the over-approximation (`Report::gave_way`) after that much work without a violation,
    /// or later, if there is something to gain.
    #[must_use]
    pub fn giving_way_after(mut self, work: Option<u64>) -> Self {
        let begun = self.runner.work();
        let over = |work| OverApproximated { begun, due: begun + work, points: 0, concerned: 0 };
        self.over_approximated = work.map(over);
        self
    }

    /// Who has branched goes on to the end: several workers do as one does.
    pub(crate) fn is_to_give_way(&self) -> bool {
        let goes_on = self.branched || self.report.first.is_some();
        let over = self.over_approximated.as_ref().filter(|over| self.runner.work() >= over.due);
        !goes_on && over.is_some_and(|over| over.concerned * CONCERNED > over.points)
    }

    /// Whether it gives way now; if not, it looks again later.
    pub(crate) fn gives_way(&mut self) -> bool {
        self.report.gave_way = self.is_to_give_way();
        let work = self.runner.work();
        if let Some(over) = self.over_approximated.as_mut().filter(|over| work >= over.due) {
            over.due = over.begun + 4 * (work - over.begun);
        }
        self.report.gave_way
    }
}

impl<M: Model, A: Actors<M>, S: States> Search<'_, '_, M, A, S> {
    /// Of a state in which there is a choice between these.
    pub(crate) fn weigh(&mut self, enabled: u16) {
        if let Some(over) = &mut self.over_approximated {
            over.points += 1;
            over.concerned += u64::from(self.runner.is_over_approximated(enabled));
        }
    }
}
