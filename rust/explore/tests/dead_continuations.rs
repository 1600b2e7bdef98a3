//! An actor that has nothing left but long work that meets nobody is not run again after the same history
//! (docs/search.md §3.6).

mod common;
mod toy;

use common::finals;
use toy::{Line, Op, Programs, Toy};
use vmemmap_arch::Invariant;
use vmemmap_explore::model::InvariantSet;
use vmemmap_explore::reduction::options::Reduction;
use vmemmap_explore::runtime::execution::Shared;
use vmemmap_explore::search::report::Report;

/// Longer than what is worth remembering.
const TAIL: usize = 80;

fn search(programs: &Programs, reduction: Reduction) -> Report {
    finals(&Shared::new(Toy::default()), programs, reduction, InvariantSet::NONE, u64::MAX).0
}

/// Reads whether `writer` is ready, looks at a word of its own for long, then does `last`, if it was ready.
fn reader(last: Op) -> Vec<Line> {
    let begin = [Line::Do(Op::Read(0)), Line::WriteNext(2)];
    let own = std::iter::repeat_n(Line::Do(Op::Read(2)), TAIL);
    begin.into_iter().chain(own).chain([Line::SkipIfOdd, Line::Do(last)]).collect()
}

/// Word 1 ends even or odd, as the environment likes; what it tells others in word 0 is the same, and comes last.
fn writer() -> Vec<Line> {
    [
        Line::Do(Op::Write(1, 1)),
        Line::Do(Op::Choose(2)),
        Line::SkipIfOdd,
        Line::Do(Op::Write(1, 2)),
        Line::Do(Op::Write(0, 1)),
    ]
    .to_vec()
}

#[test]
fn what_meets_nobody_runs_once_for_each_history() {
    let programs = Programs(vec![reader(Op::Read(2)), writer()]);
    let report = search(&programs, Reduction::MERGED);
    assert!(report.exhaustive() && report.found.is_empty());
    // It reads 0 or 1, which is two histories; each iteration forgets what it knew.
    let runs = report.steps / TAIL as u64;
    assert!(runs <= 2 * u64::from(report.iterations) && runs < report.executions, "{report:?}");
}

/// Long work that ends with a look at what another has written is no such work, even though nobody can tell when it
/// happens.
#[test]
fn what_meets_somebody_who_is_done_runs_again() {
    let programs = Programs(vec![reader(Op::Expect(1)), writer()]);
    let found = |reduction| search(&programs, reduction).found.into_keys().collect::<Vec<_>>();
    assert_eq!(found(Reduction::CACHE), [Invariant::AlwaysTranslates]);
    assert_eq!(found(Reduction::MERGED), [Invariant::AlwaysTranslates]);
}
