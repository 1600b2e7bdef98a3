//! Locks that were taken in both orders.

use serde::Serialize;

use crate::model::Model;
use crate::runtime::execution::Actors;
use crate::runtime::runner::Runner;

/// Two locks taken in both orders. Whether actors can meet so that each holds one and waits for the other is for the
/// search to find (I25); where it did not, a lock that both hold, or these actors, may be why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Inversion {
    pub locks: [&'static str; 2],
    /// Who was first seen to take the second under the first, and the first under the second.
    pub actors: [String; 2],
    /// The kernel functions in which they did.
    pub places: [&'static str; 2],
}

/// The pairs of locks that were taken in both orders.
pub(crate) fn inversions<M: Model, A: Actors<M>>(runner: &Runner<'_, M, A>) -> Vec<Inversion> {
    let orders = &runner.inner().lock_orders;
    let name = |actor: u8| runner.actors().name(usize::from(actor)).to_owned();
    let mut pairs: Vec<Inversion> = Vec::new();
    for (i, (one, here)) in orders.iter().enumerate() {
        if let Some((two, there)) = orders[..i].iter().find(|(o, _)| (o.held, o.taken) == (one.taken, one.held)) {
            let (locks, actors) = ([two.held.name(), two.taken.name()], [name(two.actor), name(one.actor)]);
            pairs.push(Inversion { locks, actors, places: [*there, *here] });
        }
    }
    pairs
}
