//! Explorations, stresses and replays: a document and options in, an answer out, all JSON; Ctrl-C ends the first two
//! with what was found.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use vmemmap_explore::runtime::scripted::Unanswered;
use vmemmap_explore::search::report::Progress;
use vmemmap_lab::document::OperationDocument;
use vmemmap_lab::script::Source;
use vmemmap_lab::session::{self, SessionError};
use vmemmap_lab::stress::{StressError, StressProgress};

use crate::errors::{Error, guarded};
use crate::image::{TableImage, real_tables};
use crate::interrupt::{Asked, Stop, interviewed};

impl From<SessionError> for Error {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Live(error) => error.into(),
            error => Error::Spec(error.to_string()),
        }
    }
}

/// Steps of an actor in Python: a callable of the results so far, for each actor that has no program.
type Steps = Vec<Option<Py<PyAny>>>;

/// What a search wants to know of them.
struct Query {
    actor: usize,
    results: Vec<i64>,
    reply: SyncSender<Result<String, Unanswered>>,
}

/// Asks the thread that waits for the work, and waits for it.
fn ask_python(
    asked: &SyncSender<Asked<Query>>,
    actor: usize,
    results: &[i64],
) -> Result<Vec<Option<OperationDocument>>, Unanswered> {
    let (reply, answer) = sync_channel(1);
    let query = Query { actor, results: results.to_vec(), reply };
    // Dropped queries are the answer to Ctrl-C.
    asked.send(Asked::Query(query)).map_err(|_| Unanswered::Interrupted)?;
    let text = answer.recv().map_err(|_| Unanswered::Interrupted)??;
    serde_json::from_str(&text).map_err(|e| Unanswered::Failed(format!("it yielded no operation: {e}")))
}

/// Run a check; `tell` calls back what its progress is, at most every 50 ms.
fn ask<P: Send>(
    py: Python<'_>,
    steps: &Steps,
    work: impl FnOnce(&dyn Fn() -> bool, &mut dyn FnMut(P), &Source<'_>) -> Result<String, SessionError> + Send,
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
    let raised: Mutex<Option<PyErr>> = Mutex::new(None);
    let reply = |py: Python<'_>, query: Query| {
        let Some(Some(steps)) = steps.get(query.actor) else { return Ok(()) };
        let said = match steps.call1(py, (query.results,)).and_then(|text| text.extract::<String>(py)) {
            Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => return Err(error),
            Err(error) => {
                if let Ok(mut raised) = raised.lock() {
                    *raised = Some(error);
                }
                Err(Unanswered::Failed("an exception".into()))
            }
            Ok(text) => Ok(text),
        };
        // Whoever asked may be gone.
        let _ = query.reply.send(said);
        Ok(())
    };
    let work = |asked: &SyncSender<Asked<Query>>| {
        work(&|| stop.is_set(), &mut { note }, &|actor, results| ask_python(asked, actor, results))
    };
    let (answer, pending) = interviewed(py, work, || stop.set(), report, reply)?;
    if let (Err(SessionError::Scripted(_) | SessionError::Stress(StressError::Scripted(_))), Some(error)) =
        (&answer, raised.lock().ok().and_then(|mut raised| raised.take()))
    {
        return Err(error.into());
    }
    match pending {
        Some(error) if !error.is_instance_of::<PyKeyboardInterrupt>(py) => Err(error.into()),
        // What was found until Ctrl-C is an answer; it says that it was interrupted.
        _ => Ok(answer?),
    }
}

/// Explore a scenario document. `progress(executions, steps, states)` is called now and then. An image is refused: only
/// a stress starts from one. `steps` has a callable for each actor without a program: of the results so far it makes
/// the JSON of a list, the operations that were yielded up to there and the next one, `null` at the end.
#[pyfunction]
#[pyo3(signature = (document, options, image = None, progress = None, steps = Vec::new()))]
pub fn explore(
    py: Python<'_>,
    document: &str,
    options: &str,
    image: Option<&TableImage>,
    progress: Option<Py<PyAny>>,
    steps: Steps,
) -> PyResult<String> {
    guarded(py, || {
        if image.is_some() {
            return Err(SessionError::Image.into());
        }
        let tell = |py: Python<'_>, p: Progress| {
            progress.as_ref().map_or(Ok(()), |call| call.call1(py, (p.executions, p.steps, p.states)).map(drop))
        };
        let any = steps.iter().any(Option::is_some);
        let work = |stop: &dyn Fn() -> bool, note: &mut dyn FnMut(Progress), source: &Source<'_>| {
            session::explore_with(document, options, any.then_some(source), stop, note)
        };
        ask(py, &steps, work, tell)
    })
}

/// Stress a scenario document on real threads, on `image` if the document starts from one.
/// `progress(operations, violations, seconds, counters)` is called now and then; `steps` as in `explore`.
#[pyfunction]
#[pyo3(signature = (document, options, image = None, progress = None, steps = Vec::new()))]
pub fn stress(
    py: Python<'_>,
    document: &str,
    options: &str,
    image: Option<&TableImage>,
    progress: Option<Py<PyAny>>,
    steps: Steps,
) -> PyResult<String> {
    guarded(py, || {
        let tell = |py: Python<'_>, p: StressProgress| {
            let seconds = Duration::as_secs_f64(&p.elapsed);
            let Some(call) = &progress else { return Ok(()) };
            let counters: BTreeMap<_, _> = p.counters.into_iter().collect();
            call.call1(py, (p.operations, p.violations, seconds, counters)).map(drop)
        };
        let any = steps.iter().any(Option::is_some);
        let image = image.map(TableImage::get).transpose()?;
        let work = |stop: &dyn Fn() -> bool, note: &mut dyn FnMut(StressProgress), source: &Source<'_>| {
            let tables = image.as_deref().map(real_tables);
            session::stress(document, options, tables.as_ref(), any.then_some(source), stop, note)
                .map(|answer| answer.to_string())
        };
        ask(py, &steps, work, tell)
    })
}

/// Run a trace again on the machine of its own document.
#[pyfunction]
pub fn replay(py: Python<'_>, trace: &str, options: &str) -> PyResult<String> {
    guarded(py, || Ok(py.detach(|| session::replay(trace, options))?.to_string()))
}
