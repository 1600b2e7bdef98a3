//! `--memory sc`: the threads run on the explored machine itself, as kernel code does: its tables, its TLB, its access
//! rules. Every interleaving, one instruction a step.

use rustc_hash::FxHashSet;
use vmemmap_arch::{Attr, Barrier, Data, Desc, Frame, FrameKind, Level, Order, Pa, Rmw, Slot, TableView, Tlbi, Va};
use vmemmap_machine::config::{Ets, MachineConfig, RamRange};
use vmemmap_machine::explored::{Context, Early, EarlyLoad, Ordering, Place as On, World, WorldOptions};
use vmemmap_machine::op::{Op, Reply, Tok};
use vmemmap_machine::views::{FaultKind, Orders};

use crate::budget::Left;
use crate::outcome::{Final, Found, Watched};
use crate::places::{FIRST_FRAME, Fields, Target, frame, geometry, page};
use crate::registers::{Registers, Value};
use crate::test::{
    Address, Change, Instruction, Invalidate, Number, OnFault, Order as Acquire, Place, Register, Test, ZERO,
};
use crate::thread::{Ending, Fault, UNROLL};
use crate::unsupported::Unsupported;

const RAM: u64 = 0x4000_0000;
/// An entry whose AF is clear is to the MMU as one that is not valid: it is never cached, and faults. It is kept as
/// such, with one of the bits that software may use.
const NO_AF: u64 = 1 << 56;

/// A thread between two instructions.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Thread {
    number: u8,
    pc: u16,
    registers: Registers,
    faults: Vec<Fault>,
    again: bool,
    ending: Ending,
    jumps: Vec<(u16, u8)>,
}

/// All that a state has beside the machine.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Threads {
    threads: Vec<Thread>,
    /// Of each entry, why the last value faulted that did.
    kinds: Vec<FaultKind>,
}

struct Search<'a, 'b> {
    test: &'a Test,
    watched: &'a Watched<'a>,
    left: &'a mut Left<'b>,
    world: World,
    slots: Vec<Slot<Tok>>,
    seen: FxHashSet<(u128, Threads)>,
    found: Found,
    /// Threads have store buffers and load queues: actors after them.
    weak: bool,
}

/// # Errors
/// An access that is none of the core, or is not made in sequentially consistent memory.
pub fn search(
    test: &Test,
    (ets, store_buffer): (Ets, u8),
    watched: &Watched<'_>,
    left: &mut Left<'_>,
) -> Result<Found, Unsupported> {
    let world = machine(test, ets, store_buffer).ok_or_else(|| Unsupported {
        thread: 0,
        at: 0,
        what: "no such machine".to_owned(),
    })?;
    let (world, slots) = world;
    let threads = test.threads.iter().enumerate().map(|(n, thread)| Thread {
        number: n as u8,
        pc: 0,
        registers: Registers::new(&thread.registers),
        faults: Vec::new(),
        again: false,
        ending: Ending::No,
        jumps: Vec::new(),
    });
    let kinds = (0..test.variables.len()).map(|v| kind_of(test.words[usize::from(test.variables.entry_word(v))]));
    let first = Threads { threads: threads.collect(), kinds: kinds.collect() };
    let weak = store_buffer != 0;
    let mut search =
        Search { test, watched, left, world, slots, seen: FxHashSet::default(), found: Found::default(), weak };
    let complete = search.go(first)?;
    let mut found = search.found;
    (found.complete, found.steps) = (complete && !search.world.overflowed(), search.left.steps);
    Ok(found)
}

fn kind_of(word: u64) -> FaultKind {
    if Desc(word).is_valid() { FaultKind::AccessFlag } else { FaultKind::Translation }
}

/// The word as the machine keeps it.
fn kept(word: u64) -> Desc {
    let desc = Desc(word);
    if desc.is_valid() && !desc.has(Attr::AF) { Desc(desc.without(Attr::VALID).0 | NO_AF) } else { desc }
}
/// The word as the test sees it.
fn shown(desc: Desc) -> u64 {
    if desc.0 & NO_AF == 0 { desc.0 } else { Desc(desc.0 & !NO_AF).with(Attr::VALID).0 }
}

/// A machine with the test's pages mapped, and the slots of their entries.
fn machine(test: &Test, ets: Ets, store_buffer: u8) -> Option<(World, Vec<Slot<Tok>>)> {
    let g = geometry();
    let config = MachineConfig {
        geometry: g,
        ram: vec![RamRange { start: Pa(RAM), bytes: 1 << 28, boot: true }],
        cpus: if store_buffer == 0 { 2 } else { 3 } * test.threads.len() as u8,
        vars: 1,
        root: None,
        seed: 0,
    };
    let options = WorldOptions {
        ets,
        ordering: Ordering::Ordered,
        store_buffer,
        permission_faults: true,
        pool_frames: 1,
        ..WorldOptions::default()
    };
    let mut world = World::new(&config, options).ok()?;
    let mut tables = vec![world.root()];
    let mut level = g.top();
    while level < Level::PTE {
        let next = Pa(FIRST_FRAME - g.page_size() * tables.len() as u64);
        let mut words = vec![0; g.entries()];
        words[usize::from(g.index(page(0), level))] = g.descriptor(next, vmemmap_arch::descriptor::prot::TABLE).0;
        if !world.write_table_raw(tables[tables.len() - 1], &words, level) {
            return None;
        }
        tables.push(next);
        level = level.next();
    }
    let n = test.variables.len();
    let mut words = vec![0; g.entries()];
    for v in 0..n {
        if !world.adopt_frame(frame(v), 0, FrameKind::Data, true) {
            return None;
        }
        words[usize::from(g.index(page(v), level))] = kept(test.words[usize::from(n + v)]).0;
    }
    if !world.write_table_raw(tables[tables.len() - 1], &words, level) {
        return None;
    }
    for v in 0..n {
        let value = test.words[usize::from(v)];
        world.execute(0, &Op::StoreFrame { frame: data(v), index: 0, value }, 0);
    }
    world.mark();
    let root = world.execute(0, &Op::Root, 0);
    let mut at = Slot { table: Pa(root.value), index: 0, level: g.top(), tok: root.tok };
    while at.level < Level::PTE {
        at.index = g.index(page(0), at.level);
        let entry = world.execute(0, &Op::Read { at, order: Order::Plain }, 0);
        at = Slot { table: g.output(Desc(entry.value)), index: 0, level: at.level.next(), tok: entry.tok };
    }
    let slots = (0..n).map(|v| Slot { index: g.index(page(v), Level::PTE), ..at }).collect();
    world.reset();
    let tasks = 0..test.threads.len() as u8;
    let mut places: Vec<On> = tasks.clone().map(|cpu| On { cpu, ..On::default() }).collect();
    if store_buffer != 0 {
        for context in [Context::StoreBuffer, Context::LoadQueue] {
            places.extend(tasks.clone().map(|cpu| On { cpu, context, line: None }));
        }
    }
    world.place(&places);
    if store_buffer != 0 {
        world.load_early(&early(test));
    }
    Some((world, slots))
}

/// Words that threads may load early: those whose addresses they begin with. A load whose address depends on another is
/// made in order (`Search::op`).
fn early(test: &Test) -> Vec<EarlyLoad> {
    let mut words = Vec::new();
    for (cpu, thread) in (0..).zip(&test.threads) {
        for word in thread.registers {
            let Some(Target::Page(v)) = test.variables.target(word) else { continue };
            let load = EarlyLoad { cpu, of: Early::Word(page(v)), once: false };
            if !words.contains(&load) {
                words.push(load);
            }
        }
    }
    words
}

const fn data(variable: u16) -> Frame<Tok> {
    Frame { pa: frame(variable), tok: 0 }
}

impl Search<'_, '_> {
    /// `false`: the budget is used up.
    fn go(&mut self, mut state: Threads) -> Result<bool, Unsupported> {
        for thread in &mut state.threads {
            while thread.local(self.test) {}
        }
        if !self.seen.insert((self.world.fingerprint(), state.clone())) {
            return Ok(true);
        }
        if !self.left.step() {
            return Ok(false);
        }
        let mut done = true;
        for at in 0..state.threads.len() {
            let Some(instruction) = state.threads[at].next(self.test) else { continue };
            done = false;
            let op = self.op(&state.threads[at], instruction)?;
            let outcomes = op.as_ref().map_or(1, |op| self.world.outcomes(at as u8, op));
            for outcome in 0..outcomes {
                let mark = self.world.checkpoint();
                let mut next = state.clone();
                let reply = match &op {
                    Some(op) => self.world.execute(at as u8, op, outcome),
                    None => Reply::of(0),
                };
                self.after(&mut next, at, instruction, reply)?;
                let went = self.go(next)?;
                self.world.rollback(&mark);
                if !went {
                    return Ok(false);
                }
            }
        }
        let n = if self.weak { state.threads.len() } else { 0 };
        for at in 0..n {
            for (actor, op) in [(n + at, Op::Commit), (2 * n + at, Op::LoadEarly)] {
                // Nothing is loaded early that nobody loads any more.
                if op == Op::LoadEarly && !state.threads[at].loads_yet(self.test) {
                    continue;
                }
                for outcome in 0..self.world.outcomes(actor as u8, &op) {
                    done &= op == Op::LoadEarly;
                    let mark = self.world.checkpoint();
                    self.world.execute(actor as u8, &op, outcome);
                    let mut next = state.clone();
                    for v in 0..self.test.variables.len() {
                        self.note_kind(&mut next, v);
                    }
                    let went = self.go(next)?;
                    self.world.rollback(&mark);
                    if !went {
                        return Ok(false);
                    }
                }
            }
        }
        if done {
            self.end(&state);
        }
        Ok(true)
    }

    fn unsupported(thread: &Thread, what: &str) -> Unsupported {
        Unsupported { thread: thread.number, at: thread.pc, what: what.to_owned() }
    }

    fn target(&self, thread: &Thread, at: Address) -> Result<Target, Unsupported> {
        let address = thread.registers.address(at).word;
        let what = || format!("an access to `{}`, which is no variable", self.test.variables.text(address));
        self.test.variables.target(address).ok_or_else(|| Self::unsupported(thread, &what()))
    }

    /// What the instruction asks of the machine.
    fn op(&self, thread: &Thread, instruction: Instruction) -> Result<Option<Op>, Unsupported> {
        let get = |r: Register| thread.registers.get(r).word;
        let released = |release, acquire| match (acquire, release) {
            (false, false) => Order::Plain,
            (true, false) => Order::Acquire,
            (false, true) => Order::Release,
            (true, true) => Order::AcqRel,
        };
        Ok(Some(match instruction {
            Instruction::Dmb(Orders::All) => Op::Barrier(Barrier::SmpMb),
            Instruction::Dmb(Orders::Loads) | Instruction::Dsb(Orders::Loads) => Op::Barrier(Barrier::SmpRmb),
            Instruction::Dmb(Orders::Stores) => Op::Barrier(Barrier::SmpWmb),
            Instruction::Dsb(Orders::All) => Op::Barrier(Barrier::DsbIsh),
            Instruction::Dsb(Orders::Stores) => Op::Barrier(Barrier::DsbIshst),
            Instruction::Isb => Op::Barrier(Barrier::Isb),
            Instruction::Tlbi(invalidate) => match self.tlbi(invalidate, get) {
                Some(tlbi) => Op::Tlbi(tlbi),
                None => return Ok(None),
            },
            Instruction::Load { at, order, exclusive: false, .. } => {
                // After what its address comes from, and the machine does not track that.
                let depends = self.weak && thread.registers.address(at).view != 0;
                let order = released(false, depends || order != Acquire::Plain);
                match self.target(thread, at)? {
                    Target::Page(v) => Op::Attempt(Data::Load { va: page(v), order }),
                    Target::Entry(v) => Op::Read { at: self.slots[usize::from(v)], order },
                }
            }
            Instruction::Store { from, at, release } => {
                let order = released(release, false);
                match self.target(thread, at)? {
                    Target::Page(v) => Op::Attempt(Data::Store { va: page(v), value: get(from), order }),
                    Target::Entry(v) => Op::Write { at: self.slots[usize::from(v)], new: kept(get(from)), order },
                }
            }
            Instruction::Atomic { change, with, at, acquire, release, .. } => {
                let (order, with) = (released(release, acquire), get(with));
                match self.target(thread, at)? {
                    Target::Page(v) => Op::Attempt(Data::Rmw { va: page(v), op: rmw(thread, change, with)?, order }),
                    Target::Entry(v) => match change {
                        Change::Swap => Op::Swap { at: self.slots[usize::from(v)], new: kept(with), order },
                        _ => self.changed(v, change, with, order),
                    },
                }
            }
            Instruction::CompareAndSwap { expected, new, at, acquire, release } => {
                let (order, old, new) = (released(release, acquire), get(expected), get(new));
                match self.target(thread, at)? {
                    Target::Page(v) => {
                        Op::Attempt(Data::Rmw { va: page(v), op: Rmw::CompareExchange { old, new }, order })
                    }
                    Target::Entry(v) => {
                        let at = self.slots[usize::from(v)];
                        Op::CompareExchange { at, old: kept(old), new: kept(new), order }
                    }
                }
            }
            Instruction::Load { .. } | Instruction::StoreExclusive { .. } => {
                return Err(Self::unsupported(
                    thread,
                    "an exclusive access is not made in sequentially consistent memory",
                ));
            }
            Instruction::Nop
            | Instruction::Compute { .. }
            | Instruction::Select { .. }
            | Instruction::Branch { .. } => return Ok(None),
        }))
    }

    /// An atomic change of an entry, as a swap with what it makes of the value now.
    fn changed(&self, variable: u16, change: Change, with: u64, order: Order) -> Op {
        let at = self.slots[usize::from(variable)];
        let now = self.world.word(at.table, usize::from(at.index)).unwrap_or_default();
        Op::Swap { at, new: kept(change.apply(shown(now), with)), order }
    }

    fn tlbi(&self, invalidate: Invalidate, get: impl Fn(Register) -> u64) -> Option<Tlbi> {
        let Some(r) = invalidate.page else {
            return Some(if invalidate.broadcast { Tlbi::Vmalle1is } else { Tlbi::Vmalle1 });
        };
        let va: Va = page(self.test.variables.of_page_number(get(r))?);
        // Every CPU runs address space 0.
        Some(match (invalidate.broadcast, invalidate.last_level, invalidate.all_asids) {
            (true, false, true) => Tlbi::Vaae1is(va),
            (true, false, false) => Tlbi::Vae1is(va, 0),
            (true, true, true) => Tlbi::Vaale1is(va),
            (true, true, false) => Tlbi::Vale1is(va, 0),
            (false, false, _) => Tlbi::Vaae1(va),
            (false, true, _) => Tlbi::Vaale1(va),
        })
    }

    /// What the instruction does with the reply.
    fn after(&self, state: &mut Threads, at: usize, instruction: Instruction, reply: Reply) -> Result<(), Unsupported> {
        let (address, to) = match instruction {
            Instruction::Load { at, to, .. } | Instruction::Atomic { at, to, .. } => (at, to),
            Instruction::CompareAndSwap { at, expected, .. } => (at, expected),
            Instruction::Store { at, .. } => (at, Register { number: ZERO, half: false }),
            _ => {
                state.threads[at].pc += 1;
                return Ok(());
            }
        };
        let target = self.target(&state.threads[at], address)?;
        let kind = match target {
            Target::Page(v) if reply == Reply::FAULT => Some((v, state.kinds[usize::from(v)])),
            Target::Page(v) if reply == Reply::PERMISSION_FAULT => Some((v, FaultKind::Permission)),
            _ => None,
        };
        if let Some((variable, kind)) = kind {
            state.threads[at].fault(self.test, variable, kind);
            return Ok(());
        }
        let thread = &mut state.threads[at];
        (thread.again, thread.pc) = (false, thread.pc + 1);
        let word = match target {
            Target::Page(_) => reply.value,
            Target::Entry(v) => {
                self.note_kind(state, v);
                shown(Desc(reply.value))
            }
        };
        // That it comes from a load.
        state.threads[at].registers.set(to, Value::of(word, self.weak.into()));
        Ok(())
    }

    /// Why the entry faults, if it does now.
    fn note_kind(&self, state: &mut Threads, variable: u16) {
        let slot = self.slots[usize::from(variable)];
        let now = shown(self.world.word(slot.table, usize::from(slot.index)).unwrap_or_default());
        if Fields::of(now).is_some_and(|f| !f.valid || !f.af) {
            state.kinds[usize::from(variable)] = kind_of(now);
        }
    }

    fn end(&mut self, state: &Threads) {
        if state.threads.iter().any(|t| t.ending == Ending::Loop) {
            self.found.cut = true;
            return;
        }
        if state.threads.iter().any(|t| t.ending == Ending::Again) {
            return;
        }
        let register = |t: &Thread, number: Number| t.registers.get(Register { number, half: false }).word;
        let parts: Vec<Final> =
            state.threads.iter().map(|t| self.watched.of_thread(t.number, |r| register(t, r), &t.faults)).collect();
        let mark = self.world.checkpoint();
        let (world, slots) = (&mut self.world, &self.slots);
        let words: Vec<u64> = (0..self.test.variables.len())
            .map(|v| world.execute(0, &Op::LoadFrame { frame: data(v), index: 0 }, 0).value)
            .collect();
        world.rollback(&mark);
        let end = self.watched.join(parts.iter(), |place| match place {
            Place::Word(v) => words[usize::from(v)],
            Place::Entry(v) => {
                let slot = slots[usize::from(v)];
                shown(world.word(slot.table, usize::from(slot.index)).unwrap_or_default())
            }
            Place::Register(..) => 0,
        });
        if self.watched.counts(&end) {
            self.found.ends.insert(end);
        }
    }
}

fn rmw(thread: &Thread, change: Change, with: u64) -> Result<Rmw, Unsupported> {
    match change {
        Change::Swap => Ok(Rmw::Swap(with)),
        Change::Add => Ok(Rmw::FetchAdd(with as i64)),
        Change::Clear => Ok(Rmw::FetchAnd(!with)),
        Change::Set => Ok(Rmw::FetchOr(with)),
        Change::Xor => Err(Unsupported {
            thread: thread.number,
            at: thread.pc,
            what: "an exclusive-or is not made in sequentially consistent memory".to_owned(),
        }),
    }
}

impl Thread {
    fn next(&self, test: &Test) -> Option<Instruction> {
        if self.ending != Ending::No {
            return None;
        }
        test.threads[usize::from(self.number)].code.get(usize::from(self.pc)).copied()
    }

    /// Whether there is a load in what is left of its code.
    fn loads_yet(&self, test: &Test) -> bool {
        let code = &test.threads[usize::from(self.number)].code;
        let loads = |i: &Instruction| matches!(i, Instruction::Load { .. });
        self.ending == Ending::No && code[code.len().min(self.pc.into())..].iter().any(loads)
    }

    /// Does the next instruction if it is between registers.
    fn local(&mut self, test: &Test) -> bool {
        let Some(instruction) = self.next(test) else { return false };
        let here = self.pc;
        match instruction {
            Instruction::Nop => {}
            Instruction::Compute { to, op, a, b, flags } => self.registers.compute(to, op, a, b, flags),
            Instruction::Select { to, a, b, otherwise, condition } => {
                self.registers.select(to, a, b, otherwise, condition);
            }
            Instruction::Branch { when, target } => {
                if self.registers.taken(when).0 {
                    self.jump(target as u16);
                    return true;
                }
            }
            _ => return false,
        }
        self.pc = here + 1;
        true
    }

    fn jump(&mut self, target: u16) {
        let from = self.pc;
        self.pc = target;
        if target > from {
            return;
        }
        match self.jumps.iter_mut().find(|(at, _)| *at == from) {
            Some((_, n)) if *n == UNROLL => self.ending = Ending::Loop,
            Some((_, n)) => *n += 1,
            None => self.jumps.push((from, 1)),
        }
    }

    fn fault(&mut self, test: &Test, variable: u16, kind: FaultKind) {
        let fault = Fault { thread: self.number, at: self.pc, variable, kind };
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
            self.faults.sort_unstable();
        }
        match test.on_fault {
            OnFault::Fatal => self.ending = Ending::Fault,
            OnFault::Again if self.again => self.ending = Ending::Again,
            OnFault::Again => self.again = true,
            OnFault::Skip => (self.again, self.pc) = (false, self.pc + 1),
        }
    }
}
