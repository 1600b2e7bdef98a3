//! Dumps: text checked and cut, arrays turned into a verified `TableImage`.

use std::sync::{Arc, Mutex, PoisonError};

use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use vmemmap_arch::{Pa, Pfn, Va, Zone};
use vmemmap_image::{ImageError, ImageMeta, SectionState};
use vmemmap_kernel::Ram;
use vmemmap_lab::document::{geometry, version};
use vmemmap_lab::live::{HugepageRun, RealMachine, RealSection, RealTables};

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
    blocks_kernel: Vec<u64>,
    block_size: u64,
    hugepages: Hugepages,
    hvo: bool,
    notes: Vec<String>,
}

/// (PFN of the head, length in base pages) of each hugepage: a sequence of pairs, or one that knows its `runs`.
struct Hugepages(Vec<(u64, u64)>);

impl<'a, 'py> FromPyObject<'a, 'py> for Hugepages {
    type Error = PyErr;

    fn extract(pages: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let Some(runs) = pages.getattr_opt("runs")? else { return Ok(Self(pages.extract()?)) };
        let runs: Vec<(u64, u64, u64)> = runs.extract()?;
        let each = |(first, pages, count): (u64, u64, u64)| {
            (0..count).map(move |n| (first.saturating_add(n.saturating_mul(pages)), pages))
        };
        Ok(Self(runs.into_iter().flat_map(each).collect()))
    }
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
            blocks_kernel: {
                let mut blocks = self.blocks_kernel;
                blocks.sort_unstable();
                blocks
            },
            block_size: self.block_size,
            hugepages: self.hugepages.0,
            hvo: self.hvo,
        })
    }
}

/// What a live machine is made from.
pub fn real_tables(image: &vmemmap_image::TableImage) -> RealTables<'_> {
    RealTables { machine: real_machine(image), tables: image.tables().collect() }
}

/// The same without the tables.
pub fn real_machine(image: &vmemmap_image::TableImage) -> RealMachine {
    let meta = image.meta();
    let section = |s: SectionState| RealSection {
        start: s.start,
        early: s.early,
        online: s.online.then_some(if s.early || s.kernel_zone { Zone::Normal } else { Zone::Movable }),
        self_hosted: s.self_hosted,
    };
    RealMachine {
        layout: *image.layout(),
        root: meta.root,
        ram: meta
            .ram
            .iter()
            .map(|(range, boot)| Ram { start: range.start, bytes: range.end.since(range.start), boot: *boot })
            .collect(),
        sections: image.sections().into_iter().map(section).collect(),
        hugepages: HugepageRun::of(meta.hugepages.iter().map(|&(head, pages)| (Pfn(head), pages))),
        hvo: meta.hvo,
        extra_prot: image.vmemmap_extra_prot(),
    }
}

/// Verified tables of one kernel.
#[pyclass(frozen, module = "vmemmap._core")]
pub struct TableImage(Mutex<Option<Arc<vmemmap_image::TableImage>>>);

impl TableImage {
    /// # Errors
    /// A machine has used it up.
    pub fn get(&self) -> Result<Arc<vmemmap_image::TableImage>, Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(Self::used_up)
    }
    /// For a machine that is made of it: nothing is left, so that memory holds the tables once.
    ///
    /// # Errors
    /// Another machine has used it up.
    pub fn take(&self) -> Result<Arc<vmemmap_image::TableImage>, Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(Self::used_up)
    }
    fn used_up() -> Error {
        Error::Spec("the tables were used up by a machine that was made of them".into())
    }
}

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
        let image = Arc::new(image.map_err(|error| Error::Image(error.to_string()))?);
        Ok(TableImage(Mutex::new(Some(image))))
    })
}
