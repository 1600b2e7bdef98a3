//! A table image: the words of every table page of a kernel, by physical address, as a capture or a vmcore holds them.
//! Verified when built, unless taken as `damaged`; the error names the table and the descriptor. What the tables then
//! mean is `survey`'s affair.

use core::ops::Range;

use vmemmap_arch::descriptor::prot::TABLE_AF;
use vmemmap_arch::layout::{LayoutError, MARKER_NAMES, MAX_MARKERS, Marker};
use vmemmap_arch::{Desc, Geometry, Kind, Layout, Level, Pa, TableView, Va, Version};

/// What is known of the kernel beside its tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageMeta {
    pub geometry: Geometry,
    pub version: Version,
    /// Physical address of `swapper_pg_dir`.
    pub root: Pa,
    /// `memstart_addr`.
    pub memstart: i64,
    /// VMEMMAP_START and VMEMMAP_END where they differ from the layout of `version` (behaviour of another kernel).
    pub vmemmap: Option<Range<Va>>,
    /// ptdump's markers in its order, the nameless terminator included. Empty: those of the layout.
    pub markers: Vec<(Va, Option<String>)>,
    /// RAM of the machine, plugged or not; `true` if present at boot.
    pub ram: Vec<(Range<Pa>, bool)>,
    /// Memory blocks that are online, by number (`/sys/devices/system/memory/memoryN`). `None`: every present one.
    pub blocks_online: Option<Vec<u64>>,
    /// Those of them that were added and are online in a zone of the kernel's, by number, sorted; the others are
    /// movable.
    pub blocks_kernel: Vec<u64>,
    /// `memory_block_size_bytes`; 0: one section.
    pub block_size: u64,
    /// HugeTLB pages: PFN of the head and length in base pages.
    pub hugepages: Vec<(u64, u64)>,
    /// `vm.hugetlb_optimize_vmemmap`.
    pub hvo: bool,
}

/// Why arrays are no image. Tables are numbered from 0 as in the arrays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error(
        "{pa} addresses, {level} levels and {words} words of tables: expected one level and {width} words for each \
            address"
    )]
    Shape { pa: usize, level: usize, words: usize, width: usize },
    #[error("a row of words has {found} descriptors, but a {granule} table has {expected}: wrong granule")]
    Granule { found: usize, granule: &'static str, expected: usize },
    #[error("no table page at all")]
    Empty,
    #[error("table {table} is at {pa}, which is no multiple of {granule}")]
    Misaligned { table: usize, pa: Pa, granule: &'static str },
    #[error("table {table} is at {pa}, above the highest address that {va_bits}-bit tables can name")]
    TooHigh { table: usize, pa: Pa, va_bits: u32 },
    #[error(
        "table {table} at {pa} is not above the one before it, at {previous}: addresses must be sorted and distinct"
    )]
    Unsorted { table: usize, pa: Pa, previous: Pa },
    #[error("table {table} at {pa} has level {level}: expected {top} to 3")]
    Level { table: usize, pa: Pa, level: u8, top: i8 },
    #[error("root {root} is not among the {tables} table pages")]
    NoRoot { root: Pa, tables: usize },
    #[error(
        "root {root} is a level {found} table: {granule} pages and {va_bits} bits have their root at level {expected}"
    )]
    RootLevel { root: Pa, found: i8, expected: i8, granule: &'static str, va_bits: u32 },
    #[error(
        "table {table} at {pa} (level {level}), descriptor {index} ({desc}): its next table {next} is not in the image"
    )]
    MissingTable { table: usize, pa: Pa, level: i8, index: usize, desc: Desc, next: Pa },
    #[error(
        "table {table} at {pa} (level {level}), descriptor {index} ({desc}): its next table {next} is of level {found}"
    )]
    WrongLevel { table: usize, pa: Pa, level: i8, index: usize, desc: Desc, next: Pa, found: i8 },
    #[error(
        "a dump of the tables would have {ranges} ranges, more than they have descriptors ({descriptors}): tables are \
            used again and again"
    )]
    Ranges { ranges: u64, descriptors: usize },
    #[error("a walk of the tables would read {read} descriptors, more than {most}: tables are used again and again")]
    Read { read: u64, most: u64 },
    #[error("table {table} at {pa} is outside every range of RAM")]
    OutsideRam { table: usize, pa: Pa },
    #[error("{granule} pages and 52 bits need LPA2, which {version} does not have")]
    Layout { granule: &'static str, version: &'static str },
    #[error("vmemmap_start {start} and vmemmap_end {end} are no range of kernel addresses")]
    Vmemmap { start: Va, end: Va },
    #[error("memstart {memstart:#x} is no multiple of a section")]
    Memstart { memstart: i64 },
    #[error("RAM {start}-{end} is empty, unaligned, or above 52 bits")]
    Ram { start: Pa, end: Pa },
    #[error("RAM {start}-{end} overlaps the range before it")]
    RamOverlap { start: Pa, end: Pa },
    #[error("RAM spans {frames} frames: at most 2^32 are modelled")]
    RamSpan { frames: u64 },
    #[error("hugepage at PFN {pfn:#x} of {pages} base pages: {why}")]
    Hugepage { pfn: u64, pages: u64, why: &'static str },
    #[error("marker {index} at {start} has the unknown name `{name}`")]
    Marker { index: usize, start: Va, name: String },
    #[error(
        "{with} of {tables} table descriptors have bit 10 set, as 7.2 and 7.3 write them and no kernel before: \
            these are not the tables of {version}"
    )]
    Seven { with: usize, tables: usize, version: &'static str },
    #[error("no table descriptor has bit 10 set, which 7.2 and 7.3 set: these are not the tables of {version}")]
    BeforeSeven { version: &'static str },
    #[error("{found} markers: a layout has at most {most}")]
    Markers { found: usize, most: usize },
    #[error("memory block size {bytes:#x} is no power of two of at least a section")]
    BlockSize { bytes: u64 },
}

/// Verified tables of one kernel.
#[derive(Clone, Debug)]
pub struct TableImage {
    meta: ImageMeta,
    layout: Layout,
    pa: Vec<u64>,
    level: Vec<i8>,
    words: Vec<u64>,
}

impl TableImage {
    /// Build from the arrays of a capture: `pa` sorted, `level` in the Arm ARM's numbers (a 5-level root is 255, as a
    /// byte holds -1), `words` row by row with `width` descriptors to a row.
    ///
    /// # Errors
    /// `ImageError`, the first contradiction found.
    pub fn new(meta: ImageMeta, pa: Vec<u64>, level: &[u8], words: Vec<u64>, width: usize) -> Result<Self, ImageError> {
        let image = Self::damaged(meta, pa, level, words, width)?;
        image.verify_places()?;
        image.verify_links()?;
        Ok(image)
    }

    /// The same of tables that may be damaged: only what makes the arrays no image at all is refused. Whether the
    /// tables make a tree is left to a checker: `walk` ends where a table is missing.
    ///
    /// # Errors
    /// `ImageError`, the first contradiction found.
    pub fn damaged(
        meta: ImageMeta,
        pa: Vec<u64>,
        level: &[u8],
        words: Vec<u64>,
        width: usize,
    ) -> Result<Self, ImageError> {
        let g = meta.geometry;
        if width != g.entries() {
            return Err(ImageError::Granule { found: width, granule: g.granule.name(), expected: g.entries() });
        }
        if pa.len() != level.len() || pa.len().checked_mul(width) != Some(words.len()) {
            return Err(ImageError::Shape { pa: pa.len(), level: level.len(), words: words.len(), width });
        }
        if pa.is_empty() {
            return Err(ImageError::Empty);
        }
        let layout = layout_of(&meta)?;
        verify_meta(&meta)?;
        let image = Self { meta, layout, pa, level: level.iter().map(|&l| l as i8).collect(), words };
        image.verify_tables()?;
        image.verify_extent()?;
        Ok(image)
    }

    /// Whether the tables are of the kernel that they are said to be of, as far as its table descriptors differ from
    /// others'. The first tables of 7.x come from its early code, without bit 10.
    ///
    /// # Errors
    /// `Seven`, `BeforeSeven`.
    pub fn verify_version(&self) -> Result<(), ImageError> {
        let g = self.meta.geometry;
        let (mut tables, mut with) = (0, 0);
        for row in (0..self.len()).filter(|&row| self.level(row) < Level::PTE) {
            let level = self.level(row);
            for &word in self.row_words(row).iter().take(g.entries_at(level)) {
                // A row of pages that says it is of another level names no tables: its bit 10 is the access flag.
                if matches!(g.kind(Desc(word), level), Kind::Table(next) if self.row(next).is_some()) {
                    tables += 1;
                    with += usize::from(word & TABLE_AF != 0);
                }
            }
        }
        let (version, seven) = (self.meta.version, self.meta.version.sets_table_af());
        if !seven && with != 0 && with * 2 >= tables {
            return Err(ImageError::Seven { with, tables, version: version.name() });
        }
        if seven && with == 0 && tables != 0 {
            return Err(ImageError::BeforeSeven { version: version.name() });
        }
        Ok(())
    }

    fn verify_tables(&self) -> Result<(), ImageError> {
        let g = self.meta.geometry;
        let granule = g.granule.name();
        let top = g.top();
        let mut previous: Option<u64> = None;
        for (table, (&pa, &level)) in self.pa.iter().zip(&self.level).enumerate() {
            let at = Pa(pa);
            if !at.is_aligned(g.page_size()) {
                return Err(ImageError::Misaligned { table, pa: at, granule });
            }
            if pa >> self.physical_bits() != 0 {
                return Err(ImageError::TooHigh { table, pa: at, va_bits: g.va_bits });
            }
            if let Some(previous) = previous.filter(|&p| p >= pa) {
                return Err(ImageError::Unsorted { table, pa: at, previous: Pa(previous) });
            }
            previous = Some(pa);
            if level < top.0 || level > 3 {
                return Err(ImageError::Level { table, pa: at, level: level as u8, top: top.0 });
            }
        }
        let Some(root) = self.row(self.meta.root) else {
            return Err(ImageError::NoRoot { root: self.meta.root, tables: self.pa.len() });
        };
        let found = self.level[root];
        if found == top.0 {
            Ok(())
        } else {
            Err(ImageError::RootLevel { root: self.meta.root, found, expected: top.0, granule, va_bits: g.va_bits })
        }
    }

    fn verify_places(&self) -> Result<(), ImageError> {
        let outside = |&pa: &u64| !self.meta.ram.is_empty() && !self.in_ram(Pa(pa));
        match self.pa.iter().position(outside) {
            Some(table) => Err(ImageError::OutsideRam { table, pa: Pa(self.pa[table]) }),
            None => Ok(()),
        }
    }

    /// Every table descriptor must name a table of the image that is of the next level.
    fn verify_links(&self) -> Result<(), ImageError> {
        let g = self.meta.geometry;
        for (table, &pa) in self.pa.iter().enumerate() {
            let level = self.level(table);
            if level == Level::PTE {
                continue;
            }
            for (index, &word) in self.row_words(table)[..g.entries_at(level)].iter().enumerate() {
                let desc = Desc(word);
                let Kind::Table(next) = g.kind(desc, level) else { continue };
                let pa = Pa(pa);
                match self.row(next) {
                    None => return Err(ImageError::MissingTable { table, pa, level: level.0, index, desc, next }),
                    Some(row) if self.level(row) != level.next() => {
                        let found = self.level[row];
                        return Err(ImageError::WrongLevel { table, pa, level: level.0, index, desc, next, found });
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Table pages that are not reached from the root at the level that the image gives them: their address, and the
    /// level at which one is reached first. None in a verified image but those that nothing points at.
    #[must_use]
    pub fn misplaced_tables(&self) -> Vec<(Pa, Option<Level>)> {
        let g = self.meta.geometry;
        let mut reached: Vec<Option<Level>> = vec![None; self.len()];
        let mut found = self.row(self.meta.root).map(|row| (row, g.top())).into_iter().collect::<Vec<_>>();
        let mut at = 0;
        while let Some(&(row, level)) = found.get(at) {
            at += 1;
            if reached[row].is_some() {
                continue;
            }
            reached[row] = Some(level);
            for &word in &self.row_words(row)[..g.entries_at(level)] {
                if let Kind::Table(next) = g.kind(Desc(word), level)
                    && let Some(next) = self.row(next)
                {
                    found.push((next, level.next()));
                }
            }
        }
        let misplaced = |(row, level): (usize, &Option<Level>)| {
            (*level != Some(self.level(row))).then_some((Pa(self.pa[row]), *level))
        };
        reached.iter().enumerate().filter_map(misplaced).collect()
    }

    fn physical_bits(&self) -> u32 {
        if self.meta.geometry.va_bits == 52 { 52 } else { 48 }
    }

    #[must_use]
    pub fn meta(&self) -> &ImageMeta {
        &self.meta
    }
    /// The layout of `meta.version`, with the image's own vmemmap range and markers.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
    /// Number of table pages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pa.len()
    }
    /// Never: an image has at least its root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pa.is_empty()
    }
    /// Address, level and words of each table page, by address.
    pub fn tables(&self) -> impl Iterator<Item = (Pa, Level, &[u64])> {
        (0..self.len()).map(|row| (Pa(self.pa[row]), self.level(row), self.row_words(row)))
    }
    /// Row of the table page at `pa`.
    #[must_use]
    pub fn row(&self, pa: Pa) -> Option<usize> {
        self.pa.binary_search(&pa.0).ok()
    }
    #[must_use]
    pub fn level(&self, row: usize) -> Level {
        Level(self.level[row])
    }
    /// The descriptors of one table page.
    #[must_use]
    pub fn row_words(&self, row: usize) -> &[u64] {
        let width = self.meta.geometry.entries();
        &self.words[row * width..(row + 1) * width]
    }
    /// Whether a range of RAM, plugged or not, holds `pa`.
    #[must_use]
    pub fn in_ram(&self, pa: Pa) -> bool {
        self.meta.ram.iter().any(|(range, _)| range.contains(&pa))
    }
}

impl TableView for TableImage {
    fn geometry(&self) -> Geometry {
        self.meta.geometry
    }
    fn root(&self) -> Pa {
        self.meta.root
    }
    fn word(&self, table: Pa, index: usize) -> Option<Desc> {
        let row = self.row(table)?;
        self.row_words(row).get(index).copied().map(Desc)
    }
    fn words(&self, table: Pa) -> Option<&[u64]> {
        Some(self.row_words(self.row(table)?))
    }
}

fn layout_of(meta: &ImageMeta) -> Result<Layout, ImageError> {
    let g = meta.geometry;
    if meta.memstart & ((1 << g.section_shift()) - 1) != 0 {
        return Err(ImageError::Memstart { memstart: meta.memstart });
    }
    let mut layout = Layout::new(g, meta.version, meta.memstart).map_err(|LayoutError::NoLpa2Before6_12| {
        ImageError::Layout { granule: g.granule.name(), version: meta.version.name() }
    })?;
    if let Some(range) = &meta.vmemmap {
        let (start, end) = (range.start, range.end);
        let inside = start >= layout.page_end && start < end;
        if !inside || !start.is_aligned(g.section_vmemmap()) || !end.is_aligned(g.section_vmemmap()) {
            return Err(ImageError::Vmemmap { start, end });
        }
        layout.vmemmap_start = start;
        layout.vmemmap_end = end;
    }
    if !meta.markers.is_empty() {
        if meta.markers.len() > MAX_MARKERS {
            return Err(ImageError::Markers { found: meta.markers.len(), most: MAX_MARKERS });
        }
        layout.nr_markers = 0;
        for (index, (start, name)) in meta.markers.iter().enumerate() {
            let known = match name {
                None => None,
                Some(name) => {
                    let known = MARKER_NAMES.iter().find(|known| *known == name);
                    let Some(known) = known else {
                        return Err(ImageError::Marker { index, start: *start, name: name.clone() });
                    };
                    Some(*known)
                }
            };
            layout.push_marker(Marker { start: *start, name: known });
        }
    }
    Ok(layout)
}

fn verify_meta(meta: &ImageMeta) -> Result<(), ImageError> {
    let g = meta.geometry;
    verify_ram(meta)?;
    if meta.block_size != 0 && (!meta.block_size.is_power_of_two() || meta.block_size < g.section_size()) {
        return Err(ImageError::BlockSize { bytes: meta.block_size });
    }
    let (sizes, count) = g.hugetlb_sizes();
    let mut taken: Vec<(u64, u64)> = Vec::with_capacity(meta.hugepages.len());
    for &(pfn, pages) in &meta.hugepages {
        let bad = |why| Err(ImageError::Hugepage { pfn, pages, why });
        if !sizes[..count].contains(&pages) {
            return bad("no HugeTLB page of that granule has that length");
        }
        if pfn & (pages - 1) != 0 {
            return bad("not aligned to its length");
        }
        let inside = |(range, _): &(Range<Pa>, bool)| {
            pfn >= range.start.0 >> g.page_shift()
                && pfn.checked_add(pages).is_some_and(|end| end <= range.end.0 >> g.page_shift())
        };
        if !meta.ram.is_empty() && !meta.ram.iter().any(inside) {
            return bad("outside every range of RAM");
        }
        taken.push((pfn, pages));
    }
    taken.sort_unstable();
    for pair in taken.windows(2) {
        if pair[0].0 + pair[0].1 > pair[1].0 {
            return Err(ImageError::Hugepage { pfn: pair[1].0, pages: pair[1].1, why: "overlaps the one before it" });
        }
    }
    Ok(())
}

fn verify_ram(meta: &ImageMeta) -> Result<(), ImageError> {
    let g = meta.geometry;
    let mut ranges: Vec<&Range<Pa>> = meta.ram.iter().map(|(range, _)| range).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    for range in &ranges {
        let aligned = range.start.is_aligned(g.page_size()) && range.end.is_aligned(g.page_size());
        if range.start >= range.end || !aligned || range.end.0 > 1 << 52 {
            return Err(ImageError::Ram { start: range.start, end: range.end });
        }
    }
    for pair in ranges.windows(2) {
        if pair[1].start < pair[0].end {
            return Err(ImageError::RamOverlap { start: pair[1].start, end: pair[1].end });
        }
    }
    if let (Some(first), Some(last)) = (ranges.first(), ranges.last()) {
        let frames = last.end.since(first.start) >> g.page_shift();
        if frames > 1 << 32 {
            return Err(ImageError::RamSpan { frames });
        }
    }
    Ok(())
}
