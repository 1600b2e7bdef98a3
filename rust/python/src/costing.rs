//! Operations on a machine that charges for them: a document in, an answer out, both JSON.

use pyo3::prelude::*;
use vmemmap_lab::costed::{self, CostedError};
use vmemmap_machine::costed::Costs;

use crate::errors::{Error, guarded};

impl From<CostedError> for Error {
    fn from(error: CostedError) -> Self {
        match error {
            CostedError::Live(error) => error.into(),
            error => Error::Spec(error.to_string()),
        }
    }
}

/// Run operations on a costed machine. See `vmemmap_lab::costed`.
#[pyfunction]
pub fn cost(py: Python<'_>, document: &str) -> PyResult<String> {
    guarded(py, || Ok(py.detach(|| costed::run(document))?))
}

/// Name and sentence of each latency of a machine file.
#[pyfunction]
pub fn latencies() -> Vec<(&'static str, &'static str)> {
    Costs::NAMES.to_vec()
}
