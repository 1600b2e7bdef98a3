//! What a CPU can ask of memory, of its TLBs and of the interconnect, as values: orders, barriers, invalidates,
//! read-modify-writes, data accesses.

use crate::address::Va;
use crate::contents::Template;
use crate::frame::Frame;

/// Access order, as the kernel writes it: READ_ONCE/WRITE_ONCE are `Plain`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Order {
    Plain,
    Acquire,
    Release,
    AcqRel,
    /// An atomic read-modify-write without ordering (`xchg_relaxed`).
    Relaxed,
}

/// Barrier instructions and the kernel's SMP barriers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Barrier {
    /// `dsb(ishst)`: publishes earlier stores to table walkers; completes no TLBI.
    DsbIshst,
    /// `dsb(ish)`: completes this CPU's earlier TLBIs.
    DsbIsh,
    /// `dsb(nsh)`: completes this CPU's local TLBIs.
    DsbNsh,
    Isb,
    SmpMb,
    SmpRmb,
    SmpWmb,
}

/// One raw TLB invalidate; complete only at this CPU's next `DsbIsh` (the forms without `is`: also at its `DsbNsh`).
/// Loops over ranges are kernel code. What each reaches is said by Arm ARM DDI 0487, "TLB maintenance instructions".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Tlbi {
    /// Every stage-1 EL1&0 entry, walk caches too, all CPUs.
    Vmalle1is,
    /// The same, this CPU only.
    Vmalle1,
    /// Last-level entries of one VA, all ASIDs, all CPUs.
    Vaale1is(Va),
    /// The same, this CPU only.
    Vaale1(Va),
    /// Last-level and walk-cache entries of one VA, all ASIDs, all CPUs.
    Vaae1is(Va),
    /// The same, this CPU only.
    Vaae1(Va),
    /// Last-level entries of one VA: global ones and those of one ASID, all CPUs.
    Vale1is(Va, Asid),
    /// The same, and walk-cache entries of that ASID.
    Vae1is(Va, Asid),
    /// Every entry of one ASID, walk caches too, all CPUs. Global entries stay.
    Aside1is(Asid),
    /// Last-level entries of so many pages from one VA on, all ASIDs, all CPUs (FEAT_TLBIRANGE). The instruction's
    /// SCALE and NUM reach only certain numbers of pages; any number is taken here.
    Rvaale1is(Va, u32),
    /// Last-level and walk-cache entries of so many pages, all ASIDs, all CPUs.
    Rvaae1is(Va, u32),
}

/// An address space identifier. Entries without nG are global and have none; intermediate entries count as non-global.
pub type Asid = u16;

impl Tlbi {
    /// Reaches this CPU's entries only.
    #[must_use]
    #[inline]
    pub const fn is_local(self) -> bool {
        matches!(self, Tlbi::Vmalle1 | Tlbi::Vaale1(_) | Tlbi::Vaae1(_))
    }
    /// Leaves cached table entries alone.
    #[must_use]
    #[inline]
    pub const fn is_last_level(self) -> bool {
        matches!(self, Tlbi::Vaale1is(_) | Tlbi::Vaale1(_) | Tlbi::Vale1is(..) | Tlbi::Rvaale1is(..))
    }
    /// First address and number of pages; `None`: every address.
    #[must_use]
    #[inline]
    pub const fn pages(self) -> Option<(Va, u32)> {
        match self {
            Tlbi::Vmalle1is | Tlbi::Vmalle1 | Tlbi::Aside1is(_) => None,
            Tlbi::Vaale1is(va)
            | Tlbi::Vaale1(va)
            | Tlbi::Vaae1is(va)
            | Tlbi::Vaae1(va)
            | Tlbi::Vale1is(va, _)
            | Tlbi::Vae1is(va, _) => Some((va, 1)),
            Tlbi::Rvaale1is(va, pages) | Tlbi::Rvaae1is(va, pages) => Some((va, pages)),
        }
    }
    /// Whether it reaches an entry of that ASID, `None` being a global one.
    #[must_use]
    #[inline]
    pub const fn matches(self, entry: Option<Asid>) -> bool {
        match (self, entry) {
            (Tlbi::Vale1is(_, asid) | Tlbi::Vae1is(_, asid) | Tlbi::Aside1is(asid), Some(entry)) => asid == entry,
            (Tlbi::Aside1is(_), None) => false,
            _ => true,
        }
    }
}

/// How a lock is taken. Spinlocks and mutexes only know `Write`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    Read,
    Write,
}

/// A read-modify-write of a variable or of a data word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rmw {
    FetchAdd(i64),
    FetchOr(u64),
    FetchAnd(u64),
    Swap(u64),
    /// Stores `new` if the word equals `old`. On data memory this needs write permission even when the compare fails.
    CompareExchange {
        old: u64,
        new: u64,
    },
    /// LDXR and STXR as one step: a store between them takes the monitor away. Needs write permission only to store.
    #[rustfmt::skip]
    StoreExclusive { old: u64, new: u64 },
}

impl Rmw {
    /// Whether a word that holds `word` is stored to.
    #[must_use]
    pub const fn needs_write(self, word: u64) -> bool {
        match self {
            Rmw::StoreExclusive { old, .. } => word == old,
            Rmw::FetchAdd(_) | Rmw::FetchOr(_) | Rmw::FetchAnd(_) | Rmw::Swap(_) | Rmw::CompareExchange { .. } => true,
        }
    }
    /// The word after the operation.
    #[must_use]
    #[inline]
    pub const fn apply(self, word: u64) -> u64 {
        match self {
            Rmw::FetchAdd(n) => word.wrapping_add(n as u64),
            Rmw::FetchOr(n) => word | n,
            Rmw::FetchAnd(n) => word & n,
            Rmw::Swap(n) => n,
            Rmw::CompareExchange { old, new } | Rmw::StoreExclusive { old, new } => {
                if word == old {
                    new
                } else {
                    word
                }
            }
        }
    }
}

/// Condition of `wait_until`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Until {
    Equals(u64),
    Differs(u64),
    /// All bits of the mask are clear.
    Clear(u64),
    AtLeast(u64),
}

impl Until {
    #[must_use]
    #[inline]
    pub const fn holds(self, word: u64) -> bool {
        match self {
            Until::Equals(n) => word == n,
            Until::Differs(n) => word != n,
            Until::Clear(mask) => word & mask == 0,
            Until::AtLeast(n) => word >= n,
        }
    }
}

/// Number of a kernel variable that CPUs share (pool counters, section flags, static keys). The kernel crate assigns
/// the numbers; a machine holds one 64-bit word for each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Var(pub u32);

/// A translation fault: no valid entry on the walk, at any level (`ESR_EL1.DFSC` 0b0001xx).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fault;

/// One data access through a virtual address, as a value: a fault handler lets it happen again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Data<T> {
    Load {
        va: Va,
        order: Order,
    },
    Store {
        va: Va,
        value: u64,
        order: Order,
    },
    Rmw {
        va: Va,
        op: Rmw,
        order: Order,
    },
    Fill {
        va: Va,
        template: Template,
    },
    /// `Cpu::copy_from_va`.
    Copy {
        from: Va,
        to: Frame<T>,
    },
    /// `AT S1E1R` and a look at `PAR_EL1`: whether a load would translate now.
    Probe {
        va: Va,
    },
}

impl<T> Data<T> {
    /// Address whose translation is in question.
    #[must_use]
    pub const fn va(&self) -> Va {
        match *self {
            Data::Load { va, .. }
            | Data::Store { va, .. }
            | Data::Rmw { va, .. }
            | Data::Fill { va, .. }
            | Data::Probe { va } => va,
            Data::Copy { from, .. } => from,
        }
    }
}
