//! Benchmark rows: a name in, a figure out.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use vmemmap_bench::{self as rows, BenchError, Effort};

use crate::errors::{Error, guarded};
use crate::interrupt::{Stop, interruptible};

impl From<BenchError> for Error {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Live(error) => error.into(),
            error => Error::Spec(error.to_string()),
        }
    }
}

/// Names of the rows that the core measures, in the order of the table.
#[pyfunction]
pub fn bench_rows() -> Vec<&'static str> {
    rows::rows().collect()
}

/// Measure one row: `value`, `unit`, `limit`, `what`, `value_median`, `limit_median`. Ctrl-C ends it within a round.
#[pyfunction]
pub fn bench<'py>(py: Python<'py>, name: &str, quick: bool) -> PyResult<Bound<'py, PyDict>> {
    guarded(py, || {
        let stop = Stop::default();
        let effort = if quick { Effort::Quick } else { Effort::Full };
        let work = || rows::measure(name, effort, &|| stop.is_set());
        let (figure, pending) = interruptible(py, work, || stop.set(), |_| Ok(()))?;
        if let Some(error) = pending {
            return Err(error.into());
        }
        let figure = figure?;
        let d = PyDict::new(py);
        d.set_item("value", figure.value)?;
        d.set_item("unit", figure.unit)?;
        d.set_item("limit", figure.limit)?;
        d.set_item("what", figure.what)?;
        d.set_item("value_median", figure.value_median)?;
        d.set_item("limit_median", figure.limit_median)?;
        Ok(d)
    })
}

/// Seconds of so many bare `AtomicU64::swap`: the limit of rows that Python measures.
#[pyfunction]
pub fn bare_exchanges(py: Python<'_>, count: u64) -> PyResult<f64> {
    guarded(py, || Ok(py.detach(|| rows::bare_exchanges(count))?))
}
