//! Which locations an operation would read and write if it executed now.
//!
//! Two operations of different actors whose access sets do not conflict commute. Most locations are the cells
//! themselves; a few stand for a relation ("who maps this frame"). Where several operations change such a relation in
//! ways that commute, their accesses are *commuting updates*; or they *read* it, and the one that looks at the outcome
//! *writes* it.
//!
//! What an operation looks at may itself depend on the state. Invisible operations run ahead of others, so two that do
//! not commute in one state must conflict in all states that others' steps can lead to from there: whatever decides
//! *where* an operation looks is in its access set too. For stale translations, which come and go, these are the
//! address keys (`Record::address_key`).

use vmemmap_arch::{Barrier, Desc, Frame, FrameKind, Kind, Level, Mode, Pa, RangeOp, Slot, Tlbi, Va};

use super::candidates::{End, Output};
use super::cells::Cell;
use super::memory::{FrameId, SlotId, offset};
use super::options::Conflict;
use super::stale::{Sight, publication, seen};
use super::world::World;
use crate::op::{Op, Tok};

/// Takes in the locations of one operation.
pub trait Touch {
    fn read(&mut self, location: u32);
    fn write(&mut self, location: u32);
    /// A read that commutes with removals, so that the operation may run ahead all the same. It asks
    ///
    /// * only whether the actor may run at all (who has its CPU, whether everybody is stopped);
    /// * a relation that is empty and that nobody ends before somebody has begun it, by a change of another location
    ///   that the operation reads.
    fn enabledness_read(&mut self, location: u32);
    /// Changes it in a way that commutes with all other commuting updates.
    fn commuting_update(&mut self, location: u32);
    /// Reads a relation; while it is empty, that read commutes with its removal.
    fn relation_read(&mut self, relation: u32, empty: bool) {
        if empty { self.enabledness_read(relation) } else { self.read(relation) }
    }
}

impl World {
    /// Adds what `op` would touch if it executed now.
    pub fn access_set(&mut self, actor: u8, op: &Op, out: &mut impl Touch) {
        if op.is_local() {
            return;
        }
        let fixed = self.fixed;
        if matches!(op, Op::Commit) {
            return self.touch_commit(actor, out);
        }
        if matches!(op, Op::LoadEarly) {
            return self.touch_load_early(actor, out);
        }
        self.touch_control(actor, op, out);
        self.touch_buffer(actor, out);
        self.touch_late(actor, op, out);
        self.touch_early(actor, op, out);
        if self.options.orders_faults() && op.releases() {
            self.touch_maintenance(actor, true, out);
            self.touch_barrier(actor, Barrier::SmpWmb, out);
        }
        let op = match *op {
            Op::Attempt(access) => super::attempt::unhandled(access),
            plain => plain,
        };
        match op {
            Op::Attempt(_) => {}
            Op::Read { at, .. } => {
                if let Some((slot, desc)) = self.touch_table(at, out) {
                    out.read(self.memory.word_cell(slot));
                    if desc.is_valid() {
                        self.touch_news(actor, at, Sight::Read, out);
                    }
                }
            }
            Op::Write { at, new, .. } | Op::Swap { at, new, .. } | Op::CompareExchange { at, new, .. } => {
                self.touch_maintenance(actor, false, out);
                self.touch_store(at, new, out);
                self.touch_news(actor, at, Sight::Written, out);
            }
            Op::Barrier(barrier) => {
                let completes = match barrier {
                    Barrier::DsbIsh | Barrier::DsbIshst | Barrier::DsbNsh => true,
                    Barrier::SmpMb | Barrier::SmpWmb => self.options.orders_faults(),
                    Barrier::SmpRmb | Barrier::Isb => false,
                };
                self.touch_maintenance(actor, completes, out);
                self.touch_barrier(actor, barrier, out);
            }
            Op::Tlbi(tlbi) => {
                self.touch_maintenance(actor, false, out);
                self.touch_tlbi(actor, tlbi, out);
            }
            Op::Load { va, .. } => self.touch_access(actor, va, out, |w, f, out| {
                out.read(w.memory.cell(f, offset::TEMPLATE));
                let index = w.index_of(va);
                let word = w.memory.word_location(f, index);
                out.read(word);
            }),
            Op::Store { va, .. } | Op::Rmw { va, .. } => self.touch_access(actor, va, out, |w, f, out| {
                out.read(w.memory.cell(f, offset::TEMPLATE));
                out.read(w.memory.cell(f, offset::CONTENTS));
                w.touch_judged(f, out);
                let index = w.index_of(va);
                let word = w.memory.word_location(f, index);
                out.write(word);
                if let Some(copy) = w.memory.copied_to(f) {
                    // Whether it is mapped by then.
                    out.write(w.memory.cell(copy, offset::MAPPED));
                    w.touch_mappers(copy, out);
                    let word = w.memory.word_location(copy, index);
                    out.read(word);
                    out.read(w.memory.cell(copy, offset::TEMPLATE));
                }
            }),
            Op::Fill { va, .. } => self.touch_access(actor, va, out, |w, f, out| {
                out.write(w.memory.cell(f, offset::TEMPLATE));
                out.write(w.memory.cell(f, offset::CONTENTS));
                w.touch_judged(f, out);
            }),
            Op::IommuInvalidate => {
                // What is published as gone by the time that it executes.
                out.read(self.fixed.stale);
                for r in self.stale.iter().filter(|r| self.at_agent(r)) {
                    out.read(publication(r.address_key));
                    if !self.is_unpublished(r) {
                        self.touch_end(r, out);
                    }
                }
            }
            Op::IommuWalk { .. } if !self.options.iommu => {}
            Op::IommuWalk { va } | Op::Speculate { va } => self.touch_access(actor, va, out, |_, _, _| ()),
            Op::Alloc(request) => {
                match request.at {
                    Some(at) if request.kind == FrameKind::Huge => self.touch_run(at, request.order, out),
                    None if request.kind != FrameKind::Huge && !self.allocator.pools.is_empty() => {}
                    _ => out.write(fixed.runs),
                }
                if self.options.alloc_failures != 0 {
                    out.write(fixed.failures);
                }
            }
            Op::Free { frame, order, kind } => self.touch_free(frame, order, kind, out),
            Op::SplitRun { .. } => out.write(fixed.runs),
            Op::CopyFrame { from, to } => {
                self.touch_copy_target(to, out);
                let from = self.memory.frame(from.pa);
                self.touch_copy_source(from, out);
            }
            Op::FillFrame { frame, .. } => self.touch_copy_target(frame, out),
            Op::CopyFromVa { from, to } => {
                self.touch_copy_target(to, out);
                self.touch_access(actor, from, out, |w, f, out| w.touch_copy_source(f, out));
            }
            Op::LoadFrame { frame, index } => self.touch_linear(frame, index, false, out),
            Op::StoreFrame { frame, index, .. } => self.touch_linear(frame, index, true, out),
            Op::Range { start, bytes, op } => {
                out.write(fixed.runs);
                if matches!(op, RangeOp::Isolate | RangeOp::Offline) {
                    self.touch_lives(start, bytes, out);
                }
            }
            Op::RangeInUse { start, bytes } => {
                out.read(fixed.runs);
                self.touch_lives(start, bytes, out);
            }
            Op::ClaimSelfHosted { .. } => {
                out.write(fixed.runs);
                out.write(fixed.self_hosted);
            }
            Op::IsSelfHosted { .. } => out.read(fixed.self_hosted),
            Op::Queue { lock } => out.commuting_update(self.queue_location(lock)),
            Op::Acquire { lock, mode: Mode::Write }
            | Op::TryAcquire { lock, mode: Mode::Write }
            | Op::Release { lock, mode: Mode::Write } => {
                out.write(self.lock_cell(lock));
                if !matches!(op, Op::Release { .. }) {
                    // Its writer leaves the queue.
                    out.commuting_update(self.queue_location(lock));
                }
                if lock.is_spinlock() {
                    out.write(self.context_cell(actor));
                }
            }
            Op::Acquire { lock, mode: Mode::Read } | Op::TryAcquire { lock, mode: Mode::Read } => {
                out.read(self.lock_cell(lock));
                out.read(self.queue_location(lock));
            }
            Op::Release { lock, mode: Mode::Read } => out.read(self.lock_cell(lock)),
            Op::VarLoad { var, .. } | Op::WaitUntil { var, .. } => {
                out.read(self.var_cell(var));
            }
            Op::VarStore { var, .. } | Op::VarRmw { var, .. } => {
                out.write(self.var_cell(var));
            }
            Op::VarAdd { var, .. } => out.commuting_update(self.var_cell(var)),
            Op::RcuReadLock | Op::RcuReadUnlock => {
                out.read(fixed.rcu_state);
                out.write(self.context_cell(actor));
            }
            // Each has a snapshot of its own: grace periods commute with each other, not with read sections.
            Op::RcuSnapshot | Op::RcuWait => out.commuting_update(fixed.rcu_state),
            Op::IrqDisable | Op::IrqEnable => out.write(self.context_cell(actor)),
            Op::SendIpi { line } => out.write(self.var_cell(line)),
            Op::InterruptEnter => self.touch_interrupt(actor, true, out),
            Op::InterruptExit => self.touch_interrupt(actor, false, out),
            Op::StopMachineBegin | Op::StopMachineEnd => {
                self.touch_all_buffers(out);
                self.touch_stop(actor, out);
            }
            Op::MemoryGone { start, bytes } => {
                out.write(fixed.gone);
                self.linear_records(start, bytes).for_each(|r| out.read(r.cell));
            }
            Op::ExpectStable { .. } => out.write(fixed.stable),
            Op::Exclusive { what, .. } => out.write(self.exclusive_cell(what)),
            Op::Choose { .. } | Op::Commit | Op::LoadEarly => {}
            Op::Root
            | Op::SplitFrame { .. }
            | Op::IsReserved { .. }
            | Op::ListLink { .. }
            | Op::ListPrevious { .. }
            | Op::ListNext { .. }
            | Op::SignalPending
            | Op::Warn { .. }
            | Op::Round { .. } => {}
        }
    }

    /// A DSB publishes the stores and completes the invalidates of its CPU, which may be those of an interrupt or of
    /// the task under it.
    fn touch_maintenance(&self, actor: u8, completes: bool, out: &mut impl Touch) {
        if self.shares_cpu(actor) {
            let location = self.fixed.maintenance + Cell::from(self.cpu_of(actor));
            if completes { out.write(location) } else { out.read(location) }
        }
    }

    /// Whether frames of the range are in use; HugeTLB runs are known by `runs`.
    fn touch_lives(&self, start: Pa, bytes: u64, out: &mut impl Touch) {
        let (first, end) = self.pfns(start, bytes);
        for (_, id) in self.memory.numbered(first, end) {
            out.read(self.memory.cell(id, offset::LIFE));
        }
    }

    fn index_of(&self, va: Va) -> u16 {
        ((va.0 & (self.geometry.page_size() - 1)) >> 3) as u16
    }

    /// The table's life; its slot and descriptor if it may be accessed.
    fn touch_table(&mut self, at: Slot<Tok>, out: &mut impl Touch) -> Option<(SlotId, Desc)> {
        let id = self.memory.frame(at.table);
        out.read(self.memory.cell(id, offset::LIFE));
        let slot = self.table_of(at).ok()?;
        Some((slot, self.memory.desc(slot)))
    }

    /// Whether, and where, walks reach the table.
    fn touch_reach(&self, table: FrameId, out: &mut impl Touch) {
        let mut id = table;
        while id != self.root {
            out.read(self.memory.cell(id, offset::PARENT));
            match self.memory.parent(id) {
                Some(parent) => id = parent.table,
                None => return,
            }
        }
    }

    fn touch_store(&mut self, at: Slot<Tok>, new: Desc, out: &mut impl Touch) {
        if let Some((slot, _)) = self.touch_table(at, out) {
            self.touch_entry_of(slot, at.level, new, out);
        }
    }

    /// A store that is on its way.
    pub(super) fn touch_entry(&mut self, actor: u8, slot: SlotId, level: Level, new: Desc, out: &mut impl Touch) {
        out.read(self.memory.cell(slot.table, offset::LIFE));
        self.touch_entry_of(slot, level, new, out);
        let news = self.stale.invalid().filter(|r| r.slot == slot && self.is_news(actor, r, Sight::Written));
        news.for_each(|r| self.touch_seen(r, out));
    }

    fn touch_entry_of(&mut self, slot: SlotId, level: Level, new: Desc, out: &mut impl Touch) {
        let old = self.memory.desc(slot);
        let g = self.geometry;
        out.write(self.memory.word_cell(slot));
        self.touch_reach(slot.table, out);
        let va = self.reach(slot.table).map(|p| p.va.plus(u64::from(slot.index) << g.level_shift(level)));
        if let Some(va) = va.filter(|va| self.is_linear_leaf(*va, level, old, new)) {
            self.touch_linear_leaf(slot, level, va, old, new, out);
            return;
        }
        // Leaves below, or behind a stale entry, may be of the linear map.
        if matches!(g.kind(old, level), Kind::Table(_)) || va.is_none() {
            out.read(self.fixed.gone);
        }
        if !va.is_some_and(|va| self.is_vmalloc(va)) {
            out.read(self.fixed.stable);
        }
        for desc in [old, new] {
            match g.kind(desc, level) {
                Kind::Table(pa) => {
                    let id = self.memory.frame(pa);
                    out.write(self.memory.cell(id, offset::PARENT));
                    out.read(self.memory.cell(id, offset::MAPPED));
                    out.commuting_update(self.memory.cell(id, offset::NAMED));
                }
                Kind::Page(pa) => {
                    let id = self.memory.frame(pa);
                    out.read(self.memory.cell(id, offset::MAPPED));
                    out.commuting_update(self.memory.cell(id, offset::NAMED));
                }
                // Frames inside look at it when they are freed, and must not conflict with each other for that.
                Kind::Block(pa) => {
                    let id = self.memory.frame(pa);
                    out.write(self.memory.cell(id, offset::MAPPED));
                    out.commuting_update(self.memory.cell(id, offset::NAMED));
                }
                _ => {}
            }
        }
        if let Some(va) = va {
            let address_key = self.address_key_of(level, va);
            // Others end a stale value only once it is published, and then meet the barrier that did that; who may use
            // it meets the entry.
            let alone = !self.stale.iter().any(|r| r.address_key == address_key);
            let fresh = alone && [old, new].iter().all(|value| self.set_of(slot, level, *value).is_none());
            let mut touch = |location| if fresh { out.enabledness_read(location) } else { out.write(location) };
            for value in [seen(old), seen(new)] {
                for asid in self.spaces(level, value) {
                    let index = self.intern(slot, level, value, va, asid);
                    touch(self.stale.cell(index));
                }
            }
            out.relation_read(address_key, fresh);
            // An invalidate of another CPU reaches what was overwritten before it.
            self.touch_retired(address_key, out);
            if let Kind::Table(next) = g.kind(old, level) {
                self.touch_below(next, level.next(), va, out);
            }
        } else {
            for va in self.places_behind_stale(slot, level) {
                let address_key = self.address_key_of(level, va);
                self.touch_retired(address_key, out);
            }
            out.write(self.memory.cell(slot.table, offset::MAPPED));
            self.touch_outdated(slot.table, out);
        }
        // Also where no walk leads from the root: a stale entry may, and then the old value is one to be judged
        // against.
        if old.is_valid() && new.is_valid() {
            for desc in [old, new] {
                self.touch_contents(desc, out);
            }
        }
        if !self.stale.is_empty() {
            self.touch_stale_around(slot, level, new, out);
            self.touch_set(slot, level, new, out);
        }
    }

    fn touch_linear_leaf(&mut self, slot: SlotId, level: Level, va: Va, old: Desc, new: Desc, out: &mut impl Touch) {
        for value in [old, new] {
            if self.set_of(slot, level, value).is_none() {
                continue;
            }
            out.read(self.fixed.gone);
            let address_key = self.address_key_of(level, va);
            self.touch_retired(address_key, out);
            for asid in self.spaces(level, value) {
                let index = self.intern(slot, level, value, va, asid);
                out.write(self.stale.cell(index));
            }
        }
        self.touch_set(slot, level, new, out);
    }

    /// A contiguous entry that comes brings back the stale values of its set.
    fn touch_set(&self, slot: SlotId, level: Level, new: Desc, out: &mut impl Touch) {
        if let Some(set) = self.set_of(slot, level, new) {
            self.stale_in(set).for_each(|r| out.write(r.cell));
        }
    }

    /// The rule compares what lies at both outputs.
    fn touch_contents(&mut self, desc: Desc, out: &mut impl Touch) {
        let id = self.memory.frame(self.geometry.output(desc));
        out.commuting_update(self.memory.cell(id, offset::COMPARED));
    }

    /// Stale values of this slot, and stale entries that lead to its table.
    fn touch_stale_around(&mut self, slot: SlotId, level: Level, new: Desc, out: &mut impl Touch) {
        let g = self.geometry;
        let table = Kind::Table(self.memory.pa(slot.table));
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.clear();
        for r in self.stale.iter() {
            if r.slot == slot {
                out.write(r.cell);
                if r.value.is_valid() && new.is_valid() {
                    outputs.push(Output { desc: r.value, level, pa: 0, live: false, early: false });
                }
            } else if r.level.next() == level && g.kind(r.value, r.level) == table {
                out.read(r.cell);
            }
        }
        for &Output { desc, .. } in &outputs {
            self.touch_contents(desc, out);
        }
        if !outputs.is_empty() {
            self.touch_contents(new, out);
        }
        self.outputs = outputs;
    }

    /// Whether the invalidate conflicts with fewer others where `over_approximate` is on.
    pub fn is_over_approximated(&self, actor: u8, tlbi: Tlbi) -> bool {
        !tlbi.is_local() && !self.shares_cpu(actor)
    }

    /// What is published as gone of the addresses, now or by the time that the operation executes: no invalidate
    /// reaches more.
    fn touch_tlbi(&mut self, actor: u8, tlbi: Tlbi, out: &mut impl Touch) {
        // Of its own CPU alone: nobody else publishes it.
        let own_only = self.reaches_own_only && self.is_over_approximated(actor, tlbi);
        match tlbi.pages() {
            _ if own_only => {}
            Some((va, pages)) => {
                for n in 0..pages {
                    let va = va.plus(u64::from(n) << self.geometry.page_shift());
                    self.touch_address_keys(va, |address_key, out: &mut _| out.read(publication(address_key)), out);
                }
            }
            None => out.read(self.fixed.stale),
        }
        for set in self.sets_reached(tlbi) {
            set.slots().for_each(|slot| out.read(self.memory.word_cell(slot)));
            self.stale_in(set).for_each(|r| out.read(r.cell));
        }
    }

    /// The address keys of all entries that may translate `va`.
    fn touch_address_keys<T: Touch>(&mut self, va: Va, each: impl Fn(Cell, &mut T), out: &mut T) {
        let mut level = self.geometry.top();
        while level <= Level::PTE {
            let start = va.align_down(self.geometry.entry_span(level));
            each(self.address_key_of(level, start), out);
            level = level.next();
        }
    }

    /// Words and frames on every walk that the access, of any CPU or of the agent, may make, then `data` for each frame
    /// it may reach.
    pub(super) fn touch_access<T: Touch>(
        &mut self,
        actor: u8,
        va: Va,
        out: &mut T,
        mut data: impl FnMut(&mut Self, FrameId, &mut T),
    ) {
        let g = self.geometry;
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.clear();
        let mut freed = Vec::new();
        // Whatever may be stale of it, now or by the time that the operation executes.
        let none = self.stale_at(va).next().is_none();
        self.touch_address_keys(va, |address_key, out: &mut T| out.relation_read(address_key, none), out);
        self.for_each_walk(None, va, |table, level, _| {
            let end = self.walk_from(table, level, va, |slot| {
                out.read(self.memory.word_cell(slot));
                out.read(self.memory.cell(slot.table, offset::LIFE));
            });
            match end {
                End::Leaf(desc, level, pa) => outputs.push(Output { desc, level, pa, live: true, early: false }),
                End::FreedTable(pa) => freed.push(pa),
                End::None => {}
            }
        });
        for r in self.stale.iter().filter(|r| va.since(r.va) < g.entry_span(r.level)) {
            out.read(r.cell);
            if self.is_news(actor, r, Sight::Translated) {
                self.touch_seen(r, out);
            }
            if let Kind::Page(pa) | Kind::Block(pa) = g.kind(r.value, r.level) {
                let pa = pa.0 + (va.0 & (g.entry_span(r.level) - 1));
                outputs.push(Output { desc: r.value, level: r.level, pa, live: false, early: false });
            }
        }
        for pa in freed {
            let id = self.memory.frame(Pa(pa));
            out.read(self.memory.cell(id, offset::LIFE));
        }
        let compares = outputs.len() > 1 && self.options.conflict != Conflict::AtWrite;
        for &Output { pa, .. } in &outputs {
            let id = self.memory.frame(Pa(pa));
            out.read(self.memory.cell(id, offset::LIFE));
            data(self, id, out);
            if compares {
                out.commuting_update(self.memory.cell(id, offset::COMPARED));
            }
        }
        self.outputs = outputs;
    }

    /// What lies in the frame changes, and is judged against every stale value that shares it, its own or that of the
    /// entry now.
    ///
    /// If there is none, there will be none before somebody stores an entry that names the frame, or did.
    fn touch_judged(&self, id: FrameId, out: &mut impl Touch) {
        let (named, compared) = (self.memory.cell(id, offset::NAMED), self.memory.cell(id, offset::COMPARED));
        out.read(named);
        let pa = self.memory.pa(id);
        let g = self.geometry;
        let mut none = self.options.conflict == Conflict::AtWrite;
        for r in self.stale.valid().filter(|r| !self.is_linear(r.va)) {
            let live = self.memory.desc(r.slot);
            if g.output(r.value) == pa || (live.is_valid() && g.output(live) == pa) {
                none = false;
                out.read(r.cell);
                out.read(self.memory.word_cell(r.slot));
                for other in [r.value, live].iter().filter_map(|desc| self.memory.find(g.output(*desc))) {
                    out.commuting_update(self.memory.cell(other, offset::COMPARED));
                }
            }
        }
        out.relation_read(compared, none)
    }

    fn touch_copy_source(&mut self, from: FrameId, out: &mut impl Touch) {
        out.read(self.memory.cell(from, offset::LIFE));
        out.read(self.memory.cell(from, offset::TEMPLATE));
        out.write(self.memory.cell(from, offset::CONTENTS));
    }
    fn touch_copy_target(&mut self, to: Frame<Tok>, out: &mut impl Touch) {
        let to = self.memory.frame(to.pa);
        self.touch_frame_contents(to, out);
    }
    pub(super) fn touch_frame_contents(&mut self, to: FrameId, out: &mut impl Touch) {
        out.read(self.memory.cell(to, offset::LIFE));
        out.write(self.memory.cell(to, offset::TEMPLATE));
        out.write(self.memory.cell(to, offset::CONTENTS));
        self.touch_judged(to, out);
    }
    fn touch_linear(&mut self, frame: Frame<Tok>, index: u16, store: bool, out: &mut impl Touch) {
        let id = self.memory.frame(frame.pa);
        self.touch_frame_word(id, index, store, out);
    }
    pub(super) fn touch_frame_word(&mut self, id: FrameId, index: u16, store: bool, out: &mut impl Touch) {
        out.read(self.memory.cell(id, offset::LIFE));
        out.read(self.memory.cell(id, offset::TEMPLATE));
        let word = self.memory.word_location(id, index);
        if store {
            out.write(word);
            out.read(self.memory.cell(id, offset::CONTENTS));
            self.touch_judged(id, out);
        } else {
            out.read(word);
        }
    }

    fn touch_free(&mut self, frame: Frame<Tok>, order: u8, kind: FrameKind, out: &mut impl Touch) {
        if kind == FrameKind::Huge {
            return self.touch_run(frame.pa, order, out);
        }
        for i in 0..1u64 << order {
            let pa = frame.pa.plus(i << self.geometry.page_shift());
            let id = self.memory.frame(pa);
            out.write(self.memory.cell(id, offset::LIFE));
            out.write(self.memory.cell(id, offset::MAPPED));
            self.touch_outdated(id, out);
            if kind == FrameKind::Table {
                out.read(self.memory.cell(id, offset::PARENT));
                // Its entries as well: whoever stores one looks at the table's life.
            } else {
                self.touch_lost_stores(id, out);
            }
            self.touch_mappers(id, out);
        }
    }

    /// Which stale translations name the frame. If none does, none will before somebody changes an entry that names it.
    fn touch_outdated(&self, id: FrameId, out: &mut impl Touch) {
        let (stale, pa) = (self.memory.cell(id, offset::STALE), self.memory.pa(id));
        let named = self.stale.valid().any(|r| self.geometry.output(r.value) == pa);
        out.relation_read(stale, !named)
    }

    /// A run that is known by its address comes or goes. Those of one PMD entry may overlap, others cannot.
    fn touch_run(&mut self, start: Pa, order: u8, out: &mut impl Touch) {
        let span = self.geometry.entry_span(Level::PMD);
        if 1 << order > span >> self.geometry.page_shift() {
            return out.write(self.fixed.runs);
        }
        let id = self.memory.frame(start.align_down(span));
        out.write(self.memory.cell(id, offset::RUN));
        out.commuting_update(self.fixed.runs);
    }

    fn touch_lost_stores(&mut self, id: FrameId, out: &mut impl Touch) {
        out.write(self.memory.cell(id, offset::CONTENTS));
        let at_risk: Vec<(u16, u64)> = self.memory.risks(id).collect();
        for (index, va) in at_risk {
            let end = self.walk_from(self.root, self.geometry.top(), Va(va), |slot| {
                out.read(self.memory.word_cell(slot));
                out.read(self.memory.cell(slot.table, offset::LIFE));
            });
            if let End::FreedTable(pa) = end
                && let Some(table) = self.memory.find(Pa(pa))
            {
                out.read(self.memory.cell(table, offset::LIFE));
            }
            if let Some(now) = self.live_frame(Va(va)) {
                let word = self.memory.word_location(now, index);
                out.read(word);
                out.read(self.memory.cell(now, offset::TEMPLATE));
            }
        }
    }

    /// Who maps the frame now, live or stale.
    pub(super) fn touch_mappers(&self, id: FrameId, out: &mut impl Touch) {
        let g = self.geometry;
        let pa = self.memory.pa(id);
        for slot in self.memory.named(id) {
            if g.output(self.memory.desc(*slot)) == pa {
                out.read(self.memory.word_cell(*slot));
                self.touch_reach(slot.table, out);
            }
        }
        for level in [Level::PMD, Level::PUD] {
            let start = pa.align_down(g.entry_span(level));
            if start != pa
                && let Some(block) = self.memory.find(start)
            {
                out.read(self.memory.cell(block, offset::MAPPED));
                for slot in self.memory.named(block) {
                    out.read(self.memory.word_cell(*slot));
                    self.touch_reach(slot.table, out);
                }
            }
        }
        for r in self.stale.valid().filter(|r| pa.since(g.output(r.value)) < g.entry_span(r.level)) {
            out.read(r.cell);
        }
    }
}
