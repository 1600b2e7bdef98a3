//! The rules of tables at rest, each with an entry that keeps it and one that does not.

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::rules::{Broken, contiguous_set, empty_table, executable, kept_pages, vmemmap_attributes};
use vmemmap_arch::{Attr, Desc, Geometry, Granule, Invariant, Layout, Level, Version};

const PAGE: Desc = Desc(prot::PAGE_KERNEL | 0x4000_0000);

fn words(found: impl IntoIterator<Item = Broken>) -> Vec<(Invariant, &'static str)> {
    found.into_iter().collect()
}

/// EL1 executes what has no PXN, EL0 what has no UXN: neither stands for the other.
#[test]
fn what_is_writable_is_executable_nowhere() {
    assert_eq!(words(executable(PAGE, false)), []);
    let el1 = words(executable(PAGE.without(Attr::PXN), false));
    assert_eq!(el1, [(Invariant::NoWritableExecutable, "writable and executable")]);
    let el0 = words(executable(PAGE.without(Attr::UXN), false));
    assert!(el0.len() == 1 && el0[0].1.contains("EL0"), "{el0:?}");
    let text = PAGE.without(Attr::PXN).with(Attr::RDONLY).without(Attr::WRITE);
    assert_eq!(words(executable(text, false)), [], "the kernel's own code");
    let excused = words(executable(PAGE.without(Attr::PXN), true));
    assert!(excused.len() == 1 && excused[0].1.contains("table above"), "{excused:?}");
}

#[test]
fn a_leaf_of_vmemmap_is_normal_memory_of_the_kernel_that_was_accessed() {
    assert_eq!(vmemmap_attributes(PAGE), None);
    for (desc, word) in [
        (PAGE.without(Attr::AF), "access flag"),
        (PAGE.with(Attr::USER), "EL0"),
        (PAGE.with(Attr::CONT), "Contiguous"),
        (Desc(PAGE.0 ^ 7 << 2), "memory type"),
    ] {
        let found = vmemmap_attributes(desc);
        assert!(
            found.is_some_and(|(i, text)| i == Invariant::TreeWellFormed && text.contains(word)),
            "{word}: {found:?}"
        );
    }
}

/// The table of all of the kernel is linked by the CPU's register, and one that spans more than vmemmap is not its own.
#[test]
fn an_empty_table_is_wrong_where_it_is_vmemmaps_alone() {
    let geometry = Geometry::new(Granule::K4, 48).unwrap();
    let layout = Layout::new(geometry, Version::V6_1, 1 << 30).unwrap();
    let inside = layout.vmemmap_start;
    for (level, start, broken) in [
        (Level::PTE, inside, true),
        (Level::PMD, inside, true),
        (geometry.top(), inside, false),
        (Level::PTE, layout.page_offset, false),
    ] {
        assert_eq!(empty_table(&layout, level, start).is_some(), broken, "level {} at {:#x}", level.0, start.0);
    }
}

#[test]
fn what_is_asked_is_what_is_broken() {
    for holds in [true, false] {
        assert_eq!(contiguous_set(holds).is_none(), holds);
        assert_eq!(kept_pages(holds).is_none(), holds);
    }
}
