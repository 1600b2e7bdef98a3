//! A whole dump in parsed form: one array for each thing that a line says, so that a large dump is a few large arrays.

use std::io::{self, Write};

use vmemmap_arch::Va;

use crate::column_texts::{meaning, printable};
use crate::ptdump_parse::{LEVEL_NAMES, Line, Lines, NO_LEVEL, TextError, put_marker, put_range};
use crate::ptdump_text::head_size;

/// Columns of some ranges, owned; see `ColumnText`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    pub text: String,
    pub prot: u64,
    pub known: bool,
}

/// Ranges side by side, and the headers between them.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ptdump {
    bounds: Vec<u64>,
    depth: Vec<u8>,
    columns: Vec<u32>,
    texts: Vec<Columns>,
    markers: Vec<(u64, String)>,
}

/// Bounds, depth, columns, texts, markers.
pub type Parts = (Vec<u64>, Vec<u8>, Vec<u32>, Vec<Columns>, Vec<(u64, String)>);

/// Why arrays are no dump.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartsError {
    #[error(
        "{bounds} bounds, {depth} levels, {columns} columns: expected as many columns as levels, and one bound more"
    )]
    Lengths { bounds: usize, depth: usize, columns: usize },
    #[error("range {range} from {start} to {end} is empty or runs backwards")]
    Backwards { range: usize, start: Va, end: Va },
    #[error("range {range} has level {depth}: expected 0 (PGD) to 4 (PTE), or 5 (not printed)")]
    Level { range: usize, depth: u8 },
    #[error("range {range} has columns {columns}, but there are {texts}")]
    Columns { range: usize, columns: u32, texts: usize },
    #[error("columns {columns} are {text:?}: expected nothing, or a space and printable ASCII other than blanks")]
    Text { columns: usize, text: String },
    #[error("marker {marker} stands before range {range}: expected ascending numbers, at most {ranges}")]
    Place { marker: usize, range: u64, ranges: usize },
    #[error("marker {marker} is named {name:?}: expected printable ASCII")]
    Name { marker: usize, name: String },
}

impl Ptdump {
    /// # Errors
    /// The first line that is none of a dump's.
    pub fn parse(text: &[u8]) -> Result<Self, TextError> {
        let mut dump = Self::default();
        let mut lines = Lines::new(text);
        for line in &mut lines {
            match line? {
                Line::Marker(name) => {
                    dump.markers.push((dump.depth.len() as u64, String::from_utf8_lossy(name).into_owned()))
                }
                Line::Range(range) => {
                    if dump.bounds.last() != Some(&range.start.0) {
                        if !dump.bounds.is_empty() {
                            dump.depth.push(NO_LEVEL);
                            dump.columns.push(0);
                        }
                        dump.bounds.push(range.start.0);
                    }
                    dump.bounds.push(range.end.0);
                    dump.depth.push(range.depth);
                    dump.columns.push(range.text);
                }
            }
        }
        let owned = lines.column_texts().as_slice().iter();
        dump.texts = owned
            .map(|c| Columns { text: String::from_utf8_lossy(c.text).into_owned(), prot: c.prot, known: c.known })
            .collect();
        Ok(dump)
    }

    /// From parts that a caller made or changed; `texts` are the columns as they are to be printed.
    ///
    /// # Errors
    /// What no dump has: ranges that are empty or run backwards, levels, columns and places that are not there, text
    /// that is no printable ASCII.
    pub fn from_parts(
        bounds: Vec<u64>,
        depth: Vec<u8>,
        columns: Vec<u32>,
        texts: Vec<String>,
        markers: Vec<(u64, String)>,
    ) -> Result<Self, PartsError> {
        let ranges = depth.len();
        let expected = if ranges == 0 { bounds.len().min(1) } else { ranges + 1 };
        if bounds.len() != expected || columns.len() != ranges {
            return Err(PartsError::Lengths { bounds: bounds.len(), depth: ranges, columns: columns.len() });
        }
        for (range, pair) in bounds.windows(2).enumerate() {
            // 0 is one past the last address; only the last range can end there.
            if pair[1].wrapping_sub(1) < pair[0] || pair[0] == pair[1] || (range > 0 && pair[0] == 0) {
                return Err(PartsError::Backwards { range, start: Va(pair[0]), end: Va(pair[1]) });
            }
        }
        if let Some(range) = depth.iter().position(|&d| usize::from(d) >= LEVEL_NAMES.len()) {
            return Err(PartsError::Level { range, depth: depth[range] });
        }
        if let Some(range) = columns.iter().position(|&c| c as usize >= texts.len()) {
            return Err(PartsError::Columns { range, columns: columns[range], texts: texts.len() });
        }
        let good = |text: &str| {
            text.is_empty() || text.starts_with(' ') && printable(text.as_bytes()) && !text.trim_ascii().is_empty()
        };
        if let Some(columns) = texts.iter().position(|text| !good(text)) {
            return Err(PartsError::Text { columns, text: texts[columns].clone() });
        }
        let mut least = 0;
        for (marker, (range, name)) in markers.iter().enumerate() {
            if *range < least || *range > ranges as u64 {
                return Err(PartsError::Place { marker, range: *range, ranges });
            }
            if !printable(name.as_bytes()) {
                return Err(PartsError::Name { marker, name: name.clone() });
            }
            least = *range;
        }
        let meaning = |text: String| {
            let (prot, known) = meaning(text.as_bytes());
            Columns { text, prot, known }
        };
        Ok(Self { bounds, depth, columns, texts: texts.into_iter().map(meaning).collect(), markers })
    }

    /// The text, byte for byte as the kernel prints it.
    #[must_use]
    pub fn print(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.printed_size());
        // Memory takes everything.
        let _ = self.print_to(&mut out);
        out
    }

    /// # Errors
    /// Those of `out`.
    pub fn print_to(&self, mut out: impl Write) -> io::Result<()> {
        let mut markers = self.markers.iter().peekable();
        for (range, (&depth, &columns)) in self.depth.iter().zip(&self.columns).enumerate() {
            while let Some((_, name)) = markers.next_if(|m| m.0 == range as u64) {
                put_marker(&mut out, name.as_bytes())?;
            }
            let columns = self.texts[columns as usize].text.as_bytes();
            if depth == NO_LEVEL && columns.is_empty() {
                continue;
            }
            put_range(&mut out, Va(self.bounds[range]), Va(self.bounds[range + 1]), depth, columns)?;
        }
        markers.try_for_each(|(_, name)| put_marker(&mut out, name.as_bytes()))
    }

    /// Bytes of the text.
    #[must_use]
    pub fn printed_size(&self) -> usize {
        let line = |((pair, &depth), &columns): ((&[u64], &u8), &u32)| {
            let columns = self.texts[columns as usize].text.len();
            match (depth, columns) {
                (NO_LEVEL, 0) => 0,
                (NO_LEVEL, _) => head_size(Va(pair[0]), Va(pair[1])) - 4 + columns + 1,
                _ => head_size(Va(pair[0]), Va(pair[1])) + columns + 1,
            }
        };
        let lines: usize = self.bounds.windows(2).zip(&self.depth).zip(&self.columns).map(line).sum();
        lines + self.markers.iter().map(|m| m.1.len() + 11).sum::<usize>()
    }

    /// Where each range starts, and where the last ends (0 is one past the last address); nothing if there is no range.
    #[must_use]
    pub fn bounds(&self) -> &[u64] {
        &self.bounds
    }
    /// 0 = PGD to 4 = PTE of each range, by the name printed; `NO_LEVEL` if none is: without columns that is a hole,
    /// which kernels before 5.6 do not print.
    #[must_use]
    pub fn depth(&self) -> &[u8] {
        &self.depth
    }
    /// Which of `texts` each range has.
    #[must_use]
    pub fn columns(&self) -> &[u32] {
        &self.columns
    }
    #[must_use]
    pub fn texts(&self) -> &[Columns] {
        &self.texts
    }
    /// Headers, each with the number of the range that it stands before.
    #[must_use]
    pub fn markers(&self) -> &[(u64, String)] {
        &self.markers
    }
    #[must_use]
    pub fn into_parts(self) -> Parts {
        (self.bounds, self.depth, self.columns, self.texts, self.markers)
    }
}
