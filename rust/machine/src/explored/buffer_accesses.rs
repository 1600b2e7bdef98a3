//! Access sets of what store buffers add to operations, and of commits.

use vmemmap_arch::Desc;

use super::accesses::Touch;
use super::memory::{SlotId, offset};
use super::place::MAX_ACTORS;
use super::waiting::{Store, Target, Waiting};
use super::world::World;
use crate::op::Op;

impl World {
    /// Whether the actor's operation can go depends on its CPU's buffer, and what a load finds there. While it is empty
    /// nobody but the CPU itself puts something in.
    #[inline]
    pub(super) fn touch_buffer(&self, actor: u8, out: &mut impl Touch) {
        if self.buffers(actor) {
            let cpu = self.cpu_of(actor);
            out.relation_read(self.buffer_cell(cpu), self.buffer_is_empty(cpu));
        }
    }
    pub(super) fn touch_all_buffers(&self, out: &mut impl Touch) {
        for cpu in (0..MAX_ACTORS).filter(|cpu| self.buffered >> cpu & 1 != 0) {
            out.relation_read(self.buffer_cell(cpu), self.buffer_is_empty(cpu));
        }
    }
    /// Whether somebody can reach the frames of late stores decides what a store of an entry does to them.
    pub fn touch_exposed(&mut self, actor: u8, op: &Op, out: &mut impl Touch) {
        if matches!(op, Op::Write { .. } | Op::Swap { .. } | Op::CompareExchange { .. }) && self.buffers(actor) {
            let late: Vec<u32> = self.late_of(self.cpu_of(actor)).collect();
            for number in late {
                if let Store::Word { frame, .. } | Store::Contents { frame, .. } = self.stores.late[number as usize] {
                    out.read(self.memory.cell(frame, offset::NAMED));
                    self.touch_mappers(frame, out);
                }
            }
        }
    }
    /// Of a store that waits, or lets another wait.
    pub fn touch_wait(&mut self, actor: u8, op: &Op, out: &mut impl Touch) {
        self.touch_exposed(actor, op, out);
        if self.waiting_outcomes(actor, op) == 0 {
            return;
        }
        out.write(self.buffer_cell(self.cpu_of(actor)));
        for target in self.late_for(actor, op) {
            match target {
                Target::Table(table) => {
                    let Some(store) = self.late_entries(self.cpu_of(actor), table) else { continue };
                    if let Store::Entries { level, words, .. } = &store {
                        for (index, _) in words {
                            self.touch_entry(actor, SlotId { table, index: *index }, *level, Desc::NONE, out);
                        }
                    }
                    self.touch_store_of(actor, store, out);
                }
                Target::Frame(frame) => self.touch_frame_contents(frame, out),
                Target::Entry(_) | Target::Var(_) => {}
            }
        }
    }
    fn touch_store_of(&mut self, actor: u8, store: Store, out: &mut impl Touch) {
        match store {
            Store::Entry { slot, level, new } => self.touch_entry(actor, slot, level, new, out),
            Store::Entries { table, level, words } => {
                for (index, new) in words {
                    self.touch_entry(actor, SlotId { table, index }, level, new, out);
                }
            }
            Store::Word { frame, index, .. } => self.touch_frame_word(frame, index, true, out),
            Store::Contents { frame, .. } => self.touch_frame_contents(frame, out),
            Store::Var { cell, .. } => out.write(cell),
        }
    }
    /// What happens where nobody can reach is remembered until a barrier: of interest to who shares the CPU.
    #[inline]
    pub(super) fn touch_late(&self, actor: u8, op: &Op, out: &mut impl Touch) {
        if self.buffers(actor) {
            match op {
                Op::Write { .. }
                | Op::Swap { .. }
                | Op::CompareExchange { .. }
                | Op::StoreFrame { .. }
                | Op::FillFrame { .. }
                | Op::CopyFrame { .. }
                | Op::CopyFromVa { .. } => out.write(self.late_cell(self.cpu_of(actor))),
                op if Self::drains(op) => out.write(self.late_cell(self.cpu_of(actor))),
                _ => {}
            }
        }
    }
    /// Of all stores that may commit now.
    pub(super) fn touch_commit(&mut self, actor: u8, out: &mut impl Touch) {
        let cpu = self.cpu_of(actor);
        let buffer = self.buffer_cell(cpu);
        if self.buffer_is_empty(cpu) {
            return out.read(buffer);
        }
        out.write(buffer);
        let all: Vec<Waiting> = self.committable(cpu).map(|(_, w)| w.clone()).collect();
        for Waiting { actor, store } in all {
            self.touch_store_of(actor, store, out);
        }
    }
}
