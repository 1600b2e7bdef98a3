//! Who accesses each location, and in which ways, by its number.
//!
//! A model numbers millions of locations, most of which no execution meets: the numbers are cut into pages, and a page
//! is there once one of its locations was met.

use crate::model::Access;

/// Ways to access a location that differ in what they conflict with: an enabledness read is a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Read,
    Write,
    CommutingUpdate,
}

pub(super) const WAYS: usize = 3;

impl Way {
    #[inline]
    pub const fn of(access: Access) -> Self {
        match access {
            Access::Read | Access::EnablednessRead => Self::Read,
            Access::Write => Self::Write,
            Access::CommutingUpdate => Self::CommutingUpdate,
        }
    }
    /// Those that it conflicts with.
    pub const fn against(self) -> &'static [Way] {
        match self {
            Self::Read => &[Self::Write, Self::CommutingUpdate],
            Self::Write => &[Self::Read, Self::Write, Self::CommutingUpdate],
            Self::CommutingUpdate => &[Self::Read, Self::Write],
        }
    }
    pub const ALL: [Self; WAYS] = [Self::Read, Self::Write, Self::CommutingUpdate];
}

/// Who has accessed a location, and whose accesses to it conflict with somebody else's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Location {
    /// By `Way`.
    pub actors: [u16; WAYS],
    /// Actors whose accesses of each way are scheduling points in this iteration.
    pub seen: [u16; WAYS],
    /// Its number among the shared ones, from 1.
    pub row: u32,
}

impl Location {
    /// That nobody has met.
    const NEW: Self = Self { actors: [0; WAYS], seen: [0; WAYS], row: 0 };

    /// Actors other than the only one of the set; all if it has several, none if it is empty.
    const fn others(set: u16) -> u16 {
        match set.count_ones() {
            0 => 0,
            1 => !set,
            _ => u16::MAX,
        }
    }
    /// Actors whose accesses of that way conflict with somebody else's.
    pub fn noticed(self, way: Way) -> u16 {
        Self::others(way.against().iter().fold(0, |all, w| all | self.actors[*w as usize]))
    }
    /// An access was taken for invisible that is not.
    pub fn invalidated(self) -> bool {
        Way::ALL.iter().any(|w| self.actors[*w as usize] & self.noticed(*w) & !self.seen[*w as usize] != 0)
    }
    pub fn is_shared(self) -> bool {
        self.seen != [0; WAYS]
    }
    pub fn changers(self) -> u16 {
        self.actors[Way::Write as usize] | self.actors[Way::CommutingUpdate as usize]
    }
}

/// Locations of a page: 16 KiB of memory.
const PAGE: usize = 1024;

#[derive(Clone, Default)]
pub(super) struct Locations {
    pages: Vec<Option<Box<[Location; PAGE]>>>,
}

impl Locations {
    #[inline]
    pub fn get(&self, location: usize) -> Location {
        match self.pages.get(location / PAGE) {
            Some(Some(page)) => page[location % PAGE],
            _ => Location::NEW,
        }
    }

    #[inline]
    pub fn get_mut(&mut self, location: usize) -> &mut Location {
        let number = location / PAGE;
        if self.pages.get(number).is_none_or(Option::is_none) {
            self.make(number);
        }
        match &mut self.pages[number] {
            Some(page) => &mut page[location % PAGE],
            None => unreachable!("made above"),
        }
    }

    #[cold]
    fn make(&mut self, number: usize) {
        if number >= self.pages.len() {
            self.pages.resize(number + 1, None);
        }
        self.pages[number] = Some(Box::new([Location::NEW; PAGE]));
    }

    /// Those that were met, and some beside them.
    pub fn met(&self) -> impl Iterator<Item = (u32, Location)> + '_ {
        let pages = self.pages.iter().enumerate().filter_map(|(number, page)| Some((number, page.as_ref()?)));
        pages.flat_map(|(number, page)| {
            page.iter().enumerate().map(move |(at, location)| ((number * PAGE + at) as u32, *location))
        })
    }
}
