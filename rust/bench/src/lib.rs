//! The project's own benchmarks. Each figure stands beside a limit that is measured in the same run, in turns with it:
//! on a host that others use too, only the ratio of neighbours in time means anything.
//!
//! | module | rows |
//! |---|---|
//! | `rounds` | how two sides are measured in turns |
//! | `threads` | two threads, and what two bare loops gain |
//! | `setup` | the machine that the rows run on |
//! | `exchange` | one descriptor, by one CPU or two, with and without checks |
//! | `remap` | the exchanges of a hugepage; a hugepage with its walk and locks |
//! | `walk` | half a gigabyte of tables, read in order |
//! | `populate` | tables built; a section added and removed |
//! | `pool` | hugepages allocated and freed |
//! | `handmade` | the model that the comparison with other checkers is about |
//! | `search` | the explorer: steps, executions, a check of three actors |

mod exchange;
pub mod handmade;
mod pool;
mod populate;
mod remap;
mod rounds;
mod search;
mod setup;
mod threads;
mod walk;

use std::io;

use serde::Serialize;
use thiserror::Error;
use vmemmap_kernel::Errno;
use vmemmap_machine::ConfigError;

use vmemmap_lab::live::LiveError;
use vmemmap_lab::world::WorldError;

pub use exchange::bare_exchanges;
pub use setup::{machine, start};
pub use walk::leaves;

/// Why there is no figure.
#[derive(Debug, Error)]
pub enum BenchError {
    #[error("there is no benchmark row {0}")]
    UnknownRow(String),
    #[error("interrupted")]
    Stopped,
    #[error("the benchmark's machine: {0}")]
    Kernel(Errno),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Live(#[from] LiveError),
    #[error(transparent)]
    World(#[from] WorldError),
    #[error("the host refuses memory or a thread: {0}")]
    Host(#[from] io::Error),
    /// A figure of work that went wrong would be none.
    #[error("the measured work went wrong: {0}")]
    Work(String),
}

impl From<Errno> for BenchError {
    fn from(errno: Errno) -> Self {
        BenchError::Kernel(errno)
    }
}

/// How much work is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// What the documentation quotes.
    Full,
    /// Shows that a row can be measured, not how fast it is.
    Quick,
}

impl Effort {
    pub(crate) fn rounds(self, full: usize) -> usize {
        match self {
            Effort::Full => full,
            Effort::Quick => 3,
        }
    }
    /// An amount of work; `least` for a quick run.
    pub(crate) fn amount(self, full: u64, least: u64) -> u64 {
        match self {
            Effort::Full => full,
            Effort::Quick => least,
        }
    }
}

/// One row: the best of all rounds of both sides, and their medians. For times less is better, for rates (`…/s`) more.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figure {
    pub value: f64,
    pub unit: &'static str,
    pub limit: f64,
    pub what: String,
    pub value_median: f64,
    pub limit_median: f64,
}

/// Asked between rounds whether to give up; a round takes less than a second.
pub type Stop<'s> = &'s dyn Fn() -> bool;

type Measure = fn(Effort, Stop<'_>) -> Result<Figure, BenchError>;

const ROWS: [(&str, Measure); 24] = [
    ("exchange", exchange::exchange),
    ("exchange-2t-disjoint", exchange::two_threads_disjoint),
    ("exchange-2t-shared", exchange::two_threads_shared),
    ("checked-exchange-2t", exchange::two_threads_checked),
    ("optimise-2m", remap::exchanges_by_swap),
    ("optimise-2m-2t", remap::exchanges_two_threads),
    ("optimise-2m-store", remap::exchanges_by_store),
    ("optimise-2m-whole", remap::whole),
    ("optimise-2m-whole-2t", remap::whole_two_threads),
    ("walk-plain", walk::plain),
    ("walk-plain-2t", walk::two_threads),
    ("walk-optimised", walk::optimised),
    ("ptdump-optimised", walk::ptdump_optimised),
    ("populate", populate::populate),
    ("populate-2t", populate::two_threads),
    ("hotplug-section", populate::hotplug_section),
    ("hotplug-section-2t", populate::hotplug_two_threads),
    ("pool-free", pool::free),
    ("checked-exchange", exchange::checked),
    ("explore-step", search::step),
    ("explore-executions", search::executions),
    ("explore-three-actors", search::three_actors),
    ("explore-toy-step", search::toy_step),
    ("explore-executions-25", search::executions_25),
];

/// Names of the rows, in the order of the table.
pub fn rows() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|(name, _)| *name)
}

/// Measure one row.
///
/// # Errors
/// `UnknownRow`; `Stopped` if `stop` said so; what the host refuses.
pub fn measure(name: &str, effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let (_, row) = ROWS.iter().find(|(row, _)| *row == name).ok_or_else(|| BenchError::UnknownRow(name.to_owned()))?;
    row(effort, stop)
}
