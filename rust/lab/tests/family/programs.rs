//! What the programs are made of. To add an operation, add its line to `OPERATIONS`; what needs its partner goes to
//! `SECTIONS`.

use std::collections::HashMap;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{
    Alloc, Barrier, Data, Desc, Frame, FrameKind, Invariant, LockId, Mode, Order, Pa, RangeOp, Rmw, Slot, Template,
    Tlbi, Until, Va, Var, Zone,
};
use vmemmap_machine::explored::{Early, EarlyLoad};
use vmemmap_machine::op::{Op, Tok};

use super::{Line, Past, Programs, Setup, options, page, weak_options};

const PLAIN: Order = Order::Plain;

/// A weight, and how to draw one.
type Weighted<T> = (u32, fn(&mut Draw) -> T);

/// Single operations, with their weights.
const OPERATIONS: &[Weighted<Op>] = &[
    (3, |d| Op::Read { at: d.entry(), order: PLAIN }),
    (10, |d| d.store_entry(|at, new| Op::Write { at, new, order: PLAIN })),
    (3, |d| d.store_entry(|at, new| Op::Swap { at, new, order: PLAIN })),
    (2, |d| d.store_entry(|at, new| Op::CompareExchange { at, old: Desc::NONE, new, order: PLAIN })),
    (6, |d| {
        Op::Barrier(d.of(&[
            Barrier::DsbIsh,
            Barrier::DsbIsh,
            Barrier::DsbIshst,
            Barrier::DsbNsh,
            Barrier::Isb,
            Barrier::SmpWmb,
            Barrier::SmpRmb,
        ]))
    }),
    (5, |d| Op::Tlbi(d.invalidate())),
    (5, |d| Op::Load { va: d.va(), order: PLAIN }),
    (4, |d| Op::Store { va: d.va(), value: d.small(), order: PLAIN }),
    (1, |d| Op::Rmw { va: d.va(), op: Rmw::FetchAdd(1), order: PLAIN }),
    (1, |d| Op::Fill { va: page(d.bit()), template: d.of(&[Template::FREE, Template::ZERO]) }),
    (2, |d| Op::Speculate { va: d.va() }),
    (2, |d| Op::IommuWalk { va: d.va() }),
    (1, |_| Op::IommuInvalidate),
    (2, |d| Op::Attempt(Data::Load { va: d.va(), order: PLAIN })),
    (2, |d| Op::Alloc(d.request(FrameKind::Vmemmap))),
    (5, |d| Op::Free { frame: d.frame(), order: 0, kind: FrameKind::Vmemmap }),
    (2, |d| Op::Free { frame: d.table(), order: 0, kind: FrameKind::Table }),
    (1, |d| Op::CopyFrame { from: d.frame(), to: d.frame() }),
    (1, |d| Op::CopyFromVa { from: page(d.bit()), to: d.frame() }),
    (1, |d| Op::LoadFrame { frame: d.frame(), index: d.bit() as u16 }),
    (3, |d| Op::StoreFrame { frame: d.frame(), index: d.bit() as u16, value: d.small() }),
    (1, |d| Op::TryAcquire { lock: LockId::MemHotplug, mode: d.of(&[Mode::Read, Mode::Write]) }),
    (1, |d| Op::VarLoad { var: d.var(), order: PLAIN }),
    (1, |d| Op::VarStore { var: d.var(), value: d.small(), order: PLAIN }),
    (1, |d| Op::VarStore { var: d.var(), value: d.small(), order: Order::Release }),
    (1, |d| d.store_entry(|at, new| Op::Write { at, new, order: Order::Release })),
    (1, |d| Op::VarAdd { var: d.var(), n: 1, order: PLAIN }),
    (1, |d| Op::VarRmw { var: d.var(), op: Rmw::FetchAdd(1), order: PLAIN }),
    (1, |d| Op::WaitUntil { var: d.var(), condition: d.of(&[Until::Equals(0), Until::Differs(0), Until::AtLeast(2)]) }),
    (1, |_| Op::Choose { n: 2, why: "either way" }),
    (1, |d| Op::Alloc(d.huge())),
    (1, |d| Op::Free { frame: Frame { pa: d.huge_page(), tok: 0 }, order: 9, kind: FrameKind::Huge }),
    (1, |_| Op::RangeInUse { start: MOVABLE, bytes: 128 << 20 }),
    (1, |d| Op::Range {
        start: MOVABLE,
        bytes: 128 << 20,
        op: d.of(&[RangeOp::OnlineMovable, RangeOp::Isolate, RangeOp::Offline]),
    }),
    (1, |d| Op::IsSelfHosted { frame: d.frame() }),
];

/// Lines that belong together, with their weights; most can wait, and some for ever.
const SECTIONS: &[Weighted<Vec<Line>>] = &[
    (3, |d| d.locked(&[LockId::DeviceHotplug], 1)),
    (2, |d| d.locked(&[LockId::InitMmPageTable], 1)),
    (2, |d| d.locked(&[LockId::Hugetlb], 1)),
    (2, |d| d.locked(&[LockId::DeviceHotplug, LockId::PcpBatchHigh], 0)),
    (2, |d| d.locked(&[LockId::PcpBatchHigh, LockId::DeviceHotplug], 0)),
    (1, |d| d.locked(&[LockId::DeviceHotplug, LockId::MemHotplug], 0)),
    (1, |d| d.locked(&[LockId::MemHotplug, LockId::DeviceHotplug], 0)),
    (3, |d| d.locked(&[LockId::MemHotplug], 1)),
    (3, |d| d.reading(1, 1)),
    (2, |d| d.reading(2, 0)),
    (3, |d| d.around(Op::RcuReadLock, Op::RcuReadUnlock)),
    (2, |_| lines(&[Op::RcuSnapshot, Op::RcuWait])),
    (1, |_| lines(&[Op::RcuReadLock, Op::RcuSnapshot, Op::RcuWait, Op::RcuReadUnlock])),
    (1, |d| d.around(Op::IrqDisable, Op::IrqEnable)),
    (1, |d| d.around(Op::StopMachineBegin, Op::StopMachineEnd)),
    (1, |d| d.around(Op::ExpectStable { on: true }, Op::ExpectStable { on: false })),
    (1, |d| {
        let section = |begin| Op::Exclusive { what: Invariant::HotplugExclusive, begin };
        d.around(section(true), section(false))
    }),
    (2, |d| vec![Line::Do(Op::VarLoad { var: d.var(), order: PLAIN }), Line::StoreNext(d.var())]),
    (2, |d| vec![d.one(), Line::SkipIfOdd, d.one()]),
    (2, |d| vec![Line::Do(Op::Alloc(d.request(FrameKind::Vmemmap))), Line::Map(d.setup.pte(0, d.half()))]),
    (2, |d| vec![Line::Do(Op::Alloc(d.request(FrameKind::Vmemmap))), Line::FreeSeen]),
    (3, |d| vec![Line::Do(Op::Swap { at: d.setup.pte(0, d.half()), new: Desc::NONE, order: PLAIN }), Line::FreeSeen]),
    (5, |d| lines(&[Op::Tlbi(d.invalidate()), Op::Barrier(Barrier::DsbIsh)])),
    (3, |d| lines(&[Op::Barrier(Barrier::DsbIshst), Op::Tlbi(d.invalidate()), Op::Barrier(Barrier::DsbIsh)])),
    (3, |d| {
        let at = d.setup.pte(0, d.half());
        lines(&[
            Op::Write { at, new: Desc::NONE, order: PLAIN },
            Op::Barrier(Barrier::DsbIshst),
            Op::Tlbi(d.invalidate()),
        ])
    }),
];

/// Memory that no hugepage of the setup lies in.
const MOVABLE: Pa = Pa(2 << 30);

fn lines(ops: &[Op]) -> Vec<Line> {
    ops.iter().copied().map(Line::Do).collect()
}

pub struct Draw<'a> {
    rng: &'a mut Xoshiro256PlusPlus,
    setup: Arc<Setup>,
    /// Drawn ahead, for closures that look at the setup meanwhile.
    half: u64,
}

impl Draw<'_> {
    fn of<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.rng.random_range(0..these.len())]
    }
    fn weighted<T: Copy>(&mut self, these: &[(u32, T)]) -> T {
        let mut at = self.rng.random_range(0..these.iter().map(|(w, _)| w).sum());
        for (weight, thing) in these {
            if at < *weight {
                return *thing;
            }
            at -= weight;
        }
        unreachable!("the weights were summed up")
    }
    fn bit(&mut self) -> u64 {
        self.rng.random_range(0..2)
    }
    fn half(&self) -> u64 {
        self.half
    }
    fn small(&mut self) -> u64 {
        self.rng.random_range(0..3)
    }
    fn va(&mut self) -> Va {
        page(self.bit()).plus(self.bit() * 8)
    }
    fn var(&mut self) -> Var {
        Var(self.bit() as u32)
    }
    fn frame(&mut self) -> Frame<Tok> {
        let frames = self.setup.frames;
        self.of(&frames)
    }
    fn table(&mut self) -> Frame<Tok> {
        let tables = self.setup.tables;
        self.of(&tables)
    }
    /// Any entry; pages of the linked table most of all.
    fn entry(&mut self) -> Slot<Tok> {
        match self.rng.random_range(0..8) {
            0..2 => self.setup.pmd(),
            2 => self.setup.pte(1, 0),
            n => self.setup.pte(0, n & 1),
        }
    }
    fn store_entry(&mut self, op: fn(Slot<Tok>, Desc) -> Op) -> Op {
        let at = self.entry();
        let rights = self.of(&[prot::PAGE_KERNEL, prot::PAGE_KERNEL_RO, prot::PAGE_KERNEL_RO]);
        let frame = self.frame();
        let new = if at == self.setup.pmd() {
            let known = [Desc::NONE, Desc::NONE, self.setup.table(0), self.setup.table(1), self.setup.block(rights)];
            self.of(&known)
        } else {
            let known = [Desc::NONE, self.setup.leaf(frame, rights), self.setup.leaf(frame, rights)];
            self.of(&known)
        };
        op(at, new)
    }
    fn invalidate(&mut self) -> Tlbi {
        let va = self.va();
        self.of(&[
            Tlbi::Vmalle1is,
            Tlbi::Vmalle1,
            Tlbi::Vaale1is(va),
            Tlbi::Vaale1is(va),
            Tlbi::Vaae1is(va),
            Tlbi::Rvaale1is(va, 2),
            Tlbi::Vaae1(va),
            Tlbi::Aside1is(0),
        ])
    }
    fn request(&mut self, kind: FrameKind) -> Alloc {
        Alloc { order: 0, kind, zone: Zone::Normal, at: None, may_sleep: self.bit() != 0, top_down: false }
    }
    fn huge_page(&mut self) -> Pa {
        MOVABLE.plus(self.bit() << 21)
    }
    fn huge(&mut self) -> Alloc {
        Alloc { order: 9, zone: Zone::Movable, at: Some(self.huge_page()), ..self.request(FrameKind::Huge) }
    }

    fn one(&mut self) -> Line {
        Line::Do(self.weighted(OPERATIONS)(self))
    }
    fn around(&mut self, begin: Op, end: Op) -> Vec<Line> {
        vec![Line::Do(begin), self.one(), Line::Do(end)]
    }
    /// These locks for writing, so many operations inside.
    fn locked(&mut self, locks: &[LockId], inside: usize) -> Vec<Line> {
        let mut all = Vec::new();
        for &lock in locks {
            if vmemmap_machine::op::is_rwsem(lock) {
                all.push(Line::Do(Op::Queue { lock }));
            }
            all.push(Line::Do(Op::Acquire { lock, mode: Mode::Write }));
        }
        all.extend((0..inside).map(|_| self.one()));
        all.extend(locks.iter().rev().map(|&lock| Line::Do(Op::Release { lock, mode: Mode::Write })));
        all
    }
    /// A read section, so deep.
    fn reading(&mut self, depth: usize, inside: usize) -> Vec<Line> {
        let lock = LockId::MemHotplug;
        let mut all = vec![Line::Do(Op::Acquire { lock, mode: Mode::Read }); depth];
        all.extend((0..inside).map(|_| self.one()));
        all.extend(vec![Line::Do(Op::Release { lock, mode: Mode::Read }); depth]);
        all
    }
}

/// How large programs are, and how often something that can wait is in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Percent of the draws that take a section.
    pub sections: u32,
    pub actors: (usize, usize),
    /// Lines of each of two actors, and of each of more.
    pub lines: (usize, usize),
    /// Plain stores wait in store buffers.
    pub weak: bool,
    /// And plain loads take effect early.
    pub early: bool,
}

/// Programs one after the other, each on a machine of its own.
pub struct Corpus {
    rng: Xoshiro256PlusPlus,
    shape: Shape,
    stages: HashMap<(usize, usize), Arc<Setup>>,
}

impl Corpus {
    pub fn new(seed: u64, shape: Shape) -> Self {
        Self { rng: Xoshiro256PlusPlus::seed_from_u64(seed), shape, stages: HashMap::new() }
    }

    pub fn draw(&mut self) -> Programs {
        let options = if self.shape.weak { weak_options() } else { options() };
        let (which, past) = (self.rng.random_range(0..options.len()), self.rng.random_range(0..Past::ALL.len()));
        let cpus = self.shape.actors.1 as u8;
        let setup = self
            .stages
            .entry((which, past))
            .or_insert_with(|| Arc::new(Setup::new(&options[which], cpus, Past::ALL[past])));
        let setup = Arc::clone(setup);
        let actors = self.rng.random_range(self.shape.actors.0..=self.shape.actors.1);
        let longest = if actors == 2 { self.shape.lines.0 } else { self.shape.lines.1 };
        let mut lines: Vec<Vec<Line>> = (0..actors).map(|_| self.program(&setup, longest)).collect();
        let early = if self.shape.early { self.early() } else { Vec::new() };
        self.loads(&early, &mut lines[0]);
        Programs { setup, past: Past::ALL[past], lines, early }
    }

    /// One word or two of one CPU.
    fn early(&mut self) -> Vec<EarlyLoad> {
        let words = [Early::Var(Var(0)), Early::Word(page(0)), Early::Word(page(1)), Early::Word(page(0).plus(8))];
        let (first, second) = (self.rng.random_range(0..words.len()), self.rng.random_range(0..words.len()));
        let once = self.rng.random_bool(0.3);
        let both = [first, second].map(|n| EarlyLoad { cpu: 0, of: words[n], once });
        both[..if first == second { 1 } else { 2 }].to_vec()
    }
    /// That CPU loads them, in the other order, among the lines of its program.
    fn loads(&mut self, early: &[EarlyLoad], program: &mut Vec<Line>) {
        for EarlyLoad { of, .. } in early {
            let at = self.rng.random_range(0..=program.len());
            program.insert(
                at,
                Line::Do(match *of {
                    Early::Var(var) => Op::VarLoad { var, order: PLAIN },
                    Early::Word(va) => Op::Load { va, order: PLAIN },
                }),
            );
        }
    }

    fn program(&mut self, setup: &Arc<Setup>, longest: usize) -> Vec<Line> {
        let length = self.rng.random_range(2..=longest);
        let mut program = Vec::new();
        while program.len() < length {
            let half = self.rng.random_range(0..2);
            let section = self.rng.random_range(0..100) < self.shape.sections;
            let mut draw = Draw { rng: &mut self.rng, setup: Arc::clone(setup), half };
            if section {
                let more = draw.weighted(SECTIONS)(&mut draw);
                if program.is_empty() || program.len() + more.len() <= longest {
                    program.extend(more);
                }
            } else {
                program.push(draw.one());
            }
        }
        program
    }
}
