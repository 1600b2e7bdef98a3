//! What a location of an access set stands for: for messages, and for the tests that leave a rule out.

/// Sort of a location.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LocationKind {
    /// What a frame is, and its generation.
    Life,
    /// Who maps a frame.
    Mapped,
    /// Place of the entry that links a table.
    Parent,
    /// A frame's contents as a whole: its template, and the frame it was copied to.
    Contents,
    /// Whether a translation names the frame.
    Named,
    /// What the rules compare of a frame.
    Compared,
    /// Which stale translations name the frame.
    Outdated,
    /// A word of a frame.
    Word,
    /// A descriptor.
    Entry,
    /// A stale value of a descriptor.
    Stale,
    /// A lock, its queue included.
    Lock,
    /// What an actor may not do now: sleep, be interrupted.
    Context,
    /// RCU read sections and grace periods.
    Rcu,
    /// Whether all other CPUs are held still.
    Pause,
    /// Who expects that no table changes, and who is where only one may be.
    Promise,
    /// Runs of frames that actors share, and who hosts its own descriptors.
    Runs,
    /// Failures that the environment has left.
    Failures,
    /// A variable of the kernel.
    Var,
    /// Stores that wait in a CPU's buffer.
    Buffer,
    /// What a CPU has loaded early.
    Early,
    Other,
}
