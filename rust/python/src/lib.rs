//! `vmemmap._core`: converts, detaches from the interpreter, maps errors. Holds no logic.
//!
//! Every entry goes through `errors::guarded`, so that a panic becomes `vmemmap.InternalError`, and whatever may take
//! longer than a microsecond runs detached.
#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]

#[allow(unsafe_code)]
mod arrays;
mod at_hand;
mod bench;
mod collect;
mod costing;
mod dumps;
mod errors;
mod exploring;
mod image;
mod interrupt;
mod layout;
mod litmus;
mod machine;
mod ptdump;
mod survey;
mod walking;

use pyo3::pymodule;

/// The Rust core of `vmemmap`.
#[pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::bench::{bare_exchanges, bench, bench_rows};
    #[pymodule_export]
    use crate::collect::{collect, leaves, mapped};
    #[pymodule_export]
    use crate::costing::{cost, latencies};
    #[pymodule_export]
    use crate::dumps::{
        Shape, check_dump_text, check_image, check_text_alone, diff_elsewhere, diff_shapes, invariants,
    };
    #[pymodule_export]
    use crate::exploring::{explore, replay, stress};
    #[pymodule_export]
    use crate::image::{TableImage, ptdump_region};
    #[pymodule_export]
    use crate::layout::{layout, policies};
    #[pymodule_export]
    use crate::litmus::litmus;
    #[pymodule_export]
    use crate::machine::{Machine, operations};
    #[pymodule_export]
    use crate::ptdump::{has_dump_line, parse_ptdump, print_ptdump, tidy_ptdump};
    #[pymodule_export]
    use crate::survey::survey;
    #[pymodule_export]
    use crate::walking::{descriptor, mapping, walk};

    /// Version of the package.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// Digest of the Rust sources that this was built from: the same on each machine that builds the same sources.
    #[pymodule_export]
    const SOURCES: &str = env!("VMEMMAP_SOURCES");

    /// `release` or `debug`: a benchmark can refuse a debug build.
    #[pymodule_export]
    const BUILD_PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::errors::quiet_panics();
        Ok(())
    }
}
