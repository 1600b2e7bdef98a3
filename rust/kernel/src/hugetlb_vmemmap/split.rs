//! A PMD block replaced by a table of pages (`mm/hugetlb_vmemmap.c: split_vmemmap_huge_pmd` of 6.1, `vmemmap_split_pmd`
//! of 6.12; kernel-semantics §H6).

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Alloc, Cpu, Entry, FrameKind, Invariant, Level, LockId, Mode, Slot, Va, Zone};

use crate::pgalloc::{table_constructed, table_destructed};
use crate::pgtable::{clear_entry, flush_tlb_kernel_range, leaf, offset, pmd_leaf, read_once, set_entry};
use crate::policy::{PmdSplit, SplitRead};
use crate::quiesce::{Pause, with_others_paused};
use crate::{Errno, Kernel, mutants};

/// `vmemmap_split_pmd` (6.1: `split_vmemmap_huge_pmd`): a PMD block becomes a table of pages over the same frames.
/// `old` was read under `page_table_lock`, which has been dropped since; the block is tested again before the table is
/// published.
///
/// # Errors
/// `ENOMEM`: no frame for the table; nothing is changed.
pub(super) fn vmemmap_split_pmd<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    pmd: Slot<C::Tok>,
    old: Entry<C::Tok>,
    start: Va,
    no_tlb_flush: bool,
) -> Result<(), Errno> {
    let g = &k.geometry;
    let locked = mutants::sleep_under_lock(k);
    if locked {
        cpu.acquire(LockId::InitMmPageTable, Mode::Write);
    }
    let request =
        Alloc { order: 0, kind: FrameKind::Table, zone: Zone::Normal, at: None, may_sleep: true, top_down: false };
    let Some(table) = cpu.alloc(request) else {
        if locked {
            cpu.release(LockId::InitMmPageTable, Mode::Write);
        }
        return Err(Errno::ENOMEM);
    };
    table_constructed(k, cpu);
    let old = match k.policies.split_read {
        SplitRead::Locked => old,
        SplitRead::Unlocked => read_once(cpu, pmd),
    };
    // `pmd_page`, which does not ask what the entry is.
    let first = g.output(old.desc);
    if !pmd_leaf(old.desc) {
        cpu.warn(Invariant::FlagWithState, start.0, "a split takes a table page for the first frame of the block");
    }
    let fill = || {
        for i in 0..g.entries() as u64 {
            let addr = start.plus(i << g.page_shift());
            let entry = leaf(g, first.plus(i << g.page_shift()), prot::PAGE_KERNEL | k.extra_prot);
            mutants::fill_entry(k, cpu, offset(cpu, table, Level::PTE, addr), entry);
        }
    };
    if !mutants::publish_early(k) {
        fill();
    }
    let publish = || {
        let now = read_once(cpu, pmd);
        if pmd_leaf(now.desc) || mutants::split_no_retest(k) {
            // `split_page`. Boot frames (`PageReserved`) never were one page for the kernel; for a machine they may be
            // one run.
            cpu.split_frame(cpu.frame_of(old, first), (g.level_shift(Level::PMD) - g.page_shift()) as u8);
            if !pmd_leaf(now.desc) {
                cpu.warn(
                    Invariant::SplitOnce,
                    start.0,
                    "a split publishes its table over what another split published",
                );
            }
            mutants::table_wmb(k, cpu);
            if mutants::publish_early(k) && read_once(cpu, offset(cpu, table, Level::PTE, start)).desc.is_none() {
                cpu.warn(Invariant::InitialisedBeforeReachable, start.0, "a table is published before it is filled");
            }
            let published = g.descriptor(table.pa, k.features.table);
            let range = start..start.plus(g.entry_span(Level::PMD));
            match k.policies.split {
                PmdSplit::Store => {}
                PmdSplit::Bbm | PmdSplit::BbmStopMachine | PmdSplit::BbmIpiPause => {
                    clear_entry(cpu, pmd);
                    flush_tlb_kernel_range(k, cpu, range.clone());
                }
            }
            set_entry(cpu, pmd, published);
            if mutants::publish_early(k) {
                fill();
            }
            if mutants::table_twice(k) {
                let beside =
                    if usize::from(pmd.index) + 1 < g.entries_at(Level::PMD) { pmd.index + 1 } else { pmd.index - 1 };
                set_entry(cpu, Slot { index: beside, ..pmd }, published);
            }
            if !no_tlb_flush {
                flush_tlb_kernel_range(k, cpu, range);
            }
        } else {
            table_destructed(k, cpu);
            cpu.free(table, 0, FrameKind::Table);
        }
    };
    match Pause::of_split(k.policies.split) {
        Some(pause) if !locked => with_others_paused(k, cpu, pause, publish),
        Some(_) | None => {
            if !locked {
                cpu.acquire(LockId::InitMmPageTable, Mode::Write);
            }
            publish();
            cpu.release(LockId::InitMmPageTable, Mode::Write);
        }
    }
    Ok(())
}
