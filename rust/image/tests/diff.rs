//! What two dumps must share to be compared.

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Geometry, Granule, Layout, Level, Version};
use vmemmap_image::diff::{Incomparable, diff};
use vmemmap_image::{Shape, TextWriter};

/// A text without a range, of a kernel of that VA size whose RAM begins there.
fn shape(granule: Granule, va_bits: u32, memstart: Option<i64>) -> Shape {
    let geometry = Geometry::new(granule, va_bits).unwrap();
    let layout = Layout::new(geometry, Version::V6_1, memstart.unwrap_or(0)).unwrap();
    Shape::of_text(b"---[ vmemmap start ]---\n", &layout, memstart.is_some()).unwrap()
}

fn of(memstart: Option<i64>) -> Shape {
    shape(Granule::K4, 48, memstart)
}

#[test]
fn dumps_of_two_boots_are_not_compared_whichever_comes_first() {
    const LOW: i64 = 0x4000_0000;
    const HIGH: i64 = 0x8000_0000;
    for (a, b) in [(LOW, HIGH), (HIGH, LOW), (0, LOW), (LOW, 0)] {
        let pfns = (a as u64 >> 12, b as u64 >> 12);
        assert_eq!(diff(&of(Some(a)), &of(Some(b))), Err(Incomparable::Memstart(pfns.0, pfns.1)));
    }
    // Of which it is known of one alone, or that are one.
    for (a, b) in [(Some(LOW), Some(LOW)), (Some(LOW), None), (None, Some(HIGH)), (None, None)] {
        assert!(diff(&of(a), &of(b)).is_ok(), "{a:?} {b:?}");
    }
}

#[test]
fn dumps_of_other_pages_or_sizes_are_not_compared() {
    let (a, b) = (of(None), shape(Granule::K16, 48, None));
    assert_eq!(diff(&a, &b), Err(Incomparable::Granule("4K", "16K")));
    assert_eq!(diff(&a, &shape(Granule::K4, 39, None)), Err(Incomparable::VaBits(48, 39)));
}

/// Two ranges in one table are one table; a range may need several.
#[test]
fn tables_of_a_text_are_counted_once() {
    let text = b"---[ vmemmap start ]---
0xfffffc0000000000-0xfffffc0000500000           5M PTE       RW NX SHD AF            UXN    MEM/NORMAL
0xfffffc0000500000-0xfffffc0000580000         512K PTE       ro NX SHD AF            UXN    MEM/NORMAL
0xfffffc0000580000-0xfffffc0000600000         512K PTE       RW NX SHD AF            UXN    MEM/NORMAL
0xfffffc0000600000-0xfffffc0000601000           4K PTE       ro NX SHD AF            UXN    MEM/NORMAL
";
    let layout = Layout::new(Geometry::new(Granule::K4, 48).unwrap(), Version::V6_1, 0).unwrap();
    let shape = Shape::of_text(text, &layout, false).unwrap();
    let tables = |level| shape.tables().iter().filter(|t| t.level == level).map(|t| t.count).sum::<u64>();
    assert_eq!([Level::PUD, Level::PMD, Level::PTE].map(tables), [1, 1, 4]);
}

fn of_lines(lines: &[(u64, u64, &str)]) -> Shape {
    let layout = Layout::new(Geometry::new(Granule::K4, 48).unwrap(), Version::V6_1, 0).unwrap();
    let mut writer = TextWriter::new(Vec::new(), Version::V6_1, 4);
    writer.marker("vmemmap start");
    let prot = |name: &str| match name {
        "rw" => prot::PAGE_KERNEL,
        "ro" => prot::PAGE_KERNEL_RO,
        _ => 0,
    };
    for &(first, end, name) in lines.iter().filter(|(first, end, _)| first < end) {
        let va = |page: u64| layout.vmemmap_start.plus(page << 12);
        writer.range(va(first), va(end), 4, prot(name));
    }
    Shape::of_text(&writer.finish().unwrap(), &layout, false).unwrap()
}

#[test]
fn a_page_that_was_optimised_is_told_as_that_and_as_nothing_else() {
    let before = of_lines(&[(0, 32, "rw")]);
    let after = of_lines(&[(0, 9, "rw"), (9, 16, "ro"), (16, 32, "rw")]);
    let there = diff(&before, &after).unwrap();
    let back = diff(&after, &before).unwrap();
    assert_eq!((there.optimised.len(), there.restored.len(), there.other_count, there.changed), (1, 0, 0, 7));
    assert_eq!((back.optimised.len(), back.restored.len(), back.other_count, back.changed), (0, 1, 0, 7));
}

/// Runs that begin and end anywhere, in either dump.
#[test]
fn changes_are_counted_whichever_run_begins_first() {
    let runs = [(0, 8), (2, 8), (2, 6), (0, 3), (5, 8)];
    for (a, b) in runs.into_iter().flat_map(|a| runs.map(|b| (a, b))) {
        let of = |(first, end): (u64, u64)| of_lines(&[(0, first, ""), (first, end, "rw"), (end, 16, "")]);
        let inside = |(first, end): (u64, u64), page| (first..end).contains(&page);
        let changed = (0..16).filter(|&page| inside(a, page) != inside(b, page)).count() as u64;
        assert_eq!(diff(&of(a), &of(b)).unwrap().changed, changed, "{a:?} {b:?}");
    }
}
