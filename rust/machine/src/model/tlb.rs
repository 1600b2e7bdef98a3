//! Stale translations: values that a descriptor no longer has and that a CPU may still use.
//!
//! Fills need no events: any CPU may at any time have cached whatever was live. A value becomes stale when it is
//! overwritten, is doomed by a TLB invalidate issued after it was published, and vanishes when the same CPU's DSB
//! completes that invalidate (kernel-semantics §10.1).

use rustc_hash::FxHashMap;
use vmemmap_arch::{Barrier, Desc, FrameKind, Invariant, Kind, Level, Tlbi, Va};

use super::cells::{Cell, Cells};
use super::memory::{FrameId, SlotId};
use super::{ASIDE, World};

/// Most stale values of one descriptor; more make the result inconclusive.
const BOUND: usize = 4;

/// Locations of places reserved at once.
const PLACES: Cell = 4096;

/// State of a stale value, in one cell.
mod state {
    pub const PRESENT: u64 = 1 << 63;
    /// CPUs that may still use it, from bit 0.
    pub const CPUS: u64 = 0xffff;
    /// CPUs that broadcast an invalidate over it.
    pub const DOOMED: u32 = 16;
    /// CPUs that invalidated it for themselves.
    pub const DOOMED_HERE: u32 = 32;
    /// CPU + 1 that overwrote it and has not done a DSB since.
    pub const WRITER: u32 = 48;
}

/// A value that a descriptor had at some address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub slot: SlotId,
    pub level: Level,
    /// First address that the entry translates.
    pub va: Va,
    /// `Desc::NONE`: a walker may still see the entry as it was before it became valid.
    pub value: Desc,
    pub cell: Cell,
    /// Location only: translations of that address at that level, whatever their table and value.
    pub place: Cell,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Stale {
    records: Vec<Record>,
    by_key: FxHashMap<(SlotId, u64, Va), u32>,
    places: FxHashMap<(Level, Va), Cell>,
    next_place: Cell,
    places_left: Cell,
    active: Vec<u32>,
    marked: Vec<u32>,
    /// `active` as it was at each checkpoint, one after the other.
    kept: Vec<u32>,
}

/// Where a checkpoint's part of `kept` begins and ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    start: usize,
    end: usize,
}

impl Stale {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.active.iter().map(|i| &self.records[*i as usize])
    }
    /// Stale valid values of one descriptor.
    pub fn of_slot(&self, slot: SlotId) -> impl Iterator<Item = &Record> {
        self.iter().filter(move |r| r.slot == slot && r.value.is_valid())
    }
    pub fn mark(&mut self) {
        self.marked.clone_from(&self.active);
    }
    pub fn undo(&mut self) {
        self.active.clone_from(&self.marked);
        self.kept.clear();
    }
    pub fn checkpoint(&mut self) -> Kept {
        let start = self.kept.len();
        self.kept.extend_from_slice(&self.active);
        Kept { start, end: self.kept.len() }
    }
    pub fn rollback(&mut self, to: Kept) {
        self.kept.truncate(to.end);
        self.active.clear();
        self.active.extend_from_slice(&self.kept[to.start..]);
    }
    /// Number of the record, given now if it has none.
    pub fn intern(&mut self, cells: &mut Cells, slot: SlotId, level: Level, value: Desc, va: Va) -> u32 {
        if let Some(index) = self.by_key.get(&(slot, value.0, va)) {
            return *index;
        }
        let place = self.place(cells, level, va);
        let index = self.records.len() as u32;
        self.records.push(Record { slot, level, va, value, cell: cells.reserve(1), place });
        self.by_key.insert((slot, value.0, va), index);
        index
    }
    /// Location of the translations that start at `va` at that level.
    pub fn place(&mut self, cells: &mut Cells, level: Level, va: Va) -> Cell {
        *self.places.entry((level, va)).or_insert_with(|| {
            // Apart from the records, whose even rows a search takes to go on.
            if self.places_left == 0 {
                self.next_place = cells.reserve(PLACES as usize + 2 * ASIDE as usize) + ASIDE;
                self.places_left = PLACES;
            }
            self.places_left -= 1;
            self.next_place += 1;
            self.next_place - 1
        })
    }
    pub fn cell(&self, index: u32) -> Cell {
        self.records[index as usize].cell
    }
    /// Whether the location is that of a stale value, active or not, or of a place of such.
    pub fn has_location(&self, location: Cell) -> bool {
        self.records.iter().any(|r| r.cell == location) || self.places.values().any(|p| *p == location)
    }
    fn add(&mut self, cells: &mut Cells, index: u32, value: u64) {
        let cell = self.cell(index);
        if cells.get(cell) == 0 {
            self.active.push(index);
        }
        cells.set(cell, value);
    }
    fn drop_record(&mut self, cells: &mut Cells, slot: SlotId, value: Desc, va: Va) {
        if let Some(&index) = self.by_key.get(&(slot, value.0, va)) {
            let cell = self.cell(index);
            if cells.get(cell) != 0 {
                cells.set(cell, 0);
                self.active.retain(|i| *i != index);
            }
        }
    }
    /// Applies `change` to the state of each; 0 makes it vanish.
    fn update(&mut self, cells: &mut Cells, mut change: impl FnMut(&Record, u64) -> u64) {
        let records = &self.records;
        self.active.retain(|i| {
            let record = &records[*i as usize];
            let new = change(record, cells.get(record.cell));
            cells.set(record.cell, new);
            new != 0
        });
    }
}

/// The value that hardware sees: an entry that is not valid is as good as none.
pub(super) fn seen(desc: Desc) -> Desc {
    if desc.is_valid() { desc } else { Desc::NONE }
}

impl World {
    fn everybody(&self) -> u64 {
        u64::from(self.all_cpus)
    }

    /// `old` is what CPUs may go on using of a reachable entry that now holds `new`.
    pub(super) fn supersede(&mut self, actor: u8, slot: SlotId, level: Level, va: Va, old: Desc, new: Desc) {
        let (old, new) = (seen(old), seen(new));
        if old == new {
            return;
        }
        self.stale.drop_record(&mut self.memory.cells, slot, new, va);
        self.retire(actor, slot, level, va, old);
    }

    /// A value stops being live.
    pub(super) fn retire(&mut self, actor: u8, slot: SlotId, level: Level, va: Va, value: Desc) {
        let writer = u64::from(self.cpu_of(actor)) + 1;
        let state = state::PRESENT | self.everybody() | writer << state::WRITER;
        let index = self.stale.intern(&mut self.memory.cells, slot, level, value, va);
        self.stale.add(&mut self.memory.cells, index, state);
        if self.stale.of_slot(slot).count() > BOUND {
            self.overflow = true;
        }
    }

    /// A store into a table that no walk reaches from the root, but a stale table entry may still lead to.
    pub(super) fn supersede_behind_stale(&mut self, actor: u8, slot: SlotId, level: Level, old: Desc, new: Desc) {
        if self.stale.is_empty() {
            return;
        }
        let g = self.geometry;
        let table = self.memory.pa(slot.table);
        let leads = |r: &&Record| r.level.next() == level && g.kind(r.value, r.level) == Kind::Table(table);
        let offset = u64::from(slot.index) << g.level_shift(level);
        let places: Vec<Va> = self.stale.iter().filter(leads).map(|r| r.va.plus(offset)).collect();
        for va in places {
            for value in [old, new] {
                if value.is_valid() {
                    self.retire(actor, slot, level, va, value);
                }
            }
        }
    }

    pub(super) fn tlbi(&mut self, actor: u8, op: Tlbi) {
        let g = self.geometry;
        let me = 1u64 << self.cpu_of(actor);
        self.stale.update(&mut self.memory.cells, |r, s| {
            if !r.value.is_valid() || s >> state::WRITER & 0xff != 0 || !covers(&g, r, op) {
                return s;
            }
            match op {
                Tlbi::Vmalle1 => s | me << state::DOOMED_HERE,
                _ => s | me << state::DOOMED,
            }
        });
    }

    pub(super) fn barrier(&mut self, actor: u8, barrier: Barrier) {
        if self.stale.is_empty() {
            return;
        }
        let me = 1u64 << self.cpu_of(actor);
        let writer = u64::from(self.cpu_of(actor)) + 1;
        let publish = |r: &Record, s: u64| {
            if s >> state::WRITER & 0xff != writer {
                s
            } else if r.value.is_valid() {
                s & !(0xff << state::WRITER)
            } else {
                0
            }
        };
        let complete_here = |s: u64| {
            if s & me << state::DOOMED_HERE == 0 {
                return s;
            }
            let left = s & !me & !(me << state::DOOMED_HERE);
            if left & state::CPUS == 0 { 0 } else { left }
        };
        let cells = &mut self.memory.cells;
        match barrier {
            Barrier::DsbIshst => self.stale.update(cells, publish),
            Barrier::DsbIsh => self.stale.update(cells, |r, s| if s & me << state::DOOMED != 0 { 0 } else { publish(r, complete_here(s)) }),
            Barrier::DsbNsh => self.stale.update(cells, |_, s| complete_here(s)),
            Barrier::Isb | Barrier::SmpMb | Barrier::SmpRmb | Barrier::SmpWmb => {}
        }
    }

    /// Whether a barrier of that kind would change the record.
    pub(super) fn barrier_touches(&self, actor: u8, barrier: Barrier, r: &Record) -> bool {
        let publishes = self.memory.cells.get(r.cell) >> state::WRITER & 0xff == u64::from(self.cpu_of(actor)) + 1;
        (publishes && matches!(barrier, Barrier::DsbIsh | Barrier::DsbIshst)) || self.barrier_completes(actor, barrier, r)
    }

    /// Whether a barrier of that kind would complete an invalidate of the record.
    pub(super) fn barrier_completes(&self, actor: u8, barrier: Barrier, r: &Record) -> bool {
        let doomed = match barrier {
            Barrier::DsbIsh => (1 << state::DOOMED) | (1 << state::DOOMED_HERE),
            Barrier::DsbNsh => 1 << state::DOOMED_HERE,
            _ => 0,
        };
        self.memory.cells.get(r.cell) & doomed << self.cpu_of(actor) != 0
    }

    /// Stale values that translate `va`, on any CPU.
    pub(super) fn stale_at(&self, va: Va) -> impl Iterator<Item = &Record> {
        let g = self.geometry;
        self.stale.iter().filter(move |r| spans(&g, r, va))
    }
    pub(super) fn may_use(&self, cpu: u8, r: &Record) -> bool {
        self.memory.cells.get(r.cell) >> cpu & 1 != 0
    }
    /// Stale values that translate `va` and that this CPU may use.
    pub(super) fn usable(&self, cpu: u8, va: Va) -> impl Iterator<Item = &Record> {
        self.stale_at(va).filter(move |r| self.may_use(cpu, r))
    }

    /// The strict oracle: nobody may translate to a frame that is being freed.
    pub(super) fn judge_mapped(&mut self, actor: u8, id: FrameId, kind: FrameKind) {
        let g = self.geometry;
        let pa = self.memory.pa(id);
        let mut start = pa;
        let mut live = self.memory.named(id).iter().any(|s| self.names_now(*s, id));
        for level in [Level::PMD, Level::PUD] {
            start = start.align_down(g.entry_span(level));
            if start != pa
                && let Some(block) = self.memory.find(start)
            {
                let maps = |s: &SlotId| self.names_now(*s, block) && g.kind(self.memory.desc(*s), level) == Kind::Block(start);
                live |= self.memory.named(block).iter().any(maps);
            }
        }
        if live {
            self.breach(Invariant::NoUseOfFreedFrame, actor, pa.0, "a frame is freed while it is mapped");
        }
        let stale = self.stale.iter().find_map(|r| match g.kind(r.value, r.level) {
            Kind::Table(next) if next == pa => Some((r.va, Invariant::NoStaleWalkCache)),
            Kind::Page(out) | Kind::Block(out) if pa.since(out) < g.entry_span(r.level) && !self.is_linear(r.va) => {
                Some((r.va, Invariant::NoStaleTranslation))
            }
            _ => None,
        });
        match stale {
            Some((va, Invariant::NoStaleWalkCache)) => {
                self.breach(Invariant::NoStaleWalkCache, actor, va.0, "a table is freed while a walk cache may still lead to it");
            }
            Some((va, invariant)) if kind != FrameKind::Table => {
                self.breach(invariant, actor, va.0, "a frame is freed while a TLB may still translate to it");
            }
            _ => {}
        }
    }
}

/// The record translates `va`.
fn spans(g: &vmemmap_arch::Geometry, r: &Record, va: Va) -> bool {
    va.since(r.va) < g.entry_span(r.level)
}

/// The invalidate reaches the record. A last-level operation does not reach table entries.
pub(super) fn covers(g: &vmemmap_arch::Geometry, r: &Record, op: Tlbi) -> bool {
    match op {
        Tlbi::Vmalle1is | Tlbi::Vmalle1 => true,
        Tlbi::Vaale1is(va) => spans(g, r, va) && !matches!(g.kind(r.value, r.level), Kind::Table(_)),
        Tlbi::Vaae1is(va) => spans(g, r, va),
    }
}
