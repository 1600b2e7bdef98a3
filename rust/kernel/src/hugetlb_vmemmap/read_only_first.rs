//! Approach C (C. Marinas and Yu Zhao, July 2024): never change permission and output address together.
//!
//! Break-before-make is asked for where an output address changes and either descriptor is writable or the contents
//! differ. So the old tail page is given the contents of the shared frame, made read-only where it is, and only when
//! no translation that could store is left does its entry name the other frame. The way back is the same in reverse. A
//! head page that moves can be made neither read-only nor, for ever, equal: policy `head` keeps it.
//!
//! No kernel has it; it is written after the thread, which has no code.

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Cpu, Frame, Level, VaRange};

use super::walk::{NR_RESET_STRUCT_PAGE, RemapWalk};
use crate::pgtable::{leaf, offset, read_once, set_entry};
use crate::policy::PteUpdate;
use crate::{Kernel, mutants};

/// First half of a remap: every tail page reads as the shared frame does, and is read-only at its own address.
pub(super) fn protect_tails<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    table: Frame<C::Tok>,
    range: &VaRange,
    walk: &mut RemapWalk<C::Tok>,
) {
    let page = k.geometry.page_size();
    let mut addr = range.start;
    let Some(shared) = walk.shared else { return };
    while addr != range.end {
        // A head that moves is no tail.
        if walk.nr_walked != 0 || walk.head.is_none() {
            let at = offset(cpu, table, Level::PTE, addr);
            let old = read_once(cpu, at);
            let frame = cpu.frame_of(old, k.geometry.output(old.desc));
            cpu.copy_frame(shared, frame);
            set_entry(cpu, at, leaf(&k.geometry, frame.pa, mutants::tail_prot(k) | k.extra_prot));
        }
        walk.nr_walked += 1;
        addr = addr.plus(page);
    }
}

/// Second half of a restore: every tail page is writable again, and only then stops to be a copy.
pub(super) fn unprotect_tails<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    table: Frame<C::Tok>,
    range: &VaRange,
    walk: &mut RemapWalk<C::Tok>,
) {
    let page = k.geometry.page_size();
    let mut addr = range.start;
    while addr != range.end {
        let at = offset(cpu, table, Level::PTE, addr);
        let entry = read_once(cpu, at);
        let frame = cpu.frame_of(entry, k.geometry.output(entry.desc));
        set_entry(cpu, at, leaf(&k.geometry, frame.pa, mutants::restored_prot(k) | k.extra_prot));
        if k.features.restore_resets {
            cpu.reset_tails(frame, NR_RESET_STRUCT_PAGE);
        }
        walk.nr_walked += 1;
        addr = addr.plus(page);
    }
}

/// What a restored tail is mapped with until all of them name frames of their own.
pub(super) const RESTORED_PROT: u64 = prot::PAGE_KERNEL_RO;

/// Whether `update` changes permissions and addresses one after the other.
#[inline]
pub(super) const fn protects_first(update: PteUpdate) -> bool {
    match update {
        PteUpdate::ReadOnlyFirst => true,
        PteUpdate::Store
        | PteUpdate::Swap
        | PteUpdate::ClearThenSet
        | PteUpdate::ClearThenSetEach
        | PteUpdate::Bbm
        | PteUpdate::BbmEach
        | PteUpdate::BbmFaultWaits
        | PteUpdate::BbmFaultWaitsIrqsOff
        | PteUpdate::BbmStopMachine
        | PteUpdate::BbmIpiPause => false,
    }
}
