//! Schedules: which actor goes, with which outcome, and what a path of such choices costs.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::model::MAX_ACTORS;

/// One decision: this actor, this outcome.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Choice {
    pub actor: u8,
    pub outcome: u16,
}

/// Length of a trace: context switches first, then operations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cost {
    pub switches: u32,
    pub steps: u32,
}

impl Cost {
    pub(crate) const MAX: Self = Self { switches: u32::MAX, steps: u32::MAX };
}

/// A violation and the choices that lead to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    pub choices: Vec<Choice>,
    pub cost: Cost,
}

/// Operations at most of a prefix.
pub const MAX_PREFIX: usize = 64;

/// The beginning of an execution, every operation of it a choice, and who sleeps behind it: their going first is behind
/// prefixes that stand before this one in the tree (`Search::to_depth`).
///
/// As text: choices apart by spaces, `ACTOR` or `ACTOR:OUTCOME`, then `|` and those who sleep, apart by commas.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Prefix {
    pub choices: Vec<Choice>,
    pub asleep: u16,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, Choice { actor, outcome }) in self.choices.iter().enumerate() {
            write!(f, "{}{actor}", if nth == 0 { "" } else { " " })?;
            if *outcome != 0 {
                write!(f, ":{outcome}")?;
            }
        }
        let asleep = (0..MAX_ACTORS).filter(|actor| self.asleep & 1 << actor != 0);
        for (nth, actor) in asleep.enumerate() {
            write!(f, "{}{actor}", if nth == 0 { "|" } else { "," })?;
        }
        Ok(())
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |part: &str| {
            let part: String = part.chars().take(20).collect();
            format!("prefix: {part:?}: expected ACTOR or ACTOR:OUTCOME for each operation, then |ACTOR,ACTOR who sleep")
        };
        let actor = |part: &str| match part.parse::<u8>() {
            Ok(actor) if usize::from(actor) < MAX_ACTORS => Ok(actor),
            _ => Err(wrong(part)),
        };
        let (choices, asleep) = text.split_once('|').map_or((text, None), |(choices, asleep)| (choices, Some(asleep)));
        let mut prefix = Self::default();
        for part in choices.split_whitespace() {
            let (who, outcome) = part.split_once(':').unwrap_or((part, "0"));
            let outcome = outcome.parse().map_err(|_| wrong(part))?;
            prefix.choices.push(Choice { actor: actor(who)?, outcome });
            if prefix.choices.len() > MAX_PREFIX {
                return Err(format!("prefix: more than {MAX_PREFIX} operations"));
            }
        }
        for part in asleep.into_iter().flat_map(|list| list.split(',')) {
            prefix.asleep |= 1 << actor(part)?;
        }
        Ok(prefix)
    }
}

/// A step of a schedule prefix: this actor went until it had made so many operations in all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PrefixStep {
    pub choice: Choice,
    pub until: u32,
}

/// Who is first among those that may go: whoever went last, else the first.
pub(crate) fn goes_on(may_go: u16, last: Option<u8>) -> u8 {
    last.filter(|a| may_go & 1 << a != 0).unwrap_or(may_go.trailing_zeros() as u8)
}
