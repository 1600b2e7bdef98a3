//! One anonymous, unreserved mapping seen as 64-bit atomic words. The only `unsafe` of this crate.
//!
//! A word that nobody touched is 0 and costs no memory, so a mapping as large as the modelled RAM is affordable:
//! hot-added memory is simply a part of it that was never touched.

use std::io;

use crate::native::sync::AtomicU64;

#[cfg(not(loom))]
mod storage {
    use core::ptr::NonNull;

    use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

    use super::{AtomicU64, io};

    #[derive(Debug)]
    pub struct Storage {
        /// Unmapped when the storage is dropped.
        map: MmapRaw,
        /// Its first word. That it is not null is known to the compiler, so that a look-up is one comparison.
        first: NonNull<AtomicU64>,
        words: usize,
    }

    // SAFETY: what `first` points to is atomics, of a mapping that this storage owns.
    unsafe impl Send for Storage {}
    // SAFETY: likewise.
    unsafe impl Sync for Storage {}

    impl Storage {
        pub fn new(words: usize) -> io::Result<Self> {
            let bytes = words.checked_mul(8).ok_or(io::ErrorKind::InvalidInput)?;
            let map = MmapRaw::from(MmapOptions::new().len(bytes.max(8)).no_reserve_swap().map_anon()?);
            // Sparse use: a huge page for each touched word would cost 512 times the memory. A kernel without THP
            // refuses.
            let _ = map.advise(Advice::NoHugePage);
            let first = NonNull::new(map.as_mut_ptr().cast::<AtomicU64>()).ok_or(io::ErrorKind::OutOfMemory)?;
            Ok(Self { map, first, words })
        }

        /// Words of whole pages of the host are 0 again, and cost nothing; others stay as they are.
        pub fn discard(&self, first: usize, words: usize) {
            /// Of the host; the largest that the architecture has.
            const PAGE: usize = if cfg!(target_arch = "x86_64") { 1 << 12 } else { 1 << 16 };
            let (Some(offset), Some(length)) = (first.checked_mul(8), words.checked_mul(8)) else { return };
            if (offset | length) & (PAGE - 1) != 0 || first.saturating_add(words) > self.words {
                return;
            }
            // SAFETY: the range is one of this private anonymous mapping, checked above, and of whole pages. What is
            // there is atomics, of which 0 is a value: who loads one meanwhile finds what was there or 0. A kernel that
            // refuses leaves them as they are.
            let _ = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, length) };
        }

        /// Have the host make the pages of these words now, as if each were stored to. One that cannot makes each at
        /// the first store.
        pub fn populate(&self, first: usize, words: usize) {
            #[cfg(target_os = "linux")]
            if first.saturating_add(words) <= self.words {
                let _ = self.map.advise_range(Advice::PopulateWrite, first * 8, words * 8);
            }
        }

        #[inline]
        pub fn words(&self) -> &[AtomicU64] {
            // SAFETY:
            // 1. `map` is a private anonymous mapping of at least `words * 8` bytes, readable and writable, filled
            //    with zeroes by the operating system, page aligned (so 8-aligned), and lives as long as `self`, hence
            //    as the returned slice.
            // 2. `AtomicU64` has the size and bit validity of `u64`; every bit pattern is a value.
            // 3. Nothing else ever makes a reference or a non-atomic access to the mapping: its pointer is private to
            //    this module, and this is the only use of it.
            // 4. `words * 8` was checked not to overflow, and mapping it succeeded, so it is at most `isize::MAX`.
            unsafe { core::slice::from_raw_parts(self.first.as_ptr(), self.words) }
        }
    }
}

#[cfg(loom)]
mod storage {
    use super::{AtomicU64, io};

    #[derive(Debug)]
    pub struct Storage(Vec<AtomicU64>);

    impl Storage {
        pub fn discard(&self, _first: usize, _words: usize) {}
        pub fn populate(&self, _first: usize, _words: usize) {}
        pub fn new(words: usize) -> io::Result<Self> {
            Ok(Self((0..words).map(|_| AtomicU64::new(0)).collect()))
        }
        pub fn words(&self) -> &[AtomicU64] {
            &self.0
        }
    }
}

/// Words by index; initially all 0.
#[derive(Debug)]
pub struct Arena(storage::Storage);

impl Arena {
    /// # Errors
    /// Of `mmap`: no address space left, or the host's overcommit policy refuses.
    pub fn new(words: u64) -> io::Result<Self> {
        let words = usize::try_from(words).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self(storage::Storage::new(words)?))
    }
    #[must_use]
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        self.0.words()
    }
    /// What these words hold no longer matters: the host gets back what it can, where they read as 0 from now on.
    pub fn discard(&self, first: u64, words: u64) {
        self.0.discard(first as usize, words as usize);
    }
    /// These words, as far as there are any, are about to be stored to.
    pub fn populate(&self, first: u64, words: u64) {
        let first = (first as usize).min(self.words().len());
        self.0.populate(first, (words as usize).min(self.words().len() - first));
    }
    /// `None` outside the arena: a wild address is the caller's report, never undefined behaviour.
    #[must_use]
    #[inline]
    pub fn get(&self, index: u64) -> Option<&AtomicU64> {
        self.words().get(index as usize)
    }
}

/// Whether all of these are 0. Joined as a tree: one after the other, each would wait for the one before.
#[cfg(not(loom))]
#[must_use]
#[inline(always)]
pub fn all_zero(words: &[AtomicU64; 8]) -> bool {
    use core::sync::atomic::Ordering;
    let [a, b, c, d, e, f, g, h] = words.each_ref().map(|word| word.load(Ordering::Relaxed));
    ((a | b) | (c | d)) | ((e | f) | (g | h)) == 0
}
