//! What 7.2 and 7.3 do that no kernel before did (kernel-7.3 §2, §3, §6).

mod lab;

use lab::{BASE, Lab};
use vmemmap_arch::tables::walk;
use vmemmap_arch::{Alloc, Cpu, FrameKind, Geometry, Granule, Invariant, Level, Pa, Pfn, VaRange, Version, Zone};
use vmemmap_kernel::hugetlb::resize::set_max_huge_pages;
use vmemmap_kernel::hugetlb::{alloc_pool_huge_folio, remove_pool_hugetlb_folio};
use vmemmap_kernel::hugetlb_vmemmap::hugetlb_vmemmap_optimize_folios;
use vmemmap_kernel::page::{compound_head, nth_page, tail_head, tail_head_by_value, tail_word};
use vmemmap_kernel::pgtable::flush_tlb_kernel_range;
use vmemmap_kernel::policy::{HvoConfig, LinearMap, Mutant, TlbRange};
use vmemmap_kernel::state::Scalar;
use vmemmap_kernel::{Errno, Operation, Policies};

const PMD: u8 = 1;
const SEVEN: [Version; 2] = [Version::V7_2, Version::V7_3];

fn lab(granule: Granule, version: Version) -> Lab {
    Lab::new(granule, version, 2, true, Policies::default())
}

fn tail_frame(m: &Lab, head: u64) -> Pa {
    walk(&m.m, m.k.layout.page_va(Pfn(head)).plus(m.k.geometry.page_size())).unwrap().output.unwrap()
}

/// Frames that the last operation took, less those it gave back, hugepages aside.
fn net(m: &Lab, pages: u64, run: impl FnOnce()) -> i64 {
    let b = m.counters();
    run();
    let c = m.counters();
    (c.frames_freed - b.frames_freed) as i64 - (c.frames_allocated - b.frames_allocated) as i64 + pages as i64
}

#[test]
fn one_tail_frame_serves_a_zone_and_order_and_stays_for_ever() {
    for version in SEVEN {
        for granule in Granule::ALL {
            // 64K: one hugepage fills a section, and vmemmap lies in another.
            let m = Lab::new(granule, version, 4, true, Policies::default());
            let pages = m.k.geometry.hugetlb_sizes().0[usize::from(PMD)];
            // 4K: the first page splits a block, which takes a table.
            let split = i64::from(granule == Granule::K4);
            let mut heads = Vec::new();
            let mut take = || heads.push(alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, None).unwrap());
            assert_eq!(net(&m, pages, &mut take), 6 - split);
            assert_eq!(net(&m, pages, &mut take), 7);
            assert_eq!(tail_frame(&m, heads[0]), tail_frame(&m, heads[1]));
            m.assert_clean("optimised");
            for &head in &heads {
                for n in [1, pages / 8, pages - 1] {
                    let tail = m.k.layout.page_va(Pfn(head + n));
                    assert_eq!(compound_head(&m.k, &m.cpu(), tail), m.k.layout.page_va(Pfn(head)));
                }
            }
            let tail = tail_frame(&m, heads[0]);
            set_max_huge_pages(&m.k, &m.cpu(), PMD, 0).unwrap();
            assert!(matches!(m.m.frame_info(tail), Some((FrameKind::Vmemmap, false, false))), "still there");
            m.assert_clean("all restored");
            let head = alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, None).unwrap();
            assert_eq!(tail_frame(&m, head), tail);
        }
    }
}

#[test]
fn each_zone_has_a_tail_frame_of_its_own() {
    for zone in [Zone::Normal, Zone::Movable] {
        let m = lab(Granule::K4, Version::V7_3);
        let added = m.k.ram()[1];
        Operation::MemoryAdd { start: added.start, bytes: added.bytes, memmap_on_memory: false }
            .run(&m.k, &m.cpu())
            .unwrap();
        Operation::MemoryOnline { start: added.start, bytes: added.bytes, zone }.run(&m.k, &m.cpu()).unwrap();
        let boot = alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, Some(Pfn((BASE >> 12) + 16 * 512))).unwrap();
        let hot = alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, Some(Pfn(added.start.0 >> 12))).unwrap();
        // Boot memory below 4 GiB is ZONE_DMA, and what is added behind it is ZONE_NORMAL or ZONE_MOVABLE.
        assert_ne!(tail_frame(&m, boot), tail_frame(&m, hot), "{zone:?}");
        for (head, near) in [(boot, BASE + (17 << 21)), (hot, added.start.0 + (1 << 21))] {
            let other = alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, Some(Pfn(near >> 12))).unwrap();
            assert_eq!(tail_frame(&m, head), tail_frame(&m, other), "{zone:?}");
        }
        m.assert_clean("two zones");
    }
}

#[test]
fn a_tail_frame_of_another_order_is_i10() {
    let policies = Policies { mutant: Mutant::ForeignTail, ..Policies::default() };
    let m = Lab::new(Granule::K4, Version::V7_3, 2, true, policies);
    alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, None).unwrap();
    assert!(m.check().iter().any(|f| f.invariant == Invariant::TailsResolveToHead), "{:#x?}", m.check());
}

#[test]
fn without_hvo_in_the_kernel_tails_are_pointers_and_nothing_is_optimised() {
    let m =
        Lab::new(Granule::K4, Version::V7_3, 2, true, Policies { hvo_config: HvoConfig::No, ..Policies::default() });
    let before = m.leaves();
    let head = alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, None).unwrap();
    assert_eq!(m.leaves(), before);
    let tail = m.k.layout.page_va(Pfn(head + 511));
    assert_eq!(compound_head(&m.k, &m.cpu(), tail), m.k.layout.page_va(Pfn(head)));
    m.assert_clean("pointers");
}

#[test]
fn an_empty_batch_flushes_twice_once_or_not_at_all() {
    for (version, flushes) in [(Version::V6_12, 2), (Version::V7_2, 1), (Version::V7_3, 0)] {
        let m = lab(Granule::K4, version);
        let before = m.counters().tlbi;
        hugetlb_vmemmap_optimize_folios(&m.k, &m.cpu(), |_| {});
        assert_eq!(m.counters().tlbi - before, flushes, "{}", version.name());
    }
}

#[test]
fn kernel_ranges_are_flushed_by_range_operations_or_whole() {
    let count = |version, tlb_range, pages: u64| {
        let m = Lab::new(Granule::K4, version, 2, true, Policies { tlb_range, ..Policies::default() });
        let (before, start) = (m.counters().tlbi, m.k.layout.vmemmap_start);
        let range: VaRange = start..start.plus(pages << 12);
        flush_tlb_kernel_range(&m.k, &m.cpu(), range);
        m.counters().tlbi - before
    };
    use TlbRange::{Absent, Present};
    // An even number of pages up to 64 is one operation; an odd last page one more.
    assert_eq!([8, 7, 64, 66, 512].map(|n| count(Version::V7_3, Present, n)), [1, 2, 1, 2, 1]);
    assert_eq!([8, 7, 511, 512, 513].map(|n| count(Version::V7_3, Absent, n)), [8, 7, 511, 1, 1]);
    assert_eq!([8, 7, 511, 512, 513].map(|n| count(Version::V6_12, Present, n)), [8, 7, 511, 512, 1]);
}

#[test]
fn hot_remove_would_split_a_leaf_and_is_refused() {
    for version in [Version::V6_12, Version::V7_3] {
        let policies = Policies { linear_map: LinearMap::Blocks, ..Policies::default() };
        // The neighbours are whole: nothing would be split.
        let m = Lab::new(Granule::K4, version, 2, true, policies);
        let added = m.k.ram()[1];
        Operation::MemoryAdd { start: added.start, bytes: added.bytes, memmap_on_memory: false }
            .run(&m.k, &m.cpu())
            .unwrap();
        Operation::MemoryOnline { start: added.start, bytes: added.bytes, zone: Zone::Movable }
            .run(&m.k, &m.cpu())
            .unwrap();
        let offline = Operation::MemoryOffline { start: added.start, bytes: added.bytes };
        assert_eq!(offline.run(&m.k, &m.cpu()), Ok(1));
        m.assert_clean("offline");
    }
}

#[test]
fn nr_pagetable_is_one_too_low_for_each_vmemmap_table_removed() {
    let m = lab(Granule::K64, Version::V7_3);
    let added = m.k.ram()[1];
    let tables = || m.frames_of(FrameKind::Table);
    let (before, counted) = (tables(), m.scalar(Scalar::NrPagetable));
    Operation::MemoryAdd { start: added.start, bytes: added.bytes, memmap_on_memory: false }
        .run(&m.k, &m.cpu())
        .unwrap();
    let constructed = m.scalar(Scalar::NrPagetable).wrapping_sub(counted);
    Operation::MemoryRemove { start: added.start, bytes: added.bytes }.run(&m.k, &m.cpu()).unwrap();
    let drift = counted.wrapping_sub(m.scalar(Scalar::NrPagetable));
    // Of 64K sections vmemmap takes no table of its own here; those of the linear map balance.
    assert_eq!((tables(), drift), (before, 0), "{constructed} constructed");
    // A hugepage's split makes a constructed table, a section that goes takes a table that was not.
    let m = lab(Granule::K4, Version::V7_3);
    let added = m.k.ram()[1];
    let counted = m.scalar(Scalar::NrPagetable);
    let base_pages = |on: bool| {
        let mut k = m.k;
        if on {
            k.policies.mapping = vmemmap_kernel::policy::Mapping::BasePages;
        }
        k
    };
    Operation::MemoryAdd { start: added.start, bytes: added.bytes, memmap_on_memory: false }
        .run(&base_pages(true), &m.cpu())
        .unwrap();
    Operation::MemoryRemove { start: added.start, bytes: added.bytes }.run(&m.k, &m.cpu()).unwrap();
    assert_eq!(counted.wrapping_sub(m.scalar(Scalar::NrPagetable)), 1, "one PTE table of vmemmap");
}

#[test]
fn populate_fills_the_holes_of_a_table_that_is_there() {
    for (version, fills) in [(Version::V6_12, false), (Version::V7_2, true), (Version::V7_3, true)] {
        let m = lab(Granule::K4, version);
        let head = alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, None).unwrap();
        remove_pool_hugetlb_folio(&m.k, &m.cpu(), PMD, None).unwrap();
        let va = m.k.layout.page_va(Pfn(head));
        let w = walk(&m.m, va).unwrap();
        assert_eq!(w.level, Level::PTE);
        let slot = vmemmap_kernel::pgtable::walk(&m.cpu(), va).0;
        vmemmap_kernel::pgtable::clear_entry(&m.cpu(), slot);
        let section = va.align_down(m.k.geometry.section_vmemmap());
        let end = section.plus(m.k.geometry.section_vmemmap());
        let mut storage = vmemmap_kernel::sparse_vmemmap::Storage::Buddy;
        vmemmap_kernel::mmu::vmemmap_populate(&m.k, &m.cpu(), section, end, &mut storage).unwrap();
        assert_eq!(walk(&m.m, va).unwrap().output.is_some(), fills, "{}", version.name());
    }
}

#[test]
fn a_batch_out_of_memory_before_the_tail_frame_changes_nothing() {
    for version in SEVEN {
        let m = lab(Granule::K4, version);
        let before = m.leaves();
        m.fail_after(1);
        alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, None).unwrap();
        m.fail_none();
        assert_eq!(m.leaves(), before);
        m.assert_clean(version.name());
        assert_eq!(remove_pool_hugetlb_folio(&m.k, &m.cpu(), PMD, None).err(), None::<Errno>);
    }
}

/// R59, an outcome and no violation: a block of the kernel zone that a tail frame of a zone, or the copy of a head,
/// came to lie in does not go offline, although no hugepage is left. 6.1 copies no head.
#[test]
fn the_tail_frame_of_a_zone_keeps_the_block_that_it_lies_in_from_going_offline() {
    for (version, pinned) in
        [(Version::V6_1, false), (Version::V6_12, true), (Version::V7_2, true), (Version::V7_3, true)]
    {
        let m = Lab::new(Granule::K4, version, 2, false, Policies::default());
        let block = m.k.ram()[1];
        let (start, bytes) = (block.start, block.bytes);
        let run = |operation: Operation| operation.run(&m.k, &m.cpu());
        run(Operation::MemoryAdd { start, bytes, memmap_on_memory: false }).unwrap();
        let head = Pfn((BASE >> 12) + 0x4000);
        m.set_hvo(false);
        alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, Some(head)).unwrap();
        let request =
            Alloc { order: 0, kind: FrameKind::Data, zone: Zone::Normal, at: None, may_sleep: true, top_down: false };
        while m.cpu().alloc(request).is_some() {}
        run(Operation::MemoryOnline { start, bytes, zone: Zone::Normal }).unwrap();
        // Only the block has frames left.
        m.set_hvo(true);
        remove_pool_hugetlb_folio(&m.k, &m.cpu(), PMD, Some(head)).unwrap();
        alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, Some(head)).unwrap();
        let tail = tail_frame(&m, head.0);
        assert_eq!((start.0..start.0 + bytes).contains(&tail.0), pinned, "{version:?}");
        remove_pool_hugetlb_folio(&m.k, &m.cpu(), PMD, Some(head)).unwrap();
        for _ in 0..2 {
            let offline = run(Operation::MemoryOffline { start, bytes });
            assert_eq!(offline, if pinned { Err(Errno::EBUSY) } else { Ok(1) }, "{version:?}");
            if !pinned {
                break;
            }
        }
        m.assert_clean("offline or not");
    }
}

/// R37, on a booted machine: 16G pages of a 64K kernel whose memory begins at no multiple of 16 GiB.
#[test]
fn a_mask_finds_another_head_where_vmemmap_is_not_aligned_to_the_folio() {
    let sizes = Geometry::new(Granule::K64, 48).unwrap().hugetlb_sizes().0;
    let giant = sizes.iter().position(|&pages| pages == 1 << 18).unwrap();
    // One such page lies in the memory between 16 GiB and 33 GiB.
    let m = Lab::new(Granule::K64, Version::V7_3, 64, true, Policies::default());
    let resolves = |pool: usize| {
        let head = alloc_pool_huge_folio(&m.k, &m.cpu(), pool as u8, None).unwrap();
        assert_eq!(head % sizes[pool], 0, "aligned by address");
        let va = |pfn| m.k.layout.page_va(Pfn(pfn));
        compound_head(&m.k, &m.cpu(), va(head + 1)) == va(head)
    };
    assert!(resolves(giant - 1), "512M");
    assert!(!resolves(giant), "16G");
}

/// Eight pages in the middle of a block of blocks: split twice, and everything else is mapped as it was.
#[test]
fn a_part_of_a_gigabyte_block_is_split_level_by_level() {
    let policies = Policies { linear_map: LinearMap::Blocks, ..Policies::default() };
    for valid in [false, true] {
        let name = if valid { "linear_map_split_to_ptes" } else { "set_memory_valid" };
        let m = Lab::new(Granule::K4, Version::V7_3, 16, true, policies);
        let g = m.k.geometry;
        let pfn = Pfn(g.pfn(Pa(BASE)).0 + 0x10200);
        let operation = match valid {
            true => Operation::LinearMapSplitToPtes { pfn, pages: 8 },
            false => Operation::SetMemoryValid { pfn, pages: 8, on: false },
        };
        let at = |pfn: u64| walk(&m.m, m.k.layout.linear_va(g.pa(Pfn(pfn)))).expect("a tree");
        assert_eq!(at(pfn.0).level, Level::PUD, "{name}: one block at first");
        operation.run(&m.k, &m.cpu()).unwrap();
        for (n, level) in [(0, Level::PTE), (7, Level::PTE), (8, Level::PTE), (512, Level::PMD)] {
            let found = at(pfn.0 + n);
            let output = (valid || n >= 8).then_some(g.pa(Pfn(pfn.0 + n)));
            assert_eq!((found.level, found.output), (level, output), "{name}: page {n}");
        }
        m.assert_clean(name);
    }
}

/// `set_pte` of one page after the other: each that is valid has its barriers, and the range one flush.
#[test]
fn valid_pages_of_the_linear_map_have_their_barriers() {
    let m = lab(Granule::K4, Version::V7_3);
    let pfn = Pfn(m.k.geometry.pfn(Pa(BASE)).0 + 0x8000);
    for (on, each) in [(false, 0), (true, 8)] {
        let before = m.counters();
        Operation::SetMemoryValid { pfn, pages: 8, on }.run(&m.k, &m.cpu()).unwrap();
        let after = m.counters();
        assert_eq!((after.dsb - before.dsb, after.isb - before.isb), (each + 2, each + 1), "{on}");
    }
}

/// A reader that does not know how HVO is configured finds the head that one finds who does, in either encoding.
#[test]
fn the_word_of_a_tail_tells_its_encoding() {
    for hvo_config in [HvoConfig::Yes, HvoConfig::No] {
        let m = Lab::new(Granule::K4, Version::V7_3, 1, true, Policies { hvo_config, ..Policies::default() });
        let head = m.k.layout.page_va(m.k.geometry.pfn(Pa(BASE)));
        for order in 1..=9 {
            let word = tail_word(&m.k, head, order);
            for n in [1, (1 << order) - 1] {
                let tail = nth_page(head, n);
                assert_eq!(tail_head_by_value(tail, word), Some(head), "{hvo_config:?}, order {order}");
                assert_eq!(tail_head(&m.k, tail, word), Some(head), "{hvo_config:?}, order {order}");
            }
        }
        assert_eq!(tail_head_by_value(head, 0), None);
        // A pointer is one wherever it leads.
        let elsewhere = head.plus(0x5540);
        assert_eq!(tail_head_by_value(nth_page(head, 1), elsewhere.0 | 1), Some(elsewhere));
    }
}
