//! The kernel algorithms of the arm64 vmemmap, generic over a CPU (`vmemmap_arch::Cpu`), each named after its kernel
//! function so that a maintainer can lay the two side by side. No heap, no unsafe; only this crate writes descriptors.
//!
//! | module | kernel file |
//! |---|---|
//! | `pgtable` | `arch/arm64/include/asm/pgtable.h`, `tlbflush.h` |
//! | `sparse_vmemmap` | `mm/sparse-vmemmap.c`, `mm/sparse.c` |
//! | `mmu` | `arch/arm64/mm/mmu.c` |
//! | `memory_hotplug`, `memory_block` | `mm/memory_hotplug.c`, `mm/memremap.c`, `drivers/base/memory.c` |
//! | `hugetlb_vmemmap` | `mm/hugetlb_vmemmap.c` |
//! | `hugetlb` | `mm/hugetlb.c` |
//! | `page` | `include/linux/page-flags.h`, `page_ref.h`, `mmzone.h` |
//! | `page_alloc` | `mm/page_alloc.c`, as far as it looks at struct pages |
//! | `fault` | `arch/arm64/mm/fault.c`, and the handler of approach A |
//! | `quiesce` | `kernel/stop_machine.c`, and the pause by IPI of approach D |
//! | `ptdump` | `mm/ptdump.c`, `arch/arm64/mm/ptdump.c`, `mm/pagewalk.c` |
//! | `vmalloc` | `mm/vmalloc.c` |
//! | `boot` | `arch/arm64/mm/mmu.c: paging_init`, `mm/sparse.c: sparse_init` |
//! | `check` | the invariants, over tables at rest |
#![no_std]
#![forbid(unsafe_code)]

pub mod boot;
pub mod check;
mod check_pool;
mod check_vmemmap;
pub mod errno;
pub mod fault;
pub mod hugetlb;
pub mod hugetlb_adopt;
pub mod hugetlb_demote;
pub mod hugetlb_dissolve;
pub mod hugetlb_fault;
mod hugetlb_hwpoison;
pub mod hugetlb_page;
pub mod hugetlb_resize;
pub mod hugetlb_vmemmap;
pub mod memory_block;
pub mod memory_hotplug;
pub mod mmu;
pub mod operation;
pub mod page;
pub mod page_alloc;
pub mod pgtable;
pub mod policy;
pub mod ptdump;
pub mod quiesce;
pub mod sparse_vmemmap;
pub mod state;
mod static_key;
pub mod vmalloc;
pub mod vmemmap_remap;

use vmemmap_arch::{Geometry, Layout, Pa, Version};

pub use errno::Errno;
pub use operation::Operation;
pub use policy::Policies;
pub use state::VarMap;

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
    pub version: Version,
    pub geometry: Geometry,
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
            version: layout.version,
            geometry,
            layout,
            policies,
            vars: VarMap::new(&geometry, Pa(base), Pa(limit)),
            ram: own,
            nr_ram,
            hvo_at_boot,
            extra_prot: 0,
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
