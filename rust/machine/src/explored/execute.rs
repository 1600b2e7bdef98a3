//! What each operation does.

use core::ops::Range;

use vmemmap_arch::{Frame, Invariant, Level, Rmw, Slot, Va};

use super::candidates::Access;
use super::cells::Cell;
use super::world::{Links, World};
use crate::op::{Op, Reply, Tok};

impl World {
    /// Executes. `outcome` is below what `outcomes` says now; a blocked operation has no effect.
    pub fn execute(&mut self, actor: u8, op: &Op, outcome: u16) -> Reply {
        if self.is_blocked(actor, op) {
            self.violate(Invariant::LockOrder, actor, 0, "a CPU waits for something that nobody can give");
            return Reply::of(0);
        }
        self.step += 1;
        if !self.early.is_empty() {
            if let Some(held) = self.loaded_early(actor, op) {
                return self.take_early(actor, held);
            }
            self.order_loads(actor, op);
        }
        if self.buffered != 0 {
            if outcome != 0 && self.waiting_outcomes(actor, op) != 0 {
                let ways = self.ways_of(actor, op);
                if outcome >= ways
                    && let Some(reply) = self.wait(actor, op, outcome - ways)
                {
                    return reply;
                }
            }
            match Self::drains(op) {
                true => self.forget_late(actor),
                false => self.expose_late(actor, op),
            }
        }
        if !self.stale.is_empty() && op.releases() {
            self.release_entries(actor);
        }
        match *op {
            Op::Root => Reply { value: self.memory.pa(self.root).0, tok: self.memory.life(self.root).generation() },
            Op::Read { at, .. } => self.read_entry(actor, at),
            // A store is told nothing of what it replaces.
            Op::Write { at, new, .. } => {
                self.write_entry(actor, at, new, false, |_| true);
                Reply::of(0)
            }
            Op::Swap { at, new, .. } => self.write_entry(actor, at, new, true, |_| true),
            Op::CompareExchange { at, old, new, .. } => self.write_entry(actor, at, new, true, |found| found == old),
            Op::Commit => self.commit(actor, outcome),
            Op::LoadEarly => self.perform_early(actor, outcome),
            Op::Load { va, .. } => Reply::of(self.access(actor, va, Access::Load, outcome)),
            Op::Rmw { va, op, .. } => Reply::of(self.access(actor, va, Access::Rmw(op), outcome)),
            Op::Attempt(access) => self.attempt(actor, access, outcome),
            Op::SendIpi { line } => Reply::of(self.send_ipi(actor, line)),
            Op::Alloc(request) => self.alloc(actor, &request, outcome),
            Op::IsReserved { frame } => {
                Reply::of(self.memory.find(frame.pa).is_some_and(|f| self.memory.life(f).is_reserved()).into())
            }
            Op::LoadFrame { frame, index } => self.load_frame(actor, frame, index),
            Op::ListPrevious { frame } => neighbour(self.links.get(&frame.pa.0).and_then(|l| l.previous)),
            Op::ListNext { frame } => neighbour(self.links.get(&frame.pa.0).and_then(|l| l.next)),
            Op::Range { start, bytes, op } => self.range_op(start, bytes, op),
            Op::RangeInUse { start, bytes } => self.range_in_use(start, bytes),
            Op::ClaimSelfHosted { start, frames } => self.claim_self_hosted(start, frames),
            Op::IsSelfHosted { frame } => {
                Reply::of(self.memory.find(frame.pa).is_some_and(|f| self.memory.life(f).is_self_hosted()).into())
            }
            Op::TryAcquire { lock, mode } => Reply::of(self.try_acquire(actor, lock, mode).into()),
            Op::VarLoad { var, .. } | Op::WaitUntil { var, .. } => {
                let cell = self.var_cell(var);
                Reply::of(self.forwarded_var(actor, cell).unwrap_or_else(|| self.memory.cells.get(cell)))
            }
            Op::VarRmw { var, op, .. } => {
                let cell = self.var_cell(var);
                let old = self.memory.cells.get(cell);
                self.memory.cells.set(cell, op.apply(old));
                Reply::of(old)
            }
            Op::SignalPending => Reply::of(self.options.signal_pending.into()),
            Op::Choose { .. } => Reply::of(outcome.into()),
            _ => {
                self.perform(actor, op, outcome);
                Reply::of(0)
            }
        }
    }

    /// Words of the reads that find none, of `entries` in a row from `at` on, up to the first that finds more.
    #[must_use]
    pub fn none_from(&self, at: Slot<Tok>, entries: usize) -> Range<Cell> {
        let Ok(slot) = self.table_of(at) else { return 0..0 };
        let first = self.memory.word_cell(slot);
        let entries = entries.min(self.geometry.entries().saturating_sub(usize::from(slot.index)));
        first..first + self.memory.cells.zeros(first, entries) as Cell
    }

    /// How many invalidates by address, of `pages` in a row from `first` on, reach nothing and are alike in what they
    /// touch: of the linear map, whose leaves are seldom stale, as far as one table maps it.
    #[must_use]
    pub fn unreached_from(&self, first: Va, pages: usize) -> usize {
        let span = self.geometry.entry_span(Level::PMD);
        let table = first.align_down(span);
        if !self.is_linear(first)
            || self
                .stale
                .iter()
                .any(|r| r.va.since(table) < span || table.since(r.va) < self.geometry.entry_span(r.level))
        {
            return 0;
        }
        pages.min(((span - first.since(table)) >> self.geometry.page_shift()) as usize)
    }

    /// Operations that return nothing.
    fn perform(&mut self, actor: u8, op: &Op, outcome: u16) {
        match *op {
            Op::Barrier(barrier) => self.barrier(actor, barrier),
            Op::Tlbi(tlbi) => self.tlbi(actor, tlbi),
            Op::Store { va, value, .. } => {
                self.access(actor, va, Access::Rmw(Rmw::Swap(value)), outcome);
            }
            Op::Fill { va, template } => {
                self.access(actor, va, Access::Fill(template), outcome);
            }
            Op::Speculate { va } => self.speculate(actor, va, "a speculative walk goes through a freed table"),
            Op::IommuWalk { va } => self.iommu_walk(actor, va),
            Op::IommuInvalidate => self.iommu_invalidate(),
            Op::Free { frame, order, kind } => self.free(actor, frame, order, kind),
            Op::SplitFrame { frame, order } => self.split_frame(frame, order),
            Op::SplitRun { frame, order, into } => self.split_run(frame, order, into),
            Op::CopyFrame { from, to } => self.copy_frame(actor, from, to),
            Op::CopyFromVa { from, to } => self.copy_from_va(actor, from, to, outcome),
            Op::FillFrame { frame, template } => self.fill_frame(actor, frame, template),
            Op::StoreFrame { frame, index, value } => self.store_frame(actor, frame, index, value),
            Op::ListLink { before, frame } => {
                self.set_links(frame, |_| Links { previous: before, next: None });
                if let Some(b) = before {
                    self.set_links(b, |l| Links { next: Some(frame), ..l });
                }
            }
            Op::Queue { lock } => self.queue(actor, lock),
            Op::Acquire { lock, mode } => self.acquire(actor, lock, mode),
            Op::Release { lock, mode } => self.release(actor, lock, mode),
            Op::VarAdd { var, n, .. } => {
                let cell = self.var_cell(var);
                self.memory.cells.set(cell, Rmw::FetchAdd(n).apply(self.memory.cells.get(cell)));
            }
            Op::VarStore { var, value, .. } => {
                self.memory.cells.set(self.var_cell(var), value);
            }
            Op::RcuReadLock => self.rcu_lock(actor),
            Op::RcuReadUnlock => self.rcu_unlock(actor),
            Op::RcuSnapshot => self.rcu_snapshot(actor),
            Op::RcuWait => {
                self.memory.cells.set(self.snapshot_cell(actor), 0);
            }
            Op::IrqDisable => self.irq(actor, true),
            Op::IrqEnable => self.irq(actor, false),
            Op::InterruptEnter => self.interrupt_enter(actor),
            Op::InterruptExit => self.interrupt_exit(actor),
            Op::StopMachineBegin => self.stop_machine(actor),
            Op::StopMachineEnd => self.restart_machine(actor),
            Op::MemoryGone { start, bytes } => self.memory_gone(actor, start, bytes),
            Op::Warn { what, address, message } => self.violate(what, actor, address, message),
            Op::ExpectStable { on } => self.expect_stable(actor, on),
            Op::Exclusive { what, begin } => self.exclusive(actor, what, begin),
            _ => {}
        }
    }
}

fn neighbour(frame: Option<Frame<Tok>>) -> Reply {
    frame.map_or(Reply::NOTHING, Reply::frame)
}
