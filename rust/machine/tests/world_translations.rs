//! The rules by which translations go stale and vanish, one by one.

mod bench;

use bench::{Bench, page};
use vmemmap_arch::{Attr, Barrier, Cpu, Desc, FrameKind, Invariant, Order, Tlbi};
use vmemmap_machine::explored::WorldOptions;
use vmemmap_machine::op::Op;

fn bench() -> Bench {
    Bench::new(WorldOptions::default())
}

/// Clear page 0's entry, then do `then`, then free the frame.
fn free_after(then: impl Fn(&Bench)) -> Vec<u8> {
    let b = bench();
    let cpu = b.cpu(0);
    cpu.write(b.pte(0), Desc::NONE, Order::Plain);
    then(&b);
    cpu.free(b.mapped[0], 0, FrameKind::Vmemmap);
    b.broken()
}

/// Empty the PTE table, so that no translation by it is left, and clear the entry that leads to it.
fn unlink_table(b: &Bench) {
    let cpu = b.cpu(0);
    for i in 0..4 {
        cpu.write(b.pte(i), Desc::NONE, Order::Plain);
    }
    cpu.barrier(Barrier::DsbIshst);
    cpu.tlbi(Tlbi::Vmalle1is);
    cpu.barrier(Barrier::DsbIsh);
    cpu.write(b.pmd(), Desc::NONE, Order::Plain);
}

/// Unlink the PTE table, do this invalidate, then free the table.
fn free_table_after(b: &Bench, op: Tlbi) -> Vec<u8> {
    unlink_table(b);
    let cpu = b.cpu(0);
    cpu.barrier(Barrier::DsbIshst);
    cpu.tlbi(op);
    cpu.barrier(Barrier::DsbIsh);
    cpu.free(b.pte, 0, FrameKind::Table);
    b.broken()
}

#[test]
fn a_published_invalidated_and_completed_translation_is_gone() {
    let broken = free_after(|b| {
        let cpu = b.cpu(0);
        cpu.barrier(Barrier::DsbIshst);
        cpu.tlbi(Tlbi::Vaale1is(page(0)));
        cpu.barrier(Barrier::DsbIsh);
    });
    assert_eq!(broken, []);
}

#[test]
fn without_an_invalidate_the_translation_stays() {
    assert_eq!(free_after(|b| b.cpu(0).barrier(Barrier::DsbIsh)), [4]);
}

#[test]
fn an_invalidate_before_the_store_is_published_does_not_cover_it() {
    let broken = free_after(|b| {
        b.cpu(0).tlbi(Tlbi::Vaale1is(page(0)));
        b.cpu(0).barrier(Barrier::DsbIsh);
    });
    assert_eq!(broken, [4]);
}

#[test]
fn an_invalidate_without_the_following_dsb_completes_nothing() {
    let invalidate = |b: &Bench| {
        b.cpu(0).barrier(Barrier::DsbIshst);
        b.cpu(0).tlbi(Tlbi::Vmalle1is);
    };
    assert_eq!(free_after(invalidate), [4]);
    let store_barrier = |b: &Bench| {
        invalidate(b);
        b.cpu(0).barrier(Barrier::DsbIshst);
    };
    assert_eq!(free_after(store_barrier), [4], "dsb ishst completes no TLBI");
    let other_cpu = |b: &Bench| {
        invalidate(b);
        b.cpu(1).barrier(Barrier::DsbIsh);
    };
    assert_eq!(free_after(other_cpu), [4], "another CPU's dsb completes only its own");
}

#[test]
fn an_invalidate_of_another_address_does_not_cover_it() {
    let broken = free_after(|b| {
        let cpu = b.cpu(0);
        cpu.barrier(Barrier::DsbIshst);
        cpu.tlbi(Tlbi::Vaale1is(page(1)));
        cpu.barrier(Barrier::DsbIsh);
    });
    assert_eq!(broken, [4]);
}

#[test]
fn a_local_invalidate_leaves_the_other_cpus_translations() {
    let b = bench();
    let cpu = b.cpu(0);
    cpu.write(b.pte(0), b.rw(b.spare[0]), Order::Plain);
    cpu.barrier(Barrier::DsbIshst);
    cpu.tlbi(Tlbi::Vmalle1);
    cpu.barrier(Barrier::DsbNsh);
    b.cpu(0).store_frame(b.spare[0], 0, 7);
    let load = Op::Load { va: page(0), order: Order::Plain };
    assert_eq!((b.outcomes(0, load), b.outcomes(1, load)), (1, 2));
}

#[test]
fn an_entry_made_valid_again_before_the_dsb_stays_usable() {
    let b = bench();
    let cpu = b.cpu(0);
    let old = cpu.read(b.pte(0), Order::Plain).desc;
    cpu.write(b.pte(0), Desc::NONE, Order::Plain);
    cpu.barrier(Barrier::DsbIshst);
    cpu.tlbi(Tlbi::Vaale1is(page(0)));
    cpu.write(b.pte(0), old, Order::Plain);
    cpu.barrier(Barrier::DsbIsh);
    cpu.write(b.pte(0), Desc::NONE, Order::Plain);
    cpu.free(b.mapped[0], 0, FrameKind::Vmemmap);
    assert_eq!(b.broken(), [4]);
}

#[test]
fn a_last_level_invalidate_leaves_the_walk_cache_and_the_other_kind_does_not() {
    for (op, expected) in [(Tlbi::Vaale1is(page(0)), vec![5]), (Tlbi::Vaae1is(page(0)), vec![])] {
        assert_eq!(free_table_after(&bench(), op), expected);
    }
}

#[test]
fn a_walk_cache_entry_to_a_freed_table_is_found_by_one_speculative_walk() {
    let b = Bench::new(WorldOptions { strict: false, ..WorldOptions::default() });
    let cpu = b.cpu(0);
    for i in 0..4 {
        cpu.write(b.pte(i), Desc::NONE, Order::Plain);
    }
    cpu.write(b.pmd(), Desc::NONE, Order::Plain);
    cpu.free(b.pte, 0, FrameKind::Table);
    assert_eq!(b.broken(), []);
    b.cpu(1).speculate(page(0));
    assert_eq!(b.broken(), [5]);
}

#[test]
fn a_store_through_a_stale_walk_cache_may_be_cached_too() {
    let b = bench();
    let cpu = b.cpu(0);
    unlink_table(&b);
    assert_eq!(b.broken(), []);
    cpu.write(b.pte(2), b.rw(b.spare[1]), Order::Plain);
    cpu.free(b.spare[1], 0, FrameKind::Vmemmap);
    assert_eq!(b.broken(), [4]);
}

#[test]
fn a_load_branches_only_where_the_data_differ() {
    let b = bench();
    let load = Op::Load { va: page(0), order: Order::Plain };
    assert_eq!(b.outcomes(1, load), 1);
    b.cpu(0).write(b.pte(0), b.rw(b.spare[0]), Order::Plain);
    assert_eq!(b.outcomes(1, load), 1, "both frames read 0");
    b.cpu(0).store_frame(b.spare[0], 0, 9);
    assert_eq!(b.outcomes(1, load), 2);
    let mut seen = [b.execute(1, load, 0), b.execute(1, load, 1)];
    seen.sort_unstable();
    assert_eq!(seen, [0, 9]);
}

#[test]
fn an_entry_not_yet_published_may_fault_which_counts_only_if_told_so() {
    for fatal in [false, true] {
        let b = Bench::new(WorldOptions { spurious_fault_is_fatal: fatal, ..WorldOptions::default() });
        b.cpu(0).write(b.pte(5), b.rw(b.spare[0]), Order::Plain);
        b.cpu(1).load(page(5), Order::Plain);
        assert_eq!(b.world.borrow().spurious_faults(), 1);
        assert_eq!(b.broke(Invariant::AlwaysTranslates), fatal);
        b.cpu(0).barrier(Barrier::DsbIshst);
        b.cpu(1).load(page(5), Order::Plain);
        assert_eq!(b.world.borrow().spurious_faults(), 1);
    }
}

#[test]
fn five_stale_values_of_one_descriptor_are_too_many_to_be_sure() {
    let b = bench();
    for frame in b.spare.iter().chain(&b.mapped[1..]).take(4) {
        b.cpu(0).write(b.pte(0), b.rw(*frame), Order::Plain);
    }
    assert!(!b.world.borrow().overflowed());
    b.cpu(0).write(b.pte(0), b.rw(b.mapped[1]), Order::Plain);
    assert!(b.world.borrow().overflowed());
}

#[test]
fn one_invalidate_inside_a_block_covers_the_whole_block() {
    let b = bench();
    let cpu = b.cpu(0);
    let pmd_va = vmemmap_arch::Va(bench::BASE.0 + (2 << 20));
    let request = vmemmap_arch::Alloc { order: 9, ..bench::request(FrameKind::Vmemmap) };
    let slot = vmemmap_arch::Slot { index: b.g.index(pmd_va, vmemmap_arch::Level::PMD), ..b.pmd() };
    let Some(run) = cpu.alloc(vmemmap_arch::Alloc { at: Some(vmemmap_arch::Pa((1 << 30) + (8 << 20))), ..request })
    else {
        panic!("memory")
    };
    cpu.write(slot, b.g.descriptor(run.pa, vmemmap_arch::descriptor::prot::PROT_SECT_NORMAL_6_1), Order::Plain);
    cpu.barrier(Barrier::DsbIshst);
    cpu.write(slot, Desc::NONE, Order::Plain);
    cpu.barrier(Barrier::DsbIshst);
    cpu.tlbi(Tlbi::Vaale1is(pmd_va.plus(5 << 12)));
    cpu.barrier(Barrier::DsbIsh);
    cpu.free(run, 9, FrameKind::Vmemmap);
    assert_eq!(b.broken(), []);
}

/// Invalidates of one kind, what they are to reach, and whether the frame of page 1 may be freed afterwards. `ng`: the
/// leaf is non-global, in address space 0 or 7.
#[test]
fn each_invalidate_reaches_what_the_manual_says() {
    let (here, there) = (page(1), page(3));
    for (op, global, non_global) in [
        (Tlbi::Rvaale1is(page(0), 2), true, true),
        (Tlbi::Rvaae1is(page(1), 1), true, true),
        (Tlbi::Rvaale1is(page(2), 2), false, false),
        (Tlbi::Rvaale1is(page(0), 1), false, false),
        (Tlbi::Vaale1is(here), true, true),
        (Tlbi::Vaale1is(there), false, false),
        (Tlbi::Vale1is(here, 7), true, true),
        (Tlbi::Vae1is(here, 7), true, true),
        (Tlbi::Vale1is(here, 8), true, false),
        (Tlbi::Vae1is(there, 7), false, false),
        (Tlbi::Aside1is(7), false, true),
        (Tlbi::Aside1is(8), false, false),
        (Tlbi::Vmalle1is, true, true),
        (Tlbi::Vmalle1, false, false),
        (Tlbi::Vaale1(here), false, false),
        (Tlbi::Vaae1(here), false, false),
    ] {
        for (ng, enough) in [(false, global), (true, non_global)] {
            let b = Bench::new(WorldOptions { asids: vec![7, 7, 7], ..WorldOptions::default() });
            let cpu = b.cpu(0);
            let leaf = if ng { b.rw(b.spare[0]).with(Attr::NG) } else { b.rw(b.spare[0]) };
            cpu.write(b.pte(1), Desc::NONE, Order::Plain);
            cpu.barrier(Barrier::DsbIshst);
            cpu.tlbi(Tlbi::Vmalle1is);
            cpu.barrier(Barrier::DsbIsh);
            cpu.write(b.pte(1), leaf, Order::Plain);
            cpu.write(b.pte(1), Desc::NONE, Order::Plain);
            cpu.barrier(Barrier::DsbIshst);
            cpu.tlbi(op);
            cpu.barrier(Barrier::DsbIsh);
            cpu.free(b.spare[0], 0, FrameKind::Vmemmap);
            assert_eq!(b.broken(), if enough { vec![] } else { vec![4] }, "{op:?}, nG {ng}");
        }
    }
}

#[test]
fn local_invalidates_of_one_address_reach_this_cpu_alone() {
    for op in [Tlbi::Vaale1(page(0)), Tlbi::Vaae1(page(0))] {
        let b = bench();
        let cpu = b.cpu(0);
        cpu.write(b.pte(0), b.rw(b.spare[0]), Order::Plain);
        cpu.barrier(Barrier::DsbIshst);
        cpu.tlbi(op);
        cpu.barrier(Barrier::DsbNsh);
        cpu.store_frame(b.spare[0], 0, 7);
        let load = Op::Load { va: page(0), order: Order::Plain };
        assert_eq!((b.outcomes(0, load), b.outcomes(1, load)), (1, 2));
    }
}

#[test]
fn a_non_global_translation_is_used_in_its_own_address_space_only() {
    for (asids, second) in [(vec![7, 8, 8], 1), (vec![7, 7, 8], 2)] {
        let b = Bench::new(WorldOptions { asids, ..WorldOptions::default() });
        let cpu = b.cpu(0);
        let ng = |frame| b.rw(frame).with(Attr::NG);
        cpu.write(b.pte(5), ng(b.spare[0]), Order::Plain);
        cpu.write(b.pte(5), ng(b.spare[1]), Order::Plain);
        cpu.store_frame(b.spare[1], 0, 9);
        cpu.barrier(Barrier::DsbIshst);
        cpu.tlbi(Tlbi::Vae1is(page(5), 8));
        cpu.barrier(Barrier::DsbIsh);
        let load = Op::Load { va: page(5), order: Order::Plain };
        assert_eq!((b.outcomes(0, load), b.outcomes(1, load)), (2, second));
    }
}

#[test]
fn by_asid_leaves_the_walk_cache_of_another_address_space() {
    for (asids, broken) in [(vec![7, 7, 7], vec![]), (vec![7, 8, 7], vec![5]), (vec![7, 7, 7, 8], vec![5])] {
        let b = Bench::new(WorldOptions { asids, ..WorldOptions::default() });
        assert_eq!(free_table_after(&b, Tlbi::Aside1is(7)), broken);
    }
}
