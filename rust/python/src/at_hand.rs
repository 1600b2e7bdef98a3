//! A thread that each thread of Python keeps at hand for its operations: to start one for each costs more than a short
//! operation itself.
//!
//! It waits without a CPU until it gets work, and ends with the thread that keeps it. Work that is begun while other
//! work of the same thread runs, by a handler of a signal, starts a thread of its own.

use std::any::Any;
use std::cell::Cell;
use std::hint::spin_loop;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, yield_now};
use std::time::{Duration, Instant};

/// Searches recurse and walks keep tables on the stack; a thread's default of 2 MiB is the main thread's 8 elsewhere.
pub const STACK_BYTES: usize = 16 << 20;

/// How long who waits keeps its CPU, unless others want it or what it waits for took longer the last time. To wake a
/// thread on a virtual CPU that was given back takes the host longer than that, and a short operation a tenth of it.
const AWAKE: Duration = Duration::from_micros(50);

type Work = Box<dyn FnOnce() + Send>;

/// Room for one thing that one thread puts there and another takes. Who waits is woken when the lock is free again,
/// which a channel's is not: that would be two more switches between threads.
struct Slot<T> {
    thing: Mutex<Option<T>>,
    arrived: Condvar,
    /// A hint for who does not sleep: only the lock says what is there.
    is_full: AtomicBool,
}

impl<T> Slot<T> {
    fn new() -> Arc<Self> {
        Arc::new(Self { thing: Mutex::new(None), arrived: Condvar::new(), is_full: AtomicBool::new(false) })
    }
    fn put(&self, thing: T) {
        let mut place = self.thing.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Some(thing);
        self.is_full.store(true, Ordering::Release);
        drop(place);
        self.arrived.notify_one();
    }
    /// What was put there, as soon as it is, unless that takes too long. So long it is waited for awake.
    fn take_within(&self, patience: Duration, awake: Duration) -> Option<T> {
        let begun = Instant::now();
        while !self.is_full.load(Ordering::Acquire) && begun.elapsed() < awake {
            for _ in 0..32 {
                spin_loop();
            }
            yield_now();
        }
        let thing = self.thing.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.arrived.wait_timeout_while(thing, patience, |thing| thing.is_none());
        let mut thing = waited.unwrap_or_else(PoisonError::into_inner).0;
        self.is_full.store(false, Ordering::Relaxed);
        thing.take()
    }
    fn take(&self) -> T {
        loop {
            if let Some(thing) = self.take_within(Duration::MAX, AWAKE) {
                return thing;
            }
        }
    }
}

/// A thread that waits for work.
struct Worker {
    /// `None`: there will be no more.
    orders: Arc<Slot<Option<Work>>>,
    /// A process that was forked has none of the threads of its parent, and locks as those had them.
    process: u32,
}

impl Worker {
    fn start() -> io::Result<Self> {
        let orders = Slot::<Option<Work>>::new();
        let taken = Arc::clone(&orders);
        let work = move || core::iter::from_fn(|| taken.take()).for_each(|work| work());
        Builder::new().name("vmemmap".into()).stack_size(STACK_BYTES).spawn(work)?;
        Ok(Self { orders, process: std::process::id() })
    }
    fn is_here(&self) -> bool {
        self.process == std::process::id()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.is_here() {
            self.orders.put(None);
        }
    }
}

thread_local! {
    static AT_HAND: Cell<Option<Worker>> = const { Cell::new(None) };
    /// How long to wait awake for the next result: not at all after work that took too long. Awake in vain it would
    /// keep the CPU from the work of another thread.
    static AWAKE_FOR: Cell<Duration> = const { Cell::new(AWAKE) };
}

/// Work that another thread does. Who does not wait for its end leaves it to itself.
pub struct Begun<T> {
    worker: Worker,
    result: Arc<Slot<Result<T, Box<dyn Any + Send>>>>,
    begun: Instant,
}

impl<T: Send + 'static> Begun<T> {
    /// Have the thread at hand do `work`.
    ///
    /// # Errors
    /// There is none, and the host refuses another one.
    pub fn new(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let begun = Instant::now();
        let kept = AT_HAND.take().filter(Worker::is_here);
        let worker = kept.map_or_else(Worker::start, Ok)?;
        let result = Slot::new();
        let done = Arc::clone(&result);
        worker.orders.put(Some(Box::new(move || done.put(catch_unwind(AssertUnwindSafe(work))))));
        Ok(Self { worker, result, begun })
    }
    /// Its result, or its panic, unless that takes too long.
    ///
    /// # Errors
    /// The work, which goes on.
    pub fn end_within(self, patience: Duration) -> Result<T, Self> {
        let Some(result) = self.result.take_within(patience, AWAKE_FOR.get()) else { return Err(self) };
        AWAKE_FOR.set(if self.begun.elapsed() <= AWAKE { AWAKE } else { Duration::ZERO });
        AT_HAND.set(Some(self.worker));
        Ok(result.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}
