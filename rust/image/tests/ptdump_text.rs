//! Text of real kernels in and out, byte for byte; anything else refused by line.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use vmemmap_arch::{Va, Version};
use vmemmap_image::ptdump_parse::Problem;
use vmemmap_image::{Line, Lines, TextError, TextWriter, region, tidy};

fn captures() -> Vec<(String, Version, u32, String)> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/captures"));
    let mut found = Vec::new();
    for (machine, version, levels) in
        [("6.1-4k", Version::V6_1, 4), ("6.1-64k", Version::V6_1, 3), ("6.12-4k", Version::V6_12, 4)]
    {
        for entry in fs::read_dir(root.join(machine)).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().ends_with(".ptdump.txt") {
                found.push((path.display().to_string(), version, levels, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert_eq!(found.len(), 13);
    found
}

fn printed(text: &[u8]) -> Result<Vec<u8>, TextError> {
    let mut out = Vec::new();
    for line in Lines::new(text) {
        line?.print(&mut out);
    }
    Ok(out)
}

#[test]
fn every_captured_text_is_printed_back_byte_for_byte() {
    for (file, _, _, text) in captures() {
        assert_eq!(printed(text.as_bytes()).unwrap(), text.as_bytes(), "{file}");
    }
}

#[test]
fn the_writer_prints_every_captured_line_from_its_meaning() {
    for (file, version, levels, text) in captures() {
        let mut writer = TextWriter::new(Vec::new(), version, levels);
        for line in Lines::new(text.as_bytes()) {
            match line.unwrap() {
                Line::Marker(name) => writer.marker(std::str::from_utf8(name).unwrap()),
                Line::Range(r) => {
                    assert!(r.known, "{file}: {r:?}");
                    writer.range(r.start, r.end, r.depth, r.prot);
                }
            }
        }
        assert_eq!(String::from_utf8(writer.finish().unwrap()).unwrap(), text, "{file}");
    }
}

/// kernel-semantics §8.4, the sample lines.
#[test]
fn the_sample_lines_of_the_specification_come_out_exactly() {
    let mut writer = TextWriter::new(Vec::new(), Version::V6_1, 4);
    writer.range(Va(0xffff_fc00_0000_0000), Va(0xffff_fc00_0000_1000), 4, 0x00e8_0000_4780_0703);
    writer.range(Va(0xffff_fc00_0000_1000), Va(0xffff_fc00_0000_8000), 4, 0x00e0_0000_4780_0783);
    writer.range(Va(0xffff_fc00_0020_0000), Va(0xffff_fc00_0040_0000), 3, 0x0060_0000_4780_0701);
    writer.range(Va(0xffff_fc00_0040_0000), Va(0xffff_fc00_4000_0000), 3, 0);
    writer.range(Va(0xffff_0000_0000_0000), Va(0xffff_0000_0021_0000), 4, 0x00e8_0000_4000_0707);
    writer.range(Va(0xffff_fe00_0000_0000), Va(0), 0, 0);
    let expected = "\
0xfffffc0000000000-0xfffffc0000001000           4K PTE       RW NX SHD AF            UXN    MEM/NORMAL
0xfffffc0000001000-0xfffffc0000008000          28K PTE       ro NX SHD AF            UXN    MEM/NORMAL
0xfffffc0000200000-0xfffffc0000400000           2M PMD       RW NX SHD AF        BLK UXN    MEM/NORMAL
0xfffffc0000400000-0xfffffc0040000000        1020M PMD
0xffff000000000000-0xffff000000210000        2112K PTE       RW NX SHD AF            UXN    MEM/NORMAL-TAGGED
0xfffffe0000000000-0x0000000000000000           2T PGD
";
    assert_eq!(String::from_utf8(writer.finish().unwrap()).unwrap(), expected);
}

/// §8.4: 6.1 names a folded level PGD; 6.12 prints every level by its own name.
#[test]
fn folded_levels_are_named_as_that_kernel_names_them() {
    let name = |version, levels, depth| {
        let mut writer = TextWriter::new(Vec::new(), version, levels);
        writer.range(Va(0x1000), Va(0x2000), depth, 0);
        let line = String::from_utf8(writer.finish().unwrap()).unwrap();
        line.trim_end().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!([2, 3, 4].map(|d| name(Version::V6_1, 4, d)), ["PUD", "PMD", "PTE"]);
    assert_eq!([2, 3, 4].map(|d| name(Version::V6_1, 3, d)), ["PGD", "PMD", "PTE"]);
    assert_eq!([2, 3, 4].map(|d| name(Version::V2021, 2, d)), ["PGD", "PGD", "PTE"]);
    assert_eq!([0, 1, 2, 3, 4].map(|d| name(Version::V6_12, 2, d)), ["PGD", "P4D", "PUD", "PMD", "PTE"]);
}

#[test]
fn columns_that_no_row_of_the_table_prints_are_kept_and_marked() {
    let line =
        "0xfffffc0000000000-0xfffffc0000001000           4K PTE       RW NX SHD AF            UXN    MEM/NORMAL  POE\n";
    let Line::Range(range) = Lines::new(line.as_bytes()).next().unwrap().unwrap() else { panic!("a range") };
    assert!(!range.known);
    assert_eq!(range.prot, 0x0060_0000_0000_0703, "the columns that are known still say what they mean");
    assert_eq!(printed(line.as_bytes()).unwrap(), line.as_bytes());
}

/// What is understood does not depend on where a column stands, and half a word is no column.
#[test]
fn known_columns_are_understood_wherever_they_stand() {
    let prot = |columns: &str| {
        let line = format!("0xfffffc0000000000-0xfffffc0000001000           4K PTE{columns}\n");
        let Line::Range(range) = Lines::new(line.as_bytes()).next().unwrap().unwrap() else { panic!("a range") };
        assert_eq!(range.known, columns == "       RW NX SHD AF            UXN    MEM/NORMAL", "{columns}");
        range.prot
    };
    let expected = 0x0060_0000_0000_0703;
    for columns in [
        "       RW NX SHD AF            UXN    MEM/NORMAL",
        " RW NX SHD AF UXN MEM/NORMAL",
        " MEM/NORMAL UXN AF SHD NX RW",
        " POE   RW NX SHD AF UXN MEM/NORMAL",
    ] {
        assert_eq!(prot(columns), expected, "{columns}");
    }
    assert_eq!(prot("       RW NX SHD AFX           UXN    MEM/NORMAL"), expected & !(1 << 10), "AFX is not AF");
    assert_eq!(prot(" F RW NX SHD AF UXN MEM/NORMAL"), expected & !1);
}

#[test]
fn a_region_is_the_slice_from_its_first_header_to_its_last() {
    for (file, _, _, text) in captures() {
        let slice = region(&text, "vmemmap").unwrap();
        let start = text.find("---[ vmemmap start ]---\n").unwrap();
        let end = text.find("---[ vmemmap end ]---\n").unwrap() + "---[ vmemmap end ]---\n".len();
        assert_eq!(slice, &text[start..end], "{file}");
        for (name, header) in [
            ("linear", "Linear Mapping start"),
            ("vmalloc", "vmalloc() area"),
            ("pci", "PCI I/O start"),
            ("Fixmap", "Fixmap start"),
        ] {
            let slice = region(&text, name).unwrap();
            assert!(slice.starts_with(&format!("---[ {header} ]---\n")), "{file} {name}");
            assert_eq!(
                printed(slice.as_bytes()).unwrap(),
                slice.as_bytes(),
                "a slice is a text of its own: {file} {name}"
            );
        }
        assert_eq!(region(&text, "kasan"), None);
        assert_eq!(printed(slice.as_bytes()).unwrap(), slice.as_bytes(), "{file}");
    }
}

fn error_of(text: &str) -> TextError {
    Lines::new(text.as_bytes()).find_map(Result::err).unwrap_or_else(|| panic!("accepted: {text:?}"))
}

#[test]
fn what_is_no_dump_is_refused_with_the_line_that_shows_it() {
    let good = "0xfffffc0000000000-0xfffffc0000001000           4K PTE\n";
    assert_eq!(error_of("").what, Problem::Empty);
    assert!(matches!(error_of("hello\n"), TextError { line: 1, what: Problem::NotADumpLine(_), .. }));
    for column in 0..40 {
        let other = format!("{}?{}", &good[..column], &good[column + 1..]);
        let found = error_of(&other);
        assert_eq!((found.line, found.column), (1, column + 1), "{found}");
    }
    assert!(matches!(error_of(&format!("{good}\n")), TextError { line: 2, what: Problem::NotADumpLine(_), .. }));
    assert!(matches!(error_of(&format!("{good}{}", &good[..40])), TextError { line: 2, what: Problem::Cut, .. }));
    assert!(matches!(error_of(good.trim_end()), TextError { line: 1, what: Problem::Cut, .. }));
    assert!(matches!(error_of(&good.replace("PTE", "PXE")), TextError { line: 1, what: Problem::Level(_), .. }));
    assert!(matches!(error_of(&good.replace("4K", "8K")), TextError { line: 1, what: Problem::Size(..), .. }));
    assert!(matches!(error_of(&format!("{good}{good}")), TextError { line: 2, what: Problem::Gap { .. }, .. }));
    assert_eq!(
        error_of(&format!("{good}{}", good.replace('\n', "\r\n"))),
        TextError { line: 2, column: 55, what: Problem::CarriageReturn }
    );
    assert_eq!(
        error_of("---[ Modules start ]---\r\n"),
        TextError { line: 1, column: 24, what: Problem::CarriageReturn }
    );
    let top = "0xfffffffffffff000-0x0000000000000000           4K PTE\n";
    let above = "0x0000000000000000-0x0000000000001000           4K PTE\n";
    assert!(matches!(error_of(&format!("{top}{above}")), TextError { line: 2, what: Problem::AboveTop(Va(0)), .. }));
    assert!(
        matches!(error_of(&format!("{good} \n")), TextError { line: 2, what: Problem::NotADumpLine(_), .. }),
        "trailing junk"
    );
    let bytes = good.replace("PTE", "PTE \u{e9}");
    assert!(matches!(error_of(&bytes), TextError { line: 1, what: Problem::NotADumpLine(_), .. }));
    let backwards = "0xfffffc0000001000-0xfffffc0000000000           4K PTE\n";
    assert!(matches!(error_of(backwards), TextError { line: 1, what: Problem::Backwards(..), .. }));
    let whole = format!("---[ Linear Mapping start ]---\n{good}");
    assert!(matches!(error_of(&whole).what, Problem::EndsEarly(_)));
}

#[test]
fn a_whole_dump_cut_anywhere_is_refused() {
    let (_, _, _, text) = captures().swap_remove(0);
    // Cut there, before or behind its end header, it is the slice of the linear map.
    let linear = text.find("---[ Linear Mapping end ]---").unwrap();
    let slices = [linear, linear + "---[ Linear Mapping end ]---\n".len()];
    for cut in (1..text.len())
        .filter(|cut| cut % 7 == 0 || text.as_bytes()[cut - 1] == b'\n')
        .filter(|cut| !slices.contains(cut))
    {
        assert!(printed(&text.as_bytes()[..cut]).is_err(), "cut at byte {cut}");
        assert!(tidy(&text.as_bytes()[..cut]).is_err(), "cut at byte {cut}");
    }
    for cut in slices {
        assert_eq!(printed(&text.as_bytes()[..cut]).unwrap(), &text.as_bytes()[..cut]);
    }
}

#[test]
fn lines_stop_after_the_first_error() {
    let mut lines = Lines::new(b"no\nno\n");
    assert!(lines.next().unwrap().is_err());
    assert!(lines.next().is_none());
}

proptest! {
    #[test]
    fn random_bytes_are_refused_or_printed_back(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(out) = printed(&bytes) {
            prop_assert_eq!(out, bytes);
        }
    }

    #[test]
    fn a_capture_with_bytes_changed_is_refused_or_printed_back(
        which in 0usize..13,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = captures().swap_remove(which).3.into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(out) = printed(&bytes) {
            prop_assert_eq!(&out, &bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        let _ = region(&text, "vmemmap");
    }

    #[test]
    fn what_the_writer_prints_the_parser_reads_back(
        start in 0u64..1 << 40, pages in 1u64..1 << 30, depth in 0u8..5, prot in any::<u64>(),
    ) {
        let (start, end) = (Va(start << 12), Va((start + pages) << 12));
        let mut writer = TextWriter::new(Vec::new(), Version::V6_12, 4);
        writer.range(start, end, depth, prot);
        let text = writer.finish().unwrap();
        let Line::Range(r) = Lines::new(&text).next().unwrap().unwrap() else { panic!("a range") };
        prop_assert!(r.known || r.prot == 0);
        prop_assert_eq!((r.start, r.end, r.depth), (start, end, depth));
        let mut out = Vec::new();
        Line::Range(r).print(&mut out);
        prop_assert_eq!(out, text);
    }
}
