//! Tables read in order, as a dump or a checker does: how near to the speed of memory.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Cpu, Kind, Level, Order, Pfn, Slot, Va, VaRange};
use vmemmap_kernel::policy::WalkerLock;
use vmemmap_kernel::ptdump::{RangeCount, ptdump_walk_pgd};
use vmemmap_kernel::sparse_vmemmap::{Storage, vmemmap_populate_to};
use vmemmap_kernel::{Kernel, Policies};
use vmemmap_machine::Machine;

use crate::rounds::{Rounds, timed};
use crate::setup::{self, ENTRIES};
use crate::threads::scaled;
use crate::{BenchError, Effort, Figure, Stop};

/// 512 MiB of tables: 16 TiB of memory.
const TABLES: u64 = 131_072;
const TABLE_BYTES: u64 = 4096;

struct Setup {
    k: Kernel,
    machine: Machine,
    tables: u64,
    range: VaRange,
}

impl Setup {
    /// Only the tables are real. The leaves name frames that no walk looks at, more than the machine has.
    fn new(effort: Effort, optimised: bool, stop: Stop<'_>) -> Result<Self, BenchError> {
        let tables = effort.amount(TABLES, TABLES / 64);
        let policies = Policies { walker: WalkerLock::Kernel, ..Policies::default() };
        let (k, machine) = setup::machine(policies, (2 * tables * TABLE_BYTES).max(64 << 20))?;
        let span = k.geometry.page_size() * ENTRIES as u64;
        let range = setup::start(&k)..setup::start(&k).plus(tables * span);
        {
            let cpu = machine.cpu(0);
            for table in 0..tables {
                if table % 1024 == 0 && stop() {
                    return Err(BenchError::Stopped);
                }
                fill(&k, &cpu, range.start.plus(table * span), Pfn(table * ENTRIES as u64), optimised)?;
            }
        }
        Ok(Self { k, machine, tables, range })
    }
    fn bytes(&self) -> u64 {
        self.tables * TABLE_BYTES
    }
    fn measure(
        &self,
        effort: Effort,
        stop: Stop<'_>,
        what: &str,
        walk: impl Fn(&Self) -> u64,
    ) -> Result<Figure, BenchError> {
        let words: Vec<&[AtomicU64]> = leaf_tables(&self.machine);
        if words.len() as u64 != self.tables {
            return Err(BenchError::Work(format!("{} tables were built instead of {}", words.len(), self.tables)));
        }
        let limit = || Ok(timed(|| words.iter().fold(0u64, |sum, table| sum.wrapping_add(total(table)))));
        let rounds = Rounds::of(effort.rounds(15), stop, || Ok(timed(|| walk(self))), limit)?;
        setup::sound(&self.machine)?;
        let what = format!("{what}, {} MiB of tables; limit: the plain sum of the same words", self.bytes() >> 20);
        Ok(rounds.rate(self.bytes() as f64 / 1e9, "GB/s", what))
    }
}

/// One table of leaves; if optimised the kernel's pattern, one page read-write and seven times the next one read-only.
fn fill<C: Cpu>(k: &Kernel, cpu: &C, va: Va, first: Pfn, optimised: bool) -> Result<(), BenchError> {
    let Some(slot) = vmemmap_populate_to(k, cpu, va, Level::PTE, &Storage::Buddy)? else {
        return Err(BenchError::Work("a block is in the way".to_owned()));
    };
    for index in 0..ENTRIES as u16 {
        let n = u64::from(index);
        let (frame, prot) = match (optimised, n % 8) {
            (true, 1..) => (n & !7 | 1, prot::PAGE_KERNEL_RO),
            _ => (n, prot::PAGE_KERNEL),
        };
        cpu.write(Slot { index, ..slot }, k.geometry.descriptor(k.geometry.pa(first.plus(frame)), prot), Order::Plain);
    }
    Ok(())
}

/// In the order of their addresses in vmemmap.
fn leaf_tables(machine: &Machine) -> Vec<&[AtomicU64]> {
    machine
        .tables()
        .into_iter()
        .filter(|(_, level)| *level == Level::PTE)
        .filter_map(|(pa, _)| machine.table_words(pa))
        .collect()
}

/// Four sums side by side, so that the additions do not wait for one another.
fn total(words: &[AtomicU64]) -> u64 {
    let mut sums = [0u64; 4];
    for four in words.chunks_exact(4) {
        for (sum, word) in sums.iter_mut().zip(four) {
            *sum = sum.wrapping_add(word.load(Ordering::Relaxed));
        }
    }
    sums.iter().fold(0, |sum, part| sum.wrapping_add(*part))
}

/// Software walk of everything below the root that counts the leaves.
pub fn leaves<C: Cpu>(cpu: &C) -> u64 {
    fn table<C: Cpu>(cpu: &C, at: Slot<C::Tok>) -> u64 {
        let g = cpu.geometry();
        let mut leaves = 0;
        if at.level == Level::PTE {
            cpu.read_each(at, g.entries(), |_, entry| leaves += u64::from(entry.desc.is_valid()));
            return leaves;
        }
        for index in 0..g.entries_at(at.level) as u16 {
            let entry = cpu.read(Slot { index, ..at }, Order::Plain);
            match g.kind(entry.desc, at.level) {
                Kind::Table(pa) => {
                    let next = cpu.frame_of(entry, pa);
                    leaves += table(cpu, Slot { table: next.pa, index: 0, level: at.level.next(), tok: next.tok });
                }
                Kind::Page(_) | Kind::Block(_) => leaves += 1,
                Kind::None | Kind::Invalid | Kind::Reserved => {}
            }
        }
        leaves
    }
    let root = cpu.root();
    table(cpu, Slot { table: root.pa, index: 0, level: cpu.geometry().top(), tok: root.tok })
}

fn ptdump(setup: &Setup) -> u64 {
    ptdump_of(setup, 0, setup.range.clone())
}
fn ptdump_of(setup: &Setup, cpu: u8, range: VaRange) -> u64 {
    let mut count = RangeCount::default();
    ptdump_walk_pgd(&setup.k, &setup.machine.cpu(cpu), range, &mut count);
    black_box(count.ranges)
}

/// `walk-plain`.
pub fn plain(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    Setup::new(effort, false, stop)?.measure(
        effort,
        stop,
        "ptdump_walk_pgd without its text, every leaf of its own",
        ptdump,
    )
}

/// `walk-plain-2t`: each thread has one half; both hold `mem_hotplug_lock` for reading.
pub fn two_threads(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let setup = Setup::new(effort, false, stop)?;
    let words: Vec<&[AtomicU64]> = leaf_tables(&setup.machine);
    let (half, span) = (setup.tables / 2, setup.k.geometry.page_size() * ENTRIES as u64);
    let machine_of = |number: usize| {
        let start = setup.range.start.plus(number as u64 * half * span);
        let setup = &setup;
        move || {
            ptdump_of(setup, number as u8, start..start.plus(half * span));
        }
    };
    let bare_of = |number: usize| {
        let mine = &words[number * half as usize..][..half as usize];
        move || {
            black_box(mine.iter().fold(0u64, |sum, table| sum.wrapping_add(total(table))));
        }
    };
    let amount = (half * TABLE_BYTES) as f64 / 1e9;
    let what = "ptdump_walk_pgd without its text by two CPUs, each over one half of the tables";
    let figure = scaled(effort.rounds(15), stop, amount, "GB/s", what, machine_of, bare_of)?;
    setup::sound(&setup.machine)?;
    Ok(figure)
}

/// `walk-optimised`.
pub fn optimised(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    Setup::new(effort, true, stop)?.measure(
        effort,
        stop,
        "a walk that counts the leaves, every hugepage optimised",
        |setup| leaves(&setup.machine.cpu(0)),
    )
}

/// `ptdump-optimised`.
pub fn ptdump_optimised(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let what = "ptdump_walk_pgd without its text, every hugepage optimised: two ranges for eight descriptors";
    Setup::new(effort, true, stop)?.measure(effort, stop, what, ptdump)
}
