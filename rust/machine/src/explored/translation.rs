//! Data accesses of an explored machine: every translation that the CPU may use is looked at, at once.

use vmemmap_arch::{Frame, FrameKind, Invariant, Kind, Level, Template, Va};

use super::candidates::{Access, Candidate, End, Output};
use super::memory::{FrameId, SlotId};
use super::options::Conflict;
use super::stale::{AGENT, state};
use super::waiting::Store;
use super::world::World;
use crate::op::{Reply, Tok};

impl World {
    /// The walk that hardware makes from a table; `visit` sees each slot on the way.
    pub(super) fn walk_from(&self, table: FrameId, level: Level, va: Va, mut visit: impl FnMut(SlotId)) -> End {
        let g = self.geometry;
        let (mut table, mut level) = (table, level);
        loop {
            let life = self.memory.life(table);
            if life.is_freed() {
                return End::FreedTable(self.memory.pa(table).0);
            }
            if !self.memory.has_words(table) {
                return End::None;
            }
            let slot = SlotId { table, index: g.index(va, level) };
            visit(slot);
            let desc = self.memory.desc(slot);
            match g.kind(desc, level) {
                Kind::Table(next) => match self.memory.find(next) {
                    Some(id) => (table, level) = (id, level.next()),
                    None => return End::None,
                },
                Kind::Page(pa) | Kind::Block(pa) => {
                    return End::Leaf(desc, level, pa.0 + (va.0 & (g.entry_span(level) - 1)));
                }
                Kind::None | Kind::Invalid | Kind::Reserved => return End::None,
            }
        }
    }

    /// Walks that this CPU (`None`: any) may make for `va`: from the root, and from each table that a stale entry leads
    /// to.
    pub(super) fn for_each_walk(&self, cpu: Option<u8>, va: Va, mut each: impl FnMut(FrameId, Level, bool)) {
        each(self.root, self.geometry.top(), true);
        if self.stale.is_empty() {
            return;
        }
        for r in self.stale_at(va).filter(|r| cpu.is_none_or(|cpu| self.may_use(cpu, r))) {
            if let Kind::Table(next) = self.geometry.kind(r.value, r.level)
                && let Some(table) = self.memory.find(next)
            {
                each(table, r.level.next(), false);
            }
        }
    }

    /// Fills `self.candidates`, the live one first, the rest in an order that depends on nothing but the state. Faults
    /// on the way go to `fault`.
    pub(super) fn gather(&mut self, cpu: u8, va: Va, mut fault: impl FnMut(End)) {
        let mut found = std::mem::take(&mut self.candidates);
        let mut named = std::mem::take(&mut self.outputs);
        found.clear();
        named.clear();
        self.for_each_walk(Some(cpu), va, |table, level, live| match self.walk_from(table, level, va, |_| ()) {
            End::Leaf(desc, level, pa) => named.push(Output { desc, level, pa, live, early: !live }),
            end => fault(end),
        });
        if !self.stale.is_empty() {
            let g = self.geometry;
            for r in self.usable(cpu, va) {
                if let Kind::Page(pa) | Kind::Block(pa) = g.kind(r.value, r.level) {
                    let pa = pa.0 + (va.0 & (g.entry_span(r.level) - 1));
                    let early = state::is_before_none(self.memory.cells.get(r.cell));
                    named.push(Output { desc: r.value, level: r.level, pa, live: false, early });
                }
            }
        }
        for &Output { desc, level, pa, live, early } in &named {
            let frame = self.memory.frame(vmemmap_arch::Pa(pa));
            match found.iter_mut().find(|c: &&mut Candidate| c.frame == frame && c.desc == desc) {
                Some(known) => known.early |= early,
                None => found.push(Candidate { desc, level, frame, live, early }),
            }
        }
        found.sort_unstable_by_key(|c| (!c.live, c.desc.0, c.frame));
        (self.candidates, self.outputs) = (found, named);
    }

    pub(super) fn word_index(&self, va: Va) -> u16 {
        ((va.0 & (self.geometry.page_size() - 1)) >> 3) as u16
    }

    /// Keeps of the candidates one for each result that the access may have, and finds what else may happen.
    pub(super) fn alternatives(&mut self, cpu: u8, va: Va, access: Access) {
        let index = self.word_index(va);
        self.find_mishaps(cpu, index, access);
        let memory = &self.memory;
        let mut kept = 0;
        for i in 0..self.candidates.len() {
            let c = self.candidates[i];
            let same = |k: &Candidate| match access {
                Access::Load => memory.word(k.frame, index) == memory.word(c.frame, index),
                _ => k.frame == c.frame && k.desc.is_writable() == c.desc.is_writable(),
            };
            match self.candidates[..kept].iter().position(same) {
                Some(k) => self.candidates[k].early |= c.early,
                None => {
                    self.candidates[kept] = c;
                    kept += 1;
                }
            }
        }
        self.candidates.truncate(kept);
    }

    pub(super) fn access_outcomes(&mut self, actor: u8, va: Va, access: Access) -> u16 {
        if self.stale.is_empty() {
            return 1;
        }
        let cpu = self.cpu_of(actor);
        self.gather(cpu, va, |_| ());
        self.alternatives(cpu, va, access);
        (self.candidates.len() as u16).max(1) + self.mishaps.count()
    }

    /// Checks all translations that the access may use, and performs it through the chosen one.
    pub(super) fn access(&mut self, actor: u8, va: Va, access: Access, outcome: u16) -> u64 {
        let chosen = match self.translate(actor, va, access, outcome) {
            Ok(chosen) => chosen,
            Err(word) => return word,
        };
        let index = self.word_index(va);
        let old = self.memory.word(chosen.frame, index);
        if !access.stores(old) || !chosen.desc.is_writable() {
            return old;
        }
        match access {
            Access::Rmw(op) => {
                let new = op.apply(old);
                self.memory.set_word(chosen.frame, index, new);
                self.note_risk(va, chosen, index, new);
            }
            Access::Fill(template) => self.memory.fill(chosen.frame, template),
            Access::Load | Access::Copy => {}
        }
        if !self.stale.is_empty() {
            self.judge_contents(actor, chosen.frame);
        }
        old
    }

    /// # Errors
    /// The word that the access reads all the same, if it goes through no single translation.
    fn translate(&mut self, actor: u8, va: Va, access: Access, outcome: u16) -> Result<Candidate, u64> {
        let cpu = self.cpu_of(actor);
        if self.stale.is_empty()
            && self.buffered == 0
            && let End::Leaf(desc, level, pa) = self.walk_from(self.root, self.geometry.top(), va, |_| ())
        {
            let frame = self.memory.frame(vmemmap_arch::Pa(pa));
            let only = Candidate { desc, level, frame, live: true, early: false };
            self.judge_candidate(actor, va, access, only);
            return Ok(only);
        }
        let (mut none, mut freed) = (false, None);
        self.gather(cpu, va, |end| match end {
            End::FreedTable(pa) => freed = Some(pa),
            _ => none = true,
        });
        if none && !self.attempting {
            self.violate(Invariant::AlwaysTranslates, actor, va.0, "an access finds no translation");
        }
        if let Some(pa) = freed {
            self.violate(Invariant::NoStaleWalkCache, actor, pa, "a hardware walk goes through a freed table");
        }
        if self.buffered != 0 {
            self.judge_waiting(actor, va, access);
        }
        self.note_spurious(actor, cpu, va);
        for i in 0..self.candidates.len() {
            self.judge_candidate(actor, va, access, self.candidates[i]);
        }
        if self.options.conflict == Conflict::AtAccess {
            self.judge_conflicts(actor, va);
        }
        self.alternatives(cpu, va, access);
        let outcome = usize::from(outcome);
        match self.candidates.get(outcome).copied() {
            Some(chosen) => {
                if !chosen.early {
                    self.note_translated(actor, va);
                }
                self.note_access(actor, va, chosen.frame);
                Ok(chosen)
            }
            None if self.candidates.is_empty() => Err(0),
            None => Err(self.suffer(actor, va, outcome - self.candidates.len())),
        }
    }

    /// Stores that wait elsewhere, on the walk and in what it leads to.
    fn judge_waiting(&mut self, actor: u8, va: Va, access: Access) {
        let mut slots = Vec::new();
        self.walk_from(self.root, self.geometry.top(), va, |slot| slots.push(slot));
        for slot in slots {
            self.judge_initialised(actor, slot);
        }
        for i in 0..self.candidates.len() {
            let index = matches!(access, Access::Load | Access::Rmw(_)).then(|| self.word_index(va));
            self.judge_exposed(actor, va.0, self.candidates[i].frame, index);
        }
    }

    fn judge_candidate(&mut self, actor: u8, va: Va, access: Access, c: Candidate) {
        if self.memory.life(c.frame).is_freed() {
            self.violate(Invariant::NoUseOfFreedFrame, actor, va.0, "an access through a translation to a freed frame");
        }
        if !c.desc.is_writable() && access.stores(self.memory.word(c.frame, self.word_index(va))) {
            self.violate(Invariant::SharedTailsReadOnly, actor, va.0, "a store through a read-only translation");
        }
    }

    /// A walker may still see the entry as it was before it became valid.
    fn note_spurious(&mut self, actor: u8, cpu: u8, va: Va) {
        if !self.stale.is_empty() && self.usable(cpu, va).any(|r| r.value.is_none()) {
            self.spurious_faults += 1;
            if self.options.spurious_fault_is_fatal && !self.attempting {
                self.violate(
                    Invariant::AlwaysTranslates,
                    actor,
                    va.0,
                    "a spurious fault: the new entry is not yet published",
                );
            }
        }
    }

    /// Whether a walk can find the frame.
    pub(super) fn is_mapped(&self, id: FrameId) -> bool {
        self.memory.named(id).iter().any(|slot| self.names_now(*slot, id))
    }
    /// Whether it lies in a block that is mapped.
    pub(super) fn is_in_mapped_block(&self, id: FrameId) -> bool {
        let (g, pa) = (self.geometry, self.memory.pa(id));
        [Level::PMD, Level::PUD].into_iter().any(|level| {
            let start = pa.align_down(g.entry_span(level));
            self.memory.find(start).is_some_and(|block| {
                let maps =
                    |s: &SlotId| self.names_now(*s, block) && g.kind(self.memory.desc(*s), level) == Kind::Block(start);
                self.memory.named(block).iter().any(maps)
            })
        })
    }

    /// A store lands where the VA no longer leads, or in a frame whose copy is made and waits to take its place.
    fn note_risk(&mut self, va: Va, chosen: Candidate, index: u16, new: u64) {
        let aside = !chosen.live;
        let copied = self
            .memory
            .copied_to(chosen.frame)
            .is_some_and(|copy| self.memory.word(copy, index) != new && !self.is_mapped(copy));
        if aside || copied {
            self.memory.set_risk(chosen.frame, index, va.0);
        }
    }

    /// Stores that went to a frame and are in no copy of it are lost when it is freed.
    pub(super) fn judge_lost_stores(&mut self, actor: u8, id: FrameId) {
        let lost = self.memory.risks(id).find(|&(index, va)| match self.live_frame(Va(va)) {
            Some(now) => now != id && self.memory.word(now, index) != self.memory.word(id, index),
            None => false,
        });
        if let Some((_, va)) = lost {
            self.violate(
                Invariant::NoLostStore,
                actor,
                va,
                "a store went to a frame that the address no longer leads to, and is lost with it",
            );
        }
    }

    /// Frame that a fresh walk finds.
    pub(super) fn live_frame(&self, va: Va) -> Option<FrameId> {
        match self.walk_from(self.root, self.geometry.top(), va, |_| ()) {
            End::Leaf(_, _, pa) => self.memory.find(vmemmap_arch::Pa(pa)),
            _ => None,
        }
    }

    /// A translation that hardware makes alone: faults are silent, a walk through a freed table is not.
    pub(super) fn speculate(&mut self, actor: u8, va: Va, message: &'static str) {
        self.hardware_walk(actor, self.cpu_of(actor), va, message);
    }

    /// The same, made by the agent beyond the broadcast, if there is one.
    pub(super) fn iommu_walk(&mut self, actor: u8, va: Va) {
        if self.options.iommu {
            self.hardware_walk(actor, AGENT, va, "an IOMMU walks through a freed table");
        }
    }

    fn hardware_walk(&mut self, actor: u8, walker: u8, va: Va, message: &'static str) {
        let mut freed = None;
        self.gather(walker, va, |end| {
            if let End::FreedTable(pa) = end {
                freed = Some(pa);
            }
        });
        if let Some(pa) = freed {
            self.violate(Invariant::NoStaleWalkCache, actor, pa, message);
        }
    }

    // ---- through the linear map, which translates everything always ----
    /// The frame of a handle, if it is still the one that was named.
    pub(super) fn linear(&mut self, actor: u8, frame: Frame<Tok>) -> FrameId {
        let id = self.memory.frame(frame.pa);
        let life = self.memory.life(id);
        if life.is_freed() || (life.is_allocated() && life.generation() != frame.tok) {
            self.violate(
                Invariant::NoUseOfFreedFrame,
                actor,
                frame.pa.0,
                "an access to a freed frame through the linear map",
            );
        }
        id
    }
    pub(super) fn load_frame(&mut self, actor: u8, frame: Frame<Tok>, index: u16) -> Reply {
        let id = self.linear(actor, frame);
        Reply::of(self.memory.word(id, index))
    }
    pub(super) fn store_frame(&mut self, actor: u8, frame: Frame<Tok>, index: u16, value: u64) {
        let id = self.linear(actor, frame);
        self.remember(actor, Store::Word { frame: id, index, value });
        self.memory.set_word(id, index, value);
        if !self.stale.is_empty() {
            self.judge_contents(actor, id);
        }
    }
    pub(super) fn fill_frame(&mut self, actor: u8, frame: Frame<Tok>, template: Template) {
        let id = self.linear(actor, frame);
        if !self.memory.life(id).is(FrameKind::Table) {
            self.remember(actor, Store::Contents { frame: id, template, words: Vec::new() });
            self.memory.fill(id, template);
        }
        if !self.stale.is_empty() {
            self.judge_contents(actor, id);
        }
    }
    pub(super) fn copy_frame(&mut self, actor: u8, from: Frame<Tok>, to: Frame<Tok>) {
        let (from, to) = (self.linear(actor, from), self.linear(actor, to));
        self.copy(actor, from, to);
    }
    pub(super) fn copy_from_va(&mut self, actor: u8, from: Va, to: Frame<Tok>, outcome: u16) {
        let to = self.linear(actor, to);
        if let Some(from) = self.copy_source(actor, from, outcome) {
            self.copy(actor, from, to);
        }
    }
    pub(super) fn copy_source(&mut self, actor: u8, from: Va, outcome: u16) -> Option<FrameId> {
        self.translate(actor, from, Access::Copy, outcome).ok().map(|c| c.frame)
    }
    fn copy(&mut self, actor: u8, from: FrameId, to: FrameId) {
        if from != to && !self.memory.life(to).is(FrameKind::Table) {
            if self.buffered != 0 {
                let (template, words) = self.memory.contents(from);
                self.remember(actor, Store::Contents { frame: to, template, words });
            }
            self.memory.settle_risks(from);
            self.memory.copy(from, to);
        }
    }
}
