//! The explored machine: an interpreter of operations with an MMU, locks and oracles (docs/search.md, docs/adr).
//!
//! Kernel code runs against it on the real granule, with full-size tables. All its state is numbered cells, so that it
//! can be undone, hashed and compared cheaply; nothing here panics or unwinds for anything that kernel code does.
//!
//! Memory is sequentially consistent, or has store buffers (`buffer`).

mod accesses;
mod allocator;
mod attempt;
mod buffer;
mod buffer_accesses;
mod candidates;
mod cells;
mod conflict;
mod context;
mod contiguous;
mod describe;
mod direct;
mod drains;
mod early;
mod execute;
mod fixed;
mod held;
mod late;
mod location;
mod lock_order;
mod locks;
mod memory;
mod options;
mod place;
mod pools;
mod stale;
mod tables;
mod tlb;
mod translation;
mod violations;
mod waiting;
mod world;

pub use accesses::Touch;
pub use describe::Described;
pub use direct::Direct;
pub use held::{Early, EarlyLoad};
pub use location::LocationKind;
pub use lock_order::NewOrder;
pub use options::{Conflict, Ordering, WorldOptions};
pub use place::{Context, MAX_ACTORS, Place};
pub use violations::Violation;
pub use waiting::STORE_BUFFER;
pub use world::{Mark, World};
