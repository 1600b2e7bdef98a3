//! A part of an exhaustive search that was split (docs/search.md §3.15).

use serde::Serialize;

use crate::runtime::schedule::Prefix;

/// A part of an exhaustive search that was split.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum Part {
    /// What executions begin with, and where they are gone on with.
    #[serde(rename = "prefixes")]
    Tree(Vec<Prefix>),
    #[serde(rename = "prefix")]
    Behind(Prefix),
}

impl Part {
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
