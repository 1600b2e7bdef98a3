//! Late stores: to what nobody could reach when they were made (docs/memory-model.md, "Weak memory in `explore`").
//!
//! Stores to a table that is linked nowhere, or to a frame that is mapped nowhere, happen at once, and are remembered
//! until a barrier. The store that makes it reachable then has a choice: those to one such table or frame may be
//! *late*, that is, wait in the buffer still. Nobody could tell before.

use vmemmap_arch::{Invariant, Kind, Order};

use super::cells::Cell;
use super::memory::{FrameId, SlotId};
use super::place::MAX_ACTORS;
use super::stale::Record;
use super::waiting::{Store, Target};
use super::world::World;
use crate::op::Op;

/// Most stores of a CPU since its last barrier that are remembered because one may be late: the entries of a table, and
/// more.
const LATE: Cell = 8192 + 64;

impl World {
    /// Cells for them, where CPUs have buffers at all.
    pub(super) fn reserve_late(&mut self) {
        if self.buffered != 0 && self.late == 0 {
            self.late = self.memory.cells.reserve(usize::from(MAX_ACTORS) * LATE as usize);
        }
    }
    pub(super) fn is_late(&self, location: Cell) -> bool {
        self.late != 0 && (self.late..self.late + Cell::from(MAX_ACTORS) * LATE).contains(&location)
    }
    pub(super) fn late_cell(&self, cpu: u8) -> Cell {
        self.late + Cell::from(cpu) * LATE
    }
    /// The first cell counts them.
    pub(super) fn late_of(&self, cpu: u8) -> impl DoubleEndedIterator<Item = u32> {
        let first = self.late_cell(cpu);
        let n = self.memory.cells.get(first) as Cell;
        (first + 1..first + 1 + n).map(|cell| self.memory.cells.get(cell) as u32)
    }
    /// Remembers what the store, which is about to happen, changes. Whether somebody can reach a frame is asked when
    /// it is about to be exposed: others may change that.
    pub(super) fn remember(&mut self, actor: u8, after: Store) {
        if !self.buffers(actor) {
            return;
        }
        let before = match after {
            Store::Entry { slot, level, .. } => {
                if self.reach(slot.table).is_some() {
                    return;
                }
                Store::Entries { table: slot.table, level, words: vec![(slot.index, self.memory.desc(slot))] }
            }
            Store::Word { frame, index, .. } => Store::Word { frame, index, value: self.memory.word(frame, index) },
            Store::Contents { frame, .. } => {
                let (template, words) = self.memory.contents(frame);
                Store::Contents { frame, template, words }
            }
            Store::Entries { .. } | Store::Var { .. } => return,
        };
        let first = self.late_cell(self.cpu_of(actor));
        let n = self.memory.cells.get(first) as Cell;
        if n + 1 >= LATE {
            self.overflow = true;
            return;
        }
        let number = self.stores.number_late(before);
        self.memory.cells.set(first + 1 + n, number.into());
        self.memory.cells.set(first, u64::from(n) + 1);
    }
    /// What the entries of a table hold that may be late.
    pub(super) fn late_entries(&self, cpu: u8, table: FrameId) -> Option<Store> {
        let (mut at, mut words) = (None, Vec::new());
        for number in self.late_of(cpu) {
            if let Store::Entries { table: t, level, words: w } = &self.stores.late[number as usize]
                && *t == table
            {
                at = Some(*level);
                words.extend(w.iter().map(|(index, _)| *index));
            }
        }
        words.sort_unstable();
        words.dedup();
        let now = |index| (index, self.memory.desc(SlotId { table, index }));
        Some(Store::Entries { table, level: at?, words: words.into_iter().map(now).collect() })
    }
    /// What the operation makes reachable now is late no more, or waits.
    pub(super) fn expose_late(&mut self, actor: u8, op: &Op) {
        let exposed = self.late_for(actor, op);
        if exposed.is_empty() {
            return;
        }
        let cpu = self.cpu_of(actor);
        let stays = |number: &u32| !exposed.contains(&self.stores.late[*number as usize].target());
        let kept: Vec<u32> = self.late_of(cpu).filter(stays).collect();
        self.forget_late(actor);
        let first = self.late_cell(cpu);
        for (cell, number) in (first + 1..).zip(&kept) {
            self.memory.cells.set(cell, u64::from(*number));
        }
        self.memory.cells.set(first, kept.len() as u64);
    }
    /// Whether some translation, live or stale, leads to the frame.
    fn is_exposed(&self, frame: FrameId) -> bool {
        let (g, pa) = (self.geometry, self.memory.pa(frame));
        let stale = |r: &Record| pa.since(g.output(r.value)) < g.entry_span(r.level);
        self.is_mapped(frame) || self.stale.valid().any(stale) || self.is_in_mapped_block(frame)
    }
    /// All stores so far are ordered before those to come.
    pub(super) fn forget_late(&mut self, actor: u8) {
        let first = self.late_cell(self.cpu_of(actor));
        for cell in first..=first + self.memory.cells.get(first) as Cell {
            self.memory.cells.set(cell, 0);
        }
    }
    /// Where late stores are that the operation makes reachable.
    pub(super) fn late_for(&self, actor: u8, op: &Op) -> Vec<Target> {
        let (at, new) = match *op {
            Op::Write { at, new, order: Order::Plain }
            | Op::Swap { at, new, order: Order::Plain | Order::Relaxed | Order::Acquire }
            | Op::CompareExchange { at, new, order: Order::Plain | Order::Relaxed | Order::Acquire, .. } => (at, new),
            _ => return Vec::new(),
        };
        let cpu = self.cpu_of(actor);
        if self.memory.cells.get(self.late_cell(cpu)) == 0 || !new.is_valid() {
            return Vec::new();
        }
        let g = self.geometry;
        let Some(slot) = self.table_of(at).ok().filter(|slot| self.reach(slot.table).is_some()) else {
            return Vec::new();
        };
        if self.memory.desc(slot) == new {
            return Vec::new();
        }
        let exposed = self.memory.find(g.output(new));
        let is_table = matches!(g.kind(new, at.level), Kind::Table(_));
        let below = |table: FrameId| {
            let mut id = Some(table);
            while let Some(at) = id {
                if is_table && Some(at) == exposed {
                    return true;
                }
                id = self.memory.parent(at).map(|slot| slot.table);
            }
            false
        };
        let named = |frame: FrameId| {
            let names = |s: &SlotId| g.output(self.memory.desc(*s)) == self.memory.pa(frame) && below(s.table);
            self.memory.named(frame).iter().any(names)
        };
        let mut found: Vec<Target> = Vec::new();
        for number in self.late_of(cpu) {
            let target = self.stores.late[number as usize].target();
            let reached = match target {
                Target::Table(table) => below(table),
                Target::Frame(frame) => {
                    ((!is_table && Some(frame) == exposed) || named(frame)) && !self.is_exposed(frame)
                }
                Target::Entry(_) | Target::Var(_) => false,
            };
            if reached && !found.contains(&target) {
                found.push(target);
            }
        }
        found
    }

    /// Names of what `late_for` finds.
    pub(super) fn late_names(&self, actor: u8, op: &Op) -> Vec<String> {
        let name = |target: &Target| match *target {
            Target::Table(frame) | Target::Frame(frame) => self.frame_name(self.memory.pa(frame)),
            Target::Entry(_) | Target::Var(_) => String::new(),
        };
        self.late_for(actor, op).iter().map(name).collect()
    }

    // ---- what others see too early ----
    /// Somebody looks at an entry before what was stored there while nobody could reach its table. Now somebody does.
    pub(super) fn judge_initialised(&mut self, actor: u8, slot: SlotId) {
        if self.waits_elsewhere(actor, |s| matches!(s, Store::Entries { .. }) && s.entry(slot).is_some()) {
            let pa = self.memory.pa(slot.table).0;
            let message = "a table is reachable before an entry that was stored into it";
            self.violate(Invariant::InitialisedBeforeReachable, actor, pa, message);
        }
    }
    /// Somebody reaches a frame by an entry before what was stored there (`index`: only that word is looked at).
    pub(super) fn judge_exposed(&mut self, actor: u8, va: u64, frame: FrameId, index: Option<u16>) {
        let here = |s: &Store| match *s {
            Store::Word { frame: f, index: at, .. } => f == frame && index.is_none_or(|index| index == at),
            Store::Contents { frame: f, .. } => f == frame,
            Store::Entry { .. } | Store::Entries { .. } | Store::Var { .. } => false,
        };
        if self.waits_elsewhere(actor, here) {
            let message = "an entry exposes a frame before what was stored to it";
            self.violate(Invariant::ContentBeforePte, actor, va, message);
        }
    }
    fn waits_elsewhere(&self, actor: u8, what: impl Fn(&Store) -> bool) -> bool {
        let me = self.cpu_of(actor);
        (0..MAX_ACTORS)
            .filter(|cpu| *cpu != me && self.buffered >> cpu & 1 != 0)
            .any(|cpu| self.waiting_in(cpu).any(|w| what(&w.store)))
    }
}
