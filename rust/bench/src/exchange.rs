//! One descriptor exchanged: what a CPU of the machine adds to the instruction.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Cpu, Desc, Entry, Frame, Level, Order, Slot};
use vmemmap_kernel::{Kernel, Policies, pgtable};
use vmemmap_machine::{Machine, Native};

use crate::rounds::{Rounds, timed};
use crate::setup::{self, ENTRIES};
use crate::threads::{scaled, two};
use crate::{BenchError, Effort, Figure, Stop};

const RAM: u64 = 64 << 20;
const BARE: &str = "the same loop over bare words with AtomicU64::swap";

/// Pass over the table `count` times; every entry gets its own frame back with the other permission.
fn exchange_all<C: Cpu>(cpu: &C, table: Frame<C::Tok>, found: &[Entry<C::Tok>], count: u64) {
    for pass in 0..count {
        let flip = if pass & 1 == 0 { prot::PAGE_KERNEL ^ prot::PAGE_KERNEL_RO } else { 0 };
        for (index, entry) in (0..).zip(found) {
            let at = Slot { table: table.pa, index, level: Level::PTE, tok: table.tok };
            black_box(cpu.swap(at, Desc(entry.desc.0 ^ flip), Order::Relaxed));
        }
    }
}

fn exchange_bare(words: &[AtomicU64], found: &[u64], count: u64) {
    for pass in 0..count {
        let flip = if pass & 1 == 0 { prot::PAGE_KERNEL ^ prot::PAGE_KERNEL_RO } else { 0 };
        for (word, new) in words.iter().zip(found) {
            black_box(word.swap(new ^ flip, Ordering::Relaxed));
        }
    }
}

/// Seconds of `count` bare exchanges (a multiple of 512) that go round one table's worth of words.
///
/// # Errors
/// `Host`: no memory for the words.
pub fn bare_exchanges(count: u64) -> Result<f64, BenchError> {
    let arena = setup::bare(1)?;
    let words = setup::bare_table(&arena, 0);
    let new = [prot::PAGE_KERNEL; ENTRIES];
    exchange_bare(words, &new, 1);
    Ok(timed(|| exchange_bare(words, &new, count.div_ceil(ENTRIES as u64))))
}

fn entries_of<C: Cpu>(cpu: &C, table: Frame<C::Tok>) -> Vec<Entry<C::Tok>> {
    let at = |index| Slot { table: table.pa, index, level: Level::PTE, tok: table.tok };
    (0..ENTRIES as u16).map(|index| pgtable::read_once(cpu, at(index))).collect()
}

fn one_thread<C: Cpu>(
    k: &Kernel,
    machine: &Machine,
    cpu: &C,
    effort: Effort,
    stop: Stop<'_>,
    what: &str,
) -> Result<Figure, BenchError> {
    let passes = effort.amount(500, 10);
    let table = black_box(setup::populated(k, cpu, 1)?[0]);
    let found = entries_of(cpu, table);
    let plain: Vec<u64> = found.iter().map(|e| e.desc.0).collect();
    let arena = setup::bare(1)?;
    let words = setup::bare_table(&arena, 0);
    let value = || Ok(timed(|| exchange_all(cpu, table, &found, passes)));
    let limit = || Ok(timed(|| exchange_bare(words, &plain, passes)));
    let rounds = Rounds::of(effort.rounds(150), stop, value, limit)?;
    setup::sound(machine)?;
    Ok(rounds.nanoseconds(passes * ENTRIES as u64, format!("{what}; limit: {BARE}")))
}

/// `exchange`.
pub fn exchange(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let (k, machine) = setup::machine(Policies::default(), RAM)?;
    one_thread(&k, &machine, &machine.cpu(0), effort, stop, "one exchange of a PTE by an unchecked CPU")
}

/// `checked-exchange`.
pub fn checked(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let (k, machine) = setup::machine(Policies::default(), RAM)?;
    let what = "one exchange of a PTE by a checked CPU: generation, kind and record in one step";
    one_thread(&k, &machine, &machine.checked_cpu(0), effort, stop, what)
}

struct Pair {
    k: Kernel,
    machine: Machine,
    passes: u64,
}

impl Pair {
    fn new(effort: Effort) -> Result<Self, BenchError> {
        let (k, machine) = setup::machine(Policies::default(), RAM)?;
        Ok(Self { k, machine, passes: effort.amount(2000, 10) })
    }
    fn tables(&self) -> Result<Vec<Frame<()>>, BenchError> {
        setup::populated(&self.k, &self.machine.cpu(0), 2)
    }
    fn cpu(&self, number: usize) -> Native<'_> {
        self.machine.cpu(number as u8)
    }
    /// Exchanges of both threads in a round.
    fn both(&self) -> f64 {
        (2 * self.passes * ENTRIES as u64) as f64
    }
}

/// Two CPUs, each on its own table, beside two bare loops.
fn each_on_its_own<C: Cpu + Send>(
    pair: &Pair,
    cpu_of: impl Fn(usize) -> C + Sync,
    effort: Effort,
    stop: Stop<'_>,
    what: &str,
) -> Result<Figure, BenchError>
where
    C::Tok: Sync,
{
    let tables = setup::populated(&pair.k, &cpu_of(0), 2)?;
    let found = entries_of(&cpu_of(0), tables[0]);
    let plain: Vec<u64> = found.iter().map(|e| e.desc.0).collect();
    let arena = setup::bare(2)?;
    let machine_of = |number: usize| {
        let (cpu, table, found) = (cpu_of(number), tables[number], &found);
        move || exchange_all(&cpu, table, found, pair.passes)
    };
    let bare_of = |number: usize| {
        let (words, plain) = (setup::bare_table(&arena, number), &plain);
        move || exchange_bare(words, plain, pair.passes)
    };
    let figure = scaled(effort.rounds(60), stop, pair.both() / 2.0, "exchanges/s", what, machine_of, bare_of)?;
    setup::sound(&pair.machine)?;
    Ok(figure)
}

/// `exchange-2t-disjoint`.
pub fn two_threads_disjoint(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let pair = Pair::new(effort)?;
    let what = "exchanges by two unchecked CPUs, each on its own table";
    each_on_its_own(&pair, |number| pair.cpu(number), effort, stop, what)
}

/// `checked-exchange-2t`.
pub fn two_threads_checked(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let pair = Pair { passes: effort.amount(400, 4), ..Pair::new(effort)? };
    let what = "exchanges by two checked CPUs, each on its own table";
    each_on_its_own(&pair, |number| pair.machine.checked_cpu(number as u8), effort, stop, what)
}

/// `exchange-2t-shared`.
pub fn two_threads_shared(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let pair = Pair { passes: effort.amount(400, 4), ..Pair::new(effort)? };
    let tables = pair.tables()?;
    let found = entries_of(&pair.machine.cpu(0), tables[0]);
    let plain: Vec<u64> = found.iter().map(|e| e.desc.0).collect();
    let arena = setup::bare(1)?;
    let value = || {
        Ok(two(|number| {
            let (cpu, table, found) = (pair.cpu(number), tables[0], &found);
            move || exchange_all(&cpu, table, found, pair.passes)
        }))
    };
    let limit = || {
        Ok(two(|_| {
            let (words, plain) = (setup::bare_table(&arena, 0), &plain);
            move || exchange_bare(words, plain, pair.passes)
        }))
    };
    let rounds = Rounds::of(effort.rounds(60), stop, value, limit)?;
    setup::sound(&pair.machine)?;
    let what = "exchanges by two unchecked CPUs on the same table; limit: two bare loops on the same words";
    Ok(rounds.rate(pair.both(), "exchanges/s", what.to_owned()))
}
