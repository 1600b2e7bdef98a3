//! The actors of the May 2021 thread as real threads on the checked machine: HugeTLB beside a block that comes and
//! goes, ptdump and lockless walkers reading.

use std::sync::Barrier;
use std::thread;

use vmemmap_arch::*;
use vmemmap_kernel::policy::Mapping;
use vmemmap_kernel::{Kernel, Operation, Policies, Ram, boot};
use vmemmap_machine::{Machine, MachineConfig, RamRange};

const BASE: u64 = 0x4000_0000;

fn machine(granule: Granule, version: Version, policies: Policies) -> (Kernel, Machine) {
    machine_of(granule, version, policies, 2)
}

fn machine_of(granule: Granule, version: Version, policies: Policies, sections: u64) -> (Kernel, Machine) {
    let g = Geometry::new(granule, if granule == Granule::K16 { 47 } else { 48 }).unwrap();
    let size = g.section_size();
    let layout = Layout::new(g, version, BASE as i64).unwrap();
    let ram = [
        Ram { start: Pa(BASE), bytes: sections * size, boot: true },
        Ram { start: Pa(BASE + sections.max(8) * size), bytes: 2 * size, boot: false },
    ];
    let k = Kernel::new(layout, policies, &ram, true);
    let ranges = ram.iter().map(|r| RamRange { start: r.start, bytes: r.bytes, boot: r.boot }).collect();
    let m =
        Machine::new(&MachineConfig { geometry: g, ram: ranges, cpus: 5, vars: k.vars.count(), root: None, seed: 1 })
            .unwrap();
    boot::boot(&k, &m.checked_cpu(0)).unwrap();
    m.seal_boot();
    (k, m)
}

/// Rounds of each actor; results are not looked at, only what the machine saw.
fn run_actors(k: &Kernel, m: &Machine, actors: &[(&[Operation], usize)]) {
    thread::scope(|scope| {
        for (number, &(operations, rounds)) in (0..).zip(actors) {
            scope.spawn(move || {
                let cpu = m.checked_cpu(number);
                for _ in 0..rounds {
                    for operation in operations {
                        let _ = operation.run(k, &cpu);
                    }
                }
            });
        }
    });
}

fn churn(k: &Kernel, section: u64) -> Vec<Operation> {
    let (start, bytes) = (Pa(BASE + (8 + section) * k.geometry.section_size()), k.geometry.section_size());
    vec![
        Operation::MemoryAdd { start, bytes, memmap_on_memory: false },
        Operation::MemoryOnline { start, bytes, zone: Zone::Movable },
        Operation::MemoryOffline { start, bytes },
        Operation::MemoryRemove { start, bytes },
    ]
}

#[test]
fn hugetlb_beside_hotplug_ptdump_and_walkers_breaks_nothing() {
    for granule in [Granule::K4, Granule::K64] {
        for version in [Version::V2021, Version::V6_1, Version::V6_12] {
            let (k, m) = machine(granule, version, Policies::default());
            // A size whose vmemmap is optimised and that fits into a boot section: 2M, with 64K pages 2M is not.
            let h = if granule == Granule::K4 { 1 } else { 0 };
            let pfn = k.geometry.pfn(Pa(BASE));
            let hugetlb = [
                Operation::HugetlbAlloc { hstate: h, at: None },
                Operation::HugetlbUse { hstate: h },
                Operation::HugetlbFree { hstate: h, at: None },
            ];
            let readers = [
                Operation::PtdumpWalk {
                    range: Some(k.layout.vmemmap_start..k.layout.vmemmap_start.plus(1 << 30)),
                    pfns: None,
                },
                Operation::PfnWalk { start: pfn, end: pfn.plus(4096), step: 3 },
            ];
            run_actors(&k, &m, &[(&hugetlb, 60), (&churn(&k, 0), 6), (&readers, 10), (&churn(&k, 1), 6)]);
            assert!(m.violations().is_empty(), "{granule:?} {version:?} {:#?}", m.violations().first());
        }
    }
}

#[test]
fn hotplug_without_its_locks_overlaps() {
    for (row, value) in [("hotplug", "none"), ("mutant", "no-device-lock")] {
        let mut policies = Policies::default();
        policies.set(row, value).unwrap();
        let (k, m) = machine(Granule::K64, Version::V6_1, policies);
        for _ in 0..200 {
            run_actors(&k, &m, &[(&churn(&k, 0), 5), (&churn(&k, 1), 5)]);
            if m.violations_of(Invariant::HotplugExclusive) > 0 {
                break;
            }
        }
        assert!(m.violations_of(Invariant::HotplugExclusive) > 0, "{row}={value}");
    }
}

#[test]
fn vmalloc_on_several_cpus_shares_tables_and_breaks_nothing() {
    for granule in [Granule::K4, Granule::K16] {
        let (k, m) = machine(granule, Version::V6_1, Policies::default());
        let huge = k.geometry.entries() as u64;
        let cycles = [1, 5, huge, 2, huge + 3].map(|pages| Operation::VmallocCycle { pages });
        let hugetlb = [Operation::HugetlbUse { hstate: 0 }, Operation::NrHugepages { hstate: 0, count: 3 }];
        run_actors(&k, &m, &[(&cycles, 8), (&cycles, 8), (&hugetlb, 20)]);
        assert!(m.violations().is_empty(), "{granule:?} {:#?}", m.violations().first());
    }
}

#[test]
fn speculative_references_and_poison_meet_hugepages_that_come_and_go() {
    for version in [Version::V2021, Version::V6_12] {
        let (k, m) = machine(Granule::K4, version, Policies::default());
        let pfn = k.geometry.pfn(Pa(BASE));
        let hugetlb = [
            Operation::HugetlbAlloc { hstate: 1, at: None },
            Operation::HugetlbUse { hstate: 1 },
            Operation::HugetlbFree { hstate: 1, at: None },
        ];
        // Heads only: a tail's count is never another's to write (R1 is the scenario for that).
        let readers = [0, 512, 1024, 2048].map(|n| Operation::SpeculativeRef { pfn: pfn.plus(n) });
        run_actors(&k, &m, &[(&hugetlb, 200), (&readers, 400), (&hugetlb, 200)]);
        assert!(m.violations().is_empty(), "{version:?} {:#?}", m.violations().first());
    }
}

/// Two pages in one block are optimised at once: both make a table for it, one publishes, the other gives its own back.
/// Block after block, until that was seen; on a host with one CPU it may never be.
#[test]
fn who_loses_the_race_for_a_split_gives_its_table_back() {
    let lost = (0..40).any(|_| {
        let (k, m) =
            machine_of(Granule::K4, Version::V6_1, Policies { mapping: Mapping::Blocks, ..Default::default() }, 34);
        let g = k.geometry;
        // The first section has the frames of the boot.
        (1..33).any(|section| {
            let pages = [0, 1].map(|n| Some(Pfn(g.pfn(Pa(BASE)).0 + section * g.pages_per_section() + n * 512)));
            let (free, freed) = (m.frames_free(), m.counters().tables_freed);
            let together = Barrier::new(2);
            thread::scope(|scope| {
                for (number, at) in (0..).zip(pages) {
                    let (m, k, together) = (&m, &k, &together);
                    scope.spawn(move || {
                        let cpu = m.checked_cpu(number);
                        together.wait();
                        Operation::HugetlbAlloc { hstate: 1, at }.run(k, &cpu).unwrap();
                    });
                }
            });
            for at in pages {
                Operation::HugetlbFree { hstate: 1, at }.run(&k, &m.checked_cpu(0)).unwrap();
            }
            assert_eq!(free - m.frames_free(), 1, "section {section}: one table for its block");
            assert!(m.violations().is_empty(), "{:?}", m.violations());
            m.counters().tables_freed != freed
        })
    });
    eprintln!("a split was lost: {lost}");
}
