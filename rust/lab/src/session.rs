//! Checks, replays and stresses as they come from outside: a scenario document and options, both JSON; the answer is
//! JSON again.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use vmemmap_arch::Va;
use vmemmap_arch::bbm::FeatBbm;
use vmemmap_kernel::{Errno, Kernel, Operation, Policies};
use vmemmap_machine::explored::{Conflict, Ordering, WorldOptions};

use crate::document::{
    ActorDocument, BbmLevel, ConflictName, Document, DocumentError, MemoryName, OneOrEach, Oracle, OrderingName,
    SpuriousFault,
};
use crate::live::{LiveError, LiveMachine, RealTables};
use crate::programs;
use crate::scenario::{Actor, Body, Scenario};
use crate::script::{Source, Transcript};
use crate::stress::{self, StressError, StressProgress};
use crate::world::{Explored, WorldError, booted};
use vmemmap_explore::check::options::{Options, Strategy};
use vmemmap_explore::check::outcome::Outcome;
use vmemmap_explore::check::part::Part;
use vmemmap_explore::counterexample::replay;
use vmemmap_explore::counterexample::trace::{Trace, TraceError};
use vmemmap_explore::reduction::options::Reduction;
use vmemmap_explore::runtime::schedule::{MAX_PREFIX, Prefix};
use vmemmap_explore::runtime::scripted::ScriptError;
use vmemmap_explore::search::report::{MAX_PREFIXES, Progress};

/// Why there is no answer; one line for people.
#[derive(Debug, Error)]
pub enum SessionError {
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("options: {0}")]
    Options(String),
    #[error("split is {depth}: more than {MAX_PREFIXES} prefixes; fewer operations make fewer")]
    Split { depth: u32 },
    #[error("this scenario starts from an image; only a stress does so")]
    Image,
    #[error("this scenario starts from an image, and none was given")]
    NoImage,
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error(transparent)]
    World(#[from] WorldError),
    #[error(transparent)]
    Live(#[from] LiveError),
    #[error("setup: {operation:?} (number {number}) failed with {errno}")]
    Setup { number: usize, operation: Operation, errno: Errno },
    #[error(transparent)]
    Stress(#[from] StressError),
    #[error(transparent)]
    Scripted(#[from] ScriptError),
    #[error("actor {0:?}: its steps look at results and are in Python; here only a program of operations can run")]
    Python(String),
    #[error("no memory for the stacks of the actors: {0}")]
    Stacks(#[from] io::Error),
}

/// Options of an exploration; all keys may be absent.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExploreOptions {
    pub strategy: StrategyName,
    pub seed: u64,
    pub executions: Option<u64>,
    pub seconds: Option<f64>,
    /// Bug depth that PCT aims at.
    pub depth: u32,
    /// In the place of the work that bounds it by default, on every host alike.
    pub shorten_seconds: Option<f64>,
    pub settle_seconds: Option<f64>,
    /// Threads of a long exhaustive search, from 1 up.
    pub workers: usize,
    /// For checking: work of an iteration after which they are set to it.
    pub branches_after: Option<u64>,
    /// For checking: which reductions an exhaustive search uses.
    pub reduction: ReductionName,
    /// Only the first so many operations of each execution, and the prefixes behind which others go on.
    pub split: Option<u32>,
    /// Only what is behind this one, as such an answer has it.
    pub prefix: Option<String>,
}

impl Default for ExploreOptions {
    fn default() -> Self {
        let o = Options::default();
        Self {
            strategy: StrategyName::Exhaustive,
            seed: 0,
            executions: None,
            seconds: o.seconds,
            depth: 3,
            shorten_seconds: None,
            settle_seconds: None,
            workers: 1,
            branches_after: None,
            reduction: ReductionName::Product,
            split: None,
            prefix: None,
        }
    }
}

/// All reductions, as the product has them; or fewer, which takes longer and must give the same answer. Not for
/// everyday use, hence no option of the command line. `merged` leaves out the over-approximation only; with fewer than
/// that, no observation is forgotten either. `cache` also counts the interleavings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReductionName {
    Product,
    Merged,
    CacheSleep,
    Cache,
}

impl From<ReductionName> for Reduction {
    fn from(name: ReductionName) -> Self {
        match name {
            ReductionName::Product => Self::PRODUCT,
            ReductionName::Merged => Self::MERGED,
            ReductionName::CacheSleep => Self { abstract_observations: false, ..Self::CACHE_SLEEP },
            ReductionName::Cache => Self { abstract_observations: false, ..Self::CACHE },
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StrategyName {
    Exhaustive,
    Random,
    Pct,
}

/// Options of a stress; all keys may be absent.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StressOptions {
    pub threads: Option<usize>,
    pub seconds: f64,
    pub rounds: Option<u64>,
    pub checked: bool,
    pub seed: u64,
}

impl Default for StressOptions {
    fn default() -> Self {
        let o = stress::Options::default();
        Self { threads: o.threads, seconds: o.seconds, rounds: o.rounds, checked: o.checked, seed: o.seed }
    }
}

/// Options of a replay; all keys may be absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayOptions {
    pub tolerant: bool,
    pub seed: Option<u64>,
    /// Other choices than those of the trace.
    pub policies: BTreeMap<String, String>,
}

fn options<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, SessionError> {
    serde_json::from_str(json).map_err(|e| SessionError::Options(e.to_string()))
}

fn finite(seconds: Option<f64>) -> Result<(), SessionError> {
    match seconds {
        Some(s) if !s.is_finite() || s < 0.0 || s > Duration::MAX.as_secs_f64() / 2.0 => {
            Err(SessionError::Options(format!("seconds is {s}: it is a number from 0 up")))
        }
        _ => Ok(()),
    }
}

fn digest(document: &Document) -> String {
    serde_json::to_string(document)
        .map_or_else(|_| String::new(), |text| format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes())))
}

fn scenario(document: &Document) -> Result<Scenario, SessionError> {
    let actor = |a: &ActorDocument| {
        let body = a.body()?;
        Ok(Actor { name: a.name.clone(), cpu: a.cpu, rounds: a.rounds, body, context: a.context.into(), line: None })
    };
    let actors: Result<Vec<Actor>, DocumentError> = document.actors.iter().map(actor).collect();
    Ok(Scenario {
        name: document.name.clone(),
        variant: document.variant.clone(),
        digest: digest(document),
        actors: actors?,
        judged: document.judged()?,
    })
}

fn setup(document: &Document) -> Vec<Operation> {
    document.setup.iter().map(|o| o.operation()).collect()
}

/// Stores of a CPU that may wait at a time in weak memory. One shows every pair of stores out of order; two, a store
/// that two others are late for.
const WAITING: u8 = 2;

/// What the environment may do on this kernel's machine.
fn world_options(document: &Document, kernel: &Kernel) -> WorldOptions {
    let (l, e) = (&kernel.layout, &document.environment);
    WorldOptions {
        strict: e.oracle == Oracle::Strict,
        alloc_failures: e.alloc_failures,
        preempt_rt: e.preempt_rt,
        spurious_fault_is_fatal: e.spurious_fault == SpuriousFault::Fatal,
        ets: e.ets.into(),
        ordering: match e.ordering {
            OrderingName::Published => Ordering::Published,
            OrderingName::Ordered => Ordering::Ordered,
        },
        store_buffer: if e.memory == MemoryName::Views { WAITING } else { 0 },
        feat_bbm: match &e.feat_bbm {
            OneOrEach::One(level) => vec![feat_bbm(*level)],
            OneOrEach::Each(levels) => levels.iter().copied().map(feat_bbm).collect(),
        },
        conflict: match e.conflict {
            ConflictName::AtWrite => Conflict::AtWrite,
            ConflictName::AtAccess => Conflict::AtAccess,
            ConflictName::Amalgamate => Conflict::Amalgamate,
            ConflictName::Abort => Conflict::Abort,
        },
        asids: e.asids.clone(),
        iommu: e.iommu,
        linear_map: Some(l.page_offset..Va(l.page_end.0)),
        vmalloc: Some(l.vmalloc_start..l.vmalloc_end),
        ..WorldOptions::default()
    }
}

/// Who runs on what: the actors, with the handlers of the interrupts that they send, and the machine as it is when they
/// start.
fn prepared(document: &Document, kernel: &Kernel) -> Result<(Scenario, Explored), SessionError> {
    let mut scenario = scenario(document)?;
    scenario.add_ipi_handlers(kernel);
    let mut early = Vec::new();
    if document.environment.memory == MemoryName::Views {
        scenario.add_store_buffers();
        early = scenario.add_load_queues(kernel);
    }
    let mut world = booted(kernel, scenario.actors.len() as u8, world_options(document, kernel), &setup(document))?;
    world.place(&scenario.places());
    world.load_early(&early);
    Ok((scenario, world))
}

const fn feat_bbm(level: BbmLevel) -> FeatBbm {
    match level {
        BbmLevel::Level0 => FeatBbm::Level0,
        BbmLevel::Level1 => FeatBbm::Level1,
        BbmLevel::Level2 => FeatBbm::Level2,
        BbmLevel::NoAbort => FeatBbm::NoAbort,
    }
}

/// `explore_with`, of a document whose actors all have programs.
///
/// # Errors
/// The same, and `Python`.
pub fn explore(
    document: &str,
    asked: &str,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<String, SessionError> {
    explore_with(document, asked, None, stop, progress)
}

/// Explore a document; the answer is JSON of the keys of `explore --json`, and `witnesses`, one shortest trace for each
/// invariant that was violated. `source` answers for the actors that have steps instead of a program.
///
/// # Errors
/// What is wrong with the document, the options, the setup, or the steps.
pub fn explore_with(
    document: &str,
    asked: &str,
    source: Option<&Source<'_>>,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<String, SessionError> {
    let document = Document::parse(document)?;
    let asked: ExploreOptions = options(asked)?;
    finite(asked.seconds)?;
    finite(asked.shorten_seconds)?;
    finite(asked.settle_seconds)?;
    if document.machine.image.is_some() {
        return Err(SessionError::Image);
    }
    let kernel = document.machine.kernel()?;
    let (scenario, world) = prepared(&document, &kernel)?;
    let how = Options {
        strategy: match asked.strategy {
            StrategyName::Exhaustive => Strategy::Exhaustive,
            StrategyName::Random => Strategy::Random,
            StrategyName::Pct => Strategy::Pct { depth: asked.depth },
        },
        seed: asked.seed,
        executions: asked.executions,
        seconds: asked.seconds,
        shorten_seconds: asked.shorten_seconds.unwrap_or(f64::INFINITY),
        settle_seconds: asked.settle_seconds.unwrap_or(f64::INFINITY),
        reduction: asked.reduction.into(),
        split: asked.split,
        prefix: part(&asked)?,
        workers: asked.workers,
        branches_after: asked.branches_after.unwrap_or(Options::default().branches_after),
        ..Options::default()
    };
    let transcript = match source {
        Some(source) => Some(Transcript::new(&(), scenario.actors.iter().map(|a| a.name.clone()).collect(), source)),
        None => programs_only(&scenario).map(|()| None)?,
    };
    let mut outcome =
        programs::explore(&kernel, world, &scenario, transcript.as_ref(), &how, stop, progress).map_err(|error| {
            match error.kind() {
                io::ErrorKind::InvalidInput => SessionError::Options(error.to_string()),
                _ => error.into(),
            }
        })?;
    if let Some(transcript) = &transcript {
        transcript.check()?;
    }
    if let Some(Part::Tree(prefixes)) = &outcome.part
        && prefixes.len() > MAX_PREFIXES
    {
        return Err(SessionError::Split { depth: asked.split.unwrap_or(0) });
    }
    for counterexample in outcome.counterexamples.values_mut() {
        let document = transcript
            .as_ref()
            .map_or_else(|| document.clone(), |transcript| as_it_ran(&document, transcript, &counterexample.pasts));
        counterexample.trace.digest = digest(&document);
        counterexample.trace.policies = chosen(&kernel);
        counterexample.trace.document =
            serde_json::to_value(&document).map_err(|e| SessionError::Options(e.to_string()))?;
    }
    let asked = transcript.as_ref().map(Transcript::asked);
    serde_json::to_string(&Answer { outcome, asked }).map_err(|e| SessionError::Options(e.to_string()))
}

/// An outcome, and what the actors with steps were asked.
#[derive(Serialize)]
struct Answer<T: Serialize> {
    #[serde(flatten)]
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<T>,
}

/// Behind which prefix to explore, if not everything.
fn part(asked: &ExploreOptions) -> Result<Option<Prefix>, SessionError> {
    let wrong = |text: String| Err(SessionError::Options(text));
    match (asked.split, &asked.prefix) {
        (None, None) => Ok(None),
        _ if asked.strategy != StrategyName::Exhaustive => {
            wrong("split and prefix: only an exhaustive search has parts".into())
        }
        (Some(_), Some(_)) => wrong("split and prefix: a part is not split again".into()),
        (Some(depth), None) if !(1..=MAX_PREFIX as u32).contains(&depth) => {
            wrong(format!("split is {depth}: expected 1 to {MAX_PREFIX} operations"))
        }
        (Some(_), None) => Ok(None),
        (None, Some(text)) => text.parse().map(Some).or_else(wrong),
    }
}

/// The document with a program of the operations that each actor began, in the place of its steps: so a trace runs
/// again without whoever answered.
fn as_it_ran(document: &Document, transcript: &Transcript<'_>, pasts: &[(u8, u32)]) -> Document {
    let mut document = document.clone();
    for (number, actor) in document.actors.iter_mut().enumerate().filter(|(_, a)| a.steps.is_some()) {
        let own = pasts.iter().filter(|(a, _)| usize::from(*a) == number);
        actor.program = Some(own.filter_map(|(_, past)| transcript.document(number, *past)).collect());
        (actor.steps, actor.rounds) = (None, 1);
    }
    document
}

/// # Errors
/// `Python`: an actor has steps instead of a program.
fn programs_only(scenario: &Scenario) -> Result<(), SessionError> {
    match scenario.actors.iter().find(|a| a.body == Body::Scripted) {
        Some(actor) => Err(SessionError::Python(actor.name.clone())),
        None => Ok(()),
    }
}

/// The choice in each row of the policy table.
fn chosen(kernel: &Kernel) -> BTreeMap<String, String> {
    Policies::ROWS.iter().filter_map(|row| Some(((*row).to_owned(), kernel.policies.get(row)?.to_owned()))).collect()
}

/// Run a trace again on the machine of its own document; the answer has the keys of `replay --json`.
///
/// # Errors
/// What is wrong with the trace, its document or the options. That it runs otherwise is an answer.
pub fn replay(trace: &str, asked: &str) -> Result<serde_json::Value, SessionError> {
    let trace = Trace::parse(trace)?;
    let asked: ReplayOptions = options(asked)?;
    let mut document = Document::parse(&trace.document.to_string())?;
    if trace.document["environment"]["ordering"].is_null() {
        // Of a time when there was no choice.
        document.environment.ordering = OrderingName::Published;
    }
    let changed = !asked.policies.is_empty();
    document.machine.policies.extend(asked.policies);
    if document.machine.image.is_some() {
        return Err(SessionError::Image);
    }
    let kernel = document.machine.kernel()?;
    let (scenario, world) = prepared(&document, &kernel)?;
    programs_only(&scenario)?;
    let how = replay::Options { tolerant: asked.tolerant, seed: asked.seed, changed };
    let report = programs::replay(&kernel, world, &scenario, &trace, how)?;
    let mut answer = serde_json::json!({
        "scenario": scenario.name,
        "variant": scenario.variant,
        "digest": scenario.digest,
        "kernel": document.machine.kernel,
        "policies": chosen(&kernel),
        "tolerant": asked.tolerant,
        "seed": asked.seed,
        "version": env!("CARGO_PKG_VERSION"),
        "recorded": {
            "version": trace.version,
            "digest": trace.digest,
            "policies": trace.policies,
            "violation": trace.violation,
            "steps": trace.operations,
            "switches": trace.switches,
            "shortest": trace.shortest,
            "strategy": trace.strategy,
            "seed": trace.seed,
            "memory_model": trace.memory_model,
        },
    });
    let reported = serde_json::to_value(report).map_err(|e| SessionError::Options(e.to_string()))?;
    if let (Some(answer), serde_json::Value::Object(reported)) = (answer.as_object_mut(), reported) {
        answer.extend(reported);
    }
    Ok(answer)
}

/// Stress a document on real threads; the answer has the keys of `stress --json`. `image`: the tables that the machine
/// starts from, if the document names some. `source` answers for the actors that have steps instead of a program.
///
/// # Errors
/// What is wrong with the document, the options, the image, the setup, or the steps.
pub fn stress(
    document: &str,
    asked: &str,
    image: Option<&RealTables<'_>>,
    source: Option<&Source<'_>>,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(StressProgress),
) -> Result<serde_json::Value, SessionError> {
    let document = Document::parse(document)?;
    let asked: StressOptions = options(asked)?;
    finite(Some(asked.seconds))?;
    let live = match (image, &document.machine.image) {
        (Some(real), _) => {
            let rows = document.machine.policies.iter().map(|(k, v)| (k.as_str(), v.as_str()));
            LiveMachine::load(real, crate::document::policies(rows)?, asked.checked)?
        }
        (None, Some(_)) => return Err(SessionError::NoImage),
        (None, None) => LiveMachine::boot(document.machine.kernel()?, asked.checked)?,
    };
    let kernel = live.kernel();
    for (number, operation) in setup(&document).into_iter().enumerate() {
        if let Err(errno) = live.run(&operation) {
            return Err(SessionError::Setup { number, operation, errno });
        }
    }
    let scenario = scenario(&document)?;
    if source.is_none() {
        programs_only(&scenario)?;
    }
    let how = stress::Options {
        threads: asked.threads,
        seconds: asked.seconds,
        rounds: asked.rounds,
        checked: asked.checked,
        seed: asked.seed,
    };
    let stressed = stress::stress(kernel, live.machine(), &scenario, source, &how, stop, progress)?;
    serde_json::to_value(stressed).map_err(|e| SessionError::Options(e.to_string()))
}
