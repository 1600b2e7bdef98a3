//! What one CPU may still see, and the rules by which its instructions raise that. Rules 1 to 8 of
//! docs/memory-model.md.

use vmemmap_arch::Desc;

use super::events::{Events, NEVER, Time, Word};
use super::fault::{FaultKind, Kind, is_cacheable};
use crate::config::Ets;

/// Which earlier accesses a barrier waits for: DMB or DSB SY, LD, ST.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Orders {
    All,
    Loads,
    Stores,
}

/// DMB or DSB.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Barriers {
    Memory(Orders),
    Synchronization(Orders),
}

/// The own last store to a word, from which a load may be served before others see it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Forward {
    pub time: Time,
    /// Of the store's address and data.
    pub view: Time,
    pub exclusive: bool,
}

/// One way in which an address may translate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    pub entry: Desc,
    /// As of when.
    pub since: Time,
    /// Before which the access must be over: another CPU's invalidate, whose DSB waits for it.
    pub before: Time,
}

/// An access on its way: of which word, since when it may look, and until when it must be over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    pub word: Word,
    /// Of the address: all that it was computed from.
    pub address: Time,
    /// Of the address, through the selections it was computed by (CSEL): orders stores, not loads.
    pub pick: Time,
    pub since: Time,
    pub before: Time,
}

/// One way in which a load may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Read {
    pub value: u64,
    /// When the store that it reads happened.
    pub from: Time,
    /// The view of the value.
    pub view: Time,
}

/// The views of one CPU.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Views {
    cpu: u8,
    ets: Ets,
    /// The last loads, stores.
    loads: Time,
    stores: Time,
    /// What DMB orders (the form for stores apart), and DSB.
    dmb: Time,
    dmb_stores: Time,
    dsb: Time,
    /// The last context synchronisation event.
    context: Time,
    /// What must be resolved before a store may happen: conditions, addresses, translations.
    speculation: Time,
    invalidates: Time,
    acquires: Time,
    releases: Time,
    /// Translations of accesses so far.
    translations: Time,
    coherence: Vec<Time>,
    forward: Vec<Forward>,
}

impl Views {
    #[must_use]
    pub fn new(cpu: u8, ets: Ets, words: usize) -> Self {
        Self {
            cpu,
            ets,
            loads: 0,
            stores: 0,
            dmb: 0,
            dmb_stores: 0,
            dsb: 0,
            context: 0,
            speculation: 0,
            invalidates: 0,
            acquires: 0,
            releases: 0,
            translations: 0,
            coherence: vec![0; words],
            forward: vec![Forward::default(); words],
        }
    }

    /// Rule 1: the ways in which the entry may translate, one for each value and each invalidate that bounds it.
    pub fn translations(&self, events: &Events, entry: Word, address: Time, out: &mut Vec<Translation>) {
        out.clear();
        let ets2 = self.ets >= Ets::Two;
        let low = self.context.max(address).max(if ets2 { self.dsb } else { 0 });
        // FEAT_ETS2: a translation that faults is after every earlier access.
        let low_invalid = if ets2 { low.max(self.loads).max(self.stores) } else { low };
        let mut offer = |value: u64, since: Time, before: Time| {
            let entry = Desc(value);
            if since < before && !out.iter().any(|t: &Translation| t.entry == entry && t.before == before) {
                out.push(Translation { entry, since, before });
            }
        };
        for since in low..=events.now() {
            let before = events.invalidated_after(entry, self.cpu, since);
            let (value, _) = events.value(entry, since);
            if is_cacheable(Desc(value)) || since >= low_invalid {
                offer(value, since, before);
            }
            // What a TLB may have kept: whatever it was at any time since the last invalidate.
            let last = events.invalidated_up_to(entry, self.cpu, since);
            let (value, _) = events.value(entry, last);
            let kept = core::iter::once(value)
                .chain(events.stores_after(entry, last).take_while(|(at, _)| *at <= since).map(|(_, value)| value));
            for value in kept.filter(|value| is_cacheable(Desc(*value))) {
                offer(value, since, before);
            }
        }
    }

    /// Rule 2: an access goes through this translation. `false`: a later one was used already, and it may not.
    pub fn translate(&mut self, by: &Translation) -> bool {
        self.speculation = self.speculation.max(by.since);
        if self.translations >= by.before {
            return false;
        }
        self.translations = self.translations.max(by.since);
        true
    }

    /// Rule 3: the access faults. `false`: it would be ordered after the invalidate of the translation it took.
    pub fn fault(&mut self, by: &Translation, address: Time) -> bool {
        self.speculation = self.speculation.max(by.since);
        let all = if self.ets == Ets::Three { self.loads.max(self.stores) } else { 0 };
        let view = [by.since, address, self.dmb, self.dmb_stores, self.dsb, self.context, self.acquires, all]
            .into_iter()
            .max();
        let view = view.unwrap_or_default();
        self.context = self.context.max(view).max(self.speculation);
        view < by.before
    }

    /// Whether such a fault waits until every own earlier store has happened.
    #[must_use]
    pub fn fault_waits_for_stores(&self, by: &Translation) -> bool {
        self.ets == Ets::Three || (self.ets == Ets::Two && !is_cacheable(by.entry))
    }

    /// Rule 4: the values that a load may have. `pending`: an own store to the word that nobody else sees yet.
    pub fn reads(&self, events: &Events, by: &Access, acquire: Acquire, pending: Option<(u64, Forward)>) -> Vec<Read> {
        let pre = [by.since, by.address, self.dmb, self.dsb, self.context, self.acquires].into_iter().max();
        let pre = pre.unwrap_or_default().max(if acquire == Acquire::Sc { self.releases } else { 0 });
        let served = |forward: Forward, at: Time| match forward.exclusive && acquire != Acquire::No {
            true => at,
            false => forward.view,
        };
        if let Some((value, forward)) = pending {
            let view = pre.max(served(forward, forward.view));
            return if view < by.before { vec![Read { value, from: NEVER, view }] } else { Vec::new() };
        }
        let w = usize::from(by.word);
        let forward = self.forward[w];
        let (value, from) = events.value(by.word, pre.max(self.coherence[w]));
        core::iter::once((from, value))
            .chain(events.stores_after(by.word, pre.max(self.coherence[w])))
            .map(|(from, value)| {
                let seen = if from != 0 && from == forward.time { served(forward, from) } else { from };
                Read { value, from, view: pre.max(seen) }
            })
            .filter(|read| read.view < by.before)
            .collect()
    }

    /// A load has that value.
    pub fn loaded(&mut self, by: &Access, read: &Read, acquire: Acquire) {
        let w = usize::from(by.word);
        self.loads = self.loads.max(read.view);
        self.coherence[w] = self.coherence[w].max(read.view);
        if acquire != Acquire::No {
            self.acquires = self.acquires.max(read.view);
        }
        self.addressed(by);
    }

    /// Later stores wait until this address is known.
    pub fn addressed(&mut self, by: &Access) {
        self.speculation = self.speculation.max(by.address).max(by.pick);
    }

    /// Rule 5: the time that a store must be later than.
    #[must_use]
    pub fn store_bound(&self, by: &Access, data: Time, release: bool) -> Time {
        let all = if release { self.loads.max(self.stores) } else { 0 };
        let after = [
            data,
            by.address,
            by.pick,
            by.since,
            self.speculation,
            self.dmb_stores,
            self.dmb,
            self.dsb,
            self.context,
            self.acquires,
            self.coherence[usize::from(by.word)],
            all,
        ];
        after.into_iter().max().unwrap_or_default()
    }

    /// The store happens at that time.
    pub fn stored(&mut self, word: Word, time: Time, forward: Forward, release: bool) {
        let w = usize::from(word);
        self.stores = self.stores.max(time);
        self.coherence[w] = self.coherence[w].max(time);
        self.forward[w] = Forward { time, ..forward };
        if release {
            self.releases = self.releases.max(time);
        }
    }

    /// An acquire of a read-modify-write that is a release too is one of its store.
    pub fn acquired(&mut self, time: Time) {
        self.acquires = self.acquires.max(time);
    }

    /// Rule 6.
    pub fn barrier(&mut self, barrier: Barriers) {
        let (Barriers::Memory(orders) | Barriers::Synchronization(orders)) = barrier;
        let mut view = self.context.max(self.dsb);
        if orders != Orders::Stores {
            view = view.max(self.loads);
        }
        if orders != Orders::Loads {
            view = view.max(self.stores);
        }
        match barrier {
            Barriers::Memory(Orders::Stores) => self.dmb_stores = self.dmb_stores.max(view),
            Barriers::Memory(_) => self.dmb = self.dmb.max(view),
            Barriers::Synchronization(Orders::All) => {
                let view = view.max(self.dmb).max(self.dmb_stores).max(self.invalidates);
                self.dsb = self.dsb.max(view);
            }
            Barriers::Synchronization(_) => self.dsb = self.dsb.max(view),
        }
    }

    /// Rule 7: ISB.
    pub fn synchronize_context(&mut self) {
        self.context = self.context.max(self.speculation).max(self.dsb);
    }

    /// Rule 7: a branch on a condition with that view.
    pub fn branch(&mut self, condition: Time) {
        self.speculation = self.speculation.max(condition);
    }

    /// Rule 8: the time that an invalidate must be later than. Earlier stores do not order it, only a DSB does.
    #[must_use]
    pub fn invalidate_bound(&self, operand: Time) -> Time {
        self.context.max(self.dsb).max(self.speculation).max(operand)
    }
    pub fn invalidated(&mut self, time: Time) {
        self.invalidates = self.invalidates.max(time);
    }
}

/// LDR, LDAPR, LDAR.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Acquire {
    No,
    Pc,
    Sc,
}

/// What a fault is, if the access through this translation has one.
impl Translation {
    #[must_use]
    pub const fn fault(&self, kind: Kind) -> Option<FaultKind> {
        FaultKind::of(self.entry, kind)
    }
}
