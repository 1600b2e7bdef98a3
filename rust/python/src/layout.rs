//! The VA layout and the policy table, as plain dictionaries.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use vmemmap_arch::section::SUBSECTION_SIZE;
use vmemmap_arch::{Layout, Level, STRUCT_PAGE_SIZE};
use vmemmap_kernel::Policies;
use vmemmap_lab::document::{DocumentError, geometry, version};

use crate::errors::guarded;

/// Layout, geometry and section facts of one machine: names as in `arch/arm64/include/asm/memory.h`, sizes in bytes.
#[pyfunction]
#[pyo3(signature = (granule, va_bits, kernel, memstart = 0))]
pub fn layout<'py>(
    py: Python<'py>,
    granule: u64,
    va_bits: u32,
    kernel: &str,
    memstart: i64,
) -> PyResult<Bound<'py, PyDict>> {
    guarded(py, || {
        let v = version(kernel)?;
        let l = Layout::new(geometry(granule, va_bits)?, v, memstart).map_err(|_| DocumentError::NoLpa2(v.name()))?;
        Ok(describe(py, &l)?)
    })
}

/// See `layout`.
pub fn describe<'py>(py: Python<'py>, l: &Layout) -> PyResult<Bound<'py, PyDict>> {
    let g = l.geometry;
    let d = PyDict::new(py);
    d.set_item("granule", g.page_size())?;
    d.set_item("va_bits", g.va_bits)?;
    d.set_item("kernel", l.version.name())?;
    d.set_item("memstart_addr", l.memstart)?;
    for (name, va) in [
        ("PAGE_OFFSET", l.page_offset),
        ("PAGE_END", l.page_end),
        ("MODULES_VADDR", l.modules_start),
        ("MODULES_END", l.modules_end),
        ("VMALLOC_START", l.vmalloc_start),
        ("VMALLOC_END", l.vmalloc_end),
        ("VMEMMAP_START", l.vmemmap_start),
        ("VMEMMAP_END", l.vmemmap_end),
        ("FIXADDR_START", l.fixmap_start),
        ("FIXADDR_TOP", l.fixmap_end),
        ("PCI_IO_START", l.pci_io_start),
        ("PCI_IO_END", l.pci_io_end),
    ] {
        d.set_item(name, va.0)?;
    }
    let levels = PyList::empty(py);
    for level in (g.top().0..=3).map(Level) {
        let row = PyDict::new(py);
        row.set_item("level", level.0)?;
        row.set_item("entries", g.entries_at(level))?;
        row.set_item("entry_span", g.entry_span(level))?;
        row.set_item("table_span", g.table_span(level))?;
        row.set_item("block_allowed", g.block_allowed(level))?;
        row.set_item("sections_per_table", g.sections_per_table(level))?;
        levels.append(row)?;
    }
    d.set_item("levels", levels)?;
    let (sizes, n) = g.hugetlb_sizes();
    d.set_item("hugepage_sizes", PyList::new(py, sizes[..n].iter().map(|pages| pages << g.page_shift()))?)?;
    d.set_item("section_size", g.section_size())?;
    d.set_item("section_vmemmap", g.section_vmemmap())?;
    d.set_item("subsection_size", SUBSECTION_SIZE)?;
    d.set_item("struct_page_size", STRUCT_PAGE_SIZE)?;
    d.set_item("cont_ptes", g.cont_ptes())?;
    d.set_item("cont_pmds", g.cont_pmds())?;
    let markers = PyList::empty(py);
    for marker in &l.markers[..l.nr_markers] {
        markers.append((marker.start.0, marker.name))?;
    }
    d.set_item("markers", markers)?;
    Ok(d)
}

/// Every policy row: name → {choice: sentence}; the first choice is what the kernel does.
#[pyfunction]
pub fn policies(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    guarded(py, || {
        let all = PyDict::new(py);
        for row in Policies::ROWS {
            let choices = PyDict::new(py);
            let mut failed = None;
            Policies::for_each_value(row, |name, sentence| {
                if let Err(error) = choices.set_item(name, sentence) {
                    failed = Some(error);
                }
            });
            if let Some(error) = failed {
                return Err(error.into());
            }
            all.set_item(row, choices)?;
        }
        Ok(all)
    })
}
