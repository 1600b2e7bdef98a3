//! `kernel_page_tables` text taken apart into arrays, and put together again.

use std::borrow::Cow;

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use vmemmap_image::{Ptdump, Tidied, tidy};

use crate::errors::{Error, guarded};

/// Text, prot, known.
type Text = (String, u64, bool);
type Arrays<'py> =
    (Bound<'py, PyArray1<u64>>, Bound<'py, PyArray1<u8>>, Bound<'py, PyArray1<u32>>, Vec<Text>, Vec<(u64, String)>);

/// Bounds, levels, columns, the texts of columns (text, prot, known) and markers (range, name) of a dump. Raises
/// `ImageError` that names the first line that is none of a dump's.
#[pyfunction]
pub fn parse_ptdump<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Arrays<'py>> {
    guarded(py, || {
        let dump = py.detach(|| Ptdump::parse(data)).map_err(|error| Error::Image(error.to_string()))?;
        let (bounds, level, columns, texts, markers) = dump.into_parts();
        let texts = texts.into_iter().map(|c| (c.text, c.prot, c.known)).collect();
        Ok((bounds.into_pyarray(py), level.into_pyarray(py), columns.into_pyarray(py), texts, markers))
    })
}

/// The text of such arrays. Raises `ImageError` if they are no dump's.
#[pyfunction]
pub fn print_ptdump<'py>(
    py: Python<'py>,
    bounds: PyReadonlyArray1<'py, u64>,
    level: PyReadonlyArray1<'py, u8>,
    columns: PyReadonlyArray1<'py, u32>,
    texts: Vec<String>,
    markers: Vec<(u64, String)>,
) -> PyResult<Bound<'py, PyBytes>> {
    guarded(py, || {
        let contiguous = |_| Error::Image("arrays of a dump must be contiguous".into());
        let bounds = bounds.as_slice().map_err(contiguous)?.to_vec();
        let level = level.as_slice().map_err(contiguous)?.to_vec();
        let columns = columns.as_slice().map_err(contiguous)?.to_vec();
        let dump = py
            .detach(|| Ptdump::from_parts(bounds, level, columns, texts, markers))
            .map_err(|error| Error::Image(error.to_string()))?;
        Ok(PyBytes::new_with(py, dump.printed_size(), |text| Ok(py.detach(|| dump.print_to(text))?))?)
    })
}

/// The text as the kernel printed it, without what others put around it, and what was left out, in words. Raises
/// `ImageError` for the first line that is none of a dump's.
#[pyfunction]
pub fn tidy_ptdump<'py>(py: Python<'py>, data: &Bound<'py, PyBytes>) -> PyResult<(Bound<'py, PyBytes>, Vec<String>)> {
    guarded(py, || {
        let raw = data.as_bytes();
        let Tidied { text, notes } = py.detach(|| tidy(raw)).map_err(|error| Error::Image(error.to_string()))?;
        let text = match text {
            Cow::Borrowed(_) => data.clone(),
            Cow::Owned(text) => PyBytes::new(py, &text),
        };
        Ok((text, notes))
    })
}

/// Whether any line of `head` is one of a dump's, whatever stands before it.
#[pyfunction]
pub fn has_dump_line(py: Python<'_>, head: &[u8]) -> PyResult<bool> {
    guarded(py, || Ok(vmemmap_image::pasted::has_dump_line(head)))
}
