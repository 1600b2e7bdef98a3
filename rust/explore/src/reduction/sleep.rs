//! Sleep sets: who need not go after a choice, since what begins with it was searched in another order.

use crate::model::AccessSet;

/// Of the candidates, those whose operation does not conflict with the one that was chosen.
///
/// `own`: what the chosen operation touches; `other`: a buffer; `access_set`: what the pending operation of an actor
/// touches.
pub(crate) fn independent(
    candidates: u16,
    actors: usize,
    own: &AccessSet,
    other: &mut AccessSet,
    access_set: impl Fn(usize, &mut AccessSet),
) -> u16 {
    let mut sleep = 0;
    for actor in 0..actors {
        if candidates & 1 << actor != 0 {
            access_set(actor, other);
            if !own.conflicts(other) {
                sleep |= 1 << actor;
            }
        }
    }
    sleep
}
