//! The model that a person writes by hand for a model checker, as a program over [`Memory`]: what the explorer costs on
//! it, apart from the MMU and the real tables, and what loom and shuttle need on the very same steps (`benches/peers`,
//! where the Promela text beside it follows this module step by step).
//!
//! PTE table X has `entries` words: HVO's actors own the first, a hugepage's `own` each, the block that is hot-removed
//! the others. If ptdump is there, that block also fills a second table Y, which nobody else uses, so that something is
//! freed. Neither frames nor TLBs are modelled. Each step names the kernel function that it stands for (6.1;
//! kernel-semantics §4.4, §H4 to §H7, §8.1). Asserted: nobody touches a freed table (I1); a table is freed only when it
//! is empty (I6).
//!
//! The two locks are plain read-write locks: no writer shuts out readers while it waits. What the kernel's do besides
//! (R8) is not asked here, and the peers' own locks differ in it. `machine` is what our own search runs the programs
//! on.

pub mod machine;

use crate::BenchError;

/// A PTE table: X is shared, Y belongs to the removed block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    X,
    Y,
}

/// A descriptor: an entry of a table, or the PMD entry that points to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    Pmd(Table),
    Pte(Table, u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lock {
    /// `mmap_lock` of `init_mm`.
    Mmap,
    /// `mem_hotplug_lock`.
    Hotplug,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Read,
    Write,
}

/// `pmd_none`, `pte_none`.
pub const NONE: u8 = 0;
/// A PMD entry that points to its table; a PTE that maps its own frame read-write.
pub const OWN: u8 = 1;
/// A PTE that maps the shared frame read-only.
pub const SHARED: u8 = 2;

/// What the programs run on.
pub trait Memory {
    /// `READ_ONCE`.
    fn read(&self, at: Word) -> u8;
    /// `set_pte`, `pte_clear`, `pmd_clear`, `pmd_populate_kernel`.
    fn write(&self, at: Word, value: u8);
    /// `free_hotplug_pgtable_page`; the table must be empty.
    fn free(&self, table: Table, entries: u8);
    /// `vmemmap_alloc_block_zero` of a table.
    fn alloc(&self, table: Table, entries: u8);
    fn under(&self, lock: Lock, mode: Mode, body: impl FnOnce());
    /// The actor's past no longer matters.
    fn boundary(&self, _position: u32) {}
}

/// How HVO changes a live PTE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Update {
    /// One store, as the kernel does it.
    Exchange,
    /// Entry by entry, none in between (the seeded fault; R35).
    ClearThenSet,
}

/// One row of the comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    pub name: &'static str,
    pub what: &'static str,
    pub entries: u8,
    pub hvo_actors: u8,
    /// Entries of X that each HVO actor has.
    pub own: u8,
    /// Entries of Y; 0 = there is none, and no ptdump.
    pub alone: u8,
    /// Whether ptdump takes `get_online_mems`, as the kernel does.
    pub hotplug_lock: bool,
    pub rounds: u32,
    pub update: Update,
    pub violated: bool,
}

const BASE: Row = Row {
    name: "exchange-3",
    what: "HVO by exchange beside hot remove of the neighbour, 3 rounds",
    entries: 4,
    hvo_actors: 1,
    own: 2,
    alone: 0,
    hotplug_lock: true,
    rounds: 3,
    update: Update::Exchange,
    violated: false,
};

/// The rows of the comparison, then the seeded fault of the first.
pub const ROWS: [Row; 6] = [
    BASE,
    Row {
        name: "locks-1",
        what: "HVO, hot remove and ptdump with the kernel's locks, 1 round",
        alone: 2,
        rounds: 1,
        ..BASE
    },
    Row { name: "locks-3", what: "HVO, hot remove and ptdump with the kernel's locks, 3 rounds", alone: 2, ..BASE },
    Row {
        name: "unlocked-3",
        what: "HVO, hot remove and ptdump without its mem_hotplug_lock, 3 rounds",
        alone: 2,
        hotplug_lock: false,
        violated: true,
        ..BASE
    },
    Row {
        name: "two-hvo-2",
        what: "two HVO actors, hot remove and ptdump, N = 8, 2 rounds",
        entries: 8,
        hvo_actors: 2,
        alone: 2,
        rounds: 2,
        ..BASE
    },
    Row {
        name: "clear-then-set-3",
        what: "seeded fault: HVO clears an entry and then sets it, beside hot remove, 3 rounds",
        update: Update::ClearThenSet,
        violated: true,
        ..BASE
    },
];

impl Row {
    /// # Errors
    /// There is no row of that name.
    pub fn named(name: &str) -> Result<Row, BenchError> {
        ROWS.into_iter().find(|r| r.name == name).ok_or_else(|| BenchError::UnknownRow(name.to_owned()))
    }

    /// Actors of the row: HVO's, then hot remove, then ptdump.
    #[must_use]
    pub const fn actors(&self) -> usize {
        self.hvo_actors as usize + 1 + (self.alone != 0) as usize
    }

    const fn removed(&self) -> std::ops::Range<u8> {
        self.hvo_actors * self.own..self.entries
    }

    /// What actor number `actor` does.
    pub fn run(&self, actor: usize, m: &impl Memory) {
        if actor < usize::from(self.hvo_actors) {
            self.hvo(actor as u8, m);
        } else if actor == usize::from(self.hvo_actors) {
            self.hot_remove(m);
        } else {
            self.ptdump(m);
        }
    }

    /// A hugepage allocated and freed again, each round.
    fn hvo(&self, actor: u8, m: &impl Memory) {
        for round in 0..self.rounds {
            // vmemmap_remap_free
            m.boundary(2 * round);
            self.vmemmap_remap_range(actor, m, SHARED);
            // vmemmap_remap_alloc
            m.boundary(2 * round + 1);
            self.vmemmap_remap_range(actor, m, OWN);
        }
        m.boundary(2 * self.rounds);
    }

    fn vmemmap_remap_range(&self, actor: u8, m: &impl Memory, to: u8) {
        // mmap_read_lock(&init_mm)
        m.under(Lock::Mmap, Mode::Read, || {
            // vmemmap_pmd_range
            m.read(Word::Pmd(Table::X));
            // vmemmap_remap_pte, vmemmap_restore_pte
            for i in actor * self.own..(actor + 1) * self.own {
                let pte = Word::Pte(Table::X, i);
                m.read(pte);
                if self.update == Update::ClearThenSet {
                    m.write(pte, NONE);
                }
                m.write(pte, to);
            }
        });
    }

    /// The block removed and added again, each round.
    fn hot_remove(&self, m: &impl Memory) {
        for round in 0..self.rounds {
            // try_remove_memory: mem_hotplug_begin
            m.boundary(2 * round);
            m.under(Lock::Hotplug, Mode::Write, || {
                vmemmap_free(m, Table::X, self.removed(), self.entries);
                if self.alone != 0 {
                    vmemmap_free(m, Table::Y, 0..self.alone, self.alone);
                }
            });
            // add_memory_resource: mem_hotplug_begin
            m.boundary(2 * round + 1);
            m.under(Lock::Hotplug, Mode::Write, || {
                vmemmap_populate(m, Table::X, self.removed(), self.entries);
                if self.alone != 0 {
                    vmemmap_populate(m, Table::Y, 0..self.alone, self.alone);
                }
            });
        }
        m.boundary(2 * self.rounds);
    }

    /// A dump of both tables, each round.
    fn ptdump(&self, m: &impl Memory) {
        for round in 0..self.rounds {
            // ptdump_walk_pgd
            m.boundary(round);
            if self.hotplug_lock {
                // get_online_mems
                m.under(Lock::Hotplug, Mode::Read, || self.ptdump_walk_pgd(m));
            } else {
                self.ptdump_walk_pgd(m);
            }
        }
        m.boundary(self.rounds);
    }

    fn ptdump_walk_pgd(&self, m: &impl Memory) {
        // mmap_write_lock(&init_mm)
        m.under(Lock::Mmap, Mode::Write, || {
            for (table, entries) in [(Table::X, self.entries), (Table::Y, self.alone)] {
                // walk_pmd_range
                if m.read(Word::Pmd(table)) != NONE {
                    // walk_pte_range, ptdump_pte_entry
                    for i in 0..entries {
                        m.read(Word::Pte(table, i));
                    }
                }
            }
        });
    }
}

fn vmemmap_free(m: &impl Memory, table: Table, range: std::ops::Range<u8>, entries: u8) {
    // unmap_hotplug_pmd_range, unmap_hotplug_pte_range
    m.read(Word::Pmd(table));
    for i in range.clone() {
        if m.read(Word::Pte(table, i)) != NONE {
            m.write(Word::Pte(table, i), NONE);
        }
    }
    // free_empty_pmd_table, free_empty_pte_table: READ_ONCE of the PMD entry, the PTEs of the range (a warning), the
    // scan
    m.read(Word::Pmd(table));
    for i in range {
        m.read(Word::Pte(table, i));
    }
    for i in 0..entries {
        if m.read(Word::Pte(table, i)) != NONE {
            return;
        }
    }
    // pmd_clear
    m.write(Word::Pmd(table), NONE);
    // __flush_tlb_kernel_pgtable, free_hotplug_pgtable_page
    m.free(table, entries);
}

fn vmemmap_populate(m: &impl Memory, table: Table, range: std::ops::Range<u8>, entries: u8) {
    // vmemmap_pmd_populate
    if m.read(Word::Pmd(table)) == NONE {
        m.alloc(table, entries);
        m.write(Word::Pmd(table), OWN);
    }
    // vmemmap_pte_populate: the entry is tested, then set
    for i in range {
        if m.read(Word::Pte(table, i)) == NONE {
            m.write(Word::Pte(table, i), OWN);
        }
    }
}
