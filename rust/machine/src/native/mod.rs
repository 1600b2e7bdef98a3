//! Real threads on one arena of atomic words: the state that they share, and a CPU that checks nothing.
//!
//! | module | what |
//! |---|---|
//! | `machine` | what all CPUs share; it knows no CPU, `cpu` and `checked` make theirs from it |
//! | `cpu` | a CPU without checks |
//! | `arena` | the words (the only `unsafe`) |
//! | `frames`, `frame_state`, `ranges`, `contents` | the page frame allocator, a frame, hotplug's part, what it holds |
//! | `locks`, `promises`, `injection`, `counters` | what CPUs share besides memory |
//! | `sync` | the atomics, of the standard library or of loom |

#[allow(unsafe_code)]
pub mod arena;
#[cfg(not(loom))]
pub(crate) mod contents;
#[cfg(not(loom))]
pub mod counters;
#[cfg(not(loom))]
pub mod cpu;
#[cfg(not(loom))]
pub(crate) mod frame_state;
pub mod frames;
#[cfg(not(loom))]
mod injection;
#[cfg(not(loom))]
pub(crate) mod locks;
#[cfg(not(loom))]
pub mod machine;
#[cfg(not(loom))]
pub(crate) mod promises;
#[cfg(not(loom))]
pub(crate) mod ranges;
mod sync;
