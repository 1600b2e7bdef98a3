//! Two sides measured in turns, and what is reported of the rounds.

use std::time::Instant;

use crate::{BenchError, Figure, Stop};

/// Seconds of the rounds of both sides; at least one each.
pub struct Rounds {
    value: Vec<f64>,
    limit: Vec<f64>,
}

/// Seconds that `work` takes.
pub fn timed<R>(work: impl FnOnce() -> R) -> f64 {
    let began = Instant::now();
    std::hint::black_box(work());
    began.elapsed().as_secs_f64()
}

fn least(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

impl Rounds {
    /// Run both sides `count` times in turns; each returns its seconds. Whoever goes first in one round goes last in
    /// the next, so that neither always finds the caches that the other left. A round before, of both, is not counted.
    ///
    /// # Errors
    /// `Stopped`, or the first of either side.
    pub fn of(
        count: usize,
        stop: Stop<'_>,
        mut value: impl FnMut() -> Result<f64, BenchError>,
        mut limit: impl FnMut() -> Result<f64, BenchError>,
    ) -> Result<Self, BenchError> {
        let (_, _) = (value()?, limit()?);
        let mut rounds = Self { value: Vec::with_capacity(count), limit: Vec::with_capacity(count) };
        for round in 0..count.max(1) {
            for side in [round % 2, 1 - round % 2] {
                if stop() {
                    return Err(BenchError::Stopped);
                }
                if side == 0 {
                    rounds.value.push(value()?);
                } else {
                    rounds.limit.push(limit()?);
                }
            }
        }
        Ok(rounds)
    }

    /// Nanoseconds for each of `count` units of work.
    pub fn nanoseconds(&self, count: u64, what: String) -> Figure {
        self.each(|seconds| seconds * 1e9 / count as f64, "ns", what)
    }
    /// Seconds for all of it.
    pub fn seconds(&self, what: String) -> Figure {
        self.each(|seconds| seconds, "s", what)
    }
    /// Units of work each second; the best is the most.
    pub fn rate(&self, amount: f64, unit: &'static str, what: String) -> Figure {
        self.each(|seconds| amount / seconds, unit, what)
    }

    fn each(&self, convert: impl Fn(f64) -> f64, unit: &'static str, what: String) -> Figure {
        Figure {
            value: convert(least(&self.value)),
            unit,
            limit: convert(least(&self.limit)),
            what,
            value_median: convert(median(&self.value)),
            limit_median: convert(median(&self.limit)),
        }
    }
}
