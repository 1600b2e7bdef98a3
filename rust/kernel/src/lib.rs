//! The kernel algorithms of the arm64 vmemmap, generic over a CPU (`vmemmap_arch::Cpu`), each named after its kernel
//! function so that a maintainer can lay the two side by side. No heap, no unsafe; only this crate writes descriptors.
//!
//! | module | kernel file |
//! |---|---|
//! | `pgtable` | `arch/arm64/include/asm/pgtable.h`, `tlbflush.h` |
//! | `mmu` | `arch/arm64/mm/mmu.c` |
//! | `fault` | `arch/arm64/mm/fault.c`, and the handler of approach A |
//! | `pgalloc` | `arch/arm64/include/asm/pgalloc.h`, `pagetable_*_ctor` of `include/linux/mm.h` |
//! | `sparse_vmemmap`, `sparse` | `mm/sparse-vmemmap.c`; `mm/sparse.c` and who calls the former |
//! | `memory_hotplug`, `memory_block` | `mm/memory_hotplug.c`, `mm/memremap.c`, `drivers/base/memory.c` |
//! | `hugetlb` | `mm/hugetlb.c` |
//! | `hugetlb_vmemmap` | `mm/hugetlb_vmemmap.c` |
//! | `memory_failure` | `mm/memory-failure.c` |
//! | `page`, `mmzone` | `include/linux/page-flags.h`, `page_ref.h`, `mmzone.h` |
//! | `pageattr` | `arch/arm64/mm/pageattr.c`, `mmu.c: split_kernel_leaf_mapping` (7.x), x86's collapse |
//! | `page_ext` | `mm/page_ext.c`, the lifetime alone |
//! | `kasan` | `mm/kasan/shadow.c`, the shadow of vmalloc |
//! | `page_alloc` | `mm/page_alloc.c`, as far as it looks at struct pages |
//! | `pfn_walkers` | readers of struct pages without a lock: `mm/compaction.c`, `fs/proc/page.c`, `mm/kmemleak.c` |
//! | `quiesce` | `kernel/stop_machine.c`, and the pause by IPI of approach D |
//! | `ptdump` | `mm/ptdump.c`, `arch/arm64/mm/ptdump.c`, `mm/pagewalk.c` |
//! | `vmalloc` | `mm/vmalloc.c` |
//! | `boot` | `arch/arm64/mm/mmu.c: paging_init`, `mm/sparse.c: sparse_init` |
//! | `check` | the invariants, over tables at rest |
//! | `features` | what one kernel does otherwise than another; nothing else knows versions |
//! | `policy`, `mutants` | what a user chooses, and where the seeded faults are |
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

pub mod boot;
pub mod check;
pub mod errno;
pub mod fault;
pub mod features;
pub mod hotplug_lock;
pub mod hugetlb;
pub mod hugetlb_vmemmap;
pub mod kasan;
mod kernel;
pub mod memory_block;
pub mod memory_failure;
pub mod memory_hotplug;
pub mod mmu;
pub mod mmzone;
mod mutants;
pub mod operation;
pub mod page;
pub mod page_alloc;
pub mod page_ext;
pub mod pageattr;
pub mod pfn_walkers;
pub mod pgalloc;
pub mod pgtable;
pub mod policy;
pub mod ptdump;
pub mod quiesce;
pub mod sparse;
pub mod sparse_vmemmap;
pub mod state;
mod static_key;
pub mod vmalloc;

pub use errno::Errno;
pub use features::Features;
pub use kernel::{Kernel, MAX_RAM_RANGES, Ram};
pub use operation::Operation;
pub use policy::Policies;
pub use state::VarMap;
