//! Demotion by itself: what a batch costs, what a failed restore leaves, in which order the parts are free; and batches
//! without a page in them (kernel-semantics §H7, §7.2, §7.4, §7.6).
//!
//! All with 4K pages: a 32M page has 128 vmemmap pages, 127 of them shared when it is optimised; its 16 parts of 2M
//! have 8 and 7. 2021 retains two pages, so there it is 126 and 6.

mod lab;

use lab::Lab;
use vmemmap_arch::{FrameKind, Granule, Pfn, Version};
use vmemmap_kernel::hugetlb::demote::demote_store;
use vmemmap_kernel::hugetlb::fault::{__unmap_hugepage_range, hugetlb_no_page};
use vmemmap_kernel::hugetlb::resize::{hugetlb_acct_memory, nr_overcommit_hugepages_store, set_max_huge_pages};
use vmemmap_kernel::hugetlb::{Pool, alloc_pool_huge_folio, free_hpage_workfn};
use vmemmap_kernel::memory_failure::memory_failure;
use vmemmap_kernel::policy::Batch;
use vmemmap_kernel::state::Hstate;
use vmemmap_kernel::{Errno, Policies};

/// 2M, and 32M.
const SMALL: u8 = 1;
const LARGE: u8 = 2;
const PARTS: u64 = 16;

fn lab(version: Version) -> Lab {
    Lab::new(Granule::K4, version, 3, true, Policies::default())
}

/// Whether this kernel demotes by lists.
fn is_batched(version: Version) -> bool {
    match version {
        Version::V2021 | Version::V6_1 => false,
        Version::V6_12 | Version::V6_12_117 | Version::V7_2 | Version::V7_3 => true,
    }
}

/// nr, free, surplus and max of a pool.
fn counts(m: &Lab, h: u8) -> [u64; 4] {
    use Hstate::{FreeHugePages, MaxHugePages, NrHugePages, SurplusHugePages};
    [NrHugePages, FreeHugePages, SurplusHugePages, MaxHugePages].map(|field| m.m.var(m.k.vars.hstate(h, field)))
}

/// Heads of the free list, in its order.
fn free_list(m: &Lab, h: u8) -> Vec<Pfn> {
    let heads = std::cell::RefCell::new(Vec::new());
    let _ = Pool::new(&m.k, h).unwrap().find_free(&m.k, &m.cpu(), |page| {
        heads.borrow_mut().push(page.head);
        false
    });
    heads.into_inner()
}

/// Three large pages; the last allocated is the first of the free list.
fn three(m: &Lab) -> [Pfn; 3] {
    for _ in 0..3 {
        alloc_pool_huge_folio(&m.k, &m.cpu(), LARGE, None).unwrap();
    }
    free_list(m, LARGE).try_into().unwrap()
}

/// 6.12.117 restores copies of the head (I11): its counters are as sound as the others'.
fn assert_clean(m: &Lab, version: Version) {
    if version == Version::V6_12_117 { m.assert_unlocked(version.name()) } else { m.assert_clean(version.name()) }
}

#[test]
fn a_batch_costs_one_flush_to_restore_two_to_optimise_and_two_grace_periods() {
    for version in Version::ALL {
        let m = lab(version);
        three(&m);
        let before = m.counters();
        assert_eq!(demote_store(&m.k, &m.cpu(), LARGE, 3), Ok(3));
        let after = m.counters();
        // Page by page each range is invalidated entry by entry: all tails of the large page, then those of each part.
        let (tlbi, grace_periods) = match version {
            Version::V2021 => (3 * (126 + PARTS * 6), 0),
            Version::V6_1 => (3 * (127 + PARTS * 7), 0),
            Version::V6_12 | Version::V6_12_117 => (3, 2),
            Version::V7_2 | Version::V7_3 => (3, 0),
        };
        let spent = (after.tlbi - before.tlbi, after.grace_periods - before.grace_periods);
        assert_eq!(spent, (tlbi, grace_periods), "{}", version.name());
        assert_eq!(counts(&m, LARGE), [0; 4], "{}", version.name());
        assert_eq!(counts(&m, SMALL), [3 * PARTS, 3 * PARTS, 0, 3 * PARTS], "{}", version.name());
        assert_clean(&m, version);
    }
}

#[test]
fn the_next_part_to_be_used_is_the_first_of_the_page_removed_first_or_the_last_of_the_one_demoted_last() {
    for version in Version::ALL {
        let m = lab(version);
        let [first, second, third] = three(&m);
        assert_eq!(demote_store(&m.k, &m.cpu(), LARGE, 2), Ok(2));
        assert_eq!(free_list(&m, LARGE), [third], "{}", version.name());
        let parts = |page: Pfn| (0..PARTS).map(move |i| page.plus(i * 512));
        // A batch goes through two lists, each of which is turned round twice: by `list_add` to the list of removed
        // pages and `list_move` to the restored ones, then by `list_add` of the parts and of the free pages.
        let expected: Vec<_> = if is_batched(version) {
            parts(first).chain(parts(second)).collect()
        } else {
            parts(second).rev().chain(parts(first).rev()).collect()
        };
        assert_eq!(free_list(&m, SMALL), expected, "{}", version.name());
    }
}

/// The allocation after so many fails; all of a restore come before any of an optimisation.
fn tails(version: Version) -> u64 {
    if version == Version::V2021 { 126 } else { 127 }
}

#[test]
fn a_failed_restore_ends_the_batch_and_what_was_restored_is_demoted() {
    for version in Version::ALL {
        let m = lab(version);
        let [first, second, third] = three(&m);
        m.fail_after(tails(version));
        assert_eq!(demote_store(&m.k, &m.cpu(), LARGE, 2), Err(Errno::ENOMEM), "{}", version.name());
        m.fail_none();
        assert_eq!(counts(&m, LARGE), [2, 2, 0, 2], "{}", version.name());
        assert_eq!(counts(&m, SMALL), [PARTS, PARTS, 0, PARTS], "{}", version.name());
        // A batch restores the page first that was removed last.
        let left = if is_batched(version) { [first, third] } else { [second, third] };
        assert_eq!(free_list(&m, LARGE), left, "{}", version.name());
        assert_clean(&m, version);
    }
}

#[test]
fn what_comes_back_keeps_its_order_and_a_page_that_never_was_optimised_is_split_behind_a_failure() {
    for version in Version::ALL.into_iter().filter(|&version| is_batched(version)) {
        let m = lab(version);
        let [first, second, third] = three(&m);
        m.set_hvo(false);
        let plain = Pfn(alloc_pool_huge_folio(&m.k, &m.cpu(), LARGE, None).unwrap());
        m.fail_all();
        assert_eq!(demote_store(&m.k, &m.cpu(), LARGE, 4), Err(Errno::ENOMEM), "{}", version.name());
        m.fail_none();
        assert_eq!(free_list(&m, LARGE), [first, second, third], "{}", version.name());
        assert_eq!(counts(&m, LARGE), [3, 3, 0, 3], "{}", version.name());
        assert_eq!(free_list(&m, SMALL)[0], plain, "{}", version.name());
        assert_eq!(counts(&m, SMALL), [PARTS, PARTS, 0, PARTS], "{}", version.name());
        assert_clean(&m, version);
    }
}

/// Two large pages, one of them surplus since its restore failed.
fn one_persistent_one_surplus(version: Version) -> Lab {
    let m = lab(version);
    set_max_huge_pages(&m.k, &m.cpu(), LARGE, 2).unwrap();
    m.fail_all();
    set_max_huge_pages(&m.k, &m.cpu(), LARGE, 1).unwrap();
    m.fail_none();
    assert_eq!(counts(&m, LARGE), [2, 2, 1, 1], "{}", version.name());
    m
}

#[test]
fn a_surplus_page_that_is_demoted_is_no_persistent_one() {
    for version in Version::ALL {
        let m = one_persistent_one_surplus(version);
        assert_eq!(demote_store(&m.k, &m.cpu(), LARGE, 2), Ok(2));
        assert_eq!((counts(&m, LARGE), counts(&m, SMALL)), ([0; 4], [32, 32, 0, 32]), "{}", version.name());
        assert_clean(&m, version);

        // The persistent one goes, the surplus one comes back.
        let m = one_persistent_one_surplus(version);
        m.fail_after(tails(version));
        assert_eq!(demote_store(&m.k, &m.cpu(), LARGE, 2), Err(Errno::ENOMEM));
        m.fail_none();
        assert_eq!(counts(&m, LARGE), [1, 1, 1, 0], "{}", version.name());
        assert_clean(&m, version);
    }
}

/// Full flushes of a batch without a page in it (kernel-7.3, "batch on an empty list").
fn empty_batch(version: Version) -> u64 {
    match version {
        Version::V2021 | Version::V6_1 => 0,
        Version::V6_12 | Version::V6_12_117 => 2,
        Version::V7_2 => 1,
        Version::V7_3 => 0,
    }
}

#[test]
fn a_batch_is_flushed_for_no_page_up_to_7_2() {
    for version in Version::ALL {
        let m = lab(version);
        let spent = |work: &dyn Fn()| {
            let before = m.counters().tlbi;
            work();
            m.counters().tlbi - before
        };
        m.fail_all();
        let grown = spent(&|| assert_eq!(set_max_huge_pages(&m.k, &m.cpu(), SMALL, 4), Ok(0)));
        assert_eq!(grown, empty_batch(version), "{}: nothing could be allocated", version.name());
        m.fail_none();
        // Here the list is looked at, in every kernel.
        let nothing = spent(&|| assert_eq!(set_max_huge_pages(&m.k, &m.cpu(), SMALL, 0), Ok(0)));
        assert_eq!(nothing, 0, "{}: nothing was to be done", version.name());

        let [first, ..] = three(&m);
        m.fail_all();
        let failed = spent(&|| assert_eq!(demote_store(&m.k, &m.cpu(), LARGE, 3), Err(Errno::ENOMEM)));
        assert_eq!(failed, empty_batch(version), "{}: nothing could be restored", version.name());
        m.fail_none();
        assert_eq!(demote_store(&m.k, &m.cpu(), LARGE, 2), Ok(2));
        let [last] = free_list(&m, LARGE)[..] else { panic!("one is left") };
        assert_ne!(last, first);
        assert_eq!(memory_failure(&m.k, &m.cpu(), last), Some(true));
        let poisoned = spent(&|| assert_eq!(demote_store(&m.k, &m.cpu(), LARGE, 1), Err(Errno::EBUSY)));
        assert_eq!(poisoned, empty_batch(version), "{}: all are poisoned", version.name());
        assert_clean(&m, version);
    }
}

#[test]
fn reserved_pages_are_not_demoted_and_poisoned_ones_are_passed_over() {
    for version in Version::ALL {
        let m = lab(version);
        let [first, second, third] = three(&m);
        hugetlb_acct_memory(&m.k, &m.cpu(), LARGE, 2).unwrap();
        assert_eq!(demote_store(&m.k, &m.cpu(), LARGE, 3), Ok(1), "{}", version.name());
        assert_eq!(free_list(&m, LARGE), [second, third]);
        assert_eq!(free_list(&m, SMALL).into_iter().min(), Some(first));
        hugetlb_acct_memory(&m.k, &m.cpu(), LARGE, -2).unwrap();
        assert_eq!(memory_failure(&m.k, &m.cpu(), second), Some(true));
        // One can go; then only the poisoned one is left, and says so.
        assert_eq!(demote_store(&m.k, &m.cpu(), LARGE, 2), Err(Errno::EBUSY), "{}", version.name());
        assert_eq!(free_list(&m, LARGE), [second]);
        assert_clean(&m, version);
    }
}

#[test]
fn a_signal_ends_a_demotion_and_every_page_is_in_a_pool() {
    for version in Version::ALL {
        let m = lab(version);
        let all = three(&m);
        m.m.set_signal(true);
        assert_eq!(demote_store(&m.k, &m.cpu(), LARGE, 3), Ok(0), "{}", version.name());
        m.m.set_signal(false);
        assert_eq!(free_list(&m, LARGE), all);
        assert_clean(&m, version);
    }
}

/// Page by page the parts are freed as pages that were in use (`free_huge_page`): while there are surplus pages, a part
/// takes the place of one and goes back to the page allocator. A batch enqueues them all.
#[test]
fn a_part_is_freed_in_the_place_of_a_surplus_page_where_pages_are_demoted_one_by_one() {
    let batches = |version, batch| is_batched(version) && batch == Batch::ByKernel;
    for version in Version::ALL {
        for batch in [Batch::ByKernel, Batch::None] {
            let m = Lab::new(Granule::K4, version, 3, true, Policies { batch, ..Policies::default() });
            nr_overcommit_hugepages_store(&m.k, &m.cpu(), SMALL, 1).unwrap();
            let used = hugetlb_no_page(&m.k, &m.cpu(), SMALL).unwrap();
            assert_eq!(counts(&m, SMALL), [1, 0, 1, 0]);
            let large = Pfn(alloc_pool_huge_folio(&m.k, &m.cpu(), LARGE, None).unwrap());
            assert_eq!(demote_store(&m.k, &m.cpu(), LARGE, 1), Ok(1));
            let what = format!("{} {batch:?}", version.name());
            if batches(version, batch) {
                assert_eq!(counts(&m, SMALL), [17, 16, 1, 16], "{what}");
                assert_eq!(free_hpage_workfn(&m.k, &m.cpu()), Ok(0), "{what}");
            } else {
                // The page in use is a persistent one now.
                assert_eq!(counts(&m, SMALL), [16, 15, 0, 16], "{what}");
                assert!(!free_list(&m, SMALL).contains(&large), "{what}: the first part is the one that goes");
                // It is optimised, and `free_huge_page` may not sleep.
                assert_eq!(free_hpage_workfn(&m.k, &m.cpu()), Ok(1), "{what}");
            }
            let [nr, ..] = counts(&m, SMALL);
            assert_eq!(m.frames_of(FrameKind::Huge), nr * 512, "{what}");
            assert_clean(&m, version);
            // Back to the free list, or to the page allocator if it still is the surplus one.
            __unmap_hugepage_range(&m.k, &m.cpu(), SMALL, Pfn(used)).unwrap();
            free_hpage_workfn(&m.k, &m.cpu()).unwrap();
            assert_eq!(counts(&m, SMALL), [16, 16, 0, 16], "{what}");
            assert_clean(&m, version);
        }
    }
}
