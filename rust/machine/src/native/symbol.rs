//! Contents of a frame as one word, while that is possible: a template, or the vmemmap page that a compound page begins
//! with, whose first three struct pages differ from the tails after them in a few fields.
//!
//! So a hugepage's head costs eight bytes of the host, not a page. What a field cannot hold is no symbol, and the frame
//! gets words of its own. A third kind of word is no contents at all: the link of a frame that is on a `FrameList`,
//! which nobody maps any more.
//!
//! | bits | template of tails | head | link |
//! |---|---|---|---|
//! | 63, 62 | 1, any | 0, 0 | 0, 1 |
//! | 51–15 | of the `compound_head` word | the same | |
//! | 61–52, 14–1 | of that word | fields | |
//! | 31–0 | of that word | bit 0 is set | the neighbours |
//!
//! The templates that need no word (`ZERO`, `POISON`, `FREE`) are known by `Contents` and are symbols by their own
//! bits.

use vmemmap_arch::Template;
use vmemmap_arch::contents::{TAIL_MAPPING, word};

/// See the module documentation. Equal symbols are equal contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Symbol(u64);

/// Bits of a `compound_head` word that a head keeps; of the others those below, but bit 0, are clear, and those above
/// are set.
const KEPT: u64 = ((1 << 52) - 1) & !LOW;
const LOW: u64 = (1 << 15) - 1;
const HIGH: u64 = !(KEPT | LOW);

const NOT_HEAD: u64 = 3 << 62;
const LINK: u64 = 1 << 62;
const TAILS: u64 = 1 << 63;

/// A field of a head: its first bit, and how many it has.
#[derive(Clone, Copy)]
struct Field(u32, u32);

impl Field {
    const fn most(self) -> u64 {
        (1 << self.1) - 1
    }
}

/// The bits of all fields. Where they are clear a head reads as the template does, and is written as that.
const FIELDS: u64 = 0x3fff << 1 | 0x3ff << 52;

/// Bits of `FLAGS` that are kept, in this order.
const FLAG_BITS: [u32; 3] = [1, 16, 22];
const FLAGS: Field = Field(1, 3);
/// Of the first three struct pages: whether `MAPPING` is 0.
const UNMAPPED: Field = Field(4, 3);
/// Whether `COMPOUND_HEAD` is 0.
const IS_HEAD: Field = Field(7, 1);
const PRIVATE: Field = Field(8, 6);
/// Whether the low half of `COUNT` is the type of a HugeTLB page (`PGTY_hugetlb`); else it is all ones.
const TYPED: Field = Field(14, 1);
const REFERENCES: Field = Field(52, 3);
/// `COMPOUND_INFO` of the second struct page: the destructor in the low byte, the order in the next.
const ORDER: Field = Field(55, 5);
const DESTRUCTOR: Field = Field(60, 2);

const UNTYPED_COUNT: u64 = 0xffff_ffff;
const TYPED_COUNT: u64 = 0xf4ff_ffff;

impl Symbol {
    /// `None`: no tail's word of kernel addresses, and the frame needs words.
    #[inline]
    pub const fn of(template: Template) -> Option<Self> {
        let own = template.bits() & TAILS != 0;
        if own || matches!(template, Template::ZERO | Template::POISON | Template::FREE) {
            Some(Self(template.bits()))
        } else {
            None
        }
    }
    /// From a frame's symbol word, where its contents are `Other`; `None` if that is a link.
    #[inline]
    pub const fn stored(bits: u64) -> Option<Self> {
        if bits & NOT_HEAD == LINK { None } else { Some(Self(bits)) }
    }
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }
    /// The template, if all struct pages are equal.
    #[inline]
    pub const fn template(self) -> Option<Template> {
        if self.is_head() { None } else { Some(Template::from_bits(self.0)) }
    }
    /// That of all struct pages but the first three.
    #[inline]
    pub const fn tails(self) -> Template {
        Template::from_bits(if self.is_head() { self.0 & KEPT | HIGH | 1 } else { self.0 })
    }
    const fn is_head(self) -> bool {
        self.0 & NOT_HEAD == 0 && self.0 & 1 != 0
    }
    /// A head whose fields are all clear, which reads as the template does.
    const fn as_head(self) -> Option<u64> {
        if self.is_head() {
            return Some(self.0);
        }
        if self.0 & TAILS != 0 && self.0 & LOW == 1 && self.0 & HIGH == HIGH { Some(self.0 & KEPT | 1) } else { None }
    }
    #[inline]
    const fn get(self, field: Field) -> u64 {
        self.0 >> field.0 & field.most()
    }
    /// With that field; as a template if no struct page differs any more.
    #[inline]
    const fn with(head: u64, field: Field, value: u64) -> Option<Self> {
        if value > field.most() {
            return None;
        }
        let new = head & !(field.most() << field.0) | value << field.0;
        Some(Self(if new & FIELDS == 0 { new | HIGH } else { new }))
    }

    /// Word `index` of the frame: of struct page `index / 8` the word `index % 8`.
    #[inline]
    pub fn word(self, index: u64) -> u64 {
        let (page, word) = (index / 8, (index % 8) as u8);
        if page > 2 || !self.is_head() {
            return self.tails().word(word);
        }
        match (page, word) {
            (0, word::FLAGS) => (0..).zip(FLAG_BITS).map(|(n, bit)| (self.get(FLAGS) >> n & 1) << bit).sum(),
            (0, word::COMPOUND_HEAD) if self.get(IS_HEAD) != 0 => 0,
            (0, word::PRIVATE) => self.get(PRIVATE),
            (0, word::COUNT) => {
                self.get(REFERENCES) << 32 | if self.get(TYPED) != 0 { TYPED_COUNT } else { UNTYPED_COUNT }
            }
            (1, word::COMPOUND_INFO) => self.get(ORDER) << 8 | self.get(DESTRUCTOR),
            (_, word::MAPPING) if self.get(UNMAPPED) >> page & 1 != 0 => 0,
            _ => self.tails().word(word),
        }
    }
    /// The contents after a store to that word; `None` if no symbol has them.
    #[inline]
    pub fn with_word(self, index: u64, value: u64) -> Option<Self> {
        if self.word(index) == value { Some(self) } else { self.with_other(index, value) }
    }
    /// The same of a value that differs from what is there.
    #[inline]
    pub fn with_other(self, index: u64, value: u64) -> Option<Self> {
        let head = self.as_head()?;
        let (page, word) = (index / 8, (index % 8) as u8);
        match (page, word) {
            (0, word::FLAGS) => {
                let flags = (0..).zip(FLAG_BITS).map(|(n, bit)| (value >> bit & 1) << n).sum();
                Self::with(head, FLAGS, flags).filter(|new| new.word(index) == value)
            }
            (0, word::COMPOUND_HEAD) if value == 0 => Self::with(head, IS_HEAD, 1),
            (0, word::COMPOUND_HEAD) if value == Symbol(head).tails().bits() => Self::with(head, IS_HEAD, 0),
            (0, word::PRIVATE) => Self::with(head, PRIVATE, value),
            (0, word::COUNT) => {
                let typed = match value & 0xffff_ffff {
                    UNTYPED_COUNT => 0,
                    TYPED_COUNT => 1,
                    _ => return None,
                };
                let counted = Self::with(head, REFERENCES, value >> 32)?;
                Self::with(counted.as_head()?, TYPED, typed)
            }
            (1, word::COMPOUND_INFO) => {
                let ordered = Self::with(head, ORDER, value >> 8)?;
                Self::with(ordered.as_head()?, DESTRUCTOR, value & 0xff)
            }
            (0..=2, word::MAPPING) => {
                let zero = match value {
                    0 => 1,
                    TAIL_MAPPING => 0,
                    _ => return None,
                };
                let others = Symbol(head).get(UNMAPPED) & !(1 << page);
                Self::with(head, UNMAPPED, others | zero << page)
            }
            _ => None,
        }
    }
}

/// The link of a frame between two others of its list, or of one at an end: itself stands for the neighbour that it has
/// not. From one neighbour the link gives the other.
#[inline]
pub const fn link(previous: u64, next: u64) -> u64 {
    LINK | (previous ^ next) & 0xffff_ffff
}
/// The neighbour on the other side.
#[inline]
pub const fn across(link: u64, neighbour: u64) -> u64 {
    (link ^ neighbour) & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vmemmap_arch::Va;

    use super::*;

    const WORDS: u64 = 512;

    /// Values that the kernel stores, and some that it does not.
    fn value(tail: u64) -> impl Strategy<Value = u64> {
        prop_oneof![
            Just(0),
            Just(tail),
            Just(TAIL_MAPPING),
            Just(UNTYPED_COUNT),
            Just(TYPED_COUNT),
            Just(1 << 32 | UNTYPED_COUNT),
            Just(1 << 16),
            Just(1 << 16 | 1 << 22 | 1 << 1),
            0..0x1000u64,
            any::<u64>(),
        ]
    }
    fn tail() -> impl Strategy<Value = u64> {
        prop_oneof![
            (0u64..1 << 36).prop_map(|n| 0xfff0_0000_0000_0001 | n << 15),
            Just(0xffff_ffff_ffff_8001),
            Just(0xffff_fc00_0000_1001),
        ]
    }

    proptest! {
        /// As long as there is a symbol it reads as words would that the same stores were made to.
        #[test]
        fn a_symbol_reads_as_the_words_that_were_stored(
            (tail, stores) in tail().prop_flat_map(|tail| {
                (Just(tail), prop::collection::vec((0..40u64, value(tail)), 0..40))
            })
        ) {
            let template = Template::tail(tail);
            let mut symbol = Symbol::of(template).unwrap();
            let mut words: Vec<u64> = (0..WORDS).map(|i| template.word((i & 7) as u8)).collect();
            for (index, value) in stores {
                let Some(new) = symbol.with_word(index, value) else { continue };
                prop_assert_eq!(Symbol::stored(new.bits()), Some(new));
                prop_assert_ne!(new.bits(), 0);
                symbol = new;
                words[index as usize] = value;
                let read: Vec<u64> = (0..WORDS).map(|i| symbol.word(i)).collect();
                prop_assert_eq!(&read, &words);
                let equal = words.chunks(8).all(|page| page == &words[24..32]);
                prop_assert_eq!(symbol.template().is_some(), equal);
            }
        }
        #[test]
        fn a_link_gives_one_neighbour_from_the_other(a in any::<u32>(), b in any::<u32>()) {
            let (a, b) = (u64::from(a), u64::from(b));
            prop_assert_eq!((across(link(a, b), a), across(link(a, b), b)), (b, a));
            prop_assert_eq!(Symbol::stored(link(a, b)), None);
        }
    }

    #[test]
    fn a_head_of_each_kernel_is_a_symbol() {
        let head = Va(0xffff_fc00_1234_8000);
        for (tail, mark) in [(head.0 | 1, None), (!0 << 15 | 1, Some(TYPED_COUNT))] {
            let mut symbol = Symbol::of(Template::tail(tail)).unwrap();
            let mut store = |page: u64, word: u8, value| {
                symbol = symbol.with_word(page * 8 + u64::from(word), value).unwrap();
                assert_eq!(symbol.word(page * 8 + u64::from(word)), value);
            };
            store(1, word::COMPOUND_INFO, 9 << 8 | 1);
            store(0, word::MAPPING, 0);
            store(0, word::FLAGS, 1 << 16);
            store(0, word::COMPOUND_HEAD, 0);
            store(1, word::COMPOUND_INFO, 9 << 8 | 2);
            store(0, word::PRIVATE, 0b11000);
            store(0, word::COUNT, mark.unwrap_or(1 << 32 | UNTYPED_COUNT));
            assert_eq!((symbol.template(), symbol.tails()), (None, Template::tail(tail)));
        }
    }

    #[test]
    fn what_has_no_symbol_says_so() {
        assert_eq!(Symbol::of(Template::tail(0x1000)), None);
        let free = Symbol::of(Template::FREE).unwrap();
        assert_eq!((free.with_word(6, UNTYPED_COUNT), free.with_word(6, 0)), (Some(free), None));
    }
}
