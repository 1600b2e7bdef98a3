//! How to check.

use crate::reduction::options::Reduction;
use crate::runtime::schedule::Prefix;
use crate::search::dfs::BRANCHES_AFTER;

/// How schedules are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Strategy {
    #[default]
    Exhaustive,
    Random,
    Pct {
        depth: u32,
    },
}

/// About half a second: most searches are over by then.
const BEFORE_WORK: u64 = 500_000;

/// How to explore.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    pub strategy: Strategy,
    pub seed: u64,
    /// Budget: executions, seconds, whichever is used up first.
    pub executions: Option<u64>,
    pub seconds: Option<f64>,
    /// Operations per actor; an execution that goes beyond makes the answer inconclusive.
    pub step_bound: u32,
    /// States kept at most.
    pub states: usize,
    /// Threads of an exhaustive search that takes long; the answer is the same.
    pub workers: usize,
    /// Work of an iteration after which they are set to it, at the earliest.
    pub branches_after: u64,
    pub reduction: Reduction,
    /// Work of a search of the model after which, without a violation, it gives way to its over-approximation.
    pub over_approximate_after: u64,
    /// Seconds that the proof that a trace is shortest may take, within the budget, and as many to see what is violated
    /// behind a first violation. 0: traces stay as they were found, and nothing more is looked for. Infinite: a fixed
    /// amount of work ends both, the same on every host.
    pub shorten_seconds: f64,
    /// Seconds that the search goes on, within the budget, to see what else is violated once a judged invariant is.
    /// Infinite: a fixed amount of work ends it.
    pub settle_seconds: f64,
    /// Of an exhaustive search: only the first so many operations of each execution, every one a choice, and then the
    /// prefixes behind which others are to go on (`Outcome::prefixes`).
    pub split: Option<u32>,
    /// Of an exhaustive search: only what is behind this prefix.
    pub prefix: Option<Prefix>,
}

impl Options {
    pub const DEFAULT: Self = Self {
        strategy: Strategy::Exhaustive,
        seed: 0,
        executions: None,
        seconds: Some(60.0),
        step_bound: 100_000,
        states: 20_000_000,
        workers: 1,
        branches_after: BRANCHES_AFTER,
        reduction: Reduction::PRODUCT,
        over_approximate_after: BEFORE_WORK,
        shorten_seconds: f64::INFINITY,
        settle_seconds: f64::INFINITY,
        split: None,
        prefix: None,
    };
}

impl Default for Options {
    fn default() -> Self {
        Self::DEFAULT
    }
}
