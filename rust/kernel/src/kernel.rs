//! Everything about a kernel that does not change while it runs.

use vmemmap_arch::descriptor::OutputBits;
use vmemmap_arch::{Geometry, Layout, Pa};

use crate::features::Features;
use crate::policy::{Batch, Head, HvoConfig, Policies};
use crate::state::VarMap;

/// Most separate RAM ranges of a machine.
pub const MAX_RAM_RANGES: usize = 16;

/// A range of physical memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ram {
    pub start: Pa,
    pub bytes: u64,
    /// Present at boot; otherwise a region where memory may be hot-added.
    pub boot: bool,
}

/// Everything about a kernel that does not change while it runs. Shared by all CPUs, by reference.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// What this kernel does otherwise than another.
    pub features: Features,
    pub geometry: Geometry,
    /// Where its descriptors have their addresses, for who makes or reads many.
    pub output: OutputBits,
    pub layout: Layout,
    pub policies: Policies,
    pub vars: VarMap,
    ram: [Ram; MAX_RAM_RANGES],
    nr_ram: usize,
    /// `hugetlb_free_vmemmap=on` at boot (decides how 2021 populates).
    pub hvo_at_boot: bool,
    /// nG and other attribute bits that this kernel's boot options add to every kernel mapping.
    pub extra_prot: u64,
}

impl Kernel {
    /// `ram` is sorted and does not overlap; at most `MAX_RAM_RANGES` ranges (more are ignored).
    #[must_use]
    pub fn new(layout: Layout, policies: Policies, ram: &[Ram], hvo_at_boot: bool) -> Self {
        let geometry = layout.geometry;
        let mut own = [Ram { start: Pa(0), bytes: 0, boot: false }; MAX_RAM_RANGES];
        let nr_ram = ram.len().min(MAX_RAM_RANGES);
        own[..nr_ram].copy_from_slice(&ram[..nr_ram]);
        let size = geometry.section_size();
        let base = own[..nr_ram].iter().map(|r| r.start.0).min().unwrap_or(0) & !(size - 1);
        let limit = own[..nr_ram].iter().map(|r| r.start.0 + r.bytes).max().unwrap_or(0).next_multiple_of(size);
        Self {
            features: Features::of(layout.version),
            geometry,
            output: geometry.output_bits(),
            layout,
            policies,
            vars: VarMap::new(&geometry, Pa(base), Pa(limit)),
            ram: own,
            nr_ram,
            hvo_at_boot,
            extra_prot: 0,
        }
    }
    /// `CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP`: HVO can be switched on, and (7.x) tails name their heads by a mask.
    #[must_use]
    #[inline]
    pub const fn hvo_configured(&self) -> bool {
        match self.policies.hvo_config {
            HvoConfig::Yes => true,
            HvoConfig::No => false,
        }
    }
    /// Pools grow, shrink and are demoted by lists.
    #[must_use]
    #[inline]
    pub const fn batches(&self) -> bool {
        match self.policies.batch {
            Batch::ByKernel => self.features.batched_flush,
            Batch::None => false,
        }
    }
    /// The head's vmemmap page moves to a fresh frame.
    #[must_use]
    #[inline]
    pub const fn copies_head(&self) -> bool {
        match self.policies.head {
            Head::ByKernel => self.features.head_is_copied,
            Head::Keep => false,
        }
    }
    /// Whether `pa` is RAM that the kernel found at boot.
    #[must_use]
    pub fn is_boot_ram(&self, pa: Pa) -> bool {
        self.ram().iter().any(|r| r.boot && pa.0 >= r.start.0 && pa.0 - r.start.0 < r.bytes)
    }
    #[must_use]
    pub fn ram(&self) -> &[Ram] {
        &self.ram[..self.nr_ram]
    }
}
