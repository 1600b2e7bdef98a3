//! The kernel's locks as locks of real threads, and RCU grace periods.
//!
//! A lock is one word: a writer bit, the number of readers, the number of writers that wait, and whether anybody
//! sleeps. A reader does not enter while a writer waits (writer preference): kernel rwsems queue fairly, and a reader
//! that overtakes a queued writer would hide R8.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use vmemmap_arch::{LockId, Mode};

use crate::native::counters::CachePadded;
use crate::native::running::Change;

const WRITER: u32 = 1;
const READER: u32 = 1 << 1;
const READERS: u32 = 0x7fff << 1;
const WAITING: u32 = 1 << 16;
const WAITING_MASK: u32 = 0x7fff << 16;
const SLEEPERS: u32 = 1 << 31;

const SPINS: u32 = 64;

#[derive(Debug, Default)]
pub struct Lock {
    word: AtomicU32,
    sleep: Mutex<()>,
    wake: Condvar,
}

/// The word of a lock that is taken, if it can be. `queued`: by a writer among those that wait.
#[inline]
fn entered(word: u32, mode: Mode, queued: bool) -> Option<u32> {
    match mode {
        Mode::Read => (word & (WRITER | WAITING_MASK) == 0).then(|| word + READER),
        Mode::Write => (word & (WRITER | READERS) == 0).then(|| (word | WRITER) - if queued { WAITING } else { 0 }),
    }
}

/// The word of a lock that is released; `None` if it is not held that way.
#[inline]
fn left(word: u32, mode: Mode) -> Option<u32> {
    let rest = match mode {
        Mode::Read if word & READERS != 0 => word - READER,
        Mode::Write if word & WRITER != 0 => word & !WRITER,
        _ => return None,
    };
    // Readers that leave others behind wake nobody.
    Some(if rest & (READERS | WRITER) == 0 { rest & !SLEEPERS } else { rest })
}

impl Lock {
    #[inline]
    pub fn try_acquire(&self, mode: Mode, how: Change) -> bool {
        match how {
            Change::Atomic => self.enter(mode, false),
            Change::Plain => {
                let word = self.word.load(Ordering::Acquire);
                let entered = entered(word, mode, false);
                entered.inspect(|&new| self.word.store(new, Ordering::Release)).is_some()
            }
        }
    }

    fn enter(&self, mode: Mode, queued: bool) -> bool {
        self.word.fetch_update(Ordering::Acquire, Ordering::Relaxed, |w| entered(w, mode, queued)).is_ok()
    }

    /// Where `try_acquire` did not get it.
    #[cold]
    pub fn wait(&self, mode: Mode) {
        let queued = mode == Mode::Write;
        if queued {
            self.word.fetch_add(WAITING, Ordering::Relaxed);
        }
        for _ in 0..SPINS {
            if self.enter(mode, queued) {
                return;
            }
            core::hint::spin_loop();
        }
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.word.fetch_or(SLEEPERS, Ordering::Relaxed);
            if self.enter(mode, queued) {
                return;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// `false`: the lock is not held that way; nothing is done.
    pub fn release(&self, mode: Mode, how: Change) -> bool {
        let released = match how {
            Change::Atomic => self.word.fetch_update(Ordering::Release, Ordering::Relaxed, |w| left(w, mode)),
            Change::Plain => {
                let word = self.word.load(Ordering::Acquire);
                left(word, mode).map(|new| self.word.store(new, Ordering::Release)).map(|()| word).ok_or(word)
            }
        };
        match released {
            Ok(old) => {
                let last = mode == Mode::Write || old & READERS == READER;
                if last && old & SLEEPERS != 0 {
                    drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
                    self.wake.notify_all();
                }
                true
            }
            Err(_) => false,
        }
    }
}

/// All locks of a machine.
#[derive(Debug, Default)]
pub struct Locks([CachePadded<Lock>; LockId::COUNT]);

impl Locks {
    #[must_use]
    #[inline]
    pub fn get(&self, id: LockId) -> &Lock {
        &self.0[id.index()].0
    }
}

/// RCU by epochs: a reader publishes the epoch in which its outermost section began, 0 when outside.
#[derive(Debug)]
pub struct Rcu {
    epoch: AtomicU64,
    readers: Box<[CachePadded<AtomicU64>]>,
}

impl Rcu {
    #[must_use]
    pub fn new(cpus: u8) -> Self {
        Self { epoch: AtomicU64::new(1), readers: (0..cpus).map(|_| CachePadded::default()).collect() }
    }
    /// Outermost `rcu_read_lock` of a CPU.
    pub fn enter(&self, cpu: u8) {
        self.readers[usize::from(cpu)].0.store(self.epoch.load(Ordering::SeqCst), Ordering::SeqCst);
        core::sync::atomic::fence(Ordering::SeqCst);
    }
    pub fn leave(&self, cpu: u8) {
        self.readers[usize::from(cpu)].0.store(0, Ordering::Release);
    }
    /// Wait until every section that began before this call has ended.
    pub fn synchronize(&self) {
        core::sync::atomic::fence(Ordering::SeqCst);
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        for reader in &self.readers {
            let mut patience = Patience::default();
            loop {
                let began = reader.0.load(Ordering::SeqCst);
                if began == 0 || began >= epoch {
                    break;
                }
                patience.wait();
            }
        }
    }
}

/// Waiting for another thread: spin, then yield, then nap.
#[derive(Debug, Default)]
pub struct Patience(u32);

impl Patience {
    pub fn wait(&mut self) {
        self.0 = self.0.saturating_add(1);
        match self.0 {
            0..=64 => core::hint::spin_loop(),
            65..=1024 => std::thread::yield_now(),
            _ => std::thread::park_timeout(std::time::Duration::from_micros(50)),
        }
    }
}
