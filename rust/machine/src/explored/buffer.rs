//! Store buffers: the weak memory of an explored machine (docs/memory-model.md, "Weak memory in `explore`").
//!
//! A plain store may wait in its CPU's buffer. Then it becomes visible, *commits*, as a step of its own: of an actor
//! that stands for the buffer (`Context::StoreBuffer`), at any time, after later stores to other words too. Those to
//! one word commit in order. Barriers and releases wait until the buffer is empty, and so does an access that would
//! fault. What a CPU does to a word of its own that waits, but for a load, waits too.
//!
//! Stores to what nobody can reach yet (a table that is linked nowhere, a frame that is mapped nowhere) happen at once,
//! and are remembered until a barrier. The store that makes it reachable then has a choice: those to one such table or
//! frame may be *late*, that is, wait in the buffer still. Nobody could tell before.

use vmemmap_arch::{Barrier, Data, Desc, Frame, Invariant, Kind, Level, Order, Va};

use super::accesses::Touch;
use super::candidates::End;
use super::cells::Cell;
use super::memory::{FrameId, SlotId, offset};
use super::place::{Context, MAX_ACTORS};
use super::stale::Record;
use super::waiting::{STORE_BUFFER, Store, Target, Waiting};
use super::world::World;
use crate::op::{Op, Reply, Tok};

/// Most stores of a CPU since its last barrier that are remembered because one may be late: the entries of a table, and
/// more.
const LATE: Cell = 8192 + 64;

impl World {
    /// Whether stores of the actor's CPU may wait: somebody stands for its buffer.
    #[inline]
    pub(super) const fn buffers(&self, actor: u8) -> bool {
        self.buffered >> self.cpu_of(actor) & 1 != 0
    }

    /// First cell of the buffer, and its location. The oldest store comes first.
    #[inline]
    pub(super) fn buffer_cell(&self, cpu: u8) -> Cell {
        self.fixed.buffers + Cell::from(cpu) * Cell::from(STORE_BUFFER)
    }
    fn waiting_in(&self, cpu: u8) -> impl DoubleEndedIterator<Item = &Waiting> {
        let first = self.buffer_cell(cpu);
        (0..Cell::from(STORE_BUFFER))
            .map(move |n| self.memory.cells.get(first + n))
            .filter_map(|word| self.stores.all.get((word as usize).checked_sub(1)?))
    }
    #[inline]
    pub(super) fn buffer_is_empty(&self, cpu: u8) -> bool {
        self.memory.cells.get(self.buffer_cell(cpu)) == 0
    }
    /// Whether no store waits anywhere.
    #[must_use]
    pub fn buffers_are_empty(&self) -> bool {
        self.buffered == 0 || (0..MAX_ACTORS).all(|cpu| self.buffer_is_empty(cpu))
    }
    /// The buffer of the actor's CPU has nothing to commit.
    #[must_use]
    pub fn has_drained(&self, actor: u8) -> bool {
        self.buffer_is_empty(self.cpu_of(actor))
    }
    fn entry_waits(&self, cpu: u8, slot: SlotId) -> bool {
        self.waiting_in(cpu).any(|w| w.store.entry(slot).is_some())
    }
    fn waits_in(&self, cpu: u8, target: Target) -> bool {
        self.waiting_in(cpu).any(|w| w.store.target() == target)
    }
    /// The own last store to the word, if it waits.
    pub(super) fn forwarded_entry(&self, actor: u8, slot: SlotId) -> Option<Desc> {
        if !self.buffers(actor) {
            return None;
        }
        self.waiting_in(self.cpu_of(actor)).rev().find_map(|w| w.store.entry(slot))
    }
    pub(super) fn forwarded_var(&self, actor: u8, cell: Cell) -> Option<u64> {
        if !self.buffers(actor) {
            return None;
        }
        self.waiting_in(self.cpu_of(actor)).rev().find_map(|w| match w.store {
            Store::Var { cell: at, value } if at == cell => Some(value),
            _ => None,
        })
    }

    // ---- making a store that waits ----
    /// Whether the store may wait, if it does not make something reachable that has late stores.
    fn is_plain(&self, op: &Op) -> bool {
        match *op {
            Op::Write { at, order: Order::Plain, .. } => {
                self.table_of(at).is_ok_and(|slot| self.reach(slot.table).is_some())
            }
            Op::VarStore { order: Order::Plain, .. } => true,
            _ => false,
        }
    }
    fn has_room(&self, actor: u8) -> bool {
        let room = Cell::from(self.options.store_buffer.clamp(1, STORE_BUFFER));
        self.memory.cells.get(self.buffer_cell(self.cpu_of(actor)) + room - 1) == 0
    }
    /// Outcomes of the operation beyond those that it has in sequentially consistent memory.
    pub(super) fn waiting_outcomes(&self, actor: u8, op: &Op) -> u16 {
        if !self.buffers(actor) || !self.has_room(actor) {
            return 0;
        }
        match self.late_for(actor, op).len() {
            0 => self.is_plain(op).into(),
            n => n as u16,
        }
    }

    /// A store that happens now or waits, which nobody can tell who does not conflict with it.
    pub fn waits_or_not(&mut self, actor: u8, op: &Op) -> bool {
        self.buffers(actor)
            && self.is_plain(op)
            && self.late_for(actor, op).is_empty()
            && !self.is_blocked(actor, op)
            && !self.waits_for_stores(actor, op)
    }

    /// The store waits.
    fn keep(&mut self, actor: u8, store: Store) {
        let number = self.stores.number(Waiting { actor, store });
        let first = self.buffer_cell(self.cpu_of(actor));
        let free = (first..first + Cell::from(STORE_BUFFER)).find(|cell| self.memory.cells.get(*cell) == 0);
        if let Some(cell) = free {
            self.memory.cells.set(cell, u64::from(number) + 1);
        }
    }

    /// The operation takes that one of `waiting_outcomes`. `None`: it happens, as ever, what was late having been put
    /// back.
    pub(super) fn wait(&mut self, actor: u8, op: &Op, outcome: u16) -> Option<Reply> {
        if let Some(target) = self.late_for(actor, op).get(usize::from(outcome)).copied() {
            let after = match target {
                Target::Frame(frame) => {
                    let (template, words) = self.memory.contents(frame);
                    Store::Contents { frame, template, words }
                }
                Target::Table(table) => self.late_entries(self.cpu_of(actor), table)?,
                Target::Entry(_) | Target::Var(_) => return None,
            };
            // All that was stored there since the barrier.
            let late: Vec<u32> = self.late_of(self.cpu_of(actor)).rev().collect();
            for number in late {
                let before = self.stores.late[number as usize].clone();
                if before.target() == target {
                    self.perform_store(actor, before);
                }
            }
            self.keep(actor, after);
            return None;
        }
        match *op {
            Op::Write { at, new, .. } => {
                if let Some(slot) = self.slot_or_violation(actor, at) {
                    self.keep(actor, Store::Entry { slot, level: at.level, new });
                }
            }
            Op::VarStore { var, value, .. } => {
                let cell = self.var_cell(var);
                self.keep(actor, Store::Var { cell, value });
            }
            _ => {}
        }
        Some(Reply::of(0))
    }

    // ---- late stores ----
    /// Cells for them, where CPUs have buffers at all.
    pub(super) fn reserve_late(&mut self) {
        if self.buffered != 0 && self.late == 0 {
            self.late = self.memory.cells.reserve(usize::from(MAX_ACTORS) * LATE as usize);
        }
    }
    pub(super) fn is_late(&self, location: Cell) -> bool {
        self.late != 0 && (self.late..self.late + Cell::from(MAX_ACTORS) * LATE).contains(&location)
    }
    fn late_cell(&self, cpu: u8) -> Cell {
        self.late + Cell::from(cpu) * LATE
    }
    /// The first cell counts them.
    fn late_of(&self, cpu: u8) -> impl DoubleEndedIterator<Item = u32> {
        let first = self.late_cell(cpu);
        let n = self.memory.cells.get(first) as Cell;
        (first + 1..first + 1 + n).map(|cell| self.memory.cells.get(cell) as u32)
    }
    /// Remembers what the store, which is about to happen, changes. Whether somebody can reach a frame is asked when
    /// it is about to be exposed: others may change that.
    pub(super) fn remember(&mut self, actor: u8, after: Store) {
        if !self.buffers(actor) {
            return;
        }
        let before = match after {
            Store::Entry { slot, level, .. } => {
                if self.reach(slot.table).is_some() {
                    return;
                }
                Store::Entries { table: slot.table, level, words: vec![(slot.index, self.memory.desc(slot))] }
            }
            Store::Word { frame, index, .. } => Store::Word { frame, index, value: self.memory.word(frame, index) },
            Store::Contents { frame, .. } => {
                let (template, words) = self.memory.contents(frame);
                Store::Contents { frame, template, words }
            }
            Store::Entries { .. } | Store::Var { .. } => return,
        };
        let first = self.late_cell(self.cpu_of(actor));
        let n = self.memory.cells.get(first) as Cell;
        if n + 1 >= LATE {
            self.overflow = true;
            return;
        }
        let number = self.stores.number_late(before);
        self.memory.cells.set(first + 1 + n, number.into());
        self.memory.cells.set(first, u64::from(n) + 1);
    }
    /// What the entries of a table hold that may be late.
    fn late_entries(&self, cpu: u8, table: FrameId) -> Option<Store> {
        let (mut at, mut words) = (None, Vec::new());
        for number in self.late_of(cpu) {
            if let Store::Entries { table: t, level, words: w } = &self.stores.late[number as usize]
                && *t == table
            {
                at = Some(*level);
                words.extend(w.iter().map(|(index, _)| *index));
            }
        }
        words.sort_unstable();
        words.dedup();
        let now = |index| (index, self.memory.desc(SlotId { table, index }));
        Some(Store::Entries { table, level: at?, words: words.into_iter().map(now).collect() })
    }
    /// What the operation makes reachable now is late no more, or waits.
    pub(super) fn expose_late(&mut self, actor: u8, op: &Op) {
        let exposed = self.late_for(actor, op);
        if exposed.is_empty() {
            return;
        }
        let cpu = self.cpu_of(actor);
        let stays = |number: &u32| !exposed.contains(&self.stores.late[*number as usize].target());
        let kept: Vec<u32> = self.late_of(cpu).filter(stays).collect();
        self.forget_late(actor);
        let first = self.late_cell(cpu);
        for (cell, number) in (first + 1..).zip(&kept) {
            self.memory.cells.set(cell, u64::from(*number));
        }
        self.memory.cells.set(first, kept.len() as u64);
    }
    /// Whether some translation, live or stale, leads to the frame.
    fn is_exposed(&self, frame: FrameId) -> bool {
        let (g, pa) = (self.geometry, self.memory.pa(frame));
        let stale = |r: &Record| r.value.is_valid() && pa.since(g.output(r.value)) < g.entry_span(r.level);
        self.is_mapped(frame) || self.stale.iter().any(stale) || self.is_in_mapped_block(frame)
    }
    /// All stores so far are ordered before those to come.
    pub(super) fn forget_late(&mut self, actor: u8) {
        let first = self.late_cell(self.cpu_of(actor));
        for cell in first..=first + self.memory.cells.get(first) as Cell {
            self.memory.cells.set(cell, 0);
        }
    }
    /// Where late stores are that the operation makes reachable.
    fn late_for(&self, actor: u8, op: &Op) -> Vec<Target> {
        let (at, new) = match *op {
            Op::Write { at, new, order: Order::Plain }
            | Op::Swap { at, new, order: Order::Plain | Order::Relaxed | Order::Acquire }
            | Op::CompareExchange { at, new, order: Order::Plain | Order::Relaxed | Order::Acquire, .. } => (at, new),
            _ => return Vec::new(),
        };
        let cpu = self.cpu_of(actor);
        if self.memory.cells.get(self.late_cell(cpu)) == 0 || !new.is_valid() {
            return Vec::new();
        }
        let g = self.geometry;
        let Some(slot) = self.table_of(at).ok().filter(|slot| self.reach(slot.table).is_some()) else {
            return Vec::new();
        };
        if self.memory.desc(slot) == new {
            return Vec::new();
        }
        let exposed = self.memory.find(g.output(new));
        let is_table = matches!(g.kind(new, at.level), Kind::Table(_));
        let below = |table: FrameId| {
            let mut id = Some(table);
            while let Some(at) = id {
                if is_table && Some(at) == exposed {
                    return true;
                }
                id = self.memory.parent(at).map(|slot| slot.table);
            }
            false
        };
        let named = |frame: FrameId| {
            let names = |s: &SlotId| g.output(self.memory.desc(*s)) == self.memory.pa(frame) && below(s.table);
            self.memory.named(frame).iter().any(names)
        };
        let mut found: Vec<Target> = Vec::new();
        for number in self.late_of(cpu) {
            let target = self.stores.late[number as usize].target();
            let reached = match target {
                Target::Table(table) => below(table),
                Target::Frame(frame) => {
                    ((!is_table && Some(frame) == exposed) || named(frame)) && !self.is_exposed(frame)
                }
                Target::Entry(_) | Target::Var(_) => false,
            };
            if reached && !found.contains(&target) {
                found.push(target);
            }
        }
        found
    }

    // ---- committing ----
    /// Places in the buffer of the stores that may commit: the first to each word.
    fn committable(&self, cpu: u8) -> impl Iterator<Item = (usize, &Waiting)> {
        self.waiting_in(cpu)
            .enumerate()
            .filter(move |(n, w)| self.waiting_in(cpu).take(*n).all(|older| older.store.target() != w.store.target()))
    }
    pub(super) fn commit_outcomes(&self, actor: u8) -> u16 {
        self.committable(self.cpu_of(actor)).count() as u16
    }
    /// One of the stores that may commit does. The reply has its number, for `committed`.
    pub(super) fn commit(&mut self, actor: u8, outcome: u16) -> Reply {
        let cpu = self.cpu_of(actor);
        let Some((place, waiting)) = self.committable(cpu).nth(outcome.into()) else { return Reply::of(0) };
        let Waiting { actor, store } = waiting.clone();
        let first = self.buffer_cell(cpu) + place as Cell;
        let number = self.memory.cells.get(first);
        let last = self.buffer_cell(cpu) + Cell::from(STORE_BUFFER) - 1;
        for cell in first..last {
            self.memory.cells.set(cell, self.memory.cells.get(cell + 1));
        }
        self.memory.cells.set(last, 0);
        self.perform_store(actor, store);
        Reply::of(number)
    }
    fn perform_store(&mut self, actor: u8, store: Store) {
        match store {
            Store::Entry { slot, level, new } => self.commit_entry(actor, slot, level, new),
            Store::Entries { table, level, words } => {
                for (index, new) in words {
                    self.commit_entry(actor, SlotId { table, index }, level, new);
                }
            }
            Store::Word { frame, index, value } => {
                self.memory.set_word(frame, index, value);
                self.judge_stored(actor, frame);
            }
            Store::Contents { frame, template, words } => {
                self.memory.fill(frame, template);
                for (index, value) in words {
                    self.memory.set_word(frame, index, value);
                }
                self.judge_stored(actor, frame);
            }
            Store::Var { cell, value } => self.memory.cells.set(cell, value),
        }
    }
    /// Contents that an exchange relied on may differ now.
    fn judge_stored(&mut self, actor: u8, frame: FrameId) {
        if !self.stale.is_empty() {
            self.judge_contents(actor, frame);
        }
    }

    /// What the commit that replied `number` was: address, and the word stored.
    #[must_use]
    pub fn committed(&self, number: u64) -> Option<(Option<u64>, u64)> {
        let waiting = self.stores.all.get((number as usize).checked_sub(1)?)?;
        Some(match waiting.store {
            Store::Entries { table, .. } => (Some(self.memory.pa(table).0), 0),
            Store::Entry { slot, level, new } => {
                let va = self
                    .reach(slot.table)
                    .map(|p| p.va.plus(u64::from(slot.index) << self.geometry.level_shift(level)).0);
                (va.or(Some(self.memory.pa(slot.table).0)), new.0)
            }
            Store::Word { frame, value, .. } => (Some(self.memory.pa(frame).0), value),
            Store::Contents { frame, .. } => (Some(self.memory.pa(frame).0), 0),
            Store::Var { value, .. } => (None, value),
        })
    }

    // ---- waiting for it ----
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
        if self.buffer_is_empty(cpu) || matches!(op, Op::Commit) {
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
    fn walk_waits(&self, cpu: u8, va: Va) -> bool {
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
        if self.buffered == 0 || matches!(op, Op::Acquire { .. } | Op::Commit) {
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

    // ---- what others see too early ----
    /// Somebody looks at an entry before what was stored there while nobody could reach its table. Now somebody does.
    pub(super) fn judge_initialised(&mut self, actor: u8, slot: SlotId) {
        if self.waits_elsewhere(actor, |s| matches!(s, Store::Entries { .. }) && s.entry(slot).is_some()) {
            let pa = self.memory.pa(slot.table).0;
            let message = "a table is reachable before an entry that was stored into it";
            self.violate(Invariant::InitialisedBeforeReachable, actor, pa, message);
        }
    }
    /// Somebody reaches a frame by an entry before what was stored there (`index`: only that word is looked at).
    pub(super) fn judge_exposed(&mut self, actor: u8, va: u64, frame: FrameId, index: Option<u16>) {
        let here = |s: &Store| match *s {
            Store::Word { frame: f, index: at, .. } => f == frame && index.is_none_or(|index| index == at),
            Store::Contents { frame: f, .. } => f == frame,
            Store::Entry { .. } | Store::Entries { .. } | Store::Var { .. } => false,
        };
        if self.waits_elsewhere(actor, here) {
            let message = "an entry exposes a frame before what was stored to it";
            self.violate(Invariant::ContentBeforePte, actor, va, message);
        }
    }
    fn waits_elsewhere(&self, actor: u8, what: impl Fn(&Store) -> bool) -> bool {
        let me = self.cpu_of(actor);
        (0..MAX_ACTORS)
            .filter(|cpu| *cpu != me && self.buffered >> cpu & 1 != 0)
            .any(|cpu| self.waiting_in(cpu).any(|w| what(&w.store)))
    }

    // ---- access sets ----
    /// Whether the actor's operation can go depends on its CPU's buffer, and what a load finds there. While it is empty
    /// nobody but the CPU itself puts something in.
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

    fn commit_entry(&mut self, actor: u8, slot: SlotId, level: Level, new: Desc) {
        let old = self.memory.desc(slot);
        // Whoever freed the table meanwhile was told by the search that the store was on its way: a violation.
        if self.memory.life(slot.table).is_freed() {
            let pa = self.memory.pa(slot.table).0;
            self.violate(Invariant::NoWalkOfFreedTable, actor, pa, "a store reaches a freed table page");
            return;
        }
        if old != new {
            self.store_entry(actor, slot, level, old, new);
        }
        if new.is_valid() {
            self.note_read(actor, slot);
        }
    }
}
