//! The lock in a frame's state word, with which a checked CPU makes check and access one step.
//!
//! # Protocol
//! Reading or storing a descriptor pins its table (`pins`), which takes no locked instruction; what is stored is stored
//! by one exchange. Freeing a table holds it exclusively, and waits for who has pinned it. A walk that stands for
//! hardware goes hand over hand: it holds a table until it has the next one, and the leaf's table and frame until the
//! data access is done. So every access happens before or after a free, never during it. What a walk has read but does
//! not hold yet may be replaced and freed meanwhile, its invalidate included: then the entry no longer says what was
//! read, and the walk begins again, as a translation that an invalidate has reached. Who holds a table exclusively
//! waits for pins alone, nobody waits while it has pinned one, and shared holders wait downwards only; there is no
//! cycle to deadlock in.

use std::sync::atomic::AtomicU64;

use vmemmap_arch::{Desc, FrameKind, Invariant, Kind, Level, Va};

use crate::native::frame_state::{State, bit};
use crate::native::locks::Patience;
use crate::native::machine::Machine;

/// Shared or exclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    Shared,
    Exclusive,
}

/// How a frame that an access needs turned out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judged {
    Good,
    /// The frame that was named has been freed since (and may be something else now).
    Freed,
    /// It has never been allocated.
    Never,
}

/// What stopped a walk that stands for hardware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    pub invariant: Invariant,
    pub desc: Desc,
    pub level: Level,
    /// Number of the frame it is about.
    pub frame: u64,
}

impl Machine {
    /// Lock a frame and return its state; `None` outside the machine.
    pub(crate) fn lock_frame(&self, frame: u64, hold: Hold) -> Option<State> {
        self.states.word(frame)?;
        let mut patience = Patience::default();
        loop {
            let taken = self.states.update(frame, |s| match hold {
                Hold::Shared => (!s.has(bit::WRITER)).then_some(State(s.0 + 1)),
                Hold::Exclusive => (!s.has(bit::WRITER | bit::READERS)).then_some(State(s.0 | bit::WRITER)),
            });
            if let Ok(state) = taken {
                return Some(state);
            }
            patience.wait();
        }
    }
    pub(crate) fn unlock_frame(&self, frame: u64, hold: Hold) {
        if let Some(word) = self.states.word(frame) {
            match hold {
                Hold::Shared => word.fetch_sub(1, std::sync::atomic::Ordering::Release),
                Hold::Exclusive => word.fetch_and(!bit::WRITER, std::sync::atomic::Ordering::Release),
            };
        }
    }

    /// Lock a table exclusively: no walk goes through it, and no access of a CPU that pinned it is under way.
    pub(crate) fn lock_table(&self, table: u64) -> Option<State> {
        let state = self.lock_frame(table, Hold::Exclusive)?;
        self.watch.pins.wait_for(table);
        Some(state)
    }
    /// Pin a table and return its state; `None` outside the machine. Nobody frees it before `unpin`.
    #[inline]
    pub(crate) fn pin_table(&self, cpu: u8, table: u64, storing: bool) -> Option<State> {
        let word = self.states.word(table)?;
        self.watch.pins.pin(cpu, table, storing);
        let state = State(word.load(std::sync::atomic::Ordering::Acquire));
        Some(if state.has(bit::WRITER) { self.pin_again(cpu, table, storing, word) } else { state })
    }
    /// Somebody holds it exclusively.
    #[cold]
    fn pin_again(&self, cpu: u8, table: u64, storing: bool, word: &AtomicU64) -> State {
        let mut patience = Patience::default();
        loop {
            self.watch.pins.unpin(cpu);
            patience.wait();
            self.watch.pins.pin(cpu, table, storing);
            let state = State(word.load(std::sync::atomic::Ordering::Acquire));
            if !state.has(bit::WRITER) {
                return state;
            }
        }
    }

    /// Whether a handle with generation `tok` still names the table that it named.
    #[inline]
    pub(crate) fn judge_table(state: State, tok: u32) -> Judged {
        if state.kind() == Some(FrameKind::Table) && state.generation() == tok {
            Judged::Good
        } else if state.generation() == 0 && tok == 0 {
            Judged::Never
        } else {
            Judged::Freed
        }
    }
    /// Whether the frame that a leaf names is still the one it named when the leaf was written (`recorded`, if known).
    ///
    /// A leaf written while its frame was free (the linear map covers free memory too) is not judged by what the frame
    /// was then, but only by whether it is free now. A frame that never was the allocator's is not judged.
    fn judge_leaf(&self, frame: u64, state: State, recorded: Option<u32>) -> Judged {
        let recorded = recorded.filter(|g| g & 1 != 0);
        match state.kind() {
            _ if recorded.is_some_and(|g| g != state.generation()) => Judged::Freed,
            Some(_) => Judged::Good,
            None if state.generation() == 0 => Judged::Good,
            None if self.head_of(frame).is_some() => Judged::Good,
            None => Judged::Freed,
        }
    }
    /// Generation that was recorded with a descriptor, if the record is about the frame that it names.
    #[inline]
    fn recorded(named: u64, frame: u64) -> Option<u32> {
        (named != 0 && named & 0xffff_ffff == frame & 0xffff_ffff).then_some((named >> 32) as u32)
    }
    /// Token of a descriptor: generation of the frame it names, as of when it was written.
    #[inline(always)]
    pub(crate) fn token(&self, desc: Desc, level: Level, named: u64) -> u32 {
        let Some(frame) = self.named_frame(desc, level) else { return 0 };
        Self::recorded(named, frame).unwrap_or_else(|| self.states.get(frame).generation())
    }
    /// The record for a descriptor that is stored now.
    #[inline(always)]
    pub(crate) fn record_for(&self, desc: Desc, level: Level) -> u64 {
        let Some(frame) = self.named_frame(desc, level) else { return 0 };
        let Some(word) = self.states.word(frame) else { return 0 };
        let state = State(word.load(std::sync::atomic::Ordering::Acquire));
        if level != Level::PTE && desc.is_table_type() {
            self.note_link(frame);
        }
        u64::from(state.generation()) << 32 | frame & 0xffff_ffff
    }
    /// A table descriptor names the frame.
    #[inline(never)]
    fn note_link(&self, frame: u64) {
        let unlinked = |s: State| s.kind() == Some(FrameKind::Table) && !s.has(bit::LINKED);
        let _ = self.states.update(frame, |s| unlinked(s).then_some(State(s.0 | bit::LINKED)));
    }

    /// Translate `va` as hardware does and run `access` on the frame and the word's number in it, all in one step.
    ///
    /// # Errors
    /// The fault; `access` has not run then.
    pub(crate) fn walk_locked<R>(&self, va: Va, store: bool, access: impl FnOnce(u64, u64) -> R) -> Result<R, Fault> {
        let g = self.geometry();
        let root = self.frame_of(self.root());
        let (mut table, mut level) = (root, g.top());
        self.lock_frame(table, Hold::Shared);
        let result = loop {
            let at = self.word_number(self.frame_pa(table), u64::from(g.index(va, level)));
            let acquire = std::sync::atomic::Ordering::Acquire;
            let read = || {
                let desc = Desc(self.words.get(at).map_or(0, |w| w.load(acquire)));
                (desc, self.records.get(at).map_or(0, |w| w.load(acquire)))
            };
            let (desc, named) = read();
            let again = |held: u64, next: u64| {
                self.unlock_frame(next, Hold::Shared);
                self.unlock_frame(held, Hold::Shared);
                self.lock_frame(root, Hold::Shared);
                (root, g.top())
            };
            let fault = |invariant, frame| Fault { invariant, desc, level, frame };
            match g.kind(desc, level) {
                Kind::Table(pa) => {
                    let next = self.frame_of(pa);
                    let Some(state) = self.lock_frame(next, Hold::Shared) else {
                        break Err(fault(Invariant::TreeWellFormed, next));
                    };
                    let tok = Self::recorded(named, next).unwrap_or_else(|| state.generation());
                    let judged = Self::judge_table(state, tok);
                    if judged != Judged::Good && read() != (desc, named) {
                        (table, level) = again(table, next);
                        continue;
                    }
                    self.unlock_frame(table, Hold::Shared);
                    table = next;
                    match judged {
                        Judged::Good => level = level.next(),
                        Judged::Freed => break Err(fault(Invariant::NoStaleWalkCache, next)),
                        Judged::Never => break Err(fault(Invariant::TreeWellFormed, next)),
                    }
                }
                Kind::Page(pa) | Kind::Block(pa) => {
                    let named_frame = self.frame_of(pa);
                    let pa = pa.plus(va.0 & (g.entry_span(level) - 1));
                    let frame = self.frame_of(pa);
                    if store && !desc.is_writable() {
                        break Err(fault(Invariant::SharedTailsReadOnly, frame));
                    }
                    let Some(state) = self.lock_frame(frame, Hold::Shared) else {
                        break Err(fault(Invariant::TreeWellFormed, frame));
                    };
                    let judged = self.judge_leaf(frame, state, Self::recorded(named, named_frame));
                    if judged != Judged::Good && read() != (desc, named) {
                        (table, level) = again(table, frame);
                        continue;
                    }
                    let result = match judged {
                        Judged::Good => Ok(access(frame, (pa.0 & (g.page_size() - 1)) >> 3)),
                        _ => Err(fault(Invariant::NoUseOfFreedFrame, frame)),
                    };
                    self.unlock_frame(frame, Hold::Shared);
                    break result;
                }
                Kind::None | Kind::Invalid | Kind::Reserved => break Err(fault(Invariant::AlwaysTranslates, table)),
            }
        };
        self.unlock_frame(table, Hold::Shared);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use vmemmap_arch::descriptor::prot;
    use vmemmap_arch::{Alloc, Cpu, Geometry, Granule, Order, Pa, Slot, Zone};

    use super::*;
    use crate::config::{MachineConfig, RamRange};
    use crate::native::frame_state::Contents;

    /// Makes what an entry of that level names look busy, lets a walk come as far as it, and meanwhile lets `change`
    /// happen, with a descriptor of what is to replace it, and what the entry named be freed. The word that the walk
    /// finds, and what was violated.
    fn freed_under_a_walk(level: Level, change: impl Fn(&Machine, Slot<u32>, Desc)) -> (u64, Vec<Invariant>) {
        let geometry = Geometry::new(Granule::K4, 39).unwrap();
        let ram = vec![RamRange { start: Pa(1 << 30), bytes: 1 << 27, boot: true }];
        let config = MachineConfig { geometry, ram, cpus: 2, vars: 0, root: None, seed: 1 };
        let m = Machine::new(&config).unwrap();
        let cpu = m.checked_cpu(0);
        let alloc = |kind| {
            let request = Alloc { order: 0, kind, zone: Zone::Normal, at: None, may_sleep: false, top_down: false };
            cpu.alloc(request).unwrap()
        };
        // A way from an entry of `level` down to a frame that holds `value`, and its descriptor.
        let way = |value| {
            let frame = alloc(FrameKind::Data);
            cpu.store_frame(frame, 0, value);
            let mut desc = geometry.descriptor(frame.pa, prot::PAGE_KERNEL);
            let mut named = frame;
            for at in (level.0 + 1..=Level::PTE.0).rev().map(Level) {
                named = alloc(FrameKind::Table);
                cpu.write(Slot { table: named.pa, index: 0, level: at, tok: named.tok }, desc, Order::Plain);
                desc = geometry.descriptor(named.pa, prot::TABLE);
            }
            (named, desc)
        };
        let mut at = Slot { table: cpu.root().pa, index: 0, level: geometry.top(), tok: cpu.root().tok };
        while at.level != level {
            let table = alloc(FrameKind::Table);
            cpu.write(at, geometry.descriptor(table.pa, prot::TABLE), Order::Plain);
            at = Slot { table: table.pa, index: 0, level: at.level.next(), tok: table.tok };
        }
        let ((old, desc), (_, new)) = (way(1), way(2));
        cpu.write(at, desc, Order::Plain);
        let (old, table) = (m.frame_of(old.pa), m.frame_of(at.table));
        m.lock_frame(old, Hold::Exclusive);
        let found = thread::scope(|scope| {
            let walk = scope.spawn(|| m.checked_cpu(1).load(Va(0xffff_ff80_0000_0000), Order::Plain));
            // It holds the entry's table: what it does next is to read the entry and wait for what that names.
            while !m.states.get(table).has(bit::READERS) {
                thread::yield_now();
            }
            for _ in 0..1000 {
                thread::yield_now();
            }
            change(&m, at, new);
            m.states.update(old, |s| Some(s.freed(Contents::Poison))).unwrap();
            m.unlock_frame(old, Hold::Exclusive);
            walk.join().unwrap()
        });
        (found, m.violations().iter().map(|v| v.invariant).collect())
    }

    #[test]
    fn a_walk_whose_entry_was_replaced_begins_again() {
        for level in [Level::PTE, Level::PMD, Level::PUD] {
            let replaced = |m: &Machine, at, new| m.checked_cpu(0).write(at, new, Order::Plain);
            assert_eq!(freed_under_a_walk(level, replaced), (2, vec![]), "{level:?}");
        }
    }

    #[test]
    fn a_walk_whose_entry_stayed_is_i3_or_for_a_table_i5() {
        assert_eq!(freed_under_a_walk(Level::PTE, |_, _, _| {}), (0, vec![Invariant::NoUseOfFreedFrame]));
        for level in [Level::PMD, Level::PUD] {
            assert_eq!(freed_under_a_walk(level, |_, _, _| {}), (0, vec![Invariant::NoStaleWalkCache]), "{level:?}");
        }
    }
}
