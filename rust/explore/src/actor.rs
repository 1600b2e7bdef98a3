//! One actor of an execution: what it has done and observed, and how far it is.

use crate::model::{Described, Invariants};

/// Seeded faults of the reduction, for the tests that show the tests would notice.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fault {
    #[default]
    None,
    SleepNotFiltered,
    NoFixpoint,
    HashWithoutValues,
    /// Who goes on longer than a round relied on ends no round.
    LongerUnnoticed,
    /// Readers of a lock are taken to keep each other out.
    ReadersExclude,
    /// An outcome is forgotten with what led to it.
    OutcomeForgotten,
    /// No fault: nothing is learned before the search.
    Unrehearsed,
}

/// What one actor has done so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActorState<O> {
    pub announced: Option<O>,
    pub finished: bool,
    /// Rolling hash of every value observed since the last boundary.
    pub hash: u128,
    /// The same since the start of the execution.
    pub history: u128,
    /// `history` after the operation announced last.
    pub marked: u128,
    pub steps: u32,
    pub label: &'static str,
    /// Name of the kernel operation it is in, by position.
    pub position: u32,
    /// Does the same for ever.
    pub recurring: bool,
    /// Since the operation announced last: met nothing that others ever do.
    pub aloof: bool,
    /// Announced what could have executed at once.
    pub pauses: bool,
    /// What else its future depends on: the operations before this one, as far as they decide which come later.
    pub past: u32,
}

impl<O> ActorState<O> {
    /// How far it is: never less later on, and a function of what its future depends on.
    pub(crate) fn phase(&self) -> u32 {
        match () {
            () if self.finished => phase::FINISHED,
            () if self.recurring => phase::LAST,
            () => phase::of(self.position),
        }
    }
    pub const fn new() -> Self {
        Self {
            announced: None,
            finished: false,
            hash: 1,
            history: 1,
            marked: 1,
            steps: 0,
            label: "",
            position: 0,

            recurring: false,
            aloof: true,
            pauses: false,
            past: 0,
        }
    }
}

/// How far an actor is: in the kernel operation of that position, counted from 1.
pub(crate) mod phase {
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
}

pub(crate) const FINISHED: u128 = 0x6a09_e667_f3bc_c908_bb67_ae85_84ca_a73b;

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    wide as u64 ^ (wide >> 64) as u64
}

#[inline]
pub(crate) fn roll(hash: u128, value: u64) -> u128 {
    let low = fold(hash as u64 ^ value, 0x9e37_79b9_7f4a_7c15).wrapping_add(0x2545_f491_4f6c_dd1d);
    let high = fold((hash >> 64) as u64 ^ value.rotate_left(29), 0xd6e8_feb8_6659_fd93).wrapping_add(0xa076_1d64_78bd_642f);
    u128::from(high) << 64 | u128::from(low)
}

/// An actor's hash at its own place in the key, so that two actors never cancel out.
#[inline]
pub(crate) fn place(hash: u128, actor: u64) -> u128 {
    roll(roll(hash, actor.wrapping_add(1).wrapping_mul(0xe703_7ed1_a0b4_28db)), 0)
}

/// One executed operation, as recorded for a trace.
#[derive(Clone, Debug)]
pub struct Step {
    pub actor: u8,
    pub outcome: u16,
    pub label: &'static str,
    pub position: u32,
    pub private: bool,
    pub local: bool,
    pub text: Described,
    /// The alternative taken, in words, unless it was the first.
    pub taken: Option<String>,
    /// Violations that this step added.
    pub broke: Invariants,
    /// Hash of the actor's observations after the step.
    pub observed: u128,
}
