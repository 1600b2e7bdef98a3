//! The list of events.

/// Position in the list, from 1; 0 is before all.
pub type Time = u32;
/// Later than all.
pub const NEVER: Time = Time::MAX;
/// A word of memory that has a history: of data, or a descriptor.
pub type Word = u16;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    Store {
        word: Word,
        value: u64,
        cpu: u8,
    },
    /// Of what that descriptor translates.
    Invalidate {
        entry: Word,
        cpu: u8,
        /// Received by all CPUs; otherwise by its own only.
        broadcast: bool,
        /// It removes what was overwritten by then; `NEVER`: by its own time.
        covers: Time,
    },
}

/// The list, and what every word held before it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Events {
    initial: Vec<u64>,
    list: Vec<Event>,
}

impl Events {
    #[must_use]
    pub const fn new(initial: Vec<u64>) -> Self {
        Self { initial, list: Vec::new() }
    }
    #[must_use]
    pub const fn words(&self) -> usize {
        self.initial.len()
    }
    #[must_use]
    pub fn list(&self) -> &[Event] {
        &self.list
    }
    /// Time of the last event.
    #[must_use]
    pub fn now(&self) -> Time {
        self.list.len() as Time
    }
    pub fn push(&mut self, event: Event) -> Time {
        self.list.push(event);
        self.now()
    }
    pub fn truncate(&mut self, now: Time) {
        self.list.truncate(now as usize);
    }
    /// What the word holds at that time, and since when.
    #[must_use]
    pub fn value(&self, word: Word, time: Time) -> (u64, Time) {
        for (at, event) in self.list[..time.min(self.now()) as usize].iter().enumerate().rev() {
            if let Event::Store { word: w, value, .. } = *event
                && w == word
            {
                return (value, at as Time + 1);
            }
        }
        (self.initial[usize::from(word)], 0)
    }
    /// Stores to the word after that time.
    pub fn stores_after(&self, word: Word, time: Time) -> impl Iterator<Item = (Time, u64)> + '_ {
        (time.min(self.now()) as usize..self.list.len()).filter_map(move |at| match self.list[at] {
            Event::Store { word: w, value, .. } if w == word => Some((at as Time + 1, value)),
            _ => None,
        })
    }
    /// First invalidate of the entry by another CPU that this one receives after that time.
    #[must_use]
    pub fn invalidated_after(&self, entry: Word, cpu: u8, time: Time) -> Time {
        (time as usize..self.list.len())
            .find(|at| {
                matches!(self.list[*at], Event::Invalidate { entry: e, cpu: by, broadcast: true, .. }
                    if e == entry && by != cpu)
            })
            .map_or(NEVER, |at| at as Time + 1)
    }
    /// Until when whatever was overwritten is gone for this CPU at that time.
    #[must_use]
    pub fn invalidated_up_to(&self, entry: Word, cpu: u8, time: Time) -> Time {
        let covers = |(at, event): (usize, &Event)| match *event {
            Event::Invalidate { entry: e, cpu: by, broadcast, covers } if e == entry && (broadcast || by == cpu) => {
                Some(covers.min(at as Time + 1))
            }
            _ => None,
        };
        self.list[..time as usize].iter().enumerate().filter_map(covers).max().unwrap_or(0)
    }
}
