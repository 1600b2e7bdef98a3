//! What a CPU has observed, and what of it matters once some work is done (`Cpu::conclude`).

use crate::address::Va;

/// What `Cpu::concluding` may return: two outcomes with the same bits are the same.
pub trait Outcome {
    fn bits(&self) -> u64;
}

impl Outcome for () {
    fn bits(&self) -> u64 {
        0
    }
}

impl Outcome for bool {
    fn bits(&self) -> u64 {
        u64::from(*self)
    }
}

impl Outcome for u8 {
    fn bits(&self) -> u64 {
        u64::from(*self)
    }
}

impl Outcome for Va {
    fn bits(&self) -> u64 {
        self.0
    }
}

impl<T: Outcome, E: Outcome> Outcome for Result<T, E> {
    fn bits(&self) -> u64 {
        match self {
            Ok(it) => it.bits() << 1,
            Err(error) => error.bits() << 1 | 1,
        }
    }
}

/// All that a CPU has observed up to some point, as a hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Observed(pub u128);
