//! A dump of a machine is as sound as the machine; each damage is told in the words of its rule, at its address.

use std::sync::atomic::Ordering;

use vmemmap_arch::contents::word;
use vmemmap_arch::{Desc, Geometry, Granule, Invariant, Layout, Level, Pa, Pfn, STRUCT_PAGE_SIZE, Va, Version};
use vmemmap_kernel::page::flag;
use vmemmap_kernel::policy::Mapping;
use vmemmap_kernel::{Kernel, Operation, Policies, Ram};
use vmemmap_lab::dump_check::{Checked, Contents, DumpFacts, check_dump};
use vmemmap_lab::live::LiveMachine;

const BASE: u64 = 0x4000_0000;
const PMD: u8 = 1;
const PAGES: u64 = 512;

/// A machine of base pages with one optimised hugepage, and what its dump says beside its tables.
fn dumped(version: Version) -> (LiveMachine, DumpFacts, Pfn) {
    let layout = Layout::new(Geometry::new(Granule::K4, 48).unwrap(), version, BASE as i64).unwrap();
    let ram = [Ram { start: Pa(BASE), bytes: 4 * layout.geometry.section_size(), boot: true }];
    let policies = Policies { mapping: Mapping::BasePages, ..Policies::default() };
    let live = LiveMachine::boot(Kernel::new(layout, policies, &ram, true), true).unwrap();
    let head = live.run(&Operation::HugetlbAlloc { hstate: PMD, at: None }).unwrap();
    assert_eq!(live.optimised(PMD), 1);
    let block_size = layout.geometry.section_size();
    let facts = DumpFacts {
        layout,
        ram: vec![(Pa(BASE)..Pa(BASE + ram[0].bytes), true)],
        present: None,
        self_hosted: Vec::new(),
        blocks_online: Some((BASE / block_size..(BASE + ram[0].bytes) / block_size).collect()),
        block_size,
        hugepages: vec![(head, PAGES)],
        hugepages_complete: true,
        pools: vec![(PAGES, 1)],
        zone_tails: version.sets_table_af(),
        left_out: Vec::new(),
    };
    (live, facts, Pfn(head))
}

/// The check with the words of every frame, of which one is another.
fn check(live: &LiveMachine, facts: &DumpFacts, other: Option<(Pa, u64)>) -> Checked {
    let page = live.kernel().geometry.page_size();
    let read = |pa: Pa| {
        let mut words =
            (0..(page / 8) as u16).map(|n| live.machine().frame_word(pa, n)).collect::<Option<Vec<u64>>>()?;
        if let Some((at, value)) = other.filter(|(at, _)| at.align_down(page) == pa) {
            words[((at.0 - pa.0) / 8) as usize] = value;
        }
        Some(words)
    };
    check_dump(live.machine(), facts, Some(&Contents { read: &read, head_mask: Some(flag::HEAD) }))
}

fn told(found: &Checked, invariant: Invariant, address: Va, words: &str) {
    assert!(
        found
            .violations
            .iter()
            .any(|v| v.invariant == invariant && v.address == address.0 && v.message.contains(words)),
        "{words} at {address}: {:?}",
        found.violations
    );
}

const BOTH: [Version; 2] = [Version::V6_12, Version::V7_3];

#[test]
fn nothing_is_wrong_with_the_dump_of_a_sound_machine() {
    for version in BOTH {
        let (live, facts, _) = dumped(version);
        let found = check(&live, &facts, None);
        assert!(found.violations.is_empty(), "{version:?}: {:?}", found.violations);
        assert!(found.visible.contains(Invariant::CountersBalance));
        assert!(found.visible.contains(Invariant::RemoveMeetsNoOptimised));
    }
}

#[test]
fn a_pool_that_says_another_number_of_hugepages() {
    for (version, nr) in BOTH.into_iter().flat_map(|version| [0, 2].map(|nr| (version, nr))) {
        let (live, mut facts, _) = dumped(version);
        facts.pools = vec![(PAGES, nr)];
        assert_eq!(check(&live, &facts, None).counts[Invariant::CountersBalance], 1, "{version:?}, {nr}");
    }
}

#[test]
fn an_optimised_page_in_a_block_that_is_not_online() {
    for version in BOTH {
        let (live, mut facts, head) = dumped(version);
        let block = live.kernel().geometry.pa(head).0 / facts.block_size;
        facts.blocks_online.as_mut().unwrap().retain(|&online| online != block);
        assert_ne!(check(&live, &facts, None).counts[Invariant::RemoveMeetsNoOptimised], 0, "{version:?}");
    }
}

/// Since 7.1 the tails share the frame of a zone: neither that of their head, nor one that changes on the way.
#[test]
fn a_tail_that_maps_the_frame_of_its_head_or_another_than_the_tails_before() {
    let (live, facts, head) = dumped(Version::V7_3);
    let (k, g) = (live.kernel(), live.kernel().geometry);
    let va = |n: u64| k.layout.page_va(head).plus(n * g.page_size());
    let at = |n: u64| live.translate(va(n)).unwrap();
    let (own, shared) = (g.output(at(0).desc), at(1).desc);
    for (n, invariant, words) in [
        (1, Invariant::OneWritableHead, "or a tail maps the frame of its own head"),
        (2, Invariant::TailsResolveToHead, "another frame than the tails before it"),
        (7, Invariant::TailsResolveToHead, "another frame than the tails before it"),
    ] {
        let walk = at(n);
        assert_eq!(walk.level, Level::PTE);
        let entry = |desc: Desc| {
            live.machine().table_words(walk.table).unwrap()[usize::from(walk.index)].store(desc.0, Ordering::Relaxed);
        };
        entry(g.with_output(shared, own));
        told(&check(&live, &facts, None), invariant, va(n), words);
        entry(shared);
        assert!(check(&live, &facts, None).violations.is_empty(), "mended");
    }
}

#[test]
fn a_tail_that_names_another_head_is_found_where_it_is() {
    let (live, facts, head) = dumped(Version::V7_3);
    let k = live.kernel();
    for n in 1..4 {
        let slot = k.layout.page_va(head).plus(n * STRUCT_PAGE_SIZE);
        let pa = live.translate(slot).unwrap().output.unwrap();
        let found = check(&live, &facts, Some((pa.plus(u64::from(word::COMPOUND_HEAD) * 8), (slot.0 + 4096) | 1)));
        told(&found, Invariant::TailsResolveToHead, slot, "a tail does not name its head");
    }
}
