//! Optimised pages of 7.x, whose tails share one frame of the zone (`zone->vmemmap_tails`, `vmemmap_get_tail`): a
//! writable page of their own, and read-only behind it the frame that every page of that size in the zone has (I8 to
//! I13, I29). What a tail names is an address or a mask, which the value tells.

use vmemmap_arch::contents::word;
use vmemmap_arch::tables::walk;
use vmemmap_arch::{Invariant, Level, Pa, Pfn, STRUCT_PAGE_SIZE, Va};

use super::view::{Checker, Leaf, Marks, SharedRun, StateView, Violation, page_word};
use crate::hugetlb::page::HPG_VMEMMAP_OPTIMIZED;
use crate::hugetlb_vmemmap::vmemmap_pages;
use crate::page::tail_head_by_value;

impl<V: StateView + ?Sized, M: Marks + ?Sized, F: FnMut(Violation)> Checker<'_, V, M, F> {
    /// A leaf that may be a tail: read-only, and base pages as all that HVO remaps. Its frame is not its own, so it is
    /// not marked; `listed_zone_hugepage` asks whether somebody else did.
    pub fn zone_tail(&mut self, leaf: Leaf) {
        let page = self.view.geometry().page_size();
        match self.run {
            Some(run) if leaf.va == run.first.plus(page) && leaf.pa != run.pa => {
                self.run = Some(SharedRun { first: run.first, pa: leaf.pa, judged: None });
            }
            Some(run) if leaf.pa == run.pa && leaf.va > run.first.plus(page) => {}
            Some(run) if leaf.va > run.first.plus(page) => self.report_leaf(
                Invariant::TailsResolveToHead,
                leaf,
                "a shared tail maps another frame than the tails before it",
            ),
            _ => self.report_leaf(
                Invariant::OneWritableHead,
                leaf,
                "a vmemmap page that is nobody's tail is read-only, or a tail maps the frame of its own head",
            ),
        }
    }

    /// One hugepage by its tables and, where they are visible, its contents.
    pub fn listed_zone_hugepage(&mut self, head: Pfn, pages: u64) {
        let k = *self.view.kernel();
        let count = vmemmap_pages(&k, pages);
        if count < 2 {
            return;
        }
        let start = k.layout.page_va(head);
        let leaf = |i: u64| {
            let found = walk(self.view, start.plus(i << k.geometry.page_shift()))?;
            Some((found.output?, found.level == Level::PTE && !found.desc.is_writable()))
        };
        let (first, tail) = (leaf(0), leaf(1));
        let shared = (1..count).filter(|&i| leaf(i).is_some_and(|(_, read_only)| read_only)).count() as u64;
        let strays = (1..count).filter(|&i| leaf(i).map(|l| l.0) != tail.map(|l| l.0)).count() as u64;
        let told = if shared == 0 {
            None
        } else if first.is_none_or(|(_, read_only)| read_only) {
            Some((Invariant::OneWritableHead, "the head of an optimised page is not mapped writable"))
        } else if first.map(|l| l.0) == tail.map(|l| l.0) {
            Some((Invariant::TailsResolveToHead, "the tails share the frame of the head, not that of the zone"))
        } else if shared != count - 1 {
            Some((Invariant::RollbackComplete, "only some tails are shared: neither optimised nor restored"))
        } else if strays != 0 {
            Some((Invariant::TailsResolveToHead, "the tails do not all map one frame"))
        } else if tail.is_some_and(|(pa, _)| self.marks.is_marked(k.geometry.pfn(pa))) {
            Some((Invariant::OneWritableHead, "the shared tail frame is a table, or mapped writable elsewhere"))
        } else {
            None
        };
        if let Some((invariant, message)) = told {
            self.report(invariant, start.0, message);
        }
        self.zone_contents(start, pages, count, shared == count - 1);
        if shared != 0 && self.view.is_block_online(k.geometry.pa(head)) == Some(false) {
            let message = "an optimised page lies in a memory block that is not online";
            self.report(Invariant::RemoveMeetsNoOptimised, start.0, message);
        }
    }

    fn zone_contents(&mut self, head: Va, pages: u64, count: u64, shared: bool) {
        let g = self.view.geometry();
        let Some(head_pa) = self.translate(head) else { return };
        let Some(private) = self.view.data_word(page_word(head_pa, 0, word::PRIVATE)) else { return };
        for invariant in [
            Invariant::TailsResolveToHead,
            Invariant::RestoredPrivate,
            Invariant::RollbackComplete,
            Invariant::FlagWithState,
        ] {
            self.visible.insert(invariant);
        }
        let flagged = private & HPG_VMEMMAP_OPTIMIZED != 0;
        if flagged != shared {
            let message = if flagged {
                "the page is flagged as optimised and its tails are not shared"
            } else {
                "the page is not flagged as optimised and its tails are shared"
            };
            self.report(Invariant::FlagWithState, head.0, message);
        }
        for i in 0..count {
            let va = head.plus(i << g.page_shift());
            let Some(pa) = self.translate(va) else { continue };
            let slots = (pages - i * g.struct_pages_per_page()).min(4);
            for nth in u64::from(i == 0)..slots {
                let slot = va.plus(nth * STRUCT_PAGE_SIZE);
                let Some(info) = self.view.data_word(page_word(pa, nth, word::COMPOUND_HEAD)) else { break };
                if tail_head_by_value(slot, info) != Some(head) {
                    let what =
                        if shared || i == 0 { Invariant::TailsResolveToHead } else { Invariant::RestoredPrivate };
                    self.report(what, slot.0, "a tail does not name its head");
                    break;
                }
            }
        }
    }
}

/// Whether a descriptor could be that of a tail of a zone: `PAGE_KERNEL_RO` of a base page.
pub(crate) fn may_be_tail(leaf: Leaf) -> bool {
    leaf.level == Level::PTE && !leaf.desc.is_writable() && leaf.pa != Pa(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_names_its_head_by_mask_or_by_address() {
        let head = Va(0xffff_fdff_c005_0000);
        let slot = head.plus(5 * 4096 + 3 * STRUCT_PAGE_SIZE);
        assert_eq!(tail_head_by_value(slot, 0xffff_ffff_ffff_8001), Some(head));
        assert_eq!(tail_head_by_value(slot, head.0 | 1), Some(head));
        assert_eq!(tail_head_by_value(slot, head.0), None);
        assert_eq!(tail_head_by_value(slot, 1), Some(Va(0)));
    }
}
