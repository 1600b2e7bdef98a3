//! Access sets are what every reduction of the search rests on: operations whose access sets do not conflict commute.

mod bench;

use bench::{Bench, page, request};
use proptest::prelude::*;
use vmemmap_arch::bbm::FeatBbm;
use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{
    Alloc, Attr, Barrier, Cpu, Desc, FrameKind, Invariant, InvariantSet, LockId, Mode, Order, Pa, RangeOp, Rmw,
    Template, Tlbi, Until, Va, Var, Zone,
};
use vmemmap_machine::Ets;
use vmemmap_machine::explored::{Conflict, Context, Ordering, Place, Touch, WorldOptions};
use vmemmap_machine::op::{Op, Reply};

const LINE: Var = Var(1);

const fn at(cpu: u8, context: Context, line: Option<Var>) -> Place {
    Place { cpu, context, line }
}

/// Each on a CPU of its own; an interrupt beside a task; a pseudo-NMI above both; two tasks; one that is sent.
const PLACES: [[Place; 3]; 5] = [
    [at(0, Context::Task, None), at(1, Context::Task, None), at(2, Context::Task, None)],
    [at(0, Context::Task, None), at(0, Context::Irq, None), at(1, Context::Task, None)],
    [at(0, Context::Irq, None), at(0, Context::Nmi, None), at(0, Context::Task, None)],
    [at(0, Context::Task, None), at(0, Context::Task, None), at(0, Context::Irq, None)],
    [at(0, Context::Task, None), at(1, Context::Irq, Some(LINE)), at(1, Context::Task, None)],
];

#[derive(Default)]
struct AccessSet {
    reads: Vec<u32>,
    writes: Vec<u32>,
    adjusts: Vec<u32>,
}

impl Touch for AccessSet {
    fn read(&mut self, location: u32) {
        self.reads.push(location);
    }
    fn write(&mut self, location: u32) {
        self.writes.push(location);
    }
    fn enabledness_read(&mut self, location: u32) {
        self.reads.push(location);
    }
    fn commuting_update(&mut self, location: u32) {
        self.adjusts.push(location);
    }
}

impl AccessSet {
    fn conflicts(&self, other: &AccessSet) -> bool {
        let meet = |a: &[u32], b: &[u32]| a.iter().any(|x| b.contains(x));
        let one_way =
            |a: &Self, b: &Self| meet(&a.writes, &b.reads) || meet(&a.adjusts, &b.reads) || meet(&a.adjusts, &b.writes);
        meet(&self.writes, &other.writes) || one_way(self, other) || one_way(other, self)
    }
}

/// Where the frames of contiguous entries lie: page n of the bench's table belongs to frame n.
const CONTIGUOUS: Pa = Pa((1 << 30) + (4 << 20));

/// An operation out of four random bytes.
fn decode(b: &Bench, [kind, x, y, z]: [u8; 4]) -> Op {
    let order = Order::Plain;
    let frames: Vec<_> = b.mapped.iter().chain(&b.spare).copied().collect();
    let frame = frames[usize::from(y) % frames.len()];
    let other = frames[usize::from(z) % frames.len()];
    let at = b.pte(u64::from(x % 6));
    let va = Va(page(u64::from(x % 6)).0 + u64::from(z % 2) * 8);
    let leaf = match z % 5 {
        0 | 1 => Desc::NONE,
        2 | 3 => b.ro(frame),
        _ => b.rw(frame),
    };
    let leaf = match y {
        // All entries of a contiguous set, as they should be: what one says of another is what that one held.
        0x80..0xc0 if leaf.is_valid() => {
            b.g.descriptor(CONTIGUOUS.plus(u64::from(x % 6) << 12), prot::PAGE_KERNEL).with(Attr::CONT)
        }
        0xc0.. if leaf.is_valid() => leaf.with(Attr::NG),
        _ => leaf,
    };
    let lock =
        [LockId::MemHotplug, LockId::Hugetlb, LockId::DeviceHotplug, LockId::InitMmPageTable][usize::from(x % 4)];
    let mode = if lock == LockId::MemHotplug && y % 2 == 0 { Mode::Read } else { Mode::Write };
    let var = Var(u32::from(x % 3));
    let huge = Alloc {
        order: 9,
        zone: Zone::Movable,
        at: Some(Pa((2 << 30) + (u64::from(x % 2) << 21))),
        ..request(FrameKind::Huge)
    };
    match kind % 47 {
        0 | 1 => Op::Read { at, order },
        2..=6 => Op::Write { at, new: leaf, order },
        7 => Op::Swap { at, new: leaf, order },
        8 => Op::CompareExchange { at, old: Desc::NONE, new: leaf, order },
        9 | 10 => Op::Write {
            at: b.pmd(),
            new: if z % 2 == 0 { Desc::NONE } else { b.g.descriptor(b.pte.pa, 0x1000_0000_0000_0003) },
            order,
        },
        11 => Op::Read { at: b.pmd(), order },
        12 | 13 => Op::Barrier(Barrier::DsbIsh),
        14 => Op::Barrier(Barrier::DsbIshst),
        15 => Op::Barrier(Barrier::DsbNsh),
        16 => Op::Tlbi([Tlbi::Vmalle1is, Tlbi::Vmalle1, Tlbi::Aside1is(u16::from(y % 2))][usize::from(z % 3)]),
        17 | 18 => {
            let (asid, pages) = (u16::from(y % 2), u32::from(y % 4));
            let all = [
                Tlbi::Vaale1is(va),
                Tlbi::Vaae1is(va),
                Tlbi::Vaale1(va),
                Tlbi::Vaae1(va),
                Tlbi::Vale1is(va, asid),
                Tlbi::Vae1is(va, asid),
                Tlbi::Rvaale1is(va, pages),
                Tlbi::Rvaae1is(va, pages),
            ];
            Op::Tlbi(all[usize::from(z) % all.len()])
        }
        19..=21 => Op::Load { va, order },
        22 | 23 => Op::Store { va, value: u64::from(y % 3), order },
        24 => Op::Rmw { va, op: Rmw::FetchAdd(1), order },
        25 => Op::Fill { va: page(u64::from(x % 4)), template: [Template::FREE, Template::ZERO][usize::from(z % 2)] },
        26 => [Op::Speculate { va }, Op::IommuWalk { va }, Op::IommuInvalidate][usize::from(y % 3)],
        27 | 28 => Op::Free { frame, order: 0, kind: FrameKind::Vmemmap },
        29 => Op::Free { frame: b.pte, order: 0, kind: FrameKind::Table },
        30 => Op::CopyFrame { from: frame, to: other },
        31 => Op::CopyFromVa { from: page(u64::from(x % 4)), to: other },
        32 => Op::LoadFrame { frame, index: u16::from(x % 2) },
        33 => Op::StoreFrame { frame, index: u16::from(x % 2), value: u64::from(z % 3) },
        34 => [Op::Acquire { lock, mode }, Op::Queue { lock: LockId::MemHotplug }, Op::TryAcquire { lock, mode }]
            [usize::from(z % 3)],
        35 => Op::Release { lock, mode },
        36 => [
            Op::VarLoad { var, order },
            Op::VarStore { var, value: z.into(), order },
            Op::WaitUntil { var, condition: Until::Equals(0) },
        ][usize::from(y % 3)],
        37 => Op::VarRmw { var, op: Rmw::FetchOr(z.into()), order },
        38 => [Op::RcuReadLock, Op::RcuReadUnlock, Op::RcuSnapshot, Op::RcuWait][usize::from(z % 4)],
        39 => [Op::IrqDisable, Op::IrqEnable, Op::StopMachineBegin, Op::StopMachineEnd][usize::from(z % 4)],
        44 => [Op::InterruptEnter, Op::InterruptExit, Op::SendIpi { line: LINE }][usize::from(z % 3)],
        40 if y % 2 == 0 => Op::MemoryGone { start: CONTIGUOUS, bytes: u64::from(z % 8) << 12 },
        40 => Op::ExpectStable { on: z % 2 == 0 },
        41 => Op::Exclusive { what: Invariant::HotplugExclusive, begin: z % 2 == 0 },
        42 => [Op::Alloc(request(FrameKind::Vmemmap)), Op::Alloc(huge)][usize::from(z % 2)],
        _ => {
            let (start, bytes) = (Pa(2 << 30), 128 << 20);
            let op =
                [RangeOp::OnlineMovable, RangeOp::Isolate, RangeOp::UndoIsolate, RangeOp::Offline][usize::from(y % 4)];
            [Op::Range { start, bytes, op }, Op::RangeInUse { start, bytes }][usize::from(z % 2)]
        }
    }
}

/// Back to the start, then the prefix again. Blocked operations of it are left out.
fn replay(b: &Bench, prefix: &[(u8, [u8; 4])]) {
    b.world.borrow_mut().reset();
    for (who, bytes) in prefix {
        let op = decode(b, *bytes);
        let n = b.outcomes(*who, op);
        if n != 0 {
            b.world.borrow_mut().execute(*who, &op, u16::from(bytes[3]) % n);
        }
    }
}

fn access_set(b: &Bench, actor: u8, op: &Op) -> AccessSet {
    let mut f = AccessSet::default();
    b.world.borrow_mut().access_set(actor, op, &mut f);
    f
}

fn run(b: &Bench, first: (u8, Op, u16), second: (u8, Op, u16)) -> (Reply, u16, Reply, u128, InvariantSet) {
    let mut w = b.world.borrow_mut();
    let one = w.execute(first.0, &first.1, first.2);
    let outcomes = w.outcomes(second.0, &second.1);
    let two = if outcomes == 0 { Reply::of(0) } else { w.execute(second.0, &second.1, second.2) };
    (one, outcomes, two, w.fingerprint(), w.violated())
}

fn operation() -> impl Strategy<Value = [u8; 4]> {
    any::<[u8; 4]>()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, max_shrink_iters: 4000, failure_persistence: None,
        ..ProptestConfig::default() })]

    #[test]
    fn operations_that_do_not_conflict_commute(
        strict in any::<bool>(),
        fatal in any::<bool>(),
        failures in 0u32..2,
        places in 0..PLACES.len(),
        linear in any::<bool>(),
        iommu in any::<bool>(),
        own_only in any::<bool>(),
        ets in proptest::sample::select(vec![Ets::None, Ets::Two, Ets::Three]),
        ordering in proptest::sample::select(vec![Ordering::Published, Ordering::Ordered]),
        conflict in proptest::sample::select(vec![Conflict::AtWrite, Conflict::AtAccess, Conflict::Amalgamate,
            Conflict::Abort]),
        feat in proptest::collection::vec(proptest::sample::select(vec![FeatBbm::Level0, FeatBbm::Level2,
            FeatBbm::NoAbort]), 0..4),
        asids in proptest::collection::vec(0u16..2, 0..4),
        prefix in proptest::collection::vec((0u8..3, operation()), 0..14),
        pairs in proptest::collection::vec((operation(), operation()), 12),
    ) {
        let options = WorldOptions { strict, spurious_fault_is_fatal: fatal, alloc_failures: failures, iommu,
            linear_map: linear.then_some(page(4)..page(6)), ets, ordering, conflict, feat_bbm: feat, asids,
                ..WorldOptions::default() };
        let b = Bench::new(options);
        b.world.borrow_mut().place(&PLACES[places]);
        b.world.borrow_mut().over_approximate(own_only);
        for (one, two) in pairs {
            let (one, two) = (decode(&b, one), decode(&b, two));
            replay(&b, &prefix);
            let start = b.world.borrow().fingerprint();
            let (m, n) = (b.outcomes(0, one), b.outcomes(1, two));
            if access_set(&b, 0, &one).conflicts(&access_set(&b, 1, &two)) {
                continue;
            }
            prop_assert_eq!(b.world.borrow().fingerprint(), start, "asking changes nothing");
            if m == 0 || n == 0 {
                // An operation that does not conflict neither blocks nor unblocks.
                let (free, waiting) = if m != 0 { ((0, one), (1, two)) } else { ((1, two), (0, one)) };
                if m != 0 || n != 0 {
                    b.execute(free.0, free.1, 0);
                    prop_assert_eq!(b.outcomes(waiting.0, waiting.1), 0, "{:?} unblocks {:?}", free.1, waiting.1);
                }
                continue;
            }
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                replay(&b, &prefix);
                let forth = run(&b, (0, one, i), (1, two, j));
                replay(&b, &prefix);
                let back = run(&b, (1, two, j), (0, one, i));
                prop_assert_eq!((forth.1, back.1), (n, m), "outcomes of {:?} and {:?}", one, two);
                prop_assert_eq!((forth.0, forth.2), (back.2, back.0), "replies of {:?} and {:?}", one, two);
                prop_assert_eq!(forth.4, back.4, "violations of {:?} and {:?}", one, two);
                prop_assert_eq!(forth.3, back.3, "states after {:?} and {:?}", one, two);
            }
        }
    }
}

/// Private accesses run without a scheduling point, and the search learns what is private from access sets as they were
/// when the operation was announced. So whatever opens or closes the window of a stale value must meet the access at a
/// location that it touches before there is such a value.
#[test]
fn an_access_that_waits_meets_the_barriers_of_a_window_that_opened_since() {
    let load = Op::Load { va: page(0), order: Order::Plain };
    let barrier = |b: &Bench, barrier| {
        let op = Op::Barrier(barrier);
        let touched = access_set(b, 0, &op);
        b.execute(0, op, 0);
        touched
    };
    let leaf = |b: &Bench, desc| b.execute(0, Op::Write { at: b.pte(0), new: desc, order: Order::Plain }, 0);
    let b = Bench::new(WorldOptions::default());
    let (waiting, elsewhere) =
        (access_set(&b, 1, &load), access_set(&b, 1, &Op::Load { va: page(2), order: Order::Plain }));
    leaf(&b, b.rw(b.spare[0]));
    b.execute(0, Op::Barrier(Barrier::DsbIshst), 0);
    b.execute(0, Op::Tlbi(Tlbi::Vaale1is(page(0))), 0);
    let completes = barrier(&b, Barrier::DsbIsh);
    assert!(completes.conflicts(&waiting));
    assert!(!completes.conflicts(&elsewhere));

    let b = Bench::new(WorldOptions { ets: Ets::None, ..WorldOptions::default() });
    let waiting = access_set(&b, 1, &Op::Load { va: page(5), order: Order::Plain });
    b.execute(0, Op::Write { at: b.pte(5), new: b.rw(b.spare[0]), order: Order::Plain }, 0);
    assert!(barrier(&b, Barrier::DsbIshst).conflicts(&waiting));

    // Two read-only frames of equal contents were exchanged: a store to one is judged while both may be used.
    let b = Bench::new(WorldOptions::default());
    leaf(&b, b.ro(b.mapped[0]));
    b.execute(0, Op::Tlbi(Tlbi::Vmalle1is), 0);
    b.execute(0, Op::Barrier(Barrier::DsbIsh), 0);
    let stores =
        [b.mapped[0], b.spare[0]].map(|frame| access_set(&b, 1, &Op::StoreFrame { frame, index: 1, value: 4 }));
    leaf(&b, b.ro(b.spare[0]));
    b.execute(0, Op::Barrier(Barrier::DsbIshst), 0);
    b.execute(0, Op::Tlbi(Tlbi::Vmalle1is), 0);
    let completes = barrier(&b, Barrier::DsbIsh);
    assert!(stores.iter().all(|store| completes.conflicts(store)));

    let b = Bench::new(WorldOptions { iommu: true, ..WorldOptions::default() });
    let waiting = access_set(&b, 1, &Op::IommuWalk { va: page(0) });
    (0..4).for_each(|i| {
        b.execute(0, Op::Write { at: b.pte(i), new: Desc::NONE, order: Order::Plain }, 0);
    });
    b.execute(0, Op::Write { at: b.pmd(), new: Desc::NONE, order: Order::Plain }, 0);
    b.execute(0, Op::Barrier(Barrier::DsbIshst), 0);
    assert!(access_set(&b, 0, &Op::IommuInvalidate).conflicts(&waiting));
}

/// What random programs meet too rarely: the two operations do not commute in the state that `before` leaves.
fn must_conflict(
    options: WorldOptions,
    before: impl Fn(&Bench),
    one: impl Fn(&Bench) -> Op,
    two: impl Fn(&Bench) -> Op,
) {
    let b = Bench::new(options);
    before(&b);
    let (one, two) = (one(&b), two(&b));
    assert!(access_set(&b, 0, &one).conflicts(&access_set(&b, 1, &two)), "{one:?} and {two:?}");
    let forth = (run(&b, (0, one, 0), (1, two, 0)), b.outcomes(0, one));
    b.world.borrow_mut().reset();
    before(&b);
    let back = (run(&b, (1, two, 0), (0, one, 0)), b.outcomes(0, one));
    assert_ne!((forth.0.3, forth.0.1, forth.1), (back.0.3, back.0.1, back.1), "they commute after all");
}

#[test]
fn operations_on_one_contiguous_set_conflict() {
    let entry = |b: &Bench, i: u64| b.g.descriptor(CONTIGUOUS.plus(i << 12), prot::PAGE_KERNEL).with(Attr::CONT);
    let set = |b: &Bench, i: u64, desc| {
        b.cpu(1).write(b.pte(i), desc, Order::Plain);
    };
    let flushed = |b: &Bench| {
        b.cpu(1).barrier(Barrier::DsbIshst);
        b.cpu(1).tlbi(Tlbi::Vmalle1is);
        b.cpu(1).barrier(Barrier::DsbIsh);
    };
    let made = |b: &Bench| {
        (0..4).for_each(|i| set(b, i, Desc::NONE));
        flushed(b);
        (0..2).for_each(|i| set(b, i, entry(b, i)));
        flushed(b);
        set(b, 0, Desc::NONE);
        b.cpu(1).barrier(Barrier::DsbIshst);
    };
    let cleared = |b: &Bench| {
        made(b);
        set(b, 1, Desc::NONE);
    };
    let invalidate = |_: &Bench| Op::Tlbi(Tlbi::Vaale1is(page(0)));
    // An invalidate covers entry 0 once the clear of entry 1 is made; if stores count when published, only then.
    let published = WorldOptions { ordering: Ordering::Published, ..WorldOptions::default() };
    must_conflict(published, cleared, invalidate, |_| Op::Barrier(Barrier::DsbIshst));
    let clear = |b: &Bench| Op::Write { at: b.pte(1), new: Desc::NONE, order: Order::Plain };
    must_conflict(WorldOptions::default(), made, invalidate, clear);
    // An entry of the set that comes back before the invalidate completes brings the others back.
    let invalidated = |b: &Bench| {
        cleared(b);
        b.cpu(1).barrier(Barrier::DsbIshst);
        b.cpu(1).tlbi(Tlbi::Vmalle1is);
    };
    let again = |b: &Bench| Op::Write { at: b.pte(1), new: entry(b, 1), order: Order::Plain };
    must_conflict(WorldOptions::default(), invalidated, again, |_| Op::Barrier(Barrier::DsbIsh));
}

#[test]
fn a_load_that_may_abort_conflicts_with_what_makes_two_frames_differ() {
    let options = WorldOptions { conflict: Conflict::Abort, ..WorldOptions::default() };
    let exchanged = |b: &Bench| {
        let cpu = b.cpu(1);
        cpu.write(b.pte(0), b.ro(b.mapped[0]), Order::Plain);
        cpu.barrier(Barrier::DsbIshst);
        cpu.tlbi(Tlbi::Vmalle1is);
        cpu.barrier(Barrier::DsbIsh);
        cpu.write(b.pte(0), b.ro(b.spare[0]), Order::Plain);
    };
    let store = |b: &Bench| Op::StoreFrame { frame: b.spare[0], index: 1, value: 4 };
    must_conflict(options, exchanged, store, |_| Op::Load { va: page(0), order: Order::Plain });
}

/// Every frame of a run that is freed is one whose use is judged by it, not the first alone.
#[test]
fn a_run_that_is_freed_conflicts_with_who_uses_any_frame_of_it() {
    let b = Bench::new(WorldOptions::default());
    let run = b.cpu(0).alloc(Alloc { order: 2, ..request(FrameKind::Data) }).expect("memory");
    let free = Op::Free { frame: run, order: 2, kind: FrameKind::Data };
    for n in 0..4 {
        let frame = vmemmap_arch::Frame { pa: run.pa.plus(n << 12), tok: run.tok };
        let store = Op::StoreFrame { frame, index: 1, value: 4 };
        assert!(access_set(&b, 0, &free).conflicts(&access_set(&b, 1, &store)), "frame {n}");
    }
}

/// With FEAT_ETS2 a barrier of who made an entry valid ends the faults that others may still take by it.
#[test]
fn a_barrier_behind_a_new_entry_conflicts_with_who_may_fault_by_the_old_one() {
    for barrier in [Barrier::SmpMb, Barrier::SmpWmb, Barrier::DsbIsh] {
        let b = Bench::new(WorldOptions::default());
        b.cpu(0).write(b.pte(5), b.rw(b.spare[0]), Order::Plain);
        let load = access_set(&b, 1, &Op::Load { va: page(5), order: Order::Plain });
        assert!(access_set(&b, 0, &Op::Barrier(barrier)).conflicts(&load), "{barrier:?}");
        assert!(!access_set(&b, 2, &Op::Barrier(barrier)).conflicts(&load), "{barrier:?} of another CPU");
    }
}
