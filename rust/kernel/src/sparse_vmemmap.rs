//! Populating vmemmap, what is generic of it (`mm/sparse-vmemmap.c`; kernel-semantics §3).
//!
//! Serialised by the caller: a single thread at boot, `mem_hotplug_lock` held for write afterwards. No page-table lock.

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Alloc, Cpu, Desc, Frame, FrameKind, Level, Order, Pa, Pfn, Slot, Va, Zone};

use crate::page_alloc::check_new_pages;
use crate::pgtable::{after_set_pte, leaf, next_table, offset, pgd_offset_k, read_once, set_entry, set_pte};
use crate::policy::PgdCopies;
use crate::state::Scalar;
use crate::{Errno, Kernel, pgalloc};

/// `struct vmem_altmap`: descriptor storage inside the range that is being added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Altmap {
    pub base_pfn: Pfn,
    /// Frames kept free at the start.
    pub reserve: u64,
    /// Frames that may be taken.
    pub free: u64,
    /// Frames lost to alignment.
    pub align: u64,
    /// Frames taken.
    pub alloc: u64,
}

impl Altmap {
    /// `altmap_alloc_block_buf`: bump allocation of `nr` frames, aligned to the largest power of two that divides `nr`.
    fn altmap_alloc_block_buf<C: Cpu>(&mut self, k: &Kernel, cpu: &C, nr: u64) -> Option<Frame<C::Tok>> {
        let next = self.base_pfn.0 + self.reserve + self.alloc + self.align;
        let unit = nr & nr.wrapping_neg();
        let extra = next.next_multiple_of(unit) - next;
        if nr + extra > self.free.saturating_sub(self.alloc + self.align) {
            return None;
        }
        self.alloc += nr;
        self.align += extra;
        Some(cpu.claim_self_hosted(k.geometry.pa(Pfn(next + extra)), nr))
    }
}

/// Where leaf storage comes from. Table pages never come from the altmap.
pub enum Storage<'a> {
    /// Before the page allocator is up: top down, and the frames stay `PG_reserved`.
    Memblock,
    Buddy,
    Altmap(&'a mut Altmap),
}

impl Storage<'_> {
    #[must_use]
    pub const fn is_altmap(&self) -> bool {
        matches!(self, Storage::Altmap(_))
    }
    const fn early(&self) -> bool {
        matches!(self, Storage::Memblock)
    }
}

fn vmemmap_alloc_block<C: Cpu>(k: &Kernel, cpu: &C, order: u8, kind: FrameKind, early: bool) -> Option<Frame<C::Tok>> {
    let frame = cpu.alloc(Alloc { order, kind, zone: Zone::Normal, at: None, may_sleep: true, top_down: early })?;
    if !early {
        check_new_pages(k, cpu, k.geometry.pfn(frame.pa), order);
    } else if order != 0 {
        // memblock knows no runs: frames from boot are freed singly.
        cpu.split_frame(frame, order);
    }
    Some(frame)
}

/// `vmemmap_alloc_block_buf`: 2^order frames for struct pages. Not zeroed.
pub fn vmemmap_alloc_block_buf<C: Cpu>(k: &Kernel, cpu: &C, order: u8, storage: &mut Storage) -> Option<Frame<C::Tok>> {
    match storage {
        Storage::Altmap(altmap) => altmap.altmap_alloc_block_buf(k, cpu, 1 << order),
        Storage::Memblock | Storage::Buddy => vmemmap_alloc_block(k, cpu, order, FrameKind::Vmemmap, storage.early()),
    }
}

/// `vmemmap_pgd_populate`, `vmemmap_p4d_populate`, `vmemmap_pud_populate` and, if `level` is the PTE level,
/// `vmemmap_pmd_populate`: the slot of `va` at `level`, tables above it made where an entry is none.
///
/// `Ok(None)`: a block is in the way, so `va` is mapped already.
///
/// # Errors
/// `ENOMEM`: no table page.
pub fn vmemmap_populate_to<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    va: Va,
    level: Level,
    storage: &Storage,
) -> Result<Option<Slot<C::Tok>>, Errno> {
    let mut slot = pgd_offset_k(cpu, va);
    while slot.level < level {
        let entry = read_once(cpu, slot);
        let table = if entry.desc.is_none() {
            let table = vmemmap_alloc_block(k, cpu, 0, FrameKind::Table, storage.early()).ok_or(Errno::ENOMEM)?;
            if !storage.early() && pgalloc::populate_constructs(k) {
                pgalloc::table_constructed(k, cpu);
            }
            set_entry(cpu, slot, k.geometry.descriptor(table.pa, k.features.table));
            if slot.level == k.geometry.top() {
                new_top_entry(k, cpu, va);
            }
            table
        } else {
            match next_table(cpu, entry, slot.level) {
                Some(table) => table,
                None => return Ok(None),
            }
        };
        slot = offset(cpu, table, slot.level.next(), va);
    }
    Ok(Some(slot))
}

/// A new entry of the top table: whoever has a copy of that table does not know it yet (`p4d_populate_kernel`,
/// `arch_sync_kernel_mappings`).
fn new_top_entry<C: Cpu>(k: &Kernel, cpu: &C, va: Va) {
    match k.policies.pgd_copies {
        PgdCopies::None | PgdCopies::SyncedAtOnce => {}
        PgdCopies::SyncedAfter => {
            let span = k.geometry.entry_span(k.geometry.top());
            cpu.var_store(k.vars.scalar(Scalar::TopEntryUnsynced), va.align_down(span).0, Order::Release);
        }
    }
}

/// `vmemmap_populate_address`: one page of vmemmap; a PTE that is not none is kept.
///
/// # Errors
/// `ENOMEM`; what was made before stays.
pub fn vmemmap_populate_address<C: Cpu>(k: &Kernel, cpu: &C, va: Va, storage: &mut Storage) -> Result<(), Errno> {
    match vmemmap_populate_to(k, cpu, va, Level::PTE, storage)? {
        Some(pte) => vmemmap_pte_populate(k, cpu, pte, storage),
        None => Ok(()),
    }
}

/// `vmemmap_pte_populate`.
#[inline]
fn vmemmap_pte_populate<C: Cpu>(k: &Kernel, cpu: &C, pte: Slot<C::Tok>, storage: &mut Storage) -> Result<(), Errno> {
    if read_once(cpu, pte).desc.is_none() {
        let frame = vmemmap_alloc_block_buf(k, cpu, 0, storage).ok_or(Errno::ENOMEM)?;
        set_pte(cpu, pte, leaf(&k.geometry, frame.pa, prot::PAGE_KERNEL | k.extra_prot));
    }
    Ok(())
}

/// PTEs that are at most populated by frames allocated together.
const BATCH: usize = 512;

/// `vmemmap_pte_populate` of so many PTEs that are none: the frames of them all, then the entries. Nobody else can
/// tell, under `mem_hotplug_lock`.
#[inline]
fn vmemmap_ptes_populate<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    first: Slot<C::Tok>,
    count: usize,
    early: bool,
) -> Result<(), Errno> {
    let mut frames = [Pa(0); BATCH];
    let request =
        Alloc { order: 0, kind: FrameKind::Vmemmap, zone: Zone::Normal, at: None, may_sleep: true, top_down: early };
    let mut slots = frames.iter_mut();
    let keep = |frame: Frame<C::Tok>| {
        if let Some(slot) = slots.next() {
            *slot = frame.pa;
        }
    };
    let allocated = cpu.alloc_each(request, count.min(BATCH), keep);
    if !early && k.features.stray_types() {
        frames[..allocated].iter().for_each(|&pa| check_new_pages(k, cpu, k.geometry.pfn(pa), 0));
    }
    let (bits, attributes) = (k.output, prot::PAGE_KERNEL | k.extra_prot);
    let mut frames = frames.iter();
    let entry = |_| frames.next().map_or(Desc::NONE, |&pa| bits.descriptor(pa, attributes));
    cpu.write_each(first, allocated, after_set_pte(Desc(attributes)), entry);
    if allocated == count { Ok(()) } else { Err(Errno::ENOMEM) }
}

/// `vmemmap_populate_basepages`.
///
/// # Errors
/// `ENOMEM`; nothing is undone here.
pub fn vmemmap_populate_basepages<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    start: Va,
    end: Va,
    storage: &mut Storage,
) -> Result<(), Errno> {
    cpu.label("vmemmap_populate_basepages");
    let page = k.geometry.page_size();
    let mut addr = start.align_down(page);
    while addr < end {
        // The pages of one PTE table.
        let next = k.geometry.addr_end(addr, end, Level::PMD);
        if C::KEEPS_TABLES
            && let Some(mut pte) = vmemmap_populate_to(k, cpu, addr, Level::PTE, storage)?
        {
            while addr < next {
                let left = (next.since(addr) >> k.geometry.page_shift()) as usize;
                let none = if storage.is_altmap() { 0 } else { cpu.skip_none(pte, left.min(BATCH)) };
                if none == 0 {
                    vmemmap_pte_populate(k, cpu, pte, storage)?;
                } else {
                    vmemmap_ptes_populate(k, cpu, pte, none, storage.early())?;
                }
                pte.index += none.max(1) as u16;
                addr = addr.plus(none.max(1) as u64 * page);
            }
        }
        while addr < next {
            vmemmap_populate_address(k, cpu, addr, storage)?;
            addr = addr.plus(page);
        }
    }
    Ok(())
}
