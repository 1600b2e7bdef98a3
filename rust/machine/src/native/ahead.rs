//! Pages of the host made before they are touched, where memory comes into use in order: many at once take half the
//! time of a fault for each.

use std::sync::atomic::{AtomicU64, Ordering};

/// Pages that are made at once at most, and of which all but one may have been made in vain.
const MOST: u64 = 16;

/// The pages that were asked for last: the first, and in the low bits how many. CPUs that use memory at two places take
/// turns in it; nothing rests on what it says.
#[derive(Debug)]
pub struct Ahead(AtomicU64);

const COUNT_BITS: u32 = 8;

impl Ahead {
    pub const fn new() -> Self {
        Self(AtomicU64::new(u64::MAX << COUNT_BITS))
    }
    /// A page is about to be touched: those to be made now, the first and how many; `None` if it is to be left to a
    /// fault, or was among the last. Twice as many as the last time as long as they follow each other, in either
    /// direction.
    #[inline]
    pub fn pages(&self, page: u64) -> Option<(u64, u64)> {
        let last = self.0.load(Ordering::Relaxed);
        let (first, count) = (last >> COUNT_BITS, last & ((1 << COUNT_BITS) - 1));
        if page.wrapping_sub(first) < count { None } else { self.others(page, first, count) }
    }
    #[inline(never)]
    fn others(&self, page: u64, first: u64, count: u64) -> Option<(u64, u64)> {
        let more = (count * 2).min(MOST);
        let (from, count) = match page {
            _ if page == first + count => (page, more),
            _ if page + 1 == first => (first - more.min(first), more.min(first)),
            _ => (page, 1),
        };
        self.0.store(from << COUNT_BITS | count, Ordering::Relaxed);
        (count > 1).then_some((from, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_in_order_are_made_in_ever_larger_numbers() {
        let (up, down) = (Ahead::new(), Ahead::new());
        let each = |ahead: &Ahead, page| ahead.pages(page);
        assert_eq!(
            (0..63).filter_map(|page| each(&up, page)).collect::<Vec<_>>(),
            [(1, 2), (3, 4), (7, 8), (15, 16), (31, 16), (47, 16)]
        );
        let found: Vec<_> = (0..40).rev().filter_map(|page| each(&down, page)).collect();
        assert_eq!(found, [(37, 2), (33, 4), (25, 8), (9, 16), (0, 9)]);
    }
    #[test]
    fn pages_here_and_there_are_left_to_faults() {
        let ahead = Ahead::new();
        assert!([0, 7, 5, 9, 7, 0, 2, 2, 2].iter().all(|&page| ahead.pages(page).is_none()));
    }
}
