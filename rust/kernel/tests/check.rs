//! The check of a machine at rest: each damage is told in the words of its rule, and nothing else has to be wrong for
//! it.

mod lab;

use std::sync::atomic::Ordering;

use lab::{BASE, Lab};
use vmemmap_arch::contents::word;
use vmemmap_arch::descriptor::prot;
use vmemmap_arch::tables::{Walk, walk_noting};
use vmemmap_arch::{Alloc, Attr, Cpu, Desc, Entry, FrameKind, Granule, Level, Pa, Pfn, Va, Version, Zone};
use vmemmap_kernel::page::{PGTY_HUGETLB, write_word};
use vmemmap_kernel::state::Hstate;
use vmemmap_kernel::{Operation, Policies};

const PMD: u8 = 1;

/// Base pages, and one optimised hugepage.
fn machine() -> (Lab, Pfn) {
    let m = Lab::new(Granule::K4, Version::V6_1, 4, false, Policies::default());
    let head = Operation::HugetlbAlloc { hstate: PMD, at: None }.run(&m.k, &m.cpu()).unwrap();
    m.assert_clean("undamaged");
    (m, Pfn(head))
}

fn entry(m: &Lab, va: Va, level: Level) -> Walk {
    let mut found = None;
    walk_noting(&m.m, va, |step| {
        if step.level == level {
            found = Some(*step);
        }
    });
    found.expect("a table of that level")
}

fn store(m: &Lab, at: &Walk, desc: Desc) {
    m.m.table_words(at.table).unwrap()[usize::from(at.index)].store(desc.0, Ordering::Relaxed);
}

fn told(m: &Lab, words: &str) -> bool {
    m.check().iter().any(|v| v.message.contains(words))
}

fn frame(m: &Lab, kind: FrameKind) -> Pa {
    let request = Alloc { order: 0, kind, zone: Zone::Normal, at: None, may_sleep: true, top_down: false };
    m.cpu().alloc(request).unwrap().pa
}

#[test]
fn a_table_that_two_entries_name() {
    let (m, _) = machine();
    let at = entry(&m, m.k.layout.page_va(m.k.geometry.pfn(Pa(BASE))), Level::PMD);
    store(&m, &Walk { index: at.index + 1, ..at }, at.desc);
    assert!(told(&m, "reached twice"), "{:?}", m.check());
}

#[test]
fn an_address_of_the_linear_map_that_is_anothers() {
    let (m, _) = machine();
    let at = entry(&m, m.k.layout.linear_va(Pa(BASE + (1 << 20))), Level::PTE);
    store(&m, &at, Desc(at.desc.0 + m.k.geometry.page_size()));
    assert!(told(&m, "the linear map maps another address"), "{:?}", m.check());
}

#[test]
fn one_contiguous_entry_among_others() {
    let (m, _) = machine();
    let at = entry(&m, m.k.layout.linear_va(Pa(BASE + (1 << 20))), Level::PTE);
    store(&m, &at, at.desc.with(Attr::CONT));
    assert!(told(&m, "whose entries do not agree"), "{:?}", m.check());
}

#[test]
fn a_frame_of_struct_pages_and_a_table_that_are_mapped_nowhere() {
    for kind in [FrameKind::Vmemmap, FrameKind::Table] {
        let (m, _) = machine();
        let lost = frame(&m, kind);
        assert!(m.check().iter().any(|v| v.address == lost.0 && v.message.contains("mapped nowhere")), "{kind:?}");
    }
}

#[test]
fn a_free_list_that_is_longer_than_its_count_and_one_that_is_shorter() {
    for free in [0, 2] {
        let (m, _) = machine();
        m.m.set_var(m.k.vars.hstate(PMD, Hstate::FreeHugePages), free);
        assert!(told(&m, "not the length of the free list"), "{free}: {:?}", m.check());
    }
}

/// The first page that is to be shared, and the last.
#[test]
fn a_tail_of_an_optimised_page_that_is_not_shared() {
    for page in [1, 7] {
        let (m, head) = machine();
        let at = entry(&m, m.k.layout.page_va(head).plus(page * m.k.geometry.page_size()), Level::PTE);
        let own = frame(&m, FrameKind::Vmemmap);
        store(&m, &at, m.k.geometry.descriptor(own, prot::PAGE_KERNEL));
        assert!(told(&m, "this tail is not shared"), "page {page}: {:?}", m.check());
    }
}

/// In a section of which only the last sub-section is there.
#[test]
fn a_hole_where_the_last_sub_section_has_its_struct_pages() {
    let (m, _) = machine();
    let bytes = 2 << 20;
    let start = m.k.ram()[1].start.plus(m.k.geometry.section_size() - bytes);
    Operation::DeviceAdd { start, bytes }.run(&m.k, &m.cpu()).unwrap();
    m.assert_clean("undamaged");
    let va = m.k.layout.page_va(m.k.geometry.pfn(start));
    let at = entry(&m, va, Level::PTE);
    store(&m, &at, Desc::NONE);
    assert!(m.check().iter().any(|v| v.address == va.0 && !v.message.contains("mapped nowhere")), "{:?}", m.check());
}

/// Wherever in a block of struct pages it is.
#[test]
fn a_page_that_is_no_head_and_has_the_type_of_a_hugepage() {
    for place in [0, 1, 100, 511] {
        let m = Lab::new(Granule::K4, Version::V6_12, 2, true, Policies::default());
        let page = m.k.layout.page_va(m.k.geometry.pfn(Pa(BASE))).plus(place * m.k.geometry.page_size());
        write_word(&m.cpu(), page, word::COUNT, PGTY_HUGETLB);
        let found = m.check();
        let words = "a page that is no head kept the HugeTLB type";
        assert!(found.iter().any(|v| v.address == page.0 && v.message == words), "page {place}: {found:?}");
    }
}

/// Wherever in a block it lies.
#[test]
fn a_frame_of_a_block_of_struct_pages_that_is_free() {
    for place in [0, 1, 100, 511] {
        let m = Lab::new(Granule::K4, Version::V6_1, 2, true, Policies::default());
        let g = m.k.geometry;
        let block = entry(&m, m.k.layout.page_va(g.pfn(Pa(BASE))), Level::PMD);
        let cpu = m.m.cpu(0);
        let frame = |pa| cpu.frame_of(Entry { desc: Desc::NONE, tok: () }, pa);
        cpu.split_frame(frame(g.output(block.desc)), 9);
        cpu.free(frame(g.output(block.desc).plus(place << g.page_shift())), 0, FrameKind::Vmemmap);
        assert!(told(&m, "vmemmap maps a frame that is in the allocator's hands"), "frame {place}: {:?}", m.check());
    }
}
