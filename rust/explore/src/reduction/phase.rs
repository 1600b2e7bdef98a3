//! How far an actor is: in the kernel operation of that position, counted from 1.

pub const NEVER: u32 = 0;
pub const FINISHED: u32 = u32::MAX;
pub const LAST: u32 = u32::MAX - 1;

pub const fn of(position: u32) -> u32 {
    if position < LAST { position + 1 } else { LAST }
}

/// The same operation of the last round, in a program of so many positions and rounds.
pub const fn again(now: u32, (positions, rounds): (u32, u32)) -> u32 {
    if positions == 0 || now == NEVER || now > positions.saturating_mul(rounds) {
        return now;
    }
    positions.saturating_mul(rounds - 1).saturating_add((now - 1) % positions + 1)
}
