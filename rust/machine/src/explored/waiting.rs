//! Stores that wait in a store buffer, by number.

use rustc_hash::FxHashMap;
use vmemmap_arch::{Desc, Level, Template};

use super::cells::Cell;
use super::memory::{FrameId, SlotId};

/// Most stores that may wait in one buffer.
pub const STORE_BUFFER: u8 = 4;

/// A store that its CPU has made and that nobody else sees yet.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Waiting {
    /// Who made it.
    pub actor: u8,
    pub store: Store,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Store {
    Entry {
        slot: SlotId,
        level: Level,
        new: Desc,
    },
    /// Entries of a table that no walk reached when they were stored.
    Entries {
        table: FrameId,
        level: Level,
        words: Vec<(u16, Desc)>,
    },
    Word {
        frame: FrameId,
        index: u16,
        value: u64,
    },
    /// All words of a frame: a template, and what differs from it.
    Contents {
        frame: FrameId,
        template: Template,
        words: Vec<(u16, u64)>,
    },
    Var {
        cell: Cell,
        value: u64,
    },
}

/// What stores are ordered by: those to one commit as they were made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Entry(SlotId),
    Table(FrameId),
    Frame(FrameId),
    Var(Cell),
}

impl Store {
    /// What it leaves in that entry.
    pub fn entry(&self, at: SlotId) -> Option<Desc> {
        match self {
            Store::Entry { slot, new, .. } => (*slot == at).then_some(*new),
            Store::Entries { table, words, .. } if *table == at.table => {
                words.iter().find(|(index, _)| *index == at.index).map(|(_, new)| *new)
            }
            _ => None,
        }
    }
    pub const fn target(&self) -> Target {
        match *self {
            Store::Entry { slot, .. } => Target::Entry(slot),
            Store::Entries { table, .. } => Target::Table(table),
            Store::Word { frame, .. } | Store::Contents { frame, .. } => Target::Frame(frame),
            Store::Var { cell, .. } => Target::Var(cell),
        }
    }
}

/// Each store that ever waited has a number, which the cells of the buffers hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbered {
    pub all: Vec<Waiting>,
    by_content: FxHashMap<Waiting, u32>,
    /// What stores that may be late have replaced.
    pub late: Vec<Store>,
    late_by_content: FxHashMap<Store, u32>,
}

impl Numbered {
    pub fn numbered(&self) -> usize {
        self.all.len() + self.late.len()
    }
    pub fn number(&mut self, waiting: Waiting) -> u32 {
        let next = self.all.len() as u32;
        *self.by_content.entry(waiting).or_insert_with_key(|w| {
            self.all.push(w.clone());
            next
        })
    }
    pub fn number_late(&mut self, late: Store) -> u32 {
        let next = self.late.len() as u32;
        *self.late_by_content.entry(late).or_insert_with_key(|l| {
            self.late.push(l.clone());
            next
        })
    }
}
