//! Dumps: text checked and cut, arrays turned into a verified `TableImage`.

use std::sync::Arc;

use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use vmemmap_arch::{Pa, Pfn, Va};
use vmemmap_image::{ImageError, ImageMeta, SectionState};
use vmemmap_kernel::Ram;
use vmemmap_lab::document::{geometry, version};
use vmemmap_lab::live::{RealSection, RealTables};

use crate::errors::{Error, guarded};

/// The slice of a dump that belongs to a region (`vmemmap`, `linear`, `vmalloc`, ...), or `None`.
#[pyfunction]
pub fn ptdump_region<'a>(py: Python<'_>, text: &'a str, name: &str) -> PyResult<Option<&'a str>> {
    guarded(py, || Ok(py.detach(|| vmemmap_image::region(text, name))))
}

/// `vmemmap.dumps.image_json.Description`, by its attributes.
#[derive(FromPyObject)]
struct Description {
    granule: u64,
    va_bits: u32,
    kernel: String,
    root_pa: u64,
    memstart: i64,
    vmemmap_start: u64,
    vmemmap_end: u64,
    markers: Vec<(u64, Option<String>)>,
    ram: Vec<(u64, u64, bool)>,
    blocks_online: Option<Vec<u64>>,
    block_size: u64,
    hugepages: Vec<(u64, u64)>,
    hvo: bool,
    notes: Vec<String>,
}

impl Description {
    fn meta(self) -> Result<ImageMeta, Error> {
        Ok(ImageMeta {
            geometry: geometry(self.granule, self.va_bits)?,
            version: version(&self.kernel)?,
            root: Pa(self.root_pa),
            memstart: self.memstart,
            vmemmap: Some(Va(self.vmemmap_start)..Va(self.vmemmap_end)),
            markers: self.markers.into_iter().map(|(start, name)| (Va(start), name)).collect(),
            ram: self.ram.into_iter().map(|(start, end, boot)| (Pa(start)..Pa(end), boot)).collect(),
            blocks_online: self.blocks_online,
            block_size: self.block_size,
            hugepages: self.hugepages,
            hvo: self.hvo,
        })
    }
}

/// What a live machine is made from.
pub fn real_tables(image: &vmemmap_image::TableImage) -> RealTables<'_> {
    let meta = image.meta();
    let section =
        |s: SectionState| RealSection { start: s.start, early: s.early, online: s.online, self_hosted: s.self_hosted };
    RealTables {
        layout: *image.layout(),
        root: meta.root,
        tables: image.tables().collect(),
        ram: meta
            .ram
            .iter()
            .map(|(range, boot)| Ram { start: range.start, bytes: range.end.since(range.start), boot: *boot })
            .collect(),
        sections: image.sections().into_iter().map(section).collect(),
        hugepages: meta.hugepages.iter().map(|&(head, pages)| (Pfn(head), pages)).collect(),
        hvo: meta.hvo,
        extra_prot: image.vmemmap_extra_prot(),
    }
}

/// Verified tables of one kernel.
#[pyclass(frozen, module = "vmemmap._core")]
pub struct TableImage(pub Arc<vmemmap_image::TableImage>);

#[pymethods]
impl TableImage {
    /// From the arrays of a capture and its `Description`. Raises `ImageError` for the first contradiction found.
    #[new]
    fn new<'py>(
        py: Python<'py>,
        pa: PyReadonlyArray1<'py, u64>,
        level: PyReadonlyArray1<'py, u8>,
        words: PyReadonlyArray2<'py, u64>,
        description: &Bound<'py, PyAny>,
    ) -> PyResult<Self> {
        build(py, &pa, &level, &words, description, vmemmap_image::TableImage::new)
    }

    /// The same of tables that may be damaged: a tree that is none is for the checker to find.
    #[staticmethod]
    fn damaged<'py>(
        py: Python<'py>,
        pa: PyReadonlyArray1<'py, u64>,
        level: PyReadonlyArray1<'py, u8>,
        words: PyReadonlyArray2<'py, u64>,
        description: &Bound<'py, PyAny>,
    ) -> PyResult<Self> {
        build(py, &pa, &level, &words, description, vmemmap_image::TableImage::damaged)
    }
}

type Build = fn(ImageMeta, Vec<u64>, &[u8], Vec<u64>, usize) -> Result<vmemmap_image::TableImage, ImageError>;

fn build<'py>(
    py: Python<'py>,
    pa: &PyReadonlyArray1<'py, u64>,
    level: &PyReadonlyArray1<'py, u8>,
    words: &PyReadonlyArray2<'py, u64>,
    description: &Bound<'py, PyAny>,
    build: Build,
) -> PyResult<TableImage> {
    guarded(py, || {
        let description = description.extract::<Description>()?;
        // What is only taken as the nearest behaviour may have other tables.
        let taken_as = !description.notes.is_empty();
        let meta = description.meta()?;
        let width = words.shape()[1];
        let contiguous = |_| Error::Image("arrays of an image must be contiguous".into());
        let pa = pa.as_slice().map_err(contiguous)?.to_vec();
        let level = level.as_slice().map_err(contiguous)?.to_vec();
        let words = words.as_slice().map_err(contiguous)?.to_vec();
        let image = py.detach(|| {
            let image = build(meta, pa, &level, words, width)?;
            if taken_as { Ok(image) } else { image.verify_version().map(|()| image) }
        });
        Ok(TableImage(Arc::new(image.map_err(|error| Error::Image(error.to_string()))?)))
    })
}
