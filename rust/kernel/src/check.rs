//! Invariants that a machine at rest can show, over a read-only view (kernel-semantics §12): a file-system check for
//! vmemmap. One pass over the tables, one over the pools, one over the frames; no heap.

use vmemmap_arch::contents::word;
use vmemmap_arch::descriptor::Attr;
use vmemmap_arch::{Desc, FrameKind, Invariant, Kind, Level, Pa, Pfn, STRUCT_PAGE_SIZE, TableView, Va, Var};

use crate::Kernel;
use crate::check_pool::check_pools;
use crate::memory_block::MEM_ONLINE;
use crate::page::{flag, is_hugetlb_type};
use crate::state::{Block, Section, section_flag};

/// What the allocator knows of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameInfo {
    pub kind: FrameKind,
    /// In the allocator's hands.
    pub free: bool,
    pub self_hosted: bool,
}

/// A machine at rest, as far as it can be seen: a live one, an explored one, an image. A method that knows nothing returns
/// `None`, and what depends on it is reported as not visible.
pub trait StateView: TableView {
    fn kernel(&self) -> &Kernel;
    /// Value of a kernel variable.
    fn var(&self, var: Var) -> Option<u64>;
    /// 64-bit word of a struct page, by physical address.
    fn data_word(&self, pa: Pa) -> Option<u64>;
    /// The frame at a page-aligned physical address; `None` also for memory that the allocator does not have.
    fn frame(&self, pa: Pa) -> Option<FrameInfo>;
    /// Bytes from `pa` on, whole pages and at least one, whose frames are alike and neither tables nor vmemmap; 0 if the
    /// frame at `pa` must be looked at.
    fn uninteresting(&self, pa: Pa) -> u64 {
        let _ = pa;
        0
    }
    /// Whether the allocator gives out nothing from around that address; `None` if it cannot be told.
    fn is_isolated(&self, pa: Pa) -> Option<bool> {
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

/// A broken promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    pub invariant: Invariant,
    /// Virtual address, or physical where there is none.
    pub address: u64,
    pub message: &'static str,
}

/// Set of invariants, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Visible(u32);

impl Visible {
    pub fn add(&mut self, invariant: Invariant) {
        self.0 |= 1 << (invariant.number() - 1);
    }
    #[must_use]
    pub fn has(self, invariant: Invariant) -> bool {
        self.0 >> (invariant.number() - 1) & 1 != 0
    }
}

/// A vmemmap leaf and where it maps to.
#[derive(Clone, Copy)]
struct Leaf {
    va: Va,
    pa: Pa,
    desc: Desc,
}

pub(crate) struct Checker<'a, V: ?Sized, M: ?Sized, F> {
    pub view: &'a V,
    pub marks: &'a mut M,
    sink: F,
    pub visible: Visible,
    /// Last vmemmap leaf, in order of address: tails follow the page they share.
    previous: Option<Leaf>,
}

/// Check everything that the view shows; broken promises go to `sink`. Returns which invariants could be judged; the
/// others are not visible here.
pub fn check<V: StateView + ?Sized, M: Marks + ?Sized>(view: &V, marks: &mut M, sink: impl FnMut(Finding)) -> Visible {
    let mut checker = Checker { view, marks, sink, visible: Visible::default(), previous: None };
    let visible = &mut checker.visible;
    for invariant in [
        Invariant::SharedTailsReadOnly,
        Invariant::OneWritableHead,
        Invariant::FramesConserved,
        Invariant::TreeWellFormed,
        Invariant::NoWritableExecutable,
        Invariant::NoEmptyTableLinked,
    ] {
        visible.add(invariant);
    }
    checker.table(view.root(), view.geometry().top(), Va(0), false);
    checker.boot_sections();
    checker.isolated_blocks();
    checker.absent_sections();
    check_pools(&mut checker);
    checker.lost_frames();
    checker.visible
}

impl<V: StateView + ?Sized, M: Marks + ?Sized, F: FnMut(Finding)> Checker<'_, V, M, F> {
    pub fn report(&mut self, invariant: Invariant, address: u64, message: &'static str) {
        self.visible.add(invariant);
        (self.sink)(Finding { invariant, address, message });
    }

    fn in_ram(&self, pa: Pa) -> bool {
        self.view.kernel().ram().iter().any(|ram| pa >= ram.start && pa.since(ram.start) < ram.bytes)
    }

    /// A table and everything below it. `pxn`: a table descriptor above forbids execution.
    fn table(&mut self, table: Pa, level: Level, start: Va, pxn: bool) {
        let g = self.view.geometry();
        if self.marks.mark(g.pfn(table)) {
            self.report(Invariant::TreeWellFormed, table.0, "a table is reached twice, or is mapped as data");
            return;
        }
        if let Some(frame) = self.view.frame(table) {
            self.visible.add(Invariant::NoWalkOfFreedTable);
            if frame.free {
                self.report(Invariant::NoWalkOfFreedTable, table.0, "a linked table is in the allocator's hands");
            } else if frame.kind != FrameKind::Table {
                self.report(Invariant::FramesConserved, table.0, "a linked table was allocated as something else");
            }
        }
        let top = level == g.top();
        let base = if top { Va(0u64.wrapping_sub(g.table_span(level))) } else { start };
        let mut used = 0u32;
        for index in 0..g.entries_at(level) {
            let va = base.plus((index as u64) << g.level_shift(level));
            let Some(desc) = self.view.word(table, index) else {
                self.report(Invariant::TreeWellFormed, table.0, "a table descriptor points outside the image");
                return;
            };
            used += u32::from(!desc.is_none());
            self.entry(desc, level, va, pxn);
        }
        let l = &self.view.kernel().layout;
        let owned = l.in_vmemmap(base) && l.in_vmemmap(base.plus(g.table_span(level) - 1));
        if used == 0 && !top && owned {
            self.report(Invariant::NoEmptyTableLinked, base.0, "an empty table is linked in vmemmap");
        }
    }

    fn entry(&mut self, desc: Desc, level: Level, va: Va, pxn: bool) {
        let g = self.view.geometry();
        match g.kind(desc, level) {
            Kind::None => self.hole(level, va),
            Kind::Invalid => {
                self.hole(level, va);
                if self.view.kernel().layout.in_vmemmap(va) {
                    self.report(Invariant::TreeWellFormed, va.0, "an invalid descriptor in vmemmap is not zero");
                }
            }
            Kind::Reserved => self.report(Invariant::TreeWellFormed, va.0, "a descriptor type that its level does not have"),
            Kind::Table(next) => {
                let known = 3 | g.address_mask() | Attr::PXN_TABLE.bits() | Attr::UXN_TABLE.bits();
                if desc.0 & !known != 0 {
                    self.report(Invariant::TreeWellFormed, va.0, "reserved bits are set in a table descriptor");
                }
                if self.in_ram(next) {
                    self.table(next, level.next(), va, pxn || desc.has(Attr::PXN_TABLE));
                } else {
                    self.report(Invariant::TreeWellFormed, va.0, "a table descriptor points outside RAM");
                }
            }
            Kind::Page(pa) | Kind::Block(pa) => {
                if desc.is_writable() && !pxn && !desc.has(Attr::PXN) {
                    self.report(Invariant::NoWritableExecutable, va.0, "writable and executable");
                }
                if self.view.kernel().layout.in_vmemmap(va) {
                    self.vmemmap_leaf(Leaf { va, pa, desc }, level);
                }
            }
        }
    }

    /// `section_mem_map` of a section, if variables are visible.
    fn section_flags(&self, number: u32) -> Option<u64> {
        self.view.var(self.view.kernel().vars.section(number, Section::MemMap))
    }

    /// Whether any struct page in [va, va + bytes), which lies in one section, belongs to a valid PFN.
    fn is_valid(&self, number: u32, va: Va, bytes: u64) -> bool {
        let k = self.view.kernel();
        let Some(flags) = self.section_flags(number) else { return false };
        if flags & section_flag::HAS_MEM_MAP == 0 {
            return false;
        }
        if flags & section_flag::IS_EARLY != 0 {
            return true;
        }
        let per = k.geometry.pages_per_subsection();
        let inside = k.layout.page_pfn(va).0 & (k.geometry.pages_per_section() - 1);
        let last = (inside + bytes / STRUCT_PAGE_SIZE - 1) / per;
        (inside / per..=last).any(|bit| {
            let map = self.view.var(k.vars.subsection_map(number, (bit / 64) as u32)).unwrap_or(0);
            map >> (bit % 64) & 1 != 0
        })
    }

    /// A descriptor that translates nothing: no valid PFN may have its struct page there.
    fn hole(&mut self, level: Level, va: Va) {
        let k = self.view.kernel();
        let (g, vars) = (k.geometry, k.vars);
        let first = k.layout.page_va(g.pfn(vars.base));
        let end = va.plus(g.entry_span(level));
        let (mut at, unit) = (va.max(first), g.section_vmemmap());
        let limit = first.plus(u64::from(vars.sections()) * unit);
        let end = if end.0 == 0 { limit } else { end.min(limit) };
        let mut reported = false;
        while at < end && !reported {
            let number = (at.since(first) / unit) as u32;
            let next = first.plus((u64::from(number) + 1) * unit).min(end);
            if self.section_flags(number).is_some() {
                self.visible.add(Invariant::AlwaysTranslates);
                if self.is_valid(number, at, next.since(at)) {
                    self.report(Invariant::AlwaysTranslates, at.0, "the struct page of a valid PFN does not translate");
                    reported = true;
                    if self.section_flags(number).is_some_and(|flags| flags & section_flag::IS_EARLY == 0) {
                        self.report(Invariant::SubsectionMapExact, at.0, "a subsection_map bit is set and nothing is mapped");
                    }
                }
            }
            at = next;
        }
    }

    fn vmemmap_leaf(&mut self, leaf: Leaf, level: Level) {
        let k = self.view.kernel();
        let g = k.geometry;
        let (vars, pages) = (k.vars, g.entry_span(level) >> g.page_shift());
        if !self.in_ram(leaf.pa) {
            self.report(Invariant::TreeWellFormed, leaf.va.0, "vmemmap maps an address outside RAM");
            return;
        }
        let target = g.pa(k.layout.page_pfn(leaf.va));
        if !vars.contains(target) {
            self.report(Invariant::SubsectionMapExact, leaf.va.0, "vmemmap is mapped for memory that does not exist");
        } else {
            let number = vars.section_number(target);
            if self.section_flags(number).is_some() {
                self.visible.add(Invariant::SubsectionMapExact);
                if !self.is_valid(number, leaf.va, g.entry_span(level).min(g.section_vmemmap())) {
                    self.report(Invariant::SubsectionMapExact, leaf.va.0, "vmemmap is mapped and no subsection_map bit is set");
                }
            }
        }
        for i in 0..pages {
            self.leaf_frame(leaf.va, leaf.pa.plus(i << g.page_shift()));
            self.stray_type(leaf.va.plus(i << g.page_shift()), leaf.pa.plus(i << g.page_shift()));
        }
        let shares = level == Level::PTE && self.previous.is_some_and(|p| p.pa == leaf.pa && p.va.plus(g.page_size()) == leaf.va);
        if shares {
            self.shared_leaf(leaf);
        } else {
            for i in 0..pages {
                if self.marks.mark(g.pfn(leaf.pa).plus(i)) {
                    self.report(Invariant::FramesConserved, leaf.va.0, "the frame has another owner");
                }
            }
            if !leaf.desc.is_writable() {
                self.report(Invariant::OneWritableHead, leaf.va.0, "a vmemmap page that is nobody's tail is read-only");
            }
        }
        self.previous = Some(leaf);
    }

    fn leaf_frame(&mut self, va: Va, pa: Pa) {
        let Some(frame) = self.view.frame(pa) else { return };
        self.visible.add(Invariant::NoUseOfFreedFrame);
        self.visible.add(Invariant::SelfHostedUntouched);
        if frame.free {
            self.report(Invariant::NoUseOfFreedFrame, va.0, "vmemmap maps a frame that is in the allocator's hands");
        } else if frame.kind != FrameKind::Vmemmap {
            self.report(Invariant::FramesConserved, va.0, "vmemmap maps a frame that was allocated as something else");
        }
    }

    /// 6.12: whether the first struct page of a vmemmap page, which a restore may have copied from a head, kept the HugeTLB
    /// type and is no head any more. (A shared one still reads as a head.)
    fn stray_type(&mut self, va: Va, frame: Pa) {
        if !self.view.kernel().version.is_6_12() {
            return;
        }
        let Some(count) = self.view.data_word(page_word(frame, 0, word::COUNT)) else { return };
        self.visible.add(Invariant::RestoredPrivate);
        if is_hugetlb_type(count) && self.view.data_word(page_word(frame, 0, word::FLAGS)).is_some_and(|flags| flags & flag::HEAD == 0) {
            self.report(Invariant::RestoredPrivate, va.0, "a page that is no head kept the HugeTLB type");
        }
    }

    /// A leaf that maps the frame of the one before it: right only for the tails of an optimised page.
    fn shared_leaf(&mut self, leaf: Leaf) {
        if self.view.frame(leaf.pa).is_some_and(|frame| frame.self_hosted) {
            self.report(Invariant::SelfHostedUntouched, leaf.va.0, "self-hosted storage is shared");
        }
        let optimised = self.is_optimised(leaf);
        if optimised == Some(false) {
            self.report(Invariant::RestoredPrivate, leaf.va.0, "a page that is not optimised shares its vmemmap frames");
        } else if leaf.desc.is_writable() {
            self.report(Invariant::SharedTailsReadOnly, leaf.va.0, "a shared tail is writable");
        }
    }

    /// Whether the compound page of the struct pages in `leaf` has the optimised flag; `None` if contents are not visible.
    fn is_optimised(&self, leaf: Leaf) -> Option<bool> {
        // The second struct page of any shared frame is a tail, whichever page it belongs to.
        let head = self.view.data_word(page_word(leaf.pa, 1, word::COMPOUND_HEAD))?;
        if head & 1 == 0 {
            return Some(false);
        }
        let head = self.translate(Va(head - 1))?;
        let private = self.view.data_word(page_word(head, 0, word::PRIVATE))?;
        Some(private & crate::hugetlb_page::HPG_VMEMMAP_OPTIMIZED != 0)
    }

    /// Physical address that `va` translates to.
    pub fn translate(&self, va: Va) -> Option<Pa> {
        vmemmap_arch::tables::walk(self.view, va)?.output
    }

    /// I15: boot memory stays present for ever.
    fn boot_sections(&mut self) {
        let k = self.view.kernel();
        for ram in k.ram() {
            let mut pa = ram.start;
            while ram.boot && pa.since(ram.start) < ram.bytes {
                let number = k.vars.section_number(pa);
                if let Some(flags) = self.section_flags(number) {
                    self.visible.add(Invariant::BootVmemmapKept);
                    if flags & section_flag::HAS_MEM_MAP == 0 {
                        let va = k.layout.page_va(k.geometry.pfn(pa));
                        self.report(Invariant::BootVmemmapKept, va.0, "the vmemmap of boot memory is gone");
                    }
                }
                pa = pa.align_down(k.geometry.section_size()).plus(k.geometry.section_size());
            }
        }
    }

    /// I26: of a section that is not there no bit is set.
    fn absent_sections(&mut self) {
        let k = self.view.kernel();
        for number in 0..k.vars.sections() {
            if self.section_flags(number).is_none_or(|flags| flags & section_flag::HAS_MEM_MAP != 0) {
                continue;
            }
            self.visible.add(Invariant::SubsectionMapExact);
            if (0..4).any(|word| self.view.var(k.vars.subsection_map(number, word)).is_some_and(|bits| bits != 0)) {
                let start = k.vars.base.plus(u64::from(number) * k.geometry.section_size());
                let va = k.layout.page_va(k.geometry.pfn(start));
                self.report(Invariant::SubsectionMapExact, va.0, "a subsection_map bit is set and the section is not present");
            }
        }
    }

    /// I27: at rest nobody takes a block offline, so one that is online and isolated was left so by an attempt that failed.
    fn isolated_blocks(&mut self) {
        let k = self.view.kernel();
        for number in 0..k.vars.sections() {
            if self.view.var(k.vars.block(number, Block::State)) != Some(MEM_ONLINE) {
                continue;
            }
            // The last page: the first ones may be the block's own vmemmap.
            let start = k.vars.base.plus(u64::from(number) * k.geometry.section_size());
            let Some(isolated) = self.view.is_isolated(start.plus(k.geometry.section_size() - k.geometry.page_size())) else { continue };
            self.visible.add(Invariant::FailureRestores);
            if isolated {
                self.report(Invariant::FailureRestores, start.0, "an online memory block is isolated");
            }
        }
    }

    /// Frames that were allocated for vmemmap or as tables and are mapped nowhere; self-hosted ones given away.
    fn lost_frames(&mut self) {
        let k = self.view.kernel();
        let g = k.geometry;
        for ram in k.ram() {
            let mut pa = ram.start;
            while pa.since(ram.start) < ram.bytes {
                let skip = self.view.uninteresting(pa);
                if skip == 0 {
                    self.lost_frame(pa);
                }
                pa = pa.plus(skip.max(g.page_size()));
            }
        }
    }

    fn lost_frame(&mut self, pa: Pa) {
        let Some(frame) = self.view.frame(pa) else { return };
        if frame.self_hosted && frame.free {
            self.report(Invariant::SelfHostedUntouched, pa.0, "self-hosted storage is in the allocator's hands");
        }
        let listed = matches!(frame.kind, FrameKind::Vmemmap | FrameKind::Table) && !frame.free && !frame.self_hosted;
        if listed && !self.marks.is_marked(self.view.geometry().pfn(pa)) {
            self.report(Invariant::FramesConserved, pa.0, "allocated for struct pages or as a table, and mapped nowhere");
        }
    }
}

/// Physical address of word `index` of the `nth` struct page from `page`.
pub(crate) fn page_word(page: Pa, nth: u64, index: u8) -> Pa {
    page.plus(nth * STRUCT_PAGE_SIZE + u64::from(index) * 8)
}
