//! The model that a person writes by hand for a model checker, as a program over [`Memory`]: what the explorer costs on it,
//! apart from the MMU and the real tables, and what loom and shuttle need on the very same steps (`benches/peers`, where
//! the Promela text beside it follows this module step by step).
//!
//! PTE table X has `entries` words: HVO's actors own the first, a hugepage's `own` each, the block that is hot-removed the
//! others. If ptdump is there, that block also fills a second table Y, which nobody else uses, so that something is freed.
//! Neither frames nor TLBs are modelled. Each step names the kernel function that it stands for (6.1; kernel-semantics
//! §4.4, §H4 to §H7, §8.1). Asserted: nobody touches a freed table (I1); a table is freed only when it is empty (I6).
//!
//! The two locks are plain read-write locks: no writer shuts out readers while it waits. What the kernel's do besides (R8)
//! is not asked here, and the peers' own locks differ in it.

use vmemmap_arch::Invariant;

use super::BenchError;
use crate::execution::{ActorPort, Actors, Runner, Shared};
use crate::model::{Breach, Described, Footprint, Invariants, Model, Reply};
use crate::scenario::{Actor, Scenario};
use crate::search::Progress;
use crate::verdict::{Options, Outcome, ask};

/// A PTE table: X is shared, Y belongs to the removed block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    X,
    Y,
}

/// A descriptor: an entry of a table, or the PMD entry that points to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    Pmd(Table),
    Pte(Table, u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lock {
    /// `mmap_lock` of `init_mm`.
    Mmap,
    /// `mem_hotplug_lock`.
    Hotplug,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Read,
    Write,
}

/// `pmd_none`, `pte_none`.
pub const NONE: u8 = 0;
/// A PMD entry that points to its table; a PTE that maps its own frame read-write.
pub const OWN: u8 = 1;
/// A PTE that maps the shared frame read-only.
pub const SHARED: u8 = 2;

/// What the programs run on.
pub trait Memory {
    /// `READ_ONCE`.
    fn read(&self, at: Word) -> u8;
    /// `set_pte`, `pte_clear`, `pmd_clear`, `pmd_populate_kernel`.
    fn write(&self, at: Word, value: u8);
    /// `free_hotplug_pgtable_page`; the table must be empty.
    fn free(&self, table: Table, entries: u8);
    /// `vmemmap_alloc_block_zero` of a table.
    fn alloc(&self, table: Table, entries: u8);
    fn under(&self, lock: Lock, mode: Mode, body: impl FnOnce());
    /// The actor's past no longer matters.
    fn boundary(&self, _position: u32) {}
}

/// How HVO changes a live PTE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Update {
    /// One store, as the kernel does it.
    Exchange,
    /// Entry by entry, none in between (the seeded fault; R35).
    ClearThenSet,
}

/// One row of the comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    pub name: &'static str,
    pub what: &'static str,
    pub entries: u8,
    pub hvo_actors: u8,
    /// Entries of X that each HVO actor has.
    pub own: u8,
    /// Entries of Y; 0 = there is none, and no ptdump.
    pub alone: u8,
    /// Whether ptdump takes `get_online_mems`, as the kernel does.
    pub hotplug_lock: bool,
    pub rounds: u32,
    pub update: Update,
    pub violated: bool,
}

const BASE: Row = Row {
    name: "exchange-3",
    what: "HVO by exchange beside hot remove of the neighbour, 3 rounds",
    entries: 4,
    hvo_actors: 1,
    own: 2,
    alone: 0,
    hotplug_lock: true,
    rounds: 3,
    update: Update::Exchange,
    violated: false,
};

/// The rows of the comparison, then the seeded fault of the first.
pub const ROWS: [Row; 6] = [
    BASE,
    Row { name: "locks-1", what: "HVO, hot remove and ptdump with the kernel's locks, 1 round", alone: 2, rounds: 1, ..BASE },
    Row { name: "locks-3", what: "the same, 3 rounds", alone: 2, ..BASE },
    Row {
        name: "unlocked-3",
        what: "the same without ptdump's mem_hotplug_lock, 3 rounds",
        alone: 2,
        hotplug_lock: false,
        violated: true,
        ..BASE
    },
    Row {
        name: "two-hvo-2",
        what: "two HVO actors, hot remove and ptdump, N = 8, 2 rounds",
        entries: 8,
        hvo_actors: 2,
        alone: 2,
        rounds: 2,
        ..BASE
    },
    Row {
        name: "clear-then-set-3",
        what: "seeded fault: HVO clears an entry and then sets it, beside hot remove, 3 rounds",
        update: Update::ClearThenSet,
        violated: true,
        ..BASE
    },
];

impl Row {
    /// # Errors
    /// There is no row of that name.
    pub fn named(name: &str) -> Result<Row, BenchError> {
        ROWS.into_iter().find(|r| r.name == name).ok_or_else(|| BenchError::UnknownRow(name.to_owned()))
    }

    /// Actors of the row: HVO's, then hot remove, then ptdump.
    #[must_use]
    pub const fn actors(&self) -> usize {
        self.hvo_actors as usize + 1 + (self.alone != 0) as usize
    }

    const fn removed(&self) -> std::ops::Range<u8> {
        self.hvo_actors * self.own..self.entries
    }

    /// What actor number `actor` does.
    pub fn run(&self, actor: usize, m: &impl Memory) {
        if actor < usize::from(self.hvo_actors) {
            self.hvo(actor as u8, m);
        } else if actor == usize::from(self.hvo_actors) {
            self.hot_remove(m);
        } else {
            self.ptdump(m);
        }
    }

    /// A hugepage allocated and freed again, each round.
    fn hvo(&self, actor: u8, m: &impl Memory) {
        for round in 0..self.rounds {
            // vmemmap_remap_free
            m.boundary(2 * round);
            self.vmemmap_remap_range(actor, m, SHARED);
            // vmemmap_remap_alloc
            m.boundary(2 * round + 1);
            self.vmemmap_remap_range(actor, m, OWN);
        }
        m.boundary(2 * self.rounds);
    }

    fn vmemmap_remap_range(&self, actor: u8, m: &impl Memory, to: u8) {
        // mmap_read_lock(&init_mm)
        m.under(Lock::Mmap, Mode::Read, || {
            // vmemmap_pmd_range
            m.read(Word::Pmd(Table::X));
            // vmemmap_remap_pte, vmemmap_restore_pte
            for i in actor * self.own..(actor + 1) * self.own {
                let pte = Word::Pte(Table::X, i);
                m.read(pte);
                if self.update == Update::ClearThenSet {
                    m.write(pte, NONE);
                }
                m.write(pte, to);
            }
        });
    }

    /// The block removed and added again, each round.
    fn hot_remove(&self, m: &impl Memory) {
        for round in 0..self.rounds {
            // try_remove_memory: mem_hotplug_begin
            m.boundary(2 * round);
            m.under(Lock::Hotplug, Mode::Write, || {
                vmemmap_free(m, Table::X, self.removed(), self.entries);
                if self.alone != 0 {
                    vmemmap_free(m, Table::Y, 0..self.alone, self.alone);
                }
            });
            // add_memory_resource: mem_hotplug_begin
            m.boundary(2 * round + 1);
            m.under(Lock::Hotplug, Mode::Write, || {
                vmemmap_populate(m, Table::X, self.removed(), self.entries);
                if self.alone != 0 {
                    vmemmap_populate(m, Table::Y, 0..self.alone, self.alone);
                }
            });
        }
        m.boundary(2 * self.rounds);
    }

    /// A dump of both tables, each round.
    fn ptdump(&self, m: &impl Memory) {
        for round in 0..self.rounds {
            // ptdump_walk_pgd
            m.boundary(round);
            if self.hotplug_lock {
                // get_online_mems
                m.under(Lock::Hotplug, Mode::Read, || self.ptdump_walk_pgd(m));
            } else {
                self.ptdump_walk_pgd(m);
            }
        }
        m.boundary(self.rounds);
    }

    fn ptdump_walk_pgd(&self, m: &impl Memory) {
        // mmap_write_lock(&init_mm)
        m.under(Lock::Mmap, Mode::Write, || {
            for (table, entries) in [(Table::X, self.entries), (Table::Y, self.alone)] {
                // walk_pmd_range
                if m.read(Word::Pmd(table)) != NONE {
                    // walk_pte_range, ptdump_pte_entry
                    for i in 0..entries {
                        m.read(Word::Pte(table, i));
                    }
                }
            }
        });
    }
}

fn vmemmap_free(m: &impl Memory, table: Table, range: std::ops::Range<u8>, entries: u8) {
    // unmap_hotplug_pmd_range, unmap_hotplug_pte_range
    m.read(Word::Pmd(table));
    for i in range.clone() {
        if m.read(Word::Pte(table, i)) != NONE {
            m.write(Word::Pte(table, i), NONE);
        }
    }
    // free_empty_pmd_table, free_empty_pte_table: READ_ONCE of the PMD entry, the PTEs of the range (a warning), the scan
    m.read(Word::Pmd(table));
    for i in range {
        m.read(Word::Pte(table, i));
    }
    for i in 0..entries {
        if m.read(Word::Pte(table, i)) != NONE {
            return;
        }
    }
    // pmd_clear
    m.write(Word::Pmd(table), NONE);
    // __flush_tlb_kernel_pgtable, free_hotplug_pgtable_page
    m.free(table, entries);
}

fn vmemmap_populate(m: &impl Memory, table: Table, range: std::ops::Range<u8>, entries: u8) {
    // vmemmap_pmd_populate
    if m.read(Word::Pmd(table)) == NONE {
        m.alloc(table, entries);
        m.write(Word::Pmd(table), OWN);
    }
    // vmemmap_pte_populate: the entry is tested, then set
    for i in range {
        if m.read(Word::Pte(table, i)) == NONE {
            m.write(Word::Pte(table, i), OWN);
        }
    }
}

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

#[derive(Clone, Copy)]
struct State {
    words: [u8; WORDS],
    freed: [bool; 2],
    readers: [u16; 2],
    writer: [u16; 2],
    hash: u64,
    violated: Invariants,
}

impl State {
    /// Everything is there, every entry maps its own frame.
    const fn new() -> Self {
        Self { words: [OWN; WORDS], freed: [false; 2], readers: [0; 2], writer: [0; 2], hash: 0, violated: Invariants::NONE }
    }

    fn note(&mut self, cell: usize, old: u64, new: u64) {
        self.hash ^= mix(cell as u64, old) ^ mix(cell as u64, new);
    }

    fn set(&mut self, at: Word, value: u8) {
        let index = at.index();
        let old = std::mem::replace(&mut self.words[index], value);
        self.note(index, u64::from(old), u64::from(value));
    }

    fn breach(&mut self, invariant: Invariant) {
        let now = self.violated.or(Invariants::only(invariant));
        self.note(WORDS, u64::from(self.violated.0), u64::from(now.0));
        self.violated = now;
    }

    fn touched(&mut self, at: Word) {
        if let Word::Pte(table, _) = at
            && self.freed[table as usize]
        {
            self.breach(Invariant::NoWalkOfFreedTable);
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
pub struct Handmade(State);

impl Default for Handmade {
    fn default() -> Self {
        Self(State::new())
    }
}

impl Model for Handmade {
    type Op = Op;
    fn reset(&mut self) {
        self.0 = State::new();
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
    fn footprint(&mut self, _: u8, op: &Op, out: &mut Footprint) {
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
    fn execute(&mut self, actor: u8, op: &Op, _: u16) -> Reply {
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
                    s.breach(Invariant::FreedTableIsEmpty);
                }
                s.set_freed(table, true);
            }
            Op::Alloc(table) => s.set_freed(table, false),
            Op::Lock(l, mode) => s.hold(l, mode, 1 << actor, true),
            Op::Unlock(l, mode) => s.hold(l, mode, 1 << actor, false),
        }
        Reply::of(u64::from(value))
    }
    fn fingerprint(&self) -> u128 {
        // 64 bits are plenty for the few states of this model.
        let h = self.0.hash;
        u128::from(h) << 64 | u128::from(h.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ h >> 29)
    }
    fn violated(&self) -> Invariants {
        self.0.violated
    }
    fn waits_for(&self, _: u8, op: &Op) -> u16 {
        match *op {
            Op::Lock(l, Mode::Read) => self.0.writer[l as usize],
            Op::Lock(l, Mode::Write) => self.0.writer[l as usize] | self.0.readers[l as usize],
            _ => 0,
        }
    }
    fn breaches(&self) -> Vec<Breach> {
        let all = self.0.violated.iter();
        all.map(|invariant| Breach { invariant, actor: 0, address: None, message: String::from("the handmade model") }).collect()
    }
    fn describe(&self, _: u8, op: &Op) -> Described {
        Described { op: format!("{op:?}"), ..Described::default() }
    }
    fn describe_after(&self, _: u8, _: &Op, reply: Reply, text: &mut Described) {
        text.new = Some(reply.value);
    }
}

impl Memory for ActorPort<'_, Handmade> {
    fn read(&self, at: Word) -> u8 {
        self.call(Op::Read(at)).value as u8
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
pub fn explore(row: &Row, options: &Options, stop: &dyn Fn() -> bool, progress: &mut dyn FnMut(Progress)) -> Result<Outcome, BenchError> {
    let shared = Shared::new(Handmade::default());
    let mut runner = Runner::new(&shared, row)?;
    let actor = |n: usize| Actor { name: Actors::name(row, n).to_owned(), cpu: n as u8, rounds: row.rounds, program: Vec::new() };
    let scenario = Scenario {
        name: String::from("handmade"),
        variant: row.name.to_owned(),
        digest: String::new(),
        actors: (0..row.actors()).map(actor).collect(),
        judged: vec![Invariant::NoWalkOfFreedTable, Invariant::FreedTableIsEmpty],
    };
    Ok(ask(&mut runner, &scenario, options, stop, progress))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Reduction;
    use crate::verdict::Verdict;

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
