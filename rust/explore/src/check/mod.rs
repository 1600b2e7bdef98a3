//! What is asked of the actors of a model, and the verdict.

mod before;
pub mod lock_order;
pub mod options;
pub mod outcome;
pub mod part;
pub mod subject;
pub mod verdict;
