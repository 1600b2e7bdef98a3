//! `vmemmap._core`: converts, detaches from the interpreter, maps errors. Holds no logic.
//!
//! Every entry goes through `errors::guarded`, so that a panic becomes `vmemmap.InternalError`, and whatever may take
//! longer than a microsecond runs detached.

mod errors;
mod image;
mod layout;

use pyo3::prelude::*;

/// The Rust core of `vmemmap`.
#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::image::{TableImage, check_ptdump, ptdump_region};
    #[pymodule_export]
    use crate::layout::{layout, policies};

    /// Version of the package.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// `release` or `debug`: a benchmark can refuse a debug build.
    #[pymodule_export]
    const BUILD_PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };
}
