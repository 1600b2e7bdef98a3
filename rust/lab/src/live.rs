//! A live machine: a kernel on a native machine, driven one operation at a time from any thread.

use std::sync::{Condvar, Mutex, PoisonError};

use thiserror::Error;
use vmemmap_arch::tables::walk;
use vmemmap_arch::{
    Cpu, Desc, Entry, FrameKind, Geometry, InvariantSet, Layout, Level, Pa, Pfn, RangeOp, TableView, Va, Var, Zone,
};
use vmemmap_kernel::boot::Adopted;
use vmemmap_kernel::check::{FrameInfo, Marks, StateView, check};
use vmemmap_kernel::ptdump::PtdumpSink;
use vmemmap_kernel::state::{Block, Hpage, Hstate, Scalar, Section, ZONE_TAILS, ZONES, section_flag};
use vmemmap_kernel::{Errno, Kernel, Operation, Policies, Ram, boot, hugetlb, ptdump};
use vmemmap_machine::{Checked, ConfigError, Machine, MachineConfig, Native, RamRange};

/// CPUs of a live machine: as many threads may be in kernel code at once; a further one waits.
pub const CPUS: u8 = 32;

/// Why a machine cannot be built or loaded.
#[derive(Debug, Error)]
pub enum LiveError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("boot: {0}")]
    Boot(Errno),
    #[error("table {0} overlaps another or lies outside RAM")]
    Table(Pa),
    #[error("vmemmap frame {0} is also a table page or lies outside RAM")]
    VmemmapFrame(Pa),
    #[error("hugepage at PFN {0:#x}: its frames are tables, vmemmap or not online")]
    Hugepage(u64),
}

/// Tables of a real kernel, and what is known beside them.
#[derive(Clone, Debug)]
pub struct RealTables<'a> {
    pub machine: RealMachine,
    /// Address, level and words of each table page.
    pub tables: Vec<(Pa, Level, &'a [u64])>,
}

/// What is known of a real kernel's machine beside its tables.
#[derive(Clone, Debug)]
pub struct RealMachine {
    pub layout: Layout,
    pub root: Pa,
    pub ram: Vec<Ram>,
    pub sections: Vec<RealSection>,
    pub hugepages: Vec<HugepageRun>,
    pub hvo: bool,
    /// Attribute bits that boot options add to every mapping.
    pub extra_prot: u64,
}

/// A section whose vmemmap the tables map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RealSection {
    pub start: Pa,
    pub early: bool,
    /// In which zone, if it is online.
    pub online: Option<Zone>,
    pub self_hosted: bool,
}

/// HugeTLB pages of one length side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HugepageRun {
    pub first: Pfn,
    /// Length of each in base pages.
    pub pages: u64,
    pub count: u64,
}

impl HugepageRun {
    /// Pages as (head, length), joined as far as they come side by side.
    #[must_use]
    pub fn of(pages: impl IntoIterator<Item = (Pfn, u64)>) -> Vec<Self> {
        let mut runs: Vec<Self> = Vec::new();
        for (head, pages) in pages {
            match runs.last_mut() {
                Some(run) if run.pages == pages && run.first.0.checked_add(run.count * pages) == Some(head.0) => {
                    run.count += 1;
                }
                _ => runs.push(Self { first: head, pages, count: 1 }),
            }
        }
        runs
    }
    pub fn heads(self) -> impl Iterator<Item = Pfn> {
        (0..self.count).map(move |n| self.first.plus(n * self.pages))
    }
}

/// A pool as sysfs shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolState {
    pub nr: u64,
    pub free: u64,
    pub resv: u64,
    pub surplus: u64,
    pub overcommit: u64,
    pub max: u64,
    pub demote_hstate: u64,
}

/// A memory block device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockState {
    pub start: Pa,
    pub bytes: u64,
    /// `mmzone::MEM_ONLINE` and so on.
    pub state: u64,
    pub zone: u64,
}

/// Which CPUs of the machine are free for a thread to run on.
#[derive(Debug)]
struct CpuNumbers {
    free: Mutex<u32>,
    released: Condvar,
}

struct CpuNumber<'a> {
    numbers: &'a CpuNumbers,
    cpu: u8,
}

impl CpuNumbers {
    fn take(&self) -> CpuNumber<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.released.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        let cpu = free.trailing_zeros() as u8;
        *free &= *free - 1;
        CpuNumber { numbers: self, cpu }
    }
}

impl Drop for CpuNumber<'_> {
    fn drop(&mut self) {
        *self.numbers.free.lock().unwrap_or_else(PoisonError::into_inner) |= 1 << self.cpu;
        self.numbers.released.notify_one();
    }
}

/// See the module documentation.
#[derive(Debug)]
pub struct LiveMachine {
    machine: Machine,
    kernel: Kernel,
    checked: bool,
    cpus: CpuNumbers,
}

/// Run `$body` with `$cpu` a CPU of the machine's kind.
macro_rules! on_cpu {
    ($self:ident, |$cpu:ident| $body:expr) => {{
        let number = $self.cpus.take();
        if $self.checked {
            let $cpu: &Checked<'_> = &$self.machine.checked_cpu(number.cpu);
            $body
        } else {
            let $cpu: &Native<'_> = &$self.machine.cpu(number.cpu);
            $body
        }
    }};
}

/// A machine that is being made of a real kernel's tables. Step by step, so that who holds the tables may let them go
/// before the rest of the machine is there.
#[derive(Debug)]
pub struct Loading(LiveMachine);

impl Loading {
    /// An empty machine of that kernel.
    ///
    /// # Errors
    /// `Config`, or what `real` contradicts.
    pub fn new(real: &RealMachine, policies: Policies, checked: bool) -> Result<Self, LiveError> {
        let mut kernel = Kernel::new(real.layout, policies, &real.ram, real.hvo);
        kernel.extra_prot = real.extra_prot;
        let live = LiveMachine::empty(kernel, Some(real.root), checked)?;
        live.online_hot_added(real)?;
        Ok(Self(live))
    }
    /// Address, level and words of each table page.
    ///
    /// # Errors
    /// A table that overlaps another, or lies outside RAM.
    pub fn tables<'a>(self, tables: impl IntoIterator<Item = (Pa, Level, &'a [u64])>) -> Result<Self, LiveError> {
        for (pa, level, words) in tables {
            if !self.0.machine.write_table_raw(pa, words, level) {
                return Err(LiveError::Table(pa));
            }
        }
        Ok(self)
    }
    /// What the tables map is in use; struct pages and pools are made to fit.
    ///
    /// # Errors
    /// What the tables contradict.
    pub fn finish(self, real: &RealMachine) -> Result<LiveMachine, LiveError> {
        let live = self.0;
        for section in &real.sections {
            live.adopt_vmemmap(section)?;
        }
        on_cpu!(live, |cpu| live.adopt(cpu, real))?;
        live.machine.seal_boot();
        Ok(live)
    }
}

impl LiveMachine {
    fn empty(kernel: Kernel, root: Option<Pa>, checked: bool) -> Result<Self, LiveError> {
        let ram = kernel.ram().iter().map(|r| RamRange { start: r.start, bytes: r.bytes, boot: r.boot }).collect();
        let config =
            MachineConfig { geometry: kernel.geometry, ram, cpus: CPUS, vars: kernel.vars.count(), root, seed: 0 };
        let cpus = CpuNumbers { free: Mutex::new(u32::MAX >> (32 - u32::from(CPUS))), released: Condvar::new() };
        let machine = Machine::new(&config)?;
        machine.set_unstable(kernel.layout.vmalloc_start..kernel.layout.vmalloc_end);
        Ok(Self { machine, kernel, checked, cpus })
    }

    /// A machine as it is when user space starts.
    ///
    /// # Errors
    /// `Config`; `Boot` if memory is too small for its own struct pages.
    pub fn boot(kernel: Kernel, checked: bool) -> Result<Self, LiveError> {
        let live = Self::empty(kernel, None, checked)?;
        on_cpu!(live, |cpu| boot::boot(&live.kernel, cpu)).map_err(LiveError::Boot)?;
        live.machine.seal_boot();
        Ok(live)
    }

    /// A real kernel's tables as a live machine. Free frames are RAM less tables, vmemmap frames and hugepages; struct
    /// pages, which a table image has not, are made to fit.
    ///
    /// # Errors
    /// What the tables contradict.
    pub fn load(real: &RealTables<'_>, policies: Policies, checked: bool) -> Result<Self, LiveError> {
        Loading::new(&real.machine, policies, checked)?.tables(real.tables.iter().copied())?.finish(&real.machine)
    }

    fn adopt<C: Cpu>(&self, cpu: &C, real: &RealMachine) -> Result<(), LiveError> {
        let g = self.kernel.geometry;
        let early = real.ram.iter().filter(|r| r.boot);
        let early = early.map(|r| Adopted { start: r.start, bytes: r.bytes, early: true, online: Some(Zone::Normal) });
        let added = real.sections.iter().filter(|s| !s.early);
        let added = added.map(|s| Adopted { start: s.start, bytes: g.section_size(), early: false, online: s.online });
        boot::adopt(&self.kernel, cpu, &early.chain(added).collect::<Vec<_>>()).map_err(LiveError::Boot)?;
        for run in &real.hugepages {
            let h = self.hstate_of(run.pages).ok_or(LiveError::Hugepage(run.first.0))?;
            for head in run.heads() {
                if !self.machine.adopt_frame(g.pa(head), run.pages.trailing_zeros() as u8, FrameKind::Huge, false) {
                    return Err(LiveError::Hugepage(head.0));
                }
                hugetlb::adopt::adopt_page(&self.kernel, cpu, head, h).map_err(LiveError::Boot)?;
            }
        }
        Ok(())
    }

    fn online_hot_added(&self, real: &RealMachine) -> Result<(), LiveError> {
        let bytes = self.kernel.geometry.section_size();
        for s in real.sections.iter().filter(|s| !s.early) {
            let online = match s.online {
                Some(Zone::Normal) => RangeOp::OnlineNormal,
                Some(Zone::Movable) => RangeOp::OnlineMovable,
                None => continue,
            };
            on_cpu!(self, |cpu| cpu.range_op(s.start, bytes, online)).map_err(|_| LiveError::Boot(Errno::EBUSY))?;
        }
        Ok(())
    }

    /// Take the frames that hold the struct pages of a section out of the allocator's hands.
    fn adopt_vmemmap(&self, section: &RealSection) -> Result<(), LiveError> {
        let g = self.kernel.geometry;
        let start = self.kernel.layout.page_va(g.pfn(section.start));
        let mut at = 0;
        while at < g.section_vmemmap() {
            let Some(found) = walk(&self.machine, start.plus(at)) else { return Err(LiveError::Table(section.start)) };
            let span = g.entry_span(found.level);
            if found.level == Level::PTE {
                let end = (at + (g.entries() as u64 - u64::from(found.index)) * span).min(g.section_vmemmap());
                let ptes = usize::from(found.index)..usize::from(found.index) + ((end - at) / span) as usize;
                if !section.self_hosted {
                    self.machine
                        .adopt_leaves(found.table, ptes, FrameKind::Vmemmap, section.early)
                        .map_err(LiveError::VmemmapFrame)?;
                }
                at = end;
                continue;
            }
            if let Some(pa) = found.output {
                let order = (span >> g.page_shift()).trailing_zeros() as u8;
                let known = matches!(self.machine.frame_use(pa), Some((FrameKind::Vmemmap, ..)));
                if !section.self_hosted
                    && !known
                    && !self.machine.adopt_frame(pa, order, FrameKind::Vmemmap, section.early)
                {
                    return Err(LiveError::VmemmapFrame(pa));
                }
            }
            at = (at & !(span - 1)) + span;
        }
        Ok(())
    }

    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.checked
    }
    /// Index of the hugepage size of that many base pages.
    #[must_use]
    pub fn hstate_of(&self, pages: u64) -> Option<u8> {
        let (sizes, count) = self.kernel.geometry.hugetlb_sizes();
        sizes[..count].iter().position(|&s| s == pages).map(|i| i as u8)
    }

    /// Run one operation on a free CPU of the machine.
    ///
    /// # Errors
    /// What the kernel returns.
    pub fn run(&self, operation: &Operation) -> Result<u64, Errno> {
        on_cpu!(self, |cpu| {
            let done = operation.run(&self.kernel, cpu);
            // Work that it left to `free_hpage_workfn`, which nobody waits for.
            if self.machine.var(self.kernel.vars.scalar(Scalar::HpageFreelist)) != 0 {
                let _ = hugetlb::free_hpage_workfn(&self.kernel, cpu);
            }
            done
        })
    }

    /// Put exactly the pages with these heads into a pool, as a replay of what a kernel did: their frames are taken
    /// before anything else is allocated, so that no table or vmemmap frame of the call lands in one of them.
    ///
    /// # Errors
    /// `EBUSY` if frames of one of them are in use, `EINVAL` if one is misaligned or outside RAM; then nothing is
    /// allocated. Any error of the allocation itself; then the pages before it are in the pool.
    pub fn allocate_exactly(&self, hstate: u8, heads: &[Pfn]) -> Result<u64, Errno> {
        let g = self.kernel.geometry;
        let (sizes, count) = g.hugetlb_sizes();
        let pages = *sizes[..count].get(usize::from(hstate)).ok_or(Errno::EINVAL)?;
        let order = pages.trailing_zeros() as u8;
        let give_back = |heads: &[Pfn]| {
            for &head in heads {
                self.release(g.pa(head), order);
            }
        };
        for (i, &head) in heads.iter().enumerate() {
            let in_ram = self.kernel.ram().iter().any(|r| {
                let start = g.pa(head).0;
                start >= r.start.0
                    && start - r.start.0 < r.bytes
                    && r.bytes - (start - r.start.0) >= pages << g.page_shift()
            });
            let wrong = if !head.is_aligned(pages) || !in_ram {
                Some(Errno::EINVAL)
            } else if self.machine.adopt_frame(g.pa(head), order, FrameKind::Huge, false) {
                None
            } else {
                Some(Errno::EBUSY)
            };
            if let Some(errno) = wrong {
                give_back(&heads[..i]);
                return Err(errno);
            }
        }
        for (i, &head) in heads.iter().enumerate() {
            self.release(g.pa(head), order);
            if let Err(errno) = self.run(&Operation::HugetlbAlloc { hstate, at: Some(head) }) {
                give_back(&heads[i + 1..]);
                return Err(errno);
            }
        }
        Ok(heads.len() as u64)
    }

    /// Take exactly the pages with these heads out of a pool, as a replay of what a kernel did: no frame of one of them
    /// is used for the vmemmap of another.
    ///
    /// # Errors
    /// `EINVAL` for a size that the granule lacks; that of the first page that could not be freed; those before it are
    /// freed.
    pub fn free_exactly(&self, hstate: u8, heads: &[Pfn]) -> Result<u64, Errno> {
        let g = self.kernel.geometry;
        let (sizes, count) = g.hugetlb_sizes();
        let order = sizes[..count].get(usize::from(hstate)).ok_or(Errno::EINVAL)?.trailing_zeros() as u8;
        let mut held = Vec::with_capacity(heads.len());
        let result = heads.iter().try_for_each(|&head| {
            self.run(&Operation::HugetlbFree { hstate, at: Some(head) })?;
            held.extend(self.machine.adopt_frame(g.pa(head), order, FrameKind::Huge, false).then_some(head));
            Ok(())
        });
        for head in held {
            self.release(g.pa(head), order);
        }
        result.map(|()| heads.len() as u64)
    }

    fn release(&self, pa: Pa, order: u8) {
        on_cpu!(self, |cpu| {
            let frame = cpu.frame_of(Entry { desc: Desc::NONE, tok: Default::default() }, pa);
            cpu.free(frame, order, FrameKind::Huge);
        });
    }

    /// Walk the kernel's tables as ptdump does and tell the sink (`/sys/kernel/debug/kernel_page_tables`).
    pub fn ptdump<S: PtdumpSink>(&self, sink: &mut S) {
        on_cpu!(self, |cpu| ptdump::ptdump_walk_pgd(&self.kernel, cpu, ptdump::whole_range(&self.kernel), sink));
    }

    /// Where a walk of the tables ends.
    #[must_use]
    pub fn translate(&self, va: Va) -> Option<vmemmap_arch::tables::Walk> {
        walk(&self.machine, va)
    }

    /// The words of a PFN's struct page, as the tables map it now; `None` where they map nothing.
    #[must_use]
    pub fn struct_page(&self, pfn: Pfn) -> Option<[u64; 8]> {
        let at = self.translate(self.kernel.layout.page_va(pfn))?.output?;
        let mut words = [0; 8];
        for (n, word) in (0..).zip(&mut words) {
            *word = AtRest(self).data_word(at.plus(n * 8))?;
        }
        Some(words)
    }

    fn hstate_var(&self, h: u8, field: Hstate) -> u64 {
        self.machine.var(self.kernel.vars.hstate(h, field))
    }
    /// A pool's counters; `h` counts the sizes of the granule from the smallest.
    #[must_use]
    pub fn pool(&self, h: u8) -> PoolState {
        let v = |field| self.hstate_var(h, field);
        PoolState {
            nr: v(Hstate::NrHugePages),
            free: v(Hstate::FreeHugePages),
            resv: v(Hstate::ResvHugePages),
            surplus: v(Hstate::SurplusHugePages),
            overcommit: v(Hstate::NrOvercommit),
            max: v(Hstate::MaxHugePages),
            demote_hstate: v(Hstate::DemoteOrder),
        }
    }
    /// Head PFN and length of every page of a pool, free or in use, by address.
    #[must_use]
    pub fn pages(&self, h: u8) -> Vec<(Pfn, u64)> {
        let (sizes, _) = self.kernel.geometry.hugetlb_sizes();
        let vars = &self.kernel.vars;
        let mut pages = Vec::new();
        self.each_slot(h, |slot| pages.push((self.kernel.geometry.pfn(vars.hpage_pa(slot)), sizes[usize::from(h)])));
        pages.sort_unstable();
        pages
    }
    /// The same as runs, without ever holding the list: of a pool of millions.
    #[must_use]
    pub fn page_runs(&self, h: u8) -> Vec<HugepageRun> {
        let (sizes, _) = self.kernel.geometry.hugetlb_sizes();
        let Some(&pages) = sizes.get(usize::from(h)) else { return Vec::new() };
        let vars = &self.kernel.vars;
        // A page takes so many slots, and all pages begin at the same one of theirs.
        let (each, mut first) = ((pages / sizes[0]) as u32, 0);
        let places = (vars.limit.since(vars.base) >> self.kernel.geometry.page_shift()) / pages + 1;
        let mut listed = vec![0u64; places.div_ceil(64) as usize];
        self.each_slot(h, |slot| {
            let place = slot / each;
            first = slot % each;
            if let Some(word) = listed.get_mut((place / 64) as usize) {
                *word |= 1 << (place % 64);
            }
        });
        let words = (0..).zip(&listed).filter(|(_, word)| **word != 0);
        let places =
            words.flat_map(|(n, word)| (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| n * 64 + bit));
        let slots = places.map(|place| place * each + first);
        HugepageRun::of(slots.map(|slot| (self.kernel.geometry.pfn(vars.hpage_pa(slot)), pages)))
    }
    /// Each page of a pool, by its slot, in no order.
    fn each_slot(&self, h: u8, mut each: impl FnMut(u32)) {
        let vars = &self.kernel.vars;
        for list in [Hstate::FreeList, Hstate::ActiveList] {
            let mut at = self.hstate_var(h, list);
            // A list that another thread changes meanwhile could lead in a circle.
            let mut left = self.hstate_var(h, Hstate::NrHugePages).saturating_add(1);
            while at != 0 && left != 0 {
                let slot = (at - 1) as u32;
                each(slot);
                at = self.machine.var(vars.hpage(slot, Hpage::Next));
                left -= 1;
            }
        }
    }
    /// How many pages of a pool are optimised, by their tables: two vmemmap pages of tails share a frame.
    #[must_use]
    pub fn optimised(&self, h: u8) -> u64 {
        let g = self.kernel.geometry;
        let shared = |&(head, _): &(Pfn, u64)| {
            let leaf = |n: u64| self.translate(self.kernel.layout.page_va(head).plus(n * g.page_size()))?.output;
            // 2021 keeps two pages; the third and the fourth are shared by every kernel that optimises.
            leaf(2).is_some_and(|pa| leaf(3) == Some(pa))
        };
        let large = |(_, pages): &&(Pfn, u64)| *pages >= 4 * g.struct_pages_per_page();
        self.pages(h).iter().filter(large).filter(|page| shared(page)).count() as u64
    }
    /// Memory block devices, by address.
    #[must_use]
    pub fn blocks(&self) -> Vec<BlockState> {
        let vars = &self.kernel.vars;
        (0..vars.sections())
            .filter_map(|n| {
                let state = self.machine.var(vars.block(n, Block::State));
                let start = Pa(vars.base.0 + (u64::from(n) << self.kernel.geometry.section_shift()));
                let zone = self.machine.var(vars.block(n, Block::Zone));
                (state != 0).then_some(BlockState { start, bytes: self.kernel.geometry.section_size(), state, zone })
            })
            .collect()
    }
    /// Sections that are valid: start, and whether it is early.
    #[must_use]
    pub fn sections(&self) -> Vec<(Pa, bool)> {
        let vars = &self.kernel.vars;
        (0..vars.sections())
            .filter_map(|n| {
                let flags = self.machine.var(vars.section(n, Section::MemMap));
                let start = Pa(vars.base.0 + (u64::from(n) << self.kernel.geometry.section_shift()));
                (flags & section_flag::HAS_MEM_MAP != 0).then_some((start, flags & section_flag::IS_EARLY != 0))
            })
            .collect()
    }
    #[must_use]
    pub fn hvo(&self) -> bool {
        self.machine.var(self.kernel.vars.scalar(Scalar::HvoEnabled)) != 0
    }
    /// Everything that is counted, by name.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut all: Vec<(&'static str, u64)> = self.machine.counters().named().to_vec();
        let frames = self.machine.frame_counts();
        all.extend([("frames_free", frames.free), ("frames_used", frames.used), ("frames_total", frames.total)]);
        all.push(("optimised_hugepages", self.optimised_hugepages()));
        all.push(("vmemmap_tails", self.vmemmap_tails()));
        all
    }

    /// Optimised pages of all pools: the static key counts them, where the kernel has it to tell fake heads.
    fn optimised_hugepages(&self) -> u64 {
        if self.kernel.features.fake_heads {
            self.machine.var(self.kernel.vars.scalar(Scalar::HvoKey))
        } else {
            (0..self.kernel.geometry.hugetlb_sizes().1 as u8).map(|h| self.optimised(h)).sum()
        }
    }

    /// Frames in `zone->vmemmap_tails` of all zones: in use for ever, whether a hugepage is optimised now or not.
    fn vmemmap_tails(&self) -> u64 {
        let vars = &self.kernel.vars;
        let slots = (0..ZONES).flat_map(|zone| (0..ZONE_TAILS).map(move |index| vars.zone_tail(zone, index)));
        slots.filter(|&slot| self.machine.var(slot) != 0).count() as u64
    }

    /// Every invariant that a machine at rest can show: what is broken, and which could be judged.
    #[must_use]
    pub fn check(&self) -> (Vec<vmemmap_kernel::check::Violation>, InvariantSet) {
        let mut violations = Vec::new();
        let mut marks = FrameMarks::new(
            self.machine.span() >> self.kernel.geometry.page_shift(),
            self.kernel.vars.base,
            &self.kernel.geometry,
        );
        let visible = check(&AtRest(self), &mut marks, |v| violations.push(v));
        (violations, visible)
    }
}

/// One bit a frame; zeroed memory that nobody marks is never touched.
struct FrameMarks {
    bits: Vec<u64>,
    first: u64,
}

impl FrameMarks {
    fn new(frames: u64, base: Pa, geometry: &Geometry) -> Self {
        Self { bits: vec![0; frames.div_ceil(64) as usize], first: geometry.pfn(base).0 }
    }
    fn place(&self, frame: Pfn) -> Option<(usize, u64)> {
        let n = frame.0.checked_sub(self.first)?;
        Some(((n / 64) as usize, 1 << (n % 64)))
    }
}

impl Marks for FrameMarks {
    fn mark(&mut self, frame: Pfn) -> bool {
        let Some((word, bit)) = self.place(frame) else { return false };
        self.bits.get_mut(word).is_some_and(|word| core::mem::replace(word, *word | bit) & bit != 0)
    }
    fn is_marked(&self, frame: Pfn) -> bool {
        self.place(frame).and_then(|(word, bit)| Some(self.bits.get(word)? & bit != 0)).unwrap_or(false)
    }
}

struct AtRest<'a>(&'a LiveMachine);

impl TableView for AtRest<'_> {
    fn geometry(&self) -> Geometry {
        self.0.kernel.geometry
    }
    fn root(&self) -> Pa {
        self.0.machine.root()
    }
    fn word(&self, table: Pa, index: usize) -> Option<Desc> {
        TableView::word(&self.0.machine, table, index)
    }
}

impl StateView for AtRest<'_> {
    fn kernel(&self) -> &Kernel {
        &self.0.kernel
    }
    fn var(&self, var: Var) -> Option<u64> {
        Some(self.0.machine.var(var))
    }
    fn data_word(&self, pa: Pa) -> Option<u64> {
        let page = self.0.kernel.geometry.page_size();
        self.0.machine.frame_word(pa.align_down(page), ((pa.0 & (page - 1)) / 8) as u16)
    }
    fn frame(&self, pa: Pa) -> Option<FrameInfo> {
        self.0.machine.frame_info(pa).map(|(kind, free, self_hosted)| FrameInfo { kind, free: Some(free), self_hosted })
    }
    fn uninteresting(&self, pa: Pa) -> u64 {
        self.0.machine.unlisted_chunk(pa)
    }
    fn is_isolated(&self, pa: Pa) -> Option<bool> {
        Some(self.0.machine.is_isolated(pa))
    }
}
