//! The machine of the handmade programs for our own search: two tables, two locks, and no more than that.

use vmemmap_arch::Invariant;

use super::{Lock, Memory, Mode, NONE, OWN, Row, Table, Word};
use crate::BenchError;
use vmemmap_explore::check::options::Options;
use vmemmap_explore::check::outcome::Outcome;
use vmemmap_explore::check::subject::Subject;
use vmemmap_explore::check::verdict::ask;
use vmemmap_explore::model::{AccessSet, Described, Held, InvariantSet, Model, Violation};
use vmemmap_explore::runtime::execution::{ActorPort, Actors, Shared};
use vmemmap_explore::runtime::runner::Runner;
use vmemmap_explore::search::report::Progress;

/// Most entries of a table.
const MOST: usize = 8;
const WORDS: usize = 2 * (MOST + 1);

impl Word {
    const fn index(self) -> usize {
        match self {
            Word::Pmd(t) => t as usize * (MOST + 1),
            Word::Pte(t, i) => t as usize * (MOST + 1) + 1 + i as usize,
        }
    }
}

/// One step of a handmade program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Read(Word),
    Write(Word, u8),
    Free(Table, u8),
    Alloc(Table),
    Lock(Lock, Mode),
    Unlock(Lock, Mode),
}

/// Words, lives, locks, and their hash.
#[derive(Clone, Copy)]
pub struct State {
    words: [u8; WORDS],
    freed: [bool; 2],
    readers: [u16; 2],
    writer: [u16; 2],
    hash: u64,
    violated: InvariantSet,
}

impl State {
    /// Everything is there, every entry maps its own frame.
    const fn new() -> Self {
        Self {
            words: [OWN; WORDS],
            freed: [false; 2],
            readers: [0; 2],
            writer: [0; 2],
            hash: 0,
            violated: InvariantSet::NONE,
        }
    }

    fn note(&mut self, cell: usize, old: u64, new: u64) {
        self.hash ^= mix(cell as u64, old) ^ mix(cell as u64, new);
    }

    fn set(&mut self, at: Word, value: u8) {
        let index = at.index();
        let old = std::mem::replace(&mut self.words[index], value);
        self.note(index, u64::from(old), u64::from(value));
    }

    fn violate(&mut self, invariant: Invariant) {
        let now = self.violated.or(InvariantSet::only(invariant));
        self.note(WORDS, self.violated.bits(), now.bits());
        self.violated = now;
    }

    fn touched(&mut self, at: Word) {
        if let Word::Pte(table, _) = at
            && self.freed[table as usize]
        {
            self.violate(Invariant::NoWalkOfFreedTable);
        }
    }

    fn set_freed(&mut self, table: Table, freed: bool) {
        let old = std::mem::replace(&mut self.freed[table as usize], freed);
        self.note(WORDS + 1 + table as usize, u64::from(old), u64::from(freed));
    }

    fn hold(&mut self, lock: Lock, mode: Mode, me: u16, held: bool) {
        let l = lock as usize;
        let before = u64::from(self.readers[l]) << 16 | u64::from(self.writer[l]);
        let holders = if mode == Mode::Read { &mut self.readers[l] } else { &mut self.writer[l] };
        *holders = if held { *holders | me } else { *holders & !me };
        let after = u64::from(self.readers[l]) << 16 | u64::from(self.writer[l]);
        self.note(WORDS + 3 + l, before, after);
    }
}

/// 64 bits of a cell's value (splitmix64).
const fn mix(cell: u64, value: u64) -> u64 {
    let mut z = (cell << 32 | value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The machine of the handmade programs: two tables and two locks.
#[derive(Clone)]
pub struct Handmade(State);

impl Default for Handmade {
    fn default() -> Self {
        Self(State::new())
    }
}

impl Model for Handmade {
    type Op = Op;
    type Reply = u64;
    type Mark = State;
    fn reset(&mut self) {
        self.0 = State::new();
    }
    fn checkpoint(&mut self) -> State {
        self.0
    }
    fn rollback(&mut self, mark: &State) {
        self.0 = *mark;
    }
    fn is_local(_: &Op) -> bool {
        false
    }
    fn outcomes(&mut self, _: u8, op: &Op) -> u16 {
        let s = &self.0;
        match *op {
            Op::Lock(l, Mode::Read) => u16::from(s.writer[l as usize] == 0),
            Op::Lock(l, Mode::Write) => u16::from(s.writer[l as usize] == 0 && s.readers[l as usize] == 0),
            _ => 1,
        }
    }
    fn access_set(&mut self, _: u8, op: &Op, out: &mut AccessSet) {
        let life = |t: Table| (WORDS + t as usize) as u32;
        let lock = |l: Lock| (WORDS + 2 + l as usize) as u32;
        match *op {
            Op::Read(at) => out.read(at.index() as u32),
            Op::Write(at, _) => out.write(at.index() as u32),
            Op::Free(t, entries) => {
                out.write(life(t));
                for i in 0..entries {
                    out.read(Word::Pte(t, i).index() as u32);
                }
            }
            Op::Alloc(t) => out.write(life(t)),
            Op::Lock(l, Mode::Read) | Op::Unlock(l, Mode::Read) => out.read(lock(l)),
            Op::Lock(l, Mode::Write) | Op::Unlock(l, Mode::Write) => out.write(lock(l)),
        }
        if let Op::Read(Word::Pte(t, _)) | Op::Write(Word::Pte(t, _), _) = *op {
            out.read(life(t));
        }
    }
    fn observed(reply: u64) -> u64 {
        reply
    }
    fn execute(&mut self, actor: u8, op: &Op, _: u16) -> u64 {
        let s = &mut self.0;
        let mut value = 0;
        match *op {
            Op::Read(at) => {
                s.touched(at);
                value = s.words[at.index()];
            }
            Op::Write(at, new) => {
                s.touched(at);
                s.set(at, new);
            }
            Op::Free(table, entries) => {
                if (0..entries).any(|i| s.words[Word::Pte(table, i).index()] != NONE) {
                    s.violate(Invariant::FreedTableIsEmpty);
                }
                s.set_freed(table, true);
            }
            Op::Alloc(table) => s.set_freed(table, false),
            Op::Lock(l, mode) => s.hold(l, mode, 1 << actor, true),
            Op::Unlock(l, mode) => s.hold(l, mode, 1 << actor, false),
        }
        u64::from(value)
    }
    fn fingerprint(&self) -> u128 {
        // 64 bits are plenty for the few states of this model.
        let h = self.0.hash;
        u128::from(h) << 64 | u128::from(h.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ h >> 29)
    }
    fn violated(&self) -> InvariantSet {
        self.0.violated
    }
    fn waits_for(&self, _: u8, op: &Op) -> u16 {
        match *op {
            Op::Lock(l, Mode::Read) => self.0.writer[l as usize],
            Op::Lock(l, Mode::Write) => self.0.writer[l as usize] | self.0.readers[l as usize],
            _ => 0,
        }
    }
    fn locks(&self, actor: u8) -> Held {
        let me = 1 << actor;
        let mut held = Held::default();
        for (l, (writer, readers)) in self.0.writer.iter().zip(&self.0.readers).enumerate() {
            held.alone |= u64::from(writer & me != 0) << l;
            held.any |= u64::from((writer | readers) & me != 0) << l;
        }
        held
    }
    fn locks_at(&self, actor: u8, op: &Op) -> Held {
        let held = self.locks(actor);
        match *op {
            Op::Lock(l, mode) => {
                let bit = 1 << l as usize;
                Held { any: held.any | bit, alone: held.alone | if mode == Mode::Write { bit } else { 0 } }
            }
            _ => held,
        }
    }
    fn violations(&self) -> Vec<Violation> {
        let all = self.0.violated.iter();
        let message = || String::from("the handmade model");
        all.map(|invariant| Violation { invariant, address: 0, actor: 0, step: 0, message: message(), evidence: () })
            .collect()
    }
    fn describe(&self, _: u8, op: &Op) -> Described {
        Described { op: format!("{op:?}"), ..Described::default() }
    }
    fn describe_after(&self, _: u8, _: &Op, reply: u64, text: &mut Described) {
        text.new = Some(reply);
    }
}

impl Memory for ActorPort<'_, Handmade> {
    fn read(&self, at: Word) -> u8 {
        self.call(Op::Read(at)) as u8
    }
    fn write(&self, at: Word, value: u8) {
        self.call(Op::Write(at, value));
    }
    fn free(&self, table: Table, entries: u8) {
        self.call(Op::Free(table, entries));
    }
    fn alloc(&self, table: Table, _: u8) {
        self.call(Op::Alloc(table));
    }
    fn under(&self, lock: Lock, mode: Mode, body: impl FnOnce()) {
        self.call(Op::Lock(lock, mode));
        body();
        self.call(Op::Unlock(lock, mode));
    }
    fn boundary(&self, position: u32) {
        ActorPort::boundary(self, position);
    }
}

impl Actors<Handmade> for Row {
    fn count(&self) -> usize {
        Row::actors(self)
    }
    fn name(&self, actor: usize) -> &str {
        match actor.cmp(&usize::from(self.hvo_actors)) {
            std::cmp::Ordering::Less if actor == 0 => "HVO",
            std::cmp::Ordering::Less => "HVO 2",
            std::cmp::Ordering::Equal => "hot remove",
            std::cmp::Ordering::Greater => "ptdump",
        }
    }
    fn run(&self, actor: usize, port: &ActorPort<'_, Handmade>) {
        Row::run(self, actor, port);
    }
}

/// Put a row to this project's own search.
///
/// # Errors
/// No memory for the actors' stacks.
pub fn explore(
    row: &Row,
    options: &Options,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome, BenchError> {
    let shared = Shared::new(Handmade::default());
    let mut runner = Runner::new(&shared, row)?;
    let subject = Subject {
        name: String::from("handmade"),
        variant: row.name.to_owned(),
        digest: String::new(),
        actors: (0..row.actors()).map(|n| (Actors::name(row, n).to_owned(), row.rounds)).collect(),
        judged: vec![Invariant::NoWalkOfFreedTable, Invariant::FreedTableIsEmpty],
    };
    Ok(ask(&mut runner, &subject, options, stop, progress))
}

#[cfg(test)]
mod tests {
    use super::super::ROWS;
    use super::*;
    use vmemmap_explore::check::outcome::Verdict;
    use vmemmap_explore::reduction::options::Reduction;

    fn options(reduction: Reduction) -> Options {
        Options { reduction, shorten_seconds: 0.0, settle_seconds: 0.0, ..Options::default() }
    }

    /// Derived by hand: an exchange never leaves the table empty and the locks keep ptdump out; without its
    /// `mem_hotplug_lock` it walks Y while Y goes; entry by entry, R35.
    #[test]
    fn every_row_has_the_verdict_that_was_derived_and_reductions_agree() {
        for row in ROWS.iter().filter(|r| r.rounds < 3 && r.hvo_actors == 1 || r.actors() == 2 || r.violated) {
            for reduction in [Reduction::CACHE_SLEEP, Reduction::MERGED] {
                let outcome = explore(row, &options(reduction), &|| false, &mut |_| {}).expect("stacks");
                let expected = if row.violated { Verdict::Violated } else { Verdict::Safe };
                assert_eq!(outcome.verdict, expected, "{} under {reduction:?}", row.name);
            }
        }
    }

    #[test]
    fn sleep_sets_remove_no_state_of_the_handmade_model() {
        for row in ROWS.iter().filter(|r| !r.violated && (r.rounds == 1 || r.actors() == 2)) {
            let states = |r| explore(row, &options(r), &|| false, &mut |_| {}).expect("stacks").states;
            assert_eq!(states(Reduction::CACHE), states(Reduction::CACHE_SLEEP), "{}", row.name);
        }
    }
}
