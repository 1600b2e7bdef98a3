//! Reads the text of `kernel_page_tables`: structured lines that can be printed again byte for byte, whatever columns a
//! kernel adds; anything that is no such text is an error that names the line.

use std::io::{self, Write};

use memchr::{memchr, memmem};
use vmemmap_arch::Va;

use crate::column_texts::{ColumnTexts, printable};
use crate::hex::hex;
use crate::ptdump_text::{HEAD, put_head, put_padded, scaled};

/// Level names of ptdump, from the top; the index is the depth that `TextWriter::range` takes.
pub const LEVEL_NAMES: [&str; 5] = ["PGD", "P4D", "PUD", "PMD", "PTE"];

/// What is wrong with a line, numbered from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct TextError {
    pub line: u64,
    pub what: Problem,
}

/// The ways a text can fail to be a dump.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("expected `---[ name ]---` or `0xSTART-0xEND   SIZE LEVEL ...`, found `{0}`")]
    NotADumpLine(String),
    #[error("cut: the line does not end")]
    Cut,
    #[error("ends in a carriage return: a line of a dump ends in a newline alone")]
    CarriageReturn,
    #[error("level `{0}` is none of PGD, P4D, PUD, PMD, PTE")]
    Level(String),
    #[error("the range is empty or runs backwards: {0}-{1}")]
    Backwards(Va, Va),
    #[error("the size column says {0}, but the range is {1}")]
    Size(String, String),
    #[error("starts at {start}, but the range before it ends at {previous}")]
    Gap { start: Va, previous: Va },
    #[error("starts at {0}, but the range before it ends at the top of the address space")]
    AboveTop(Va),
    #[error("the text ends at {0}, but a whole dump ends at the top of the address space")]
    EndsEarly(Va),
    #[error("no line at all")]
    Empty,
}

/// One line of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// `---[ name ]---`.
    Marker(&'a [u8]),
    Range(RangeLine<'a>),
}

/// A line that gives a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeLine<'a> {
    pub start: Va,
    /// 0 is one past the last address.
    pub end: Va,
    /// 0 = PGD to 4 = PTE, by the name printed.
    pub depth: u8,
    /// The bits of `PROT_MASK` that the known columns say; 0 for a hole.
    pub prot: u64,
    /// Everything after the level name, as it stands: known columns, and those that are not known.
    pub columns: &'a [u8],
    /// Number of `columns` among those that the text has, in the order in which they first appear.
    pub text: u32,
    /// The columns are exactly those that `TextWriter` prints for `prot`.
    pub known: bool,
}

impl Line<'_> {
    /// Append the line as the kernel printed it, newline included.
    pub fn print(&self, out: &mut Vec<u8>) {
        // Memory takes everything.
        let _ = match self {
            Line::Marker(name) => put_marker(out, name),
            Line::Range(r) => put_range(out, r.start, r.end, r.depth, r.columns),
        };
    }
}

/// `---[ name ]---`.
pub(crate) fn put_marker(out: &mut impl Write, name: &[u8]) -> io::Result<()> {
    out.write_all(b"---[ ")?;
    out.write_all(name)?;
    out.write_all(b" ]---\n")
}

/// One range, with everything after the level's name as given.
pub(crate) fn put_range(out: &mut impl Write, start: Va, end: Va, depth: u8, columns: &[u8]) -> io::Result<()> {
    let mut head = [0u8; HEAD];
    let at = put_head(&mut head, start, end, LEVEL_NAMES[usize::from(depth)].as_bytes());
    out.write_all(&head[..at])?;
    out.write_all(columns)?;
    out.write_all(b"\n")
}

/// The lines of a text, in order. Ends after the first error.
///
/// Ranges must follow each other without a gap. A text that begins with the first marker of a whole dump must end at
/// the top of the address space; a slice need not. The slice of the linear map begins with that marker too: it has no
/// other, and ends at `PAGE_END`.
pub struct Lines<'a> {
    rest: &'a [u8],
    line: u64,
    previous: Option<Va>,
    whole: bool,
    markers: u64,
    done: bool,
    texts: ColumnTexts<'a>,
}

impl<'a> Lines<'a> {
    #[must_use]
    pub fn new(text: &'a [u8]) -> Self {
        let whole = text.starts_with(b"---[ Linear Mapping start ]---");
        Self { rest: text, line: 0, previous: None, whole, markers: 0, done: false, texts: ColumnTexts::default() }
    }

    /// The distinct columns of the ranges so far, by `RangeLine::text`.
    #[must_use]
    pub fn column_texts(&self) -> &ColumnTexts<'a> {
        &self.texts
    }

    fn parse(&mut self, line: &'a [u8]) -> Result<Line<'a>, Problem> {
        if let [.., b'\r'] = line {
            return Err(Problem::CarriageReturn);
        }
        if let [b'-', ..] = line
            && let Some(name) = line.strip_prefix(b"---[ ").and_then(|l| l.strip_suffix(b" ]---"))
        {
            self.markers += 1;
            return if printable(name) { Ok(Line::Marker(name)) } else { Err(Problem::NotADumpLine(shown(line))) };
        }
        let bad = || Problem::NotADumpLine(shown(line));
        if line.len() < 54 || line[18] != b'-' || &line[37..40] != b"   " {
            return Err(bad());
        }
        let start = hex(&line[0..18]).map(Va).ok_or_else(bad)?;
        let end = hex(&line[19..37]).map(Va).ok_or_else(bad)?;
        if end.0.wrapping_sub(1) < start.0 || start == end {
            return Err(Problem::Backwards(start, end));
        }
        let (size, unit) = scaled(end.since(start));
        let mut expected = [0u8; 22];
        let mut width = put_padded(&mut expected, size);
        expected[width] = unit;
        width += 1;
        let column = &line[40..line.len().min(40 + width)];
        if column != &expected[..width] {
            let found = line[40..].splitn(2, |b| b.is_ascii_alphabetic()).next().map_or(0, <[u8]>::len);
            let found = &line[40..line.len().min(40 + found + 1)];
            if !found.iter().all(|b| *b == b' ' || b.is_ascii_alphanumeric()) {
                return Err(bad());
            }
            return Err(Problem::Size(shown(found.trim_ascii()), shown(expected[..width].trim_ascii())));
        }
        let after = &line[40 + width..];
        if after.len() < 4 || after[0] != b' ' || (after.len() > 4 && after[4] != b' ') {
            return Err(bad());
        }
        let depth = depth_of([after[1], after[2], after[3]]).ok_or_else(|| Problem::Level(shown(&after[1..4])))?;
        match self.previous {
            Some(Va(0)) => return Err(Problem::AboveTop(start)),
            Some(previous) if previous != start => return Err(Problem::Gap { start, previous }),
            _ => self.previous = Some(end),
        }
        let text = self.texts.number(&after[4..]).ok_or_else(bad)?;
        let found = self.texts.get(text);
        Ok(Line::Range(RangeLine {
            start,
            end,
            depth,
            prot: found.prot,
            columns: found.text,
            text,
            known: found.known,
        }))
    }

    fn finish(&mut self) -> Option<Problem> {
        match self.previous {
            None if self.line == 0 => Some(Problem::Empty),
            Some(end) if self.whole && end.0 != 0 && !(self.markers == 1 && may_be_page_end(end)) => {
                Some(Problem::EndsEarly(end))
            }
            None if self.whole => Some(Problem::Cut),
            _ => None,
        }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<Line<'a>, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let result = if self.rest.is_empty() {
            self.done = true;
            Err(self.finish()?)
        } else {
            self.line += 1;
            match memchr(b'\n', self.rest) {
                Some(end) => {
                    let line = &self.rest[..end];
                    self.rest = &self.rest[end + 1..];
                    self.parse(line)
                }
                None => {
                    let line = self.rest;
                    // A last line that is no dump line is better named as such: binary files have few newlines.
                    match self.parse(line) {
                        Err(problem) if !line.starts_with(b"0x") && !line.starts_with(b"---") => Err(problem),
                        _ => Err(Problem::Cut),
                    }
                }
            }
        };
        self.done |= result.is_err();
        Some(result.map_err(|what| TextError { line: self.line.max(1), what }))
    }
}

/// The slice of a dump that belongs to a region, header line included, the header that ends it excluded.
///
/// `name` is a marker's name up to ` start` or ` area` (`vmemmap`, `Linear Mapping`, `vmalloc()`), in any case, or its
/// first word (`linear`, `vmalloc`, `pci`). `None` if the dump has no such region.
#[must_use]
pub fn region<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let wanted = name.trim().to_ascii_lowercase();
    let mut from = None;
    for at in memmem::find_iter(text.as_bytes(), b"---[ ") {
        if at != 0 && text.as_bytes()[at - 1] != b'\n' {
            continue;
        }
        let marker = text[at + 5..].split(" ]---").next().unwrap_or_default().to_ascii_lowercase();
        let (base, opens) = match marker.rsplit_once(' ') {
            Some((base, "start" | "area")) => (base, true),
            Some((base, "end")) => (base, false),
            _ => continue,
        };
        let short = base.split([' ', '(']).next().unwrap_or_default();
        if wanted != base && wanted != short {
            continue;
        }
        match from {
            None if opens => from = Some(at),
            Some(start) if !opens => return Some(&text[start..at]),
            _ => {}
        }
    }
    from.map(|start| &text[start..])
}

/// `PAGE_END` is -2^(VA_BITS_MIN - 1), and 16K pages with 36 bits have the least.
fn may_be_page_end(end: Va) -> bool {
    let below_top = end.0.wrapping_neg();
    below_top.is_power_of_two() && below_top >= 1 << 35
}

fn depth_of(name: [u8; 3]) -> Option<u8> {
    match &name {
        b"PGD" => Some(0),
        b"P4D" => Some(1),
        b"PUD" => Some(2),
        b"PMD" => Some(3),
        b"PTE" => Some(4),
        _ => None,
    }
}

/// A piece of a line for an error message: printable, not longer than a line.
fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(60)];
    let mut text: String = cut.iter().map(|&b| if (0x20..0x7f).contains(&b) { char::from(b) } else { '.' }).collect();
    if cut.len() < bytes.len() {
        text.push_str("...");
    }
    text
}
