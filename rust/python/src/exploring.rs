//! Explorations, stresses and replays: a document and options in, an answer out, all JSON; Ctrl-C ends the first two with
//! what was found.

use std::sync::Mutex;
use std::time::Duration;

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use vmemmap_explore::question::{self, QuestionError};
use vmemmap_explore::search;
use vmemmap_explore::stress::StressProgress;

use crate::errors::{Error, guarded};
use crate::image::{TableImage, real_tables};
use crate::interrupt::{Stop, interruptible};

impl From<QuestionError> for Error {
    fn from(error: QuestionError) -> Self {
        match error {
            QuestionError::Live(error) => error.into(),
            error => Error::Spec(error.to_string()),
        }
    }
}

/// Run a question; `tell` calls back what its progress is, at most every 50 ms.
fn ask<P: Copy + Send>(
    py: Python<'_>,
    work: impl FnOnce(&dyn Fn() -> bool, &mut dyn FnMut(P)) -> Result<serde_json::Value, QuestionError> + Send,
    tell: impl Fn(Python<'_>, P) -> PyResult<()> + Sync,
) -> Result<String, Error> {
    let stop = Stop::default();
    let latest: Mutex<Option<P>> = Mutex::new(None);
    let note = |progress| {
        if let Ok(mut latest) = latest.lock() {
            *latest = Some(progress);
        }
    };
    let report = |py: Python<'_>| match latest.lock().ok().and_then(|mut latest| latest.take()) {
        Some(progress) => tell(py, progress),
        None => Ok(()),
    };
    let (answer, pending) = interruptible(py, || work(&|| stop.is_set(), &mut { note }), || stop.set(), report)?;
    match pending {
        Some(error) if !error.is_instance_of::<PyKeyboardInterrupt>(py) => Err(error.into()),
        // What was found until Ctrl-C is an answer; it says that it was interrupted.
        _ => Ok(answer?.to_string()),
    }
}

/// Explore a scenario document. `progress(executions, steps, states)` is called now and then. An image is refused: only a
/// stress starts from one.
#[pyfunction]
#[pyo3(signature = (document, options, image = None, progress = None))]
pub fn explore(py: Python<'_>, document: &str, options: &str, image: Option<&TableImage>, progress: Option<Py<PyAny>>) -> PyResult<String> {
    guarded(py, || {
        if image.is_some() {
            return Err(QuestionError::Image.into());
        }
        let tell = |py: Python<'_>, p: search::Progress| {
            progress.as_ref().map_or(Ok(()), |call| call.call1(py, (p.executions, p.steps, p.states)).map(drop))
        };
        ask(py, |stop, note| question::explore(document, options, stop, note), tell)
    })
}

/// Stress a scenario document on real threads, on `image` if the document starts from one.
/// `progress(operations, violations, seconds)` is called now and then.
#[pyfunction]
#[pyo3(signature = (document, options, image = None, progress = None))]
pub fn stress(py: Python<'_>, document: &str, options: &str, image: Option<&TableImage>, progress: Option<Py<PyAny>>) -> PyResult<String> {
    guarded(py, || {
        let tell = |py: Python<'_>, p: StressProgress| {
            let seconds = Duration::as_secs_f64(&p.elapsed);
            progress.as_ref().map_or(Ok(()), |call| call.call1(py, (p.operations, p.violations, seconds)).map(drop))
        };
        let image = image.map(|image| image.0.clone());
        let work = |stop: &dyn Fn() -> bool, note: &mut dyn FnMut(StressProgress)| {
            let tables = image.as_deref().map(real_tables);
            question::stress(document, options, tables.as_ref(), stop, note)
        };
        ask(py, work, tell)
    })
}

/// Run a trace again on the machine of its own document.
#[pyfunction]
pub fn replay(py: Python<'_>, trace: &str, options: &str) -> PyResult<String> {
    guarded(py, || Ok(py.detach(|| question::replay(trace, options))?.to_string()))
}
