//! The VA layout against kernel-semantics §2.2 and §8.5, and against the markers of captured kernels.

use vmemmap_arch::layout::LayoutError;
use vmemmap_arch::{Geometry, Granule, Layout, Level, Pa, Pfn, Va, Version};

struct Row {
    granule: Granule,
    va_bits: u32,
    page_offset: u64,
    page_end: u64,
    version: Version,
    start: u64,
    end: u64,
    /// First and last top-level slot of vmemmap.
    slots: (u16, u16),
    /// Those slots cover nothing else.
    own: bool,
}

#[rustfmt::skip]
fn worked_table() -> Vec<Row> {
    use Granule::{K4, K16, K64};
    use Version::{V6_1, V6_12};
    let row = |granule, va_bits, page_offset, page_end, version, start, end, slots, own| {
        Row { granule, va_bits, page_offset, page_end, version, start, end, slots, own }
    };
    vec![
        row(K4, 39, 0xffff_ff80_0000_0000, 0xffff_ffc0_0000_0000, V6_1, 0xffff_fffe_0000_0000, 0xffff_ffff_0000_0000,
            (504, 507), true),
        row(K4, 39, 0xffff_ff80_0000_0000, 0xffff_ffc0_0000_0000, V6_12, 0xffff_fffe_c000_0000, 0xffff_ffff_c000_0000,
            (507, 510), true),
        row(K4, 48, 0xffff_0000_0000_0000, 0xffff_8000_0000_0000, V6_1, 0xffff_fc00_0000_0000, 0xffff_fe00_0000_0000,
            (504, 507), true),
        row(K4, 48, 0xffff_0000_0000_0000, 0xffff_8000_0000_0000, V6_12, 0xffff_fdff_c000_0000, 0xffff_ffff_c000_0000,
            (507, 511), false),
        row(K4, 52, 0xfff0_0000_0000_0000, 0xffff_8000_0000_0000, V6_12, 0xffff_c1ff_c000_0000, 0xffff_ffff_c000_0000,
            (15, 15), false),
        row(K16, 36, 0xffff_fff0_0000_0000, 0xffff_fff8_0000_0000, V6_1, 0xffff_ffff_f000_0000, 0xffff_ffff_f800_0000,
            (2040, 2043), true),
        row(K16, 36, 0xffff_fff0_0000_0000, 0xffff_fff8_0000_0000, V6_12, 0xffff_ffff_b800_0000,
            0xffff_ffff_c000_0000, (2012, 2015), true),
        row(K16, 47, 0xffff_8000_0000_0000, 0xffff_c000_0000_0000, V6_1, 0xffff_ff80_0000_0000, 0xffff_ffc0_0000_0000,
            (2040, 2043), true),
        row(K16, 47, 0xffff_8000_0000_0000, 0xffff_c000_0000_0000, V6_12, 0xffff_ffbf_c000_0000,
            0xffff_ffff_c000_0000, (2043, 2047), false),
        row(K16, 48, 0xffff_0000_0000_0000, 0xffff_8000_0000_0000, V6_1, 0xffff_ff00_0000_0000, 0xffff_ff80_0000_0000,
            (1, 1), false),
        row(K16, 48, 0xffff_0000_0000_0000, 0xffff_8000_0000_0000, V6_12, 0xffff_ff7f_c000_0000,
            0xffff_ffff_c000_0000, (1, 1), false),
        row(K16, 52, 0xfff0_0000_0000_0000, 0xffff_c000_0000_0000, V6_12, 0xffff_f03f_c000_0000,
            0xffff_ffff_c000_0000, (31, 31), false),
        row(K64, 42, 0xffff_fc00_0000_0000, 0xffff_fe00_0000_0000, V6_1, 0xffff_ffff_0000_0000, 0xffff_ffff_8000_0000,
            (8184, 8187), true),
        row(K64, 42, 0xffff_fc00_0000_0000, 0xffff_fe00_0000_0000, V6_12, 0xffff_ffff_4000_0000,
            0xffff_ffff_c000_0000, (8186, 8189), true),
        row(K64, 48, 0xffff_0000_0000_0000, 0xffff_8000_0000_0000, V6_1, 0xffff_ffc0_0000_0000, 0xffff_ffe0_0000_0000,
            (63, 63), false),
        row(K64, 48, 0xffff_0000_0000_0000, 0xffff_8000_0000_0000, V6_12, 0xffff_ffdf_c000_0000,
            0xffff_ffff_c000_0000, (63, 63), false),
        row(K64, 52, 0xfff0_0000_0000_0000, 0xffff_8000_0000_0000, V6_1, 0xffff_fc00_0000_0000, 0xffff_ffe0_0000_0000,
            (1023, 1023), false),
        row(K64, 52, 0xfff0_0000_0000_0000, 0xffff_8000_0000_0000, V6_12, 0xffff_fc1f_c000_0000,
            0xffff_ffff_c000_0000, (1023, 1023), false),
    ]
}

fn layout(granule: Granule, va_bits: u32, version: Version, memstart: i64) -> Layout {
    Layout::new(Geometry::new(granule, va_bits).unwrap(), version, memstart).unwrap()
}

#[test]
fn every_row_of_the_worked_table_is_what_the_layout_computes() {
    for r in worked_table() {
        let what = format!("{:?}/{} {}", r.granule, r.va_bits, r.version.name());
        let l = layout(r.granule, r.va_bits, r.version, 0x4000_0000);
        let g = l.geometry;
        assert_eq!(l.page_offset, Va(r.page_offset), "{what}");
        assert_eq!(l.page_end, Va(r.page_end), "{what}");
        assert_eq!(l.vmemmap_start, Va(r.start), "{what}");
        assert_eq!(l.vmemmap_end, Va(r.end), "{what}");
        let slots = (g.index(l.vmemmap_start, g.top()), g.index(Va(l.vmemmap_end.0 - 1), g.top()));
        assert_eq!(slots, r.slots, "{what}");
        let aligned =
            l.vmemmap_start.is_aligned(g.entry_span(g.top())) && l.vmemmap_end.is_aligned(g.entry_span(g.top()));
        assert_eq!(aligned, r.own, "{what}");
    }
}

#[test]
fn the_2021_layout_is_that_of_6_1_and_6_12_117_that_of_6_12() {
    for r in worked_table() {
        let twin = if r.version == Version::V6_1 { Version::V2021 } else { Version::V6_12_117 };
        let (a, b) = (layout(r.granule, r.va_bits, r.version, 0), layout(r.granule, r.va_bits, twin, 0));
        assert_eq!(
            (a.vmemmap_start, a.vmemmap_end, a.vmalloc_end, a.fixmap_end),
            (b.vmemmap_start, b.vmemmap_end, b.vmalloc_end, b.fixmap_end)
        );
        assert_eq!(a.markers, b.markers);
    }
}

#[test]
fn fifty_two_bits_with_4k_or_16k_pages_are_refused_before_6_12() {
    for granule in [Granule::K4, Granule::K16] {
        for version in [Version::V2021, Version::V6_1] {
            assert_eq!(
                Layout::new(Geometry::new(granule, 52).unwrap(), version, 0),
                Err(LayoutError::NoLpa2Before6_12)
            );
        }
    }
    assert!(Layout::new(Geometry::new(Granule::K64, 52).unwrap(), Version::V6_1, 0).is_ok());
}

/// §2.1: MODULES_END, VMALLOC_END, FIXADDR_TOP and PCI I/O follow from vmemmap and PAGE_END.
#[test]
fn the_regions_around_vmemmap_follow_the_formulas() {
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    for r in worked_table() {
        let l = layout(r.granule, r.va_bits, r.version, 0);
        assert_eq!(l.vmalloc_start, l.modules_end);
        assert_eq!(l.modules_start, l.page_end);
        if r.version == Version::V6_1 {
            assert_eq!(l.modules_end, l.page_end.plus(128 * MIB));
            assert_eq!(l.vmalloc_end.0, r.start - 256 * MIB);
            assert_eq!(l.fixmap_end.0, r.start - 32 * MIB);
            assert_eq!((l.pci_io_start.0, l.pci_io_end.0), (r.start - 24 * MIB, r.start - 8 * MIB));
        } else {
            assert_eq!(l.modules_end, l.page_end.plus(2 * GIB));
            assert_eq!(l.fixmap_end.0, 0u64.wrapping_sub(8 * MIB));
            assert_eq!((l.pci_io_start.0, l.pci_io_end.0), (r.end + 8 * MIB, r.end + 24 * MIB));
            if r.va_bits != 52 {
                assert_eq!(l.vmalloc_end.0, r.start - 8 * MIB);
            }
        }
    }
}

/// `arch/arm64/include/asm/pgtable.h` (6.12): with VA_BITS > VA_BITS_MIN the struct pages of linear addresses that
/// hardware without LVA lacks are never used, and vmalloc may have that part of vmemmap. With 52-bit hardware
/// (`vabits_actual` = 52) VMEMMAP_UNUSED_NPAGES is 0.
#[test]
fn vmalloc_ends_below_vmemmap_when_hardware_has_all_52_bits() {
    for granule in Granule::ALL {
        let l = layout(granule, 52, Version::V6_12, 0);
        assert_eq!(l.vmalloc_end.0, l.vmemmap_start.0 - (8 << 20), "{granule:?}");
    }
}

#[test]
fn a_64k_kernel_of_52_bits_with_48_in_use_has_the_layout_of_those_since_6_9() {
    let unused = (1i64 << 52) - (1 << 48);
    let lowered = layout(Granule::K64, 52, Version::V6_12, 0x4000_0000 - unused);
    let native = layout(Granule::K64, 48, Version::V6_12, 0x4000_0000);
    assert_eq!(lowered.markers, native.markers);
    assert_eq!((lowered.page_offset, lowered.page_end), (native.page_offset, native.page_end));
    assert_eq!(lowered.memstart, native.memstart);
    assert_eq!(lowered.page_va(Pfn(0x4000)), native.page_va(Pfn(0x4000)));
    // Before, the unused part stays, and the arithmetic comes to the same.
    let older = layout(Granule::K64, 52, Version::V6_1, 0x4000_0000 - unused);
    assert_eq!(older.page_offset, layout(Granule::K64, 52, Version::V6_1, 0x4000_0000).page_offset);
    let native = layout(Granule::K64, 48, Version::V6_1, 0x4000_0000);
    assert_eq!(older.page_va(Pfn(0x4000)), native.page_va(Pfn(0x4000)));
    assert_eq!(older.linear_va(Pa(0x4040_0000)), native.linear_va(Pa(0x4040_0000)));
}

#[test]
fn markers_are_in_the_order_of_ptdump_and_rise() {
    let names = |l: &Layout| l.markers[..l.nr_markers].iter().map(|m| m.name.unwrap_or("-")).collect::<Vec<_>>();
    let common = [
        "Linear Mapping start",
        "Linear Mapping end",
        "Modules start",
        "Modules end",
        "vmalloc() area",
        "vmalloc() end",
    ];
    for r in worked_table() {
        let l = layout(r.granule, r.va_bits, r.version, 0x4000_0000);
        let tail = if r.version == Version::V6_1 {
            ["Fixmap start", "Fixmap end", "PCI I/O start", "PCI I/O end", "vmemmap start", "vmemmap end", "-"]
        } else {
            ["vmemmap start", "vmemmap end", "PCI I/O start", "PCI I/O end", "Fixmap start", "Fixmap end", "-"]
        };
        assert_eq!(names(&l), common.into_iter().chain(tail).collect::<Vec<_>>());
        let starts = l.markers[..l.nr_markers].iter().map(|m| m.start).collect::<Vec<_>>();
        assert!(starts.is_sorted(), "{:?}/{} {}: {starts:x?}", r.granule, r.va_bits, r.version.name());
        assert_eq!(starts.last(), Some(&Va(u64::MAX)));
    }
}

/// The text of a captured kernel's dump: its markers, with the addresses its JSON gives.
fn captured_markers(json: &str) -> Vec<(u64, Option<String>)> {
    let list = json.split("\"ptdump_markers\": [").nth(1).unwrap().split("\"tables\"").next().unwrap();
    let mut strings = list.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>().into_iter();
    let mut markers = Vec::new();
    while let Some(address) = strings.next() {
        let start = u64::from_str_radix(address.trim_start_matches("0x"), 16).unwrap();
        markers.push((start, strings.next()));
    }
    markers
}

#[test]
fn markers_equal_those_of_captured_kernels() {
    let captures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/captures");
    for (file, granule, version) in [
        ("6.1-4k/A.json", Granule::K4, Version::V6_1),
        ("6.1-64k/A.json", Granule::K64, Version::V6_1),
        ("6.12-4k/A.json", Granule::K4, Version::V6_12),
    ] {
        let json = std::fs::read_to_string(format!("{captures}/{file}")).unwrap();
        let l = layout(granule, 48, version, 0x4000_0000);
        let ours = l.markers[..l.nr_markers].iter().map(|m| (m.start.0, m.name.map(str::to_owned))).collect::<Vec<_>>();
        assert_eq!(ours, captured_markers(&json), "{file}");
    }
}

/// §2.2, the example below the table.
#[test]
fn struct_pages_lie_where_pfn_to_page_says() {
    let l = layout(Granule::K4, 48, Version::V6_1, 0x4000_0000);
    assert_eq!(l.page_va(Pfn(0x40000)), Va(0xffff_fc00_0000_0000));
    assert_eq!(l.page_va(Pfn(0x48000)), Va(0xffff_fc00_0020_0000));
    let l = layout(Granule::K64, 48, Version::V6_1, 0x4000_0000);
    assert_eq!(l.page_va(Pfn(0x4000)), Va(0xffff_ffc0_0000_0000));
    assert_eq!(l.page_va(Pfn(0x6000)), Va(0xffff_ffc0_0008_0000));
    assert_eq!(l.linear_va(Pa(0x4000_0000)), l.page_offset);
}

#[test]
fn page_to_pfn_undoes_pfn_to_page_even_with_a_negative_memstart() {
    for memstart in [0i64, 0x4000_0000, -0x40_0000_0000, 0x80_0000_0000] {
        for r in worked_table() {
            let l = layout(r.granule, r.va_bits, r.version, memstart);
            let first = l.first_linear_pfn();
            for pfn in [first, first.plus(1), first.plus(0x12345)] {
                assert_eq!(l.page_pfn(l.page_va(pfn)), pfn);
            }
            assert_eq!(l.page_va(first), l.vmemmap_start);
        }
    }
}

/// Every struct page of the linear map lies in vmemmap, and the last one ends it.
#[test]
fn vmemmap_holds_exactly_the_struct_pages_of_the_linear_map() {
    for r in worked_table() {
        let l = layout(r.granule, r.va_bits, r.version, 0);
        let pages = l.page_end.since(l.page_offset) >> l.geometry.page_shift();
        assert_eq!(l.page_va(Pfn(pages)), l.vmemmap_end);
        assert!(l.in_vmemmap(l.page_va(Pfn(pages - 1))) && !l.in_vmemmap(l.page_va(Pfn(pages))));
    }
}

/// §4.5, worked results: which levels of vmemmap's tables lie wholly inside it.
#[test]
fn a_pmd_table_at_the_edge_of_vmemmap_is_its_own_only_where_the_table_says() {
    let inside = |granule, va_bits, version, level: Level| {
        let l = layout(granule, va_bits, version, 0);
        let span = l.geometry.table_span(level);
        l.vmemmap_start.is_aligned(span) && l.vmemmap_end.is_aligned(span)
    };
    assert!(inside(Granule::K4, 48, Version::V6_1, Level::PUD));
    assert!(!inside(Granule::K4, 48, Version::V6_12, Level::PUD));
    assert!(inside(Granule::K4, 48, Version::V6_12, Level::PMD));
    assert!(inside(Granule::K16, 47, Version::V6_1, Level::PMD));
    assert!(!inside(Granule::K16, 47, Version::V6_12, Level::PMD));
    assert!(!inside(Granule::K64, 48, Version::V6_1, Level::PMD));
    for r in worked_table() {
        assert!(inside(r.granule, r.va_bits, r.version, Level::PTE), "{:?}/{}", r.granule, r.va_bits);
    }
}
