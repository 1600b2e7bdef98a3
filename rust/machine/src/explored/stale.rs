//! Stale values: what is kept of each, and which there are.

use rustc_hash::FxHashMap;
use vmemmap_arch::{Asid, Desc, Level, Va};

use super::cells::{ASIDE, Cell, Cells};
use super::memory::SlotId;
use super::place::MAX_ACTORS;

/// Address keys reserved at once.
const ADDRESS_KEYS: Cell = 4096;

/// The walker that no broadcast reaches: an IOMMU that shares the kernel's tables. Its place among the CPUs.
pub(super) const AGENT: u8 = MAX_ACTORS;

/// State of a stale value, in one cell.
pub(super) mod state {
    use crate::explored::stale::AGENT;

    pub const PRESENT: u64 = 1 << 63;
    /// Who may still use it: CPUs from bit 0, and the agent beyond the broadcast.
    pub const HOLDERS: u64 = 0x1ffff;
    /// CPUs that broadcast an invalidate over it.
    pub const INVALIDATED: u32 = 17;
    /// CPUs that invalidated it for themselves.
    pub const INVALIDATED_HERE: u32 = 33;
    /// CPU + 1 that overwrote it and has not done a DSB since.
    const WRITER: u32 = 49;
    const WRITERS: u64 = 0x1f << WRITER;
    /// Without FEAT_ETS2: its invalidate is complete, and who is left of the CPUs has no context synchronisation since.
    pub const UNSYNCHRONIZED: u64 = 1 << 54;
    /// CPU + 1 that overwrote it, for good; only where `World::reaches_own_only`.
    const OWNER: u32 = 55;
    /// Of a valid value: the descriptor was none after it, and that is over. Who uses the value has not seen more.
    pub const BEFORE_NONE: u64 = 1 << 60;

    pub const fn unpublished(cpus: u64, writer: u8) -> u64 {
        PRESENT | cpus | (writer as u64 + 1) << WRITER
    }
    pub const fn is_before_none(s: u64) -> bool {
        s & BEFORE_NONE != 0
    }
    /// CPU whose DSB the walkers still wait for.
    pub const fn writer(s: u64) -> Option<u8> {
        match ((s & WRITERS) >> WRITER).checked_sub(1) {
            Some(cpu) => Some(cpu as u8),
            None => None,
        }
    }
    pub const fn owned_by(s: u64, cpu: u8) -> u64 {
        s | (cpu as u64 + 1) << OWNER
    }
    pub const fn is_owned_by(s: u64, cpu: u8) -> bool {
        s >> OWNER & 0x1f == cpu as u64 + 1
    }
    pub const fn published(s: u64) -> u64 {
        s & !WRITERS
    }
    /// A broadcast invalidate is complete, for all but its own CPU.
    pub const fn unsynchronized(s: u64, own: u64) -> u64 {
        match s & HOLDERS & (own | 1 << AGENT) {
            0 => 0,
            left if left & own == 0 => PRESENT | left,
            left => s & !(HOLDERS | own << INVALIDATED) | left | UNSYNCHRONIZED,
        }
    }
    /// A broadcast invalidate is complete.
    pub const fn beyond_broadcast(s: u64) -> u64 {
        let agent = s & 1 << AGENT;
        if agent == 0 { 0 } else { PRESENT | agent }
    }
    pub const fn not_invalidated(s: u64) -> u64 {
        s & !(0xffff << INVALIDATED | 0xffff << INVALIDATED_HERE | UNSYNCHRONIZED)
    }
    /// These lose it; without any holder it is gone. Of what the agent alone still holds, no invalidate by a CPU
    /// counts.
    pub const fn without(s: u64, holders: u64) -> u64 {
        match s & HOLDERS & !holders {
            0 => 0,
            left if left == 1 << AGENT => PRESENT | left | s & WRITERS,
            _ => s & !holders,
        }
    }
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
    /// Of a non-global leaf and of a table entry: the address space that may use it.
    pub asid: Option<Asid>,
    pub cell: Cell,
    /// Location only: translations of that address at that level, whatever their table and value.
    pub address_key: Cell,
}

/// What makes a record: the value of a descriptor at an address, in one address space.
type Key = (SlotId, u64, Va, Option<Asid>);

#[derive(Clone, Debug, Default)]
pub(super) struct Stale {
    records: Vec<Record>,
    pub by_key: FxHashMap<Key, u32>,
    address_keys: FxHashMap<(Level, Va), Cell>,
    next_address_key: Cell,
    address_keys_left: Cell,
    active: Active,
    marked: Active,
    /// `active` as it was at each checkpoint, one after the other.
    kept: Vec<u32>,
}

/// Records whose cell is not 0. Apart, since nearly every operation looks at one half only: a store and a translation
/// end old invalid entries, of which there are few, and what a frame is judged by are the valid.
#[derive(Clone, Debug, Default)]
struct Active {
    valid: Vec<u32>,
    invalid: Vec<u32>,
}

impl Active {
    fn of(&mut self, value: Desc) -> &mut Vec<u32> {
        if value.is_valid() { &mut self.valid } else { &mut self.invalid }
    }
    fn set(&mut self, valid: &[u32], invalid: &[u32]) {
        self.valid.clear();
        self.valid.extend_from_slice(valid);
        self.invalid.clear();
        self.invalid.extend_from_slice(invalid);
    }
}

/// Where a checkpoint's part of `kept` begins, where its invalid entries do, and where it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    start: usize,
    invalid: usize,
    end: usize,
}

impl Stale {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.active.valid.is_empty() && self.active.invalid.is_empty()
    }
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.valid().chain(self.invalid())
    }
    pub fn valid(&self) -> impl Iterator<Item = &Record> {
        self.active.valid.iter().map(|i| &self.records[*i as usize])
    }
    pub fn invalid(&self) -> impl Iterator<Item = &Record> {
        self.active.invalid.iter().map(|i| &self.records[*i as usize])
    }
    /// Stale valid values of one descriptor.
    pub fn of_slot(&self, slot: SlotId) -> impl Iterator<Item = &Record> {
        self.valid().filter(move |r| r.slot == slot)
    }
    pub fn mark(&mut self) {
        self.marked.set(&self.active.valid, &self.active.invalid);
    }
    pub fn undo(&mut self) {
        self.active.set(&self.marked.valid, &self.marked.invalid);
        self.kept.clear();
    }
    pub fn checkpoint(&mut self) -> Kept {
        let start = self.kept.len();
        self.kept.extend_from_slice(&self.active.valid);
        let invalid = self.kept.len();
        self.kept.extend_from_slice(&self.active.invalid);
        Kept { start, invalid, end: self.kept.len() }
    }
    pub fn rollback(&mut self, to: Kept) {
        self.kept.truncate(to.end);
        self.active.set(&self.kept[to.start..to.invalid], &self.kept[to.invalid..]);
    }
    pub fn add_record(&mut self, record: Record) -> u32 {
        let index = self.records.len() as u32;
        self.records.push(record);
        self.by_key.insert((record.slot, record.value.0, record.va, record.asid), index);
        index
    }
    /// Location of the translations that start at `va` at that level: of how they end (see `publication`).
    pub fn address_key(&mut self, cells: &mut Cells, level: Level, va: Va) -> Cell {
        *self.address_keys.entry((level, va)).or_insert_with(|| {
            // Apart from the records, whose even rows a search takes to go on.
            if self.address_keys_left == 0 {
                self.next_address_key = cells.reserve(2 * ADDRESS_KEYS as usize + 2 * ASIDE as usize) + ASIDE;
                self.address_keys_left = ADDRESS_KEYS;
            }
            self.address_keys_left -= 1;
            self.next_address_key += 2;
            self.next_address_key - 2
        })
    }
    /// Records and address keys.
    pub fn numbered(&self) -> usize {
        self.records.len() + self.address_keys.len()
    }
    pub fn cell(&self, index: u32) -> Cell {
        self.records[index as usize].cell
    }
    /// Whether the location is that of a stale value, active or not, or an address key of such.
    pub fn has_location(&self, location: Cell) -> bool {
        self.records.iter().any(|r| r.cell == location)
            || self.address_keys.values().any(|p| (*p..p + 2).contains(&location))
    }
    pub fn address_key_beside(&self, location: Cell) -> Option<Cell> {
        // Cells are handed out in order.
        let at = self.records.binary_search_by_key(&location, |r| r.cell).ok()?;
        Some(self.records[at].address_key)
    }
    pub fn add(&mut self, cells: &mut Cells, index: u32, value: u64) {
        let record = self.records[index as usize];
        if cells.get(record.cell) == 0 {
            self.active.of(record.value).push(index);
        }
        cells.set(record.cell, value);
    }
    pub fn drop_record(&mut self, cells: &mut Cells, key: Key) {
        if let Some(&index) = self.by_key.get(&key) {
            let Record { cell, value, .. } = self.records[index as usize];
            if cells.get(cell) != 0 {
                cells.set(cell, 0);
                self.active.of(value).retain(|i| *i != index);
            }
        }
    }
    /// Applies `change` to the state of each; 0 ends it.
    pub fn update(&mut self, cells: &mut Cells, mut change: impl FnMut(&Record, u64) -> u64) {
        update(&self.records, &mut self.active.valid, cells, &mut change);
        update(&self.records, &mut self.active.invalid, cells, &mut change);
    }
    pub fn update_valid(&mut self, cells: &mut Cells, change: impl FnMut(&Record, u64) -> u64) {
        update(&self.records, &mut self.active.valid, cells, change);
    }
    pub fn update_invalid(&mut self, cells: &mut Cells, change: impl FnMut(&Record, u64) -> u64) {
        update(&self.records, &mut self.active.invalid, cells, change);
    }
}

fn update(records: &[Record], active: &mut Vec<u32>, cells: &mut Cells, mut change: impl FnMut(&Record, u64) -> u64) {
    let mut over = false;
    for i in active.iter() {
        let record = &records[*i as usize];
        let old = cells.get(record.cell);
        let new = change(record, old);
        if new != old {
            cells.set(record.cell, new);
            over |= new == 0;
        }
    }
    if over {
        active.retain(|i| cells.get(records[*i as usize].cell) != 0);
    }
}

/// Location of the values at an address being published as gone.
pub(super) const fn publication(address_key: Cell) -> Cell {
    address_key + 1
}

/// The value that hardware sees: an entry that is not valid is as good as none.
pub(super) fn seen(desc: Desc) -> Desc {
    if desc.is_valid() { desc } else { Desc::NONE }
}

/// How a CPU comes to know the value of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sight {
    Translated,
    Read,
    Written,
}

/// The store that made the entry valid has been seen from memory, where it has happened then: all that is done from
/// here on comes after it. A walk is not served from a store buffer, nor is a load by another CPU than the writer. (Who
/// faults all the same, having done nothing since, might have done so before.) Without FEAT_ETS2, who stores there too
/// counts as one that has seen it: its DSB is one for both.
pub(super) const fn is_everywhere(sight: Sight, cpu: u8, s: u64, ets2: bool) -> bool {
    let own = matches!(state::writer(s), Some(writer) if writer == cpu);
    match sight {
        Sight::Translated => true,
        Sight::Read => !own,
        Sight::Written => !own && !ets2,
    }
}
