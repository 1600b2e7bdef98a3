//! Counted static keys (`kernel/jump_label.c`).

use vmemmap_arch::{Cpu, LockId, Mode, Order};

use crate::Kernel;
use crate::state::Scalar;

/// `static_branch_inc`, `static_branch_dec`: code is patched under `cpu_hotplug_lock`, and every CPU has seen it on
/// return.
pub(crate) fn static_branch_add<C: Cpu>(k: &Kernel, cpu: &C, key: Scalar, n: i64) {
    cpu.acquire(LockId::CpuHotplug, Mode::Read);
    cpu.var_add(k.vars.scalar(key), n, Order::AcqRel);
    cpu.release(LockId::CpuHotplug, Mode::Read);
}

/// `static_branch_unlikely`.
pub(crate) fn static_branch_unlikely<C: Cpu>(k: &Kernel, cpu: &C, key: Scalar) -> bool {
    cpu.concluding(|| cpu.var_load(k.vars.scalar(key), Order::Plain) != 0)
}
