//! Actors whose steps look at results: what they find, what they are asked, what is wrong with them, and their traces.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::{Value, json};
use vmemmap_arch::{Invariant, Va};
use vmemmap_explore::check::options::Options;
use vmemmap_explore::check::outcome::Verdict;
use vmemmap_explore::check::verdict::ask;
use vmemmap_explore::model::Model;
use vmemmap_explore::reduction::options::Reduction;
use vmemmap_explore::runtime::execution::{ActorPort, Actors, Shared};
use vmemmap_explore::runtime::runner::Runner;
use vmemmap_explore::runtime::scripted::{MAX_RESULTS, Unanswered};
use vmemmap_kernel::{Errno, Kernel, Operation};
use vmemmap_lab::document::{ActorDocument, Document, OperationDocument};
use vmemmap_lab::programs;
use vmemmap_lab::scenario::{Actor, Scenario};
use vmemmap_lab::script::{Source, Transcript, sent};
use vmemmap_lab::session::{self, SessionError};
use vmemmap_lab::world::{Explored, booted};
use vmemmap_machine::explored::{Context, WorldOptions};
use vmemmap_machine::op::{Op, Reply};
use vmemmap_machine::op_cpu::OpCpu;

const SECTION: u64 = 128 << 20;
const PLACE: u64 = 65 << 30;
const EBUSY: i64 = -(Errno::EBUSY as i64);

fn operation(value: &Value) -> OperationDocument {
    serde_json::from_value(value.clone()).expect("an operation")
}

fn remove() -> OperationDocument {
    operation(&json!({"op": "memory_remove", "start": PLACE, "bytes": SECTION}))
}

fn dump() -> OperationDocument {
    operation(&json!({"op": "ptdump_walk", "pfns": {"start": PLACE >> 12, "end": (PLACE + SECTION) >> 12}}))
}

/// A block is online, somebody takes it offline and away, and somebody else has `steps`; ptdump takes no
/// `get_online_mems`.
fn document(rounds: u32) -> Value {
    let block = |op: &str| json!({"op": op, "start": PLACE, "bytes": SECTION});
    json!({
        "format": 1, "name": "a block goes", "variant": "6.1",
        "machine": {
            "granule": 4096, "va_bits": 48, "kernel": "6.1", "boot": [[1u64 << 30, SECTION]], "hotplug": [[PLACE,
                SECTION]],
            "policies": {"linear-map": "blocks", "walker": "mmap-only"},
        },
        "setup": [block("memory_add"), block("memory_online")],
        "actors": [
            {"name": "block", "cpu": 0, "program": [block("memory_offline_and_remove")]},
            {"name": "steps", "cpu": 1, "rounds": rounds, "steps": {"python": "steps"}},
        ],
        "judged": ["I1", "I2", "I6"],
    })
}

/// Drives a function that tells the next operation after some results.
fn drive(
    results: &[i64],
    next: impl Fn(&[i64]) -> Option<OperationDocument>,
) -> Result<Vec<Option<OperationDocument>>, Unanswered> {
    Ok((0..=results.len()).map(|n| next(&results[..n])).collect())
}

/// Tries to remove the block, and dumps its tables if that failed with `errno`.
fn dump_after(errno: i64) -> impl Fn(&[i64]) -> Option<OperationDocument> {
    move |results| match results {
        [] => Some(remove()),
        [first] if *first == errno => Some(dump()),
        _ => None,
    }
}

fn explored(document: &Value, source: &Source<'_>) -> Result<Value, SessionError> {
    let options = json!({"seconds": null, "shorten_seconds": 30.0, "settle_seconds": 30.0});
    session::explore_with(&document.to_string(), &options.to_string(), Some(source), &|| false, &mut |_| {})
        .map(|answer| serde_json::from_str(&answer).expect("JSON"))
}

#[test]
fn steps_that_look_reach_what_only_a_result_leads_to() {
    // Online, the block cannot be removed; that it is online still means that it is about to go, and the dump meets it.
    let found = explored(&document(1), &|_, results| drive(results, dump_after(EBUSY))).expect("it can be explored");
    assert_eq!((&found["verdict"], &found["violation"]["invariant"]), (&json!("violated"), &json!("I1")), "{found}");
    assert_eq!(found["asked"]["steps"]["operations"], json!(["memory_remove", "ptdump_walk"]));
    // The same without looking, and looking for a result that the first step never has.
    for blind in [0, i64::MAX] {
        let found =
            explored(&document(1), &|_, results| drive(results, dump_after(blind))).expect("it can be explored");
        assert_eq!((&found["verdict"], &found["exhaustive"]), (&json!("safe"), &json!(true)), "{found}");
        assert_eq!(found["asked"]["steps"]["operations"], json!(["memory_remove"]));
    }
}

fn world(kernel: &Kernel, setup: &[Operation]) -> Explored {
    let l = &kernel.layout;
    let options = WorldOptions {
        linear_map: Some(l.page_offset..Va(l.page_end.0)),
        vmalloc: Some(l.vmalloc_start..l.vmalloc_end),
        ..WorldOptions::default()
    };
    booted(kernel, 2, options, setup).expect("it boots")
}

fn scenario(document: &Document) -> Scenario {
    let actor = |a: &ActorDocument| Actor {
        name: a.name.clone(),
        cpu: a.cpu,
        rounds: a.rounds,
        body: a.body().expect("either"),
        context: Context::Task,
        line: None,
    };
    Scenario {
        name: document.name.clone(),
        variant: document.variant.clone(),
        digest: String::new(),
        actors: document.actors.iter().map(actor).collect(),
        judged: document.judged().expect("known"),
    }
}

/// The same actors with the decision in Rust.
struct Native<'a> {
    kernel: &'a Kernel,
    offline_and_remove: Operation,
    remove: Operation,
    dump: Operation,
}

impl<M: Model<Op = Op, Reply = Reply>> Actors<M> for Native<'_> {
    fn count(&self) -> usize {
        2
    }
    fn name(&self, actor: usize) -> &str {
        ["block", "steps"][actor]
    }
    fn run(&self, actor: usize, port: &ActorPort<'_, M>) {
        let cpu = OpCpu::new(programs::KernelPort { port, geometry: &self.kernel.geometry });
        port.boundary(0);
        if actor == 0 {
            let _observed = self.offline_and_remove.run(self.kernel, &cpu);
            port.boundary(1);
            return;
        }
        let result = sent(self.remove.run(self.kernel, &cpu));
        port.boundary(1);
        if result == EBUSY {
            port.past(1);
            let _observed = self.dump.run(self.kernel, &cpu);
            port.boundary(2);
        }
    }
}

#[test]
fn asked_steps_are_the_same_search_as_the_decision_in_rust() {
    let text = document(1).to_string();
    let parsed = Document::parse(&text).expect("a document");
    let kernel = parsed.machine.kernel().expect("a machine");
    let run = |d: &OperationDocument| d.operation();
    let setup: Vec<Operation> = parsed.setup.iter().map(run).collect();
    let world = world(&kernel, &setup);
    let offline_and_remove =
        run(&operation(&json!({"op": "memory_offline_and_remove", "start": PLACE, "bytes": SECTION})));
    let actors = Native { kernel: &kernel, offline_and_remove, remove: run(&remove()), dump: run(&dump()) };
    let scenario = scenario(&parsed);
    let shared = Shared::new(world);
    let mut runner = Runner::new(&shared, &actors).expect("stacks");
    let how = Options { seconds: None, shorten_seconds: 30.0, settle_seconds: 30.0, ..Options::default() };
    let native = ask(&mut runner, &scenario.subject(), &how, &|| false, &mut |_| {});
    let native = serde_json::to_value(native).expect("it is JSON");
    let asked = explored(&document(1), &|_, results| drive(results, dump_after(EBUSY))).expect("it can be explored");
    for key in [
        "verdict",
        "exhaustive",
        "executions",
        "steps",
        "states",
        "rounds",
        "invariants",
        "invariant_steps",
        "trace",
        "shortest",
    ] {
        assert_eq!(native[key], asked[key], "{key}");
    }
}

#[test]
fn each_history_is_asked_for_once_however_many_executions_meet_it() {
    let histories = Mutex::new(Vec::new());
    let source = |actor: usize, results: &[i64]| {
        assert_eq!(actor, 1, "the other one has a program");
        histories.lock().expect("no panic").push(results.to_vec());
        drive(results, dump_after(EBUSY))
    };
    // A second round starts at the root again, and asks nothing that the first has asked.
    let found = explored(&document(2), &source).expect("it can be explored");
    let histories = histories.into_inner().expect("no panic");
    let distinct: BTreeSet<&Vec<i64>> = histories.iter().collect();
    assert_eq!(distinct.len(), histories.len(), "{histories:?}");
    assert!(histories.contains(&vec![]) && histories.iter().any(|h| h.len() == 2 && h[0] == EBUSY), "{histories:?}");
    assert!(
        found["executions"].as_u64() > Some(10 * histories.len() as u64),
        "{} for {}",
        found["executions"],
        histories.len()
    );
    assert_eq!(found["asked"]["steps"]["histories"], json!(histories.len()));
}

#[test]
fn reductions_agree_on_steps_that_look() {
    let step = |choice: u8| (choice != 0).then(|| if choice == 1 { remove() } else { dump() });
    let parsed = Document::parse(&document(1).to_string()).expect("a document");
    let kernel = parsed.machine.kernel().expect("a machine");
    let setup: Vec<Operation> = parsed.setup.iter().map(|o| o.operation()).collect();
    // After success, EBUSY, any other errno: end, remove, dump.
    for (first, second) in [(1, [0, 2, 0]), (1, [0, 1, 2]), (2, [1, 1, 1]), (1, [2, 0, 2])] {
        let next = |results: &[i64]| match *results {
            [] => step(first),
            [result] if result >= 0 => step(second[0]),
            [EBUSY] => step(second[1]),
            [_] => step(second[2]),
            _ => None,
        };
        let source = |_: usize, results: &[i64]| drive(results, next);
        let answers = [Reduction::CACHE, Reduction::CACHE_SLEEP, Reduction::MERGED].map(|reduction| {
            let scenario = scenario(&parsed);
            let names = scenario.actors.iter().map(|a| a.name.clone()).collect();
            let transcript = Transcript::new(&(), names, &source);
            let world = world(&kernel, &setup);
            let how =
                Options { reduction, seconds: None, shorten_seconds: 0.0, settle_seconds: 60.0, ..Options::default() };
            let outcome = programs::explore(&kernel, world, &scenario, Some(&transcript), &how, &|| false, &mut |_| {})
                .expect("stacks");
            transcript.check().expect("nothing wrong");
            let violated: Vec<Invariant> =
                outcome.counterexamples.keys().copied().filter(|i| scenario.judged.contains(i)).collect();
            (outcome.verdict, outcome.exhaustive, violated, transcript.asked())
        });
        assert_eq!(answers[0], answers[1], "{first} {second:?}");
        assert_eq!(answers[0], answers[2], "{first} {second:?}");
        let dumps = first == 2 || second[1] == 2;
        assert_eq!(answers[0].0 == Verdict::Violated, dumps, "{first} {second:?}: {answers:?}");
    }
}

#[test]
fn steps_that_answer_otherwise_the_second_time_are_named_with_both_answers() {
    let calls = AtomicUsize::new(0);
    let fickle = |_: usize, results: &[i64]| {
        let first = if calls.fetch_add(1, Relaxed) == 0 { remove() } else { dump() };
        Ok(std::iter::once(Some(first)).chain(results.iter().map(|_| None)).collect())
    };
    let error = explored(&document(1), &fickle).expect_err("it is not deterministic").to_string();
    assert!(
        error.starts_with("actor \"steps\", step 1: after the same results it answered {\"op\":\"memory_remove\""),
        "{error}"
    );
    assert!(error.contains("once and {\"op\":\"ptdump_walk\""), "{error}");
    assert!(!error.contains('\n'));
}

#[test]
fn steps_that_fail_end_the_exploration_with_their_number() {
    let failing = |_: usize, results: &[i64]| {
        if results.is_empty() { drive(results, |_| Some(remove())) } else { Err(Unanswered::Failed("no idea".into())) }
    };
    let error = explored(&document(1), &failing).expect_err("it fails").to_string();
    assert_eq!(error, "actor \"steps\", step 2: no idea");
}

#[test]
fn an_interrupted_query_leaves_what_was_found_and_claims_nothing() {
    let interrupted = |_: usize, results: &[i64]| {
        if results.is_empty() { drive(results, |_| Some(remove())) } else { Err(Unanswered::Interrupted) }
    };
    let found = explored(&document(1), &interrupted).expect("an answer");
    assert_eq!((&found["interrupted"], &found["exhaustive"]), (&json!(true), &json!(false)));
    assert_eq!(found["verdict"], json!("inconclusive"));
    assert!(found["invariants"].as_object().is_some_and(|all| all.values().all(|status| status != "held")));
}

#[test]
fn steps_without_an_end_are_inconclusive() {
    let longest = AtomicUsize::new(0);
    let endless = |_: usize, results: &[i64]| {
        longest.fetch_max(results.len(), Relaxed);
        drive(results, |_| Some(remove()))
    };
    let options = json!({"seconds": null, "executions": 3});
    let found =
        session::explore_with(&document(1).to_string(), &options.to_string(), Some(&endless), &|| false, &mut |_| {});
    let found: Value = serde_json::from_str(&found.expect("an answer")).expect("JSON");
    assert_eq!((&found["verdict"], longest.into_inner()), (&json!("inconclusive"), MAX_RESULTS));
    assert!(
        found["scope"]["bounds"].as_str().is_some_and(|b| b.contains("a bound was exceeded")),
        "{}",
        found["scope"]
    );
}

#[test]
fn a_trace_has_the_operations_that_were_made_and_runs_again_without_the_steps() {
    for rounds in [1, 2] {
        let found =
            explored(&document(rounds), &|_, results| drive(results, dump_after(EBUSY))).expect("it can be explored");
        let trace = &found["witnesses"]["I1"]["trace"];
        let actor = &trace["document"]["actors"][1];
        let operations = actor["program"].as_array().expect("a program");
        assert_eq!(actor.get("steps"), None);
        let kinds: Vec<&str> = operations.iter().filter_map(|o| o["op"].as_str()).collect();
        assert_eq!(kinds[..2], ["memory_remove", "ptdump_walk"]);
        let again = session::replay(&trace.to_string(), "{}").expect("a trace");
        assert_eq!((&again["identical"], &again["fell"]), (&json!(true), &json!(true)), "{}", again["divergence"]);
    }
}

#[test]
fn steps_need_somebody_who_answers() {
    let text = document(1).to_string();
    let asked = session::explore(&text, "{}", &|| false, &mut |_| {});
    let stressed = session::stress(&text, r#"{"seconds": 0.1}"#, None, None, &|| false, &mut |_| {});
    for error in [asked.expect_err("nobody answers"), stressed.expect_err("nobody answers")].map(|e| e.to_string()) {
        assert!(error.starts_with("actor \"steps\": its steps look at results"), "{error}");
    }
    let mut both = document(1);
    both["actors"][1]["program"] = json!([]);
    let error =
        session::explore(&both.to_string(), "{}", &|| false, &mut |_| {}).expect_err("one too many").to_string();
    assert!(error.contains("either a program or steps"), "{error}");
}

#[test]
fn a_stress_asks_too() {
    let next = |results: &[i64]| match *results {
        [] => Some(operation(&json!({"op": "hugetlb_alloc", "hstate": 1}))),
        [head] if head >= 0 => Some(operation(&json!({"op": "hugetlb_free", "hstate": 1, "at": head}))),
        _ => None,
    };
    let mut document = document(1);
    document["actors"][0]["program"] = json!([{"op": "hugetlb_use", "hstate": 1}]);
    let options = r#"{"threads": 3, "seconds": 60.0, "rounds": 50}"#;
    let source = |_: usize, results: &[i64]| drive(results, next);
    let done =
        session::stress(&document.to_string(), options, None, Some(&source), &|| false, &mut |_| {}).expect("it runs");
    let counts = &done["actors"][1];
    assert_eq!(
        (&counts["name"], &counts["rounds"], &counts["operations"]),
        (&json!("steps"), &json!(50), &json!(100)),
        "{done}"
    );
    assert_eq!(&counts["by_kind"]["hugetlb_free"], &json!(50), "{done}");
    // Whoever uses a page at that moment keeps it from being freed.
    assert!(counts["errors"].as_object().is_some_and(|errors| errors.keys().all(|e| e == "EBUSY")), "{done}");
    let failing = |_: usize, _: &[i64]| Err(Unanswered::Failed("no idea".into()));
    let error = session::stress(&document.to_string(), options, None, Some(&failing), &|| false, &mut |_| {})
        .expect_err("it fails");
    assert_eq!(error.to_string(), "actor \"steps\", step 1: no idea");
}
