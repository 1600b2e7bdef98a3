//! Table geometry against kernel-semantics §1.1, sections against §2.3.

use vmemmap_arch::section::SUBSECTION_SIZE;
use vmemmap_arch::{Geometry, Granule, Level, Va};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

#[rustfmt::skip]
const COMBINATIONS: [(Granule, u32, u32, i8, usize); 10] = [
    // granule, VA bits, levels, top level, PTRS_PER_PGD
    (Granule::K4, 39, 3, 1, 512),
    (Granule::K4, 48, 4, 0, 512),
    (Granule::K4, 52, 5, -1, 16),
    (Granule::K16, 36, 2, 2, 2048),
    (Granule::K16, 47, 3, 1, 2048),
    (Granule::K16, 48, 4, 0, 2),
    (Granule::K16, 52, 4, 0, 32),
    (Granule::K64, 42, 2, 2, 8192),
    (Granule::K64, 48, 3, 1, 64),
    (Granule::K64, 52, 3, 1, 1024),
];

#[test]
fn every_combination_has_the_levels_and_the_top_table_of_the_architecture() {
    for (granule, va_bits, levels, top, ptrs) in COMBINATIONS {
        let g = Geometry::new(granule, va_bits).unwrap();
        assert_eq!((g.levels, g.top(), g.entries_at(g.top())), (levels, Level(top), ptrs), "{granule:?}/{va_bits}");
        assert_eq!(g.table_span(g.top()), 1 << va_bits);
    }
}

#[test]
fn every_other_size_is_refused() {
    for granule in Granule::ALL {
        for va_bits in 0..=64 {
            let known = COMBINATIONS.iter().any(|c| (c.0, c.1) == (granule, va_bits));
            assert_eq!(Geometry::new(granule, va_bits).is_ok(), known, "{granule:?}/{va_bits}");
        }
    }
}

#[test]
fn an_entry_maps_what_the_granule_says_at_each_level() {
    let rows = [
        (Granule::K4, 48, 512, [4 * KIB, 2 * MIB, GIB, 512 * GIB]),
        (Granule::K16, 48, 2048, [16 * KIB, 32 * MIB, 64 * GIB, 128 * TIB]),
        (Granule::K64, 48, 8192, [64 * KIB, 512 * MIB, 4 * TIB, 0]),
    ];
    for (granule, va_bits, entries, spans) in rows {
        let g = Geometry::new(granule, va_bits).unwrap();
        assert_eq!(g.entries(), entries);
        for (i, span) in spans.into_iter().enumerate().filter(|s| s.1 != 0) {
            assert_eq!(g.entry_span(Level(3 - i as i8)), span, "{granule:?} level {}", 3 - i);
        }
    }
}

#[test]
fn blocks_exist_at_level_2_and_with_4k_pages_at_level_1() {
    for (granule, va_bits, ..) in COMBINATIONS {
        let g = Geometry::new(granule, va_bits).unwrap();
        for level in (-1..=3).map(Level) {
            let expected = level == Level::PMD || (level == Level::PUD && granule == Granule::K4);
            assert_eq!(g.block_allowed(level), expected, "{granule:?} {level:?}");
        }
    }
}

#[test]
fn contiguous_sets_have_the_sizes_of_the_table() {
    let rows = [
        (Granule::K4, 48, 64 * KIB, 32 * MIB),
        (Granule::K16, 47, 2 * MIB, GIB),
        (Granule::K64, 48, 2 * MIB, 16 * GIB),
    ];
    for (granule, va_bits, cont_pte, cont_pmd) in rows {
        let g = Geometry::new(granule, va_bits).unwrap();
        assert_eq!(g.cont_ptes() * g.page_size(), cont_pte);
        assert_eq!(g.cont_pmds() * g.entry_span(Level::PMD), cont_pmd);
    }
}

/// §H1: HugeTLB sizes, and how many vmemmap pages (in 32nds) each has.
#[test]
fn hugetlb_sizes_are_those_of_hugetlbpage_init() {
    let rows = [
        (Granule::K4, 48, vec![(64 * KIB, 8), (2 * MIB, 8 * 32), (32 * MIB, 128 * 32), (GIB, 4096 * 32)]),
        (Granule::K16, 47, vec![(2 * MIB, 16), (32 * MIB, 8 * 32), (GIB, 256 * 32)]),
        (Granule::K64, 48, vec![(2 * MIB, 1), (512 * MIB, 8 * 32), (16 * GIB, 256 * 32)]),
    ];
    for (granule, va_bits, expected) in rows {
        let g = Geometry::new(granule, va_bits).unwrap();
        let (sizes, n) = g.hugetlb_sizes();
        let found: Vec<_> =
            sizes[..n].iter().map(|pages| (pages << g.page_shift(), pages * 64 * 32 / g.page_size())).collect();
        assert_eq!(found, expected, "{granule:?}");
    }
}

/// §2.3, the whole table.
#[test]
fn sections_share_tables_as_the_table_says() {
    struct Row {
        granule: Granule,
        va_bits: u32,
        section: u64,
        pages: u64,
        vmemmap: u64,
        subsections: u64,
        pages_per_subsection: u64,
        per_pte_table: u64,
        per_pmd_table: u64,
    }
    let row =
        |granule, va_bits, section, pages, vmemmap, subsections, pages_per_subsection, per_pte_table, per_pmd_table| {
            Row {
                granule,
                va_bits,
                section,
                pages,
                vmemmap,
                subsections,
                pages_per_subsection,
                per_pte_table,
                per_pmd_table,
            }
        };
    for r in [
        row(Granule::K4, 48, 128 * MIB, 32768, 2 * MIB, 64, 512, 1, 512),
        row(Granule::K16, 48, 128 * MIB, 8192, 512 * KIB, 64, 128, 64, 131_072),
        row(Granule::K64, 48, 512 * MIB, 8192, 512 * KIB, 256, 32, 1024, 1 << 23),
    ] {
        let g = Geometry::new(r.granule, r.va_bits).unwrap();
        assert_eq!(g.section_size(), r.section);
        assert_eq!(g.pages_per_section(), r.pages);
        assert_eq!(g.section_vmemmap(), r.vmemmap);
        assert_eq!(g.subsections_per_section(), r.subsections);
        assert_eq!(g.pages_per_subsection(), r.pages_per_subsection);
        assert_eq!(g.sections_per_table(Level::PTE), r.per_pte_table);
        assert_eq!(g.sections_per_table(Level::PMD), r.per_pmd_table);
    }
    let g4 = Geometry::new(Granule::K4, 48).unwrap();
    let g16 = Geometry::new(Granule::K16, 48).unwrap();
    assert_eq!(g4.sections_per_table(Level::PUD), 262_144);
    assert_eq!(g16.sections_per_table(Level::PUD), 1 << 28);
    assert_eq!(SUBSECTION_SIZE, 2 * MIB);
}

#[test]
fn indices_of_the_first_and_last_kernel_address_are_those_of_its_tables() {
    for (granule, va_bits, ..) in COMBINATIONS {
        let g = Geometry::new(granule, va_bits).unwrap();
        for level in (g.top().0..=3).map(Level) {
            assert_eq!(g.index(Va(0u64.wrapping_sub(1 << va_bits)), level), 0);
            assert_eq!(usize::from(g.index(Va(u64::MAX), level)), g.entries_at(level) - 1);
        }
    }
}

/// `pgd_addr_end` must not stop short when the boundary is past the last address of all.
#[test]
fn addr_end_stops_at_the_boundary_or_at_the_end_whichever_is_first() {
    let g = Geometry::new(Granule::K4, 48).unwrap();
    let end = g.addr_end(Va(0xffff_fc00_0000_1000), Va(0xffff_fc00_0040_0000), Level::PMD);
    assert_eq!(end, Va(0xffff_fc00_0020_0000));
    assert_eq!(g.addr_end(Va(0xffff_fc00_0000_1000), Va(0xffff_fc00_0000_3000), Level::PMD), Va(0xffff_fc00_0000_3000));
    assert_eq!(g.addr_end(Va(0xffff_ffff_ffff_0000), Va(0), Level::PMD), Va(0));
    assert_eq!(g.addr_end(Va(0xffff_ff80_0000_0000), Va(u64::MAX), Level::P4D), Va(u64::MAX));
}

#[test]
fn a_page_of_vmemmap_holds_the_struct_pages_of_64_bytes_that_fit() {
    for (granule, va_bits, struct_pages) in [(Granule::K4, 48, 64), (Granule::K16, 48, 256), (Granule::K64, 48, 1024)] {
        assert_eq!(Geometry::new(granule, va_bits).unwrap().struct_pages_per_page(), struct_pages);
    }
}
