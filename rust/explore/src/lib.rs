//! An explorer of concurrent programs: it schedules actors on any `Model`, and knows no kernel.
//!
//! | room | what |
//! |---|---|
//! | `model` | what is asked of the thing explored |
//! | `reduction` | what is left out, and what that rests on: accesses that conflict, sleep sets, hashes of histories |
//! | `runtime` | actors as coroutines, one execution, back and forth along it |
//! | `search` | exhaustive, random, directed |
//! | `counterexample` | traces: recorded, minimised, proven shortest, replayed, reported |
//! | `check` | what is asked of the actors of a model, and the verdict |
//!
//! Each room uses only those above it.
#![deny(unsafe_op_in_unsafe_fn)]

pub mod check;
pub mod counterexample;
pub mod model;
pub mod reduction;
pub mod runtime;
pub mod search;

#[cfg(test)]
extern crate self as vmemmap_explore;
#[cfg(test)]
#[path = "../tests/toy/mod.rs"]
mod toy;
