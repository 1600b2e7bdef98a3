//! What a frame holds: a symbol, and when somebody has stored into it what no symbol says, its own words at its true
//! physical address.

use std::sync::atomic::{AtomicU64, Ordering};

use vmemmap_arch::contents::word;
use vmemmap_arch::{Order, Pa, Rmw, Template};

use crate::native::frame_state::{Contents, State, bit};
use crate::native::machine::Machine;
use crate::native::running::Change;
use crate::native::symbol::Symbol;
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
pub fn apply_rmw(at: &AtomicU64, op: Rmw, order: Order, how: Change) -> u64 {
    if how == Change::Plain {
        let found = at.load(Ordering::Acquire);
        at.store(result_of(op, found), Ordering::Release);
        return found;
    }
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

/// The word that `op` leaves where it finds `found`.
#[inline]
const fn result_of(op: Rmw, found: u64) -> u64 {
    match op {
        Rmw::FetchAdd(n) => found.wrapping_add(n as u64),
        Rmw::FetchOr(n) => found | n,
        Rmw::FetchAnd(n) => found & n,
        Rmw::Swap(n) => n,
        Rmw::CompareExchange { old, new } | Rmw::StoreExclusive { old, new } => {
            if found == old {
                new
            } else {
                found
            }
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

/// A template, and how a frame that reads as it is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filling {
    template: Template,
    contents: Contents,
    symbol: Option<Symbol>,
}

impl Filling {
    pub(crate) fn of(template: Template) -> Self {
        Self { template, contents: Contents::of(template), symbol: Symbol::of(template) }
    }
}

/// What a frame holds at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Held {
    Symbol(Symbol),
    Words,
    /// Nothing: it is on a list.
    Listed,
}

/// What came of an access to the contents of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reached<T> {
    Done(T),
    /// The frame is on a list, and no entry names it, or will in a moment: who came by an address translates it again.
    Listed,
    /// It is no memory of the machine.
    Outside,
}

impl<T> Reached<T> {
    #[inline]
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Reached<U> {
        match self {
            Reached::Done(value) => Reached::Done(change(value)),
            Reached::Listed => Reached::Listed,
            Reached::Outside => Reached::Outside,
        }
    }
    /// Of who has the frame itself at hand and no address: a frame on a list reads as 0.
    #[inline]
    pub(crate) fn directly(self) -> Option<T>
    where
        T: Default,
    {
        match self {
            Reached::Done(value) => Some(value),
            Reached::Listed => Some(T::default()),
            Reached::Outside => None,
        }
    }
}

/// The symbol word of a frame that is just getting words: of those whose contents are `Other` never for long.
const FROZEN: u64 = 0;

/// A symbol changes by compare-and-exchange. Before words are made of it the symbol word is set to `FROZEN`, under
/// `CONTENTS_BUSY`: a store to a field came before that and is in the words, or it fails and is made to them.
impl Machine {
    #[inline]
    fn held(&self, frame: u64) -> Option<Held> {
        let word = self.states.word(frame)?;
        loop {
            let state = State(word.load(Ordering::Acquire));
            let template = match state.contents() {
                Contents::Words => return Some(Held::Words),
                Contents::Zero => Template::ZERO,
                Contents::Poison => Template::POISON,
                Contents::Free => Template::FREE,
                Contents::Other => {
                    let bits = self.states.symbol(frame)?.load(Ordering::Acquire);
                    // Otherwise the symbol may belong to what the frame holds now.
                    if bits != FROZEN && State(word.load(Ordering::Acquire)).contents() == Contents::Other {
                        return Some(Symbol::stored(bits).map_or(Held::Listed, Held::Symbol));
                    }
                    relax();
                    continue;
                }
            };
            return Symbol::of(template).map(Held::Symbol);
        }
    }
    /// Whether every struct page of a frame reads as the template because nobody stored into it.
    #[inline]
    pub(crate) fn is_filled(&self, frame: u64, filling: Filling) -> bool {
        matches!(self.held(frame), Some(Held::Symbol(symbol)) if Some(symbol) == filling.symbol)
    }
    /// Whether two frames read alike because they hold the same symbol; words are not compared.
    pub(crate) fn hold_same(&self, a: u64, b: u64) -> bool {
        matches!((self.held(a), self.held(b)), (Some(Held::Symbol(a)), Some(Held::Symbol(b))) if a == b)
    }
    /// Word `index` of a frame.
    #[inline]
    pub(crate) fn read_word(&self, frame: u64, index: u64, order: Order) -> Reached<u64> {
        match self.held(frame) {
            Some(Held::Symbol(symbol)) => Reached::Done(symbol.word(index)),
            Some(Held::Words) => match self.word_at(self.frame_pa(frame), index) {
                Some(word) => Reached::Done(word.load(load_order(order))),
                None => Reached::Outside,
            },
            Some(Held::Listed) => Reached::Listed,
            None => Reached::Outside,
        }
    }
    #[inline]
    pub(crate) fn store_word(&self, frame: u64, index: u64, value: u64, order: Order, how: Change) -> Reached<()> {
        match self.change_symbol(frame, index, how, |_| value) {
            Some(done) => done.map(|_| ()),
            None => match self.word_at(self.frame_pa(frame), index) {
                Some(word) => {
                    word.store(value, store_order(order));
                    Reached::Done(())
                }
                None => Reached::Outside,
            },
        }
    }
    /// Stores of these words, by their numbers from `first` on, as one of all of them. `false` if the frame has words,
    /// or would need them; nothing is stored then.
    pub(crate) fn store_symbol(&self, frame: u64, first: u64, words: &[(u64, u64)], how: Change) -> bool {
        let Some(at) = self.states.symbol(frame) else { return false };
        loop {
            let Some(Held::Symbol(symbol)) = self.held(frame) else { return false };
            let stored = |symbol: Symbol, &(index, value): &(u64, u64)| symbol.with_word(first + index, value);
            let Some(new) = words.iter().try_fold(symbol, stored) else { return false };
            if new == symbol || how.replace(at, symbol.bits(), new.bits()).is_ok() {
                return true;
            }
        }
    }
    /// The word before.
    #[inline]
    pub(crate) fn rmw_word(&self, frame: u64, index: u64, op: Rmw, order: Order, how: Change) -> Reached<u64> {
        if let Some(done) = self.change_symbol(frame, index, how, |found| result_of(op, found)) {
            return done;
        }
        match self.word_at(self.frame_pa(frame), index) {
            Some(word) => Reached::Done(apply_rmw(word, op, order, how)),
            None => Reached::Outside,
        }
    }
    /// The change as one of a symbol, and the word before; `None` if the frame has words, or got them.
    #[inline]
    fn change_symbol(&self, frame: u64, index: u64, how: Change, new: impl Fn(u64) -> u64) -> Option<Reached<u64>> {
        loop {
            let symbol = match self.held(frame) {
                Some(Held::Symbol(symbol)) => symbol,
                Some(Held::Words) => return None,
                Some(Held::Listed) => return Some(Reached::Listed),
                None => return Some(Reached::Outside),
            };
            let old = symbol.word(index);
            let value = new(old);
            if value == old {
                return Some(Reached::Done(old));
            }
            match (symbol.with_other(index, value), self.states.symbol(frame)) {
                (Some(new), Some(at)) => {
                    if how.replace(at, symbol.bits(), new.bits()).is_ok() {
                        return Some(Reached::Done(old));
                    }
                }
                _ => self.materialise(frame)?,
            }
        }
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
    /// Give a frame words of its own that read as its symbol does; not if it is on a list.
    #[inline(never)]
    fn materialise(&self, frame: u64) -> Option<()> {
        let state = self.lock_contents(frame)?;
        let symbol = match state.contents() {
            Contents::Words => None,
            Contents::Zero => Symbol::of(Template::ZERO),
            Contents::Poison => Symbol::of(Template::POISON),
            Contents::Free => Symbol::of(Template::FREE),
            Contents::Other => {
                let freeze = |bits| Symbol::stored(bits).map(|_| FROZEN);
                let at = self.states.symbol(frame)?;
                at.fetch_update(Ordering::AcqRel, Ordering::Acquire, freeze).ok().and_then(Symbol::stored)
            }
        };
        match symbol {
            Some(symbol) => {
                self.write_words(frame, symbol, state);
                self.unlock_contents(frame, Contents::Words, true);
            }
            None => self.unlock_contents(frame, state.contents(), false),
        }
        Some(())
    }
    fn write_words(&self, frame: u64, symbol: Symbol, state: State) {
        let clean = !state.has(bit::DIRTY);
        for (i, word) in (0..).zip(self.words_of(frame)) {
            let value = symbol.word(i);
            // Words never written are 0 already; leave those untouched that are to be 0.
            if !(clean && value == 0) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }
    /// Make every struct page of a frame read as `template`. `None` outside the machine.
    #[inline]
    pub(crate) fn set_template(&self, frame: u64, template: Template, how: Change) -> Option<()> {
        self.fill(frame, Filling::of(template), how)
    }
    /// The same, of what a template comes to.
    #[inline]
    pub(crate) fn fill(&self, frame: u64, filling: Filling, how: Change) -> Option<()> {
        let Filling { template, contents, symbol } = filling;
        if contents == Contents::Other {
            return self.set_symbol(frame, symbol, template, how);
        }
        self.states.word(frame)?;
        let free = |s: State| (!s.has(bit::CONTENTS_BUSY)).then(|| s.with_contents(contents));
        while self.states.change(frame, how, free).is_err() {
            relax();
        }
        Some(())
    }
    /// Make a frame hold a symbol whose word is stored, or words where `template` has none.
    #[inline]
    fn set_symbol(&self, frame: u64, symbol: Option<Symbol>, template: Template, how: Change) -> Option<()> {
        let word = self.states.word(frame)?;
        let at = self.states.symbol(frame)?;
        let state = State(word.load(Ordering::Acquire));
        if let Some(symbol) = symbol
            && state.contents() != Contents::Other
            && !state.has(bit::CONTENTS_BUSY)
        {
            // Nobody looks at the symbol word before the state says so.
            at.store(symbol.bits(), Ordering::Release);
            if how.replace(word, state.0, state.with_contents(Contents::Other).0).is_ok() {
                return Some(());
            }
        }
        self.lock_contents(frame)?;
        match symbol {
            Some(symbol) => {
                at.store(symbol.bits(), Ordering::Release);
                self.unlock_contents(frame, Contents::Other, false);
            }
            None => {
                at.store(FROZEN, Ordering::Release);
                for (i, word) in self.words_of(frame).iter().enumerate() {
                    word.store(template.word((i & 7) as u8), Ordering::Relaxed);
                }
                self.unlock_contents(frame, Contents::Words, true);
            }
        }
        Some(())
    }
    /// Copy one frame to another.
    pub(crate) fn copy_words(&self, from: u64, to: u64) -> Reached<()> {
        let copied = match self.held(from) {
            Some(Held::Symbol(symbol)) => match symbol.template() {
                Some(template) => self.set_template(to, template, Change::Atomic),
                None => self.set_symbol(to, Some(symbol), symbol.tails(), Change::Atomic),
            },
            Some(Held::Listed) => return Reached::Listed,
            Some(Held::Words) => self.lock_contents(to).map(|_| {
                for (x, y) in self.words_of(from).iter().zip(self.words_of(to)) {
                    y.store(x.load(Ordering::Relaxed), Ordering::Relaxed);
                }
                self.unlock_contents(to, Contents::Words, true);
            }),
            None => None,
        };
        copied.map_or(Reached::Outside, Reached::Done)
    }
    /// The template of a frame's struct pages from number `reset` on, if they are equal tails: a copy of them costs no
    /// memory of the host.
    pub(crate) fn tails_of(&self, frame: u64, reset: u16) -> Option<Template> {
        if reset == 0 {
            return None;
        }
        let tail = match self.held(frame)? {
            Held::Symbol(symbol) if reset > 2 => symbol.tails(),
            Held::Symbol(symbol) => symbol.template()?,
            Held::Words => self.equal_tails(frame, reset)?,
            Held::Listed => return None,
        };
        (tail.bits() & 1 != 0).then_some(tail)
    }
    /// The template of a frame's words from struct page `reset` on, if they are those of equal tails.
    fn equal_tails(&self, frame: u64, reset: u16) -> Option<Template> {
        let pages = self.words_of(frame).get(usize::from(reset) * 8..)?;
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let tail = Template::from_bits(load(pages.get(usize::from(word::COMPOUND_HEAD))?));
        let values: [u64; 8] = core::array::from_fn(|i| tail.word(i as u8));
        // Without a branch for each: they are equal nearly always.
        let differ = pages.iter().enumerate().fold(0, |or, (i, word)| or | load(word) ^ values[i & 7]);
        (differ == 0).then_some(tail)
    }
    /// Word `index` of a frame as any CPU would read it, without a trace; for tests and exports.
    #[must_use]
    pub fn frame_word(&self, pa: Pa, index: u16) -> Option<u64> {
        self.read_word(self.frame_of(pa), u64::from(index), Order::Plain).directly()
    }
}
