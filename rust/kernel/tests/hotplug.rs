//! Populate, hot add, online, offline, remove and their errors, on the checked native machine.

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::tables::walk;
use vmemmap_arch::*;
use vmemmap_kernel::hugetlb_vmemmap::remap::walk_range;
use vmemmap_kernel::hugetlb_vmemmap::walk::{Action, RemapWalk};
use vmemmap_kernel::mmzone::{pfn_to_online_page, pfn_valid};
use vmemmap_kernel::sparse::__populate_section_memmap;
use vmemmap_kernel::sparse_vmemmap::{Altmap, Storage};
use vmemmap_kernel::state::{Scalar, Section, section_flag};
use vmemmap_kernel::{Errno, Kernel, Operation, Policies, Ram, boot, memory_block};
use vmemmap_machine::{Machine, MachineConfig, RamRange};

const BASE: u64 = 0x4000_0000;
const MIB: u64 = 1 << 20;

struct Lab {
    k: Kernel,
    m: Machine,
}

impl Lab {
    fn new(granule: Granule, va_bits: u32, version: Version, boot_sections: u64, policies: Policies) -> Self {
        Self::with_hvo(granule, va_bits, version, boot_sections, policies, false)
    }
    fn with_hvo(
        granule: Granule,
        va_bits: u32,
        version: Version,
        boot_sections: u64,
        policies: Policies,
        hvo: bool,
    ) -> Self {
        let g = Geometry::new(granule, va_bits).unwrap();
        let size = g.section_size();
        let layout = Layout::new(g, version, BASE as i64).unwrap();
        let ram = [
            Ram { start: Pa(BASE), bytes: boot_sections * size, boot: true },
            Ram { start: Pa(BASE + 8 * size), bytes: 8 * size, boot: false },
        ];
        let k = Kernel::new(layout, policies, &ram, hvo);
        let ranges = ram.iter().map(|r| RamRange { start: r.start, bytes: r.bytes, boot: r.boot }).collect();
        let m = Machine::new(&MachineConfig {
            geometry: g,
            ram: ranges,
            cpus: 2,
            vars: k.vars.count(),
            root: None,
            seed: 1,
        })
        .unwrap();
        boot::boot(&k, &m.checked_cpu(0)).unwrap();
        m.seal_boot();
        let lab = Self { k, m };
        lab.assert_clean();
        lab
    }
    fn run(&self, op: Operation) -> Result<u64, Errno> {
        op.run(&self.k, &self.m.checked_cpu(0))
    }
    fn assert_clean(&self) {
        assert!(self.m.violations().is_empty(), "{:?}", self.m.violations());
    }
    fn section(&self) -> u64 {
        self.k.geometry.section_size()
    }
    /// Start of the n-th hot-pluggable section.
    fn hot(&self, n: u64) -> Pa {
        Pa(BASE + (8 + n) * self.section())
    }
    fn add(&self, n: u64, count: u64) -> Result<u64, Errno> {
        self.run(Operation::MemoryAdd { start: self.hot(n), bytes: count * self.section(), memmap_on_memory: false })
    }
    fn online(&self, n: u64, count: u64) -> Result<u64, Errno> {
        self.run(Operation::MemoryOnline { start: self.hot(n), bytes: count * self.section(), zone: Zone::Movable })
    }
    fn offline(&self, n: u64, count: u64) -> Result<u64, Errno> {
        self.run(Operation::MemoryOffline { start: self.hot(n), bytes: count * self.section() })
    }
    fn remove(&self, n: u64, count: u64) -> Result<u64, Errno> {
        self.run(Operation::MemoryRemove { start: self.hot(n), bytes: count * self.section() })
    }
    fn leaf(&self, va: Va) -> (Level, Desc) {
        let w = walk(&self.m, va).unwrap();
        (w.level, w.desc)
    }
    fn page_va(&self, pa: Pa) -> Va {
        self.k.layout.page_va(self.k.geometry.pfn(pa))
    }
    fn tables(&self) -> usize {
        self.m.tables().len()
    }
}

#[test]
fn boot_maps_a_block_for_each_section_with_4k_pages_going_up_in_memory() {
    for (version, attributes) in
        [(Version::V6_1, prot::PROT_SECT_NORMAL_6_1), (Version::V6_12, prot::PROT_SECT_NORMAL_6_12)]
    {
        let lab = Lab::new(Granule::K4, 48, version, 4, Policies::default());
        let mut before = 0;
        for section in 0..4 {
            let (level, desc) = lab.leaf(lab.page_va(Pa(BASE + section * lab.section())));
            assert_eq!(level, Level::PMD);
            let pa = lab.k.geometry.output(desc).0;
            assert_eq!(desc.0, pa | attributes);
            assert!(before == 0 || pa == before + 2 * MIB, "frames of the buffer go up: {before:#x} {pa:#x}");
            before = pa;
        }
    }
}

#[test]
fn boot_maps_pages_going_down_in_memory_with_64k_pages() {
    let lab = Lab::new(Granule::K64, 48, Version::V6_1, 2, Policies::default());
    let mut before = u64::MAX;
    for n in 0..16 {
        let (level, desc) = lab.leaf(lab.k.layout.vmemmap_start.plus(n << 16));
        assert_eq!(level, Level::PTE);
        let pa = lab.k.geometry.output(desc).0;
        assert_eq!(desc.0, pa | prot::PAGE_KERNEL);
        assert!(before == u64::MAX || pa == before - 0x1_0000, "{before:#x} {pa:#x}");
        before = pa;
    }
}

#[test]
fn boot_maps_base_pages_under_2021_with_hvo_only() {
    for (hvo, expected) in [(false, Level::PMD), (true, Level::PTE)] {
        let lab = Lab::with_hvo(Granule::K4, 48, Version::V2021, 2, Policies::default(), hvo);
        assert_eq!(lab.leaf(lab.k.layout.vmemmap_start).0, expected);
    }
}

#[test]
fn linear_map_of_boot_ram_is_tagged_pages_under_tables_with_both_execute_never_bits() {
    let lab = Lab::new(Granule::K4, 48, Version::V6_1, 2, Policies::default());
    let w = walk(&lab.m, lab.k.layout.page_offset.plus(0x20_0000)).unwrap();
    assert_eq!((w.level, w.desc.0), (Level::PTE, (BASE + 0x20_0000) | prot::PAGE_KERNEL_TAGGED));
    let top = lab.m.word(lab.m.root(), usize::from(lab.k.geometry.index(lab.k.layout.page_offset, Level(0)))).unwrap();
    assert_eq!(top.0 & !lab.k.geometry.address_mask(), prot::TABLE_LINEAR);
}

#[test]
fn add_online_offline_remove_returns_every_frame_and_table_on_each_granule() {
    for (granule, va_bits) in
        [(Granule::K4, 48), (Granule::K4, 39), (Granule::K16, 47), (Granule::K64, 48), (Granule::K64, 42)]
    {
        for version in [Version::V2021, Version::V6_1, Version::V6_12] {
            let lab = Lab::new(granule, va_bits, version, 2, Policies::default());
            let (free, total, tables) = (lab.m.frames_free(), lab.m.frames_total(), lab.tables());
            assert_eq!(lab.add(0, 2), Ok(2));
            let pages = lab.section() >> lab.k.geometry.page_shift();
            let vmemmap = 2 * pages * 64 / lab.k.geometry.page_size();
            assert_eq!(free - lab.m.frames_free(), vmemmap + (lab.tables() - tables) as u64);
            assert_eq!(lab.online(0, 2), Ok(2));
            assert_eq!(lab.m.frames_total() - total, 2 * pages);
            let page = lab.page_va(lab.hot(1));
            assert_eq!(pfn_to_online_page(&lab.k, &lab.m.checked_cpu(0), lab.k.geometry.pfn(lab.hot(1))), Some(page));
            assert_eq!(lab.remove(0, 2), Err(Errno::EBUSY));
            assert_eq!(lab.offline(0, 2), Ok(2));
            assert_eq!(lab.remove(0, 2), Ok(2));
            assert!(!pfn_valid(&lab.k, &lab.m.checked_cpu(0), lab.k.geometry.pfn(lab.hot(1))));
            let kept = lab.tables() - tables;
            assert_eq!(lab.m.frames_free() + kept as u64, free, "{granule:?}/{va_bits} {version:?}");
            // 64K: boot memory is in the same tables; nothing of vmemmap or the linear map may be left over.
            assert_eq!(kept, 0, "{granule:?}/{va_bits} {version:?}");
            lab.assert_clean();
        }
    }
}

#[test]
fn hot_added_block_is_a_fresh_block_with_tagged_linear_pages() {
    let lab = Lab::new(Granule::K4, 48, Version::V6_1, 2, Policies::default());
    let tables = lab.tables();
    lab.add(0, 2).unwrap();
    let (level, desc) = lab.leaf(lab.page_va(lab.hot(0)));
    assert_eq!((level, desc.0 & !lab.k.geometry.address_mask()), (Level::PMD, prot::PROT_SECT_NORMAL_6_1));
    assert_eq!(lab.leaf(lab.k.layout.linear_va(lab.hot(0))).1.0, lab.hot(0).0 | prot::PAGE_KERNEL_TAGGED);
    // As captured for 256 MiB: 128 PTE tables of the linear map, and here also the PMD table of the next gigabyte.
    assert_eq!(lab.tables() - tables, 129);
    let linear = lab.k.geometry.index(lab.k.layout.linear_va(lab.hot(0)), Level::PUD);
    assert_eq!(linear, 1);
}

#[test]
fn blocks_in_the_linear_map_are_two_mebibytes_and_contiguous() {
    let mut policies = Policies::default();
    policies.set("linear-map", "blocks").unwrap();
    let lab = Lab::new(Granule::K4, 48, Version::V6_1, 2, policies);
    lab.add(0, 1).unwrap();
    let (level, desc) = lab.leaf(lab.k.layout.linear_va(lab.hot(0)));
    assert_eq!(level, Level::PMD);
    assert_eq!(desc.0, lab.hot(0).0 | prot::PAGE_KERNEL_TAGGED & !2 | Attr::CONT.bits());
    lab.remove(0, 1).unwrap();
    lab.assert_clean();
}

#[test]
fn errors_of_add_and_remove_are_the_kernels() {
    let lab = Lab::new(Granule::K4, 48, Version::V6_1, 2, Policies::default());
    let add = |start, bytes| lab.run(Operation::MemoryAdd { start, bytes, memmap_on_memory: false });
    assert_eq!(add(lab.hot(0).plus(MIB), lab.section()), Err(Errno::EINVAL));
    assert_eq!(add(lab.hot(0), lab.section() / 2), Err(Errno::EINVAL));
    assert_eq!(add(lab.hot(0), 0), Err(Errno::EINVAL));
    assert_eq!(add(Pa(1 << 50), lab.section()), Err(Errno::EINVAL));
    assert_eq!(add(Pa(BASE), lab.section()), Err(Errno::EEXIST));
    assert_eq!(add(Pa(BASE + 4 * lab.section()), lab.section()), Err(Errno::EINVAL), "no memory there to add");
    assert_eq!(lab.add(0, 2), Ok(2));
    assert_eq!(lab.add(1, 2), Err(Errno::EEXIST));
    assert_eq!(lab.offline(0, 1), Err(Errno::EINVAL));
    assert_eq!(lab.online(4, 1), Err(Errno::ENODEV));
    assert_eq!(lab.online(0, 1), Ok(1));
    assert_eq!(lab.online(0, 1), Err(Errno::EINVAL));
    assert_eq!(lab.remove(0, 2), Err(Errno::EBUSY));
    assert_eq!(lab.remove(4, 1), Err(Errno::EINVAL));
    assert_eq!(lab.run(Operation::MemoryOfflineAndRemove { start: lab.hot(0), bytes: 2 * lab.section() }), Ok(2));
    // Nothing at all is no range of blocks, whatever is done with it.
    assert_eq!(lab.add(0, 0), Err(Errno::EINVAL));
    assert_eq!(lab.add(0, 1), Ok(1));
    for done in [lab.online(0, 0), lab.offline(0, 0), lab.remove(0, 0)] {
        assert_eq!(done, Err(Errno::EINVAL));
    }
    lab.assert_clean();
}

#[test]
fn boot_memory_is_vetoed_or_cannot_be_isolated() {
    let lab = Lab::new(Granule::K4, 48, Version::V6_1, 4, Policies::default());
    let offline = |section: u64| {
        let failure =
            memory_block::offline(&lab.k, &lab.m.checked_cpu(0), Pa(BASE + section * lab.section()), lab.section())
                .unwrap_err();
        (failure.errno, failure.reason)
    };
    assert_eq!(offline(1), (Errno::EPERM, "notifier failure"));
    assert_eq!(offline(3), (Errno::EBUSY, "failure to isolate range"));
    assert_eq!(lab.run(Operation::NrHugepages { hstate: 1, count: 8 }), Ok(8));
    lab.assert_clean();
}

#[test]
fn a_signal_ends_an_offline_and_undoes_its_isolation() {
    let lab = Lab::new(Granule::K4, 48, Version::V6_1, 2, Policies::default());
    lab.add(0, 1).unwrap();
    lab.online(0, 1).unwrap();
    lab.m.set_signal(true);
    assert_eq!(lab.offline(0, 1), Err(Errno::EINTR));
    lab.m.set_signal(false);
    assert_eq!(lab.offline(0, 1), Ok(1));
    lab.assert_clean();
}

#[test]
fn hugepages_in_the_block_are_migrated_or_dissolved_and_restored_first() {
    for version in [Version::V2021, Version::V6_1, Version::V6_12] {
        let lab = Lab::with_hvo(Granule::K4, 48, version, 4, Policies::default(), true);
        lab.add(0, 1).unwrap();
        lab.online(0, 1).unwrap();
        let first = lab.k.geometry.pfn(lab.hot(0));
        for n in 0..4 {
            assert_eq!(
                lab.run(Operation::HugetlbAlloc { hstate: 1, at: Some(first.plus(n * 512)) }),
                Ok(first.0 + n * 512)
            );
        }
        let used = lab.run(Operation::HugetlbGet { hstate: 1 }).unwrap();
        assert!(used >= first.0);
        assert_eq!(lab.offline(0, 1), Ok(1), "{version:?}");
        lab.assert_clean();
        assert_eq!(lab.remove(0, 1), Ok(1));
        lab.assert_clean();
        assert!(lab.run(Operation::HugetlbPut { hstate: 1, at: Pfn(used) }).is_ok());
        lab.assert_clean();
    }
}

#[test]
fn mutant_that_keeps_hugepages_removes_an_optimised_one() {
    let mut policies = Policies::default();
    policies.set("mutant", "offline-keeps-huge").unwrap();
    let lab = Lab::with_hvo(Granule::K4, 48, Version::V6_1, 4, policies, true);
    lab.add(0, 1).unwrap();
    lab.online(0, 1).unwrap();
    lab.run(Operation::HugetlbAlloc { hstate: 1, at: Some(lab.k.geometry.pfn(lab.hot(0))) }).unwrap();
    lab.offline(0, 1).unwrap();
    lab.remove(0, 1).unwrap();
    assert!(lab.m.violations_of(Invariant::RemoveMeetsNoOptimised) > 0);
}

/// 6.1's own walk descends without looking, and reads physical address 0 as a table; 6.12's leaves out what is not
/// there.
#[test]
fn a_remap_where_nothing_is_mapped_walks_into_nothing_in_6_1_only() {
    for (version, breaks) in [(Version::V6_1, true), (Version::V6_12, false)] {
        let lab = Lab::new(Granule::K4, 48, version, 2, Policies::default());
        let start = lab.page_va(lab.hot(0));
        let range = start..start.plus(2 * lab.k.geometry.page_size());
        let mut walk = RemapWalk::new(Action::Restore);
        let _ = walk_range(&lab.k, &lab.m.checked_cpu(0), &range, &mut walk);
        assert_eq!(lab.m.violations_of(Invariant::TreeWellFormed) > 0, breaks, "{version:?}");
    }
}

#[test]
fn mutant_without_the_veto_frees_boot_vmemmap() {
    let mut policies = Policies::default();
    policies.set("mutant", "boot-removable").unwrap();
    let lab = Lab::new(Granule::K4, 48, Version::V6_1, 4, policies);
    let (start, bytes) = (Pa(BASE + lab.section()), lab.section());
    assert_eq!(lab.run(Operation::MemoryOfflineAndRemove { start, bytes }), Ok(1));
    assert!(lab.m.violations_of(Invariant::BootVmemmapKept) > 0);
}

#[test]
fn mutant_that_does_not_undo_leaves_the_block_isolated() {
    for (name, reached) in [("none", 1), ("no-undo", 0)] {
        let mut policies = Policies::default();
        policies.set("mutant", name).unwrap();
        let lab = Lab::new(Granule::K4, 48, Version::V6_1, 2, policies);
        lab.add(0, 1).unwrap();
        lab.online(0, 1).unwrap();
        lab.m.set_signal(true);
        assert_eq!(lab.offline(0, 1), Err(Errno::EINTR));
        lab.m.set_signal(false);
        let at = Some(lab.k.geometry.pfn(lab.hot(0)));
        assert_eq!(lab.run(Operation::HugetlbAlloc { hstate: 1, at }).is_ok(), reached == 1, "{name}");
    }
}

#[test]
fn mutant_of_the_failed_populate_leaves_its_bits_in_the_map() {
    let mut policies = Policies::default();
    policies.set("mutant", "subsection-map-early").unwrap();
    let lab = Lab::new(Granule::K64, 48, Version::V6_1, 2, policies);
    let section = lab.k.vars.section_number(lab.hot(0));
    let left = (1..9).any(|nth| {
        lab.m.fail_alloc(0, nth);
        assert_eq!(lab.add(0, 1), Err(Errno::ENOMEM));
        lab.m.var(lab.k.vars.subsection_map(section, 0)) != 0
    });
    assert!(left);
    // What is there already is not added again, and the section does not get a usage that nobody would free.
    lab.m.fail_alloc(0, 0);
    assert_eq!(lab.add(0, 1), Err(Errno::EEXIST));
    assert_eq!(lab.m.var(lab.k.vars.section(section, Section::Usage)), 0);
}

#[test]
fn a_failed_populate_leaves_no_bit_no_frame_and_no_table() {
    let lab = Lab::new(Granule::K64, 48, Version::V6_1, 2, Policies::default());
    let (free, tables) = (lab.m.frames_free(), lab.tables());
    for nth in 1.. {
        lab.m.fail_alloc(0, nth);
        let added = lab.add(0, 1);
        lab.assert_clean();
        if added == Ok(1) {
            assert!(nth > 9, "8 frames and a table of the linear map can fail: {nth}");
            break;
        }
        assert_eq!(added, Err(Errno::ENOMEM));
        let section = lab.k.vars.section_number(lab.hot(0));
        assert_eq!(lab.m.var(lab.k.vars.subsection_map(section, 0)), 0);
        assert_eq!(lab.m.var(lab.k.vars.section(section, Section::MemMap)) & section_flag::HAS_MEM_MAP, 0);
        assert_eq!((lab.m.frames_free(), lab.tables()), (free, tables), "failure {nth}");
    }
}

#[test]
fn a_block_that_cannot_be_had_is_made_of_pages() {
    let lab = Lab::new(Granule::K4, 48, Version::V6_12, 2, Policies::default());
    // The 65 table pages of the linear map come first, then the block.
    lab.m.fail_alloc(0, 66);
    assert_eq!(lab.add(0, 1), Ok(1));
    assert_eq!(lab.leaf(lab.page_va(lab.hot(0))).0, Level::PTE);
    lab.remove(0, 1).unwrap();
    lab.assert_clean();
}

#[test]
fn self_hosted_blocks_take_their_own_first_frames() {
    for (version, count) in [(Version::V6_1, 1), (Version::V6_12, 2)] {
        let lab = Lab::new(Granule::K4, 48, version, 2, Policies::default());
        let (free, tables) = (lab.m.frames_free(), lab.tables());
        let op = |blocks: u64| Operation::MemoryAdd {
            start: lab.hot(0),
            bytes: blocks * lab.section(),
            memmap_on_memory: true,
        };
        assert_eq!(lab.run(op(2)).is_ok(), version == Version::V6_12);
        if version == Version::V6_1 {
            assert_eq!(lab.run(op(1)), Ok(1));
        }
        assert_eq!(lab.k.geometry.output(lab.leaf(lab.page_va(lab.hot(0))).1), lab.hot(0));
        lab.online(0, count).unwrap();
        assert_eq!(lab.m.frames_free(), free - (lab.tables() - tables) as u64 + count * (32768 - 512));
        lab.offline(0, count).unwrap();
        lab.remove(0, count).unwrap();
        assert_eq!((lab.m.frames_free(), lab.tables()), (free, tables));
        lab.assert_clean();
        assert_eq!(lab.add(0, 1), Ok(1));
        lab.online(0, 1).unwrap();
        lab.assert_clean();
    }
    let lab = Lab::new(Granule::K64, 48, Version::V6_1, 2, Policies::default());
    let op = Operation::MemoryAdd { start: lab.hot(0), bytes: lab.section(), memmap_on_memory: true };
    assert_eq!(lab.run(op), Err(Errno::EINVAL));
}

#[test]
fn a_block_with_a_poisoned_page_comes_online_again_in_6_1_only() {
    for (version, expected) in [(Version::V6_1, Ok(1)), (Version::V6_12, Err(Errno::EHWPOISON))] {
        let lab = Lab::new(Granule::K4, 48, version, 2, Policies::default());
        lab.add(0, 1).unwrap();
        lab.online(0, 1).unwrap();
        let pfn = lab.k.geometry.pfn(lab.hot(0)).plus(7);
        assert_eq!(lab.run(Operation::MemoryFailure { pfn }), Ok(1));
        lab.offline(0, 1).unwrap();
        assert_eq!(lab.online(0, 1), expected, "{version:?}");
        lab.assert_clean();
    }
}

#[test]
fn devices_in_the_unused_part_of_an_early_section_leave_its_memmap_alone() {
    let g = Geometry::new(Granule::K4, 48).unwrap();
    let layout = Layout::new(g, Version::V6_12, BASE as i64).unwrap();
    let ram = Ram { start: Pa(BASE), bytes: 160 * MIB, boot: true };
    let k = Kernel::new(layout, Policies::default(), &[ram], false);
    let config = MachineConfig {
        geometry: g,
        ram: vec![
            RamRange { start: ram.start, bytes: ram.bytes, boot: true },
            RamRange { start: Pa(BASE + ram.bytes), bytes: 96 * MIB, boot: false },
        ],
        cpus: 1,
        vars: k.vars.count(),
        root: None,
        seed: 1,
    };
    let m = Machine::new(&config).unwrap();
    let cpu = m.checked_cpu(0);
    boot::boot(&k, &cpu).unwrap();
    m.seal_boot();
    let pfn = |offset: u64| g.pfn(Pa(BASE + offset));
    assert!(pfn_valid(&k, &cpu, pfn(250 * MIB)), "an early section is valid in full");
    assert_eq!(pfn_to_online_page(&k, &cpu, pfn(250 * MIB)), None);
    let failure = memory_block::offline(&k, &cpu, Pa(BASE + 128 * MIB), 128 * MIB).unwrap_err();
    assert_eq!((failure.errno, failure.reason), (Errno::EINVAL, "memory holes"));
    let free = m.frames_free();
    let (start, bytes) = (Pa(BASE + 200 * MIB), 4 * MIB);
    assert_eq!(Operation::DeviceAdd { start, bytes }.run(&k, &cpu), Ok(2));
    assert_eq!(free - m.frames_free(), 2, "two PTE tables of the linear map, no vmemmap");
    assert_eq!(pfn_to_online_page(&k, &cpu, pfn(200 * MIB)), None);
    assert_eq!(Operation::DeviceRemove { start, bytes }.run(&k, &cpu), Ok(2));
    assert_eq!(m.frames_free(), free);
    assert!(m.violations().is_empty(), "{:?}", m.violations());
}

#[test]
fn devices_come_and_go_by_sub_sections() {
    let lab = Lab::new(Granule::K4, 48, Version::V6_12, 2, Policies::default());
    let (free, tables) = (lab.m.frames_free(), lab.tables());
    let device = |n: u64, add: bool| {
        let (start, bytes) = (lab.hot(0).plus(n * 2 * MIB), 2 * MIB);
        lab.run(if add { Operation::DeviceAdd { start, bytes } } else { Operation::DeviceRemove { start, bytes } })
    };
    assert_eq!(device(0, true), Ok(1));
    let mapped = lab.leaf(lab.k.layout.linear_va(lab.hot(0))).1;
    assert_eq!(device(0, true), Err(Errno::ENOMEM), "get_dev_pagemap");
    assert_eq!(lab.leaf(lab.k.layout.linear_va(lab.hot(0))).1, mapped, "what is there stays");
    assert_eq!(device(5, true), Ok(1));
    let around = Operation::DeviceAdd { start: lab.hot(0).plus(8 * MIB), bytes: 6 * MIB };
    assert_eq!(lab.run(around), Err(Errno::EEXIST), "one in between: section_activate");
    assert_eq!(lab.leaf(lab.page_va(lab.hot(0))).0, Level::PTE);
    assert_eq!(lab.add(0, 1), Err(Errno::EEXIST));
    assert_eq!(device(0, false), Ok(1));
    assert_eq!(device(0, false), Err(Errno::EINVAL));
    assert_eq!(device(5, false), Ok(1));
    assert_eq!((lab.m.frames_free(), lab.tables()), (free, tables));
    assert_eq!(lab.run(Operation::DeviceAdd { start: Pa(BASE), bytes: 2 * MIB }), Err(Errno::ENXIO));
    lab.assert_clean();
}

/// With 64K pages a page of vmemmap holds the struct pages of 32 sub-sections: whoever comes later finds it mapped.
#[test]
fn sub_sections_share_a_page_of_vmemmap_with_those_before_them() {
    let lab = Lab::new(Granule::K64, 48, Version::V6_12, 2, Policies::default());
    let add = |n: u64| lab.run(Operation::DeviceAdd { start: lab.hot(0).plus(n * 2 * MIB), bytes: 2 * MIB });
    assert_eq!(add(0), Ok(1));
    let (mapped, free) = (lab.leaf(lab.page_va(lab.hot(0))), lab.m.frames_free());
    assert_eq!(add(1), Ok(1));
    assert_eq!((lab.leaf(lab.page_va(lab.hot(0))), lab.m.frames_free()), (mapped, free));
    lab.assert_clean();
}

/// What alignment takes is gone too: a block that would end beyond the storage is made of pages.
#[test]
fn descriptor_storage_gives_no_more_than_it_has() {
    let lab = Lab::new(Granule::K4, 48, Version::V6_1, 2, Policies::default());
    let pfn = lab.k.geometry.pfn(lab.hot(0));
    let mut storage = Altmap { base_pfn: Pfn(pfn.0 + 1), reserve: 0, free: 700, align: 0, alloc: 0 };
    let per = lab.k.geometry.pages_per_section();
    __populate_section_memmap(&lab.k, &lab.m.checked_cpu(0), pfn, per, &mut Storage::Altmap(&mut storage)).unwrap();
    assert_eq!(lab.leaf(lab.page_va(lab.hot(0))).0, Level::PTE);
    assert_eq!((storage.alloc, storage.align), (512, 0));
    lab.assert_clean();
}

#[test]
fn memmap_counters_of_6_12_follow_boot_and_hotplug() {
    let lab = Lab::new(Granule::K4, 48, Version::V6_12, 2, Policies::default());
    assert_eq!(lab.m.var(lab.k.vars.scalar(Scalar::NrMemmapBootPages)), 1024);
    lab.add(0, 1).unwrap();
    assert_eq!(lab.m.var(lab.k.vars.scalar(Scalar::NrMemmapPages)), 512);
    lab.remove(0, 1).unwrap();
    assert_eq!(lab.m.var(lab.k.vars.scalar(Scalar::NrMemmapPages)), 0);
}

#[test]
fn lockless_readers_and_vmalloc_leave_a_clean_machine() {
    for granule in Granule::ALL {
        let lab =
            Lab::new(granule, if granule == Granule::K16 { 47 } else { 48 }, Version::V6_1, 2, Policies::default());
        let end = lab.k.geometry.pfn(Pa(BASE + 2 * lab.section()));
        let start = lab.k.geometry.pfn(Pa(BASE));
        assert_eq!(lab.run(Operation::PfnWalk { start, end: end.plus(999), step: 1 }), Ok(end.since(start)));
        assert_eq!(lab.run(Operation::SpeculativeRef { pfn: start }), Ok(0));
        assert!(lab.run(Operation::ShowPte { at: start }).unwrap() > 1);
        assert_eq!(lab.run(Operation::MemoryFailure { pfn: start }), Ok(1));
        assert_eq!(lab.run(Operation::MemoryFailure { pfn: start }), Ok(0));
        let free = lab.m.frames_free();
        let tables = lab.tables() as u64;
        for pages in [1, 7, lab.k.geometry.entries() as u64, 3] {
            assert_eq!(lab.run(Operation::VmallocCycle { pages }), Ok(pages), "{granule:?}");
        }
        assert_eq!(lab.m.frames_free() + lab.tables() as u64, free + tables);
        lab.assert_clean();
    }
}

#[test]
fn every_way_of_freeing_tables_shows_what_it_breaks() {
    let cases: [(&str, Granule, u32, Option<Invariant>); 5] = [
        ("at-once", Granule::K64, 48, None),
        ("grace-period", Granule::K4, 48, None),
        ("last-level-tlbi", Granule::K4, 48, None), // Only a machine with walk caches sees it.
        ("no-scan", Granule::K64, 48, Some(Invariant::FreedTableIsEmpty)),
        ("wrong-bounds", Granule::K64, 48, None), // Boot memory keeps the shared tables from being empty.
    ];
    for (value, granule, va_bits, expected) in cases {
        let mut policies = Policies::default();
        policies.set("table-free", value).unwrap();
        let lab = Lab::new(granule, va_bits, Version::V6_1, 2, policies);
        lab.add(0, 1).unwrap();
        lab.remove(0, 1).unwrap();
        match expected {
            None => lab.assert_clean(),
            Some(invariant) => assert!(lab.m.violations_of(invariant) > 0, "{value}: {:?}", lab.m.violations()),
        }
    }
    let mut policies = Policies::default();
    policies.set("table-free", "never").unwrap();
    let lab = Lab::new(Granule::K4, 48, Version::V6_1, 2, policies);
    let tables = lab.tables();
    lab.add(0, 1).unwrap();
    lab.remove(0, 1).unwrap();
    assert_eq!(lab.tables() - tables, 65, "the linear map's tables stay linked");
}

#[test]
fn a_table_shared_with_vmalloc_is_freed_only_with_wrong_bounds() {
    // 64K/48: the PMD table of vmemmap also maps the fixmap.
    for (value, broken) in [("at-once", false), ("wrong-bounds", true)] {
        let mut policies = Policies::default();
        policies.set("table-free", value).unwrap();
        let lab = Lab::new(Granule::K64, 48, Version::V6_1, 2, policies);
        // Take boot memory's part of vmemmap out of the way, so that the shared PMD table would become empty.
        let cpu = lab.m.cpu(0);
        let top = vmemmap_kernel::pgtable::pgd_offset_k(&cpu, lab.k.layout.vmemmap_start);
        let table = vmemmap_kernel::pgtable::next_table(&cpu, vmemmap_kernel::pgtable::read_once(&cpu, top), top.level)
            .unwrap();
        for index in 0..lab.k.geometry.entries() {
            vmemmap_kernel::pgtable::clear_entry(
                &cpu,
                Slot { table: table.pa, index: index as u16, level: Level::PMD, tok: () },
            );
        }
        drop(lab.m.take_violations());
        lab.add(0, 1).unwrap();
        lab.remove(0, 1).unwrap();
        assert_eq!(lab.m.violations_of(Invariant::FloorAndCeiling) > 0, broken, "{value}");
    }
}

#[test]
fn attributes_of_boot_options_are_in_every_mapping() {
    let mut lab = Lab::new(Granule::K4, 48, Version::V6_1, 2, Policies::default());
    lab.k.extra_prot = Attr::NG.bits();
    lab.add(0, 1).unwrap();
    assert!(lab.leaf(lab.page_va(lab.hot(0))).1.has(Attr::NG));
    assert!(lab.leaf(lab.k.layout.linear_va(lab.hot(0))).1.has(Attr::NG));
}

#[test]
fn a_section_stays_present_while_one_sub_section_after_the_other_comes() {
    let lab = Lab::new(Granule::K4, 48, Version::V6_12, 2, Policies::default());
    let section = lab.k.vars.section_number(lab.hot(0));
    for n in 0..4 {
        lab.run(Operation::DeviceAdd { start: lab.hot(0).plus(n * 2 * MIB), bytes: 2 * MIB }).unwrap();
        let flags = lab.m.var(lab.k.vars.section(section, Section::MemMap));
        let there = section_flag::MARKED_PRESENT | section_flag::HAS_MEM_MAP;
        assert_eq!(flags & there, there, "sub-section {n}");
    }
    lab.assert_clean();
}
