//! Frames of an explored machine: what each is, its generation, its words.
//!
//! A frame gets a number the first time anybody names it and keeps it for the life of the machine, as do its cells.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use vmemmap_arch::{Desc, FrameKind, Geometry, Pa, Template};

use super::cells::{Cell, Cells};
use crate::op::Tok;

/// Number of a frame.
pub type FrameId = u32;

/// A descriptor's place: table frame and index there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SlotId {
    pub table: FrameId,
    pub index: u16,
}

/// What a frame is, in one cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Life(pub u64);

impl Life {
    const ALLOCATED: u64 = 1 << 4;
    const FREED: u64 = 1 << 5;
    const RESERVED: u64 = 1 << 6;
    const SELF_HOSTED: u64 = 1 << 7;

    #[must_use]
    pub const fn allocated(self, kind: FrameKind, order: u8, reserved: bool, self_hosted: bool) -> Self {
        let flags = if reserved { Self::RESERVED } else { 0 } | if self_hosted { Self::SELF_HOSTED } else { 0 };
        Self(kind as u64 | Self::ALLOCATED | flags | (order as u64) << 16 | (self.generation() as u64 + 1) << 32)
    }
    /// Returned to the allocator; the generation stays, so that handles to it are recognised.
    #[must_use]
    pub const fn freed(self) -> Self {
        Self((self.0 & !Self::ALLOCATED) | Self::FREED)
    }
    /// Free, and may be claimed again (HugeTLB pages, whose contents nobody looks at).
    #[must_use]
    pub const fn vacant(self) -> Self {
        Self(self.0 & !(Self::ALLOCATED | 0xf))
    }
    #[must_use]
    pub const fn with_order(self, order: u8) -> Self {
        Self((self.0 & !(0xff << 16)) | (order as u64) << 16)
    }
    #[must_use]
    #[inline]
    pub const fn is_allocated(self) -> bool {
        self.0 & Self::ALLOCATED != 0
    }
    #[must_use]
    #[inline]
    pub const fn is_freed(self) -> bool {
        self.0 & Self::FREED != 0
    }
    #[must_use]
    pub const fn is_reserved(self) -> bool {
        self.0 & Self::RESERVED != 0
    }
    #[must_use]
    pub const fn is_self_hosted(self) -> bool {
        self.0 & Self::SELF_HOSTED != 0
    }
    #[must_use]
    #[inline]
    pub const fn is(self, kind: FrameKind) -> bool {
        self.0 & 0xf == kind as u64
    }
    #[must_use]
    pub const fn kind(self) -> Option<FrameKind> {
        match self.0 & 0xf {
            1 => Some(FrameKind::Table),
            2 => Some(FrameKind::Vmemmap),
            3 => Some(FrameKind::Huge),
            4 => Some(FrameKind::Data),
            _ => None,
        }
    }
    /// Of the run that it was allocated as.
    #[must_use]
    pub const fn order(self) -> u8 {
        (self.0 >> 16) as u8
    }
    #[must_use]
    #[inline]
    pub const fn generation(self) -> Tok {
        (self.0 >> 32) as Tok
    }
}

/// Cells of a frame, by offset from its first.
pub mod offset {
    pub const LIFE: u32 = 0;
    pub const TEMPLATE: u32 = 1;
    /// Of a table: place of the entry that links it, + 1, shifted left by one; bit 0: was ever reachable.
    pub const PARENT: u32 = 2;
    /// Frame last copied to, + 1.
    pub const COPIED: u32 = 3;
    /// Location only: who maps the frame.
    pub const MAPPED: u32 = 4;
    /// Location only: the contents as a whole.
    pub const CONTENTS: u32 = 5;
    /// Location only: whether an entry outside the linear map names the frame as its output.
    pub const NAMED: u32 = 6;
    /// Location only: the contents, as far as stale translations are compared by them.
    pub const COMPARED: u32 = 7;
    /// Location only: which stale translations name the frame.
    pub const STALE: u32 = 8;
    /// Location only: the runs of this frame and of those that share a PMD entry with it.
    pub const RUN: u32 = 9;
    pub const COUNT: usize = 10;
}

#[derive(Clone, Debug)]
struct FrameCells {
    pfn: u64,
    first: Cell,
    /// First of the table words; `Cell::MAX` until it was a table.
    table: Cell,
    /// Every place that ever held a descriptor naming this frame as the start of its output.
    named: Vec<SlotId>,
    /// Words that ever differed from the template.
    words: Vec<u16>,
    /// Words that ever were stored where they may get lost.
    risky: Vec<u16>,
}

/// Page frame number to frame: two array lookups for ordinary addresses, a hash map for wild ones.
#[derive(Clone, Debug, Default)]
struct FrameIndex {
    /// Where each chunk of page frame numbers starts in `frames`, + 1.
    chunks: Vec<u32>,
    /// `FrameId` + 1.
    frames: Vec<u32>,
    wild: FxHashMap<u64, FrameId>,
}

/// log2 of the page frame numbers in a chunk.
const CHUNK: u32 = 9;
/// Chunks that may get an array slot: 2^29 frames.
const MAX_CHUNKS: u64 = 1 << 20;

impl FrameIndex {
    #[inline]
    fn get(&self, pfn: u64) -> Option<FrameId> {
        let chunk = pfn >> CHUNK;
        if chunk >= MAX_CHUNKS {
            return self.wild.get(&pfn).copied();
        }
        let start = self.chunks.get(chunk as usize)?.checked_sub(1)?;
        self.frames[start as usize + (pfn & ((1 << CHUNK) - 1)) as usize].checked_sub(1)
    }
    fn insert(&mut self, pfn: u64, id: FrameId) {
        let chunk = pfn >> CHUNK;
        if chunk >= MAX_CHUNKS {
            self.wild.insert(pfn, id);
            return;
        }
        let chunk = chunk as usize;
        if chunk >= self.chunks.len() {
            self.chunks.resize(chunk + 1, 0);
        }
        if self.chunks[chunk] == 0 {
            self.chunks[chunk] = self.frames.len() as u32 + 1;
            self.frames.resize(self.frames.len() + (1 << CHUNK), 0);
        }
        self.frames[self.chunks[chunk] as usize - 1 + (pfn & ((1 << CHUNK) - 1)) as usize] = id + 1;
    }
}

#[derive(Clone, Debug)]
pub struct Memory {
    pub cells: Cells,
    page_shift: u32,
    entries: usize,
    by_pfn: FrameIndex,
    in_order: BTreeMap<u64, FrameId>,
    frames: Vec<FrameCells>,
    overlay: FxHashMap<u64, Cell>,
    risk: FxHashMap<u64, Cell>,
    naming: rustc_hash::FxHashSet<(SlotId, FrameId)>,
}

impl Memory {
    #[must_use]
    pub fn new(geometry: &Geometry) -> Self {
        Self {
            cells: Cells::default(),
            page_shift: geometry.page_shift(),
            entries: geometry.entries(),
            by_pfn: FrameIndex::default(),
            in_order: BTreeMap::new(),
            frames: Vec::new(),
            overlay: FxHashMap::default(),
            risk: FxHashMap::default(),
            naming: rustc_hash::FxHashSet::default(),
        }
    }
    #[must_use]
    #[inline]
    pub fn find(&self, pa: Pa) -> Option<FrameId> {
        self.by_pfn.get(pa.0 >> self.page_shift)
    }
    /// The frame's number, given now if it has none.
    pub fn frame(&mut self, pa: Pa) -> FrameId {
        let pfn = pa.0 >> self.page_shift;
        if let Some(id) = self.by_pfn.get(pfn) {
            return id;
        }
        let id = self.frames.len() as FrameId;
        let first = self.cells.reserve(offset::COUNT);
        self.frames.push(FrameCells {
            pfn,
            first,
            table: Cell::MAX,
            named: Vec::new(),
            words: Vec::new(),
            risky: Vec::new(),
        });
        self.by_pfn.insert(pfn, id);
        self.in_order.insert(pfn, id);
        id
    }
    /// How many frames have a number; they are counted from 0.
    #[must_use]
    pub fn frames(&self) -> FrameId {
        self.frames.len() as FrameId
    }
    #[must_use]
    #[inline]
    pub fn pa(&self, id: FrameId) -> Pa {
        Pa(self.frames[id as usize].pfn << self.page_shift)
    }
    #[must_use]
    #[inline]
    pub fn cell(&self, id: FrameId, offset: u32) -> Cell {
        self.frames[id as usize].first + offset
    }
    #[must_use]
    #[inline]
    pub fn life(&self, id: FrameId) -> Life {
        Life(self.cells.get(self.cell(id, offset::LIFE)))
    }
    pub fn set_life(&mut self, id: FrameId, life: Life) {
        self.cells.set(self.cell(id, offset::LIFE), life.0);
    }
    /// Generation that a handle to this address carries; 0 for memory that nobody allocated.
    #[must_use]
    #[inline]
    pub fn generation(&self, pa: Pa) -> Tok {
        self.find(pa).map_or(0, |id| self.life(id).generation())
    }
    /// Numbered frames in `[start, end)` of page frame numbers, ascending.
    pub fn numbered(&self, start: u64, end: u64) -> impl DoubleEndedIterator<Item = (u64, FrameId)> + '_ {
        self.in_order.range(start..end).map(|(p, f)| (*p, *f))
    }

    /// Cells, which frames, tables and words have; and which entries ever named which frame.
    #[must_use]
    pub fn numbered_things(&self) -> usize {
        self.cells.reserved() + self.naming.len()
    }

    // ---- table words ----
    /// Make the frame able to hold descriptors.
    pub fn make_table(&mut self, id: FrameId) {
        if self.frames[id as usize].table == Cell::MAX {
            self.frames[id as usize].table = self.cells.reserve(self.entries);
        }
    }
    #[must_use]
    #[inline]
    pub fn word_cell(&self, slot: SlotId) -> Cell {
        self.frames[slot.table as usize].table + Cell::from(slot.index)
    }
    /// Whether it ever was a table.
    #[must_use]
    pub fn has_words(&self, id: FrameId) -> bool {
        self.frames[id as usize].table != Cell::MAX
    }
    #[must_use]
    #[inline]
    pub fn desc(&self, slot: SlotId) -> Desc {
        Desc(self.cells.get(self.word_cell(slot)))
    }
    #[must_use]
    pub fn table_is_empty(&self, id: FrameId) -> bool {
        self.cells.zeros(self.frames[id as usize].table, self.entries) == self.entries
    }
    /// The entry that links this table.
    #[must_use]
    pub fn parent(&self, id: FrameId) -> Option<SlotId> {
        let word = self.cells.get(self.cell(id, offset::PARENT)) >> 1;
        let slot = word.checked_sub(1)?;
        Some(SlotId { table: (slot >> 16) as FrameId, index: slot as u16 })
    }
    pub fn set_parent(&mut self, id: FrameId, parent: Option<SlotId>, reachable: bool) {
        let cell = self.cell(id, offset::PARENT);
        let was = self.cells.get(cell) & 1;
        let slot = parent.map_or(0, |s| (u64::from(s.table) << 16 | u64::from(s.index)) + 1);
        self.cells.set(cell, slot << 1 | was | u64::from(reachable));
    }
    #[must_use]
    pub fn was_reachable(&self, id: FrameId) -> bool {
        self.cells.get(self.cell(id, offset::PARENT)) & 1 != 0
    }
    /// Note that `slot` holds a descriptor whose output (or next table) starts at this frame.
    pub fn note_named(&mut self, id: FrameId, slot: SlotId) {
        if self.naming.insert((slot, id)) {
            self.frames[id as usize].named.push(slot);
        }
    }
    #[must_use]
    pub fn named(&self, id: FrameId) -> &[SlotId] {
        &self.frames[id as usize].named
    }

    // ---- data words ----
    #[must_use]
    pub fn template(&self, id: FrameId) -> Template {
        Template::from_bits(self.cells.get(self.cell(id, offset::TEMPLATE)))
    }
    /// Cell of the difference to the template, if the word ever differed.
    #[must_use]
    #[inline]
    pub fn find_word(&self, id: FrameId, index: u16) -> Option<Cell> {
        self.overlay.get(&key(id, index)).copied()
    }
    /// The same, made now if there is none.
    pub fn word_location(&mut self, id: FrameId, index: u16) -> Cell {
        if let Some(cell) = self.find_word(id, index) {
            return cell;
        }
        let cell = self.cells.reserve(1);
        self.overlay.insert(key(id, index), cell);
        self.frames[id as usize].words.push(index);
        cell
    }
    /// Whether the location is one of the frame's words that ever differed from the template.
    #[must_use]
    pub fn is_word(&self, id: FrameId, location: Cell) -> bool {
        self.frames[id as usize].words.iter().any(|i| self.find_word(id, *i) == Some(location))
    }
    #[must_use]
    #[inline]
    pub fn word(&self, id: FrameId, index: u16) -> u64 {
        self.template(id).word((index & 7) as u8) ^ self.find_word(id, index).map_or(0, |c| self.cells.get(c))
    }
    pub fn set_word(&mut self, id: FrameId, index: u16, value: u64) {
        let difference = value ^ self.template(id).word((index & 7) as u8);
        if difference != 0 || self.find_word(id, index).is_some() {
            let cell = self.word_location(id, index);
            self.cells.set(cell, difference);
        }
    }
    /// Every struct page of the frame reads as `template`.
    pub fn fill(&mut self, id: FrameId, template: Template) {
        for k in 0..self.frames[id as usize].words.len() {
            let index = self.frames[id as usize].words[k];
            let cell = self.word_location(id, index);
            self.cells.set(cell, 0);
        }
        self.cells.set(self.cell(id, offset::TEMPLATE), template.bits());
    }
    pub fn copy(&mut self, from: FrameId, to: FrameId) {
        self.fill(to, self.template(from));
        for k in 0..self.frames[from as usize].words.len() {
            let index = self.frames[from as usize].words[k];
            self.set_word(to, index, self.word(from, index));
        }
        self.cells.set(self.cell(from, offset::COPIED), u64::from(to) + 1);
        self.cells.set(self.cell(to, offset::COPIED), 0);
    }
    /// The template, and the words that differ from it.
    #[must_use]
    pub fn contents(&self, id: FrameId) -> (Template, Vec<(u16, u64)>) {
        let template = self.template(id);
        let mut words: Vec<(u16, u64)> = self.frames[id as usize]
            .words
            .iter()
            .map(|index| (*index, self.word(id, *index)))
            .filter(|(index, word)| *word != template.word((index & 7) as u8))
            .collect();
        words.sort_unstable();
        (template, words)
    }
    #[must_use]
    pub fn same_contents(&self, a: FrameId, b: FrameId) -> bool {
        let (ta, tb) = (self.template(a), self.template(b));
        if ta != tb && (0..8).any(|w| ta.word(w) != tb.word(w)) {
            return false;
        }
        let words = self.frames[a as usize].words.iter().chain(&self.frames[b as usize].words);
        words.into_iter().all(|&i| self.word(a, i) == self.word(b, i))
    }
    /// Frame that holds the last copy made of this one.
    #[must_use]
    pub fn copied_to(&self, id: FrameId) -> Option<FrameId> {
        (self.cells.get(self.cell(id, offset::COPIED))).checked_sub(1).map(|f| f as FrameId)
    }
    /// The word was stored, through the page at `va`, where a remap may lose it (0: settled).
    pub fn set_risk(&mut self, id: FrameId, index: u16, va: u64) {
        let cell = match self.risk.get(&key(id, index)) {
            Some(c) => *c,
            None if va == 0 => return,
            None => {
                let c = self.cells.reserve(1);
                self.risk.insert(key(id, index), c);
                self.frames[id as usize].risky.push(index);
                c
            }
        };
        self.cells.set(cell, va);
    }
    /// A copy was made of the frame as it is: it has every store so far.
    pub fn settle_risks(&mut self, id: FrameId) {
        for k in 0..self.frames[id as usize].risky.len() {
            let index = self.frames[id as usize].risky[k];
            self.set_risk(id, index, 0);
        }
    }
    /// Words at risk and the VA they were stored through.
    pub fn risks(&self, id: FrameId) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.frames[id as usize]
            .risky
            .iter()
            .map(move |&i| (i, self.cells.get(self.risk[&key(id, i)])))
            .filter(|&(_, va)| va != 0)
    }
}

#[inline]
fn key(id: FrameId, index: u16) -> u64 {
    u64::from(id) << 16 | u64::from(index)
}
