//! Free frames at hand: each CPU keeps the rest of a group of 32 frames of which it took one, so that the next ones
//! cost one compare-and-exchange on a word that nobody else is interested in (the kernel's `per_cpu_pages`).
//!
//! The frames of a magazine are taken as far as chunk words and bitmap go. Whoever needs them all, because it found no
//! memory or isolates a chunk, takes them out of everybody's magazine (`drain_all_pages`).
//!
//! # Protocol
//! A magazine is one word: the group, a bit for each of its frames that is there, the direction in which they are given
//! out, and `MOVING`, while frames of the group are on their way in or out. Its CPU fills it only when it is 0: it says
//! `MOVING` first, then reserves frames in the chunk's word, then takes their bits, then stores them here. Whoever has
//! set `ISOLATED` in the chunk's word and looks at the magazine afterwards sees it `MOVING`, or filled, if the
//! reservation came first; otherwise the reservation saw the flag and failed. Both went through the same word, so no
//! fence is needed. Everybody takes frames out by compare-and-exchange; who takes them all says `MOVING` until they are
//! back, so that no frame is free and nowhere to be seen.

use crate::native::chunk::CHUNK;
use crate::native::sync::{AtomicU64, Ordering, relax};

/// Frames of a group.
pub const GROUP: u64 = 32;

const MASK: u64 = (1 << GROUP) - 1;
const GROUP_SHIFT: u32 = 32;
const MOVING: u64 = 1 << 62;
const TOP_DOWN: u64 = 1 << 63;

/// Frames that left a magazine: `mask` of the group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rest {
    pub group: u64,
    pub mask: u64,
}

impl Rest {
    const fn of(word: u64) -> Self {
        Self { group: (word & !(MOVING | TOP_DOWN)) >> GROUP_SHIFT, mask: word & MASK }
    }
}

/// The first `n` bits of those that are set, in that direction; all if there are not so many.
#[inline]
pub fn next_of(set: u64, n: usize, top_down: bool) -> u64 {
    let mut later = if n < u64::BITS as usize { set } else { 0 };
    for _ in 0..n.min(u64::BITS as usize) {
        later &= match later {
            0 => break,
            _ if top_down => !(1 << later.ilog2()),
            _ => later - 1,
        };
    }
    set & !later
}

/// A CPU's magazine, on a cache line (pair) of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Magazine(AtomicU64);

#[derive(Debug)]
pub struct Magazines {
    each: Box<[Magazine]>,
    /// How often one began to be filled.
    fills: AtomicU64,
}

impl Magazines {
    pub fn new(cpus: u8) -> Self {
        Self { each: (0..cpus).map(|_| Magazine(AtomicU64::new(0))).collect(), fills: AtomicU64::new(0) }
    }
    #[inline]
    fn of(&self, cpu: u8) -> Option<&AtomicU64> {
        self.each.get(usize::from(cpu)).map(|magazine| &magazine.0)
    }
    /// Who finds no memory, and this as it was before every magazine was emptied, has missed none on its way into one.
    pub fn fills(&self) -> u64 {
        self.fills.load(Ordering::Acquire)
    }
    /// The next frame in that direction; `None` if it has none, or keeps them for the other direction.
    #[inline]
    pub fn pop(&self, cpu: u8, top_down: bool) -> Option<u64> {
        let magazine = self.of(cpu)?;
        let mut word = magazine.load(Ordering::Acquire);
        loop {
            let mask = word & MASK;
            if mask == 0 || (word & TOP_DOWN != 0) != top_down {
                return None;
            }
            let bit = if top_down { mask.ilog2() } else { mask.trailing_zeros() };
            let left = if mask & (mask - 1) == 0 { 0 } else { word & !(1 << bit) };
            match magazine.compare_exchange(word, left, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Rest::of(word).group * GROUP + u64::from(bit)),
                Err(now) => word = now,
            }
        }
    }
    /// `pop` of at most `n` at once.
    #[inline]
    pub fn pop_each(&self, cpu: u8, top_down: bool, n: usize) -> Option<Rest> {
        let magazine = self.of(cpu)?;
        let mut word = magazine.load(Ordering::Acquire);
        loop {
            let all = word & MASK;
            if all == 0 || n == 0 || (word & TOP_DOWN != 0) != top_down {
                return None;
            }
            let mask = next_of(all, n, top_down);
            let left = if mask == all { 0 } else { word & !mask };
            match magazine.compare_exchange(word, left, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Rest { group: Rest::of(word).group, mask }),
                Err(now) => word = now,
            }
        }
    }
    /// Before frames of the group are reserved; `false` if the magazine is in use.
    pub fn begin_filling(&self, cpu: u8, group: u64) -> bool {
        let begun = MOVING | group << GROUP_SHIFT;
        let begins = |word: &AtomicU64| word.compare_exchange(0, begun, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let begun = self.of(cpu).is_some_and(begins);
        if begun {
            // Not before: until then nobody sees that this one is to be waited for.
            self.fills.fetch_add(1, Ordering::AcqRel);
        }
        begun
    }
    /// After their bits were taken; none if nothing was reserved.
    pub fn filled(&self, cpu: u8, rest: Rest, top_down: bool) {
        let word = rest.group << GROUP_SHIFT | rest.mask | if top_down { TOP_DOWN } else { 0 };
        if let Some(magazine) = self.of(cpu) {
            magazine.store(if rest.mask == 0 { 0 } else { word }, Ordering::Release);
        }
    }
    /// Whether a frame that is given back may have to be given out before those in the magazine, which would keep it
    /// back: it comes first, or is of their chunk, which may have nothing else in use now and be taken from last.
    #[inline]
    pub fn precedes(&self, cpu: u8, frame: u64) -> bool {
        let word = self.of(cpu).map_or(0, |magazine| magazine.load(Ordering::Relaxed));
        let Rest { group, mask } = Rest::of(word);
        let (theirs, back) = (group * GROUP / CHUNK, frame / CHUNK);
        mask != 0 && if word & TOP_DOWN != 0 { back >= theirs } else { back <= theirs }
    }
    /// Everything out of one CPU's magazine, by `give_back`. Whether there was anything.
    #[inline]
    pub fn empty(&self, cpu: u8, give_back: impl FnOnce(Rest)) -> bool {
        let Some(magazine) = self.of(cpu) else { return false };
        let mut word = magazine.load(Ordering::Acquire);
        while word & MASK != 0 {
            let rest = Rest::of(word);
            match magazine.compare_exchange(
                word,
                MOVING | rest.group << GROUP_SHIFT,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    give_back(rest);
                    magazine.store(0, Ordering::Release);
                    return true;
                }
                Err(now) => word = now,
            }
        }
        false
    }
    /// Everything out of every magazine, one after the other, by `give_back`; frames of the groups in `awaited` that
    /// are on their way are waited for. Whether there was anything.
    pub fn empty_all(&self, awaited: &core::ops::Range<u64>, give_back: impl Fn(Rest)) -> bool {
        let mut any = false;
        for cpu in 0..self.each.len() as u8 {
            any |= self.empty(cpu, &give_back);
            let moving = |word: u64| word & MOVING != 0 && awaited.contains(&Rest::of(word).group);
            while self.of(cpu).is_some_and(|magazine| moving(magazine.load(Ordering::Acquire))) {
                any = true;
                relax();
            }
            any |= self.empty(cpu, &give_back);
        }
        any
    }
    /// Whether the frame is in somebody's magazine.
    #[must_use]
    pub fn holds(&self, frame: u64) -> bool {
        self.each.iter().any(|magazine| {
            let Rest { group, mask } = Rest::of(magazine.0.load(Ordering::Acquire));
            group == frame / GROUP && mask >> (frame % GROUP) & 1 != 0
        })
    }
    /// Frames in all of them.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.each.iter().map(|magazine| u64::from((magazine.0.load(Ordering::Acquire) & MASK).count_ones())).sum()
    }
}
