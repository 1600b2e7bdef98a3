//! Where a virtual address translates to, by the tables as they are now: there are no TLBs.
//!
//! A CPU remembers the last table of PTEs that it walked to, as long as no descriptor above such tables was stored
//! (`Machine::upper_stores`): what it finds is what a walk from the root would.

use std::sync::atomic::Ordering;

use vmemmap_arch::{Desc, Invariant, Kind, Level, Pa, Slot, Va};

use crate::native::cpu::{Access, Native, Walked, word};

impl Native<'_> {
    /// The last table, if a walk from the root would end in it, and what its entry for `va` holds now.
    #[inline(always)]
    fn remembered(&self, va: Va) -> Option<(Pa, Desc)> {
        let version = self.machine.upper_stores.0.load(Ordering::Acquire);
        let (first, index) = self.machine.pte_table_of(va);
        let last = self.walked.get();
        if last.first != first || last.version != version {
            return None;
        }
        self.machine.words.get(last.words + index).map(|at| (last.table, Desc(word(at))))
    }
    /// Walk the tables as they are now: the last table, its level, and what was read there. `None`: reported.
    #[inline]
    fn walk(&self, va: Va) -> Option<(Pa, Level, Desc)> {
        match self.remembered(va) {
            Some((table, desc)) => Some((table, Level::PTE, desc)),
            None => self.walk_from_root(va),
        }
    }
    #[inline(never)]
    fn walk_from_root(&self, va: Va) -> Option<(Pa, Level, Desc)> {
        let g = self.machine.geometry();
        let version = self.machine.upper_stores.0.load(Ordering::Acquire);
        let (first, _) = self.machine.pte_table_of(va);
        let mut table = self.machine.root();
        let mut level = g.top();
        loop {
            let Some(at) = self.machine.word_at(table, u64::from(g.index(va, level))) else {
                self.wild(table);
                return None;
            };
            let desc = Desc(word(at));
            match g.kind(desc, level) {
                Kind::Table(next) => {
                    table = next;
                    level = level.next();
                }
                _ => {
                    if level == Level::PTE {
                        let words = self.machine.word_number(table, 0);
                        self.walked.set(Walked { first, table, words, version });
                    }
                    return Some((table, level, desc));
                }
            }
        }
    }
    /// The frame that `va` translates to by what a walk read at `level`, and the number of the word in it.
    #[inline(always)]
    pub(super) fn output(&self, va: Va, level: Level, desc: Desc, access: Access) -> Option<(u64, u64)> {
        let found = self.found(va, level, desc, access);
        if found.is_none() {
            self.no_output(va, level, desc);
        }
        found
    }
    /// The same of who asks only whether it translates.
    #[inline(always)]
    pub(super) fn found(&self, va: Va, level: Level, desc: Desc, access: Access) -> Option<(u64, u64)> {
        if level == Level::PTE && desc.is_table_type() && (access == Access::Load || desc.is_writable()) {
            return Some((self.machine.frame_of(self.machine.output.of(desc)), self.machine.in_page(va) >> 3));
        }
        self.found_otherwise(va, level, desc, access)
    }
    #[inline(never)]
    fn found_otherwise(&self, va: Va, level: Level, desc: Desc, access: Access) -> Option<(u64, u64)> {
        let g = self.machine.geometry();
        match g.kind(desc, level) {
            Kind::Page(pa) | Kind::Block(pa) if access == Access::Load || desc.is_writable() => {
                let pa = pa.plus(va.0 & (g.entry_span(level) - 1));
                Some((self.machine.frame_of(pa), (pa.0 & (g.page_size() - 1)) >> 3))
            }
            _ => None,
        }
    }
    #[cold]
    fn no_output(&self, va: Va, level: Level, desc: Desc) {
        match self.machine.geometry().kind(desc, level) {
            Kind::Page(pa) | Kind::Block(pa) => self.report(
                Invariant::SharedTailsReadOnly,
                va.0,
                format!("store to {va} through the read-only leaf {desc} of level {}", level.0),
                Some(pa),
            ),
            _ if self.takes_fault() => {}
            _ => self.report(
                Invariant::AlwaysTranslates,
                va.0,
                format!("{va} does not translate: {desc} at level {}", level.0),
                None,
            ),
        }
    }
    /// Walk the tables as they are now: the frame that `va` translates to, and the number of the word in it.
    #[inline(always)]
    pub(super) fn translate(&self, va: Va, access: Access) -> Option<(u64, u64)> {
        match self.remembered(va) {
            Some((_, desc)) => self.output(va, Level::PTE, desc, access),
            None => self.translate_from_root(va, access),
        }
    }
    #[inline(never)]
    fn translate_from_root(&self, va: Va, access: Access) -> Option<(u64, u64)> {
        let (_, level, desc) = self.walk_from_root(va)?;
        self.output(va, level, desc, access)
    }
    /// The leaves that translate so many pages from `va` on, one walk for those of one table, until `each` says no.
    #[inline]
    pub(super) fn each_leaf(&self, va: Va, pages: u64, mut each: impl FnMut(Va, Level, Desc) -> bool) {
        let g = self.machine.geometry();
        let (page, end) = (g.page_size(), va.plus(pages << g.page_shift()));
        let mut va = va;
        while va < end {
            let next = g.addr_end(va, end, Level::PMD);
            let Some((table, level, desc)) = self.walk(va) else { return };
            let at = Slot { table, index: g.index(va, level), level, tok: () };
            let count = if level == Level::PTE { (next.since(va) >> g.page_shift()) as usize } else { 0 };
            let mut ptes = self.words_from(at, count).unwrap_or_default().iter();
            while va < next {
                if !each(va, level, ptes.next().map_or(desc, |pte| Desc(word(pte)))) {
                    return;
                }
                va = va.plus(page);
            }
        }
    }
}
