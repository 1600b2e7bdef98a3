//! One cell of the comparison: `vmemmap-peers CHECKER ROW SECONDS [SEED]` runs a row of the handmade model under a
//! checker and prints a JSON object on one line. `vmemmap-peers rows` prints the rows.
//!
//! CHECKER: `loom`, `loom-loads` (see `memory`), `shuttle-dfs`, `shuttle-random`, `shuttle-pct3`, `ours` (all
//! reductions), `ours-cache-sleep`, `ours-cache`, `ours-sleep` (sleep sets alone: what an optimal reduction without a
//! cache must run, or more), `ours-trace` (with the search for the shortest trace). `finished` says that the checker
//! covered everything it covers, or met a violation.

mod memory;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use memory::{LoomMemory, ShuttleMemory};
use serde_json::{Value, json};
use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use vmemmap_bench::handmade::machine::explore;
use vmemmap_bench::handmade::{ROWS, Row};
use vmemmap_explore::check::options::Options;
use vmemmap_explore::check::outcome::Verdict;
use vmemmap_explore::reduction::options::Reduction;

/// Runs `check`, which panics where the model's assertions fail. `executions` counts while it runs.
fn judged(row: &Row, seconds: f64, check: impl FnOnce(Arc<AtomicU64>)) -> Value {
    let executions = Arc::new(AtomicU64::new(0));
    // The message of a violation is in the answer.
    std::panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let caught = catch_unwind(AssertUnwindSafe(|| check(executions.clone())));
    let spent = began.elapsed().as_secs_f64();
    let message = caught.err().map(|e| match (e.downcast_ref::<String>(), e.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (None, Some(text)) => (*text).to_owned(),
        _ => String::from("a panic"),
    });
    let finished = message.is_some() || spent < seconds;
    json!({ "row": row.name, "violated": message.is_some(), "message": message, "finished": finished,
            "executions": executions.load(Relaxed), "seconds": spent })
}

fn loom(row: Row, seconds: f64, loads: bool) -> Value {
    judged(&row, seconds, |executions| {
        let mut builder = loom::model::Builder::new();
        // Its default of 1000 switches is too few for three rounds; how often it looks at the clock.
        builder.max_branches = 100_000;
        builder.checkpoint_interval = 100;
        builder.max_duration = Some(Duration::from_secs_f64(seconds));
        builder.check(move || {
            executions.fetch_add(1, Relaxed);
            let memory = loom::sync::Arc::new(LoomMemory::new(row.entries, row.alone, loads));
            // The first thread is an actor too: loom has five.
            let others: Vec<_> = (1..row.actors())
                .map(|actor| {
                    let memory = memory.clone();
                    loom::thread::spawn(move || row.run(actor, &*memory))
                })
                .collect();
            row.run(0, &*memory);
            for other in others {
                other.join().expect("a violation ends the run");
            }
        });
    })
}

fn shuttle(row: Row, seconds: f64, scheduler: impl Scheduler + 'static) -> Value {
    judged(&row, seconds, |executions| {
        let mut config = shuttle::Config::new();
        config.failure_persistence = shuttle::FailurePersistence::None;
        config.max_time = Some(Duration::from_secs_f64(seconds));
        shuttle::Runner::new(scheduler, config).run(move || {
            executions.fetch_add(1, Relaxed);
            let memory = Arc::new(ShuttleMemory::new(row.entries, row.alone, true));
            let others: Vec<_> = (1..row.actors())
                .map(|actor| {
                    let memory = memory.clone();
                    shuttle::thread::spawn(move || row.run(actor, &*memory))
                })
                .collect();
            row.run(0, &*memory);
            for other in others {
                other.join().expect("a violation ends the run");
            }
        });
    })
}

fn ours(row: &Row, seconds: f64, reduction: Reduction, shorten: bool) -> Result<Value, String> {
    // A violation is a verdict: without `shorten` nothing is looked for behind it.
    let defaults = Options::default();
    let (shorten_seconds, settle_seconds) = if shorten { (defaults.shorten_seconds, 0.0) } else { (0.0, 0.0) };
    let options = Options { reduction, seconds: Some(seconds), shorten_seconds, settle_seconds, ..defaults };
    let outcome = explore(row, &options, &|| false, &mut |_| {}).map_err(|e| e.to_string())?;
    let first = outcome.counterexamples.values().min_by_key(|w| (w.switches, w.steps));
    Ok(json!({ "row": row.name, "violated": outcome.verdict == Verdict::Violated,
               "finished": outcome.verdict != Verdict::Inconclusive,
               "executions": outcome.executions, "states": outcome.states, "steps": outcome.steps, "seconds":
                   outcome.seconds,
               "trace": first.map(|w| w.steps), "switches": first.map(|w| w.switches), "shortest": outcome.shortest }))
}

fn answer(arguments: &[String]) -> Result<Value, String> {
    let (checker, name, seconds, seed) = match arguments {
        [rows] if rows == "rows" => {
            let row = |r: &Row| {
                json!({ "name": r.name, "what": r.what, "violated": r.violated, "N": r.entries, "HVO": r.hvo_actors,
                    "OWN": r.own,
                        "ALONE": r.alone, "HOTPLUG_LOCK": u8::from(r.hotplug_lock), "ROUNDS": r.rounds,
                        "EXCHANGE": u8::from(r.update == vmemmap_bench::handmade::Update::Exchange) })
            };
            return Ok(ROWS.iter().map(row).collect());
        }
        [checker, name, seconds] => (checker, name, seconds, 0),
        [checker, name, seconds, seed] => (checker, name, seconds, seed.parse().map_err(|e| format!("{seed}: {e}"))?),
        _ => return Err(String::from("usage: vmemmap-peers rows | vmemmap-peers CHECKER ROW SECONDS [SEED]")),
    };
    let row = Row::named(name).map_err(|e| e.to_string())?;
    let seconds: f64 = seconds.parse().map_err(|e| format!("{seconds}: {e}"))?;
    match checker.as_str() {
        "loom" => Ok(loom(row, seconds, false)),
        "loom-loads" => Ok(loom(row, seconds, true)),
        "shuttle-dfs" => Ok(shuttle(row, seconds, DfsScheduler::new(None, false))),
        "shuttle-random" => Ok(shuttle(row, seconds, RandomScheduler::new_from_seed(seed, usize::MAX))),
        "shuttle-pct3" => Ok(shuttle(row, seconds, PctScheduler::new_from_seed(seed, 3, usize::MAX))),
        "ours" => ours(&row, seconds, Reduction::MERGED, false),
        "ours-trace" => ours(&row, seconds, Reduction::MERGED, true),
        "ours-cache-sleep" => ours(&row, seconds, Reduction::CACHE_SLEEP, false),
        "ours-cache" => ours(&row, seconds, Reduction::CACHE, false),
        "ours-sleep" => ours(&row, seconds, Reduction::SLEEP, false),
        other => Err(format!("no checker {other}")),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match answer(&arguments) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("vmemmap-peers: {message}");
            ExitCode::from(2)
        }
    }
}
