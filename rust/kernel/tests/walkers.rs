//! Readers that hold no reference, and what they make of struct pages that fit together, or do not.

mod lab;

use lab::{BASE, Lab};
use vmemmap_arch::contents::word;
use vmemmap_arch::tables::walk;
use vmemmap_arch::{Attr, Granule, Invariant, Level, Pa, Pfn, Va, Version};
use vmemmap_kernel::hugetlb::alloc_pool_huge_folio;
use vmemmap_kernel::page::{PGTY_HUGETLB, nth_page, tail_word, write_word};
use vmemmap_kernel::pageattr::{collapse_pmd_page, linear_map_split_to_ptes};
use vmemmap_kernel::pfn_walkers::stable_page_flags;
use vmemmap_kernel::policy::{LinearMap, Snapshot};
use vmemmap_kernel::{Operation, Policies};

const SMALL: u8 = 0;
const PMD: u8 = 1;

#[test]
fn a_snapshot_of_a_tail_outside_its_page_is_refused_or_noticed() {
    for snapshot in [Snapshot::Plain, Snapshot::Validated, Snapshot::Twice] {
        let m = Lab::new(Granule::K4, Version::V6_12, 1, true, Policies { snapshot, ..Policies::default() });
        let head = alloc_pool_huge_folio(&m.k, &m.cpu(), SMALL, None).unwrap();
        let pages = m.k.geometry.hugetlb_sizes().0[usize::from(SMALL)];
        for n in 0..pages {
            assert!(stable_page_flags(&m.k, &m.cpu(), Pfn(head + n)), "{snapshot:?}: page {n}");
        }
        m.assert_clean("a whole page");
        // The next page is nobody's tail; then it names the head, which is too far away.
        let next = Pfn(head + pages);
        assert!(!stable_page_flags(&m.k, &m.cpu(), next));
        let named = tail_word(&m.k, m.k.layout.page_va(Pfn(head)), pages.trailing_zeros() as u8);
        write_word(&m.cpu(), m.k.layout.page_va(next), word::COMPOUND_HEAD, named);
        assert_eq!(stable_page_flags(&m.k, &m.cpu(), next), snapshot != Snapshot::Validated, "{snapshot:?}");
        let noticed = m.m.violations_of(Invariant::FlagWithState);
        assert_eq!(noticed, u64::from(snapshot != Snapshot::Validated), "{snapshot:?}");
    }
}

/// Where a restored tail page may keep the type of a hugepage, whoever takes a block with it is told.
#[test]
fn a_stray_type_anywhere_in_a_block_is_noticed_by_who_takes_it() {
    for place in 1..8 {
        let m = Lab::new(Granule::K4, Version::V6_12_117, 1, true, Policies::default());
        assert!(m.k.features.stray_types());
        m.set_hvo(false);
        let head = m.k.geometry.pfn(Pa(BASE));
        let page = nth_page(m.k.layout.page_va(head), place * m.k.geometry.struct_pages_per_page());
        write_word(&m.cpu(), page, word::COUNT, PGTY_HUGETLB);
        Operation::HugetlbAlloc { hstate: PMD, at: Some(head) }.run(&m.k, &m.cpu()).unwrap();
        assert_eq!(m.m.violations_of(Invariant::RestoredPrivate), 1, "vmemmap page {place}");
    }
}

#[test]
fn pages_of_the_linear_map_that_make_a_block_become_one_again() {
    let linear_map = LinearMap::Blocks;
    let m = Lab::new(Granule::K4, Version::V7_3, 1, true, Policies { linear_map, ..Policies::default() });
    let pfn = m.k.geometry.pfn(Pa(BASE));
    let leaf = || {
        let walk = walk(&m.m, m.k.layout.linear_va(Pa(BASE))).unwrap();
        (walk.level, walk.desc)
    };
    let before = leaf();
    assert_eq!(before.0, Level::PMD);
    assert!(!collapse_pmd_page(&m.k, &m.cpu(), pfn), "a block already");
    linear_map_split_to_ptes(&m.k, &m.cpu(), pfn, 1).unwrap();
    assert_eq!(leaf().0, Level::PTE);
    Operation::SetMemoryValid { pfn, pages: 1, on: false }.run(&m.k, &m.cpu()).unwrap();
    assert!(!collapse_pmd_page(&m.k, &m.cpu(), pfn), "one of them is not valid");
    Operation::SetMemoryValid { pfn, pages: 1, on: true }.run(&m.k, &m.cpu()).unwrap();
    assert!(collapse_pmd_page(&m.k, &m.cpu(), pfn));
    assert_eq!(leaf(), (Level::PMD, before.1.without(Attr::CONT)));
}

#[test]
fn vmalloc_maps_blocks_where_they_fit() {
    let m = Lab::new(Granule::K4, Version::V7_3, 1, true, Policies::default());
    let block = m.k.geometry.entry_span(Level::PMD) >> m.k.geometry.page_shift();
    for (pages, levels) in [(1, [Level::PTE; 2]), (block, [Level::PMD; 2]), (block + 1, [Level::PMD, Level::PTE])] {
        let start = Va(Operation::VmallocAndKeep { pages }.run(&m.k, &m.cpu()).unwrap());
        let last = start.plus((pages - 1) << m.k.geometry.page_shift());
        assert_eq!([start, last].map(|va| walk(&m.m, va).unwrap().level), levels, "{pages}");
    }
}

#[test]
fn who_uses_a_hugepage_looks_at_every_vmemmap_page() {
    for place in 0..8 {
        let m = Lab::new(Granule::K4, Version::V6_1, 1, true, Policies::default());
        m.set_hvo(false);
        let head = alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, None).unwrap();
        let per_page = m.k.geometry.struct_pages_per_page();
        let tail = nth_page(m.k.layout.page_va(Pfn(head)), place * per_page + 1);
        write_word(&m.cpu(), tail, word::COMPOUND_HEAD, tail.0 | 1);
        Operation::HugetlbUse { hstate: PMD }.run(&m.k, &m.cpu()).unwrap();
        assert_ne!(m.m.violations_of(Invariant::TailsResolveToHead), 0, "vmemmap page {place}");
    }
}
