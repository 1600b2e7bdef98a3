//! The state of an explored machine, and going back to an earlier one.

use rustc_hash::FxHashMap;
use vmemmap_arch::{
    Alloc, Asid, Desc, Frame, FrameKind, Geometry, Invariant, InvariantSet, Level, Pa, Rmw, TableView, Var,
};

use super::candidates::{Access, Candidate, Mishaps, Output};
use super::cells::{Cell, Position};
use super::fixed::Fixed;
use super::held::Held;
use super::lock_order::LockOrders;
use super::memory::{FrameId, Memory, SlotId};
use super::options::WorldOptions;
use super::place::{MAX_ACTORS, Place};
use super::pools::Allocator;
use super::stale::{Kept, Stale};
use super::violations::{Violation, Violations};
use super::waiting::Numbered;
use crate::config::{ConfigError, MachineConfig, RamRange};
use crate::op::{Op, Reply, Tok};

/// Most different address spaces; further ones are left out and counted as an overflow.
const MAX_ASIDS: usize = 8;

/// Neighbours of a frame on a private list. Part of the actor's own state, hence not hashed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Links {
    pub(super) previous: Option<Frame<Tok>>,
    pub(super) next: Option<Frame<Tok>>,
}

/// A state of a machine since `World::mark`, to go back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    cells: Position,
    stale: Kept,
    links: usize,
    violations: (usize, InvariantSet),
    step: u64,
    overflow: bool,
    spurious_faults: u64,
}

/// An explored machine.
#[derive(Clone, Debug)]
pub struct World {
    pub(super) geometry: Geometry,
    pub(super) ram: Vec<RamRange>,
    /// Actors.
    pub(super) cpus: u8,
    pub(super) places: [Place; MAX_ACTORS as usize],
    /// CPUs that some actor runs on, as bits.
    pub(super) all_cpus: u16,
    /// Of each actor, the others on its CPU.
    pub(super) beside: [u16; MAX_ACTORS as usize],
    /// CPUs whose stores may wait, as bits.
    pub(super) buffered: u16,
    pub(super) stores: Numbered,
    /// First cell of the stores that may be late, if there are such.
    pub(super) late: Cell,
    /// What CPUs may load early.
    pub(super) early: Vec<Held>,
    pub(super) options: WorldOptions,
    pub(super) memory: Memory,
    pub(super) allocator: Allocator,
    pub(super) stale: Stale,
    /// The different address spaces, and how many.
    pub(super) asids: ([Asid; MAX_ASIDS], u8),
    pub(super) fixed: Fixed,
    pub(super) vars: u64,
    pub(super) root: FrameId,
    pub(super) links: FxHashMap<u64, Links>,
    /// Links before each change since `mark`.
    pub(super) links_log: Vec<(u64, Option<Links>)>,
    pub(super) violations: Violations,
    pub(super) step: u64,
    pub(super) overflow: bool,
    pub(super) spurious_faults: u64,
    /// A translation fault goes to a handler now.
    pub(super) attempting: bool,
    /// See `over_approximate`.
    pub(super) reaches_own_only: bool,
    pub(super) orders: LockOrders,
    pub(super) candidates: Vec<Candidate>,
    pub(super) outputs: Vec<Output>,
    pub(super) mishaps: Mishaps,
}

impl World {
    /// A machine with empty memory: nothing allocated but the root table. `config.seed` is not used.
    ///
    /// # Errors
    /// Any `ConfigError` but `Map`; `Cpus` also above `MAX_ACTORS`.
    pub fn new(config: &MachineConfig, options: WorldOptions) -> Result<Self, ConfigError> {
        let ram = config.checked_ranges()?;
        if config.cpus > MAX_ACTORS {
            return Err(ConfigError::Cpus(config.cpus));
        }
        let mut memory = Memory::new(&config.geometry);
        let c = &mut memory.cells;
        let fixed = Fixed::reserve(c, config.vars as usize);
        let asids = different(&options.asids, config.cpus);
        let root = config.root.or_else(|| ram.iter().find(|r| r.boot).map(|r| r.start)).unwrap_or_default();
        let mut world = Self {
            geometry: config.geometry,
            ram,
            cpus: config.cpus,
            places: core::array::from_fn(|actor| Place { cpu: actor as u8, ..Place::default() }),
            all_cpus: ((1u32 << config.cpus) - 1) as u16,
            beside: [0; MAX_ACTORS as usize],
            buffered: 0,
            stores: Numbered::default(),
            late: 0,
            early: Vec::new(),
            options,
            memory,
            allocator: Allocator::default(),
            stale: Stale::default(),
            asids,
            fixed,
            vars: config.vars,
            root: 0,
            links: FxHashMap::default(),
            links_log: Vec::new(),
            violations: Violations::default(),
            step: 0,
            overflow: false,
            spurious_faults: 0,
            attempting: false,
            reaches_own_only: false,
            orders: LockOrders::default(),
            candidates: Vec::new(),
            outputs: Vec::new(),
            mishaps: Mishaps::default(),
        };
        world.init_allocator();
        world.hand_out(root.0 >> config.geometry.page_shift(), 0, FrameKind::Table, true, false);
        world.root = world.memory.frame(root);
        Ok(world)
    }

    /// Frames allocated from now on are not `PG_reserved`.
    pub fn seal_boot(&mut self) {
        self.allocator.sealed = true;
    }

    /// The state now is what `reset` returns to. From here on each actor allocates from a pool of its own.
    pub fn mark(&mut self) {
        self.seal_boot();
        let frames = match (self.options.pool_frames, self.geometry.page_shift()) {
            (0, 12) => 4096,
            (0, 14) => 2048,
            (0, _) => 1024,
            (n, _) => n,
        };
        self.carve_pools(frames);
        // What was broken before is forgotten, in the state's hash too.
        self.memory.cells.set(self.fixed.broken, 0);
        self.memory.cells.mark();
        self.stale.mark();
        self.links_log.clear();
        self.orders.forget();
        self.forget();
    }

    /// From now on a broadcast invalidate reaches only what its own CPU has overwritten since, if `on`.
    ///
    /// So a stale value may live longer than it can, and never shorter. An access chooses among the live value and the
    /// stale ones, and each rule judges one that is there, so whatever goes wrong on the machine goes wrong here, in an
    /// execution with the same schedule; more may. In return, nobody's barriers decide what another's invalidate does.
    pub fn over_approximate(&mut self, on: bool) {
        self.reaches_own_only = on;
    }

    /// Back to the state of `mark`. Costs as much as was written since.
    pub fn reset(&mut self) {
        self.memory.cells.undo();
        self.stale.undo();
        self.forget();
    }

    /// The state now, to go back to while neither `reset` nor a `rollback` to an earlier one came between.
    pub fn checkpoint(&mut self) -> Mark {
        Mark {
            cells: self.memory.cells.position(),
            stale: self.stale.checkpoint(),
            links: self.links_log.len(),
            violations: self.violations.position(),
            step: self.step,
            overflow: self.overflow,
            spurious_faults: self.spurious_faults,
        }
    }

    /// Back to the state of `mark`. Costs as much as was written since.
    pub fn rollback(&mut self, mark: &Mark) {
        self.memory.cells.undo_to(&mark.cells);
        self.stale.rollback(mark.stale);
        self.unlink_to(mark.links);
        self.violations.back_to(mark.violations);
        (self.step, self.overflow, self.spurious_faults) = (mark.step, mark.overflow, mark.spurious_faults);
    }

    pub(super) fn unlink_to(&mut self, position: usize) {
        for (frame, old) in self.links_log.drain(position.min(self.links_log.len())..).rev() {
            match old {
                Some(links) => self.links.insert(frame, links),
                None => self.links.remove(&frame),
            };
        }
    }

    pub(super) fn set_links(&mut self, frame: Frame<Tok>, change: impl FnOnce(Links) -> Links) {
        let old = self.links.get(&frame.pa.0).copied();
        self.links_log.push((frame.pa.0, old));
        self.links.insert(frame.pa.0, change(old.unwrap_or_default()));
    }

    pub(super) fn forget(&mut self) {
        self.unlink_to(0);
        self.violations.clear();
        self.step = 0;
        self.overflow = self.options.asids.iter().any(|asid| !self.asids.0[..usize::from(self.asids.1)].contains(asid));
        self.spurious_faults = 0;
    }

    /// In how many ways the operation can go now; 0 = blocked.
    pub fn outcomes(&mut self, actor: u8, op: &Op) -> u16 {
        if self.is_blocked(actor, op) {
            return 0;
        }
        if self.loaded_early(actor, op).is_some() {
            return 1;
        }
        if self.buffered == 0 {
            return self.ways_of(actor, op);
        }
        if self.waits_for_stores(actor, op) {
            return 0;
        }
        self.ways_of(actor, op) + self.waiting_outcomes(actor, op)
    }

    /// The same but for waiting.
    #[inline]
    pub(super) fn ways_of(&mut self, actor: u8, op: &Op) -> u16 {
        match *op {
            Op::Commit => self.commit_outcomes(actor),
            Op::LoadEarly => self.early_outcomes(actor),
            Op::Load { va, .. } => self.access_outcomes(actor, va, Access::Load),
            Op::Store { va, value, .. } => self.access_outcomes(actor, va, Access::Rmw(Rmw::Swap(value))),
            Op::Rmw { va, op, .. } => self.access_outcomes(actor, va, Access::Rmw(op)),
            Op::Fill { va, template } => self.access_outcomes(actor, va, Access::Fill(template)),
            Op::CopyFromVa { from, .. } => self.access_outcomes(actor, from, Access::Copy),
            Op::Attempt(access) => self.attempt_outcomes(actor, access),
            Op::Choose { n, .. } => n.clamp(1, u32::from(u16::MAX)) as u16,
            Op::Alloc(_) => {
                1 + u16::from(self.memory.cells.get(self.fixed.failures) < u64::from(self.options.alloc_failures))
            }
            _ => 1,
        }
    }

    /// How much has a number of those things that get one when they are first met: the numbers decide what locations
    /// and fingerprints are. It never gets less, so copies of a machine agree in both for as long as it stays.
    #[must_use]
    pub fn numbered(&self) -> usize {
        self.memory.numbered_things() + self.stale.numbered() + self.stores.numbered()
    }
    /// Hash of everything that later operations can depend on.
    #[must_use]
    #[inline]
    pub fn fingerprint(&self) -> u128 {
        self.memory.cells.hash()
    }
    /// The invariants violated since `reset`.
    #[must_use]
    #[inline]
    pub const fn violated(&self) -> InvariantSet {
        self.violations.set()
    }
    /// What was broken since `reset`, in order.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        self.violations.kept()
    }
    /// A bound was exceeded since `reset`: nothing found absent is proven absent.
    #[must_use]
    pub const fn overflowed(&self) -> bool {
        self.overflow
    }
    /// Accesses since `reset` that could have met an entry not yet published.
    #[must_use]
    pub const fn spurious_faults(&self) -> u64 {
        self.spurious_faults
    }
    #[must_use]
    pub const fn options(&self) -> &WorldOptions {
        &self.options
    }
    #[must_use]
    pub const fn cpus(&self) -> u8 {
        self.cpus
    }
    /// Word of a kernel variable.
    #[must_use]
    pub fn var(&self, var: Var) -> u64 {
        self.memory.cells.get(self.var_cell(var))
    }

    /// Variables beyond the machine's number share one cell.
    #[inline]
    pub(super) fn var_cell(&self, var: Var) -> Cell {
        self.fixed.vars + Cell::min(var.0, self.vars.saturating_sub(1) as Cell)
    }
    pub(super) fn violate(&mut self, invariant: Invariant, actor: u8, address: u64, message: &'static str) {
        self.violations.record(Violation { invariant, actor, step: self.step, address, message, evidence: () });
        self.memory.cells.set(self.fixed.broken, self.violations.set().bits());
    }

    // ---- loading ----
    /// Take exactly this run, as the loaded machine's kernel had. `false` if any frame of it is taken or absent.
    pub fn adopt_frame(&mut self, pa: Pa, order: u8, kind: FrameKind, reserved: bool) -> bool {
        let sealed = std::mem::replace(&mut self.allocator.sealed, !reserved);
        let request =
            Alloc { order, kind, zone: vmemmap_arch::Zone::Movable, at: Some(pa), may_sleep: false, top_down: false };
        let reply = self.alloc(0, &request, 0);
        self.allocator.sealed = sealed;
        reply != Reply::NOTHING
    }
    /// Store the words of a table page of an image, parents first. The page becomes a reserved table of init_mm.
    /// `false` if it lies outside the machine, is longer than a page, or belongs to something else.
    pub fn write_table_raw(&mut self, table: Pa, words: &[u64], level: Level) -> bool {
        if words.len() > self.geometry.entries() || !table.is_aligned(self.geometry.page_size()) {
            return false;
        }
        let known = self.memory.find(table).is_some_and(|f| self.memory.life(f).is(FrameKind::Table));
        if !known && !self.adopt_frame(table, 0, FrameKind::Table, true) {
            return false;
        }
        let id = self.memory.frame(table);
        for (index, &word) in (0..).zip(words).filter(|(_, w)| **w != 0) {
            self.load_entry(SlotId { table: id, index }, level, Desc(word));
        }
        true
    }
}

/// The address spaces that CPUs run or ran, each once.
fn different(asids: &[Asid], cpus: u8) -> ([Asid; MAX_ASIDS], u8) {
    let (mut found, mut n) = ([0; MAX_ASIDS], 0);
    let silent = asids.len() < usize::from(cpus);
    for &asid in asids.iter().chain(silent.then_some(&0)) {
        if n < MAX_ASIDS && !found[..n].contains(&asid) {
            found[n] = asid;
            n += 1;
        }
    }
    (found, n as u8)
}

impl TableView for World {
    fn geometry(&self) -> Geometry {
        self.geometry
    }
    fn root(&self) -> Pa {
        self.memory.pa(self.root)
    }
    fn word(&self, table: Pa, index: usize) -> Option<Desc> {
        let id = self.memory.find(table).filter(|f| self.memory.has_words(*f))?;
        let index = u16::try_from(index).ok().filter(|i| usize::from(*i) < self.geometry.entries())?;
        Some(self.memory.desc(SlotId { table: id, index }))
    }
}
