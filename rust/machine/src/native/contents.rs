//! What a frame holds: a template until somebody stores into it, then its own words at its true physical address.

use std::sync::atomic::{AtomicU64, Ordering};

use vmemmap_arch::contents::word;
use vmemmap_arch::{Order, Pa, Rmw, Template};

use crate::native::frame_state::{Contents, State, bit};
use crate::native::machine::Machine;
use crate::native::sync::relax;

/// Memory order of a load.
#[inline]
pub const fn load_order(order: Order) -> Ordering {
    match order {
        Order::Acquire | Order::AcqRel => Ordering::Acquire,
        _ => Ordering::Relaxed,
    }
}
/// Memory order of a store.
#[inline]
pub const fn store_order(order: Order) -> Ordering {
    match order {
        Order::Release | Order::AcqRel => Ordering::Release,
        _ => Ordering::Relaxed,
    }
}
/// Memory order of a read-modify-write.
#[inline]
pub const fn rmw_order(order: Order) -> Ordering {
    match order {
        Order::Plain | Order::Relaxed => Ordering::Relaxed,
        Order::Acquire => Ordering::Acquire,
        Order::Release => Ordering::Release,
        Order::AcqRel => Ordering::AcqRel,
    }
}

/// Execute `op` on a word; the word before.
#[inline]
pub fn apply_rmw(at: &AtomicU64, op: Rmw, order: Order) -> u64 {
    let o = rmw_order(order);
    match op {
        Rmw::FetchAdd(n) => at.fetch_add(n as u64, o),
        Rmw::FetchOr(n) => at.fetch_or(n, o),
        Rmw::FetchAnd(n) => at.fetch_and(n, o),
        Rmw::Swap(n) => at.swap(n, o),
        Rmw::CompareExchange { old, new } | Rmw::StoreExclusive { old, new } => {
            at.compare_exchange(old, new, o, load_order(order)).unwrap_or_else(|found| found)
        }
    }
}

impl Contents {
    fn of(template: Template) -> Self {
        match template {
            Template::ZERO => Contents::Zero,
            Template::POISON => Contents::Poison,
            Template::FREE => Contents::Free,
            _ => Contents::Other,
        }
    }
}

impl Machine {
    /// The template of a frame; `None` if its words are real.
    fn template_of(&self, frame: u64, state: State) -> Option<Template> {
        match state.contents() {
            Contents::Zero => Some(Template::ZERO),
            Contents::Poison => Some(Template::POISON),
            Contents::Free => Some(Template::FREE),
            Contents::Other => Some(Template::from_bits(self.states.template(frame)?.load(Ordering::Acquire))),
            Contents::Words => None,
        }
    }
    /// Whether every struct page of a frame reads as `template` because nobody stored into it.
    #[inline]
    pub(crate) fn is_filled(&self, frame: u64, template: Template) -> bool {
        let Some(word) = self.states.word(frame) else { return false };
        self.template_of(frame, State(word.load(Ordering::Acquire))) == Some(template)
    }
    /// Word `index` of a frame; `None` outside the machine.
    pub(crate) fn read_word(&self, frame: u64, index: u64, order: Order) -> Option<u64> {
        let state = State(self.states.word(frame)?.load(Ordering::Acquire));
        match self.template_of(frame, state) {
            Some(t) => Some(t.word((index & 7) as u8)),
            None => Some(self.word_at(self.frame_pa(frame), index)?.load(load_order(order))),
        }
    }
    /// A frame's own word, made real if need be; `None` outside the machine.
    pub(crate) fn real_word(&self, frame: u64, index: u64) -> Option<&AtomicU64> {
        if self.states.get(frame).contents() != Contents::Words {
            self.materialise(frame)?;
        }
        self.word_at(self.frame_pa(frame), index)
    }

    fn lock_contents(&self, frame: u64) -> Option<State> {
        self.states.word(frame)?;
        loop {
            if let Ok(old) =
                self.states.update(frame, |s| (!s.has(bit::CONTENTS_BUSY)).then_some(State(s.0 | bit::CONTENTS_BUSY)))
            {
                return Some(old);
            }
            relax();
        }
    }
    fn unlock_contents(&self, frame: u64, contents: Contents, dirty: bool) {
        let dirty = if dirty { bit::DIRTY } else { 0 };
        let _ = self.states.update(frame, |s| Some(State(s.with_contents(contents).0 & !bit::CONTENTS_BUSY | dirty)));
    }
    fn materialise(&self, frame: u64) -> Option<()> {
        let state = self.lock_contents(frame)?;
        if let Some(template) = self.template_of(frame, state) {
            let clean = !state.has(bit::DIRTY);
            let values: [u64; 8] = core::array::from_fn(|i| template.word(i as u8));
            for (i, word) in self.words_of(frame).iter().enumerate() {
                let value = values[i & 7];
                // Words never written are 0 already; leave those untouched that are to be 0.
                if !(clean && value == 0) {
                    word.store(value, Ordering::Relaxed);
                }
            }
        }
        self.unlock_contents(frame, Contents::Words, true);
        Some(())
    }
    /// Make every struct page of a frame read as `template`. `None` outside the machine.
    pub(crate) fn set_template(&self, frame: u64, template: Template) -> Option<()> {
        self.states.word(frame)?;
        let contents = Contents::of(template);
        if contents == Contents::Other {
            // Before the state says so. Whoever makes words of the template that was there has one of the two.
            self.states.template(frame)?.store(template.bits(), Ordering::Release);
        }
        while self.states.update(frame, |s| (!s.has(bit::CONTENTS_BUSY)).then(|| s.with_contents(contents))).is_err() {
            relax();
        }
        Some(())
    }
    /// Copy one frame to another. `None` if either lies outside the machine.
    pub(crate) fn copy_words(&self, from: u64, to: u64) -> Option<()> {
        let state = State(self.states.word(from)?.load(Ordering::Acquire));
        if let Some(template) = self.template_of(from, state) {
            return self.set_template(to, template);
        }
        self.states.word(to)?;
        self.lock_contents(to)?;
        for (x, y) in self.words_of(from).iter().zip(self.words_of(to)) {
            y.store(x.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.unlock_contents(to, Contents::Words, true);
        Some(())
    }
    /// Copy a frame whose struct pages from number `reset` on are equal tails, as a template, so that the copy costs no
    /// memory of the host. `false` if they are not, and nothing is copied then.
    pub(crate) fn copy_as_tails(&self, from: u64, to: u64, reset: u16) -> bool {
        if reset == 0 || self.states.get(from).contents() != Contents::Words || self.states.word(to).is_none() {
            return false;
        }
        let pages = self.words_of(from).get(usize::from(reset) * 8..).unwrap_or_default();
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let Some(tail) = pages.get(usize::from(word::COMPOUND_HEAD)) else { return false };
        let tail = Template::from_bits(load(tail));
        let values: [u64; 8] = core::array::from_fn(|i| tail.word(i as u8));
        // Without a branch for each: they are equal nearly always.
        let differ = || pages.iter().enumerate().fold(0, |or, (i, word)| or | load(word) ^ values[i & 7]);
        tail.bits() & 1 != 0 && differ() == 0 && self.set_template(to, tail).is_some()
    }
    /// Word `index` of a frame as any CPU would read it, without a trace; for tests and exports.
    #[must_use]
    pub fn frame_word(&self, pa: Pa, index: u16) -> Option<u64> {
        self.read_word(self.frame_of(pa), u64::from(index), Order::Plain)
    }
}
