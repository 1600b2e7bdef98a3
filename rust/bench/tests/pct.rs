//! Probabilistic concurrency testing on the handmade model: what each depth can find.

use std::time::Duration;

use vmemmap_arch::Invariant;
use vmemmap_bench::handmade::Row;
use vmemmap_bench::handmade::machine::Handmade;
use vmemmap_explore::model::InvariantSet;
use vmemmap_explore::runtime::execution::Shared;
use vmemmap_explore::runtime::runner::Runner;
use vmemmap_explore::search::limits::Limits;
use vmemmap_explore::search::random::{Draw, sample};
use vmemmap_explore::search::report::Report;

fn pct(row: &Row, depth: u32, executions: u64) -> Report {
    let shared = Shared::new(Handmade::default());
    let mut runner = Runner::new(&shared, row).expect("stacks");
    let mut limits = Limits {
        executions,
        deadline: None,
        work: u64::MAX,
        settle: Some(Duration::ZERO),
        settle_work: u64::MAX,
        states: usize::MAX,
        stop: &|| false,
        progress: &mut |_| {},
    };
    let ending = InvariantSet::of(&[Invariant::NoWalkOfFreedTable, Invariant::FreedTableIsEmpty]);
    sample(&mut runner, Draw::Pct { depth }, 0, ending, 100_000, &mut limits)
}

/// Derived: one hole takes two preemptions, of HVO in it and of hot remove between scan and free, by when the entry is
/// set again. Two holes one after the other take three: HVO in the first, the scan after its first read, HVO in the
/// second; what the scan saw first is set again by then.
#[test]
fn pct_finds_what_its_depth_allows() {
    let base = Row::named("clear-then-set-3").expect("it is there");
    let one = Row { own: 1, entries: 8, rounds: 1, ..base };
    assert!(!pct(&one, 3, 2_000).found.is_empty());
    let two = Row { own: 2, entries: 4, rounds: 1, ..base };
    assert!(pct(&two, 3, 20_000).found.is_empty());
    assert!(!pct(&two, 4, 20_000).found.is_empty());
}
