//! What is asked of the actors of a model, and the verdict.

pub mod lock_order;
pub mod part;
pub mod subject;
pub mod verdict;
