//! Stale translations: values that a descriptor no longer has and that a CPU may still use.
//!
//! Fills need no events: any CPU may at any time have cached whatever was live. A value becomes stale when it is
//! overwritten, is invalidated by a TLBI issued after it was published (its DSB is pending), and completed when the
//! same CPU's DSB completes that invalidate (kernel-semantics §10.1).

use vmemmap_arch::{Asid, Attr, Barrier, Desc, FrameKind, Geometry, Invariant, Kind, Level, Pa, Slot, Tlbi, Va};

use super::accesses::Touch;
use super::cells::Cell;
use super::memory::{FrameId, SlotId, offset};
use super::stale::{AGENT, Record, Sight, is_everywhere, publication, seen, state};
use super::world::World;
use crate::op::Tok;

/// Most stale values of one descriptor; more make the result inconclusive.
const BOUND: usize = 4;

impl World {
    fn everybody(&self) -> u64 {
        u64::from(self.all_cpus)
    }

    /// Location of the translations that start at `va` at that level; the linear map's pages have one for each table.
    pub(super) fn address_key_of(&mut self, level: Level, va: Va) -> Cell {
        let by_table = level == Level::PTE && self.is_linear(va);
        let va = if by_table { va.align_down(self.geometry.entry_span(Level::PMD)) } else { va };
        self.stale.address_key(&mut self.memory.cells, level, va)
    }

    /// Number of the stale value, active or not, given now if it has none.
    pub(super) fn intern(&mut self, slot: SlotId, level: Level, value: Desc, va: Va, asid: Option<Asid>) -> u32 {
        match self.stale.by_key.get(&(slot, value.0, va, asid)) {
            Some(index) => *index,
            None => {
                let (cell, address_key) = (self.memory.cells.reserve(1), self.address_key_of(level, va));
                self.stale.add_record(Record { slot, level, va, value, asid, cell, address_key })
            }
        }
    }

    /// `old` is what CPUs may go on using of a reachable entry that now holds `new`.
    pub(super) fn supersede(&mut self, actor: u8, slot: SlotId, level: Level, va: Va, old: Desc, new: Desc) {
        let (old, new) = (seen(old), seen(new));
        if old == new {
            return;
        }
        self.revive(slot, level, va, new);
        self.retire(actor, slot, level, va, old);
    }

    /// A value is live again: it is not stale any more, and walks of it may cache what it says of its contiguous set.
    pub(super) fn revive(&mut self, slot: SlotId, level: Level, va: Va, value: Desc) {
        for asid in self.spaces(level, value) {
            self.stale.drop_record(&mut self.memory.cells, (slot, value.0, va, asid));
        }
        if let Some(set) = self.set_of(slot, level, value) {
            let cells: Vec<Cell> = self.stale_in(set).map(|r| r.cell).collect();
            for cell in cells {
                let s = self.memory.cells.get(cell);
                self.memory.cells.set(cell, state::not_invalidated(s));
            }
        }
    }

    pub(super) fn is_unpublished(&self, r: &Record) -> bool {
        state::writer(self.memory.cells.get(r.cell)).is_some()
    }
    /// Overwritten by a CPU that has not done a DSB since, so that no invalidate of the actor covers it.
    pub(super) fn waits_for_dsb(&self, actor: u8, r: &Record) -> bool {
        match state::writer(self.memory.cells.get(r.cell)) {
            Some(cpu) => cpu == self.cpu_of(actor) || !self.options.is_ordered(),
            None => false,
        }
    }

    /// In which address spaces a value is cached: each with an entry of its own, unless it is global. Table entries are
    /// matched by ASID (Arm ARM, TLBI ASIDE1: "from a level of lookup above the final level and matches the ASID").
    pub(super) fn spaces(&self, level: Level, value: Desc) -> impl Iterator<Item = Option<Asid>> + use<> {
        let g = self.geometry;
        let tagged = match g.kind(value, level) {
            Kind::Table(_) => true,
            Kind::Page(_) | Kind::Block(_) => value.has(Attr::NG),
            Kind::None | Kind::Invalid | Kind::Reserved => false,
        };
        let (asids, n) = self.asids;
        asids.into_iter().take(if tagged { usize::from(n) } else { 1 }).map(move |asid| tagged.then_some(asid))
    }

    /// A value stops being live. With FEAT_ETS2 no access of its own CPU faults on an entry that it made valid before
    /// (R_PRGBR orders the earlier access before the translation that faults).
    pub(super) fn retire(&mut self, actor: u8, slot: SlotId, level: Level, va: Va, value: Desc) {
        let walk_cache = self.options.iommu && matches!(self.geometry.kind(value, level), Kind::Table(_));
        let others =
            if value.is_valid() || !self.options.orders_faults() { u64::MAX } else { !(1 << self.cpu_of(actor)) };
        let holders = self.everybody() & others | u64::from(walk_cache) << AGENT;
        if holders == 0 {
            return;
        }
        if !value.is_valid() {
            let earlier = |r: &Record| r.slot == slot;
            self.stale.update_valid(&mut self.memory.cells, |r, s| if earlier(r) { s | state::BEFORE_NONE } else { s });
        }
        let cpu = self.cpu_of(actor);
        let state = state::unpublished(holders, cpu);
        let state = if self.reaches_own_only { state::owned_by(state, cpu) } else { state };
        for asid in self.spaces(level, value) {
            let index = self.intern(slot, level, value, va, asid);
            self.stale.add(&mut self.memory.cells, index, state);
        }
        if self.stale.of_slot(slot).count() > BOUND * usize::from(self.asids.1) {
            self.overflow = true;
        }
    }

    /// A value at the address is superseded: no invalidate by another CPU commutes with that.
    pub(super) fn touch_retired(&self, address_key: Cell, out: &mut impl Touch) {
        if self.options.is_ordered() {
            out.commuting_update(publication(address_key));
            out.commuting_update(self.fixed.stale);
        }
    }

    /// What `note_read` or `note_written` would change.
    pub(super) fn touch_news(&self, actor: u8, at: Slot<Tok>, sight: Sight, out: &mut impl Touch) {
        if let Ok(slot) = self.table_of(at) {
            let news = self.stale.invalid().filter(|r| r.slot == slot && self.is_news(actor, r, sight));
            news.for_each(|r| self.touch_seen(r, out));
        }
    }

    /// All valid entries of a table that is cut off, and of those below.
    pub(super) fn touch_below(&mut self, table: Pa, level: Level, base: Va, out: &mut impl Touch) {
        let g = self.geometry;
        let Some(id) = self.memory.find(table).filter(|id| level.0 <= 3 && self.memory.has_words(*id)) else { return };
        if !self.options.is_ordered() || self.memory.table_is_empty(id) {
            return;
        }
        for index in 0..g.entries() as u16 {
            let desc = self.memory.desc(SlotId { table: id, index });
            if !desc.is_valid() {
                continue;
            }
            let va = base.plus(u64::from(index) << g.level_shift(level));
            let address_key = self.address_key_of(level, va);
            self.touch_retired(address_key, out);
            if let Kind::Table(next) = g.kind(desc, level) {
                self.touch_below(next, level.next(), va, out);
            }
        }
    }

    /// Addresses that the slot maps behind a stale table entry.
    pub(super) fn places_behind_stale(&self, slot: SlotId, level: Level) -> Vec<Va> {
        if self.stale.is_empty() {
            return Vec::new();
        }
        let g = self.geometry;
        let table = self.memory.pa(slot.table);
        let leads = |r: &&Record| r.level.next() == level && g.kind(r.value, r.level) == Kind::Table(table);
        let offset = u64::from(slot.index) << g.level_shift(level);
        self.stale.iter().filter(leads).map(|r| r.va.plus(offset)).collect()
    }

    /// A store into a table that no walk reaches from the root, but a stale table entry may still lead to.
    pub(super) fn supersede_behind_stale(&mut self, actor: u8, slot: SlotId, level: Level, old: Desc, new: Desc) {
        for va in self.places_behind_stale(slot, level) {
            for value in [old, new] {
                if value.is_valid() {
                    self.retire(actor, slot, level, va, value);
                }
            }
        }
    }

    pub(super) fn touch_barrier(&self, actor: u8, barrier: Barrier, out: &mut impl Touch) {
        if barrier == Barrier::Isb {
            return self.touch_synchronized(1 << self.cpu_of(actor), out);
        }
        for r in self.stale.iter().filter(|r| self.barrier_touches(actor, barrier, r)) {
            if self.barrier_completes(actor, barrier, r) || !r.value.is_valid() {
                self.touch_end(r, out);
            } else {
                self.touch_publication(r, out);
            }
        }
    }

    /// What `synchronize_context` changes, or would if a DSB had come before.
    pub(super) fn touch_synchronized(&self, cpus: u64, out: &mut impl Touch) {
        if !self.options.ets2() {
            out.write(self.fixed.stale);
            self.stale.invalid().for_each(|r| out.read(r.cell));
            self.late(cpus).for_each(|r| self.touch_end(r, out));
        }
    }

    /// An invalidate may reach the value from here on. Nobody else can tell, but for the other entries of a contiguous
    /// set.
    pub(super) fn touch_publication(&self, r: &Record, out: &mut impl Touch) {
        out.commuting_update(publication(r.address_key));
        out.commuting_update(self.fixed.stale);
        if r.value.has(Attr::CONT) || !self.options.ets2() {
            out.write(r.cell);
        }
    }

    /// Of news (`is_news`): with FEAT_ETS2 they end the value, without it they publish it as gone.
    pub(super) fn touch_seen(&self, r: &Record, out: &mut impl Touch) {
        if self.options.ets2() { self.touch_end(r, out) } else { self.touch_publication(r, out) }
    }

    /// Fewer may use the value, or nobody. Who ends it does not matter, nor who is first if several do.
    pub(super) fn touch_end(&self, r: &Record, out: &mut impl Touch) {
        let g = self.geometry;
        out.commuting_update(r.address_key);
        if r.value.has(Attr::CONT) || !self.options.ets2() {
            out.write(r.cell);
        } else {
            out.commuting_update(r.cell);
        }
        if !self.options.ets2() {
            out.commuting_update(self.fixed.stale);
        }
        if !r.value.is_valid() {
            return;
        }
        if let Some(id) = self.memory.find(g.output(r.value)) {
            let block = matches!(g.kind(r.value, r.level), Kind::Block(_));
            out.commuting_update(self.memory.cell(id, if block { offset::MAPPED } else { offset::STALE }));
        }
        // A store to either frame is no longer judged against it.
        for desc in [r.value, self.memory.desc(r.slot)] {
            if let Some(id) = self.memory.find(g.output(desc)).filter(|_| desc.is_valid()) {
                out.commuting_update(self.memory.cell(id, offset::COMPARED));
            }
        }
    }

    pub(super) fn tlbi(&mut self, actor: u8, op: Tlbi) {
        let g = self.geometry;
        let (cpu, ets2, ordered) = (self.cpu_of(actor), self.options.ets2(), self.options.is_ordered());
        let me = 1u64 << cpu;
        let own_only = self.reaches_own_only && !op.is_local();
        let contiguous = self.stale.valid().any(|r| r.value.has(Attr::CONT));
        let back = if contiguous { self.refillable(actor, op) } else { Vec::new() };
        self.stale.update(&mut self.memory.cells, |r, s| {
            // The agent alone may have it: no broadcast reaches that.
            let beyond = s & state::HOLDERS == 1 << AGENT;
            // Nothing but a DSB orders an own store before an own invalidate. What others overwrote they did before.
            if beyond
                || ((ets2 || !ordered) && !r.value.is_valid())
                || state::writer(s).is_some_and(|writer| writer == cpu || !ordered)
                || !covers(&g, r, op)
                || (own_only && !state::is_owned_by(s, cpu))
                || back.binary_search(&r.cell).is_ok()
            {
                return s;
            }
            s | me << if op.is_local() { state::INVALIDATED_HERE } else { state::INVALIDATED }
        });
    }

    pub(super) fn barrier(&mut self, actor: u8, barrier: Barrier) {
        if self.stale.is_empty() {
            return;
        }
        let cpu = self.cpu_of(actor);
        let me = 1u64 << cpu;
        let (ets2, ordered) = (self.options.ets2(), self.options.is_ordered());
        let publish = |r: &Record, s: u64| match () {
            () if state::writer(s) != Some(cpu) => s,
            () if r.value.is_valid() || !ets2 => state::published(s),
            () => 0,
        };
        let complete_here = |s: u64| {
            if s & me << state::INVALIDATED_HERE == 0 {
                s
            } else {
                state::without(s & !(me << state::INVALIDATED_HERE), me)
            }
        };
        let cells = &mut self.memory.cells;
        match barrier {
            Barrier::DsbIshst => self.stale.update(cells, publish),
            Barrier::DsbIsh => self.stale.update(cells, |r, s| {
                if s & me << state::INVALIDATED != 0 {
                    if ets2 || !ordered { state::beyond_broadcast(s) } else { state::unsynchronized(s, me) }
                } else {
                    publish(r, complete_here(s))
                }
            }),
            Barrier::DsbNsh => self.stale.update(cells, |_, s| complete_here(s)),
            Barrier::Isb => self.synchronize_context(me),
            Barrier::SmpMb | Barrier::SmpWmb => self.release_entries(actor),
            Barrier::SmpRmb => {}
        }
    }

    /// A release, or a DMB for stores: with FEAT_ETS2 whoever is ordered after it does not fault on the entries that
    /// its CPU made valid before.
    pub(super) fn release_entries(&mut self, actor: u8) {
        if self.options.orders_faults() && !self.stale.is_empty() {
            let cpu = self.cpu_of(actor);
            let own = |s: u64| state::writer(s) == Some(cpu);
            self.stale.update_invalid(&mut self.memory.cells, |_, s| if own(s) { 0 } else { s });
        }
    }

    /// The CPU has read or written the entry as it is now, valid.
    pub(super) fn note_read(&mut self, actor: u8, slot: SlotId) {
        self.note_seen(actor, Sight::Read, |_, r| r.slot == slot);
    }
    pub(super) fn note_written(&mut self, actor: u8, slot: SlotId) {
        self.note_seen(actor, Sight::Written, |_, r| r.slot == slot);
    }
    /// The CPU has translated through the entries as they are now.
    pub(super) fn note_translated(&mut self, actor: u8, va: Va) {
        self.note_seen(actor, Sight::Translated, |g, r| spans(g, r, va));
    }
    fn note_seen(&mut self, actor: u8, sight: Sight, what: impl Fn(&Geometry, &Record) -> bool) {
        if !self.options.is_ordered() || self.stale.is_empty() {
            return;
        }
        let (g, cpu, ets2) = (self.geometry, self.cpu_of(actor), self.options.ets2());
        self.stale.update_invalid(&mut self.memory.cells, |r, s| match () {
            () if !what(&g, r) => s,
            () if is_everywhere(sight, cpu, s, ets2) => {
                if ets2 {
                    0
                } else {
                    state::published(s)
                }
            }
            () if ets2 => state::without(s, 1 << cpu),
            () => s,
        });
    }

    /// Whether `note_seen`, which looks at it, would change the record.
    pub(super) fn is_news(&self, actor: u8, r: &Record, sight: Sight) -> bool {
        let (s, cpu, ets2) = (self.memory.cells.get(r.cell), self.cpu_of(actor), self.options.ets2());
        let everywhere = is_everywhere(sight, cpu, s, ets2);
        let changes = if ets2 { everywhere || s & state::HOLDERS & 1 << cpu != 0 } else { everywhere };
        self.options.is_ordered() && !r.value.is_valid() && changes && (ets2 || state::writer(s).is_some())
    }

    /// An ISB or an exception entry of these CPUs: they take no longer an invalid entry that is published as gone, nor
    /// what they have invalidated.
    pub(super) fn synchronize_context(&mut self, cpus: u64) {
        if !self.options.ets2() && !self.stale.is_empty() {
            let cpus = cpus & self.everybody();
            self.stale.update(&mut self.memory.cells, |r, s| if ends(r, s) { state::without(s, cpus) } else { s });
        }
    }

    /// Records that `synchronize_context` would change.
    pub(super) fn late(&self, cpus: u64) -> impl Iterator<Item = &Record> {
        let held = move |r: &&Record| {
            let s = self.memory.cells.get(r.cell);
            ends(r, s) && s & cpus & state::HOLDERS != 0
        };
        self.stale.iter().filter(held)
    }

    /// CPUs that may use the stale value.
    pub(super) fn holders_of(&self, r: &Record) -> u64 {
        self.memory.cells.get(r.cell) & state::HOLDERS
    }

    /// The agent forgets what was published as gone.
    pub(super) fn iommu_invalidate(&mut self) {
        self.stale
            .update(&mut self.memory.cells, |_, s| if held_by_agent(s) { state::without(s, 1 << AGENT) } else { s });
    }

    pub(super) fn at_agent(&self, r: &Record) -> bool {
        self.memory.cells.get(r.cell) >> AGENT & 1 != 0
    }

    /// Whether a barrier of that kind would change the record.
    pub(super) fn barrier_touches(&self, actor: u8, barrier: Barrier, r: &Record) -> bool {
        let s = self.memory.cells.get(r.cell);
        let cpu = self.cpu_of(actor);
        match barrier {
            Barrier::DsbIsh | Barrier::DsbIshst if state::writer(s) == Some(cpu) => true,
            Barrier::SmpMb | Barrier::SmpWmb => {
                self.options.orders_faults() && !r.value.is_valid() && state::writer(s) == Some(cpu)
            }
            _ => self.barrier_completes(actor, barrier, r),
        }
    }

    /// Whether a barrier of that kind would complete an invalidate of the record.
    pub(super) fn barrier_completes(&self, actor: u8, barrier: Barrier, r: &Record) -> bool {
        let invalidated = match barrier {
            Barrier::DsbIsh => (1 << state::INVALIDATED) | (1 << state::INVALIDATED_HERE),
            Barrier::DsbNsh => 1 << state::INVALIDATED_HERE,
            _ => 0,
        };
        self.memory.cells.get(r.cell) & invalidated << self.cpu_of(actor) != 0
    }

    /// Stale values that translate `va`, on any CPU.
    pub(super) fn stale_at(&self, va: Va) -> impl Iterator<Item = &Record> {
        let g = self.geometry;
        self.stale.iter().filter(move |r| spans(&g, r, va))
    }
    pub(super) fn may_use(&self, cpu: u8, r: &Record) -> bool {
        let mine = || r.asid.is_none_or(|asid| asid == self.asid_of(cpu));
        self.memory.cells.get(r.cell) >> cpu & 1 != 0 && (cpu == AGENT || mine())
    }
    /// Stale values that translate `va` and that this CPU (or the agent) may use.
    pub(super) fn usable(&self, cpu: u8, va: Va) -> impl Iterator<Item = &Record> {
        self.stale_at(va).filter(move |r| self.may_use(cpu, r))
    }

    /// Address space that the CPU runs.
    fn asid_of(&self, cpu: u8) -> Asid {
        self.options.asids.get(usize::from(cpu)).copied().unwrap_or_default()
    }

    /// The strict oracle: nobody may translate to a frame that is being freed.
    pub(super) fn judge_mapped(&mut self, actor: u8, id: FrameId, kind: FrameKind) {
        let g = self.geometry;
        let pa = self.memory.pa(id);
        if self.is_mapped(id) || self.is_in_mapped_block(id) {
            self.violate(Invariant::NoUseOfFreedFrame, actor, pa.0, "a frame is freed while it is mapped");
        }
        let mut alone = false;
        let stale = self.stale.iter().find_map(|r| match g.kind(r.value, r.level) {
            Kind::Table(next) if next == pa => {
                alone = self.holders_of(r) == 1 << AGENT;
                Some((r.va, Invariant::NoStaleWalkCache))
            }
            Kind::Page(out) | Kind::Block(out) if pa.since(out) < g.entry_span(r.level) && !self.is_linear(r.va) => {
                Some((r.va, Invariant::NoStaleTranslation))
            }
            _ => None,
        });
        match stale {
            Some((va, Invariant::NoStaleWalkCache)) => {
                let message = match alone {
                    true => "a table is freed while an IOMMU's walk cache, which no TLBI reaches, may still lead to it",
                    false => "a table is freed while a walk cache may still lead to it",
                };
                self.violate(Invariant::NoStaleWalkCache, actor, va.0, message);
            }
            Some((va, invariant)) if kind != FrameKind::Table => {
                self.violate(invariant, actor, va.0, "a frame is freed while a TLB may still translate to it");
            }
            _ => {}
        }
    }
}

fn held_by_agent(s: u64) -> bool {
    s >> AGENT & 1 != 0 && state::writer(s).is_none()
}

/// A context synchronisation ends it: an old invalid entry whose successor is published, or what is invalidated.
fn ends(r: &Record, s: u64) -> bool {
    (!r.value.is_valid() && state::writer(s).is_none()) || s & state::UNSYNCHRONIZED != 0
}

/// The record translates `va`.
fn spans(g: &Geometry, r: &Record, va: Va) -> bool {
    va.since(r.va) < g.entry_span(r.level)
}

/// The invalidate reaches the record. A last-level operation does not reach table entries.
pub(super) fn covers(g: &Geometry, r: &Record, op: Tlbi) -> bool {
    let here = op.pages().is_none_or(|(va, pages)| {
        // The operand is a page number.
        let va = va.align_down(g.page_size());
        let bytes = u64::from(pages) << g.page_shift();
        // Of no pages, a range reaches nothing.
        pages != 0 && (spans(g, r, va) || r.va.since(va) < bytes)
    });
    here && op.matches(r.asid) && !(op.is_last_level() && matches!(g.kind(r.value, r.level), Kind::Table(_)))
}
