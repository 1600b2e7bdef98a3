//! The kernel boots on an explored machine and works there as on any other.

use std::cell::RefCell;

use vmemmap_arch::{Geometry, Granule, Layout, Pa, Va, Version, tables};
use vmemmap_kernel::{Kernel, Operation, Policies, Ram, boot};
use vmemmap_machine::explored::{Direct, World, WorldOptions};
use vmemmap_machine::op_cpu::OpCpu;
use vmemmap_machine::{MachineConfig, RamRange};

const GIB: u64 = 1 << 30;

fn kernel(granule: Granule, va_bits: u32, version: Version) -> Kernel {
    let g = Geometry::new(granule, va_bits).expect("a pair that arm64 has");
    let layout = Layout::new(g, version, GIB as i64).expect("a layout");
    let boot_bytes = 2 * GIB;
    let ram = [
        Ram { start: Pa(GIB), bytes: boot_bytes, boot: true },
        Ram { start: Pa(8 * GIB), bytes: 2 * GIB, boot: false },
    ];
    Kernel::new(layout, Policies::default(), &ram, true)
}

fn booted(k: &Kernel, cpus: u8) -> RefCell<World> {
    let ram = k.ram().iter().map(|r| RamRange { start: r.start, bytes: r.bytes, boot: r.boot }).collect();
    let config = MachineConfig { geometry: k.geometry, ram, cpus, vars: k.vars.count(), root: None, seed: 0 };
    let linear_map = Some(k.layout.page_offset..k.layout.page_end);
    let world =
        RefCell::new(World::new(&config, WorldOptions { linear_map, ..WorldOptions::default() }).expect("a machine"));
    let cpu = OpCpu::new(Direct::new(&world, 0));
    boot::boot(k, &cpu).expect("boot");
    assert_eq!(world.borrow().violations(), [], "boot breaks nothing");
    world.borrow_mut().mark();
    world
}

fn hugepage_and_back(k: &Kernel, world: &RefCell<World>) -> u128 {
    let cpu = OpCpu::new(Direct::new(world, 0));
    let head = Operation::HugetlbAlloc { hstate: 1, at: None }.run(k, &cpu).expect("a hugepage");
    let at = vmemmap_arch::Pfn(head);
    assert_eq!(Operation::HugetlbFree { hstate: 1, at: Some(at) }.run(k, &cpu), Ok(head));
    world.borrow().fingerprint()
}

#[test]
fn a_kernel_boots_and_optimises_a_hugepage_and_only_break_before_make_is_broken() {
    for version in [Version::V2021, Version::V6_1, Version::V6_12] {
        let k = kernel(Granule::K4, 48, version);
        let world = booted(&k, 2);
        hugepage_and_back(&k, &world);
        let world = world.borrow();
        let others: Vec<_> = world.violations().iter().filter(|b| b.invariant.number() != 19).collect();
        assert!(others.is_empty(), "{}: {others:#?}", version.name());
        assert!(!world.overflowed());
    }
}

#[test]
fn reset_returns_to_the_marked_state_and_the_same_run_leads_to_the_same_state() {
    let k = kernel(Granule::K4, 48, Version::V6_12);
    let world = booted(&k, 2);
    let start = world.borrow().fingerprint();
    let first = hugepage_and_back(&k, &world);
    assert_ne!(start, first);
    world.borrow_mut().reset();
    assert_eq!(world.borrow().fingerprint(), start);
    assert_eq!(world.borrow().violations(), []);
    assert_eq!(hugepage_and_back(&k, &world), first);
}

#[test]
fn memory_is_added_onlined_offlined_and_removed_with_every_granule() {
    for (granule, bits) in [(Granule::K4, 48), (Granule::K16, 47), (Granule::K64, 48)] {
        let k = kernel(granule, bits, Version::V6_1);
        let world = booted(&k, 1);
        let cpu = OpCpu::new(Direct::new(&world, 0));
        let (start, bytes) = (Pa(8 * GIB), k.geometry.section_size());
        Operation::MemoryAdd { start, bytes, memmap_on_memory: false }.run(&k, &cpu).expect("add");
        let page: Va = k.layout.page_va(k.geometry.pfn(start));
        assert!(tables::walk(&*world.borrow(), page).expect("in memory").output.is_some());
        Operation::MemoryOnline { start, bytes, zone: vmemmap_arch::Zone::Movable }.run(&k, &cpu).expect("online");
        Operation::MemoryOffline { start, bytes }.run(&k, &cpu).expect("offline");
        Operation::MemoryRemove { start, bytes }.run(&k, &cpu).expect("remove");
        let world = world.borrow();
        assert!(tables::walk(&*world, page).expect("in memory").output.is_none());
        assert_eq!(world.violations(), [], "{}", granule.name());
    }
}
