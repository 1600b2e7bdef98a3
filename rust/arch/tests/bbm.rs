//! The break-before-make predicate against kernel-semantics §10.2, row by row, and what HVO does (§10.4).

use vmemmap_arch::bbm::{BbmCase, FeatBbm, bbm_required};
use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Attr, Desc, Geometry, Granule, Level};

const FRAME_1: u64 = 0x4000_0000;
const FRAME_2: u64 = 0x4020_0000;
const LEVELS: [FeatBbm; 4] = [FeatBbm::Level0, FeatBbm::Level1, FeatBbm::Level2, FeatBbm::NoAbort];

fn judge(level: Level, old: u64, new: u64, feat: FeatBbm, same: bool) -> Option<BbmCase> {
    let g = Geometry::new(Granule::K4, 48).unwrap();
    bbm_required(&g, level, Desc(old), Desc(new), feat, || same)
}
fn page(old: u64, new: u64) -> Option<BbmCase> {
    judge(Level::PTE, old, new, FeatBbm::Level0, false)
}

#[test]
fn making_or_breaking_an_entry_needs_no_break() {
    let rw = FRAME_1 | prot::PAGE_KERNEL;
    assert_eq!(page(0, rw), None);
    assert_eq!(page(rw, 0), None);
    assert_eq!(page(rw, FRAME_2), None, "an invalid word with address bits is invalid all the same");
}

#[test]
fn permissions_and_software_bits_alone_need_no_break() {
    let (rw, ro) = (FRAME_1 | prot::PAGE_KERNEL, FRAME_1 | prot::PAGE_KERNEL_RO);
    assert_eq!(page(rw, ro), None);
    assert_eq!(page(ro, rw), None);
    for bit in [Attr::PXN, Attr::UXN, Attr::AF, Attr::DIRTY, Attr::WRITE, Attr::SPECIAL] {
        assert_eq!(page(rw, rw ^ bit.bits()), None, "{bit:?}");
    }
}

#[test]
fn memory_type_and_shareability_need_a_break_except_normal_against_tagged() {
    let rw = FRAME_1 | prot::PAGE_KERNEL;
    assert_eq!(page(rw, rw | 4 << 2), Some(BbmCase::MemoryType));
    assert_eq!(page(rw, rw | 2 << 2), Some(BbmCase::MemoryType));
    assert_eq!(page(rw, rw & !0x300), Some(BbmCase::MemoryType));
    assert_eq!(page(rw, rw | 1 << 2), None);
}

#[test]
fn an_output_address_changes_freely_only_between_read_only_copies() {
    let (rw1, ro1) = (FRAME_1 | prot::PAGE_KERNEL, FRAME_1 | prot::PAGE_KERNEL_RO);
    let (rw2, ro2) = (FRAME_2 | prot::PAGE_KERNEL, FRAME_2 | prot::PAGE_KERNEL_RO);
    for feat in LEVELS {
        for same in [false, true] {
            assert_eq!(judge(Level::PTE, rw1, ro2, feat, same), Some(BbmCase::OutputAddress));
            assert_eq!(judge(Level::PTE, ro1, rw2, feat, same), Some(BbmCase::OutputAddress));
            assert_eq!(judge(Level::PTE, rw1, rw2, feat, same), Some(BbmCase::OutputAddress));
        }
        assert_eq!(judge(Level::PTE, ro1, ro2, feat, true), None);
        assert_eq!(judge(Level::PTE, ro1, ro2, feat, false), Some(BbmCase::OutputAddress));
    }
}

/// HVO's four steps, as §10.4 judges them, on a CPU without FEAT_BBM.
#[test]
fn each_step_of_hvo_needs_a_break() {
    let block = FRAME_2 | prot::PROT_SECT_NORMAL_6_1;
    let table = FRAME_1 | prot::TABLE;
    assert_eq!(judge(Level::PMD, block, table, FeatBbm::Level0, true), Some(BbmCase::Size));
    let (head, tail, fresh) = (FRAME_1, FRAME_1 + 0x1000, FRAME_2);
    assert_eq!(page(tail | prot::PAGE_KERNEL, head | prot::PAGE_KERNEL_RO), Some(BbmCase::OutputAddress));
    assert_eq!(page(head | prot::PAGE_KERNEL, fresh | prot::PAGE_KERNEL), Some(BbmCase::OutputAddress));
    assert_eq!(page(head | prot::PAGE_KERNEL_RO, fresh | prot::PAGE_KERNEL), Some(BbmCase::OutputAddress));
}

#[test]
fn a_size_change_is_allowed_by_level_1_with_nt_and_by_level_2() {
    let block = FRAME_2 | prot::PROT_SECT_NORMAL_6_1;
    let table = FRAME_1 | prot::TABLE;
    let with_nt = block | Attr::NT.bits();
    for (old, new) in [(block, table), (table, block)] {
        assert_eq!(judge(Level::PMD, old, new, FeatBbm::Level1, true), Some(BbmCase::Size));
        assert_eq!(judge(Level::PMD, old, new, FeatBbm::Level2, true), None);
        assert_eq!(judge(Level::PMD, old, new, FeatBbm::NoAbort, true), None);
    }
    assert_eq!(judge(Level::PMD, with_nt, table, FeatBbm::Level1, true), None);
    assert_eq!(judge(Level::PMD, with_nt, table, FeatBbm::Level0, true), Some(BbmCase::Size));
}

#[test]
fn contiguity_of_a_live_entry_needs_a_break_without_feat_bbm() {
    let rw = FRAME_1 | prot::PAGE_KERNEL;
    assert_eq!(page(rw, rw | Attr::CONT.bits()), Some(BbmCase::Size));
    assert_eq!(page(rw | Attr::CONT.bits(), rw), Some(BbmCase::Size));
    assert_eq!(judge(Level::PTE, rw, rw | Attr::CONT.bits(), FeatBbm::Level2, true), None);
}

#[test]
fn global_over_non_global_needs_a_break_and_the_reverse_does_not() {
    let global = FRAME_1 | prot::PAGE_KERNEL;
    let non_global = global | Attr::NG.bits();
    assert_eq!(page(non_global, global), Some(BbmCase::Global));
    assert_eq!(page(global, non_global), None);
}

#[test]
fn with_lpa2_bits_9_to_8_are_address_and_no_memory_type() {
    let g = Geometry::new(Granule::K4, 52).unwrap();
    let low = g.descriptor(vmemmap_arch::Pa(0x1000), prot::PAGE_KERNEL_RO);
    let high = g.descriptor(vmemmap_arch::Pa(0x000c_0000_0000_1000), prot::PAGE_KERNEL_RO);
    assert_eq!(bbm_required(&g, Level::PTE, low, high, FeatBbm::Level0, || true), None);
    assert_eq!(bbm_required(&g, Level::PTE, low, high, FeatBbm::Level0, || false), Some(BbmCase::OutputAddress));
}
