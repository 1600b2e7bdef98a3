//! Counterexamples: from the choices that a search came by to the shortest trace, and back to an execution.

pub mod history;
pub(crate) mod minimise;
pub mod replay;
pub mod report;
pub(crate) mod shortest;
pub mod trace;
