//! The tree of the kernel's tables and what holds of each leaf, whatever it maps (I1, I13, I30 to I32).

use vmemmap_arch::descriptor::{Attr, mair, prot};
use vmemmap_arch::{Desc, FrameKind, Invariant, Kind, Level, Pa, Va, rules};

use super::view::{Checker, FrameInfo, Leaf, Marks, StateView, Violation};

impl<V: StateView + ?Sized, M: Marks + ?Sized, F: FnMut(Violation)> Checker<'_, V, M, F> {
    /// A table and everything below it. `pxn`: a table descriptor above forbids execution.
    pub fn table(&mut self, table: Pa, level: Level, start: Va, pxn: bool) {
        if self.view.is_left_out(table) {
            return;
        }
        let g = self.view.geometry();
        if self.marks.mark(g.pfn(table)) {
            self.report(Invariant::TreeWellFormed, table.0, "a table is reached twice, or is mapped as data");
            return;
        }
        if let Some(frame) = self.view.frame(table) {
            if let Some(free) = frame.free {
                self.visible.insert(Invariant::NoWalkOfFreedTable);
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
        if used == 0
            && let Some((invariant, message)) = rules::empty_table(&self.view.kernel().layout, level, base)
        {
            self.report(invariant, base.0, message);
        }
    }

    fn entry(&mut self, desc: Desc, level: Level, va: Va, pxn: bool) {
        let g = self.view.geometry();
        match g.kind(desc, level) {
            Kind::None => self.hole(level, va),
            Kind::Invalid => {
                let broken = rules::invalid_entry(self.view.kernel().layout.in_vmemmap(va));
                self.report_broken(broken, va, level, desc);
                self.hole(level, va);
            }
            Kind::Reserved => {
                self.report_broken(rules::leaf_type(&g, desc, level), va, level, desc);
                self.hole(level, va);
            }
            Kind::Table(next) => {
                let flag = if self.view.has_access_flag_in_tables() { Attr::AF.bits() } else { 0 };
                let known = self.view.kernel().features.table
                    | 3
                    | g.address_mask()
                    | Attr::PXN_TABLE.bits()
                    | Attr::UXN_TABLE.bits()
                    | flag;
                if desc.0 & !known != 0 {
                    self.report_entry(
                        Invariant::TreeWellFormed,
                        va,
                        level,
                        desc,
                        "reserved bits are set in a table descriptor",
                    );
                }
                if self.view.in_ram(next) {
                    self.table(next, level.next(), va, pxn || desc.has(Attr::PXN_TABLE));
                } else {
                    self.report_entry(
                        Invariant::TreeWellFormed,
                        va,
                        level,
                        desc,
                        "a table descriptor points outside RAM",
                    );
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
        self.report_broken(rules::executable(desc, pxn), va, level, desc);
        let l = &self.view.kernel().layout;
        if va >= l.page_offset && va < l.page_end && l.linear_va(pa) != va {
            self.report_entry(
                Invariant::TreeWellFormed,
                va,
                level,
                desc,
                "the linear map maps another address than its own",
            );
        }
        if l.in_vmemmap(va) {
            self.vmemmap_leaf(leaf);
        } else if matches!(desc.attr_index(), mair::NORMAL | mair::NORMAL_TAGGED) && !self.view.in_ram(pa) {
            self.report_entry(
                Invariant::TreeWellFormed,
                va,
                level,
                desc,
                "an address outside RAM is mapped as Normal memory",
            );
        }
    }

    /// A leaf with the Contiguous bit, found at `index`: its whole set must have it, with addresses that follow each
    /// other and the same attributes (Arm ARM, "misprogramming of the Contiguous bit"). Told once for a set.
    fn contiguous(&mut self, table: Pa, index: usize, desc: Desc, level: Level, va: Va) {
        let g = self.view.geometry();
        let block = level == Level::PMD && g.kind(desc, level) != Kind::Table(g.output(desc));
        if level != Level::PTE && !block {
            return;
        }
        let size = rules::contiguous_entries(&g, level) as usize;
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
        let whole = base & (size as u64 * span - 1) == 0 && (first..first + size).all(agrees);
        self.report_broken(rules::contiguous_set(whole), va, level, desc);
    }

    /// Frames that were allocated for vmemmap or as tables and are mapped nowhere; self-hosted ones given away.
    pub fn lost_frames(&mut self) {
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
            self.report(
                Invariant::FramesConserved,
                pa.0,
                "allocated for struct pages or as a table, and mapped nowhere",
            );
        }
    }
}
