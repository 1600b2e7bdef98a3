//! HVO's remap of one 2M page: seven PTEs to the shared frame.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use vmemmap_arch::{Cpu, Desc, Entry, Frame, Level, Order, Slot, Va};
use vmemmap_kernel::hugetlb_vmemmap::remap::walk_range;
use vmemmap_kernel::hugetlb_vmemmap::update::vmemmap_pte_range;
use vmemmap_kernel::hugetlb_vmemmap::walk::{Action, RemapWalk};
use vmemmap_kernel::policy::PteUpdate;
use vmemmap_kernel::{Kernel, Policies, pgtable};
use vmemmap_machine::{Machine, Native};

use crate::rounds::{Rounds, timed};
use crate::setup::{self, ENTRIES};
use crate::threads::scaled;
use crate::{BenchError, Effort, Figure, Stop};

/// PTEs of the vmemmap of a 2M page: 32 KiB of struct pages.
const PTES: u64 = 8;
/// Few enough for the first-level cache, as the bare loop's words are.
const TABLES: u64 = 2;
/// Hugepages that a round optimises, each of them once.
const HUGEPAGES: u64 = TABLES * ENTRIES as u64 / PTES;
/// Rounds are short; so many are one sample.
const REPEAT: u64 = 80;

struct Setup {
    k: Kernel,
    machine: Machine,
}

struct Pages<'m> {
    k: &'m Kernel,
    cpu: Native<'m>,
    tables: Vec<Frame<()>>,
    /// The first hugepage that these tables map.
    first: u64,
    found: Vec<Entry<()>>,
}

impl Setup {
    fn new(update: PteUpdate) -> Result<Self, BenchError> {
        let (k, machine) = setup::machine(Policies { update, ..Policies::default() }, 64 << 20)?;
        Ok(Self { k, machine })
    }
    fn pages(&self) -> Result<Pages<'_>, BenchError> {
        let cpu = self.machine.cpu(0);
        let tables = setup::populated(&self.k, &cpu, TABLES)?;
        let mut pages = Pages { k: &self.k, cpu, tables, first: 0, found: Vec::new() };
        pages.found = pages.slots().map(|at| pgtable::read_once(&pages.cpu, at)).collect();
        Ok(pages)
    }
}

impl Pages<'_> {
    fn slots(&self) -> impl Iterator<Item = Slot<()>> {
        self.tables
            .iter()
            .flat_map(|t| (0..ENTRIES as u16).map(|index| Slot { table: t.pa, index, level: Level::PTE, tok: () }))
    }
    /// Every page its own frame again; not measured.
    fn reset(&self) {
        for (at, entry) in self.slots().zip(&self.found) {
            self.cpu.write(at, entry.desc, Order::Plain);
        }
    }
    fn vmemmap_of(&self, hugepage: u64) -> (Frame<()>, Va) {
        let bytes = PTES * self.k.geometry.page_size();
        (self.tables[(hugepage * PTES) as usize / ENTRIES], setup::start(self.k).plus((self.first + hugepage) * bytes))
    }
    /// Optimise every hugepage once; `one` is what is measured.
    fn round(&self, one: impl Fn(&Self, Frame<()>, Va)) -> f64 {
        let mut seconds = 0.0;
        for _ in 0..REPEAT {
            self.reset();
            seconds += timed(|| {
                for hugepage in 0..HUGEPAGES {
                    let (table, va) = self.vmemmap_of(hugepage);
                    one(self, table, va);
                }
            });
        }
        seconds
    }
}

fn store_bare(words: &[AtomicU64], found: &[Entry<()>]) {
    for (word, entry) in words.iter().zip(found) {
        word.store(entry.desc.0, Ordering::Relaxed);
    }
}
/// All but the first of each hugepage.
fn exchange_bare(words: &[AtomicU64], new: Desc) {
    for page in words.chunks_exact(PTES as usize) {
        for word in &page[1..] {
            black_box(word.swap(new.0, Ordering::AcqRel));
        }
    }
}

fn measure(
    update: PteUpdate,
    effort: Effort,
    stop: Stop<'_>,
    what: &str,
    one: impl Fn(&Pages<'_>, Frame<()>, Va),
) -> Result<Figure, BenchError> {
    let setup = Setup::new(update)?;
    let pages = setup.pages()?;
    let arena = setup::bare(TABLES)?;
    let words = arena.words();
    let new = Desc(black_box(pages.found[0].desc.0));
    let bare = || {
        let mut seconds = 0.0;
        for _ in 0..REPEAT {
            store_bare(words, &pages.found);
            seconds += timed(|| exchange_bare(words, new));
        }
        Ok(seconds)
    };
    let rounds = Rounds::of(effort.rounds(150), stop, || Ok(pages.round(&one)), bare)?;
    setup::sound(&setup.machine)?;
    Ok(rounds.nanoseconds(REPEAT * HUGEPAGES, format!("{what}; limit: seven bare AtomicU64::swap")))
}

/// Two threads, each in tables of its own: of the one machine, or of a machine for each.
fn two_threads(
    setups: &[Setup],
    effort: Effort,
    stop: Stop<'_>,
    what: &str,
    one: impl Fn(&Pages<'_>, Frame<()>, Va) + Copy + Sync,
) -> Result<Figure, BenchError> {
    let shares = 2 / setups.len();
    let arena = setup::bare(2 * TABLES)?;
    let tables_of = |setup: &Setup| setup::populated(&setup.k, &setup.machine.cpu(0), shares as u64 * TABLES);
    let tables = setups.iter().map(tables_of).collect::<Result<Vec<_>, _>>()?;
    let repeat = effort.amount(REPEAT, 8);
    let pages_of = |number: usize| {
        let (machine, share) = (number / shares, number % shares);
        let Setup { k, machine: m } = &setups[machine];
        let tables = tables[machine][share * TABLES as usize..][..TABLES as usize].to_vec();
        let first = share as u64 * HUGEPAGES;
        let mut pages = Pages { k, cpu: m.cpu(number as u8), tables, first, found: Vec::new() };
        pages.found = pages.slots().map(|at| pgtable::read_once(&pages.cpu, at)).collect();
        pages
    };
    let found: Vec<Vec<Entry<()>>> = (0..2).map(|number| pages_of(number).found).collect();
    let machine_of = |number: usize| {
        let pages = Pages { found: found[number].clone(), ..pages_of(number) };
        move || {
            for _ in 0..repeat {
                pages.reset();
                (0..HUGEPAGES).for_each(|hugepage| {
                    let (table, va) = pages.vmemmap_of(hugepage);
                    one(&pages, table, va);
                });
            }
            pages.reset();
        }
    };
    let bare_of = |number: usize| {
        let words = &arena.words()[number * TABLES as usize * ENTRIES..][..TABLES as usize * ENTRIES];
        let found = &found[number];
        move || {
            for _ in 0..repeat {
                store_bare(words, found);
                exchange_bare(words, found[0].desc);
            }
        }
    };
    let amount = (repeat * HUGEPAGES) as f64;
    let figure = scaled(effort.rounds(60), stop, amount, "pages/s", what, machine_of, bare_of)?;
    setups.iter().try_for_each(|setup| setup::sound(&setup.machine))?;
    Ok(figure)
}

/// `optimise-2m-2t`: nothing that two hugepages share is written.
pub fn exchanges_two_threads(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let what = "2M pages whose PTEs two CPUs exchange, each in its own tables, and what it takes to begin again";
    two_threads(&[Setup::new(PteUpdate::Swap)?], effort, stop, what, ptes)
}

/// `optimise-2m-whole-2t`.
pub fn whole_two_threads(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let what = "2M pages remapped by two threads (vmemmap_remap_range), each on its own machine, and what it takes to \
                begin again";
    two_threads(&[Setup::new(PteUpdate::Swap)?, Setup::new(PteUpdate::Swap)?], effort, stop, what, whole_range)
}

fn ptes(pages: &Pages<'_>, table: Frame<()>, start: Va) {
    let mut walk = RemapWalk::new(Action::Remap);
    let end = start.plus(PTES * pages.k.geometry.page_size());
    vmemmap_pte_range(pages.k, &pages.cpu, table, &(start..end), &mut walk);
    black_box(&walk);
}

/// `optimise-2m`.
pub fn exchanges_by_swap(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let what = "the exchanges of a 2M page (vmemmap_remap_pte, update=swap), the frames that they free listed";
    measure(PteUpdate::Swap, effort, stop, what, ptes)
}

/// `optimise-2m-store`.
pub fn exchanges_by_store(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let what = "the same as the kernel does it (read, store, barriers), the frames that they free listed";
    measure(PteUpdate::Store, effort, stop, what, ptes)
}

fn whole_range(pages: &Pages<'_>, _table: Frame<()>, start: Va) {
    let mut walk = RemapWalk::new(Action::Remap);
    let end = start.plus(PTES * pages.k.geometry.page_size());
    let _ = black_box(walk_range(pages.k, &pages.cpu, &(start..end), &mut walk));
    black_box(&walk);
}

/// `optimise-2m-whole`.
pub fn whole(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let what = "vmemmap_remap_range of a 2M page (update=swap): the walk from the root and page_table_lock too";
    measure(PteUpdate::Swap, effort, stop, what, whole_range)
}
