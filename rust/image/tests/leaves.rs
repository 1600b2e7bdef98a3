//! Leaves that are read from tables as they are met, against a walk of every page.

use proptest::prelude::*;
use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Geometry, Granule, Pa, Va};
use vmemmap_image::leaves::{LeafRun, leaves};

const ROOT: u64 = 0x4000_0000;
const PMD: u64 = 0x4000_1000;
const PTE: u64 = 0x4000_2000;
const PAGE: u64 = 0x1000;

proptest! {
    #[test]
    fn leaves_side_by_side_in_both_are_one_run(
        pages in proptest::collection::vec((0u64..4, 0u64..6), 0..12), cut in 0u64..8
    ) {
        let g = Geometry::new(Granule::K4, 39).unwrap();
        let lowest = 0u64.wrapping_sub(1 << 39);
        let mut table = vec![0; 512];
        let mut expected: Vec<LeafRun> = Vec::new();
        let ends = |run: &LeafRun| (run.valid, run.va.plus(run.bytes), run.pa.plus(run.bytes));
        for (n, &(kind, frame)) in (0u64..).zip(&pages) {
            // Most frames follow the one before.
            let pa = 0x8000_0000 + (n + frame / 4) * PAGE;
            let valid = kind != 1;
            table[n as usize] = match kind {
                0 => continue,
                1 => (pa | prot::PAGE_KERNEL) & !1,
                _ => pa | prot::PAGE_KERNEL,
            };
            if n < cut {
                continue;
            }
            let va = Va(lowest + n * PAGE);
            match expected.last_mut() {
                Some(last) if ends(last) == (valid, va, Pa(pa)) => last.bytes += PAGE,
                _ => expected.push(LeafRun { va, pa: Pa(pa), bytes: PAGE, valid }),
            }
        }
        let one = |word: u64| {
            let mut words = vec![0; 512];
            words[0] = word;
            words
        };
        let read = |pa: Pa| match pa.0 {
            ROOT => Some(one(PMD | prot::TABLE)),
            PMD => Some(one(PTE | prot::TABLE)),
            PTE => Some(table.clone()),
            _ => None,
        };
        let range = Va(lowest + cut * PAGE)..Va(lowest + (1 << 30));
        prop_assert_eq!(leaves(g, Pa(ROOT), range, 3, read), expected);
    }
}
