//! What the targets run. `rust/lab/tests/fuzzed.rs` runs the same functions with proptest, on any toolchain.

pub mod bytes;
pub mod ptdump_text;
pub mod sequential;
pub mod table_image;
