//! Rules of the access sets, each left out in turn (docs/search.md §3).

use vmemmap_machine::explored::LocationKind::{self, *};
use vmemmap_machine::op::Op;

use super::Mutant;

const ALL_KINDS: [LocationKind; 21] = [
    Life, Mapped, Parent, Contents, Named, Compared, Outdated, Word, Entry, Stale, Lock, Context, Rcu, Pause, Promise,
    Runs, Failures, Var, Buffer, Early, Other,
];

impl Mutant {
    const fn new(name: &'static str, loses: fn(&Op, LocationKind) -> bool) -> Self {
        Self { name, loses, merged_only: false }
    }
    /// Of a rule about other states than that in which the operations meet: only who runs ahead needs it.
    const fn in_other_states(self) -> Self {
        Self { merged_only: true, ..self }
    }
    /// Whether the operation may lose something at all.
    pub fn concerns(&self, op: &Op) -> bool {
        // Everybody may have early loads beside it.
        [*op, Op::LoadEarly].iter().any(|op| self.loses_of(op))
    }
    fn loses_of(&self, op: &Op) -> bool {
        ALL_KINDS.iter().any(|kind| (self.loses)(op, *kind))
    }
}

fn stores(op: &Op) -> bool {
    matches!(op, Op::Write { .. } | Op::Swap { .. } | Op::CompareExchange { .. })
}
fn accesses(op: &Op) -> bool {
    matches!(
        op,
        Op::Load { .. }
            | Op::Store { .. }
            | Op::Rmw { .. }
            | Op::Fill { .. }
            | Op::Speculate { .. }
            | Op::CopyFromVa { .. }
    )
}
fn locks(op: &Op) -> bool {
    matches!(op, Op::Queue { .. } | Op::Acquire { .. } | Op::TryAcquire { .. } | Op::Release { .. })
}

/// Not here, since another location says the same and none of thousands of programs differed: the stale values of a
/// store of a descriptor (the word, and the contents that the rule compares), the entries of a table that is freed (its
/// life), who cannot be paused (that it is paused), failures left (which are the same in any order).
pub const MUTANTS: &[Mutant] = &[
    Mutant::new("a store of a descriptor without who is mapped", |op, l| stores(op) && l == Mapped),
    Mutant::new("a store of a descriptor without its table's parents", |op, l| stores(op) && l == Parent),
    Mutant::new("a store of a descriptor without the contents that the rule compares", |op, l| {
        stores(op) && l == Compared
    })
    .in_other_states(),
    Mutant::new("a barrier with an empty access set", |op, _| matches!(op, Op::Barrier(_))),
    Mutant::new("a barrier without stale values", |op, l| matches!(op, Op::Barrier(_)) && l == Stale),
    Mutant::new("an invalidate without stale values", |op, l| matches!(op, Op::Tlbi(_)) && l == Stale),
    Mutant::new("a free without who is mapped", |op, l| matches!(op, Op::Free { .. }) && l == Mapped),
    Mutant::new("a free without the frame's life", |op, l| matches!(op, Op::Free { .. }) && l == Life),
    Mutant::new("an access without the entries on its walk", |op, l| accesses(op) && l == Entry),
    Mutant::new("an access without stale values", |op, l| accesses(op) && l == Stale),
    Mutant::new("an access without the frame's life", |op, l| accesses(op) && l == Life),
    Mutant::new("an access without the word", |op, l| accesses(op) && l == Word),
    Mutant::new("anything without contents", |_, l| l == Contents),
    Mutant::new("anything without the contents that the rule compares", |_, l| l == Compared).in_other_states(),
    Mutant::new("a store of a descriptor without the frames that it names", |op, l| stores(op) && l == Named)
        .in_other_states(),
    Mutant::new("a barrier without the frames that stale values name", |op, l| {
        matches!(op, Op::Barrier(_)) && l == Named
    })
    .in_other_states(),
    Mutant::new("a free without the stale values that name the frame", |op, l| {
        matches!(op, Op::Free { .. }) && l == Outdated
    })
    .in_other_states(),
    Mutant::new("a lock without its location", |op, l| locks(op) && l == Lock),
    Mutant::new("a writer that queues without the lock", |op, l| matches!(op, Op::Queue { .. }) && l == Lock),
    Mutant::new("RCU read sections that grace periods do not see", |op, l| {
        matches!(op, Op::RcuReadLock | Op::RcuReadUnlock) && l == Rcu
    }),
    Mutant::new("a pause that nobody sees", |_, l| l == Pause),
    Mutant::new("promises about other actors", |_, l| l == Promise),
    Mutant::new("runs of frames", |_, l| l == Runs),
    Mutant::new("variables", |_, l| l == Var),
];

/// Rules of weak memory. Not here: a commit without its buffer, since what it stores to says the same.
pub const WEAK_MUTANTS: &[Mutant] = &[
    Mutant::new("a store that waits without its buffer", |op, l| stores(op) && l == Buffer),
    Mutant::new("a commit without the entry", |op, l| matches!(op, Op::Commit) && l == Entry),
    Mutant::new("a commit without the variable", |op, l| matches!(op, Op::Commit) && l == Var),
    Mutant::new("a commit without stale values", |op, l| matches!(op, Op::Commit) && l == Stale),
    Mutant::new("a barrier without the buffer", |op, l| matches!(op, Op::Barrier(_)) && l == Buffer),
];

/// Rules of early loads.
pub const EARLY_MUTANTS: &[Mutant] = &[
    Mutant::new("what orders loads, or is one, without what is held", |op, l| {
        !matches!(op, Op::LoadEarly) && l == Early
    }),
    Mutant::new("an early load without what is held", |op, l| matches!(op, Op::LoadEarly) && l == Early),
    Mutant::new("an early load without the word", |op, l| matches!(op, Op::LoadEarly) && l == Word),
    Mutant::new("an early load without the variable", |op, l| matches!(op, Op::LoadEarly) && l == Var),
    Mutant::new("an early load without the entries on its walk", |op, l| matches!(op, Op::LoadEarly) && l == Entry),
    Mutant::new("an early load without stale values", |op, l| matches!(op, Op::LoadEarly) && l == Stale),
];
