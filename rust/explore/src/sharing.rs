//! What is known of who touches a location, on which it rests that an access is private.

/// Who has touched a location, and whose accesses to it somebody else can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Location {
    pub readers: u16,
    pub writers: u16,
    /// Actors whose reads of it, whose writes to it, are scheduling points in this round.
    pub reads_seen: u16,
    pub writes_seen: u16,
}

impl Location {
    /// Actors other than the only one of the set; all if it has several, none if it is empty.
    pub const fn others(set: u16) -> u16 {
        match set.count_ones() {
            0 => 0,
            1 => !set,
            _ => u16::MAX,
        }
    }
    /// A read is noticed if somebody else writes, a write if somebody else reads or writes.
    pub const fn reads_noticed(self) -> u16 {
        Self::others(self.writers)
    }
    pub const fn writes_noticed(self) -> u16 {
        Self::others(self.readers | self.writers)
    }
    /// An access was taken for private that is not.
    pub const fn outgrown(self) -> bool {
        self.readers & self.reads_noticed() & !self.reads_seen != 0 || self.writers & self.writes_noticed() & !self.writes_seen != 0
    }
    pub const fn is_shared(self) -> bool {
        self.reads_seen | self.writes_seen != 0
    }
}

/// Widest distance between the locations of neighbouring entries or frames of a model.
const STRIDE: isize = 16;

/// A scan meets the entries of a hugepage, and the frames they name, one after the other; each round would learn one more.
/// So where a location has just become shared and lies in an even row of such locations, the row is continued by as many
/// as it has. More scheduling points than needed are always sound.
pub(crate) fn extend_row(locations: &mut [Location], at: usize) {
    let Location { writers, reads_seen, writes_seen, .. } = locations[at];
    let place = |n: isize, stride: isize| at.checked_add_signed(n * stride).filter(|i| *i < locations.len());
    let known = |stride: isize| {
        (1isize..).take_while(|n| place(-n, stride).is_some_and(|i| locations[i].is_shared() && locations[i].writers == writers)).count()
    };
    let strides = (1..=STRIDE).flat_map(|s| [s, -s]);
    let Some((length, stride)) = strides.map(|s| (known(s), s)).max_by_key(|(length, s)| (*length, -s.abs())) else { return };
    let row: Vec<usize> =
        (1..=length as isize).map_while(|n| place(n, stride)).take_while(|i| locations[*i].writers & writers != 0).collect();
    for i in row {
        locations[i].reads_seen |= reads_seen;
        locations[i].writes_seen |= writes_seen;
    }
}
