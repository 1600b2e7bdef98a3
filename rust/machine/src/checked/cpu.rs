//! The methods of a checked CPU.

use std::sync::atomic::Ordering;

use vmemmap_arch::{
    Alloc, Barrier, Cpu, Data, Desc, Entry, Fault, Frame, FrameKind, FrameList, Geometry, InUse, Invariant, LockId,
    Mode, Order, Pa, RangeOp, Rmw, Slot, Template, Tlbi, Until, Va, Var,
};

use super::{Checked, TABLE_POISON};
use crate::checked::frame_lock::Hold;
use crate::native::contents::Reached;
use crate::native::counters::Count;
use crate::native::frame_state::{Contents, bit};
use crate::native::promises::name_of;
use crate::native::ranges::Freeing;
use crate::native::running::Change;

fn plain(frame: Frame<u32>) -> Frame<()> {
    Frame { pa: frame.pa, tok: () }
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
    #[inline]
    fn read(&self, at: Slot<u32>, _order: Order) -> Entry<u32> {
        self.cpu.tally.count(Count::Read);
        let Some(pinned) = self.pinned(&at, false, "read") else { return Entry { desc: Desc::NONE, tok: 0 } };
        let desc = Desc(pinned.word.load(Ordering::Acquire));
        Entry { desc, tok: self.machine.token(desc, at.level, pinned.recorded()) }
    }
    #[inline]
    fn write(&self, at: Slot<u32>, new: Desc, _order: Order) {
        self.cpu.tally.count(Count::Write);
        let _ = self.exchange(&at, new, "store", None);
    }
    #[inline]
    fn swap(&self, at: Slot<u32>, new: Desc, _order: Order) -> Entry<u32> {
        self.cpu.tally.count(Count::Exchange);
        self.exchange(&at, new, "exchange", None).map_or(Entry { desc: Desc::NONE, tok: 0 }, |(entry, _)| entry)
    }
    fn compare_exchange(&self, at: Slot<u32>, old: Desc, new: Desc, _order: Order) -> Result<Entry<u32>, Entry<u32>> {
        self.cpu.tally.count(Count::Exchange);
        match self.exchange(&at, new, "compare-and-exchange", Some(old)) {
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
        self.data(va, true, "store to", |frame, index| {
            self.machine.store_word(frame, index, value, Order::Release, Change::Atomic)
        });
    }
    fn rmw(&self, va: Va, op: Rmw, order: Order) -> u64 {
        if let Rmw::StoreExclusive { old, .. } = op {
            let found = self.load(va, order);
            if found != old {
                return found;
            }
        }
        self.data(va, true, "read-modify-write of", |frame, index| {
            self.machine.rmw_word(frame, index, op, order, Change::Atomic)
        })
    }
    fn fill(&self, va: Va, template: Template) {
        self.data(va, true, "store to", |frame, _| {
            self.machine.set_template(frame, template, Change::Atomic).map_or(Reached::Outside, Reached::Done)
        });
    }
    fn attempt(&self, access: Data<u32>) -> Result<u64, Fault> {
        self.cpu.attempted(|| access.perform(self))
    }
    fn speculate(&self, _va: Va) {}
    fn iommu_walk(&self, _va: Va) {}
    fn iommu_invalidate(&self) {}
    fn memory_gone(&self, _start: Pa, _bytes: u64) {}

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
        let plausible =
            state.kind() == Some(kind) && state.order() == order && !state.has(bit::TAIL | bit::SELF_HOSTED);
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
        let mut how = Freeing {
            poison: Contents::Poison,
            generation: Some(state.generation()),
            wait_for_readers: true,
            change: Change::Atomic,
        };
        let table = plausible && kind == FrameKind::Table;
        let (mut entries, mut linked) = (0, false);
        if table {
            how = Freeing { poison: Contents::Words, wait_for_readers: false, ..how };
            let now = m.lock_table(first).unwrap_or(state);
            linked = now.has(bit::LINKED);
            // Somebody else may have freed it between the look and the lock; then `give` says so.
            if now.generation() == state.generation() {
                entries = (0..m.geometry().entries() as u64)
                    .filter(|&i| m.word_at(frame.pa, i).is_some_and(|w| w.load(Ordering::Relaxed) != 0))
                    .count();
                m.overwrite(first, TABLE_POISON);
                m.discard_records(first);
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
    fn split_run(&self, frame: Frame<u32>, order: u8, into: u8) {
        self.cpu.split_run(plain(frame), order, into);
    }
    fn is_reserved(&self, frame: Frame<u32>) -> bool {
        self.cpu.is_reserved(plain(frame))
    }
    fn copy_frame(&self, from: Frame<u32>, to: Frame<u32>) {
        self.direct(from, "copy from", |from| {
            self.direct(to, "copy to", |to| self.machine.copy_words(from, to).directly());
            Some(())
        });
    }
    fn copy_from_va(&self, from: Va, to: Frame<u32>) {
        self.data(from, false, "copy from", |from, _| {
            self.direct(to, "copy to", |to| Some(Some(self.machine.copy_words(from, to)))).unwrap_or(Reached::Done(()))
        });
    }
    fn fill_frame(&self, frame: Frame<u32>, template: Template) {
        self.direct(frame, "fill of", |f| self.machine.set_template(f, template, Change::Atomic));
    }
    fn load_frame(&self, frame: Frame<u32>, index: u16) -> u64 {
        self.direct(frame, "load of a word of", |f| {
            self.machine.read_word(f, u64::from(index), Order::Acquire).directly()
        })
    }
    fn store_frame(&self, frame: Frame<u32>, index: u16, value: u64) {
        self.direct(frame, "store to a word of", |f| {
            self.machine.store_word(f, u64::from(index), value, Order::Release, Change::Atomic).directly()
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
    fn release_self_hosted(&self, frame: Frame<u32>, frames: u64) {
        self.cpu.release_self_hosted(plain(frame), frames);
    }
    fn is_self_hosted(&self, frame: Frame<u32>) -> bool {
        self.cpu.is_self_hosted(plain(frame))
    }

    fn acquire(&self, lock: LockId, mode: Mode) {
        if !lock.is_spinlock() {
            self.might_sleep(lock.name());
        }
        let depth = &self.depth[lock.index()];
        // offline_pages holds cpu_hotplug_lock for read when restore's static key takes it again; device_hotplug_lock
        // keeps its writers away, so nothing hangs (kernel-semantics §0).
        let known = lock == LockId::CpuHotplug && mode == Mode::Read;
        if depth.get() != 0 {
            if !known {
                // Acquiring it would wait for this CPU itself (a reader: behind a writer that waits for it).
                self.cpu.report(Invariant::LockOrder, 0, format!("{} is acquired by its holder", lock.name()), None);
            }
        } else {
            let held = self.held().fold(0, |mask, l| mask | 1 << l);
            if let Some(other) = self.machine.watch.order_cycle(held, lock) {
                let message =
                    format!("{} is acquired under {}; elsewhere the order is the reverse", lock.name(), name_of(other));
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
            self.cpu.report(
                Invariant::LockOrder,
                0,
                format!("release of {}, which this CPU does not hold", lock.name()),
                None,
            );
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
    fn send_ipi(&self, line: Var) -> u64 {
        self.cpu.send_ipi(line)
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
