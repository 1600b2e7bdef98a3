//! What an arm64 CPU offers to kernel mm code, and the vocabulary that everything else shares:
//! addresses, table geometry, descriptors, the VA layout, the break-before-make rule, the `Cpu` trait,
//! the invariants' names. Knows nothing else of the project.
#![no_std]
#![forbid(unsafe_code)]

pub mod access;
pub mod address;
pub mod bbm;
pub mod contents;
pub mod cpu;
pub mod descriptor;
pub mod frame;
pub mod geometry;
pub mod invariant;
pub mod layout;
mod lock;
mod outcome;
pub mod rules;
pub mod section;
pub mod tables;
mod violation;

pub use access::*;
pub use address::{Pa, Pfn, PfnRange, Va, VaRange};
pub use contents::Template;
pub use cpu::Cpu;
pub use descriptor::{Attr, Desc, Kind, OutputBits};
pub use frame::*;
pub use geometry::{Geometry, Granule, Level, OutputFormat, STRUCT_PAGE_SIZE};
pub use invariant::{ByInvariant, Invariant, InvariantSet};
pub use layout::{Layout, RegionOrder, Version};
pub use lock::LockId;
pub use outcome::{Observed, Outcome};
pub use tables::TableView;
pub use violation::Violation;
