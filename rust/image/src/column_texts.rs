//! What stands after the level's name: a dump has a handful of such texts, each on many lines.

use std::collections::HashMap;

use crate::ptdump_text::{COLUMNS, put_columns};

/// Everything after the level's name, as it stands: known columns, and those that are not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ColumnText<'a> {
    pub text: &'a [u8],
    /// The bits of `PROT_MASK` that the known columns say; 0 for a hole.
    pub prot: u64,
    /// The columns are exactly those that `TextWriter` prints for `prot`.
    pub known: bool,
}

/// Slots of the cache before the map, a power of two.
const SLOTS: usize = 64;

/// The distinct texts of a dump, numbered as they first appear.
#[derive(Clone, Debug)]
pub struct ColumnTexts<'a> {
    texts: Vec<ColumnText<'a>>,
    numbers: HashMap<&'a [u8], u32>,
    /// Numbers by a hash of the text. The first text is found in any slot that was never written, and fails to compare.
    recent: [u32; SLOTS],
}

impl Default for ColumnTexts<'_> {
    fn default() -> Self {
        let hole = ColumnText { text: b"", prot: 0, known: true };
        Self { texts: vec![hole], numbers: HashMap::from([(hole.text, 0)]), recent: [0; SLOTS] }
    }
}

impl<'a> ColumnTexts<'a> {
    /// The number of a text, a new one if it was never seen; `None` if it holds what no kernel prints.
    pub(crate) fn number(&mut self, text: &'a [u8]) -> Option<u32> {
        if text.is_empty() {
            return Some(0);
        }
        let slot = slot(text);
        let recent = self.recent[slot];
        if self.texts[recent as usize].text == text {
            return Some(recent);
        }
        let number = match self.numbers.get(text) {
            Some(number) => *number,
            None => self.add(text)?,
        };
        self.recent[slot] = number;
        Some(number)
    }

    #[cold]
    fn add(&mut self, text: &'a [u8]) -> Option<u32> {
        // Blanks alone would be a hole, which has no columns.
        if !printable(text) || text.trim_ascii().is_empty() {
            return None;
        }
        let number = u32::try_from(self.texts.len()).ok()?;
        let (prot, known) = meaning(text);
        self.texts.push(ColumnText { text, prot, known });
        self.numbers.insert(text, number);
        Some(number)
    }

    pub(crate) fn get(&self, number: u32) -> ColumnText<'a> {
        self.texts[number as usize]
    }
    /// In order of their numbers; number 0 are the columns of a hole, which has none.
    #[must_use]
    pub fn as_slice(&self) -> &[ColumnText<'a>] {
        &self.texts
    }
}

fn slot(text: &[u8]) -> usize {
    let mut hash = text.len() as u64;
    for eight in text.chunks_exact(8) {
        let word = u64::from_le_bytes(eight.try_into().unwrap_or_default());
        hash = (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    (hash >> (64 - SLOTS.trailing_zeros())) as usize
}

/// `prot` and `known` of a text.
pub(crate) fn meaning(text: &[u8]) -> (u64, bool) {
    if text.is_empty() {
        return (0, true);
    }
    let prot = prot_of(text);
    let mut printed = Vec::new();
    put_columns(&mut printed, prot);
    // A word of 0 is a hole, which has no columns.
    (prot, prot != 0 && printed == text)
}

/// An attribute index for which no column is printed.
const NO_MEMORY_TYPE: u64 = 7 << 2;

/// Columns of one width each, before those that are printed only if they apply.
const FIXED: usize = 11;

/// What the known columns say; `VALID` and `TABLE_BIT` are set unless `F`, `BLK` are printed.
fn prot_of(columns: &[u8]) -> u64 {
    let mut prot = COLUMNS[0].mask | COLUMNS[8].mask | NO_MEMORY_TYPE;
    let mut rest = columns;
    // As far as they stand where the kernel prints them; then by name, wherever they stand.
    for c in &COLUMNS[..FIXED] {
        let Some(text) = rest.strip_prefix(b" ") else { break };
        if let Some(after) = whole_prefix(text, c.set) {
            (prot, rest) = (prot & !c.mask | c.value, after);
        } else if let Some(after) = whole_prefix(text, c.clear) {
            (prot, rest) = (prot & !c.mask, after);
        } else {
            break;
        }
    }
    for token in rest.split(|b| *b == b' ').filter(|t| !t.is_empty()) {
        for c in &COLUMNS {
            if token == c.set.trim_ascii() {
                prot = prot & !c.mask | c.value;
            } else if token == c.clear.trim_ascii() {
                prot &= !c.mask;
            }
        }
    }
    prot
}

/// What follows `prefix`, if that is not the beginning of a longer word.
fn whole_prefix<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    text.strip_prefix(prefix).filter(|after| matches!(after, [] | [b' ', ..]))
}

/// Whether all bytes are of printable ASCII, as the kernel's are.
pub(crate) fn printable(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| (0x20..0x7f).contains(b))
}
