//! Which executions are run: all, a sample, or those that a search is directed to first.

pub mod dfs;
pub(crate) mod giving_way;
pub mod limits;
pub(crate) mod node;
mod parallel;
pub(crate) mod probe;
pub mod random;
pub mod report;
pub(crate) mod states;
