//! Struct pages (`include/linux/page-flags.h`, `page_ref.h`; kernel-semantics §9, H3).
//!
//! A struct page is eight words at `Layout::page_va(pfn)`; every access goes through the virtual address, so that a
//! hole, a stale translation or a read-only alias is met as a CPU meets it.

use vmemmap_arch::contents::word;
use vmemmap_arch::{Cpu, Order, Pfn, Rmw, STRUCT_PAGE_SIZE, Template, Va};

use crate::Kernel;
use crate::features::{HugetlbMark, TailEncoding};
use crate::policy::{Atomics, PageRef};
use crate::state::Scalar;
use crate::static_key::static_branch_unlikely;

/// Bits of `page->flags` (6.1 numbering).
pub mod flag {
    /// `PG_vmemmap_self_hosted`, an alias of `PG_owner_priv_1`.
    pub const VMEMMAP_SELF_HOSTED: u64 = 1 << 10;
    pub const RESERVED: u64 = 1 << 12;
    pub const HEAD: u64 = 1 << 16;
    pub const HWPOISON: u64 = 1 << 22;
}

/// `HUGETLB_PAGE_DTOR` (2021, 6.1), in the low byte of the first tail's `COMPOUND_INFO`; the order is in the byte
/// above.
pub const HUGETLB_PAGE_DTOR: u64 = 2;
pub(crate) const COMPOUND_PAGE_DTOR: u64 = 1;

/// `page->page_type`, which has the place of `_mapcount`: the low half of `COUNT`. All ones: no type.
pub(crate) const PAGE_TYPE: u64 = 0xffff_ffff;
/// `PGTY_hugetlb` (6.12), in the top byte of the type.
pub const PGTY_HUGETLB: u64 = 0xf4 << 24;

/// VA of one word of the struct page at `page`.
#[inline]
#[must_use]
pub const fn word_va(page: Va, word: u8) -> Va {
    page.plus(word as u64 * 8)
}

/// READ_ONCE of a word.
#[inline]
pub fn read_word<C: Cpu>(cpu: &C, page: Va, word: u8) -> u64 {
    cpu.load(word_va(page, word), Order::Plain)
}

/// WRITE_ONCE of a word.
#[inline]
pub fn write_word<C: Cpu>(cpu: &C, page: Va, word: u8, value: u64) {
    cpu.store(word_va(page, word), value, Order::Plain);
}

/// `page[n]`.
#[inline]
#[must_use]
pub const fn nth_page(page: Va, n: u64) -> Va {
    page.plus(n.wrapping_mul(STRUCT_PAGE_SIZE))
}

// ---- flags ---------------------------------------------------------------------------------------------------------

/// `test_bit(…, &page->flags)`.
pub fn test_flag<C: Cpu>(cpu: &C, page: Va, flag: u64) -> bool {
    cpu.concluding(|| read_word(cpu, page, word::FLAGS) & flag != 0)
}

/// Set (`set_bit`); returns whether it was set before (`TestSetPage…`).
pub fn set_flag<C: Cpu>(cpu: &C, page: Va, flag: u64) -> bool {
    cpu.rmw(word_va(page, word::FLAGS), Rmw::FetchOr(flag), Order::AcqRel) & flag != 0
}

/// Clear (`clear_bit`).
pub fn clear_flag<C: Cpu>(cpu: &C, page: Va, flag: u64) {
    cpu.rmw(word_va(page, word::FLAGS), Rmw::FetchAnd(!flag), Order::Relaxed);
}

// ---- compound pages ------------------------------------------------------------------------------------------------

/// `compound_info_has_mask`.
#[must_use]
#[inline]
const fn compound_info_has_mask(k: &Kernel) -> bool {
    match k.features.tail_encoding {
        TailEncoding::Pointer => false,
        TailEncoding::MaskIfConfigured => k.hvo_configured(),
    }
}

/// The head that the `compound_head` word of the struct page at `page` names, if it is a tail's (bit 0). A mask gives
/// the right one only if struct pages are aligned to the length of the compound page, in bytes of vmemmap (R37).
#[must_use]
#[inline]
pub const fn tail_head(k: &Kernel, page: Va, word: u64) -> Option<Va> {
    head_named(page, word, compound_info_has_mask(k))
}

/// The same where nothing says whether HVO is configured, as of a dump: a mask is the negative of a power of two, and
/// no address of a struct page is.
#[must_use]
pub const fn tail_head_by_value(page: Va, word: u64) -> Option<Va> {
    let value = word & !1;
    head_named(page, word, value != 0 && value.wrapping_neg().is_power_of_two())
}

const fn head_named(page: Va, word: u64, is_mask: bool) -> Option<Va> {
    match (word & 1, is_mask) {
        (0, _) => None,
        (_, true) => Some(Va(page.0 & (word - 1))),
        (_, false) => Some(Va(word - 1)),
    }
}

/// The word of a tail of the page of 2^order pages at `head` (`set_compound_head`).
#[must_use]
#[inline]
pub const fn tail_word(k: &Kernel, head: Va, order: u8) -> u64 {
    if compound_info_has_mask(k) {
        u64::MAX << (order as u32 + STRUCT_PAGE_SIZE.trailing_zeros()) | 1
    } else {
        head.0 | 1
    }
}

/// `page_fixed_fake_head` (6.1, 6.12): the true head of a struct page that may be slot 0 of a shared tail page.
/// 2021 keeps two vmemmap pages and has no fake heads.
pub fn page_fixed_fake_head<C: Cpu>(k: &Kernel, cpu: &C, page: Va) -> Va {
    if !k.features.fake_heads || !static_branch_unlikely(k, cpu, Scalar::HvoKey) {
        return page;
    }
    if page.is_aligned(k.geometry.page_size())
        && test_flag(cpu, page, flag::HEAD)
        && let Some(head) = tail_head(k, nth_page(page, 1), read_word(cpu, nth_page(page, 1), word::COMPOUND_HEAD))
    {
        return head;
    }
    page
}

/// `page_is_fake_head`.
pub fn page_is_fake_head<C: Cpu>(k: &Kernel, cpu: &C, page: Va) -> bool {
    page_fixed_fake_head(k, cpu, page) != page
}

/// `compound_head`: VA of the head's struct page, or `page` itself.
pub fn compound_head<C: Cpu>(k: &Kernel, cpu: &C, page: Va) -> Va {
    cpu.concluding(|| {
        let word = read_word(cpu, page, word::COMPOUND_HEAD);
        tail_head(k, page, word).unwrap_or_else(|| page_fixed_fake_head(k, cpu, page))
    })
}

/// Head PFN of the compound page that `pfn` belongs to; `pfn` itself if it is in none.
pub fn head_pfn<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> Pfn {
    k.layout.page_pfn(compound_head(k, cpu, k.layout.page_va(pfn)))
}

/// `set_compound_page_dtor(HUGETLB_PAGE_DTOR)` (6.12: `__folio_set_hugetlb`, `__folio_clear_hugetlb`): the mark by
/// which everybody else knows a HugeTLB page. 2021 and 6.1 keep it in the first tail, 6.12 in the head.
pub fn set_hugetlb_mark<C: Cpu>(k: &Kernel, cpu: &C, head: Va, on: bool) {
    match k.features.hugetlb_mark {
        HugetlbMark::PageType => {
            // The kernel stores the low half alone.
            let op = if on { Rmw::FetchAnd(!PAGE_TYPE | PGTY_HUGETLB) } else { Rmw::FetchOr(PAGE_TYPE) };
            cpu.rmw(word_va(head, word::COUNT), op, Order::Relaxed);
        }
        HugetlbMark::Destructor => {
            let info = read_word(cpu, nth_page(head, 1), word::COMPOUND_INFO);
            let dtor = if on { HUGETLB_PAGE_DTOR } else { COMPOUND_PAGE_DTOR };
            write_word(cpu, nth_page(head, 1), word::COMPOUND_INFO, info & !0xff | dtor);
        }
    }
}

/// `PageHuge` (6.12: `folio_test_hugetlb`) of any struct page of the compound.
pub fn page_huge<C: Cpu>(k: &Kernel, cpu: &C, page: Va) -> bool {
    cpu.concluding(|| {
        let head = compound_head(k, cpu, page);
        if !k.layout.in_vmemmap(head) {
            return false;
        }
        match k.features.hugetlb_mark {
            HugetlbMark::PageType => folio_test_hugetlb(cpu, head),
            HugetlbMark::Destructor => {
                test_flag(cpu, head, flag::HEAD)
                    && read_word(cpu, nth_page(head, 1), word::COMPOUND_INFO) & 0xff == HUGETLB_PAGE_DTOR
            }
        }
    })
}

/// `folio_test_hugetlb`, of one struct page alone: whether its type is that of a HugeTLB page.
pub fn folio_test_hugetlb<C: Cpu>(cpu: &C, page: Va) -> bool {
    is_hugetlb_type(read_word(cpu, page, word::COUNT))
}

/// The same, of its `COUNT` word.
#[must_use]
pub const fn is_hugetlb_type(count: u64) -> bool {
    count & PAGE_TYPE >> 24 << 24 == PGTY_HUGETLB
}

/// `compound_order` of a head.
pub fn compound_order<C: Cpu>(cpu: &C, head: Va) -> u8 {
    cpu.concluding(|| {
        if !test_flag(cpu, head, flag::HEAD) {
            return 0;
        }
        (read_word(cpu, nth_page(head, 1), word::COMPOUND_INFO) >> 8) as u8
    })
}

/// Write `nr` struct pages from `start`: one bulk store for each vmemmap page that they fill, word stores for the rest.
pub fn init_struct_pages<C: Cpu>(k: &Kernel, cpu: &C, start: Pfn, nr: u64, template: Template) {
    let page_size = k.geometry.page_size();
    let end = k.layout.page_va(start.plus(nr));
    let mut at = k.layout.page_va(start);
    while at < end {
        if at.is_aligned(page_size) && end.since(at) >= page_size {
            let pages = end.since(at) >> k.geometry.page_shift();
            cpu.fill_each(at, pages, template);
            at = at.plus(pages << k.geometry.page_shift());
        } else {
            for index in 0..8 {
                write_word(cpu, at, index, template.word(index));
            }
            at = nth_page(at, 1);
        }
    }
}

// ---- reference counts ----------------------------------------------------------------------------------------------

/// `page_ref_count`: the high half of the count word.
pub fn page_ref_count<C: Cpu>(cpu: &C, page: Va) -> u32 {
    (read_word(cpu, page, word::COUNT) >> 32) as u32
}

/// `set_page_count`; for a page that nobody else may reference (freeze, unfreeze).
pub fn set_page_count<C: Cpu>(cpu: &C, page: Va, count: u32) {
    let low = read_word(cpu, page, word::COUNT) & 0xffff_ffff;
    cpu.store(word_va(page, word::COUNT), u64::from(count) << 32 | low, Order::Release);
}

/// `page_ref_freeze`: take the count from `count` to 0, or nothing.
pub fn page_ref_freeze<C: Cpu>(cpu: &C, page: Va, count: u32) -> bool {
    let at = word_va(page, word::COUNT);
    let old = cpu.load(at, Order::Plain);
    if (old >> 32) as u32 != count {
        return false;
    }
    cpu.rmw(at, Rmw::CompareExchange { old, new: old & 0xffff_ffff }, Order::AcqRel) == old
}

/// `atomic_add_unless(&page->_refcount, nr, unless)`: a load first, and no read-modify-write if it finds `unless`.
fn atomic_add_unless<C: Cpu>(k: &Kernel, cpu: &C, page: Va, nr: u32, unless: u32) -> bool {
    let at = word_va(page, word::COUNT);
    let mut old = cpu.load(at, Order::Plain);
    loop {
        let count = (old >> 32) as u32;
        if count == unless {
            return false;
        }
        let new = u64::from(count.wrapping_add(nr)) << 32 | old & 0xffff_ffff;
        let found = cpu.rmw(at, compare_exchange(k, old, new), Order::AcqRel);
        if found == old {
            return true;
        }
        old = found;
        cpu.round(old);
    }
}

/// The compare-and-exchange of a loop, by the instructions that the CPUs have.
fn compare_exchange(k: &Kernel, old: u64, new: u64) -> Rmw {
    match k.policies.atomics {
        Atomics::Lse => Rmw::CompareExchange { old, new },
        Atomics::LlSc => Rmw::StoreExclusive { old, new },
    }
}

/// `page_ref_add_unless`. 2021 and 6.1 add at once (R1); 6.12 looks first, in an RCU section, whether the struct page
/// is a fake head and only then at the count (R2: in this order).
pub fn page_ref_add_unless<C: Cpu>(k: &Kernel, cpu: &C, page: Va, nr: u32, unless: u32) -> bool {
    cpu.label("page_ref_add_unless");
    let in_rcu = |how: CountTest| {
        cpu.rcu_read_lock();
        let had = page_count_writable(k, cpu, how, page, unless) && atomic_add_unless(k, cpu, page, nr, unless);
        cpu.rcu_read_unlock();
        had
    };
    match k.policies.page_ref {
        PageRef::ByKernel => match k.features.tests_fake_head_first {
            true => in_rcu(CountTest::FakeHeadFirst),
            false => atomic_add_unless(k, cpu, page, nr, unless),
        },
        PageRef::Plain => atomic_add_unless(k, cpu, page, nr, unless),
        PageRef::Rcu => in_rcu(CountTest::Missing),
        PageRef::FakeHeadFirst => in_rcu(CountTest::FakeHeadFirst),
        PageRef::CountFirst => in_rcu(CountTest::CountFirst),
        PageRef::CountFirstPlain => in_rcu(CountTest::CountFirstPlain),
        PageRef::CountFirstRelaxed => in_rcu(CountTest::CountFirstRelaxed),
    }
}

/// In which order `page_count_writable` makes its tests.
#[derive(Clone, Copy)]
enum CountTest {
    Missing,
    FakeHeadFirst,
    CountFirst,
    CountFirstPlain,
    CountFirstRelaxed,
}

/// Whether the count of `page` may be written: it is not `unless`, and `page` is no fake head. 6.12 has the two tests
/// in `page_ref_add_unless`, the fix of their order (R2) put them into a function of this name.
fn page_count_writable<C: Cpu>(k: &Kernel, cpu: &C, how: CountTest, page: Va, unless: u32) -> bool {
    let real = || !page_is_fake_head(k, cpu, page);
    let counted = |order: Order| (cpu.load(word_va(page, word::COUNT), order) >> 32) as u32 != unless;
    match how {
        CountTest::Missing => true,
        CountTest::FakeHeadFirst => real() && counted(Order::Plain),
        CountTest::CountFirst => counted(Order::Acquire) && real(),
        CountTest::CountFirstPlain => counted(Order::Plain) && real(),
        CountTest::CountFirstRelaxed => {
            match cpu.choose(2, "without the acquire the fake-head test may be performed before the count is read") {
                0 => counted(Order::Plain) && real(),
                _ => real() && counted(Order::Plain),
            }
        }
    }
}

/// `get_page_unless_zero`.
pub fn get_page_unless_zero<C: Cpu>(k: &Kernel, cpu: &C, page: Va) -> bool {
    page_ref_add_unless(k, cpu, page, 1, 0)
}

/// `put_page_testzero`: drop one reference; true if it was the last.
pub fn put_page_testzero<C: Cpu>(cpu: &C, page: Va) -> bool {
    let old = cpu.rmw(word_va(page, word::COUNT), Rmw::FetchAdd(-(1 << 32)), Order::AcqRel);
    old >> 32 == 1
}
