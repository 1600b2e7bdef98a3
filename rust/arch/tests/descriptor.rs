//! Descriptors against kernel-semantics §1.2 to §1.4: composed values, 52-bit encodings, kinds, predicates.

use vmemmap_arch::descriptor::{PresentBit, mair, prot};
use vmemmap_arch::{Attr, Desc, Geometry, Granule, Kind, Level, OutputFormat, Pa, Template, Va};

fn geometry(granule: Granule, va_bits: u32) -> Geometry {
    Geometry::new(granule, va_bits).unwrap()
}

#[test]
fn composed_values_are_made_of_the_bits_that_the_kernel_names() {
    let default = Attr::VALID | Attr::TABLE_BIT | Attr::AF | Attr::SHARED;
    assert_eq!(default.bits(), 0x703);
    let normal = default | Attr::PXN | Attr::UXN | Attr::WRITE;
    assert_eq!(normal.bits(), 0x0068_0000_0000_0703);
    assert_eq!(prot::PAGE_KERNEL, (normal | Attr::DIRTY).bits());
    assert_eq!(prot::PAGE_KERNEL_RO, ((normal - Attr::WRITE) | Attr::RDONLY | Attr::DIRTY).bits());
    assert_eq!(prot::PAGE_KERNEL_ROX, ((normal - Attr::WRITE - Attr::PXN) | Attr::RDONLY | Attr::DIRTY).bits());
    assert_eq!(prot::PAGE_KERNEL_EXEC, ((normal - Attr::PXN) | Attr::DIRTY).bits());
    assert_eq!(prot::PAGE_KERNEL_EXEC | Attr::CONT.bits(), 0x00d8_0000_0000_0703);
    assert_eq!(prot::PAGE_KERNEL_TAGGED, prot::PAGE_KERNEL | mair::NORMAL_TAGGED << 2);
    let block = (default - Attr::TABLE_BIT) | Attr::PXN | Attr::UXN;
    assert_eq!(prot::PROT_SECT_NORMAL_6_1, block.bits());
    assert_eq!(prot::PROT_SECT_NORMAL_6_12, (block | Attr::WRITE).bits());
    assert_eq!(prot::TABLE, 3 | Attr::UXN_TABLE.bits());
    assert_eq!(prot::TABLE_LINEAR, prot::TABLE | Attr::PXN_TABLE.bits());
    assert_eq!(
        [mair::NORMAL, mair::NORMAL_TAGGED, mair::NORMAL_NC, mair::DEVICE_NGNRNE, mair::DEVICE_NGNRE],
        [0, 1, 2, 3, 4]
    );
}

#[test]
fn a_64k_descriptor_keeps_the_high_address_in_bits_15_to_12() {
    let g = geometry(Granule::K64, 52);
    assert_eq!(g.output_format(), OutputFormat::Lpa64K);
    let pa = Pa(0x000f_1234_5678_0000);
    let desc = g.descriptor(pa, prot::PAGE_KERNEL);
    assert_eq!(desc, Desc(0x00e8_1234_5678_f703));
    assert_eq!(g.output(desc), pa);
    assert_eq!(g.with_output(desc, Pa(0x1_0000)), Desc(0x00e8_0000_0001_0703));
}

#[test]
fn an_lpa2_descriptor_keeps_the_high_address_in_bits_9_to_8_and_no_shareability() {
    for granule in [Granule::K4, Granule::K16] {
        let g = geometry(granule, 52);
        assert_eq!(g.output_format(), OutputFormat::Lpa2);
        let pa = Pa(0x000e_1234_5678_0000);
        let desc = g.descriptor(pa, prot::PAGE_KERNEL);
        assert_eq!(desc, Desc(0x00ea_1234_5678_0703));
        assert_eq!(g.output(desc), pa);
        // Shareability comes from TCR: the bits of SH carry PA[51:50] only.
        assert_eq!(g.descriptor(Pa(0), prot::PAGE_KERNEL), Desc(0x00e8_0000_0000_0403));
        assert_eq!(g.with_output(desc, Pa(0)), Desc(0x00e8_0000_0000_0403));
    }
}

#[test]
fn an_address_survives_the_descriptor_in_every_format() {
    for (granule, va_bits, bits) in [
        (Granule::K4, 39, 48),
        (Granule::K4, 48, 48),
        (Granule::K4, 52, 52),
        (Granule::K16, 47, 48),
        (Granule::K16, 52, 52),
        (Granule::K64, 48, 48),
        (Granule::K64, 52, 52),
    ] {
        let g = geometry(granule, va_bits);
        for shift in g.page_shift()..bits {
            let pa = Pa(1 << shift);
            for attributes in [prot::PAGE_KERNEL, prot::PAGE_KERNEL_RO, prot::TABLE] {
                let desc = g.descriptor(pa, attributes);
                assert_eq!(g.output(desc), pa, "{granule:?}/{va_bits} bit {shift}");
                assert_eq!(desc.0 & !g.address_mask(), attributes & !g.address_mask());
            }
        }
    }
}

#[test]
fn a_descriptor_is_decoded_by_its_level() {
    let g = geometry(Granule::K4, 48);
    let at = |word: u64, level| g.kind(Desc(word), level);
    assert_eq!(at(0, Level::PTE), Kind::None);
    // `pte_none` looks at the whole word: a software bit alone is not none.
    assert_eq!(at(Attr::DIRTY.bits(), Level::PTE), Kind::Invalid);
    assert_eq!(at(0x4000_0000 | prot::PAGE_KERNEL, Level::PTE), Kind::Page(Pa(0x4000_0000)));
    assert_eq!(at(0x4000_0000 | prot::PROT_SECT_NORMAL_6_1, Level::PTE), Kind::Reserved);
    assert_eq!(at(0x4020_0000 | prot::PROT_SECT_NORMAL_6_1, Level::PMD), Kind::Block(Pa(0x4020_0000)));
    assert_eq!(at(0x4000_0000 | prot::PROT_SECT_NORMAL_6_1, Level::PUD), Kind::Block(Pa(0x4000_0000)));
    assert_eq!(at(0x4000_0000 | prot::PROT_SECT_NORMAL_6_1, Level::P4D), Kind::Reserved);
    assert_eq!(at(0x4000_1000 | prot::TABLE, Level::PMD), Kind::Table(Pa(0x4000_1000)));
    assert_eq!(at(0x4000_1000 | prot::TABLE, Level::P4D), Kind::Table(Pa(0x4000_1000)));
    let g64 = geometry(Granule::K64, 48);
    assert_eq!(g64.kind(Desc(prot::PROT_SECT_NORMAL_6_1), Level::PUD), Kind::Reserved);
}

/// 6.1 keeps PROT_NONE in bit 58; 6.12 means bit 0 clear and bit 11 set (§1.2).
#[test]
fn presence_is_what_that_kernel_calls_presence() {
    for bit in [PresentBit::PresentInvalid, PresentBit::ProtNone] {
        assert!(Desc(prot::PAGE_KERNEL).is_present(bit));
        assert!(!Desc::NONE.is_present(bit));
        assert_eq!(Desc(1 << 58).is_present(bit), bit == PresentBit::ProtNone);
        assert_eq!(Desc(1 << 11).is_present(bit), bit == PresentBit::PresentInvalid);
    }
}

#[test]
fn writable_and_the_barrier_predicate_read_the_bits_they_should() {
    assert!(Desc(prot::PAGE_KERNEL).is_writable());
    assert!(!Desc(prot::PAGE_KERNEL_RO).is_writable());
    assert!(Desc(prot::PROT_SECT_NORMAL_6_1).is_writable());
    assert!(Desc(prot::PAGE_KERNEL).is_valid_not_user());
    assert!(!Desc(prot::PAGE_KERNEL | Attr::USER.bits()).is_valid_not_user());
    assert!(!Desc(prot::PAGE_KERNEL & !Attr::UXN.bits()).is_valid_not_user());
    assert!(!Desc(prot::PAGE_KERNEL & !1).is_valid_not_user());
    assert!(Desc(prot::PROT_SECT_NORMAL_6_1).is_sect() && Desc(prot::TABLE).is_table_type());
}

#[test]
fn a_bit_is_set_once_and_a_block_is_told_by_its_type() {
    let page = Desc(prot::PAGE_KERNEL | 0x4000_0000);
    assert_eq!(page.with(Attr::AF), page, "it has the bit already");
    assert_eq!(page.without(Attr::AF).with(Attr::AF), page);
    for (word, table, sect) in [(0, false, false), (1, false, true), (2, false, false), (3, true, false)] {
        assert_eq!((Desc(word).is_table_type(), Desc(word).is_sect()), (table, sect), "{word}");
    }
}

/// Arm ARM, D8.3.1: what lies between the lowest address bit of the format and of the leaf, and above the highest, is
/// RES0 in a leaf; nT (bit 16) is not, in a block; NS (bit 5) is.
#[test]
fn reserved_bits_of_a_leaf_are_those_of_the_architecture() {
    let top = 0x3_0000_0000_0000u64;
    for (granule, va_bits, level, reserved) in [
        (Granule::K4, 48, 3, top),
        (Granule::K4, 48, 2, top | 0x1e_f000),
        (Granule::K4, 48, 1, top | 0x3ffe_f000),
        (Granule::K16, 48, 3, top | 0x3000),
        (Granule::K16, 48, 2, top | 0x1fe_f000),
        (Granule::K64, 48, 3, top | 0xf000),
        (Granule::K64, 48, 2, top | 0x1ffe_f000),
        (Granule::K64, 52, 3, top),
        (Granule::K64, 52, 2, top | 0x1ffe_0000),
        (Granule::K4, 52, 3, 0),
        (Granule::K4, 52, 2, 0x1e_f000),
    ] {
        let found = geometry(granule, va_bits).reserved_leaf_bits(Level(level));
        assert_eq!(found, reserved | 1 << 5, "{granule:?} {va_bits} level {level}: {found:#x}");
    }
}

#[test]
fn an_output_address_is_the_same_bit_by_bit() {
    for (granule, va_bits) in
        [(Granule::K4, 48), (Granule::K16, 48), (Granule::K64, 48), (Granule::K64, 52), (Granule::K4, 52)]
    {
        let g = geometry(granule, va_bits);
        let bits = g.output_bits();
        for bit in 0..64 {
            let desc = Desc(1 << bit);
            assert_eq!(bits.of(desc), g.output(desc), "{granule:?} {va_bits} bit {bit}");
        }
        let top = if va_bits == 52 { 52 } else { 48 };
        for pa in (granule.shift()..top).map(|bit| Pa(1 << bit)) {
            assert_eq!(bits.descriptor(pa, prot::PAGE_KERNEL), g.descriptor(pa, prot::PAGE_KERNEL), "{granule:?} {pa}");
        }
    }
}

/// `memmap_init`, `page_init_poison`, `prep_compound_tail` by word.
#[test]
fn a_template_gives_the_words_of_its_struct_pages() {
    let head = 0xffff_fdff_c000_0000;
    let words = |template: Template| [0, 1, 2, 3, 4, 5, 6, 7].map(|index| template.word(index));
    assert_eq!(words(Template::ZERO), [0; 8]);
    assert_eq!(words(Template::POISON), [u64::MAX; 8]);
    assert_eq!(words(Template::FREE), [0, 0, 0, 0, 0, 0, 0xffff_ffff, 0]);
    let tail = [0, head | 1, 0, 0xdead_0000_0000_0400, 0, 0, 0xffff_ffff, 0];
    assert_eq!(words(Template::tail_of(Va(head))), tail);
    assert_eq!(words(Template::tail(head | 1)), tail);
    assert_eq!(Template::from_bits(Template::tail_of(Va(head)).bits()), Template::tail_of(Va(head)));
}
