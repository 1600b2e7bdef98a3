//! Schedules kernel code: exhaustive and random search, shortest traces, replay, and stress on real threads.
#![deny(unsafe_op_in_unsafe_fn)]

mod actor;
pub mod bench;
#[allow(unsafe_code)]
mod coroutine;
pub mod document;
pub mod dumped;
pub mod execution;
pub mod foreign;
pub mod history;
pub mod live;
pub mod model;
pub mod programs;
mod proof;
pub mod question;
pub mod random;
mod rehearsal;
pub mod replay;
pub mod retold;
pub mod runner;
pub mod scenario;
pub mod search;
mod sharing;
mod shorten;
pub mod stage;
pub mod stress;
pub mod trace;
pub mod verdict;
mod waiting;
pub mod world;
