//! Sleep sets: who need not go after a choice, since what begins with it was searched in another order.

use crate::model::Footprint;

/// Of the candidates, those whose operation does not conflict with the one that was chosen.
///
/// `own`: what the chosen operation touches; `other`: a buffer; `footprint`: what the pending operation of an actor
/// touches.
pub(crate) fn independent(
    candidates: u16,
    actors: usize,
    own: &Footprint,
    other: &mut Footprint,
    footprint: impl Fn(usize, &mut Footprint),
) -> u16 {
    let mut sleep = 0;
    for actor in 0..actors {
        if candidates & 1 << actor != 0 {
            footprint(actor, other);
            if !own.conflicts(other) {
                sleep |= 1 << actor;
            }
        }
    }
    sleep
}
