//! A fault handler that never has to act changes nothing: whatever goes through it does what it does without.

mod lab;

use lab::{BASE, Lab};
use vmemmap_arch::{Granule, Pa, Pfn, Var, Version};
use vmemmap_kernel::policy::FaultHandler;
use vmemmap_kernel::{Operation, Policies};

const PMD: u8 = 1;

/// Everything that an operation returned, and the variables and vmemmap leaves that they left.
fn outcome(version: Version, fault: FaultHandler) -> (Vec<Option<u64>>, Vec<u64>, Vec<u64>) {
    let m = Lab::new(Granule::K4, version, 2, true, Policies { fault, ..Policies::default() });
    let section = m.k.geometry.section_size();
    let hot = Pa(BASE + 2 * section);
    let first = m.k.geometry.pfn(Pa(BASE));
    let mut returned = Vec::new();
    let run = |operation: Operation| operation.run(&m.k, &m.cpu()).ok();
    returned.push(run(Operation::MemoryAdd { start: hot, bytes: section, memmap_on_memory: false }));
    returned.push(run(Operation::MemoryOnline { start: hot, bytes: section, zone: vmemmap_arch::Zone::Movable }));
    returned.push(run(Operation::NrHugepages { hstate: PMD, count: 3 }));
    returned.push(run(Operation::HugetlbGet { hstate: PMD }));
    for n in [0, 1, 511, 512, 513, 1024, 4096] {
        returned.push(run(Operation::SpeculativeRef { pfn: Pfn(first.0 + n) }));
        returned.push(run(Operation::PfnValid { pfn: Pfn(first.0 + n), access: true }));
    }
    returned.push(run(Operation::HugetlbUse { hstate: PMD }));
    returned.push(run(Operation::PfnWalk { start: first, end: first.plus(2048), step: 3 }));
    returned.push(run(Operation::PtdumpWalk { range: None, pfns: None }));
    returned.push(run(Operation::HugetlbDemote { hstate: PMD, count: 1 }));
    returned.push(run(Operation::NrHugepages { hstate: PMD, count: 0 }));
    returned.push(run(Operation::MemoryOffline { start: hot, bytes: section }));
    returned.push(run(Operation::MemoryRemove { start: hot, bytes: section }));
    returned.push(Some(m.m.violation_count()));
    let variables = (0..m.k.vars.count() as u32).map(|n| m.m.var(Var(n))).collect();
    let leaves = m.leaves().into_iter().map(|(_, _, desc)| desc.0).collect();
    (returned, variables, leaves)
}

#[test]
fn a_handler_that_never_acts_changes_nothing() {
    for version in Version::ALL {
        let without = outcome(version, FaultHandler::Oops);
        assert!(without.0.iter().filter(|result| result.is_some()).count() > 15, "{version:?}: {without:x?}");
        for fault in [FaultHandler::Recheck, FaultHandler::Wait] {
            assert_eq!(outcome(version, fault), without, "{version:?}, {fault:?}");
        }
    }
}
