//! What a frame of struct pages holds before anybody stored into it, as one word.
//!
//! Struct pages are 64-byte records of eight words. A frame keeps a template that gives every word; the first store
//! makes the words real ("materialises" the frame). That is how terabytes of struct pages stay affordable.

use crate::address::Va;

/// Words of a struct page by what the kernel keeps there (6.1 layout, 64-bit).
pub mod word {
    /// `page->flags`.
    pub const FLAGS: u8 = 0;
    /// `page->compound_head` of a tail (bit 0 set); `lru.next` otherwise.
    pub const COMPOUND_HEAD: u8 = 1;
    /// `lru.prev`; in the first tail: compound destructor and order.
    pub const COMPOUND_INFO: u8 = 2;
    pub const MAPPING: u8 = 3;
    pub const INDEX: u8 = 4;
    /// `page->private`; HPG_* flags in the head of a HugeTLB page.
    pub const PRIVATE: u8 = 5;
    /// `_mapcount` or page type (low half) and `_refcount` (high half).
    pub const COUNT: u8 = 6;
    pub const MEMCG: u8 = 7;
}

/// `TAIL_MAPPING`, in `page->mapping` of every tail but those that keep something else there.
pub const TAIL_MAPPING: u64 = 0xdead_0000_0000_0400;

/// Content of every struct page of a frame while nobody has stored into it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct Template(u64);

impl Template {
    /// All zero: a frame that is a table, or fresh data.
    pub const ZERO: Template = Template(0);
    /// `page_init_poison`: all ones.
    pub const POISON: Template = Template(2);
    /// After `memmap_init`: refcount 0, mapcount -1, nothing else.
    pub const FREE: Template = Template(4);

    /// Every struct page is a tail of the compound page whose head struct page is at `head`.
    #[must_use]
    #[inline]
    pub const fn tail_of(head: Va) -> Template {
        Template(head.0 | 1)
    }
    /// Every struct page is a tail with that `compound_head` word, in which bit 0 is set.
    #[must_use]
    #[inline]
    pub const fn tail(word: u64) -> Template {
        Template(word | 1)
    }
    /// Word `index` (0 to 7) of any struct page of the frame.
    #[must_use]
    #[inline]
    pub const fn word(self, index: u8) -> u64 {
        match (self.0, index) {
            (2, _) => u64::MAX,
            (4, word::COUNT) => 0xffff_ffff,
            (t, word::COMPOUND_HEAD) if t & 1 != 0 => t,
            (t, word::MAPPING) if t & 1 != 0 => TAIL_MAPPING,
            (t, word::COUNT) if t & 1 != 0 => 0xffff_ffff,
            _ => 0,
        }
    }
    /// As one word, for storage; the inverse of `from_bits`.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }
    #[must_use]
    #[inline]
    pub const fn from_bits(bits: u64) -> Template {
        Template(bits)
    }
}
