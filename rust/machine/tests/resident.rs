//! What a machine keeps of its host's memory. A program of its own: what is measured is the process.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Alloc, Cpu, Desc, FrameKind, Geometry, Granule, Level, Order, Pa, Slot, Zone};
use vmemmap_machine::{Machine, MachineConfig, RamRange};

/// Anonymous memory of this process that is there, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("since Linux 4.5");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn records_of_freed_tables_do_not_stay_resident() {
    const TABLES: u64 = 8000;
    let geometry = Geometry::new(Granule::K4, 39).unwrap();
    let ram = vec![RamRange { start: Pa(1 << 30), bytes: 64 << 20, boot: true }];
    let m = Machine::new(&MachineConfig { geometry, ram, cpus: 1, vars: 0, root: None, seed: 1 }).unwrap();
    let cpu = m.checked_cpu(0);
    let request =
        Alloc { order: 0, kind: FrameKind::Table, zone: Zone::Normal, at: None, may_sleep: true, top_down: false };
    let data = cpu.alloc(Alloc { kind: FrameKind::Data, ..request }).unwrap();
    let desc = geometry.descriptor(data.pa, prot::PAGE_KERNEL);
    let before = resident();
    let tables: Vec<_> = (0..TABLES).map(|_| cpu.alloc(request).unwrap()).collect();
    for table in &tables {
        let at = Slot { table: table.pa, index: 0, level: Level::PTE, tok: table.tok };
        cpu.write(at, desc, Order::Plain);
        cpu.write(at, Desc::NONE, Order::Plain);
    }
    let most = resident();
    assert!(most - before >= TABLES * 8192, "a page of words and one of records for each: {} bytes", most - before);
    for table in tables {
        cpu.free(table, 0, FrameKind::Table);
    }
    // Words of a frame that was freed are kept for whoever gets it next.
    assert!(resident() <= most - TABLES * 4096 / 10 * 9, "{} bytes of {most}", resident());
    assert_eq!(m.violation_count(), 0);
}
