//! Table words of an explored machine: what a store into one means for walks, translations and the rules.

use vmemmap_arch::{Desc, FrameKind, Invariant, Kind, Level, Pa, Slot, Va};

use super::memory::{FrameId, SlotId};
use super::waiting::Store;
use super::world::World;
use crate::op::{Reply, Tok};

/// Place of a table in the tree: first address it maps, and its level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub va: Va,
    pub level: Level,
}

impl World {
    /// Where a table hangs in the tree; `None` if no walk from the root reaches it.
    pub(super) fn reach(&self, table: FrameId) -> Option<Place> {
        if table == self.root {
            let top = self.geometry.top();
            return Some(Place { va: Va(!0 << self.geometry.va_bits), level: top });
        }
        let parent = self.memory.parent(table)?;
        let above = self.reach(parent.table)?;
        if above.level.0 >= 3 {
            return None;
        }
        let va = above.va.plus(u64::from(parent.index) << self.geometry.level_shift(above.level));
        Some(Place { va, level: above.level.next() })
    }

    /// The table that a handle means, if it still is one.
    pub(super) fn table_of(&self, at: Slot<Tok>) -> Result<SlotId, &'static str> {
        let Some(table) = self.memory.find(at.table) else {
            return Err("an access to a table page that was never allocated");
        };
        let life = self.memory.life(table);
        if !life.is(FrameKind::Table) || !self.memory.has_words(table) {
            return Err("an access to a page that is no table");
        }
        if life.is_freed() {
            return Err("an access to a freed table page");
        }
        if life.generation() != at.tok {
            return Err("an access to a table page that was freed and allocated again");
        }
        Ok(SlotId { table, index: at.index })
    }

    pub(super) fn slot_or_violation(&mut self, actor: u8, at: Slot<Tok>) -> Option<SlotId> {
        match self.table_of(at) {
            Ok(slot) => Some(slot),
            Err(message) => {
                self.violate(Invariant::NoWalkOfFreedTable, actor, at.table.0, message);
                None
            }
        }
    }

    /// A descriptor with the generation of the frame that it names.
    pub(super) fn entry(&self, desc: Desc) -> Reply {
        let tok = if desc.is_valid() { self.memory.generation(self.geometry.output(desc)) } else { 0 };
        Reply { value: desc.0, tok }
    }

    pub(super) fn read_entry(&mut self, actor: u8, at: Slot<Tok>) -> Reply {
        let Some(slot) = self.slot_or_violation(actor, at) else { return Reply::of(0) };
        if let Some(own) = self.forwarded_entry(actor, slot) {
            return self.entry(own);
        }
        if self.buffered != 0 {
            self.judge_initialised(actor, slot);
        }
        let desc = self.memory.desc(slot);
        if desc.is_valid() {
            self.note_read(actor, slot);
        }
        self.entry(desc)
    }

    /// `accept`: stored only if the old word pleases it. `reads`: the CPU sees the old word.
    pub(super) fn write_entry(
        &mut self,
        actor: u8,
        at: Slot<Tok>,
        new: Desc,
        reads: bool,
        accept: impl Fn(Desc) -> bool,
    ) -> Reply {
        let Some(slot) = self.slot_or_violation(actor, at) else { return Reply::of(0) };
        let old = self.memory.desc(slot);
        let reply = self.entry(old);
        let stores = accept(old);
        if stores && old != new {
            if self.buffered != 0 {
                self.remember(actor, Store::Entry { slot, level: at.level, new });
            }
            self.store_entry(actor, slot, at.level, old, new);
        }
        // Also one that changes nothing, and one that is seen and left: both come before each later translation that
        // faults.
        if (stores && new.is_valid()) || (reads && old.is_valid()) {
            self.note_written(actor, slot);
        }
        reply
    }

    pub(super) fn store_entry(&mut self, actor: u8, slot: SlotId, level: Level, old: Desc, new: Desc) {
        let g = self.geometry;
        let place = self.reach(slot.table);
        let va = place.map(|p| p.va.plus(u64::from(slot.index) << g.level_shift(level)));
        let untracked = va.is_some_and(|va| self.is_linear_leaf(va, level, old, new));
        if let Some(va) = va.filter(|_| !untracked) {
            let watchers = self.memory.cells.get(self.fixed.stable);
            if watchers & !(1 << actor) != 0 && !self.is_vmalloc(va) {
                self.violate(
                    Invariant::StableDump,
                    actor,
                    va.0,
                    "a table changes while a walk relies on its being stable",
                );
            }
            self.judge_exchange(actor, slot, level, va, old, new);
        }
        if let Kind::Table(next) = g.kind(old, level) {
            self.unlink(actor, slot, level, va, next, new);
        }
        if let (Some(va), false) = (va, self.early.is_empty()) {
            self.note_changed(va, g.entry_span(level));
        }
        let cell = self.memory.word_cell(slot);
        self.memory.cells.set(cell, new.0);
        match g.kind(new, level) {
            Kind::Table(next) => {
                let id = self.memory.frame(next);
                self.memory.set_parent(id, Some(slot), va.is_some());
                self.memory.note_named(id, slot);
            }
            Kind::Page(pa) | Kind::Block(pa) if !va.is_some_and(|v| self.is_linear(v)) => {
                let id = self.memory.frame(pa);
                self.memory.note_named(id, slot);
            }
            _ => {}
        }
        match va {
            Some(va) if untracked => self.supersede_linear(actor, slot, level, va, old, new),
            Some(va) => self.supersede(actor, slot, level, va, old, new),
            None => self.supersede_behind_stale(actor, slot, level, old, new),
        }
    }

    /// A word of an image: it was there before anybody ran, so nothing is stale and nothing is judged.
    pub(super) fn load_entry(&mut self, slot: SlotId, level: Level, desc: Desc) {
        let cell = self.memory.word_cell(slot);
        self.memory.cells.set(cell, desc.0);
        let id = match self.geometry.kind(desc, level) {
            Kind::Table(next) => {
                let id = self.memory.frame(next);
                self.memory.set_parent(id, Some(slot), true);
                id
            }
            Kind::Page(pa) | Kind::Block(pa) => self.memory.frame(pa),
            _ => return,
        };
        self.memory.note_named(id, slot);
    }

    /// The old entry led to a table: every translation below ends, and the table should be empty.
    fn unlink(&mut self, actor: u8, slot: SlotId, level: Level, va: Option<Va>, next: Pa, new: Desc) {
        let Some(table) = self.memory.find(next) else { return };
        if self.memory.parent(table) == Some(slot) {
            self.memory.set_parent(table, None, false);
        }
        let Some(va) = va else { return };
        if !self.memory.has_words(table) || self.memory.table_is_empty(table) {
            return;
        }
        if new.is_none() {
            self.violate(Invariant::FreedTableIsEmpty, actor, next.0, "a table is unlinked while entries are not none");
        }
        if level.0 < 3 {
            self.retire_below(actor, table, level.next(), va);
        }
    }

    /// Leaves of a table that is being cut off were live until now.
    fn retire_below(&mut self, actor: u8, table: FrameId, level: Level, base: Va) {
        let g = self.geometry;
        for index in 0..g.entries() as u16 {
            let slot = SlotId { table, index };
            let desc = self.memory.desc(slot);
            if !desc.is_valid() {
                continue;
            }
            let va = base.plus(u64::from(index) << g.level_shift(level));
            self.retire(actor, slot, level, va, desc);
            if let Kind::Table(next) = g.kind(desc, level)
                && let Some(below) = self.memory.find(next)
                && self.memory.has_words(below)
                && level.0 < 3
            {
                self.retire_below(actor, below, level.next(), va);
            }
        }
    }

    /// A page or block of the linear map comes, changes or goes. No access of kernel code that is modelled translates
    /// through it, and hot remove clears tens of thousands of them before its one flush: their order against a dump is
    /// not tracked, nor are their stale values but those of contiguous sets.
    pub(super) fn is_linear_leaf(&self, va: Va, level: Level, old: Desc, new: Desc) -> bool {
        let table = |desc| matches!(self.geometry.kind(desc, level), Kind::Table(_));
        self.is_linear(va) && !table(old) && !table(new)
    }
    /// The linear map translates everything always; who is mapped there says nothing.
    pub(super) fn is_linear(&self, va: Va) -> bool {
        self.options.linear_map.as_ref().is_some_and(|r| r.contains(&va))
    }
    /// vmalloc changes its entries under locks that no dump takes; only the free of a table would harm one (races R7).
    pub(super) fn is_vmalloc(&self, va: Va) -> bool {
        self.options.vmalloc.as_ref().is_some_and(|r| r.contains(&va))
    }
}
