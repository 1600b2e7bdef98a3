//! Early loads: which loads may have taken effect before their place in the program, and what orders them.

mod bench;

use bench::{Bench, page};
use vmemmap_arch::{Barrier, Data, Desc, FrameKind, LockId, Mode, Order, Rmw, Tlbi, Until, Va, Var};
use vmemmap_machine::explored::{Context, Early, EarlyLoad, Place, WorldOptions};
use vmemmap_machine::op::Op;

const VAR: Var = Var(0);
const LOAD_VAR: Op = Op::VarLoad { var: VAR, order: Order::Plain };
const PLAIN: Order = Order::Plain;

/// Actor 2 stands for the store buffer of CPU 1, actor 3 for its load queue.
fn weak(words: &[Early], once: bool) -> Bench {
    let b = Bench::new(WorldOptions { store_buffer: 2, ..WorldOptions::default() });
    let on = |cpu, context| Place { cpu, context, line: None };
    {
        let mut world = b.world.borrow_mut();
        world.place(&[
            on(0, Context::Task),
            on(1, Context::Task),
            on(1, Context::StoreBuffer),
            on(1, Context::LoadQueue),
        ]);
        world.load_early(&words.iter().map(|of| EarlyLoad { cpu: 1, of: *of, once }).collect::<Vec<_>>());
    }
    b
}
fn load(va: Va) -> Op {
    Op::Load { va, order: PLAIN }
}
fn early(b: &Bench) -> u16 {
    b.outcomes(3, Op::LoadEarly)
}
fn store(b: &Bench, value: u64) {
    b.execute(0, Op::VarStore { var: VAR, value, order: Order::Release }, 0);
}

#[test]
fn a_load_that_took_effect_early_returns_what_was_there_then() {
    let b = weak(&[Early::Var(VAR), Early::Word(page(0))], false);
    assert_eq!(early(&b), 2);
    assert_eq!([0, 1, 2, 3].map(|number| b.world.borrow().early_address(number)), [None, None, Some(page(0).0), None]);
    b.execute(3, Op::LoadEarly, 0);
    b.execute(3, Op::LoadEarly, 0);
    assert_eq!(early(&b), 0, "each word once");
    store(&b, 1);
    b.execute(0, Op::Store { va: page(0), value: 7, order: PLAIN }, 0);
    assert_eq!((b.execute(1, LOAD_VAR, 0), b.execute(1, LOAD_VAR, 0)), (0, 1), "the next one is another load");
    assert_eq!((b.execute(1, load(page(0)), 0), b.execute(1, load(page(0)), 0)), (0, 7));
    assert_eq!(b.execute(0, LOAD_VAR, 0), 1, "CPU 0 has no load queue");
}

/// Each of these lets the value go that CPU 1 holds: the load after it sees what is there now.
#[test]
fn what_orders_loads_lets_the_value_go() {
    let at = |b: &Bench| b.pte(3);
    let ordering: [fn(&Bench) -> Op; 20] = [
        |_| Op::Barrier(Barrier::SmpRmb),
        |_| Op::Barrier(Barrier::SmpMb),
        |_| Op::Barrier(Barrier::DsbIsh),
        |_| Op::Barrier(Barrier::DsbIshst),
        |_| Op::Barrier(Barrier::DsbNsh),
        |_| Op::Barrier(Barrier::Isb),
        |_| Op::VarLoad { var: Var(1), order: Order::Acquire },
        |_| Op::Load { va: page(3), order: Order::Acquire },
        |b| Op::Read { at: b.pte(3), order: Order::Acquire },
        |_| Op::VarRmw { var: Var(1), op: Rmw::FetchAdd(1), order: Order::AcqRel },
        |_| Op::Rmw { va: page(3), op: Rmw::FetchAdd(1), order: Order::Acquire },
        |b| Op::Swap { at: b.pte(3), new: Desc::NONE, order: Order::AcqRel },
        |_| Op::Acquire { lock: LockId::DeviceHotplug, mode: Mode::Write },
        |_| Op::TryAcquire { lock: LockId::DeviceHotplug, mode: Mode::Write },
        |_| Op::WaitUntil { var: Var(1), condition: Until::Equals(0) },
        |_| Op::RcuReadLock,
        |_| Op::IrqDisable,
        |_| Op::RcuSnapshot,
        |_| Op::StopMachineBegin,
        |b| Op::Free { frame: b.spare[0], order: 0, kind: FrameKind::Vmemmap },
    ];
    for op in ordering {
        let b = weak(&[Early::Var(VAR)], false);
        b.execute(3, Op::LoadEarly, 0);
        store(&b, 1);
        let op = op(&b);
        b.execute(1, op, 0);
        assert_eq!(b.execute(1, LOAD_VAR, 0), 1, "{op:?}");
    }
    let b = weak(&[Early::Var(VAR)], false);
    let keeping = [
        Op::Barrier(Barrier::SmpWmb),
        Op::Tlbi(Tlbi::Vmalle1is),
        Op::VarLoad { var: Var(1), order: PLAIN },
        Op::VarStore { var: Var(1), value: 1, order: Order::Release },
        Op::VarRmw { var: Var(1), op: Rmw::FetchAdd(1), order: Order::Relaxed },
        Op::Read { at: at(&b), order: PLAIN },
        Op::Write { at: at(&b), new: Desc::NONE, order: PLAIN },
        load(page(2)),
    ];
    b.execute(3, Op::LoadEarly, 0);
    store(&b, 1);
    for op in keeping {
        b.execute(1, op, 0);
    }
    assert_eq!(b.execute(1, LOAD_VAR, 0), 0, "none of {keeping:?} orders a load");
}

/// A grace period and stopped CPUs order everybody's loads.
#[test]
fn another_cpu_orders_loads_by_grace_periods_and_stop_machine() {
    for op in [Op::RcuWait, Op::StopMachineBegin, Op::StopMachineEnd] {
        let b = weak(&[Early::Var(VAR)], false);
        b.execute(3, Op::LoadEarly, 0);
        store(&b, 1);
        b.execute(0, op, 0);
        if op == Op::StopMachineBegin {
            assert_eq!(early(&b), 0, "stopped");
            b.execute(0, Op::StopMachineEnd, 0);
        }
        assert_eq!(b.execute(1, LOAD_VAR, 0), 1, "{op:?}");
    }
}

#[test]
fn own_stores_are_seen_and_nothing_is_loaded_before_one_that_waits() {
    let b = weak(&[Early::Var(VAR), Early::Word(page(0))], false);
    let own = Op::VarStore { var: VAR, value: 2, order: PLAIN };
    b.execute(3, Op::LoadEarly, 0);
    b.execute(1, own, 0);
    assert_eq!(b.execute(1, LOAD_VAR, 0), 2);
    b.execute(1, own, 1);
    assert_eq!(early(&b), 1, "page 0 alone: the variable waits in the own buffer");
    b.execute(3, Op::LoadEarly, 0);
    b.execute(1, Op::Store { va: page(0), value: 5, order: PLAIN }, 0);
    assert_eq!(b.execute(1, load(page(0)), 0), 5);
}

/// The same frame at two addresses: the second load does not go back behind the first.
#[test]
fn a_word_is_coherent_through_two_addresses() {
    let b = weak(&[Early::Word(page(0)), Early::Word(page(1)), Early::Word(page(2))], false);
    b.execute(0, Op::Write { at: b.pte(1), new: b.rw(b.mapped[0]), order: Order::Release }, 0);
    b.execute(0, Op::Barrier(Barrier::DsbIsh), 0);
    b.execute(0, Op::Tlbi(Tlbi::Vmalle1is), 0);
    b.execute(0, Op::Barrier(Barrier::DsbIsh), 0);
    let held = b.world.borrow().clone();
    for (first, old) in [(1, 9), (2, 0)] {
        b.world.replace(held.clone());
        b.execute(3, Op::LoadEarly, 0);
        b.execute(0, Op::Store { va: page(0), value: 9, order: PLAIN }, 0);
        b.execute(1, load(page(first)), 0);
        // Page 2 never changed: nothing that is known of it orders the other load.
        assert_eq!(b.execute(1, load(page(0)), 0), old, "after page {first}");
    }
}

#[test]
fn a_guess_is_no_access_and_a_fault_orders() {
    let b = weak(&[Early::Word(page(0)), Early::Var(VAR)], false);
    b.execute(0, Op::Write { at: b.pte(0), new: Desc::NONE, order: Order::Release }, 0);
    b.execute(0, Op::Free { frame: b.mapped[0], order: 0, kind: FrameKind::Vmemmap }, 0);
    let broken = b.broken();
    assert_eq!(early(&b), 1, "the variable: what is freed is not read");
    b.execute(3, Op::LoadEarly, 0);
    assert_eq!(b.broken(), broken);
    store(&b, 1);
    let probe = Op::Attempt(Data::Load { va: page(0), order: PLAIN });
    let fault = b.outcomes(1, probe) - 1;
    b.execute(1, probe, fault);
    assert_eq!(b.execute(1, LOAD_VAR, 0), 1, "exception entry");
}

#[test]
fn once_is_the_first_load_of_the_program() {
    for takes in [true, false] {
        let b = weak(&[Early::Var(VAR)], true);
        if takes {
            b.execute(3, Op::LoadEarly, 0);
        }
        b.execute(1, LOAD_VAR, 0);
        assert_eq!(early(&b), 0, "{takes}");
    }
}

#[test]
fn nothing_is_loaded_early_without_a_buffer_or_on_a_cpu_that_two_share() {
    let b = weak(&[Early::Var(VAR)], false);
    let on = |cpu, context| Place { cpu, context, line: None };
    let words = [EarlyLoad { cpu: 1, of: Early::Var(VAR), once: false }];
    let mut world = b.world.borrow_mut();
    for places in [
        [on(0, Context::Task), on(1, Context::Task), on(0, Context::StoreBuffer), on(1, Context::LoadQueue)],
        [on(1, Context::Task), on(1, Context::Irq), on(1, Context::StoreBuffer), on(1, Context::LoadQueue)],
    ] {
        world.place(&places);
        world.load_early(&words);
        assert_eq!(world.outcomes(3, &Op::LoadEarly), 0, "{places:?}");
    }
}
