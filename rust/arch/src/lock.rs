//! The locks that the kernel's algorithms take.

/// The kernel's locks, by its names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LockId {
    /// `device_hotplug_lock`, a mutex.
    DeviceHotplug,
    /// `cpu_hotplug_lock`, a percpu rwsem.
    CpuHotplug,
    /// `mem_hotplug_lock`, a percpu rwsem: `get_online_mems` reads, `mem_hotplug_begin` writes.
    MemHotplug,
    /// `pcp_batch_high_lock`, a mutex.
    PcpBatchHigh,
    /// `init_mm.mmap_lock`, an rwsem.
    InitMmMmap,
    /// `init_mm.page_table_lock`, a spinlock.
    InitMmPageTable,
    /// `swapper_pgdir_lock`, a spinlock.
    SwapperPgdir,
    /// `fixmap_lock`, a mutex.
    Fixmap,
    /// `hstate.resize_lock` of the hugepage size with that index, a mutex.
    HugetlbResize(u8),
    /// `hugetlb_lock`, an irq-disabling spinlock.
    Hugetlb,
    /// `vmap_area_lock`, a spinlock.
    VmapArea,
    /// `hugepage_subpool.lock`, a spinlock; there is one subpool.
    Subpool,
}

impl LockId {
    /// How many distinct numbers `index` gives.
    pub const COUNT: usize = 19;
    /// Dense number of this lock.
    #[must_use]
    #[inline]
    pub const fn index(self) -> usize {
        match self {
            LockId::DeviceHotplug => 0,
            LockId::CpuHotplug => 1,
            LockId::MemHotplug => 2,
            LockId::PcpBatchHigh => 3,
            LockId::InitMmMmap => 4,
            LockId::InitMmPageTable => 5,
            LockId::SwapperPgdir => 6,
            LockId::Fixmap => 7,
            LockId::Hugetlb => 8,
            LockId::VmapArea => 9,
            LockId::HugetlbResize(h) => 10 + (h as usize & 7),
            LockId::Subpool => 18,
        }
    }
    /// A holder may not sleep.
    #[must_use]
    #[inline]
    pub const fn is_spinlock(self) -> bool {
        matches!(
            self,
            LockId::InitMmPageTable | LockId::SwapperPgdir | LockId::Hugetlb | LockId::VmapArea | LockId::Subpool
        )
    }
    /// The kernel's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            LockId::DeviceHotplug => "device_hotplug_lock",
            LockId::CpuHotplug => "cpu_hotplug_lock",
            LockId::MemHotplug => "mem_hotplug_lock",
            LockId::PcpBatchHigh => "pcp_batch_high_lock",
            LockId::InitMmMmap => "init_mm.mmap_lock",
            LockId::InitMmPageTable => "init_mm.page_table_lock",
            LockId::SwapperPgdir => "swapper_pgdir_lock",
            LockId::Fixmap => "fixmap_lock",
            LockId::HugetlbResize(_) => "hstate.resize_lock",
            LockId::Hugetlb => "hugetlb_lock",
            LockId::VmapArea => "vmap_area_lock",
            LockId::Subpool => "hugepage_subpool.lock",
        }
    }
}
