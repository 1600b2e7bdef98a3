//! Family B of the soundness tests: small random programs of raw operations on the real World (docs/search.md §3).
//!
//! The machine has two pages and a block at one address, two tables that can be linked there, and three frames: two
//! inside the block and one elsewhere. Everybody works on these, so that almost every pair of operations may conflict.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod mutants;
pub mod programs;

use std::collections::HashSet;
use std::sync::Arc;

use vmemmap_arch::bbm::FeatBbm;
use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{
    Alloc, Barrier, Desc, Frame, FrameKind, Geometry, Granule, Invariant, Level, Order, Pa, Slot, Tlbi, Va, Zone,
};
use vmemmap_explore::check::subject::Subject;
use vmemmap_explore::model::{AccessSet, Described, Held, InvariantSet, Model, Touched, Violation};
use vmemmap_explore::reduction::options::Reduction;
use vmemmap_explore::runtime::execution::{ActorPort, Actors, Shared};
use vmemmap_explore::search::report::{Final, Report};
use vmemmap_lab::world::Explored;
use vmemmap_machine::explored::{
    Conflict, Context, EarlyLoad, LocationKind, Mark, Ordering, Place, World, WorldOptions,
};
use vmemmap_machine::op::{Op, Reply, Tok};
use vmemmap_machine::{Ets, MachineConfig, RamRange};

use crate::common::{finals, finals_by, finals_of_parts};

pub const BASE: Va = Va(0xffff_ffff_0000_0000);
/// Start of the block: 2 MiB that hold two of the frames.
const BLOCK: Pa = Pa((1 << 30) + (32 << 20));

/// What happened before the actors start: the states that a few operations do not reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Past {
    /// Both pages are mapped; nothing is stale.
    Quiet,
    /// The table was unlinked and that is published: a walk cache may lead to it, TLBs may hold its pages.
    Unlinked,
    /// The same, and a last-level invalidate is complete: only the walk cache is left.
    WalkCache,
    /// Page 0 was cleared, and that is published.
    Cleared,
    /// Both pages were cleared, and nothing of it is left.
    Empty,
    /// Page 0 was made read-only, not yet published.
    Unpublished,
    /// Both pages are read-only and map frames with equal contents, one of them after an exchange.
    Exchanged,
}

impl Past {
    pub const ALL: [Past; 7] =
        [Past::Quiet, Past::Unlinked, Past::WalkCache, Past::Cleared, Past::Empty, Past::Unpublished, Past::Exchanged];
}

/// A machine and the names of what is on it.
#[derive(Clone)]
pub struct Setup {
    pub world: World,
    pub g: Geometry,
    pub pmd: Frame<Tok>,
    /// The table linked at `BASE`, and one that is linked nowhere.
    pub tables: [Frame<Tok>; 2],
    /// The first two lie in the block.
    pub frames: [Frame<Tok>; 3],
}

impl Setup {
    pub fn new(options: &WorldOptions, cpus: u8, past: Past) -> Self {
        let g = Geometry::new(Granule::K4, 39).expect("4K, 39 bits");
        let ram = vec![
            RamRange { start: Pa(1 << 30), bytes: 64 << 20, boot: true },
            RamRange { start: Pa(2 << 30), bytes: 128 << 20, boot: false },
        ];
        // Each CPU may have a store buffer and a load queue beside it.
        let cpus = if options.store_buffer == 0 { cpus } else { 3 * cpus };
        let config = MachineConfig { geometry: g, ram, cpus, vars: 8, root: None, seed: 0 };
        let options = WorldOptions { pool_frames: 64, ..options.clone() };
        let mut world = World::new(&config, options).expect("a machine");
        let mut alloc = |kind, at| {
            let request = Alloc { order: 0, kind, zone: Zone::Normal, at, may_sleep: true, top_down: false };
            let reply = world.execute(0, &Op::Alloc(request), 0);
            Frame { pa: Pa(reply.value), tok: reply.tok }
        };
        let pmd = alloc(FrameKind::Table, None);
        let tables = [(); 2].map(|()| alloc(FrameKind::Table, None));
        let frames = [0, 1 << 12, 4 << 20].map(|at| alloc(FrameKind::Vmemmap, Some(BLOCK.plus(at))));
        let mut setup = Self { world, g, pmd, tables, frames };
        setup.build(past);
        setup.world.mark();
        setup
    }

    fn build(&mut self, past: Past) {
        let root = self.world.execute(0, &Op::Root, 0);
        let root =
            Slot { table: Pa(root.value), index: self.g.index(BASE, Level::PUD), level: Level::PUD, tok: root.tok };
        let (rw, ro) = (prot::PAGE_KERNEL, prot::PAGE_KERNEL_RO);
        let [a, b, c] = self.frames;
        self.write(root, self.g.descriptor(self.pmd.pa, prot::TABLE));
        self.write(self.pmd(), self.table(0));
        self.write(self.pte(0, 0), self.leaf(a, rw));
        self.write(self.pte(0, 1), self.leaf(b, rw));
        self.write(self.pte(1, 0), self.leaf(c, ro));
        self.direct(Op::Barrier(Barrier::DsbIsh));
        match past {
            Past::Quiet => {}
            Past::Unlinked => self.published(self.pmd(), Desc::NONE),
            Past::WalkCache => {
                self.published(self.pmd(), Desc::NONE);
                self.direct(Op::Tlbi(Tlbi::Vaale1is(page(0))));
                self.direct(Op::Tlbi(Tlbi::Vaale1is(page(1))));
                self.direct(Op::Barrier(Barrier::DsbIsh));
            }
            Past::Cleared => self.published(self.pte(0, 0), Desc::NONE),
            Past::Empty => {
                self.write(self.pte(0, 0), Desc::NONE);
                self.published(self.pte(0, 1), Desc::NONE);
                self.direct(Op::Tlbi(Tlbi::Vmalle1is));
                self.direct(Op::Barrier(Barrier::DsbIsh));
            }
            Past::Unpublished => self.write(self.pte(0, 0), self.leaf(a, ro)),
            Past::Exchanged => {
                self.write(self.pte(0, 0), self.leaf(a, ro));
                self.write(self.pte(0, 1), self.leaf(b, ro));
                self.direct(Op::Tlbi(Tlbi::Vmalle1is));
                self.direct(Op::Barrier(Barrier::DsbIsh));
                self.published(self.pte(0, 0), self.leaf(c, ro));
            }
        }
    }

    fn direct(&mut self, op: Op) {
        self.world.execute(0, &op, 0);
    }
    fn write(&mut self, at: Slot<Tok>, new: Desc) {
        self.direct(Op::Write { at, new, order: Order::Plain });
    }
    fn published(&mut self, at: Slot<Tok>, new: Desc) {
        self.write(at, new);
        self.direct(Op::Barrier(Barrier::DsbIshst));
    }

    pub fn pmd(&self) -> Slot<Tok> {
        Slot { table: self.pmd.pa, index: self.g.index(BASE, Level::PMD), level: Level::PMD, tok: self.pmd.tok }
    }
    pub fn pte(&self, table: usize, i: u64) -> Slot<Tok> {
        let table = self.tables[table];
        Slot { table: table.pa, index: self.g.index(page(i), Level::PTE), level: Level::PTE, tok: table.tok }
    }
    pub fn leaf(&self, frame: Frame<Tok>, prot: u64) -> Desc {
        self.g.descriptor(frame.pa, prot)
    }
    pub fn table(&self, i: usize) -> Desc {
        self.g.descriptor(self.tables[i].pa, prot::TABLE)
    }
    pub fn block(&self, prot: u64) -> Desc {
        Desc(self.g.descriptor(BLOCK, prot).0 & !2)
    }
}

pub fn page(i: u64) -> Va {
    BASE.plus(i << 12)
}

/// The machines of the tests: each past under each of these options.
pub fn options() -> Vec<WorldOptions> {
    let plain = WorldOptions::default();
    vec![
        WorldOptions { strict: true, ..plain.clone() },
        WorldOptions { strict: false, alloc_failures: 1, ..plain.clone() },
        WorldOptions {
            strict: true,
            alloc_failures: 1,
            feat_bbm: vec![FeatBbm::NoAbort, FeatBbm::Level2],
            ..plain.clone()
        },
        WorldOptions { strict: true, conflict: Conflict::AtAccess, spurious_fault_is_fatal: true, ..plain.clone() },
        WorldOptions {
            strict: false,
            conflict: Conflict::Amalgamate,
            feat_bbm: vec![FeatBbm::Level1],
            ..plain.clone()
        },
        WorldOptions { strict: true, iommu: true, ets: Ets::None, conflict: Conflict::Abort, ..plain.clone() },
        WorldOptions { ordering: Ordering::Published, spurious_fault_is_fatal: true, ..plain },
    ]
}

/// The machines of the tests in weak memory.
pub fn weak_options() -> Vec<WorldOptions> {
    let plain = WorldOptions { store_buffer: 2, ..WorldOptions::default() };
    vec![
        plain.clone(),
        WorldOptions { store_buffer: 1, strict: false, spurious_fault_is_fatal: true, ..plain.clone() },
        WorldOptions { ets: Ets::None, ..plain },
    ]
}

/// A rule of the access sets left out, to see the tests fail.
#[derive(Clone, Copy)]
pub struct Mutant {
    pub name: &'static str,
    /// The operation loses these of its locations.
    pub loses: fn(&Op, LocationKind) -> bool,
    /// While the stale value is there, another location says the same: sleep sets do without.
    pub merged_only: bool,
}

/// The World, or the World with a rule less.
#[derive(Clone)]
pub struct Watched {
    pub world: Explored,
    pub mutant: Option<Mutant>,
    scratch: AccessSet,
}

impl Watched {
    pub fn new(world: World, mutant: Option<Mutant>) -> Self {
        Self { world: Explored(world), mutant, scratch: AccessSet::default() }
    }

    /// What `make` adds, but for what the mutant loses.
    fn passes<R>(&mut self, op: &Op, out: &mut AccessSet, make: impl Fn(&mut Explored, &mut AccessSet) -> R) -> R {
        let Some(mutant) = self.mutant else { return make(&mut self.world, out) };
        self.scratch.clear();
        let answer = make(&mut self.world, &mut self.scratch);
        for Touched { location, access } in self.scratch.iter() {
            if !(mutant.loses)(op, self.world.kind_of(location)) {
                out.touch(location, access);
            }
        }
        answer
    }
}

impl Model for Watched {
    type Op = Op;
    type Reply = Reply;
    type Mark = Mark;

    fn checkpoint(&mut self) -> Mark {
        self.world.checkpoint()
    }
    fn rollback(&mut self, mark: &Mark) {
        self.world.rollback(mark);
    }

    fn access_set(&mut self, actor: u8, op: &Op, out: &mut AccessSet) {
        self.passes(op, out, |world, out| Model::access_set(world, actor, op, out));
    }
    fn first_for_all(&mut self, actor: u8, op: &Op, out: &mut AccessSet) -> bool {
        self.passes(op, out, |world, out| Model::first_for_all(world, actor, op, out))
    }
    fn beyond_first(&mut self, actor: u8, op: &Op, out: &mut AccessSet) {
        self.passes(op, out, |world, out| Model::beyond_first(world, actor, op, out));
    }
    fn may_never_come(&self, actor: u8, op: &Op) -> bool {
        Model::may_never_come(&self.world, actor, op)
    }
    fn reset(&mut self) {
        self.world.reset();
    }
    fn over_approximate(&mut self, on: bool) -> bool {
        Model::over_approximate(&mut self.world, on)
    }
    fn is_over_approximated(&self, actor: u8, op: &Op) -> bool {
        Model::is_over_approximated(&self.world, actor, op)
    }
    fn is_local(op: &Op) -> bool {
        <Explored as Model>::is_local(op)
    }
    fn outcomes(&mut self, actor: u8, op: &Op) -> u16 {
        Model::outcomes(&mut self.world, actor, op)
    }
    fn observed(reply: Reply) -> u64 {
        Explored::observed(reply)
    }
    fn execute(&mut self, actor: u8, op: &Op, outcome: u16) -> Reply {
        Model::execute(&mut self.world, actor, op, outcome)
    }
    fn fingerprint(&self) -> u128 {
        Model::fingerprint(&self.world)
    }
    fn numbered(&self) -> usize {
        Model::numbered(&self.world)
    }
    fn violated(&self) -> InvariantSet {
        Model::violated(&self.world)
    }
    fn waits_for(&self, actor: u8, op: &Op) -> u16 {
        Model::waits_for(&self.world, actor, op)
    }
    fn locks(&self, actor: u8) -> Held {
        Model::locks(&self.world, actor)
    }
    fn locks_at(&self, actor: u8, op: &Op) -> Held {
        Model::locks_at(&self.world, actor, op)
    }
    fn overflowed(&self) -> bool {
        Model::overflowed(&self.world)
    }
    fn at_rest(&mut self) {
        Model::at_rest(&mut self.world);
    }
    fn violations(&self) -> Vec<Violation> {
        Model::violations(&self.world)
    }
    fn describe(&self, actor: u8, op: &Op) -> Described {
        Model::describe(&self.world, actor, op)
    }
    fn describe_after(&self, actor: u8, op: &Op, reply: Reply, text: &mut Described) {
        Model::describe_after(&self.world, actor, op, reply, text);
    }
}

/// One line of a program: an operation, or one that depends on what was observed last.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Line {
    Do(Op),
    /// Map the frame that was allocated, or that the entry seen last names.
    Map(Slot<Tok>),
    /// Free that frame.
    FreeSeen,
    /// Store what was observed last, plus one.
    StoreNext(vmemmap_arch::Var),
    /// Leave out the next line if what was observed last is odd (an entry: if it was valid).
    SkipIfOdd,
}

/// Programs, one for each actor, and the machine they run on.
#[derive(Clone)]
pub struct Programs {
    pub setup: Arc<Setup>,
    pub past: Past,
    pub lines: Vec<Vec<Line>>,
    /// Words that CPUs load early.
    pub early: Vec<EarlyLoad>,
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:?}, {:?}", self.past, self.setup.world.options())?;
        if !self.early.is_empty() {
            writeln!(f, "early: {:?}", self.early)?;
        }
        for (i, lines) in self.lines.iter().enumerate() {
            writeln!(f, "actor {i}:")?;
            for line in lines {
                writeln!(f, "    {line:?}")?;
            }
        }
        Ok(())
    }
}

impl Programs {
    pub fn subject(&self, judged: &[Invariant]) -> Subject {
        Subject {
            name: "family B".into(),
            variant: format!("{:?}", self.past),
            digest: String::new(),
            actors: (0..self.count()).map(|i| (Actors::name(self, i).to_owned(), 1)).collect(),
            judged: judged.to_vec(),
        }
    }

    /// Whether each CPU has a store buffer: actors after those that have lines.
    pub fn is_weak(&self) -> bool {
        self.setup.world.options().store_buffer != 0
    }

    /// Of actors: tasks, and what is beside each.
    fn kinds(&self) -> usize {
        match (self.is_weak(), self.early.is_empty()) {
            (false, _) => 1,
            (true, true) => 2,
            (true, false) => 3,
        }
    }

    /// Where everybody runs.
    fn places(&self) -> Vec<Place> {
        let cpus = 0..self.lines.len() as u8;
        let contexts = [Context::Task, Context::StoreBuffer, Context::LoadQueue];
        let on = |context| cpus.clone().map(move |cpu| Place { cpu, context, line: None });
        contexts[..self.kinds()].iter().flat_map(|context| on(*context)).collect()
    }

    /// The frame that a reply names: that of an allocation, or the output of an entry.
    fn named(&self, seen: Reply) -> Option<Frame<Tok>> {
        let known = seen != Reply::NOTHING && seen.value != 0 && seen.tok != 0;
        known.then(|| Frame { pa: self.setup.g.output(Desc(seen.value)), tok: seen.tok })
    }
}

impl Actors<Watched> for Programs {
    fn count(&self) -> usize {
        self.lines.len() * self.kinds()
    }
    fn name(&self, actor: usize) -> &str {
        ["a", "b", "c", "d", "e", "f", "g", "h"][actor]
    }
    fn run(&self, actor: usize, port: &ActorPort<'_, Watched>) {
        if actor >= self.lines.len() {
            port.recurs();
            loop {
                port.boundary(0);
                port.call(if actor < 2 * self.lines.len() { Op::Commit } else { Op::LoadEarly });
            }
        }
        let mut seen = Reply::default();
        let mut skip = false;
        for (nth, line) in (0..).zip(&self.lines[actor]) {
            port.reaches(nth);
            if std::mem::take(&mut skip) {
                continue;
            }
            let op = match *line {
                Line::Do(op) => Some(op),
                Line::Map(at) => {
                    let new = |f| self.setup.leaf(f, prot::PAGE_KERNEL);
                    self.named(seen).map(|f| Op::Write { at, new: new(f), order: Order::Plain })
                }
                Line::FreeSeen => self.named(seen).map(|frame| Op::Free { frame, order: 0, kind: FrameKind::Vmemmap }),
                Line::StoreNext(var) => {
                    Some(Op::VarStore { var, value: seen.value.wrapping_add(1), order: Order::Plain })
                }
                Line::SkipIfOdd => {
                    skip = seen.value & 1 != 0;
                    None
                }
            };
            if let Some(op) = op {
                seen = port.call(op);
            }
        }
    }
}

/// Search on this machine, which comes back with what it has numbered: keys of later searches on it mean the same.
pub fn search(
    world: World,
    mutant: Option<Mutant>,
    programs: &Programs,
    reduction: Reduction,
    ending: InvariantSet,
    executions: u64,
) -> (World, Report, HashSet<Final>) {
    let mut watched = Watched::new(world, mutant);
    if programs.is_weak() {
        watched.world.place(&programs.places());
        watched.world.load_early(&programs.early);
    }
    let shared = Shared::new(watched);
    let (report, finals) = finals(&shared, programs, reduction, ending, executions);
    (shared.into_model().world.0, report, finals)
}

/// The same of a search that is split by the prefixes of so many operations.
pub fn search_parts(
    world: World,
    programs: &Programs,
    reduction: Reduction,
    ending: InvariantSet,
    depth: usize,
) -> (World, Vec<Report>, HashSet<Final>) {
    let mut watched = Watched::new(world, None);
    if programs.is_weak() {
        watched.world.place(&programs.places());
    }
    let (watched, reports, finals) = finals_of_parts(watched, programs, reduction, ending, depth);
    (watched.world.0, reports, finals)
}

/// The same by so many workers, on a copy of the machine.
pub fn search_by(workers: usize, programs: &Programs, reduction: Reduction) -> (Report, HashSet<Final>) {
    let mut watched = Watched::new(programs.setup.world.clone(), None);
    if programs.is_weak() {
        watched.world.place(&programs.places());
    }
    finals_by(workers, &Shared::new(watched), programs, reduction, InvariantSet::NONE)
}

/// The same programs with as few lines as still make `differs` true.
pub fn shrunk(programs: &Programs, differs: impl Fn(&Programs) -> bool) -> Programs {
    let mut best = programs.clone();
    'again: loop {
        for actor in 0..best.lines.len() {
            for line in 0..best.lines[actor].len() {
                let mut fewer = best.clone();
                fewer.lines[actor].remove(line);
                if differs(&fewer) {
                    best = fewer;
                    continue 'again;
                }
            }
        }
        return best;
    }
}
