//! A part of an exhaustive search that was split (docs/search.md §3.15).

use serde_json::Value;

use crate::runtime::schedule::Prefix;

/// A part of an exhaustive search that was split.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// What executions begin with, and where they are gone on with.
    Tree(Vec<Prefix>),
    Behind(Prefix),
}

impl Part {
    /// Its key in `Outcome::to_json`, and what stands there.
    pub(crate) fn to_json(&self) -> (&'static str, Value) {
        match self {
            Self::Tree(prefixes) => ("prefixes", prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().into()),
            Self::Behind(prefix) => ("prefix", prefix.to_string().into()),
        }
    }

    /// For the scope of its verdict.
    pub(crate) fn bounds(&self, split: Option<u32>) -> String {
        match self {
            Self::Tree(prefixes) => format!(
                "the first {} operations of each execution, without what is behind {} prefixes",
                split.unwrap_or(0),
                prefixes.len()
            ),
            Self::Behind(prefix) => format!("what is behind the prefix {prefix}"),
        }
    }
}
