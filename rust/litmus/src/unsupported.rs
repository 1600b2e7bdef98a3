//! What a run of a test meets that is none of the core.

/// Where, and what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unsupported {
    pub thread: u8,
    /// Number of the instruction.
    pub at: u16,
    pub what: String,
}
