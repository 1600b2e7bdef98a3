//! Interrupts, masks, IPIs, stop_machine and PREEMPT_RT of the explored machine; accesses whose fault is an answer.

mod bench;

use bench::{Bench, page};
use vmemmap_arch::{Barrier, Cpu, Data, Desc, Fault, Invariant, LockId, Mode, Order, Rmw, Tlbi, Until, Var};
use vmemmap_machine::explored::{Context, NewOrder, Place, WorldOptions};
use vmemmap_machine::op::{Op, Reply};

const LINE: Var = Var(2);
const LOAD: Op = Op::VarLoad { var: Var(0), order: Order::Plain };

fn bench_with(options: WorldOptions, places: [Place; 3]) -> Bench {
    let b = Bench::new(options);
    b.world.borrow_mut().place(&places);
    b
}

const fn at(cpu: u8, context: Context) -> Place {
    Place { cpu, context, line: None }
}

/// A task, an interrupt of its CPU, a pseudo-NMI of its CPU.
fn one_cpu() -> Bench {
    bench_with(WorldOptions::default(), [at(0, Context::Task), at(0, Context::Irq), at(0, Context::Nmi)])
}

fn broke(b: &Bench) -> Vec<(Invariant, &'static str)> {
    b.world.borrow().violations().iter().map(|f| (f.invariant, f.message)).collect()
}

#[test]
fn an_interrupt_holds_its_cpu_until_it_returns() {
    let b = one_cpu();
    assert_eq!((b.outcomes(0, LOAD), b.outcomes(1, Op::InterruptEnter)), (1, 1));
    b.execute(1, Op::InterruptEnter, 0);
    assert_eq!((b.outcomes(0, LOAD), b.outcomes(1, LOAD)), (0, 1));
    assert_eq!(b.world.borrow().waits_for(0, &LOAD), 1 << 1);
    assert!(b.world.borrow().is_interrupted(0));
    b.execute(2, Op::InterruptEnter, 0);
    assert_eq!(
        (b.outcomes(0, LOAD), b.outcomes(1, LOAD), b.outcomes(2, LOAD)),
        (0, 0, 1),
        "a pseudo-NMI interrupts an interrupt"
    );
    b.execute(2, Op::InterruptExit, 0);
    b.execute(1, Op::InterruptExit, 0);
    assert_eq!(b.outcomes(0, LOAD), 1);
}

#[test]
fn an_interrupt_leaves_for_itself_only() {
    for context in [Context::Irq, Context::Nmi] {
        let b = bench_with(WorldOptions::default(), [at(0, Context::Task), at(0, context), at(0, context)]);
        b.execute(1, Op::InterruptEnter, 0);
        b.execute(1, Op::InterruptExit, 0);
        b.execute(2, Op::InterruptEnter, 0);
        assert_eq!(b.outcomes(1, Op::InterruptEnter), 0, "no two of a kind");
        b.execute(1, Op::InterruptExit, 0);
        assert_eq!(
            (b.outcomes(0, LOAD), b.world.borrow().waits_for(0, &LOAD)),
            (0, 1 << 2),
            "the other is still there"
        );
        b.execute(2, Op::InterruptExit, 0);
        assert_eq!(b.outcomes(0, LOAD), 1);
    }
}

#[test]
fn masks_keep_interrupts_out_and_pseudo_nmis_not() {
    let b = one_cpu();
    b.cpu(0).irq_disable();
    assert_eq!((b.outcomes(1, Op::InterruptEnter), b.outcomes(2, Op::InterruptEnter)), (0, 1));
    b.cpu(0).irq_enable();
    b.cpu(0).acquire(LockId::InitMmPageTable, Mode::Write);
    assert_eq!(b.outcomes(1, Op::InterruptEnter), 1, "spin_lock leaves interrupts on");
    b.cpu(0).acquire(LockId::Hugetlb, Mode::Write);
    assert_eq!(b.outcomes(1, Op::InterruptEnter), 0, "hugetlb_lock is taken with them off");
    b.execute(2, Op::InterruptEnter, 0);
    b.cpu(0).release(LockId::Hugetlb, Mode::Write);
    assert_eq!(b.outcomes(1, Op::InterruptEnter), 0, "nor does one enter above a pseudo-NMI");
}

#[test]
fn a_task_shares_its_cpu_unless_it_may_not_be_preempted() {
    let b = bench_with(WorldOptions::default(), [at(0, Context::Task), at(0, Context::Task), at(1, Context::Task)]);
    assert_eq!((b.outcomes(0, LOAD), b.outcomes(1, LOAD)), (1, 1));
    b.cpu(0).acquire(LockId::VmapArea, Mode::Write);
    assert_eq!((b.outcomes(1, LOAD), b.outcomes(2, LOAD)), (0, 1));
}

#[test]
fn an_interrupt_may_not_sleep() {
    let b = one_cpu();
    b.execute(1, Op::InterruptEnter, 0);
    b.cpu(1).acquire(LockId::InitMmPageTable, Mode::Write);
    b.cpu(1).release(LockId::InitMmPageTable, Mode::Write);
    assert_eq!(broke(&b), []);
    b.cpu(1).acquire(LockId::HugetlbResize(0), Mode::Write);
    assert_eq!(broke(&b), [(Invariant::LockOrder, "a sleeping lock is taken in atomic context")]);
}

#[test]
fn on_preempt_rt_a_spinlock_sleeps() {
    let places = [at(0, Context::Task), at(1, Context::Irq), at(0, Context::Task)];
    let b = bench_with(WorldOptions { preempt_rt: true, ..WorldOptions::default() }, places);
    b.cpu(0).acquire(LockId::Hugetlb, Mode::Write);
    assert_eq!(b.outcomes(2, LOAD), 1, "its holder is preempted");
    b.cpu(0).acquire(LockId::HugetlbResize(0), Mode::Write);
    assert_eq!(broke(&b), []);
    b.execute(1, Op::InterruptEnter, 0);
    b.cpu(1).acquire(LockId::VmapArea, Mode::Write);
    assert_eq!(
        broke(&b),
        [(Invariant::LockOrder, "a spinlock, which sleeps on PREEMPT_RT, is taken in atomic context")]
    );
}

#[test]
fn an_ipi_comes_once_to_each_cpu_that_has_a_handler() {
    let handler = |cpu| Place { cpu, context: Context::Irq, line: Some(LINE) };
    let b = bench_with(WorldOptions::default(), [at(0, Context::Task), handler(0), handler(1)]);
    assert_eq!(b.outcomes(2, Op::InterruptEnter), 0);
    assert!(b.world.borrow().may_never_come(2));
    assert_eq!(b.cpu(0).send_ipi(LINE), 1, "not to the sender");
    assert_eq!((b.outcomes(1, Op::InterruptEnter), b.outcomes(2, Op::InterruptEnter)), (0, 1));
    assert!(!b.world.borrow().may_never_come(2), "it is on its way");
    b.execute(2, Op::InterruptEnter, 0);
    b.execute(2, Op::InterruptExit, 0);
    assert_eq!(b.outcomes(2, Op::InterruptEnter), 0);
}

#[test]
fn stop_machine_waits_for_interrupts_and_keeps_them_out() {
    let b = bench_with(WorldOptions::default(), [at(0, Context::Task), at(1, Context::Irq), at(1, Context::Nmi)]);
    b.execute(1, Op::InterruptEnter, 0);
    assert_eq!(b.world.borrow().waits_for(0, &Op::StopMachineBegin), 1 << 1);
    b.execute(1, Op::InterruptExit, 0);
    b.cpu(0).stop_machine_begin();
    assert_eq!((b.outcomes(1, Op::InterruptEnter), b.outcomes(2, Op::InterruptEnter)), (0, 1));
    assert_eq!(b.outcomes(1, Op::Speculate { va: page(0) }), 1, "hardware walks on");
    b.cpu(0).acquire(LockId::HugetlbResize(0), Mode::Write);
    assert_eq!(broke(&b).len(), 1, "its body may not sleep");
    b.cpu(0).stop_machine_end();
    assert_eq!(b.outcomes(1, Op::InterruptEnter), 1);
}

#[test]
fn a_dsb_of_an_interrupt_completes_the_invalidate_of_the_task_under_it() {
    let b = one_cpu();
    b.cpu(0).write(b.pte(1), Desc::NONE, Order::Plain);
    b.cpu(0).barrier(Barrier::DsbIshst);
    b.cpu(0).tlbi(Tlbi::Vaale1is(page(1)));
    let attempt = Op::Attempt(Data::Load { va: page(1), order: Order::Plain });
    assert_eq!(b.outcomes(0, attempt), 2, "the old translation, or the fault");
    b.execute(1, Op::InterruptEnter, 0);
    b.cpu(1).barrier(Barrier::DsbIsh);
    b.execute(1, Op::InterruptExit, 0);
    assert_eq!(b.outcomes(0, attempt), 1);
}

#[test]
fn a_fault_of_an_attempt_is_its_answer_and_no_violation() {
    let b = bench_with(WorldOptions::default(), [at(0, Context::Task), at(1, Context::Task), at(2, Context::Task)]);
    let cpu = b.cpu(1);
    let load = Data::Load { va: page(0), order: Order::Plain };
    cpu.store(page(0), 5, Order::Plain);
    assert_eq!(cpu.attempt(load), Ok(5));
    assert_eq!(cpu.attempt(Data::Rmw { va: page(0), op: Rmw::FetchAdd(1), order: Order::Plain }), Ok(5));
    b.cpu(0).write(b.pte(0), Desc::NONE, Order::Plain);
    let attempt = Op::Attempt(load);
    assert_eq!(b.outcomes(1, attempt), 2);
    assert_eq!(b.world.borrow_mut().execute(1, &attempt, 1), Reply::FAULT);
    b.cpu(0).barrier(Barrier::DsbIshst);
    b.cpu(0).tlbi(Tlbi::Vaale1is(page(0)));
    b.cpu(0).barrier(Barrier::DsbIsh);
    assert_eq!((cpu.attempt(load), cpu.attempt(Data::Probe { va: page(0) })), (Err(Fault), Err(Fault)));
    assert_eq!(broke(&b), []);
    cpu.load(page(0), Order::Plain);
    assert_eq!(broke(&b)[0].0, Invariant::AlwaysTranslates);
}

#[test]
fn an_order_of_locks_is_told_once_and_a_nested_reader_is_none() {
    let b = Bench::new(WorldOptions::default());
    let cpu = b.cpu(0);
    cpu.acquire(LockId::CpuHotplug, Mode::Read);
    cpu.acquire(LockId::PcpBatchHigh, Mode::Write);
    cpu.acquire(LockId::CpuHotplug, Mode::Read);
    let mut w = b.world.borrow_mut();
    assert_eq!(w.new_order(), Some(NewOrder { held: LockId::CpuHotplug, taken: LockId::PcpBatchHigh, actor: 0 }));
    assert_eq!(w.new_order(), None);
    w.reset();
    drop(w);
    cpu.acquire(LockId::CpuHotplug, Mode::Read);
    cpu.acquire(LockId::PcpBatchHigh, Mode::Write);
    assert_eq!(b.world.borrow_mut().new_order(), None, "known since before the reset");
}

#[test]
fn a_variable_waited_for_lets_an_interrupt_in() {
    let b = one_cpu();
    let wait = Op::WaitUntil { var: Var(3), condition: Until::Equals(1) };
    assert_eq!((b.outcomes(0, wait), b.outcomes(1, Op::InterruptEnter)), (0, 1));
}
