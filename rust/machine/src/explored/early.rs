//! Early loads: a plain load may have taken effect before its place in the program, so that it returns an old value
//! (docs/memory-model.md, "Weak memory in `explore`").
//!
//! An early load is a step of its own, of an actor that stands for the load queue of a CPU (`Context::LoadQueue`): it
//! loads a word as the CPU could now, translation included, and *holds* the value. The next plain load of that word by
//! that CPU returns it. Whatever orders that load after what comes before it in the program lets the value go: then the
//! CPU has loaded nothing yet.
//!
//! Only words that somebody named (`World::load_early`) are loaded early: those of which the program's loads have
//! addresses that were computed from no earlier load, since address dependencies are not tracked. A load takes effect
//! early, never late, so it stays before every later store.

use vmemmap_arch::{Barrier, Data, Order, Va};

use super::accesses::Touch;
use super::candidates::End;
use super::cells::{ASIDE, Cell};
use super::held::{Early, EarlyLoad, Held};
use super::memory::{FrameId, offset};
use super::waiting::Target;
use super::world::World;
use crate::op::{Op, Reply, Tok};

/// What an operation does to what its CPU holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Effect {
    /// Nothing, or what the word that it accesses asks for.
    Keeps(Option<Early>),
    /// It orders later loads, or may.
    Orders,
    /// Those of all CPUs.
    OrdersAll,
}

/// What of loads the operation orders. What is not known to order none is taken to order them: that can only miss.
fn effect(op: &Op) -> Effect {
    let relaxed = |order: Order, of: Early| match order {
        Order::Plain | Order::Relaxed | Order::Release => Effect::Keeps(Some(of)),
        Order::Acquire | Order::AcqRel => Effect::Orders,
    };
    match *op {
        Op::Load { va, order } | Op::Store { va, order, .. } | Op::Rmw { va, order, .. } => {
            relaxed(order, Early::Word(va))
        }
        Op::Attempt(Data::Load { va, order } | Data::Store { va, order, .. } | Data::Rmw { va, order, .. }) => {
            relaxed(order, Early::Word(va))
        }
        Op::VarLoad { var, order }
        | Op::VarStore { var, order, .. }
        | Op::VarRmw { var, order, .. }
        | Op::VarAdd { var, order, .. } => relaxed(order, Early::Var(var)),
        Op::Read { order, .. }
        | Op::Write { order, .. }
        | Op::Swap { order, .. }
        | Op::CompareExchange { order, .. } => match order {
            Order::Plain | Order::Relaxed | Order::Release => Effect::Keeps(None),
            Order::Acquire | Order::AcqRel => Effect::Orders,
        },
        Op::Tlbi(_) | Op::Barrier(Barrier::SmpWmb) | Op::Choose { .. } | Op::Commit | Op::LoadEarly => {
            Effect::Keeps(None)
        }
        // Every CPU has gone through a context switch, or its stopper.
        Op::RcuWait | Op::StopMachineBegin | Op::StopMachineEnd => Effect::OrdersAll,
        _ if op.is_local() => Effect::Keeps(None),
        _ => Effect::Orders,
    }
}

/// The word that the operation loads, if such a load may have taken effect early.
const fn loads(op: &Op) -> Option<Early> {
    match *op {
        Op::Load { va, order: Order::Plain | Order::Relaxed }
        | Op::Attempt(Data::Load { va, order: Order::Plain | Order::Relaxed }) => Some(Early::Word(va)),
        Op::VarLoad { var, order: Order::Plain | Order::Relaxed } => Some(Early::Var(var)),
        _ => None,
    }
}

impl World {
    /// Words that CPUs may load early: no load of one there has an address that comes from an earlier load. Call it
    /// after `place`, before anybody runs. CPUs that several actors share, and those without a store buffer, load
    /// nothing early.
    pub fn load_early(&mut self, words: &[EarlyLoad]) {
        let known = std::mem::take(&mut self.early);
        for &EarlyLoad { cpu, of, once } in words {
            let alone = (0..self.places.len()).all(|a| self.places[a].cpu != cpu || self.beside[a] == 0);
            if !alone || self.buffered >> cpu & 1 == 0 {
                continue;
            }
            // Apart, since a search takes even rows of shared locations to go on.
            let again = known.iter().find(|h| (h.cpu, h.of) == (cpu, of)).map(|h| h.cell);
            let cell = again.unwrap_or_else(|| self.memory.cells.reserve(2 * ASIDE as usize) + ASIDE);
            let held = Held { cpu, of, once, cell };
            self.early.push(held);
            if let Early::Word(va) = of
                && self.stale_at(va).next().is_some()
            {
                self.memory.cells.set(held.changed(), 1);
            }
        }
    }
    /// How many words are loaded early, by one CPU or another.
    #[must_use]
    pub const fn early_words(&self) -> usize {
        self.early.len()
    }
    pub(super) fn is_early(&self, location: Cell) -> bool {
        self.early.iter().any(|h| (h.cell..h.cell + 4).contains(&location))
    }

    fn early_of(&self, cpu: u8) -> impl Iterator<Item = Held> + '_ {
        self.early.iter().copied().filter(move |h| h.cpu == cpu)
    }
    fn holds_value(&self, held: Held) -> bool {
        self.memory.cells.get(held.cell) != 0
    }
    /// Whether it may be loaded early now.
    fn is_free(&self, held: Held) -> bool {
        !self.holds_value(held) && self.memory.cells.get(held.spent()) == 0
    }
    /// What the operation finds loaded already.
    pub(super) fn loaded_early(&self, actor: u8, op: &Op) -> Option<Held> {
        if self.early.is_empty() {
            return None;
        }
        let of = loads(op)?;
        self.early_of(self.cpu_of(actor)).find(|h| h.of == of && self.holds_value(*h))
    }

    // ---- loading early ----
    /// Ways to load words early, each with what it would hold: those that the CPU could load now without a fault and
    /// without reading what is freed (a guess that goes wrong is no access of anybody's).
    fn early_ways(&mut self, cpu: u8) -> Vec<(Held, u64, u64)> {
        let mut ways = Vec::new();
        let free: Vec<Held> = self.early_of(cpu).filter(|h| self.is_free(*h)).collect();
        for held in free {
            match held.of {
                Early::Var(var) => {
                    let cell = self.var_cell(var);
                    if !self.waits_in(cpu, Target::Var(cell)) {
                        ways.push((held, 1, self.memory.cells.get(cell)));
                    }
                }
                Early::Word(va) => {
                    let mut freed = false;
                    self.gather(cpu, va, |end| freed |= matches!(end, End::FreedTable(_)));
                    if freed || self.walk_waits(cpu, va) {
                        continue;
                    }
                    let index = self.word_index(va);
                    let first = ways.len();
                    for i in 0..self.candidates.len() {
                        let frame = self.candidates[i].frame;
                        let way = (held, u64::from(frame + 1) << 1 | 1, self.memory.word(frame, index));
                        if !self.memory.life(frame).is_freed()
                            && !self.waits_in(cpu, Target::Frame(frame))
                            && ways[first..].iter().all(|(_, known, _)| *known != way.1)
                        {
                            ways.push(way);
                        }
                    }
                }
            }
        }
        ways
    }
    pub(super) fn early_outcomes(&mut self, actor: u8) -> u16 {
        if self.early.is_empty() { 0 } else { self.early_ways(self.cpu_of(actor)).len() as u16 }
    }
    /// The reply has the number of the word, from 1, as its token.
    pub(super) fn perform_early(&mut self, actor: u8, outcome: u16) -> Reply {
        let ways = self.early_ways(self.cpu_of(actor));
        let Some(&(held, frame, value)) = ways.get(usize::from(outcome)) else { return Reply::of(0) };
        if let Early::Word(va) = held.of {
            // The walk is made now. (Where nobody takes the value, this is a fault less.)
            self.note_translated(actor, va);
        }
        self.memory.cells.set(held.cell, frame);
        self.memory.cells.set(held.value(), value);
        Reply { value, tok: self.early_number(held) as Tok }
    }
    /// The load has taken effect already.
    pub(super) fn take_early(&mut self, actor: u8, held: Held) -> Reply {
        let value = self.memory.cells.get(held.value());
        let frame = (self.memory.cells.get(held.cell) >> 1) as FrameId;
        self.let_go(held);
        self.spend(held);
        if let (Early::Word(va), Some(frame)) = (held.of, frame.checked_sub(1)) {
            self.note_access(actor, va, frame);
        }
        Reply::of(value)
    }
    /// Of the word among those that are loaded early, from 1.
    pub(super) fn early_number(&self, held: Held) -> u64 {
        self.early.iter().position(|h| h.cell == held.cell).map_or(0, |n| n as u64 + 1)
    }
    /// The address of that word, if it has one.
    #[must_use]
    pub fn early_address(&self, number: Tok) -> Option<u64> {
        match self.early.get((number as usize).checked_sub(1)?)?.of {
            Early::Word(va) => Some(va.0),
            Early::Var(_) => None,
        }
    }
    /// Which word it is, and by which frame.
    pub(super) fn early_name(&mut self, actor: u8, outcome: u16) -> String {
        let ways = self.early_ways(self.cpu_of(actor));
        let Some((held, frame, _)) = ways.get(usize::from(outcome)) else { return String::new() };
        match held.of {
            Early::Var(var) => format!("of variable {}", var.0),
            Early::Word(va) => {
                let frame = (*frame >> 1) as FrameId;
                let name = frame.checked_sub(1).map(|frame| self.frame_name(self.memory.pa(frame)));
                format!("of va {va}, in {}", name.unwrap_or_default())
            }
        }
    }
    /// Whether the value that is held comes from that frame.
    pub(super) fn is_held_of(&self, held: Held, frame: FrameId) -> bool {
        self.memory.cells.get(held.cell) >> 1 == u64::from(frame) + 1
    }

    // ---- what orders it ----
    fn let_go(&mut self, held: Held) {
        self.memory.cells.set(held.cell, 0);
        self.memory.cells.set(held.value(), 0);
    }
    fn spend(&mut self, held: Held) {
        if held.once {
            self.memory.cells.set(held.spent(), 1);
        }
    }
    fn let_all_go(&mut self, of: impl Fn(Held) -> bool) {
        for n in 0..self.early.len() {
            if of(self.early[n]) {
                self.let_go(self.early[n]);
            }
        }
    }
    /// The operation, which is about to execute, orders loads that come after it in the program.
    pub(super) fn order_loads(&mut self, actor: u8, op: &Op) {
        let cpu = self.cpu_of(actor);
        let loaded = loads(op).and_then(|of| self.early_of(cpu).find(|h| h.of == of));
        if let Some(held) = loaded {
            self.spend(held);
        }
        match effect(op) {
            Effect::Keeps(None) => {}
            // Coherence: of two accesses to one word the second does not see less.
            Effect::Keeps(Some(of)) => self.let_all_go(|h| h.cpu == cpu && h.of == of),
            Effect::Orders => self.let_all_go(|h| h.cpu == cpu),
            Effect::OrdersAll => self.let_all_go(|_| true),
        }
    }
    /// An exception: a context synchronisation event.
    pub(super) fn note_fault(&mut self, actor: u8) {
        let cpu = self.cpu_of(actor);
        self.let_all_go(|h| h.cpu == cpu);
    }
    /// An access of the CPU's own to the frame at that address. A load held of the same word through another address
    /// would go back behind it; and not "new, then old": a translation of the same page offset is not older than one
    /// that was there before (rule 2), which is sure only of one that never changed.
    pub(super) fn note_access(&mut self, actor: u8, va: Va, frame: FrameId) {
        if self.early.is_empty() {
            return;
        }
        let cpu = self.cpu_of(actor);
        let known = self.early.iter().find(|h| h.of == Early::Word(va));
        let unchanged = known.is_some_and(|h| self.memory.cells.get(h.changed()) == 0);
        for n in 0..self.early.len() {
            let held = self.early[n];
            if held.cpu == cpu && self.is_beside(held, va) {
                let same = self.memory.cells.get(held.cell) >> 1 == u64::from(frame) + 1;
                if same || !unchanged {
                    self.let_go(held);
                }
            }
        }
    }
    /// Another address with the same offset in its page.
    fn is_beside(&self, held: Held, va: Va) -> bool {
        let mask = self.geometry.page_size() - 1;
        matches!(held.of, Early::Word(at) if at != va && (at.0 ^ va.0) & mask == 0)
    }
    /// An entry changes that translates from `va` on, so many bytes.
    pub(super) fn note_changed(&mut self, va: Va, span: u64) {
        for n in 0..self.early.len() {
            if let Early::Word(at) = self.early[n].of
                && at.since(va) < span
            {
                self.memory.cells.set(self.early[n].changed(), 1);
            }
        }
    }

    // ---- access sets ----
    /// Of all words that the CPU may load early and does not hold.
    pub(super) fn touch_load_early(&mut self, actor: u8, out: &mut impl Touch) {
        let cpu = self.cpu_of(actor);
        self.touch_control(actor, &Op::LoadEarly, out);
        self.touch_buffer(actor, out);
        let all: Vec<Held> = self.early_of(cpu).collect();
        for held in all {
            out.write(held.cell);
            match held.of {
                _ if !self.is_free(held) => {}
                Early::Var(var) => out.read(self.var_cell(var)),
                Early::Word(va) => self.touch_access(actor, va, out, |w, f, out| {
                    out.read(w.memory.cell(f, offset::TEMPLATE));
                    let index = w.word_index(va);
                    let word = w.memory.word_location(f, index);
                    out.read(word);
                }),
            }
        }
    }
    /// What an operation of the CPU's program does to what is held.
    pub(super) fn touch_early(&self, actor: u8, op: &Op, out: &mut impl Touch) {
        if self.early.is_empty() {
            return;
        }
        let cpu = self.cpu_of(actor);
        let touched = |h: &Held| match effect(op) {
            Effect::Keeps(None) => false,
            Effect::Keeps(Some(of)) => {
                h.cpu == cpu && (h.of == of || matches!(of, Early::Word(va) if self.is_beside(*h, va)))
            }
            Effect::Orders => h.cpu == cpu,
            Effect::OrdersAll => true,
        };
        self.early.iter().filter(|h| touched(h)).for_each(|h| out.write(h.cell));
        // A fault lets all go.
        if matches!(op, Op::Attempt(_)) {
            self.early_of(cpu).for_each(|h| out.write(h.cell));
        }
    }
}
