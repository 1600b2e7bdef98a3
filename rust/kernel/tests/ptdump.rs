//! Grouping of the ptdump walk against captured lines, floor and ceiling, and the W+X check.

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::*;
use vmemmap_kernel::pgtable::pgtable_range_aligned;
use vmemmap_kernel::ptdump::{PROT_MASK, PtdumpSink, ptdump_check_wx, ptdump_walk_pgd, whole_range};
use vmemmap_kernel::{Kernel, Operation, Policies, Ram, boot};
use vmemmap_machine::{Machine, MachineConfig, Native, RamRange};

const BASE: u64 = 0x4000_0000;

#[derive(Default)]
struct Lines(Vec<String>);

impl PtdumpSink for Lines {
    fn marker(&mut self, name: &'static str) {
        self.0.push(name.to_owned());
    }
    fn range(&mut self, start: Va, end: Va, level: i8, prot: u64) {
        assert_eq!(prot & !PROT_MASK, 0);
        self.0.push(format!("{:#x}-{:#x} {level} {prot:#x}", start.0, end.0));
    }
}

fn machine(granule: Granule, va_bits: u32, version: Version, sections: u64) -> (Kernel, Machine) {
    let g = Geometry::new(granule, va_bits).unwrap();
    let layout = Layout::new(g, version, BASE as i64).unwrap();
    let ram = Ram { start: Pa(BASE), bytes: sections * g.section_size(), boot: true };
    let k = Kernel::new(layout, Policies::default(), &[ram], true);
    let ranges = vec![RamRange { start: ram.start, bytes: ram.bytes, boot: true }];
    let m =
        Machine::new(&MachineConfig { geometry: g, ram: ranges, cpus: 2, vars: k.vars.count(), root: None, seed: 1 })
            .unwrap();
    boot::boot(&k, &m.checked_cpu(0)).unwrap();
    m.seal_boot();
    (k, m)
}

/// The lines from the header `vmemmap start` on.
fn vmemmap_lines(k: &Kernel, m: &Machine) -> Vec<String> {
    let mut lines = Lines::default();
    ptdump_walk_pgd(k, &m.checked_cpu(0), whole_range(k), &mut lines);
    let from = lines.0.iter().position(|l| l == "vmemmap start").unwrap();
    lines.0.split_off(from)
}

const RW: u64 = prot::PAGE_KERNEL & PROT_MASK;
const RO: u64 = prot::PAGE_KERNEL_RO & PROT_MASK;
const BLK: u64 = prot::PROT_SECT_NORMAL_6_1 & PROT_MASK;

#[test]
fn boot_of_6_1_with_64k_pages_gives_the_captured_lines() {
    let (k, m) = machine(Granule::K64, 48, Version::V6_1, 8);
    let expected = [
        "vmemmap start".to_owned(),
        format!("0xffffffc000000000-0xffffffc000400000 4 {RW:#x}"),
        "0xffffffc000400000-0xffffffc020000000 4 0x0".to_owned(),
        "0xffffffc020000000-0xffffffe000000000 3 0x0".to_owned(),
        "vmemmap end".to_owned(),
        "0xffffffe000000000-0x0 3 0x0".to_owned(),
    ];
    assert_eq!(vmemmap_lines(&k, &m), expected);
}

#[test]
fn boot_of_6_1_with_4k_pages_gives_the_captured_lines() {
    let (k, m) = machine(Granule::K4, 48, Version::V6_1, 8);
    let expected = [
        "vmemmap start".to_owned(),
        format!("0xfffffc0000000000-0xfffffc0001000000 3 {BLK:#x}"),
        "0xfffffc0001000000-0xfffffc0040000000 3 0x0".to_owned(),
        "0xfffffc0040000000-0xfffffc8000000000 2 0x0".to_owned(),
        "0xfffffc8000000000-0xfffffe0000000000 0 0x0".to_owned(),
        "vmemmap end".to_owned(),
        "0xfffffe0000000000-0x0 0 0x0".to_owned(),
    ];
    assert_eq!(vmemmap_lines(&k, &m), expected);
}

#[test]
fn an_optimised_hugepage_is_a_writable_page_and_a_read_only_range() {
    let (k, m) = machine(Granule::K4, 48, Version::V6_1, 4);
    let head = Some(Pfn(0x40000 + 512));
    Operation::HugetlbAlloc { hstate: 1, at: head }.run(&k, &m.checked_cpu(0)).unwrap();
    let lines = vmemmap_lines(&k, &m);
    assert_eq!(lines[1], format!("0xfffffc0000000000-0xfffffc0000009000 4 {RW:#x}"));
    assert_eq!(lines[2], format!("0xfffffc0000009000-0xfffffc0000010000 4 {RO:#x}"));
    assert_eq!(lines[3], format!("0xfffffc0000010000-0xfffffc0000200000 4 {RW:#x}"));
    assert_eq!(lines[4], format!("0xfffffc0000200000-0xfffffc0000800000 3 {BLK:#x}"));
    assert!(m.violations().is_empty(), "{:?}", m.violations());
}

/// A CPU without checks looks at several entries of a table together.
#[test]
fn every_cpu_dumps_the_same() {
    for (granule, va_bits, head) in
        [(Granule::K4, 48, 0x40000), (Granule::K16, 47, 0x10000), (Granule::K64, 48, 0x4000)]
    {
        let (k, m) = machine(granule, va_bits, Version::V6_1, 4);
        for (hstate, at) in [(1, Some(Pfn(head + 8192))), (0, None), (1, None), (1, None)] {
            let _ = Operation::HugetlbAlloc { hstate, at }.run(&k, &m.checked_cpu(0));
        }
        let lines = |native: bool| {
            let mut lines = Lines::default();
            if native {
                ptdump_walk_pgd(&k, &m.cpu(0), whole_range(&k), &mut lines);
            } else {
                ptdump_walk_pgd(&k, &m.checked_cpu(0), whole_range(&k), &mut lines);
            }
            lines.0
        };
        assert_eq!(lines(true), lines(false), "{granule:?}");
        assert!(lines(true).len() > 12, "{granule:?}: {:?}", lines(true));
    }
}

#[test]
fn markers_are_in_the_layouts_order_and_the_last_line_ends_at_zero() {
    for (granule, va_bits, version) in [
        (Granule::K4, 39, Version::V6_1),
        (Granule::K4, 48, Version::V6_12),
        (Granule::K4, 52, Version::V6_12),
        (Granule::K16, 36, Version::V6_1),
        (Granule::K16, 47, Version::V6_12),
        (Granule::K16, 48, Version::V6_1),
        (Granule::K64, 42, Version::V6_12),
        (Granule::K64, 52, Version::V6_1),
    ] {
        let (k, m) = machine(granule, va_bits, version, 2);
        let mut lines = Lines::default();
        ptdump_walk_pgd(&k, &m.checked_cpu(0), whole_range(&k), &mut lines);
        let seen: Vec<_> = lines.0.iter().filter(|l| !l.starts_with("0x")).map(String::as_str).collect();
        let named: Vec<_> = k.layout.markers[..k.layout.nr_markers].iter().filter_map(|m| m.name).collect();
        // A marker inside the last hole is announced at the next noted address, of which there is none.
        assert!(named.starts_with(&seen) && seen.len() + 4 >= named.len(), "{granule:?}/{va_bits}: {seen:?}");
        assert!(lines.0.last().unwrap().contains("-0x0 "), "{:?}", lines.0.last());
        let mut before = k.layout.page_offset.0;
        for line in lines.0.iter().filter(|l| l.starts_with("0x")) {
            let (start, rest) = line[2..].split_once("-0x").unwrap();
            assert_eq!(u64::from_str_radix(start, 16).unwrap(), before, "{granule:?}/{va_bits}: {line}");
            before = u64::from_str_radix(rest.split(' ').next().unwrap(), 16).unwrap();
        }
        assert_eq!(before, 0);
        assert!(m.violations().is_empty(), "{:?}", m.violations());
    }
}

#[test]
fn folded_levels_report_as_pgd_in_6_12_only_for_p4d_and_pud() {
    let (k, m) = machine(Granule::K64, 42, Version::V6_12, 2);
    let mut lines = Lines::default();
    ptdump_walk_pgd(&k, &m.checked_cpu(0), whole_range(&k), &mut lines);
    // Two levels: holes of the top table are PGD, entries of the last level PTE.
    assert!(lines.0.iter().filter(|l| l.starts_with("0x")).all(|l| l.contains(" 0 ") || l.contains(" 4 ")));
}

#[test]
fn no_page_is_writable_and_executable_until_one_is() {
    let (k, m) = machine(Granule::K4, 48, Version::V6_1, 2);
    let found = ptdump_check_wx(&k, &m.checked_cpu(0));
    assert_eq!((found.wx_pages, found.uxn_pages), (0, 0));
    let cpu = m.checked_cpu(0);
    let (slot, entry) = vmemmap_kernel::pgtable::walk(&cpu, k.layout.linear_va(Pa(BASE + 0x3000)));
    vmemmap_kernel::pgtable::set_entry(&cpu, slot, entry.desc.without(Attr::PXN | Attr::UXN));
    assert_eq!(Operation::PtdumpCheckWx.run(&k, &cpu), Ok(1));
    assert_eq!(ptdump_check_wx(&k, &cpu).uxn_pages, 1);
    assert_eq!(m.violations_of(Invariant::NoWritableExecutable), 2);
    // Code of the kernel is executable and read-only: that is none.
    let (slot, entry) = vmemmap_kernel::pgtable::walk(&cpu, k.layout.linear_va(Pa(BASE + 0x5000)));
    vmemmap_kernel::pgtable::set_entry(&cpu, slot, entry.desc.without(Attr::PXN).with(Attr::RDONLY));
    assert_eq!(Operation::PtdumpCheckWx.run(&k, &cpu), Ok(1));
}

/// kernel-semantics §4.5: which tables of which levels may be freed, for a table at the start of vmemmap and for one in
/// the middle of it.
#[test]
fn floor_and_ceiling_allow_what_the_table_of_the_specification_says() {
    let cases = [
        (Granule::K4, 48, Version::V6_1, Level::PUD, [true, true]),
        (Granule::K4, 48, Version::V6_12, Level::PTE, [true, true]),
        (Granule::K4, 48, Version::V6_12, Level::PMD, [true, true]),
        (Granule::K4, 48, Version::V6_12, Level::PUD, [false, true]),
        (Granule::K4, 39, Version::V6_1, Level::PMD, [true, true]),
        (Granule::K16, 36, Version::V6_1, Level::PTE, [true, true]),
        (Granule::K64, 42, Version::V6_12, Level::PTE, [true, true]),
        (Granule::K16, 47, Version::V6_1, Level::PMD, [true, true]),
        (Granule::K16, 47, Version::V6_12, Level::PMD, [false, true]),
        (Granule::K16, 48, Version::V6_1, Level::PMD, [true, true]),
        (Granule::K16, 48, Version::V6_1, Level::PUD, [false, false]),
        (Granule::K16, 48, Version::V6_12, Level::PMD, [false, true]),
        (Granule::K16, 48, Version::V6_12, Level::PUD, [false, false]),
        (Granule::K16, 52, Version::V6_12, Level::PMD, [false, true]),
        (Granule::K16, 52, Version::V6_12, Level::PUD, [false, false]),
        (Granule::K4, 52, Version::V6_12, Level::PMD, [true, true]),
        (Granule::K4, 52, Version::V6_12, Level::PUD, [false, true]),
        (Granule::K4, 52, Version::V6_12, Level::P4D, [false, false]),
        (Granule::K64, 48, Version::V6_1, Level::PTE, [true, true]),
        (Granule::K64, 48, Version::V6_1, Level::PMD, [false, false]),
        (Granule::K64, 52, Version::V6_12, Level::PMD, [false, false]),
    ];
    for (granule, va_bits, version, level, expected) in cases {
        let g = Geometry::new(granule, va_bits).unwrap();
        let l = Layout::new(g, version, BASE as i64).unwrap();
        let span = g.table_span(level);
        let middle = Va(l.vmemmap_start.0 + l.vmemmap_end.since(l.vmemmap_start) / 2);
        let freed = [l.vmemmap_start, middle].map(|va| {
            let range = va..va.plus(g.section_vmemmap());
            pgtable_range_aligned(&range, l.vmemmap_start, l.vmemmap_end, span)
        });
        assert_eq!(freed, expected, "{granule:?}/{va_bits} {version:?} level {}", level.0);
    }
}

/// Asks at each range of a dump whether somebody could remove memory, or change init_mm.
struct Elsewhere<'m> {
    cpu: Native<'m>,
    free: Vec<bool>,
}

impl Elsewhere<'_> {
    fn is_free(&self) -> bool {
        [LockId::MemHotplug, LockId::InitMmMmap].into_iter().any(|lock| {
            let taken = self.cpu.try_acquire(lock, Mode::Write);
            if taken {
                self.cpu.release(lock, Mode::Write);
            }
            taken
        })
    }
}

impl PtdumpSink for Elsewhere<'_> {
    fn marker(&mut self, _: &'static str) {}
    fn range(&mut self, _: Va, _: Va, _: i8, _: u64) {
        self.free.push(self.is_free());
    }
}

/// The last range is told when the walk is over ("Flush out the last page").
#[test]
fn a_dump_keeps_hot_remove_and_huge_vmalloc_away_while_it_walks() {
    for version in Version::ALL {
        let (k, m) = machine(Granule::K4, 48, version, 2);
        let mut sink = Elsewhere { cpu: m.cpu(1), free: Vec::new() };
        ptdump_walk_pgd(&k, &m.cpu(0), whole_range(&k), &mut sink);
        assert_eq!(sink.free.pop(), Some(true), "{version:?}: given back");
        assert!(sink.free.len() > 3 && !sink.free.contains(&true), "{version:?}");
    }
}
