//! What is left out of a search, and what that rests on. See the header of `search::dfs`.

pub(crate) mod conflicts;
pub(crate) mod history;
mod locations;
pub mod options;
pub(crate) mod phase;
pub(crate) mod sleep;
