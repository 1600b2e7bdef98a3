//! What the targets run. `rust/explore/tests/fuzzed.rs` runs the same functions with proptest, on any toolchain.

pub mod ptdump_text;
pub mod table_image;
