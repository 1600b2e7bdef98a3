//! What a range of addresses translates to, from tables that are read as they are met: for memory of which it is not
//! yet known where its tables are.

use std::collections::BTreeSet;
use std::ops::Range;

use vmemmap_arch::{Desc, Geometry, Kind, Level, Pa, Va};

/// Leaves side by side, in virtual and in physical addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeafRun {
    pub va: Va,
    pub pa: Pa,
    pub bytes: u64,
    /// Not of descriptors that only lack their valid bit (`debug_pagealloc`, KFENCE, the alias of kernel data in 7.3).
    pub valid: bool,
}

/// The leaves of `range`, by address, from at most `most` tables; ends early where more would be needed. A table that
/// `read` does not give is passed over; each table is visited once, so a cycle ends.
pub fn leaves(
    g: Geometry,
    root: Pa,
    range: Range<Va>,
    most: usize,
    mut read: impl FnMut(Pa) -> Option<Vec<u64>>,
) -> Vec<LeafRun> {
    let mut seen = BTreeSet::new();
    let mut found: Vec<LeafRun> = Vec::new();
    // The sign bits are taken off: offsets from the lowest kernel address neither wrap nor overflow.
    let lowest = 0u64.wrapping_sub(1 << g.va_bits);
    let (start, end) = (range.start.0.saturating_sub(lowest), range.end.0.saturating_sub(lowest));
    let mut waiting = vec![(root, g.top(), 0u64)];
    while let Some((table, level, base)) = waiting.pop() {
        if !seen.insert(table.0) {
            continue;
        }
        if seen.len() > most {
            break;
        }
        let Some(words) = read(table).filter(|words| words.len() == g.entries()) else { continue };
        let span = g.entry_span(level);
        let below = waiting.len();
        for (index, &word) in words[..g.entries_at(level)].iter().enumerate() {
            let at = base + index as u64 * span;
            if at >= end || at + span <= start {
                continue;
            }
            let hidden = if level == Level::PTE { 3 } else { 1 };
            let valid = g.kind(Desc(word), level) != Kind::Invalid;
            match g.kind(Desc(if valid { word } else { word | hidden }), level) {
                Kind::Table(next) => waiting.push((next, level.next(), at)),
                Kind::Page(pa) | Kind::Block(pa) => {
                    add(&mut found, LeafRun { va: Va(lowest.wrapping_add(at)), pa, bytes: span, valid })
                }
                Kind::None | Kind::Invalid | Kind::Reserved => {}
            }
        }
        // The lowest address is taken next.
        waiting[below..].reverse();
    }
    found.sort_unstable_by_key(|run| run.va);
    let mut joined = Vec::with_capacity(found.len());
    for run in found {
        add(&mut joined, run);
    }
    joined
}

fn add(found: &mut Vec<LeafRun>, next: LeafRun) {
    match found.last_mut() {
        Some(last)
            if last.valid == next.valid
                && last.va.plus(last.bytes) == next.va
                && last.pa.0 + last.bytes == next.pa.0 =>
        {
            last.bytes += next.bytes;
        }
        _ => found.push(next),
    }
}
