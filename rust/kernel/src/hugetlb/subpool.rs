//! The subpool of a mounted hugetlbfs (`mm/hugetlb.c`; kernel-7.3 §6), of which there is one: its users are the mount
//! and the pages in use, and the last of them gives the minimum reservation back and frees it (R42).

use vmemmap_arch::{Cpu, Invariant, LockId, Mode, Order, Rmw};

use super::resize::hugetlb_acct_memory;
use crate::policy::SubpoolRelease;
use crate::state::Scalar;
use crate::{Errno, Kernel};

fn lock<C: Cpu>(cpu: &C) {
    cpu.acquire(LockId::Subpool, Mode::Write);
}

fn unlock<C: Cpu>(cpu: &C) {
    cpu.release(LockId::Subpool, Mode::Write);
}

fn get<C: Cpu>(k: &Kernel, cpu: &C, field: Scalar) -> u64 {
    cpu.var_load(k.vars.scalar(field), Order::Plain)
}

fn set<C: Cpu>(k: &Kernel, cpu: &C, field: Scalar, value: u64) {
    cpu.var_store(k.vars.scalar(field), value, Order::Plain);
}

/// `hugepage_new_subpool`: `mount -o min_size=…`. Returns `min`.
///
/// # Errors
/// `EBUSY`: there is one. Those of `hugetlb_acct_memory`.
pub fn hugepage_new_subpool<C: Cpu>(k: &Kernel, cpu: &C, h: u8, min: u64) -> Result<u64, Errno> {
    if get(k, cpu, Scalar::SubpoolCount) != 0 || get(k, cpu, Scalar::SubpoolUsed) != 0 {
        return Err(Errno::EBUSY);
    }
    hugetlb_acct_memory(k, cpu, h, min as i64)?;
    set(k, cpu, Scalar::SubpoolFreed, 0);
    set(k, cpu, Scalar::SubpoolMin, min);
    set(k, cpu, Scalar::SubpoolCount, 1);
    Ok(min)
}

/// `hugepage_subpool_get_pages`, as far as it counts them. Returns how many are used now.
///
/// # Errors
/// `EINVAL`: there is no subpool.
pub fn hugepage_subpool_get_pages<C: Cpu>(k: &Kernel, cpu: &C, pages: u64) -> Result<u64, Errno> {
    lock(cpu);
    let used = get(k, cpu, Scalar::SubpoolUsed) + pages;
    let mounted = get(k, cpu, Scalar::SubpoolCount) != 0;
    if mounted {
        set(k, cpu, Scalar::SubpoolUsed, used);
    }
    unlock(cpu);
    if mounted { Ok(used) } else { Err(Errno::EINVAL) }
}

/// `hugepage_subpool_put_pages`, of pages whose file is gone. Returns 1 if that was the subpool's end.
///
/// # Errors
/// `EINVAL`: no such size, or not so many are used.
pub fn hugepage_subpool_put_pages<C: Cpu>(k: &Kernel, cpu: &C, h: u8, pages: u64) -> Result<u64, Errno> {
    cpu.label("hugepage_subpool_put_pages");
    put(k, cpu, h, Scalar::SubpoolUsed, pages)
}

/// `hugepage_put_subpool`: unmount. Returns 1 if that was the subpool's end.
///
/// # Errors
/// `EINVAL`: no such size, or it is not mounted.
pub fn hugepage_put_subpool<C: Cpu>(k: &Kernel, cpu: &C, h: u8) -> Result<u64, Errno> {
    cpu.label("hugepage_put_subpool");
    put(k, cpu, h, Scalar::SubpoolCount, 1)
}

fn put<C: Cpu>(k: &Kernel, cpu: &C, h: u8, field: Scalar, n: u64) -> Result<u64, Errno> {
    lock(cpu);
    let Some(left) = get(k, cpu, field).checked_sub(n) else {
        unlock(cpu);
        return Err(Errno::EINVAL);
    };
    set(k, cpu, field, left);
    unlock_or_release_subpool(k, cpu, h)
}

/// `unlock_or_release_subpool`, entered with the lock held. Returns 1 if it freed the subpool.
fn unlock_or_release_subpool<C: Cpu>(k: &Kernel, cpu: &C, h: u8) -> Result<u64, Errno> {
    let unlock_and_ask = || {
        unlock(cpu);
        subpool_is_free(k, cpu)
    };
    let ask_and_unlock = || {
        let is_free = subpool_is_free(k, cpu);
        unlock(cpu);
        is_free
    };
    let is_free = match k.policies.subpool_release {
        SubpoolRelease::ByKernel if k.features.subpool_decides_locked => ask_and_unlock(),
        SubpoolRelease::Locked => ask_and_unlock(),
        SubpoolRelease::ByKernel | SubpoolRelease::Unlocked => unlock_and_ask(),
        SubpoolRelease::Relocked => {
            unlock(cpu);
            lock(cpu);
            ask_and_unlock()
        }
    };
    if !is_free {
        return Ok(0);
    }
    let min = get(k, cpu, Scalar::SubpoolMin);
    if hugetlb_acct_memory(k, cpu, h, -(min as i64)).is_err() {
        cpu.warn(Invariant::CountersBalance, min, "a subpool's minimum is given back twice: resv_huge_pages wraps");
    }
    // `kfree`
    cpu.label("kfree");
    let freed = cpu.var_rmw(k.vars.scalar(Scalar::SubpoolFreed), Rmw::FetchAdd(1), Order::AcqRel);
    if freed != 0 {
        cpu.warn(Invariant::FramesConserved, freed, "a subpool is freed twice");
    }
    Ok(1)
}

/// `subpool_is_free`.
fn subpool_is_free<C: Cpu>(k: &Kernel, cpu: &C) -> bool {
    cpu.label("subpool_is_free");
    get(k, cpu, Scalar::SubpoolCount) == 0 && get(k, cpu, Scalar::SubpoolUsed) == 0
}
