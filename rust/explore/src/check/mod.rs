//! What is asked of the actors of a model, and the verdict.

pub mod subject;
pub mod verdict;
