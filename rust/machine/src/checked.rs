//! A CPU with checks: a use after free, a hole, a store through a read-only leaf is a report with both histories.
//!
//! Handles carry the generation of their frame, odd while it is allocated, and a descriptor's record says which
//! generation it named when it was written; every access compares under the frame's lock (`frame_lock`), so that what is
//! reported happened and what happened is reported. A refused access reads none (or 0), so that every walk ends by
//! itself. Descriptors must be stored by checked CPUs, or by `Machine::write_table_raw` before these run, or their
//! records are missing and the frame's present generation is taken for the one that was named.

use core::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use vmemmap_arch::bbm::{FeatBbm, bbm_required};
use vmemmap_arch::{
    Alloc, Barrier, Cpu, Desc, Entry, Frame, FrameKind, FrameList, Geometry, InUse, Invariant, LockId, Mode, Order, Pa, RangeOp, Rmw, Slot,
    Template, Tlbi, Until, Va, Var,
};

use crate::contents::apply_rmw;
use crate::counters::Count;
use crate::frame_lock::{Fault, Hold, Judged};
use crate::frame_state::{Contents, PackedEvent, bit};
use crate::machine::Machine;
use crate::native::Native;
use crate::ranges::Freeing;

/// What the words of a freed table read as (bit 0 clear: invalid, as SLUB's poison is for a pointer).
pub const TABLE_POISON: u64 = 0x6b6b_6b6b_6b6b_6b6a;

/// One CPU of a machine, for one thread.
#[derive(Debug)]
pub struct Checked<'m> {
    cpu: Native<'m>,
    machine: &'m Machine,
    /// By lock: how often this CPU holds it.
    depth: [Cell<u8>; LockId::COUNT],
    irqs_off: Cell<u32>,
    /// The label and its number, once an event needed it.
    label: Cell<(&'static str, u16)>,
}

/// Locks whose holder may not sleep.
const SPINLOCKS: [LockId; 4] = [LockId::Hugetlb, LockId::InitMmPageTable, LockId::SwapperPgdir, LockId::VmapArea];

/// Name of the lock with that index.
fn name_of(index: usize) -> &'static str {
    let others = [LockId::DeviceHotplug, LockId::CpuHotplug, LockId::MemHotplug, LockId::PcpBatchHigh, LockId::InitMmMmap, LockId::Fixmap];
    others.iter().chain(&SPINLOCKS).find(|l| l.index() == index).map_or(LockId::HugetlbResize(0).name(), |l| l.name())
}

fn plain(frame: Frame<u32>) -> Frame<()> {
    Frame { pa: frame.pa, tok: () }
}

impl<'m> Checked<'m> {
    pub(crate) fn new(machine: &'m Machine, cpu: u8) -> Self {
        Self {
            cpu: Native::new(machine, cpu),
            machine,
            depth: [const { Cell::new(0) }; LockId::COUNT],
            irqs_off: Cell::new(0),
            label: Cell::new(("boot", 0)),
        }
    }
    #[must_use]
    pub fn machine(&self) -> &'m Machine {
        self.machine
    }
    /// Add this CPU's counts to the machine's; also done on drop.
    pub fn flush(&self) {
        self.cpu.flush();
    }

    fn note(&self, event: Option<&AtomicU64>) {
        let now = self.cpu.label.get();
        if !core::ptr::eq(self.label.get().0, now) {
            self.label.set((now, self.machine.intern(now)));
        }
        if let Some(word) = event {
            word.store(PackedEvent::new(self.cpu.cpu, self.label.get().1, self.machine.next_step()).0, Ordering::Relaxed);
        }
    }

    // ---- descriptors ----------------------------------------------------------------------------------------
    /// Run `access` on a descriptor and its record, as one step with the check of its table.
    fn descriptor<R>(&self, at: Slot<u32>, hold: Hold, what: &str, access: impl FnOnce(&AtomicU64, &AtomicU64) -> R) -> Option<R> {
        let m = self.machine;
        let frame = m.frame_of(at.table);
        let number = m.word_number(at.table, u64::from(at.index));
        let inside = usize::from(at.index) < m.geometry().entries();
        let Some(state) = inside.then(|| m.lock_frame(frame, hold)).flatten() else {
            self.cpu.report(
                Invariant::TreeWellFormed,
                at.table.0,
                format!("{what} of entry {} of {}, which is no table in memory", at.index, at.table),
                None,
            );
            return None;
        };
        let judged = Machine::judge_table(state, at.tok);
        let done = match (judged, m.words.get(number), m.named.get(number)) {
            (Judged::Good, Some(word), Some(named)) => Some(access(word, named)),
            _ => None,
        };
        m.unlock_frame(frame, hold);
        if done.is_none() {
            let now = match state.kind() {
                None => "is free".to_owned(),
                Some(kind) => format!("is {kind:?} of generation {}", state.generation()),
            };
            let (invariant, why) = match judged {
                Judged::Never => (Invariant::TreeWellFormed, "was never allocated"),
                _ => (Invariant::NoWalkOfFreedTable, "was freed"),
            };
            self.cpu.report(
                invariant,
                at.table.0,
                format!(
                    "{what} of entry {} of the level-{} table {} of generation {}, which {why} and {now}",
                    at.index, at.level.0, at.table, at.tok
                ),
                Some(at.table),
            );
        }
        done
    }

    /// Store `new` if `wanted` says so of the old word; the old entry, and whether it was stored.
    fn exchange(&self, at: Slot<u32>, new: Desc, what: &str, wanted: impl Fn(Desc) -> bool) -> Option<(Entry<u32>, bool)> {
        let m = self.machine;
        let mut promised = 0;
        let done = self.descriptor(at, Hold::Exclusive, what, |word, named| {
            let old = Desc(word.load(Ordering::Relaxed));
            let entry = Entry { desc: old, tok: m.token(old, at.level, named.load(Ordering::Relaxed)) };
            if !wanted(old) {
                return (entry, false);
            }
            let record = m.record_for(new, at.level);
            promised = m.watch.store(self.cpu.cpu, || word.store(new.0, Ordering::Release));
            named.store(record, Ordering::Relaxed);
            (entry, true)
        });
        if let Some((entry, true)) = done {
            self.judge_store(at, entry.desc, new, promised);
        }
        done
    }
    fn judge_store(&self, at: Slot<u32>, old: Desc, new: Desc, promised: u64) {
        let m = self.machine;
        let g = m.geometry();
        let same = || m.same_template(m.frame_of(g.output(old)), m.frame_of(g.output(new)));
        if bbm_required(g, at.level, old, new, FeatBbm::Level0, same).is_some() {
            self.cpu.tally.count(Count::BreakBeforeMake);
        }
        if promised != 0 {
            let other = m.actor(promised.trailing_zeros() as u8);
            self.cpu.report(
                Invariant::StableDump,
                at.table.0,
                format!(
                    "entry {} of the level-{} table {} changed from {old} to {new} while {other} relies on a stable tree",
                    at.index, at.level.0, at.table
                ),
                Some(at.table),
            );
        }
    }

    // ---- data -------------------------------------------------------------------------------------------------
    fn data<R: Default>(&self, va: Va, store: bool, what: &str, access: impl FnOnce(u64, u64) -> Option<R>) -> R {
        self.cpu.tally.count(if store { Count::Store } else { Count::Load });
        match self.machine.walk_locked(va, store, access) {
            Ok(value) => value.unwrap_or_default(),
            Err(fault) => {
                self.fault(va, what, fault);
                R::default()
            }
        }
    }
    #[cold]
    fn fault(&self, va: Va, what: &str, fault: Fault) {
        let Fault { invariant, desc, level, frame } = fault;
        let pa = self.machine.frame_pa(frame);
        let level = level.0;
        let message = match invariant {
            Invariant::SharedTailsReadOnly => format!("{what} {va} through the read-only leaf {desc} of level {level}"),
            Invariant::NoStaleWalkCache => {
                format!("{what} {va} walks the table {pa}, which was freed while {desc} of level {level} still names it")
            }
            Invariant::NoUseOfFreedFrame => {
                format!("{what} {va} reaches the frame {pa}, which was freed while {desc} of level {level} still maps it")
            }
            Invariant::TreeWellFormed => format!("{what} {va} follows {desc} of level {level} to {pa}, which is no such memory"),
            _ => format!("{what} {va}, which does not translate: {desc} at level {level}"),
        };
        self.cpu.report(invariant, va.0, message, (invariant != Invariant::AlwaysTranslates).then_some(pa));
    }
    /// Access a frame through the linear map. A handle without a token only has to name an allocated frame.
    fn direct<R: Default>(&self, frame: Frame<u32>, what: &str, access: impl FnOnce(u64) -> Option<R>) -> R {
        let m = self.machine;
        let f = m.frame_of(frame.pa);
        let Some(state) = m.lock_frame(f, Hold::Shared) else {
            self.cpu.report(Invariant::TreeWellFormed, frame.pa.0, format!("{what} {}, which is no memory", frame.pa), None);
            return R::default();
        };
        let allocated = state.kind().is_some() || state.generation() == 0 || m.head_of(f).is_some();
        let good = allocated && (frame.tok & 1 == 0 || state.kind().is_none() || state.generation() == frame.tok);
        let done = if good { access(f) } else { None };
        m.unlock_frame(f, Hold::Shared);
        if !good {
            self.cpu.report(
                Invariant::NoUseOfFreedFrame,
                frame.pa.0,
                format!("{what} {} of generation {}, which was freed", frame.pa, frame.tok),
                Some(frame.pa),
            );
        }
        done.unwrap_or_default()
    }

    // ---- contexts ---------------------------------------------------------------------------------------------
    fn held(&self) -> impl Iterator<Item = usize> + '_ {
        (0..LockId::COUNT).filter(|&l| self.depth[l].get() != 0)
    }
    fn might_sleep(&self, what: &str) {
        let context = if let Some(l) = SPINLOCKS.iter().find(|l| self.depth[l.index()].get() != 0) {
            l.name()
        } else if self.irqs_off.get() != 0 {
            "disabled interrupts"
        } else if self.cpu.rcu_depth.get() != 0 {
            "an RCU read section"
        } else {
            return;
        };
        self.cpu.report(Invariant::LockOrder, 0, format!("{what} may sleep under {context}"), None);
    }
}

impl Cpu for Checked<'_> {
    type Tok = u32;

    fn id(&self) -> u8 {
        self.cpu.cpu
    }
    fn label(&self, function: &'static str) {
        self.cpu.label.set(function);
    }

    fn root(&self) -> Frame<u32> {
        let pa = self.machine.root();
        Frame { pa, tok: self.machine.states.get(self.machine.frame_of(pa)).generation() }
    }
    fn read(&self, at: Slot<u32>, _order: Order) -> Entry<u32> {
        self.cpu.tally.count(Count::Read);
        let entry = self.descriptor(at, Hold::Shared, "read", |word, named| {
            let desc = Desc(word.load(Ordering::Acquire));
            Entry { desc, tok: self.machine.token(desc, at.level, named.load(Ordering::Relaxed)) }
        });
        entry.unwrap_or(Entry { desc: Desc::NONE, tok: 0 })
    }
    fn write(&self, at: Slot<u32>, new: Desc, _order: Order) {
        self.cpu.tally.count(Count::Write);
        let _ = self.exchange(at, new, "store", |_| true);
    }
    fn swap(&self, at: Slot<u32>, new: Desc, _order: Order) -> Entry<u32> {
        self.cpu.tally.count(Count::Exchange);
        self.exchange(at, new, "exchange", |_| true).map_or(Entry { desc: Desc::NONE, tok: 0 }, |(entry, _)| entry)
    }
    fn compare_exchange(&self, at: Slot<u32>, old: Desc, new: Desc, _order: Order) -> Result<Entry<u32>, Entry<u32>> {
        self.cpu.tally.count(Count::Exchange);
        match self.exchange(at, new, "compare-and-exchange", |found| found == old) {
            Some((entry, true)) => Ok(entry),
            Some((entry, false)) => Err(entry),
            None => Err(Entry { desc: Desc::NONE, tok: 0 }),
        }
    }

    fn barrier(&self, barrier: Barrier) {
        self.cpu.barrier(barrier);
    }
    fn tlbi(&self, op: Tlbi) {
        self.cpu.tlbi(op);
    }

    fn load(&self, va: Va, order: Order) -> u64 {
        self.data(va, false, "load of", |frame, index| self.machine.read_word(frame, index, order))
    }
    fn store(&self, va: Va, value: u64, _order: Order) {
        self.data(va, true, "store to", |frame, index| self.machine.real_word(frame, index).map(|w| w.store(value, Ordering::Release)));
    }
    fn rmw(&self, va: Va, op: Rmw, order: Order) -> u64 {
        self.data(va, true, "read-modify-write of", |frame, index| self.machine.real_word(frame, index).map(|w| apply_rmw(w, op, order)))
    }
    fn fill(&self, va: Va, template: Template) {
        self.data(va, true, "store to", |frame, _| self.machine.set_template(frame, template));
    }
    fn speculate(&self, _va: Va) {}

    fn alloc(&self, request: Alloc) -> Option<Frame<u32>> {
        if request.may_sleep {
            self.might_sleep("an allocation");
        }
        let first = self.cpu.take(request)?;
        let marked = if request.kind == FrameKind::Huge { 1 } else { 1 << request.order };
        (first..first + marked).for_each(|f| self.note(self.machine.states.held_event(f)));
        Some(Frame { pa: self.machine.frame_pa(first), tok: self.machine.states.get(first).generation() })
    }
    fn free(&self, frame: Frame<u32>, order: u8, kind: FrameKind) {
        let m = self.machine;
        let first = m.frame_of(frame.pa);
        let state = m.states.get(first);
        let plausible = state.kind() == Some(kind) && state.order() == order && !state.has(bit::TAIL | bit::SELF_HOSTED);
        if plausible && frame.tok & 1 != 0 && frame.tok != state.generation() {
            let message = format!(
                "free of {} of generation {}, which was freed before and is generation {} now",
                frame.pa,
                frame.tok,
                state.generation()
            );
            self.cpu.report(Invariant::FramesConserved, frame.pa.0, message, Some(frame.pa));
            return;
        }
        let mut how = Freeing { poison: Contents::Poison, generation: Some(state.generation()), wait_for_readers: true };
        let table = plausible && kind == FrameKind::Table;
        let (mut entries, mut linked) = (0, false);
        if table {
            how = Freeing { poison: Contents::Words, wait_for_readers: false, ..how };
            let now = m.lock_frame(first, Hold::Exclusive).unwrap_or(state);
            linked = now.has(bit::LINKED);
            // Somebody else may have freed it between the look and the lock; then `give` says so.
            if now.generation() == state.generation() {
                entries = (0..m.geometry().entries() as u64)
                    .filter(|&i| m.word_at(frame.pa, i).is_some_and(|w| w.load(Ordering::Relaxed) != 0))
                    .count();
                m.overwrite(first, TABLE_POISON);
            }
        }
        let unlock = |f| {
            if table {
                m.unlock_frame(f, Hold::Exclusive);
            }
        };
        let freed = self.cpu.give(frame.pa, order, kind, how, |f| {
            self.note(m.states.freed_event(f));
            unlock(f);
        });
        if !freed {
            unlock(first);
        }
        if freed && entries != 0 && linked {
            self.cpu.report(
                Invariant::FreedTableIsEmpty,
                frame.pa.0,
                format!("table {} freed with {entries} entries that are not none", frame.pa),
                Some(frame.pa),
            );
        }
    }
    fn frame_of(&self, entry: Entry<u32>, pa: Pa) -> Frame<u32> {
        Frame { pa, tok: entry.tok }
    }
    fn split_frame(&self, frame: Frame<u32>, order: u8) {
        self.cpu.split_frame(plain(frame), order);
    }
    fn is_reserved(&self, frame: Frame<u32>) -> bool {
        self.cpu.is_reserved(plain(frame))
    }
    fn copy_frame(&self, from: Frame<u32>, to: Frame<u32>) {
        self.direct(from, "copy from", |from| {
            self.direct(to, "copy to", |to| self.machine.copy_words(from, to));
            Some(())
        });
    }
    fn copy_from_va(&self, from: Va, to: Frame<u32>) {
        self.data(from, false, "copy from", |from, _| {
            self.direct(to, "copy to", |to| self.machine.copy_words(from, to));
            Some(())
        });
    }
    fn load_frame(&self, frame: Frame<u32>, index: u16) -> u64 {
        self.direct(frame, "load of a word of", |f| self.machine.read_word(f, u64::from(index), Order::Acquire))
    }
    fn store_frame(&self, frame: Frame<u32>, index: u16, value: u64) {
        self.direct(frame, "store to a word of", |f| {
            self.machine.real_word(f, u64::from(index)).map(|w| w.store(value, Ordering::Release))
        });
    }
    fn list_push(&self, list: &mut FrameList<u32>, frame: Frame<u32>) {
        if let Some(tok) = self.machine.states.list_tok(self.machine.frame_of(frame.pa)) {
            tok.store(u64::from(frame.tok), Ordering::Relaxed);
        }
        self.cpu.push(list, frame);
    }
    fn list_pop(&self, list: &mut FrameList<u32>) -> Option<Frame<u32>> {
        self.cpu.pop(list, |n| self.listed(n))
    }
    fn list_shift(&self, list: &mut FrameList<u32>) -> Option<Frame<u32>> {
        self.cpu.shift(list, |n| self.listed(n))
    }
    fn range_op(&self, start: Pa, bytes: u64, op: RangeOp) -> Result<(), InUse> {
        self.cpu.range_op(start, bytes, op)
    }
    fn range_in_use(&self, start: Pa, bytes: u64) -> Option<InUse> {
        self.cpu.range_in_use(start, bytes)
    }
    fn claim_self_hosted(&self, start: Pa, frames: u64) -> Frame<u32> {
        self.machine.claim_storage(start, frames);
        Frame { pa: start, tok: self.machine.states.get(self.machine.frame_of(start)).generation() }
    }
    fn is_self_hosted(&self, frame: Frame<u32>) -> bool {
        self.cpu.is_self_hosted(plain(frame))
    }

    fn acquire(&self, lock: LockId, mode: Mode) {
        if !lock.is_spinlock() {
            self.might_sleep(lock.name());
        }
        let depth = &self.depth[lock.index()];
        // offline_pages holds cpu_hotplug_lock for read when restore's static key takes it again; device_hotplug_lock keeps
        // its writers away, so nothing hangs (kernel-semantics §0).
        let known = lock == LockId::CpuHotplug && mode == Mode::Read;
        if depth.get() != 0 {
            if !known {
                // Acquiring it would wait for this CPU itself (a reader: behind a writer that waits for it).
                self.cpu.report(Invariant::LockOrder, 0, format!("{} is acquired by its holder", lock.name()), None);
            }
        } else {
            let held = self.held().fold(0, |mask, l| mask | 1 << l);
            if let Some(other) = self.machine.watch.order_cycle(held, lock) {
                let message = format!("{} is acquired under {}; elsewhere the order is the reverse", lock.name(), name_of(other));
                self.cpu.report(Invariant::LockOrder, 0, message, None);
            }
            self.cpu.acquire(lock, mode);
        }
        depth.set(depth.get().saturating_add(1));
    }
    fn try_acquire(&self, lock: LockId, mode: Mode) -> bool {
        let taken = self.cpu.try_acquire(lock, mode);
        if taken {
            let depth = &self.depth[lock.index()];
            depth.set(depth.get().saturating_add(1));
        }
        taken
    }
    fn release(&self, lock: LockId, mode: Mode) {
        let depth = &self.depth[lock.index()];
        let was = depth.get();
        if was > 1 {
            depth.set(was - 1);
            return;
        }
        depth.set(0);
        if was == 0 {
            self.cpu.report(Invariant::LockOrder, 0, format!("release of {}, which this CPU does not hold", lock.name()), None);
        } else {
            self.cpu.release(lock, mode);
        }
    }

    fn var_load(&self, var: Var, order: Order) -> u64 {
        self.cpu.var_load(var, order)
    }
    fn var_store(&self, var: Var, value: u64, order: Order) {
        self.cpu.var_store(var, value, order);
    }
    fn var_rmw(&self, var: Var, op: Rmw, order: Order) -> u64 {
        self.cpu.var_rmw(var, op, order)
    }
    fn wait_until(&self, var: Var, condition: Until) -> u64 {
        let word = self.cpu.var_load(var, Order::Acquire);
        if condition.holds(word) {
            return word;
        }
        self.cpu.wait_until(var, condition)
    }

    fn rcu_read_lock(&self) {
        self.cpu.rcu_read_lock();
    }
    fn rcu_read_unlock(&self) {
        self.cpu.rcu_read_unlock();
    }
    fn synchronize_rcu(&self) {
        if self.cpu.rcu_depth.get() == 0 {
            self.might_sleep("synchronize_rcu");
        }
        self.cpu.synchronize_rcu();
    }
    fn irq_disable(&self) {
        self.irqs_off.set(self.irqs_off.get() + 1);
    }
    fn irq_enable(&self) {
        self.irqs_off.set(self.irqs_off.get().saturating_sub(1));
    }
    fn ipi_pause(&self) {
        self.cpu.ipi_pause();
    }
    fn ipi_resume(&self) {
        self.cpu.ipi_resume();
    }
    fn stop_machine_begin(&self) {
        self.cpu.stop_machine_begin();
    }
    fn stop_machine_end(&self) {
        self.cpu.stop_machine_end();
    }

    fn signal_pending(&self) -> bool {
        self.cpu.signal_pending()
    }
    fn warn(&self, what: Invariant, address: u64, message: &'static str) {
        self.cpu.warn(what, address, message);
    }
    fn expect_stable(&self, on: bool) {
        if on {
            self.machine.watch.begin_stable(self.cpu.cpu);
        } else {
            self.machine.watch.end_stable(self.cpu.cpu);
        }
    }
    fn exclusive(&self, what: Invariant, begin: bool) {
        self.cpu.exclusive(what, begin);
    }
    fn choose(&self, n: u32, why: &'static str) -> u32 {
        self.cpu.choose(n, why)
    }
    fn round(&self, state: u64) {
        self.cpu.round(state);
    }

    fn geometry(&self) -> &Geometry {
        self.machine.geometry()
    }
}

impl Checked<'_> {
    fn listed(&self, number: u64) -> Frame<u32> {
        let tok = self.machine.states.list_tok(number).map_or(0, |w| w.load(Ordering::Relaxed));
        Frame { pa: self.machine.frame_pa(number), tok: tok as u32 }
    }
}
