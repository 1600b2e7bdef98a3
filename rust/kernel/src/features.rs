//! What one kernel does otherwise than another: the only place that knows versions.
//!
//! A row answers every question for one kernel, newest kernel first, with the source of each answer; there is no row to
//! inherit from, so that a new kernel cannot act as an old one by silence. Kernel code asks `k.features.x` and matches
//! without a wildcard: a new answer does not compile where nobody has said what it means.
//!
//! Sources are functions of the trees named in kernel-semantics §0 (6.1.192, 6.12.117); 2021 is from the thread and
//! v5.14 (§H12); 7.2 and 7.3 were read in 7.2.13 and 7.3.4, neither of which lets arm64 select HVO: what the rows say
//! of HVO is the generic code over arm64's primitives.

use vmemmap_arch::Version;
use vmemmap_arch::descriptor::{PresentBit, prot};

/// Which frame the tails share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TailSource {
    /// That of the last vmemmap page that the hugepage retains; where the head is copied, the copy.
    RetainedPage,
    /// One for each zone and order, made on first need and never freed (`zone->vmemmap_tails`).
    ZoneTail,
}

/// How a tail names its head (`set_compound_head`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TailEncoding {
    /// `page->compound_head`: the head's address, plus 1.
    Pointer,
    /// `page->compound_info`: where HVO is configured a mask of the tail's own address, plus 1, switched on or not
    /// (`compound_info_has_mask`); else the pointer.
    MaskIfConfigured,
}

/// Where the mark of a HugeTLB page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HugetlbMark {
    /// `HUGETLB_PAGE_DTOR` in the first tail (`PageHuge`).
    Destructor,
    /// `PGTY_hugetlb` in the head's page type (`folio_test_hugetlb`), which a copy of the head has too.
    PageType,
}

/// Who walks the tables for a remap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemapWalker {
    /// `vmemmap_p4d_range` … `vmemmap_pte_range`: descends without looking at what an entry is.
    Own,
    /// `walk_kernel_page_table_range` with `vmemmap_pmd_entry`, `vmemmap_pte_entry`: skips holes.
    Pagewalk,
}

/// Where storage that lies in the memory it describes is told from other storage (`PageVmemmapSelfHosted`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SelfHostedTest {
    /// Before the walk, under no lock (`vmemmap_should_optimize`).
    BeforeWalk,
    /// At the walk's first PMD entry, under `page_table_lock` (`vmemmap_pmd_entry`).
    InWalk,
}

/// Where the content of a restored tail comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestoreSource {
    /// The reuse page, read through its address; the walk begins with it, and every PTE must map it.
    ReusePage,
    /// The frame that the PTE maps now, read through the linear map; the walk begins with the first tail.
    MappedFrame,
}

/// Which of the PTEs walked a rollback leaves as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rollback {
    /// None: the first one defines the reuse page, and is not walked as a tail.
    Everything,
    /// The first one: the head stays on its copy.
    KeepsHead,
    /// Those that do not map the shared tail frame. Where that is the head's copy, the head's PTE is not among them.
    KeepsOtherFrames,
}

/// The order in which frames are taken from the list of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameOrder {
    /// `list_add_tail`, `list_first_entry`: a rollback gives every PTE its own frame back.
    Fifo,
    /// `list_add`, `list_first_entry`.
    Lifo,
}

/// Full flushes of a batch without a page in it (`__hugetlb_vmemmap_optimize_folios`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EmptyBatch {
    /// Those of any other: after the splits, and before the frames are freed.
    TwoFlushes,
    /// The one before the frames are freed.
    OneFlush,
    /// None: an empty list returns.
    NoFlush,
}

/// Which pages a shrink keeps beside the reserved ones (`set_max_huge_pages`), of a minimum that is compared with the
/// persistent ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShrinkMinimum {
    /// All that are not free, surplus ones in use among them: too many (R45).
    AllInUse,
    /// The persistent ones in use.
    PersistentInUse,
}

/// Where memory may hold its own vmemmap (`mhp_supports_memmap_on_memory`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemmapOnMemory {
    /// In one memory block added alone, and not together with HVO; else the request fails.
    OneBlockWithoutHvo,
    /// In one memory block added alone; else the request fails.
    OneBlock,
    /// In each block of a range, one altmap each (`create_altmaps_and_memory_blocks`); where it cannot, the storage is
    /// ordinary, silently.
    EachBlock,
}

/// The answers of one kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// Vmemmap pages of a hugepage that stay (`RESERVE_VMEMMAP_NR`, `HUGETLB_VMEMMAP_RESERVE_SIZE`).
    pub reserved_vmemmap_pages: u64,
    /// Slot 0 of a tail page reads as a head, hence the counted key and the test in `compound_head`
    /// (`page_fixed_fake_head`).
    pub fake_heads: bool,
    /// The head's vmemmap page moves to a fresh frame too, and the optimised flag is set before it is copied.
    pub head_is_copied: bool,
    pub tail_source: TailSource,
    pub tail_encoding: TailEncoding,
    pub remap_walker: RemapWalker,
    pub self_hosted_test: SelfHostedTest,
    /// `synchronize_rcu` between freezing a page and changing its vmemmap (policy `remap-grace`).
    pub waits_for_grace_period: bool,
    /// `page_ref_add_unless` tests in an RCU section for a fake head, then the count (policy `page-ref`).
    pub tests_fake_head_first: bool,
    pub restore_source: RestoreSource,
    /// Slots 0 to 2 of a restored tail page are made plain tails again (`reset_struct_pages`).
    pub restore_resets: bool,
    /// Restore warns of a page without the HugeTLB mark.
    pub restore_checks_mark: bool,
    pub rollback: Rollback,
    pub frame_order: FrameOrder,
    /// A pool grows, shrinks and is demoted by lists with one flush each (`hugetlb_vmemmap_optimize_folios`).
    pub batched_flush: bool,
    pub empty_batch: EmptyBatch,
    pub hugetlb_mark: HugetlbMark,
    /// A new page is marked HugeTLB first and optimised then.
    pub marked_before_optimised: bool,
    /// The first two tails keep words of the folio where other tails have `TAIL_MAPPING`.
    pub folio_words_in_tails: bool,
    /// Dissolving a free page uses up a surplus one first.
    pub dissolve_uses_surplus: bool,
    /// `max_huge_pages` stays then.
    pub dissolve_keeps_max: bool,
    /// A surplus page is counted in `nr_huge_pages` and as surplus in one cycle of `hugetlb_lock` (R43; policy
    /// `surplus-count`).
    pub surplus_counted_at_once: bool,
    /// Gigantic pages may be surplus where the platform can allocate them at run time.
    pub gigantic_surplus: bool,
    /// Policy `shrink-minimum`.
    pub shrink_minimum: ShrinkMinimum,
    /// The last user of a subpool is found under the subpool's lock (R42; policy `subpool-release`).
    pub subpool_decides_locked: bool,
    /// A contiguous allocation waits for deferred HugeTLB frees before it tests its range (R46; policy
    /// `isolated-test`).
    pub waits_for_deferred_frees: bool,
    /// `nr_memmap_pages` and `nr_memmap_boot_pages` are counted.
    pub memmap_counters: bool,
    /// With HVO on at boot, vmemmap is populated by base pages unless there is an altmap (policy `mapping`).
    pub hvo_populates_base_pages: bool,
    /// Where no PMD block is to be had, vmemmap of an altmap is populated by its base pages.
    pub altmap_falls_back_to_pages: bool,
    /// Holes of a PTE table that is there already are filled (`vmemmap_populate_hugepages`).
    pub populate_fills_tables: bool,
    /// At boot vmemmap comes out of one buffer a node, upwards (`sparse_buffer_alloc`), but with 64K pages.
    pub sparse_buffer: bool,
    pub memmap_on_memory: MemmapOnMemory,
    /// Memory block devices go before `mem_hotplug_begin`.
    pub block_devices_go_unlocked: bool,
    /// Onlining a block with a poisoned page fails.
    pub online_refuses_poison: bool,
    /// A block whose removal would split a leaf does not go offline (`can_unmap_without_split`).
    pub split_veto: bool,
    /// Hot remove runs the destructor of each table that it frees, which counts it out of `NR_PAGETABLE`; tables made
    /// by populate never were counted in (c594b83457cc).
    pub table_destructor: bool,
    /// A kernel range of exactly `PTRS_PER_PTE` pages is flushed whole (`flush_tlb_kernel_range`); a longer one always
    /// is.
    pub flush_all_at_limit: bool,
    /// `flush_tlb_kernel_range` uses range invalidates where the CPU has them, up to 2^21 pages.
    pub range_tlbi: bool,
    /// A PMD block of vmemmap.
    pub vmemmap_block: u64,
    /// A table descriptor of `init_mm`.
    pub table: u64,
    /// A table descriptor of the linear map of hot-added memory.
    pub linear_table: u64,
    /// The bit by which an entry with bit 0 clear is present all the same.
    pub present_bit: PresentBit,
    /// Tables under the whole fixmap, not only under its first PMD.
    pub fixmap_tables_for_all: bool,
    /// `note_page` takes a folded level for the PGD.
    pub ptdump_notes_folded_as_pgd: bool,
    /// The last line of a dump ends where the range does, unless that is ~0; else at 0.
    pub ptdump_ends_with_range: bool,
}

/// 7.3.4.
const V7_3: Features = Features {
    reserved_vmemmap_pages: 1,         // mm/hugetlb_vmemmap.h: HUGETLB_VMEMMAP_RESERVE_SIZE
    fake_heads: false,                 // gone with compound_info_has_mask; slot 0 of a tail page is a tail
    head_is_copied: true,              // 11aad2631bf7; __hugetlb_vmemmap_optimize_folio
    tail_source: TailSource::ZoneTail, // vmemmap_get_tail
    tail_encoding: TailEncoding::MaskIfConfigured, // page-flags.h: set_compound_head
    remap_walker: RemapWalker::Pagewalk, // vmemmap_remap_range
    self_hosted_test: SelfHostedTest::InWalk, // vmemmap_pmd_entry
    waits_for_grace_period: false,     // VMEMMAP_SYNCHRONIZE_RCU removed
    tests_fake_head_first: false,      // page_ref.h: page_ref_add_unless_zero, a bare atomic_add_unless
    restore_source: RestoreSource::MappedFrame, // vmemmap_restore_pte: copy_page
    restore_resets: false,             // what is copied is all tails
    restore_checks_mark: true,         // __hugetlb_vmemmap_restore_folio: VM_WARN_ON_ONCE_FOLIO
    rollback: Rollback::KeepsOtherFrames, // vmemmap_restore_pte: pte_page(..) != vmemmap_tail
    frame_order: FrameOrder::Lifo,     // vmemmap_remap_pte: list_add
    batched_flush: true,               // hugetlb_vmemmap_optimize_folios
    empty_batch: EmptyBatch::NoFlush,  // __hugetlb_vmemmap_optimize_folios: list_empty
    hugetlb_mark: HugetlbMark::PageType, // page-flags.h: PGTY_hugetlb
    marked_before_optimised: true,     // init_new_hugetlb_folio
    folio_words_in_tails: true,        // prep_compound_head
    dissolve_uses_surplus: true,       // dissolve_free_hugetlb_folio
    dissolve_keeps_max: true,          // dissolve_free_hugetlb_folio
    surplus_counted_at_once: true,     // alloc_surplus_hugetlb_folio
    gigantic_surplus: true,            // alloc_surplus_hugetlb_folio: gigantic_page_runtime_supported
    shrink_minimum: ShrinkMinimum::PersistentInUse, // set_max_huge_pages
    subpool_decides_locked: true,      // unlock_or_release_subpool: subpool_is_free under spool->lock
    waits_for_deferred_frees: true,    // test_pages_isolated: wait_for_freed_hugetlb_folios
    memmap_counters: true,             // memmap_pages_add, memmap_boot_pages_add
    hvo_populates_base_pages: false,   // mmu.c: vmemmap_populate
    altmap_falls_back_to_pages: false, // sparse-vmemmap.c: vmemmap_populate_hugepages
    populate_fills_tables: true,       // vmemmap_populate_hugepages: vmemmap_check_pmd
    sparse_buffer: false,              // sparse.c: each block from memblock by itself
    memmap_on_memory: MemmapOnMemory::EachBlock, // create_altmaps_and_memory_blocks
    block_devices_go_unlocked: false,  // try_remove_memory
    online_refuses_poison: true,       // memory_block_online
    split_veto: true,                  // mmu.c: can_unmap_without_split
    table_destructor: true,            // mmu.c: free_hotplug_pgtable_page
    flush_all_at_limit: true,          // tlbflush.h: MAX_DVM_OPS, by >=
    range_tlbi: true,                  // tlbflush.h: __flush_tlb_range_op
    vmemmap_block: prot::PROT_SECT_NORMAL_7, // sparse-vmemmap.c: vmemmap_set_pmd
    table: prot::TABLE | prot::TABLE_AF, // pgalloc.h: PMD_TABLE_AF
    linear_table: prot::TABLE_LINEAR | prot::TABLE_AF, // mmu.c: alloc_init_pud with NO_EXEC_MAPPINGS
    present_bit: PresentBit::PresentInvalid, // pgtable-prot.h: PTE_PRESENT_INVALID
    fixmap_tables_for_all: true,       // fixmap.c: early_fixmap_init
    ptdump_notes_folded_as_pgd: true,  // ptdump.c: note_page
    ptdump_ends_with_range: true,      // ptdump.c: ptdump_walk_pgd
};

/// 7.2.13.
const V7_2: Features = Features {
    reserved_vmemmap_pages: 1,         // mm/hugetlb_vmemmap.h: HUGETLB_VMEMMAP_RESERVE_SIZE
    fake_heads: false,                 // gone with compound_info_has_mask; slot 0 of a tail page is a tail
    head_is_copied: true,              // 11aad2631bf7; __hugetlb_vmemmap_optimize_folio
    tail_source: TailSource::ZoneTail, // vmemmap_get_tail
    tail_encoding: TailEncoding::MaskIfConfigured, // page-flags.h: set_compound_head
    remap_walker: RemapWalker::Pagewalk, // vmemmap_remap_range
    self_hosted_test: SelfHostedTest::InWalk, // vmemmap_pmd_entry
    waits_for_grace_period: false,     // VMEMMAP_SYNCHRONIZE_RCU removed
    tests_fake_head_first: false,      // page_ref.h: page_ref_add_unless_zero, a bare atomic_add_unless
    restore_source: RestoreSource::MappedFrame, // vmemmap_restore_pte: copy_page
    restore_resets: false,             // what is copied is all tails
    restore_checks_mark: true,         // __hugetlb_vmemmap_restore_folio: VM_WARN_ON_ONCE_FOLIO
    rollback: Rollback::KeepsOtherFrames, // vmemmap_restore_pte: pte_page(..) != vmemmap_tail
    frame_order: FrameOrder::Lifo,     // vmemmap_remap_pte: list_add
    batched_flush: true,               // hugetlb_vmemmap_optimize_folios
    empty_batch: EmptyBatch::OneFlush, // __hugetlb_vmemmap_optimize_folios
    hugetlb_mark: HugetlbMark::PageType, // page-flags.h: PGTY_hugetlb
    marked_before_optimised: true,     // init_new_hugetlb_folio
    folio_words_in_tails: true,        // prep_compound_head
    dissolve_uses_surplus: true,       // dissolve_free_hugetlb_folio
    dissolve_keeps_max: true,          // dissolve_free_hugetlb_folio
    surplus_counted_at_once: true,     // alloc_surplus_hugetlb_folio
    gigantic_surplus: true,            // alloc_surplus_hugetlb_folio: gigantic_page_runtime_supported
    shrink_minimum: ShrinkMinimum::PersistentInUse, // set_max_huge_pages
    subpool_decides_locked: false,     // unlock_or_release_subpool: subpool_is_free after the unlock
    waits_for_deferred_frees: true,    // test_pages_isolated: wait_for_freed_hugetlb_folios
    memmap_counters: true,             // memmap_pages_add, memmap_boot_pages_add
    hvo_populates_base_pages: false,   // mmu.c: vmemmap_populate
    altmap_falls_back_to_pages: false, // sparse-vmemmap.c: vmemmap_populate_hugepages
    populate_fills_tables: true,       // vmemmap_populate_hugepages: vmemmap_check_pmd
    sparse_buffer: false,              // sparse.c: each block from memblock by itself
    memmap_on_memory: MemmapOnMemory::EachBlock, // create_altmaps_and_memory_blocks
    block_devices_go_unlocked: false,  // try_remove_memory
    online_refuses_poison: true,       // memory_block_online
    split_veto: true,                  // mmu.c: can_unmap_without_split
    table_destructor: true,            // mmu.c: free_hotplug_pgtable_page
    flush_all_at_limit: true,          // tlbflush.h: MAX_DVM_OPS, by >=
    range_tlbi: true,                  // tlbflush.h: __flush_tlb_range_op
    vmemmap_block: prot::PROT_SECT_NORMAL_7, // sparse-vmemmap.c: vmemmap_set_pmd
    table: prot::TABLE | prot::TABLE_AF, // pgalloc.h: PMD_TABLE_AF
    linear_table: prot::TABLE_LINEAR | prot::TABLE_AF, // mmu.c: alloc_init_pud with NO_EXEC_MAPPINGS
    present_bit: PresentBit::PresentInvalid, // pgtable-prot.h: PTE_PRESENT_INVALID
    fixmap_tables_for_all: true,       // fixmap.c: early_fixmap_init
    ptdump_notes_folded_as_pgd: true,  // ptdump.c: note_page
    ptdump_ends_with_range: true,      // ptdump.c: ptdump_walk_pgd
};

/// 6.12.117 as written (§H7, §13.1): 6.12.114 took "refactor code around vmemmap_walk" (c0b495b91a47) and the
/// rollback's fix, without the patch between them that gives the tails a frame of their own.
const V6_12_117: Features = Features {
    reserved_vmemmap_pages: 1,                // mm/hugetlb_vmemmap.h: HUGETLB_VMEMMAP_RESERVE_SIZE
    fake_heads: true,                         // page-flags.h: page_fixed_fake_head
    head_is_copied: true,                     // 11aad2631bf7; __hugetlb_vmemmap_optimize_folio
    tail_source: TailSource::RetainedPage,    // vmemmap_tail = vmemmap_head
    tail_encoding: TailEncoding::Pointer,     // page-flags.h: set_compound_head
    remap_walker: RemapWalker::Pagewalk,      // vmemmap_remap_range
    self_hosted_test: SelfHostedTest::InWalk, // vmemmap_pmd_entry
    waits_for_grace_period: true,             // bd225530a4c7
    tests_fake_head_first: true,              // bd225530a4c7; page_ref.h: page_ref_add_unless
    restore_source: RestoreSource::MappedFrame, // vmemmap_restore_pte
    restore_resets: false,                    // vmemmap_restore_pte: copy_page alone
    restore_checks_mark: true,                // __hugetlb_vmemmap_restore_folio: VM_WARN_ON_ONCE_FOLIO
    rollback: Rollback::KeepsOtherFrames,     // vmemmap_restore_pte: pte_page(..) != vmemmap_tail
    frame_order: FrameOrder::Lifo,            // vmemmap_remap_pte: list_add
    batched_flush: true,                      // hugetlb_vmemmap_optimize_folios
    empty_batch: EmptyBatch::TwoFlushes,      // __hugetlb_vmemmap_optimize_folios: no test of the list
    hugetlb_mark: HugetlbMark::PageType,      // page-flags.h: PGTY_hugetlb
    marked_before_optimised: true,            // __prep_new_hugetlb_folio
    folio_words_in_tails: true,               // prep_compound_head
    dissolve_uses_surplus: true,              // 6.12.113; dissolve_free_hugetlb_folio
    dissolve_keeps_max: true,                 // 6.12.113; dissolve_free_hugetlb_folio
    surplus_counted_at_once: false,           // alloc_surplus: nr_huge_pages in __prep_account_new_huge_page
    gigantic_surplus: false,                  // alloc_surplus: hstate_is_gigantic
    shrink_minimum: ShrinkMinimum::AllInUse,  // set_max_huge_pages: min_count
    subpool_decides_locked: false,            // unlock_or_release_subpool: subpool_is_free after the unlock
    waits_for_deferred_frees: true,           // 6.12.20; wait_for_freed_hugetlb_folios
    memmap_counters: true,                    // memmap_pages_add, memmap_boot_pages_add
    hvo_populates_base_pages: false,          // mmu.c: vmemmap_populate
    altmap_falls_back_to_pages: false,        // sparse-vmemmap.c: vmemmap_populate_hugepages
    populate_fills_tables: false,             // vmemmap_populate: pmd_none or nothing
    sparse_buffer: true,                      // sparse.c: sparse_buffer_init
    memmap_on_memory: MemmapOnMemory::EachBlock, // create_altmaps_and_memory_blocks
    block_devices_go_unlocked: false,         // try_remove_memory
    online_refuses_poison: true,              // memory_block_online
    split_veto: false,                        // prevent_bootmem_remove_notifier: early sections only
    table_destructor: false,                  // free_hotplug_pgtable_page
    flush_all_at_limit: false,                // tlbflush.h: MAX_DVM_OPS, by >
    range_tlbi: false,                        // flush_tlb_kernel_range: one page after the other
    vmemmap_block: prot::PROT_SECT_NORMAL_6_12, // pgtable-prot.h: PROT_SECT_NORMAL
    table: prot::TABLE,                       // pgalloc.h: pmd_populate_kernel
    linear_table: prot::TABLE_LINEAR,         // mmu.c: alloc_init_pud with NO_EXEC_MAPPINGS
    present_bit: PresentBit::PresentInvalid,  // pgtable-prot.h: PTE_PRESENT_INVALID
    fixmap_tables_for_all: true,              // fixmap.c: early_fixmap_init
    ptdump_notes_folded_as_pgd: true,         // ptdump.c: note_page
    ptdump_ends_with_range: true,             // ptdump.c: ptdump_walk_pgd
};

/// 6.12 as intended: up to 6.12.113, and what 6.12.117 means to do (§H7).
const V6_12: Features = Features {
    reserved_vmemmap_pages: 1,                // mm/hugetlb_vmemmap.h: HUGETLB_VMEMMAP_RESERVE_SIZE
    fake_heads: true,                         // page-flags.h: page_fixed_fake_head
    head_is_copied: true,                     // 11aad2631bf7; __hugetlb_vmemmap_optimize_folio
    tail_source: TailSource::RetainedPage,    // vmemmap_remap_free: the copy of the head
    tail_encoding: TailEncoding::Pointer,     // page-flags.h: set_compound_head
    remap_walker: RemapWalker::Pagewalk,      // vmemmap_remap_range
    self_hosted_test: SelfHostedTest::InWalk, // vmemmap_pmd_entry
    waits_for_grace_period: true,             // bd225530a4c7
    tests_fake_head_first: true,              // bd225530a4c7; page_ref.h: page_ref_add_unless
    restore_source: RestoreSource::MappedFrame, // vmemmap_restore_pte
    restore_resets: true,                     // reset_struct_pages, in 6.12.113 and before
    restore_checks_mark: true,                // __hugetlb_vmemmap_restore_folio: VM_WARN_ON_ONCE_FOLIO
    rollback: Rollback::KeepsHead,            // the intent of the test in vmemmap_restore_pte
    frame_order: FrameOrder::Lifo,            // vmemmap_remap_pte: list_add
    batched_flush: true,                      // hugetlb_vmemmap_optimize_folios
    empty_batch: EmptyBatch::TwoFlushes,      // __hugetlb_vmemmap_optimize_folios: no test of the list
    hugetlb_mark: HugetlbMark::PageType,      // page-flags.h: PGTY_hugetlb
    marked_before_optimised: true,            // __prep_new_hugetlb_folio
    folio_words_in_tails: true,               // prep_compound_head
    dissolve_uses_surplus: true,              // 6.12.113; dissolve_free_hugetlb_folio
    dissolve_keeps_max: true,                 // 6.12.113; dissolve_free_hugetlb_folio
    surplus_counted_at_once: false,           // alloc_surplus: nr_huge_pages in __prep_account_new_huge_page
    gigantic_surplus: false,                  // alloc_surplus: hstate_is_gigantic
    shrink_minimum: ShrinkMinimum::AllInUse,  // set_max_huge_pages: min_count
    subpool_decides_locked: false,            // unlock_or_release_subpool: subpool_is_free after the unlock
    waits_for_deferred_frees: true,           // 6.12.20; wait_for_freed_hugetlb_folios
    memmap_counters: true,                    // memmap_pages_add, memmap_boot_pages_add
    hvo_populates_base_pages: false,          // mmu.c: vmemmap_populate
    altmap_falls_back_to_pages: false,        // sparse-vmemmap.c: vmemmap_populate_hugepages
    populate_fills_tables: false,             // vmemmap_populate: pmd_none or nothing
    sparse_buffer: true,                      // sparse.c: sparse_buffer_init
    memmap_on_memory: MemmapOnMemory::EachBlock, // create_altmaps_and_memory_blocks
    block_devices_go_unlocked: false,         // try_remove_memory
    online_refuses_poison: true,              // memory_block_online
    split_veto: false,                        // prevent_bootmem_remove_notifier: early sections only
    table_destructor: false,                  // free_hotplug_pgtable_page
    flush_all_at_limit: false,                // tlbflush.h: MAX_DVM_OPS, by >
    range_tlbi: false,                        // flush_tlb_kernel_range: one page after the other
    vmemmap_block: prot::PROT_SECT_NORMAL_6_12, // pgtable-prot.h: PROT_SECT_NORMAL
    table: prot::TABLE,                       // pgalloc.h: pmd_populate_kernel
    linear_table: prot::TABLE_LINEAR,         // mmu.c: alloc_init_pud with NO_EXEC_MAPPINGS
    present_bit: PresentBit::PresentInvalid,  // pgtable-prot.h: PTE_PRESENT_INVALID
    fixmap_tables_for_all: true,              // fixmap.c: early_fixmap_init
    ptdump_notes_folded_as_pgd: true,         // ptdump.c: note_page
    ptdump_ends_with_range: true,             // ptdump.c: ptdump_walk_pgd
};

/// 6.1.
const V6_1: Features = Features {
    reserved_vmemmap_pages: 1, // mm/hugetlb_vmemmap.h: HUGETLB_VMEMMAP_RESERVE_SIZE, since v5.18
    fake_heads: true,          // page-flags.h: page_fixed_fake_head, since v5.18
    head_is_copied: false,     // vmemmap_remap_pte: the first PTE defines reuse_page
    tail_source: TailSource::RetainedPage, // vmemmap_remap_pte: reuse_page, the head's own frame
    tail_encoding: TailEncoding::Pointer, // page-flags.h: set_compound_head
    remap_walker: RemapWalker::Own, // vmemmap_remap_range, vmemmap_pmd_range
    self_hosted_test: SelfHostedTest::BeforeWalk, // vmemmap_should_optimize
    waits_for_grace_period: false, // hugetlb_vmemmap_optimize
    tests_fake_head_first: false, // page_ref.h: page_ref_add_unless
    restore_source: RestoreSource::ReusePage, // vmemmap_restore_pte: BUG_ON(pte_page(*pte) != walk->reuse_page)
    restore_resets: true,      // vmemmap_restore_pte: reset_struct_pages
    restore_checks_mark: false, // hugetlb_vmemmap_restore
    rollback: Rollback::Everything, // vmemmap_remap_free
    frame_order: FrameOrder::Fifo, // vmemmap_remap_pte: list_add_tail
    batched_flush: false,      // set_max_huge_pages, update_and_free_pages_bulk
    empty_batch: EmptyBatch::TwoFlushes, // there are no batches
    hugetlb_mark: HugetlbMark::Destructor, // PageHuge: HUGETLB_PAGE_DTOR
    marked_before_optimised: false, // __prep_new_huge_page
    folio_words_in_tails: false, // prep_compound_tail
    dissolve_uses_surplus: false, // dissolve_free_huge_page: adjust_surplus false
    dissolve_keeps_max: false, // dissolve_free_huge_page: h->max_huge_pages--
    surplus_counted_at_once: false, // alloc_surplus: nr_huge_pages in __prep_account_new_huge_page
    gigantic_surplus: false,   // alloc_surplus: hstate_is_gigantic
    shrink_minimum: ShrinkMinimum::AllInUse, // set_max_huge_pages: min_count
    subpool_decides_locked: false, // unlock_or_release_subpool: subpool_is_free after the unlock
    waits_for_deferred_frees: false, // test_pages_isolated
    memmap_counters: false,    // not there
    hvo_populates_base_pages: false, // mmu.c: vmemmap_populate
    altmap_falls_back_to_pages: true, // mmu.c: vmemmap_populate
    populate_fills_tables: false, // vmemmap_populate: pmd_none or nothing
    sparse_buffer: true,       // sparse.c: sparse_buffer_init
    memmap_on_memory: MemmapOnMemory::OneBlock, // mhp_supports_memmap_on_memory
    block_devices_go_unlocked: true, // try_remove_memory
    online_refuses_poison: false, // memory_block_online
    split_veto: false,         // prevent_bootmem_remove_notifier: early sections only
    table_destructor: false,   // free_hotplug_pgtable_page
    flush_all_at_limit: false, // tlbflush.h: MAX_TLBI_OPS, by >
    range_tlbi: false,         // flush_tlb_kernel_range: one page after the other
    vmemmap_block: prot::PROT_SECT_NORMAL_6_1, // pgtable-prot.h: PROT_SECT_NORMAL
    table: prot::TABLE,        // pgalloc.h: pmd_populate_kernel
    linear_table: prot::TABLE_LINEAR, // mmu.c: alloc_init_pud with NO_EXEC_MAPPINGS
    present_bit: PresentBit::ProtNone, // pgtable-prot.h: PTE_PROT_NONE
    fixmap_tables_for_all: false, // mmu.c: early_fixmap_init, bm_pte
    ptdump_notes_folded_as_pgd: false, // ptdump.c: note_page
    ptdump_ends_with_range: false, // ptdump.c: ptdump_walk_pgd
};

/// As argued in the May 2021 thread, close to v5.14 (§H12). What the thread does not touch is answered as 6.1 does.
const V2021: Features = Features {
    reserved_vmemmap_pages: 2,                            // RESERVE_VMEMMAP_NR
    fake_heads: false,                                    // the second page holds tails only
    head_is_copied: false, // free_huge_page_vmemmap: the range begins with the reuse page
    tail_source: TailSource::RetainedPage, // free_huge_page_vmemmap: the second vmemmap page
    tail_encoding: TailEncoding::Pointer, // page-flags.h: set_compound_head
    remap_walker: RemapWalker::Own, // vmemmap_remap_range
    self_hosted_test: SelfHostedTest::BeforeWalk, // HVO and memmap_on_memory exclude each other; as 6.1
    waits_for_grace_period: false, // free_huge_page_vmemmap
    tests_fake_head_first: false, // page_ref.h: page_ref_add_unless
    restore_source: RestoreSource::ReusePage, // vmemmap_restore_pte
    restore_resets: false, // vmemmap_restore_pte: nothing of the head is in the reuse page
    restore_checks_mark: false, // alloc_huge_page_vmemmap
    rollback: Rollback::Everything, // vmemmap_remap_free
    frame_order: FrameOrder::Fifo, // vmemmap_remap_pte
    batched_flush: false,  // set_max_huge_pages
    empty_batch: EmptyBatch::TwoFlushes, // there are no batches
    hugetlb_mark: HugetlbMark::Destructor, // PageHuge: HUGETLB_PAGE_DTOR
    marked_before_optimised: false, // __prep_new_huge_page
    folio_words_in_tails: false, // prep_compound_page
    dissolve_uses_surplus: false, // dissolve_free_huge_page
    dissolve_keeps_max: false, // dissolve_free_huge_page: h->max_huge_pages--
    surplus_counted_at_once: false, // alloc_surplus: nr_huge_pages in __prep_account_new_huge_page
    gigantic_surplus: false, // alloc_surplus: hstate_is_gigantic
    shrink_minimum: ShrinkMinimum::AllInUse, // set_max_huge_pages: min_count
    subpool_decides_locked: false, // unlock_or_release_subpool: subpool_is_free after the unlock
    waits_for_deferred_frees: false, // test_pages_isolated
    memmap_counters: false, // not there
    hvo_populates_base_pages: true, // the arm64 patch: vmemmap_populate
    altmap_falls_back_to_pages: true, // mmu.c: vmemmap_populate
    populate_fills_tables: false, // vmemmap_populate: pmd_none or nothing
    sparse_buffer: true,   // sparse.c: sparse_buffer_init
    memmap_on_memory: MemmapOnMemory::OneBlockWithoutHvo, // mhp_supports_memmap_on_memory
    block_devices_go_unlocked: true, // try_remove_memory
    online_refuses_poison: false, // memory_block_online
    split_veto: false,     // prevent_bootmem_remove_notifier: early sections only
    table_destructor: false, // free_hotplug_pgtable_page
    flush_all_at_limit: false, // tlbflush.h: MAX_TLBI_OPS, by >
    range_tlbi: false,     // flush_tlb_kernel_range: one page after the other
    vmemmap_block: prot::PROT_SECT_NORMAL_6_1, // pgtable-prot.h: PROT_SECT_NORMAL
    table: prot::TABLE,    // pgalloc.h: pmd_populate_kernel
    linear_table: prot::TABLE_LINEAR, // mmu.c: alloc_init_pud with NO_EXEC_MAPPINGS
    present_bit: PresentBit::ProtNone, // pgtable-prot.h: PTE_PROT_NONE
    fixmap_tables_for_all: false, // mmu.c: early_fixmap_init
    ptdump_notes_folded_as_pgd: false, // ptdump.c: note_page
    ptdump_ends_with_range: false, // ptdump.c: ptdump_walk_pgd
};

impl Features {
    #[must_use]
    pub const fn of(version: Version) -> Self {
        match version {
            Version::V7_3 => V7_3,
            Version::V7_2 => V7_2,
            Version::V6_12_117 => V6_12_117,
            Version::V6_12 => V6_12,
            Version::V6_1 => V6_1,
            Version::V2021 => V2021,
        }
    }

    /// Whether a page that is no hugepage may keep the type of one: a restored tail page begins with a copy of the
    /// head, its type is the mark, and nobody overwrites it.
    #[must_use]
    pub const fn stray_types(&self) -> bool {
        match (self.hugetlb_mark, self.tail_source) {
            (HugetlbMark::Destructor, _) => false,
            (HugetlbMark::PageType, TailSource::RetainedPage) => !self.restore_resets,
            (HugetlbMark::PageType, TailSource::ZoneTail) => false,
        }
    }
}
