//! Hot add and hot remove (`mm/memory_hotplug.c`, `mm/memremap.c`; kernel-semantics §5.4, §5.5, §5.8, §5.9).
//!
//! A memory block is one section, the arm64 default. Onlining and offlining are in `memory_block`.

use vmemmap_arch::{Cpu, Invariant, Order, Pa, Pfn, Rmw, Template};

use crate::features::MemmapOnMemory;
use crate::hotplug_lock::{Path, lock_device_hotplug, mem_hotplug_begin, mem_hotplug_done, unlock_device_hotplug};
use crate::memory_block;
use crate::mmzone::{
    MEM_OFFLINE, MEM_ONLINE, block_zone, blocks, check_hotplug_memory_range, pfn_valid, section_start, subsection_bit,
};
use crate::policy::BlockDevices;
use crate::sparse::{section_deactivate, sparse_add_section};
use crate::sparse_vmemmap::{Altmap, Storage};
use crate::state::{Block, Scalar, Section, section_flag};
use crate::{Errno, Kernel, Ram, mmu, page};

// ---- ranges ---------------------------------------------------------------------------------------------------------

/// `mhp_range_allowed`: the range has addresses in the linear map.
fn mhp_range_allowed(k: &Kernel, start: Pa, bytes: u64) -> bool {
    let room = k.layout.page_end.since(k.layout.page_offset);
    start.0.wrapping_sub(k.layout.memstart as u64).saturating_add(bytes) <= room
}

/// What is tested before the locks: the resource, whole blocks, a slot that has such memory, and room in the linear
/// map.
fn check_addable<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, bytes: u64) -> Result<(), Errno> {
    register_memory_resource(k, cpu, start, bytes)?;
    check_hotplug_memory_range(k, start, bytes)?;
    let slot = |ram: &Ram| !ram.boot && start >= ram.start && start.0 + bytes <= ram.start.0 + ram.bytes;
    if k.ram().iter().any(slot) && mhp_range_allowed(k, start, bytes) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// `register_memory_resource`: nothing else may have claimed any part of the range.
///
/// # Errors
/// `EEXIST`.
fn register_memory_resource<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, bytes: u64) -> Result<(), Errno> {
    let size = k.geometry.section_size();
    let end = start.0.saturating_add(bytes).min(k.vars.limit.0);
    let mut at = start.align_down(size).max(k.vars.base);
    while at.0 < end {
        let section = k.vars.section_number(at);
        let claimed = cpu.var_load(k.vars.section(section, Section::MemMap), Order::Plain) != 0
            || cpu.var_load(k.vars.block(section, Block::State), Order::Plain) != 0;
        if claimed {
            return Err(Errno::EEXIST);
        }
        at = at.plus(size);
    }
    Ok(())
}

// ---- memmap_on_memory -----------------------------------------------------------------------------------------------

/// Frames that hold the vmemmap of one memory block.
fn vmemmap_frames(k: &Kernel) -> u64 {
    k.geometry.section_vmemmap() >> k.geometry.page_shift()
}

/// `mhp_supports_memmap_on_memory`: vmemmap a multiple of PMD_SIZE, the rest a multiple of a pageblock.
fn mhp_supports_memmap_on_memory(k: &Kernel, bytes: u64) -> bool {
    let block = k.geometry.section_size();
    let memmap = k.geometry.section_vmemmap();
    let pmd = k.geometry.entry_span(vmemmap_arch::Level::PMD);
    if memmap & (pmd - 1) != 0 || (block - memmap) & (pmd - 1) != 0 {
        return false;
    }
    match k.features.memmap_on_memory {
        MemmapOnMemory::OneBlockWithoutHvo => bytes == block && !k.hvo_at_boot,
        MemmapOnMemory::OneBlock => bytes == block,
        MemmapOnMemory::EachBlock => true,
    }
}

fn new_altmap(k: &Kernel, start: Pa) -> Altmap {
    Altmap { base_pfn: k.geometry.pfn(start), reserve: 0, free: vmemmap_frames(k), align: 0, alloc: 0 }
}

// ---- arch_add_memory, arch_remove_memory ----------------------------------------------------------------------------

/// `arch_add_memory`: the linear map, then `__add_pages`. Sections that were added before a failure stay.
///
/// # Errors
/// `ENOMEM`, `EEXIST`, `EINVAL` of `sparse_add_section`; the linear map of the whole range is down again.
fn arch_add_memory<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, bytes: u64, storage: &mut Storage) -> Result<(), Errno> {
    cpu.label("arch_add_memory");
    let added = mmu::__create_pgd_mapping(k, cpu, start, bytes, false)
        .and_then(|()| __add_pages(k, cpu, k.geometry.pfn(start), bytes >> k.geometry.page_shift(), storage));
    match added {
        Ok(()) => {
            let end = k.geometry.pfn(start.plus(bytes)).0;
            if cpu.var_load(k.vars.scalar(Scalar::MaxPfn), Order::Plain) < end {
                cpu.var_store(k.vars.scalar(Scalar::MaxPfn), end, Order::Plain);
            }
        }
        Err(_) => mmu::__remove_pgd_mapping(k, cpu, start, bytes),
    }
    added
}

/// `__add_pages`: section by section, up to the first error.
fn __add_pages<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn, nr: u64, storage: &mut Storage) -> Result<(), Errno> {
    cpu.label("__add_pages");
    let unit = k.geometry.pages_per_subsection();
    if nr == 0 || !pfn.is_aligned(unit) || nr & (unit - 1) != 0 {
        return Err(Errno::EINVAL);
    }
    for_each_section(k, pfn, nr, |pfn, nr| sparse_add_section(k, cpu, pfn, nr, storage))
}

/// `__remove_pages`.
fn __remove_pages<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn, nr: u64, storage: &mut Storage) {
    cpu.label("__remove_pages");
    let removed: Result<(), core::convert::Infallible> = for_each_section(k, pfn, nr, |pfn, nr| {
        section_deactivate(k, cpu, pfn, nr, storage);
        Ok(())
    });
    match removed {
        Ok(()) => {}
        Err(never) => match never {},
    }
}

/// Calls `each` with the part of [pfn, pfn + nr) that lies in each section.
fn for_each_section<E>(
    k: &Kernel,
    pfn: Pfn,
    nr: u64,
    mut each: impl FnMut(Pfn, u64) -> Result<(), E>,
) -> Result<(), E> {
    let (mut pfn, end) = (pfn, pfn.plus(nr));
    while pfn < end {
        let next = pfn.align_down(k.geometry.pages_per_section()).plus(k.geometry.pages_per_section()).min(end);
        each(pfn, next.since(pfn))?;
        pfn = next;
    }
    Ok(())
}

/// `arch_remove_memory`: vmemmap first (its frames may lie inside the range), then the linear map.
fn arch_remove_memory<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, bytes: u64, storage: &mut Storage) {
    __remove_pages(k, cpu, k.geometry.pfn(start), bytes >> k.geometry.page_shift(), storage);
    mmu::__remove_pgd_mapping(k, cpu, start, bytes);
}

// ---- add_memory -----------------------------------------------------------------------------------------------------

/// `add_memory`: the blocks of the range exist and are offline afterwards. Returns how many.
///
/// # Errors
/// `EEXIST`: part of the range is there already. `EINVAL`: not whole memory blocks, or (2021, 6.1) memmap_on_memory
/// asked for where it is not supported. `ENOMEM`: tables or vmemmap; sections added before in the same call stay, as in
/// the kernel.
pub fn add_memory<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, bytes: u64, memmap_on_memory: bool) -> Result<u64, Errno> {
    lock_device_hotplug(k, cpu, Path::AddRemove);
    cpu.label("add_memory_resource");
    let added = check_addable(k, cpu, start, bytes).and_then(|()| {
        mem_hotplug_begin(k, cpu, Path::AddRemove);
        let added = add_memory_resource(k, cpu, start, bytes, memmap_on_memory);
        mem_hotplug_done(k, cpu, Path::AddRemove);
        added
    });
    unlock_device_hotplug(k, cpu, Path::AddRemove);
    added.map(|()| bytes >> k.geometry.section_shift())
}

fn add_memory_resource<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    start: Pa,
    bytes: u64,
    memmap_on_memory: bool,
) -> Result<(), Errno> {
    let self_hosted = memmap_on_memory && mhp_supports_memmap_on_memory(k, bytes);
    if memmap_on_memory && !self_hosted {
        match k.features.memmap_on_memory {
            MemmapOnMemory::OneBlockWithoutHvo | MemmapOnMemory::OneBlock => return Err(Errno::EINVAL),
            MemmapOnMemory::EachBlock => {}
        }
    }
    if !self_hosted {
        arch_add_memory(k, cpu, start, bytes, &mut Storage::Buddy)?;
        for block in blocks(k, start, bytes) {
            if let Err(errno) = create_memory_block_devices(k, cpu, block, None) {
                arch_remove_memory(k, cpu, start, bytes, &mut Storage::Buddy);
                return Err(errno);
            }
        }
        return Ok(());
    }
    // `create_altmaps_and_memory_blocks` (6.12): one altmap for each block; 6.1 has only one block here.
    let size = k.geometry.section_size();
    for block in blocks(k, start, bytes) {
        let at = section_start(k, block);
        let mut altmap = new_altmap(k, at);
        if let Err(errno) = arch_add_memory(k, cpu, at, size, &mut Storage::Altmap(&mut altmap)) {
            if at > start {
                remove_memory_blocks_and_altmaps(k, cpu, start, at.since(start));
            }
            return Err(errno);
        }
        if let Err(errno) = create_memory_block_devices(k, cpu, block, Some(altmap)) {
            match k.policies.block_devices {
                BlockDevices::FailWithoutAltmap => arch_remove_memory(k, cpu, at, size, &mut Storage::Buddy),
                BlockDevices::Created | BlockDevices::FailWithAltmap => {
                    arch_remove_memory(k, cpu, at, size, &mut Storage::Altmap(&mut altmap));
                }
            }
            if at > start {
                remove_memory_blocks_and_altmaps(k, cpu, start, at.since(start));
            }
            return Err(errno);
        }
    }
    Ok(())
}

/// `create_memory_block_devices`.
///
/// # Errors
/// `ENOMEM`, where policy `block-devices` has it fail.
fn create_memory_block_devices<C: Cpu>(k: &Kernel, cpu: &C, block: u32, altmap: Option<Altmap>) -> Result<(), Errno> {
    match k.policies.block_devices {
        BlockDevices::Created => {}
        BlockDevices::FailWithAltmap | BlockDevices::FailWithoutAltmap => return Err(Errno::ENOMEM),
    }
    let frames = if altmap.is_some() { vmemmap_frames(k) } else { 0 };
    let taken = altmap.map_or(0, |a| a.align << 32 | a.alloc);
    cpu.var_store(k.vars.block(block, Block::NrVmemmapPages), frames, Order::Plain);
    cpu.var_store(k.vars.block(block, Block::AltmapAlloc), taken, Order::Plain);
    cpu.var_store(k.vars.block(block, Block::NrHwpoison), 0, Order::Plain);
    cpu.var_store(k.vars.block(block, Block::State), MEM_OFFLINE, Order::Release);
    Ok(())
}

// ---- remove_memory --------------------------------------------------------------------------------------------------

/// `remove_memory`. Returns how many blocks went.
///
/// # Errors
/// `EINVAL`: not whole blocks, no such blocks, (2021, 6.1) a self-hosted block together with others, (6.12) blocks with
/// and without altmap mixed. `EBUSY`: a block is not offline.
pub fn remove_memory<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, bytes: u64) -> Result<u64, Errno> {
    check_hotplug_memory_range(k, start, bytes)?;
    lock_device_hotplug(k, cpu, Path::AddRemove);
    let removed = try_remove_memory(k, cpu, start, bytes);
    unlock_device_hotplug(k, cpu, Path::AddRemove);
    removed.map(|()| bytes >> k.geometry.section_shift())
}

/// `try_remove_memory`, under `device_hotplug_lock`.
///
/// # Errors
/// Those of `remove_memory`.
pub(crate) fn try_remove_memory<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, bytes: u64) -> Result<(), Errno> {
    cpu.label("try_remove_memory");
    let all = blocks(k, start, bytes);
    let state = |block| cpu.var_load(k.vars.block(block, Block::State), Order::Plain);
    if all.clone().any(|block| state(block) == 0) {
        return Err(Errno::EINVAL);
    }
    if all.clone().any(|block| state(block) != MEM_OFFLINE) {
        return Err(Errno::EBUSY);
    }
    let self_hosted = all.clone().filter(|&block| memory_block::nr_vmemmap_pages(k, cpu, block) != 0).count();
    let mixed = self_hosted != 0 && self_hosted != all.len();
    let at_most_one = match k.features.memmap_on_memory {
        MemmapOnMemory::OneBlockWithoutHvo | MemmapOnMemory::OneBlock => true,
        MemmapOnMemory::EachBlock => false,
    };
    if mixed || (at_most_one && self_hosted != 0 && all.len() != 1) {
        return Err(Errno::EINVAL);
    }
    let remove_devices = || {
        for block in all.clone() {
            cpu.var_store(k.vars.block(block, Block::State), 0, Order::Plain);
        }
    };
    // `remove_memory_block_devices`
    if k.features.block_devices_go_unlocked {
        remove_devices();
    }
    mem_hotplug_begin(k, cpu, Path::AddRemove);
    if self_hosted != 0 {
        remove_memory_blocks_and_altmaps(k, cpu, start, bytes);
    } else {
        if !k.features.block_devices_go_unlocked {
            remove_devices();
        }
        arch_remove_memory(k, cpu, start, bytes, &mut Storage::Buddy);
    }
    mem_hotplug_done(k, cpu, Path::AddRemove);
    Ok(())
}

/// `remove_memory_blocks_and_altmaps`; 6.1 does the same for its single block.
fn remove_memory_blocks_and_altmaps<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, bytes: u64) {
    for block in blocks(k, start, bytes) {
        let at = section_start(k, block);
        let taken = cpu.var_load(k.vars.block(block, Block::AltmapAlloc), Order::Plain);
        let mut altmap = Altmap { align: taken >> 32, alloc: taken & 0xffff_ffff, ..new_altmap(k, at) };
        cpu.var_store(k.vars.block(block, Block::State), 0, Order::Plain);
        arch_remove_memory(k, cpu, at, k.geometry.section_size(), &mut Storage::Altmap(&mut altmap));
        if altmap.alloc != 0 {
            cpu.warn(Invariant::SelfHostedUntouched, at.0, "remove_memory: altmap is not empty");
        }
        cpu.var_store(k.vars.block(block, Block::NrVmemmapPages), 0, Order::Plain);
        cpu.var_store(k.vars.block(block, Block::AltmapAlloc), 0, Order::Plain);
    }
}

/// `offline_and_remove_memory`: all blocks offline, then removed; blocks that were online come back if anything fails.
/// Returns how many blocks went.
///
/// # Errors
/// Those of offlining and of `remove_memory`.
pub fn offline_and_remove_memory<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, bytes: u64) -> Result<u64, Errno> {
    check_hotplug_memory_range(k, start, bytes)?;
    lock_device_hotplug(k, cpu, Path::AddRemove);
    let mut result = Ok(());
    for block in blocks(k, start, bytes) {
        if cpu.var_load(k.vars.block(block, Block::State), Order::Plain) != MEM_ONLINE {
            continue;
        }
        result = memory_block::memory_block_offline(k, cpu, block).map_err(|failure| failure.errno);
        if result.is_err() {
            break;
        }
        cpu.var_store(k.vars.block(block, Block::Reonline), 1, Order::Plain);
    }
    let result = result.and_then(|()| try_remove_memory(k, cpu, start, bytes));
    for block in blocks(k, start, bytes) {
        let was_online = cpu.var_rmw(k.vars.block(block, Block::Reonline), Rmw::Swap(0), Order::Relaxed) != 0;
        if was_online && result.is_err() {
            // `try_reonline_memory_block` ignores a failure too.
            let _ = memory_block::memory_block_online(k, cpu, block, block_zone(k, cpu, block));
        }
    }
    unlock_device_hotplug(k, cpu, Path::AddRemove);
    result.map(|()| bytes >> k.geometry.section_shift())
}

// ---- ZONE_DEVICE ----------------------------------------------------------------------------------------------------

/// Whether the range is of whole sub-sections that this machine may have.
fn is_of_subsections(k: &Kernel, start: Pa, bytes: u64) -> bool {
    let unit = vmemmap_arch::section::SUBSECTION_SIZE;
    let inside = start >= k.vars.base && start.0.saturating_add(bytes) <= k.vars.limit.0;
    inside && bytes != 0 && start.is_aligned(unit) && bytes & (unit - 1) == 0
}

/// Whether no part of the range is System RAM (`region_intersects`).
fn is_device_range<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, bytes: u64) -> bool {
    let end = start.0.saturating_add(bytes);
    let boot = k.ram().iter().any(|r| r.boot && start.0 < r.start.0 + r.bytes && r.start.0 < end);
    let (first, last) = (k.vars.section_number(start), k.vars.section_number(Pa(end - 1)));
    !boot
        && !(first..=last).any(|section| {
            let early =
                cpu.var_load(k.vars.section(section, Section::MemMap), Order::Plain) & section_flag::IS_EARLY != 0;
            !early && cpu.var_load(k.vars.block(section, Block::State), Order::Plain) != 0
        })
}

/// Whether a device has the page at `pa` (`get_dev_pagemap`): its sub-section is there and is no System RAM.
fn has_pagemap<C: Cpu>(k: &Kernel, cpu: &C, pa: Pa) -> bool {
    let unit = vmemmap_arch::section::SUBSECTION_SIZE;
    subsection_bit(k, cpu, k.vars.section_number(pa), k.geometry.pfn(pa))
        && is_device_range(k, cpu, pa.align_down(unit), unit)
}

/// `pagemap_range`: device memory of whole sub-sections, no `device_hotplug_lock`. Returns the number of sub-sections.
///
/// # Errors
/// `EINVAL`: not sub-sections. `ENOMEM`: a device has its first or its last page already, or memory is short. `ENXIO`:
/// System RAM among them. `EEXIST`: a device lies in between.
pub fn pagemap_range<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, bytes: u64) -> Result<u64, Errno> {
    cpu.label("pagemap_range");
    if !is_of_subsections(k, start, bytes) {
        return Err(Errno::EINVAL);
    }
    let last = start.plus(bytes - k.geometry.page_size());
    if has_pagemap(k, cpu, start) || has_pagemap(k, cpu, last) {
        return Err(Errno::ENOMEM);
    }
    if !is_device_range(k, cpu, start, bytes) {
        return Err(Errno::ENXIO);
    }
    if !mhp_range_allowed(k, start, bytes) {
        return Err(Errno::EINVAL);
    }
    let (pfn, nr) = (k.geometry.pfn(start), bytes >> k.geometry.page_shift());
    mem_hotplug_begin(k, cpu, Path::AddRemove);
    let added = arch_add_memory(k, cpu, start, bytes, &mut Storage::Buddy);
    if added.is_ok() {
        // `move_pfn_range_to_zone`: an early section that RAM and a device share is marked.
        let marked = for_each_section(k, pfn, nr, |pfn, _| {
            let mem_map = k.vars.section(k.vars.section_number(k.geometry.pa(pfn)), Section::MemMap);
            if cpu.var_load(mem_map, Order::Plain) & section_flag::IS_EARLY != 0 {
                cpu.var_rmw(mem_map, Rmw::FetchOr(section_flag::TAINT_ZONE_DEVICE), Order::Plain);
            }
            Ok::<(), core::convert::Infallible>(())
        });
        match marked {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }
    mem_hotplug_done(k, cpu, Path::AddRemove);
    added?;
    // `memmap_init_zone_device`
    page::init_struct_pages(k, cpu, pfn, nr, Template::FREE);
    Ok(bytes / vmemmap_arch::section::SUBSECTION_SIZE)
}

/// A user of device memory looks at a struct page that it owns: flags and reference count, as a fault on it or GUP
/// does. Returns the reference count.
///
/// # Errors
/// `ENODEV`: no such struct page.
pub fn device_use<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> Result<u64, Errno> {
    cpu.label("device_use");
    if !pfn_valid(k, cpu, pfn) {
        return Err(Errno::ENODEV);
    }
    let page = k.layout.page_va(pfn);
    page::test_flag(cpu, page, page::flag::HWPOISON);
    Ok(u64::from(page::page_ref_count(cpu, page)))
}

/// `pageunmap_range`. Returns the number of sub-sections.
///
/// # Errors
/// `EINVAL`: not sub-sections, or not a device that is there.
pub fn pageunmap_range<C: Cpu>(k: &Kernel, cpu: &C, start: Pa, bytes: u64) -> Result<u64, Errno> {
    cpu.label("pageunmap_range");
    if !is_of_subsections(k, start, bytes) || !is_device_range(k, cpu, start, bytes) {
        return Err(Errno::EINVAL);
    }
    let (pfn, nr) = (k.geometry.pfn(start), bytes >> k.geometry.page_shift());
    let unit = k.geometry.pages_per_subsection();
    if (0..nr / unit).any(|n| !pfn_valid(k, cpu, pfn.plus(n * unit))) {
        return Err(Errno::EINVAL);
    }
    mem_hotplug_begin(k, cpu, Path::AddRemove);
    // `remove_pfn_range_from_zone`
    page::init_struct_pages(k, cpu, pfn, nr, Template::POISON);
    arch_remove_memory(k, cpu, start, bytes, &mut Storage::Buddy);
    mem_hotplug_done(k, cpu, Path::AddRemove);
    Ok(bytes / vmemmap_arch::section::SUBSECTION_SIZE)
}
