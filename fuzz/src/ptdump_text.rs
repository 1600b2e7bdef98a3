//! Any bytes as `kernel_page_tables` text: refused, or printed back byte for byte from each parsed form; and as people
//! hand such texts on: refused, or tidied into one.

use vmemmap_image::{Lines, Ptdump, region, tidy};

pub fn run(data: &[u8]) {
    let dump = Ptdump::parse(data);
    let mut printed = Vec::new();
    let lines = Lines::new(data).try_for_each(|line| line.map(|line| line.print(&mut printed)));
    assert_eq!(lines.clone().err(), dump.clone().err(), "both readers refuse the same line");
    if let Err(error) = lines {
        let text = error.to_string();
        assert!(!text.contains('\n') && text.len() < 300, "one line: {text:?}");
    }
    match tidy(data) {
        Ok(tidied) => {
            assert!(Lines::new(&tidied.text).all(|line| line.is_ok()));
            assert_eq!(
                tidy(&tidied.text).map(|again| again.text),
                Ok(tidied.text.clone()),
                "a tidy text stays as it is"
            );
            assert_eq!(tidied.notes.is_empty(), tidied.text == data, "what was left out is said");
        }
        Err(error) => assert!(dump.is_err() && !error.to_string().contains('\n'), "{error}"),
    }
    if let Ok(dump) = dump {
        assert_eq!(printed, data);
        assert_eq!(dump.printed_size(), data.len());
        assert_eq!(dump.print(), data);
        let (bounds, depth, columns, texts, markers) = dump.clone().into_parts();
        let texts = texts.into_iter().map(|c| c.text).collect();
        assert_eq!(Ptdump::from_parts(bounds, depth, columns, texts, markers), Ok(dump));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        for name in ["vmemmap", "linear", "vmalloc", ""] {
            assert!(region(text, name).is_none_or(|part| text.contains(part)));
        }
    }
}
