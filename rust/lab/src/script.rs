//! Actors whose operations are asked for one after the other: what the engine's `scripted` is given here.

use vmemmap_explore::runtime::scripted::{self, Next, Scripted};
use vmemmap_kernel::{Errno, Operation};

use crate::document::OperationDocument;

pub type Transcript<'s> = scripted::Transcript<'s, OperationDocument>;
pub type Source<'s> = scripted::Source<'s, OperationDocument>;

// A coroutine has one on its stack.
const _: () = assert!(!std::mem::needs_drop::<Next<Operation>>());

impl Scripted for OperationDocument {
    type Operation = Operation;
    type Context = ();

    fn resolve(&self, (): &()) -> Operation {
        self.operation()
    }
    fn kind(&self) -> String {
        OperationDocument::kind(self)
    }
}

/// A result as the steps are sent it.
#[must_use]
pub fn sent(result: Result<u64, Errno>) -> i64 {
    result.map_or_else(|errno| -i64::from(errno.number()), |value| i64::try_from(value).unwrap_or(i64::MAX))
}
