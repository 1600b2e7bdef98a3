//! The locks of memory hotplug (`drivers/base/core.c`, `mm/memory_hotplug.c`; kernel-semantics §5.4 to §5.9).

use vmemmap_arch::{Cpu, Invariant, LockId, Mode};

use crate::policy::HotplugLock;
use crate::{Kernel, mutants};

/// Which code path asks for the locks: the mutant `no-device-lock` concerns add and remove only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Path {
    AddRemove,
    OnlineOffline,
}

fn locked(k: &Kernel, path: Path) -> bool {
    match k.policies.hotplug {
        HotplugLock::Kernel => !(path == Path::AddRemove && mutants::no_device_lock(k)),
        HotplugLock::None => false,
    }
}

/// `lock_device_hotplug`.
pub(crate) fn lock_device_hotplug<C: Cpu>(k: &Kernel, cpu: &C, path: Path) {
    if locked(k, path) {
        cpu.acquire(LockId::DeviceHotplug, Mode::Write);
    }
}

/// `unlock_device_hotplug`.
pub(crate) fn unlock_device_hotplug<C: Cpu>(k: &Kernel, cpu: &C, path: Path) {
    if locked(k, path) {
        cpu.release(LockId::DeviceHotplug, Mode::Write);
    }
}

/// `mem_hotplug_begin`: `cpus_read_lock`, `mem_hotplug_lock` for write.
pub(crate) fn mem_hotplug_begin<C: Cpu>(k: &Kernel, cpu: &C, path: Path) {
    if locked(k, path) {
        cpu.acquire(LockId::CpuHotplug, Mode::Read);
        cpu.acquire(LockId::MemHotplug, Mode::Write);
    }
    cpu.exclusive(Invariant::HotplugExclusive, true);
}

/// `mem_hotplug_done`.
pub(crate) fn mem_hotplug_done<C: Cpu>(k: &Kernel, cpu: &C, path: Path) {
    cpu.exclusive(Invariant::HotplugExclusive, false);
    if locked(k, path) {
        cpu.release(LockId::MemHotplug, Mode::Write);
        cpu.release(LockId::CpuHotplug, Mode::Read);
    }
}

/// `get_online_mems`.
pub fn get_online_mems<C: Cpu>(cpu: &C) {
    cpu.acquire(LockId::MemHotplug, Mode::Read);
}

/// `put_online_mems`.
pub fn put_online_mems<C: Cpu>(cpu: &C) {
    cpu.release(LockId::MemHotplug, Mode::Read);
}
