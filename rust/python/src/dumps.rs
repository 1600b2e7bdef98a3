//! Dumps judged and compared: the checker over an image or a text, and what changed between two.

use std::cell::RefCell;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyDict, PyList};
use vmemmap_arch::{ByInvariant, Granule, Invariant, InvariantSet, Layout, Pa};
use vmemmap_image::diff::{Diff, changed_elsewhere, diff};
use vmemmap_image::shape::{Counts, Optimised};
use vmemmap_image::text_alone::check_alone;
use vmemmap_image::text_check::{TextViolation, VISIBLE_IN_TEXT, check_text};
use vmemmap_image::text_machine::{TextHints, machine_of_text};
use vmemmap_kernel::Features;
use vmemmap_kernel::check::Violation;
use vmemmap_lab::document::version;
use vmemmap_lab::dump_check::{Checked, Contents, DumpFacts, MOST_FINDINGS, check_dump};

use crate::errors::{Error, guarded};
use crate::image::TableImage;
use crate::interrupt::abandonable;

fn hints(
    granule: Option<u64>,
    va_bits: Option<u32>,
    kernel: Option<&str>,
    memstart: Option<i64>,
) -> Result<TextHints, Error> {
    let version = kernel.map(version).transpose()?;
    Ok(TextHints { granule: granule.and_then(Granule::from_size), va_bits, version, memstart })
}

/// What a dump shows of vmemmap.
#[pyclass(frozen, module = "vmemmap._core")]
pub struct Shape {
    shape: Arc<vmemmap_image::Shape>,
    layout: Layout,
}

#[pymethods]
impl Shape {
    #[staticmethod]
    fn of_image(py: Python<'_>, image: &TableImage) -> PyResult<Self> {
        guarded(py, || {
            let image = image.get()?;
            let layout = *image.layout();
            let shape = abandonable(py, move || vmemmap_image::Shape::of_image(&image))?;
            Ok(Self { shape: Arc::new(shape), layout })
        })
    }

    /// `like` has the layout of the same machine; else it is told from the text and what is given.
    #[staticmethod]
    #[pyo3(signature = (data, *, granule = None, va_bits = None, kernel = None, memstart = None, like = None))]
    fn of_text(
        py: Python<'_>,
        data: &[u8],
        granule: Option<u64>,
        va_bits: Option<u32>,
        kernel: Option<&str>,
        memstart: Option<i64>,
        like: Option<&Shape>,
    ) -> PyResult<Self> {
        guarded(py, || {
            let hints = hints(granule, va_bits, kernel, memstart)?;
            let (known, like) = (memstart.is_some(), like.map(|other| (other.layout, other.shape.first_pfn.is_some())));
            py.detach(|| {
                let (layout, known) = match like {
                    Some(same) => same,
                    None => (machine_of_text(data, &hints).map_err(|error| Error::Image(error.to_string()))?, known),
                };
                let shape = vmemmap_image::Shape::of_text(data, &layout, known)
                    .map_err(|error| Error::Image(error.to_string()))?;
                Ok(Self { shape: Arc::new(shape), layout })
            })
        })
    }

    #[getter]
    fn granule(&self) -> u64 {
        self.layout.geometry.page_size()
    }
    #[getter]
    fn va_bits(&self) -> u32 {
        self.layout.geometry.va_bits
    }
    #[getter]
    fn kernel(&self) -> &'static str {
        self.layout.version.name()
    }
    /// Words are whole and output addresses known: not so of a text.
    #[getter]
    fn exact(&self) -> bool {
        self.shape.exact
    }
    /// Whether PFNs are absolute; else they count from the first of the linear map.
    #[getter]
    fn memstart_known(&self) -> bool {
        self.shape.first_pfn.is_some()
    }

    /// (mapped pages, distinct frames or `None`, blocks, tables) of vmemmap.
    fn counts(&self, py: Python<'_>) -> PyResult<(u64, Option<u64>, u64, u64)> {
        guarded(py, || {
            let shape = Arc::clone(&self.shape);
            let Counts { mapped_pages, distinct_frames, blocks, tables } = abandonable(py, move || shape.counts())?;
            Ok((mapped_pages, distinct_frames, blocks, tables))
        })
    }

    /// (PFN of the head, length in base pages) of each hugepage whose tails share a frame.
    fn optimised(&self, py: Python<'_>) -> PyResult<Vec<(u64, u64)>> {
        guarded(py, || {
            let shape = Arc::clone(&self.shape);
            let found = abandonable(py, move || shape.optimised())?;
            Ok(pages(&self.shape, &found))
        })
    }
}

fn pages(shape: &vmemmap_image::Shape, found: &[Optimised]) -> Vec<(u64, u64)> {
    found.iter().map(|p| (shape.pfn(p.va), p.pages)).collect()
}

/// What changed in vmemmap from one dump to the other. Raises `SpecError` if they are not of one machine.
#[pyfunction]
#[pyo3(name = "diff")]
pub fn diff_shapes<'py>(py: Python<'py>, a: &Shape, b: &Shape) -> PyResult<Bound<'py, PyDict>> {
    guarded(py, || {
        let (x, y) = (Arc::clone(&a.shape), Arc::clone(&b.shape));
        let d = abandonable(py, move || diff(&x, &y))?.map_err(|error| Error::Spec(error.to_string()))?;
        let known = if a.shape.first_pfn.is_some() { a } else { b };
        Ok(described(py, &d, known)?)
    })
}

fn described<'py>(py: Python<'py>, d: &Diff, known: &Shape) -> PyResult<Bound<'py, PyDict>> {
    let shape = &known.shape;
    let answer = PyDict::new(py);
    answer.set_item("changed", d.changed)?;
    answer.set_item("tables_added", d.tables_added)?;
    answer.set_item("tables_removed", d.tables_removed)?;
    answer.set_item("frames_lost", d.frames.map(|f| f.0))?;
    answer.set_item("frames_gained", d.frames.map(|f| f.1))?;
    answer.set_item("hugepages_optimised", pages(shape, &d.optimised))?;
    answer.set_item("hugepages_restored", pages(shape, &d.restored))?;
    answer.set_item("blocks_split", d.blocks_split.iter().map(|va| va.0).collect::<Vec<_>>())?;
    let size = shape.geometry.section_size();
    let start = shape.pfn(shape.vmemmap.start) << shape.geometry.page_shift();
    let sections = |ranges: &[core::ops::Range<u64>]| -> Vec<u64> {
        ranges.iter().flat_map(|r| r.clone()).map(|n| start.wrapping_add(n * size)).collect()
    };
    answer.set_item("sections_added", sections(&d.sections_added))?;
    answer.set_item("sections_removed", sections(&d.sections_removed))?;
    let other = PyList::empty(py);
    for change in &d.other {
        other.append((change.va.0, change.level.0, change.count, change.old, change.new))?;
    }
    answer.set_item("other", other)?;
    answer.set_item("other_count", d.other_count)?;
    Ok(answer)
}

/// How many descriptors outside vmemmap differ.
#[pyfunction]
pub fn diff_elsewhere(py: Python<'_>, a: &TableImage, b: &TableImage) -> PyResult<u64> {
    guarded(py, || {
        let (a, b) = (a.get()?, b.get()?);
        abandonable(py, move || changed_elsewhere(&a, &b))
    })
}

/// Check every invariant that tables, and the facts beside them, can show. `hugepages_known`: the description lists all
/// hugepages, else the optimised ones are looked for; `ram_known`: it lists all RAM. `pools`: (length in base pages,
/// `nr_hugepages`). `left_out`: addresses of tables that the dump left out. `contents`, if the dump has some: a
/// function that gives the bytes of the page at a physical address, or `None`, and `PG_head` in them.
#[pyfunction]
#[pyo3(signature = (image, hugepages_known, ram_known, pools, left_out = Vec::new(), contents = None))]
pub fn check_image<'py>(
    py: Python<'py>,
    image: &TableImage,
    hugepages_known: bool,
    ram_known: bool,
    pools: Vec<(u64, u64)>,
    left_out: Vec<u64>,
    contents: Option<(Py<PyAny>, Option<u64>)>,
) -> PyResult<Bound<'py, PyDict>> {
    guarded(py, || {
        let image = image.get()?;
        let (read, head_mask) = contents.map_or((None, None), |(read, head_mask)| (Some(read), head_mask));
        let mut left_out: Vec<Pa> = left_out.into_iter().map(Pa).collect();
        left_out.sort_unstable();
        let (checked, failed) = abandonable(py, move || {
            let failed = RefCell::new(None);
            // After an exception nothing is visible any more, and the exception is raised in the end.
            let page = |pa: Pa| -> Option<Vec<u64>> {
                let read = read.as_ref()?;
                if failed.borrow().is_some() {
                    return None;
                }
                let bytes = Python::attach(|py| -> PyResult<Option<PyBackedBytes>> {
                    let bytes = read.bind(py).call1((pa.0,))?;
                    if bytes.is_none() { Ok(None) } else { Ok(Some(bytes.extract::<PyBackedBytes>()?)) }
                });
                match bytes {
                    Ok(bytes) => Some(bytes?.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect()),
                    Err(error) => {
                        *failed.borrow_mut() = Some(error);
                        None
                    }
                }
            };
            let contents = Contents { read: &page, head_mask };
            let contents = read.is_some().then_some(&contents);
            let checked = checked_image(&image, hugepages_known, ram_known, pools, left_out, contents);
            (checked, failed.into_inner())
        })?;
        match failed {
            Some(error) => Err(Error::Python(error)),
            None => Ok(report(py, &checked)?),
        }
    })
}

fn checked_image(
    image: &vmemmap_image::TableImage,
    hugepages_known: bool,
    ram_known: bool,
    pools: Vec<(u64, u64)>,
    left_out: Vec<Pa>,
    contents: Option<&Contents<'_>>,
) -> Checked {
    let meta = image.meta();
    let sections = image.sections();
    let mut ram = meta.ram.clone();
    ram.sort_unstable_by_key(|(range, _)| range.start);
    let mut hugepages = meta.hugepages.clone();
    let shape = vmemmap_image::Shape::of_image(image);
    if !hugepages_known {
        hugepages = pages(&shape, &shape.optimised());
    }
    hugepages.sort_unstable();
    let facts = DumpFacts {
        layout: *image.layout(),
        ram,
        present: (!ram_known).then(|| sections.iter().map(|s| s.start).collect()),
        self_hosted: sections.iter().filter(|s| s.self_hosted).map(|s| s.start).collect(),
        blocks_online: meta.blocks_online.clone(),
        block_size: if meta.block_size == 0 { meta.geometry.section_size() } else { meta.block_size },
        hugepages,
        hugepages_complete: hugepages_known,
        pools,
        zone_tails: shape.has_zone_tails(),
        left_out,
    };
    let mut checked = check_dump(image, &facts, contents);
    for (pa, reached) in image.misplaced_tables() {
        let (invariant, message) = match reached {
            Some(_) => {
                (Invariant::TreeWellFormed, "the image gives a table another level than the one at which it is reached")
            }
            None => (Invariant::FramesConserved, "a table page of the image that nothing points at"),
        };
        let count = &mut checked.counts[invariant];
        *count += 1;
        if *count <= MOST_FINDINGS as u64 {
            checked.violations.push(Violation::at_rest(invariant, pa.0, message, None));
        }
    }
    checked
}

fn report<'py>(py: Python<'py>, checked: &Checked) -> PyResult<Bound<'py, PyDict>> {
    let answer = PyDict::new(py);
    let findings = PyList::empty(py);
    for f in &checked.violations {
        let (level, word) = f.evidence.map_or((None, None), |(level, desc)| (Some(level.0), Some(desc.0)));
        findings.append((f.invariant.to_string(), f.address, level, word, f.message))?;
    }
    answer.set_item("findings", findings)?;
    answer.set_item("counts", counts(py, &checked.counts)?)?;
    let visible: Vec<String> = checked.visible.iter().map(|i| i.to_string()).collect();
    answer.set_item("visible", visible)?;
    Ok(answer)
}

fn counts<'py>(py: Python<'py>, counts: &ByInvariant<u64>) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    for (invariant, &count) in counts.iter() {
        if count != 0 {
            found.set_item(invariant.to_string(), count)?;
        }
    }
    Ok(found)
}

/// The same of a text, of the machine that `shape` was told to be of.
#[pyfunction]
#[pyo3(name = "check_text")]
pub fn check_dump_text<'py>(py: Python<'py>, data: &[u8], shape: &Shape) -> PyResult<Bound<'py, PyDict>> {
    guarded(py, || {
        let mut found = Found::default();
        let kept = Features::of(shape.layout.version).reserved_vmemmap_pages;
        py.detach(|| check_text(data, &shape.layout, kept, |violation| found.add(violation)))
            .map_err(|error| Error::Image(error.to_string()))?;
        Ok(found.report(py, VISIBLE_IN_TEXT)?)
    })
}

/// The same of a text whose vmemmap is not in it, or whose machine is none that is modelled: what any region shows.
/// Also `machines`, a list of (granule, va_bits) of which it can be, `notes` in words, and whether it prints `holes`,
/// names `levels`, has `vmemmap`, is `efi_page_tables`, has a `layout` of another time.
#[pyfunction]
#[pyo3(signature = (data, *, granule = None, va_bits = None))]
pub fn check_text_alone<'py>(
    py: Python<'py>,
    data: &[u8],
    granule: Option<u64>,
    va_bits: Option<u32>,
) -> PyResult<Bound<'py, PyDict>> {
    guarded(py, || {
        let hints = hints(granule, va_bits, None, None)?;
        let mut found = Found::default();
        let alone = py
            .detach(|| check_alone(data, &hints, |violation| found.add(violation)))
            .map_err(|error| Error::Image(error.to_string()))?;
        let answer = found.report(py, alone.visible)?;
        let machines: Vec<(u64, u32)> = alone.machines.iter().map(|g| (g.page_size(), g.va_bits)).collect();
        answer.set_item("machines", machines)?;
        answer.set_item("notes", alone.notes)?;
        answer.set_item("holes", alone.kind.holes)?;
        answer.set_item("levels", alone.kind.levels)?;
        answer.set_item("vmemmap", alone.kind.vmemmap)?;
        answer.set_item("efi", alone.kind.efi)?;
        answer.set_item("layout", alone.kind.layout)?;
        Ok(answer)
    })
}

/// Violations in a text, counted.
#[derive(Default)]
struct Found {
    violations: Vec<TextViolation>,
    numbers: ByInvariant<u64>,
}

impl Found {
    fn add(&mut self, violation: TextViolation) {
        let count = &mut self.numbers[violation.invariant];
        *count += 1;
        if *count <= MOST_FINDINGS as u64 {
            self.violations.push(violation);
        }
    }

    fn report<'py>(&self, py: Python<'py>, visible: InvariantSet) -> PyResult<Bound<'py, PyDict>> {
        let answer = PyDict::new(py);
        let findings = PyList::empty(py);
        for v in &self.violations {
            findings.append((v.invariant.to_string(), v.address, None::<i8>, None::<u64>, v.message))?;
        }
        answer.set_item("findings", findings)?;
        answer.set_item("counts", counts(py, &self.numbers)?)?;
        answer.set_item("visible", visible.iter().map(|i| i.to_string()).collect::<Vec<_>>())?;
        Ok(answer)
    }
}

/// Name, sentence and short words of every invariant.
#[pyfunction]
pub fn invariants(py: Python<'_>) -> PyResult<Vec<(String, &'static str, &'static str)>> {
    guarded(py, || Ok(Invariant::ALL.iter().map(|i| (i.to_string(), i.sentence(), i.short())).collect()))
}
