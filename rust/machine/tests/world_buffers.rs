//! Store buffers: which stores may wait or be late, what waits for them, and what others see too early.

mod bench;

use bench::{Bench, page, request};
use vmemmap_arch::contents::word;
use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Barrier, Cpu, Desc, Frame, FrameKind, Invariant, Level, Order, Rmw, Slot, Template, Until, Var};
use vmemmap_machine::Ets;
use vmemmap_machine::explored::{Context, Place, WorldOptions};
use vmemmap_machine::op::{Op, Tok};

const VAR: Var = Var(0);
const STORE: Op = Op::VarStore { var: VAR, value: 1, order: Order::Plain };

/// Actor 2 stands for the buffer of CPU 0.
fn weak(store_buffer: u8) -> Bench {
    let b = Bench::new(WorldOptions { store_buffer, ..WorldOptions::default() });
    let task = |cpu| Place { cpu, ..Place::default() };
    b.world.borrow_mut().place(&[task(0), task(1), Place { cpu: 0, context: Context::StoreBuffer, line: None }]);
    b
}
fn write(at: Slot<Tok>, new: Desc) -> Op {
    Op::Write { at, new, order: Order::Plain }
}
fn commit(b: &Bench) {
    b.execute(2, Op::Commit, 0);
}
/// A table that is linked nowhere, and its first entry.
fn private(b: &Bench) -> (Frame<Tok>, Slot<Tok>) {
    let table = b.cpu(0).alloc(request(FrameKind::Table)).expect("memory");
    let at = Slot { table: table.pa, index: b.g.index(page(0), Level::PTE), level: Level::PTE, tok: table.tok };
    (table, at)
}

#[test]
fn a_plain_store_happens_now_or_waits_until_it_commits() {
    let b = weak(2);
    assert_eq!((b.outcomes(0, STORE), b.world.borrow().has_drained(0)), (2, true));
    assert_eq!(b.world.borrow_mut().alternative(0, &STORE, 0), "choice 0 of 2");
    assert!(b.world.borrow_mut().alternative(0, &STORE, 1).contains("waits in the store buffer"));
    b.execute(0, STORE, 1);
    assert!(!b.world.borrow().has_drained(0));
    assert_eq!(b.world.borrow_mut().alternative(2, &Op::Commit, 0), "choice 0 of 1");
    let load = Op::VarLoad { var: VAR, order: Order::Plain };
    assert_eq!((b.execute(0, load, 0), b.execute(1, load, 0)), (1, 0), "the own load is served from the buffer");
    assert_eq!((b.outcomes(2, Op::Commit), b.outcomes(1, STORE)), (1, 1), "CPU 1 has no buffer");
    commit(&b);
    assert_eq!((b.execute(1, load, 0), b.outcomes(2, Op::Commit)), (1, 0));
    assert!(b.world.borrow().has_drained(0));
}

#[test]
fn a_commit_leaves_the_buffers_of_other_cpus_alone() {
    let b = Bench::new(WorldOptions { store_buffer: 2, ..WorldOptions::default() });
    let task = |cpu| Place { cpu, ..Place::default() };
    let buffer = |cpu| Place { cpu, context: Context::StoreBuffer, line: None };
    b.world.borrow_mut().place(&[task(0), task(1), buffer(0), buffer(1)]);
    let store = |actor, var| b.execute(actor, Op::VarStore { var: Var(var), value: 1, order: Order::Plain }, 1);
    for (actor, var) in [(0, 0), (1, 2), (0, 1), (1, 3)] {
        store(actor, var);
    }
    let stored = || [0, 1, 2, 3].map(|var| b.world.borrow().var(Var(var)));
    for (waiting, expected) in [(1, [1, 0, 0, 0]), (0, [1, 1, 0, 0])] {
        b.execute(2, Op::Commit, 0);
        assert_eq!((stored(), b.outcomes(2, Op::Commit), b.outcomes(3, Op::Commit)), (expected, waiting, 2));
    }
    b.execute(3, Op::Commit, 1);
    b.execute(3, Op::Commit, 0);
    assert_eq!((stored(), b.world.borrow().buffers_are_empty()), ([1; 4], true));
}

#[test]
fn stores_to_different_words_commit_in_any_order_and_those_to_one_in_theirs() {
    let b = weak(2);
    b.execute(0, STORE, 1);
    b.execute(0, write(b.pte(0), Desc::NONE), 1);
    assert_eq!(b.outcomes(2, Op::Commit), 2);
    let (at, new) = (b.pte(0), b.rw(b.spare[0]));
    for op in [write(at, new), Op::Swap { at, new, order: Order::Relaxed }] {
        assert_eq!(b.outcomes(0, op), 0, "{op:?} comes after the own store to its entry");
        assert_eq!(b.outcomes(1, op), 1, "{op:?} of another CPU does not");
    }
    b.execute(2, Op::Commit, 1);
    assert_eq!(b.cpu(1).read(b.pte(0), Order::Plain).desc, Desc::NONE);
    assert_eq!(b.world.borrow().var(VAR), 0);
    for op in [STORE, Op::VarRmw { var: VAR, op: Rmw::FetchAdd(1), order: Order::Relaxed }] {
        assert_eq!(b.outcomes(0, op), 0, "{op:?} comes after the own store to its word");
    }
    assert_eq!(b.outcomes(0, Op::WaitUntil { var: VAR, condition: Until::Equals(1) }), 0);
}

#[test]
fn no_more_stores_wait_than_there_is_room_for() {
    let b = weak(1);
    b.execute(0, STORE, 1);
    assert_eq!(b.outcomes(0, write(b.pte(0), Desc::NONE)), 1);
}

#[test]
fn barriers_and_releases_wait_until_the_buffer_is_empty() {
    let b = weak(2);
    let release = Op::VarStore { var: Var(1), value: 1, order: Order::Release };
    let free = Op::Free { frame: b.spare[0], order: 0, kind: FrameKind::Vmemmap };
    let ordered = [
        Op::Barrier(Barrier::DsbIsh),
        Op::Barrier(Barrier::DsbIshst),
        Op::Barrier(Barrier::SmpMb),
        Op::Barrier(Barrier::SmpWmb),
        Op::RcuReadUnlock,
        release,
        free,
    ];
    b.execute(0, STORE, 1);
    for op in ordered {
        assert_eq!(b.outcomes(0, op), 0, "{op:?}");
        assert_eq!(b.world.borrow().waits_for(0, &op), 1 << 2, "{op:?}");
    }
    for op in [Op::Barrier(Barrier::SmpRmb), Op::Barrier(Barrier::Isb), Op::RcuReadLock] {
        assert_eq!(b.outcomes(0, op), 1, "{op:?} orders no store");
    }
    assert_eq!(b.outcomes(1, Op::StopMachineBegin), 0, "the others' stoppers run");
    commit(&b);
    for op in ordered {
        assert_eq!(b.outcomes(0, op), 1, "{op:?}");
    }
}

#[test]
fn an_access_that_would_fault_comes_after_the_own_stores_and_so_does_an_own_walk() {
    let b = weak(2);
    let load = |i| Op::Load { va: page(i), order: Order::Plain };
    b.execute(0, write(b.pte(0), Desc::NONE), 1);
    assert_eq!((b.outcomes(0, load(0)), b.outcomes(0, load(1)), b.outcomes(1, load(0))), (0, 1, 1));
    b.execute(1, load(0), 0);
    assert_eq!(b.broken(), [], "CPU 1 sees what was there");
    commit(&b);
    // What the entry was may still be used; that it is none now is seen, too.
    b.execute(0, load(0), 0);
    assert_eq!(b.broken(), [2]);
}

#[test]
fn an_entry_of_a_new_table_is_late_without_a_barrier() {
    for wmb in [false, true] {
        let b = weak(2);
        let (table, at) = private(&b);
        let link = write(b.pmd(), b.g.descriptor(table.pa, prot::TABLE));
        b.execute(0, write(at, b.rw(b.mapped[0])), 0);
        if wmb {
            b.cpu(0).barrier(Barrier::SmpWmb);
        }
        assert_eq!(b.outcomes(0, link), 2, "{wmb}");
        b.execute(0, link, 1);
        if wmb {
            commit(&b);
        }
        assert_eq!(b.cpu(1).read(at, Order::Plain).desc.is_valid(), wmb);
        assert_eq!(b.broke(Invariant::InitialisedBeforeReachable), !wmb);
        if !wmb {
            commit(&b);
            assert!(b.cpu(1).read(at, Order::Plain).desc.is_valid(), "it comes all the same");
        }
    }
}

#[test]
fn what_a_frame_is_to_hold_is_late_without_a_barrier() {
    for wmb in [false, true] {
        let b = weak(2);
        let cpu = b.cpu(0);
        cpu.fill_frame(b.spare[0], Template::FREE);
        if wmb {
            cpu.barrier(Barrier::SmpWmb);
        }
        let expose = write(b.pte(0), b.rw(b.spare[0]));
        b.execute(0, expose, 1);
        b.execute(1, Op::Load { va: page(0), order: Order::Plain }, 0);
        assert_eq!(b.broke(Invariant::ContentBeforePte), !wmb);
    }
}

#[test]
fn what_was_late_is_there_once_it_has_committed() {
    let b = weak(2);
    let frame = b.spare[0];
    b.cpu(0).fill_frame(frame, Template::FREE);
    b.cpu(0).store_frame(frame, 3, 7);
    b.execute(0, write(b.pte(0), b.rw(frame)), 1);
    let words = || [3, u16::from(word::COUNT)].map(|index| b.cpu(1).load_frame(frame, index));
    assert_ne!(words(), [7, 0xffff_ffff], "it waits");
    while b.outcomes(2, Op::Commit) != 0 {
        commit(&b);
    }
    assert_eq!(words(), [7, 0xffff_ffff]);
}

#[test]
fn a_frame_that_is_mapped_has_no_late_stores() {
    let b = weak(2);
    b.cpu(0).fill_frame(b.mapped[1], Template::FREE);
    // The second way to wait is that of the entry itself.
    b.execute(0, write(b.pte(0), b.rw(b.mapped[1])), 1);
    b.execute(1, Op::Load { va: page(1), order: Order::Plain }, 0);
    assert!(!b.broke(Invariant::ContentBeforePte));
}

#[test]
fn a_release_publishes_in_order() {
    let b = weak(2);
    let (table, at) = private(&b);
    b.execute(0, write(at, b.rw(b.mapped[0])), 0);
    let link = Op::Write { at: b.pmd(), new: b.g.descriptor(table.pa, prot::TABLE), order: Order::Release };
    assert_eq!(b.outcomes(0, link), 1);
}

#[test]
fn nothing_waits_in_sequentially_consistent_memory() {
    let b = Bench::new(WorldOptions { ets: Ets::Two, ..WorldOptions::default() });
    assert_eq!((b.outcomes(0, STORE), b.outcomes(0, write(b.pte(0), Desc::NONE))), (1, 1));
    assert!(b.world.borrow().buffers_are_empty());
}
