//! What the CPUs of a costed machine share besides memory: locks, cache lines, the interconnect, interrupts, counters.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use vmemmap_arch::{LockId, Mode, Until, Var};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::clock::Clocks;
use super::costs::{Costs, Time};

/// How an invalidate reaches the other CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broadcast {
    /// By the interconnect (DVM); the `dsb ish` waits for it.
    Dvm,
    /// By an interrupt to every CPU, which invalidates for itself, as x86 without INVLPGB: the TLBIs since the last
    /// `dsb ish` go together.
    Ipi,
}

/// What a costed machine is built from.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub costs: Costs,
    pub broadcast: Broadcast,
    /// All CPUs, 1 to 4096.
    pub cpus: u16,
    /// The pausing interrupt also comes while interrupts are masked.
    pub pause_is_nmi: bool,
    /// Of the times at which CPUs elsewhere mask interrupts.
    pub seed: u64,
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counted {
    /// Operations of kernel code, and interrupts that other CPUs took because of them.
    pub events: u64,
    pub tlbi: u64,
    pub dsb: u64,
    /// Interrupts taken by other CPUs.
    pub ipi: u64,
    pub grace_periods: u64,
    pub stop_machine: u64,
    /// Blocks replaced by tables.
    pub splits: u64,
    /// Stores to descriptors.
    pub writes: u64,
    /// Descriptors that were valid, were none, and were set again.
    pub holes: u64,
    pub hole_total: Time,
    /// Since `Hub::forget_longest`.
    pub hole_longest: Time,
}

impl Counted {
    /// Names and values of what is counted.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 9] {
        [
            ("events", self.events),
            ("tlbi", self.tlbi),
            ("dsb", self.dsb),
            ("ipi", self.ipi),
            ("grace_periods", self.grace_periods),
            ("stop_machine", self.stop_machine),
            ("splits", self.splits),
            ("writes", self.writes),
            ("holes", self.holes),
        ]
    }
    /// What was done since `before`.
    #[must_use]
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            events: self.events - before.events,
            tlbi: self.tlbi - before.tlbi,
            dsb: self.dsb - before.dsb,
            ipi: self.ipi - before.ipi,
            grace_periods: self.grace_periods - before.grace_periods,
            stop_machine: self.stop_machine - before.stop_machine,
            splits: self.splits - before.splits,
            writes: self.writes - before.writes,
            holes: self.holes - before.holes,
            hole_total: self.hole_total - before.hole_total,
            hole_longest: self.hole_longest,
        }
    }
}

/// Who last wrote a line, plus one, and until when it is on its way.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    owner: u16,
    busy: Time,
}

#[derive(Debug, Default)]
struct Lock {
    writer: Option<u16>,
    readers: u32,
    queue: VecDeque<u16>,
    line: Line,
}

/// What belongs to one CPU.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// When an interrupt that was sent arrives.
    pub(super) pending: Cell<Option<Time>>,
    pub(super) irqs_off: Cell<u32>,
    pub(super) in_interrupt: Cell<bool>,
    pub(super) rcu_depth: Cell<u32>,
    /// Invalidates since its last `dsb ish`, pages and whole TLBs, and when the interconnect is done with them.
    pub(super) pages: Cell<u64>,
    pub(super) all: Cell<bool>,
    pub(super) invalidated: Cell<Time>,
    /// Runs no actor.
    pub(super) idle: Cell<bool>,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Hub {
    pub(super) options: Options,
    pub(super) clocks: Clocks,
    own: Vec<Own>,
    locks: RefCell<Vec<Lock>>,
    lines: RefCell<FxHashMap<u32, Line>>,
    waiters: RefCell<Vec<(u16, Var, Until)>>,
    /// Who waits for a grace period, and for whom.
    awaited: RefCell<Vec<(u16, u16)>>,
    interconnect: Cell<Time>,
    draws: Cell<u64>,
    pub(super) holes: RefCell<FxHashMap<u64, Time>>,
    pub(super) counted: Cell<Counted>,
    labels: RefCell<FxHashMap<&'static str, Time>>,
}

impl Hub {
    /// A machine of which only the memory is elsewhere.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let cpus = options.cpus.clamp(1, 4096);
        Self {
            options: Options { cpus, ..options },
            clocks: Clocks::new(cpus),
            own: (0..cpus).map(|_| Own::default()).collect(),
            locks: RefCell::new((0..LockId::COUNT).map(|_| Lock::default()).collect()),
            lines: RefCell::default(),
            waiters: RefCell::default(),
            awaited: RefCell::default(),
            interconnect: Cell::new(0),
            draws: Cell::new(0),
            holes: RefCell::default(),
            counted: Cell::default(),
            labels: RefCell::default(),
        }
    }
    #[must_use]
    pub const fn cpus(&self) -> u16 {
        self.options.cpus
    }
    /// Whose turn it is; `None`: everybody waits, or is done.
    #[must_use]
    pub fn next(&self) -> Option<u16> {
        self.clocks.next()
    }
    /// The actor on this CPU has ended.
    pub fn done(&self, cpu: u16) {
        self.clocks.done(cpu);
    }
    /// Clock of a CPU.
    #[must_use]
    pub fn now(&self, cpu: u16) -> Time {
        self.clocks.now(cpu)
    }
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.counted.get()
    }
    pub fn forget_longest(&self) {
        self.count(|c| c.hole_longest = 0);
    }
    /// Modelled time by kernel function, all CPUs.
    #[must_use]
    pub fn by_function(&self) -> Vec<(&'static str, Time)> {
        let mut all: Vec<_> = self.labels.borrow().iter().map(|(name, time)| (*name, *time)).collect();
        all.sort_unstable();
        all
    }

    #[inline]
    pub(super) fn own(&self, cpu: u16) -> &Own {
        &self.own[usize::from(cpu)]
    }
    #[inline]
    pub(super) fn count(&self, change: impl FnOnce(&mut Counted)) {
        let mut counted = self.counted.get();
        change(&mut counted);
        self.counted.set(counted);
    }
    pub(super) fn spent(&self, label: &'static str, time: Time) {
        if time != 0 {
            *self.labels.borrow_mut().entry(label).or_default() += time;
        }
    }
    fn others(&self, cpu: u16) -> impl Iterator<Item = u16> {
        (0..self.options.cpus).filter(move |other| *other != cpu)
    }

    // ---- cache lines ----
    fn transfer(&self, cpu: u16, now: Time, line: &mut Line, writes: bool) -> Time {
        let mine = line.owner == cpu + 1 || line.owner == 0;
        let cost = self.options.costs.line_transfer;
        let end = match (mine, writes) {
            (true, _) => now,
            // One after the other; readers get their copies side by side.
            (false, true) => line.busy.max(now) + cost,
            (false, false) => now + cost,
        };
        if writes {
            *line = Line { owner: cpu + 1, busy: end };
        }
        end - now
    }
    /// What an access to the line of a variable costs beyond the instruction.
    pub(super) fn line(&self, cpu: u16, var: Var, writes: bool) -> Time {
        if self.options.cpus == 1 {
            return 0;
        }
        let now = self.now(cpu);
        self.transfer(cpu, now, self.lines.borrow_mut().entry(var.0).or_default(), writes)
    }

    // ---- interrupts ----
    /// How long interrupts stay masked on a CPU elsewhere at some moment: mostly not at all. Masked intervals begin at
    /// random and are as long as an exponential distribution says.
    fn masked(&self) -> Time {
        let (every, mean) = (self.options.costs.irq_masked_every, self.options.costs.irq_masked_for);
        if every == 0 || mean == 0 {
            return 0;
        }
        let draw = self.draws.get();
        self.draws.set(draw + 1);
        let hash = xxh3_64_with_seed(&draw.to_le_bytes(), self.options.seed);
        let unit = |bits: u64| (bits as f64 + 0.5) / f64::from(u32::MAX);
        if unit(hash >> 32) * every as f64 >= mean as f64 {
            return 0;
        }
        // What is left of an exponential interval is exponential again.
        (-unit(hash & 0xffff_ffff).min(1.0).ln() * mean as f64) as Time
    }
    /// Interrupt every other CPU for its handler. Returns how many, and what the sending took.
    pub(super) fn interrupt_others(&self, cpu: u16) -> (u64, Time) {
        let (costs, begin) = (&self.options.costs, self.now(cpu));
        let mut sent = 0;
        for other in self.others(cpu) {
            sent += 1;
            let mut arrives = begin + sent * costs.ipi_send + costs.ipi_deliver;
            if !self.options.pause_is_nmi && self.own(other).idle.get() {
                arrives += self.masked();
            }
            self.own(other).pending.set(Some(arrives));
            self.clocks.wake(other, arrives);
        }
        self.count(|c| {
            c.ipi += sent;
            c.events += sent;
        });
        (sent, sent * costs.ipi_send)
    }
    /// Interrupt every other CPU, which does something that takes `work` and says so in one cache line. Returns how
    /// long it takes until the last has.
    fn interrupt_and_wait(&self, cpu: u16, work: Time) -> Time {
        let (costs, begin) = (&self.options.costs, self.now(cpu));
        let (mut sent, mut said) = (0, begin);
        for other in self.others(cpu) {
            sent += 1;
            let arrives = begin + sent * costs.ipi_send + costs.ipi_deliver + self.masked();
            let handled = arrives + work;
            said = said.max(handled) + costs.line_transfer;
            self.clocks.delay(other, self.now(other) + work + costs.ipi_return);
        }
        self.count(|c| {
            c.ipi += sent;
            c.events += sent;
        });
        (said - begin).max(sent * costs.ipi_send)
    }

    // ---- invalidates ----
    /// A broadcast invalidate of so many pages (`None`: everything) was issued.
    pub(super) fn invalidate(&self, cpu: u16, pages: Option<u32>) {
        let (costs, own) = (&self.options.costs, self.own(cpu));
        match self.options.broadcast {
            Broadcast::Dvm => {
                let others = Time::from(self.options.cpus - 1);
                let end = self.interconnect.get().max(self.now(cpu)) + costs.dvm_operation + others * costs.dvm_per_cpu;
                self.interconnect.set(end);
                own.invalidated.set(end);
            }
            Broadcast::Ipi => match pages {
                Some(n) => own.pages.set(own.pages.get() + u64::from(n)),
                None => own.all.set(true),
            },
        }
    }
    /// How long a `dsb ish` waits for this CPU's invalidates.
    pub(super) fn await_invalidates(&self, cpu: u16) -> Time {
        let (costs, own) = (&self.options.costs, self.own(cpu));
        match self.options.broadcast {
            Broadcast::Dvm => own.invalidated.get().saturating_sub(self.now(cpu)),
            Broadcast::Ipi => {
                let (pages, all) = (own.pages.replace(0), own.all.replace(false));
                if pages == 0 && !all {
                    return 0;
                }
                let single = pages * costs.tlbi_local;
                // `tlb_single_page_flush_ceiling`.
                let work = if all || pages > 33 { costs.tlbi_local_all } else { single };
                self.interrupt_and_wait(cpu, work).max(work)
            }
        }
    }

    // ---- stop_machine ----
    /// How long it takes until every other CPU stands still: its stopper is woken and scheduled, then all go through
    /// the states of `multi_cpu_stop` together, each of which all of them acknowledge in one cache line.
    pub(super) fn stop_others(&self, cpu: u16) -> Time {
        /// `MULTI_STOP_PREPARE`, `MULTI_STOP_DISABLE_IRQ`, `MULTI_STOP_RUN`.
        const STATES: u64 = 3;
        let (costs, begin) = (&self.options.costs, self.now(cpu));
        let (mut sent, mut ready) = (0, begin);
        for other in self.others(cpu) {
            sent += 1;
            let woken = begin + sent * costs.ipi_send + costs.ipi_deliver + self.masked() + costs.stopper_wakeup;
            ready = ready.max(woken).max(if self.own(other).idle.get() { 0 } else { self.now(other) });
        }
        self.count(|c| {
            c.ipi += sent;
            c.stop_machine += 1;
            c.events += sent;
        });
        self.clocks.stop_others();
        ready - begin + STATES * (sent + 1) * costs.line_transfer
    }
    pub(super) fn start_others(&self, cpu: u16) {
        self.clocks.resume_others(cpu, self.now(cpu));
    }

    // ---- locks ----
    /// Takes the lock if it is free and nobody queues before this CPU.
    pub(super) fn try_lock(&self, cpu: u16, lock: LockId, mode: Mode, queued: bool) -> Option<Time> {
        let mut locks = self.locks.borrow_mut();
        let l = &mut locks[lock.index()];
        let first = if queued { l.queue.front() == Some(&cpu) } else { l.queue.is_empty() };
        let free = match mode {
            Mode::Read => l.writer.is_none(),
            Mode::Write => l.writer.is_none() && l.readers == 0,
        };
        if !first || !free {
            return None;
        }
        match mode {
            Mode::Read => l.readers += 1,
            Mode::Write => l.writer = Some(cpu),
        }
        if queued {
            l.queue.pop_front();
        }
        let now = self.now(cpu);
        // The next reader need not wait for a release.
        if mode == Mode::Read
            && let Some(&next) = l.queue.front()
        {
            self.clocks.wake(next, now);
        }
        Some(self.transfer(cpu, now, &mut l.line, true))
    }
    pub(super) fn enqueue(&self, cpu: u16, lock: LockId) {
        let queue = &mut self.locks.borrow_mut()[lock.index()].queue;
        if !queue.contains(&cpu) {
            queue.push_back(cpu);
        }
    }
    pub(super) fn unlock(&self, cpu: u16, lock: LockId, mode: Mode) {
        let l = &mut self.locks.borrow_mut()[lock.index()];
        match mode {
            Mode::Read => l.readers = l.readers.saturating_sub(1),
            Mode::Write => l.writer = None,
        }
        if let Some(&next) = l.queue.front() {
            self.clocks.wake(next, self.now(cpu) + self.options.costs.lock_handoff);
        }
    }

    // ---- variables and read sections that somebody waits for ----
    pub(super) fn wait_for(&self, cpu: u16, var: Var, until: Until) {
        self.waiters.borrow_mut().push((cpu, var, until));
    }
    pub(super) fn no_longer_waits(&self, cpu: u16) {
        self.waiters.borrow_mut().retain(|(waiter, ..)| *waiter != cpu);
    }
    pub(super) fn changed(&self, cpu: u16, var: Var, word: u64) {
        let now = self.now(cpu);
        self.waiters.borrow_mut().retain(|(waiter, of, until)| {
            let goes = *of == var && until.holds(word);
            if goes {
                self.clocks.wake(*waiter, now);
            }
            !goes
        });
    }
    /// `synchronize_rcu` of this CPU waits for those that are in a read section now.
    pub(super) fn await_readers(&self, cpu: u16) {
        let inside = self.others(cpu).filter(|other| self.own(*other).rcu_depth.get() != 0);
        self.awaited.borrow_mut().extend(inside.map(|reader| (cpu, reader)));
    }
    pub(super) fn has_readers(&self, cpu: u16) -> bool {
        self.awaited.borrow().iter().any(|(waiter, _)| *waiter == cpu)
    }
    /// A CPU has left its read section.
    pub(super) fn leaves_section(&self, cpu: u16) {
        let mut awaited = self.awaited.borrow_mut();
        for &(waiter, _) in awaited.iter().filter(|(_, reader)| *reader == cpu) {
            self.clocks.wake(waiter, self.now(cpu));
        }
        awaited.retain(|(_, reader)| *reader != cpu);
    }
}
