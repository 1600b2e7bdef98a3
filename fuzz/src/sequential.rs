//! Any bytes as a machine and a sequence of kernel operations, run one after the other on each kind of machine: every
//! operation ends in the same number or errno, and the machines in the same tables, kernel variables, struct pages and
//! counters.
//!
//! Machines differ in which free frame they hand out, so tables are compared up to a renaming of the frames that hold
//! tables and struct pages: a frame of one machine stands for one frame of the other, wherever it is met.

use std::collections::HashMap;
use std::fmt;

use vmemmap_arch::tables::walk;
use vmemmap_arch::{Cpu, Geometry, Granule, Kind, Layout, Order, Pa, Pfn, PfnRange, TableView, Va, Var, Version, Zone};
use vmemmap_kernel::state::{Hpage, Section, ZONE_TAILS, ZONES, section_flag};
use vmemmap_kernel::{Errno, Kernel, Operation, Policies, Ram};
use vmemmap_lab::live::LiveMachine;
use vmemmap_lab::setup::alone;
use vmemmap_lab::world::{Explored, booted};
use vmemmap_machine::Counters;
use vmemmap_machine::costed::{Broadcast, Costed, Costs, Hub, Options};
use vmemmap_machine::explored::WorldOptions;

use crate::bytes::Bytes;

const BASE: u64 = 1 << 30;
/// What is counted alike: of loads and reads each machine leaves out what it knows already, in its own way.
const COUNTED: [&str; 12] = [
    "writes",
    "exchanges",
    "tlbi",
    "dsb",
    "isb",
    "smp_barriers",
    "ipi",
    "stores",
    "tables_freed",
    "frames_allocated",
    "frames_freed",
    "alloc_failures",
];
const BARRIERS: [&str; 5] = ["tlbi", "dsb", "isb", "smp_barriers", "ipi"];
/// Most operations of one sequence.
const OPERATIONS: usize = 48;
/// Policies that any order of operations keeps sound where nobody runs beside them.
const POLICIES: [(&str, &str); 24] = [
    ("mapping", "basepages"),
    ("mapping", "blocks"),
    ("update", "swap"),
    ("update", "clear-then-set"),
    ("update", "clear-then-set-each"),
    ("update", "bbm"),
    ("update", "bbm-each"),
    ("update", "bbm-fault-waits"),
    ("update", "bbm-stop-machine"),
    ("update", "bbm-ipi-pause"),
    ("update", "read-only-first"),
    ("head", "keep"),
    ("batch", "none"),
    ("split", "bbm"),
    ("split", "bbm-stop-machine"),
    ("split", "bbm-ipi-pause"),
    ("invalidate", "range-op"),
    ("invalidate", "page"),
    ("table-free", "never"),
    ("table-free", "grace-period"),
    ("hvo-config", "no"),
    ("tlb-range", "yes"),
    ("linear-map", "blocks"),
    ("linear-map", "cont"),
];

/// What an input says.
#[derive(Debug)]
pub struct Sequence {
    granule: Granule,
    version: Version,
    hvo: bool,
    policies: Vec<(&'static str, &'static str)>,
    pub operations: Vec<Operation>,
}

impl Sequence {
    /// Everything is a sequence.
    #[must_use]
    pub fn decode(data: &[u8]) -> Self {
        let input = &mut Bytes(data);
        let granule = [Granule::K4, Granule::K4, Granule::K16, Granule::K64][usize::from(input.byte()) % 4];
        let version = Version::ALL[usize::from(input.byte()) % Version::ALL.len()];
        let hvo = !input.rarely(8);
        let policies = (0..input.byte() % 4).map(|_| POLICIES[usize::from(input.byte()) % POLICIES.len()]).collect();
        let mut it = Self { granule, version, hvo, policies, operations: Vec::new() };
        let kernel = it.kernel();
        while !input.0.is_empty() && it.operations.len() < OPERATIONS {
            it.operations.push(operation(input, &kernel));
        }
        it
    }

    /// Pages that the operations are about, heads and tails: those whose struct pages they change.
    fn named(&self, k: &Kernel) -> Vec<Pfn> {
        let first = |operation: &Operation| match *operation {
            Operation::HugetlbAlloc { at: Some(at), .. }
            | Operation::HugetlbFree { at: Some(at), .. }
            | Operation::HugetlbPut { at, .. }
            | Operation::HugetlbDissolve { at } => Some(at),
            Operation::SpeculativeRef { pfn }
            | Operation::MemoryFailure { pfn }
            | Operation::GetHugePageForHwpoison { pfn } => Some(pfn),
            Operation::MemoryAdd { start, .. }
            | Operation::MemoryOnline { start, .. }
            | Operation::DeviceAdd { start, .. } => Some(k.geometry.pfn(start)),
            _ => None,
        };
        let mut named: Vec<Pfn> = self.operations.iter().filter_map(first).collect();
        named.sort_unstable();
        named.dedup();
        // The first tails, those in another page than the head's, and heads of what a demotion may have made of it.
        named.iter().flat_map(|head| [0, 1, 2, 3, 16, 65, 511, 512].map(|n| Pfn(head.0 + n))).collect()
    }

    fn kernel(&self) -> Kernel {
        let geometry = Geometry::new(self.granule, 48).expect("a pair that arm64 has");
        let layout = Layout::new(geometry, self.version, BASE as i64).expect("48 bits are in every version");
        let mut policies = Policies::default();
        for (row, value) in &self.policies {
            policies.set(row, value).expect("a policy that the table has");
        }
        let section = geometry.section_size();
        let boot = if self.granule == Granule::K64 { 6 } else { 18 };
        let ram = [
            Ram { start: Pa(BASE), bytes: boot * section, boot: true },
            Ram { start: Pa(BASE + boot * section), bytes: 2 * section, boot: false },
        ];
        Kernel::new(layout, policies, &ram, self.hvo)
    }
}

fn operation(input: &mut Bytes<'_>, k: &Kernel) -> Operation {
    let g = k.geometry;
    let (sizes, count) = g.hugetlb_sizes();
    let section = g.section_size();
    let hot = k.ram()[1].start;
    let kind = input.byte() % 40;
    // Small numbers, so that operations meet.
    let hstate = input.byte() % count as u8;
    let n = u64::from(input.byte() % 8);
    let pages = sizes[usize::from(hstate)];
    // Neither where the boot takes its frames nor where explored actors have theirs. 1 GiB in: a gigantic page.
    let region = [Pa(BASE + (section.max(1 << 30))), Pa(BASE + 3 * section), hot][(n % 3) as usize];
    let room = (k.ram()[1].start.since(region).max(3 * section) - section) >> g.page_shift();
    let at =
        Pfn((g.pfn(region).0.next_multiple_of(pages)) + u64::from(input.byte() % 8) % (room / pages).max(1) * pages);
    let start = hot.plus(n % 2 * section);
    let bytes = if n % 4 == 2 { 2 * section } else { section };
    let start = if bytes == section { start } else { hot };
    match kind {
        0..6 => Operation::HugetlbAlloc { hstate, at: Some(at) },
        6..8 => Operation::HugetlbFree { hstate, at: Some(at) },
        8 => Operation::HugetlbFree { hstate, at: None },
        // Which frames a pool grows by is the machine's own affair, and so is which surplus page a fault takes.
        9 => Operation::NrHugepages { hstate, count: 0 },
        10 => Operation::HugetlbUse { hstate },
        11 | 12 => Operation::HugetlbDemote { hstate, count: 1 + n % 3 },
        13 => Operation::HugetlbOvercommit { hstate, count: 0 },
        14 => Operation::HugetlbReserve { hstate, delta: n as i64 - 3 },
        15 => Operation::HugetlbGet { hstate },
        16 => Operation::HugetlbPut { hstate, at },
        17 => Operation::HugetlbDissolve { at },
        18 => Operation::HugetlbDeferredFree,
        19 => Operation::SetHvo { on: n % 2 == 0 },
        20..23 => Operation::MemoryAdd { start, bytes, memmap_on_memory: n >= 4 },
        23 | 24 => Operation::MemoryOnline { start, bytes, zone: if n >= 4 { Zone::Normal } else { Zone::Movable } },
        25 => Operation::MemoryOffline { start, bytes },
        26 => Operation::MemoryRemove { start, bytes },
        27 => Operation::MemoryOfflineAndRemove { start, bytes },
        28 => Operation::DeviceAdd { start: hot.plus(n << 21 << (g.page_shift() - 12)), bytes: part(k, n) },
        29 => Operation::DeviceRemove { start: hot.plus(n << 21 << (g.page_shift() - 12)), bytes: part(k, n) },
        30 => Operation::PtdumpWalk { range: None, pfns: (n % 2 == 0).then(|| around(at, pages)) },
        31 => Operation::PtdumpCheckWx,
        32 => Operation::PfnWalk { start: at, end: Pfn(at.0 + pages), step: 1 + pages / 16 },
        33 => Operation::SpeculativeRef { pfn: Pfn(at.0 + n) },
        34 => Operation::MemoryFailure { pfn: Pfn(at.0 + n) },
        35 => Operation::GetHugePageForHwpoison { pfn: at },
        36 => Operation::StablePageFlags { pfn: Pfn(at.0 + n) },
        37 => Operation::SetMemoryValid { pfn: at, pages: 1 + n, on: n % 2 == 0 },
        38 => Operation::VmallocCycle { pages: 1 + n },
        _ => Operation::NrPagetable,
    }
}

/// Whole sub-sections.
fn part(k: &Kernel, n: u64) -> u64 {
    (1 + n % 3) << 21 << (k.geometry.page_shift() - 12)
}

fn around(at: Pfn, pages: u64) -> PfnRange {
    at..Pfn(at.0 + pages)
}

/// One machine, as the comparison sees it.
trait Subject {
    fn run(&mut self, operation: &Operation) -> Result<u64, Errno>;
    fn var(&self, var: Var) -> u64;
    fn load(&mut self, va: Va) -> u64;
    fn tables(&self) -> &dyn TableView;
    /// What it counts since the boot.
    fn counters(&self) -> Vec<(&'static str, u64)>;
}

struct Live<'m> {
    live: &'m LiveMachine,
    costs: Option<&'m Hub>,
    at_boot: Counters,
}

impl<'m> Live<'m> {
    fn new(live: &'m LiveMachine, costs: Option<&'m Hub>) -> Self {
        Self { live, costs, at_boot: live.machine().counters() }
    }
    fn on_cpu<R>(&self, work: impl Work<R>) -> R {
        let machine = self.live.machine();
        match self.costs {
            Some(hub) => work.on(&Costed::new(hub, &machine.cpu(0), 0, &|| turn(hub), &|_| {})),
            None if self.live.is_checked() => work.on(&machine.checked_cpu(0)),
            None => work.on(&machine.cpu(0)),
        }
    }
}

/// The only CPU is the next.
fn turn(hub: &Hub) {
    assert_eq!(hub.next(), Some(0), "nobody to wait for");
}

/// Something to do on a CPU of whichever machine.
trait Work<R> {
    fn on<C: Cpu>(self, cpu: &C) -> R;
}

struct Run<'o>(&'o Kernel, &'o Operation);
impl Work<Result<u64, Errno>> for Run<'_> {
    fn on<C: Cpu>(self, cpu: &C) -> Result<u64, Errno> {
        self.1.run(self.0, cpu)
    }
}
struct Load(Va);
impl Work<u64> for Load {
    fn on<C: Cpu>(self, cpu: &C) -> u64 {
        cpu.load(self.0, Order::Plain)
    }
}

impl Subject for Live<'_> {
    fn run(&mut self, operation: &Operation) -> Result<u64, Errno> {
        self.on_cpu(Run(self.live.kernel(), operation))
    }
    fn var(&self, var: Var) -> u64 {
        self.live.machine().var(var)
    }
    fn load(&mut self, va: Va) -> u64 {
        self.on_cpu(Load(va))
    }
    fn tables(&self) -> &dyn TableView {
        self.live.machine()
    }
    fn counters(&self) -> Vec<(&'static str, u64)> {
        let now = self.live.machine().counters().named();
        let since = self.at_boot.named();
        let all = now.into_iter().zip(since).map(|((name, now), (_, then))| (name, now - then));
        let of_machine = all.filter(|(name, _)| COUNTED.contains(name));
        match self.costs {
            None => of_machine.collect(),
            // Invalidates and barriers are the interconnect's there, and never reach the machine below.
            Some(hub) => of_machine
                .filter(|(name, _)| !BARRIERS.contains(name))
                .chain(hub.counted().named().into_iter().filter(|(name, _)| ["tlbi", "dsb"].contains(name)))
                .collect(),
        }
    }
}

struct OnWorld<'k> {
    world: Explored,
    kernel: &'k Kernel,
}

impl Subject for OnWorld<'_> {
    fn run(&mut self, operation: &Operation) -> Result<u64, Errno> {
        alone(&mut self.world, &self.kernel.geometry, |cpu| operation.run(self.kernel, cpu))
            .expect("nobody to wait for")
    }
    fn var(&self, var: Var) -> u64 {
        self.world.0.var(var)
    }
    fn load(&mut self, va: Va) -> u64 {
        alone(&mut self.world, &self.kernel.geometry, |cpu| Load(va).on(cpu)).expect("nobody to wait for")
    }
    fn tables(&self) -> &dyn TableView {
        &self.world.0
    }
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// Which frame of one machine stands for which of the other.
#[derive(Default)]
struct Renaming {
    there: HashMap<Pa, Pa>,
    back: HashMap<Pa, Pa>,
}

impl Renaming {
    fn same(&mut self, a: Pa, b: Pa) -> bool {
        *self.there.entry(a).or_insert(b) == b && *self.back.entry(b).or_insert(a) == a
    }
}

/// What differs first.
struct Difference(String);

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn tables(k: &Kernel, a: &dyn TableView, b: &dyn TableView, names: &mut Renaming) -> Result<(), Difference> {
    let g = &k.geometry;
    let vmemmap = k.layout.page_va(g.pfn(k.vars.base))..k.layout.page_va(g.pfn(k.vars.limit));
    let mut left = vec![(a.root(), b.root(), g.top(), Va(0))];
    while let Some((one, other, level, first)) = left.pop() {
        let differ = |what: &str, va: Va| Err(Difference(format!("{what} at {:#x}, level {}", va.0, level.0)));
        if !names.same(one, other) {
            return differ("another table", first);
        }
        for index in 0..g.entries() {
            let va = first.plus(index as u64 * g.entry_span(level));
            let (Some(p), Some(q)) = (a.word(one, index), b.word(other, index)) else {
                return differ("a table that is not there", va);
            };
            let attributes = !g.address_mask();
            match (g.kind(p, level), g.kind(q, level)) {
                (Kind::Table(p), Kind::Table(q)) => left.push((p, q, level.next(), va)),
                (Kind::Page(x), Kind::Page(y)) | (Kind::Block(x), Kind::Block(y)) => {
                    // With LPA2 some of the attributes' bits are of the address; 48 bits have none.
                    let whole = Va(va.0 | if va.0 >> 47 & 1 == 1 { !0 << 48 } else { 0 });
                    let same = if vmemmap.contains(&whole) { names.same(x, y) } else { x == y };
                    if !same || p.0 & attributes != q.0 & attributes {
                        return Err(Difference(format!("{:#x} and {:#x} at {:#x}", p.0, q.0, whole.0)));
                    }
                }
                _ if p == q => {}
                _ => return Err(Difference(format!("{:#x} and {:#x} at {:#x}, level {}", p.0, q.0, va.0, level.0))),
            }
        }
    }
    Ok(())
}

/// Everything that two machines at rest can be compared by.
fn compare(k: &Kernel, named: &[Pfn], a: &mut dyn Subject, b: &mut dyn Subject) -> Result<(), Difference> {
    let mut names = Renaming::default();
    tables(k, a.tables(), b.tables(), &mut names)?;
    let tails = k.vars.zone_tail(0, 0).0..k.vars.zone_tail(ZONES - 1, ZONE_TAILS - 1).0 + 1;
    for n in 0..k.vars.count() as u32 {
        let (x, y) = (a.var(Var(n)), b.var(Var(n)));
        let frames = tails.contains(&n) && x != 0 && y != 0;
        if x != y && !(frames && names.same(Pa(x), Pa(y))) {
            return Err(Difference(format!("variable {n} ({}): {x:#x} and {y:#x}", name(k, n))));
        }
    }
    for &pfn in named {
        let pa = k.geometry.pa(pfn);
        if !k.vars.contains(pa) {
            continue;
        }
        let section = k.vars.section(k.vars.section_number(pa), Section::MemMap);
        let va = k.layout.page_va(pfn);
        let is_mapped = walk(a.tables(), va).is_some_and(|found| found.output.is_some());
        if !is_mapped || a.var(section) & section_flag::HAS_MEM_MAP == 0 {
            continue;
        }
        for word in 0..8 {
            let (x, y) = (a.load(va.plus(word * 8)), b.load(va.plus(word * 8)));
            if x != y {
                return Err(Difference(format!("word {word} of the struct page of {:#x}: {x:#x} and {y:#x}", pfn.0)));
            }
        }
    }
    let known = b.counters();
    for (name, x) in a.counters() {
        match known.iter().find(|(other, _)| *other == name) {
            Some(&(_, y)) if x != y => return Err(Difference(format!("{name}: {x} and {y}"))),
            _ => {}
        }
    }
    Ok(())
}

/// For people.
fn name(k: &Kernel, n: u32) -> String {
    let first = k.vars.hpage(0, Hpage::Next).0;
    if n >= first { format!("hugepage slot {}", (n - first) / 2) } else { "scalar, pool, section or block".into() }
}

/// How far an input came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reached {
    pub operations: usize,
    /// Operations that ended in no errno.
    pub done: usize,
}

/// # Panics
/// Where two machines differ.
pub fn run(data: &[u8]) -> Reached {
    let sequence = Sequence::decode(data);
    let k = sequence.kernel();
    let boot = |checked| LiveMachine::boot(k, checked).expect("memory enough");
    let (native, checked, paid) = (boot(false), boot(true), boot(false));
    let hub = Hub::new(Options {
        costs: Costs::from_ns(|name| Some(f64::from(name != "irq_masked_every"))).expect("numbers"),
        broadcast: Broadcast::Dvm,
        cpus: 1,
        pause_is_nmi: true,
        seed: 0,
    });
    turn(&hub);
    let options = WorldOptions { linear_map: Some(k.layout.page_offset..k.layout.page_end), ..WorldOptions::default() };
    let mut world = OnWorld { world: booted(&k, 1, options, &[]).expect("memory enough"), kernel: &k };
    let mut on_native = Live::new(&native, None);
    let mut others: [(&str, Live<'_>); 2] =
        [("checked", Live::new(&checked, None)), ("costed", Live::new(&paid, Some(&hub)))];
    let mut reached = Reached { operations: 0, done: 0 };
    for operation in &sequence.operations {
        let expected = on_native.run(operation);
        for (name, other) in &mut others {
            assert_eq!(other.run(operation), expected, "{operation:?} on the {name} machine\n{sequence:#?}");
        }
        let explored = world.run(operation);
        if world.world.0.overflowed() {
            // It has no more frames for this actor: a bound that its verdicts name, and no behaviour.
            return reached;
        }
        assert_eq!(explored, expected, "{operation:?} on the explored machine\n{sequence:#?}");
        reached.operations += 1;
        reached.done += usize::from(expected.is_ok());
    }
    let named = sequence.named(&k);
    for (name, other) in &mut others {
        if let Err(difference) = compare(&k, &named, &mut on_native, other) {
            panic!("native and {name} differ: {difference}\n{sequence:#?}");
        }
    }
    if let Err(difference) = compare(&k, &named, &mut on_native, &mut world) {
        panic!("native and explored differ: {difference}\n{sequence:#?}");
    }
    assert_eq!(checked.check().0, native.check().0, "{sequence:#?}");
    reached
}
