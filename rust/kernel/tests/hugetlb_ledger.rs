//! What each HugeTLB operation does to frames, descriptors and counters, per kernel (kernel-semantics §6, §7.9).

mod lab;

use lab::{BASE, Lab};
use vmemmap_arch::descriptor::{Attr, prot};
use vmemmap_arch::tables::walk;
use vmemmap_arch::{FrameKind, Granule, Level, Pa, Pfn, Version};
use vmemmap_kernel::hugetlb::fault::fault_and_unmap;
use vmemmap_kernel::hugetlb::resize::set_max_huge_pages;
use vmemmap_kernel::hugetlb::{alloc_pool_huge_folio, remove_pool_hugetlb_folio};
use vmemmap_kernel::state::Scalar;
use vmemmap_kernel::{Errno, Policies};

const PMD: u8 = 1;

fn base_pages(version: Version) -> Lab {
    Lab::new(Granule::K4, version, 2, false, Policies::default())
}

fn blocks(version: Version) -> Lab {
    Lab::new(Granule::K4, version, 2, true, Policies::default())
}

#[test]
fn optimise_and_restore_follow_the_ledger_in_every_version() {
    for (version, out, fresh, back) in [
        (Version::V2021, 6, 0, 6),
        (Version::V6_1, 7, 0, 7),
        (Version::V6_12, 8, 1, 7),
        (Version::V6_12_117, 8, 1, 7),
        (Version::V7_2, 8, 2, 7),
        (Version::V7_3, 8, 2, 7),
    ] {
        let m = base_pages(version);
        let before = m.vmemmap_frames().len();
        let b = m.counters();
        let head = alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, None).unwrap();
        let c = m.counters();
        assert_eq!(
            (c.frames_allocated - b.frames_allocated - 512, c.frames_freed - b.frames_freed),
            (fresh, out),
            "{}",
            version.name()
        );
        assert_eq!(m.vmemmap_frames().len(), before + fresh as usize - out as usize, "{}", version.name());
        m.assert_clean("optimised");
        let b = m.counters();
        assert_eq!(remove_pool_hugetlb_folio(&m.k, &m.cpu(), PMD, Some(Pfn(head))), Ok(head));
        let c = m.counters();
        assert_eq!(
            (c.frames_allocated - b.frames_allocated, c.frames_freed - b.frames_freed - 512),
            (back, 0),
            "{}",
            version.name()
        );
        assert_eq!(m.vmemmap_frames().len(), before);
        if version == Version::V6_12_117 {
            let violations = m.m.violations();
            assert!(violations.iter().all(|v| v.message.starts_with("bad page")), "{violations:?}");
            assert!(!violations.is_empty(), "the missing reset shows when the page is freed");
        } else {
            m.assert_clean("restored");
        }
    }
}

#[test]
fn eight_hugepages_change_the_descriptors_that_the_captures_show() {
    for (version, lost, gained, changed) in [
        (Version::V6_1, 56, 0, 513),
        (Version::V6_12, 64, 8, 513),
        (Version::V6_12_117, 64, 8, 513),
        (Version::V7_2, 64, 9, 513),
        (Version::V7_3, 64, 9, 513),
    ] {
        let m = blocks(version);
        let before = m.vmemmap_frames();
        let tables = m.frames_of(FrameKind::Table);
        assert_eq!(set_max_huge_pages(&m.k, &m.cpu(), PMD, 8), Ok(8));
        let after = m.vmemmap_frames();
        assert_eq!(before.difference(&after).count(), lost, "{}", version.name());
        assert_eq!(after.difference(&before).count(), gained, "{}", version.name());
        assert_eq!(m.frames_of(FrameKind::Table) - tables, 1);
        let ptes = m.leaves().iter().filter(|l| l.1 == Level::PTE).count();
        assert_eq!(ptes + 1, changed);
        let tails = m.leaves().iter().filter(|l| l.1 == Level::PTE && l.2.has(Attr::RDONLY)).count();
        assert_eq!(tails, 56);
        m.assert_clean("eight pages");
    }
}

#[test]
fn descriptor_words_are_those_of_the_captures() {
    let m = blocks(Version::V6_1);
    let head = Pfn(alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, None).unwrap());
    let va = m.k.layout.page_va(head);
    let word = |i: u64| m.pte(va.plus(i * 4096)).unwrap().0 & !m.k.geometry.address_mask();
    assert_eq!(word(0), prot::PAGE_KERNEL);
    assert_eq!(word(1), prot::PAGE_KERNEL_RO);
    assert_eq!(word(7), prot::PAGE_KERNEL_RO);
    remove_pool_hugetlb_folio(&m.k, &m.cpu(), PMD, None).unwrap();
    assert_eq!(word(7), prot::PAGE_KERNEL);
}

#[test]
fn the_first_pte_moves_since_6_12() {
    for (version, moves) in [
        (Version::V2021, false),
        (Version::V6_1, false),
        (Version::V6_12, true),
        (Version::V6_12_117, true),
        (Version::V7_2, true),
        (Version::V7_3, true),
    ] {
        let m = base_pages(version);
        let va = m.k.layout.page_va(m.k.geometry.pfn(Pa(BASE)));
        let before = m.pte(va);
        alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, Some(m.k.geometry.pfn(Pa(BASE)))).unwrap();
        assert_eq!(m.pte(va) != before, moves, "{}", version.name());
    }
}

#[test]
fn a_used_page_goes_back_to_the_free_list_and_stays_optimised() {
    let m = base_pages(Version::V6_1);
    assert_eq!(fault_and_unmap(&m.k, &m.cpu(), PMD), Err(Errno::ENOSPC));
    let head = alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, None).unwrap();
    assert_eq!(fault_and_unmap(&m.k, &m.cpu(), PMD), Ok(head));
    assert_eq!(m.scalar(Scalar::HvoKey), 1);
    m.assert_clean("used");
}

#[test]
fn pages_too_small_for_their_own_vmemmap_are_left_alone() {
    for (granule, h) in [(Granule::K4, 0), (Granule::K16, 0), (Granule::K64, 0)] {
        let m = Lab::new(granule, Version::V6_12, 1, false, Policies::default());
        alloc_pool_huge_folio(&m.k, &m.cpu(), h, None).unwrap();
        assert_eq!(m.scalar(Scalar::HvoKey), 0);
        m.assert_clean("small");
        remove_pool_hugetlb_folio(&m.k, &m.cpu(), h, None).unwrap();
        m.assert_clean("small freed");
    }
}

#[test]
fn the_pmd_sized_page_gives_up_seven_frames_with_every_granule() {
    for granule in Granule::ALL {
        let m = Lab::new(granule, Version::V6_1, 2, false, Policies::default());
        let before = m.vmemmap_frames().len();
        alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, None).unwrap();
        assert_eq!(before - m.vmemmap_frames().len(), 7, "{}", granule.name());
        m.assert_clean(granule.name());
    }
}

#[test]
fn the_sysctl_concerns_new_pages_only() {
    let m = base_pages(Version::V6_1);
    alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, None).unwrap();
    m.set_hvo(false);
    alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, None).unwrap();
    assert_eq!(m.scalar(Scalar::HvoKey), 1);
    assert_eq!(set_max_huge_pages(&m.k, &m.cpu(), PMD, 0), Ok(0));
    m.assert_clean("all freed");
    assert_eq!(m.scalar(Scalar::HvoKey), 0);
}

#[test]
fn self_hosted_storage_is_refused() {
    for version in Version::ALL {
        for m in [base_pages(version), blocks(version)] {
            // The first 2 MiB of the section hold its vmemmap.
            let head = m.add_self_hosted().plus(512);
            let storage = walk(&m.m, m.k.layout.page_va(head)).unwrap().output.unwrap();
            assert_eq!(m.m.frame_info(storage), Some((FrameKind::Vmemmap, false, true)));
            let before = m.leaves();
            alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, Some(head)).unwrap();
            assert_eq!(m.leaves(), before, "{}", version.name());
            m.assert_clean(version.name());
        }
    }
}

/// A split by itself flushes what it split; in a batch all splits are flushed at once, and so are all remaps.
#[test]
fn a_split_is_flushed_by_itself_or_with_its_batch() {
    let tlbi = |m: &Lab, count| {
        let before = m.counters().tlbi;
        set_max_huge_pages(&m.k, &m.cpu(), PMD, count).unwrap();
        m.counters().tlbi - before
    };
    // 6.1: the 512 pages of vmemmap that the block mapped, then the seven that the hugepage gives up. Since 6.12: all
    // of the TLB for the splits of the batch, all of it for the remaps.
    for (version, splits, remaps) in [(Version::V6_1, 512 + 7, 7), (Version::V6_12, 2, 2)] {
        let m = blocks(version);
        assert_eq!(tlbi(&m, 1), splits, "{version:?}");
        // The second page lies in the block that the first has split.
        assert_eq!(tlbi(&m, 2), remaps, "{version:?}");
    }
}

/// `set_pte`: a valid entry of the kernel is followed by `dsb ishst` and `isb`, so that no later access faults on it.
#[test]
fn every_valid_entry_is_followed_by_its_barriers() {
    let m = base_pages(Version::V6_1);
    for count in [1, 0] {
        let before = m.counters();
        set_max_huge_pages(&m.k, &m.cpu(), PMD, count).unwrap();
        let after = m.counters();
        // Seven entries, and a flush: a barrier before its invalidates, one after them.
        assert_eq!((after.dsb - before.dsb, after.isb - before.isb), (7 + 2, 7 + 1), "{count}");
    }
}

#[test]
fn grace_periods_are_one_per_page_or_one_per_batch_since_6_12() {
    let resize = |m: &Lab, count| {
        let before = m.counters().grace_periods;
        set_max_huge_pages(&m.k, &m.cpu(), PMD, count).unwrap();
        m.counters().grace_periods - before
    };
    let m = blocks(Version::V6_12);
    assert_eq!(resize(&m, 8), 1);
    assert_eq!(resize(&m, 0), 1);
    let m = blocks(Version::V6_1);
    assert_eq!(resize(&m, 8), 0);
}
