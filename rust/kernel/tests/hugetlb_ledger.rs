//! What each HugeTLB operation does to frames, descriptors and counters, per kernel (kernel-semantics §6, §7.9).

mod single;

use single::{BASE, Single};
use vmemmap_arch::descriptor::{Attr, prot};
use vmemmap_arch::{FrameKind, Granule, Level, Pa, Pfn, Version};
use vmemmap_kernel::hugetlb::{alloc_fresh, free_one, set_max_huge_pages, use_page};
use vmemmap_kernel::state::Scalar;
use vmemmap_kernel::{Errno, Policies};

const PMD: u8 = 1;

fn base_pages(version: Version) -> Single {
    Single::new(Granule::K4, version, 2, false, Policies::default())
}

fn blocks(version: Version) -> Single {
    Single::new(Granule::K4, version, 2, true, Policies::default())
}

#[test]
fn optimise_and_restore_follow_the_ledger_in_every_version() {
    for (version, out, fresh, back) in
        [(Version::V2021, 6, 0, 6), (Version::V6_1, 7, 0, 7), (Version::V6_12, 8, 1, 7), (Version::V6_12_117, 8, 1, 7)]
    {
        let m = base_pages(version);
        let before = m.vmemmap_frames().len();
        let head = alloc_fresh(&m.k, &m, PMD, None).unwrap();
        let c = m.counts.get();
        assert_eq!((c.allocated - 512, c.freed), (fresh, out), "{}", version.name());
        assert_eq!(m.vmemmap_frames().len(), before + fresh as usize - out as usize, "{}", version.name());
        m.assert_clean("optimised");
        m.counts.set(Default::default());
        assert_eq!(free_one(&m.k, &m, PMD, Some(Pfn(head))), Ok(head));
        let c = m.counts.get();
        assert_eq!((c.allocated, c.freed - 512), (back, 0), "{}", version.name());
        assert_eq!(m.vmemmap_frames().len(), before);
        if version == Version::V6_12_117 {
            let faults = m.faults.borrow();
            assert!(faults.iter().all(|f| f.2.starts_with("bad page")), "{faults:?}");
            assert!(!faults.is_empty(), "the missing reset shows when the page is freed");
        } else {
            m.assert_clean("restored");
        }
    }
}

#[test]
fn eight_hugepages_change_the_descriptors_that_the_captures_show() {
    for (version, lost, gained, changed) in [(Version::V6_1, 56, 0, 513), (Version::V6_12, 64, 8, 513), (Version::V6_12_117, 64, 8, 513)] {
        let m = blocks(version);
        let before = m.vmemmap_frames();
        let tables = m.frames_of(FrameKind::Table);
        assert_eq!(set_max_huge_pages(&m.k, &m, PMD, 8), Ok(8));
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
    let head = Pfn(alloc_fresh(&m.k, &m, PMD, None).unwrap());
    let va = m.k.layout.page_va(head);
    let word = |i: u64| m.pte(va.plus(i * 4096)).unwrap().0 & !m.k.geometry.address_mask();
    assert_eq!(word(0), prot::PAGE_KERNEL);
    assert_eq!(word(1), prot::PAGE_KERNEL_RO);
    assert_eq!(word(7), prot::PAGE_KERNEL_RO);
    free_one(&m.k, &m, PMD, None).unwrap();
    assert_eq!(word(7), prot::PAGE_KERNEL);
}

#[test]
fn the_first_pte_moves_in_6_12_only() {
    for (version, moves) in [(Version::V2021, false), (Version::V6_1, false), (Version::V6_12, true), (Version::V6_12_117, true)] {
        let m = base_pages(version);
        let va = m.k.layout.page_va(m.k.geometry.pfn(Pa(BASE)));
        let before = m.pte(va);
        alloc_fresh(&m.k, &m, PMD, Some(m.k.geometry.pfn(Pa(BASE)))).unwrap();
        assert_eq!(m.pte(va) != before, moves, "{}", version.name());
    }
}

#[test]
fn a_used_page_goes_back_to_the_free_list_and_stays_optimised() {
    let m = base_pages(Version::V6_1);
    assert_eq!(use_page(&m.k, &m, PMD), Err(Errno::ENOSPC));
    let head = alloc_fresh(&m.k, &m, PMD, None).unwrap();
    assert_eq!(use_page(&m.k, &m, PMD), Ok(head));
    assert_eq!(m.scalar(Scalar::HvoKey), 1);
    m.assert_clean("used");
}

#[test]
fn pages_too_small_for_their_own_vmemmap_are_left_alone() {
    for (granule, h) in [(Granule::K4, 0), (Granule::K16, 0), (Granule::K64, 0)] {
        let m = Single::new(granule, Version::V6_12, 1, false, Policies::default());
        alloc_fresh(&m.k, &m, h, None).unwrap();
        assert_eq!(m.scalar(Scalar::HvoKey), 0);
        m.assert_clean("small");
        free_one(&m.k, &m, h, None).unwrap();
        m.assert_clean("small freed");
    }
}

#[test]
fn the_pmd_sized_page_gives_up_seven_frames_with_every_granule() {
    for granule in Granule::ALL {
        let m = Single::new(granule, Version::V6_1, 2, false, Policies::default());
        let before = m.vmemmap_frames().len();
        alloc_fresh(&m.k, &m, PMD, None).unwrap();
        assert_eq!(before - m.vmemmap_frames().len(), 7, "{}", granule.name());
        m.assert_clean(granule.name());
    }
}

#[test]
fn the_sysctl_concerns_new_pages_only() {
    let m = base_pages(Version::V6_1);
    alloc_fresh(&m.k, &m, PMD, None).unwrap();
    m.set_hvo(false);
    alloc_fresh(&m.k, &m, PMD, None).unwrap();
    assert_eq!(m.scalar(Scalar::HvoKey), 1);
    assert_eq!(set_max_huge_pages(&m.k, &m, PMD, 0), Ok(0));
    m.assert_clean("all freed");
    assert_eq!(m.scalar(Scalar::HvoKey), 0);
}

#[test]
fn self_hosted_storage_is_refused() {
    for version in Version::ALL {
        let m = base_pages(version);
        let head = m.k.geometry.pfn(Pa(BASE));
        let va = m.k.layout.page_va(head);
        let first = m.k.geometry.output(m.pte(va).unwrap());
        m.mark_self_hosted(first);
        let before = m.leaves();
        alloc_fresh(&m.k, &m, PMD, Some(head)).unwrap();
        assert_eq!(m.leaves(), before, "{}", version.name());
        m.assert_clean(version.name());
    }
}

#[test]
fn grace_periods_are_one_per_page_or_one_per_batch_since_6_12() {
    let m = blocks(Version::V6_12);
    set_max_huge_pages(&m.k, &m, PMD, 8).unwrap();
    assert_eq!(m.counts.get().rcu, 1);
    set_max_huge_pages(&m.k, &m, PMD, 0).unwrap();
    assert_eq!(m.counts.get().rcu, 2);
    let m = blocks(Version::V6_1);
    set_max_huge_pages(&m.k, &m, PMD, 8).unwrap();
    assert_eq!(m.counts.get().rcu, 0);
}
