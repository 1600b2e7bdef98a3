//! The walk over vmemmap's tables (`mm/hugetlb_vmemmap.c: vmemmap_remap_range`, `vmemmap_pmd_range` of 6.1,
//! `vmemmap_pmd_entry` of 6.12; kernel-semantics §H4 to §H7).

use vmemmap_arch::{Cpu, Entry, Frame, Kind, Level, LockId, Mode, Slot, Va, VaRange};

use super::read_only_first::protects_first;
use super::split::vmemmap_split_pmd;
use super::update::pte_pass;
use super::walk::{Action, Pass, RemapWalk};
use crate::features::{RemapWalker, SelfHostedTest};
use crate::pgtable::{flush_tlb_kernel_range, offset, pmd_leaf, read_once};
use crate::policy::PteUpdate;
use crate::quiesce::{Pause, with_others_paused};
use crate::{Errno, Kernel, mutants};

/// `vmemmap_remap_range` (6.1), `walk_kernel_page_table_range` (6.12): walk [start, end) and change its PTEs; splits
/// PMD blocks on the way. No lock is taken and nothing flushed, except by a split and by the policies that say so.
///
/// # Errors
/// `ENOMEM`: no table for a split; `walk.nr_walked` PTEs are changed then. `ENOTSUPP` (6.12): self-hosted storage,
/// nothing is changed.
pub fn walk_range<C: Cpu>(k: &Kernel, cpu: &C, range: &VaRange, walk: &mut RemapWalk<C::Tok>) -> Result<(), Errno> {
    if walk.action == Action::Split {
        return walk_pass(k, cpu, range, walk, Pass::Exchange);
    }
    if protects_first(k.policies.update) {
        return read_only_first(k, cpu, range, walk);
    }
    let Some(whole) = clears_whole_page(k.policies.update) else {
        return walk_pass(k, cpu, range, walk, Pass::Exchange);
    };
    // The policies that clear everything first must not fail between the clear and the set.
    split_range(k, cpu, range, walk)?;
    walk.paused = whole.pause.is_some();
    let mut clear_and_set = || {
        walk_pass(k, cpu, range, walk, Pass::Clear)?;
        if whole.flush {
            flush_tlb_kernel_range(k, cpu, range.clone());
        }
        walk.nr_walked = 0;
        walk_pass(k, cpu, range, walk, Pass::Set)
    };
    match whole.pause {
        Some(pause) => with_others_paused(k, cpu, pause, clear_and_set),
        None => clear_and_set(),
    }
}

/// Split the blocks on the way and change nothing else.
fn split_range<C: Cpu>(k: &Kernel, cpu: &C, range: &VaRange, walk: &mut RemapWalk<C::Tok>) -> Result<(), Errno> {
    let action = core::mem::replace(&mut walk.action, Action::Split);
    let split = walk_pass(k, cpu, range, walk, Pass::Exchange);
    walk.action = action;
    split
}

/// Approach C over the PTEs of a hugepage: two changes of each, a flush of all between them.
fn read_only_first<C: Cpu>(k: &Kernel, cpu: &C, range: &VaRange, walk: &mut RemapWalk<C::Tok>) -> Result<(), Errno> {
    split_range(k, cpu, range, walk)?;
    let (first, second) = match walk.action {
        Action::Remap | Action::Split => (Pass::Protect, Pass::Exchange),
        Action::Restore | Action::Rollback => (Pass::Exchange, Pass::Protect),
    };
    walk_pass(k, cpu, range, walk, first)?;
    flush_tlb_kernel_range(k, cpu, range.clone());
    walk.nr_walked = 0;
    walk_pass(k, cpu, range, walk, second)
}

/// A change of all PTEs of a hugepage that clears all of them before it sets the first.
struct Whole {
    /// The range is flushed in between.
    flush: bool,
    pause: Option<Pause>,
}

/// What `update` does if it clears the whole hugepage first.
#[inline]
const fn clears_whole_page(update: PteUpdate) -> Option<Whole> {
    match update {
        PteUpdate::ClearThenSet => Some(Whole { flush: false, pause: None }),
        PteUpdate::Bbm => Some(Whole { flush: true, pause: None }),
        PteUpdate::BbmStopMachine | PteUpdate::BbmIpiPause => {
            Some(Whole { flush: true, pause: Pause::of_update(update) })
        }
        PteUpdate::Store
        | PteUpdate::Swap
        | PteUpdate::ClearThenSetEach
        | PteUpdate::BbmEach
        | PteUpdate::BbmFaultWaits
        | PteUpdate::BbmFaultWaitsIrqsOff
        | PteUpdate::ReadOnlyFirst => None,
    }
}

/// `vmemmap_p4d_range`, `vmemmap_pud_range`, `vmemmap_pmd_range` (6.1), `walk_pmd_range` (6.12): one walk.
fn walk_pass<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    range: &VaRange,
    walk: &mut RemapWalk<C::Tok>,
    pass: Pass,
) -> Result<(), Errno> {
    let mut addr = range.start;
    while addr != range.end {
        let next = k.geometry.addr_end(addr, range.end, Level::PMD);
        if let Some(pmd) = pmd_off_k(k, cpu, addr)
            && let Some(table) = vmemmap_pmd_entry(k, cpu, pmd, addr, walk)?
            && walk.action != Action::Split
        {
            pte_pass(k, cpu, table, &(addr..next), walk, pass);
        }
        addr = next;
    }
    Ok(())
}

/// Whether a walk leaves out what is not there. 6.1's descends without looking.
#[inline]
const fn skips_holes(k: &Kernel) -> bool {
    match k.features.remap_walker {
        RemapWalker::Own => false,
        RemapWalker::Pagewalk => true,
    }
}

/// Whether the walk asks for self-hosted storage: at its first PMD entry.
#[inline]
fn tests_self_hosted<T>(k: &Kernel, walk: &RemapWalk<T>) -> bool {
    match k.features.self_hosted_test {
        SelfHostedTest::BeforeWalk => false,
        SelfHostedTest::InWalk => walk.nr_walked == 0 && !mutants::ignore_self_hosted(k),
    }
}

/// `pmd_off_k`, and the descent of either walk: slot of the PMD entry that covers `addr`.
fn pmd_off_k<C: Cpu>(k: &Kernel, cpu: &C, addr: Va) -> Option<Slot<C::Tok>> {
    let mut table = cpu.root();
    let mut level = k.geometry.top();
    while level < Level::PMD {
        let entry = read_once(cpu, offset(cpu, table, level, addr));
        if skips_holes(k) && entry.desc.is_none() {
            return None;
        }
        table = cpu.frame_of(entry, k.output.of(entry.desc));
        level = level.next();
    }
    Some(offset(cpu, table, Level::PMD, addr))
}

/// `vmemmap_pmd_entry` (6.1: in `vmemmap_pmd_range`): split the block if it is one, and return the PTE table.
fn vmemmap_pmd_entry<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    pmd: Slot<C::Tok>,
    addr: Va,
    walk: &RemapWalk<C::Tok>,
) -> Result<Option<Frame<C::Tok>>, Errno> {
    if skips_holes(k) && read_once(cpu, pmd).desc.is_none() {
        return Ok(None);
    }
    if walk.paused {
        // Split already, and nobody else runs: what the lock would keep out is out.
        let entry = read_once(cpu, pmd);
        return Ok(Some(cpu.frame_of(entry, k.output.of(entry.desc))));
    }
    cpu.acquire(LockId::InitMmPageTable, Mode::Write);
    let entry = read_once(cpu, pmd);
    let block = pmd_leaf(entry.desc);
    let self_hosted = tests_self_hosted(k, walk) && backing_is_self_hosted(k, cpu, entry, addr);
    cpu.release(LockId::InitMmPageTable, Mode::Write);
    if self_hosted {
        return Err(Errno::ENOTSUPP);
    }
    if block {
        vmemmap_split_pmd(k, cpu, pmd, entry, addr.align_down(k.geometry.entry_span(Level::PMD)), walk.no_tlb_flush)?;
    }
    let entry = read_once(cpu, pmd);
    if skips_holes(k) && (pmd_leaf(entry.desc) || !entry.desc.is_present(k.features.present_bit)) {
        return Ok(None);
    }
    Ok(Some(cpu.frame_of(entry, k.output.of(entry.desc))))
}

/// Whether the frame that backs `addr` is `PageVmemmapSelfHosted`; `entry` is the PMD entry, read once.
pub(crate) fn backing_is_self_hosted<C: Cpu>(k: &Kernel, cpu: &C, entry: Entry<C::Tok>, addr: Va) -> bool {
    let g = &k.geometry;
    match g.kind(entry.desc, Level::PMD) {
        Kind::Block(pa) => {
            let inside = addr.0 & (g.entry_span(Level::PMD) - 1);
            cpu.is_self_hosted(cpu.frame_of(entry, pa.plus(inside)))
        }
        Kind::Table(pa) => {
            let pte = read_once(cpu, offset(cpu, cpu.frame_of(entry, pa), Level::PTE, addr));
            cpu.is_self_hosted(cpu.frame_of(pte, g.output(pte.desc)))
        }
        Kind::None | Kind::Invalid | Kind::Page(_) | Kind::Reserved => false,
    }
}

/// Read the PMD entry of `addr` once and test what backs it (6.1 `vmemmap_should_optimize`).
pub(crate) fn vmemmap_is_self_hosted<C: Cpu>(k: &Kernel, cpu: &C, addr: Va) -> bool {
    match pmd_off_k(k, cpu, addr) {
        Some(pmd) => backing_is_self_hosted(k, cpu, read_once(cpu, pmd), addr),
        None => false,
    }
}
