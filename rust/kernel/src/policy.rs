//! Every point on which the reviewers of such a patch argue, as a value chosen when a machine is built.
//!
//! A broken choice is as much a part of the product as a sound one. Each row is one enum; `ALL`, names and the
//! sentence beside each choice come from the same table that `--set`, `--help`, `list` and the docs read.

/// A row of the policy table: an enum whose choices have names and sentences.
pub trait Row: Copy + Eq + 'static {
    const NAME: &'static str;
    const ALL: &'static [Self];
    fn name(self) -> &'static str;
    fn sentence(self) -> &'static str;
    fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|v| v.name() == name)
    }
}

macro_rules! rows {
    ($( $(#[$doc:meta])* $field:ident: $row:ident = $name:literal { $( $value:ident = $vname:literal : $sentence:literal ),+ $(,)? } )+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
            pub enum $row { $( #[doc = $sentence] $value ),+ }
            impl Row for $row {
                const NAME: &'static str = $name;
                const ALL: &'static [Self] = &[ $( $row::$value ),+ ];
                fn name(self) -> &'static str { match self { $( $row::$value => $vname ),+ } }
                fn sentence(self) -> &'static str { match self { $( $row::$value => $sentence ),+ } }
            }
        )+

        /// One choice for each row. `Default` is what the kernel does.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub struct Policies { $( $(#[$doc])* pub $field: $row ),+ }

        impl Default for Policies {
            /// The first choice of each row is the kernel's own.
            fn default() -> Self { Self { $( $field: $row::ALL[0] ),+ } }
        }

        impl Policies {
            /// Names of the rows, in the order of the table.
            pub const ROWS: &'static [&'static str] = &[ $( $name ),+ ];

            /// Set a row by name.
            ///
            /// # Errors
            /// `UnknownPolicy` if there is no such row, `UnknownValue` if the row has no such choice.
            pub fn set(&mut self, row: &str, value: &str) -> Result<(), PolicyError> {
                match row {
                    $( $name => { self.$field = $row::parse(value).ok_or(PolicyError::UnknownValue { row: $name })?; Ok(()) } )+
                    _ => Err(PolicyError::UnknownPolicy),
                }
            }
            /// The choice of a row, by name.
            #[must_use]
            pub fn get(&self, row: &str) -> Option<&'static str> {
                match row { $( $name => Some(self.$field.name()), )+ _ => None }
            }
            /// Calls `each(name, sentence)` for every choice of a row.
            pub fn for_each_value(row: &str, mut each: impl FnMut(&'static str, &'static str)) {
                match row { $( $name => for v in $row::ALL { each(v.name(), v.sentence()) } )+ _ => {} }
            }
        }
    };
}

/// Why a policy was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolicyError {
    UnknownPolicy,
    UnknownValue { row: &'static str },
}

rows! {
    /// How vmemmap is mapped at populate.
    mapping: Mapping = "mapping" {
        ByKernel = "kernel": "as that kernel does: blocks where the granule has them; 2021 with HVO: base pages unless altmap",
        BasePages = "basepages": "base pages always",
        Blocks = "blocks": "PMD blocks for whole sections (4K), which HVO must split at run time",
    }
    /// PTE update in remap and restore.
    update: PteUpdate = "update" {
        Store = "store": "one 64-bit store over the live entry, as the kernel does",
        Swap = "swap": "one atomic exchange that returns the old word",
        ClearThenSet = "clear-then-set": "all entries of the hugepage cleared, then all set",
        ClearThenSetEach = "clear-then-set-each": "entry by entry: clear one, set it, next",
        Bbm = "bbm": "break-before-make, the whole hugepage at once: clear all, flush, set all",
        BbmEach = "bbm-each": "break-before-make entry by entry: clear, flush, set",
    }
    /// Split of a PMD block.
    split: PmdSplit = "split" {
        Store = "store": "one store over the live block, as the kernel does",
        Bbm = "bbm": "break-before-make: clear the block, flush, set the table",
    }
    /// TLB invalidate after a remap.
    invalidate: Invalidate = "invalidate" {
        Range = "range": "one flush_tlb_kernel_range over the hugepage, as the kernel does",
        RangeOp = "range-op": "one range invalidate (RVAALE1IS of FEAT_TLBIRANGE) over the hugepage; 6.1 and 6.12 go page by page",
        Page = "page": "a flush after each entry",
        Missing = "missing": "no invalidate at all",
    }
    /// Order of invalidate and free.
    free_order: FreeOrder = "free-order" {
        InvalidateThenFree = "invalidate-then-free": "frames go back after the completed invalidate, as the kernel does",
        FreeThenInvalidate = "free-then-invalidate": "frames go back first",
    }
    /// Freeing of empty tables by hot remove.
    table_free: TableFree = "table-free" {
        AtOnce = "at-once": "scan, clear, walk-cache invalidate, free, as the kernel does",
        Never = "never": "empty tables stay linked",
        AfterGracePeriod = "grace-period": "freed after synchronize_rcu",
        AfterIommu = "iommu-deferred": "freed after the IOMMU's own invalidate too, as 5ba2f0a15564 defers it (R22)",
        LastLevelTlbi = "last-level-tlbi": "invalidates with VAALE1IS instead of VAAE1IS (R34)",
        NoScan = "no-scan": "frees without looking whether the table is empty",
        WrongBounds = "wrong-bounds": "floor 0 and no ceiling: tables shared with vmalloc are candidates",
    }
    /// Protection of ptdump's walk.
    walker: WalkerLock = "walker" {
        Kernel = "kernel": "get_online_mems and init_mm mmap_write_lock, as the kernel does",
        MmapOnly = "mmap-only": "without get_online_mems: ptdump_check_wx before 59305202c67f (R6)",
        HotplugOnly = "hotplug-only": "get_online_mems without the mmap lock",
        Rcu = "rcu": "an RCU read section only",
        None = "none": "no lock",
    }
    /// Lock of memory hot add and remove.
    hotplug: HotplugLock = "hotplug" {
        Kernel = "kernel": "device_hotplug_lock and mem_hotplug_lock for write, as the kernel does",
        None = "none": "no lock",
    }
    /// Linear map of hot-added memory.
    linear_map: LinearMap = "linear-map" {
        Pages = "pages": "base pages (rodata=full, the Debian default)",
        Blocks = "blocks": "blocks where aligned (rodata=on)",
        Cont = "cont": "as blocks, but the first block's worth in contiguous base pages, as where a block does not fit",
    }
    /// Flush of the linear map when memory is removed (`unmap_hotplug_range` with `free_mapped` false).
    linear_flush: LinearFlush = "linear-flush" {
        Range = "range": "all entries cleared, then one flush of the range: 48478b9f7913, in 6.1.192 and 6.12.117",
        Entry = "entry": "one page flushed after each entry cleared, as before that commit (R21)",
    }
    /// A seeded fault, one for each invariant that nothing above can break.
    mutant: Mutant = "mutant" {
        None = "none": "no seeded fault",
        WritableTails = "writable-tails": "tails are mapped PAGE_KERNEL (I8)",
        ReadOnlyHead = "read-only-head": "the head is mapped read-only (I9)",
        KeyTooLate = "key-too-late": "the static key is raised after the first alias appears (I10)",
        RestoreShared = "restore-shared": "restore gives two tails the same frame (I11)",
        RollbackShort = "rollback-short": "rollback forgets the last entry walked (I12)",
        LeakOnRestore = "leak-on-restore": "restore allocates one frame too many and drops it (I13)",
        OfflineKeepsHuge = "offline-keeps-huge": "offline does not dissolve HugeTLB pages (I14)",
        BootRemovable = "boot-removable": "no notifier veto for boot memory (I15)",
        IgnoreSelfHosted = "ignore-self-hosted": "HVO does not test VmemmapSelfHosted (I16)",
        NoDeviceLock = "no-device-lock": "add and remove without device_hotplug_lock and mem_hotplug_lock (I17)",
        SplitNoRetest = "split-no-retest": "the split publishes its table without testing again (I20)",
        PublishEarly = "publish-early": "the split publishes the table before filling it (I21)",
        SurplusLost = "surplus-lost": "a failed restore puts the page back without counting it as surplus (I24)",
        SurplusKept = "surplus-kept": "dissolve (2021, 6.1) and demote leave a free surplus page counted as surplus, as the kernel has it (I24)",
        SleepUnderLock = "sleep-under-lock": "the split allocates its table under page_table_lock (I25)",
        SubsectionMapEarly = "subsection-map-early": "a failed populate leaves its bits in subsection_map (I26)",
        NoUndo = "no-undo": "a failed offline leaves its isolation behind (I27)",
        FlagAfterCopy = "flag-after-copy": "6.12 sets the optimised flag after the head page was copied (I28, R11)",
        FlagEarly = "flag-early": "the HugeTLB mark is cleared before vmemmap is restored (I29, R14)",
        TableTwice = "table-twice": "the split links its table in two PMD entries (I30)",
        Executable = "executable": "restored tails are mapped PAGE_KERNEL_EXEC (I31)",
    }
}
