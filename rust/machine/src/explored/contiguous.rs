//! Contiguous sets: a walk of one live entry with the Contiguous bit may cache the entries of its whole set, one by
//! one.
//!
//! So a stale value of one entry can come back as long as another entry of the set is live and says the same of it, and
//! an invalidate of the one address does not finish it (races R21; 48478b9f7913). What is modelled is the return of
//! values that were live; entries of a set that never held what a neighbour implies are not cached for it.

use vmemmap_arch::{Attr, Desc, Invariant, Kind, Level, Pa, Tlbi, Va};

use super::cells::Cell;
use super::memory::SlotId;
use super::stale::Record;
use super::tlb::covers;
use super::world::World;

/// A naturally aligned set of entries of one table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Set {
    first: SlotId,
    entries: u16,
}

impl Set {
    pub fn slots(self) -> impl Iterator<Item = SlotId> {
        (0..self.entries).map(move |i| SlotId { index: self.first.index + i, ..self.first })
    }
}

impl World {
    /// The set of an entry that holds this leaf; `None` unless it has the Contiguous bit.
    pub(super) fn set_of(&self, slot: SlotId, level: Level, value: Desc) -> Option<Set> {
        let g = self.geometry;
        if !value.has(Attr::CONT) || !matches!(g.kind(value, level), Kind::Page(_) | Kind::Block(_)) {
            return None;
        }
        let entries = match level {
            Level::PTE => g.cont_ptes(),
            Level::PMD => g.cont_pmds(),
            _ => return None,
        } as u16;
        Some(Set { first: SlotId { index: slot.index & !(entries - 1), ..slot }, entries })
    }

    /// The entry `from`, which holds `value`, tells a walker that `to` of the same set holds this.
    fn implied(&self, set: Set, level: Level, value: Desc, to: SlotId) -> Desc {
        let g = self.geometry;
        let span = g.entry_span(level);
        let base = g.output(value).align_down(span * u64::from(set.entries));
        g.with_output(value, base.plus(span * u64::from(to.index - set.first.index)))
    }

    /// Cells of the records that this invalidate reaches and that a walk may bring back at once. In order.
    pub(super) fn refillable(&self, actor: u8, op: Tlbi) -> Vec<Cell> {
        let contiguous = |r: &&Record| r.value.has(Attr::CONT);
        let unpublished: Vec<&Record> =
            self.stale.valid().filter(contiguous).filter(|r| self.waits_for_dsb(actor, r)).collect();
        let comes_back = |r: &Record, set: Set| {
            let says = |slot, value| {
                self.set_of(slot, r.level, value) == Some(set) && self.implied(set, r.level, value, r.slot) == r.value
            };
            set.slots().any(|slot| says(slot, self.memory.desc(slot)))
                || unpublished.iter().any(|other| other.level == r.level && says(other.slot, other.value))
        };
        let reached = self.stale.valid().filter(contiguous).filter(|r| covers(&self.geometry, r, op));
        let mut cells: Vec<Cell> = reached
            .filter(|r| self.set_of(r.slot, r.level, r.value).is_some_and(|set| comes_back(r, set)))
            .map(|r| r.cell)
            .collect();
        cells.sort_unstable();
        cells
    }

    /// Sets of which the invalidate reaches a record.
    pub(super) fn sets_reached(&self, op: Tlbi) -> Vec<Set> {
        let mut sets = Vec::new();
        for r in self.stale.valid().filter(|r| r.value.has(Attr::CONT) && covers(&self.geometry, r, op)) {
            if let Some(set) = self.set_of(r.slot, r.level, r.value)
                && !sets.contains(&set)
            {
                sets.push(set);
            }
        }
        sets
    }

    /// Records of contiguous values in a set.
    pub(super) fn stale_in(&self, set: Set) -> impl Iterator<Item = &Record> {
        self.stale
            .valid()
            .filter(move |r| r.value.has(Attr::CONT) && self.set_of(r.slot, r.level, r.value) == Some(set))
    }

    /// A page or block of the linear map that belongs to a contiguous set comes or goes. Of the linear map only these
    /// have stale values, for `memory_gone`.
    pub(super) fn supersede_linear(&mut self, actor: u8, slot: SlotId, level: Level, va: Va, old: Desc, new: Desc) {
        if self.set_of(slot, level, new).is_some() {
            self.revive(slot, level, va, new);
        }
        if self.set_of(slot, level, old).is_some() {
            self.retire(actor, slot, level, va, old);
        }
    }

    /// Memory has left the machine: nobody may translate to it.
    pub(super) fn memory_gone(&mut self, actor: u8, start: Pa, bytes: u64) {
        if !self.options.strict {
            return;
        }
        let found = self.linear_records(start, bytes).map(|r| r.va).min();
        if let Some(va) = found {
            let message = "memory has left the machine while a TLB may still translate to it";
            self.violate(Invariant::NoStaleTranslation, actor, va.0, message);
        }
    }

    /// Stale values of the linear map that translate to a physical range.
    pub(super) fn linear_records(&self, start: Pa, bytes: u64) -> impl Iterator<Item = &Record> {
        let g = self.geometry;
        self.stale.valid().filter(move |r| {
            let pa = g.output(r.value);
            self.is_linear(r.va)
                && r.value.has(Attr::CONT)
                && (pa.0.wrapping_sub(start.0) < bytes || start.since(pa) < g.entry_span(r.level))
        })
    }
}
