//! A walk of tables, step by step, and what a descriptor is.

use pyo3::prelude::*;
use vmemmap_arch::tables::walk_noting;
use vmemmap_arch::{Desc, Geometry, Kind, Level, Va};
use vmemmap_lab::document::geometry;

use crate::errors::{Error, guarded};
use crate::image::TableImage;
use crate::interrupt::abandonable;

/// Level, table, index, descriptor, what it is, its output or next-table address.
type Step = (i8, u64, u16, u64, &'static str, Option<u64>);

fn decode(g: &Geometry, level: Level, word: u64) -> (&'static str, Option<u64>) {
    match g.kind(Desc(word), level) {
        Kind::None => ("none", None),
        Kind::Invalid => ("invalid", None),
        Kind::Block(pa) => ("block", Some(pa.0)),
        Kind::Page(pa) => ("page", Some(pa.0)),
        Kind::Table(pa) => ("table", Some(pa.0)),
        Kind::Reserved => ("reserved", None),
    }
}

/// Every descriptor on the way to `va`, from the root on. The table that the last one names is not in the image if that
/// is a table descriptor.
#[pyfunction]
pub fn walk(py: Python<'_>, image: &TableImage, va: u64) -> PyResult<Vec<Step>> {
    guarded(py, || {
        let image = image.get()?;
        let g = image.meta().geometry;
        let mut steps = Vec::new();
        let _ = walk_noting(&*image, Va(va), |w| {
            let (kind, output) = decode(&g, w.level, w.desc.0);
            steps.push((w.level.0, w.table.0, w.index, w.desc.0, kind, output));
        });
        Ok(steps)
    })
}

/// What a descriptor found at a level is (`none`, `invalid`, `block`, `page`, `table`, `reserved`), and its output or
/// next-table address. Raises `SpecError`.
#[pyfunction]
pub fn descriptor(
    py: Python<'_>,
    granule: u64,
    va_bits: u32,
    level: i8,
    word: u64,
) -> PyResult<(&'static str, Option<u64>)> {
    guarded(py, || {
        let g = geometry(granule, va_bits)?;
        if level < g.top().0 || level > 3 {
            return Err(Error::Spec(format!("level is {level}: expected {} to 3", g.top().0)));
        }
        Ok(decode(&g, Level(level), word))
    })
}

/// (number of the region, level, contiguous, bytes) of the leaves of an image; a region begins at each of `bounds`,
/// number 0 is what lies before the first.
#[pyfunction]
pub fn mapping(py: Python<'_>, image: &TableImage, bounds: Vec<u64>) -> PyResult<Vec<(usize, i8, bool, u64)>> {
    guarded(py, || {
        let image = image.get()?;
        let found = abandonable(py, move || vmemmap_image::mapping::mapping(&image, &bounds))?;
        Ok(found.into_iter().map(|((region, level, contiguous), bytes)| (region, level, contiguous, bytes)).collect())
    })
}
