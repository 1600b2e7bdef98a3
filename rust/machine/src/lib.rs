//! Machines that run kernel code.
//!
//! | module | what |
//! |---|---|
//! | `native` | real threads on one arena of atomic words, without checks |
//! | `checked` | the same machine, each access judged as it is made |
//! | `explored` | an interpreter of operations, with an MMU, locks and oracles |
//! | `costed` | the native machine's memory, clocks and latencies: what it would take on a machine of so many CPUs |
//! | `views` | weak memory: a list of events, and each CPU's views into it |
//! | `op` | every `Cpu` method as an operation that an interpreter executes |
//! | `config`, `violation` | what a machine is built from, what it reports |
#![deny(unsafe_code)]

#[cfg(not(loom))]
pub mod checked;
#[cfg(not(loom))]
pub mod config;
#[cfg(not(loom))]
pub mod costed;
#[cfg(not(loom))]
pub mod explored;
pub mod native;
#[cfg(not(loom))]
pub mod op;
#[cfg(not(loom))]
pub mod op_cpu;
#[cfg(not(loom))]
pub mod views;
#[cfg(not(loom))]
pub mod violation;

#[cfg(not(loom))]
pub use checked::Checked;
#[cfg(not(loom))]
pub use config::{ConfigError, Ets, MAX_CPUS, MachineConfig, RamRange, first_frame_alignment};
#[cfg(not(loom))]
pub use native::counters::Counters;
#[cfg(not(loom))]
pub use native::cpu::Native;
#[cfg(not(loom))]
pub use native::machine::{FrameCounts, Machine};
#[cfg(not(loom))]
pub use violation::{Actor, Event, History, Violation};
