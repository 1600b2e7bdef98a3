//! Shadow pages of vmalloc areas, which come and go under `init_mm.page_table_lock` (`mm/kasan/shadow.c`; R24).
//!
//! The shadow region itself is not in the layout: its pages are taken from the middle of vmalloc.

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Alloc, Cpu, FrameKind, Kind, Level, LockId, Mode, Va, Zone};

use crate::pgtable::{clear_entry, flush_tlb_kernel_range, leaf, read_once, set_entry, walk};
use crate::policy::Kasan;
use crate::vmalloc::vmap_slot;
use crate::{Errno, Kernel};

/// Where the shadow page of that number is.
#[must_use]
pub fn shadow(k: &Kernel, page: u64) -> Va {
    let half = k.layout.vmalloc_end.since(k.layout.vmalloc_start) / 2;
    k.layout
        .vmalloc_start
        .plus(half)
        .align_down(k.geometry.entry_span(Level::PMD))
        .plus(page << k.geometry.page_shift())
}

/// `kasan_populate_vmalloc_pte`: a page, unless there is one. The first test is made without the lock, and again under
/// it.
///
/// # Errors
/// `ENOMEM`: no frame, or no table.
pub fn kasan_populate_vmalloc_pte<C: Cpu>(k: &Kernel, cpu: &C, at: Va) -> Result<(), Errno> {
    let pte = vmap_slot(k, cpu, at, Level::PTE)?;
    cpu.label("kasan_populate_vmalloc_pte");
    if !read_once(cpu, pte).desc.is_none() {
        return Ok(());
    }
    let request =
        Alloc { order: 0, kind: FrameKind::Data, zone: Zone::Normal, at: None, may_sleep: true, top_down: false };
    let page = cpu.alloc(request).ok_or(Errno::ENOMEM)?;
    cpu.acquire(LockId::InitMmPageTable, Mode::Write);
    let empty = read_once(cpu, pte).desc.is_none();
    if empty {
        set_entry(cpu, pte, leaf(&k.geometry, page.pa, prot::PAGE_KERNEL | k.extra_prot));
    }
    cpu.release(LockId::InitMmPageTable, Mode::Write);
    if !empty {
        cpu.free(page, 0, FrameKind::Data);
    }
    Ok(())
}

/// `kasan_depopulate_vmalloc_pte`, and the flush that its caller makes. The page is freed under the lock.
pub fn kasan_depopulate_vmalloc_pte<C: Cpu>(k: &Kernel, cpu: &C, at: Va) {
    cpu.label("kasan_depopulate_vmalloc_pte");
    let (pte, before) = walk(cpu, at);
    if pte.level != Level::PTE {
        return;
    }
    cpu.acquire(LockId::InitMmPageTable, Mode::Write);
    let now = read_once(cpu, pte);
    let read = match k.policies.kasan {
        Kasan::Locked => now,
        Kasan::Snapshot => before,
    };
    if !now.desc.is_none() {
        clear_entry(cpu, pte);
        if let Kind::Page(pa) = k.geometry.kind(read.desc, pte.level) {
            cpu.free(cpu.frame_of(read, pa), 0, FrameKind::Data);
        }
    }
    cpu.release(LockId::InitMmPageTable, Mode::Write);
    flush_tlb_kernel_range(k, cpu, at..at.plus(k.geometry.page_size()));
}
