//! The cells (and locations) that every machine has, and what each stands for.

use vmemmap_arch::{Invariant, LockId};

use super::cells::{ASIDE, Cell, Cells};
use super::location::LocationKind;
use super::place::MAX_ACTORS;
use super::waiting::STORE_BUFFER;

/// Cells (and locations) that every machine has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fixed {
    pub locks: Cell,
    pub context: Cell,
    pub cpu: Cell,
    pub rcu: Cell,
    pub snapshot: Cell,
    pub pause: Cell,
    pub stable: Cell,
    pub exclusive: Cell,
    pub failures: Cell,
    pub broken: Cell,
    /// Locations only.
    pub runs: Cell,
    pub maintenance: Cell,
    pub self_hosted: Cell,
    pub rcu_state: Cell,
    /// Of each actor: the locks that it holds, and those of them that it holds alone (`World::locks`).
    pub held: Cell,
    /// Where a DSB makes something known to later invalidates.
    pub stale: Cell,
    pub gone: Cell,
    pub vars: Cell,
    /// Of each CPU: the stores that wait, the oldest first.
    pub buffers: Cell,
}

impl Fixed {
    /// The cells of a machine with so many variables. Their order is part of every state's hash.
    pub fn reserve(c: &mut Cells, vars: usize) -> Self {
        let actors = usize::from(MAX_ACTORS);
        Self {
            locks: c.reserve(2 * LockId::COUNT),
            context: c.reserve(actors),
            cpu: c.reserve(actors),
            rcu: c.reserve(actors),
            snapshot: c.reserve(actors),
            pause: c.reserve(1),
            stable: c.reserve(1),
            exclusive: c.reserve(Invariant::ALL.len() + 1),
            failures: c.reserve(1),
            broken: c.reserve(1),
            runs: c.reserve(1),
            maintenance: c.reserve(actors),
            self_hosted: c.reserve(1),
            rcu_state: c.reserve(1),
            held: c.reserve(2 * actors),
            stale: c.reserve(2 * ASIDE as usize + 1) + ASIDE,
            gone: c.reserve(1),
            vars: c.reserve(vars),
            buffers: c.reserve(actors * usize::from(STORE_BUFFER)),
        }
    }

    /// First and number of the cells of each field, and what they are.
    pub fn rows(&self, vars: usize) -> [(Cell, usize, LocationKind); 19] {
        let actors = usize::from(MAX_ACTORS);
        [
            (self.locks, 2 * LockId::COUNT, LocationKind::Lock),
            (self.context, actors, LocationKind::Context),
            (self.cpu, actors, LocationKind::Context),
            (self.rcu, actors, LocationKind::Rcu),
            (self.snapshot, actors, LocationKind::Rcu),
            (self.pause, 1, LocationKind::Pause),
            (self.stable, 1, LocationKind::Promise),
            (self.exclusive, Invariant::ALL.len() + 1, LocationKind::Promise),
            (self.failures, 1, LocationKind::Failures),
            (self.broken, 1, LocationKind::Other),
            (self.runs, 1, LocationKind::Runs),
            (self.maintenance, actors, LocationKind::Other),
            (self.self_hosted, 1, LocationKind::Runs),
            (self.rcu_state, 1, LocationKind::Rcu),
            (self.held, 2 * actors, LocationKind::Other),
            (self.stale, 1, LocationKind::Stale),
            (self.gone, 1, LocationKind::Other),
            (self.vars, vars, LocationKind::Var),
            (self.buffers, actors * usize::from(STORE_BUFFER), LocationKind::Buffer),
        ]
    }

    /// What a location stands for, if it is one of these.
    pub fn kind_of(&self, location: Cell, vars: usize) -> Option<LocationKind> {
        self.rows(vars)
            .into_iter()
            .find(|(first, n, _)| location >= *first && location - first < *n as Cell)
            .map(|(_, _, kind)| kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever adds a field, or reserves it elsewhere, adds it to the rows: each cell but those aside is in one of
    /// them.
    #[test]
    fn each_reserved_cell_is_in_exactly_one_row() {
        for vars in [0, 1, 100] {
            let mut cells = Cells::default();
            let fixed = Fixed::reserve(&mut cells, vars);
            let end = cells.reserve(1);
            let rows = fixed.rows(vars);
            let mut aside = 0;
            for cell in 0..end {
                let holders = rows.iter().filter(|(first, n, _)| (*first..first + *n as Cell).contains(&cell)).count();
                assert!(holders <= 1, "cell {cell} is in {holders} rows");
                let row = rows.iter().find(|(first, n, _)| (*first..first + *n as Cell).contains(&cell));
                assert_eq!(fixed.kind_of(cell, vars), row.map(|(_, _, kind)| *kind), "cell {cell}");
                aside += Cell::from(holders == 0);
            }
            assert_eq!(aside, 2 * ASIDE);
            assert!(rows.iter().all(|(first, n, _)| first + *n as Cell <= end));
        }
    }
}
