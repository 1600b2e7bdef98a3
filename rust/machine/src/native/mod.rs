//! Real threads on one arena of atomic words: the state that they share, and a CPU that checks nothing.
//!
//! | module | what |
//! |---|---|
//! | `machine` | what all CPUs share; it knows no CPU, `cpu` and `checked` make theirs from it |
//! | `cpu`, `barriers`, `lists`, `given` | a CPU without checks, its barriers, lists, frames that come and go |
//! | `walk`, `scan` | what such a CPU translates, many entries of a table looked at |
//! | `arena`, `ahead` | the words (the only `unsafe`), which of them are made before they are touched |
//! | `frames`, `chunk`, `bitmap` | the page frame allocator, the word of a chunk, a bit for each frame |
//! | `records` | what descriptors named when they were written |
//! | `rooms`, `magazines` | where the allocator looks, the frames that CPUs keep at hand |
//! | `frame_state`, `ranges` | what a frame is, hotplug's part |
//! | `contents`, `symbol` | what a frame holds: words, or all of them as one |
//! | `running` | which CPUs there are, changes of shared words by the only one of them |
//! | `locks`, `pins`, `promises`, `injection`, `counters` | what CPUs share besides memory |
//! | `sync` | the atomics, of the standard library or of loom |

#[cfg(not(loom))]
mod ahead;
#[allow(unsafe_code)]
pub mod arena;
#[cfg(not(loom))]
mod barriers;
mod bitmap;
mod chunk;
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
mod given;
#[cfg(not(loom))]
mod injection;
#[cfg(not(loom))]
mod lists;
#[cfg(not(loom))]
pub(crate) mod locks;
#[cfg(not(loom))]
pub mod machine;
mod magazines;
pub mod pins;
#[cfg(not(loom))]
pub(crate) mod promises;
#[cfg(not(loom))]
pub(crate) mod ranges;
#[cfg(not(loom))]
mod records;
mod rooms;
pub mod running;
#[cfg(not(loom))]
mod scan;
#[cfg(not(loom))]
mod symbol;
mod sync;
#[cfg(not(loom))]
mod walk;
