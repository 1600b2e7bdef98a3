//! What the tables map as struct pages, at rest: holes, leaves, shared tails, sections, listed hugepages (I2, I3, I8 to
//! I16, I26, I27; kernel-semantics §5, §6, §12).

use vmemmap_arch::contents::word;
use vmemmap_arch::descriptor::{Attr, prot};
use vmemmap_arch::rules::{self, Broken};
use vmemmap_arch::{FrameKind, Invariant, Level, Pa, Pfn, STRUCT_PAGE_SIZE, Va};

use super::pools::hugepage;
use super::view::{Checker, Leaf, Marks, SharedRun, StateView, Violation, page_word};
use super::zone_tails::may_be_tail;
use crate::features::{HugetlbMark, TailSource};
use crate::hugetlb::page::HPG_VMEMMAP_OPTIMIZED;
use crate::hugetlb::page::HugePage;
use crate::hugetlb_vmemmap::vmemmap_pages;
use crate::mmzone::MEM_ONLINE;
use crate::page::{flag, is_hugetlb_type, tail_head};
use crate::state::{Block, Scalar, Section, ZONE_TAILS, ZONES, section_flag};

impl<V: StateView + ?Sized, M: Marks + ?Sized, F: FnMut(Violation)> Checker<'_, V, M, F> {
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
    pub fn hole(&mut self, level: Level, va: Va) {
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
                self.visible.insert(Invariant::AlwaysTranslates);
                if self.is_valid(number, at, next.since(at)) {
                    self.report(Invariant::AlwaysTranslates, at.0, "the struct page of a valid PFN does not translate");
                    reported = true;
                    if self.section_flags(number).is_some_and(|flags| flags & section_flag::IS_EARLY == 0) {
                        self.report(
                            Invariant::SubsectionMapExact,
                            at.0,
                            "a subsection_map bit is set and nothing is mapped",
                        );
                    }
                }
            }
            at = next;
        }
    }

    pub fn vmemmap_leaf(&mut self, leaf: Leaf) {
        if self.is_judged(leaf) {
            return;
        }
        let before = self.reported;
        let k = self.view.kernel();
        let g = k.geometry;
        let (vars, pages) = (k.vars, g.entry_span(leaf.level) >> g.page_shift());
        let wrong = self.wrong_attributes(leaf);
        self.report_broken(wrong, leaf.va, leaf.level, leaf.desc);
        if !self.view.in_ram(leaf.pa) {
            self.report_leaf(Invariant::TreeWellFormed, leaf, "vmemmap maps an address outside RAM");
            return;
        }
        let target = g.pa(k.layout.page_pfn(leaf.va));
        if !vars.contains(target) {
            self.report_leaf(Invariant::SubsectionMapExact, leaf, "vmemmap is mapped for memory that does not exist");
        } else {
            let number = vars.section_number(target);
            if self.section_flags(number).is_some() {
                self.visible.insert(Invariant::SubsectionMapExact);
                if !self.is_valid(number, leaf.va, g.entry_span(leaf.level).min(g.section_vmemmap())) {
                    self.report_leaf(
                        Invariant::SubsectionMapExact,
                        leaf,
                        "vmemmap is mapped and no subsection_map bit is set",
                    );
                }
            }
        }
        for i in 0..pages {
            self.leaf_frame(leaf, leaf.pa.plus(i << g.page_shift()));
            self.stray_type(leaf.va.plus(i << g.page_shift()), leaf.pa.plus(i << g.page_shift()));
        }
        if self.view.has_zone_tails() && may_be_tail(leaf) {
            self.zone_tail(leaf);
        } else if self.tails.has(leaf.pa) && leaf.level == Level::PTE {
            self.shared_leaf(leaf);
            self.run = None;
        } else if self.follows_run(leaf) {
            self.shared_leaf(leaf);
            let clean = self.reported == before;
            self.run = self.run.map(|run| SharedRun { judged: clean.then_some(leaf), ..run });
        } else {
            self.own_leaf(leaf, pages);
        }
    }

    /// Whether `leaf` is one more tail of a run, with the descriptor of one with which nothing was wrong, and of the
    /// same sub-section: then nothing is wrong with it either.
    fn is_judged(&self, leaf: Leaf) -> bool {
        let k = self.view.kernel();
        let Some(judged) = self.run.and_then(|run| run.judged) else { return false };
        let unit = k.geometry.pages_per_subsection() * STRUCT_PAGE_SIZE;
        let place = |va: Va| va.since(k.layout.vmemmap_start) / unit;
        judged.desc == leaf.desc && place(judged.va) == place(leaf.va) && self.follows_run(leaf)
    }

    pub fn report_leaf(&mut self, invariant: Invariant, leaf: Leaf, message: &'static str) {
        self.report_entry(invariant, leaf.va, leaf.level, leaf.desc, message);
    }

    /// Attributes that none of these kernels gives a vmemmap leaf; permissions are judged elsewhere.
    fn wrong_attributes(&self, leaf: Leaf) -> Option<Broken> {
        let k = self.view.kernel();
        let ignored = k.geometry.address_mask()
            | k.extra_prot
            | (Attr::RDONLY | Attr::WRITE | Attr::DIRTY | Attr::PXN | Attr::UXN).bits();
        let written = if leaf.level == Level::PTE { prot::PAGE_KERNEL } else { k.features.vmemmap_block };
        let odd = (leaf.desc.0 ^ written) & !ignored & !k.geometry.reserved_leaf_bits(leaf.level);
        let other = "a vmemmap leaf has attributes that none of these kernels writes";
        (odd != 0).then(|| rules::vmemmap_attributes(leaf.desc).unwrap_or((Invariant::TreeWellFormed, other)))
    }

    /// Whether `leaf` maps the frame of the page that its run began with, from inside the span of one hugepage.
    fn follows_run(&self, leaf: Leaf) -> bool {
        let g = self.view.geometry();
        let Some(run) = self.run.filter(|run| leaf.level == Level::PTE && run.pa == leaf.pa) else { return false };
        // Hugepages are aligned to their length, so the place of the first page bounds the length. 2021 shares the
        // second page: whether the kernel at hand does is judged elsewhere.
        let index = run.first.since(self.view.kernel().layout.vmemmap_start) >> g.page_shift();
        let length = |first: u64| if first == 0 { u64::MAX } else { first & first.wrapping_neg() };
        let most = length(index).max(index.checked_sub(1).map_or(0, |first| length(first) - 1));
        leaf.va.since(run.first) >> g.page_shift() < most
    }

    fn leaf_frame(&mut self, leaf: Leaf, pa: Pa) {
        if self.view.is_listed_hugepage(self.view.geometry().pfn(pa)) == Some(true) {
            self.report_leaf(Invariant::FramesConserved, leaf, "vmemmap maps a frame in the memory of a hugepage");
        }
        let Some(frame) = self.view.frame(pa) else { return };
        if let Some(free) = frame.free {
            self.visible.insert(Invariant::NoUseOfFreedFrame);
            self.visible.insert(Invariant::SelfHostedUntouched);
            if free {
                self.report_leaf(
                    Invariant::NoUseOfFreedFrame,
                    leaf,
                    "vmemmap maps a frame that is in the allocator's hands",
                );
                return;
            }
        }
        match frame.kind {
            FrameKind::Vmemmap => {}
            FrameKind::Table => self.report_leaf(
                Invariant::FramesConserved,
                leaf,
                "a frame is mapped as struct pages and used as a table",
            ),
            FrameKind::Huge | FrameKind::Data => {
                self.report_leaf(
                    Invariant::FramesConserved,
                    leaf,
                    "vmemmap maps a frame that was allocated as something else",
                );
            }
        }
    }

    /// Where the mark is the head's type: whether the first struct page of a vmemmap page, which a restore may have
    /// copied from a head, kept the HugeTLB type and is no head any more. (A shared one still reads as a head.)
    fn stray_type(&mut self, va: Va, frame: Pa) {
        match self.view.kernel().features.hugetlb_mark {
            HugetlbMark::PageType => {}
            HugetlbMark::Destructor => return,
        }
        let Some(count) = self.view.data_word(page_word(frame, 0, word::COUNT)) else { return };
        self.visible.insert(Invariant::RestoredPrivate);
        if is_hugetlb_type(count)
            && self.view.data_word(page_word(frame, 0, word::FLAGS)).is_some_and(|flags| flags & flag::HEAD == 0)
        {
            self.report(Invariant::RestoredPrivate, va.0, "a page that is no head kept the HugeTLB type");
        }
    }

    /// A leaf with frames of its own.
    fn own_leaf(&mut self, leaf: Leaf, pages: u64) {
        let g = self.view.geometry();
        let mut taken = false;
        for i in 0..pages {
            let again = self.marks.mark(g.pfn(leaf.pa).plus(i));
            self.memmap_frames += u64::from(!again);
            taken |= again;
        }
        if taken {
            self.report_leaf(Invariant::FramesConserved, leaf, "the frame has another owner");
        }
        let writable = leaf.desc.is_writable();
        if taken && !writable {
            self.visible.insert(Invariant::TailsResolveToHead);
            self.report_leaf(
                Invariant::TailsResolveToHead,
                leaf,
                "a shared tail maps the frame of another page than its own head",
            );
        } else if !writable {
            self.report_leaf(Invariant::OneWritableHead, leaf, "a vmemmap page that is nobody's tail is read-only");
        }
        // After a stray tail come the others of the same head.
        if !taken || writable {
            self.run = (leaf.level == Level::PTE).then_some(SharedRun { first: leaf.va, pa: leaf.pa, judged: None });
        }
    }

    /// A leaf that maps the frame of the page before it: right only for the tails of an optimised page.
    fn shared_leaf(&mut self, leaf: Leaf) {
        if self.view.frame(leaf.pa).is_some_and(|frame| frame.self_hosted) {
            self.report_leaf(Invariant::SelfHostedUntouched, leaf, "self-hosted storage is shared");
        }
        if self.is_optimised(leaf) == Some(false) {
            self.report_leaf(
                Invariant::RestoredPrivate,
                leaf,
                "a page that is not optimised shares its vmemmap frames",
            );
        } else if leaf.desc.is_writable() {
            self.report_leaf(Invariant::SharedTailsReadOnly, leaf, "a shared tail is writable");
        }
    }

    /// The frames that tails share in each zone have an owner, mapped or not.
    pub fn zone_tail_frames(&mut self) {
        let vars = self.view.kernel().vars;
        match self.view.kernel().features.tail_source {
            TailSource::RetainedPage => return,
            TailSource::ZoneTail => {}
        }
        for (zone, index) in (0..ZONES).flat_map(|zone| (0..ZONE_TAILS).map(move |index| (zone, index))) {
            let Some(pa) = self.view.var(vars.zone_tail(zone, index)).filter(|&pa| pa != 0).map(Pa) else { continue };
            self.tails.add(pa);
            if self.marks.mark(self.view.geometry().pfn(pa)) {
                self.report(Invariant::FramesConserved, pa.0, "the tail frame of a zone has another owner");
            }
        }
    }

    /// Whether the compound page of the struct pages in `leaf` may share its frames: it has the optimised flag, or,
    /// where contents are not visible, it is a listed hugepage; `None` if neither can be seen.
    fn is_optimised(&self, leaf: Leaf) -> Option<bool> {
        // The second struct page of any shared frame is a tail, whichever page it belongs to.
        let Some(head) = self.view.data_word(page_word(leaf.pa, 1, word::COMPOUND_HEAD)) else {
            return self.view.is_listed_hugepage(self.view.kernel().layout.page_pfn(leaf.va));
        };
        let second = leaf.va.plus(STRUCT_PAGE_SIZE);
        let Some(head) = tail_head(self.view.kernel(), second, head) else { return Some(false) };
        let head = self.translate(head)?;
        let private = self.view.data_word(page_word(head, 0, word::PRIVATE))?;
        Some(private & HPG_VMEMMAP_OPTIMIZED != 0)
    }

    /// I15: boot memory stays present for ever, and its vmemmap mapped. Sections side by side are told once.
    pub fn boot_sections(&mut self) {
        let k = self.view.kernel();
        let g = k.geometry;
        for ram in k.ram() {
            let mut pa = ram.start;
            let mut told = false;
            while ram.boot && pa.since(ram.start) < ram.bytes {
                let number = k.vars.section_number(pa);
                if let Some(flags) = self.section_flags(number) {
                    self.visible.insert(Invariant::BootVmemmapKept);
                    let va = k.layout.page_va(g.pfn(pa.align_down(g.section_size())));
                    let mut pages = (0..g.section_vmemmap() >> g.page_shift()).map(|i| va.plus(i << g.page_shift()));
                    let gone = flags & section_flag::HAS_MEM_MAP == 0 || pages.all(|va| self.translate(va).is_none());
                    if gone && !told {
                        self.report(Invariant::BootVmemmapKept, va.0, "the vmemmap of boot memory is gone");
                    }
                    told = gone;
                }
                pa = pa.align_down(g.section_size()).plus(g.section_size());
            }
        }
    }

    /// I33: `nr_memmap_pages` and `nr_memmap_boot_pages` together. Where a vmemmap page serves several sub-sections
    /// (16K, 64K) and not all of them are there, it is counted once for each.
    pub fn counted_frames(&mut self) {
        let k = *self.view.kernel();
        let counted =
            [Scalar::NrMemmapPages, Scalar::NrMemmapBootPages].map(|which| self.view.var(k.vars.scalar(which)));
        let ([Some(pages), Some(boot)], true) = (counted, k.features.memmap_counters) else { return };
        let shared = k.geometry.pages_per_subsection() < k.geometry.struct_pages_per_page();
        if shared && (0..k.vars.sections()).any(|number| self.is_part_there(number)) {
            return;
        }
        self.visible.insert(Invariant::MemoryCounted);
        let found = pages.wrapping_add(boot);
        if found != self.memmap_frames {
            self.report(
                Invariant::MemoryCounted,
                found,
                "nr_memmap is not the number of frames that hold struct pages",
            );
        }
    }

    /// Whether some sub-sections of a section are there and others are not.
    fn is_part_there(&self, number: u32) -> bool {
        let k = self.view.kernel();
        let all = k.geometry.pages_per_section() / k.geometry.pages_per_subsection();
        let early = self.section_flags(number).is_some_and(|flags| flags & section_flag::IS_EARLY != 0);
        let there: u32 =
            (0..4).filter_map(|word| self.view.var(k.vars.subsection_map(number, word))).map(u64::count_ones).sum();
        !early && there != 0 && u64::from(there) != all
    }

    /// I26: of a section that is not there no bit is set.
    pub fn absent_sections(&mut self) {
        let k = self.view.kernel();
        for number in 0..k.vars.sections() {
            let Some(flags) = self.section_flags(number) else { continue };
            self.visible.insert(Invariant::SubsectionMapExact);
            if flags & section_flag::HAS_MEM_MAP != 0 {
                self.visible.insert(Invariant::AlwaysTranslates);
                continue;
            }
            if (0..4).any(|word| self.view.var(k.vars.subsection_map(number, word)).is_some_and(|bits| bits != 0)) {
                let start = k.vars.base.plus(u64::from(number) * k.geometry.section_size());
                let va = k.layout.page_va(k.geometry.pfn(start));
                self.report(
                    Invariant::SubsectionMapExact,
                    va.0,
                    "a subsection_map bit is set and the section is not present",
                );
            }
        }
    }

    /// I27: at rest nobody takes a block offline, so one that is online and isolated was left so by an attempt that
    /// failed.
    pub fn isolated_blocks(&mut self) {
        let k = self.view.kernel();
        for number in 0..k.vars.sections() {
            if self.view.var(k.vars.block(number, Block::State)) != Some(MEM_ONLINE) {
                continue;
            }
            // The last page: the first ones may be the block's own vmemmap.
            let start = k.vars.base.plus(u64::from(number) * k.geometry.section_size());
            let Some(isolated) = self.view.is_isolated(start.plus(k.geometry.section_size() - k.geometry.page_size()))
            else {
                continue;
            };
            self.visible.insert(Invariant::FailureRestores);
            if isolated {
                self.report(Invariant::FailureRestores, start.0, "an online memory block is isolated");
            }
        }
    }

    /// Every hugepage of a list, by its tables, and by its contents where they are visible: a view with pools has
    /// `pools` for that.
    pub fn listed_hugepages(&mut self) {
        let k = self.view.kernel();
        let (sizes, count) = k.geometry.hugetlb_sizes();
        if self.view.is_listed_hugepage(Pfn(0)).is_some() {
            for invariant in [Invariant::TailsResolveToHead, Invariant::RestoredPrivate, Invariant::RollbackComplete] {
                self.visible.insert(invariant);
            }
            if self.view.is_block_online(k.vars.base).is_some() {
                self.visible.insert(Invariant::RemoveMeetsNoOptimised);
            }
        }
        let mut listed = [0u64; 4];
        let mut number = 0;
        while let Some((head, pages)) = self.view.listed_hugepage(number) {
            number += 1;
            if let Some(h) = sizes[..count].iter().position(|&size| size == pages) {
                listed[h] += 1;
            }
            if self.view.has_zone_tails() {
                self.listed_zone_hugepage(head, pages);
            } else {
                self.listed_hugepage(head, pages);
            }
        }
        for (h, &pages) in sizes[..count].iter().enumerate() {
            let Some(nr) = self.view.nr_hugepages(pages) else { continue };
            self.visible.insert(Invariant::CountersBalance);
            if nr != listed[h] {
                self.report(Invariant::CountersBalance, nr, "nr_hugepages is not the number of hugepages listed");
            }
        }
    }

    fn listed_hugepage(&mut self, head: Pfn, pages: u64) {
        let k = *self.view.kernel();
        let (count, kept) = (vmemmap_pages(&k, pages), k.features.reserved_vmemmap_pages);
        if count < 2 {
            return;
        }
        let start = k.layout.page_va(head);
        let leaf = |i: u64| {
            self.walk(start.plus(i << k.geometry.page_shift())).and_then(|w| Some((w.output?, w.desc.is_writable())))
        };
        let (first, second) = (leaf(0), leaf(1));
        // How many of the pages after the kept ones share the frame of the last kept one.
        let sharing = |reserved: u64| {
            let reuse = leaf(reserved - 1).map(|l| l.0);
            (reserved..count).filter(|&i| reuse.is_some() && leaf(i).map(|l| l.0) == reuse).count() as u64
        };
        let shared = sharing(kept);
        let reuse = leaf(kept - 1).map(|l| l.0);
        let stray = (kept..count)
            .filter(|&i| leaf(i).is_some_and(|(pa, writable)| !writable && Some(pa) != reuse))
            .count() as u64;
        let wrong = if kept == 1 {
            // Two kept and the rest sharing the second is what 2021 leaves.
            count > 2
                && first.is_some()
                && second.is_some_and(|l| l.1)
                && first.map(|l| l.0) != second.map(|l| l.0)
                && sharing(2) == count - 2
        } else {
            first.is_some() && first.map(|l| l.0) == second.map(|l| l.0)
        };
        if let Some((invariant, message)) = rules::kept_pages(!wrong) {
            self.report(invariant, start.0, message);
        } else if stray != 0 {
            self.report(
                Invariant::TailsResolveToHead,
                start.0,
                "a read-only tail maps another frame than that of its own head",
            );
        } else if shared != 0 && shared != count - kept {
            self.report(
                Invariant::RollbackComplete,
                start.0,
                "only some tails are shared: neither optimised nor restored",
            );
        }
        hugepage(self, HugePage { head, pages });
        if shared != 0 && self.view.is_block_online(k.geometry.pa(head)) == Some(false) {
            self.report(
                Invariant::RemoveMeetsNoOptimised,
                start.0,
                "an optimised page lies in a memory block that is not online",
            );
        }
    }
}
