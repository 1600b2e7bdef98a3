//! The explorer beside what it cannot do without: a switch into an actor and back for each step. On real tables, and on
//! the handmade model, which has no MMU and next to no machine: what is left there is the search.

use std::hint::black_box;

use vmemmap_arch::{Invariant, Pa, Va, Zone};
use vmemmap_kernel::policy::LinearMap;
use vmemmap_kernel::{Kernel, Operation, Policies, Ram};
use vmemmap_machine::explored::{Context, WorldOptions};

use crate::handmade::{self, Row};
use crate::rounds::{Rounds, timed};
use crate::setup::{self, DRAM};
use crate::{BenchError, Effort, Figure, Stop};
use vmemmap_explore::check::options::Options;
use vmemmap_explore::check::outcome::Outcome;
use vmemmap_explore::reduction::options::Reduction;
use vmemmap_explore::runtime::coroutine::{Coroutine, Stacks, Suspender};
use vmemmap_lab::programs;
use vmemmap_lab::scenario::{Actor, Body, Scenario};
use vmemmap_lab::world::{Explored, booted};

const ACTORS: usize = 3;

/// Two lone hot-added sections that share their PMD table (kernel-semantics §2.3); hugepages come from the first, and
/// the second is removed.
struct Neighbours {
    kernel: Kernel,
    a: Pa,
    b: Pa,
}

impl Neighbours {
    fn new() -> Result<Self, BenchError> {
        let (k, _) = setup::machine(Policies::default(), 256 << 20)?;
        let section = k.geometry.section_size();
        let a = Pa(DRAM + (64 << 30));
        let ram =
            [Ram { start: Pa(DRAM), bytes: 256 << 20, boot: true }, Ram { start: a, bytes: 2 * section, boot: false }];
        let policies = Policies { linear_map: LinearMap::Blocks, ..Policies::default() };
        Ok(Self { kernel: Kernel::new(k.layout, policies, &ram, true), a, b: a.plus(section) })
    }
    fn world(&self) -> Result<Explored, BenchError> {
        let bytes = self.kernel.geometry.section_size();
        let add = |start| Operation::MemoryAdd { start, bytes, memmap_on_memory: false };
        let setup = [add(self.a), Operation::MemoryOnline { start: self.a, bytes, zone: Zone::Movable }, add(self.b)];
        let l = &self.kernel.layout;
        let options = WorldOptions { linear_map: Some(l.page_offset..Va(l.page_end.0)), ..WorldOptions::default() };
        Ok(booted(&self.kernel, ACTORS as u8, options, &setup)?)
    }
    fn scenario(&self) -> Scenario {
        let g = &self.kernel.geometry;
        let (sizes, count) = g.hugetlb_sizes();
        let hstate = sizes[..count].iter().position(|&pages| pages == g.entries() as u64).unwrap_or(0) as u8;
        let head = g.pfn(self.a);
        let tail = head.plus(2 * g.struct_pages_per_page());
        let bytes = g.section_size();
        let actor = |cpu, name: &str, operation| Actor {
            name: name.to_owned(),
            cpu,
            rounds: 1,
            body: Body::Program(vec![operation]),
            context: Context::Task,
            line: None,
        };
        let all: [Actor; ACTORS] = [
            actor(0, "HVO", Operation::HugetlbAlloc { hstate, at: Some(head) }),
            actor(1, "hot remove", Operation::MemoryRemove { start: self.b, bytes }),
            actor(2, "PFN walker", Operation::PfnWalk { start: tail, end: tail.plus(1), step: 1 }),
        ];
        Scenario {
            name: "bench".to_owned(),
            variant: "store".to_owned(),
            digest: String::new(),
            actors: all.into(),
            judged: vec![Invariant::NoWalkOfFreedTable, Invariant::AlwaysTranslates],
        }
    }
    fn explore(&self, executions: Option<u64>, stop: Stop<'_>) -> Result<Outcome, BenchError> {
        let world = self.world()?;
        // No trace is shortened: the search is what is measured.
        let options = Options { executions, shorten_seconds: 0.0, ..Options::default() };
        let outcome = programs::explore(&self.kernel, world, &self.scenario(), None, &options, stop, &mut |_| {})?;
        if outcome.interrupted { Err(BenchError::Stopped) } else { Ok(outcome) }
    }
}

/// Seconds of `steps` switches into a body that does nothing, and back.
fn switches(steps: u64) -> Result<f64, BenchError> {
    let mut stacks = Stacks::default();
    stacks.reserve(1)?;
    let mut body = Coroutine::new(&mut stacks, |s: Suspender<'_>| {
        loop {
            black_box(s.suspend());
        }
    });
    let seconds = timed(|| {
        for _ in 0..steps {
            black_box(body.resume(0));
        }
    });
    body.abandon(&mut stacks);
    Ok(seconds)
}

/// Seconds of `executions` executions of `N` bodies that do nothing, abandoned after their share of `steps` switches.
fn empty_executions<const N: usize>(executions: u64, steps: u64) -> Result<f64, BenchError> {
    let mut stacks = Stacks::default();
    stacks.reserve(N)?;
    let each = steps / executions.max(1) / N as u64;
    Ok(timed(|| {
        for _ in 0..executions {
            let mut actors = [(); N].map(|()| {
                Coroutine::new(&mut stacks, |s: Suspender<'_>| {
                    loop {
                        black_box(s.suspend());
                    }
                })
            });
            for actor in &mut actors {
                for _ in 0..=each {
                    black_box(actor.resume(0));
                }
            }
            for actor in actors {
                actor.abandon(&mut stacks);
            }
        }
    }))
}

/// The check made once to know its size, and then measured beside `limit`, which is given that.
fn measure(
    effort: Effort,
    stop: Stop<'_>,
    limit: impl Fn(&Outcome) -> Result<f64, BenchError>,
    figure: impl FnOnce(&Rounds, &Outcome) -> Figure,
) -> Result<Figure, BenchError> {
    let setup = Neighbours::new()?;
    let bound = match effort {
        Effort::Full => None,
        Effort::Quick => Some(20),
    };
    let outcome = setup.explore(bound, stop)?;
    let rounds = Rounds::of(effort.rounds(5), stop, || Ok(setup.explore(bound, stop)?.seconds), || limit(&outcome))?;
    Ok(figure(&rounds, &outcome))
}

/// `explore-step`.
pub fn step(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let what = "one operation of the exploration of three actors: switch, MMU, oracles, access set, fingerprint, state \
        cache; \
                limit: a switch into a coroutine that does nothing, and back";
    measure(effort, stop, |o| switches(o.steps), |rounds, o| rounds.nanoseconds(o.steps, what.to_owned()))
}

/// `explore-executions`.
pub fn executions(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let limit = |o: &Outcome| empty_executions::<ACTORS>(o.executions, o.steps);
    measure(effort, stop, limit, |rounds, o| {
        let what = format!(
            "executions of the exploration of three actors, {} operations each on average; \
             limit: as many coroutines started, switched as often, and abandoned",
            o.steps / o.executions.max(1)
        );
        rounds.rate(o.executions as f64, "executions/s", what)
    })
}

/// `explore-three-actors`.
pub fn three_actors(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    measure(
        effort,
        stop,
        |o| switches(o.steps),
        |rounds, o| {
            rounds.seconds(format!(
                "HVO, hot remove and a PFN walker on neighbouring sections (4K) explored, {} ({} executions, {} \
                    operations); \
             limit: as many switches of a coroutine that does nothing",
                if o.exhaustive { "exhaustively" } else { "not exhaustively" },
                o.executions,
                o.steps
            ))
        },
    )
}

/// A row of the handmade model put to the search, and measured beside `limit`, in so many rounds.
fn measure_handmade(
    row: &Row,
    options: &Options,
    rounds: usize,
    stop: Stop<'_>,
    limit: impl Fn(&Outcome) -> Result<f64, BenchError>,
    figure: impl FnOnce(&Rounds, &Outcome) -> Figure,
) -> Result<Figure, BenchError> {
    let explore = || handmade::machine::explore(row, options, stop, &mut |_| {});
    let outcome = explore()?;
    let rounds = Rounds::of(rounds, stop, || Ok(explore()?.seconds), || limit(&outcome))?;
    Ok(figure(&rounds, &outcome))
}

/// `explore-toy-step`.
pub fn toy_step(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let row = Row::named(if effort == Effort::Full { "locks-3" } else { "locks-1" })?;
    let options = Options { shorten_seconds: 0.0, ..Options::default() };
    let limit = |o: &Outcome| switches(o.steps);
    // A millisecond each: nine of them may all fall into one disturbance of the host, which then looks like a speed.
    measure_handmade(&row, &options, effort.rounds(199), stop, limit, |rounds, o| {
        let what = format!(
            "one operation of the exploration of the handmade model, {} ({} executions, {} states): the search \
                without a \
             machine to speak of; limit: a switch into a coroutine that does nothing, and back",
            row.what,
            o.executions,
            o.states.unwrap_or_default()
        );
        rounds.nanoseconds(o.steps, what)
    })
}

/// `explore-executions-25`.
pub fn executions_25(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    // 10 operations of HVO and 18 of hot remove; their 13 million orders are not searched to the end.
    let row = Row { entries: 3, own: 1, rounds: 1, ..Row::named("exchange-3")? };
    let executions = Some(effort.amount(100_000, 1_000));
    let options = Options { executions, reduction: Reduction::NAIVE, shorten_seconds: 0.0, ..Options::default() };
    let limit = |o: &Outcome| empty_executions::<2>(o.executions, o.steps);
    measure_handmade(&row, &options, effort.rounds(9), stop, limit, |rounds, o| {
        let what = format!(
            "executions of the handmade model's HVO beside hot remove without any reduction, {} operations each, \
                every one a \
             scheduling point; limit: as many coroutines started, switched as often, and abandoned",
            o.steps / o.executions.max(1)
        );
        rounds.rate(o.executions as f64, "executions/s", what)
    })
}
