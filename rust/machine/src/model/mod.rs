//! The explored machine: an interpreter of operations with an MMU, locks and oracles (explorer.md of the design).
//!
//! Kernel code runs against it on the real granule, with full-size tables. All its state is numbered cells, so that it
//! can be undone, hashed and compared cheaply; nothing here panics or unwinds for anything that kernel code does.
//!
//! Bounds: stores that other CPUs see out of order are not modelled.

mod access;
mod allocator;
mod breach;
mod cells;
mod conflict;
mod contiguous;
mod describe;
mod direct;
mod execute;
mod footprint;
mod locks;
mod memory;
mod tables;
mod tlb;

use core::ops::Range;

use rustc_hash::FxHashMap;
use vmemmap_arch::bbm::FeatBbm;
use vmemmap_arch::{Alloc, Asid, Desc, Frame, FrameKind, Geometry, Invariant, Level, Pa, Rmw, TableView, Va, Var};

pub use breach::Breach;
pub use conflict::Conflict;
pub use describe::Described;
pub use direct::Direct;
pub use footprint::Touch;

use self::access::{Access, Candidate, Output};
use self::allocator::Allocator;
use self::breach::Breaches;
use self::cells::Cell;
use self::conflict::Mishaps;
use self::memory::{FrameId, Memory};
use self::tlb::Stale;
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
    rcu: Cell,
    snapshot: Cell,
    pause: Cell,
    stable: Cell,
    exclusive: Cell,
    failures: Cell,
    broken: Cell,
    /// Locations only.
    runs: Cell,
    self_hosted: Cell,
    rcu_state: Cell,
    gone: Cell,
    vars: Cell,
}

/// Neighbours of a frame on a private list. Part of the actor's own state, hence neither undone nor hashed.
#[derive(Clone, Copy, Debug, Default)]
struct Links {
    previous: Option<Frame<Tok>>,
    next: Option<Frame<Tok>>,
}

/// An explored machine.
#[derive(Clone, Debug)]
pub struct World {
    geometry: Geometry,
    ram: Vec<RamRange>,
    cpus: u8,
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
    breaches: Breaches,
    step: u64,
    overflow: bool,
    spurious_faults: u64,
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
            rcu: c.reserve(actors),
            snapshot: c.reserve(actors),
            pause: c.reserve(1),
            stable: c.reserve(1),
            exclusive: c.reserve(Invariant::ALL.len() + 1),
            failures: c.reserve(1),
            broken: c.reserve(1),
            runs: c.reserve(1),
            self_hosted: c.reserve(1),
            rcu_state: c.reserve(1),
            gone: c.reserve(1),
            vars: c.reserve(config.vars as usize),
        };
        let asids = different(&options.asids, config.cpus);
        let root = config.root.or_else(|| ram.iter().find(|r| r.boot).map(|r| r.start)).unwrap_or_default();
        let mut world = Self {
            geometry: config.geometry,
            ram,
            cpus: config.cpus,
            options,
            memory,
            allocator: Allocator::default(),
            stale: Stale::default(),
            asids,
            fixed,
            vars: config.vars,
            root: 0,
            links: FxHashMap::default(),
            breaches: Breaches::default(),
            step: 0,
            overflow: false,
            spurious_faults: 0,
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
        self.memory.cells.mark();
        self.stale.mark();
        self.forget();
    }

    /// Back to the state of `mark`. Costs as much as was written since.
    pub fn reset(&mut self) {
        self.memory.cells.undo();
        self.stale.undo();
        self.forget();
    }

    fn forget(&mut self) {
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

    /// Each actor has a CPU of its own.
    #[inline]
    const fn cpu_of(&self, actor: u8) -> u8 {
        actor
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
