//! Schedules: which actor goes, with which outcome, and what a path of such choices costs.

/// One decision: this actor, this outcome.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Choice {
    pub actor: u8,
    pub outcome: u16,
}

/// Length of a trace: context switches first, then operations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cost {
    pub switches: u32,
    pub steps: u32,
}

/// A violation and the choices that lead to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    pub choices: Vec<Choice>,
    pub cost: Cost,
}

/// A step of a schedule prefix: this actor went until it had made so many operations in all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PrefixStep {
    pub choice: Choice,
    pub until: u32,
}

/// Who is first among those that may go: whoever went last, else the first.
pub(crate) fn goes_on(may_go: u16, last: Option<u8>) -> u8 {
    last.filter(|a| may_go & 1 << a != 0).unwrap_or(may_go.trailing_zeros() as u8)
}
