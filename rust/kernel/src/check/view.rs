//! What the checks look at, and where they report to.

use core::cell::Cell;

use vmemmap_arch::rules::Broken;
use vmemmap_arch::tables::{Walk, walk};
use vmemmap_arch::{
    Desc, FrameKind, Invariant, InvariantSet, Kind, Level, Pa, Pfn, STRUCT_PAGE_SIZE, TableView, Va, Var,
};

use crate::Kernel;
use crate::state::{ZONE_TAILS, ZONES};

/// What is known of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameInfo {
    pub kind: FrameKind,
    /// In the allocator's hands; `None` where the allocator cannot be seen.
    pub free: Option<bool>,
    pub self_hosted: bool,
}

/// A machine at rest, as far as it can be seen: a live one, an explored one, an image. A method that knows nothing
/// returns `None`, and what depends on it is reported as not visible.
pub trait StateView: TableView {
    fn kernel(&self) -> &Kernel;
    /// Value of a kernel variable.
    fn var(&self, var: Var) -> Option<u64>;
    /// 64-bit word of a struct page, by physical address.
    fn data_word(&self, pa: Pa) -> Option<u64>;
    /// The frame at a page-aligned physical address; `None` also for memory that the allocator does not have.
    fn frame(&self, pa: Pa) -> Option<FrameInfo>;
    /// Bytes from `pa` on, whole pages and at least one, whose frames are alike and neither tables nor vmemmap; 0 if
    /// the frame at `pa` must be looked at.
    fn uninteresting(&self, pa: Pa) -> u64 {
        let _ = pa;
        0
    }
    /// Whether the allocator gives out nothing from around that address; `None` if it cannot be told.
    fn is_isolated(&self, pa: Pa) -> Option<bool> {
        let _ = pa;
        None
    }
    /// Whether the machine has RAM at that address, plugged or not.
    fn in_ram(&self, pa: Pa) -> bool {
        self.kernel().ram().iter().any(|ram| pa >= ram.start && pa.since(ram.start) < ram.bytes)
    }
    /// Head and length of a HugeTLB page, by number from 0, for a view that has a list of them and no pools.
    fn listed_hugepage(&self, number: usize) -> Option<(Pfn, u64)> {
        let _ = number;
        None
    }
    /// Whether a page of that list holds `pfn`; `None` if there is no list.
    fn is_listed_hugepage(&self, pfn: Pfn) -> Option<bool> {
        let _ = pfn;
        None
    }
    /// Tails of optimised pages share a frame of their zone, as in 7.x.
    fn has_zone_tails(&self) -> bool {
        false
    }
    /// Table descriptors carry the access flag, as in 7.x.
    fn has_access_flag_in_tables(&self) -> bool {
        false
    }
    /// The dump names this table's memory and left it out: what it holds is not visible.
    fn is_left_out(&self, table: Pa) -> bool {
        let _ = table;
        false
    }
    /// `nr_hugepages` of the pool of that length beside that list.
    fn nr_hugepages(&self, pages: u64) -> Option<u64> {
        let _ = pages;
        None
    }
    /// Whether the memory block at that address is online, for a view that has a list of blocks.
    fn is_block_online(&self, pa: Pa) -> Option<bool> {
        let _ = pa;
        None
    }
}

/// One bit per frame, all clear at first; the caller has the memory for it.
pub trait Marks {
    /// Set the bit; returns whether it was set before.
    fn mark(&mut self, frame: Pfn) -> bool;
    fn is_marked(&self, frame: Pfn) -> bool;
}

/// A violated invariant of a machine at rest, with the descriptor that shows it and the level of its table.
pub type Violation = vmemmap_arch::Violation<(), &'static str, Option<(Level, Desc)>>;

pub(crate) struct Checker<'a, V: ?Sized, M: ?Sized, F> {
    pub view: &'a V,
    pub marks: &'a mut M,
    sink: F,
    /// How many violations there were.
    pub reported: u64,
    /// The table of PTEs that was walked to last, and the address that its first one maps: nothing changes at rest.
    last_table: Cell<Option<(Va, Pa)>>,
    pub visible: InvariantSet,
    /// The vmemmap page that tails may share which follow it.
    pub run: Option<SharedRun>,
    pub tails: ZoneTails,
    /// Frames that hold struct pages, those that a zone's tails share aside.
    pub memmap_frames: u64,
}

/// Frames that the tails of one zone and order share (`zone->vmemmap_tails`); none before 7.1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ZoneTails {
    frames: [Pa; (ZONES * ZONE_TAILS) as usize],
    count: usize,
}

impl ZoneTails {
    pub const NONE: Self = Self { frames: [Pa(0); (ZONES * ZONE_TAILS) as usize], count: 0 };

    pub fn add(&mut self, pa: Pa) {
        if let Some(slot) = self.frames.get_mut(self.count) {
            *slot = pa;
            self.count += 1;
        }
    }
    pub fn has(&self, pa: Pa) -> bool {
        self.frames[..self.count].contains(&pa)
    }
}

/// A leaf and where it maps to.
#[derive(Clone, Copy)]
pub(crate) struct Leaf {
    pub va: Va,
    pub pa: Pa,
    pub desc: Desc,
    pub level: Level,
}

/// The last vmemmap page that is nobody's tail: the tails of its hugepage follow it and share its frame.
#[derive(Clone, Copy)]
pub(crate) struct SharedRun {
    pub first: Va,
    pub pa: Pa,
    /// The last tail that shares its frame, if nothing was wrong with it.
    pub judged: Option<Leaf>,
}

impl<'a, V: StateView + ?Sized, M: Marks + ?Sized, F: FnMut(Violation)> Checker<'a, V, M, F> {
    pub fn new(view: &'a V, marks: &'a mut M, sink: F) -> Self {
        Self {
            view,
            marks,
            sink,
            reported: 0,
            last_table: Cell::new(None),
            visible: InvariantSet::NONE,
            run: None,
            tails: ZoneTails::NONE,
            memmap_frames: 0,
        }
    }

    pub fn report(&mut self, invariant: Invariant, address: u64, message: &'static str) {
        self.visible.insert(invariant);
        self.reported += 1;
        (self.sink)(Violation::at_rest(invariant, address, message, None));
    }

    /// The same with the descriptor that shows it.
    pub fn report_entry(&mut self, invariant: Invariant, va: Va, level: Level, desc: Desc, message: &'static str) {
        self.visible.insert(invariant);
        self.reported += 1;
        (self.sink)(Violation::at_rest(invariant, va.0, message, Some((level, desc))));
    }

    /// What a rule says of a descriptor.
    pub fn report_broken(&mut self, all: impl IntoIterator<Item = Broken>, va: Va, level: Level, desc: Desc) {
        for (invariant, message) in all {
            self.report_entry(invariant, va, level, desc, message);
        }
    }

    /// Where a walk of `va` ends. From the last table on, if that maps it.
    pub fn walk(&self, va: Va) -> Option<Walk> {
        let g = self.view.geometry();
        let first = va.align_down(g.entry_span(Level::PMD));
        if let Some((_, table)) = self.last_table.get().filter(|(from, _)| *from == first) {
            let index = g.index(va, Level::PTE);
            let desc = self.view.word(table, usize::from(index))?;
            let output = match g.kind(desc, Level::PTE) {
                Kind::Page(pa) | Kind::Block(pa) => Some(pa.plus(va.0 & (g.page_size() - 1))),
                Kind::None | Kind::Invalid | Kind::Table(_) | Kind::Reserved => None,
            };
            return Some(Walk { table, index, level: Level::PTE, desc, output });
        }
        let found = walk(self.view, va)?;
        if found.level == Level::PTE {
            self.last_table.set(Some((first, found.table)));
        }
        Some(found)
    }
    /// Physical address that `va` translates to.
    pub fn translate(&self, va: Va) -> Option<Pa> {
        self.walk(va)?.output
    }
}

/// Physical address of word `index` of the `nth` struct page from `page`.
pub(crate) fn page_word(page: Pa, nth: u64, index: u8) -> Pa {
    page.plus(nth * STRUCT_PAGE_SIZE + u64::from(index) * 8)
}
