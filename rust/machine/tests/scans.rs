//! Entries looked at together are those that are looked at one by one.
#![cfg(not(loom))]

use std::sync::atomic::Ordering;

use proptest::prelude::*;
use vmemmap_arch::{Alloc, Cpu, Desc, FrameKind, Geometry, Granule, Level, Order, Pa, Slot, Zone};
use vmemmap_machine::{Machine, MachineConfig, RamRange};

fn machine() -> Machine {
    let geometry = Geometry::new(Granule::K4, 48).unwrap();
    let ram = vec![RamRange { start: Pa(1 << 30), bytes: 1 << 24, boot: true }];
    Machine::new(&MachineConfig { geometry, ram, cpus: 1, vars: 0, root: None, seed: 1 }).unwrap()
}

proptest! {
    #[test]
    fn changes_are_those_that_one_entry_after_the_other_shows(
        // Runs of equal entries, of which only the low bits count.
        runs in prop::collection::vec((1usize..12, 0u64..3, any::<u64>()), 1..40),
        first in 0u16..40,
        count in 0usize..80,
    ) {
        const MASK: u64 = 0xff;
        let m = machine();
        let cpu = m.cpu(0);
        let request =
            Alloc { order: 0, kind: FrameKind::Table, zone: Zone::Normal, at: None, may_sleep: true, top_down: false };
        let table = cpu.alloc(request).unwrap();
        let slot = |index| Slot { table: table.pa, index, level: Level::PTE, tok: () };
        let words = runs.iter().flat_map(|&(len, low, high)| std::iter::repeat_n(high & !MASK | low, len));
        for (index, word) in (0..512).zip(words) {
            cpu.write(slot(index), Desc(word), Order::Plain);
        }
        let mut want: Vec<(u16, u64)> = Vec::new();
        cpu.read_each(slot(first), count, |index, entry| {
            let found = entry.desc.0 & MASK;
            if want.last().is_none_or(|&(_, last)| last != found) {
                want.push((index, found));
            }
        });
        cpu.flush();
        let reads = m.counters().reads;
        let mut got = Vec::new();
        cpu.read_changes(slot(first), count, MASK, |index, found| got.push((index, found)));
        cpu.flush();
        prop_assert_eq!(got, want);
        prop_assert_eq!(m.counters().reads - reads, count as u64);
    }
    /// A table that was emptied entry by entry is only looked at.
    #[test]
    fn a_table_is_empty_whatever_it_held_when_it_was_freed(
        held in prop::collection::vec((0u16..512, any::<u64>()), 0..4),
    ) {
        let m = machine();
        let cpu = m.cpu(0);
        let request =
            Alloc { order: 0, kind: FrameKind::Table, zone: Zone::Normal, at: None, may_sleep: true, top_down: false };
        let table = cpu.alloc(request).unwrap();
        for (index, word) in held {
            cpu.write(Slot { table: table.pa, index, level: Level::PTE, tok: () }, Desc(word), Order::Plain);
        }
        cpu.free(table, 0, FrameKind::Table);
        let again = cpu.alloc(request).unwrap();
        prop_assert_eq!(again.pa, table.pa);
        prop_assert!(m.table_words(again.pa).unwrap().iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }
}
