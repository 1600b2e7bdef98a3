//! Sampling for spaces beyond the cache: uniform walks, and PCT (priorities with a few changes).
//!
//! Both decide only at the scheduling points that transition fusion leaves: a priority drops at a numbered choice, and
//! an invisible operation makes none (docs/limits.md). What they do not find is not proven absent: never "safe". PCT
//! of depth d preempts at most d - 1 times in an execution; a fault that needs more switches between actors that could
//! all go on is out of its reach, however long it runs.

use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::model::{InvariantSet, MAX_ACTORS, Model};
use crate::reduction::options::Fusion;
use crate::runtime::execution::Actors;
use crate::runtime::runner::Runner;
use crate::runtime::schedule::{Choice, Cost};
use crate::search::limits::{Clock, Limits};
use crate::search::report::{Ended, Progress, Report};

/// How the next actor is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Draw {
    /// Each enabled actor with the same chance.
    Uniform,
    /// Probabilistic concurrency testing (Burckhardt and others, ASPLOS 2010): the highest priority goes, and drops at
    /// `depth - 1` random points.
    Pct { depth: u32 },
}

struct Priorities {
    of: [u32; MAX_ACTORS],
    /// Points (numbers of choices) at which the running actor drops below all others.
    changes: Vec<u32>,
    lowest: u32,
}

impl Priorities {
    fn draw(rng: &mut impl Rng, actors: usize, depth: u32, length: u32) -> Self {
        let mut order: Vec<u32> = (0..actors as u32).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, rng.random_range(0..=i));
        }
        let mut of = [0; MAX_ACTORS];
        for (actor, rank) in order.into_iter().enumerate() {
            of[actor] = depth + rank;
        }
        let changes = (1..depth).map(|_| rng.random_range(0..length.max(1))).collect();
        Self { of, changes, lowest: depth }
    }

    fn pick(&mut self, enabled: u16, at: u32) -> u8 {
        let top = |of: &[u32; MAX_ACTORS]| {
            (0..MAX_ACTORS).filter(|a| enabled & 1 << a != 0).max_by_key(|a| of[*a]).unwrap_or(0)
        };
        let mut actor = top(&self.of);
        if self.changes.contains(&at) {
            self.lowest = self.lowest.saturating_sub(1);
            self.of[actor] = self.lowest;
            actor = top(&self.of);
        }
        actor as u8
    }
}

/// Random executions until a limit. The same seed gives the same executions.
pub fn sample<M: Model, A: Actors<M>>(
    runner: &mut Runner<'_, M, A>,
    draw: Draw,
    seed: u64,
    ending: InvariantSet,
    step_bound: u32,
    limits: &mut Limits<'_>,
) -> Report {
    {
        let mut inner = runner.inner();
        inner.fusion = Fusion::Invisible;
        inner.ending = ending;
        inner.step_bound = step_bound;
        inner.bound_hit = false;
        inner.checkpoints = false;
    }
    let first_steps = runner.inner().total_steps;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut report = Report::new();
    let began = Instant::now();
    let mut clock = Clock::new();
    let mut longest = 0;
    loop {
        // Without a fixpoint transition fusion would hide points; sampling may as well learn while it goes.
        if runner.adopt_shared(false) {
            report.iterations += 1;
            report.found.clear();
        }
        longest = longest.max(walk(runner, draw, &mut rng, longest, &mut report));
        report.executions += 1;
        if report.first.is_none() && report.has_found(ending) {
            report.first = Some((report.executions, began.elapsed()));
        }
        {
            let inner = runner.inner();
            report.overflowed |= inner.bound_hit || inner.model.overflowed();
            report.steps = inner.total_steps - first_steps;
        }
        if runner.unanswered() {
            report.ended = Ended::Interrupted;
            break;
        }
        if report.executions >= limits.executions {
            report.ended = Ended::Budget;
            break;
        }
        if let Some(now) = clock.tick() {
            let violated = report.found.keys().fold(InvariantSet::NONE, |all, i| all.or(InvariantSet::only(*i)));
            (limits.progress)(Progress { executions: report.executions, steps: report.steps, states: 0, violated });
            if (limits.stop)() {
                report.ended = Ended::Interrupted;
                break;
            }
            if limits.deadline.is_some_and(|end| now >= end) {
                report.ended = Ended::Budget;
                break;
            }
        }
    }
    report
}

/// One execution; returns how many choices it had.
fn walk<M: Model, A: Actors<M>>(
    runner: &mut Runner<'_, M, A>,
    draw: Draw,
    rng: &mut Xoshiro256PlusPlus,
    longest: u32,
    report: &mut Report,
) -> u32 {
    let mut leads = runner.start();
    let mut priorities = match draw {
        Draw::Uniform => None,
        Draw::Pct { depth } => Some(Priorities::draw(rng, runner.count(), depth.max(1), longest)),
    };
    let mut made: Vec<Choice> = Vec::new();
    let mut cost = Cost { switches: 0, steps: 0 };
    let mut known = InvariantSet::NONE;
    loop {
        let over = runner.halted() || runner.judge_end();
        {
            let inner = runner.inner();
            for invariant in inner.violated().minus(known).iter() {
                report.keep(invariant, cost, || made.clone());
            }
            known = inner.violated();
            if over || inner.halted {
                return made.len() as u32;
            }
        }
        let (enabled, _) = runner.enabled();
        let actor = match &mut priorities {
            Some(p) => p.pick(enabled, made.len() as u32),
            None => {
                let nth = rng.random_range(0..enabled.count_ones());
                (0..MAX_ACTORS as u8).filter(|a| enabled & 1 << a != 0).nth(nth as usize).unwrap_or(0)
            }
        };
        let outcome = rng.random_range(0..runner.outcomes(usize::from(actor)));
        cost.switches += u32::from(made.last().is_some_and(|c| c.actor != actor));
        cost.steps += leads[usize::from(actor)] + 1;
        made.push(Choice { actor, outcome });
        leads[usize::from(actor)] =
            runner.advance(usize::from(actor), outcome, crate::runtime::execution::Phase::Frontier);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::execution::Shared;
    use crate::toy::{Line, Op, Programs, Toy};

    #[test]
    fn pct_preempts_fewer_times_than_its_depth() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut most = [0; 6];
        for _ in 0..500 {
            for depth in 1..6 {
                let mut priorities = Priorities::draw(&mut rng, 3, depth, 40);
                let picked: Vec<u8> = (0..40).map(|at| priorities.pick(0b111, at)).collect();
                let switches = picked.windows(2).filter(|w| w[0] != w[1]).count();
                most[depth as usize] = most[depth as usize].max(switches);
            }
        }
        // Three actors that can always go: it reaches its bound, and does not pass it.
        assert_eq!(most, [0, 0, 1, 2, 3, 4]);
    }

    /// Two actors, of which one has a word of its own.
    #[test]
    fn private_operations_are_no_points_at_which_a_priority_could_drop() {
        let own = |n| Line::Do(Op::Write(1, n));
        let programs = Programs(vec![
            (0..20).map(own).chain([Line::Do(Op::Write(0, 1))]).chain((0..20).map(own)).collect(),
            vec![Line::Do(Op::Read(0))],
        ]);
        let shared = Shared::new(Toy::default());
        let mut runner = Runner::new(&shared, &programs).expect("stacks");
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(2);
        let mut report = Report::new();
        let mut points = 0;
        for _ in 0..5 {
            runner.adopt_shared(false);
            points = walk(&mut runner, Draw::Pct { depth: 3 }, &mut rng, points, &mut report);
        }
        // The shared word is written once and read once; the other forty operations nobody else can notice.
        assert_eq!(points, 2);
        assert_eq!(runner.inner().steps, 42);
    }
}
