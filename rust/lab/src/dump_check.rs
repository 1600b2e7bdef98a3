//! A dump as the kernel's own checker sees it: tables by physical address, and the few facts beside them that tell
//! which sections and hugepages there are. What a dump does not hold (pools, the allocator, mostly contents) is not
//! visible.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use vmemmap_arch::contents::word;
use vmemmap_arch::tables::walk;
use vmemmap_arch::{
    Attr, ByInvariant, Desc, FrameKind, Geometry, InvariantSet, Kind, Layout, Pa, Pfn, STRUCT_PAGE_SIZE, TableView, Var,
};
use vmemmap_kernel::check::{FrameInfo, Marks, StateView, Violation, check};
use vmemmap_kernel::page::flag;
use vmemmap_kernel::state::{Section, section_flag};
use vmemmap_kernel::{Kernel, MAX_RAM_RANGES, Policies, Ram};

/// Findings kept for each invariant; more are only counted, so that a wrecked dump is no flood.
pub const MOST_FINDINGS: usize = 100;

/// What is known of a dumped machine beside its tables.
#[derive(Clone, Debug)]
pub struct DumpFacts {
    pub layout: Layout,
    /// Ranges of RAM, sorted; `true`: present at boot. Empty if nothing is known.
    pub ram: Vec<(Range<Pa>, bool)>,
    /// The sections that are present, by address, where `ram` does not tell: what a vmcore holds is neither all memory
    /// that can have struct pages (a device's may lie elsewhere) nor only memory that has them.
    pub present: Option<Vec<Pa>>,
    /// Hot-added sections whose vmemmap lies in their own block.
    pub self_hosted: Vec<Pa>,
    /// Numbers of the memory blocks that are online.
    pub blocks_online: Option<Vec<u64>>,
    /// Bytes of a memory block.
    pub block_size: u64,
    /// Head and length of each HugeTLB page that is known, sorted.
    pub hugepages: Vec<(u64, u64)>,
    /// There are no others.
    pub hugepages_complete: bool,
    /// (length in base pages, `nr_hugepages`) of pools.
    pub pools: Vec<(u64, u64)>,
    /// Tails of optimised pages share a frame of their zone, as in 7.x: the tables show it. So do table descriptors
    /// with the access flag, where nothing is optimised.
    pub zone_tails: bool,
    /// Tables in memory that the dump names and left out, sorted.
    pub left_out: Vec<Pa>,
}

/// The struct pages of a dump that holds memory.
pub struct Contents<'a> {
    /// The words of the page at a physical address, if the dump has it.
    pub read: &'a dyn Fn(Pa) -> Option<Vec<u64>>,
    /// `PG_head` as a mask of `page->flags`; where it is not known, flags are not visible.
    pub head_mask: Option<u64>,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// At most `MOST_FINDINGS` of each invariant.
    pub violations: Vec<Violation>,
    /// How many there were of each.
    pub counts: ByInvariant<u64>,
    pub visible: InvariantSet,
}

/// Check every invariant that the tables, the facts and the contents, if there are any, can show.
pub fn check_dump<V: TableView>(tables: &V, facts: &DumpFacts, contents: Option<&Contents<'_>>) -> Checked {
    let state = Dumped::new(tables, facts, contents);
    let mut report = Checked::default();
    let mut marks = SparseMarks::default();
    let (violations, counts) = (&mut report.violations, &mut report.counts);
    report.visible = check(&state, &mut marks, |violation| {
        let count = &mut counts[violation.invariant];
        *count += 1;
        if *count <= MOST_FINDINGS as u64 {
            violations.push(violation);
        }
    });
    report
}

struct Dumped<'a, V> {
    tables: &'a V,
    facts: &'a DumpFacts,
    kernel: Kernel,
    /// `section_mem_map` of each section of the kernel's `VarMap`; `None`: whether it is present cannot be told.
    sections: Vec<Option<u64>>,
    contents: Option<&'a Contents<'a>>,
    /// Table descriptors of the root carry the access flag, which they do since 7.x.
    access_flag: bool,
    /// The page of struct pages that was read last: neighbours are asked for together.
    last_page: RefCell<(Pa, Option<Vec<u64>>)>,
}

impl<'a, V: TableView> Dumped<'a, V> {
    fn new(tables: &'a V, facts: &'a DumpFacts, contents: Option<&'a Contents<'a>>) -> Self {
        let mut kernel = Kernel::new(facts.layout, Policies::default(), &few_ranges(&facts.ram), true);
        kernel.extra_prot = global_or_not(tables, &facts.layout, &facts.ram);
        let last_page = RefCell::new((Pa(u64::MAX), None));
        let (g, root) = (tables.geometry(), tables.root());
        let flagged = |desc: Desc| matches!(g.kind(desc, g.top()), Kind::Table(_)) && desc.has(Attr::AF);
        let access_flag = (0..g.entries_at(g.top())).filter_map(|i| tables.word(root, i)).any(flagged);
        let mut dumped = Self { tables, facts, kernel, sections: Vec::new(), contents, access_flag, last_page };
        let vars = dumped.kernel.vars;
        dumped.sections = (0..vars.sections()).map(|n| dumped.section(n)).collect();
        dumped
    }

    /// Boot memory is present for ever; a block that is online is; RAM may be plugged or not; and where there is no RAM
    /// there is no section.
    fn section(&self, number: u32) -> Option<u64> {
        let g = self.kernel.geometry;
        let start = self.kernel.vars.base.plus(u64::from(number) * g.section_size());
        let end = start.plus(g.section_size());
        let present = section_flag::MARKED_PRESENT | section_flag::HAS_MEM_MAP | section_flag::IS_ONLINE;
        if let Some(sections) = &self.facts.present {
            return sections.binary_search(&start).is_ok().then_some(present);
        }
        let mut plugged = false;
        for (range, boot) in &self.facts.ram {
            if range.start < end && start < range.end {
                if *boot {
                    return Some(present | section_flag::IS_EARLY);
                }
                plugged = true;
            }
        }
        match (plugged, self.is_block_online(start)) {
            (false, _) => Some(0),
            (true, Some(true)) => Some(present),
            (true, _) => None,
        }
    }
}

/// At most as many ranges as a kernel here holds: those with the smallest gaps between them become one.
fn few_ranges(ram: &[(Range<Pa>, bool)]) -> Vec<Ram> {
    let mut few: Vec<Ram> =
        ram.iter().map(|(r, boot)| Ram { start: r.start, bytes: r.end.since(r.start), boot: *boot }).collect();
    few.sort_unstable_by_key(|r| r.start);
    while few.len() > MAX_RAM_RANGES {
        let gap = |i: &usize| few[i + 1].start.0 - (few[*i].start.0 + few[*i].bytes);
        let Some(at) = (0..few.len() - 1).min_by_key(gap) else { break };
        let next = few.remove(at + 1);
        few[at].bytes = next.start.0 + next.bytes - few[at].start.0;
        few[at].boot &= next.boot;
    }
    few
}

/// nG if most of the struct pages of RAM are mapped with it, as KPTI does; else nothing.
fn global_or_not<V: TableView>(tables: &V, layout: &Layout, ram: &[(Range<Pa>, bool)]) -> u64 {
    let g = layout.geometry;
    let (mut with, mut without) = (0u64, 0u64);
    for (range, _) in ram {
        let mut pa = range.start.align_down(g.section_size());
        while pa < range.end {
            if let Some(leaf) = walk(tables, layout.page_va(g.pfn(pa))).filter(|w| w.output.is_some()) {
                *(if leaf.desc.has(Attr::NG) { &mut with } else { &mut without }) += 1;
            }
            pa = pa.plus(g.section_size());
        }
    }
    if with > without { Attr::NG.bits() } else { 0 }
}

impl<V: TableView> TableView for Dumped<'_, V> {
    fn geometry(&self) -> Geometry {
        self.tables.geometry()
    }
    fn root(&self) -> Pa {
        self.tables.root()
    }
    fn word(&self, table: Pa, index: usize) -> Option<Desc> {
        self.tables.word(table, index)
    }
    fn words(&self, table: Pa) -> Option<&[u64]> {
        self.tables.words(table)
    }
}

impl<V: TableView> StateView for Dumped<'_, V> {
    fn kernel(&self) -> &Kernel {
        &self.kernel
    }
    fn var(&self, var: Var) -> Option<u64> {
        let vars = &self.kernel.vars;
        let first = vars.section(0, Section::MemMap);
        let words = vars.section(1, Section::MemMap).0 - first.0;
        let (number, field) = (var.0.checked_sub(first.0)? / words, (var.0 - first.0) % words);
        let flags = (*self.sections.get(number as usize)?)?;
        let map = Section::SubsectionMap as u32..Section::SubsectionMap as u32 + 4;
        if field == Section::MemMap as u32 {
            Some(flags)
        } else if map.contains(&field) {
            // Memory is added in whole blocks.
            Some(if flags & section_flag::HAS_MEM_MAP == 0 { 0 } else { u64::MAX })
        } else {
            None
        }
    }
    /// A page without a word in it was not dumped: a struct page in use or free has a mapcount.
    fn data_word(&self, pa: Pa) -> Option<u64> {
        let contents = self.contents?;
        let page = self.kernel.geometry.page_size();
        let mut last = self.last_page.borrow_mut();
        if last.0 != pa.align_down(page) {
            let words = (contents.read)(pa.align_down(page)).filter(|words| words.iter().any(|&word| word != 0));
            *last = (pa.align_down(page), words);
        }
        let word = *last.1.as_ref()?.get(((pa.0 & (page - 1)) / 8) as usize)?;
        if pa.0 % STRUCT_PAGE_SIZE != u64::from(word::FLAGS) * 8 {
            return Some(word);
        }
        // Where PG_head is differs between kernels; of the flags only that one is looked at.
        Some(if word & contents.head_mask? != 0 { flag::HEAD } else { 0 })
    }
    /// A table page of the dump is a table; of others nothing is known but that self-hosted vmemmap is where it is.
    fn frame(&self, pa: Pa) -> Option<FrameInfo> {
        if self.tables.word(pa, 0).is_some() {
            return Some(FrameInfo { kind: FrameKind::Table, free: None, self_hosted: false });
        }
        let section = pa.align_down(self.kernel.geometry.section_size());
        let self_hosted = self.facts.self_hosted.binary_search(&section).is_ok();
        self_hosted.then_some(FrameInfo { kind: FrameKind::Vmemmap, free: None, self_hosted })
    }
    fn uninteresting(&self, _: Pa) -> u64 {
        1 << 52
    }
    fn in_ram(&self, pa: Pa) -> bool {
        let ram = &self.facts.ram;
        let after = ram.partition_point(|(range, _)| range.start <= pa);
        self.facts.present.is_some() || ram.is_empty() || after != 0 && ram[after - 1].0.contains(&pa)
    }
    fn has_zone_tails(&self) -> bool {
        self.facts.zone_tails || self.access_flag
    }
    fn has_access_flag_in_tables(&self) -> bool {
        self.access_flag
    }
    fn is_left_out(&self, table: Pa) -> bool {
        self.facts.left_out.binary_search(&table).is_ok()
    }
    fn listed_hugepage(&self, number: usize) -> Option<(Pfn, u64)> {
        let (head, pages) = *self.facts.hugepages.get(number)?;
        Some((Pfn(head), pages))
    }
    fn is_listed_hugepage(&self, pfn: Pfn) -> Option<bool> {
        let pages = self.facts.hugepages_complete.then_some(&self.facts.hugepages)?;
        let after = pages.partition_point(|&(head, _)| head <= pfn.0);
        Some(after != 0 && pfn.0 - pages[after - 1].0 < pages[after - 1].1)
    }
    fn nr_hugepages(&self, pages: u64) -> Option<u64> {
        self.facts.pools.iter().find(|(length, _)| *length == pages).map(|(_, nr)| *nr)
    }
    fn is_block_online(&self, pa: Pa) -> Option<bool> {
        let online = self.facts.blocks_online.as_ref()?;
        Some(online.binary_search(&(pa.0 / self.facts.block_size)).is_ok())
    }
}

/// One bit a frame, for as many frames as are marked.
#[derive(Default)]
struct SparseMarks(HashMap<u64, Box<[u64; 64]>>);

impl Marks for SparseMarks {
    fn mark(&mut self, frame: Pfn) -> bool {
        let chunk = self.0.entry(frame.0 >> 12).or_insert_with(|| Box::new([0; 64]));
        let (word, bit) = (&mut chunk[(frame.0 >> 6 & 63) as usize], 1 << (frame.0 & 63));
        let before = *word & bit != 0;
        *word |= bit;
        before
    }
    fn is_marked(&self, frame: Pfn) -> bool {
        self.0.get(&(frame.0 >> 12)).is_some_and(|chunk| chunk[(frame.0 >> 6 & 63) as usize] >> (frame.0 & 63) & 1 != 0)
    }
}
