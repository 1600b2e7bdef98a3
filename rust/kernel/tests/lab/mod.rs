//! A booted machine whose one CPU is checked, for tests of what an algorithm does by itself: allocations fail on
//! demand, every access is judged at once, and the machine at rest is checked as a whole.
#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::HashSet;

use vmemmap_arch::*;
use vmemmap_kernel::check::{FrameInfo, Marks, StateView, Violation, check};
use vmemmap_kernel::policy::Mapping;
use vmemmap_kernel::state::Scalar;
use vmemmap_kernel::{Kernel, Operation, Policies, Ram, boot};
use vmemmap_machine::{Checked, Counters, Machine, MachineConfig, RamRange};

pub const BASE: u64 = 0x4000_0000;
const CPU: u8 = 0;

pub struct Lab {
    pub k: Kernel,
    pub m: Machine,
}

impl Lab {
    /// `sections` boot sections from `BASE`, vmemmap in blocks (4K only) or pages, HVO on. One more may be hot-added.
    pub fn new(granule: Granule, version: Version, sections: u64, blocks: bool, policies: Policies) -> Self {
        Self::seeded(granule, version, sections, blocks, policies, 1)
    }
    /// The same with the seed of random allocation failures.
    pub fn seeded(
        granule: Granule,
        version: Version,
        sections: u64,
        blocks: bool,
        policies: Policies,
        seed: u64,
    ) -> Self {
        let g = Geometry::new(granule, 48).unwrap();
        let layout = Layout::new(g, version, BASE as i64).unwrap();
        let bytes = sections * g.section_size();
        let ram = [
            Ram { start: Pa(BASE), bytes, boot: true },
            Ram { start: Pa(BASE + bytes), bytes: g.section_size(), boot: false },
        ];
        let mapping = if blocks { Mapping::Blocks } else { Mapping::BasePages };
        let k = Kernel::new(layout, Policies { mapping, ..policies }, &ram, true);
        let ranges = ram.iter().map(|r| RamRange { start: r.start, bytes: r.bytes, boot: r.boot }).collect();
        // Away from the first frames, which the tests ask for.
        let root = Some(Pa(BASE + bytes - g.page_size()));
        let m = Machine::new(&MachineConfig { geometry: g, ram: ranges, cpus: 1, vars: k.vars.count(), root, seed })
            .unwrap();
        let lab = Self { k, m };
        boot::boot(&lab.k, &lab.m.cpu(CPU)).unwrap();
        lab.m.seal_boot();
        lab
    }
    pub fn cpu(&self) -> Checked<'_> {
        self.m.checked_cpu(CPU)
    }
    /// Hot-add the section after boot RAM with its vmemmap inside itself, and online it: its first frame number.
    pub fn add_self_hosted(&self) -> Pfn {
        let Ram { start, bytes, .. } = self.k.ram()[1];
        // 2021 refuses such a section when HVO is on; what its HVO does with one is asked all the same.
        let mut k = self.k;
        k.hvo_at_boot = false;
        Operation::MemoryAdd { start, bytes, memmap_on_memory: true }.run(&k, &self.cpu()).unwrap();
        Operation::MemoryOnline { start, bytes, zone: Zone::Movable }.run(&self.k, &self.cpu()).unwrap();
        self.k.geometry.pfn(start)
    }

    /// Let `count` allocations succeed and the next one fail.
    pub fn fail_after(&self, count: u64) {
        self.m.fail_alloc(CPU, count + 1);
    }
    /// Let every allocation fail.
    pub fn fail_all(&self) {
        self.m.fail_probability(1.0);
    }
    pub fn fail_none(&self) {
        self.m.fail_alloc(CPU, 0);
        self.m.fail_probability(0.0);
    }

    pub fn pte(&self, va: Va) -> Option<Desc> {
        let w = tables::walk(&self.m, va)?;
        (w.level == Level::PTE).then_some(w.desc)
    }
    /// All vmemmap leaves, as (address, level, descriptor).
    pub fn leaves(&self) -> Vec<(Va, Level, Desc)> {
        let g = self.k.geometry;
        let (start, end) =
            (self.k.layout.page_va(g.pfn(self.k.vars.base)), self.k.layout.page_va(g.pfn(self.k.vars.limit)));
        let (mut va, mut all) = (start, Vec::new());
        while va < end {
            let w = tables::walk(&self.m, va).unwrap();
            all.extend(w.output.map(|_| (va, w.level, w.desc)));
            va = va.align_down(g.entry_span(w.level)).plus(g.entry_span(w.level));
        }
        all
    }
    /// Distinct base frames that vmemmap maps.
    pub fn vmemmap_frames(&self) -> HashSet<u64> {
        let g = self.k.geometry;
        let frames = |level| (0..g.entry_span(level) >> g.page_shift()).map(move |i| i << g.page_shift());
        self.leaves()
            .into_iter()
            .flat_map(|(_, level, desc)| frames(level).map(move |at| g.output(desc).0 + at))
            .collect()
    }
    pub fn scalar(&self, which: Scalar) -> u64 {
        self.m.var(self.k.vars.scalar(which))
    }
    pub fn set_hvo(&self, on: bool) {
        self.m.set_var(self.k.vars.scalar(Scalar::HvoEnabled), u64::from(on));
    }
    /// Base pages in use for `kind`.
    pub fn frames_of(&self, kind: FrameKind) -> u64 {
        let page = self.k.geometry.page_size();
        let frames = self.k.ram().iter().flat_map(|r| (0..r.bytes / page).map(|i| r.start.plus(i * page)));
        frames.filter(|&pa| matches!(self.m.frame_info(pa), Some((found, false, _)) if found == kind)).count() as u64
    }
    /// Totals of everything that returned.
    pub fn counters(&self) -> Counters {
        self.m.counters()
    }

    pub fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        check(&AtRest(self), &mut MarkSet::default(), |finding| found.push(finding));
        found
    }
    /// Panics unless nothing is wrong, now and until now.
    pub fn assert_clean(&self, when: &str) {
        let found = self.check();
        assert!(found.is_empty(), "{when}: {found:#x?}");
        let violations = self.m.violations();
        assert!(violations.is_empty(), "{when}: {violations:#x?}");
        self.assert_unlocked(when);
    }
    /// Panics if an operation kept a lock.
    pub fn assert_unlocked(&self, when: &str) {
        use LockId as L;
        let cpu = self.cpu();
        let fixed = [
            L::DeviceHotplug,
            L::CpuHotplug,
            L::MemHotplug,
            L::PcpBatchHigh,
            L::InitMmMmap,
            L::InitMmPageTable,
            L::SwapperPgdir,
            L::Fixmap,
            L::Hugetlb,
            L::VmapArea,
        ];
        for lock in fixed.into_iter().chain((0..4).map(L::HugetlbResize)) {
            assert!(cpu.try_acquire(lock, Mode::Write), "{when}: {} is held", lock.name());
            cpu.release(lock, Mode::Write);
        }
    }
}

#[derive(Default)]
struct MarkSet(HashSet<u64>);

impl Marks for MarkSet {
    fn mark(&mut self, frame: Pfn) -> bool {
        !self.0.insert(frame.0)
    }
    fn is_marked(&self, frame: Pfn) -> bool {
        self.0.contains(&frame.0)
    }
}

/// The machine and what the kernel's variables mean, while no operation runs.
struct AtRest<'a>(&'a Lab);

impl TableView for AtRest<'_> {
    fn geometry(&self) -> Geometry {
        self.0.k.geometry
    }
    fn root(&self) -> Pa {
        self.0.m.root()
    }
    fn word(&self, table: Pa, index: usize) -> Option<Desc> {
        TableView::word(&self.0.m, table, index)
    }
}

impl StateView for AtRest<'_> {
    fn kernel(&self) -> &Kernel {
        &self.0.k
    }
    fn var(&self, var: Var) -> Option<u64> {
        Some(self.0.m.var(var))
    }
    fn data_word(&self, pa: Pa) -> Option<u64> {
        let page = self.0.k.geometry.page_size();
        self.0.m.frame_word(pa.align_down(page), ((pa.0 & (page - 1)) / 8) as u16)
    }
    fn frame(&self, pa: Pa) -> Option<FrameInfo> {
        self.0.m.frame_info(pa).map(|(kind, free, self_hosted)| FrameInfo { kind, free: Some(free), self_hosted })
    }
    fn uninteresting(&self, pa: Pa) -> u64 {
        self.0.m.unlisted_chunk(pa)
    }
    fn is_isolated(&self, pa: Pa) -> Option<bool> {
        Some(self.0.m.is_isolated(pa))
    }
}
