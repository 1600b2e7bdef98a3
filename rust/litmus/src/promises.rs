//! `--memory promises`: exact. Lists of events are built first, then each thread runs alone on them.
//!
//! A list grows by an event that some thread could make next: it runs alone, meets all its events of the list, and
//! comes to a store or an invalidate whose views lie within the list. A list on which every thread ends without new
//! events gives every combination of how they end (Promising-ARM: promises first, then no more).

use rustc_hash::FxHashSet;
use vmemmap_machine::views::{Event, Events, NEVER, Time, Word};

use crate::budget::Left;
use crate::outcome::{Final, Found, Watched, combine};
use crate::thread::{Ending, Setting, Step, Thread, Way};
use crate::unsupported::Unsupported;

struct Search<'a, 'b> {
    setting: &'a Setting<'a>,
    watched: &'a Watched<'a>,
    left: &'a mut Left<'b>,
    cut: bool,
}

/// One thread's runs on a list.
struct Runs {
    events: Events,
    /// Length of the list; what follows are events of this run.
    base: Time,
    /// Some run made all the thread's events of the list.
    lives: bool,
    ends: Vec<Final>,
    next: Vec<Event>,
    /// New events of this run that could be next.
    offers: Vec<Event>,
    seen: FxHashSet<(Thread, Vec<Time>, Vec<Event>)>,
}

/// # Errors
/// An access that is none of the core.
pub fn search(setting: &Setting<'_>, watched: &Watched<'_>, left: &mut Left<'_>) -> Result<Found, Unsupported> {
    let mut found = Found::default();
    let mut search = Search { setting, watched, left, cut: false };
    let mut lists: Vec<Events> = vec![Events::new(setting.test.words.clone())];
    let mut seen: FxHashSet<Vec<Event>> = FxHashSet::default();
    let threads = setting.threads();
    let mut complete = true;
    'lists: while let Some(events) = lists.pop() {
        let mut ends = Vec::new();
        let mut grown = Vec::new();
        for thread in &threads {
            let Some(runs) = search.run(thread, &events)? else {
                complete = false;
                break 'lists;
            };
            if !runs.lives {
                // It cannot make all its events: no extension of this list is an execution.
                continue 'lists;
            }
            grown.extend(runs.next);
            ends.push(runs.ends);
        }
        combine(search.watched, &ends, &events, &mut found);
        for event in grown {
            let mut longer = events.clone();
            longer.push(event);
            if seen.insert(longer.list().to_vec()) {
                lists.push(longer);
            }
        }
    }
    (found.complete, found.cut, found.steps) = (complete, search.cut, search.left.steps);
    Ok(found)
}

impl Search<'_, '_> {
    /// Runs the thread alone in every way. `None`: the budget is used up.
    fn run(&mut self, thread: &Thread, events: &Events) -> Result<Option<Runs>, Unsupported> {
        let own = |(at, event): (usize, &Event)| {
            let (Event::Store { cpu, .. } | Event::Invalidate { cpu, .. }) = *event;
            (cpu == thread.number).then_some(at as Time + 1)
        };
        let pending: Vec<Time> = events.list().iter().enumerate().filter_map(own).collect();
        let mut runs = Runs {
            base: events.now(),
            events: events.clone(),
            lives: false,
            ends: Vec::new(),
            next: Vec::new(),
            offers: Vec::new(),
            seen: FxHashSet::default(),
        };
        let went = self.go(&mut runs, thread.clone(), pending)?;
        Ok(went.then_some(runs))
    }

    fn go(&mut self, runs: &mut Runs, mut thread: Thread, pending: Vec<Time>) -> Result<bool, Unsupported> {
        let step = loop {
            if !self.left.step() {
                return Ok(false);
            }
            match thread.step(self.setting, &runs.events)? {
                Step::Local(next) => thread = next,
                step => break step,
            }
        };
        match step {
            Step::Local(_) => {}
            Step::End => self.end(runs, &thread, &pending),
            Step::Invalidate { thread, entries, broadcast, after } => {
                return self.invalidate(runs, thread, pending, (&entries, broadcast, after));
            }
            Step::Ways(ways) => {
                if ways.len() > 1 && !runs.seen.insert((thread, pending.clone(), runs.new_events())) {
                    return Ok(true);
                }
                for way in ways {
                    let went = match way {
                        Way::Go { thread, .. } => self.go(runs, thread, pending.clone())?,
                        Way::Store(store) => {
                            let event = Event::Store { word: store.word, value: store.value, cpu: store.thread.number };
                            let fits = |time| store.fits(&runs.events, time);
                            let times: Vec<Time> = pending.iter().copied().filter(|time| fits(*time)).collect();
                            let new = fits(runs.events.now() + 1);
                            self.place(runs, event, &times, &pending, (new, store.after), &|time| store.at(time))?
                        }
                    };
                    if !went {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn end(&mut self, runs: &mut Runs, thread: &Thread, pending: &[Time]) {
        if !pending.is_empty() {
            return;
        }
        runs.lives = true;
        for event in &runs.offers {
            if !runs.next.contains(event) {
                runs.next.push(*event);
            }
        }
        self.cut |= thread.ending == Ending::Loop;
        if runs.events.now() == runs.base && !matches!(thread.ending, Ending::Loop | Ending::Again) {
            let end = self.watched.of_thread(thread.number, |r| thread.register(r), &thread.faults);
            if !runs.ends.contains(&end) {
                runs.ends.push(end);
            }
        }
    }

    /// The event takes one of the times that the list has for it, or is new.
    fn place(
        &mut self,
        runs: &mut Runs,
        event: Event,
        times: &[Time],
        pending: &[Time],
        (new, after): (bool, Time),
        then: &dyn Fn(Time) -> Thread,
    ) -> Result<bool, Unsupported> {
        for &time in times {
            if runs.events.list()[time as usize - 1] != event {
                continue;
            }
            let others = pending.iter().copied().filter(|t| *t != time).collect();
            if !self.go(runs, then(time), others)? {
                return Ok(false);
            }
        }
        if !new {
            return Ok(true);
        }
        let offered = runs.offers.len();
        if after <= runs.base {
            runs.offers.push(event);
        }
        let time = runs.events.push(event);
        let went = self.go(runs, then(time), pending.to_vec())?;
        runs.events.truncate(time - 1);
        runs.offers.truncate(offered);
        Ok(went)
    }

    /// The first of the invalidates is placed, then the rest.
    fn invalidate(
        &mut self,
        runs: &mut Runs,
        thread: Thread,
        pending: Vec<Time>,
        (entries, broadcast, after): (&[Word], bool, Time),
    ) -> Result<bool, Unsupported> {
        let Some((&entry, rest)) = entries.split_first() else { return self.go(runs, thread, pending) };
        let event = Event::Invalidate { entry, cpu: thread.number, broadcast, covers: NEVER };
        let fits = pending.iter().copied().filter(|t| *t > after && runs.events.list()[*t as usize - 1] == event);
        for time in fits.collect::<Vec<_>>() {
            let others = pending.iter().copied().filter(|t| *t != time).collect();
            let mut next = thread.clone();
            next.views.invalidated(time);
            if !self.invalidate(runs, next, others, (rest, broadcast, after))? {
                return Ok(false);
            }
        }
        let offered = runs.offers.len();
        if after <= runs.base {
            runs.offers.push(event);
        }
        let time = runs.events.push(event);
        let mut next = thread;
        next.views.invalidated(time);
        let went = self.invalidate(runs, next, pending, (rest, broadcast, after))?;
        runs.events.truncate(time - 1);
        runs.offers.truncate(offered);
        Ok(went)
    }
}

impl Runs {
    fn new_events(&self) -> Vec<Event> {
        self.events.list()[self.base as usize..].to_vec()
    }
}
