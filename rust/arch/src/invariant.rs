//! The invariants (kernel-semantics §12): one table, of which everything else that lists them is made.

use core::fmt;
use core::ops::{Index, IndexMut};

/// Number, name, what must hold, its violation in a few words for a column, and how the kernel keeps it: of each row
/// come the variant, its place in `Invariant::ALL`, and its texts.
macro_rules! invariants {
    ($( $number:literal $name:ident: $sentence:literal, $short:literal, $kept:literal; )+) => {
        /// What must hold; `I1` to `I34`.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Invariant {
            $( #[doc = concat!("I", $number, ": ", $sentence, ".")] $name = $number, )+
        }

        impl Invariant {
            pub const COUNT: usize = [$($number),+].len();
            /// In the order of their numbers, which are 1 to `COUNT`.
            pub const ALL: [Invariant; Self::COUNT] = [$(Invariant::$name),+];

            /// What must hold, as a sentence without a full stop.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $( Invariant::$name => $sentence, )+ }
            }
            /// Its violation in two or three words, for a column.
            #[must_use]
            pub const fn short(self) -> &'static str {
                match self { $( Invariant::$name => $short, )+ }
            }
            /// How the kernel keeps it, or that it does not.
            #[must_use]
            pub const fn kept_by(self) -> &'static str {
                match self { $( Invariant::$name => $kept, )+ }
            }
        }
    };
}

invariants! {
    1 NoWalkOfFreedTable:
        "no software walker dereferences a freed table page",
        "table freed in use",
        "ptdump: the hotplug lock; HVO: its table holds live entries of a present section; show_pte: not at all";
    2 AlwaysTranslates:
        "the struct page address of every valid pfn always translates",
        "hole",
        "HVO exchanges in one store; removal clears HAS_MEM_MAP first; populate ends before it is set";
    3 NoUseOfFreedFrame:
        "a frame is never mapped after it returned to the allocator",
        "use of freed frame",
        "store, then a completed broadcast invalidate, then the free";
    4 NoStaleTranslation:
        "no stale TLB entry to a freed frame survives the flush that precedes the free",
        "stale translation",
        "the ranges that are flushed; a batch flushes all; freeing a table uses VAAE1IS";
    5 NoStaleWalkCache:
        "no walk-cache entry to a freed table survives",
        "stale walk cache",
        "clear, __flush_tlb_kernel_pgtable, then free";
    6 FreedTableIsEmpty:
        "a table is freed only if every entry is none at the moment of the clear",
        "table freed while not empty",
        "the hotplug lock excludes populate from removal; HVO never writes none";
    7 FloorAndCeiling:
        "only tables whose whole span lies inside [floor, ceiling) are freed",
        "table outside bounds",
        "pgtable_range_aligned";
    8 SharedTailsReadOnly:
        "shared tails are read-only while optimised",
        "store through read-only tail",
        "PAGE_KERNEL_RO and a flush; 6.12: RCU and the fake-head test; 7.x: every count behind it is zero (but R36)";
    9 OneWritableHead:
        "exactly one retained vmemmap page is writable, and unaliased as writable elsewhere",
        "writable alias",
        "the head's PTE is PAGE_KERNEL, all others are read-only; 7.x: nobody maps the zone's tail frame writable";
    10 TailsResolveToHead:
        "all tail descriptors of an optimised page resolve to the same head",
        "wrong head",
        "a counted static key, raised before and lowered after; 7.x: a mask of the tail's own address (but R37)";
    11 RestoredPrivate:
        "after restore every vmemmap PTE maps a distinct private writable frame with valid tail content",
        "bad restore",
        "slots 0 to 2 are reset (6.1), or what is copied is all tails (7.x); a list of frames";
    12 RollbackComplete:
        "rollback leaves the page fully unoptimised, no frame lost or doubled",
        "bad rollback",
        "it walks back over nr_walked only";
    13 FramesConserved:
        "frames are conserved: each frame has one owner",
        "frame leaked or doubled",
        "reference counts, split_page before parts of a block are freed, list discipline; 7.x: a zone owns its tails";
    14 RemoveMeetsNoOptimised:
        "hot remove never meets an optimised page",
        "optimised page removed",
        "offline_pages dissolves or fails; HugeTLB allocates nothing from an isolated block";
    15 BootVmemmapKept:
        "boot vmemmap frames are never freed by hot remove",
        "boot vmemmap freed",
        "a notifier's veto; a warning about PG_reserved";
    16 SelfHostedUntouched:
        "self-hosted descriptor storage is never deduplicated and never goes to the buddy allocator",
        "self-hosted storage touched",
        "the VmemmapSelfHosted test; altmap accounting must end at 0";
    17 HotplugExclusive:
        "add, remove, online and offline are mutually exclusive",
        "hotplug overlap",
        "device_hotplug_lock; mem_hotplug_lock for work on tables";
    18 StableDump:
        "ptdump sees a stable tree",
        "tree changed under ptdump",
        "mmap_lock for writing and the hotplug lock for reading";
    19 BreakBeforeMake:
        "no valid to valid change of output address, size, type or contiguity without break-before-make",
        "break-before-make",
        "HVO does not respect it on arm64 (Arm ARM, break-before-make)";
    20 SplitOnce:
        "a block is split at most once; the loser's table is not published",
        "block split twice",
        "the leaf is tested again under page_table_lock";
    21 InitialisedBeforeReachable:
        "a new table is fully initialised before it is reachable",
        "table published early",
        "filled in private, smp_wmb or dsb ishst, then published";
    22 ContentBeforePte:
        "new content of a frame is visible before the PTE that exposes it",
        "content published late",
        "smp_wmb before set_pte_at";
    23 SingleCopyAtomic:
        "a page-table store is one 64-bit access, and readers take one snapshot per entry",
        "torn access",
        "WRITE_ONCE and READ_ONCE";
    24 CountersBalance:
        "nr >= surplus, free >= resv, nr - surplus = max; before 7.x: key count = number of optimised pages",
        "counters",
        "hugetlb_lock; what cannot be restored goes back as surplus";
    25 LockOrder:
        "the lock order holds and holders of spinlocks never sleep; no deadlock",
        "deadlock or sleep in atomic",
        "restore and optimise outside hugetlb_lock; a table is allocated before page_table_lock";
    26 SubsectionMapExact:
        "a subsection_map bit is set exactly when its descriptors are mapped",
        "subsection map",
        "section_deactivate on failure; a vmemmap page that two subsections share is not guarded";
    27 FailureRestores:
        "a killed or failed operation leaves state equal to before",
        "failed operation left traces",
        "isolation is undone; an add of several sections is not";
    28 NoLostStore:
        "a store to a logical struct page survives a remap or restore",
        "lost store",
        "the flag is set before the copy; the hotplug lock";
    29 FlagWithState:
        "a flag that describes a state flips in the same critical section as the state",
        "flag without state",
        "tested under the lock, cleared after the restore";
    30 TreeWellFormed:
        "the tree is well formed: each table reached once, entries valid for their level, addresses inside RAM",
        "malformed tree",
        "by construction";
    31 NoWritableExecutable:
        "no address is writable and executable",
        "W+X",
        "ptdump_check_wx";
    32 NoEmptyTableLinked:
        "no empty table stays linked in vmemmap after a removal",
        "empty table linked",
        "free_empty_tables";
    33 MemoryCounted:
        "what is counted in is counted out: nr_memmap is the number of frames that hold struct pages",
        "memory counter",
        "each path that takes or gives back such a frame counts it; 7.x: but the zone's tail frame";
    34 SplitKeepsInvalid:
        "a block that is present and invalid stays invalid when it is split",
        "invalid made valid",
        "a split keeps what it splits, the type bits aside";
}

const _: () = {
    assert!(Invariant::COUNT <= InvariantSet::ROOM as usize);
    let mut i = 0;
    while i < Invariant::COUNT {
        assert!(Invariant::ALL[i].number() as usize == i + 1);
        i += 1;
    }
};

impl Invariant {
    /// 1 to `COUNT`.
    #[must_use]
    #[inline]
    pub const fn number(self) -> u8 {
        self as u8
    }
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I{}", self.number())
    }
}

/// Set of invariants, with room for the numbers 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct InvariantSet(u64);

impl InvariantSet {
    pub const NONE: Self = Self(0);
    /// The largest number that it has room for.
    pub const ROOM: u8 = 64;
    pub const ALL: Self = Self(u64::MAX >> (Self::ROOM as usize - Invariant::COUNT));

    const fn bit(number: u8) -> u64 {
        assert!(number >= 1 && number <= Self::ROOM);
        1 << (number - 1)
    }

    #[must_use]
    #[inline]
    pub const fn only(invariant: Invariant) -> Self {
        Self(Self::bit(invariant.number()))
    }
    #[must_use]
    pub const fn of(list: &[Invariant]) -> Self {
        let mut set = Self::NONE;
        let mut i = 0;
        while i < list.len() {
            set = set.or(Self::only(list[i]));
            i += 1;
        }
        set
    }
    pub const fn insert(&mut self, invariant: Invariant) {
        self.0 |= Self::bit(invariant.number());
    }
    #[must_use]
    #[inline]
    pub const fn contains(self, invariant: Invariant) -> bool {
        self.0 & Self::bit(invariant.number()) != 0
    }
    #[must_use]
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    #[must_use]
    #[inline]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    #[must_use]
    #[inline]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    #[must_use]
    #[inline]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    /// Bit `number - 1` of each.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }
    /// Those of which the bit is set; bits of no invariant are left out.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & Self::ALL.0)
    }
    /// In the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Invariant> {
        self.numbers().filter_map(Invariant::from_number)
    }
    fn numbers(self) -> impl Iterator<Item = u8> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            let number = left.trailing_zeros() as u8 + 1;
            (left != 0).then(|| {
                left &= left - 1;
                number
            })
        })
    }
}

impl FromIterator<Invariant> for InvariantSet {
    fn from_iter<I: IntoIterator<Item = Invariant>>(all: I) -> Self {
        all.into_iter().fold(Self::NONE, |set, invariant| set.or(Self::only(invariant)))
    }
}

/// Something for each invariant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByInvariant<T>([T; Invariant::COUNT]);

impl<T> ByInvariant<T> {
    pub fn from_fn(mut each: impl FnMut(Invariant) -> T) -> Self {
        Self(Invariant::ALL.map(&mut each))
    }
    pub fn iter(&self) -> impl Iterator<Item = (Invariant, &T)> {
        Invariant::ALL.into_iter().zip(&self.0)
    }
}

impl<T: Default> Default for ByInvariant<T> {
    fn default() -> Self {
        Self::from_fn(|_| T::default())
    }
}

impl<T> Index<Invariant> for ByInvariant<T> {
    type Output = T;
    #[inline]
    fn index(&self, invariant: Invariant) -> &T {
        &self.0[usize::from(invariant.number()) - 1]
    }
}

impl<T> IndexMut<Invariant> for ByInvariant<T> {
    #[inline]
    fn index_mut(&mut self, invariant: Invariant) -> &mut T {
        &mut self.0[usize::from(invariant.number()) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever number a further invariant has, up to 64: it is alone in its set, and found there.
    #[test]
    fn there_is_room_for_64() {
        for number in 1..=InvariantSet::ROOM {
            let one = InvariantSet(InvariantSet::bit(number));
            assert_eq!(one.bits().count_ones(), 1);
            assert!(one.numbers().eq([number]));
            for other in 1..=InvariantSet::ROOM {
                let two = InvariantSet(InvariantSet::bit(other));
                assert_eq!(one.and(two).is_empty(), number != other);
                assert_eq!(one.or(two).minus(two).is_empty(), number == other);
                let (low, high) = (number.min(other), number.max(other));
                assert!(one.or(two).numbers().eq((low..=low).chain((high..=high).filter(|_| low != high))));
            }
        }
        assert!(InvariantSet(u64::MAX).numbers().eq(1..=InvariantSet::ROOM));
    }

    #[test]
    fn sets_are_those_of_their_lists() {
        assert!(InvariantSet::ALL.iter().eq(Invariant::ALL));
        assert_eq!(Invariant::ALL.into_iter().collect::<InvariantSet>(), InvariantSet::of(&Invariant::ALL));
        for invariant in Invariant::ALL {
            assert_eq!(Invariant::from_number(invariant.number()), Some(invariant));
            let others = InvariantSet::ALL.minus(InvariantSet::only(invariant));
            assert!(InvariantSet::ALL.contains(invariant) && !others.contains(invariant));
            let mut set = others;
            set.insert(invariant);
            assert_eq!(set, InvariantSet::ALL);
        }
        let numbers = ByInvariant::from_fn(Invariant::number);
        assert!(
            numbers.iter().all(|(invariant, number)| numbers[invariant] == *number && invariant.number() == *number)
        );
    }
}
