//! `--memory views`: every interleaving in program order, with the reorderings that the explored machine's weak memory
//! has.
//!
//! A plain store waits in its CPU's buffer and happens in its own time; those to one word happen in order. What waits
//! for it: DMB and DSB of stores, a release, with FEAT_ETS2 a fault. An invalidate may have happened early: then it
//! removes only what had been overwritten when all that it waits for was there. No store happens before an earlier
//! load, so load→store reordering is not found.

use rustc_hash::FxHashSet;
use vmemmap_machine::views::{Event, Events, NEVER, Time, Word};

use crate::budget::Left;
use crate::outcome::{Final, Found, Watched, combine};
use crate::thread::{Ending, Setting, Step, Store, Thread, Way};
use crate::unsupported::Unsupported;

/// The list and every thread.
#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    events: Events,
    threads: Vec<Thread>,
}

/// # Errors
/// An access that is none of the core.
pub fn search(setting: &Setting<'_>, watched: &Watched<'_>, left: &mut Left<'_>) -> Result<Found, Unsupported> {
    let mut search = Search { setting, watched, left, open: Vec::new(), found: Found::default(), blocks: Vec::new() };
    let first = State { events: Events::new(setting.test.words.clone()), threads: setting.threads() };
    let mut seen: FxHashSet<State> = FxHashSet::default();
    search.open.push(first);
    let mut complete = true;
    while let Some(state) = search.open.pop() {
        if seen.contains(&state) {
            continue;
        }
        let mut ends = Vec::new();
        for at in 0..state.threads.len() {
            let mut block = Block { at, state: &state, ends: Vec::new(), seen: FxHashSet::default() };
            search.commits(&block, &state.threads[at], |_| true);
            if !search.go(&mut block, state.threads[at].clone())? {
                complete = false;
            }
            ends.push(block.ends);
        }
        if !complete {
            break;
        }
        combine(watched, &ends, &state.events, &mut search.found);
        seen.insert(state);
        search.open.append(&mut search.blocks);
    }
    let mut found = search.found;
    (found.complete, found.steps) = (complete, search.left.steps);
    Ok(found)
}

/// States lie between events. What a load or a translation may find at some time it may find later too, and nobody
/// else can tell when it looked: so a thread looks when it comes to its next event, or at the end. A step of the search
/// is one thread's way to its next event.
struct Search<'a, 'b> {
    setting: &'a Setting<'a>,
    watched: &'a Watched<'a>,
    left: &'a mut Left<'b>,
    open: Vec<State>,
    /// Found while a state is looked at.
    blocks: Vec<State>,
    found: Found,
}

/// One thread's ways to its next event.
struct Block<'a> {
    at: usize,
    state: &'a State,
    /// How it ends without one.
    ends: Vec<Final>,
    seen: FxHashSet<Thread>,
}

impl Search<'_, '_> {
    fn event(&mut self, block: &Block<'_>, event: Event, then: impl FnOnce(Time) -> Thread) {
        let mut next = block.state.clone();
        let time = next.events.push(event);
        next.threads[block.at] = then(time);
        self.blocks.push(next);
    }

    /// `false`: the budget is used up.
    fn go(&mut self, block: &mut Block<'_>, mut thread: Thread) -> Result<bool, Unsupported> {
        let step = loop {
            if !self.left.step() {
                return Ok(false);
            }
            match thread.step(self.setting, &block.state.events)? {
                Step::Local(next) => thread = next,
                step => break step,
            }
        };
        match step {
            Step::Local(_) => {}
            Step::End => self.end(block, &thread),
            Step::Ways(ways) => {
                if ways.len() > 1 && !block.seen.insert(thread.clone()) {
                    return Ok(true);
                }
                for way in ways {
                    let next = match way {
                        // It waits for an event of its own, the store.
                        Way::Go { drained: true, .. } if !thread.buffer.is_empty() => continue,
                        Way::Go { thread, .. } => thread,
                        Way::Store(store) if store.is_plain() => {
                            let next = store.buffered();
                            let new = next.buffer.len() - 1;
                            self.commits(block, &next, |n| n == new);
                            next
                        }
                        Way::Store(store) => {
                            self.stored(block, &store);
                            continue;
                        }
                    };
                    if !self.go(block, next)? {
                        return Ok(false);
                    }
                }
            }
            Step::Invalidate { thread, entries, broadcast, after } => match entries.split_first() {
                None => return self.go(block, thread),
                Some((&entry, rest)) => self.invalidated(block, &thread, (entry, rest), (broadcast, after)),
            },
        }
        Ok(true)
    }

    /// The first waiting store of each word happens, unless the translation that it was made with was invalidated: then
    /// it happened before that, on another path.
    fn commits(&mut self, block: &Block<'_>, thread: &Thread, which: impl Fn(usize) -> bool) {
        for (n, waiting) in thread.buffer.iter().enumerate().filter(|(n, _)| which(*n)) {
            let events = &block.state.events;
            let gone = |(entry, since)| events.invalidated_after(entry, thread.number, since) != NEVER;
            if thread.buffer[..n].iter().any(|w| w.word == waiting.word) || waiting.translation.is_some_and(gone) {
                continue;
            }
            self.event(block, Event::Store { word: waiting.word, value: waiting.value, cpu: thread.number }, |time| {
                let mut next = thread.clone();
                next.buffer.remove(n);
                next.views.stored(waiting.word, time, waiting.forward, false);
                next
            });
        }
    }

    /// A release or a read-modify-write happens at once.
    fn stored(&mut self, block: &Block<'_>, store: &Store) {
        let buffer = &store.thread.buffer;
        let waits = if store.release { !buffer.is_empty() } else { buffer.iter().any(|w| w.word == store.word) };
        if !waits && store.fits(&block.state.events, block.state.events.now() + 1) {
            let event = Event::Store { word: store.word, value: store.value, cpu: store.thread.number };
            self.event(block, event, |time| store.at(time));
        }
    }

    /// The invalidate removes what had been overwritten at some time from `after` on. Those of further entries come in
    /// their own time.
    fn invalidated(
        &mut self,
        block: &Block<'_>,
        thread: &Thread,
        (entry, rest): (Word, &[Word]),
        (broadcast, after): (bool, Time),
    ) {
        let early = block.state.events.stores_after(entry, after).map(|(time, _)| time - 1);
        for covers in early.chain([NEVER]) {
            self.event(block, Event::Invalidate { entry, cpu: thread.number, broadcast, covers }, |time| {
                let mut next = thread.clone();
                next.views.invalidated(time);
                next.invalidates = rest.to_vec();
                if !rest.is_empty() {
                    // The instruction is not done.
                    next.pc -= 1;
                }
                next
            });
        }
    }

    fn end(&mut self, block: &mut Block<'_>, thread: &Thread) {
        self.found.cut |= thread.ending == Ending::Loop;
        if !thread.buffer.is_empty() || matches!(thread.ending, Ending::Loop | Ending::Again) {
            return;
        }
        let end = self.watched.of_thread(thread.number, |r| thread.register(r), &thread.faults);
        if !block.ends.contains(&end) {
            block.ends.push(end);
        }
    }
}
