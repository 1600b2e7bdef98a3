//! NumPy views of a machine's table memory: read-only, without a copy. The only `unsafe` of this crate.

use std::sync::atomic::AtomicU64;

use numpy::ndarray::ArrayView1;
use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use vmemmap_arch::Pa;

use crate::machine::Machine;

/// The descriptors of the table page at `pa` as a read-only array that keeps the machine alive; `None` outside RAM.
///
/// NumPy reads with plain loads: each word is whole, but while other threads run the machine a page is no snapshot.
pub fn table<'py>(machine: &Bound<'py, Machine>, pa: Pa) -> Option<Bound<'py, PyArray1<u64>>> {
    let words: &[AtomicU64] = machine.get().table_words(pa)?;
    // SAFETY:
    // 1. `words` is a slice of the machine's arena: valid for reads of `len` aligned words while the arena is mapped.
    // 2. The arena is owned by the `Machine` object, which is frozen and never gives it up; the array holds a reference
    //    to that object as its base, so the memory outlives the array.
    // 3. `AtomicU64` has the size, alignment and bit validity of `u64`.
    // 4. The array is made read-only before anybody sees it, so nothing writes through it; the machine's own threads
    //    store whole words, which NumPy, outside the memory model of Rust, reads as whole words.
    let array = unsafe {
        let view = ArrayView1::from_shape_ptr(words.len(), words.as_ptr().cast::<u64>());
        PyArray1::borrow_from_array(&view, machine.clone().into_any())
    };
    Some((*array.readwrite().make_nonwriteable()).clone())
}
