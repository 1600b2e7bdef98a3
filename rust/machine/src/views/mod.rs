//! Weak memory: one list of events, and for each CPU views into it (docs/memory-model.md).
//!
//! Time is a position in the list. A store or an invalidate has the position at which all may see it; what a CPU may
//! still see of the past is bounded by its views. The shape is Promising-ARM's (Pulte et al., PLDI 2019), the rules for
//! translations follow "Relaxed virtual memory in Armv8-A" (Simner et al., ESOP 2022) and ArchSem's VMPromising.

mod cpu;
mod events;
mod fault;

pub use cpu::{Access, Acquire, Barriers, Forward, Orders, Read, Translation, Views};
pub use events::{Event, Events, NEVER, Time, Word};
pub use fault::{FaultKind, Kind, is_cacheable};
