//! Rust errors as the exceptions of `vmemmap.errors`, and the guard of every entry.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use vmemmap_kernel::Errno;
use vmemmap_lab::document::DocumentError;
use vmemmap_lab::live::LiveError;

/// What goes wrong behind a binding.
pub enum Error {
    /// The call or its input is wrong: `SpecError`.
    Spec(String),
    /// Tables or their metadata cannot be used: `ImageError`.
    Image(String),
    /// The kernel returned an errno: `KernelError`, an `OSError`.
    Kernel(Errno, String),
    /// A Python exception on its way out (`KeyboardInterrupt` from a signal check).
    Python(PyErr),
}

impl From<PyErr> for Error {
    fn from(error: PyErr) -> Self {
        Error::Python(error)
    }
}

impl From<DocumentError> for Error {
    fn from(error: DocumentError) -> Self {
        Error::Spec(error.to_string())
    }
}

impl From<LiveError> for Error {
    fn from(error: LiveError) -> Self {
        match error {
            LiveError::Boot(errno) => Error::Kernel(errno, "boot".into()),
            error => Error::Spec(error.to_string()),
        }
    }
}

fn exception<'py>(py: Python<'py>, cell: &'static PyOnceLock<Py<PyType>>, name: &str) -> PyResult<Bound<'py, PyType>> {
    Ok(cell.import(py, "vmemmap.errors", name)?.clone())
}

fn raise(py: Python<'_>, error: Error) -> PyErr {
    static SPEC: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static IMAGE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static KERNEL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let (class, arguments) = match error {
        Error::Python(error) => return error,
        Error::Spec(text) => (exception(py, &SPEC, "SpecError"), (text,).into_pyobject(py)),
        Error::Image(text) => (exception(py, &IMAGE, "ImageError"), (text,).into_pyobject(py)),
        Error::Kernel(errno, text) => {
            let class = exception(py, &KERNEL, "KernelError");
            return class.map_or_else(|error| error, |class| PyErr::from_type(class, (errno.number(), text)));
        }
    };
    match (class, arguments) {
        (Ok(class), Ok(arguments)) => PyErr::from_type(class, arguments.unbind()),
        (Err(error), _) | (_, Err(error)) => error,
    }
}

/// What the last panic said, and where.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Keep panics off standard error (unless `VMEMMAP_TRACEBACK` is set): each becomes an `InternalError` that says the
/// same.
pub fn quiet_panics() {
    let loud = std::env::var_os("VMEMMAP_TRACEBACK").is_some();
    let before = take_hook();
    set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        if loud {
            before(info);
        }
        let said = (info.payload().downcast_ref::<&str>().copied())
            .or_else(|| info.payload().downcast_ref::<String>().map(String::as_str))
            .unwrap_or("panic without a message");
        let place = info.location().map(|l| format!(" ({}:{})", l.file(), l.line())).unwrap_or_default();
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = format!("{said}{place}");
    }));
}

/// Run an entry: its errors become exceptions, and so does a panic (`InternalError`), which PyO3 would otherwise let
/// past `except Exception`.
pub fn guarded<T>(py: Python<'_>, entry: impl FnOnce() -> Result<T, Error>) -> PyResult<T> {
    static INTERNAL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    match catch_unwind(AssertUnwindSafe(entry)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(raise(py, error)),
        Err(_) => {
            let said = PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let text = format!("internal error, please report: {said}");
            Err(exception(py, &INTERNAL, "InternalError")
                .map_or_else(|error| error, |class| PyErr::from_type(class, (text,))))
        }
    }
}
