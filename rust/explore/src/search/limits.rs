//! When a search is to give up.

use std::time::{Duration, Instant};

use crate::search::report::Progress;

/// When to give up, and whom to report to.
pub struct Limits<'a> {
    pub executions: u64,
    pub deadline: Option<Instant>,
    /// Work (`Inner::work`) of the runner in all, at which to stop.
    pub work: u64,
    /// How much longer to look once an invariant that ends executions has been violated: time, if it is limited, and
    /// work. Work is the same on every host, and so is what is found with it.
    pub settle: Option<Duration>,
    pub settle_work: u64,
    /// States kept at most (about 24 bytes each).
    pub states: usize,
    /// Polled about every 20 ms.
    pub stop: &'a dyn Fn() -> bool,
    pub progress: &'a mut dyn FnMut(Progress),
}

/// What a search has come to that may give way to one of the over-approximation.
pub(crate) struct OverApproximated {
    /// Work of the runner when it began, and at which to look next.
    pub begun: u64,
    pub due: u64,
    /// States with a choice, and those of them in which somebody might do what has fewer conflicts there.
    pub points: u64,
    pub concerned: u64,
}

/// Looks at the time only now and then.
pub(crate) struct Clock {
    ticks: u32,
    last: Instant,
}

impl Clock {
    const EVERY: Duration = Duration::from_millis(20);

    pub(crate) fn new() -> Self {
        Self { ticks: 0, last: Instant::now() }
    }
    /// The time, if about 20 ms have passed since it last answered.
    pub(crate) fn tick(&mut self) -> Option<Instant> {
        self.ticks += 1;
        if !self.ticks.is_multiple_of(16) {
            return None;
        }
        let now = Instant::now();
        if now - self.last < Self::EVERY {
            return None;
        }
        self.last = now;
        Some(now)
    }
}
