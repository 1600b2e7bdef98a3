//! What an operation costs, as a machine file says it.

/// Time of a costed machine, in picoseconds.
pub type Time = u64;

/// Picoseconds of a nanosecond.
pub const NANOSECOND: Time = 1000;

macro_rules! costs {
    ($( $field:ident: $sentence:literal ),+ $(,)?) => {
        /// Latencies, in picoseconds. Names and sentences are those of a machine file.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Costs { $( #[doc = $sentence] pub $field: Time ),+ }

        impl Costs {
            /// Name and sentence of each, in the order of the table.
            pub const NAMES: &'static [(&'static str, &'static str)] = &[ $( (stringify!($field), $sentence) ),+ ];

            /// From nanoseconds by name.
            ///
            /// # Errors
            /// The first name for which there is no number that is finite and not negative.
            pub fn from_ns(ns: impl Fn(&str) -> Option<f64>) -> Result<Self, &'static str> {
                let of = |name: &'static str| match ns(name) {
                    Some(ns) if ns.is_finite() && ns >= 0.0 => Ok((ns * NANOSECOND as f64).round() as Time),
                    Some(_) | None => Err(name),
                };
                Ok(Self { $( $field: of(stringify!($field))? ),+ })
            }
        }
    };
}

costs! {
    read: "a load of a descriptor or kernel variable that this CPU has in its cache",
    write: "a store to one",
    atomic: "an atomic read-modify-write of one",
    line_transfer: "what it takes longer if another CPU wrote the cache line last; of stores one after the other",
    load: "a load through a virtual address",
    store: "a store or read-modify-write through a virtual address",
    lock: "taking a free lock, or releasing one",
    lock_handoff: "from a release to the next in the lock's queue",
    dsb_ishst: "dsb ishst, nothing outstanding",
    dsb_ish: "dsb ish, beyond the wait for this CPU's invalidates",
    isb: "isb",
    smp_barrier: "dmb",
    tlbi_issue: "issue of one TLBI",
    tlbi_local: "an invalidate of one page in one TLB",
    tlbi_local_all: "an invalidate of everything in one TLB",
    dvm_operation: "one broadcast TLBI on the interconnect, which takes one after the other",
    dvm_per_cpu: "what each further CPU that has to answer adds to it",
    ipi_send: "sending an interrupt to one CPU; to several one after the other",
    ipi_deliver: "from sending to the first instruction of the handler, interrupts not masked",
    ipi_return: "end of the handler to the instruction interrupted",
    irq_masked_every: "mean time between the beginnings of two intervals in which a CPU elsewhere masks interrupts; \
        0: never",
    irq_masked_for: "mean length of such an interval",
    stopper_wakeup: "stop_machine: from the wake-up of a CPU's stopper thread until it runs",
    fault: "a translation fault: entry, look-up, return",
    grace_period: "synchronize_rcu, without readers of this model",
    frame_alloc: "a base page from the allocator",
    frame_free: "a base page back to it",
    table_alloc: "a zeroed table page",
    page_copy: "copying a base page",
    page_fill: "writing the struct pages of one base page",
    hugepage_alloc: "a hugepage of the page allocator's orders, its pool work included",
    hugepage_free: "and back",
    gigantic_alloc: "a hugepage above those orders",
    gigantic_free: "and back",
    demoted_part: "of a demotion, for each smaller hugepage made",
}
