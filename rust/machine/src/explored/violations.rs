//! Violated invariants of an explored machine: data, never a panic.

use vmemmap_arch::InvariantSet;

/// Most violations of one invariant in one execution that are kept with their details.
const MAX_KEPT: usize = 16;

/// A violated invariant of an explored machine, by actor number; its step is the number of operations executed on the
/// machine before, since the last reset.
pub type Violation = vmemmap_arch::Violation<u8>;

/// Those of one execution, in order.
#[derive(Clone, Debug, Default)]
pub struct Violations {
    kept: Vec<Violation>,
    set: InvariantSet,
}

impl Violations {
    /// Kept unless the same thing was said already.
    pub fn record(&mut self, violation: Violation) {
        self.set.insert(violation.invariant);
        let known = |v: &&Violation| v.address == violation.address && v.message == violation.message;
        let mut alike = self.kept.iter().filter(|v| v.invariant == violation.invariant);
        if alike.clone().count() < MAX_KEPT && !alike.any(|v| known(&v)) {
            self.kept.push(violation);
        }
    }
    /// How many are kept, and which were violated: for `back_to`.
    #[must_use]
    pub fn position(&self) -> (usize, InvariantSet) {
        (self.kept.len(), self.set)
    }
    pub fn back_to(&mut self, (kept, set): (usize, InvariantSet)) {
        self.kept.truncate(kept);
        self.set = set;
    }
    pub fn clear(&mut self) {
        self.kept.clear();
        self.set = InvariantSet::NONE;
    }
    #[must_use]
    pub fn kept(&self) -> &[Violation] {
        &self.kept
    }
    #[must_use]
    #[inline]
    pub const fn set(&self) -> InvariantSet {
        self.set
    }
}
