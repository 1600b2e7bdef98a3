//! The functions of the fuzz targets, on seeds and mutations of them: so that they cannot rot where there is no fuzzer.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

#[path = "../../../fuzz/src/bytes.rs"]
mod bytes;
#[path = "../../../fuzz/src/ptdump_text.rs"]
mod ptdump_text;
#[path = "../../../fuzz/src/sequential.rs"]
mod sequential;
#[path = "../../../fuzz/src/table_image.rs"]
mod table_image;

use table_image::Reached;

fn texts() -> Vec<Vec<u8>> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/captures"));
    ["6.1-4k/A", "6.1-64k/B", "6.12-4k/B"].map(|name| fs::read(root.join(format!("{name}.ptdump.txt"))).unwrap()).into()
}

#[test]
fn captured_texts_are_seeds() {
    for text in texts() {
        ptdump_text::run(&text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn texts_with_a_piece_of_another_inside(
        which in (0usize..3, 0usize..3),
        cut in any::<[prop::sample::Index; 4]>(),
        bytes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let (mut text, other) = (texts().swap_remove(which.0), texts().swap_remove(which.1));
        let piece = |text: &[u8], a: &prop::sample::Index, b: &prop::sample::Index| {
            let (a, b) = (a.index(text.len()), b.index(text.len()));
            a.min(b)..a.max(b)
        };
        let (from, to) = (piece(&other, &cut[0], &cut[1]), piece(&text, &cut[2], &cut[3]));
        text.splice(to, other[from].iter().copied());
        for (at, byte) in bytes {
            if !text.is_empty() {
                let at = at.index(text.len());
                text[at] = byte;
            }
        }
        ptdump_text::run(&text);
    }

    #[test]
    fn arrays_of_any_kind(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        table_image::run(&data);
    }

    /// The path to the struct page of some sections: most of these are images.
    #[test]
    fn arrays_with_paths_to_struct_pages(
        head in (0u8..10, 0u8..4, 0u8..16),
        paths in proptest::collection::vec((any::<u8>(), 0u8..2, 0u8..8, 4u8..5, any::<[u8; 2]>()), 0..8),
        spice in proptest::collection::vec(any::<u8>(), 0..12),
    ) {
        let mut data = vec![head.0, head.1, head.2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0];
        for (table, section, page, leaf, frame) in paths {
            data.extend([table, 0, 0, 6, section, page, leaf, frame[0], frame[1]]);
        }
        data.extend(spice);
        table_image::run(&data);
    }
}

proptest! {
    // Four machines are booted for each.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn sequences_end_alike_on_every_machine(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        sequential::run(&data);
    }
}

#[test]
fn seeds_reach_the_end() {
    let seeds = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/table_image"));
    let seeds: Vec<_> = fs::read_dir(seeds).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(seeds.len(), 10, "one for each geometry");
    for seed in seeds {
        assert_eq!(table_image::run(&fs::read(&seed).unwrap()), Reached::Dump, "{}", seed.display());
    }
}

#[test]
fn seeded_sequences_do_most_of_what_they_say() {
    let seeds = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/sequential"));
    let seeds: Vec<_> = fs::read_dir(seeds).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(seeds.len(), 8, "two for each granule, and for gigantic pages");
    for seed in seeds {
        let reached = sequential::run(&fs::read(&seed).unwrap());
        assert!(reached.operations == 31 && reached.done >= 20, "{reached:?}: {}", seed.display());
    }
}
