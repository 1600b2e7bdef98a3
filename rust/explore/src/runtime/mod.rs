//! Actors as coroutines, one execution of them, back and forth along it.

pub(crate) mod actor;
#[allow(unsafe_code)]
pub mod coroutine;
pub(crate) mod deadlock;
pub mod execution;
pub(crate) mod follow;
pub mod prefix;
pub mod runner;
pub mod schedule;
pub mod scripted;
