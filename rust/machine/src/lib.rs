//! machine

pub mod op;
