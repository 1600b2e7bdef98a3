//! Any bytes as the arrays of a table image and what stands beside them: refused, or surveyed, walked, loaded as a live
//! machine, checked and dumped, and the dump read back.

use vmemmap_arch::tables::walk;
use vmemmap_arch::{Geometry, Granule, Layout, Level, Pa, Pfn, Va, Version, Zone};
use vmemmap_image::{ImageMeta, Ptdump, TableImage, TextWriter};
use vmemmap_kernel::ptdump::PtdumpSink;
use vmemmap_kernel::{Policies, Ram};
use vmemmap_lab::live::{HugepageRun, LiveMachine, RealMachine, RealSection, RealTables};

use crate::bytes::Bytes;

const GEOMETRIES: [(Granule, u32); 10] = [
    (Granule::K4, 48),
    (Granule::K64, 48),
    (Granule::K16, 47),
    (Granule::K4, 39),
    (Granule::K4, 52),
    (Granule::K16, 36),
    (Granule::K16, 48),
    (Granule::K16, 52),
    (Granule::K64, 42),
    (Granule::K64, 52),
];
const BASE: u64 = 1 << 30;

/// How far an input came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reached {
    /// Refused by `TableImage::new`.
    Arrays,
    /// Refused as a live machine.
    Image,
    /// Dumped, and the dump read back.
    Dump,
}

struct Arrays {
    meta: ImageMeta,
    pa: Vec<u64>,
    level: Vec<u8>,
    words: Vec<u64>,
    width: usize,
}

fn meta(input: &mut Bytes) -> ImageMeta {
    let (granule, va_bits) = GEOMETRIES[usize::from(input.byte()) % GEOMETRIES.len()];
    let geometry = Geometry::new(granule, va_bits).expect("a pair that arm64 has");
    let version = Version::ALL[usize::from(input.byte()) % 4];
    let (page, section) = (geometry.page_size(), geometry.section_size());
    let mut ram = vec![(Pa(BASE)..Pa(BASE + (1 + input.number(1) % 16) * section), true)];
    if input.rarely(2) {
        let start = ram[0].0.end.0 + input.number(1) * section;
        ram.push((Pa(start)..Pa(start + (1 + input.number(1) % 4) * section), input.rarely(4)));
    }
    if input.rarely(8) {
        // At most a terabyte: a machine has a few bits for each of its frames.
        ram.push((Pa(input.number(5) & !(page - 1))..Pa(input.number(5) & !(page - 1)), input.rarely(2)));
    }
    let mut meta = ImageMeta {
        geometry,
        version,
        root: Pa(BASE),
        memstart: BASE as i64,
        vmemmap: None,
        markers: Vec::new(),
        ram,
        blocks_online: None,
        blocks_kernel: Vec::new(),
        block_size: if input.rarely(4) { section << (input.byte() % 8) } else { 0 },
        hugepages: Vec::new(),
        hvo: input.rarely(2),
    };
    if input.rarely(8) {
        (meta.root, meta.memstart) = (Pa(input.number(6)), input.number(8) as i64);
    }
    if input.rarely(4) {
        let at = Va(u64::MAX << 40).plus(input.number(5) << geometry.page_shift());
        meta.vmemmap = Some(at..at.plus(input.number(4) << geometry.page_shift()));
    }
    for _ in 0..input.byte() % 4 {
        let names = [None, Some("vmemmap start"), Some("Kasan shadow end"), Some(""), Some("else")];
        meta.markers.push((Va(input.number(8)), names[usize::from(input.byte()) % 5].map(str::to_owned)));
    }
    if input.rarely(4) {
        meta.blocks_online = Some((0..input.byte() % 8).map(|_| input.number(2)).collect());
    }
    let (sizes, count) = geometry.hugetlb_sizes();
    for _ in 0..input.byte() % 4 {
        let pages = if input.rarely(8) { input.number(3) } else { sizes[usize::from(input.byte()) % count] };
        let head = geometry.pfn(Pa(BASE)).0 + input.number(1) * pages;
        meta.hugepages.push((if input.rarely(8) { input.number(8) } else { head }, pages));
    }
    meta
}

fn arrays(data: &[u8]) -> Arrays {
    let input = &mut Bytes(data);
    let meta = meta(input);
    let g = meta.geometry;
    let tables = 1 + usize::from(input.byte()) % 8;
    let width = if input.rarely(64) { 8 } else { g.entries() };
    let place = |i: usize| BASE + i as u64 * g.page_size();
    let mut pa: Vec<u64> = (0..tables).map(place).collect();
    let below = |level: i8, i: usize| (level + i as i8).min(3);
    let mut level: Vec<u8> = (0..tables).map(|i| below(g.top().0, i) as u8).collect();
    let mut words = vec![0u64; tables * width];
    let layout = Layout::new(g, meta.version, meta.memstart).ok();
    while !input.0.is_empty() {
        let table = usize::from(input.byte()) % tables;
        let entry = g.entries().min(width);
        let index = input.number(2) as usize % entry;
        let address = |n: u64| BASE + n * g.page_size();
        let attributes: u64 =
            [0x00e8_0000_0000_0701, 0x00e0_0000_0000_0781, 0x0060_0000_0000_0401, 0x00f8_0000_0000_0f01][table % 4];
        // With LPA2 these bits are of the output address.
        let attributes = if g.va_bits == 52 && g.granule != Granule::K64 { attributes & !0x300 } else { attributes };
        match input.byte() % 10 {
            0 => words[table * width + index] = place(usize::from(input.byte()) % tables) | 3,
            1 => words[table * width + index] = address(input.number(2)) | attributes | 2,
            2 => words[table * width + index] = address(input.number(1) << 9) | attributes,
            3 => words[table * width + index] = input.number(8),
            4 => words[table * width + index] ^= 1 << (input.byte() % 64),
            5 => {
                let (word, step) = (words[table * width + index], 1 + usize::from(input.byte()) % 3);
                words[table * width..][index..entry].iter_mut().step_by(step).for_each(|w| *w = word);
            }
            // The path to the struct page of some section, by the tables in their order.
            6 | 7 => {
                let Some(layout) = layout else { continue };
                let va = layout
                    .page_va(g.pfn(Pa(BASE + input.number(1) * g.section_size())))
                    .plus(input.number(1) * g.page_size());
                let leaf = Level((g.top().0 + (input.byte() % 5) as i8).min(3));
                for (i, at) in (g.top().0..=leaf.0).map(Level).enumerate().take(tables) {
                    let word = if at == leaf {
                        address(input.number(2)) | attributes | u64::from(at == Level::PTE) << 1
                    } else {
                        place(i + 1) | 3
                    };
                    if let Some(slot) = words.get_mut(i * width + usize::from(g.index(va, at))) {
                        *slot = word;
                    }
                }
            }
            8 => {
                pa[table] = if input.rarely(2) { input.number(6) } else { pa[table] + g.page_size() * input.number(1) }
            }
            _ => level[table] = input.byte() % 8,
        }
    }
    Arrays { meta, pa, level, words, width }
}

/// What ptdump notes, as the kernel's text.
struct Text(TextWriter<Vec<u8>>);

impl PtdumpSink for Text {
    fn marker(&mut self, name: &'static str) {
        self.0.marker(name);
    }
    fn range(&mut self, start: Va, end: Va, level: i8, prot: u64) {
        self.0.range(start, end, u8::try_from(level).unwrap_or(0), prot);
    }
}

pub fn run(data: &[u8]) -> Reached {
    let Arrays { meta, pa, level, words, width } = arrays(data);
    let descriptors = words.len();
    let image = match TableImage::new(meta, pa, &level, words, width) {
        Ok(image) => image,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            return Reached::Arrays;
        }
    };
    let meta = image.meta().clone();
    let sections = image.sections();
    for &(head, pages) in &meta.hugepages {
        let _ = image.hugepage_state(Pfn(head), pages);
    }
    let _ = image.linear_map();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..64 {
        seed = seed.wrapping_mul(0xd129_0d3b_3b6f_0a5d).wrapping_add(1);
        assert!(walk(&image, Va(seed)).is_some(), "every table that is named is there");
    }
    let machine = RealMachine {
        layout: *image.layout(),
        root: meta.root,
        ram: meta
            .ram
            .iter()
            .map(|(range, boot)| Ram { start: range.start, bytes: range.end.since(range.start), boot: *boot })
            .collect(),
        sections: sections
            .iter()
            .map(|s| RealSection {
                start: s.start,
                early: s.early,
                online: s.online.then_some(Zone::Movable),
                self_hosted: s.self_hosted,
            })
            .collect(),
        hugepages: HugepageRun::of(meta.hugepages.iter().map(|&(head, pages)| (Pfn(head), pages))),
        hvo: meta.hvo,
        extra_prot: image.vmemmap_extra_prot(),
    };
    let real = RealTables { machine, tables: image.tables().collect() };
    let live = match LiveMachine::load(&real, Policies::default(), data.len() % 2 == 1) {
        Ok(live) => live,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            return Reached::Image;
        }
    };
    let _ = live.check();
    let mut sink = Text(TextWriter::new(Vec::new(), meta.version, meta.geometry.levels));
    live.ptdump(&mut sink);
    let text = sink.0.finish().expect("memory takes everything");
    let dump = Ptdump::parse(&text).unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(&text)));
    assert_eq!(dump.print(), text);
    // A marker can cut a range in two.
    assert!(dump.depth().len() <= descriptors + 16, "{} ranges of {descriptors} descriptors", dump.depth().len());
    Reached::Dump
}
