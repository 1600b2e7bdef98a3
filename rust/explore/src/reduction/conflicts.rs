//! Which accesses conflict, learned from the executions run: transition fusion and singleton persistent sets rest on
//! it.
//!
//! An access of one actor is *independent* of what another can still do if at its location the two never conflict
//! (`Way::against`), if the other is past its last access that does, or if it makes each of those under a lock that the
//! first holds. All three are assumptions, taken from earlier executions when a fixpoint iteration begins.
//!
//! Theorem: an iteration that ends without an execution in which an assumption failed has lost no behaviour up to
//! commutation. For suppose that one is lost: follow it along the executions that were run for as long as it commutes
//! into one of them. The first access of it that conflicts with one taken for independent comes in a state that was
//! visited, where its actor's pending operation was looked at: so its location was learned, and the assumption failed.
//!
//! The intuition: the first access that would prove an assumption wrong is itself explored. To know of more accesses
//! than there are is always sound; it costs scheduling points.

use std::ops::Range;

use crate::model::{Access, AccessSet, Held, MAX_ACTORS, Touched};
use crate::reduction::locations::{Locations, WAYS, Way};
use crate::reduction::options::Fault;
use crate::reduction::phase;

/// All that is known of one actor's accesses to one location.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Uses {
    /// Phase of the last access, by `Way`.
    last: [u32; WAYS],
    /// Locks held at all accesses, by `Way`.
    held: [Held; WAYS],
}

impl Uses {
    const NONE: Self = Self { last: [phase::NEVER; WAYS], held: [Held::ALL; WAYS] };

    /// Takes what is known of another location to hold for this one too, but for ways of which that would give up locks
    /// that are held here.
    fn resemble(&mut self, other: Self, touches: impl Fn(usize) -> bool) {
        for w in (0..WAYS).filter(|w| touches(*w)) {
            let both = self.held[w].and(other.held[w]);
            if self.held[w] == Held::ALL || both == self.held[w] {
                (self.last[w], self.held[w]) = (self.last[w].max(other.last[w]), both);
            }
        }
    }

    /// Whether an access by somebody who holds these locks meets none of them any more, the actor being in phase `now`.
    fn is_past(self, way: Way, now: u32, held: Held) -> bool {
        way.against().iter().map(|w| *w as usize).all(|w| now > self.last[w] || held.excludes(self.held[w]))
    }
}

/// An access of the operation looked at last to a location that is shared.
#[derive(Clone, Copy, Debug)]
struct Met {
    location: u32,
    way: Way,
    /// No enabledness read, and it conflicts with somebody else's accesses.
    noticed: bool,
}

/// Who took an access for invisible though the location is shared, in this iteration.
#[derive(Clone, Copy, Debug, Default)]
struct Assumed {
    actors: [u16; WAYS],
    /// Who went on longer.
    broken: u16,
}

/// What is known of all locations, and what this iteration goes by.
///
/// All of it is learned from the executions run. What an iteration assumed and what turns out not to be so ends the
/// iteration; the last iteration has assumed nothing that is not so in any of its executions.
#[derive(Clone, Default)]
pub(crate) struct Sharing {
    locations: Locations,
    /// Locations where an access that this iteration took for invisible conflicts: invalidated assumptions.
    invalidated: Vec<u32>,
    /// Of each actor and shared location (`Location::row`): what is known, and what was known when the iteration began.
    known: Vec<Uses>,
    taken: Vec<Uses>,
    assumed: Vec<Assumed>,
    /// The shared locations, by row.
    shared: Vec<u32>,
    /// Where an actor makes accesses longer than this iteration assumed: invalidated assumptions.
    broken: Vec<(u32, u8)>,
    /// More is known than is taken.
    learned: bool,
    actors: usize,
    met: Vec<Met>,
    /// Actors and rows of locations, not shared in this iteration, that each is known to read.
    no_op_reads: Vec<(u8, Range<u32>)>,
    pub fault: Fault,
}

impl Sharing {
    pub fn actors(&self) -> usize {
        self.actors
    }

    pub fn grew(&self) -> bool {
        (!self.broken.is_empty() && self.fault != Fault::BrokenAssumptionUnnoticed) || !self.invalidated.is_empty()
    }

    /// Takes in the accesses of an operation. `false` if none is to a location that is shared in this iteration: the
    /// operation is independent of all others, whenever it executes.
    pub fn learn(&mut self, actor: u8, access_set: &AccessSet) -> bool {
        let me = 1u16 << actor;
        self.met.clear();
        for Touched { location, access } in access_set.iter() {
            let way = Way::of(access);
            let mut entry = self.locations.get(location as usize);
            if entry.actors[way as usize] & me == 0 {
                entry.actors[way as usize] |= me;
                *self.locations.get_mut(location as usize) = entry;
                if entry.invalidated() {
                    self.invalidated.push(location);
                }
            }
            if entry.row != 0 {
                let noticed = access != Access::EnablednessRead && entry.seen[way as usize] & me != 0;
                self.met.push(Met { location, way, noticed });
            }
        }
        !self.met.is_empty()
    }

    /// How many reads of these locations, up to the first that is shared, are independent of all other operations,
    /// whenever they execute.
    pub fn no_op_reads(&mut self, actor: u8, found: Range<u32>) -> usize {
        let mut at = found.start;
        while at < found.end {
            let known = self.no_op_reads.iter().find(|(a, known)| *a == actor && known.contains(&at));
            if let Some((_, known)) = known {
                at = known.end.min(found.end);
                continue;
            }
            let from = at;
            while at < found.end && self.locations.get(at as usize).row == 0 {
                let entry = self.locations.get_mut(at as usize);
                entry.actors[Way::Read as usize] |= 1 << actor;
                if entry.invalidated() {
                    self.invalidated.push(at);
                }
                at += 1;
            }
            if at == from {
                break;
            }
            self.no_op_reads.push((actor, from..at));
        }
        (at - found.start) as usize
    }

    /// Whether the operation learned last conflicts with accesses of others at other times.
    pub fn was_noticed(&self) -> bool {
        self.met.iter().any(|m| m.noticed)
    }

    /// Whether the operation learned last met no shared location.
    pub fn met_nobody(&self) -> bool {
        self.met.is_empty()
    }

    /// Whether nobody else can conflict with the operation learned last any more, or not before this actor has moved:
    /// all others are past their last access that could, or make each under a lock that the actor holds.
    ///
    /// Both stay so until the actor moves: phases only grow, and whoever needs the lock waits for it.
    ///
    /// `held` now; `at_it`, with the lock that the operation itself waits for. Who takes a lock makes that access under
    /// it, too: while it is held, nobody can. So giving it back is independent of all those who wait for it (Lipton's
    /// left mover), and taking it is not: it is not held before.
    pub fn is_independent(&mut self, actor: u8, held: Held, at_it: Held, phases: &[u32; MAX_ACTORS]) -> bool {
        let me = usize::from(actor);
        let keeps_out = if self.fault == Fault::ReadersExclude { Held { alone: held.any, ..held } } else { held };
        let mut independent = true;
        for i in 0..self.met.len() {
            let Met { location, way, noticed } = self.met[i];
            let row = self.row(location);
            if noticed && independent {
                let others = (0..self.actors).filter(|a| *a != me);
                independent =
                    others.map(|a| (phases[a], self.taken[row + a])).all(|(now, u)| u.is_past(way, now, keeps_out));
            }
            self.note(location, actor, way, phases[me], at_it);
        }
        if independent {
            for i in 0..self.met.len() {
                let Met { location, way, noticed } = self.met[i];
                if noticed {
                    let row = self.row(location);
                    // What became known since the iteration began counts from the next one on.
                    for other in (0..self.actors).filter(|a| *a != me) {
                        if !self.known[row + other].is_past(way, phases[other], keeps_out) {
                            self.break_assumption(location, other as u8);
                        }
                    }
                    let row = self.shared_row(location);
                    let assumed = &mut self.assumed[row];
                    assumed.actors[way as usize] |= 1 << actor;
                }
            }
        }
        independent
    }

    /// What a worker that began with a copy of this learned on its own: whether it makes wrong what another, which
    /// began so too, assumed on its own. Each has looked at its own.
    pub fn surprises(&self, learned: &Self, assumed: &Self) -> bool {
        let new = |at: usize, w: usize| {
            let (now, before, taken) = (learned.known[at], self.known[at], self.taken[at]);
            let more = |than: Uses| now.last[w] > than.last[w] || now.held[w].and(than.held[w]) != than.held[w];
            more(before) && more(taken)
        };
        let rows = assumed.assumed.iter().enumerate();
        rows.filter(|(_, a)| a.actors != [0; WAYS]).any(|(row, a)| {
            (0..self.actors).any(|actor| {
                Way::ALL.into_iter().filter(|w| new(row * self.actors + actor, *w as usize)).any(|w| {
                    let conflicting = w.against().iter().fold(0, |all, w| all | a.actors[*w as usize]);
                    conflicting & !(1 << actor) != 0
                })
            })
        })
    }

    /// Takes in what a worker learned that began with a copy of this. Then `grew` says whether all together know of an
    /// access that was taken for invisible.
    pub fn merge(&mut self, other: &Self) {
        for (location, theirs) in other.locations.met() {
            let own = self.locations.get_mut(location as usize);
            for (own, theirs) in own.actors.iter_mut().zip(theirs.actors) {
                *own |= theirs;
            }
            if own.invalidated() {
                self.invalidated.push(location);
            }
        }
        for (own, theirs) in self.known.iter_mut().zip(&other.known) {
            for w in 0..WAYS {
                own.last[w] = own.last[w].max(theirs.last[w]);
                own.held[w] = own.held[w].and(theirs.held[w]);
            }
        }
        for (own, theirs) in self.assumed.iter_mut().zip(&other.assumed) {
            for (own, theirs) in own.actors.iter_mut().zip(theirs.actors) {
                *own |= theirs;
            }
        }
        self.learned |= other.learned;
    }

    /// Number of a shared location among those.
    fn shared_row(&self, location: u32) -> usize {
        self.locations.get(location as usize).row as usize - 1
    }

    fn row(&self, location: u32) -> usize {
        self.shared_row(location) * self.actors
    }

    fn note(&mut self, location: u32, actor: u8, way: Way, now: u32, held: Held) {
        let row = self.row(location);
        let uses = &mut self.known[row + usize::from(actor)];
        let last = &mut uses.last[way as usize];
        let both = uses.held[way as usize].and(held);
        if *last >= now && both == uses.held[way as usize] {
            return;
        }
        *last = now.max(*last);
        uses.held[way as usize] = both;
        let taken = self.taken[row + usize::from(actor)];
        if (0..WAYS).all(|w| uses.last[w] <= taken.last[w]) && uses.held == taken.held {
            return;
        }
        self.learned = true;
        let assumed = self.assumed[self.shared_row(location)];
        let conflicting = way.against().iter().fold(0, |all, w| all | assumed.actors[*w as usize]);
        if conflicting & !(1 << actor) != 0 {
            self.break_assumption(location, actor);
        }
    }

    fn break_assumption(&mut self, location: u32, actor: u8) {
        let row = self.shared_row(location);
        let assumed = &mut self.assumed[row];
        if assumed.broken & 1 << actor == 0 {
            assumed.broken |= 1 << actor;
            self.broken.push((location, actor));
        }
    }

    /// Takes what has been learned into account from now on. `true` if something had that matters.
    ///
    /// `always`: also what nothing assumed.
    ///
    /// `again`: the phase in which an actor does for the last time what it does in this one. `alias`: a location that
    /// whoever touches this one in a way that matters touches too, or might.
    pub fn adopt(
        &mut self,
        actors: usize,
        always: bool,
        again: impl Fn(usize, u32) -> u32,
        alias: impl Fn(u32) -> Option<u32>,
    ) -> bool {
        self.actors = actors;
        let due = self.grew() || (always && self.learned);
        if !due {
            return false;
        }
        let rows = self.shared.len();
        let mut new = std::mem::take(&mut self.invalidated);
        // In order: rows are extended from their beginning.
        new.sort_unstable();
        for index in new.iter().map(|location| *location as usize) {
            let location = self.locations.get_mut(index);
            if location.invalidated() {
                let fresh = !location.is_shared();
                location.seen = Way::ALL.map(|w| location.seen[w as usize] | location.noticed(w));
                if fresh {
                    self.give_row(index);
                    for neighbour in extend_row(&mut self.locations, index) {
                        self.give_row(neighbour);
                    }
                }
            }
        }
        self.expect_as_nearby(rows);
        let broken = std::mem::take(&mut self.broken);
        for (location, actor) in broken {
            self.spread(location as usize, usize::from(actor), &again);
        }
        for row in 0..self.shared.len() {
            let Some(alias) = alias(self.shared[row]).and_then(|k| self.locations.get(k as usize).row.checked_sub(1))
            else {
                continue;
            };
            for actor in 0..actors {
                let uses = self.known[alias as usize * actors + actor];
                self.known[row * actors + actor].resemble(uses, |_| true);
            }
        }
        self.taken.clone_from(&self.known);
        self.learned = false;
        self.assumed.fill(Assumed::default());
        self.no_op_reads.clear();
        true
    }

    /// Who is known to do something in two rounds of its program is taken to do it in all. And the entries of a
    /// hugepage, their frames and stale values follow each other; each iteration would learn of one more. So what is
    /// known of one such location is taken to hold for those around that the same actors change. To know of more
    /// accesses than there are is always sound.
    fn spread(&mut self, at: usize, actor: usize, again: impl Fn(usize, u32) -> u32) {
        let own = self.row(at as u32) + actor;
        let before = self.taken.get(own).map_or([phase::NEVER; WAYS], |u| u.last);
        let uses = &mut self.known[own];
        for (last, before) in uses.last.iter_mut().zip(before) {
            if before != phase::NEVER && *last > before {
                *last = again(actor, *last);
            }
        }
        let uses = *uses;
        let around = at.saturating_sub(AROUND)..at + AROUND;
        let changers = self.locations.get(at).changers();
        for location in around.map(|i| self.locations.get(i)).filter(|l| l.row != 0 && l.changers() == changers) {
            self.known[(location.row as usize - 1) * self.actors + actor]
                .resemble(uses, |w| location.actors[w] & 1 << actor != 0);
        }
    }

    /// Of the locations that have just become shared, those of the rows from this one on, nothing is known but who
    /// touched them: how long each actor goes on to would be learned in an iteration for each. So what is known of
    /// locations nearby that the same actors change is taken to hold for them.
    fn expect_as_nearby(&mut self, from: usize) {
        let around = STRIDE.unsigned_abs();
        for row in from..self.shared.len() {
            let at = self.shared[row] as usize;
            let location = self.locations.get(at);
            for near in at.saturating_sub(around)..at + around {
                let other = self.locations.get(near);
                if other.changers() != location.changers() || !(1..=from).contains(&(other.row as usize)) {
                    continue;
                }
                for actor in 0..self.actors {
                    let uses = self.known[(other.row as usize - 1) * self.actors + actor];
                    self.known[row * self.actors + actor].resemble(uses, |w| location.actors[w] & 1 << actor != 0);
                }
            }
        }
    }

    fn give_row(&mut self, index: usize) {
        if self.locations.get(index).row == 0 {
            self.assumed.push(Assumed::default());
            self.shared.push(index as u32);
            self.locations.get_mut(index).row = self.assumed.len() as u32;
            self.known.resize(self.known.len() + self.actors, Uses::NONE);
        }
    }
}

/// How far around a location `Sharing::spread` looks.
const AROUND: usize = 128;

/// Widest distance between the locations of neighbouring entries or frames of a model.
const STRIDE: isize = 16;

/// A scan meets the entries of a hugepage, and the frames they name, one after the other; each iteration would learn
/// one more. So where a location has just become shared and lies in an even row of such locations, the row is continued
/// by as many as it has. More scheduling points than needed are always sound.
fn extend_row(locations: &mut Locations, at: usize) -> Vec<usize> {
    let (changers, seen) = (locations.get(at).changers(), locations.get(at).seen);
    let place = |n: isize, stride: isize| at.checked_add_signed(n * stride);
    let known = |stride: isize| {
        (1isize..)
            .take_while(|n| {
                place(-n, stride).map(|i| locations.get(i)).is_some_and(|l| l.is_shared() && l.changers() == changers)
            })
            .count()
    };
    let strides = (1..=STRIDE).flat_map(|s| [s, -s]);
    let Some((length, stride)) = strides.map(|s| (known(s), s)).max_by_key(|(length, s)| (*length, -s.abs())) else {
        return Vec::new();
    };
    let row: Vec<usize> = (1..=length as isize)
        .map_while(|n| place(n, stride))
        .take_while(|i| locations.get(*i).changers() & changers != 0)
        .collect();
    for i in &row {
        let location = locations.get_mut(*i);
        location.seen = Way::ALL.map(|w| location.seen[w as usize] | seen[w as usize]);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two actors write `first` in their second operation, under no lock; then both come to `second` in their first.
    fn knows_of_the_second(first: u32, second: u32) -> u32 {
        let mut sharing = Sharing { actors: 2, ..Sharing::default() };
        let write = |sharing: &mut Sharing, location: u32, phase: u32| {
            for actor in 0..2 {
                let mut touched = AccessSet::default();
                touched.touch(location, Access::Write);
                if sharing.learn(actor, &touched) {
                    let phases = [phase; MAX_ACTORS];
                    sharing.is_independent(actor, Held::default(), Held::default(), &phases);
                }
            }
        };
        let adopt = |sharing: &mut Sharing| sharing.adopt(2, true, |_, now| now, |_| None);
        write(&mut sharing, first, 2);
        assert!(adopt(&mut sharing));
        write(&mut sharing, first, 2);
        assert!(adopt(&mut sharing));
        write(&mut sharing, second, 1);
        assert!(adopt(&mut sharing));
        sharing.taken[sharing.row(second)].last[Way::Write as usize]
    }

    /// Each iteration would learn of one actor and one operation more.
    #[test]
    fn what_becomes_shared_is_expected_to_be_used_for_as_long_as_what_lies_nearby() {
        assert_eq!(knows_of_the_second(1000, 1003), 2);
        assert_eq!(knows_of_the_second(1000, 990), 2);
        assert_eq!(knows_of_the_second(1000, 1017), phase::NEVER);
    }
}
