//! What waits for a store buffer: barriers and releases until it is empty; an access that would fault, and what a CPU
//! does to a word of its own that waits, but for a load, too.

use vmemmap_arch::{Barrier, Data, Frame, Kind, Va};

use super::candidates::End;
use super::memory::SlotId;
use super::place::{Context, MAX_ACTORS};
use super::waiting::{Store, Target};
use super::world::World;
use crate::op::{Op, Tok};

impl World {
    /// Whether the operation waits until all that its CPU has stored is seen by everybody.
    pub(super) fn drains(op: &Op) -> bool {
        op.releases()
            || matches!(
                op,
                Op::Barrier(Barrier::DsbIsh | Barrier::DsbIshst | Barrier::DsbNsh | Barrier::SmpMb | Barrier::SmpWmb)
                    | Op::Free { .. }
                    | Op::SplitRun { .. }
                    | Op::Range { .. }
                    | Op::RangeInUse { .. }
                    | Op::ClaimSelfHosted { .. }
                    | Op::MemoryGone { .. }
                    | Op::IommuInvalidate
                    | Op::SendIpi { .. }
                    | Op::RcuReadUnlock
                    | Op::RcuSnapshot
                    | Op::RcuWait
                    | Op::StopMachineBegin
                    | Op::StopMachineEnd
            )
    }

    /// Whether the operation cannot go before some store of its CPU has committed.
    #[inline]
    pub(super) fn waits_for_stores(&mut self, actor: u8, op: &Op) -> bool {
        if self.buffered == 0 {
            return false;
        }
        let cpu = self.cpu_of(actor);
        if matches!(op, Op::StopMachineBegin) && !self.buffers_are_empty() {
            // The others' stoppers run.
            return true;
        }
        if self.buffer_is_empty(cpu) || matches!(op, Op::Commit | Op::LoadEarly) {
            return false;
        }
        if Self::drains(op) {
            return true;
        }
        let of = |frame: &Frame<Tok>| self.memory.find(frame.pa).map(Target::Frame);
        match op {
            Op::Write { at, .. } | Op::Swap { at, .. } | Op::CompareExchange { at, .. } => {
                self.table_of(*at).is_ok_and(|slot| self.entry_waits(cpu, slot) || self.is_around(cpu, slot))
            }
            Op::VarStore { var, .. } | Op::VarRmw { var, .. } | Op::VarAdd { var, .. } | Op::WaitUntil { var, .. } => {
                self.waits_in(cpu, Target::Var(self.var_cell(*var)))
            }
            Op::StoreFrame { frame, .. } | Op::FillFrame { frame, .. } | Op::LoadFrame { frame, .. } => {
                of(frame).is_some_and(|frame| self.waits_in(cpu, frame))
            }
            Op::CopyFrame { from, to } => [from, to].into_iter().filter_map(of).any(|frame| self.waits_in(cpu, frame)),
            Op::CopyFromVa { from, to } => {
                of(to).is_some_and(|frame| self.waits_in(cpu, frame)) || self.access_waits(cpu, *from)
            }
            Op::Load { va, .. } | Op::Store { va, .. } | Op::Rmw { va, .. } | Op::Fill { va, .. } => {
                self.access_waits(cpu, *va)
            }
            Op::Speculate { va } | Op::IommuWalk { va } | Op::Attempt(Data::Probe { va }) => self.walk_waits(cpu, *va),
            Op::Attempt(Data::Copy { from, to }) => {
                of(to).is_some_and(|frame| self.waits_in(cpu, frame)) || self.access_waits(cpu, *from)
            }
            Op::Attempt(access) => self.access_waits(cpu, access.va()),
            _ => false,
        }
    }

    /// An access that may fault comes after all that its CPU has stored (FEAT_ETS2; without it one fault less is
    /// found), and one to a frame after what waits there.
    fn access_waits(&mut self, cpu: u8, va: Va) -> bool {
        if self.walk_waits(cpu, va) {
            return true;
        }
        let mut faults = false;
        self.gather(cpu, va, |end| faults |= end == End::None);
        faults
            || self.usable(cpu, va).any(|r| r.value.is_none())
            || self.candidates.iter().any(|c| self.waits_in(cpu, Target::Frame(c.frame)))
    }

    /// An own walk comes after the own stores that it meets: so a store to a word that nobody else looks at may as well
    /// happen at once.
    pub(super) fn walk_waits(&self, cpu: u8, va: Va) -> bool {
        let mut waits = false;
        self.for_each_walk(Some(cpu), va, |table, level, _| {
            self.walk_from(table, level, va, |slot| waits |= self.entry_waits(cpu, slot));
        });
        waits
    }

    /// A store of the CPU's waits in a table that hangs below this entry, or in an entry that this one hangs below or
    /// will: the tree is changed in order, as far as one CPU does it.
    fn is_around(&self, cpu: u8, slot: SlotId) -> bool {
        let leads_to = |from: SlotId, to: SlotId| {
            let mut table = from.table;
            while let Some(parent) = self.memory.parent(table) {
                if parent == to {
                    return true;
                }
                table = parent.table;
            }
            false
        };
        let g = self.geometry;
        self.waiting_in(cpu).any(|w| match w.store {
            Store::Entry { slot: at, level, new, .. } => {
                let links = g.kind(new, level) == Kind::Table(self.memory.pa(slot.table));
                leads_to(at, slot) || leads_to(slot, at) || links
            }
            Store::Entries { table, .. } => {
                let at = SlotId { table, index: 0 };
                leads_to(at, slot) || leads_to(slot, at)
            }
            Store::Word { .. } | Store::Contents { .. } | Store::Var { .. } => false,
        })
    }

    /// Actors (bits) that stand for buffers which an operation that is blocked may wait for.
    pub(super) fn awaited_buffers(&self, actor: u8, op: &Op) -> u16 {
        if self.buffered == 0 || matches!(op, Op::Acquire { .. } | Op::Commit | Op::LoadEarly) {
            return 0;
        }
        let all = matches!(op, Op::StopMachineBegin);
        let awaited = |a: &u8| {
            let place = self.places[usize::from(*a)];
            place.context == Context::StoreBuffer
                && (all || place.cpu == self.cpu_of(actor))
                && !self.buffer_is_empty(place.cpu)
        };
        (0..MAX_ACTORS).filter(awaited).fold(0, |m, a| m | 1 << a)
    }
}
