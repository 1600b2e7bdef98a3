//! Text taken apart into arrays and put together again.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use vmemmap_arch::{Va, Version};
use vmemmap_image::{PartsError, Ptdump, TextWriter};

fn capture(name: &str) -> Vec<u8> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/captures"));
    fs::read(root.join(format!("{name}.ptdump.txt"))).unwrap()
}

const CAPTURES: [&str; 13] = [
    "6.1-4k/A",
    "6.1-4k/B",
    "6.1-4k/C",
    "6.1-4k/E0",
    "6.1-4k/E1",
    "6.1-4k/E2",
    "6.1-4k/E3",
    "6.1-4k/E4",
    "6.1-4k/E5",
    "6.1-64k/A",
    "6.1-64k/B",
    "6.12-4k/A",
    "6.12-4k/B",
];

fn again(dump: Ptdump) -> Result<Ptdump, PartsError> {
    let (bounds, depth, columns, texts, markers) = dump.into_parts();
    Ptdump::from_parts(bounds, depth, columns, texts.into_iter().map(|c| c.text).collect(), markers)
}

#[test]
fn every_captured_text_is_printed_back_from_its_arrays() {
    for name in CAPTURES {
        let text = capture(name);
        let dump = Ptdump::parse(&text).unwrap();
        assert_eq!(dump.printed_size(), text.len(), "{name}");
        assert_eq!(dump.print(), text, "{name}");
        assert!(dump.texts().iter().all(|c| c.known), "{name}");
        let (holes, lines) =
            (dump.columns().iter().filter(|&&c| c == 0).count(), text.iter().filter(|&&b| b == b'\n').count());
        assert!(holes > 0 && dump.depth().len() + dump.markers().len() == lines, "{name}");
        assert_eq!(again(dump.clone()).unwrap(), dump, "{name}");
    }
}

/// A column that a later kernel may print, on some lines only, and a region that this package does not name.
#[test]
fn unknown_columns_and_markers_are_kept_where_they_stand() {
    let text = String::from_utf8(capture("6.12-4k/B")).unwrap();
    let text = text
        .replace("MEM/NORMAL\n", "MEM/NORMAL POE    \n")
        .replace("---[ PCI I/O start ]---", "---[ Secret region (guest) ]---");
    let dump = Ptdump::parse(text.as_bytes()).unwrap();
    assert_eq!(dump.print(), text.as_bytes());
    assert!(dump.markers().iter().any(|m| m.1 == "Secret region (guest)"));
    let unknown = dump.texts().iter().filter(|c| !c.known).collect::<Vec<_>>();
    assert!(!unknown.is_empty() && unknown.iter().all(|c| c.text.ends_with(" POE    ") && c.prot != 0));
}

#[test]
fn parts_that_no_dump_has_are_refused() {
    let range = |bounds: [u64; 2]| Ptdump::from_parts(bounds.into(), vec![4], vec![0], vec![String::new()], vec![]);
    assert!(range([0x1000, 0x2000]).is_ok());
    assert!(range([0x1000, 0]).is_ok(), "0 is one past the last address");
    assert!(matches!(range([0x2000, 0x1000]), Err(PartsError::Backwards { range: 0, .. })));
    assert!(matches!(range([0x1000, 0x1000]), Err(PartsError::Backwards { .. })));
    let whole = |depth, columns, text: &str, marker: (u64, &str)| {
        Ptdump::from_parts(
            vec![0x1000, 0x2000],
            vec![depth],
            vec![columns],
            vec![text.to_owned()],
            vec![(marker.0, marker.1.to_owned())],
        )
    };
    assert!(whole(4, 0, " x", (1, "a")).is_ok());
    assert_eq!(whole(5, 0, "", (0, "a")).unwrap().print(), b"---[ a ]---\n", "a hole that is not printed");
    assert!(matches!(whole(6, 0, "", (0, "a")), Err(PartsError::Level { depth: 6, .. })));
    assert!(matches!(whole(4, 1, "", (0, "a")), Err(PartsError::Columns { columns: 1, texts: 1, .. })));
    assert!(matches!(whole(4, 0, "x", (0, "a")), Err(PartsError::Text { .. })));
    assert!(matches!(whole(4, 0, " \n", (0, "a")), Err(PartsError::Text { .. })));
    assert!(matches!(whole(4, 0, "", (2, "a")), Err(PartsError::Place { range: 2, .. })));
    assert!(matches!(whole(4, 0, "", (0, "\u{e9}")), Err(PartsError::Name { .. })));
    let above = Ptdump::from_parts(vec![0x1000, 0, 0x1000], vec![4; 2], vec![0; 2], vec![String::new()], vec![]);
    assert!(matches!(above, Err(PartsError::Backwards { range: 1, .. })));
    assert!(matches!(Ptdump::from_parts(vec![1], vec![4], vec![0], vec![], vec![]), Err(PartsError::Lengths { .. })));
    let descending = vec![(1, "b".to_owned()), (0, "a".to_owned())];
    assert!(matches!(
        Ptdump::from_parts(vec![0, 1], vec![4], vec![0], vec![String::new()], descending),
        Err(PartsError::Place { marker: 1, .. })
    ));
}

proptest! {
    /// Also texts with many more kinds of columns than the cache has slots.
    #[test]
    fn any_ranges_with_any_columns_and_markers_are_printed_back(
        first in 0u64..1 << 20,
        lines in proptest::collection::vec((1u64..1 << 40, 0u8..5, "( [ -~]{0,30}[!-~])?",
            proptest::option::of("[ -~]{0,20}")), 1..200),
        last in "[ -~]{1,10}",
    ) {
        let (mut text, mut at) = (String::new(), first << 10);
        for (size, depth, columns, marker) in &lines {
            if let Some(name) = marker {
                text += &format!("---[ {name} ]---\n");
            }
            let end = at + (size << 10);
            let mut line = TextWriter::new(Vec::new(), Version::V6_12, 5);
            line.range(Va(at), Va(end), *depth, 0);
            text += std::str::from_utf8(&line.finish().unwrap()).unwrap().trim_end();
            text += &format!("{columns}\n");
            at = end;
        }
        text += &format!("---[ {last} ]---\n");
        prop_assume!(!text.starts_with("---[ Linear Mapping start ]---"));
        let dump = Ptdump::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(String::from_utf8(dump.print()).unwrap(), text.clone());
        prop_assert_eq!(dump.printed_size(), text.len());
        prop_assert_eq!(again(dump.clone()).unwrap(), dump);
    }
}
