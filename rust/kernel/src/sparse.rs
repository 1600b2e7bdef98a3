//! The state of sections: which are there, and which sub-sections of each (`mm/sparse.c`; kernel-semantics §5.1 to
//! §5.3).
//!
//! Serialised by the caller: a single thread at boot, `mem_hotplug_lock` held for write afterwards.

use vmemmap_arch::{Cpu, Invariant, Order, Pa, Pfn, Rmw, Template, Until, Va};

use crate::policy::{PgdCopies, SectionUsage};
use crate::sparse_vmemmap::Storage;
use crate::state::{Scalar, Section, USAGE_BOOT, section_flag};
use crate::{Errno, Kernel, mmu, mutants, page};

/// `__populate_section_memmap`: map the struct pages of [pfn, pfn + nr); their VA.
///
/// # Errors
/// `EINVAL`: not sub-section aligned (the kernel warns and returns NULL). `ENOMEM`: what was made stays.
pub fn __populate_section_memmap<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    pfn: Pfn,
    nr: u64,
    storage: &mut Storage,
) -> Result<Va, Errno> {
    let unit = k.geometry.pages_per_subsection();
    if !pfn.is_aligned(unit) || nr & (unit - 1) != 0 {
        cpu.warn(
            Invariant::SubsectionMapExact,
            k.layout.page_va(pfn).0,
            "__populate_section_memmap: range is not sub-section aligned",
        );
        return Err(Errno::EINVAL);
    }
    let start = k.layout.page_va(pfn);
    mmu::vmemmap_populate(k, cpu, start, k.layout.page_va(pfn.plus(nr)), storage)?;
    Ok(start)
}

/// `arch_sync_kernel_mappings`, after populate: every copy has every entry.
fn sync_top_entries<C: Cpu>(k: &Kernel, cpu: &C) {
    match k.policies.pgd_copies {
        PgdCopies::None | PgdCopies::SyncedAtOnce => {}
        PgdCopies::SyncedAfter => cpu.var_store(k.vars.scalar(Scalar::TopEntryUnsynced), 0, Order::Release),
    }
}

/// `__init_single_page` by a task whose mm is not init_mm, as far as it is the first access: through the copy of the
/// top table that the mm has.
fn first_access_in_another_mm<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) {
    match k.policies.pgd_copies {
        PgdCopies::None | PgdCopies::SyncedAtOnce => {}
        PgdCopies::SyncedAfter => {
            let va = k.layout.page_va(pfn);
            let missing = cpu.var_load(k.vars.scalar(Scalar::TopEntryUnsynced), Order::Acquire);
            if missing != 0 && va.align_down(k.geometry.entry_span(k.geometry.top())).0 == missing {
                cpu.warn(
                    Invariant::AlwaysTranslates,
                    va.0,
                    "__init_single_page: the top table of this mm has not got the entry that init_mm's has",
                );
            }
        }
    }
}

/// `subsection_mask_set`: the four words of a mask for [pfn, pfn + nr) within its section.
fn subsection_mask_set(k: &Kernel, pfn: Pfn, nr: u64) -> [u64; 4] {
    let unit = k.geometry.pages_per_subsection();
    let first = (pfn.0 & (k.geometry.pages_per_section() - 1)) / unit;
    let mut mask = [0u64; 4];
    for bit in first..(first + nr.div_ceil(unit)).min(k.geometry.subsections_per_section()) {
        mask[(bit / 64) as usize] |= 1 << (bit % 64);
    }
    mask
}

/// `subsection_map_init` for one section, or part of one.
pub fn subsection_map_init<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn, nr: u64) {
    let section = k.vars.section_number(k.geometry.pa(pfn));
    for (word, bits) in (0..).zip(subsection_mask_set(k, pfn, nr)) {
        if bits != 0 {
            cpu.var_rmw(k.vars.subsection_map(section, word), Rmw::FetchOr(bits), Order::Plain);
        }
    }
}

/// `fill_subsection_map`.
///
/// # Errors
/// `EINVAL`: nothing in the range. `EEXIST`: some sub-section is there already.
fn fill_subsection_map<C: Cpu>(k: &Kernel, cpu: &C, section: u32, pfn: Pfn, nr: u64) -> Result<(), Errno> {
    let mask = subsection_mask_set(k, pfn, nr);
    if mask == [0; 4] {
        return Err(Errno::EINVAL);
    }
    let mut map = [0u64; 4];
    for (word, now) in (0..).zip(&mut map) {
        *now = cpu.var_load(k.vars.subsection_map(section, word), Order::Plain);
    }
    if map.iter().zip(mask).any(|(now, bits)| now & bits != 0) {
        return Err(Errno::EEXIST);
    }
    for (word, (now, bits)) in (0..).zip(map.iter().zip(mask)) {
        if bits != 0 {
            cpu.var_store(k.vars.subsection_map(section, word), now | bits, Order::Plain);
        }
    }
    Ok(())
}

/// `clear_subsection_map` and `is_subsection_map_empty`: whether no bit is left; `None` if a bit of the range was clear
/// already.
fn clear_subsection_map<C: Cpu>(k: &Kernel, cpu: &C, section: u32, pfn: Pfn, nr: u64) -> Option<bool> {
    let mask = subsection_mask_set(k, pfn, nr);
    let mut left = 0;
    for (word, bits) in (0..).zip(mask) {
        let now = cpu.var_load(k.vars.subsection_map(section, word), Order::Plain);
        if now & bits != bits {
            return None;
        }
        left |= now ^ bits;
    }
    for (word, bits) in (0..).zip(mask) {
        if bits != 0 {
            let var = k.vars.subsection_map(section, word);
            cpu.var_store(var, cpu.var_load(var, Order::Plain) ^ bits, Order::Plain);
        }
    }
    Some(left == 0)
}

/// `memmap_pages_add`, `memmap_boot_pages_add`, where they are counted.
pub fn memmap_pages_add<C: Cpu>(k: &Kernel, cpu: &C, counter: Scalar, pages: i64) {
    if k.features.memmap_counters {
        cpu.var_add(k.vars.scalar(counter), pages, Order::Relaxed);
    }
}

fn vmemmap_pages(k: &Kernel, nr: u64) -> i64 {
    nr.div_ceil(k.geometry.struct_pages_per_page()) as i64
}

/// `section_activate`.
///
/// # Errors
/// `EINVAL`, `EEXIST` of `fill_subsection_map`; `ENOMEM`, with the range deactivated again.
fn section_activate<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn, nr: u64, storage: &mut Storage) -> Result<(), Errno> {
    cpu.label("section_activate");
    let section = k.vars.section_number(k.geometry.pa(pfn));
    let usage = k.vars.section(section, Section::Usage);
    let fresh = cpu.var_load(usage, Order::Plain) == 0;
    if fresh {
        cpu.var_store(usage, next_usage(k, cpu, section), Order::Plain);
    }
    if let Err(errno) = fill_subsection_map(k, cpu, section, pfn, nr) {
        if fresh {
            // Nobody was told of it: the section is not valid.
            cpu.var_store(usage, 0, Order::Plain);
        }
        return Err(errno);
    }
    let flags = cpu.var_load(k.vars.section(section, Section::MemMap), Order::Plain);
    if nr < k.geometry.pages_per_section() && flags & section_flag::IS_EARLY != 0 {
        // The memmap of an early section is there in full.
        return Ok(());
    }
    match __populate_section_memmap(k, cpu, pfn, nr, storage) {
        Ok(_) => {
            memmap_pages_add(k, cpu, Scalar::NrMemmapPages, vmemmap_pages(k, nr));
            Ok(())
        }
        Err(_) => {
            memmap_pages_add(k, cpu, Scalar::NrMemmapPages, vmemmap_pages(k, nr));
            let bits = mutants::subsection_map_early(k).then(|| subsection_mask_set(k, pfn, nr));
            section_deactivate(k, cpu, pfn, nr, storage);
            if let Some(bits) = bits {
                for (word, bits) in (0..).zip(bits) {
                    cpu.var_rmw(k.vars.subsection_map(section, word), Rmw::FetchOr(bits), Order::Plain);
                }
            }
            Err(Errno::ENOMEM)
        }
    }
}

/// Number of a `mem_section_usage` that is allocated now.
fn next_usage<C: Cpu>(k: &Kernel, cpu: &C, section: u32) -> u64 {
    let last = |which| cpu.var_load(k.vars.section(section, which), Order::Plain);
    last(Section::UsageFreed).max(last(Section::UsageQueued)).max(USAGE_BOOT) + 1
}

/// What `section_deactivate` does with a section of which nothing is left: no longer valid, and its `usage` freed
/// unless it is from boot. Invalid first (R18), and `usage` by `kfree_rcu`, whose work is `kfree_rcu_work`.
fn invalidate_section<C: Cpu>(k: &Kernel, cpu: &C, section: u32, flags: u64) {
    let invalidate = || {
        let mem_map = k.vars.section(section, Section::MemMap);
        cpu.var_store(mem_map, flags & !section_flag::HAS_MEM_MAP, Order::Plain);
    };
    let (first, gone) = match k.policies.section_usage {
        SectionUsage::Kernel | SectionUsage::NoNullTest => (true, Section::UsageQueued),
        SectionUsage::NoGrace => (true, Section::UsageFreed),
        SectionUsage::FreeFirst => (false, Section::UsageFreed),
    };
    if first {
        invalidate();
    }
    let usage = k.vars.section(section, Section::Usage);
    let object = cpu.var_load(usage, Order::Plain);
    if object != USAGE_BOOT {
        cpu.var_store(k.vars.section(section, gone), object, Order::Plain);
        cpu.var_store(usage, 0, Order::Plain);
    }
    if !first {
        invalidate();
    }
}

/// Worker: waits until a `usage` of the section at `start` is handed to `kfree_rcu`, and for the grace period after
/// that, then frees it. Without it the object stays queued, as it does until the grace period ends. Returns whether one
/// was freed.
///
/// # Errors
/// `EINVAL`: no such section.
pub fn kfree_rcu_work<C: Cpu>(k: &Kernel, cpu: &C, start: Pa) -> Result<u64, Errno> {
    cpu.label("kfree_rcu_work");
    if !k.vars.contains(start) {
        return Err(Errno::EINVAL);
    }
    let section = k.vars.section_number(start);
    let object = cpu.wait_until(k.vars.section(section, Section::UsageQueued), Until::Differs(0));
    let freed = k.vars.section(section, Section::UsageFreed);
    if cpu.var_load(freed, Order::Plain) >= object {
        return Ok(0);
    }
    cpu.synchronize_rcu();
    cpu.var_store(freed, object, Order::Plain);
    Ok(1)
}

/// `section_deactivate`: sub-sections out, vmemmap down. `usage` goes by `kfree_rcu`, the memmap without a grace
/// period.
pub fn section_deactivate<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn, nr: u64, storage: &mut Storage) {
    cpu.label("section_deactivate");
    let section = k.vars.section_number(k.geometry.pa(pfn));
    let mem_map = k.vars.section(section, Section::MemMap);
    let flags = cpu.var_load(mem_map, Order::Plain);
    let early = flags & section_flag::IS_EARLY != 0;
    let Some(empty) = clear_subsection_map(k, cpu, section, pfn, nr) else {
        cpu.warn(
            Invariant::SubsectionMapExact,
            k.layout.page_va(pfn).0,
            "section_deactivate: sub-section already deactivated",
        );
        return;
    };
    if empty {
        // Before the memmap goes, so that pfn_valid fails first.
        invalidate_section(k, cpu, section, flags);
    }
    if !early {
        memmap_pages_add(k, cpu, Scalar::NrMemmapPages, -vmemmap_pages(k, nr));
        mmu::vmemmap_free(k, cpu, k.layout.page_va(pfn), k.layout.page_va(pfn.plus(nr)), storage);
    } else if empty {
        let pages = k.geometry.pages_per_section();
        let start = pfn.align_down(pages);
        memmap_pages_add(k, cpu, Scalar::NrMemmapBootPages, -vmemmap_pages(k, pages));
        mmu::vmemmap_free(k, cpu, k.layout.page_va(start), k.layout.page_va(start.plus(pages)), &mut Storage::Buddy);
    }
    if empty {
        cpu.var_store(mem_map, 0, Order::Plain);
    }
}

/// `sparse_add_section`: one section, or sub-sections of one.
///
/// # Errors
/// Those of `section_activate`.
pub fn sparse_add_section<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn, nr: u64, storage: &mut Storage) -> Result<(), Errno> {
    section_activate(k, cpu, pfn, nr, storage)?;
    cpu.label("sparse_add_section");
    first_access_in_another_mm(k, cpu, pfn);
    sync_top_entries(k, cpu);
    page::init_struct_pages(k, cpu, pfn, nr, Template::POISON);
    let mem_map = k.vars.section(k.vars.section_number(k.geometry.pa(pfn)), Section::MemMap);
    let flags = cpu.var_load(mem_map, Order::Plain);
    cpu.var_store(mem_map, flags | section_flag::MARKED_PRESENT | section_flag::HAS_MEM_MAP, Order::Release);
    Ok(())
}
