//! The same execution again, from the segments of a trace; the first difference is named.

use thiserror::Error;
use vmemmap_arch::Invariant;

use crate::execution::{Actors, Merge, Phase, Runner};
use crate::model::Model;
use crate::search::Choice;
use crate::trace::{FORMAT, Recording, Trace, TraceStep, named, run_schedule};

/// Why a trace does not run again as recorded.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Divergence {
    #[error("trace format {found}, this version reads {FORMAT}")]
    Format { found: u32 },
    #[error("the trace belongs to scenario digest {expected}, this one is {found}")]
    Scenario { expected: String, found: String },
    #[error("segment {segment}: there is no actor {name:?}")]
    Actor { segment: usize, name: String },
    #[error("diverged in segment {segment}, step {step}: expected {expected}, found {found}")]
    Step { segment: usize, step: u32, expected: String, found: String },
    #[error("{expected} did not fall; the trace ran to its end")]
    Held { expected: String },
}

/// Replays a trace exactly: each segment must end in the operation it names and with the same observations.
///
/// # Errors
/// The first difference.
pub(crate) fn replay<M: Model, A: Actors<M>>(
    runner: &mut Runner<'_, M, A>,
    trace: &Trace,
    digest: &str,
) -> Result<(Recording, Vec<TraceStep>), Divergence> {
    if trace.format != FORMAT {
        return Err(Divergence::Format { found: trace.format });
    }
    if trace.digest != digest {
        return Err(Divergence::Scenario { expected: trace.digest.clone(), found: digest.to_owned() });
    }
    let held = || Divergence::Held { expected: trace.violation.invariant.clone() };
    let target =
        trace.violation.invariant.strip_prefix('I').and_then(|n| n.parse().ok()).and_then(Invariant::from_number).ok_or_else(held)?;
    let schedule = retrace(runner, trace)?;
    let recording = run_schedule(runner, &schedule, target).ok_or_else(held)?;
    let steps = recording.trace_steps::<M, A>(runner.actors());
    Ok((recording, steps))
}

/// Runs the segments, comparing as it goes; returns the schedule.
fn retrace<M: Model, A: Actors<M>>(runner: &mut Runner<'_, M, A>, trace: &Trace) -> Result<Vec<Choice>, Divergence> {
    {
        let mut inner = runner.inner();
        inner.merge = Merge::Local;
        inner.record = Some(Vec::new());
    }
    runner.start();
    let mut schedule = Vec::new();
    for (at, segment) in trace.segments.iter().enumerate() {
        let actor = (0..runner.count())
            .find(|a| runner.actors().name(*a) == segment.actor)
            .ok_or_else(|| Divergence::Actor { segment: at, name: segment.actor.clone() })?;
        for nth in 0..segment.operations {
            let outcome = segment.alternatives.iter().find(|a| a.nth == nth).map_or(0, |a| a.outcome);
            let step = schedule.len() as u32 + 1;
            let differs = |found: &str| Divergence::Step { segment: at, step, expected: segment.last.clone(), found: found.to_owned() };
            if runner.halted() {
                return Err(differs("the execution had ended"));
            }
            match runner.outcomes(actor) {
                0 => return Err(differs("the actor is blocked or done")),
                n if n <= outcome => return Err(differs("fewer alternatives")),
                _ => {}
            }
            runner.advance(actor, outcome, Phase::Frontier);
            schedule.push(Choice { actor: actor as u8, outcome });
        }
        let inner = runner.inner();
        let last = inner.record.iter().flatten().rfind(|s| !s.local && usize::from(s.actor) == actor);
        let step = schedule.len() as u32;
        let differs = |expected: &str, found: String| Err(Divergence::Step { segment: at, step, expected: expected.to_owned(), found });
        match last {
            Some(s) if named(s) != segment.last => return differs(&segment.last, named(s)),
            Some(s) if format!("{:032x}", s.observed) != segment.observed => {
                return differs(&segment.last, String::from("the same operation after other observations"));
            }
            Some(_) => {}
            None => return differs(&segment.last, String::from("no operation")),
        }
    }
    runner.inner().record = None;
    runner.inner().merge = Merge::Private;
    Ok(schedule)
}
