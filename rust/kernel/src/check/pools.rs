//! The pools of a machine at rest against its tables and its struct pages (I8 to I11, I24; kernel-semantics §12).

use vmemmap_arch::contents::word;
use vmemmap_arch::{Invariant, Level, Pa, STRUCT_PAGE_SIZE, Zone};

use super::view::{Checker, Marks, StateView, Violation, page_word};
use crate::features::TailSource;
use crate::hugetlb::Pool;
use crate::hugetlb::page::HPG_VMEMMAP_OPTIMIZED;
use crate::hugetlb::page::HugePage;
use crate::hugetlb_vmemmap::vmemmap_pages;
use crate::hugetlb_vmemmap::zone_tail::{tail_index, zone_number};
use crate::mmzone::MMOP_ONLINE_MOVABLE;
use crate::page::{tail_head, tail_word};
use crate::state::{Block, Hpage, Hstate, Scalar};

/// Every pool's lists and counters, and every page on a list.
pub(crate) fn check_pools<V: StateView + ?Sized, M: Marks + ?Sized, F: FnMut(Violation)>(
    checker: &mut Checker<'_, V, M, F>,
) {
    let k = checker.view.kernel();
    let Some(key) = checker.view.var(k.vars.scalar(Scalar::HvoKey)) else { return };
    checker.visible.insert(Invariant::CountersBalance);
    let (sizes, count) = k.geometry.hugetlb_sizes();
    let mut optimised = deferred(checker);
    for (h, &pages) in sizes[..count].iter().enumerate() {
        let pool = Pool { h: h as u8, pages };
        let value = |field| checker.view.var(k.vars.hstate(pool.h, field)).unwrap_or(0);
        let (nr, free) = (value(Hstate::NrHugePages), value(Hstate::FreeHugePages));
        let (resv, surplus) = (value(Hstate::ResvHugePages), value(Hstate::SurplusHugePages));
        let max = value(Hstate::MaxHugePages);
        let (free_listed, free_optimised) = list(checker, pool, value_of(checker, pool, Hstate::FreeList), nr);
        let (used_listed, used_optimised) = list(checker, pool, value_of(checker, pool, Hstate::ActiveList), nr);
        optimised += free_optimised + used_optimised;
        let mut expect = |holds: bool, message| {
            if !holds {
                checker.report(Invariant::CountersBalance, h as u64, message);
            }
        };
        expect(nr >= surplus, "more surplus pages than pages");
        expect(free >= resv, "more pages reserved than free");
        expect(nr.wrapping_sub(surplus) == max, "max_huge_pages is not the number of persistent pages");
        expect(free_listed == free, "free_huge_pages is not the length of the free list");
        expect(free_listed + used_listed == nr, "nr_huge_pages is not the length of the lists");
    }
    if k.features.fake_heads && key != optimised {
        checker.report(Invariant::CountersBalance, key, "the static key does not count the optimised pages");
    }
}

fn value_of<V: StateView + ?Sized, M: ?Sized, F>(checker: &Checker<'_, V, M, F>, pool: Pool, field: Hstate) -> u64 {
    checker.view.var(checker.view.kernel().vars.hstate(pool.h, field)).unwrap_or(0)
}

/// Pages that wait for the worker; all of them are optimised. Returns how many.
fn deferred<V: StateView + ?Sized, M: Marks + ?Sized, F: FnMut(Violation)>(checker: &mut Checker<'_, V, M, F>) -> u64 {
    let k = checker.view.kernel();
    let var = |var| checker.view.var(var).unwrap_or(0);
    let mut link = var(k.vars.scalar(Scalar::HpageFreelist));
    let mut count = 0;
    let limit = k.vars.count();
    while link != 0 && count < limit {
        link = var(k.vars.hpage((link - 1) as u32, Hpage::Next));
        count += 1;
    }
    count
}

/// One list: its length, and how many of its pages are optimised. A list longer than `limit` is cut: it has a cycle, or
/// the counters are wrong.
fn list<V: StateView + ?Sized, M: Marks + ?Sized, F: FnMut(Violation)>(
    checker: &mut Checker<'_, V, M, F>,
    pool: Pool,
    first: u64,
    limit: u64,
) -> (u64, u64) {
    let k = *checker.view.kernel();
    let (mut link, mut length, mut optimised) = (first, 0, 0);
    while link != 0 && length <= limit {
        let slot = (link - 1) as u32;
        let page = HugePage { head: k.geometry.pfn(k.vars.hpage_pa(slot)), pages: pool.pages };
        optimised += u64::from(hugepage(checker, page));
        length += 1;
        link = checker.view.var(k.vars.hpage(slot, Hpage::Next)).unwrap_or(0);
    }
    (length, optimised)
}

/// The frame that the tails of an optimised page map: of the last page kept, or of the zone and order.
fn shared_frame<V: StateView + ?Sized, M: Marks + ?Sized, F: FnMut(Violation)>(
    checker: &Checker<'_, V, M, F>,
    page: HugePage,
) -> Option<Pa> {
    let k = checker.view.kernel();
    let at = |i: u64| page.va(k).plus(i << k.geometry.page_shift());
    match k.features.tail_source {
        TailSource::RetainedPage => checker.translate(at(k.features.reserved_vmemmap_pages - 1)),
        TailSource::ZoneTail => {
            let pa = k.geometry.pa(page.head);
            let section = k.vars.section_number(pa);
            let zone = match checker.view.var(k.vars.block(section, Block::Zone)) {
                Some(MMOP_ONLINE_MOVABLE) => Some(Zone::Movable),
                Some(_) => Some(Zone::Normal),
                None => None,
            };
            match zone {
                Some(zone) => {
                    let var = k.vars.zone_tail(zone_number(k, zone, pa), tail_index(k, page.order()));
                    checker.view.var(var).filter(|&pa| pa != 0).map(Pa)
                }
                None => {
                    let last = checker.walk(at(vmemmap_pages(k, page.pages).max(1) - 1))?;
                    last.output.filter(|_| !last.desc.is_writable())
                }
            }
        }
    }
}

/// One page of a pool: the flag against the tables, the tables against the contents. Returns whether the flag is set;
/// nothing is judged where contents are not visible.
pub(crate) fn hugepage<V: StateView + ?Sized, M: Marks + ?Sized, F: FnMut(Violation)>(
    checker: &mut Checker<'_, V, M, F>,
    page: HugePage,
) -> bool {
    let k = *checker.view.kernel();
    let head = k.layout.page_va(page.head);
    let Some(head_pa) = checker.translate(head) else { return false };
    let Some(private) = checker.view.data_word(page_word(head_pa, 0, word::PRIVATE)) else { return false };
    let flagged = private & HPG_VMEMMAP_OPTIMIZED != 0;
    for invariant in [
        Invariant::TailsResolveToHead,
        Invariant::RestoredPrivate,
        Invariant::RollbackComplete,
        Invariant::FlagWithState,
    ] {
        checker.visible.insert(invariant);
    }
    let (count, reserved) = (vmemmap_pages(&k, page.pages), k.features.reserved_vmemmap_pages);
    let reuse = (reserved <= count).then(|| shared_frame(checker, page)).flatten();
    for i in 0..count.max(1) {
        let va = head.plus(i << k.geometry.page_shift());
        let Some(found) = checker.walk(va) else { continue };
        let Some(pa) = found.output else { continue };
        let shared = i >= reserved && Some(pa) == reuse;
        if i >= reserved && flagged && !shared {
            checker.report(
                Invariant::FlagWithState,
                va.0,
                "the page is flagged as optimised and this tail is not shared",
            );
        }
        if !flagged && (shared || found.level == Level::PTE && !found.desc.is_writable()) {
            checker.report(
                Invariant::RollbackComplete,
                va.0,
                "the page is not flagged as optimised and this tail is shared or read-only",
            );
        }
        // Of a page that is shared with its head the first slots are the head's own.
        let with_head = match k.features.tail_source {
            TailSource::RetainedPage => shared,
            TailSource::ZoneTail => false,
        };
        let first_tail = if i == 0 || with_head { 1 } else { 0 };
        let slots = (page.pages - i * (k.geometry.page_size() / STRUCT_PAGE_SIZE)).min(4);
        for nth in first_tail..slots {
            let Some(found) = checker.view.data_word(page_word(pa, nth, word::COMPOUND_HEAD)) else { break };
            let tail = va.plus(nth * STRUCT_PAGE_SIZE);
            if found != tail_word(&k, head, page.order()) || tail_head(&k, tail, found) != Some(head) {
                // Of an optimised page of 7.x every other vmemmap page is shared, with whomever.
                let shares = shared || flagged && k.features.tail_source == TailSource::ZoneTail;
                let what =
                    if shares || i < reserved { Invariant::TailsResolveToHead } else { Invariant::RestoredPrivate };
                checker.report(what, tail.0, "a tail does not name its head");
                break;
            }
        }
    }
    flagged
}
