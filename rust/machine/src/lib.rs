//! Machines that run kernel code.
//!
//! | module | what |
//! |---|---|
//! | `machine`, `native`, `checked` | real threads on one arena of atomic words (`arena`: the only `unsafe`), without and with checks |
//! | `frames`, `frame_state`, `ranges`, `contents` | the page frame allocator, what a frame is, hotplug's part, what it holds |
//! | `locks`, `watch`, `injection`, `counters`, `violation` | what CPUs share besides memory |
//! | `frame_lock` | how check and access become one step |
//! | `op` | every `Cpu` method as an operation that an interpreter executes |
#![deny(unsafe_code)]

#[allow(unsafe_code)]
pub mod arena;
#[cfg(not(loom))]
pub mod checked;
#[cfg(not(loom))]
pub mod config;
#[cfg(not(loom))]
mod contents;
#[cfg(not(loom))]
pub mod counters;
#[cfg(not(loom))]
mod frame_lock;
#[cfg(not(loom))]
mod frame_state;
pub mod frames;
#[cfg(not(loom))]
mod injection;
#[cfg(not(loom))]
mod locks;
#[cfg(not(loom))]
mod machine;
#[cfg(not(loom))]
pub mod native;
#[cfg(not(loom))]
mod ranges;
mod sync;
#[cfg(not(loom))]
pub mod violation;
#[cfg(not(loom))]
mod watch;

#[cfg(not(loom))]
pub mod model;
#[cfg(not(loom))]
pub mod op;

#[cfg(not(loom))]
pub use checked::Checked;
#[cfg(not(loom))]
pub use config::{ConfigError, MAX_CPUS, MachineConfig, RamRange};
#[cfg(not(loom))]
pub use counters::Counters;
#[cfg(not(loom))]
pub use machine::Machine;
#[cfg(not(loom))]
pub use native::Native;
#[cfg(not(loom))]
pub use violation::{Event, Violation};
