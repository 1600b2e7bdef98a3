//! Work on another thread, while this one looks for Ctrl-C.

use std::convert::Infallible;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::at_hand::{Begun, STACK_BYTES};
use crate::errors::Error;

/// How often signals are looked for, hence how long Ctrl-C can go unnoticed.
const EVERY: Duration = Duration::from_millis(50);

/// Run `work` detached from the interpreter. On Ctrl-C `on_interrupt` is called once, to make the work end soon; its
/// result is returned all the same, with the exception that was pending.
pub fn interruptible<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send,
    on_interrupt: impl Fn() + Sync,
    progress: impl FnMut(Python<'_>) -> PyResult<()> + Send,
) -> Result<(T, Option<PyErr>), Error> {
    interviewed(py, |_: &SyncSender<Asked<Infallible>>| work(), on_interrupt, progress, |_, never| match never {})
}

/// The same for short work that owns what it needs: the thread at hand does it.
pub fn interruptible_at_hand<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
    on_interrupt: impl Fn() + Sync,
) -> Result<(T, Option<PyErr>), Error> {
    py.detach(|| {
        let mut pending = None;
        let result = at_hand(work, || {
            if pending.is_none()
                && let Err(error) = Python::attach(|py| py.check_signals())
            {
                pending = Some(error);
                on_interrupt();
            }
            Ok(())
        })?;
        Ok((result, pending))
    })
}

/// What arrives at the thread that waits.
pub enum Asked<Q> {
    Done,
    Query(Q),
}

/// The same for work that has queries to Python on its way. They are answered on the thread that called, where Ctrl-C
/// arrives as an exception in whatever runs; after that one, and one that `answer` returns, queries are dropped.
pub fn interviewed<T: Send, Q: Send>(
    py: Python<'_>,
    work: impl FnOnce(&SyncSender<Asked<Q>>) -> T + Send,
    on_interrupt: impl Fn() + Sync,
    mut progress: impl FnMut(Python<'_>) -> PyResult<()> + Send,
    mut answer: impl FnMut(Python<'_>, Q) -> PyResult<()> + Send,
) -> Result<(T, Option<PyErr>), Error> {
    let mut pending = None;
    let result = py.detach(|| {
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel::<Asked<Q>>(1);
            let worker = Builder::new().name("vmemmap".into()).stack_size(STACK_BYTES).spawn_scoped(scope, move || {
                let result = work(&sender);
                // Nobody listens any more only if this thread is being joined already.
                let _ = sender.send(Asked::Done);
                result
            });
            let worker = worker.map_err(no_thread)?;
            let mut looked = Instant::now();
            loop {
                let query = match receiver.recv_timeout(EVERY) {
                    Ok(Asked::Query(query)) => Some(query),
                    Err(RecvTimeoutError::Timeout) => None,
                    Ok(Asked::Done) | Err(RecvTimeoutError::Disconnected) => break,
                };
                if pending.is_some() {
                    continue;
                }
                let attached = |py: Python<'_>| {
                    query.map_or(Ok(()), |query| answer(py, query))?;
                    if looked.elapsed() >= EVERY {
                        looked = Instant::now();
                        py.check_signals()?;
                        progress(py)?;
                    }
                    Ok(())
                };
                if let Err(error) = Python::attach(attached) {
                    pending = Some(error);
                    on_interrupt();
                }
            }
            Ok::<_, Error>(worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    })?;
    Ok((result, pending))
}

/// Run `work` detached from the interpreter. It cannot be ended early: on Ctrl-C it is left to itself, and what it
/// makes is dropped when it is done.
pub fn abandonable<T: Send + 'static>(py: Python<'_>, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    py.detach(|| at_hand(work, || Python::attach(|py| py.check_signals()).map_err(Error::from)))
}

/// Have the thread at hand do `work`, and look now and then meanwhile. An error of that leaves the work to itself.
fn at_hand<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    mut look: impl FnMut() -> Result<(), Error>,
) -> Result<T, Error> {
    let mut begun = Begun::new(work).map_err(no_thread)?;
    loop {
        begun = match begun.end_within(EVERY) {
            Ok(result) => return Ok(result),
            Err(begun) => begun,
        };
        look()?;
    }
}

fn no_thread(error: std::io::Error) -> Error {
    Error::Spec(format!("the host refuses another thread: {error}"))
}

/// A flag that work looks at, for `interruptible`.
#[derive(Default)]
pub struct Stop(AtomicBool);

impl Stop {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
