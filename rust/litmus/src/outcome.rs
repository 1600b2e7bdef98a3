//! How executions ended, as the test looks at them.

use std::collections::BTreeSet;

use vmemmap_machine::views::{Events, FaultKind, NEVER, Word};

use crate::test::{FaultAtom, Place, Test};
use crate::thread::Fault;

/// What one execution left in the places and faults that the test looks at.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Final {
    /// In the order of `Watched::places`.
    pub values: Vec<u64>,
    /// Those that some atom of the test matches.
    pub faults: Vec<Fault>,
}

/// Places and faults that a test looks at, its filter included.
#[derive(Debug)]
pub struct Watched<'a> {
    test: &'a Test,
    places: Vec<Place>,
    faults: Vec<FaultAtom>,
}

impl<'a> Watched<'a> {
    #[must_use]
    pub fn new(test: &'a Test) -> Self {
        let (mut places, mut faults) = (test.shown.clone(), test.faults.clone());
        if let Some(filter) = &test.filter {
            filter.each(&mut |atom| match atom {
                crate::test::Proposition::Equal(place, _) => places.push(*place),
                crate::test::Proposition::Same(a, b) => places.extend([*a, *b]),
                crate::test::Proposition::Fault(fault) => faults.push(fault.clone()),
                _ => {}
            });
        }
        places.sort_unstable();
        places.dedup();
        Self { test, places, faults }
    }

    /// Of one thread: its registers that are looked at, in order, and its faults.
    pub fn of_thread(&self, thread: u8, register: impl Fn(u8) -> u64, faults: &[Fault]) -> Final {
        let values = self.places.iter().filter_map(|place| match *place {
            Place::Register(t, r) if t == thread => Some(register(r)),
            _ => None,
        });
        let matched = |fault: &&Fault| self.faults.iter().any(|atom| matches(self.test, fault, atom));
        Final { values: values.collect(), faults: faults.iter().filter(matched).copied().collect() }
    }

    /// Joins the threads' parts, in their order, with the words that are looked at.
    pub fn join<'f>(&self, threads: impl Iterator<Item = &'f Final>, word: impl Fn(Place) -> u64) -> Final {
        let mut all = Final { values: Vec::with_capacity(self.places.len()), faults: Vec::new() };
        for part in threads {
            all.values.extend_from_slice(&part.values);
            all.faults.extend_from_slice(&part.faults);
        }
        let words = self.places.iter().filter(|place| !matches!(place, Place::Register(..)));
        all.values.extend(words.map(|place| word(*place)));
        all.faults.sort_unstable();
        all
    }

    fn value(&self, end: &Final, place: Place) -> u64 {
        self.places.binary_search(&place).map_or(0, |at| end.values[at])
    }
    fn holds(&self, end: &Final, what: &crate::test::Proposition) -> bool {
        what.holds(&|place| self.value(end, place), &|atom| end.faults.iter().any(|f| matches(self.test, f, atom)))
    }
    /// The filter lets the execution count.
    #[must_use]
    pub fn counts(&self, end: &Final) -> bool {
        self.test.filter.as_ref().is_none_or(|filter| self.holds(end, filter))
    }
    #[must_use]
    pub fn is_witness(&self, end: &Final) -> bool {
        self.holds(end, &self.test.condition)
    }

    /// The execution as the test shows it: without what only the filter looks at.
    #[must_use]
    pub fn shown(&self, end: &Final) -> Final {
        let values = self.test.shown.iter().map(|place| self.value(end, *place)).collect();
        let matched = |fault: &&Fault| self.test.faults.iter().any(|atom| matches(self.test, fault, atom));
        Final { values, faults: end.faults.iter().filter(matched).copied().collect() }
    }

    /// The line that herd prints for it.
    #[must_use]
    pub fn line(&self, shown: &Final) -> String {
        let variables = &self.test.variables;
        let mut line = String::new();
        let mut places: Vec<(&Place, &u64)> = self.test.shown.iter().zip(&shown.values).collect();
        let name = |place: &Place| match *place {
            Place::Word(v) | Place::Entry(v) => variables.name(v),
            Place::Register(..) => "",
        };
        places.sort_by_key(|(place, _)| match place {
            Place::Register(..) => (0, ""),
            Place::Word(_) => (1, name(place)),
            Place::Entry(_) => (2, name(place)),
        });
        for (place, word) in places {
            let value = variables.text(*word);
            line += &match *place {
                Place::Register(t, r) => format!("{t}:X{r}={value}; "),
                Place::Word(v) => format!("[{}]={value}; ", variables.name(v)),
                Place::Entry(v) => format!("[PTE({})]={value}; ", variables.name(v)),
            };
        }
        for fault in &shown.faults {
            let labels: Vec<&str> =
                self.test.threads[usize::from(fault.thread)].labels_at(usize::from(fault.at)).collect();
            let labels = match labels[..] {
                [] => String::new(),
                [only] => format!(":{only}"),
                _ => format!(":{{{}}}", labels.join(",")),
            };
            let variable = variables.name(fault.variable);
            let written = self.test.faults.iter().filter(|atom| matches(self.test, fault, atom));
            let kind = written.filter_map(|atom| atom.written.clone()).next();
            let kind = kind.unwrap_or_else(|| format!("D-MMU:{}", fault.kind.name()));
            line += &format!(" Fault(P{}{labels},{variable},{kind});", fault.thread);
        }
        for atom in self.test.faults.iter().rev() {
            if !shown.faults.iter().any(|fault| matches(self.test, fault, atom)) {
                line += &format!(" ~{};", atom.text(self.test, "Fault"));
            }
        }
        line.trim_end().to_owned()
    }
}

impl FaultAtom {
    /// `fault(P0:L0,x,MMU:Translation)`.
    #[must_use]
    pub fn text(&self, test: &Test, name: &str) -> String {
        let label = self.label.as_ref().map(|l| format!(":{l}")).unwrap_or_default();
        let variable = self.variable.map(|v| format!(",{}", test.variables.name(v))).unwrap_or_default();
        let kind = self.written.as_ref().map(|k| format!(",{k}")).unwrap_or_default();
        format!("{name}(P{}{label}{variable}{kind})", self.thread)
    }
}

fn matches(test: &Test, fault: &Fault, atom: &FaultAtom) -> bool {
    let labelled =
        |label: &String| test.threads[usize::from(fault.thread)].labels_at(usize::from(fault.at)).any(|l| l == label);
    atom.thread == fault.thread
        && atom.variable.is_none_or(|v| v == fault.variable)
        && atom.kind.is_none_or(|kind: FaultKind| kind == fault.kind)
        && atom.label.as_ref().is_none_or(labelled)
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Found {
    pub ends: BTreeSet<Final>,
    /// The search came to its end.
    pub complete: bool,
    /// Executions that went round a loop more often than is looked at were left out.
    pub cut: bool,
    pub steps: u64,
}

/// Every combination of how the threads end.
pub fn combine(watched: &Watched<'_>, ends: &[Vec<Final>], events: &Events, found: &mut Found) {
    if ends.iter().any(Vec::is_empty) {
        return;
    }
    let words = events.words() as Word / 2;
    let word = |place| match place {
        Place::Word(v) => events.value(v, NEVER).0,
        Place::Entry(v) => events.value(words + v, NEVER).0,
        Place::Register(..) => 0,
    };
    let mut chosen = vec![0; ends.len()];
    loop {
        let end = watched.join(chosen.iter().zip(ends).map(|(n, ends)| &ends[*n]), word);
        if watched.counts(&end) {
            found.ends.insert(end);
        }
        let Some(at) = (0..ends.len()).rev().find(|at| chosen[*at] + 1 < ends[*at].len()) else { return };
        chosen[at] += 1;
        chosen[at + 1..].fill(0);
    }
}
