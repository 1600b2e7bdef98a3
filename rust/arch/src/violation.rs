//! A violated invariant, as every machine and every check reports it.

use core::fmt;

use crate::invariant::Invariant;

/// Which invariant, where, by whom, when, and in words.
///
/// `Who` did it (nobody is known at rest), `Text` are the words, and `Evidence` is what else shows it: a descriptor,
/// the histories of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation<Who = (), Text = &'static str, Evidence = ()> {
    pub invariant: Invariant,
    /// Virtual address, or physical where there is none; 0 where it is about no address.
    pub address: u64,
    pub actor: Who,
    /// Of the machine, as it counts them; 0 at rest.
    pub step: u64,
    pub message: Text,
    pub evidence: Evidence,
}

impl<Who, Text, Evidence> Violation<Who, Text, Evidence> {
    /// The address that it is about, if it is about one.
    #[must_use]
    pub const fn at(&self) -> Option<u64> {
        if self.address == 0 { None } else { Some(self.address) }
    }
}

impl<Text, Evidence> Violation<(), Text, Evidence> {
    /// Found in a state in which nobody runs.
    pub const fn at_rest(invariant: Invariant, address: u64, message: Text, evidence: Evidence) -> Self {
        Self { invariant, address, actor: (), step: 0, message, evidence }
    }
}

impl<Who: fmt::Display, Text: fmt::Display, Evidence: fmt::Display> fmt::Display for Violation<Who, Text, Evidence> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { invariant, actor, step, message, evidence, .. } = self;
        write!(f, "{invariant} {}: {actor} at step {step}: {message}{evidence}", invariant.short())
    }
}
