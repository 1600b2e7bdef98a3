//! Texts as people hand them on: with the prompt and the command before them, quoted, indented, with other line ends
//! and other blanks between the columns, wrapped by a mail client. `tidy` gives back the text as the kernel printed it,
//! and says what it left out.

use std::borrow::Cow;

use memchr::memmem;
use vmemmap_arch::Va;

use crate::column_texts::meaning;
use crate::hex::hex;
use crate::ptdump_parse::{
    Lines, NO_LEVEL, Problem, TextError, depth_of, head, marker_name, put_marker, put_range, shown,
};
use crate::ptdump_text::{COLUMNS, put_columns, scaled};

/// A text as the kernel printed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tidied<'a> {
    pub text: Cow<'a, [u8]>,
    /// What was left out or set right, in words.
    pub notes: Vec<String>,
}

/// Most bytes before a line that are taken for a quotation mark, a number or a time.
const MOST_PREFIX: usize = 80;

/// The text of a dump without what others put around it; one that the kernel could have printed stays as it is.
///
/// Lines before the first header or range and after the last are left out, blank ones everywhere; any other line
/// between two of the dump is an error.
///
/// # Errors
/// The first line that is none of a dump's, with its number in `raw`.
pub fn tidy(raw: &[u8]) -> Result<Tidied<'_>, TextError> {
    let first = match Lines::new(raw).find_map(Result::err) {
        None => return Ok(Tidied { text: Cow::Borrowed(raw), notes: Vec::new() }),
        Some(error) => error,
    };
    let mut tidying = Tidying::default();
    let mut rest = raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw);
    tidying.byte_order_mark = rest.len() != raw.len();
    while !rest.is_empty() {
        let (line, ended) = match memchr::memchr(b'\n', rest) {
            Some(at) => (&rest[..at], true),
            None => (rest, false),
        };
        rest = &rest[(line.len() + usize::from(ended)).min(rest.len())..];
        tidying.add(line, ended)?;
    }
    // Nothing of a dump at all: what the first line should have been says more.
    if tidying.origins.is_empty() {
        return Err(first);
    }
    tidying.flush();
    if let Some(mut error) = Lines::new(&tidying.out).find_map(Result::err) {
        // Where a text breaks off, the line that stands there instead says more.
        if let (Problem::EndsEarly(_) | Problem::Cut, Some(skipped)) = (&error.what, &tidying.after) {
            let what = Problem::NotADumpLine(skipped.text.clone());
            return Err(TextError { line: skipped.first, column: skipped.column + 1, what });
        }
        if let Some(&(line, prefix)) = tidying.origins.get(error.line as usize - 1) {
            error.line = line;
            error.column += prefix;
        }
        return Err(error);
    }
    let notes = tidying.notes();
    Ok(Tidied { text: Cow::Owned(tidying.out), notes })
}

/// Whether any line of `head` is one of a dump's, whatever stands before it.
#[must_use]
pub fn has_dump_line(head: &[u8]) -> bool {
    head.split(|b| *b == b'\n').any(|line| {
        let (line, ..) = plain(line);
        matches!(place(&line), Some(at) if at <= MOST_PREFIX)
    })
}

/// Lines that are none of a dump's.
struct Skipped {
    first: u64,
    last: u64,
    /// Column of the first, from 0, and its text.
    column: usize,
    text: String,
}

impl Skipped {
    fn add(these: &mut Option<Self>, line: u64, column: usize, text: &[u8]) {
        these.get_or_insert_with(|| Self { first: line, last: line, column, text: shown(text) }).last = line;
    }
}

#[derive(Default)]
struct Tidying {
    out: Vec<u8>,
    /// Number of the line in the raw text, and bytes before it there, of each line of `out` and of the one pending.
    origins: Vec<(u64, usize)>,
    line: u64,
    /// The last range, which the next line may go on with.
    pending: Option<Vec<u8>>,
    /// Lines before the first of the dump that are none.
    before: Option<Skipped>,
    /// Those since the last.
    after: Option<Skipped>,
    returns: u64,
    plainer: u64,
    byte_order_mark: bool,
    unended: bool,
    prefixed: u64,
    prefix: String,
    blank: u64,
    spaced: u64,
    wrapped: u64,
}

impl Tidying {
    fn add(&mut self, raw: &[u8], ended: bool) -> Result<(), TextError> {
        self.line += 1;
        let line_number = self.line;
        let failed = |column: usize, what| TextError { line: line_number, column: column + 1, what };
        let (line, returned, plainer) = plain(raw);
        let Some(at) = place(&line).filter(|&at| at <= MOST_PREFIX) else {
            return self.add_other(&line, ended).map_err(|(column, what)| failed(column, what));
        };
        if let Some(skipped) = &self.after {
            let what = Problem::NotADumpLine(skipped.text.clone());
            return Err(TextError { line: skipped.first, column: skipped.column + 1, what });
        }
        self.flush();
        let body = &line[at..];
        self.returns += u64::from(returned);
        self.plainer += u64::from(plainer);
        if at > 0 {
            self.prefixed += 1;
            self.prefix = shown(&line[..at]);
        }
        if body.starts_with(b"---[ ") {
            let Some(name) = marker_name(body.trim_ascii_end()) else {
                return Err(failed(at, if ended { Problem::NotADumpLine(shown(body)) } else { Problem::Cut }));
            };
            self.unended |= !ended;
            self.origins.push((self.line, at));
            // Memory takes everything.
            let _ = put_marker(&mut self.out, name);
            return Ok(());
        }
        if !ended {
            // Its last column may be the half of a longer one.
            return Err(failed(line.len(), Problem::Cut));
        }
        let (printed, spaced) = spaced(body).map_err(|(column, what)| failed(at + column, what))?;
        self.spaced += u64::from(spaced);
        self.origins.push((self.line, at));
        self.pending = Some(printed);
        Ok(())
    }

    /// A line that is none of a dump's.
    fn add_other(&mut self, line: &[u8], ended: bool) -> Result<(), (usize, Problem)> {
        let indent = line.iter().position(|b| !matches!(b, b' ' | b'>' | b'|')).unwrap_or(line.len());
        let words = line[indent..].trim_ascii_end();
        if words.is_empty() {
            self.blank += 1;
            return Ok(());
        }
        let is_column =
            |word: &[u8]| COLUMNS.iter().any(|c| word == c.set.trim_ascii() || word == c.clear.trim_ascii());
        if self.after.is_none()
            && let Some(pending) = &mut self.pending
            && words.split(|b| *b == b' ').filter(|w| !w.is_empty()).all(is_column)
        {
            let mut joined = std::mem::take(pending);
            joined.push(b' ');
            joined.extend_from_slice(words);
            let (printed, _) = spaced(&joined).map_err(|(_, what)| (indent, what))?;
            *pending = printed;
            self.wrapped += 1;
            return Ok(());
        }
        // The beginning of a line of the dump, which was cut there.
        let begins = |whole: &[u8]| words.starts_with(whole) || whole.starts_with(words);
        if !ended && !self.origins.is_empty() && (begins(b"---[ ") || begins(b"0x")) {
            return Err((line.len(), Problem::Cut));
        }
        if is_damaged(words) {
            return Err((indent, Problem::NotADumpLine(shown(words))));
        }
        if self.origins.is_empty() {
            Skipped::add(&mut self.before, self.line, indent, words);
            return Ok(());
        }
        if words.starts_with(b"---[") || words.starts_with(b"0x") {
            let (column, what) = head(words).err().unwrap_or((0, Problem::NotADumpLine(shown(words))));
            return Err((indent + column, what));
        }
        Skipped::add(&mut self.after, self.line, indent, words);
        Ok(())
    }

    fn flush(&mut self) {
        if let Some(line) = self.pending.take() {
            self.out.extend_from_slice(&line);
            self.out.push(b'\n');
        }
    }

    fn notes(&self) -> Vec<String> {
        let counts = [
            (self.returns, "ended in a carriage return"),
            (self.plainer, "had tabs, no-break spaces or colours"),
            (self.spaced, "had other blanks between columns than the kernel prints"),
            (self.wrapped, "had been wrapped"),
            (self.blank, "skipped that had nothing but blanks"),
        ];
        let mut notes: Vec<String> = counts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{} {what}", counted(count)))
            .collect();
        if self.byte_order_mark {
            notes.push("a byte order mark before line 1 skipped".to_owned());
        }
        if self.unended {
            notes.push("the last line did not end in a newline".to_owned());
        }
        if self.prefixed > 0 {
            notes.push(format!("{} began behind `{}` or the like", counted(self.prefixed), self.prefix));
        }
        for (skipped, place) in [(&self.before, "before"), (&self.after, "behind")] {
            if let Some(Skipped { first, last, text, .. }) = skipped {
                let lines = if first == last { format!("line {first}") } else { format!("lines {first} to {last}") };
                notes.push(format!("{lines} {place} the text skipped: `{text}`"));
            }
        }
        notes
    }
}

fn counted(lines: u64) -> String {
    if lines == 1 { "1 line".to_owned() } else { format!("{lines} lines") }
}

/// A line without carriage return and colours, with plain blanks for tabs and no-break spaces; whether it had the
/// first, and any of the others.
fn plain(raw: &[u8]) -> (Cow<'_, [u8]>, bool, bool) {
    let mut line = raw;
    // A text that was turned into CRLF twice has two.
    while let Some(shorter) = line.strip_suffix(b"\r") {
        line = shorter;
    }
    let returned = line.len() != raw.len();
    if !line.iter().any(|b| matches!(b, b'\t' | 0x1b | 0xa0)) {
        return (Cow::Borrowed(line), returned, false);
    }
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line;
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (b'\t', _) => out.push(b' '),
            (0xc2, [0xa0, after @ ..]) => {
                out.push(b' ');
                rest = after;
            }
            // ESC [ parameters letter: a colour.
            (0x1b, [b'[', after @ ..]) => {
                let end = after
                    .iter()
                    .position(|b| !matches!(b, b'0'..=b'9' | b';'))
                    .map_or(after.len(), |letter| letter + 1);
                rest = &after[end..];
            }
            _ => out.push(*byte),
        }
    }
    (Cow::Owned(out), returned, true)
}

/// Where a header or a range begins in a line.
fn place(line: &[u8]) -> Option<usize> {
    let header = memmem::find(line, b"---[ ").filter(|at| memmem::find(&line[*at..], b" ]---").is_some());
    let range = memmem::find_iter(line, b"0x").find(|&at| {
        let text = &line[at..];
        // Blanks behind it: a list of memory resources has other signs there.
        text.len() > 38
            && hex(&text[..18]).is_some()
            && text[18] == b'-'
            && hex(&text[19..37]).is_some()
            && text[37] == b' '
    });
    header.or(range)
}

/// Whether a line that is none of a dump's was one, or none of a text's.
fn is_damaged(line: &[u8]) -> bool {
    let beside = |at: usize| at > 0 && line[at - 1] == b'-' || line.get(at + 18) == Some(&b'-');
    let range = memmem::find_iter(line, b"0x")
        .any(|at| line.len() >= at + 18 && hex(&line[at..at + 18]).is_some() && beside(at));
    let header = memmem::find(line, b"---[").is_some() || memmem::find(line, b"]---").is_some();
    let address = memmem::find_iter(line, b"0x").any(|at| line.len() >= at + 18 && hex(&line[at..at + 18]).is_some());
    let level = words(line, 0).any(|(_, word)| depth_of(word).is_some());
    range || address && level || header || line.iter().any(|b| *b < b' ' || *b == 0x7f)
}

/// A range as the kernel spaces it, and whether it was spaced otherwise.
fn spaced(body: &[u8]) -> Result<(Vec<u8>, bool), (usize, Problem)> {
    for line in [body, body.trim_ascii_end()] {
        // A line of a level that is no column of an unknown kind stands as it is.
        if let Ok(head) = head(line)
            && (head.depth == NO_LEVEL && line.last() != Some(&b' ')
                || line.len() == head.columns
                || meaning(&line[head.columns..]).1
                || !respaced(&line[head.columns..]))
        {
            return Ok((line.to_vec(), line.len() != body.len()));
        }
    }
    let bad = |column| (column, Problem::NotADumpLine(shown(body)));
    let (Some(start), Some(end)) = (hex(&body[..18]), hex(&body[19..37])) else { return Err(bad(0)) };
    let (start, end) = (Va(start), Va(end));
    if end.0.wrapping_sub(1) < start.0 || start == end {
        return Err((19, Problem::Backwards(start, end)));
    }
    let mut words = words(body, 37);
    let Some((at, size)) = words.next() else { return Err(bad(body.len())) };
    let (number, unit) = scaled(end.since(start));
    let expected = format!("{number}{}", char::from(unit));
    if size != expected.as_bytes() {
        let is_size = size.len() > 1
            && size[..size.len() - 1].iter().all(u8::is_ascii_digit)
            && size[size.len() - 1].is_ascii_uppercase();
        return Err(if is_size { (at, Problem::Size(shown(size), expected)) } else { bad(at) });
    }
    let columns: Vec<(usize, &[u8])> = words.collect();
    let Some(&(at, first)) = columns.first() else { return Err(bad(body.len())) };
    let known = |word: &[u8]| COLUMNS.iter().any(|c| word == c.set.trim_ascii() || word == c.clear.trim_ascii());
    let depth = match depth_of(first) {
        Some(depth) => depth,
        None if known(first) => NO_LEVEL,
        None => return Err((at, Problem::Level(shown(first)))),
    };
    let columns = if depth == NO_LEVEL { &columns[..] } else { &columns[1..] };
    let mut text = Vec::new();
    if !columns.is_empty() {
        let mut joined = Vec::new();
        for (_, word) in columns {
            joined.push(b' ');
            joined.extend_from_slice(word);
        }
        put_columns(&mut text, meaning(&joined).0);
        let same = text.split(|b| *b == b' ').filter(|w| !w.is_empty()).eq(columns.iter().map(|c| c.1));
        if depth == NO_LEVEL || !same {
            // Columns that are not known, or in another order, stand side by side.
            text = if depth == NO_LEVEL { [b"   ", &joined[..]].concat() } else { joined };
        }
    }
    let mut line = Vec::with_capacity(body.len() + 64);
    // Memory takes everything.
    let _ = put_range(&mut line, start, end, depth, &text);
    line.pop();
    Ok((line, true))
}

/// Whether all columns are known, but not spaced as the kernel spaces them.
fn respaced(columns: &[u8]) -> bool {
    let known = |word: &[u8]| COLUMNS.iter().any(|c| word == c.set.trim_ascii() || word == c.clear.trim_ascii());
    words(columns, 0).all(|(_, word)| known(word))
}

/// Words from `from` on, each with its column.
fn words(line: &[u8], from: usize) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = from;
    std::iter::from_fn(move || {
        let begin = at + line[at..].iter().position(|b| *b != b' ')?;
        let end = line[begin..].iter().position(|b| *b == b' ').map_or(line.len(), |length| begin + length);
        at = end;
        Some((begin, &line[begin..end]))
    })
}
