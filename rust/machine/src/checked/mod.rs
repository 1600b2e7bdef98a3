//! A CPU with checks: a use after free, a hole, a store through a read-only leaf is a report with both histories.
//!
//! Handles carry the generation of their frame, odd while it is allocated, and a descriptor's record says which
//! generation it named when it was written; every access compares under the frame's lock, or while the table is pinned
//! (`frame_lock`), so that what is reported happened and what happened is reported. A refused access reads none (or 0),
//! so that every walk ends by itself. Descriptors must be stored by checked CPUs, or by `Machine::write_table_raw`
//! before these run, or their records are missing and the frame's present generation is taken for the one that was
//! named.

mod cpu;
pub(crate) mod frame_lock;

use core::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use vmemmap_arch::bbm::{FeatBbm, bbm_required, changes_permissions_alone};
use vmemmap_arch::{Desc, Entry, Frame, Invariant, Level, LockId, Slot, Va};

use crate::checked::frame_lock::{Fault, Hold, Judged};
use crate::native::contents::Reached;
use crate::native::counters::Count;
use crate::native::cpu::Native;
use crate::native::frame_state::{PackedEvent, State};
use crate::native::locks::Patience;
use crate::native::machine::Machine;
use crate::native::promises::SPINLOCKS;

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

/// A descriptor of a table that this CPU has pinned.
struct Pinned<'m> {
    word: &'m AtomicU64,
    /// If it has one.
    record: Option<&'m AtomicU64>,
    machine: &'m Machine,
    cpu: u8,
}

impl Pinned<'_> {
    #[inline(always)]
    fn recorded(&self) -> u64 {
        self.record.map_or(0, |record| record.load(Ordering::Relaxed))
    }
}

impl Drop for Pinned<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.machine.watch.pins.unpin(self.cpu);
    }
}

impl Machine {
    /// A CPU with the checks of `Checked`. Unchecked CPUs may have run before, but not beside it.
    #[must_use]
    pub fn checked_cpu(&self, number: u8) -> Checked<'_> {
        self.renew_records();
        Checked::new(self, number.min(self.cpus() - 1))
    }
}

impl<'m> Checked<'m> {
    fn new(machine: &'m Machine, cpu: u8) -> Self {
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
            word.store(
                PackedEvent::new(self.cpu.cpu, self.label.get().1, self.machine.next_step()).0,
                Ordering::Relaxed,
            );
        }
    }

    // ---- descriptors ----------------------------------------------------------------------------------------
    /// A descriptor and its record, whose table is not freed until the pin is gone; `None`: reported.
    #[inline(always)]
    fn pinned(&self, at: &Slot<u32>, storing: bool, what: &str) -> Option<Pinned<'_>> {
        let m = self.machine;
        let frame = m.frame_of(at.table);
        let number = m.word_number(at.table, u64::from(at.index));
        let inside = usize::from(at.index) < m.geometry().entries();
        let Some(state) = inside.then(|| m.pin_table(self.cpu.cpu, frame, storing)).flatten() else {
            self.no_table(at, what);
            return None;
        };
        let judged = Machine::judge_table(state, at.tok);
        match (judged, m.words.get(number)) {
            (Judged::Good, Some(word)) => {
                let record = if storing { m.records.make(number) } else { m.records.get(number) };
                Some(Pinned { word, record, machine: m, cpu: self.cpu.cpu })
            }
            _ => {
                m.watch.pins.unpin(self.cpu.cpu);
                self.freed_table(at, what, state, judged);
                None
            }
        }
    }
    #[cold]
    fn no_table(&self, at: &Slot<u32>, what: &str) {
        self.cpu.report(
            Invariant::TreeWellFormed,
            at.table.0,
            format!("{what} of entry {} of {}, which is no table in memory", at.index, at.table),
            None,
        );
    }
    #[cold]
    fn freed_table(&self, at: &Slot<u32>, what: &str, state: State, judged: Judged) {
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

    /// Store `new`, if `wanted` is there or none is asked for; the old entry, and whether it was stored. The slot comes
    /// by reference: a copy would read in one piece what its maker has just stored in several. Part of its caller: an
    /// exchange waits until the stores before it are done, and a call makes a dozen.
    #[inline(always)]
    fn exchange(&self, at: &Slot<u32>, new: Desc, what: &str, wanted: Option<Desc>) -> Option<(Entry<u32>, bool)> {
        let m = self.machine;
        let pinned = self.pinned(at, true, what)?;
        let record = m.record_for(new, at.level);
        let before = pinned.recorded();
        let promised = m.watch.promised(self.cpu.cpu);
        let found = match wanted {
            None => Ok(pinned.word.swap(new.0, Ordering::AcqRel)),
            Some(old) => pinned.word.compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Acquire),
        };
        let (old, stored) = (Desc(found.unwrap_or_else(|old| old)), found.is_ok());
        // Whoever reads the word before its record, or an older record, finds one of another frame, or none.
        if stored && let Some(at) = pinned.record {
            at.store(record, Ordering::Release);
        }
        let tok = m.token(old, at.level, before);
        drop(pinned);
        if stored {
            if at.level != Level::PTE {
                m.stored_above_ptes();
            }
            if promised != 0 || !changes_permissions_alone(old, new) {
                self.judge_store(at, old, new, promised);
            }
        }
        Some((Entry { desc: old, tok }, stored))
    }
    #[inline(never)]
    fn judge_store(&self, at: &Slot<u32>, old: Desc, new: Desc, promised: u64) {
        let m = self.machine;
        let g = m.geometry();
        let same = || m.hold_same(m.frame_of(g.output(old)), m.frame_of(g.output(new)));
        if bbm_required(g, at.level, old, new, FeatBbm::Level0, same).is_some() {
            self.cpu.tally.count(Count::BreakBeforeMake);
        }
        if promised != 0 && !m.watch.is_unstable(m, at.table, at.index, at.level) {
            let other = m.actor(promised.trailing_zeros() as u8);
            self.cpu.report(
                Invariant::StableDump,
                at.table.0,
                format!(
                    "entry {} of the level-{} table {} changed from {old} to {new} while {other} relies on a stable \
                        tree",
                    at.index, at.level.0, at.table
                ),
                Some(at.table),
            );
        }
    }

    // ---- data -------------------------------------------------------------------------------------------------
    /// Access what `va` translates to; again, if the frame was taken out of the tables in between.
    fn data<R: Default>(&self, va: Va, store: bool, what: &str, access: impl Fn(u64, u64) -> Reached<R>) -> R {
        self.cpu.tally.count(if store { Count::Store } else { Count::Load });
        let mut patience = Patience::default();
        loop {
            match self.machine.walk_locked(va, store, &access) {
                Ok(Reached::Done(value)) => return value,
                Ok(Reached::Listed) => patience.wait(),
                Ok(Reached::Outside) => return R::default(),
                Err(fault) => {
                    self.fault(va, what, fault);
                    return R::default();
                }
            }
        }
    }
    #[cold]
    fn fault(&self, va: Va, what: &str, fault: Fault) {
        let Fault { invariant, desc, level, frame } = fault;
        if invariant == Invariant::AlwaysTranslates && self.cpu.takes_fault() {
            return;
        }
        let pa = self.machine.frame_pa(frame);
        let level = level.0;
        let message = match invariant {
            Invariant::SharedTailsReadOnly => format!("{what} {va} through the read-only leaf {desc} of level {level}"),
            Invariant::NoStaleWalkCache => {
                format!(
                    "{what} {va} walks the table {pa}, which was freed while {desc} of level {level} still names it"
                )
            }
            Invariant::NoUseOfFreedFrame => {
                format!(
                    "{what} {va} reaches the frame {pa}, which was freed while {desc} of level {level} still maps it"
                )
            }
            Invariant::TreeWellFormed => {
                format!("{what} {va} follows {desc} of level {level} to {pa}, which is no such memory")
            }
            _ => format!("{what} {va}, which does not translate: {desc} at level {level}"),
        };
        self.cpu.report(invariant, va.0, message, (invariant != Invariant::AlwaysTranslates).then_some(pa));
    }
    /// Access a frame through the linear map. A handle without a token only has to name an allocated frame.
    fn direct<R: Default>(&self, frame: Frame<u32>, what: &str, access: impl FnOnce(u64) -> Option<R>) -> R {
        let m = self.machine;
        let f = m.frame_of(frame.pa);
        let Some(state) = m.lock_frame(f, Hold::Shared) else {
            self.cpu.report(
                Invariant::TreeWellFormed,
                frame.pa.0,
                format!("{what} {}, which is no memory", frame.pa),
                None,
            );
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

    /// Handle of a frame on a list, as it was put there.
    fn listed(&self, number: u64) -> Frame<u32> {
        let tok = self.machine.states.list_tok(number).map_or(0, |w| w.load(Ordering::Relaxed));
        Frame { pa: self.machine.frame_pa(number), tok: tok as u32 }
    }
}
