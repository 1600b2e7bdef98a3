//! The explored machine: an interpreter of operations with an MMU, locks and oracles (explorer.md of the design).
//!
//! Kernel code runs against it on the real granule, with full-size tables. All its state is numbered cells, so that it
//! can be undone, hashed and compared cheaply; nothing here panics or unwinds for anything that kernel code does.
//!
//! Bounds: stores that other CPUs see out of order are not modelled.

mod accesses;
mod allocator;
mod attempt;
mod breach;
mod cells;
mod conflict;
mod context;
mod contiguous;
mod describe;
mod direct;
mod execute;
mod location;
mod lock_order;
mod locks;
mod memory;
mod tables;
mod tlb;
mod translation;

use core::ops::Range;

use rustc_hash::FxHashMap;
use vmemmap_arch::bbm::FeatBbm;
use vmemmap_arch::{Alloc, Asid, Desc, Frame, FrameKind, Geometry, Invariant, Level, Pa, Rmw, TableView, Va, Var};

pub use accesses::Touch;
pub use breach::Breach;
pub use conflict::Conflict;
pub use context::{Context, Place};
pub use describe::Described;
pub use direct::Direct;
pub use location::LocationKind;
pub use lock_order::NewOrder;

use self::allocator::Allocator;
use self::breach::Breaches;
use self::cells::Cell;
use self::conflict::Mishaps;
use self::memory::{FrameId, Memory};
use self::tlb::Stale;
use self::translation::{Access, Candidate, Output};
use crate::config::{ConfigError, MachineConfig, RamRange};
use crate::op::{Op, Reply, Tok};

/// Most CPUs (actors) of an explored machine.
pub const MAX_ACTORS: u8 = 16;

/// Most different address spaces; further ones are left out and counted as an overflow.
const MAX_ASIDS: usize = 8;

/// What the oracles look at, and which choices the environment has.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// Judge translations that survive when a frame is freed; otherwise only accesses that go wrong count.
    pub strict: bool,
    /// Of each CPU; those beyond the list are as its last, without any at level 0.
    pub feat_bbm: Vec<FeatBbm>,
    /// What an access does that could use two conflicting translations.
    pub conflict: Conflict,
    /// A spurious fault (a new entry not yet published) counts as a hole (I2).
    pub spurious_fault_is_fatal: bool,
    /// FEAT_ETS2: a new entry is seen by every later translation once the writer's DSB is done. Without it a CPU may take
    /// the old invalid entry until its own ISB or exception entry.
    pub ets: bool,
    /// How many allocations of an execution may fail as a choice of the environment.
    pub alloc_failures: u32,
    /// Allocations that fail always: actor, and the number of its allocation from 1.
    pub fail_alloc: Vec<(u8, u64)>,
    /// What `signal_pending` says.
    pub signal_pending: bool,
    /// The linear map, which the rules about freed frames leave out.
    pub linear_map: Option<Range<Va>>,
    /// The vmalloc area, of which no dump may expect that it is stable (I18).
    pub vmalloc: Option<Range<Va>>,
    /// PREEMPT_RT: spinlocks sleep, leave interrupts on, and may not be taken in an interrupt.
    pub preempt_rt: bool,
    /// Address space of each CPU; absent ones run 0. Those beyond the last CPU ran before, and may still be cached.
    pub asids: Vec<Asid>,
    /// An IOMMU shares the kernel's tables (SVA). It caches table entries, and no TLBI reaches it (R22).
    pub iommu: bool,
    /// Frames in each actor's pool; 0: by granule.
    pub pool_frames: u64,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            strict: true,
            feat_bbm: Vec::new(),
            conflict: Conflict::AtWrite,
            spurious_fault_is_fatal: false,
            ets: true,
            alloc_failures: 0,
            fail_alloc: Vec::new(),
            signal_pending: false,
            linear_map: None,
            vmalloc: None,
            preempt_rt: false,
            asids: Vec::new(),
            iommu: false,
            pool_frames: 0,
        }
    }
}

/// Cells (and locations) that every machine has.
#[derive(Clone, Copy, Debug, Default)]
struct Fixed {
    locks: Cell,
    context: Cell,
    cpu: Cell,
    rcu: Cell,
    snapshot: Cell,
    pause: Cell,
    stable: Cell,
    exclusive: Cell,
    failures: Cell,
    broken: Cell,
    /// Locations only.
    runs: Cell,
    maintenance: Cell,
    self_hosted: Cell,
    rcu_state: Cell,
    /// Of each actor: the locks that it holds, and those of them that it holds alone (`World::locks`).
    held: Cell,
    /// Where a DSB makes something known to later invalidates.
    stale: Cell,
    gone: Cell,
    vars: Cell,
}

/// Unused locations on both sides of one that nearly every barrier touches: a search takes even rows of shared locations to
/// go on, and this one must not be taken for part of a row of the locks and variables beside it.
const ASIDE: Cell = 32;

/// Neighbours of a frame on a private list. Part of the actor's own state, hence not hashed.
#[derive(Clone, Copy, Debug, Default)]
struct Links {
    previous: Option<Frame<Tok>>,
    next: Option<Frame<Tok>>,
}

/// A state of a machine since `World::mark`, to go back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    cells: cells::Position,
    stale: tlb::Kept,
    links: usize,
    breaches: (usize, u32),
    step: u64,
    overflow: bool,
    spurious_faults: u64,
}

/// An explored machine.
#[derive(Clone, Debug)]
pub struct World {
    geometry: Geometry,
    ram: Vec<RamRange>,
    /// Actors.
    cpus: u8,
    places: [Place; MAX_ACTORS as usize],
    /// CPUs that some actor runs on, as bits.
    all_cpus: u16,
    /// Of each actor, the others on its CPU.
    beside: [u16; MAX_ACTORS as usize],
    options: WorldOptions,
    memory: Memory,
    allocator: Allocator,
    stale: Stale,
    /// The different address spaces, and how many.
    asids: ([Asid; MAX_ASIDS], u8),
    fixed: Fixed,
    vars: u64,
    root: FrameId,
    links: FxHashMap<u64, Links>,
    /// Links before each change since `mark`.
    links_log: Vec<(u64, Option<Links>)>,
    breaches: Breaches,
    step: u64,
    overflow: bool,
    spurious_faults: u64,
    /// A translation fault goes to a handler now.
    attempting: bool,
    orders: lock_order::LockOrders,
    candidates: Vec<Candidate>,
    outputs: Vec<Output>,
    mishaps: Mishaps,
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
        let actors = usize::from(MAX_ACTORS);
        let fixed = Fixed {
            locks: c.reserve(2 * vmemmap_arch::LockId::COUNT),
            context: c.reserve(actors),
            cpu: c.reserve(actors),
            rcu: c.reserve(actors),
            snapshot: c.reserve(actors),
            pause: c.reserve(1),
            stable: c.reserve(1),
            exclusive: c.reserve(Invariant::ALL.len() + 1),
            failures: c.reserve(1),
            broken: c.reserve(1),
            runs: c.reserve(1),
            maintenance: c.reserve(actors),
            self_hosted: c.reserve(1),
            rcu_state: c.reserve(1),
            held: c.reserve(2 * actors),
            stale: c.reserve(2 * ASIDE as usize + 1) + ASIDE,
            gone: c.reserve(1),
            vars: c.reserve(config.vars as usize),
        };
        let asids = different(&options.asids, config.cpus);
        let root = config.root.or_else(|| ram.iter().find(|r| r.boot).map(|r| r.start)).unwrap_or_default();
        let mut world = Self {
            geometry: config.geometry,
            ram,
            cpus: config.cpus,
            places: core::array::from_fn(|actor| Place { cpu: actor as u8, ..Place::default() }),
            all_cpus: ((1u32 << config.cpus) - 1) as u16,
            beside: [0; MAX_ACTORS as usize],
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
            breaches: Breaches::default(),
            step: 0,
            overflow: false,
            spurious_faults: 0,
            attempting: false,
            orders: lock_order::LockOrders::default(),
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
            breaches: self.breaches.position(),
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
        self.breaches.back_to(mark.breaches);
        (self.step, self.overflow, self.spurious_faults) = (mark.step, mark.overflow, mark.spurious_faults);
    }

    fn unlink_to(&mut self, position: usize) {
        for (frame, old) in self.links_log.drain(position.min(self.links_log.len())..).rev() {
            match old {
                Some(links) => self.links.insert(frame, links),
                None => self.links.remove(&frame),
            };
        }
    }

    fn set_links(&mut self, frame: Frame<Tok>, change: impl FnOnce(Links) -> Links) {
        let old = self.links.get(&frame.pa.0).copied();
        self.links_log.push((frame.pa.0, old));
        self.links.insert(frame.pa.0, change(old.unwrap_or_default()));
    }

    fn forget(&mut self) {
        self.unlink_to(0);
        self.breaches.clear();
        self.step = 0;
        self.overflow = self.options.asids.iter().any(|asid| !self.asids.0[..usize::from(self.asids.1)].contains(asid));
        self.spurious_faults = 0;
    }

    /// In how many ways the operation can go now; 0 = blocked.
    pub fn outcomes(&mut self, actor: u8, op: &Op) -> u16 {
        if self.is_blocked(actor, op) {
            return 0;
        }
        match *op {
            Op::Load { va, .. } => self.access_outcomes(actor, va, Access::Load),
            Op::Store { va, value, .. } => self.access_outcomes(actor, va, Access::Rmw(Rmw::Swap(value))),
            Op::Rmw { va, op, .. } => self.access_outcomes(actor, va, Access::Rmw(op)),
            Op::Fill { va, template } => self.access_outcomes(actor, va, Access::Fill(template)),
            Op::CopyFromVa { from, .. } => self.access_outcomes(actor, from, Access::Copy),
            Op::Attempt(access) => self.attempt_outcomes(actor, access),
            Op::Choose { n, .. } => n.clamp(1, u32::from(u16::MAX)) as u16,
            Op::Alloc(_) => 1 + u16::from(self.memory.cells.get(self.fixed.failures) < u64::from(self.options.alloc_failures)),
            _ => 1,
        }
    }

    /// Hash of everything that later operations can depend on.
    #[must_use]
    #[inline]
    pub fn fingerprint(&self) -> u128 {
        self.memory.cells.hash()
    }
    /// Bit `number - 1` of each invariant broken since `reset`.
    #[must_use]
    #[inline]
    pub const fn violated(&self) -> u32 {
        self.breaches.mask()
    }
    /// What was broken since `reset`, in order.
    #[must_use]
    pub fn breaches(&self) -> &[Breach] {
        self.breaches.kept()
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
    fn var_cell(&self, var: Var) -> Cell {
        self.fixed.vars + Cell::min(var.0, self.vars.saturating_sub(1) as Cell)
    }
    fn breach(&mut self, invariant: Invariant, actor: u8, address: u64, message: &'static str) {
        self.breaches.record(Breach { invariant, actor, step: self.step, address, message });
        self.memory.cells.set(self.fixed.broken, u64::from(self.breaches.mask()));
    }

    // ---- loading ----
    /// Take exactly this run, as the loaded machine's kernel had. `false` if any frame of it is taken or absent.
    pub fn adopt_frame(&mut self, pa: Pa, order: u8, kind: FrameKind, reserved: bool) -> bool {
        let sealed = std::mem::replace(&mut self.allocator.sealed, !reserved);
        let request = Alloc { order, kind, zone: vmemmap_arch::Zone::Movable, at: Some(pa), may_sleep: false, top_down: false };
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
            self.load_entry(memory::SlotId { table: id, index }, level, Desc(word));
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
        Some(self.memory.desc(memory::SlotId { table: id, index }))
    }
}
