//! Break-before-make: which pairs of translations may not be usable at once, and what an access may do that meets one.
//!
//! The obligation is the writer's and is judged at the store (`tables.rs`). What is here looks at the CPU that could
//! use both entries (Arm ARM DDI 0487, RFVQCK and ITHWDH; kernel-semantics §10.2).

use vmemmap_arch::bbm::{BbmCase, FeatBbm, bbm_required};
use vmemmap_arch::{Attr, Desc, Invariant, Level, Pa, Va};

use super::candidates::{Access, Candidate};
use super::memory::{FrameId, SlotId};
use super::options::Conflict;
use super::stale::{Record, seen};
use super::world::World;

/// Bytes of a word.
const BYTES: u32 = 8;

impl World {
    /// FEAT_BBM of a CPU.
    fn feat_of(&self, cpu: u8) -> FeatBbm {
        let list = &self.options.feat_bbm;
        list.get(usize::from(cpu)).or(list.last()).copied().unwrap_or_default()
    }

    /// The least that any of these CPUs has (R27): an exchange must suit all that may hold the old value.
    pub(super) fn weakest(&self, cpus: u64) -> FeatBbm {
        (0..self.cpus).filter(|cpu| cpus >> cpu & 1 != 0).map(|cpu| self.feat_of(cpu)).min().unwrap_or(FeatBbm::NoAbort)
    }

    pub(super) fn exchange_needs_break(&self, level: Level, old: Desc, new: Desc, feat: FeatBbm) -> Option<BbmCase> {
        let g = self.geometry;
        bbm_required(&g, level, old, new, feat, || self.same_output(g.output(old), g.output(new)))
    }

    fn same_output(&self, a: Pa, b: Pa) -> bool {
        match (self.memory.find(a), self.memory.find(b)) {
            (Some(a), Some(b)) => self.memory.same_contents(a, b),
            _ => false,
        }
    }

    /// Why a CPU of that level may not hold both for one page; as pages, since what a block and a page say of a page
    /// must agree as well.
    fn conflict(&self, a: Candidate, b: Candidate, feat: FeatBbm) -> Option<BbmCase> {
        let other_size = a.level != b.level;
        if other_size
            && feat < FeatBbm::Level2
            && !(feat == FeatBbm::Level1 && (a.desc.has(Attr::NT) || b.desc.has(Attr::NT)))
        {
            return Some(BbmCase::Size);
        }
        let page = |c: Candidate| {
            let same =
                self.geometry.with_output(c.desc, self.memory.pa(c.frame)).with(Attr::TABLE_BIT).without(Attr::NT);
            if other_size { same.without(Attr::CONT) } else { same }
        };
        let (a, b) = (page(a), page(b));
        self.exchange_needs_break(Level::PTE, a, b, feat).or_else(|| self.exchange_needs_break(Level::PTE, b, a, feat))
    }

    /// Level 2 allows entries of two sizes, and may abort on them all the same (`BBML2_NOABORT` is the promise not to).
    fn may_abort(&self, a: Candidate, b: Candidate, feat: FeatBbm) -> bool {
        let sizes = a.level != b.level || a.desc.has(Attr::CONT) != b.desc.has(Attr::CONT);
        self.conflict(a, b, feat).is_some() || (sizes && feat == FeatBbm::Level2)
    }

    /// Fills `mishaps` from all candidates of an access.
    pub(super) fn find_mishaps(&mut self, cpu: u8, index: u16, access: Access) {
        let mut found = std::mem::take(&mut self.mishaps);
        found.mixed.clear();
        found.abort = false;
        let pairs = if self.options.conflict == Conflict::AtWrite { 0 } else { self.candidates.len() };
        let feat = self.feat_of(cpu);
        for (i, &a) in self.candidates.iter().enumerate().take(pairs) {
            for &b in &self.candidates[..i] {
                match self.options.conflict {
                    Conflict::AtWrite | Conflict::AtAccess => {}
                    Conflict::Abort => found.abort |= self.may_abort(a, b, feat),
                    Conflict::Amalgamate if matches!(access, Access::Load) && self.conflict(a, b, feat).is_some() => {
                        let (x, y) = (self.memory.word(a.frame, index), self.memory.word(b.frame, index));
                        for low in (1..BYTES).map(|n| u64::MAX >> (64 - 8 * n)) {
                            for mix in [x & low | y & !low, y & low | x & !low] {
                                let plain = self.candidates.iter().any(|c| self.memory.word(c.frame, index) == mix);
                                if !plain && !found.mixed.contains(&mix) {
                                    found.mixed.push(mix);
                                }
                            }
                        }
                    }
                    Conflict::Amalgamate => {}
                }
            }
        }
        self.mishaps = found;
    }

    /// The mishap of that number happens. Returns the word that the access reads.
    pub(super) fn suffer(&mut self, actor: u8, va: Va, number: usize) -> u64 {
        let (word, message) = match self.mishaps.mixed.get(number) {
            Some(&mix) => (mix, "a load takes bytes of two translations at once: amalgamation (RFVQCK)"),
            None => (0, "TLB conflict abort (RFVQCK), which the kernel takes for fatal"),
        };
        self.violate(Invariant::BreakBeforeMake, actor, va.0, message);
        word
    }

    /// Two translations in use at once that break-before-make should have kept apart.
    pub(super) fn judge_conflicts(&mut self, actor: u8, va: Va) {
        let feat = self.feat_of(self.cpu_of(actor));
        for i in 1..self.candidates.len() {
            if let Some(case) = self.conflict(self.candidates[i], self.candidates[0], feat) {
                self.violate(Invariant::BreakBeforeMake, actor, va.0, case.sentence());
            }
        }
    }

    /// Break-before-make, judged at the write against the old value and every stale one.
    pub(super) fn judge_exchange(&mut self, actor: u8, slot: SlotId, level: Level, va: Va, old: Desc, new: Desc) {
        if !new.is_valid() {
            return;
        }
        let mut case = self.exchange_needs_break(level, old, new, self.weakest(u64::MAX));
        if case.is_none() {
            let judge = |r: &Record| self.exchange_needs_break(level, r.value, new, self.weakest(self.holders_of(r)));
            case = self.stale.of_slot(slot).find_map(judge);
        }
        if let Some(case) = case {
            self.violate(Invariant::BreakBeforeMake, actor, va.0, case.sentence());
        }
    }

    /// After a store: contents that a read-only exchange relied on may differ now.
    pub(super) fn judge_contents(&mut self, actor: u8, frame: FrameId) {
        let pa = self.memory.pa(frame);
        let g = self.geometry;
        let broken = self.stale.valid().find_map(|r| {
            let live = seen(self.memory.desc(r.slot));
            if self.is_linear(r.va) || !live.is_valid() || (g.output(r.value) != pa && g.output(live) != pa) {
                return None;
            }
            self.exchange_needs_break(r.level, r.value, live, self.weakest(self.holders_of(r))).map(|case| (r.va, case))
        });
        if let Some((va, case)) = broken {
            self.violate(Invariant::BreakBeforeMake, actor, va.0, case.sentence());
        }
    }
}
