//! Resizing a pool on the native machine: what a signal leaves behind, what restored struct pages cost the host.

use vmemmap_arch::tables::walk;
use vmemmap_arch::*;
use vmemmap_kernel::state::{Hstate, Scalar};
use vmemmap_kernel::{Errno, Kernel, Operation, Policies, Ram, boot};
use vmemmap_machine::{Machine, MachineConfig, RamRange};

const BASE: u64 = 0x4000_0000;
const PMD: u8 = 1;

struct Lab {
    k: Kernel,
    m: Machine,
}

impl Lab {
    fn new(granule: Granule, version: Version) -> Self {
        let g = Geometry::new(granule, 48).unwrap();
        let layout = Layout::new(g, version, BASE as i64).unwrap();
        let bytes = 16 * g.section_size();
        let ram = [
            Ram { start: Pa(BASE), bytes, boot: true },
            Ram { start: Pa(BASE + bytes), bytes: g.section_size(), boot: false },
        ];
        let k = Kernel::new(layout, Policies::default(), &ram, true);
        let ranges = ram.iter().map(|r| RamRange { start: r.start, bytes: r.bytes, boot: r.boot }).collect();
        let m = Machine::new(&MachineConfig {
            geometry: g,
            ram: ranges,
            cpus: 1,
            vars: k.vars.count(),
            root: None,
            seed: 1,
        })
        .unwrap();
        boot::boot(&k, &m.cpu(0)).unwrap();
        m.seal_boot();
        Self { k, m }
    }
    fn resize(&self, count: u64) -> u64 {
        Operation::NrHugepages { hstate: PMD, count }.run(&self.k, &self.m.cpu(0)).unwrap()
    }
    fn pool(&self, field: Hstate) -> u64 {
        self.m.var(self.k.vars.hstate(PMD, field))
    }
    fn first_page(&self) -> Pfn {
        let link = self.pool(Hstate::FreeList);
        self.k.geometry.pfn(self.k.vars.hpage_pa((link - 1) as u32))
    }
}

#[test]
fn a_signal_leaves_pages_that_were_not_freed_in_the_pool_as_they_were() {
    for version in [Version::V2021, Version::V6_1, Version::V6_12] {
        let lab = Lab::new(Granule::K4, version);
        assert_eq!(lab.resize(8), 8, "{}", version.name());
        let (free, key) = (lab.m.frames_free(), lab.m.var(lab.k.vars.scalar(Scalar::HvoKey)));
        lab.m.set_signal(true);
        assert_eq!(lab.resize(0), 8, "{}", version.name());
        lab.m.set_signal(false);
        assert_eq!((lab.pool(Hstate::FreeHugePages), lab.pool(Hstate::SurplusHugePages)), (8, 0), "{}", version.name());
        assert_eq!(
            (lab.m.frames_free(), lab.m.var(lab.k.vars.scalar(Scalar::HvoKey))),
            (free, key),
            "{}",
            version.name()
        );
        assert_eq!(lab.resize(0), 0, "{}", version.name());
        assert!(lab.m.violations().is_empty(), "{:?}", lab.m.violations());
    }
}

#[test]
fn restored_tails_cost_the_host_no_memory_where_the_kernel_resets_them() {
    for (granule, version) in
        [(Granule::K4, Version::V6_1), (Granule::K4, Version::V6_12), (Granule::K64, Version::V6_1)]
    {
        let lab = Lab::new(granule, version);
        assert_eq!(lab.resize(1), 1);
        let head = lab.first_page();
        assert_eq!(lab.resize(0), 0);
        for n in 1..8 {
            let va = lab.k.layout.page_va(head).plus(n * lab.k.geometry.page_size());
            let pa = walk(&lab.m, va).and_then(|end| end.output).unwrap();
            assert!(!lab.m.is_materialised(pa), "{granule:?} {}: vmemmap page {n}", version.name());
        }
        assert!(lab.m.violations().is_empty(), "{:?}", lab.m.violations());
    }
}

#[test]
fn ranges_outside_all_ram_are_refused_at_once() {
    let lab = Lab::new(Granule::K4, Version::V6_1);
    for (start, bytes) in [(0, 1 << 63), (1 << 62, 1 << 62), (!0 << 27, 1 << 27)] {
        let add = Operation::MemoryAdd { start: Pa(start), bytes, memmap_on_memory: false };
        assert!(matches!(add.run(&lab.k, &lab.m.cpu(0)), Err(Errno::EINVAL | Errno::EEXIST)), "{start:#x}+{bytes:#x}");
    }
}
