//! What a location of a footprint stands for: for messages, and for the tests that leave a rule out.

use super::World;
use super::cells::Cell;
use super::memory::{FrameId, offset};

/// Sort of a location.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LocationKind {
    /// What a frame is, and its generation.
    Life,
    /// Who maps a frame.
    Mapped,
    /// Place of the entry that links a table.
    Parent,
    /// A frame's contents as a whole: its template, and the frame it was copied to.
    Contents,
    /// Whether a translation names the frame.
    Named,
    /// What the rules compare of a frame.
    Compared,
    /// Which stale translations name the frame.
    Outdated,
    /// A word of a frame.
    Word,
    /// A descriptor.
    Entry,
    /// A stale value of a descriptor.
    Stale,
    /// A lock, its queue included.
    Lock,
    /// What an actor may not do now: sleep, be interrupted.
    Context,
    /// RCU read sections and grace periods.
    Rcu,
    /// Whether all other CPUs are held still.
    Pause,
    /// Who expects that no table changes, and who is where only one may be.
    Promise,
    /// Runs of frames that actors share, and who hosts its own descriptors.
    Runs,
    /// Failures that the environment has left.
    Failures,
    /// A variable of the kernel.
    Var,
    Other,
}

impl World {
    /// What a location of a footprint stands for.
    #[must_use]
    pub fn kind_of(&self, location: u32) -> LocationKind {
        let f = &self.fixed;
        match location {
            l if l < f.context => LocationKind::Lock,
            l if l < f.rcu => LocationKind::Context,
            l if l < f.pause => LocationKind::Rcu,
            l if l == f.pause => LocationKind::Pause,
            l if l < f.failures => LocationKind::Promise,
            l if l == f.failures => LocationKind::Failures,
            l if l == f.runs || l == f.self_hosted => LocationKind::Runs,
            l if l == f.rcu_state => LocationKind::Rcu,
            l if (f.vars..f.vars + self.vars as Cell).contains(&l) => LocationKind::Var,
            l if l == f.stale || self.stale.has_location(l) => LocationKind::Stale,
            l => (0..self.memory.frames()).find_map(|id| self.of_frame(id, l)).unwrap_or(LocationKind::Other),
        }
    }

    /// Of the location of a stale value, that of its address.
    #[must_use]
    pub fn place_beside(&self, location: u32) -> Option<u32> {
        self.stale.place_beside(location)
    }

    fn of_frame(&self, id: FrameId, location: u32) -> Option<LocationKind> {
        let first = self.memory.cell(id, 0);
        if (first..first + offset::COUNT as Cell).contains(&location) {
            return Some(match location - first {
                offset::LIFE => LocationKind::Life,
                offset::MAPPED => LocationKind::Mapped,
                offset::PARENT => LocationKind::Parent,
                offset::NAMED => LocationKind::Named,
                offset::COMPARED => LocationKind::Compared,
                offset::STALE => LocationKind::Outdated,
                offset::RUN => LocationKind::Runs,
                _ => LocationKind::Contents,
            });
        }
        if self.memory.has_words(id) {
            let first = self.memory.word_cell(super::memory::SlotId { table: id, index: 0 });
            if (first..first + self.geometry.entries() as Cell).contains(&location) {
                return Some(LocationKind::Entry);
            }
        }
        self.memory.is_word(id, location).then_some(LocationKind::Word)
    }
}
