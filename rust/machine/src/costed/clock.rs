//! The clocks of all CPUs, and whose turn it is: always one of those that are furthest behind.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::costs::Time;

/// What a CPU does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Run {
    Runnable,
    /// Until somebody wakes it.
    Waiting,
    Done,
}

/// Clocks and queue.
#[derive(Debug)]
pub(super) struct Clocks {
    now: Vec<Cell<Time>>,
    run: Vec<Cell<Run>>,
    /// Time and CPU; an entry whose time is no longer its CPU's is stale.
    queue: RefCell<BinaryHeap<Reverse<(Time, u16)>>>,
    /// The running CPU may act until here without asking.
    horizon: Cell<Time>,
    running: Cell<u16>,
}

impl Clocks {
    pub(super) fn new(cpus: u16) -> Self {
        let n = usize::from(cpus);
        Self {
            now: vec![Cell::new(0); n],
            run: vec![Cell::new(Run::Runnable); n],
            queue: RefCell::new((0..cpus).map(|cpu| Reverse((0, cpu))).collect()),
            horizon: Cell::new(0),
            running: Cell::new(0),
        }
    }
    #[inline]
    pub(super) fn now(&self, cpu: u16) -> Time {
        self.now[usize::from(cpu)].get()
    }
    #[inline]
    pub(super) fn advance(&self, cpu: u16, by: Time) {
        let now = &self.now[usize::from(cpu)];
        now.set(now.get() + by);
    }
    #[inline]
    pub(super) fn is_ahead(&self, cpu: u16) -> bool {
        self.now(cpu) > self.horizon.get()
    }
    /// The clock of a CPU that is not earlier than `at` afterwards; a queued one is queued again.
    pub(super) fn delay(&self, cpu: u16, at: Time) {
        let (now, n) = (&self.now[usize::from(cpu)], usize::from(cpu));
        if now.get() < at {
            now.set(at);
            if self.run[n].get() == Run::Runnable && self.running.get() != cpu {
                self.queue.borrow_mut().push(Reverse((at, cpu)));
            }
        }
    }
    /// The running CPU lets those behind it go first.
    pub(super) fn queue(&self, cpu: u16) {
        self.queue.borrow_mut().push(Reverse((self.now(cpu), cpu)));
    }
    pub(super) fn wait(&self, cpu: u16) {
        self.run[usize::from(cpu)].set(Run::Waiting);
    }
    pub(super) fn done(&self, cpu: u16) {
        self.run[usize::from(cpu)].set(Run::Done);
    }
    /// A waiting CPU goes on at `at`, or at its own time if that is later.
    pub(super) fn wake(&self, cpu: u16, at: Time) {
        let n = usize::from(cpu);
        if self.run[n].get() != Run::Waiting {
            return;
        }
        self.run[n].set(Run::Runnable);
        let at = at.max(self.now[n].get());
        self.now[n].set(at);
        self.queue.borrow_mut().push(Reverse((at, cpu)));
        self.horizon.set(self.horizon.get().min(at));
    }
    /// The running CPU stops all others, as long as it does not let go of its turn.
    pub(super) fn stop_others(&self) {
        self.horizon.set(Time::MAX);
    }
    /// And lets them go on at `at`.
    pub(super) fn resume_others(&self, cpu: u16, at: Time) {
        for other in (0..self.now.len() as u16).filter(|other| *other != cpu) {
            self.delay(other, at);
        }
        self.horizon.set(at);
    }
    /// Whose turn it is; `None`: everybody waits or is done.
    pub(super) fn next(&self) -> Option<u16> {
        let mut queue = self.queue.borrow_mut();
        while let Some(Reverse((at, cpu))) = queue.pop() {
            let n = usize::from(cpu);
            if self.run[n].get() == Run::Runnable && self.now[n].get() == at {
                self.horizon.set(queue.peek().map_or(Time::MAX, |next| next.0.0));
                self.running.set(cpu);
                return Some(cpu);
            }
        }
        None
    }
}
