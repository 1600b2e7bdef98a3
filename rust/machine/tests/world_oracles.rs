//! Each oracle of the explored machine catches what it is for, and nothing that is in order.

mod bench;

use bench::{Bench, page, request};
use vmemmap_arch::{
    Alloc, Barrier, Cpu, Desc, Frame, FrameKind, Invariant, Level, LockId, Mode, Order, Pa, RangeOp, Rmw, Slot, Tlbi,
    Until, Var, Zone,
};
use vmemmap_machine::explored::WorldOptions;
use vmemmap_machine::op::Op;

fn bench() -> Bench {
    Bench::new(WorldOptions::default())
}

fn flush(b: &Bench) {
    let cpu = b.cpu(0);
    cpu.barrier(Barrier::DsbIshst);
    cpu.tlbi(Tlbi::Vmalle1is);
    cpu.barrier(Barrier::DsbIsh);
}

#[test]
fn i1_a_walker_that_reads_a_freed_table() {
    let b = bench();
    for i in 0..4 {
        b.cpu(0).write(b.pte(i), Desc::NONE, Order::Plain);
    }
    b.cpu(0).write(b.pmd(), Desc::NONE, Order::Plain);
    flush(&b);
    b.cpu(0).free(b.pte, 0, FrameKind::Table);
    assert_eq!(b.broken(), []);
    assert_eq!(b.cpu(1).read(b.pte(0), Order::Plain).desc, Desc::NONE);
    assert_eq!(b.broken(), [1]);
}

#[test]
fn i2_an_access_into_a_hole() {
    let b = bench();
    b.cpu(0).write(b.pte(1), Desc::NONE, Order::Plain);
    b.cpu(1).load(page(1), Order::Plain);
    assert_eq!(b.broken(), [2]);
}

#[test]
fn i3_a_frame_freed_while_mapped_or_read_after_the_free() {
    let b = bench();
    b.cpu(0).free(b.mapped[0], 0, FrameKind::Vmemmap);
    assert_eq!(b.broken(), [3]);
    let b = Bench::new(WorldOptions { strict: false, ..WorldOptions::default() });
    b.cpu(0).free(b.mapped[0], 0, FrameKind::Vmemmap);
    assert_eq!(b.broken(), []);
    b.cpu(1).load(page(0), Order::Plain);
    assert_eq!(b.broken(), [3]);
}

#[test]
fn i6_a_table_unlinked_with_entries_left() {
    let b = bench();
    b.cpu(0).write(b.pmd(), Desc::NONE, Order::Plain);
    assert_eq!(b.broken(), [6]);
}

#[test]
fn a_table_that_was_never_linked_may_be_freed_full() {
    let b = bench();
    let cpu = b.cpu(0);
    let table = cpu.alloc(request(FrameKind::Table)).expect("memory");
    cpu.write(Slot { table: table.pa, tok: table.tok, ..b.pte(0) }, b.rw(b.mapped[0]), Order::Plain);
    cpu.free(table, 0, FrameKind::Table);
    assert_eq!(b.broken(), []);
}

#[test]
fn i8_a_store_through_a_read_only_tail_live_or_stale() {
    let b = bench();
    b.cpu(0).write(b.pte(0), b.ro(b.mapped[0]), Order::Plain);
    flush(&b);
    b.cpu(1).store(page(0), 1, Order::Plain);
    assert_eq!(b.broken(), [8]);
    let b = bench();
    b.cpu(0).write(b.pte(0), b.ro(b.mapped[0]), Order::Plain);
    flush(&b);
    b.cpu(0).write(b.pte(0), b.rw(b.mapped[0]), Order::Plain);
    b.cpu(1).rmw(page(0), Rmw::FetchAdd(0), Order::Relaxed);
    assert_eq!(b.broken(), [8]);
}

#[test]
fn i13_a_frame_freed_twice() {
    let b = bench();
    b.cpu(0).free(b.spare[0], 0, FrameKind::Vmemmap);
    assert_eq!(b.broken(), []);
    b.cpu(1).free(b.spare[0], 0, FrameKind::Vmemmap);
    assert_eq!(b.broken(), [13]);
}

#[test]
fn i17_two_cpus_in_an_exclusive_section() {
    let b = bench();
    b.cpu(0).exclusive(Invariant::HotplugExclusive, true);
    b.cpu(0).exclusive(Invariant::HotplugExclusive, false);
    b.cpu(1).exclusive(Invariant::HotplugExclusive, true);
    assert_eq!(b.broken(), []);
    b.cpu(0).exclusive(Invariant::HotplugExclusive, true);
    assert_eq!(b.broken(), [17]);
}

#[test]
fn i18_a_table_that_changes_under_a_walk_that_needs_it_stable() {
    let b = bench();
    b.cpu(1).expect_stable(true);
    b.cpu(1).write(b.pte(5), b.ro(b.spare[0]), Order::Plain);
    assert_eq!(b.broken(), []);
    b.cpu(0).write(b.pte(6), b.ro(b.spare[0]), Order::Plain);
    assert_eq!(b.broken(), [18]);
}

#[test]
fn vmalloc_may_change_under_a_walk_that_needs_the_rest_stable() {
    let b = Bench::new(WorldOptions { vmalloc: Some(page(0)..page(6)), ..WorldOptions::default() });
    b.cpu(1).expect_stable(true);
    b.cpu(0).write(b.pte(5), b.ro(b.spare[0]), Order::Plain);
    assert_eq!(b.broken(), []);
    b.cpu(0).write(b.pte(6), b.ro(b.spare[0]), Order::Plain);
    assert_eq!(b.broken(), [18]);
}

#[test]
fn i19_an_exchange_of_frames_without_a_break() {
    let b = bench();
    b.cpu(0).write(b.pte(0), b.ro(b.mapped[0]), Order::Plain);
    assert_eq!(b.broken(), [], "permissions alone need no break");
    flush(&b);
    b.cpu(0).write(b.pte(0), b.ro(b.spare[0]), Order::Plain);
    assert_eq!(b.broken(), [], "read-only and equal contents need no break");
    b.cpu(0).store_frame(b.spare[0], 3, 1);
    assert_eq!(b.broken(), [19], "the contents differ while the old translation may be in use");
    let b = bench();
    b.cpu(0).write(b.pte(0), Desc::NONE, Order::Plain);
    b.cpu(0).write(b.pte(0), b.rw(b.spare[0]), Order::Plain);
    assert_eq!(b.broken(), [19], "a break without a completed invalidate is none");
}

#[test]
fn i25_sleeping_under_a_spinlock_and_waiting_for_oneself() {
    let b = bench();
    b.cpu(0).acquire(LockId::InitMmPageTable, Mode::Write);
    b.cpu(0).alloc(request(FrameKind::Table));
    assert_eq!(b.broken(), [25]);
    let b = bench();
    b.cpu(0).acquire(LockId::DeviceHotplug, Mode::Write);
    let again = Op::Acquire { lock: LockId::DeviceHotplug, mode: Mode::Write };
    assert_eq!(b.outcomes(0, again), 0);
    assert_eq!(b.world.borrow().waits_for(0, &again), 1);
}

#[test]
fn i28_a_store_that_goes_to_the_old_head_page() {
    let b = bench();
    let cpu = b.cpu(0);
    cpu.copy_frame(b.mapped[0], b.spare[0]);
    cpu.write(b.pte(0), b.rw(b.spare[0]), Order::Plain);
    let store = Op::Rmw { va: page(0), op: Rmw::FetchOr(1), order: Order::Relaxed };
    assert_eq!(b.outcomes(1, store), 2);
    b.execute(1, store, 1);
    flush(&b);
    cpu.free(b.mapped[0], 0, FrameKind::Vmemmap);
    assert!(b.broke(Invariant::NoLostStore));
}

#[test]
fn a_store_made_before_the_copy_is_not_lost() {
    let b = bench();
    let cpu = b.cpu(0);
    cpu.store(page(0), 5, Order::Plain);
    cpu.copy_frame(b.mapped[0], b.spare[0]);
    cpu.write(b.pte(0), b.rw(b.spare[0]), Order::Plain);
    flush(&b);
    cpu.store(page(0), 6, Order::Plain);
    cpu.free(b.mapped[0], 0, FrameKind::Vmemmap);
    assert!(!b.broke(Invariant::NoLostStore));
}

#[test]
fn a_queued_writer_keeps_new_readers_out() {
    let b = bench();
    let read = Op::Acquire { lock: LockId::MemHotplug, mode: Mode::Read };
    let write = Op::Acquire { lock: LockId::MemHotplug, mode: Mode::Write };
    b.cpu(0).acquire(LockId::MemHotplug, Mode::Read);
    assert_eq!(b.outcomes(1, read), 1);
    b.execute(2, Op::Queue { lock: LockId::MemHotplug }, 0);
    assert_eq!((b.outcomes(1, read), b.outcomes(2, write)), (0, 0));
    assert_eq!((b.world.borrow().waits_for(1, &read), b.world.borrow().waits_for(2, &write)), (1 << 2, 1 << 0));
    b.cpu(0).release(LockId::MemHotplug, Mode::Read);
    assert_eq!((b.outcomes(1, read), b.outcomes(2, write)), (0, 1));
}

#[test]
fn a_grace_period_waits_for_the_readers_of_its_start_only() {
    let b = bench();
    b.cpu(0).rcu_read_lock();
    b.execute(2, Op::RcuSnapshot, 0);
    b.cpu(1).rcu_read_lock();
    assert_eq!(b.world.borrow().waits_for(2, &Op::RcuWait), 1);
    b.cpu(0).rcu_read_unlock();
    b.cpu(0).rcu_read_lock();
    assert_eq!(b.outcomes(2, Op::RcuWait), 1);
}

#[test]
fn while_the_machine_is_stopped_only_its_owner_runs() {
    let b = bench();
    let load = Op::Load { va: page(0), order: Order::Plain };
    b.cpu(1).acquire(LockId::VmapArea, Mode::Write);
    assert_eq!(b.outcomes(0, Op::StopMachineBegin), 0, "another CPU is not preemptible");
    b.cpu(1).release(LockId::VmapArea, Mode::Write);
    b.cpu(0).stop_machine_begin();
    assert_eq!((b.outcomes(0, load), b.outcomes(1, load)), (1, 0));
    b.cpu(0).stop_machine_end();
    assert_eq!(b.outcomes(1, load), 1);
}

#[test]
fn waiting_for_a_variable_ends_when_the_condition_holds() {
    let b = bench();
    let wait = Op::WaitUntil { var: Var(3), condition: Until::AtLeast(2) };
    assert_eq!(b.outcomes(1, wait), 0);
    b.cpu(0).var_store(Var(3), 2, Order::Release);
    assert_eq!((b.outcomes(1, wait), b.execute(1, wait, 0)), (1, 2));
}

#[test]
fn injected_failures_are_a_choice_and_bounded() {
    let b = Bench::new(WorldOptions { alloc_failures: 1, fail_alloc: vec![(2, 2)], ..WorldOptions::default() });
    let alloc = Op::Alloc(request(FrameKind::Table));
    assert_eq!(b.outcomes(0, alloc), 2);
    assert_eq!(b.execute(0, alloc, 1), u64::MAX);
    assert_eq!(b.outcomes(0, alloc), 1);
    assert!(b.cpu(2).alloc(request(FrameKind::Table)).is_some());
    assert!(b.cpu(2).alloc(request(FrameKind::Table)).is_none());
    assert!(b.cpu(2).alloc(request(FrameKind::Table)).is_some());
}

#[test]
fn hugetlb_pages_come_and_go_and_keep_memory_from_going_offline() {
    let b = bench();
    let cpu = b.cpu(0);
    let (start, bytes) = (Pa(2 << 30), 128 << 20);
    let huge = Alloc {
        order: 9,
        kind: FrameKind::Huge,
        zone: Zone::Movable,
        at: Some(Pa((2 << 30) + (2 << 20))),
        ..request(FrameKind::Huge)
    };
    assert_eq!(cpu.alloc(huge), None, "the memory is offline");
    cpu.range_op(start, bytes, RangeOp::OnlineMovable).expect("online");
    for _ in 0..2 {
        let page = cpu.alloc(huge).expect("a hugepage");
        assert_eq!(cpu.alloc(huge), None, "taken");
        assert_eq!(cpu.range_in_use(start, bytes).map(|u| (u.pa, u.kind)), Some((page.pa, FrameKind::Huge)));
        for n in [1, 255, 256, 511] {
            assert!(cpu.range_in_use(page.pa.plus(n << 12), 1 << 12).is_some(), "page {n} of it");
        }
        assert_eq!(cpu.range_in_use(page.pa.plus(512 << 12), 1 << 12), None, "the page behind it");
        cpu.range_op(start, bytes, RangeOp::Isolate).expect("hugepages are movable");
        assert!(cpu.range_op(start, bytes, RangeOp::Offline).is_err());
        cpu.range_op(start, bytes, RangeOp::UndoIsolate).expect("undo");
        cpu.free(page, 9, FrameKind::Huge);
    }
    cpu.range_op(start, bytes, RangeOp::Isolate).expect("isolate");
    assert_eq!(cpu.alloc(huge), None, "isolated");
    cpu.range_op(start, bytes, RangeOp::Offline).expect("offline");
    assert_eq!(b.broken(), []);
}

#[test]
fn the_parts_of_a_split_hugepage_are_freed_one_by_one() {
    let b = bench();
    let cpu = b.cpu(0);
    cpu.range_op(Pa(2 << 30), 128 << 20, RangeOp::OnlineMovable).expect("online");
    let large = Alloc { order: 13, kind: FrameKind::Huge, zone: Zone::Movable, at: None, ..request(FrameKind::Huge) };
    let page = cpu.alloc(large).expect("a hugepage");
    cpu.split_run(page, 13, 9);
    for part in 0..16 {
        let pa = page.pa.plus(part << 21);
        cpu.free(Frame { pa, ..page }, 9, FrameKind::Huge);
    }
    assert_eq!((b.broken(), cpu.range_in_use(Pa(2 << 30), 128 << 20)), (vec![], None));
    assert!(cpu.alloc(large).is_some());
}

#[test]
fn a_private_list_gives_frames_back_in_either_order() {
    let b = bench();
    let cpu = b.cpu(0);
    let mut list = vmemmap_arch::FrameList::new();
    for f in &b.spare[..4] {
        cpu.list_push(&mut list, *f);
    }
    assert_eq!(cpu.list_pop(&mut list), Some(b.spare[3]));
    assert_eq!(cpu.list_shift(&mut list), Some(b.spare[0]));
    cpu.list_push(&mut list, b.spare[0]);
    assert_eq!(cpu.list_pop(&mut list), Some(b.spare[0]));
    assert_eq!(cpu.list_shift(&mut list), Some(b.spare[1]));
    assert_eq!(cpu.list_pop(&mut list), Some(b.spare[2]));
    assert_eq!(cpu.list_pop(&mut list), None);
}

#[test]
fn a_handle_to_an_earlier_life_of_a_frame_is_no_handle_to_it() {
    let b = bench();
    let cpu = b.cpu(0);
    let at = Some(Pa((1 << 30) + (8 << 20)));
    let huge = cpu.alloc(Alloc { order: 9, at, ..request(FrameKind::Huge) }).expect("a hugepage");
    cpu.free(huge, 9, FrameKind::Huge);
    let frame = cpu.alloc(Alloc { order: 9, at, ..request(FrameKind::Vmemmap) }).expect("memory");
    assert_eq!(frame.pa, huge.pa);
    cpu.load_frame(frame, 0);
    assert_eq!(b.broken(), []);
    cpu.load_frame(Frame { tok: huge.tok, ..frame }, 0);
    assert_eq!(b.broken(), [3]);
}

/// A reader of an rwsem keeps writers out, a reader of a lock that is none nobody.
#[test]
fn locks_that_keep_others_out_are_known_from_taking_to_release() {
    let b = bench();
    let any = Op::Barrier(Barrier::SmpRmb);
    let held = || b.world.borrow().locks_at(0, &any);
    let bit = |lock: LockId| 1u64 << lock.index();
    let cpu = b.cpu(0);
    for (lock, mode, kept) in [
        (LockId::InitMmMmap, Mode::Write, (bit(LockId::InitMmMmap), bit(LockId::InitMmMmap))),
        (LockId::InitMmMmap, Mode::Read, (bit(LockId::InitMmMmap), 0)),
        (LockId::Hugetlb, Mode::Write, (bit(LockId::Hugetlb), bit(LockId::Hugetlb))),
    ] {
        assert_eq!(b.world.borrow().locks_at(0, &Op::Acquire { lock, mode }), kept);
        cpu.acquire(lock, mode);
        assert_eq!(held(), kept, "{lock:?}, {mode:?}");
        cpu.release(lock, mode);
        assert_eq!(held(), (0, 0));
    }
}

#[test]
fn a_table_of_an_image_is_read_as_it_was_written() {
    let b = bench();
    let table = Pa((1 << 30) + (8 << 20));
    let words = [0, b.rw(b.spare[0]).0, 0, b.ro(b.spare[1]).0];
    assert!(b.world.borrow_mut().write_table_raw(table, &words, Level::PTE));
    // Its first life.
    let read = |index| b.cpu(0).read(Slot { table, index, level: Level::PTE, tok: 1 }, Order::Plain).desc.0;
    assert_eq!([0, 1, 2, 3].map(read), words);
    assert!(!b.world.borrow_mut().write_table_raw(table.plus(8), &words, Level::PTE), "not aligned");
}
