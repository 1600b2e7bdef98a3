//! Which struct pages exist (`include/linux/mmzone.h`, `mm/memory_hotplug.c: pfn_to_online_page`; kernel-semantics
//! §5.1, §9).

use vmemmap_arch::{Cpu, Invariant, Order, Pa, Pfn, Va, Zone};

use crate::policy::SectionUsage;
use crate::state::{Block, Section, section_flag};
use crate::{Errno, Kernel};

/// First address of a section, by its number from `VarMap::base`.
#[must_use]
pub fn section_start(k: &Kernel, section: u32) -> Pa {
    k.vars.base.plus(u64::from(section) * k.geometry.section_size())
}

/// Numbers of the memory blocks of a range.
pub(crate) fn blocks(k: &Kernel, start: Pa, bytes: u64) -> core::ops::Range<u32> {
    let first = k.vars.section_number(start);
    first..first + (bytes >> k.geometry.section_shift()) as u32
}

/// `check_hotplug_memory_range`: whole memory blocks, at least one, inside what can be addressed.
///
/// # Errors
/// `EINVAL`.
pub(crate) fn check_hotplug_memory_range(k: &Kernel, start: Pa, bytes: u64) -> Result<(), Errno> {
    let size = k.geometry.section_size();
    let end = start.0.checked_add(bytes).ok_or(Errno::EINVAL)?;
    let whole = bytes != 0 && start.is_aligned(size) && bytes & (size - 1) == 0;
    if whole && start >= k.vars.base && end <= k.vars.limit.0 { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Values of `Block::State`.
pub const MEM_ONLINE: u64 = 1 << 0;
pub const MEM_GOING_OFFLINE: u64 = 1 << 1;
pub const MEM_OFFLINE: u64 = 1 << 2;

/// `is_migrate_isolate_page`, as far as a block that goes offline is isolated: its state, which is set just before.
pub(crate) fn is_migrate_isolate_page<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> bool {
    let block = k.vars.section_number(k.geometry.pa(pfn));
    cpu.var_load(k.vars.block(block, Block::State), Order::Plain) == MEM_GOING_OFFLINE
}

/// Values of `Block::Zone`: `MMOP_ONLINE_KERNEL`, `MMOP_ONLINE_MOVABLE`.
pub const MMOP_ONLINE_KERNEL: u64 = 2;
pub const MMOP_ONLINE_MOVABLE: u64 = 3;

/// Zone that the block was last online in.
pub(crate) fn block_zone<C: Cpu>(k: &Kernel, cpu: &C, block: u32) -> Zone {
    if cpu.var_load(k.vars.block(block, Block::Zone), Order::Plain) == MMOP_ONLINE_MOVABLE {
        Zone::Movable
    } else {
        Zone::Normal
    }
}

/// Whether the kernel's memory at `pa` is of `ZONE_DMA`, not of `ZONE_NORMAL`: that zone reaches from the first byte of
/// boot RAM to the last below 4 GiB, or to the last of all where RAM begins above (`arch/arm64/mm/init.c:
/// zone_sizes_init`, without a limit of the firmware's), and memory that is added between its ends joins it
/// (`default_kernel_zone_for_pfn`). (K)
pub(crate) fn is_zone_dma(k: &Kernel, pa: Pa) -> bool {
    const U32_MAX: u64 = 0xffff_ffff;
    let boot = || k.ram().iter().filter(|r| r.boot);
    let Some(start) = boot().map(|r| r.start.0).min() else { return false };
    let end = boot().map(|r| r.start.0 + r.bytes).max().unwrap_or(start);
    let limit = if start > U32_MAX { end } else { end.min(U32_MAX + 1) };
    (start..limit).contains(&pa.0)
}

/// `pfn_section_valid`: the sub-section's bit; false once `usage` is gone. `subsection_map` lies inside `usage`, so a
/// pointer that is NULL or freed at the access is reported as a walk through freed metadata (R18).
fn pfn_section_valid<C: Cpu>(k: &Kernel, cpu: &C, section: u32, pfn: Pfn) -> bool {
    let usage = cpu.var_load(k.vars.section(section, Section::Usage), Order::Plain);
    if usage == 0 {
        // Tested for since 82f0b6f041fa.
        match k.policies.section_usage {
            SectionUsage::Kernel | SectionUsage::NoGrace => {}
            SectionUsage::NoNullTest | SectionUsage::FreeFirst => {
                cpu.warn(
                    Invariant::NoWalkOfFreedTable,
                    pfn.0,
                    "pfn_section_valid dereferences ms->usage, which is NULL",
                );
            }
        }
        return false;
    }
    if cpu.var_load(k.vars.section(section, Section::UsageFreed), Order::Plain) >= usage {
        cpu.warn(
            Invariant::NoWalkOfFreedTable,
            pfn.0,
            "pfn_section_valid reads subsection_map in a freed mem_section_usage",
        );
    }
    subsection_bit(k, cpu, section, pfn)
}

/// The bit of a sub-section in `ms->usage->subsection_map`.
pub(crate) fn subsection_bit<C: Cpu>(k: &Kernel, cpu: &C, section: u32, pfn: Pfn) -> bool {
    let subsection = (pfn.0 & (k.geometry.pages_per_section() - 1)) / k.geometry.pages_per_subsection();
    let map = cpu.var_load(k.vars.subsection_map(section, (subsection / 64) as u32), Order::Plain);
    map >> (subsection % 64) & 1 != 0
}

/// `pfn_valid`: the section is valid, and it is early or the sub-section's bit is set. Stale as soon as it returns.
pub fn pfn_valid<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> bool {
    let pa = k.geometry.pa(pfn);
    if !k.vars.contains(pa) {
        return false;
    }
    let section = k.vars.section_number(pa);
    let rcu = match k.policies.section_usage {
        SectionUsage::Kernel | SectionUsage::NoNullTest | SectionUsage::NoGrace => true,
        SectionUsage::FreeFirst => false,
    };
    if rcu {
        cpu.rcu_read_lock();
    }
    let flags = cpu.var_load(k.vars.section(section, Section::MemMap), Order::Plain);
    let valid = flags & section_flag::HAS_MEM_MAP != 0
        && (flags & section_flag::IS_EARLY != 0 || pfn_section_valid(k, cpu, section, pfn));
    if rcu {
        cpu.rcu_read_unlock();
    }
    valid
}

/// `pfn_to_online_page`: VA of the struct page if the section is online. No lock: the answer may go stale.
pub fn pfn_to_online_page<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> Option<Va> {
    let pa = k.geometry.pa(pfn);
    if !k.vars.contains(pa) {
        return None;
    }
    let section = k.vars.section_number(pa);
    let flags = cpu.var_load(k.vars.section(section, Section::MemMap), Order::Plain);
    if flags & section_flag::IS_ONLINE == 0 || !pfn_section_valid(k, cpu, section, pfn) {
        return None;
    }
    // A device in the unused part of an online section: `get_dev_pagemap` knows what is RAM.
    if flags & section_flag::TAINT_ZONE_DEVICE != 0 && !k.is_boot_ram(pa) {
        return None;
    }
    Some(k.layout.page_va(pfn))
}
