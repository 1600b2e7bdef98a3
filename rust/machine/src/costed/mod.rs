//! A machine that charges for what kernel code does: the native machine's memory, a clock for each CPU, and a latency
//! for each operation.
//!
//! Every operation happens at a time of its CPU, and no CPU runs ahead of one that could still act earlier: what one
//! sees of another, it sees in the order of modelled time. Contention is where hardware has it: cache lines of kernel
//! variables and locks, the interconnect's queue of invalidates, interrupts that wait for masked CPUs, lock queues,
//! grace periods, the rendezvous of `stop_machine`. No latency is measured here; they come from a machine file.
//!
//! | module | what |
//! |---|---|
//! | `costs` | the latencies, by name |
//! | `clock` | the CPUs' clocks, and whose turn it is |
//! | `hub` | what all CPUs share: locks, lines, interconnect, counters |
//! | `cpu` | a `Cpu` that charges |
//!
//! Bounds: descriptors, data and frames have no cache lines of their own; a TLB miss costs nothing; CPUs that run no
//! actor do nothing but take interrupts, mask them for a while and answer invalidates.

mod clock;
pub mod costs;
mod cpu;
mod hub;

pub use costs::{Costs, NANOSECOND, Time};
pub use cpu::Costed;
pub use hub::{Broadcast, Counted, Hub, Options};
