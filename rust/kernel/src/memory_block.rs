//! Onlining and offlining of memory blocks (`drivers/base/memory.c`, `mm/memory_hotplug.c: online_pages`,
//! `offline_pages`; kernel-semantics §5.6, §5.7).

use vmemmap_arch::{Cpu, FrameKind, Order, Pa, Pfn, RangeOp, Rmw, Template, Zone};

use crate::hotplug_lock::{Path, lock_device_hotplug, mem_hotplug_begin, mem_hotplug_done, unlock_device_hotplug};
use crate::hugetlb::dissolve;
use crate::mmu::can_unmap_without_split;
use crate::mmzone::{
    MEM_GOING_OFFLINE, MEM_OFFLINE, MEM_ONLINE, MMOP_ONLINE_KERNEL, MMOP_ONLINE_MOVABLE, blocks,
    check_hotplug_memory_range, section_start,
};
use crate::page_alloc::{zone_pcp_disable, zone_pcp_enable};
use crate::state::{Block, Section, section_flag};
use crate::{Errno, Kernel, mutants, page};

/// Why a block could not be taken offline: the error, and the reason that the kernel prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OfflineFailure {
    pub errno: Errno,
    pub reason: &'static str,
}

const fn failure(errno: Errno, reason: &'static str) -> OfflineFailure {
    OfflineFailure { errno, reason }
}

/// Frames at the start of the block that hold its own vmemmap.
pub(crate) fn nr_vmemmap_pages<C: Cpu>(k: &Kernel, cpu: &C, block: u32) -> u64 {
    cpu.var_load(k.vars.block(block, Block::NrVmemmapPages), Order::Plain)
}

/// Zone and state of a block as seen by the rest of the kernel.
pub(crate) fn set_block<C: Cpu>(k: &Kernel, cpu: &C, block: u32, state: u64, zone: Zone) {
    let online_type = if zone == Zone::Movable { MMOP_ONLINE_MOVABLE } else { MMOP_ONLINE_KERNEL };
    cpu.var_store(k.vars.block(block, Block::Zone), online_type, Order::Plain);
    cpu.var_store(k.vars.block(block, Block::State), state, Order::Release);
}

/// `online_mem_sections`, `offline_mem_sections`.
fn mark_section_online<C: Cpu>(k: &Kernel, cpu: &C, block: u32, online: bool) {
    let mem_map = k.vars.section(block, Section::MemMap);
    let op = if online { Rmw::FetchOr(section_flag::IS_ONLINE) } else { Rmw::FetchAnd(!section_flag::IS_ONLINE) };
    cpu.var_rmw(mem_map, op, Order::Plain);
}

/// The part of a block that is not its own vmemmap: first PFN and number of pages.
fn block_pages<C: Cpu>(k: &Kernel, cpu: &C, block: u32) -> (Pfn, u64) {
    let own = nr_vmemmap_pages(k, cpu, block);
    (k.geometry.pfn(section_start(k, block)).plus(own), k.geometry.pages_per_section() - own)
}

// ---- online ---------------------------------------------------------------------------------------------------------

/// `state_store`, `memory_subsys_online`: `echo online > …/state` of each block of the range. Returns the number of
/// blocks.
///
/// # Errors
/// `EINVAL`: not whole blocks, or a block is online already. `ENODEV`: no such block. `EHWPOISON` (6.12): a page of it
/// is poisoned.
pub fn online<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, bytes: u64, zone: Zone) -> Result<u64, Errno> {
    check_hotplug_memory_range(k, start, bytes)?;
    let all = blocks(k, start, bytes);
    let count = all.len() as u64;
    for block in all {
        lock_device_hotplug(k, cpu, Path::OnlineOffline);
        let result = match cpu.var_load(k.vars.block(block, Block::State), Order::Plain) {
            MEM_OFFLINE => memory_block_online(k, cpu, block, zone),
            0 => Err(Errno::ENODEV),
            _ => Err(Errno::EINVAL),
        };
        unlock_device_hotplug(k, cpu, Path::OnlineOffline);
        result?;
    }
    Ok(count)
}

/// `memory_block_online`, under `device_hotplug_lock`.
///
/// # Errors
/// `EHWPOISON` (6.12).
pub(crate) fn memory_block_online<C: Cpu>(k: &Kernel, cpu: &C, block: u32, zone: Zone) -> Result<(), Errno> {
    cpu.label("memory_block_online");
    if k.features.online_refuses_poison && cpu.var_load(k.vars.block(block, Block::NrHwpoison), Order::Plain) != 0 {
        return Err(Errno::EHWPOISON);
    }
    mem_hotplug_begin(k, cpu, Path::OnlineOffline);
    mhp_init_memmap_on_memory(k, cpu, block);
    online_pages(k, cpu, block, zone);
    mem_hotplug_done(k, cpu, Path::OnlineOffline);
    Ok(())
}

/// `mhp_init_memmap_on_memory`: struct pages of the block's own vmemmap, each marked PageVmemmapSelfHosted.
fn mhp_init_memmap_on_memory<C: Cpu>(k: &Kernel, cpu: &C, block: u32) {
    let own = nr_vmemmap_pages(k, cpu, block);
    if own == 0 {
        return;
    }
    cpu.label("mhp_init_memmap_on_memory");
    let first = k.geometry.pfn(section_start(k, block));
    page::init_struct_pages(k, cpu, first, own, Template::FREE);
    for n in 0..own {
        page::set_flag(cpu, k.layout.page_va(first.plus(n)), page::flag::VMEMMAP_SELF_HOSTED);
    }
}

/// `online_pages`: struct pages initialised (`move_pfn_range_to_zone`), frames to the allocator, section online.
fn online_pages<C: Cpu>(k: &Kernel, cpu: &C, block: u32, zone: Zone) {
    cpu.label("online_pages");
    let (pfn, nr) = block_pages(k, cpu, block);
    page::init_struct_pages(k, cpu, pfn, nr, Template::FREE);
    let op = if zone == Zone::Movable { RangeOp::OnlineMovable } else { RangeOp::OnlineNormal };
    // Onlining has no obstacles: the memory was nobody's.
    let _ = cpu.range_op(k.geometry.pa(pfn), nr << k.geometry.page_shift(), op);
    mark_section_online(k, cpu, block, true);
    set_block(k, cpu, block, MEM_ONLINE, zone);
}

// ---- offline --------------------------------------------------------------------------------------------------------

/// `state_store`, `memory_subsys_offline`: `echo offline > …/state` of each block of the range. Returns the number of
/// blocks; blocks before a failure stay offline.
///
/// # Errors
/// `EINVAL`: not whole blocks, or a block is offline already; `ENODEV`: no such block; else those of `offline_pages`.
pub fn offline<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, bytes: u64) -> Result<u64, OfflineFailure> {
    check_hotplug_memory_range(k, start, bytes).map_err(|errno| failure(errno, "unaligned range"))?;
    let all = blocks(k, start, bytes);
    let count = all.len() as u64;
    for block in all {
        lock_device_hotplug(k, cpu, Path::OnlineOffline);
        let result = match cpu.var_load(k.vars.block(block, Block::State), Order::Plain) {
            MEM_ONLINE => memory_block_offline(k, cpu, block),
            0 => Err(failure(Errno::ENODEV, "no such memory block")),
            _ => Err(failure(Errno::EINVAL, "memory block is not online")),
        };
        unlock_device_hotplug(k, cpu, Path::OnlineOffline);
        result?;
    }
    Ok(count)
}

/// `memory_block_offline`, under `device_hotplug_lock`.
///
/// # Errors
/// Those of `offline_pages`.
pub(crate) fn memory_block_offline<C: Cpu>(k: &Kernel, cpu: &C, block: u32) -> Result<(), OfflineFailure> {
    cpu.label("memory_block_offline");
    let state = k.vars.block(block, Block::State);
    cpu.var_store(state, MEM_GOING_OFFLINE, Order::Plain);
    mem_hotplug_begin(k, cpu, Path::OnlineOffline);
    let result = offline_pages(k, cpu, block);
    if result.is_ok() {
        mhp_deinit_memmap_on_memory(k, cpu, block);
    }
    mem_hotplug_done(k, cpu, Path::OnlineOffline);
    cpu.var_store(state, if result.is_ok() { MEM_OFFLINE } else { MEM_ONLINE }, Order::Release);
    result
}

/// `mhp_deinit_memmap_on_memory`.
fn mhp_deinit_memmap_on_memory<C: Cpu>(k: &Kernel, cpu: &C, block: u32) {
    let own = nr_vmemmap_pages(k, cpu, block);
    if own != 0 {
        page::init_struct_pages(k, cpu, k.geometry.pfn(section_start(k, block)), own, Template::POISON);
    }
}

/// `offline_pages`.
///
/// # Errors
/// `EINVAL` "memory holes"; `EBUSY` "failure to isolate range", "unmovable page"; `EPERM` "notifier failure" for boot
/// memory, and (7.x) where the removal would split a leaf; `EINTR` "signal backoff"; `ENOMEM` or `EBUSY` "failure to
/// dissolve huge pages". The isolation is undone then.
fn offline_pages<C: Cpu>(k: &Kernel, cpu: &C, block: u32) -> Result<(), OfflineFailure> {
    cpu.label("offline_pages");
    let (pfn, nr) = block_pages(k, cpu, block);
    let (start, bytes) = (k.geometry.pa(pfn), nr << k.geometry.page_shift());
    if has_holes(k, cpu, block, start, bytes) {
        return Err(failure(Errno::EINVAL, "memory holes"));
    }
    zone_pcp_disable(cpu);
    let mut result =
        cpu.range_op(start, bytes, RangeOp::Isolate).map_err(|_| failure(Errno::EBUSY, "failure to isolate range"));
    if result.is_ok() {
        result = empty_range(k, cpu, block, pfn, nr);
        if result.is_ok() {
            let taken = cpu.range_op(start, bytes, RangeOp::Offline);
            if taken.is_err() && !mutants::offline_keeps_huge(k) {
                result = Err(failure(Errno::EBUSY, "unmovable page"));
            }
        }
        if result.is_err() && !mutants::no_undo(k) {
            let _ = cpu.range_op(start, bytes, RangeOp::UndoIsolate);
        }
    }
    if result.is_ok() {
        mark_section_online(k, cpu, block, false);
        // `remove_pfn_range_from_zone`
        page::init_struct_pages(k, cpu, pfn, nr, Template::POISON);
    }
    zone_pcp_enable(cpu);
    result
}

/// Whether the block is not all RAM (`walk_system_ram_range`).
fn has_holes<C: Cpu>(k: &Kernel, cpu: &C, block: u32, start: Pa, bytes: u64) -> bool {
    let early = cpu.var_load(k.vars.section(block, Section::MemMap), Order::Plain) & section_flag::IS_EARLY != 0;
    let end = start.0 + bytes;
    let ram =
        |r: &crate::Ram| if r.boot { (r.start.0 + r.bytes).min(end).saturating_sub(r.start.0.max(start.0)) } else { 0 };
    early && k.ram().iter().map(ram).sum::<u64>() != bytes
}

/// The loop of `offline_pages` (`scan_movable_pages`, `do_migrate_range`, `dissolve_free_hugetlb_folios`): the
/// notifiers, then migrate and dissolve until the isolated range is free.
fn empty_range<C: Cpu>(k: &Kernel, cpu: &C, block: u32, pfn: Pfn, nr: u64) -> Result<(), OfflineFailure> {
    let early = cpu.var_load(k.vars.section(block, Section::MemMap), Order::Plain) & section_flag::IS_EARLY != 0;
    if early && !mutants::boot_removable(k) {
        // `prevent_bootmem_remove_notifier`: NOTIFY_BAD
        return Err(failure(Errno::EPERM, "notifier failure"));
    }
    let whole = section_start(k, block);
    if k.features.split_veto && !can_unmap_without_split(k, cpu, whole, whole.plus(k.geometry.section_size())) {
        // `prevent_memory_remove_notifier`: "splits a leaf entry"
        return Err(failure(Errno::EPERM, "notifier failure"));
    }
    if mutants::offline_keeps_huge(k) {
        return Ok(());
    }
    let end = pfn.plus(nr);
    loop {
        let mut at = pfn;
        loop {
            if cpu.signal_pending() {
                return Err(failure(Errno::EINTR, "signal backoff"));
            }
            cpu.round(at.0);
            match scan_movable_pages(k, cpu, at, end)? {
                // Its result is ignored: what could not be moved is found again.
                Some(head) => {
                    let _ = dissolve::migrate_huge_page(k, cpu, head);
                    at = head.max(pfn);
                }
                None => break,
            }
        }
        dissolve::dissolve_free_hugetlb_folios(k, cpu, pfn, end)
            .map_err(|errno| failure(errno, "failure to dissolve huge pages"))?;
        // `test_pages_isolated`
        if cpu.range_in_use(k.geometry.pa(pfn), nr << k.geometry.page_shift()).is_none() {
            return Ok(());
        }
    }
}

/// `scan_movable_pages`: head of the first HugeTLB page in use, free ones being skipped.
///
/// # Errors
/// `EBUSY`: something in the range can neither be migrated nor dissolved.
fn scan_movable_pages<C: Cpu>(k: &Kernel, cpu: &C, start: Pfn, end: Pfn) -> Result<Option<Pfn>, OfflineFailure> {
    let mut at = start;
    while at < end {
        let Some(found) = cpu.range_in_use(k.geometry.pa(at), end.since(at) << k.geometry.page_shift()) else { break };
        let pfn = k.geometry.pfn(found.pa).max(at);
        if found.kind != FrameKind::Huge {
            return Err(failure(Errno::EBUSY, "unmovable page"));
        }
        let head = page::compound_head(k, cpu, k.layout.page_va(pfn));
        if !page::page_huge(k, cpu, head) {
            // On its way into the pool or out of it.
            at = pfn.plus(k.geometry.hugetlb_sizes().0[0]);
            continue;
        }
        let head_pfn = k.layout.page_pfn(head);
        if page::page_ref_count(cpu, head) != 0 {
            return Ok(Some(head_pfn));
        }
        at = head_pfn.plus(1 << page::compound_order(cpu, head)).max(pfn.plus(1));
    }
    Ok(None)
}
