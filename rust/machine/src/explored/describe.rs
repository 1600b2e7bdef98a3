//! Operations as people read them: the same words in every run.

use vmemmap_arch::{Desc, Frame, Kind, Level, Pa, Slot, Tlbi, Va};

use super::candidates::End;
use super::cells::Cell;
use super::held::Early;
use super::location::LocationKind;
use super::memory::{FrameId, SlotId, offset};
use super::world::World;
use crate::op::{Op, Tok};

/// One operation in words.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Described {
    /// `write`, `tlbi vaale1is`, `lock`.
    pub op: &'static str,
    /// `pte 0xffff…`, `frame actor 1 #3`, `mem_hotplug_lock`.
    pub place: String,
    pub address: Option<u64>,
    /// Word before the operation, if it looks at one.
    pub old: Option<u64>,
    /// Word that the operation wants to leave there.
    pub new: Option<u64>,
    /// Frames that it is about, the most telling first: the table or frame that it works on (an access: a freed one
    /// that it may meet, else where the live walk ends), then those that the old and the new descriptor lead to.
    pub about: Vec<u64>,
    /// Stores that wait in the CPU's buffer by now.
    pub waiting: usize,
    /// What began earlier and takes effect here, by its number: a load that its CPU has made early.
    pub ends: Option<u64>,
    /// Of such a load: where, and the word that it would find now.
    pub instead: Option<(u64, u64)>,
}

impl World {
    /// What the operation is, and what it finds; call it before executing.
    #[must_use]
    pub fn describe(&self, actor: u8, op: &Op) -> Described {
        let mut d = Described { op: op.name(), ..Described::default() };
        let op = match *op {
            Op::Attempt(access) => &super::attempt::unhandled(access),
            _ => op,
        };
        match *op {
            Op::Read { at, .. } => self.describe_slot(&mut d, at),
            Op::Write { at, new, .. } | Op::Swap { at, new, .. } | Op::CompareExchange { at, new, .. } => {
                self.describe_slot(&mut d, at);
                d.new = Some(new.0);
                d.about.extend(self.leads_to(at.level, new));
            }
            Op::Tlbi(tlbi) => describe_tlbi(&mut d, tlbi),
            Op::Load { va, .. }
            | Op::Speculate { va }
            | Op::IommuWalk { va }
            | Op::Fill { va, .. }
            | Op::Rmw { va, .. } => {
                self.describe_va(&mut d, actor, va, true);
            }
            Op::Store { va, value, .. } => {
                self.describe_va(&mut d, actor, va, true);
                d.new = Some(value);
            }
            Op::Free { frame, .. }
            | Op::IsReserved { frame }
            | Op::IsSelfHosted { frame }
            | Op::SplitFrame { frame, .. }
            | Op::SplitRun { frame, .. }
            | Op::FillFrame { frame, .. }
            | Op::LoadFrame { frame, .. } => {
                self.describe_frame(&mut d, frame);
            }
            Op::StoreFrame { frame, value, .. } => {
                self.describe_frame(&mut d, frame);
                d.new = Some(value);
            }
            Op::CopyFrame { to, from } => {
                self.describe_frame(&mut d, to);
                d.about.push(from.pa.0);
            }
            Op::CopyFromVa { to, from } => {
                self.describe_frame(&mut d, to);
                d.about.extend(self.met_by(actor, from));
            }
            Op::Alloc(request) => d.place = format!("order {} {:?}", request.order, request.kind),
            Op::Range { start, .. }
            | Op::RangeInUse { start, .. }
            | Op::MemoryGone { start, .. }
            | Op::ClaimSelfHosted { start, .. } => {
                d.address = Some(start.0);
                d.place = format!("memory {start}");
            }
            Op::Queue { lock } | Op::Acquire { lock, .. } | Op::TryAcquire { lock, .. } | Op::Release { lock, .. } => {
                d.place = lock.name().into()
            }
            Op::SendIpi { line } => d.place = format!("variable {}", line.0),
            Op::VarLoad { var, .. } | Op::WaitUntil { var, .. } | Op::VarRmw { var, .. } | Op::VarAdd { var, .. } => {
                d.place = format!("variable {}", var.0);
                d.old = Some(self.var(var));
            }
            Op::VarStore { var, value, .. } => {
                d.place = format!("variable {}", var.0);
                (d.old, d.new) = (Some(self.var(var)), Some(value));
            }
            Op::Warn { what, address, message } => {
                d.place = format!("{what}: {message}");
                d.address = Some(address);
            }
            Op::Exclusive { what, .. } => d.place = what.to_string(),
            Op::Choose { why, .. } => d.place = why.into(),
            Op::Commit => d.place = format!("store buffer of CPU {}", self.cpu_of(actor)),
            Op::LoadEarly => d.place = format!("loads of CPU {}", self.cpu_of(actor)),
            Op::RcuWait | Op::StopMachineBegin => d.place = format!("actors {:#x}", self.waits_for(actor, op)),
            _ => {}
        }
        d.waiting = self.waiting_in(self.cpu_of(actor)).count();
        self.describe_early(&mut d, actor, op);
        d
    }

    /// A load that has taken effect already.
    fn describe_early(&self, d: &mut Described, actor: u8, op: &Op) {
        let Some(held) = self.loaded_early(actor, op) else { return };
        d.ends = Some(self.early_number(held));
        d.instead = match held.of {
            Early::Var(var) => Some((0, self.var(var))),
            Early::Word(va) => match self.walk_from(self.root, self.geometry.top(), va, |_| ()) {
                End::Leaf(desc, level, pa) => {
                    let frame = self.memory.find(Pa(pa));
                    if frame.is_some_and(|frame| self.is_held_of(held, frame)) {
                        frame.map(|frame| (va.0, self.memory.word(frame, self.word_index(va))))
                    } else {
                        Some((va.align_down(self.geometry.entry_span(level)).0, desc.0))
                    }
                }
                End::None | End::FreedTable(_) => None,
            },
        };
    }
    /// Stores that wait in the buffer of the actor's CPU, and the number of the last.
    #[must_use]
    pub fn waiting(&self, actor: u8) -> (usize, Option<u64>) {
        let cpu = self.cpu_of(actor);
        let cells = self.buffer_cell(cpu)..;
        let numbers: Vec<u64> =
            cells.take(self.waiting_in(cpu).count()).map(|cell| self.memory.cells.get(cell)).collect();
        (numbers.len(), numbers.last().copied())
    }

    fn describe_slot(&self, d: &mut Described, at: Slot<Tok>) {
        let level = match at.level.0 {
            3 => "pte",
            2 => "pmd",
            1 => "pud",
            0 => "p4d",
            _ => "pgd",
        };
        let slot = self.table_of(at);
        match slot.ok().and_then(|s| self.reach(s.table)) {
            Some(place) => {
                let va = place.va.plus(u64::from(at.index) << self.geometry.level_shift(at.level));
                d.place = format!("{level} {va}");
                d.address = Some(va.0);
            }
            None => {
                d.place = format!("{level}[{}] of {}", at.index, self.frame_name(at.table));
                d.address = Some(at.table.0);
            }
        }
        d.old = slot.ok().map(|s| self.memory.desc(s).0);
        d.about.push(at.table.0);
        d.about.extend(d.old.and_then(|old| self.leads_to(at.level, Desc(old))));
    }

    fn leads_to(&self, level: Level, desc: Desc) -> Option<u64> {
        match self.geometry.kind(desc, level) {
            Kind::Table(pa) | Kind::Page(pa) | Kind::Block(pa) => Some(pa.0),
            Kind::None | Kind::Invalid | Kind::Reserved => None,
        }
    }

    fn describe_frame(&self, d: &mut Described, frame: Frame<Tok>) {
        d.place = self.frame_name(frame.pa);
        d.address = Some(frame.pa.0);
        d.about.push(frame.pa.0);
    }

    fn describe_va(&self, d: &mut Described, actor: u8, va: Va, accessed: bool) {
        describe_va(d, va);
        if accessed {
            d.about = self.met_by(actor, va);
        }
    }

    /// Frames that an access of this actor may end in: leaves, or the table whose entry ends the walk. Freed ones
    /// first.
    fn met_by(&self, actor: u8, va: Va) -> Vec<u64> {
        let g = &self.geometry;
        let cpu = self.cpu_of(actor);
        let mut met = Vec::new();
        self.for_each_walk(Some(cpu), va, |table, level, _| {
            let mut last = table;
            let end = self.walk_from(table, level, va, |slot| last = slot.table);
            met.push(match end {
                End::Leaf(_, _, pa) => g.pa(g.pfn(Pa(pa))).0,
                End::FreedTable(pa) => pa,
                End::None => self.memory.pa(last).0,
            });
        });
        for stale in self.usable(cpu, va) {
            if let Kind::Page(pa) | Kind::Block(pa) = g.kind(stale.value, stale.level) {
                met.push(g.pa(g.pfn(Pa(pa.0 + (va.0 & (g.entry_span(stale.level) - 1))))).0);
            }
        }
        met.sort_by_key(|pa| !self.memory.find(Pa(*pa)).is_some_and(|f| self.memory.life(f).is_freed()));
        met.dedup();
        met
    }

    /// What makes this outcome of the operation another than the first: the same words in every run, so that a trace
    /// can ask for it again. Call it before executing.
    #[must_use]
    pub fn alternative(&mut self, actor: u8, op: &Op, outcome: u16) -> String {
        // Of an access, this leaves the translations that it may use in `candidates`.
        let outcomes = self.outcomes(actor, op);
        if outcome >= self.ways_of(actor, op) && self.waiting_outcomes(actor, op) != 0 {
            return match self.late_names(actor, op).get(usize::from(outcome - self.ways_of(actor, op))) {
                Some(name) => format!("what was stored to {name} waits in the store buffer"),
                None => String::from("waits in the store buffer"),
            };
        }
        match *op {
            Op::LoadEarly => self.early_name(actor, outcome),
            Op::Alloc(_) => String::from("fails with ENOMEM"),
            Op::Load { .. } | Op::Store { .. } | Op::Rmw { .. } | Op::Fill { .. } | Op::CopyFromVa { .. } => {
                let Some(c) = self.candidates.get(usize::from(outcome)) else {
                    return format!("translation {outcome} of {outcomes}");
                };
                let age = if c.live { "the live" } else { "a stale" };
                let mode = if c.desc.is_writable() { "rw" } else { "ro" };
                format!("through {age} translation, {mode}, to {}", self.frame_name(self.memory.pa(c.frame)))
            }
            _ => format!("choice {outcome} of {outcomes}"),
        }
    }

    /// Frames out of a pool by actor and number, others by address.
    #[must_use]
    pub fn frame_name(&self, pa: Pa) -> String {
        let pfn = self.geometry.pfn(pa).0;
        let pool = (0..).zip(&self.allocator.pools).find(|(_, p): &(u8, _)| pfn >= p.first && pfn < p.first + p.frames);
        match pool {
            Some((actor, p)) => format!("frame of actor {actor} #{}", pfn - p.first),
            None => format!("frame {pa}"),
        }
    }
}

fn describe_tlbi(d: &mut Described, tlbi: Tlbi) {
    if let Some((va, pages)) = tlbi.pages() {
        describe_va(d, va);
        if pages != 1 {
            d.place += &format!(", {pages} pages");
        }
    }
    if let Tlbi::Vale1is(_, asid) | Tlbi::Vae1is(_, asid) | Tlbi::Aside1is(asid) = tlbi {
        d.place += if d.place.is_empty() { "" } else { ", " };
        d.place += &format!("asid {asid}");
    }
}

fn describe_va(d: &mut Described, va: Va) {
    d.place = format!("va {va}");
    d.address = Some(va.0);
}

impl World {
    /// What a location of an access set stands for.
    #[must_use]
    pub fn kind_of(&self, location: u32) -> LocationKind {
        if let Some(kind) = self.fixed.kind_of(location, self.vars as usize) {
            return kind;
        }
        if self.is_late(location) {
            return LocationKind::Buffer;
        }
        if self.is_early(location) {
            return LocationKind::Early;
        }
        if self.stale.has_location(location) {
            return LocationKind::Stale;
        }
        (0..self.memory.frames()).find_map(|id| self.of_frame(id, location)).unwrap_or(LocationKind::Other)
    }

    /// Of the location of a stale value, that of its address.
    #[must_use]
    pub fn address_key_beside(&self, location: u32) -> Option<u32> {
        self.stale.address_key_beside(location)
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
            let first = self.memory.word_cell(SlotId { table: id, index: 0 });
            if (first..first + self.geometry.entries() as Cell).contains(&location) {
                return Some(LocationKind::Entry);
            }
        }
        self.memory.is_word(id, location).then_some(LocationKind::Word)
    }
}
