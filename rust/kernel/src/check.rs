//! Invariants that a machine at rest can show, over a read-only view (kernel-semantics §12): a file-system check for
//! vmemmap. One pass over the tables, one over the hugepages, one over the frames; no heap. Here is the tree; what it
//! maps as struct pages is `check_vmemmap`, pools and contents are `check_pool`.

use vmemmap_arch::descriptor::{Attr, mair, prot};
use vmemmap_arch::{Desc, FrameKind, Invariant, Kind, Level, Pa, Pfn, TableView, Va, Var};

use crate::Kernel;
use crate::check_pool::check_pools;
use crate::check_vmemmap::{Leaf, SharedRun};

/// What is known of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameInfo {
    pub kind: FrameKind,
    /// In the allocator's hands; `None` where the allocator cannot be seen.
    pub free: Option<bool>,
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

/// A broken promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    pub invariant: Invariant,
    /// Virtual address, or physical where there is none.
    pub address: u64,
    /// The descriptor that shows it, and the level of its table.
    pub descriptor: Option<(Level, Desc)>,
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

pub(crate) struct Checker<'a, V: ?Sized, M: ?Sized, F> {
    pub view: &'a V,
    pub marks: &'a mut M,
    sink: F,
    pub visible: Visible,
    /// The vmemmap page that tails may share which follow it.
    pub run: Option<SharedRun>,
}

/// Check everything that the view shows; broken promises go to `sink`. Returns which invariants could be judged; the
/// others are not visible here.
pub fn check<V: StateView + ?Sized, M: Marks + ?Sized>(view: &V, marks: &mut M, sink: impl FnMut(Finding)) -> Visible {
    let mut checker = Checker { view, marks, sink, visible: Visible::default(), run: None };
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
    checker.listed_hugepages();
    check_pools(&mut checker);
    checker.lost_frames();
    checker.visible
}

impl<V: StateView + ?Sized, M: Marks + ?Sized, F: FnMut(Finding)> Checker<'_, V, M, F> {
    pub fn report(&mut self, invariant: Invariant, address: u64, message: &'static str) {
        self.visible.add(invariant);
        (self.sink)(Finding { invariant, address, descriptor: None, message });
    }

    /// The same with the descriptor that shows it.
    pub fn report_entry(&mut self, invariant: Invariant, va: Va, level: Level, desc: Desc, message: &'static str) {
        self.visible.add(invariant);
        (self.sink)(Finding { invariant, address: va.0, descriptor: Some((level, desc)), message });
    }

    /// A table and everything below it. `pxn`: a table descriptor above forbids execution.
    fn table(&mut self, table: Pa, level: Level, start: Va, pxn: bool) {
        let g = self.view.geometry();
        if self.marks.mark(g.pfn(table)) {
            self.report(Invariant::TreeWellFormed, table.0, "a table is reached twice, or is mapped as data");
            return;
        }
        if let Some(frame) = self.view.frame(table) {
            if let Some(free) = frame.free {
                self.visible.add(Invariant::NoWalkOfFreedTable);
                if free {
                    self.report(Invariant::NoWalkOfFreedTable, table.0, "a linked table is in the allocator's hands");
                }
            }
            if frame.free != Some(true) && frame.kind != FrameKind::Table {
                self.report(Invariant::FramesConserved, table.0, "a linked table was allocated as something else");
            }
        }
        if self.view.is_listed_hugepage(g.pfn(table)) == Some(true) {
            self.report(Invariant::FramesConserved, table.0, "a table lies in the memory of a hugepage");
        }
        let top = level == g.top();
        let base = if top { Va(0u64.wrapping_sub(g.table_span(level))) } else { start };
        let view = self.view;
        let words = view.words(table);
        let mut used = 0u32;
        for index in 0..g.entries_at(level) {
            let va = base.plus((index as u64) << g.level_shift(level));
            let desc = match words {
                Some(words) => words.get(index).copied().map(Desc),
                None => view.word(table, index),
            };
            let Some(desc) = desc else {
                self.report(Invariant::TreeWellFormed, table.0, "a table descriptor points outside the image");
                return;
            };
            used += u32::from(!desc.is_none());
            self.entry(desc, level, va, pxn);
            if desc.has(Attr::CONT) {
                self.contiguous(table, index, desc, level, va);
            }
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
                if self.view.kernel().layout.in_vmemmap(va) {
                    self.report_entry(Invariant::TreeWellFormed, va, level, desc, "an invalid descriptor in vmemmap is not zero");
                }
                self.hole(level, va);
            }
            Kind::Reserved => {
                self.report_entry(Invariant::TreeWellFormed, va, level, desc, "a descriptor type that its level does not have");
                self.hole(level, va);
            }
            Kind::Table(next) => {
                let known = 3 | g.address_mask() | Attr::PXN_TABLE.bits() | Attr::UXN_TABLE.bits();
                if desc.0 & !known != 0 {
                    self.report_entry(Invariant::TreeWellFormed, va, level, desc, "reserved bits are set in a table descriptor");
                }
                if self.view.in_ram(next) {
                    self.table(next, level.next(), va, pxn || desc.has(Attr::PXN_TABLE));
                } else {
                    self.report_entry(Invariant::TreeWellFormed, va, level, desc, "a table descriptor points outside RAM");
                    self.hole(level, va);
                }
            }
            Kind::Page(pa) | Kind::Block(pa) => self.leaf(Leaf { va, pa, desc, level }, pxn),
        }
    }

    /// What must hold of every leaf of the kernel's tables, whatever it maps.
    fn leaf(&mut self, leaf: Leaf, pxn: bool) {
        let Leaf { va, pa, desc, level } = leaf;
        let g = self.view.geometry();
        if desc.0 & g.reserved_leaf_bits(level) != 0 {
            self.report_entry(
                Invariant::TreeWellFormed,
                va,
                level,
                desc,
                "reserved bits are set, or the address is not aligned to the leaf",
            );
        }
        // `ptdump_check_wx` looks at leaves only, so a table above that forbids execution excuses nothing there.
        if desc.is_writable() && !desc.has(Attr::PXN) {
            let what = if pxn {
                "writable, and executable but for the table above (ptdump_check_wx counts it)"
            } else {
                "writable and executable"
            };
            self.report_entry(Invariant::NoWritableExecutable, va, level, desc, what);
        }
        if !desc.has(Attr::UXN) {
            self.report_entry(Invariant::NoWritableExecutable, va, level, desc, "executable at EL0 (ptdump_check_wx counts it as non-UXN)");
        }
        let l = &self.view.kernel().layout;
        if va >= l.page_offset && va < l.page_end && l.linear_va(pa) != va {
            self.report_entry(Invariant::TreeWellFormed, va, level, desc, "the linear map maps another address than its own");
        }
        if l.in_vmemmap(va) {
            self.vmemmap_leaf(leaf);
        } else if matches!(desc.attr_index(), mair::NORMAL | mair::NORMAL_TAGGED) && !self.view.in_ram(pa) {
            self.report_entry(Invariant::TreeWellFormed, va, level, desc, "an address outside RAM is mapped as Normal memory");
        }
    }

    /// A leaf with the Contiguous bit, found at `index`: its whole set must have it, with addresses that follow each other
    /// and the same attributes (Arm ARM, "misprogramming of the Contiguous bit"). Told once for a set.
    fn contiguous(&mut self, table: Pa, index: usize, desc: Desc, level: Level, va: Va) {
        let g = self.view.geometry();
        let size = match level {
            Level::PTE => g.cont_ptes() as usize,
            Level::PMD if g.kind(desc, level) != Kind::Table(g.output(desc)) => g.cont_pmds() as usize,
            _ => return,
        };
        let first = index & !(size - 1);
        let view = self.view;
        let at = |i: usize| view.word(table, i).unwrap_or(Desc::NONE);
        let told_before = (first..index).any(|i| at(i).has(Attr::CONT));
        if told_before || !desc.is_valid() {
            return;
        }
        let span = g.entry_span(level);
        // Hardware sets AF and clears RDONLY of one entry at a time.
        let same = prot::PTDUMP_MASK & !(Attr::AF | Attr::RDONLY).bits();
        let base = g.output(desc).0.wrapping_sub((index - first) as u64 * span);
        let agrees = |i: usize| {
            let other = at(i);
            other.0 & same == desc.0 & same && g.output(other).0 == base.wrapping_add((i - first) as u64 * span)
        };
        if base & (size as u64 * span - 1) != 0 || !(first..first + size).all(agrees) {
            self.report_entry(Invariant::TreeWellFormed, va, level, desc, "a contiguous set whose entries do not agree");
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
        let Some(FrameInfo { kind, free: Some(free), self_hosted }) = self.view.frame(pa) else { return };
        if self_hosted && free {
            self.report(Invariant::SelfHostedUntouched, pa.0, "self-hosted storage is in the allocator's hands");
        }
        let listed = matches!(kind, FrameKind::Vmemmap | FrameKind::Table) && !free && !self_hosted;
        if listed && !self.marks.is_marked(self.view.geometry().pfn(pa)) {
            self.report(Invariant::FramesConserved, pa.0, "allocated for struct pages or as a table, and mapped nowhere");
        }
    }
}
