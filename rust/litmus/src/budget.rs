//! How long a search may go on.

use std::time::{Duration, Instant};

/// Steps, seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Budget {
    Steps(u64),
    Time(Duration),
}

/// What is left of it.
pub struct Left<'a> {
    budget: Budget,
    begun: Instant,
    pub steps: u64,
    stop: &'a dyn Fn() -> bool,
}

impl<'a> Left<'a> {
    #[must_use]
    pub fn new(budget: Budget, stop: &'a dyn Fn() -> bool) -> Self {
        Self { budget, begun: Instant::now(), steps: 0, stop }
    }
    /// One more step, if it may be made.
    pub fn step(&mut self) -> bool {
        self.steps += 1;
        match self.budget {
            Budget::Steps(n) if self.steps > n => return false,
            // The clock costs more than a step.
            Budget::Time(limit) if self.steps.is_multiple_of(256) && self.begun.elapsed() > limit => return false,
            _ => {}
        }
        !(self.steps.is_multiple_of(256) && (self.stop)())
    }
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }
}
