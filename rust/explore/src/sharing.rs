//! What is known of who touches a location, on which it rests that an access is private.

use std::ops::Range;

use crate::actor::{Fault, phase};
use crate::model::{Footprint, Held, MAX_ACTORS, Touched};

/// Who has touched a location, and whose accesses to it somebody else can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Location {
    pub readers: u16,
    pub writers: u16,
    /// Actors whose reads of it, whose writes to it, are scheduling points in this round.
    pub reads_seen: u16,
    pub writes_seen: u16,
    /// Its number among the shared ones, from 1.
    row: u32,
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

/// All that is known of one actor's accesses to one location.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Uses {
    /// Phases of the last read and of the last write.
    read: u32,
    write: u32,
    /// Locks held at each of them.
    held: Held,
}

impl Uses {
    const NONE: Self = Self { read: phase::NEVER, write: phase::NEVER, held: Held::ALL };

    fn join(&mut self, other: Self) {
        (self.read, self.write) = (self.read.max(other.read), self.write.max(other.write));
        self.held = self.held.and(other.held);
    }

    /// Whether a read (a write) by somebody who holds these locks meets none of them any more, the actor being in phase `now`.
    fn is_past(self, written: bool, now: u32, held: Held) -> bool {
        let last = if written { self.read.max(self.write) } else { self.write };
        now > last || held.excludes(self.held)
    }
}

/// An access of the operation looked at last to a location that is shared.
#[derive(Clone, Copy, Debug)]
struct Met {
    location: u32,
    written: bool,
    control: bool,
    noticed: bool,
}

/// Who took an access for private though the location is shared, in this round.
#[derive(Clone, Copy, Debug, Default)]
struct Relied {
    reads: u16,
    writes: u16,
    /// Who went on longer.
    outlasted: u16,
}

/// What is known of all locations, and what this round goes by.
///
/// All of it is learned from the executions run. What a round relied on and what turns out not to be so ends the round;
/// the last round has relied on nothing that is not so in any of its executions.
#[derive(Default)]
pub(crate) struct Sharing {
    locations: Vec<Location>,
    /// Where somebody can tell an access that this round took for private.
    outgrown: Vec<u32>,
    /// Of each actor and shared location (`Location::row`): what is known, and what was known when the round began.
    known: Vec<Uses>,
    taken: Vec<Uses>,
    relied: Vec<Relied>,
    /// Where an actor goes on longer than this round relied on.
    outlasted: Vec<(u32, u8)>,
    /// More is known than is taken.
    learned: bool,
    actors: usize,
    met: Vec<Met>,
    /// Actors and rows of locations, not shared in this round, that each is known to read.
    quiet: Vec<(u8, Range<u32>)>,
    pub fault: Fault,
}

impl Sharing {
    pub fn actors(&self) -> usize {
        self.actors
    }

    pub fn grew(&self) -> bool {
        (!self.outlasted.is_empty() && self.fault != Fault::LongerUnnoticed) || !self.outgrown.is_empty()
    }

    /// Takes in the accesses of an operation. `false` if nobody else can tell them, whenever they happen.
    pub fn learn(&mut self, actor: u8, footprint: &Footprint) -> bool {
        let me = 1u16 << actor;
        self.met.clear();
        for Touched { location, written, control } in footprint.iter() {
            let index = location as usize;
            if index >= self.locations.len() {
                self.locations.resize(index + 1, Location::default());
            }
            let entry = &mut self.locations[index];
            let (known, seen) = if written { (&mut entry.writers, entry.writes_seen) } else { (&mut entry.readers, entry.reads_seen) };
            let noticed = seen & me != 0;
            if *known & me == 0 {
                *known |= me;
                if entry.outgrown() {
                    self.outgrown.push(location);
                }
            }
            if entry.row != 0 {
                self.met.push(Met { location, written, control, noticed });
            }
        }
        !self.met.is_empty()
    }

    /// How many reads of these locations, up to the first that is shared, nobody else can tell, whenever they happen.
    pub fn quiet(&mut self, actor: u8, found: Range<u32>) -> usize {
        if let Some((_, known)) = self.quiet.iter().find(|(a, known)| *a == actor && known.contains(&found.start)) {
            return (found.end.min(known.end) - found.start) as usize;
        }
        let end = found.end as usize;
        if end > self.locations.len() {
            self.locations.resize(end, Location::default());
        }
        let mut quiet = found.start..found.start;
        for location in found {
            let entry = &mut self.locations[location as usize];
            if entry.row != 0 {
                break;
            }
            entry.readers |= 1 << actor;
            if entry.outgrown() {
                self.outgrown.push(location);
            }
            quiet.end += 1;
        }
        let skipped = quiet.len();
        if skipped != 0 {
            self.quiet.push((actor, quiet));
        }
        skipped
    }

    /// Whether somebody else can tell the operation learned last at other times.
    pub fn was_noticed(&self) -> bool {
        self.met.iter().any(|m| m.noticed && !m.control)
    }

    /// Whether the operation learned last met no shared location.
    pub fn met_nobody(&self) -> bool {
        self.met.is_empty()
    }

    /// Whether nobody else can conflict with the operation learned last any more, or not before this actor has moved: all
    /// others are past their last access that could, or make each under a lock that the actor holds.
    ///
    /// Both stay so until the actor moves: phases only grow, and whoever needs the lock waits for it.
    pub fn is_apart(&mut self, actor: u8, held: Held, phases: &[u32; MAX_ACTORS]) -> bool {
        let me = usize::from(actor);
        let keeps_out = if self.fault == Fault::ReadersExclude { Held { alone: held.any, ..held } } else { held };
        let mut apart = true;
        for i in 0..self.met.len() {
            let Met { location, written, control, noticed } = self.met[i];
            let row = self.row(location);
            if noticed && !control && apart {
                let others = (0..self.actors).filter(|a| *a != me);
                apart = others.map(|a| (phases[a], self.taken[row + a])).all(|(now, u)| u.is_past(written, now, keeps_out));
            }
            self.note(location, actor, written, phases[me], held);
        }
        if apart {
            for i in 0..self.met.len() {
                let Met { location, written, control, noticed } = self.met[i];
                if !control && noticed {
                    let row = self.row(location);
                    // What became known since the round began counts from the next one on.
                    for other in (0..self.actors).filter(|a| *a != me) {
                        if !self.known[row + other].is_past(written, phases[other], keeps_out) {
                            self.outlast(location, other as u8);
                        }
                    }
                    let relied = &mut self.relied[self.locations[location as usize].row as usize - 1];
                    *(if written { &mut relied.writes } else { &mut relied.reads }) |= 1 << actor;
                }
            }
        }
        apart
    }

    fn row(&self, location: u32) -> usize {
        (self.locations[location as usize].row as usize - 1) * self.actors
    }

    fn note(&mut self, location: u32, actor: u8, written: bool, now: u32, held: Held) {
        let row = self.row(location);
        let uses = &mut self.known[row + usize::from(actor)];
        let last = if written { &mut uses.write } else { &mut uses.read };
        let both = uses.held.and(held);
        if *last >= now && both == uses.held {
            return;
        }
        *last = now.max(*last);
        uses.held = both;
        let taken = self.taken[row + usize::from(actor)];
        let within = |known: u32, taken: u32| known <= taken;
        if within(uses.read, taken.read) && within(uses.write, taken.write) && both == taken.held {
            return;
        }
        self.learned = true;
        let relied = self.relied[self.locations[location as usize].row as usize - 1];
        let conflicting = if written { relied.reads | relied.writes } else { relied.writes };
        if conflicting & !(1 << actor) != 0 {
            self.outlast(location, actor);
        }
    }

    fn outlast(&mut self, location: u32, actor: u8) {
        let relied = &mut self.relied[self.locations[location as usize].row as usize - 1];
        if relied.outlasted & 1 << actor == 0 {
            relied.outlasted |= 1 << actor;
            self.outlasted.push((location, actor));
        }
    }

    /// Takes what has been learned into account from now on. `true` if something had that matters.
    ///
    /// `always`: also what nothing relied on.
    pub fn adopt(&mut self, actors: usize, always: bool) -> bool {
        self.actors = actors;
        let due = self.grew() || (always && self.learned);
        if !due {
            return false;
        }
        let mut new = std::mem::take(&mut self.outgrown);
        // In order: rows are extended from their beginning.
        new.sort_unstable();
        for index in new.iter().map(|location| *location as usize) {
            let location = &mut self.locations[index];
            if location.outgrown() {
                let fresh = !location.is_shared();
                location.reads_seen |= location.reads_noticed();
                location.writes_seen |= location.writes_noticed();
                if fresh {
                    self.give_row(index);
                    for neighbour in extend_row(&mut self.locations, index) {
                        self.give_row(neighbour);
                    }
                }
            }
        }
        let outlasted = std::mem::take(&mut self.outlasted);
        for (location, actor) in outlasted {
            self.spread(location as usize, usize::from(actor));
        }
        self.taken.clone_from(&self.known);
        self.learned = false;
        self.relied.fill(Relied::default());
        self.quiet.clear();
        true
    }

    /// The entries of a hugepage, their frames and stale values follow each other; each round would learn of one more. So what is
    /// known of one such location is taken to hold for those around that the same actors write. To know of more accesses than there are is
    /// always sound.
    fn spread(&mut self, at: usize, actor: usize) {
        let uses = self.known[(self.locations[at].row as usize - 1) * self.actors + actor];
        let around = at.saturating_sub(AROUND)..(at + AROUND).min(self.locations.len());
        for Location { row, writers, .. } in self.locations[around].iter().copied() {
            if row != 0 && writers == self.locations[at].writers {
                self.known[(row as usize - 1) * self.actors + actor].join(uses);
            }
        }
    }

    fn give_row(&mut self, index: usize) {
        if self.locations[index].row == 0 {
            self.relied.push(Relied::default());
            self.locations[index].row = self.relied.len() as u32;
            self.known.resize(self.known.len() + self.actors, Uses::NONE);
        }
    }
}

/// How far around a location `Sharing::spread` looks.
const AROUND: usize = 128;

/// Widest distance between the locations of neighbouring entries or frames of a model.
const STRIDE: isize = 16;

/// A scan meets the entries of a hugepage, and the frames they name, one after the other; each round would learn one more.
/// So where a location has just become shared and lies in an even row of such locations, the row is continued by as many
/// as it has. More scheduling points than needed are always sound.
fn extend_row(locations: &mut [Location], at: usize) -> Vec<usize> {
    let Location { writers, reads_seen, writes_seen, .. } = locations[at];
    let place = |n: isize, stride: isize| at.checked_add_signed(n * stride).filter(|i| *i < locations.len());
    let known = |stride: isize| {
        (1isize..).take_while(|n| place(-n, stride).is_some_and(|i| locations[i].is_shared() && locations[i].writers == writers)).count()
    };
    let strides = (1..=STRIDE).flat_map(|s| [s, -s]);
    let Some((length, stride)) = strides.map(|s| (known(s), s)).max_by_key(|(length, s)| (*length, -s.abs())) else { return Vec::new() };
    let row: Vec<usize> =
        (1..=length as isize).map_while(|n| place(n, stride)).take_while(|i| locations[*i].writers & writers != 0).collect();
    for i in &row {
        locations[*i].reads_seen |= reads_seen;
        locations[*i].writes_seen |= writes_seen;
    }
    row
}
