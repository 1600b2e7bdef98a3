//! Where the kernel's variables lie: each has a place of its own, on small machines and on those of terabytes.

use std::collections::HashSet;

use vmemmap_arch::{Geometry, Granule, Pa};
use vmemmap_kernel::state::{Block, Hpage, Hstate, Scalar, Section, VarMap, ZONE_TAILS, ZONES};

#[test]
fn no_two_variables_share_a_place() {
    for (granule, sections) in [Granule::K4, Granule::K16, Granule::K64].map(|g| [1, 5, 64].map(|s| (g, s))).concat() {
        let g = Geometry::new(granule, 48).unwrap();
        let base = Pa(0x4000_0000);
        let vars = VarMap::new(&g, base, base.plus(sections * g.section_size()));
        let mut seen = HashSet::new();
        let mut place = |var: vmemmap_arch::Var| {
            assert!(u64::from(var.0) < vars.count(), "{granule:?}, {sections}: {var:?}");
            assert!(seen.insert(var.0), "{granule:?}, {sections}: {var:?}");
        };
        place(vars.scalar(Scalar::MaxPfn));
        place(vars.scalar(Scalar::TopEntryUnsynced));
        (0..ZONES).for_each(|zone| (0..ZONE_TAILS).for_each(|n| place(vars.zone_tail(zone, n))));
        (0..4).for_each(|h| place(vars.hstate(h, Hstate::NrHugePages)));
        (0..4).for_each(|h| place(vars.hstate(h, Hstate::DemoteOrder)));
        for n in 0..vars.sections() {
            place(vars.section(n, Section::MemMap));
            (0..4).for_each(|word| place(vars.subsection_map(n, word)));
            place(vars.section(n, Section::UsageQueued));
            place(vars.block(n, Block::State));
            place(vars.block(n, Block::PageExtFreed));
            assert_eq!(vars.section_number(base.plus(u64::from(n) * g.section_size())), n);
        }
        let smallest = g.hugetlb_sizes().0[0] << g.page_shift();
        for slot in 0..(sections * g.section_size() / smallest) as u32 {
            place(vars.hpage(slot, Hpage::Next));
            place(vars.hpage(slot, Hpage::Prev));
            assert_eq!(vars.hpage_slot(vars.hpage_pa(slot)), slot);
        }
    }
}
