//! Texts as people hand them on: what comes back is what the kernel printed, and everything left out is said.

use std::fs;

use proptest::prelude::*;
use vmemmap_image::ptdump_parse::Problem;
use vmemmap_image::text_alone::{check_alone, kind_of_text};
use vmemmap_image::text_machine::TextHints;
use vmemmap_image::{Lines, Ptdump, region, tidy};

fn capture(name: &str) -> String {
    fs::read_to_string(format!("{}/../../tests/captures/{name}.ptdump.txt", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn tidied(raw: &str) -> (String, Vec<String>) {
    let found = tidy(raw.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{}", &raw[..raw.len().min(400)]));
    (String::from_utf8(found.text.into_owned()).unwrap(), found.notes)
}

/// Each way in which a text is dressed up, by a name.
fn dressed(text: &str) -> Vec<(&'static str, String)> {
    let each = |f: &dyn Fn(&str) -> String| text.lines().map(f).collect::<Vec<_>>().join("\n") + "\n";
    let narrow = |line: &str| {
        if line.starts_with("0x") { line.split_whitespace().collect::<Vec<_>>().join(" ") } else { line.to_owned() }
    };
    vec![
        ("as it is", text.to_owned()),
        ("CRLF", text.replace('\n', "\r\n")),
        ("indented", each(&|l| format!("    {l}"))),
        ("indented by a tab", each(&|l| format!("\t{l}"))),
        ("quoted", each(&|l| format!("> {l}"))),
        ("quoted twice", each(&|l| format!("> > {l}"))),
        ("in a kernel log", each(&|l| format!("[   12.345678] {l}"))),
        ("numbered", text.lines().enumerate().map(|(n, l)| format!("{}:{l}\n", n + 1)).collect()),
        ("on a console", format!("root@box:~# cat /sys/kernel/debug/kernel_page_tables\n{text}root@box:~# ")),
        ("with blank lines", each(&|l| format!("{l}\n"))),
        ("narrow", each(&narrow)),
        ("narrow and quoted", each(&|l| format!("> {}", narrow(l)))),
        ("trailing blanks", each(&|l| format!("{l}  "))),
        ("tabs", each(&|l| narrow(l).replace(' ', "\t"))),
        ("no-break spaces", each(&|l| l.replace(' ', "\u{a0}"))),
        ("a byte order mark", format!("\u{feff}{text}")),
        ("coloured", each(&|l| format!("\x1b[32m{l}\x1b[0m"))),
        ("wrapped", each(&|l| l.replace(" AF ", " AF\n     "))),
        ("a report around it", format!("Hello,\n\nthe linear map:\n\n{text}\nAny idea?\n-- \nN. N.\n")),
    ]
}

#[test]
fn whatever_is_around_a_text_it_comes_back_as_the_kernel_printed_it() {
    for name in ["6.1-4k/B", "6.1-64k/B", "6.12-4k/B"] {
        let whole = capture(name);
        let mut texts = vec![("whole".to_owned(), whole.clone())];
        for region_name in ["linear", "modules", "vmalloc", "fixmap", "pci", "vmemmap"] {
            let slice = region(&whole, region_name).unwrap();
            let bare: String = slice.lines().filter(|l| !l.starts_with("---")).map(|l| format!("{l}\n")).collect();
            let first: String = slice.lines().filter(|l| !l.ends_with("end ]---")).map(|l| format!("{l}\n")).collect();
            texts.extend([(region_name.to_owned(), slice.to_owned()), (format!("{region_name} bare"), bare)]);
            texts.push((format!("{region_name}, its first header only"), first));
        }
        for (what, text) in texts {
            for (how, raw) in dressed(&text) {
                let (found, notes) = tidied(&raw);
                assert_eq!(found, text, "{name} {what} {how}");
                assert_eq!(notes.is_empty(), raw == text, "{name} {what} {how}: {notes:?}");
                assert_eq!(Ptdump::parse(found.as_bytes()).unwrap().print(), text.as_bytes(), "{name} {what} {how}");
            }
        }
    }
}

/// The last line may be cut in the middle of a column, a header cannot.
#[test]
fn a_last_line_without_newline_is_read_only_if_it_is_whole() {
    let text = capture("6.1-4k/A");
    let slice = region(&text, "vmemmap").unwrap();
    assert_eq!(tidied(slice.trim_end()).0, slice);
    for cut in 1..slice.len() - 1 {
        if slice.as_bytes()[cut - 1] != b'\n' && !slice[..cut].ends_with("]---") {
            let error = tidy(&slice.as_bytes()[..cut]).unwrap_err();
            assert!(error.what == Problem::Cut || error.line == 1, "cut at byte {cut}: {error}");
        }
    }
}

/// Line and column are those of the text as it was given.
#[test]
fn a_refusal_names_line_and_column_of_what_was_given() {
    let text = "---[ vmemmap start ]---
0xfffffc0000000000-0xfffffc0000001000           4K PTE       RW NX SHD AF            UXN    MEM/NORMAL
0xfffffc0000001000-0xfffffc0000008000          28K PTE       ro NX SHD AF            UXN    MEM/NORMAL
";
    let refused = |raw: &str| tidy(raw.as_bytes()).unwrap_err().to_string();
    let quoted = |raw: &str| format!("$ cat x\n{}", raw.lines().map(|l| format!("> {l}\n")).collect::<String>());
    for (old, new, line, column, what) in [
        ("28K", "29K", 3, 48, "the size column says 29K, but the range is 28K"),
        ("28K PTE", "28K PXE", 3, 52, "level `PXE` is none of PGD, P4D, PUD, PMD, PTE"),
        (
            "0xfffffc0000001000-0xfffffc0000008000          28K",
            "0xfffffc0000002000-0xfffffc0000008000          24K",
            3,
            1,
            "starts at",
        ),
        ("\n0xfffffc0000001000", "\noops\n0xfffffc0000001000", 3, 1, "expected `---[ name ]---` or"),
    ] {
        let changed = text.replace(old, new);
        let hole = "0xfffffc0000008000-0xfffffc0000009000           4K PTE\n";
        for (raw, lines, columns) in [(changed.clone() + hole, 0, 0), (quoted(&(changed + hole)), 1, 2)] {
            let message = refused(&raw);
            assert!(message.starts_with(&format!("line {}: {what}", line + lines)), "{message}");
            assert!(message.ends_with(&format!("(column {})", column + columns)), "{message}");
        }
    }
    // The value is right, its place is not.
    let narrow = text.replace("           4K", "  4K");
    let strict = Lines::new(narrow.as_bytes()).find_map(Result::err).unwrap();
    assert!(matches!(strict.what, Problem::Blanks(ref size, 50) if size == "4K"), "{strict}");
    assert_eq!(tidied(&narrow).0, text);
}

/// What looks like a line of the dump, or like no text at all, is damage and no noise.
#[test]
fn a_damaged_line_is_not_skipped() {
    let text = capture("6.1-4k/A");
    let slice = region(&text, "vmemmap").unwrap();
    for damaged in [
        "0xfffffc0000001000           4K PTE",
        "---[ vmemmap sta",
        "--[ vmemmap start ]---",
        "0xfffffc000000-0xfffffc0000001000  4K PTE",
        "0xfffffc0000001000 0x",
        "\0\0",
    ] {
        let damaged = damaged.replace("\\0", "\0");
        for raw in [format!("{damaged}\n{slice}"), format!("{slice}{damaged}\n")] {
            let noise = damaged == "0xfffffc0000001000 0x";
            assert_eq!(tidy(raw.as_bytes()).is_ok(), noise && !raw.ends_with("0x\n"), "{damaged:?}");
        }
    }
}

/// Kernels before 5.6 print no holes, 4.4 no levels; their linear map comes last.
const OLD: &str = "---[ Modules start ]---
0xffff000000a50000-0xffff000000a60000          64K PTE       RW NX SHD AF            UXN    MEM/NORMAL
---[ Modules end ]---
---[ vmalloc() Area ]---
0xffff000008000000-0xffff000008010000          64K PTE       RW NX SHD AF            UXN    MEM/NORMAL
0xffff000008080000-0xffff000008200000        1536K PTE       ro x  SHD AF            UXN    MEM/NORMAL
---[ vmalloc() End ]---
---[ vmemmap start ]---
0xffff7e0000000000-0xffff7e0003000000          48M PMD       RW NX SHD AF        BLK UXN    MEM/NORMAL
---[ vmemmap end ]---
---[ Linear Mapping ]---
0xffff800000000000-0xffff800000080000         512K PTE       RW NX SHD AF            UXN    MEM/NORMAL
0xffff800040000000-0xffff800080000000           1G PUD       RW NX SHD AF        BLK UXN    MEM/NORMAL
";

#[test]
fn texts_of_old_kernels_are_read_as_far_as_they_go_and_named() {
    let no_levels: String = OLD
        .lines()
        .map(|line| {
            let line = line.replace(" BLK", "    ");
            for level in [" PTE      ", " PMD      ", " PUD      "] {
                if let Some((head, columns)) = line.split_once(level) {
                    return format!("{head}    {columns}\n");
                }
            }
            line + "\n"
        })
        .collect();
    for text in [OLD, &no_levels] {
        let dump = Ptdump::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(String::from_utf8(dump.print()).unwrap(), text);
        assert_eq!(dump.printed_size(), text.len());
        let (bounds, depth, columns, texts, markers) = dump.clone().into_parts();
        let texts = texts.into_iter().map(|c| c.text).collect();
        assert_eq!(Ptdump::from_parts(bounds, depth, columns, texts, markers).unwrap(), dump);
        for (how, raw) in dressed(text)
            .into_iter()
            .filter(|(how, _)| text == OLD || !["narrow", "narrow and quoted", "tabs", "wrapped"].contains(how))
        {
            assert_eq!(tidied(&raw).0, text, "{how}");
        }
        let kind = kind_of_text(text.as_bytes()).unwrap();
        assert!(!kind.holes && kind.vmemmap && kind.headers && !kind.efi);
        assert_eq!(kind.levels, text == OLD);
        assert!(kind.layout.unwrap().starts_with("before 5.4"));
        assert!(region(text, "linear").unwrap().lines().count() == 3);
        let mut findings = Vec::new();
        let alone = check_alone(text.as_bytes(), &TextHints::default(), |finding| findings.push(finding)).unwrap();
        assert!(findings.is_empty(), "{findings:?}");
        assert!(alone.notes.iter().any(|note| note.contains("before 5.6")), "{:?}", alone.notes);
        assert_eq!(alone.visible.iter().count(), if text == OLD { 2 } else { 1 });
    }
    // A line that is missing in a text with holes is missed.
    let whole = capture("6.1-4k/A");
    let lines: Vec<&str> = whole.lines().collect();
    let without: String = lines.iter().enumerate().filter(|(n, _)| *n != 3).map(|(_, l)| format!("{l}\n")).collect();
    assert!(tidy(without.as_bytes()).is_err());
}

#[test]
fn a_text_without_vmemmap_is_judged_for_what_is_there() {
    let whole = capture("6.12-4k/A");
    for name in ["linear", "modules", "vmalloc", "fixmap", "pci"] {
        let slice = region(&whole, name).unwrap();
        let mut findings = Vec::new();
        let alone = check_alone(slice.as_bytes(), &TextHints::default(), |finding| findings.push(finding)).unwrap();
        assert!(findings.is_empty(), "{name}: {findings:?}");
        assert!(alone.notes[0].contains("vmemmap is not in this text"), "{:?}", alone.notes);
        let machine = &alone.machines;
        assert!(machine.iter().any(|g| g.page_size() == 4096 && g.va_bits == 48), "{name}: {machine:?}");
        assert!(name != "linear" || machine.len() == 1, "{machine:?}");
    }
    let bad = "---[ Linear Mapping start ]---
0xffff000000000000-0xffff000000201000        2052K PMD       RW NX SHD AF        BLK UXN    MEM/NORMAL
0xffff000000201000-0xffff000000202000           4K PTE       RW x  SHD AF            UXN    MEM/NORMAL
0xffff000000202000-0xffff800000000000 137438953464K PGD
---[ Linear Mapping end ]---
";
    let (bad, _) = tidied(
        &bad.replace("137438953464K", &format!("{}K", (0xffff_8000_0000_0000u64 - 0xffff_0000_0020_2000) >> 10)),
    );
    let mut findings = Vec::new();
    check_alone(bad.as_bytes(), &TextHints::default(), |finding| findings.push(finding)).unwrap();
    let found: Vec<String> = findings.iter().map(|f| f.invariant.to_string()).collect();
    assert_eq!(found, ["I30", "I31"]);
    let efi = "---[ UEFI runtime start ]---
0x0000000000000000-0x0000000020000000         512M PUD
0x0000000020000000-0x0000000020010000          64K PTE       ro x  SHD AF NG         UXN    MEM/NORMAL
0x0000000020010000-0x0000000020200000        1984K PTE
0x0000000020200000-0x0000000040000000         510M PMD
0x0000000040000000-0x0000008000000000         511G PUD
0x0000008000000000-0x0001000000000000      261632G PGD
---[ UEFI runtime end ]---
";
    assert_eq!(tidied(efi).1, [""; 0]);
    let alone = check_alone(efi.as_bytes(), &TextHints::default(), |finding| panic!("{finding:?}")).unwrap();
    assert!(alone.kind.efi && alone.notes[0].starts_with("efi_page_tables"));
}

proptest! {
    #[test]
    fn random_bytes_are_refused_or_become_a_text(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(found) = tidy(&bytes) {
            prop_assert!(Lines::new(&found.text).all(|line| line.is_ok()));
        }
    }

    #[test]
    fn a_dressed_text_with_bytes_changed_is_refused_or_becomes_a_text(
        which in 0usize..19,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let text = capture("6.1-64k/B");
        let mut bytes = dressed(region(&text, "vmemmap").unwrap()).swap_remove(which).1.into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(found) = tidy(&bytes) {
            prop_assert_eq!(Ptdump::parse(&found.text).unwrap().print(), found.text.to_vec());
            prop_assert_eq!(&tidy(&found.text).unwrap().text, &found.text, "a tidy text stays as it is");
            let hints = TextHints::default();
            check_alone(&found.text, &hints, |_| {}).unwrap();
        }
    }
}
