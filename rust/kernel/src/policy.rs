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
    ($( $(#[$doc:meta])* $field:ident: $row:ident = $name:literal { $( $value:ident = $vname:literal :
        $sentence:literal ),+ $(,)? } )+) => {
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
                    $( $name => { self.$field = $row::parse(value).ok_or(PolicyError::UnknownValue { row:
                        $name })?; Ok(()) } )+
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
        ByKernel = "kernel": "as that kernel does: blocks where the granule has them; 2021 with HVO: base pages \
            unless altmap",
        BasePages = "basepages": "base pages always",
        Blocks = "blocks": "PMD blocks for whole sections (4K), which HVO must split at run time",
        BlocksForParts = "blocks-for-parts": "PMD blocks for parts of a section too (4K), as arm64 before \
            d4234d131b0a (R20)",
    }
    /// PTE update in remap and restore.
    update: PteUpdate = "update" {
        Store = "store": "one 64-bit store over the live entry, as the kernel does",
        Swap = "swap": "one atomic exchange that returns the old word",
        ClearThenSet = "clear-then-set": "all entries of the hugepage cleared, then all set",
        ClearThenSetEach = "clear-then-set-each": "entry by entry: clear one, set it, next",
        Bbm = "bbm": "break-before-make, the whole hugepage at once: clear all, flush, set all",
        BbmEach = "bbm-each": "break-before-make entry by entry: clear, flush, set",
        BbmFaultWaits = "bbm-fault-waits": "bbm-each with init_mm.page_table_lock held from clear to set, for a fault \
            handler that waits for it (approach A)",
        BbmFaultWaitsIrqsOff = "bbm-fault-waits-irqs-off":
            "the same with interrupts off while the lock is held (spin_lock_irq)",
        BbmStopMachine = "bbm-stop-machine": "bbm inside stop_machine (approach B)",
        BbmIpiPause = "bbm-ipi-pause": "bbm while all other CPUs are paused by IPI, interrupts off on this one \
            (approach D)",
        ReadOnlyFirst = "read-only-first": "tails get the shared frame's contents and become read-only where they \
            are, flush, then the shared frame, flush; a restore in reverse (approach C)",
    }
    /// What becomes of the head's vmemmap page.
    head: Head = "head" {
        ByKernel = "kernel": "as that kernel does: 2021 and 6.1 keep its frame, 6.12 and 7.x give it a fresh copy",
        Keep = "keep": "it keeps its frame, and its entry is never changed, as in 2021 and 6.1",
    }
    /// Growing, shrinking and demoting a pool.
    batch: Batch = "batch" {
        ByKernel = "kernel": "as that kernel does: since 6.7 by lists, with two flushes each",
        None = "none": "page by page, each with its own flush, as before 6.7",
    }
    /// Split of a PMD block.
    split: PmdSplit = "split" {
        Store = "store": "one store over the live block, as the kernel does",
        Bbm = "bbm": "break-before-make: clear the block, flush, set the table",
        BbmStopMachine = "bbm-stop-machine": "bbm inside stop_machine, which takes the place of page_table_lock",
        BbmIpiPause = "bbm-ipi-pause": "bbm while all other CPUs are paused by IPI, interrupts off on this one",
    }
    /// What a translation fault of kernel code comes to.
    fault: FaultHandler = "fault" {
        Oops = "oops": "fatal at once (I2); the kernel's own re-check comes later than the fault and saves only who \
            is lucky",
        Recheck = "recheck": "as the kernel does: AT S1E1R, ignored if the address translates by then, else fatal \
            (is_spurious_el1_translation_fault)",
        Wait = "wait": "takes init_mm.page_table_lock and looks again: ignored if the address is mapped then, else as \
            recheck (approach A)",
    }
    /// How bbm-ipi-pause pauses the other CPUs.
    ipi: PauseIpi = "ipi" {
        PseudoNmi = "pseudo-nmi": "an IPI that also comes while interrupts are masked, as proposed; handlers say \
            paused, then wait",
        Irq = "irq": "a plain IPI: a CPU with interrupts masked does not answer (R5e)",
        WaitFirst = "wait-first": "a pseudo-NMI whose handler waits for the resume before it says that it is paused \
            (R5a)",
    }
    /// Order of draining and dissolving in hard offline.
    hwpoison: HardOffline = "hwpoison" {
        DissolveFirst = "dissolve-first": "page_handle_poison dissolves the hugepage, then disables the per-CPU \
            lists: since 1983184c22dd",
        DrainFirst = "drain-first": "dissolves with pcp_batch_high_lock held, as before 1983184c22dd (R17)",
    }
    /// Where a split reads the block that it splits.
    split_read: SplitRead = "split-read" {
        Locked = "locked": "under page_table_lock, together with the test that it is a block, as 6.1.192 and 6.12",
        Unlocked = "unlocked": "again after page_table_lock was dropped, as before 3ce2c24cb68f (R12)",
    }
    /// TLB invalidate after a remap.
    invalidate: Invalidate = "invalidate" {
        Range = "range": "one flush_tlb_kernel_range over the hugepage, as the kernel does",
        RangeOp = "range-op": "one range invalidate (RVAALE1IS of FEAT_TLBIRANGE) over the hugepage; 6.1 and 6.12 go \
            page by page",
        Page = "page": "a flush after each entry",
        Missing = "missing": "no invalidate at all",
    }
    /// Order of invalidate and free.
    free_order: FreeOrder = "free-order" {
        InvalidateThenFree = "invalidate-then-free":
            "frames go back after the completed invalidate, as the kernel does",
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
        OtherMm = "other-mm": "get_online_mems and the mmap lock of another mm, such as efi_mm: before 538797bc0e9a \
            (R9)",
        Rcu = "rcu": "an RCU read section only",
        None = "none": "no lock",
    }
    /// What keeps a dump away from the PTE table that a huge vmalloc mapping replaces.
    vmap: VmapLock = "vmap" {
        TryLock = "trylock": "mmap_read_trylock(&init_mm) around clear, free and set, else pages, as the kernel does",
        None = "none": "no lock (R7)",
        ClearLocked = "clear-locked": "mmap_read_lock around the clear alone, as proposed for arm64 (v2, June 2025)",
        StaticKey = "static-key": "clear, flush, then mmap_read_lock and unlock if the key of a dump is up, free: \
            fa93b45fd397",
        StaticKeyFirst = "static-key-first": "the key is looked at before the clear, which alone is locked then",
        Both = "both": "trylock and static-key, one inside the other (R8)",
    }
    /// When a page that leaves its pool ceases to be known as HugeTLB.
    dtor_clear: DtorClear = "dtor-clear" {
        Kernel = "kernel": "after the restore, the mark itself tested; then raw errors go to their pages, as the \
            kernel does",
        BeforeRestore = "before-restore": "on removal from the pool, vmemmap or not: before 32c877191e02 (R14)",
        Sampled = "sampled": "after the restore, if the page was optimised when it was handed over: 32c877191e02 (R15)",
        HwpoisonFirst = "hwpoison-first": "raw errors go to their pages before the mark is off: before 5596d9e8b553 \
            (R16)",
    }
    /// Lock of memory hot add and remove.
    hotplug: HotplugLock = "hotplug" {
        Kernel = "kernel": "device_hotplug_lock and mem_hotplug_lock for write, as the kernel does",
        None = "none": "no lock",
    }
    /// Speculative references (`page_ref_add_unless`).
    page_ref: PageRef = "page-ref" {
        ByKernel = "kernel": "as that kernel does: 2021, 6.1 and 7.x plain, 6.12 fake-head-first",
        Plain = "plain": "atomic_add_unless at once, as before bd225530a4c7 (R1)",
        Rcu = "rcu": "in an RCU read section, but without the fake-head test",
        FakeHeadFirst = "fake-head-first": "in an RCU read section: the fake-head test, then the count, as \
            bd225530a4c7 has it (R2)",
        CountFirst = "count-first": "in an RCU read section: the count by a load-acquire, then the fake-head test \
            (page_count_writable)",
        CountFirstPlain = "count-first-plain": "count-first without the acquire: in weak memory (views) the loads \
            of the test may take effect before that of the count",
        CountFirstRelaxed = "count-first-relaxed": "the same with that reordering made by hand, in any memory: either \
            of the two tests may be performed first",
    }
    /// `CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP`.
    hvo_config: HvoConfig = "hvo-config" {
        Yes = "yes": "HVO is configured, switched on or not; from 7.2 on every tail then names its head by a mask",
        No = "no": "HVO is not in the kernel, as in every arm64 kernel as shipped: tails name their heads by a pointer",
    }
    /// FEAT_TLBIRANGE of the CPUs, which `flush_tlb_kernel_range` uses from 7.2 on.
    tlb_range: TlbRange = "tlb-range" {
        Absent = "no": "no range invalidates: one page after the other, or everything",
        Present = "yes": "range invalidates, of at most 2^21 pages; 2021, 6.1 and 6.12 do not use them",
    }
    /// Instructions of an atomic add-unless.
    atomics: Atomics = "atomics" {
        Lse = "lse": "a load, then CAS (FEAT_LSE), which faults on read-only memory although the compare would fail",
        LlSc = "ll-sc": "a load, then LDXR and STXR: finds a changed count and stores nothing, so nothing faults",
    }
    /// Grace period between freezing a hugepage and changing its vmemmap.
    remap_grace: RemapGrace = "remap-grace" {
        ByKernel = "kernel": "as that kernel does: 6.12 waits by synchronize_rcu, 2021, 6.1 and 7.x do not",
        Missing = "none": "no grace period",
        Ipi = "ipi": "an interrupt to every other CPU, and the wait until each has taken it",
        SynchronizeRcu = "synchronize-rcu": "synchronize_rcu before the remap and before the restore, as bd225530a4c7 \
            has it",
        EachPage = "each-page": "synchronize_rcu before each page of a batch too: before c2a967f6ab0e (R31)",
    }
    /// Lifetime of `mem_section->usage` when a section goes.
    section_usage: SectionUsage = "section-usage" {
        Kernel = "kernel": "section invalid first, kfree_rcu, the reader in an RCU section and ready for NULL, as \
            6.1.192 and 6.12",
        NoNullTest = "no-null-test": "the same, but the reader takes the pointer as it is: 5ec8e8ea8b77 before \
            82f0b6f041fa",
        NoGrace = "no-grace": "section invalid first, but usage is freed at once",
        FreeFirst = "free-first": "usage freed and NULL, then the section made invalid; no RCU section: before \
            5ec8e8ea8b77 (R18)",
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
    /// The user's page table entry of a hugepage, which a fault sets and unmapping clears, and its flush.
    user_flush: UserFlush = "user-flush" {
        NotModelled = "none": "user page tables are not looked at",
        Broadcast = "broadcast": "cleared, and invalidated by broadcast: nobody is waited for, as on arm64",
        Ipi = "ipi": "cleared, and invalidated by an interrupt that every CPU must take before the page goes, as on \
            x86 without INVLPGB",
    }
    /// Which pages a shrink of a pool keeps (`set_max_huge_pages`), of a minimum compared with the persistent ones.
    shrink_minimum: ShrinkRule = "shrink-minimum" {
        ByKernel = "kernel": "as that kernel does: 2021, 6.1 and 6.12 all-in-use, 7.x persistent-in-use",
        AllInUse = "all-in-use": "reserved + all - free: surplus pages in use count too (R45)",
        PersistentInUse = "persistent-in-use": "reserved + persistent - free, of which surplus pages are taken off if \
            more are free than persistent",
        OneWord = "one-word": "reserved + persistent - free, as repairing one word would have it; wraps below 0",
    }
    /// How a surplus page gets into `nr_huge_pages` and `surplus_huge_pages`.
    surplus_count: SurplusCount = "surplus-count" {
        ByKernel = "kernel": "as that kernel does: 2021, 6.1 and 6.12 nr-first, 7.x at-once",
        NrFirst = "nr-first": "nr_huge_pages in one cycle of hugetlb_lock, surplus_huge_pages in a second (R43)",
        SurplusFirst = "surplus-first": "the other way round",
        AtOnce = "at-once": "both in one cycle",
    }
    /// Where the last user of a subpool finds out that it is the last (`unlock_or_release_subpool`).
    subpool_release: SubpoolRelease = "subpool-release" {
        ByKernel = "kernel": "as that kernel does: locked from 7.3 on, before that unlocked",
        Locked = "locked": "under the subpool's lock, in the cycle in which it lowered its count",
        Unlocked = "unlocked": "after it dropped that lock (R42)",
        Relocked = "relocked": "under the lock again, after it dropped it",
    }
    /// Reference of `get_huge_page_for_hwpoison` to a page that turns out to be poisoned already.
    hwpoison_put: HwpoisonPut = "hwpoison-put" {
        AfterUnlock = "after-unlock": "dropped after hugetlb_lock, as 6.1.192, 6.12.117 and 7.x do",
        UnderLock = "under-lock": "dropped under hugetlb_lock, as before 3c2d42b8ee34 (R41)",
    }
    /// When a contiguous allocation asks whether its range is free (`test_pages_isolated`).
    isolated_test: IsolatedTest = "isolated-test" {
        ByKernel = "kernel": "as that kernel does: after-flush from 6.12.20 on, before that at-once",
        AfterFlush = "after-flush": "after the HugeTLB frees that were deferred (wait_for_freed_hugetlb_folios)",
        AtOnce = "at-once": "at once: a page whose free is deferred is none that is free (R46)",
        FlushFirst = "flush-first": "at once, and deferred frees are waited for before the migration only",
    }
    /// Creation of memory block devices in hot add.
    block_devices: BlockDevices = "block-devices" {
        Created = "created": "succeeds",
        FailWithAltmap = "fail": "-ENOMEM, and the range is removed again with its altmap, as 6.1.192, 6.12.117 and \
            7.x do",
        FailWithoutAltmap = "fail-no-altmap": "-ENOMEM, and the range is removed again without it, as before 6.12.100 \
            (R47)",
    }
    /// A read-only PTE of vmemmap that hot remove meets, which no kernel expects.
    removed_tail: RemovedTail = "removed-tail" {
        Freed = "freed": "its frame is freed, as the kernel does",
        Kept = "kept": "its frame is nobody's but HVO's, and stays",
    }
    /// How the tail frame that a zone shares becomes known (7.x).
    tail_publish: TailPublish = "tail-publish" {
        CmpXchg = "cmpxchg": "a compare-and-exchange against none; who loses it frees its frame, as the kernel does",
        Store = "store": "a plain store: the last one stays (R26)",
        CheckedStore = "checked-store": "a second look before the plain store",
        Locked = "locked": "second look and store under init_mm.page_table_lock",
    }
    /// How `show_pte` descends.
    show_pte: ShowPte = "show-pte" {
        Snapshot = "snapshot": "by the value that it prints, as the kernel does",
        Reread = "re-read": "by the entry read again: before CVE-2026-93239 (R54)",
    }
    /// Which tables `NR_PAGETABLE` counts, in and out.
    table_count: TableCount = "table-count" {
        ByKernel = "kernel": "7.x: in, those of splits and of the linear map; out, every one that hot remove frees",
        Balanced = "balanced": "populate's tables counted in as well",
        NoDestructor = "no-destructor": "in as 7.x, none out: before c594b83457cc (R49)",
    }
    /// What `flush_tlb_kernel_range` does on CPUs whose DSB completes a broadcast TLBI too early.
    tlbi_erratum: TlbiErratum = "tlbi-erratum" {
        None = "none": "no such CPU",
        EarlyCompletion = "early": "one TLBI and DSB, as on other CPUs: another CPU may use the entry still (R61)",
        Repeat = "repeat": "TLBI and DSB twice (ARM64_WORKAROUND_REPEAT_TLBI)",
    }
    /// Lifetime of a section's `page_ext` when its memory goes offline.
    page_ext: PageExt = "page-ext" {
        Kernel = "kernel": "readers in an RCU section; invalid first, a grace period, then freed: b1d5488a252d",
        NoRcu = "no-rcu": "freed at once under readers that hold nothing: before b1d5488a252d (R19)",
        NoInvalidate = "no-invalidate": "readers in an RCU section, a grace period, but never marked invalid",
        NoGrace = "no-grace": "readers in an RCU section; marked invalid, then freed at once",
    }
    /// Where `kasan_depopulate_vmalloc_pte` reads the entry that it clears.
    kasan: Kasan = "kasan" {
        Locked = "locked": "under init_mm.page_table_lock, as 7.x",
        Snapshot = "snapshot": "before it takes the lock, under which it only tests for none: 6.1 and 6.12 (R24)",
    }
    /// When a contiguous allocation reads the size class of a hugepage in its way.
    hstate_read: HstateRead = "hstate-read" {
        AtUse = "at-use": "again under hugetlb_lock where it uses it, as 7.x",
        Before = "before": "once, before the replacement is allocated (R56)",
    }
    /// How /proc/kpageflags reads a compound page.
    snapshot: Snapshot = "snapshot" {
        Validated = "validated": "copies struct page and head, looks again whether they belong together, at most five \
            times (snapshot_page), as 7.x",
        Plain = "plain": "word by word, whatever they are by then: 6.1 and 6.12 (R30)",
        Twice = "twice": "the head looked up twice and compared, but not after the copy",
    }
    /// What `scan_movable_pages` makes of a size that it reads without a reference.
    scan_size: ScanSize = "scan-size" {
        Checked = "checked": "skips by it only if the page lies inside it, as 7.x",
        Unchecked = "unchecked": "skips by it: 6.1 and 6.12 (R55)",
    }
    /// Who else has a top-level table of kernel addresses.
    pgd_copies: PgdCopies = "pgd-copies" {
        None = "none": "nobody: one TTBR1 for all, as on arm64",
        SyncedAfter = "synced-after": "every mm has a copy, which learns of a new entry after populate is done: x86 \
            before 6659d0279980 (R23)",
        SyncedAtOnce = "synced-at-once": "every mm has a copy, which learns of a new entry when it is made \
            (pXd_populate with its sync mask)",
    }
    /// What keeps a dump away from a table that a collapse to a block frees (x86's `cpa_collapse_large_pages`).
    collapse: Collapse = "collapse" {
        MmapRead = "mmap-read": "mmap_read_lock(&init_mm) around set, flush and free: 4f03b430c1e4",
        None = "none": "no lock of init_mm (R10)",
        SetLocked = "set-locked": "the same lock around the set alone",
    }
    /// What the split of a leaf of the linear map makes of one that is present and invalid.
    split_invalid: SplitInvalid = "split-invalid" {
        Keeps = "keeps": "entries that are invalid too, as since 15bfba1ad77f",
        MakesValid = "makes-valid": "valid entries: before it (R52)",
        TakesForTable = "takes-for-table": "nothing: it takes the invalid leaf for a table and descends",
    }
    /// What the split of a block makes of its contiguous bit.
    split_cont: SplitCont = "split-cont" {
        Masked = "masked": "leaves it out, as the kernel does",
        Inherited = "inherited": "copies it from the entry read before the run was rewritten (R53)",
        ReadAgain = "read-again": "copies it from the entry read after that",
    }
    /// Whether a leaf of the linear map may be split where only a part of it is to change.
    linear_split: LinearSplit = "linear-split" {
        Allowed = "allowed": "yes: every CPU has BBML2_NOABORT (7.2) or BBML3 (7.3)",
        Refused = "refused": "no: some CPU has not, or capabilities are not final yet (R28)",
    }
    /// A seeded fault, one for each invariant that nothing above can break.
    mutant: Mutant = "mutant" {
        None = "none": "no seeded fault",
        WritableTails = "writable-tails": "tails are mapped PAGE_KERNEL (I8)",
        ReadOnlyHead = "read-only-head": "the head is mapped read-only (I9)",
        ForeignTail = "foreign-tail": "7.x takes the shared tail frame of the next larger order (I10)",
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
        UnorderedTable = "unordered-table": "the split fills its table without the barriers of set_pte, publishes it \
            without smp_wmb (I21, in weak memory)",
        UnorderedContent = "unordered-content": "restore and the copy of the head map their frames without smp_wmb \
            (I22, in weak memory)",
        MissingIsb = "missing-isb": "vmalloc maps its pages without the isb of set_pte (I2, without FEAT_ETS2)",
        SurplusLost = "surplus-lost": "a failed restore puts the page back without counting it as surplus (I24)",
        SurplusKept = "surplus-kept": "dissolve (2021, 6.1) and demote leave a free surplus page counted as surplus, \
            as the kernel has it (I24)",
        MaxKept = "max-kept": "dissolve leaves max_huge_pages as it is, whatever went (I24)",
        SleepUnderLock = "sleep-under-lock": "the split allocates its table under page_table_lock (I25)",
        SubsectionMapEarly = "subsection-map-early": "a failed populate leaves its bits in subsection_map (I26)",
        NoUndo = "no-undo": "a failed offline leaves its isolation behind (I27)",
        FlagAfterCopy = "flag-after-copy": "6.12 sets the optimised flag after the head page was copied (I28, R11)",
        TableTwice = "table-twice": "the split links its table in two PMD entries (I30)",
        Executable = "executable": "restored tails are mapped PAGE_KERNEL_EXEC (I31)",
        RestoreUncounted = "restore-uncounted": "restore does not count its frames in nr_memmap_pages (I33)",
    }
}
