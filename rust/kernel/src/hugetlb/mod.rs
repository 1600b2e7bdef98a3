//! HugeTLB pools as sysfs shows them (`mm/hugetlb.c`; kernel-semantics §7): lists, counters, fresh pages, the way back
//! to the page allocator.
//!
//! `hugetlb_lock` guards lists, counters and marks, and is never held across HVO work.

pub mod adopt;
pub mod demote;
pub mod dissolve;
pub mod fault;
pub mod hwpoison;
pub mod page;
pub mod resize;
pub mod subpool;

use vmemmap_arch::contents::word;
use vmemmap_arch::{Alloc, Cpu, Frame, FrameKind, Invariant, LockId, Mode, Order, Pfn, Rmw, Va, Zone};

use crate::hugetlb_vmemmap::{hugetlb_vmemmap_optimize_folio, hugetlb_vmemmap_restore_folio, vmemmap_pages};
use crate::mmzone::pfn_to_online_page;
use crate::page::{
    compound_head, compound_order, flag, page_huge, put_page_testzero, set_flag, set_hugetlb_mark, set_page_count,
    test_flag, write_word,
};
use crate::page_alloc::{check_new_pages, free_pages_prepare, free_tail_page_prepare, prep_compound_page};
use crate::policy::DtorClear;
use crate::state::{Hpage, Hstate, Scalar};
use crate::{Errno, Kernel, mutants};
use hwpoison::{folio_clear_hugetlb_hwpoison, folio_test_hwpoison};
use page::{HPG_FREED, HPG_MIGRATABLE, HPG_TEMPORARY, HPG_VMEMMAP_OPTIMIZED, HugePage};

/// One `struct hstate`: its index and its page size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pool {
    pub h: u8,
    /// Base pages of one hugepage.
    pub pages: u64,
}

/// Pages that are on no pool's list, linked through the same words (`LIST_HEAD(page_list)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageList {
    /// Slot + 1 of the first page, 0 = empty.
    pub first: u64,
}

impl Pool {
    /// # Errors
    /// `EINVAL`: the granule has no such size.
    pub fn new(k: &Kernel, h: u8) -> Result<Self, Errno> {
        let (sizes, count) = k.geometry.hugetlb_sizes();
        if usize::from(h) < count { Ok(Self { h, pages: sizes[usize::from(h)] }) } else { Err(Errno::EINVAL) }
    }
    /// The pool of a page (`folio_hstate`, 6.1: `page_hstate`): by the compound order in the first tail.
    ///
    /// # Errors
    /// `EINVAL`: no pool has pages of that order (the struct pages were read while they changed).
    pub fn of<C: Cpu>(k: &Kernel, cpu: &C, head: Va) -> Result<Self, Errno> {
        let pages = 1u64.checked_shl(u32::from(compound_order(cpu, head))).unwrap_or(0);
        let (sizes, count) = k.geometry.hugetlb_sizes();
        let h = sizes[..count].iter().position(|&size| size == pages).ok_or(Errno::EINVAL)?;
        Ok(Self { h: h as u8, pages })
    }
    #[must_use]
    pub const fn order(self) -> u8 {
        self.pages.trailing_zeros() as u8
    }
    /// `hstate_is_gigantic`: larger than the page allocator's blocks, which on arm64 go just as far as the PMD size
    /// (16K, 64K) or one order beyond (4K).
    #[must_use]
    pub const fn hstate_is_gigantic(self, k: &Kernel) -> bool {
        self.pages > k.geometry.entries() as u64
    }
    pub fn get<C: Cpu>(self, k: &Kernel, cpu: &C, field: Hstate) -> u64 {
        cpu.var_load(k.vars.hstate(self.h, field), Order::Plain)
    }
    pub fn add<C: Cpu>(self, k: &Kernel, cpu: &C, field: Hstate, n: i64) {
        cpu.var_add(k.vars.hstate(self.h, field), n, Order::Plain);
    }
    /// `persistent_huge_pages`.
    pub fn persistent_huge_pages<C: Cpu>(self, k: &Kernel, cpu: &C) -> u64 {
        self.get(k, cpu, Hstate::NrHugePages).wrapping_sub(self.get(k, cpu, Hstate::SurplusHugePages))
    }
    /// `available_huge_pages`.
    pub fn available_huge_pages<C: Cpu>(self, k: &Kernel, cpu: &C) -> u64 {
        self.get(k, cpu, Hstate::FreeHugePages).saturating_sub(self.get(k, cpu, Hstate::ResvHugePages))
    }
    /// The page whose slot + 1 is `link`.
    fn page_at(self, k: &Kernel, link: u64) -> HugePage {
        HugePage { head: k.geometry.pfn(k.vars.hpage_pa((link - 1) as u32)), pages: self.pages }
    }
    pub(crate) fn first<C: Cpu>(self, k: &Kernel, cpu: &C, list: Hstate) -> Option<HugePage> {
        match self.get(k, cpu, list) {
            0 => None,
            link => Some(self.page_at(k, link)),
        }
    }
    /// Next page on whatever list `page` is on.
    pub fn next<C: Cpu>(self, k: &Kernel, cpu: &C, page: HugePage) -> Option<HugePage> {
        match cpu.var_load(k.vars.hpage(slot(k, page), Hpage::Next), Order::Plain) {
            0 => None,
            link => Some(self.page_at(k, link)),
        }
    }
    /// The free page of this pool whose head is `pfn`, if it is one.
    fn free_page_at<C: Cpu>(self, k: &Kernel, cpu: &C, pfn: Pfn) -> Option<HugePage> {
        let va = pfn_to_online_page(k, cpu, pfn)?;
        let page = HugePage { head: pfn, pages: self.pages };
        let is_head = compound_head(k, cpu, va) == va && page_huge(k, cpu, va);
        (is_head && compound_order(cpu, va) == self.order() && page.has_flag(k, cpu, HPG_FREED)).then_some(page)
    }
    /// First page of the free list that `want` takes.
    pub fn find_free<C: Cpu>(self, k: &Kernel, cpu: &C, want: impl Fn(HugePage) -> bool) -> Option<HugePage> {
        let mut at = self.first(k, cpu, Hstate::FreeList);
        while let Some(page) = at {
            if want(page) {
                return Some(page);
            }
            at = self.next(k, cpu, page);
        }
        None
    }
}

fn slot(k: &Kernel, page: HugePage) -> u32 {
    k.vars.hpage_slot(k.geometry.pa(page.head))
}

fn link(k: &Kernel, page: HugePage) -> u64 {
    u64::from(slot(k, page)) + 1
}

impl PageList {
    /// At the head, as `list_add` does.
    pub fn add<C: Cpu>(&mut self, k: &Kernel, cpu: &C, page: HugePage) {
        cpu.var_store(k.vars.hpage(slot(k, page), Hpage::Next), self.first, Order::Plain);
        self.first = link(k, page);
    }
    /// The first page, off the list.
    pub fn pop<C: Cpu>(&mut self, k: &Kernel, cpu: &C, pool: Pool) -> Option<HugePage> {
        if self.first == 0 {
            return None;
        }
        let page = pool.page_at(k, self.first);
        self.first = cpu.var_load(k.vars.hpage(slot(k, page), Hpage::Next), Order::Plain);
        Some(page)
    }
    /// Every page until `each` says no.
    pub fn for_each<C: Cpu>(self, k: &Kernel, cpu: &C, pool: Pool, each: &mut dyn FnMut(HugePage) -> bool) {
        let mut rest = self;
        while let Some(page) = rest.pop(k, cpu, pool) {
            if !each(page) {
                return;
            }
        }
    }
}

/// `list_add` to a pool's list.
fn list_add<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, list: Hstate, page: HugePage) {
    let head = k.vars.hstate(pool.h, list);
    let own = link(k, page);
    cpu.concluding(|| {
        let first = cpu.var_load(head, Order::Plain);
        cpu.var_store(k.vars.hpage(slot(k, page), Hpage::Next), first, Order::Plain);
        cpu.var_store(k.vars.hpage(slot(k, page), Hpage::Prev), 0, Order::Plain);
        if first != 0 {
            cpu.var_store(k.vars.hpage((first - 1) as u32, Hpage::Prev), own, Order::Plain);
        }
        cpu.var_store(head, own, Order::Plain);
    });
}

/// `list_del` from a pool's list.
fn list_del<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, list: Hstate, page: HugePage) {
    cpu.concluding(|| {
        let next = cpu.var_load(k.vars.hpage(slot(k, page), Hpage::Next), Order::Plain);
        let prev = cpu.var_load(k.vars.hpage(slot(k, page), Hpage::Prev), Order::Plain);
        let before = if prev == 0 { k.vars.hstate(pool.h, list) } else { k.vars.hpage((prev - 1) as u32, Hpage::Next) };
        cpu.var_store(before, next, Order::Plain);
        if next != 0 {
            cpu.var_store(k.vars.hpage((next - 1) as u32, Hpage::Prev), prev, Order::Plain);
        }
    });
}

pub(crate) fn lock<C: Cpu>(cpu: &C) {
    cpu.acquire(LockId::Hugetlb, Mode::Write);
}

pub(crate) fn unlock<C: Cpu>(cpu: &C) {
    cpu.release(LockId::Hugetlb, Mode::Write);
}

/// The frames of a hugepage; the pool's lists know them by number, not by a descriptor that names them.
pub(crate) fn frames<C: Cpu>(k: &Kernel, page: HugePage) -> Frame<C::Tok> {
    Frame { pa: k.geometry.pa(page.head), tok: C::Tok::default() }
}

/// `hugetlb_init`: defaults of the pools and of `vm.hugetlb_optimize_vmemmap`.
///
/// # Errors
/// None.
pub fn hugetlb_init<C: Cpu>(k: &Kernel, cpu: &C) -> Result<u64, Errno> {
    cpu.var_store(k.vars.scalar(Scalar::HvoEnabled), u64::from(k.hvo_at_boot && k.hvo_configured()), Order::Plain);
    let (_, count) = k.geometry.hugetlb_sizes();
    for h in 1..count {
        cpu.var_store(k.vars.hstate(h as u8, Hstate::DemoteOrder), h as u64 - 1, Order::Plain);
    }
    Ok(count as u64)
}

/// `enqueue_hugetlb_folio` (6.1: `enqueue_huge_page`), under `hugetlb_lock`.
pub(crate) fn enqueue_hugetlb_folio<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, page: HugePage) {
    list_add(k, cpu, pool, Hstate::FreeList, page);
    pool.add(k, cpu, Hstate::FreeHugePages, 1);
    page.set_flag(k, cpu, HPG_FREED);
}

/// `dequeue_hugetlb_folio_node_exact` (6.1: `dequeue_huge_page_node_exact`), under `hugetlb_lock`: the first free page
/// that is not poisoned, and that `want` takes, gets its first reference.
pub(crate) fn dequeue_hugetlb_folio_node_exact<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    pool: Pool,
    want: impl Fn(HugePage) -> bool,
) -> Option<HugePage> {
    let page = pool.find_free(k, cpu, |page| !test_flag(cpu, page.va(k), flag::HWPOISON) && want(page))?;
    list_del(k, cpu, pool, Hstate::FreeList, page);
    activate(k, cpu, pool, page);
    page.clear_flag(k, cpu, HPG_FREED);
    pool.add(k, cpu, Hstate::FreeHugePages, -1);
    Some(page)
}

/// First reference of a page that is on no list; onto the active list.
pub(crate) fn activate<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, page: HugePage) {
    list_add(k, cpu, pool, Hstate::ActiveList, page);
    set_page_count(cpu, page.va(k), 1);
}

/// `remove_hugetlb_folio` (6.1: `remove_hugetlb_page`), under `hugetlb_lock`: off the pool. The HugeTLB mark stays on
/// an optimised page until its vmemmap is back: whoever finds it without would write to read-only tails (R14).
pub(crate) fn remove_hugetlb_folio<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, page: HugePage, adjust_surplus: bool) {
    if page.has_flag(k, cpu, HPG_FREED) {
        list_del(k, cpu, pool, Hstate::FreeList, page);
        pool.add(k, cpu, Hstate::FreeHugePages, -1);
        page.clear_flag(k, cpu, HPG_FREED);
    } else {
        list_del(k, cpu, pool, Hstate::ActiveList, page);
    }
    if adjust_surplus {
        pool.add(k, cpu, Hstate::SurplusHugePages, -1);
    }
    let early = match k.policies.dtor_clear {
        DtorClear::BeforeRestore => true,
        DtorClear::Kernel | DtorClear::Sampled | DtorClear::HwpoisonFirst => false,
    };
    if early || !page.is_optimized(k, cpu) {
        set_hugetlb_mark(k, cpu, page.va(k), false);
    }
    pool.add(k, cpu, Hstate::NrHugePages, -1);
}

/// Whether a free page leaves the pool as a surplus one, where the kernel's `remove_hugetlb_folio` without
/// `adjust_surplus` takes it for persistent: a page that a failed restore made surplus is free, and if all pages are
/// surplus the count would exceed theirs (`persistent_huge_pages` wraps). 6.12 has the test in dissolve, nobody has it
/// in demote.
pub(crate) fn must_be_surplus<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool) -> bool {
    !mutants::surplus_kept(k) && pool.persistent_huge_pages(k, cpu) == 0
}

/// `add_hugetlb_folio` (6.1: `add_hugetlb_page`), under `hugetlb_lock`: a page whose restore failed goes back on the
/// free list.
pub(crate) fn add_hugetlb_folio<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, page: HugePage, adjust_surplus: bool) {
    let lost = adjust_surplus && mutants::surplus_lost(k);
    if !lost {
        pool.add(k, cpu, Hstate::NrHugePages, 1);
        if adjust_surplus {
            pool.add(k, cpu, Hstate::SurplusHugePages, 1);
        }
    }
    set_hugetlb_mark(k, cpu, page.va(k), true);
    write_word(cpu, page.va(k), word::PRIVATE, HPG_VMEMMAP_OPTIMIZED);
    enqueue_hugetlb_folio(k, cpu, pool, page);
}

/// `alloc_buddy_hugetlb_folio` (6.1: `alloc_buddy_huge_page`) and `alloc_gigantic_folio`: frames from the page
/// allocator, made a compound page. Exactly those at `at` if given (`alloc_contig_range`).
pub(crate) fn alloc_buddy_hugetlb_folio<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    pool: Pool,
    at: Option<Pfn>,
) -> Result<HugePage, Errno> {
    if at.is_some_and(|pfn| !pfn.is_aligned(pool.pages) || !k.vars.contains(k.geometry.pa(pfn))) {
        return Err(Errno::EINVAL);
    }
    let at = at.map(|pfn| k.geometry.pa(pfn));
    let request =
        Alloc { order: pool.order(), kind: FrameKind::Huge, zone: Zone::Movable, at, may_sleep: true, top_down: false };
    let frame = cpu.alloc(request).ok_or(Errno::ENOMEM)?;
    let page = HugePage { head: k.geometry.pfn(frame.pa), pages: pool.pages };
    check_new_pages(k, cpu, page.head, page.order());
    prep_compound_page(k, cpu, page.head, page.order());
    Ok(page)
}

/// `__prep_new_hugetlb_folio` (6.1: `__prep_new_huge_page`): HVO and the HugeTLB mark, in the order of that kernel.
pub(crate) fn __prep_new_hugetlb_folio<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage) {
    if k.features.marked_before_optimised {
        set_hugetlb_mark(k, cpu, page.va(k), true);
        hugetlb_vmemmap_optimize_folio(k, cpu, page);
    } else {
        hugetlb_vmemmap_optimize_folio(k, cpu, page);
        set_hugetlb_mark(k, cpu, page.va(k), true);
    }
}

/// The part of `alloc_fresh_hugetlb_folio` that comes before the count, which 7.x leaves to the caller.
///
/// # Errors
/// Those of `alloc_fresh_hugetlb_folio`.
pub(crate) fn alloc_uncounted<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, at: Option<Pfn>) -> Result<HugePage, Errno> {
    cpu.label("alloc_fresh_huge_page");
    let page = alloc_buddy_hugetlb_folio(k, cpu, pool, at)?;
    __prep_new_hugetlb_folio(k, cpu, page);
    Ok(page)
}

/// `alloc_fresh_hugetlb_folio` (6.1: `alloc_fresh_huge_page`): a new page of the pool, counted and on no list.
///
/// # Errors
/// `ENOMEM`: no frames. `EINVAL`: `at` is not aligned, or outside RAM.
pub(crate) fn alloc_fresh_hugetlb_folio<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    pool: Pool,
    at: Option<Pfn>,
) -> Result<HugePage, Errno> {
    let page = alloc_uncounted(k, cpu, pool, at)?;
    lock(cpu);
    pool.add(k, cpu, Hstate::NrHugePages, 1);
    unlock(cpu);
    Ok(page)
}

/// `alloc_pool_huge_folio` (6.1: `alloc_pool_huge_page`): a fresh page into the pool, optimised if HVO is on; returns
/// its head PFN. Several CPUs may do so at once (surplus and migration pages are made without `resize_lock`).
///
/// # Errors
/// `ENOMEM`: no frames. `EINVAL`: no such size, or `at` is not aligned or outside RAM.
pub fn alloc_pool_huge_folio<C: Cpu>(k: &Kernel, cpu: &C, h: u8, at: Option<Pfn>) -> Result<u64, Errno> {
    let pool = Pool::new(k, h)?;
    let page = alloc_fresh_hugetlb_folio(k, cpu, pool, at)?;
    lock(cpu);
    pool.add(k, cpu, Hstate::MaxHugePages, 1);
    enqueue_hugetlb_folio(k, cpu, pool, page);
    unlock(cpu);
    Ok(page.head.0)
}

/// `remove_pool_hugetlb_folio` (6.1: `remove_pool_huge_page`), and what follows it: a free page out of the pool and
/// back to the page allocator; the one at `at` if given, else the first of the free list. Returns its head PFN.
///
/// # Errors
/// `EBUSY`: no such free page, or all free pages are reserved. `ENOMEM`: its vmemmap could not be restored; the page is
/// back in the pool, as surplus.
pub fn remove_pool_hugetlb_folio<C: Cpu>(k: &Kernel, cpu: &C, h: u8, at: Option<Pfn>) -> Result<u64, Errno> {
    cpu.label("remove_hugetlb_page");
    let pool = Pool::new(k, h)?;
    lock(cpu);
    let page = match (pool.available_huge_pages(k, cpu), at) {
        (0, _) => None,
        (_, None) => pool.first(k, cpu, Hstate::FreeList),
        (_, Some(pfn)) => pool.free_page_at(k, cpu, pfn),
    };
    let Some(page) = page else {
        unlock(cpu);
        return Err(Errno::EBUSY);
    };
    let surplus = pool.get(k, cpu, Hstate::SurplusHugePages) != 0;
    remove_hugetlb_folio(k, cpu, pool, page, surplus);
    if !surplus {
        pool.add(k, cpu, Hstate::MaxHugePages, -1);
    }
    unlock(cpu);
    __update_and_free_hugetlb_folio(k, cpu, pool, page).map(|()| page.head.0)
}

/// `update_and_free_hugetlb_folio` (6.1: `update_and_free_page`): restoring may sleep, so a page that is still
/// optimised is left to the worker in atomic context.
pub(crate) fn update_and_free_hugetlb_folio<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, page: HugePage, atomic: bool) {
    if !atomic || !page.is_optimized(k, cpu) {
        // A failed restore is not reported: the page is surplus then.
        let _ = __update_and_free_hugetlb_folio(k, cpu, pool, page);
        return;
    }
    cpu.var_store(k.vars.hpage(slot(k, page), Hpage::Prev), u64::from(pool.h), Order::Plain);
    let head = k.vars.scalar(Scalar::HpageFreelist);
    let own = link(k, page);
    loop {
        let old = cpu.var_load(head, Order::Plain);
        cpu.var_store(k.vars.hpage(slot(k, page), Hpage::Next), old, Order::Plain);
        if cpu.var_rmw(head, Rmw::CompareExchange { old, new: own }, Order::AcqRel) == old {
            return;
        }
    }
}

/// What freeing and demoting a page that was removed from its pool begin with: vmemmap back
/// (`hugetlb_vmemmap_restore_folio`), the HugeTLB mark off (`__folio_clear_hugetlb`, 6.1:
/// `__clear_hugetlb_destructor`), noted errors to their pages (`folio_clear_hugetlb_hwpoison`), an ordinary run of
/// pages left (`__destroy_compound_gigantic_folio`).
///
/// # Errors
/// `ENOMEM`: vmemmap could not be restored; the page is back in the pool, as surplus if `adjust_surplus`.
pub(crate) fn restore_and_destroy<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    pool: Pool,
    page: HugePage,
    adjust_surplus: bool,
) -> Result<(), Errno> {
    let sampled = match k.policies.dtor_clear {
        DtorClear::Kernel | DtorClear::BeforeRestore | DtorClear::HwpoisonFirst => None,
        DtorClear::Sampled => Some(page.is_optimized(k, cpu)),
    };
    if let Err(errno) = hugetlb_vmemmap_restore_folio(k, cpu, page) {
        lock(cpu);
        add_hugetlb_folio(k, cpu, pool, page, adjust_surplus);
        unlock(cpu);
        return Err(errno);
    }
    clear_hugetlb_and_destroy(k, cpu, page, sampled);
    Ok(())
}

/// The same once its vmemmap is back. `sampled`: whether it is taken for marked, where the mark itself is not asked.
pub(crate) fn clear_hugetlb_and_destroy<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage, sampled: Option<bool>) {
    let hwpoison_first = match k.policies.dtor_clear {
        DtorClear::Kernel | DtorClear::BeforeRestore | DtorClear::Sampled => false,
        DtorClear::HwpoisonFirst => true,
    };
    let early = if hwpoison_first { folio_clear_hugetlb_hwpoison(k, cpu, page) } else { None };
    // The mark itself is tested, not a flag sampled before the restore (R15).
    if sampled.unwrap_or_else(|| page_huge(k, cpu, page.va(k))) {
        lock(cpu);
        set_hugetlb_mark(k, cpu, page.va(k), false);
        unlock(cpu);
    }
    // Without the mark nobody notes an error here any more, so that none is left behind (R16).
    let raw = if hwpoison_first { early } else { folio_clear_hugetlb_hwpoison(k, cpu, page) };
    warn_hugetlb_left(k, cpu, page);
    destroy_compound(k, cpu, page);
    if let Some(raw) = raw {
        // Here, because the model's `destroy_compound` writes all flags.
        set_flag(cpu, k.layout.page_va(raw), flag::HWPOISON);
    }
}

/// What `__free_pages` tests of a compound page, and the state in which it leaves the struct pages.
fn destroy_compound<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage) {
    cpu.label("__free_pages");
    let restored = k.features.reserved_vmemmap_pages..vmemmap_pages(k, page.pages);
    free_tail_page_prepare(k, cpu, page.va(k), page.order(), restored);
    free_pages_prepare(k, cpu, page.head, page.order());
}

/// What a page must have shed before `folio_put` gives it to the page allocator. The kernel's order leaves nothing to
/// find, and nothing is looked at under it.
fn warn_hugetlb_left<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage) {
    match k.policies.dtor_clear {
        DtorClear::Sampled if page_huge(k, cpu, page.va(k)) => {
            cpu.warn(
                Invariant::FlagWithState,
                page.va(k).0,
                "a page leaves with the HugeTLB mark on: folio_put calls free_huge_folio",
            );
        }
        DtorClear::HwpoisonFirst if folio_test_hwpoison(k, cpu, page) => {
            cpu.warn(
                Invariant::FlagWithState,
                page.va(k).0,
                "an error noted on the head goes with it: the raw page is not flagged",
            );
        }
        DtorClear::Kernel | DtorClear::BeforeRestore | DtorClear::Sampled | DtorClear::HwpoisonFirst => {}
    }
}

/// `__update_and_free_hugetlb_folio` (6.1: `__update_and_free_page`).
///
/// # Errors
/// `ENOMEM`: the page went back to the pool as surplus.
pub(crate) fn __update_and_free_hugetlb_folio<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    pool: Pool,
    page: HugePage,
) -> Result<(), Errno> {
    cpu.label("__update_and_free_page");
    restore_and_destroy(k, cpu, pool, page, true)?;
    cpu.free(frames::<C>(k, page), page.order(), FrameKind::Huge);
    Ok(())
}

/// `free_hpage_workfn`: the pages whose freeing was put off. Returns how many.
///
/// # Errors
/// None; a failed restore makes the page surplus.
pub fn free_hpage_workfn<C: Cpu>(k: &Kernel, cpu: &C) -> Result<u64, Errno> {
    cpu.label("free_hpage_workfn");
    let mut count = 0;
    let mut list = PageList { first: cpu.var_rmw(k.vars.scalar(Scalar::HpageFreelist), Rmw::Swap(0), Order::AcqRel) };
    while list.first != 0 {
        let h = cpu.var_load(k.vars.hpage((list.first - 1) as u32, Hpage::Prev), Order::Plain);
        let pool = Pool::new(k, h as u8)?;
        if let Some(page) = list.pop(k, cpu, pool) {
            update_and_free_hugetlb_folio(k, cpu, pool, page, false);
            count += 1;
        }
    }
    Ok(count)
}

/// `free_huge_folio` (6.1: `free_huge_page`): the last reference is gone, or the page never had one.
pub(crate) fn free_huge_folio<C: Cpu>(k: &Kernel, cpu: &C, pool: Pool, page: HugePage) {
    cpu.label("free_huge_page");
    write_word(cpu, page.va(k), word::MAPPING, 0);
    lock(cpu);
    page.clear_flag(k, cpu, HPG_MIGRATABLE);
    let temporary = page.has_flag(k, cpu, HPG_TEMPORARY);
    let surplus = !temporary && pool.get(k, cpu, Hstate::SurplusHugePages) != 0;
    if temporary || surplus {
        remove_hugetlb_folio(k, cpu, pool, page, surplus);
        unlock(cpu);
        update_and_free_hugetlb_folio(k, cpu, pool, page, true);
    } else {
        list_del(k, cpu, pool, Hstate::ActiveList, page);
        enqueue_hugetlb_folio(k, cpu, pool, page);
        unlock(cpu);
    }
}

/// `__folio_put` (6.1: `__put_page`) for a speculative reference that turned out to be the last one: a HugeTLB page
/// goes back to its pool; anything else was never the model's to free.
pub(crate) fn __folio_put<C: Cpu>(k: &Kernel, cpu: &C, page: Va) {
    let head = compound_head(k, cpu, page);
    if !page_huge(k, cpu, head) {
        return;
    }
    if let Ok(pool) = Pool::of(k, cpu, head) {
        free_huge_folio(k, cpu, pool, HugePage { head: k.layout.page_pfn(head), pages: pool.pages });
    }
}

/// `folio_put` (6.1: `put_page`).
pub(crate) fn folio_put<C: Cpu>(k: &Kernel, cpu: &C, page: Va) {
    cpu.label("put_page");
    if put_page_testzero(cpu, page) {
        __folio_put(k, cpu, page);
    }
}
