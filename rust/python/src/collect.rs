//! Tables found in the physical memory of a dump, which Python reads.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use vmemmap_arch::{Pa, Va};
use vmemmap_image::Collector;
use vmemmap_lab::document::geometry;

use crate::errors::{Error, guarded};

type Arrays<'py> = (Bound<'py, PyArray1<u64>>, Bound<'py, PyArray1<u8>>, Bound<'py, PyArray2<u64>>);

/// Every table page that is reachable from `root`, each once, as the arrays of a capture: `pa` ascending, `level`,
/// `words`.
///
/// `read(pa)` gives the bytes of the page at a physical address, or `None`: then it is left out, the root included.
/// Raises `ImageError` beyond `most` tables, and whatever `read` raises.
#[pyfunction]
pub fn collect<'py>(
    py: Python<'py>,
    root: u64,
    granule: u64,
    va_bits: u32,
    most: usize,
    read: &Bound<'py, PyAny>,
) -> PyResult<Arrays<'py>> {
    guarded(py, || {
        let geometry = geometry(granule, va_bits)?;
        let mut walk = Collector::new(geometry, Pa(root), most);
        while !walk.wanted().is_empty() {
            for pa in walk.wanted().to_vec() {
                let page = read.call1((pa.0,))?;
                if page.is_none() {
                    continue;
                }
                let page = page.cast::<PyBytes>().map_err(|error| Error::Python(error.into()))?;
                walk.store(pa, page.as_bytes()).map_err(|error| Error::Image(error.to_string()))?;
            }
            py.detach(|| walk.advance());
        }
        let found = py.detach(|| walk.finish());
        let shape = [found.pa.len(), geometry.entries()];
        Ok((found.pa.into_pyarray(py), found.level.into_pyarray(py), found.words.into_pyarray(py).reshape(shape)?))
    })
}

/// The physical memory that `va` (first address, one past the last) of the kernel's addresses is mapped to, as
/// ascending ranges that do not touch; pages that only lack their valid bit count.
#[pyfunction]
pub fn mapped<'py>(
    py: Python<'py>,
    root: u64,
    granule: u64,
    va_bits: u32,
    pa: PyReadonlyArray1<'py, u64>,
    words: PyReadonlyArray2<'py, u64>,
    va: (u64, u64),
) -> PyResult<Vec<(u64, u64)>> {
    guarded(py, || {
        let geometry = geometry(granule, va_bits)?;
        let contiguous = |_| Error::Image("arrays of an image must be contiguous".into());
        let pa = pa.as_slice().map_err(contiguous)?;
        let words = words.as_slice().map_err(contiguous)?;
        let found = py.detach(|| vmemmap_image::mapped(geometry, Pa(root), pa, words, Va(va.0)..Va(va.1)));
        Ok(found.into_iter().map(|range| (range.start.0, range.end.0)).collect())
    })
}

/// What `va` (first address, one past the last) of the kernel's addresses translates to under a root that may be none:
/// (virtual, physical, bytes, valid) of each run of leaves, from at most `most` tables. `read` is that of `collect`.
#[pyfunction]
pub fn leaves(
    py: Python<'_>,
    root: u64,
    granule: u64,
    va_bits: u32,
    va: (u64, u64),
    most: usize,
    read: &Bound<'_, PyAny>,
) -> PyResult<Vec<(u64, u64, u64, bool)>> {
    guarded(py, || {
        let geometry = geometry(granule, va_bits)?;
        let mut failed = None;
        let table = |pa: Pa| {
            if failed.is_some() {
                return None;
            }
            match read
                .call1((pa.0,))
                .and_then(|page| if page.is_none() { Ok(None) } else { Ok(Some(page.extract::<PyBackedBytes>()?)) })
            {
                Ok(page) => {
                    page.map(|page| page.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect())
                }
                Err(error) => {
                    failed = Some(error);
                    None
                }
            }
        };
        let found = vmemmap_image::leaves(geometry, Pa(root), Va(va.0)..Va(va.1), most, table);
        match failed {
            Some(error) => Err(Error::Python(error)),
            None => Ok(found.into_iter().map(|run| (run.va.0, run.pa.0, run.bytes, run.valid)).collect()),
        }
    })
}
