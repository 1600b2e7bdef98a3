//! Populating vmemmap, and the section state (`mm/sparse-vmemmap.c`, `mm/sparse.c`; kernel-semantics §3, §5.1 to 5.3).
