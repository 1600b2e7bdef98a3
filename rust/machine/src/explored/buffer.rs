//! Store buffers: the weak memory of an explored machine (docs/memory-model.md, "Weak memory in `explore`").
//!
//! A plain store may wait in its CPU's buffer. Then it becomes visible, *commits*, as a step of its own: of an actor
//! that stands for the buffer (`Context::StoreBuffer`), at any time, after later stores to other words too. Those to
//! one word commit in order. Barriers and releases wait until the buffer is empty, and so does an access that would
//! fault. What a CPU does to a word of its own that waits, but for a load, waits too.

use vmemmap_arch::{Desc, Invariant, Level, Order};

use super::cells::Cell;
use super::memory::{FrameId, SlotId};
use super::place::MAX_ACTORS;
use super::waiting::{STORE_BUFFER, Store, Target, Waiting};
use super::world::World;
use crate::op::{Op, Reply};

impl World {
    /// Whether stores of the actor's CPU may wait: somebody stands for its buffer.
    #[inline]
    pub const fn buffers(&self, actor: u8) -> bool {
        self.buffered >> self.cpu_of(actor) & 1 != 0
    }

    /// First cell of the buffer, and its location. The oldest store comes first.
    #[inline]
    pub(super) fn buffer_cell(&self, cpu: u8) -> Cell {
        self.fixed.buffers + Cell::from(cpu) * Cell::from(STORE_BUFFER)
    }
    pub(super) fn waiting_in(&self, cpu: u8) -> impl DoubleEndedIterator<Item = &Waiting> {
        let first = self.buffer_cell(cpu);
        (0..Cell::from(STORE_BUFFER))
            .map(move |n| self.memory.cells.get(first + n))
            .filter_map(|word| self.stores.all.get((word as usize).checked_sub(1)?))
    }
    #[inline]
    pub(super) fn buffer_is_empty(&self, cpu: u8) -> bool {
        self.memory.cells.get(self.buffer_cell(cpu)) == 0
    }
    /// Whether no store waits anywhere.
    #[must_use]
    pub fn buffers_are_empty(&self) -> bool {
        self.buffered == 0 || (0..MAX_ACTORS).all(|cpu| self.buffer_is_empty(cpu))
    }
    /// The buffer of the actor's CPU has nothing to commit.
    #[must_use]
    pub fn has_drained(&self, actor: u8) -> bool {
        self.buffer_is_empty(self.cpu_of(actor))
    }
    pub(super) fn entry_waits(&self, cpu: u8, slot: SlotId) -> bool {
        self.waiting_in(cpu).any(|w| w.store.entry(slot).is_some())
    }
    pub(super) fn waits_in(&self, cpu: u8, target: Target) -> bool {
        self.waiting_in(cpu).any(|w| w.store.target() == target)
    }
    /// The own last store to the word, if it waits.
    pub(super) fn forwarded_entry(&self, actor: u8, slot: SlotId) -> Option<Desc> {
        if !self.buffers(actor) {
            return None;
        }
        self.waiting_in(self.cpu_of(actor)).rev().find_map(|w| w.store.entry(slot))
    }
    pub(super) fn forwarded_var(&self, actor: u8, cell: Cell) -> Option<u64> {
        if !self.buffers(actor) {
            return None;
        }
        self.waiting_in(self.cpu_of(actor)).rev().find_map(|w| match w.store {
            Store::Var { cell: at, value } if at == cell => Some(value),
            _ => None,
        })
    }

    // ---- making a store that waits ----
    /// Whether the store may wait, if it does not make something reachable that has late stores.
    fn is_plain(&self, op: &Op) -> bool {
        match *op {
            Op::Write { at, order: Order::Plain, .. } => {
                self.table_of(at).is_ok_and(|slot| self.reach(slot.table).is_some())
            }
            Op::VarStore { order: Order::Plain, .. } => true,
            _ => false,
        }
    }
    fn has_room(&self, actor: u8) -> bool {
        let room = Cell::from(self.options.store_buffer.clamp(1, STORE_BUFFER));
        self.memory.cells.get(self.buffer_cell(self.cpu_of(actor)) + room - 1) == 0
    }
    /// Outcomes of the operation beyond those that it has in sequentially consistent memory.
    pub(super) fn waiting_outcomes(&self, actor: u8, op: &Op) -> u16 {
        if !self.buffers(actor) || !self.has_room(actor) {
            return 0;
        }
        match self.late_for(actor, op).len() {
            0 => self.is_plain(op).into(),
            n => n as u16,
        }
    }

    /// A store that happens now or waits, which nobody can tell who does not conflict with it.
    pub fn waits_or_not(&mut self, actor: u8, op: &Op) -> bool {
        self.buffers(actor)
            && self.is_plain(op)
            && self.late_for(actor, op).is_empty()
            && !self.is_blocked(actor, op)
            && !self.waits_for_stores(actor, op)
    }

    /// The store waits.
    fn keep(&mut self, actor: u8, store: Store) {
        let number = self.stores.number(Waiting { actor, store });
        let first = self.buffer_cell(self.cpu_of(actor));
        let free = (first..first + Cell::from(STORE_BUFFER)).find(|cell| self.memory.cells.get(*cell) == 0);
        if let Some(cell) = free {
            self.memory.cells.set(cell, u64::from(number) + 1);
        }
    }

    /// The operation takes that one of `waiting_outcomes`. `None`: it happens, as ever, what was late having been put
    /// back.
    pub(super) fn wait(&mut self, actor: u8, op: &Op, outcome: u16) -> Option<Reply> {
        if let Some(target) = self.late_for(actor, op).get(usize::from(outcome)).copied() {
            let after = match target {
                Target::Frame(frame) => {
                    let (template, words) = self.memory.contents(frame);
                    Store::Contents { frame, template, words }
                }
                Target::Table(table) => self.late_entries(self.cpu_of(actor), table)?,
                Target::Entry(_) | Target::Var(_) => return None,
            };
            // All that was stored there since the barrier.
            let late: Vec<u32> = self.late_of(self.cpu_of(actor)).rev().collect();
            for number in late {
                let before = self.stores.late[number as usize].clone();
                if before.target() == target {
                    self.perform_store(actor, before);
                }
            }
            self.keep(actor, after);
            return None;
        }
        match *op {
            Op::Write { at, new, .. } => {
                if let Some(slot) = self.slot_or_violation(actor, at) {
                    self.keep(actor, Store::Entry { slot, level: at.level, new });
                }
            }
            Op::VarStore { var, value, .. } => {
                let cell = self.var_cell(var);
                self.keep(actor, Store::Var { cell, value });
            }
            _ => {}
        }
        Some(Reply::of(0))
    }

    // ---- committing ----
    /// Places in the buffer of the stores that may commit: the first to each word.
    pub(super) fn committable(&self, cpu: u8) -> impl Iterator<Item = (usize, &Waiting)> {
        self.waiting_in(cpu)
            .enumerate()
            .filter(move |(n, w)| self.waiting_in(cpu).take(*n).all(|older| older.store.target() != w.store.target()))
    }
    pub(super) fn commit_outcomes(&self, actor: u8) -> u16 {
        self.committable(self.cpu_of(actor)).count() as u16
    }
    /// One of the stores that may commit does. The reply has its number, for `committed`.
    pub(super) fn commit(&mut self, actor: u8, outcome: u16) -> Reply {
        let cpu = self.cpu_of(actor);
        let Some((place, waiting)) = self.committable(cpu).nth(outcome.into()) else { return Reply::of(0) };
        let Waiting { actor, store } = waiting.clone();
        let first = self.buffer_cell(cpu) + place as Cell;
        let number = self.memory.cells.get(first);
        let last = self.buffer_cell(cpu) + Cell::from(STORE_BUFFER) - 1;
        for cell in first..last {
            self.memory.cells.set(cell, self.memory.cells.get(cell + 1));
        }
        self.memory.cells.set(last, 0);
        self.perform_store(actor, store);
        Reply::of(number)
    }
    fn perform_store(&mut self, actor: u8, store: Store) {
        match store {
            Store::Entry { slot, level, new } => self.commit_entry(actor, slot, level, new),
            Store::Entries { table, level, words } => {
                for (index, new) in words {
                    self.commit_entry(actor, SlotId { table, index }, level, new);
                }
            }
            Store::Word { frame, index, value } => {
                self.memory.set_word(frame, index, value);
                self.judge_stored(actor, frame);
            }
            Store::Contents { frame, template, words } => {
                self.memory.fill(frame, template);
                for (index, value) in words {
                    self.memory.set_word(frame, index, value);
                }
                self.judge_stored(actor, frame);
            }
            Store::Var { cell, value } => self.memory.cells.set(cell, value),
        }
    }
    /// Contents that an exchange relied on may differ now.
    fn judge_stored(&mut self, actor: u8, frame: FrameId) {
        if !self.stale.is_empty() {
            self.judge_contents(actor, frame);
        }
    }

    /// What the commit that replied `number` was: address, and the word stored.
    #[must_use]
    pub fn committed(&self, number: u64) -> Option<(Option<u64>, u64)> {
        let waiting = self.stores.all.get((number as usize).checked_sub(1)?)?;
        Some(match waiting.store {
            Store::Entries { table, .. } => (Some(self.memory.pa(table).0), 0),
            Store::Entry { slot, level, new } => {
                let va = self
                    .reach(slot.table)
                    .map(|p| p.va.plus(u64::from(slot.index) << self.geometry.level_shift(level)).0);
                (va.or(Some(self.memory.pa(slot.table).0)), new.0)
            }
            Store::Word { frame, value, .. } => (Some(self.memory.pa(frame).0), value),
            Store::Contents { frame, .. } => (Some(self.memory.pa(frame).0), 0),
            Store::Var { value, .. } => (None, value),
        })
    }
    fn commit_entry(&mut self, actor: u8, slot: SlotId, level: Level, new: Desc) {
        let old = self.memory.desc(slot);
        // Whoever freed the table meanwhile was told by the search that the store was on its way: a violation.
        if self.memory.life(slot.table).is_freed() {
            let pa = self.memory.pa(slot.table).0;
            self.violate(Invariant::NoWalkOfFreedTable, actor, pa, "a store reaches a freed table page");
            return;
        }
        if old != new {
            self.store_entry(actor, slot, level, old, new);
        }
        if new.is_valid() {
            self.note_written(actor, slot);
        }
    }
}
