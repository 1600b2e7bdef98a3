//! Store and read primitives, table offsets, TLB flushes (`arch/arm64/include/asm/pgtable.h`, `tlbflush.h`;
//! kernel-semantics §1.5, §10.1).
//!
//! `one-snapshot`: an entry is read once into an `Entry`, and every decision is made on that value.

use vmemmap_arch::{
    Attr, Barrier, Cpu, Desc, Entry, Frame, Geometry, Kind, Level, LockId, Mode, Order, Pa, Slot, Tlbi, Va, VaRange,
};

use vmemmap_arch::geometry::OutputFormat;

use crate::Kernel;
use crate::policy::{TlbRange, TlbiErratum};

/// Slot of `va` in the table `table` of `level`: `pte_offset_kernel`, `pmd_offset` and so on.
#[inline(always)]
pub fn offset<C: Cpu>(cpu: &C, table: Frame<C::Tok>, level: Level, va: Va) -> Slot<C::Tok> {
    Slot { table: table.pa, index: cpu.geometry().index(va, level), level, tok: table.tok }
}

/// `pgd_offset_k`: the top-level slot of a kernel address.
#[inline]
pub fn pgd_offset_k<C: Cpu>(cpu: &C, va: Va) -> Slot<C::Tok> {
    offset(cpu, cpu.root(), cpu.geometry().top(), va)
}

/// The next table, if the entry is a table descriptor.
#[inline]
pub fn next_table<C: Cpu>(cpu: &C, entry: Entry<C::Tok>, level: Level) -> Option<Frame<C::Tok>> {
    match cpu.geometry().kind(entry.desc, level) {
        Kind::Table(pa) => Some(cpu.frame_of(entry, pa)),
        Kind::None | Kind::Invalid | Kind::Block(_) | Kind::Page(_) | Kind::Reserved => None,
    }
}

/// Software walk of `va` to where it ends: the last slot and what was read there. No lock.
pub fn walk<C: Cpu>(cpu: &C, va: Va) -> (Slot<C::Tok>, Entry<C::Tok>) {
    let mut slot = pgd_offset_k(cpu, va);
    loop {
        let entry = read_once(cpu, slot);
        match next_table(cpu, entry, slot.level) {
            Some(table) => slot = offset(cpu, table, slot.level.next(), va),
            None => return (slot, entry),
        }
    }
}

/// READ_ONCE of an entry.
#[inline]
pub fn read_once<C: Cpu>(cpu: &C, at: Slot<C::Tok>) -> Entry<C::Tok> {
    cpu.read(at, Order::Plain)
}

/// `set_pte`, `set_pmd`, `set_pud`, `set_p4d`: WRITE_ONCE, then the barriers that the level and value ask for.
///
/// PTE: `dsb(ishst); isb()` if the new value is valid and not user. PMD, PUD: if the new value is valid. P4D and above:
/// always. A slot in `swapper_pg_dir` is stored under `swapper_pgdir_lock` and followed by a flush (`set_swapper_pgd`).
pub fn set_entry<C: Cpu>(cpu: &C, at: Slot<C::Tok>, new: Desc) {
    if at.level == cpu.geometry().top() {
        set_swapper_pgd(cpu, at, new);
        return;
    }
    cpu.write(at, new, Order::Plain);
    let barrier = match at.level.0 {
        3 => new.is_valid_not_user(),
        1 | 2 => new.is_valid(),
        _ => true,
    };
    if barrier {
        cpu.barrier(Barrier::DsbIshst);
        cpu.barrier(Barrier::Isb);
    }
}

/// `set_pte`: `set_entry` without the tests for the levels above.
#[inline(always)]
pub fn set_pte<C: Cpu>(cpu: &C, at: Slot<C::Tok>, new: Desc) {
    cpu.write(at, new, Order::Plain);
    if new.is_valid_not_user() {
        cpu.barrier(Barrier::DsbIshst);
        cpu.barrier(Barrier::Isb);
    }
}

/// The barriers of `set_pte`, if such an entry asks for any.
#[inline]
#[must_use]
pub const fn after_set_pte(new: Desc) -> &'static [Barrier] {
    if new.is_valid_not_user() { &[Barrier::DsbIshst, Barrier::Isb] } else { &[] }
}

/// `set_swapper_pgd`: the top table is written through a fixmap slot, whose unmapping flushes.
fn set_swapper_pgd<C: Cpu>(cpu: &C, at: Slot<C::Tok>, new: Desc) {
    cpu.acquire(LockId::SwapperPgdir, Mode::Write);
    cpu.write(at, new, Order::Plain);
    cpu.barrier(Barrier::DsbIshst);
    cpu.barrier(Barrier::DsbIsh);
    cpu.barrier(Barrier::Isb);
    cpu.release(LockId::SwapperPgdir, Mode::Write);
}

/// `pte_clear`, `pmd_clear`, `pud_clear`: store 0 without a barrier; the flush that follows supplies it.
/// `p4d_clear` and a slot of `swapper_pg_dir` have their own.
pub fn clear_entry<C: Cpu>(cpu: &C, at: Slot<C::Tok>) {
    if at.level == cpu.geometry().top() || at.level <= Level::P4D {
        set_entry(cpu, at, Desc::NONE);
    } else {
        cpu.write(at, Desc::NONE, Order::Plain);
    }
}

/// `flush_tlb_all`.
pub fn flush_tlb_all<C: Cpu>(cpu: &C) {
    cpu.barrier(Barrier::DsbIshst);
    cpu.tlbi(Tlbi::Vmalle1is);
    cpu.barrier(Barrier::DsbIsh);
    cpu.barrier(Barrier::Isb);
}

/// `flush_tlb_kernel_range`: last-level entries only, one VAALE1IS a page; everything if the range is above
/// `MAX_TLBI_OPS` (6.1) = `MAX_DVM_OPS` (6.12) pages. With FEAT_TLBIRANGE 7.x has range operations and another limit.
pub fn flush_tlb_kernel_range<C: Cpu>(k: &Kernel, cpu: &C, range: VaRange) {
    match k.policies.tlbi_erratum {
        TlbiErratum::None => flush_range(k, cpu, range, true),
        TlbiErratum::EarlyCompletion => flush_range(k, cpu, range, false),
        TlbiErratum::Repeat => {
            flush_range(k, cpu, range.clone(), false);
            flush_range(k, cpu, range, true);
        }
    }
}

/// The invalidates, and the barriers around them. Not to complete them is what the erratum comes to: its DSB is done
/// while another CPU uses the entry.
#[inline]
fn flush_range<C: Cpu>(k: &Kernel, cpu: &C, range: VaRange, completes: bool) {
    let g = *cpu.geometry();
    let bytes = range.end.since(range.start);
    match k.policies.tlb_range {
        TlbRange::Present if k.features.range_tlbi => return flush_tlb_range_ops(cpu, range, completes),
        TlbRange::Present | TlbRange::Absent => {}
    }
    let limit = (g.entries() as u64) << g.page_shift();
    if bytes > limit || bytes == limit && k.features.flush_all_at_limit {
        flush_tlb_all(cpu);
        return;
    }
    cpu.barrier(Barrier::DsbIshst);
    let mut addr = range.start;
    while addr != range.end {
        let left = range.end.since(addr) >> g.page_shift();
        addr = addr.plus((cpu.skip_tlbi(addr, left as usize) as u64) << g.page_shift());
        if addr != range.end {
            cpu.tlbi(Tlbi::Vaale1is(addr));
            addr = addr.plus(g.page_size());
        }
    }
    if completes {
        cpu.barrier(Barrier::DsbIsh);
    }
    cpu.barrier(Barrier::Isb);
}

/// `MAX_TLBI_RANGE_PAGES`.
const MAX_TLBI_RANGE_PAGES: u64 = 1 << 21;

/// `__flush_tlb_range_op`: the largest power-of-two chunks first, at most 32 of each; an odd last page, and with LPA2
/// what comes before a 64 KiB boundary, singly.
fn flush_tlb_range_ops<C: Cpu>(cpu: &C, range: VaRange, completes: bool) {
    let g = *cpu.geometry();
    let mut pages = range.end.since(range.start) >> g.page_shift();
    if pages > MAX_TLBI_RANGE_PAGES {
        flush_tlb_all(cpu);
        return;
    }
    cpu.barrier(Barrier::DsbIshst);
    let (mut addr, mut scale) = (range.start, 3u32);
    while pages != 0 {
        let unaligned = g.output_format() == OutputFormat::Lpa2 && !addr.is_aligned(1 << 16);
        let shift = 5 * scale + 1;
        let chunks = (pages >> shift).min(32);
        if pages == 1 || unaligned {
            cpu.tlbi(Tlbi::Vaale1is(addr));
            addr = addr.plus(g.page_size());
            pages -= 1;
        } else if chunks == 0 {
            scale -= 1;
        } else {
            cpu.tlbi(Tlbi::Rvaale1is(addr, (chunks << shift) as u32));
            addr = addr.plus(chunks << shift << g.page_shift());
            pages -= chunks << shift;
            scale = scale.saturating_sub(1);
        }
    }
    if completes {
        cpu.barrier(Barrier::DsbIsh);
    }
    cpu.barrier(Barrier::Isb);
}

/// `flush_tlb_kernel_range` by one RVAALE1IS, as a kernel that uses FEAT_TLBIRANGE for kernel addresses does. That one
/// issues an operation for each part that SCALE and NUM can name; they complete together, at the one `dsb ish`.
pub fn flush_tlb_kernel_range_op<C: Cpu>(cpu: &C, range: VaRange) {
    let pages = range.end.since(range.start) >> cpu.geometry().page_shift();
    let Ok(pages) = u32::try_from(pages) else {
        flush_tlb_all(cpu);
        return;
    };
    cpu.barrier(Barrier::DsbIshst);
    cpu.tlbi(Tlbi::Rvaale1is(range.start, pages));
    cpu.barrier(Barrier::DsbIsh);
    cpu.barrier(Barrier::Isb);
}

/// `__flush_tlb_kernel_pgtable`: leaf and walk-cache entries that translate `va`.
pub fn __flush_tlb_kernel_pgtable<C: Cpu>(cpu: &C, va: Va) {
    cpu.barrier(Barrier::DsbIshst);
    cpu.tlbi(Tlbi::Vaae1is(va));
    cpu.barrier(Barrier::DsbIsh);
    cpu.barrier(Barrier::Isb);
}

/// `pgtable_range_aligned`: whether the whole span of a table at `mask`'s level lies inside [floor, ceiling).
/// A ceiling of 0 means the top of the address space.
#[must_use]
pub fn pgtable_range_aligned(range: &VaRange, floor: Va, ceiling: Va, span: u64) -> bool {
    let start = range.start.align_down(span);
    if start < floor {
        return false;
    }
    let mut ceiling = ceiling;
    if ceiling.0 != 0 {
        ceiling = ceiling.align_down(span);
        if ceiling.0 == 0 {
            return false;
        }
    }
    range.end.0.wrapping_sub(1) <= ceiling.0.wrapping_sub(1)
}

/// A leaf that maps `pa` with `prot`.
#[inline]
#[must_use]
pub fn leaf(geometry: &Geometry, pa: Pa, prot: u64) -> Desc {
    geometry.descriptor(pa, prot)
}

/// `pmd_leaf`: valid and not a table.
#[inline]
#[must_use]
pub fn pmd_leaf(desc: Desc) -> bool {
    desc.is_valid() && !desc.has(Attr::TABLE_BIT)
}
