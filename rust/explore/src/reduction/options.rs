//! Which reductions are on, and the faults that can be seeded into them.

/// How much runs without a scheduling point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fusion {
    /// Only local operations.
    Local,
    /// Also invisible ones: those that miss every location known to be shared.
    Invisible,
}

/// Which reductions are on. All on is the product; the others are there to check it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reduction {
    pub cache: bool,
    pub sleep: bool,
    pub fusion: Fusion,
    /// Tell finished actors' histories apart (to compare complete final states); verdicts do not need it.
    pub keep_finished: bool,
    /// Ask the model's over-approximation first (`Model::over_approximate`).
    pub over_approximate: bool,
    /// Forget what was observed on the way to an outcome (`Cpu::conclude`).
    pub abstract_observations: bool,
    #[doc(hidden)]
    pub fault: Fault,
}

impl Reduction {
    const fn new(cache: bool, sleep: bool, fusion: Fusion) -> Self {
        Self {
            cache,
            sleep,
            fusion,
            over_approximate: false,
            keep_finished: false,
            abstract_observations: true,
            fault: Fault::None,
        }
    }
    pub const NAIVE: Self = Self::new(false, false, Fusion::Local);
    pub const CACHE: Self = Self::new(true, false, Fusion::Local);
    pub const SLEEP: Self = Self::new(false, true, Fusion::Local);
    pub const CACHE_SLEEP: Self = Self::new(true, true, Fusion::Local);
    /// All but the over-approximation: each state visited is one of the model.
    pub const MERGED: Self = Self::new(true, true, Fusion::Invisible);
    pub const PRODUCT: Self = Self { over_approximate: true, ..Self::MERGED };
    pub const ALL: [Self; 5] = [Self::NAIVE, Self::CACHE, Self::SLEEP, Self::CACHE_SLEEP, Self::MERGED];
}

impl Default for Reduction {
    fn default() -> Self {
        Self::PRODUCT
    }
}

/// Seeded faults of the reduction, for the tests that show the tests would notice.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fault {
    #[default]
    None,
    SleepNotFiltered,
    NoFixpoint,
    HashWithoutValues,
    /// Who goes on longer than an iteration assumed ends no iteration.
    BrokenAssumptionUnnoticed,
    /// Readers of a lock are taken to keep each other out.
    ReadersExclude,
    /// An actor that is about to take a lock is taken to hold it.
    HoldsWhatItTakes,
    /// What goes wrong in the over-approximation is taken to go wrong in the model.
    Unconfirmed,
    /// An outcome is forgotten with what led to it.
    OutcomeForgotten,
    /// No fault: nothing is learned before the search.
    NoWarmUp,
}
