//! Broken invariants of an explored machine: data, never a panic.

use vmemmap_arch::Invariant;

/// Most breaches of one invariant in one execution that are kept with their details.
const MAX_KEPT: usize = 16;

/// One broken invariant, when and by whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Breach {
    pub invariant: Invariant,
    pub actor: u8,
    /// Operations executed on the machine before this one, since the last reset.
    pub step: u64,
    /// Virtual or physical address that the message is about.
    pub address: u64,
    pub message: &'static str,
}

/// Those of one execution, in order.
#[derive(Clone, Debug, Default)]
pub struct Breaches {
    kept: Vec<Breach>,
    mask: u32,
}

impl Breaches {
    /// Kept unless the same thing was said already.
    pub fn record(&mut self, breach: Breach) {
        self.mask |= 1 << (breach.invariant.number() - 1);
        let known = |b: &&Breach| b.address == breach.address && b.message == breach.message;
        let mut alike = self.kept.iter().filter(|b| b.invariant == breach.invariant);
        if alike.clone().count() < MAX_KEPT && !alike.any(|b| known(&b)) {
            self.kept.push(breach);
        }
    }
    /// How many are kept, and which were violated: for `back_to`.
    #[must_use]
    pub fn position(&self) -> (usize, u32) {
        (self.kept.len(), self.mask)
    }
    pub fn back_to(&mut self, (kept, mask): (usize, u32)) {
        self.kept.truncate(kept);
        self.mask = mask;
    }
    pub fn clear(&mut self) {
        self.kept.clear();
        self.mask = 0;
    }
    #[must_use]
    pub fn kept(&self) -> &[Breach] {
        &self.kept
    }
    /// Bit `number - 1` of each invariant broken.
    #[must_use]
    #[inline]
    pub const fn mask(&self) -> u32 {
        self.mask
    }
}
