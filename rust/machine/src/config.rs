//! What a machine is built from, and why it may be refused.

use std::io;

use vmemmap_arch::{Geometry, Pa};

/// Most CPUs of a native machine.
pub const MAX_CPUS: u8 = 64;

/// Which enhanced translation synchronisation the CPUs have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Ets {
    /// None: Armv8.0 to Armv8.7 without FEAT_ETS2.
    None,
    /// FEAT_ETS2: every earlier access is ordered before a translation that ends in a Translation or Access flag fault.
    #[default]
    Two,
    /// FEAT_ETS3: before a Permission fault as well.
    Three,
}

/// A range of physical memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RamRange {
    pub start: Pa,
    pub bytes: u64,
    /// Present at boot and owned by the allocator; otherwise a region where memory may be hot-added.
    pub boot: bool,
}

impl RamRange {
    /// One past the last byte.
    #[must_use]
    pub const fn end(&self) -> Pa {
        Pa(self.start.0.wrapping_add(self.bytes))
    }
}

/// What a machine is built from.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    pub geometry: Geometry,
    pub ram: Vec<RamRange>,
    /// Number of CPUs, 1 to `MAX_CPUS`.
    pub cpus: u8,
    /// Number of kernel variables.
    pub vars: u64,
    /// Physical address of `swapper_pg_dir`; `None`: the lowest free frame of boot memory is taken.
    pub root: Option<Pa>,
    /// Of the injected allocation failures.
    pub seed: u64,
}

/// Why a machine cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("a machine needs at least one range of boot memory")]
    NoBootMemory,
    #[error(
        "memory range {start} of {bytes:#x} bytes is empty, not page aligned, or leaves the 52-bit physical address \
            space"
    )]
    BadRange { start: Pa, bytes: u64 },
    #[error("memory ranges {first} and {second} overlap")]
    Overlap { first: Pa, second: Pa },
    #[error("{0} CPUs: a native machine has 1 to {MAX_CPUS}")]
    Cpus(u8),
    #[error("the root table {0} does not lie in memory, or is not page aligned")]
    Root(Pa),
    #[error("memory spans {frames} frames; at most 2^32 are modelled")]
    TooManyFrames { frames: u64 },
    #[error("no address space for {what} ({bytes} bytes)")]
    Map {
        what: &'static str,
        bytes: u64,
        #[source]
        source: io::Error,
    },
}

/// What the address of a machine's first frame is a multiple of, whether there is memory or not: a section, and the
/// largest hugepage, so that a run aligned by number is aligned by address.
#[must_use]
pub fn first_frame_alignment(geometry: &Geometry) -> u64 {
    let (sizes, count) = geometry.hugetlb_sizes();
    let largest = sizes[..count].iter().max().map_or(0, |pages| pages << geometry.page_shift());
    geometry.section_size().max(largest)
}

impl MachineConfig {
    /// The ranges, sorted.
    ///
    /// # Errors
    /// Any `ConfigError` but `Map`.
    pub fn checked_ranges(&self) -> Result<Vec<RamRange>, ConfigError> {
        if self.cpus == 0 || self.cpus > MAX_CPUS {
            return Err(ConfigError::Cpus(self.cpus));
        }
        let page = self.geometry.page_size();
        let mut ram = self.ram.clone();
        ram.sort_by_key(|r| r.start);
        for r in &ram {
            let end = r.start.0.checked_add(r.bytes);
            if r.bytes == 0 || !r.start.is_aligned(page) || r.bytes % page != 0 || end.is_none_or(|e| e > 1 << 52) {
                return Err(ConfigError::BadRange { start: r.start, bytes: r.bytes });
            }
        }
        for pair in ram.windows(2) {
            if pair[1].start < pair[0].end() {
                return Err(ConfigError::Overlap { first: pair[0].start, second: pair[1].start });
            }
        }
        if !ram.iter().any(|r| r.boot) {
            return Err(ConfigError::NoBootMemory);
        }
        if let Some(root) = self.root
            && !(root.is_aligned(page) && ram.iter().any(|r| root >= r.start && root < r.end()))
        {
            return Err(ConfigError::Root(root));
        }
        Ok(ram)
    }
}
