//! What the tables of an image say about the machine, as plain dictionaries.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use vmemmap_arch::Pfn;
use vmemmap_image::{HugepageState, VmemmapStyle};

use crate::errors::guarded;
use crate::image::TableImage;

const fn style_name(style: VmemmapStyle) -> &'static str {
    match style {
        VmemmapStyle::Blocks => "blocks",
        VmemmapStyle::BasePages => "basepages",
    }
}

const fn state_name(state: HugepageState) -> &'static str {
    match state {
        HugepageState::Private => "private",
        HugepageState::OneReserved => "optimised",
        HugepageState::TwoReserved => "optimised, two pages reserved",
        HugepageState::Torn => "torn",
    }
}

/// Sections present and how each is mapped, hugepages and whether each is optimised, the kind of linear map, and
/// attribute bits that a boot option added.
#[pyfunction]
pub fn survey<'py>(py: Python<'py>, image: &TableImage) -> PyResult<Bound<'py, PyDict>> {
    guarded(py, || {
        let image = image.get()?;
        let (found, states, linear, extra) = py.detach(|| {
            let states: Vec<_> =
                image.meta().hugepages.iter().map(|&(pfn, n)| (pfn, n, image.hugepage_state(Pfn(pfn), n))).collect();
            (image.sections(), states, image.linear_map(), image.vmemmap_extra_prot())
        });
        let sections = PyList::empty(py);
        for section in &found {
            let row = PyDict::new(py);
            row.set_item("start", section.start.0)?;
            row.set_item("early", section.early)?;
            row.set_item("online", section.online)?;
            row.set_item("style", style_name(section.style))?;
            row.set_item("mapped", section.mapped)?;
            row.set_item("self_hosted", section.self_hosted)?;
            sections.append(row)?;
        }
        let hugepages = PyList::empty(py);
        for (pfn, pages, state) in states {
            hugepages.append((pfn, pages, state_name(state)))?;
        }
        let answer = PyDict::new(py);
        answer.set_item("tables", image.len())?;
        answer.set_item("sections", sections)?;
        answer.set_item("hugepages", hugepages)?;
        answer.set_item("vmemmap_extra_prot", extra)?;
        answer.set_item("linear_blocks", linear.blocks)?;
        answer.set_item("linear_contiguous", linear.contiguous)?;
        answer.set_item("linear_hot_added_prot", linear.hot_added_prot)?;
        Ok(answer)
    })
}
