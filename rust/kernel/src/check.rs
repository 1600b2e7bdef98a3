//! Invariants that a machine at rest can show, over a read-only view (kernel-semantics §12).
