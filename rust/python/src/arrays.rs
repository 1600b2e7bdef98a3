//! NumPy views of a machine's table memory: read-only, without a copy. The only `unsafe` of this crate.

use std::sync::atomic::AtomicU64;

use numpy::ndarray::ArrayView1;
use numpy::{PyArray1, PyArrayMethods};
use pyo3::PyClass;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use vmemmap_arch::Pa;

/// A machine, as far as its memory can be looked at from outside.
pub trait Words {
    /// The descriptors of the table page at `pa`; `None` outside RAM.
    fn table_words(&self, pa: Pa) -> Option<&[AtomicU64]>;
}

/// The descriptors of the table page at `pa` as a read-only array that keeps the machine alive; `None` outside RAM.
///
/// NumPy reads with plain loads: each word is whole, but while other threads run the machine a page is no snapshot.
pub fn table<'py, M>(machine: &Bound<'py, M>, pa: Pa) -> Option<Bound<'py, PyArray1<u64>>>
where
    M: Words + PyClass<Frozen = True> + Sync,
{
    let words: &[AtomicU64] = machine.get().table_words(pa)?;
    // SAFETY:
    // 1. `words` is borrowed from the machine, so it is valid for reads of `len` aligned words for as long as nobody
    //    moves, drops or mutably borrows that.
    // 2. The object is frozen, so nobody moves or mutably borrows what is in it; the array holds a reference to the
    //    object as its base, so it is not dropped before the array is.
    // 3. `AtomicU64` has the size, alignment and bit validity of `u64`.
    // 4. The array is made read-only before anybody sees it, so nothing writes through it; the machine's own threads
    //    store whole words, which NumPy, outside the memory model of Rust, reads as whole words.
    let array = unsafe {
        let view = ArrayView1::from_shape_ptr(words.len(), words.as_ptr().cast::<u64>());
        PyArray1::borrow_from_array(&view, machine.clone().into_any())
    };
    Some((*array.readwrite().make_nonwriteable()).clone())
}
