//! A machine small enough for the naive search: words, a choice, mutexes, read-write semaphores whose writers queue,
//! interrupts of actor 0's CPU, masks, a pause of everybody.
#![allow(dead_code, reason = "each test file uses a part of it")]

use rand::Rng;
use vmemmap_explore::model::{Access, AccessSet, Described, Held, InvariantSet, Model, Violation};
use vmemmap_explore::runtime::execution::{ActorPort, Actors};

pub const WORDS: usize = 3;
pub const LOCKS: usize = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Read(u8),
    Write(u8, u64),
    Swap(u8, u64),
    Cas(u8, u64, u64),
    /// Breaks invariant I1, I2 or I3 (by word) if the word is odd.
    Expect(u8),
    Choose(u16),
    Lock(u8),
    Unlock(u8),
    Queue(u8),
    WriteLock(u8),
    WriteUnlock(u8),
    ReadLock(u8),
    ReadUnlock(u8),
    /// First operation of an interrupt on the CPU of actor 0, unless it masks interrupts. May never come.
    Enter,
    Exit,
    Mask,
    Unmask,
    /// Nobody else runs until `Resume`; waits for a CPU that masks interrupts, and for an interrupt.
    Pause,
    Resume,
    Local,
}

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct State {
    words: [u64; WORDS],
    owner: [u16; LOCKS],
    queued: [u16; LOCKS],
    writer: [u16; LOCKS],
    readers: [u16; LOCKS],
    violated: u32,
    /// The interrupt that runs, as a bit.
    interrupt: u16,
    masked: u16,
    paused_by: u16,
}

/// An access set rule left out, to see the tests fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Flaw {
    #[default]
    None,
    WriteTouchesNothing,
    ReadTouchesNothing,
    QueueTouchesNothing,
    ExpectTouchesNothing,
    /// Operations do not say that they need their CPU.
    NoControl,
    /// Whoever gives a lock back only asks whether it may run.
    UnlockReadsNoControl,
    /// Masking is invisible: no interrupt reads it.
    EnterReadsNoMask,
}

#[derive(Clone, Default)]
pub struct Toy {
    pub state: State,
    pub flaw: Flaw,
}

/// Locations behind those of words and locks.
const PAUSE: u32 = (WORDS + 2 * LOCKS) as u32;
const CPU: u32 = PAUSE + 1;
const MASK: u32 = PAUSE + 2;
const QUEUES: u32 = PAUSE + 3;

impl Toy {
    /// Who keeps the actor from running at all.
    fn barred(&self, actor: u8, op: &Op) -> u16 {
        let s = &self.state;
        let me = 1u16 << actor;
        let paused = s.paused_by & !me;
        match *op {
            Op::Local => 0,
            Op::Enter => paused | s.interrupt | s.masked & 1,
            Op::Pause => paused | s.interrupt & !me | s.masked & !me,
            _ if actor == 0 => paused | s.interrupt,
            _ => paused,
        }
    }
}

impl Model for Toy {
    type Op = Op;
    type Reply = u64;
    type Mark = State;
    fn reset(&mut self) {
        self.state = State::default();
    }
    fn checkpoint(&mut self) -> State {
        self.state.clone()
    }
    fn rollback(&mut self, mark: &State) {
        self.state.clone_from(mark);
    }
    fn is_local(op: &Op) -> bool {
        matches!(op, Op::Local)
    }
    fn outcomes(&mut self, actor: u8, op: &Op) -> u16 {
        if self.barred(actor, op) != 0 {
            return 0;
        }
        let s = &self.state;
        let others = !(1u16 << actor);
        match *op {
            Op::Choose(n) => n,
            Op::Lock(l) => u16::from(s.owner[l as usize] == 0),
            Op::WriteLock(l) => u16::from(s.writer[l as usize] == 0 && s.readers[l as usize] == 0),
            Op::ReadLock(l) => u16::from(s.writer[l as usize] == 0 && s.queued[l as usize] & others == 0),
            _ => 1,
        }
    }
    fn may_never_come(&self, _actor: u8, op: &Op) -> bool {
        *op == Op::Enter
    }
    fn access_set(&mut self, actor: u8, op: &Op, out: &mut AccessSet) {
        if *op == Op::Local {
            return;
        }
        if self.flaw != Flaw::NoControl {
            // Whoever gives a lock back decides whether others go.
            let unlocks = matches!(op, Op::Unlock(_) | Op::WriteUnlock(_) | Op::ReadUnlock(_));
            let decides = unlocks && self.flaw != Flaw::UnlockReadsNoControl;
            let access = if decides { Access::Read } else { Access::EnablednessRead };
            out.touch(PAUSE, access);
            if actor == 0 {
                out.touch(CPU, access);
            }
        }
        let lock = |l: u8| WORDS as u32 + u32::from(l);
        let sem = |l: u8| (WORDS + LOCKS) as u32 + u32::from(l);
        let queue = |l: u8| QUEUES + u32::from(l);
        match (*op, self.flaw) {
            (Op::Write(..), Flaw::WriteTouchesNothing)
            | (Op::Read(_), Flaw::ReadTouchesNothing)
            | (Op::Queue(_), Flaw::QueueTouchesNothing)
            | (Op::Expect(_), Flaw::ExpectTouchesNothing)
            | (Op::Choose(_) | Op::Local, _) => {}
            (Op::Enter, flaw) => {
                out.write(CPU);
                if flaw != Flaw::EnterReadsNoMask {
                    out.touch(MASK, Access::EnablednessRead);
                }
            }
            (Op::Exit, _) => out.write(CPU),
            (Op::Mask | Op::Unmask, _) => out.write(MASK),
            (Op::Pause | Op::Resume, _) => {
                out.write(PAUSE);
                out.touch(MASK, Access::EnablednessRead);
                out.touch(CPU, Access::EnablednessRead);
            }
            (Op::Read(w) | Op::Expect(w), _) => out.read(u32::from(w)),
            (Op::Write(w, _) | Op::Swap(w, _) | Op::Cas(w, ..), _) => out.write(u32::from(w)),
            (Op::Lock(l) | Op::Unlock(l), _) => out.write(lock(l)),
            (Op::Queue(l), _) => out.touch(queue(l), Access::CommutingUpdate),
            (Op::WriteLock(l), _) => {
                out.write(sem(l));
                out.touch(queue(l), Access::CommutingUpdate);
            }
            (Op::WriteUnlock(l), _) => out.write(sem(l)),
            (Op::ReadLock(l), _) => {
                out.read(sem(l));
                out.read(queue(l));
            }
            (Op::ReadUnlock(l), _) => out.read(sem(l)),
        }
    }
    fn observed(reply: u64) -> u64 {
        reply
    }
    fn execute(&mut self, actor: u8, op: &Op, outcome: u16) -> u64 {
        let me = 1u16 << actor;
        let s = &mut self.state;
        let mut value = 0;
        match *op {
            Op::Read(w) => value = s.words[w as usize],
            Op::Write(w, v) => s.words[w as usize] = v,
            Op::Swap(w, v) => value = std::mem::replace(&mut s.words[w as usize], v),
            Op::Cas(w, old, new) => {
                value = s.words[w as usize];
                if value == old {
                    s.words[w as usize] = new;
                }
            }
            Op::Expect(w) => {
                if s.words[w as usize] & 1 != 0 {
                    s.violated |= 1 << w;
                }
            }
            Op::Choose(_) => value = u64::from(outcome),
            Op::Lock(l) => s.owner[l as usize] = me,
            // Of a lock that somebody else holds, where the locking was skipped: nothing.
            Op::Unlock(l) => s.owner[l as usize] &= !me,
            Op::Queue(l) => s.queued[l as usize] |= me,
            Op::WriteLock(l) => {
                s.queued[l as usize] &= !me;
                s.writer[l as usize] = me;
            }
            Op::WriteUnlock(l) => s.writer[l as usize] &= !me,
            Op::ReadLock(l) => s.readers[l as usize] |= me,
            Op::ReadUnlock(l) => s.readers[l as usize] &= !me,
            Op::Enter => s.interrupt = me,
            Op::Exit => s.interrupt = 0,
            Op::Mask => s.masked |= me,
            Op::Unmask => s.masked &= !me,
            Op::Pause => s.paused_by = me,
            Op::Resume => s.paused_by = 0,
            Op::Local => {}
        }
        value
    }
    fn fingerprint(&self) -> u128 {
        let s = &self.state;
        let mut bytes = Vec::new();
        for w in s.words {
            bytes.extend(w.to_le_bytes());
        }
        for w in s.owner.iter().chain(&s.queued).chain(&s.writer).chain(&s.readers) {
            bytes.extend(w.to_le_bytes());
        }
        bytes.extend(s.violated.to_le_bytes());
        for w in [s.interrupt, s.masked, s.paused_by] {
            bytes.extend(w.to_le_bytes());
        }
        xxhash_rust::xxh3::xxh3_128(&bytes)
    }
    fn violated(&self) -> InvariantSet {
        InvariantSet::from_bits(u64::from(self.state.violated))
    }
    fn waits_for(&self, actor: u8, op: &Op) -> u16 {
        let s = &self.state;
        let others = !(1u16 << actor);
        let own = match *op {
            Op::Lock(l) => s.owner[l as usize],
            Op::WriteLock(l) => s.writer[l as usize] | s.readers[l as usize],
            Op::ReadLock(l) => s.writer[l as usize] | s.queued[l as usize] & others,
            _ => 0,
        };
        own | self.barred(actor, op)
    }
    fn locks(&self, actor: u8) -> Held {
        let s = &self.state;
        let me = 1u16 << actor;
        let mut held = Held::default();
        for l in 0..LOCKS {
            let (mutex, sem) = (1 << l, 1 << (LOCKS + l));
            for (bit, any, alone) in [(mutex, s.owner[l], s.owner[l]), (sem, s.writer[l] | s.readers[l], s.writer[l])] {
                held.any |= if any & me != 0 { bit } else { 0 };
                held.alone |= if alone & me != 0 { bit } else { 0 };
            }
        }
        held
    }
    fn locks_at(&self, actor: u8, op: &Op) -> Held {
        let held = self.locks(actor);
        match *op {
            Op::Lock(l) => Held { any: held.any | 1 << l, alone: held.alone | 1 << l },
            Op::WriteLock(l) => {
                let bit = 1 << (LOCKS + l as usize);
                Held { any: held.any | bit, alone: held.alone | bit }
            }
            Op::ReadLock(l) => Held { any: held.any | 1 << (LOCKS + l as usize), ..held },
            _ => held,
        }
    }
    fn violations(&self) -> Vec<Violation> {
        self.violated()
            .iter()
            .map(|invariant| {
                let message = String::from("odd");
                Violation { invariant, address: 0, actor: 0, step: 0, message, evidence: () }
            })
            .collect()
    }
    fn describe(&self, _actor: u8, op: &Op) -> Described {
        Described { op: format!("{op:?}"), ..Described::default() }
    }
    fn describe_after(&self, _actor: u8, _op: &Op, reply: u64, text: &mut Described) {
        text.new = Some(reply);
    }
}

/// One line of a toy program: an operation, or one that depends on what was read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Line {
    Do(Op),
    /// Store what was observed last, plus one.
    WriteNext(u8),
    /// Observe whether the sum of two words is odd, and nothing else of them.
    Parity(u8, u8),
    /// Leave out the next line if what was observed last is odd.
    SkipIfOdd,
}

#[derive(Clone, Debug, Default)]
pub struct Programs(pub Vec<Vec<Line>>);

impl Actors<Toy> for Programs {
    fn count(&self) -> usize {
        self.0.len()
    }
    fn name(&self, actor: usize) -> &str {
        ["a", "b", "c", "d"][actor]
    }
    fn run(&self, actor: usize, port: &ActorPort<'_, Toy>) {
        let mut seen = 0;
        let mut skip = false;
        for (nth, line) in (0..).zip(&self.0[actor]) {
            port.reaches(nth);
            if std::mem::take(&mut skip) {
                continue;
            }
            match *line {
                Line::Do(op) => seen = port.call(op),
                Line::WriteNext(w) => {
                    port.call(Op::Write(w, seen + 1));
                }
                Line::Parity(a, b) => {
                    let since = port.observed();
                    seen = (port.call(Op::Read(a)) ^ port.call(Op::Read(b))) & 1;
                    port.abstract_observations(since, seen);
                }
                Line::SkipIfOdd => skip = seen & 1 != 0,
            }
        }
    }
}

/// Locks are properly paired, but in any order, so that AB-BA happens; `locks` is the chance in percent of a section.
pub fn random_programs(rng: &mut impl Rng, locks: u32) -> Programs {
    let actors = rng.random_range(2..=3usize);
    let longest = if actors == 2 { 5 } else { 3 };
    let mut programs = Vec::new();
    for _ in 0..actors {
        let mut lines = Vec::new();
        let length = rng.random_range(2..=longest);
        while lines.len() < length {
            if rng.random_range(0..100) < locks {
                section(rng, &mut lines, longest);
            } else {
                lines.push(plain(rng));
            }
        }
        programs.push(lines);
    }
    Programs(programs)
}

/// The same, and actors that interrupt the first one; masks and pauses are paired. `locks` as above.
pub fn random_interrupts(rng: &mut impl Rng, locks: u32) -> Programs {
    let mut programs = random_programs(rng, locks).0;
    programs.truncate(2);
    for (i, lines) in programs.iter_mut().enumerate() {
        lines.truncate(4);
        // Cutting leaves locks held at the end: deadlocks, which the reductions have to agree on as well.
        let (open, close) =
            if i == 0 && rng.random_range(0..3) != 0 { (Op::Mask, Op::Unmask) } else { (Op::Pause, Op::Resume) };
        if rng.random_range(0..2) == 0 {
            let from = rng.random_range(0..=lines.len());
            let to = rng.random_range(from..=lines.len());
            lines.insert(to, Line::Do(close));
            lines.insert(from, Line::Do(open));
        }
    }
    let handlers = if programs.len() == 1 { 2 } else { 1 };
    for _ in 0..handlers {
        let mut lines = vec![Line::Do(Op::Enter)];
        if rng.random_range(0..100) < locks {
            section(rng, &mut lines, 4);
        } else {
            lines.push(plain(rng));
        }
        // A skipped line may not be the exit.
        lines.retain(|line| *line != Line::SkipIfOdd);
        lines.push(Line::Do(Op::Exit));
        programs.push(lines);
    }
    // A line left out may not be one that opens or closes.
    for lines in &mut programs {
        for i in 1..lines.len() {
            if lines[i - 1] == Line::SkipIfOdd
                && matches!(lines[i], Line::Do(Op::Mask | Op::Unmask | Op::Pause | Op::Resume))
            {
                lines[i - 1] = Line::Do(Op::Local);
            }
        }
    }
    Programs(programs)
}

fn plain(rng: &mut impl Rng) -> Line {
    let w = rng.random_range(0..WORDS as u8);
    match rng.random_range(0..15) {
        0..3 => Line::Do(Op::Read(w)),
        3..5 => Line::Do(Op::Write(w, rng.random_range(0..3))),
        5 => Line::Do(Op::Swap(w, rng.random_range(0..3))),
        6 => Line::Do(Op::Cas(w, rng.random_range(0..2), rng.random_range(1..4))),
        7..9 => Line::WriteNext(w),
        9 => Line::SkipIfOdd,
        10..12 => Line::Do(Op::Expect(w)),
        12 => Line::Do(Op::Choose(2)),
        13 => Line::Parity(w, rng.random_range(0..WORDS as u8)),
        _ => Line::Do(Op::Local),
    }
}

fn section(rng: &mut impl Rng, lines: &mut Vec<Line>, longest: usize) {
    let l = rng.random_range(0..LOCKS as u8);
    let inside = |rng: &mut _, lines: &mut Vec<Line>| {
        if lines.len() < longest {
            lines.push(plain(rng));
        }
    };
    match rng.random_range(0..4) {
        0 => {
            lines.push(Line::Do(Op::Lock(l)));
            inside(rng, lines);
            lines.push(Line::Do(Op::Unlock(l)));
        }
        1 => {
            let other = 1 - l;
            lines.extend([Op::Lock(l), Op::Lock(other)].map(Line::Do));
            lines.extend([Op::Unlock(other), Op::Unlock(l)].map(Line::Do));
        }
        2 => {
            lines.extend([Op::Queue(l), Op::WriteLock(l)].map(Line::Do));
            inside(rng, lines);
            lines.push(Line::Do(Op::WriteUnlock(l)));
        }
        _ => {
            lines.push(Line::Do(Op::ReadLock(l)));
            inside(rng, lines);
            lines.push(Line::Do(Op::ReadUnlock(l)));
        }
    }
}
