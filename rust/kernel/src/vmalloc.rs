//! vmalloc mappings, the contrast case: tables that are built at run time, stay when empty, and go only when a huge
//! mapping takes their place (`mm/vmalloc.c`, `arch/arm64/mm/mmu.c: pmd_free_pte_page`; races R7).

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{
    Alloc, Attr, Cpu, Frame, FrameKind, FrameList, Kind, Level, LockId, Mode, Order, Rmw, Slot, Va, Zone,
};

use crate::mutants;
use crate::pgtable::{
    __flush_tlb_kernel_pgtable, clear_entry, flush_tlb_kernel_range, leaf, next_table, offset, pgd_offset_k, read_once,
    set_entry,
};
use crate::policy::VmapLock;
use crate::state::Scalar;
use crate::static_key::static_branch_unlikely;
use crate::{Errno, Kernel};

/// Windows that the vmalloc area is divided into, one for each CPU.
const MAX_VMALLOC_CPUS: u64 = 16;

/// Pages of a mapping that are used, about.
const MAX_USES: usize = 16;

fn data<C: Cpu>(cpu: &C, order: u8) -> Option<Frame<C::Tok>> {
    cpu.alloc(Alloc { order, kind: FrameKind::Data, zone: Zone::Normal, at: None, may_sleep: true, top_down: false })
}

/// `alloc_vmap_area`: `bytes` of VA in the upper half of the vmalloc area, with a guard page. Each CPU has a window of
/// its own, which wraps, so that addresses and their tables are used again but never while they are in use.
///
/// # Errors
/// `EINVAL`: more than a window holds.
fn alloc_vmap_area<C: Cpu>(k: &Kernel, cpu: &C, bytes: u64, align: u64) -> Result<Va, Errno> {
    let half = k.layout.vmalloc_end.since(k.layout.vmalloc_start) / 2;
    let block = k.geometry.entry_span(Level::PMD);
    let base = (k.layout.vmalloc_start.0 + half).next_multiple_of(block);
    let window = (half / MAX_VMALLOC_CPUS).min(4 * block.max(bytes.next_multiple_of(block))) / block * block;
    let needed = bytes + k.geometry.page_size();
    if needed > window {
        return Err(Errno::EINVAL);
    }
    let next = k.vars.scalar(Scalar::VmallocNext);
    cpu.acquire(LockId::VmapArea, Mode::Write);
    let mut start = cpu.var_load(next, Order::Plain).next_multiple_of(align);
    if start + needed > window {
        start = 0;
    }
    cpu.var_store(next, start + needed, Order::Plain);
    cpu.release(LockId::VmapArea, Mode::Write);
    Ok(Va(base + u64::from(cpu.id()) % MAX_VMALLOC_CPUS * (half / MAX_VMALLOC_CPUS / block * block) + start))
}

/// `pud_alloc`, `pmd_alloc`, `pte_alloc_kernel`: the slot of `va` at `level`. A new table is linked under
/// `init_mm.page_table_lock`, unless somebody else was first.
pub(crate) fn vmap_slot<C: Cpu>(k: &Kernel, cpu: &C, va: Va, level: Level) -> Result<Slot<C::Tok>, Errno> {
    let mut slot = pgd_offset_k(cpu, va);
    while slot.level < level {
        let entry = read_once(cpu, slot);
        let table = match next_table(cpu, entry, slot.level) {
            Some(table) => table,
            None => {
                let request = Alloc {
                    order: 0,
                    kind: FrameKind::Table,
                    zone: Zone::Normal,
                    at: None,
                    may_sleep: true,
                    top_down: false,
                };
                let fresh = cpu.alloc(request).ok_or(Errno::ENOMEM)?;
                cpu.acquire(LockId::InitMmPageTable, Mode::Write);
                let now = read_once(cpu, slot);
                let theirs = next_table(cpu, now, slot.level);
                if theirs.is_none() {
                    set_entry(cpu, slot, k.geometry.descriptor(fresh.pa, k.features.table));
                }
                cpu.release(LockId::InitMmPageTable, Mode::Write);
                match theirs {
                    Some(table) => {
                        cpu.free(fresh, 0, FrameKind::Table);
                        table
                    }
                    None => fresh,
                }
            }
        };
        slot = offset(cpu, table, slot.level.next(), va);
    }
    Ok(slot)
}

/// `vmap_try_huge_pmd`: a block, if the range, the granule and the frames allow one. An empty PTE table in its place is
/// freed first, under `mmap_read_trylock(&init_mm)`; if the lock is not had, the mapping is made of pages.
///
/// arm64 kernels built with PTDUMP_DEBUGFS never come here (`arch_vmap_pmd_supported`, 6.1 and 6.12).
fn vmap_try_huge_pmd<C: Cpu>(k: &Kernel, cpu: &C, va: Va, frame: Frame<C::Tok>) -> Result<bool, Errno> {
    let pmd = vmap_slot(k, cpu, va, Level::PMD)?;
    let entry = read_once(cpu, pmd);
    let table = next_table(cpu, entry, Level::PMD);
    let locked = table.is_some() && vmap_lock(k.policies.vmap).trylock;
    if locked && !cpu.try_acquire(LockId::InitMmMmap, Mode::Read) {
        return Ok(false);
    }
    if let Some(table) = table {
        pmd_free_pte_page(k, cpu, pmd, table, va);
        cpu.label("vmap_try_huge_pmd");
    }
    set_block(k, cpu, pmd, frame);
    if locked {
        cpu.release(LockId::InitMmMmap, Mode::Read);
    }
    Ok(true)
}

/// Where `mmap_read_lock(&init_mm)` is taken.
#[derive(Default)]
struct MmapRead {
    /// By trylock, around clear, free and set.
    trylock: bool,
    /// Around the clear.
    clear: bool,
    /// Around the clear, if a dump is under way before it.
    clear_if_dumping: bool,
    /// For a moment before the free, if a dump is under way then.
    wait_if_dumping: bool,
}

#[inline]
fn vmap_lock(policy: VmapLock) -> MmapRead {
    match policy {
        VmapLock::TryLock => MmapRead { trylock: true, ..MmapRead::default() },
        VmapLock::None => MmapRead::default(),
        VmapLock::ClearLocked => MmapRead { clear: true, ..MmapRead::default() },
        VmapLock::StaticKey => MmapRead { wait_if_dumping: true, ..MmapRead::default() },
        VmapLock::StaticKeyFirst => MmapRead { clear_if_dumping: true, ..MmapRead::default() },
        VmapLock::Both => MmapRead { trylock: true, wait_if_dumping: true, ..MmapRead::default() },
    }
}

/// `pmd_free_pte_page` (`arch/arm64/mm/mmu.c`): unlink the table, invalidate walk caches, free it. Of the policies,
/// those that were proposed for arm64 take their lock in here.
fn pmd_free_pte_page<C: Cpu>(k: &Kernel, cpu: &C, pmd: Slot<C::Tok>, table: Frame<C::Tok>, va: Va) {
    cpu.label("pmd_free_pte_page");
    let policy = vmap_lock(k.policies.vmap);
    let dumping = || static_branch_unlikely(k, cpu, Scalar::PtdumpLockKey);
    let around_clear = policy.clear || policy.clear_if_dumping && dumping();
    if around_clear {
        cpu.acquire(LockId::InitMmMmap, Mode::Read);
    }
    clear_entry(cpu, pmd);
    if around_clear {
        cpu.release(LockId::InitMmMmap, Mode::Read);
    }
    __flush_tlb_kernel_pgtable(cpu, va);
    if policy.wait_if_dumping && dumping() {
        // Waits for the dump that may have found the table; a later one cannot.
        cpu.acquire(LockId::InitMmMmap, Mode::Read);
        cpu.release(LockId::InitMmMmap, Mode::Read);
    }
    cpu.free(table, 0, FrameKind::Table);
}

fn set_block<C: Cpu>(k: &Kernel, cpu: &C, pmd: Slot<C::Tok>, frame: Frame<C::Tok>) {
    let attributes = (prot::PAGE_KERNEL | k.extra_prot) & !Attr::TABLE_BIT.bits();
    set_entry(cpu, pmd, leaf(&k.geometry, frame.pa, attributes));
}

/// `vunmap_range`: clear by exchange, one flush, then free the frames. Tables stay.
fn vunmap_range<C: Cpu>(k: &Kernel, cpu: &C, start: Va, bytes: u64) {
    cpu.label("vunmap_range");
    let end = start.plus(bytes);
    let (mut small, mut huge) = (FrameList::new(), FrameList::new());
    let mut addr = start;
    let mut last: Option<Slot<C::Tok>> = None;
    while addr < end {
        let (slot, entry) =
            match last.filter(|at| at.level == Level::PTE && !addr.is_aligned(k.geometry.entry_span(Level::PMD))) {
                // `vunmap_pte_range` looks its table up once.
                Some(at) => {
                    let slot = Slot { index: at.index + 1, ..at };
                    (slot, read_once(cpu, slot))
                }
                None => crate::pgtable::walk(cpu, addr),
            };
        last = Some(slot);
        if let Kind::Page(pa) | Kind::Block(pa) = k.geometry.kind(entry.desc, slot.level) {
            let old = cpu.swap(slot, vmemmap_arch::Desc::NONE, Order::Relaxed);
            cpu.list_push(if slot.level == Level::PTE { &mut small } else { &mut huge }, cpu.frame_of(old, pa));
        }
        addr = addr.plus(k.geometry.entry_span(slot.level));
    }
    flush_tlb_kernel_range(k, cpu, start..end);
    while let Some(frame) = cpu.list_pop(&mut small) {
        cpu.free(frame, 0, FrameKind::Data);
    }
    let order = (k.geometry.level_shift(Level::PMD) - k.geometry.page_shift()) as u8;
    while let Some(frame) = cpu.list_pop(&mut huge) {
        cpu.free(frame, order, FrameKind::Data);
    }
}

/// `vmalloc` of `pages` pages, a use of each (of some 16 if there are more), and `vfree`. Returns the number of pages
/// mapped.
///
/// # Errors
/// `EINVAL`: no pages, or more than fit. `ENOMEM`: frames or tables; what was mapped is unmapped again.
pub fn vmalloc_cycle<C: Cpu>(k: &Kernel, cpu: &C, pages: u64) -> Result<u64, Errno> {
    let (start, bytes) = vmalloc(k, cpu, pages)?;
    let page_size = k.geometry.page_size();
    for n in (0..pages).step_by((pages as usize / MAX_USES).max(1)) {
        cpu.rmw(start.plus(n * page_size), Rmw::FetchAdd(1), Order::Relaxed);
    }
    vunmap_range(k, cpu, start, bytes);
    Ok(pages)
}

/// `vmalloc` of `pages` pages, which stay mapped; their address.
///
/// # Errors
/// Those of `vmalloc_cycle`.
pub fn vmalloc_and_keep<C: Cpu>(k: &Kernel, cpu: &C, pages: u64) -> Result<u64, Errno> {
    vmalloc(k, cpu, pages).map(|(start, _)| start.0)
}

/// Address and bytes of a fresh mapping.
fn vmalloc<C: Cpu>(k: &Kernel, cpu: &C, pages: u64) -> Result<(Va, u64), Errno> {
    cpu.label("vmalloc");
    let page_size = k.geometry.page_size();
    let block = k.geometry.entry_span(Level::PMD);
    let bytes = pages.checked_mul(page_size).filter(|&bytes| bytes != 0 && bytes >> 46 == 0).ok_or(Errno::EINVAL)?;
    let align = if bytes >= block { block } else { page_size };
    let start = alloc_vmap_area(k, cpu, bytes, align)?;
    let mapped = vmap_pages_range(k, cpu, start, bytes);
    if mapped.is_err() {
        vunmap_range(k, cpu, start, bytes);
    }
    mapped.map(|()| (start, bytes))
}

/// `vmap_pte_range`: a run that was to be a block, by pages.
///
/// # Errors
/// `ENOMEM`: no table; the run is free again.
fn vmap_pte_range<C: Cpu>(k: &Kernel, cpu: &C, va: Va, run: Frame<C::Tok>, order: u8) -> Result<(), Errno> {
    cpu.label("vmap_pte_range");
    let slot = match vmap_slot(k, cpu, va, Level::PTE) {
        Ok(slot) => slot,
        Err(errno) => {
            cpu.free(run, order, FrameKind::Data);
            return Err(errno);
        }
    };
    cpu.split_frame(run, order);
    for n in 0..1u16 << order {
        let pa = run.pa.plus(u64::from(n) * k.geometry.page_size());
        set_entry(cpu, Slot { index: slot.index + n, ..slot }, leaf(&k.geometry, pa, prot::PAGE_KERNEL | k.extra_prot));
    }
    Ok(())
}

/// `vmap_pages_range`: blocks where they fit, else pages.
fn vmap_pages_range<C: Cpu>(k: &Kernel, cpu: &C, start: Va, bytes: u64) -> Result<(), Errno> {
    let block = k.geometry.entry_span(Level::PMD);
    let order = (k.geometry.level_shift(Level::PMD) - k.geometry.page_shift()) as u8;
    let end = start.plus(bytes);
    let mut addr = start;
    let mut last: Option<Slot<C::Tok>> = None;
    while addr < end {
        let huge = addr.is_aligned(block) && end.since(addr) >= block && k.geometry.top() < Level::PMD;
        if let Some(frame) = if huge { data(cpu, order) } else { None } {
            match vmap_try_huge_pmd(k, cpu, addr, frame) {
                Ok(true) => {}
                Ok(false) => vmap_pte_range(k, cpu, addr, frame, order)?,
                Err(errno) => {
                    cpu.free(frame, order, FrameKind::Data);
                    return Err(errno);
                }
            }
            addr = addr.plus(block);
            continue;
        }
        let pte = match last.filter(|_| !addr.is_aligned(block)) {
            // As `vmap_pages_pte_range` does, the table is looked up once.
            Some(at) => Slot { index: at.index + 1, ..at },
            None => vmap_slot(k, cpu, addr, Level::PTE)?,
        };
        last = Some(pte);
        let frame = data(cpu, 0).ok_or(Errno::ENOMEM)?;
        mutants::vmap_entry(k, cpu, pte, leaf(&k.geometry, frame.pa, prot::PAGE_KERNEL | k.extra_prot));
        addr = addr.plus(k.geometry.page_size());
    }
    Ok(())
}
