//! Contradictions in a table image are refused with the place named; a sound one is walked and surveyed.

use proptest::prelude::*;
use vmemmap_arch::descriptor::prot;
use vmemmap_arch::tables::walk;
use vmemmap_arch::{Attr, Geometry, Granule, Level, Pa, Pfn, TableView, Va, Version};
use vmemmap_image::diff::changed_elsewhere;
use vmemmap_image::{HugepageState, ImageError, ImageMeta, Shape, TableImage, VmemmapStyle};

const RAM: u64 = 0x4000_0000;
const ADDED: u64 = 0x8000_0000;
const ROOT: u64 = 0x4000_0000;

/// A 4K machine with 48 bits: two boot sections, one hot-added. Tables are added by what they map.
struct Builder {
    meta: ImageMeta,
    tables: Vec<(u64, u8, Vec<u64>)>,
}

impl Builder {
    fn new() -> Self {
        let geometry = Geometry::new(Granule::K4, 48).unwrap();
        let meta = ImageMeta {
            geometry,
            version: Version::V6_1,
            root: Pa(ROOT),
            memstart: RAM as i64,
            vmemmap: None,
            markers: Vec::new(),
            ram: vec![(Pa(RAM)..Pa(RAM + (256 << 20)), true), (Pa(ADDED)..Pa(ADDED + (256 << 20)), false)],
            blocks_online: Some(vec![8, 9, 16]),
            blocks_kernel: Vec::new(),
            block_size: 0,
            hugepages: Vec::new(),
            hvo: true,
        };
        Self { meta, tables: vec![(ROOT, 0, vec![0; 512])] }
    }

    /// Store a leaf for `va` at `level`, making the tables on the way.
    fn map(mut self, va: Va, level: Level, leaf: u64) -> Self {
        let g = self.meta.geometry;
        let mut at = 0;
        for l in (g.top().0..level.0).map(Level) {
            let index = usize::from(g.index(va, l));
            let word = self.tables[at].2[index];
            at = if word == 0 {
                let pa = ROOT + self.tables.len() as u64 * 0x1000;
                self.tables[at].2[index] = pa | prot::TABLE;
                self.tables.push((pa, l.next().0 as u8, vec![0; 512]));
                self.tables.len() - 1
            } else {
                ((g.output(vmemmap_arch::Desc(word)).0 - ROOT) >> 12) as usize
            };
        }
        self.tables[at].2[usize::from(g.index(va, level))] = leaf;
        self
    }

    fn page_va(&self, pfn: u64) -> Va {
        vmemmap_arch::Layout::new(self.meta.geometry, Version::V6_1, self.meta.memstart).unwrap().page_va(Pfn(pfn))
    }

    /// Boot sections by blocks, the first added section by base pages with its first 2M hugepage as `tail` says.
    fn machine(self, tail: impl Fn(u64) -> u64) -> Self {
        let block = |frame: u64| frame | prot::PROT_SECT_NORMAL_6_1;
        let (a, b, c) = (self.page_va(RAM >> 12), self.page_va((RAM >> 12) + 32768), self.page_va(ADDED >> 12));
        let mut built = self.map(a, Level::PMD, block(0x4400_0000)).map(b, Level::PMD, block(0x4420_0000));
        for i in 0..512 {
            let leaf = if i < 8 { tail(i) } else { private(i) };
            built = built.map(c.plus(i * 0x1000), Level::PTE, leaf);
        }
        built
    }

    fn build(self) -> Result<TableImage, ImageError> {
        let pa = self.tables.iter().map(|t| t.0).collect();
        let level = self.tables.iter().map(|t| t.1).collect::<Vec<_>>();
        let words = self.tables.into_iter().flat_map(|t| t.2).collect();
        TableImage::new(self.meta, pa, &level, words, 512)
    }
}

fn private(i: u64) -> u64 {
    (0x4500_0000 + i * 0x1000) | prot::PAGE_KERNEL
}
fn optimised(i: u64) -> u64 {
    if i == 0 { private(0) } else { 0x4500_0000 | prot::PAGE_KERNEL_RO }
}
fn optimised_2021(i: u64) -> u64 {
    if i < 2 { private(i) } else { 0x4500_1000 | prot::PAGE_KERNEL_RO }
}

#[test]
fn a_sound_image_is_walked_to_what_it_maps() {
    let image = Builder::new().machine(private).build().unwrap();
    let found = walk(&image, image.layout().page_va(Pfn(RAM >> 12)).plus(0x1040)).unwrap();
    assert_eq!((found.level, found.output), (Level::PMD, Some(Pa(0x4400_1040))));
    let found = walk(&image, image.layout().page_va(Pfn(ADDED >> 12)).plus(0x1040)).unwrap();
    assert_eq!((found.level, found.output), (Level::PTE, Some(Pa(0x4500_1040))));
    assert_eq!(walk(&image, Va(0xffff_8000_0000_0000)).unwrap().output, None);
    assert_eq!(image.word(Pa(ROOT + 0x10_0000), 0), None);
    assert_eq!(image.tables().count(), image.len());
}

#[test]
fn sections_are_told_by_what_the_tables_map() {
    let image = Builder::new().machine(private).build().unwrap();
    let sections = image.sections();
    let seen: Vec<_> =
        sections.iter().map(|s| (s.start.0, s.early, s.online, s.style, s.mapped, s.self_hosted)).collect();
    assert_eq!(
        seen,
        [
            (RAM, true, true, VmemmapStyle::Blocks, 512, false),
            (RAM + (128 << 20), true, true, VmemmapStyle::Blocks, 512, false),
            (ADDED, false, true, VmemmapStyle::BasePages, 512, false),
        ]
    );
    assert_eq!(image.vmemmap_style(), VmemmapStyle::Blocks);
}

#[test]
fn a_block_that_holds_its_own_struct_pages_is_recognised() {
    let builder = Builder::new();
    let va = builder.page_va(ADDED >> 12);
    let image = builder.map(va, Level::PMD, ADDED | prot::PROT_SECT_NORMAL_6_1).build().unwrap();
    assert!(image.sections()[0].self_hosted);
}

#[test]
fn the_state_of_a_hugepage_is_read_from_the_tables() {
    for (tail, expected) in [
        (private as fn(u64) -> u64, HugepageState::Private),
        (optimised, HugepageState::OneReserved),
        (optimised_2021, HugepageState::TwoReserved),
        (|i| if i == 5 { 0 } else { private(i) }, HugepageState::Torn),
        (|i| if i == 5 { private(5) } else { optimised(i) }, HugepageState::Torn),
    ] {
        let image = Builder::new().machine(tail).build().unwrap();
        assert_eq!(image.hugepage_state(Pfn(ADDED >> 12), 512), expected);
        assert_eq!(image.hugepage_state(Pfn((ADDED >> 12) + 512), 512), HugepageState::Private);
        assert_eq!(image.hugepage_state(Pfn(RAM >> 12), 512), HugepageState::Private, "behind a block");
        assert_eq!(image.hugepage_state(Pfn(ADDED >> 12), 16), HugepageState::Private, "less than one vmemmap page");
    }
}

#[test]
fn attributes_of_a_boot_option_are_found_on_existing_leaves() {
    let ng = Attr::NG.bits();
    assert_eq!(Builder::new().machine(private).build().unwrap().vmemmap_extra_prot(), 0);
    let builder = Builder::new();
    let va = builder.page_va(RAM >> 12);
    let image = builder.map(va, Level::PMD, 0x4400_0000 | prot::PROT_SECT_NORMAL_6_1 | ng).build().unwrap();
    assert_eq!(image.vmemmap_extra_prot(), ng);
}

#[test]
fn the_linear_map_is_told_apart_by_its_leaves() {
    let linear = 0xffff_0000_0000_0000u64;
    let boot = Builder::new().map(Va(linear), Level::PMD, RAM | 0x00f8_0000_0000_0701);
    let image = boot.map(Va(linear + ADDED - RAM), Level::PTE, ADDED | prot::PAGE_KERNEL_TAGGED).build().unwrap();
    let map = image.linear_map();
    assert!(map.blocks && map.contiguous);
    assert_eq!(map.hot_added_prot, Some(prot::PAGE_KERNEL_TAGGED));
}

#[test]
fn hot_added_ram_is_mapped_as_it_was_before_and_never_as_kernel_text_is() {
    const RW_BLOCK: u64 = 0x00f8_0000_0000_0701;
    let linear = 0xffff_0000_0000_0000u64;
    let boot = |block: u64| Builder::new().map(Va(linear), Level::PMD, RAM | block);
    let added = Va(linear + ADDED - RAM);
    let with = |b: Builder| b.build().unwrap().linear_map();
    assert!(with(boot(RW_BLOCK)).hot_adds_blocks);
    let text = with(boot(RW_BLOCK | Attr::RDONLY.bits()));
    assert!(text.blocks && !text.hot_adds_blocks, "the alias of kernel text");
    let page = |bits: u64| with(boot(RW_BLOCK).map(added, Level::PTE, ADDED | prot::PAGE_KERNEL_TAGGED | bits));
    assert!(!page(0).hot_adds_blocks, "a page where a block had fitted");
    assert!(page(Attr::CONT.bits()).hot_adds_blocks, "contiguous pages");
    assert!(with(boot(RW_BLOCK | Attr::RDONLY.bits()).map(added, Level::PMD, ADDED | RW_BLOCK)).hot_adds_blocks);
}

fn refused(change: impl FnOnce(&mut Builder)) -> ImageError {
    let mut builder = Builder::new().machine(private);
    change(&mut builder);
    builder.build().expect_err("a contradiction")
}

#[test]
fn addresses_must_be_aligned_sorted_and_inside_ram() {
    assert!(matches!(refused(|b| b.tables[3].0 |= 0x40), ImageError::Misaligned { table: 3, .. }));
    assert!(matches!(refused(|b| b.tables[3].0 = b.tables[2].0), ImageError::Unsorted { table: 3, .. }));
    assert!(matches!(refused(|b| b.tables.swap(1, 2)), ImageError::Unsorted { table: 2, .. }));
    assert!(matches!(refused(|b| b.tables[3].0 = 0x3_0000_0000), ImageError::OutsideRam { .. }));
    assert!(matches!(refused(|b| b.tables.last_mut().unwrap().0 = 1 << 50), ImageError::TooHigh { va_bits: 48, .. }));
}

#[test]
fn levels_must_exist_and_agree_with_the_links() {
    assert!(matches!(refused(|b| b.tables[2].1 = 4), ImageError::Level { table: 2, level: 4, .. }));
    assert!(matches!(refused(|b| b.tables[2].1 = 255), ImageError::Level { table: 2, level: 255, .. }));
    let error = refused(|b| b.tables[2].1 = 3);
    assert!(matches!(error, ImageError::WrongLevel { table: 1, found: 3, .. }), "{error}");
}

#[test]
fn the_root_must_be_there_and_of_the_top_level() {
    assert!(matches!(refused(|b| b.meta.root = Pa(ROOT + 0x10_0000)), ImageError::NoRoot { .. }));
    let error = refused(|b| b.meta.root = Pa(b.tables[1].0));
    assert!(matches!(error, ImageError::RootLevel { found: 1, expected: 0, .. }), "{error}");
    assert!(matches!(
        refused(|b| b.meta.geometry = Geometry::new(Granule::K4, 39).unwrap()),
        ImageError::Level { table: 0, .. }
    ));
}

#[test]
fn a_link_to_a_page_that_is_missing_names_the_table_the_descriptor_and_the_page() {
    let error = refused(|b| b.tables[0].2[7] = 0x4abc_d000 | prot::TABLE);
    let text = error.to_string();
    assert!(matches!(error, ImageError::MissingTable { table: 0, index: 7, next: Pa(0x4abc_d000), .. }));
    for part in ["table 0", "descriptor 7", "0x000000004abcd000"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn arrays_of_another_granule_or_of_unequal_length_are_refused() {
    let meta = Builder::new().meta;
    let granule = TableImage::new(meta.clone(), vec![ROOT], &[0], vec![0; 8192], 8192).unwrap_err();
    assert!(matches!(granule, ImageError::Granule { found: 8192, expected: 512, .. }));
    assert!(matches!(
        TableImage::new(meta.clone(), vec![ROOT], &[0, 1], vec![0; 512], 512),
        Err(ImageError::Shape { .. })
    ));
    assert!(matches!(
        TableImage::new(meta.clone(), vec![ROOT], &[0], vec![0; 511], 512),
        Err(ImageError::Shape { .. })
    ));
    assert!(matches!(TableImage::new(meta, vec![], &[], vec![], 512), Err(ImageError::Empty)));
}

#[test]
fn hugepages_must_be_of_a_size_aligned_inside_ram_and_apart() {
    let head = ADDED >> 12;
    for pages in [
        vec![(head, 511)],
        vec![(head + 1, 512)],
        vec![(0x10_0000, 512)],
        vec![(head, 512), (head, 16)],
        vec![(u64::MAX - 511, 512)],
    ] {
        let error = refused(|b| b.meta.hugepages = pages.clone());
        assert!(matches!(error, ImageError::Hugepage { .. }), "{pages:?}: {error}");
    }
    let mut sound = Builder::new().machine(private);
    sound.meta.hugepages = vec![(head, 512), (head + 512, 512), (head + 1024, 16)];
    assert_eq!(sound.build().map(drop), Ok(()));
}

#[test]
fn metadata_that_contradicts_the_layout_is_refused() {
    assert!(matches!(refused(|b| b.meta.memstart = 0x1000), ImageError::Memstart { .. }));
    assert!(matches!(refused(|b| b.meta.vmemmap = Some(Va(0)..Va(0x20_0000))), ImageError::Vmemmap { .. }));
    assert!(matches!(
        refused(|b| b.meta.markers = vec![(Va(0), Some("nonsense".into()))]),
        ImageError::Marker { index: 0, .. }
    ));
    assert!(matches!(refused(|b| b.meta.markers = vec![(Va(0), None); 17]), ImageError::Markers { found: 17, .. }));
    assert!(matches!(refused(|b| b.meta.ram[0].0 = Pa(8)..Pa(0)), ImageError::Ram { .. }));
    assert!(matches!(refused(|b| b.meta.ram.push((Pa(RAM)..Pa(RAM + 0x1000), true))), ImageError::RamOverlap { .. }));
    assert!(matches!(refused(|b| b.meta.ram.push((Pa(1 << 51)..Pa(1 << 52), false))), ImageError::RamSpan { .. }));
    assert!(matches!(refused(|b| b.meta.block_size = 3), ImageError::BlockSize { bytes: 3 }));
}

/// One table of each level, every descriptor of which is the same table below: four pages that map 2^36 pages.
fn used_again_and_again(builder: &mut Builder, leaf: impl Fn(u64) -> u64) {
    builder.tables = (0..4u64)
        .map(|level| {
            let entry = |i| if level == 3 { leaf(i) } else { (ROOT + (level + 1) * 0x1000) | prot::TABLE };
            (ROOT + level * 0x1000, level as u8, (0..512).map(entry).collect())
        })
        .collect();
}

#[test]
fn tables_used_so_often_that_their_dump_fits_nowhere_are_refused() {
    let mixed = |i| if i % 2 == 0 { private(i) } else { 0 };
    assert!(matches!(refused(|b| used_again_and_again(b, mixed)), ImageError::Read { .. }));
    let error = refused(|b| {
        used_again_and_again(b, mixed);
        b.tables[0].2[1..].fill(0);
    });
    assert!(matches!(error, ImageError::Ranges { ranges: 134_217_729, descriptors: 2048 }), "{error}");
}

/// As KASAN's early shadow is.
#[test]
fn a_uniform_table_may_be_used_at_many_places() {
    let mut builder = Builder::new();
    used_again_and_again(&mut builder, |_| private(0));
    builder.tables[0].2[1..].fill(0);
    assert!(builder.build().is_ok());
}

/// Loading a 6.1 kernel's tables with the behaviour of 6.12 must not move its vmemmap.
#[test]
fn the_image_own_vmemmap_range_stands_above_that_of_the_version() {
    let mut builder = Builder::new().machine(private);
    builder.meta.vmemmap = Some(Va(0xffff_fc00_0000_0000)..Va(0xffff_fe00_0000_0000));
    builder.meta.version = Version::V6_12;
    let image = builder.build().unwrap();
    assert_eq!(image.layout().vmemmap_start, Va(0xffff_fc00_0000_0000));
    assert_eq!(image.sections().len(), 3);
}

proptest! {
    #[test]
    fn an_image_with_words_changed_is_refused_or_surveyed_to_the_end(
        changes in proptest::collection::vec((0usize..4, 0usize..512, any::<u64>(), any::<u64>()), 1..6),
    ) {
        let mut builder = Builder::new().machine(optimised);
        for (table, index, word, keep) in changes {
            // Some of the old bits stay, so that not every change is a link to nowhere.
            let old = builder.tables[table].2[index];
            builder.tables[table].2[index] = old & keep | word & !keep & 0xfff0_0000_0000_0fff;
        }
        builder.meta.hugepages = vec![(ADDED >> 12, 512)];
        if let Ok(image) = builder.build() {
            let sections = image.sections();
            prop_assert!(sections.len() <= 4);
            prop_assert!(sections.iter().all(|s| s.mapped <= 512));
            let _ = (image.hugepage_state(Pfn(ADDED >> 12), 512), image.linear_map(), image.vmemmap_extra_prot());
        }
    }
}

/// 2021 keeps a second page, writable; 7.x has the zone's frame there, read-only.
#[test]
fn tails_of_a_zone_are_read_only_from_the_second_page_on() {
    let zone = |i: u64| if i == 0 { private(0) } else { 0x4500_1000 | prot::PAGE_KERNEL_RO };
    let has = |tail: fn(u64) -> u64| Shape::of_image(&Builder::new().machine(tail).build().unwrap()).has_zone_tails();
    assert_eq!([private, optimised, optimised_2021].map(has), [false; 3]);
    assert!(has(zone));
}

#[test]
fn an_address_is_in_a_block_or_in_none() {
    let image = Builder::new().machine(private).build().unwrap();
    let shape = Shape::of_image(&image);
    let va = |pfn: u64| image.layout().page_va(Pfn(pfn));
    let block = 0x4400_0000 | prot::PROT_SECT_NORMAL_6_1;
    for at in [0, 0x1040, 0x1f_ffff] {
        assert_eq!(shape.block_at(va(RAM >> 12).plus(at)), Some((block, at)));
    }
    assert_eq!(shape.block_at(va(ADDED >> 12)), None, "a table of pages");
    assert_eq!(shape.block_at(va((RAM >> 12) + 2 * 32768)), None, "nothing");
}

#[test]
fn what_differs_outside_vmemmap_is_counted_table_by_table() {
    let plain = Builder::new().machine(private).build().unwrap();
    let layout = plain.layout();
    let linear = |n: u64| layout.linear_va(Pa(RAM)).plus(n * 0x1000);
    let leaf = |n: u64| (RAM + n * 0x1000) | prot::PAGE_KERNEL;
    let mapped = |builder: Builder| (0..8).fold(builder.machine(private), |b, n| b.map(linear(n), Level::PTE, leaf(n)));
    let image = |change: &[u64]| {
        let changed = |b: Builder, n: &u64| b.map(linear(*n), Level::PTE, leaf(*n) | prot::PAGE_KERNEL_RO);
        change.iter().fold(mapped(Builder::new()), changed).build().unwrap()
    };
    for change in [&[][..], &[3], &[0, 7], &[1, 2, 3]] {
        assert_eq!(changed_elsewhere(&image(&[]), &image(change)), change.len() as u64, "{change:?}");
    }
}
