//! The handmade model's words and locks in the types of loom and of shuttle.
//!
//! Both crates switch before an operation, so what follows an access belongs to its step. A free is a swap of every
//! word of the table with `POISON`: what was there must be none, and whoever meets `POISON` afterwards touches a freed
//! table. With a flag beside the words each access would be two steps. A store is a swap too, since it must see what it
//! replaces.
//!
//! A read is `fetch_or(0)`, not a load: loom 0.7.3 looks for the race of a store only with the last access to the word
//! (`rt/atomic.rs: last_dependent_access`), so a load of the storing thread's own hides the other thread's load before
//! it. With loads (`loom-loads`) it ends the row `clear-then-set-3` without finding the seeded fault; so reads, which
//! every HVO step makes before it stores, have to be accesses that count. shuttle and our own search do not care.

use std::sync::atomic::Ordering::SeqCst;

use vmemmap_bench::handmade::{Lock, Memory, Mode, NONE, OWN, Table, Word};

/// What a freed table is filled with.
const POISON: usize = 0xff;

macro_rules! memory {
    ($name:ident, $atomic:path, $lock:path) => {
        pub struct $name {
            pmd: [$atomic; 2],
            pte: [Vec<$atomic>; 2],
            locks: [$lock; 2],
            loads: bool,
        }

        impl $name {
            pub fn new(entries: u8, alone: u8, loads: bool) -> Self {
                let word = || <$atomic>::new(OWN.into());
                Self {
                    pmd: [word(), word()],
                    pte: [entries, alone].map(|n| (0..n).map(|_| word()).collect()),
                    locks: [<$lock>::new(()), <$lock>::new(())],
                    loads,
                }
            }

            fn word(&self, at: Word) -> &$atomic {
                match at {
                    Word::Pmd(table) => &self.pmd[table as usize],
                    Word::Pte(table, i) => &self.pte[table as usize][usize::from(i)],
                }
            }
        }

        impl Memory for $name {
            fn read(&self, at: Word) -> u8 {
                let word = self.word(at);
                let value = if self.loads { word.load(SeqCst) } else { word.fetch_or(0, SeqCst) };
                assert!(value != POISON, "I1: a freed table is read");
                value as u8
            }
            fn write(&self, at: Word, value: u8) {
                let old = self.word(at).swap(value.into(), SeqCst);
                assert!(old != POISON, "I1: a freed table is written");
            }
            fn free(&self, table: Table, entries: u8) {
                for i in 0..entries {
                    let old = self.word(Word::Pte(table, i)).swap(POISON, SeqCst);
                    assert!(old == usize::from(NONE), "I6: a table in use is freed");
                }
            }
            fn alloc(&self, table: Table, entries: u8) {
                for i in 0..entries {
                    self.word(Word::Pte(table, i)).store(NONE.into(), SeqCst);
                }
            }
            fn under(&self, lock: Lock, mode: Mode, body: impl FnOnce()) {
                let lock = &self.locks[lock as usize];
                match mode {
                    Mode::Read => {
                        let _held = lock.read().expect("nobody panics and goes on");
                        body();
                    }
                    Mode::Write => {
                        let _held = lock.write().expect("nobody panics and goes on");
                        body();
                    }
                }
            }
        }
    };
}

memory!(LoomMemory, loom::sync::atomic::AtomicUsize, loom::sync::RwLock<()>);
memory!(ShuttleMemory, shuttle::sync::atomic::AtomicUsize, shuttle::sync::RwLock<()>);
