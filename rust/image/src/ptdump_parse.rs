//! Reads the text of `kernel_page_tables`: structured lines that can be printed again byte for byte, whatever columns a
//! kernel adds; anything that is no such text is an error that names the line.

use std::io::{self, Write};

use memchr::{memchr, memmem};
use vmemmap_arch::Va;

use crate::column_texts::{ColumnTexts, printable};
use crate::hex::hex;
use crate::ptdump_text::{HEAD, put_head, put_padded, scaled};

/// Level names of ptdump, from the top; the index is the depth that `TextWriter::range` takes. The last is of kernels
/// that print no level (4.4).
pub const LEVEL_NAMES: [&str; 6] = ["PGD", "P4D", "PUD", "PMD", "PTE", ""];

/// The depth of a line that names no level.
pub const NO_LEVEL: u8 = 5;

/// What is wrong with a line. Lines and columns are numbered from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what} (column {column})")]
pub struct TextError {
    pub line: u64,
    pub column: usize,
    pub what: Problem,
}

/// The ways a text can fail to be a dump.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("expected `---[ name ]---` or `0xSTART-0xEND   SIZE LEVEL ...`, found `{0}`")]
    NotADumpLine(String),
    #[error("cut: the text ends within this line; expected a newline at its end")]
    Cut,
    #[error("ends in a carriage return: a line of a dump ends in a newline alone")]
    CarriageReturn,
    #[error("level `{0}` is none of PGD, P4D, PUD, PMD, PTE")]
    Level(String),
    #[error("the range is empty or runs backwards: {0}-{1}")]
    Backwards(Va, Va),
    #[error("the size column says {0}, but the range is {1}")]
    Size(String, String),
    #[error("other blanks around the size {0} than the kernel prints: expected it to end in column {1}, then a level")]
    Blanks(String, usize),
    #[error("starts at {start}, but the range before it ends at {previous}")]
    Gap { start: Va, previous: Va },
    #[error("starts at {0}, but the range before it ends at the top of the address space")]
    AboveTop(Va),
    #[error(
        "the text ends at {0}, but a whole dump ends at the top of the address space, \
         a slice of the linear map at PAGE_END or with its own end header"
    )]
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
    /// 0 = PGD to 4 = PTE, by the name printed; `NO_LEVEL` if none is.
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
    let mut at = put_head(&mut head, start, end, LEVEL_NAMES[usize::from(depth)].as_bytes());
    if depth == NO_LEVEL {
        at -= 1;
    }
    out.write_all(&head[..at])?;
    out.write_all(columns)?;
    out.write_all(b"\n")
}

/// The lines of a text, in order. Ends after the first error.
///
/// Ranges must follow each other without a gap, but in a text without any hole: kernels before 5.6 print none. A text
/// that begins with the first marker of a whole dump must end at the top of the address space; a slice need not. The
/// slice of the linear map begins with that marker too: it has none of another region, and ends with its own end marker
/// or at `PAGE_END`.
pub struct Lines<'a> {
    text: &'a [u8],
    rest: &'a [u8],
    line: u64,
    previous: Option<Va>,
    whole: bool,
    /// Markers of other regions than the linear map.
    foreign: bool,
    linear_ended: bool,
    /// Whether the text prints holes; found out at the first gap.
    holes: Option<bool>,
    done: bool,
    texts: ColumnTexts<'a>,
}

impl<'a> Lines<'a> {
    #[must_use]
    pub fn new(text: &'a [u8]) -> Self {
        let whole = text.starts_with(b"---[ Linear Mapping start ]---");
        let texts = ColumnTexts::default();
        Self {
            text,
            rest: text,
            line: 0,
            previous: None,
            whole,
            foreign: false,
            linear_ended: false,
            holes: None,
            done: false,
            texts,
        }
    }

    /// The distinct columns of the ranges so far, by `RangeLine::text`.
    #[must_use]
    pub fn column_texts(&self) -> &ColumnTexts<'a> {
        &self.texts
    }

    /// A line without its newline; the error comes with its column, from 0.
    fn parse(&mut self, line: &'a [u8]) -> Result<Line<'a>, (usize, Problem)> {
        if let [.., b'\r'] = line {
            return Err((line.len() - 1, Problem::CarriageReturn));
        }
        if let Some(name) = marker_name(line) {
            if !printable(name) {
                return Err((5, Problem::NotADumpLine(shown(line))));
            }
            self.linear_ended |= name == b"Linear Mapping end";
            self.foreign |= !name.starts_with(b"Linear Mapping ");
            return Ok(Line::Marker(name));
        }
        let Head { start, end, depth, columns } = head(line)?;
        if let Some(previous) = self.previous.replace(end)
            && (previous != start || previous.0 == 0)
        {
            if previous.0 == 0 {
                return Err((0, Problem::AboveTop(start)));
            }
            if start < previous || self.prints_holes() {
                return Err((0, Problem::Gap { start, previous }));
            }
        }
        let text = self.texts.number(&line[columns..]).ok_or_else(|| (columns, Problem::NotADumpLine(shown(line))))?;
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

    #[cold]
    fn prints_holes(&mut self) -> bool {
        let text = self.text;
        *self.holes.get_or_insert_with(|| {
            LEVEL_NAMES[..5].iter().any(|name| memmem::find(text, format!(" {name}\n").as_bytes()).is_some())
        })
    }

    fn finish(&mut self) -> Option<Problem> {
        // Of a text that prints no holes the end says nothing.
        let no_holes = self.holes == Some(false);
        match self.previous {
            None if self.line == 0 => Some(Problem::Empty),
            Some(end)
                if self.whole
                    && end.0 != 0
                    && !no_holes
                    && (self.foreign || !self.linear_ended && !may_be_page_end(end)) =>
            {
                Some(Problem::EndsEarly(end))
            }
            None if self.whole => Some(Problem::Cut),
            _ => None,
        }
    }
}

/// What stands between `---[ ` and ` ]---`.
pub(crate) fn marker_name(line: &[u8]) -> Option<&[u8]> {
    if let [b'-', ..] = line { line.strip_prefix(b"---[ ")?.strip_suffix(b" ]---") } else { None }
}

/// A range's line up to its columns.
pub(crate) struct Head {
    pub start: Va,
    pub end: Va,
    pub depth: u8,
    /// Where the columns begin.
    pub columns: usize,
}

/// Of a line as the kernel spaces it. The error comes with its column, from 0.
pub(crate) fn head(line: &[u8]) -> Result<Head, (usize, Problem)> {
    let bad = || (deviation(line), Problem::NotADumpLine(shown(line)));
    if line.len() < 42 || line[18] != b'-' || line[37] != b' ' {
        return Err(bad());
    }
    let start = hex(&line[0..18]).map(Va).ok_or_else(bad)?;
    let end = hex(&line[19..37]).map(Va).ok_or_else(bad)?;
    if end.0.wrapping_sub(1) < start.0 || start == end {
        return Err((19, Problem::Backwards(start, end)));
    }
    let (size, unit) = scaled(end.since(start));
    let mut expected = [0u8; 22];
    let mut width = put_padded(&mut expected, size);
    expected[width] = unit;
    width += 1;
    let column = &line[40..line.len().min(40 + width)];
    if &line[37..40] != b"   " || column != &expected[..width] {
        let first = line[37..].iter().position(|b| *b != b' ').map_or(line.len(), |first| 37 + first);
        let found = line[first..].split(|b| *b == b' ').next().unwrap_or_default();
        let expected = expected[..width].trim_ascii();
        return Err(if found == expected {
            (first, Problem::Blanks(shown(expected), 40 + width))
        } else if found.is_empty() || !found.iter().all(u8::is_ascii_alphanumeric) {
            bad()
        } else {
            (first, Problem::Size(shown(found), shown(expected)))
        });
    }
    let (at, after) = (40 + width, &line[40 + width..]);
    // Kernels that print no level go on with the first column, which is of blanks or `USR`.
    if after.starts_with(b"    ") || after.starts_with(b" USR ") {
        return Ok(Head { start, end, depth: NO_LEVEL, columns: at });
    }
    if after.len() < 4 || after[0] != b' ' || (after.len() > 4 && after[4] != b' ') {
        return Err((at, Problem::NotADumpLine(shown(line))));
    }
    let depth = depth_of(&after[1..4]).ok_or_else(|| (at + 1, Problem::Level(shown(&after[1..4]))))?;
    Ok(Head { start, end, depth, columns: at + 4 })
}

/// Where a line first differs from `0xSTART-0xEND   `.
fn deviation(line: &[u8]) -> usize {
    const FORM: &[u8] = b"0x................-0x................   ";
    let fits = |(found, form): (&u8, &u8)| {
        if *form == b'.' { matches!(found, b'0'..=b'9' | b'a'..=b'f') } else { found == form }
    };
    line.iter().zip(FORM).position(|pair| !fits(pair)).unwrap_or(line.len().min(FORM.len()))
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<Line<'a>, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let result = if self.rest.is_empty() {
            self.done = true;
            Err((0, self.finish()?))
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
                        _ => Err((line.len(), Problem::Cut)),
                    }
                }
            }
        };
        self.done |= result.is_err();
        Some(result.map_err(|(column, what)| TextError { line: self.line.max(1), column: column + 1, what }))
    }
}

/// The slice of a dump that belongs to a region, with both its header lines, as far as the text has them.
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
            // The last header of kernels before 5.4: to the end of the text.
            Some(("linear" | "kernel", "mapping")) => (marker.as_str(), true),
            _ => continue,
        };
        let short = base.split([' ', '(']).next().unwrap_or_default();
        if wanted != base && wanted != short {
            continue;
        }
        match from {
            None if opens => from = Some(at),
            Some(start) if !opens => {
                let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1);
                return Some(&text[start..end]);
            }
            _ => {}
        }
    }
    from.map(|start| &text[start..])
}

/// `PAGE_END` is -2^(VA_BITS_MIN - 1), and 16K pages with 36 bits have the least. With KASAN it is KASAN_SHADOW_START:
/// the shadow, of 2^(VA_BITS - 3) or 2^(VA_BITS - 4) bytes, ends there.
fn may_be_page_end(end: Va) -> bool {
    let below_top = end.0.wrapping_neg();
    below_top.count_ones() <= 2 && below_top >= 1 << 35 && below_top & ((1 << 32) - 1) == 0
}

pub(crate) fn depth_of(name: &[u8]) -> Option<u8> {
    match name {
        b"PGD" => Some(0),
        b"P4D" => Some(1),
        b"PUD" => Some(2),
        b"PMD" => Some(3),
        b"PTE" => Some(4),
        _ => None,
    }
}

/// A piece of a line for an error message: printable, not longer than a line.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(60)];
    let mut text: String = cut.iter().map(|&b| if (0x20..0x7f).contains(&b) { char::from(b) } else { '.' }).collect();
    if cut.len() < bytes.len() {
        text.push_str("...");
    }
    text
}
