//! Litmus tests: herd's AArch64 format, put to the machines of the laboratory.
//!
//! | module | what |
//! |---|---|
//! | `parse`, `code`, `value`, `condition`, `lex` | the format into a `test::Test`; the rest is refused |
//! | `places`, `registers` | where variables live; what instructions do between registers |
//! | `thread` | what a thread's next instruction may do under views |
//! | `promises` | the exact search |
//! | `sequential` | every interleaving on the explored machine |
//! | `buffered` | program order, with a buffer for plain stores |
//! | `outcome`, `answer` | how executions ended; what herd prints of it |

mod answer;
mod budget;
mod buffered;
mod code;
mod condition;
mod lex;
mod outcome;
mod parse;
mod places;
mod promises;
mod registers;
mod sequential;
mod test;
mod thread;
mod unsupported;
mod value;

pub use answer::{Answer, Observation, Options, run};
pub use budget::Budget;

/// What of a file is not read: the line, and what stands there.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{line}: {what}")]
pub struct Refusal {
    pub line: usize,
    pub what: String,
}

impl Refusal {
    pub(crate) fn new(line: usize, what: &str) -> Self {
        Self { line, what: what.to_owned() }
    }
}

/// Which memory the threads of a test have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Memory {
    /// The explored machine as it searches kernel code: sequentially consistent, with its TLB.
    #[default]
    Sc,
    /// The same with the store buffers that `explore --memory views` has: for comparison, no mode of the command.
    Explored,
    /// Program order, with a buffer for plain stores and early invalidates.
    Views,
    /// Exact.
    Promises,
}
