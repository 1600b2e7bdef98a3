//! Two threads, each with work of its own: what a second CPU gains, beside what it gains for two bare loops.
//!
//! What the modelled kernel does under one lock gains nothing by a second thread on the same machine, here as there;
//! such rows have a machine for each thread, and show what two of them share of the host.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::rounds::{Rounds, timed};
use crate::{BenchError, Figure, Stop};

/// Seconds from the start of the first to the end of the last of two threads that meet before they start; `thread`
/// makes what a thread does, on that thread.
pub fn two<W: FnOnce()>(thread: impl Fn(usize) -> W + Sync) -> f64 {
    let arrived = AtomicU64::new(0);
    let run = |number| {
        let work = thread(number);
        // A futex would wake one long after the other.
        arrived.fetch_add(1, Ordering::AcqRel);
        while arrived.load(Ordering::Acquire) < 2 {
            std::hint::spin_loop();
        }
        let began = Instant::now();
        work();
        (began, Instant::now())
    };
    let (mine, theirs) = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(1));
        let mine = run(0);
        (mine, other.join().unwrap_or(mine))
    });
    mine.1.max(theirs.1).duration_since(mine.0.min(theirs.0)).as_secs_f64()
}

/// What two threads do together each second, each `amount` of it; `machine` and `bare` make what a thread does, on that
/// thread. Limit: what one does, times what two bare loops gain over one.
pub fn scaled<W: FnOnce(), B: FnOnce()>(
    rounds: usize,
    stop: Stop<'_>,
    amount: f64,
    unit: &'static str,
    what: &str,
    machine: impl Fn(usize) -> W + Sync,
    bare: impl Fn(usize) -> B + Sync,
) -> Result<Figure, BenchError> {
    let one = Rounds::of(rounds, stop, || Ok(timed(machine(0))), || Ok(timed(bare(0))))?;
    let both = Rounds::of(rounds, stop, || Ok(two(&machine)), || Ok(two(&bare)))?;
    let what = format!("{what}; limit: those of one thread times what two bare loops gain over one");
    let figure = both.rate(2.0 * amount, unit, what);
    let single = one.rate(amount, unit, String::new());
    Ok(Figure {
        limit: single.value * figure.limit / single.limit,
        limit_median: single.value_median * figure.limit_median / single.limit_median,
        ..figure
    })
}
