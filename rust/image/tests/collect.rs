//! Tables out of memory: each once, nearest to the root first, nothing that cannot be read; and what a range maps.

use std::collections::BTreeMap;

use vmemmap_arch::{Geometry, Granule, Pa, Va};
use vmemmap_image::{Collected, Collector, TooManyTables, mapped};

const PAGE: u64 = 4096;
const ROOT: u64 = 0x4000_0000;
const LINEAR: u64 = 0xffff_0000_0000_0000;
const LINEAR_END: u64 = 0xffff_8000_0000_0000;

type Memory = BTreeMap<u64, BTreeMap<usize, u64>>;

fn geometry() -> Geometry {
    Geometry::new(Granule::K4, 48).unwrap()
}

fn table(words: &[(usize, u64)]) -> BTreeMap<usize, u64> {
    words.iter().copied().collect()
}

fn bytes(words: &BTreeMap<usize, u64>) -> Vec<u8> {
    (0..512).flat_map(|index| words.get(&index).copied().unwrap_or(0).to_le_bytes()).collect()
}

fn collect(memory: &Memory, most: usize) -> Result<Collected, TooManyTables> {
    let mut walk = Collector::new(geometry(), Pa(ROOT), most);
    while !walk.wanted().is_empty() {
        for pa in walk.wanted().to_vec() {
            if let Some(words) = memory.get(&pa.0) {
                walk.store(pa, &bytes(words))?;
            }
        }
        walk.advance();
    }
    Ok(walk.finish())
}

fn page(n: u64) -> u64 {
    ROOT + n * PAGE
}

#[test]
fn a_table_is_found_once_at_the_level_nearest_to_the_root() {
    let memory = Memory::from([
        (ROOT, table(&[(0, page(3) | 3), (1, ROOT | 3), (2, page(9) | 3), (511, page(1) | 3)])),
        (page(1), table(&[(0, page(2) | 3), (1, page(3) | 3)])),
        (page(2), table(&[(0, page(4) | 3), (1, page(1) | 3)])),
        (page(3), table(&[(0, page(2) | 3), (7, page(5) | 1)])),
        (page(4), table(&[(0, page(5) | 3)])),
        (page(5), table(&[])),
    ]);
    let found = collect(&memory, 5).unwrap();
    assert_eq!(found.pa, [ROOT, page(1), page(2), page(3), page(4)]);
    assert_eq!(found.level, [0, 1, 2, 1, 3]);
    assert_eq!(found.words[3 * 512 + 7], page(5) | 1);
    assert_eq!(collect(&memory, 4), Err(TooManyTables { most: 4 }));
}

#[test]
fn what_cannot_be_read_is_left_out() {
    assert_eq!(collect(&Memory::new(), 10).unwrap(), Collected::default());
    let mut walk = Collector::new(geometry(), Pa(ROOT), 10);
    walk.store(Pa(ROOT), &[3; 100]).unwrap();
    walk.advance();
    assert!(walk.wanted().is_empty());
    assert_eq!(walk.finish(), Collected::default());
}

#[test]
fn only_the_entries_that_a_small_root_has_are_decoded() {
    let g = Geometry::new(Granule::K64, 48).unwrap();
    let mut walk = Collector::new(g, Pa(ROOT), 10);
    let mut root = vec![0; 65536];
    root[63 * 8..64 * 8].copy_from_slice(&(0x5000_0000u64 | 3).to_le_bytes());
    root[64 * 8..65 * 8].copy_from_slice(&(0x6000_0000u64 | 3).to_le_bytes());
    walk.store(Pa(ROOT), &root).unwrap();
    walk.advance();
    assert_eq!(walk.wanted(), [Pa(0x5000_0000)]);
}

#[test]
fn the_linear_map_names_its_memory_hidden_pages_included() {
    let leaf = 0x00e8_0000_0000_0703;
    let memory = Memory::from([
        // The second half of the root is not the linear map.
        (ROOT, table(&[(0, page(1) | 3), (256, page(4) | 3)])),
        (page(1), table(&[(0, page(2) | 3), (1, 0x8000_0000 | 0x701)])),
        (page(2), table(&[(0, page(3) | 3), (1, 0x4020_0000 | 0x701), (2, 0x4040_0000 | 0x700), (3, 1)])),
        (page(3), table(&[(0, 0x4000_0000 | leaf), (1, (0x4000_1000 | leaf) & !1), (3, 0x4000_3000 | leaf)])),
        (page(4), table(&[(0, 0x1_0000_0000 | 0x701)])),
    ]);
    let found = collect(&memory, 10).unwrap();
    let ranges = |start, end| -> Vec<(u64, u64)> {
        mapped(geometry(), Pa(ROOT), &found.pa, &found.words, Va(start)..Va(end))
            .into_iter()
            .map(|r| (r.start.0, r.end.0))
            .collect()
    };
    let all = [
        (0, 0x20_0000),
        (0x4000_0000, 0x4000_2000),
        (0x4000_3000, 0x4000_4000),
        (0x4020_0000, 0x4060_0000),
        (0x8000_0000, 0xc000_0000),
    ];
    assert_eq!(ranges(LINEAR, LINEAR_END), all);
    assert_eq!(ranges(LINEAR + PAGE, LINEAR + 2 * PAGE), [(0x4000_1000, 0x4000_2000)]);
    assert_eq!(ranges(LINEAR_END, 0), []);
    assert_eq!(ranges(LINEAR_END, u64::MAX), [(0x1_0000_0000, 0x1_4000_0000)]);
}

#[test]
fn a_cycle_in_the_linear_map_ends() {
    let memory = Memory::from([
        (ROOT, table(&[(0, page(1) | 3), (1, page(1) | 3)])),
        (page(1), table(&[(0, page(1) | 3), (1, ROOT | 3)])),
    ]);
    let found = collect(&memory, 10).unwrap();
    assert_eq!(mapped(geometry(), Pa(ROOT), &found.pa, &found.words, Va(LINEAR)..Va(LINEAR_END)), []);
}
