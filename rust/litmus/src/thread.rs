//! A thread of a test under views: what its next instruction may do.

use vmemmap_machine::config::Ets;
use vmemmap_machine::views::{
    Access, Acquire, Barriers, Events, FaultKind, Forward, Kind, NEVER, Orders, Read, Time, Translation, Views, Word,
};

use crate::places::{Fields, Target};
use crate::registers::{Registers, Value};
use crate::test::{Address, Change, Instruction, Invalidate, Number, OnFault, Order, Register, Test, ZERO};
use crate::unsupported::Unsupported;

/// Times that one backward branch is taken, at most.
pub const UNROLL: u8 = 2;

/// A fault that happened: at which instruction, on which page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Fault {
    pub thread: u8,
    pub at: u16,
    pub variable: u16,
    pub kind: FaultKind,
}

/// What LDXR took.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Monitor {
    word: Word,
    read: Time,
    view: Time,
}

/// A plain store that waits in its CPU's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Waiting {
    pub word: Word,
    pub value: u64,
    pub forward: Forward,
    /// The translation that it was made with, if it has one: of which entry, as of when.
    pub translation: Option<(Word, Time)>,
}

/// Whether and how a thread ended before the end of its code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ending {
    No,
    /// A fault that is fatal.
    Fault,
    /// It went round a loop more often than is looked at.
    Loop,
    /// An access that was made again faulted again: looked at no further, as herd does.
    Again,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Thread {
    pub number: u8,
    pub pc: u16,
    pub registers: Registers,
    pub views: Views,
    pub faults: Vec<Fault>,
    pub buffer: Vec<Waiting>,
    monitor: Option<Monitor>,
    /// The access faulted and is made again.
    again: bool,
    pub ending: Ending,
    jumps: Vec<(u16, u8)>,
    /// Entries that an invalidate of all has still to reach.
    pub invalidates: Vec<Word>,
}

/// A store that needs its time.
#[derive(Clone, Debug)]
pub struct Store {
    pub thread: Thread,
    pub word: Word,
    pub value: u64,
    /// It happens later than this,
    pub after: Time,
    /// and before this.
    pub before: Time,
    pub forward: Forward,
    pub release: bool,
    /// Of a read-modify-write: when what it read was stored. No other store to the word comes between.
    pub read: Option<Time>,
    /// The read-modify-write is an acquire as well as a release.
    acquires: bool,
    pub translation: Option<(Word, Time)>,
}

impl Store {
    /// The store happens at that time.
    #[must_use]
    pub fn at(&self, time: Time) -> Thread {
        let mut thread = self.thread.clone();
        thread.views.stored(self.word, time, self.forward, self.release);
        if self.acquires {
            thread.views.acquired(time);
        }
        thread
    }
    /// Whether it may happen at that time.
    #[must_use]
    pub fn fits(&self, events: &Events, time: Time) -> bool {
        self.after < time
            && time < self.before
            && self
                .read
                .is_none_or(|read| read < time && events.stores_after(self.word, read).all(|(other, _)| other >= time))
    }
    /// Waits in the buffer instead.
    #[must_use]
    pub fn buffered(&self) -> Thread {
        let mut thread = self.thread.clone();
        let Self { word, value, forward, translation, .. } = *self;
        thread.buffer.push(Waiting { word, value, forward, translation });
        thread
    }
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.read.is_none() && !self.release
    }
}

/// What the next instruction may do.
#[derive(Debug)]
pub enum Step {
    /// The thread is done.
    End,
    /// It goes on alone: nobody else can tell when.
    Local(Thread),
    /// One of these.
    Ways(Vec<Way>),
    /// Invalidates of these entries, each in its own time, later than `after`.
    Invalidate { thread: Thread, entries: Vec<Word>, broadcast: bool, after: Time },
}

#[derive(Debug)]
pub enum Way {
    /// `drained`: only once no own store waits.
    Go {
        thread: Thread,
        drained: bool,
    },
    Store(Store),
}

/// The test, as threads see it.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    pub test: &'a Test,
    pub ets: Ets,
    /// Entries that somebody stores to; invalidates of others do nothing.
    pub changing: &'a [bool],
}

impl Setting<'_> {
    #[must_use]
    pub fn threads(&self) -> Vec<Thread> {
        let words = self.test.variables.words();
        let make = |(n, thread): (usize, &crate::test::Thread)| Thread {
            number: n as u8,
            pc: 0,
            registers: Registers::new(&thread.registers),
            views: Views::new(n as u8, self.ets, words),
            faults: Vec::new(),
            buffer: Vec::new(),
            monitor: None,
            again: false,
            ending: Ending::No,
            jumps: Vec::new(),
            invalidates: Vec::new(),
        };
        self.test.threads.iter().enumerate().map(make).collect()
    }
}

/// How a translated access goes on.
enum Reached {
    Access(Thread, Access, Option<(Word, Time)>),
    Fault(Way),
}

impl Thread {
    /// # Errors
    /// The access is none of the core.
    pub fn step(&self, setting: &Setting<'_>, events: &Events) -> Result<Step, Unsupported> {
        let code = &setting.test.threads[usize::from(self.number)].code;
        if self.ending != Ending::No {
            return Ok(Step::End);
        }
        let Some(instruction) = code.get(usize::from(self.pc)) else { return Ok(Step::End) };
        let mut next = self.clone();
        next.pc += 1;
        match *instruction {
            Instruction::Nop => {}
            Instruction::Compute { to, op, a, b, flags } => next.registers.compute(to, op, a, b, flags),
            Instruction::Select { to, a, b, otherwise, condition } => {
                next.registers.select(to, a, b, otherwise, condition);
            }
            Instruction::Branch { when, target } => {
                let (taken, view) = self.registers.taken(when);
                next.views.branch(view);
                if taken {
                    next.jump(self.pc, target as u16);
                }
            }
            Instruction::Dmb(orders) => {
                next.views.barrier(Barriers::Memory(orders));
                return Ok(next.barrier(orders));
            }
            Instruction::Dsb(orders) => {
                next.views.barrier(Barriers::Synchronization(orders));
                return Ok(next.barrier(orders));
            }
            Instruction::Isb => next.views.synchronize_context(),
            Instruction::Tlbi(invalidate) => return Ok(next.tlbi(setting, invalidate)),
            Instruction::Load { to, at, order, exclusive } => {
                return self.load(setting, events, to, at, order, exclusive).map(Step::Ways);
            }
            Instruction::Store { from, at, release } => {
                return self.store(setting, events, from, at, release).map(Step::Ways);
            }
            Instruction::StoreExclusive { status, from, at, release } => {
                return self.store_exclusive(setting, events, (status, from), at, release).map(Step::Ways);
            }
            Instruction::Atomic { .. } | Instruction::CompareAndSwap { .. } => {
                return self.atomic(setting, events, *instruction).map(Step::Ways);
            }
        }
        Ok(Step::Local(next))
    }

    /// After a barrier, which own earlier stores come before unless it is one for loads.
    fn barrier(self, orders: Orders) -> Step {
        match orders {
            Orders::Loads => Step::Local(self),
            _ => Step::Ways(vec![Way::Go { thread: self, drained: true }]),
        }
    }

    fn jump(&mut self, from: u16, target: u16) {
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

    fn tlbi(mut self, setting: &Setting<'_>, invalidate: Invalidate) -> Step {
        let variables = &setting.test.variables;
        let mut after = self.views.invalidate_bound(0);
        let mut entries: Vec<Word> = match invalidate.page {
            Some(r) => {
                let operand = self.registers.get(r);
                after = after.max(operand.all());
                variables.of_page_number(operand.word).map(|v| variables.entry_word(v)).into_iter().collect()
            }
            None => (0..variables.len()).map(|v| variables.entry_word(v)).collect(),
        };
        if !self.invalidates.is_empty() {
            entries = std::mem::take(&mut self.invalidates);
        }
        entries.retain(|entry| setting.changing[usize::from(*entry)]);
        Step::Invalidate { thread: self, entries, broadcast: invalidate.broadcast, after }
    }

    fn unsupported(&self, what: String) -> Unsupported {
        Unsupported { thread: self.number, at: self.pc, what }
    }

    /// All ways in which the access may translate, or fault.
    fn reach(
        &self,
        setting: &Setting<'_>,
        events: &Events,
        at: Address,
        kind: Kind,
    ) -> Result<Vec<Reached>, Unsupported> {
        let variables = &setting.test.variables;
        let address = self.registers.address(at);
        let target = variables.target(address.word).ok_or_else(|| {
            let what = variables.text(address.word);
            self.unsupported(format!("an access to `{what}`, which is no variable and no descriptor"))
        })?;
        let made = |word, since, before| Access { word, address: address.view, pick: address.pick, since, before };
        let v = match target {
            Target::Entry(v) => {
                let access = made(variables.entry_word(v), 0, NEVER);
                return Ok(vec![Reached::Access(self.clone(), access, None)]);
            }
            Target::Page(v) => v,
        };
        let entry = variables.entry_word(v);
        let mut translations = Vec::new();
        self.views.translations(events, entry, address.view, &mut translations);
        let mut found = Vec::new();
        for by in &translations {
            let mut thread = self.clone();
            if let Some(kind) = by.fault(kind) {
                found.extend(thread.fault(setting, by, v, address, kind).map(Reached::Fault));
            } else if thread.views.translate(by) {
                let output = Fields::of(by.entry.0).and_then(|f| variables.of_frame(f.frame));
                let word = output.ok_or_else(|| {
                    let what = by.entry.0;
                    self.unsupported(format!("a translation through {what:#x}, whose output is no variable's frame"))
                })?;
                thread.again = false;
                found.push(Reached::Access(thread, made(word, by.since, by.before), Some((entry, by.since))));
            }
        }
        Ok(found)
    }

    fn fault(
        mut self,
        setting: &Setting<'_>,
        by: &Translation,
        variable: u16,
        address: Value,
        kind: FaultKind,
    ) -> Option<Way> {
        let again = std::mem::take(&mut self.again);
        let drained = self.views.fault_waits_for_stores(by);
        if !self.views.fault(by, address.view) {
            return None;
        }
        let fault = Fault { thread: self.number, at: self.pc, variable, kind };
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
            self.faults.sort_unstable();
        }
        match setting.test.on_fault {
            OnFault::Fatal => self.ending = Ending::Fault,
            OnFault::Again if again => self.ending = Ending::Again,
            OnFault::Again => self.again = true,
            OnFault::Skip => self.pc += 1,
        }
        Some(Way::Go { thread: self, drained })
    }

    /// An own store to the word that waits in the buffer, the last.
    fn waiting(&self, word: Word) -> Option<(u64, Forward)> {
        self.buffer.iter().rev().find(|w| w.word == word).map(|w| (w.value, w.forward))
    }

    /// Every way in which it may be read: the thread after it, how, what.
    fn reads(
        &self,
        setting: &Setting<'_>,
        events: &Events,
        at: Address,
        kind: Kind,
        acquire: Acquire,
        each: &mut impl FnMut(Thread, Access, Read, Option<(Word, Time)>) -> Way,
    ) -> Result<Vec<Way>, Unsupported> {
        let mut ways = Vec::new();
        for reached in self.reach(setting, events, at, kind)? {
            match reached {
                Reached::Fault(way) => ways.push(way),
                Reached::Access(thread, access, translation) => {
                    for read in thread.views.reads(events, &access, acquire, thread.waiting(access.word)) {
                        let mut thread = thread.clone();
                        thread.pc += 1;
                        thread.views.loaded(&access, &read, acquire);
                        ways.push(each(thread, access, read, translation));
                    }
                }
            }
        }
        Ok(ways)
    }

    fn load(
        &self,
        setting: &Setting<'_>,
        events: &Events,
        to: Register,
        at: Address,
        order: Order,
        exclusive: bool,
    ) -> Result<Vec<Way>, Unsupported> {
        let acquire = match order {
            Order::Plain => Acquire::No,
            Order::AcquirePc => Acquire::Pc,
            Order::Acquire => Acquire::Sc,
        };
        self.reads(setting, events, at, Kind::Load, acquire, &mut |mut thread, access, read, _| {
            thread.registers.set(to, Value::of(read.value, read.view));
            if exclusive {
                thread.monitor = Some(Monitor { word: access.word, read: read.from, view: read.view });
            }
            Way::Go { thread, drained: false }
        })
    }

    fn store(
        &self,
        setting: &Setting<'_>,
        events: &Events,
        from: Register,
        at: Address,
        release: bool,
    ) -> Result<Vec<Way>, Unsupported> {
        let data = self.registers.get(from);
        let way = |reached| match reached {
            Reached::Fault(way) => way,
            Reached::Access(thread, access, translation) => {
                Way::Store(thread.storing(&access, data, release, translation))
            }
        };
        Ok(self.reach(setting, events, at, Kind::Store)?.into_iter().map(way).collect())
    }

    fn storing(mut self, access: &Access, data: Value, release: bool, translation: Option<(Word, Time)>) -> Store {
        let after = self.views.store_bound(access, data.all(), release);
        let view = data.all().max(access.address).max(access.pick);
        self.views.addressed(access);
        self.pc += 1;
        Store {
            thread: self,
            word: access.word,
            value: data.word,
            after,
            before: access.before,
            forward: Forward { time: 0, view, exclusive: false },
            release,
            read: None,
            acquires: false,
            translation,
        }
    }

    fn store_exclusive(
        &self,
        setting: &Setting<'_>,
        events: &Events,
        (status, from): (Register, Register),
        at: Address,
        release: bool,
    ) -> Result<Vec<Way>, Unsupported> {
        let data = self.registers.get(from);
        let mut ways = Vec::new();
        for reached in self.reach(setting, events, at, Kind::Store)? {
            match reached {
                Reached::Fault(way) => ways.push(way),
                Reached::Access(mut thread, access, translation) => {
                    let monitor = thread.monitor.take();
                    let mut failed = thread.clone();
                    failed.pc += 1;
                    failed.views.addressed(&access);
                    failed.registers.set(status, Value::of(1, 0));
                    ways.push(Way::Go { thread: failed, drained: false });
                    if let Some(monitor) = monitor.filter(|m| m.word == access.word) {
                        let mut store = thread.storing(&access, data, release, translation);
                        store.thread.registers.set(status, Value::of(0, 0));
                        store.after = store.after.max(monitor.view);
                        store.forward.exclusive = true;
                        store.read = Some(monitor.read);
                        ways.push(Way::Store(store));
                    }
                }
            }
        }
        Ok(ways)
    }

    fn atomic(
        &self,
        setting: &Setting<'_>,
        events: &Events,
        instruction: Instruction,
    ) -> Result<Vec<Way>, Unsupported> {
        let (to, at, acquire, release) = match instruction {
            Instruction::Atomic { to, at, acquire, release, .. } => (to, at, acquire, release),
            Instruction::CompareAndSwap { expected, at, acquire, release, .. } => (expected, at, acquire, release),
            _ => return Ok(Vec::new()),
        };
        let order = if acquire { Acquire::Sc } else { Acquire::No };
        self.reads(setting, events, at, Kind::Store, order, &mut |mut thread, access, read, translation| {
            let new = match instruction {
                Instruction::Atomic { change, with, .. } => {
                    let with = self.registers.get(with);
                    // What SWP stores does not depend on what it reads.
                    let view = if change == Change::Swap { with.view } else { with.view.max(read.view) };
                    Some(Value { word: change.apply(read.value, with.word), view, ..with })
                }
                Instruction::CompareAndSwap { expected, new, .. } => {
                    (read.value == self.registers.get(expected).word).then(|| self.registers.get(new))
                }
                _ => None,
            };
            thread.registers.set(to, Value::of(read.value, read.view));
            let Some(new) = new else { return Way::Go { thread, drained: false } };
            // The load moved on already.
            thread.pc -= 1;
            let mut store = thread.storing(&access, new, release, translation);
            store.after = store.after.max(read.view);
            store.forward.exclusive = true;
            store.read = Some(read.from);
            store.acquires = acquire && release;
            Way::Store(store)
        })
    }

    #[must_use]
    pub fn register(&self, number: Number) -> u64 {
        if number == ZERO { 0 } else { self.registers.get(Register { number, half: false }).word }
    }
}
