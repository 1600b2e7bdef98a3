//! Of which machine a text is, by its addresses alone.

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Geometry, Granule, Layout, Va, Version};
use vmemmap_image::TextWriter;
use vmemmap_image::text_alone::kind_of_text;
use vmemmap_image::text_machine::{TextHints, UnknownMachine, machine_of_text};

/// The vmemmap of a machine of which one page is mapped, the first.
fn vmemmap(layout: &Layout) -> Vec<u8> {
    let g = layout.geometry;
    let levels = (4 - g.top().0) as u32;
    let mut writer = TextWriter::new(Vec::new(), layout.version, levels);
    writer.marker("vmemmap start");
    let first = layout.vmemmap_start.plus(g.page_size());
    writer.range(layout.vmemmap_start, first, 4, prot::PAGE_KERNEL);
    writer.range(first, layout.vmemmap_end, 1, 0);
    writer.marker("vmemmap end");
    writer.finish().unwrap()
}

fn layouts() -> Vec<Layout> {
    let sizes = Granule::ALL.into_iter().flat_map(|granule| [36, 39, 42, 47, 48, 52].map(|bits| (granule, bits)));
    sizes
        .filter_map(|(granule, bits)| Geometry::new(granule, bits).ok())
        .flat_map(|g| Version::REPRESENTATIVES.into_iter().filter_map(move |version| Layout::new(g, version, 0).ok()))
        .collect()
}

#[test]
fn a_region_is_of_its_own_machine_or_of_several_with_it() {
    let mut told = 0;
    for layout in layouts() {
        let (g, text) = (layout.geometry, vmemmap(&layout));
        let what = format!("{} {} {}", g.granule.name(), g.va_bits, layout.version.name());
        match machine_of_text(&text, &TextHints::default()) {
            Ok(found) => {
                assert_eq!((found.geometry, found.vmemmap_start), (g, layout.vmemmap_start), "{what}");
                told += 1;
            }
            Err(UnknownMachine::Several(names)) => {
                let name = format!("{} pages, {} bits", g.granule.name(), g.va_bits);
                assert!(names.contains(&name), "{what}: {names}");
            }
            Err(other) => panic!("{what}: {other}"),
        }
        let hints = TextHints { granule: Some(g.granule), va_bits: Some(g.va_bits), ..TextHints::default() };
        let found = machine_of_text(&text, &TextHints { version: Some(layout.version), ..hints });
        assert_eq!(found.map(|found| found.vmemmap_start), Ok(layout.vmemmap_start), "{what}");
    }
    assert!(told > layouts().len() / 2, "{told} of {}", layouts().len());
}

/// `efi_page_tables` has no header; it maps low addresses.
#[test]
fn low_addresses_are_those_of_the_firmware() {
    let text = |start: u64| {
        let mut writer = TextWriter::new(Vec::new(), Version::V6_1, 4);
        writer.range(Va(start), Va(start + 0x1000), 4, prot::PAGE_KERNEL);
        writer.finish().unwrap()
    };
    assert!(kind_of_text(&text(0x2000_0000)).unwrap().efi);
    assert!(!kind_of_text(&text(0xffff_0000_2000_0000)).unwrap().efi);
}

#[test]
fn a_text_that_prints_what_is_not_mapped_is_known_by_that() {
    let layout = layouts().swap_remove(0);
    assert!(kind_of_text(&vmemmap(&layout)).unwrap().holes);
    let mut writer = TextWriter::new(Vec::new(), layout.version, 4);
    writer.range(layout.vmemmap_start, layout.vmemmap_start.plus(0x10000), 4, prot::PAGE_KERNEL);
    assert!(!kind_of_text(&writer.finish().unwrap()).unwrap().holes);
}
