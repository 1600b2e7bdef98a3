//! What the tables of an image say about the machine: which sections are present and how their vmemmap is mapped, which
//! hugepages are optimised, which attributes a boot option added.

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::tables::walk;
use vmemmap_arch::{Attr, Desc, Kind, Level, Pa, Pfn, TableView, Va};

use crate::table_image::TableImage;

/// How the vmemmap of something is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmemmapStyle {
    Blocks,
    BasePages,
}

/// A section of which the tables map some vmemmap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SectionState {
    /// Physical address of its first byte.
    pub start: Pa,
    /// RAM at boot: never removable.
    pub early: bool,
    pub online: bool,
    /// Of memory that was added: online in a zone of the kernel's, not in `ZONE_MOVABLE`.
    pub kernel_zone: bool,
    pub style: VmemmapStyle,
    /// vmemmap pages that translate, of `section_vmemmap() / page_size()`.
    pub mapped: u64,
    /// Its vmemmap lies in frames of its own memory block (memmap_on_memory): HVO refuses it.
    pub self_hosted: bool,
}

/// Whether the vmemmap of a hugepage is shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HugepageState {
    /// Every vmemmap page has a frame of its own.
    Private,
    /// Tails share the frame of the first vmemmap page (6.1, 6.12).
    OneReserved,
    /// Tails share the frame of the second (2021).
    TwoReserved,
    /// Neither: a hole, or only some tails are shared.
    Torn,
}

impl TableImage {
    /// Sections whose vmemmap is mapped, by address, looked for in every range of RAM.
    #[must_use]
    pub fn sections(&self) -> Vec<SectionState> {
        let mut online = self.meta().blocks_online.clone();
        if let Some(blocks) = &mut online {
            blocks.sort_unstable();
        }
        let found = self.section_starts().into_iter();
        found.filter_map(|(start, early)| self.section(start, early, online.as_deref())).collect()
    }

    /// Where sections may begin, by address, and whether they hold RAM that was there at boot.
    fn section_starts(&self) -> Vec<(Pa, bool)> {
        let g = self.geometry();
        let size = g.section_size();
        let mut starts: Vec<(Pa, bool)> = Vec::new();
        for (range, boot) in &self.meta().ram {
            let mut at = range.start.0 & !(size - 1);
            while at < range.end.0 {
                starts.push((Pa(at), *boot));
                at += size;
            }
        }
        starts.sort_unstable_by_key(|s| (s.0, !s.1));
        starts.dedup_by_key(|s| s.0);
        starts
    }

    /// `blocks_online`: sorted.
    fn section(&self, start: Pa, early: bool, blocks_online: Option<&[u64]>) -> Option<SectionState> {
        let g = self.geometry();
        let block = if self.meta().block_size == 0 { g.section_size() } else { self.meta().block_size };
        let first = self.layout().page_va(g.pfn(start));
        let (mut mapped, mut style, mut inside) = (0, VmemmapStyle::BasePages, 0);
        let own = start.align_down(block);
        for leaf in self.leaves(first, g.section_vmemmap()) {
            let Some(frame) = leaf.frame else { continue };
            mapped += leaf.bytes / g.page_size();
            if leaf.level != Level::PTE {
                style = VmemmapStyle::Blocks;
            }
            if frame >= own && frame.since(own) < block {
                inside += 1;
            }
        }
        let online = blocks_online.is_none_or(|blocks| blocks.binary_search(&(start.0 / block)).is_ok());
        let kernel_zone = !early && online && self.meta().blocks_kernel.binary_search(&(start.0 / block)).is_ok();
        // Boot vmemmap may well lie in the section it describes; only a hot-added one is self-hosted by that.
        let self_hosted = !early && inside != 0;
        (mapped != 0).then_some(SectionState { start, early, online, kernel_zone, style, mapped, self_hosted })
    }

    /// Whether hot-added or boot vmemmap is mapped by blocks anywhere.
    #[must_use]
    pub fn vmemmap_style(&self) -> VmemmapStyle {
        let blocks = self.sections().iter().any(|s| s.style == VmemmapStyle::Blocks);
        if blocks { VmemmapStyle::Blocks } else { VmemmapStyle::BasePages }
    }

    /// How the tables map the vmemmap of the hugepage whose head is `head`.
    #[must_use]
    pub fn hugepage_state(&self, head: Pfn, pages: u64) -> HugepageState {
        let g = self.geometry();
        let bytes = pages * vmemmap_arch::STRUCT_PAGE_SIZE;
        if bytes <= g.page_size() {
            return HugepageState::Private;
        }
        let mut frames: Vec<(Pa, bool)> = Vec::with_capacity((bytes >> g.page_shift()) as usize);
        for leaf in self.leaves(self.layout().page_va(head), bytes) {
            let Some(frame) = leaf.frame else { return HugepageState::Torn };
            let writable = leaf.desc.is_writable();
            frames.extend((0..leaf.bytes >> g.page_shift()).map(|i| (frame.plus(i << g.page_shift()), writable)));
        }
        let shared = |reserved: usize| {
            let reuse = frames[reserved - 1].0;
            frames.len() > reserved && frames[reserved..].iter().all(|f| f.0 == reuse && !f.1)
        };
        if shared(1) {
            return HugepageState::OneReserved;
        }
        if shared(2) {
            // 7.x keeps one page, and its tails have a frame that is not the head's.
            let of_zone = !frames[1].1;
            return if of_zone { HugepageState::OneReserved } else { HugepageState::TwoReserved };
        }
        let mut distinct: Vec<Pa> = frames.iter().map(|f| f.0).collect();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() == frames.len() { HugepageState::Private } else { HugepageState::Torn }
    }

    /// Attribute bits that vmemmap leaves carry beyond the kernel's composed value: nG when KPTI is on, and whatever
    /// else a boot option adds. Taken from the first writable leaf; 0 if nothing is mapped.
    #[must_use]
    pub fn vmemmap_extra_prot(&self) -> u64 {
        let g = self.geometry();
        let known = prot::PAGE_KERNEL | prot::PROT_SECT_NORMAL_6_12 | Attr::TABLE_BIT.bits() | g.address_mask();
        self.section_starts()
            .iter()
            .find_map(|(start, _)| {
                self.leaves(self.layout().page_va(g.pfn(*start)), g.section_vmemmap())
                    .find(|l| l.frame.is_some() && l.desc.is_writable())
            })
            .map_or(0, |leaf| leaf.desc.0 & !known)
    }

    /// How the linear map is built, and how that of hot-added RAM would be.
    #[must_use]
    pub fn linear_map(&self) -> LinearMap {
        let g = self.geometry();
        let mut found = LinearMap::default();
        // Of boot RAM, then of hot-added RAM that could have been mapped otherwise.
        let (mut boot_blocks, mut added_blocks) = (false, None);
        for (range, boot) in &self.meta().ram {
            let (start, bytes) = (self.layout().linear_va(range.start), range.end.since(range.start));
            let mut next = start;
            for leaf in self.leaves(start, bytes) {
                let va = next;
                next = next.plus(leaf.bytes);
                if leaf.frame.is_none() {
                    continue;
                }
                let large = leaf.level != Level::PTE;
                found.blocks |= large;
                found.contiguous |= leaf.desc.has(Attr::CONT);
                if *boot {
                    boot_blocks |= large && leaf.desc.is_writable();
                    continue;
                }
                let block_bit = if large { Attr::TABLE_BIT.bits() } else { 0 };
                found.hot_added_prot = Some(leaf.desc.0 & !g.address_mask() | block_bit);
                let block = va.align_down(g.entry_span(Level::PMD));
                if block >= start && start.plus(bytes).0 - block.0 >= g.entry_span(Level::PMD) {
                    *added_blocks.get_or_insert(false) |= large || leaf.desc.has(Attr::CONT);
                }
            }
        }
        found.hot_adds_blocks = added_blocks.unwrap_or(boot_blocks);
        found
    }

    /// Every leaf, and every hole, of [start, start + bytes), in order.
    fn leaves(&self, start: Va, bytes: u64) -> Leaves<'_> {
        Leaves { image: self, at: start, left: bytes, table: None }
    }
}

/// How the linear map is built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinearMap {
    /// Whether that of any RAM has blocks.
    pub blocks: bool,
    /// Whether that of any RAM has contiguous entries.
    pub contiguous: bool,
    /// Whether hot-added RAM is mapped by blocks, as `can_set_direct_map` decides: as such RAM that is there is, else
    /// as what may be written of boot RAM. The alias of kernel text, which is read-only, tells nothing: `map_mem` maps
    /// it by blocks where everything else is in pages.
    pub hot_adds_blocks: bool,
    /// Attributes of a hot-added page, `None` if no hot-added RAM is mapped.
    pub hot_added_prot: Option<u64>,
}

/// One leaf, or a hole, clipped to the range asked for.
struct Leaf {
    desc: Desc,
    level: Level,
    bytes: u64,
    /// Where its first byte translates to; `None` for a hole.
    frame: Option<Pa>,
}

struct Leaves<'a> {
    image: &'a TableImage,
    at: Va,
    left: u64,
    /// The table of PTEs that the last leaf is in, and the address that its first one maps.
    table: Option<(Va, &'a [u64])>,
}

impl<'a> Leaves<'a> {
    /// Level and descriptor of the leaf that `at` is in, and where that translates to. A table is looked for once.
    fn look(&mut self) -> Option<(Level, Desc, Option<Pa>)> {
        let (image, at, g) = (self.image, self.at, &self.image.meta().geometry);
        let first = at.align_down(g.entry_span(Level::PMD));
        if let Some((_, words)) = self.table.filter(|(from, _)| *from == first) {
            let desc = Desc(*words.get(usize::from(g.index(at, Level::PTE)))?);
            let output = match g.kind(desc, Level::PTE) {
                Kind::Page(pa) | Kind::Block(pa) => Some(pa.plus(at.0 & (g.page_size() - 1))),
                Kind::None | Kind::Invalid | Kind::Table(_) | Kind::Reserved => None,
            };
            return Some((Level::PTE, desc, output));
        }
        // A verified image has every table that a descriptor names.
        let found = walk(image, at)?;
        if found.level == Level::PTE {
            self.table = image.words(found.table).map(|words| (first, words));
        }
        Some((found.level, found.desc, found.output))
    }
}

impl Iterator for Leaves<'_> {
    type Item = Leaf;

    fn next(&mut self) -> Option<Leaf> {
        if self.left == 0 {
            return None;
        }
        let (level, desc, frame) = self.look()?;
        let span = self.image.meta().geometry.entry_span(level);
        let bytes = (span - (self.at.0 & (span - 1))).min(self.left);
        self.at = self.at.plus(bytes);
        self.left -= bytes;
        Some(Leaf { desc, level, bytes, frame })
    }
}
