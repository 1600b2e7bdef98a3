//! A violation that the explored machine finds, again on the CPUs of the checked machine: the same kernel code in the
//! recorded order, judged by that machine's own rules of access. One thread drives all of them: in an
//! order that was recorded nobody waits for a lock.

use std::cell::OnceCell;
use std::collections::HashMap;

use serde_json::{Value, json};
use vmemmap_arch::{Cpu, Frame, Invariant, LockId, Mode};
use vmemmap_explore::counterexample::replay::Options;
use vmemmap_explore::counterexample::report::ReplayReport;
use vmemmap_explore::counterexample::trace::Trace;
use vmemmap_explore::model::{AccessSet, Described, InvariantSet, Model, Violation};
use vmemmap_lab::document::Document;
use vmemmap_lab::live::LiveMachine;
use vmemmap_lab::programs;
use vmemmap_lab::scenario::{Actor, Scenario};
use vmemmap_lab::session;
use vmemmap_lab::world::Explored;
use vmemmap_machine::explored::Context;
use vmemmap_machine::op::{Op, Reply, Tok};
use vmemmap_machine::{Checked, Machine};

/// Who holds a lock: readers by CPU, and a writer.
#[derive(Default)]
struct Holders {
    readers: Vec<u8>,
    writer: Option<u8>,
}

/// Neighbours of a frame in a private list: before and behind it.
type Links = (Option<Frame<Tok>>, Option<Frame<Tok>>);

/// Makes the machine as it is before the actors start.
type Boot<'m> = &'m dyn Fn() -> LiveMachine;

/// Checked CPUs as a model whose operations execute when they are told to. Real words cannot be undone: each run has a
/// machine of its own, made in one of the `places`.
struct InOrder<'m> {
    boot: Boot<'m>,
    places: std::slice::Iter<'m, OnceCell<LiveMachine>>,
    actors: u8,
    machine: &'m Machine,
    cpus: Vec<Checked<'m>>,
    locks: HashMap<LockId, Holders>,
    in_rcu: Vec<u8>,
    links: HashMap<u64, Links>,
}

impl<'m> InOrder<'m> {
    fn new(boot: Boot<'m>, places: &'m [OnceCell<LiveMachine>], actors: u8) -> Self {
        let mut places = places.iter();
        let machine = places.next().expect("a place").get_or_init(boot).machine();
        let cpus = (0..actors).map(|cpu| machine.checked_cpu(cpu)).collect();
        Self { boot, places, actors, machine, cpus, locks: HashMap::new(), in_rcu: Vec::new(), links: HashMap::new() }
    }

    fn take(&mut self, actor: u8, lock: LockId, mode: Mode) {
        let holders = self.locks.entry(lock).or_default();
        match mode {
            Mode::Read => holders.readers.push(actor),
            Mode::Write => holders.writer = Some(actor),
        }
    }

    fn is_free(&self, actor: u8, lock: LockId, mode: Mode) -> bool {
        self.locks
            .get(&lock)
            .is_none_or(|h| h.writer.is_none() && (mode == Mode::Read || h.readers.iter().all(|r| *r == actor)))
    }
}

fn neighbour(found: Option<Frame<Tok>>) -> Reply {
    found.map_or(Reply::NOTHING, Reply::frame)
}

impl Model for InOrder<'_> {
    type Op = Op;
    type Reply = Reply;
    type Mark = ();

    fn reset(&mut self) {
        self.machine = self.places.next().expect("a place for each run").get_or_init(self.boot).machine();
        self.cpus = (0..self.actors).map(|cpu| self.machine.checked_cpu(cpu)).collect();
        self.locks.clear();
        self.in_rcu.clear();
        self.links.clear();
    }
    fn checkpoint(&mut self) {}
    fn rollback(&mut self, (): &()) {
        unreachable!("real CPUs cannot go back; a trace is only run forward on them");
    }
    fn is_local(op: &Op) -> bool {
        op.is_local()
    }
    fn outcomes(&mut self, actor: u8, op: &Op) -> u16 {
        let free = match *op {
            Op::Acquire { lock, mode } => self.is_free(actor, lock, mode),
            Op::WaitUntil { var, condition } => condition.holds(self.machine.var(var)),
            Op::RcuWait => self.in_rcu.iter().all(|a| *a == actor),
            _ => true,
        };
        u16::from(free)
    }
    fn access_set(&mut self, _actor: u8, _op: &Op, _out: &mut AccessSet) {}
    fn observed(reply: Reply) -> u64 {
        Explored::observed(reply)
    }
    fn execute(&mut self, actor: u8, op: &Op, _outcome: u16) -> Reply {
        match *op {
            Op::ListLink { before, frame } => {
                self.links.insert(frame.pa.0, (before, None));
                if let Some(b) = before {
                    self.links.entry(b.pa.0).or_default().1 = Some(frame);
                }
                return Reply::default();
            }
            Op::ListPrevious { frame } => return neighbour(self.links.get(&frame.pa.0).and_then(|l| l.0)),
            Op::ListNext { frame } => return neighbour(self.links.get(&frame.pa.0).and_then(|l| l.1)),
            Op::Acquire { lock, mode } => self.take(actor, lock, mode),
            Op::Release { lock, mode: Mode::Write } => self.locks.entry(lock).or_default().writer = None,
            Op::Release { lock, mode: Mode::Read } => {
                let readers = &mut self.locks.entry(lock).or_default().readers;
                readers.iter().position(|r| *r == actor).map(|at| readers.remove(at));
            }
            Op::RcuReadLock => self.in_rcu.push(actor),
            Op::RcuReadUnlock => {
                self.in_rcu.iter().position(|r| *r == actor).map(|at| self.in_rcu.remove(at));
            }
            _ => {}
        }
        let reply = on_cpu(&self.cpus[usize::from(actor)], op);
        if let Op::TryAcquire { lock, mode } = *op
            && reply.value != 0
        {
            self.take(actor, lock, mode);
        }
        reply
    }
    fn fingerprint(&self) -> u128 {
        0
    }
    fn violated(&self) -> InvariantSet {
        if self.machine.violation_count() == 0 {
            return InvariantSet::NONE;
        }
        Invariant::ALL.into_iter().filter(|i| self.machine.violations_of(*i) != 0).collect()
    }
    fn waits_for(&self, _actor: u8, _op: &Op) -> u16 {
        0
    }
    fn violations(&self) -> Vec<Violation> {
        let reported = |v: &vmemmap_machine::Violation| Violation {
            invariant: v.invariant,
            address: v.address,
            actor: v.actor.cpu,
            step: v.step,
            message: v.to_string(),
            evidence: (),
        };
        self.machine.violations().iter().map(reported).collect()
    }
    /// No place: frames have other addresses here.
    fn describe(&self, _actor: u8, op: &Op) -> Described {
        Described { op: op.name().to_owned(), ..Described::default() }
    }
    fn describe_after(&self, _actor: u8, _op: &Op, _reply: Reply, _text: &mut Described) {}
}

/// What `OpCpu` made of a call, as that call.
fn on_cpu(cpu: &Checked<'_>, op: &Op) -> Reply {
    let entry = |e: vmemmap_arch::Entry<Tok>| Reply { value: e.desc.0, tok: e.tok };
    match *op {
        Op::Root => return Reply::frame(cpu.root()),
        Op::Read { at, order } => return entry(cpu.read(at, order)),
        Op::Write { at, new, order } => cpu.write(at, new, order),
        Op::Swap { at, new, order } => return entry(cpu.swap(at, new, order)),
        Op::CompareExchange { at, old, new, order } => {
            return match cpu.compare_exchange(at, old, new, order) {
                Ok(found) | Err(found) => entry(found),
            };
        }
        Op::Barrier(barrier) => cpu.barrier(barrier),
        Op::Tlbi(tlbi) => cpu.tlbi(tlbi),
        Op::Load { va, order } => return Reply::of(cpu.load(va, order)),
        Op::Store { va, value, order } => cpu.store(va, value, order),
        Op::Rmw { va, op, order } => return Reply::of(cpu.rmw(va, op, order)),
        Op::Fill { va, template } => cpu.fill(va, template),
        Op::Speculate { va } => cpu.speculate(va),
        Op::Alloc(request) => return neighbour(cpu.alloc(request)),
        Op::Free { frame, order, kind } => cpu.free(frame, order, kind),
        Op::SplitFrame { frame, order } => cpu.split_frame(frame, order),
        Op::SplitRun { frame, order, into } => cpu.split_run(frame, order, into),
        Op::IsReserved { frame } => return Reply::of(cpu.is_reserved(frame).into()),
        Op::CopyFrame { from, to } => cpu.copy_frame(from, to),
        Op::CopyFromVa { from, to } => cpu.copy_from_va(from, to),
        Op::LoadFrame { frame, index } => return Reply::of(cpu.load_frame(frame, index)),
        Op::StoreFrame { frame, index, value } => cpu.store_frame(frame, index, value),
        Op::Range { start, bytes, op } => return Reply::obstacle(cpu.range_op(start, bytes, op).err()),
        Op::RangeInUse { start, bytes } => return Reply::obstacle(cpu.range_in_use(start, bytes)),
        Op::ClaimSelfHosted { start, frames } => return Reply::frame(cpu.claim_self_hosted(start, frames)),
        Op::IsSelfHosted { frame } => return Reply::of(cpu.is_self_hosted(frame).into()),
        Op::Acquire { lock, mode } => cpu.acquire(lock, mode),
        Op::TryAcquire { lock, mode } => return Reply::of(cpu.try_acquire(lock, mode).into()),
        Op::Release { lock, mode } => cpu.release(lock, mode),
        Op::VarLoad { var, order } => return Reply::of(cpu.var_load(var, order)),
        Op::VarStore { var, value, order } => cpu.var_store(var, value, order),
        Op::VarRmw { var, op, order } => return Reply::of(cpu.var_rmw(var, op, order)),
        Op::VarAdd { var, n, order } => cpu.var_add(var, n, order),
        Op::WaitUntil { var, condition } => return Reply::of(cpu.wait_until(var, condition)),
        Op::RcuReadLock => cpu.rcu_read_lock(),
        Op::RcuReadUnlock => cpu.rcu_read_unlock(),
        Op::RcuWait => cpu.synchronize_rcu(),
        Op::IrqDisable => cpu.irq_disable(),
        Op::IrqEnable => cpu.irq_enable(),
        Op::SendIpi { line } => return Reply::of(cpu.send_ipi(line)),
        Op::StopMachineBegin => cpu.stop_machine_begin(),
        Op::StopMachineEnd => cpu.stop_machine_end(),
        Op::SignalPending => return Reply::of(cpu.signal_pending().into()),
        Op::Warn { what, address, message } => cpu.warn(what, address, message),
        Op::ExpectStable { on } => cpu.expect_stable(on),
        Op::Exclusive { what, begin } => cpu.exclusive(what, begin),
        Op::Choose { n, why } => return Reply::of(cpu.choose(n, why).into()),
        _ => {}
    }
    Reply::default()
}

/// Runs that one replay may take: the exact one, the tolerant one, and a few rewinds.
const RUNS: usize = 16;

/// What is violated when a document is explored, each with its trace.
fn counterexamples(document: &Value) -> Value {
    let options = json!({"seconds": 60.0, "shorten_seconds": 0.5, "settle_seconds": 5.0});
    let answer = session::explore(&document.to_string(), &options.to_string(), &|| false, &mut |_| {})
        .expect("it can be explored");
    let mut answer: Value = serde_json::from_str(&answer).expect("JSON");
    answer["witnesses"].take()
}

/// Runs the trace of a counterexample on checked CPUs, under other policies if any are given. The trace, and what came
/// of it.
fn on_checked_cpus(document: &Value, counterexample: &Value, policies: &[(&str, &str)]) -> (Trace, ReplayReport) {
    let trace = Trace::parse(&counterexample["trace"].to_string()).expect("it was violated");
    let mut document = Document::parse(&document.to_string()).expect("as above");
    document.machine.policies.extend(policies.iter().map(|(row, value)| ((*row).to_owned(), (*value).to_owned())));
    let kernel = || document.machine.kernel().expect("as above");
    let boot = || {
        let live = LiveMachine::boot(kernel(), true).expect("it boots");
        for operation in &document.setup {
            live.run(&operation.operation()).expect("the setup ran when it was explored");
        }
        for (cpu, actor) in (0..).zip(&document.actors) {
            live.machine().set_actor(cpu, &actor.name);
        }
        assert_eq!(live.machine().violation_count(), 0, "{:?}", live.machine().violations());
        live
    };
    let actors = document.actors.iter().map(|a| Actor {
        name: a.name.clone(),
        cpu: a.cpu,
        rounds: a.rounds,
        body: a.body().expect("a program"),
        context: Context::Task,
        line: None,
    });
    let scenario = Scenario {
        name: document.name.clone(),
        variant: document.variant.clone(),
        digest: trace.digest.clone(),
        judged: document.judged().expect("as above"),
        actors: actors.collect(),
    };
    let places: [OnceCell<LiveMachine>; RUNS] = [const { OnceCell::new() }; RUNS];
    let in_order = InOrder::new(&boot, &places, scenario.actors.len() as u8);
    let how = Options { tolerant: true, seed: None, changed: true };
    let report = programs::replay(&kernel(), in_order, &scenario, &trace, how).expect("stacks");
    (trace, report)
}

/// The same invariant is violated at the same step, judged by the other machine in its own words.
fn violated_again(document: &Value, counterexample: &Value, words: &str) {
    let (trace, report) = on_checked_cpus(document, counterexample, &[]);
    let violated = report.violation.unwrap_or_else(|| panic!("{:?} {:?}", report.divergence, report.resynchronised));
    assert_eq!(
        (&violated.invariant, violated.step, report.continued),
        (&trace.violation.invariant, trace.violation.step, 0)
    );
    assert!(violated.message.contains(words), "{}", violated.message);
    assert!(report.resynchronised.iter().all(|r| r.by.is_some()), "{:?}", report.resynchronised);
}

const SECTION: u64 = 128 << 20;
/// Far from boot memory: blocks here share a PMD table of the vmemmap with nobody else.
const PLACE: u64 = 65 << 30;
const NEXT: u64 = PLACE + SECTION;

fn document(policies: &Value, setup: &Value, actors: &Value) -> Value {
    json!({
        "format": 1, "name": "4K", "variant": "6.1",
        "machine": {
            "granule": 4096, "va_bits": 48, "kernel": "6.1", "boot": [[1u64 << 30, SECTION]], "hotplug": [[PLACE,
                4 * SECTION]],
            "policies": policies,
        },
        "setup": setup, "actors": actors, "judged": ["I1", "I2", "I6"],
    })
}

fn hvo() -> Value {
    json!({"name": "HVO", "cpu": 0, "program": [{"op": "hugetlb_alloc", "hstate": 1, "at": PLACE >> 12}]})
}

fn hot_remove(start: u64) -> Value {
    json!({"name": "hot remove", "cpu": 1, "program": [{"op": "memory_remove", "start": start, "bytes": SECTION}]})
}

fn online() -> [Value; 2] {
    ["memory_add", "memory_online"].map(|op| json!({"op": op, "start": PLACE, "bytes": SECTION}))
}

/// R6: ptdump beside hot remove, without `get_online_mems`.
fn ptdump() -> Value {
    let pfns = json!({"start": PLACE >> 12, "end": NEXT >> 12});
    let walk = json!({"name": "ptdump", "cpu": 0, "program": [{"op": "ptdump_walk", "pfns": pfns}]});
    let setup = json!([{"op": "memory_add", "start": PLACE, "bytes": SECTION}]);
    document(&json!({"linear-map": "blocks", "walker": "mmap-only"}), &setup, &json!([walk, hot_remove(PLACE)]))
}

#[test]
fn ptdump_reads_a_freed_table_on_checked_cpus_too() {
    let document = ptdump();
    let found = counterexamples(&document);
    violated_again(&document, &found["I1"], "which was freed and is free; freed by hot remove");
    // With the lock that was missing, the walk waits in that order, and meets no freed table.
    let (_, report) = on_checked_cpus(&document, &found["I1"], &[("walker", "kernel")]);
    assert!(!report.violated && report.continued > 0, "{:?}", report.violation);
}

#[test]
fn the_table_in_the_hole_of_a_split_is_freed_on_checked_cpus_too() {
    let [add, online] = online();
    let setup = json!([add, online, {"op": "memory_add", "start": NEXT, "bytes": SECTION}]);
    let policies = json!({"linear-map": "blocks", "split": "bbm", "mapping": "blocks"});
    let document = document(&policies, &setup, &json!([hvo(), hot_remove(NEXT)]));
    let found = counterexamples(&document);
    violated_again(&document, &found["I1"], "store of entry 0 of the level-2 table");
    // The explored machine tells both histories of the table itself, not of the one above, whose entry is cleared.
    let again = session::replay(&found["I6"]["trace"].to_string(), "{}").expect("a trace");
    let reported = |role: &str, actor: &str| {
        again["histories"].as_array().into_iter().flatten().any(|h| h["role"] == role && h["actor"] == actor)
    };
    assert!(reported("unlinked", "hot remove") && reported("held", "HVO"), "{}", again["histories"]);
    let (_, report) = on_checked_cpus(&document, &found["I1"], &[("split", "store")]);
    assert!(!report.violated, "{:?}", report.violation);
}

#[test]
fn a_reader_meets_the_hole_on_checked_cpus_too() {
    let pfn = PLACE >> 12;
    let reader = json!({"name": "reader", "cpu": 1, "program": [{"op": "pfn_walk", "start": pfn, "end": pfn + 512,
        "step": 256}]});
    let policies = json!({"linear-map": "blocks", "split": "bbm", "mapping": "blocks"});
    let document = document(&policies, &json!(online()), &json!([hvo(), reader]));
    let found = counterexamples(&document);
    violated_again(&document, &found["I2"], "reader");
}
