//! Where each seeded fault (policy `mutant`) is applied: an algorithm asks a hook of this file, and without the fault
//! the hook is what the kernel does. A fault that no hook names does not compile.

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Barrier, Cpu, Desc, Frame, Order, Slot};

use crate::Kernel;
use crate::pgtable::{leaf, set_entry};
use crate::policy::Mutant;

macro_rules! faults {
    ($( $(#[$doc:meta])* $name:ident: $mutant:ident ),+ $(,)?) => {
        $(
            $(#[$doc])*
            #[inline]
            pub(crate) const fn $name(k: &Kernel) -> bool {
                k.policies.mutant as u32 == Mutant::$mutant as u32
            }
        )+
        const _: fn(Mutant) = |mutant| match mutant {
            Mutant::None $(| Mutant::$mutant)+ => {}
        };
    };
}

faults! {
    /// `vmemmap_remap_pte` (`tail_prot`).
    writable_tails: WritableTails,
    /// `vmemmap_remap_pte` (`head_prot`, `reuse_page`).
    read_only_head: ReadOnlyHead,
    /// `vmemmap_get_tail`.
    foreign_tail: ForeignTail,
    /// `static_branch_inc` comes after the remap.
    key_too_late: KeyTooLate,
    /// `vmemmap_restore_pte` (`next_frame`).
    restore_shared: RestoreShared,
    /// The walk back of `vmemmap_remap_free` (`rolled_back`).
    rollback_short: RollbackShort,
    /// `alloc_vmemmap_page_list` in a restore.
    leak_on_restore: LeakOnRestore,
    /// `offline_pages` neither migrates nor dissolves, and ignores what is left.
    offline_keeps_huge: OfflineKeepsHuge,
    /// `prevent_bootmem_remove_notifier` says yes.
    boot_removable: BootRemovable,
    /// `PageVmemmapSelfHosted` is not tested.
    ignore_self_hosted: IgnoreSelfHosted,
    /// `lock_device_hotplug` and `mem_hotplug_begin` of add and remove.
    no_device_lock: NoDeviceLock,
    /// The second test for a block in `split_vmemmap_huge_pmd`.
    split_no_retest: SplitNoRetest,
    /// `split_vmemmap_huge_pmd` fills its table last.
    publish_early: PublishEarly,
    /// `split_vmemmap_huge_pmd` fills and publishes its table without barriers (`fill_entry`).
    unordered_table: UnorderedTable,
    /// `smp_wmb` before `set_pte_at` in a restore and in the copy of the head (`content_wmb`).
    unordered_content: UnorderedContent,
    /// `set_pte` of `vmap_pages_pte_range` (`vmap_entry`).
    missing_isb: MissingIsb,
    /// `add_hugetlb_page` of a page whose restore failed.
    surplus_lost: SurplusLost,
    /// `remove_hugetlb_page` of a free page, all pages being surplus.
    surplus_kept: SurplusKept,
    /// `max_huge_pages` in `dissolve_free_hugetlb_folio`.
    max_kept: MaxKept,
    /// `split_vmemmap_huge_pmd` takes `page_table_lock` before it allocates.
    sleep_under_lock: SleepUnderLock,
    /// `section_activate` that failed.
    subsection_map_early: SubsectionMapEarly,
    /// `undo_isolate_page_range` of an `offline_pages` that failed.
    no_undo: NoUndo,
    /// The optimised flag is set when the head has been copied.
    flag_after_copy: FlagAfterCopy,
    /// `pmd_populate_kernel` of a split, twice.
    table_twice: TableTwice,
    /// `vmemmap_restore_pte` (`restored_prot`).
    executable: Executable,
    /// `memmap_pages_add` in `alloc_vmemmap_page_list`.
    restore_uncounted: RestoreUncounted,
}

/// Protection of the tails that `vmemmap_remap_pte` maps.
#[inline]
pub(crate) const fn tail_prot(k: &Kernel) -> u64 {
    if writable_tails(k) { prot::PAGE_KERNEL } else { prot::PAGE_KERNEL_RO }
}

/// Protection of the head that `vmemmap_remap_pte` maps.
#[inline]
pub(crate) const fn head_prot(k: &Kernel) -> u64 {
    if read_only_head(k) { prot::PAGE_KERNEL_RO } else { prot::PAGE_KERNEL }
}

/// Protection of what `vmemmap_restore_pte` maps.
#[inline]
pub(crate) const fn restored_prot(k: &Kernel) -> u64 {
    if executable(k) { prot::PAGE_KERNEL_EXEC } else { prot::PAGE_KERNEL }
}

/// A remap's first PTE, where it only defines the reuse page: it is left as it is.
#[inline]
pub(crate) fn reuse_page<C: Cpu>(k: &Kernel, cpu: &C, at: Slot<C::Tok>, reuse: Frame<C::Tok>) {
    if read_only_head(k) {
        set_entry(cpu, at, leaf(&k.geometry, reuse.pa, prot::PAGE_KERNEL_RO | k.extra_prot));
    }
}

/// How many of the PTEs walked a rollback walks again.
#[inline]
pub(crate) const fn rolled_back(k: &Kernel, nr_walked: u64) -> u64 {
    if rollback_short(k) { nr_walked - 1 } else { nr_walked }
}

/// The frame that the next restored PTE gets: one of its own.
#[inline]
pub(crate) fn next_frame<T: Copy>(
    k: &Kernel,
    previous: &mut Option<Frame<T>>,
    take: impl FnOnce() -> Option<Frame<T>>,
) -> Option<Frame<T>> {
    if !restore_shared(k) {
        return take();
    }
    if let Some(shared) = previous.take() {
        return Some(shared);
    }
    *previous = take();
    *previous
}

/// An entry of a table that nobody reaches yet.
#[inline]
pub(crate) fn fill_entry<C: Cpu>(k: &Kernel, cpu: &C, at: Slot<C::Tok>, new: Desc) {
    if unordered_table(k) {
        cpu.write(at, new, Order::Plain);
    } else {
        set_entry(cpu, at, new);
    }
}

/// An entry of vmalloc.
#[inline]
pub(crate) fn vmap_entry<C: Cpu>(k: &Kernel, cpu: &C, at: Slot<C::Tok>, new: Desc) {
    if missing_isb(k) {
        cpu.write(at, new, Order::Plain);
        cpu.barrier(Barrier::DsbIshst);
    } else {
        set_entry(cpu, at, new);
    }
}

/// `smp_wmb` before the table is published.
#[inline]
pub(crate) fn table_wmb<C: Cpu>(k: &Kernel, cpu: &C) {
    if !unordered_table(k) {
        cpu.barrier(Barrier::SmpWmb);
    }
}

/// `smp_wmb` before the entry that exposes what was copied.
#[inline]
pub(crate) fn content_wmb<C: Cpu>(k: &Kernel, cpu: &C) {
    if !unordered_content(k) {
        cpu.barrier(Barrier::SmpWmb);
    }
}
