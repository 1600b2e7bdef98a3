//! Frames that a CPU without checks allocates, fills and gives back.

use vmemmap_arch::{Alloc, Cpu, Frame, FrameKind, FrameList, Invariant, Pa, Template};

use crate::native::contents::Filling;
use crate::native::counters::Count;
use crate::native::cpu::Native;
use crate::native::frame_state::bit;
use crate::native::ranges::{BadFree, Freeing};
use crate::native::running::Change;

impl Native<'_> {
    pub(crate) fn take(&self, request: Alloc) -> Option<u64> {
        let m = self.machine;
        let at = request.at.map(|pa| m.frame_of(pa));
        let found = if m.injection.fails(self.cpu) {
            None
        } else {
            m.take_run(Some(self.cpu), request.order, request.kind, request.zone, at, request.top_down)
        };
        match found {
            Some(_) => self.tally.add(Count::FrameAllocated, 1 << request.order),
            None => self.tally.count(Count::AllocFailure),
        }
        found
    }
    /// `copy_tail_frame` of one frame to each of the others; where its tails are a template, as that.
    #[inline]
    pub(super) fn copy_tail_frames(&self, from: Frame<()>, to: impl Iterator<Item = Frame<()>>, reset: u16) {
        let m = self.machine;
        let tail = m.tails_of(m.frame_of(from.pa), reset);
        let Some(tail) = tail else {
            return to.for_each(|to| {
                self.copy_frame(from, to);
                self.reset_tails(to, reset);
            });
        };
        let filling = Filling::of(tail);
        self.changing(|how| {
            to.for_each(|to| {
                let to = m.frame_of(to.pa);
                m.fill(to, filling, how).unwrap_or_else(|| self.outside(to));
            });
        });
    }
    #[inline]
    pub(super) fn fill_found(&self, frame: u64, template: Template) {
        self.changing(|how| self.machine.set_template(frame, template, how)).unwrap_or_else(|| self.outside(frame));
    }
    /// Returns whether it was freed.
    pub(crate) fn give(&self, pa: Pa, order: u8, kind: FrameKind, how: Freeing, each: impl Fn(u64)) -> bool {
        let freed = self.machine.give_run(self.cpu, pa, order, kind, how, each);
        self.was_freed(pa, order, kind, freed)
    }
    /// The first half of `give` for one frame: nobody's, and not yet in the allocator's hands.
    fn retire(&self, pa: Pa, kind: FrameKind, change: Change) -> bool {
        let retired = self.machine.retire_run(pa, 0, kind, Freeing { change, ..Freeing::default() }, |_| {});
        self.was_freed(pa, 0, kind, retired.map(|_| ()))
    }
    #[inline]
    fn was_freed(&self, pa: Pa, order: u8, kind: FrameKind, freed: Result<(), BadFree>) -> bool {
        match freed {
            Ok(()) => {
                self.tally.add(Count::FrameFreed, 1 << order);
                if kind == FrameKind::Table {
                    self.tally.count(Count::TableFreed);
                }
            }
            Err(bad) => self.bad_free(pa, order, kind, bad),
        }
        freed.is_ok()
    }
    #[cold]
    #[inline(never)]
    fn bad_free(&self, pa: Pa, order: u8, kind: FrameKind, bad: BadFree) {
        let (invariant, message) = match bad {
            BadFree::NotAllocated => (Invariant::FramesConserved, format!("free of {pa}, which is not allocated")),
            BadFree::Mismatch(found) => {
                let message = match found.kind() {
                    _ if found.has(bit::TAIL) => {
                        format!("free of {pa}, which lies inside a run of order {}", found.order())
                    }
                    Some(k) => {
                        format!("free of {pa} as {kind:?} of order {order}; it is {k:?} of order {}", found.order())
                    }
                    None => format!("free of {pa}, which is not allocated"),
                };
                (Invariant::FramesConserved, message)
            }
            BadFree::SelfHosted => {
                (Invariant::SelfHostedUntouched, format!("self-hosted frame {pa} returned to the allocator"))
            }
        };
        self.report(invariant, pa.0, message, Some(pa));
    }
    /// Those of a list, 64 side by side at a time.
    pub(super) fn give_each(&self, list: &mut FrameList<()>, kind: FrameKind) {
        let (mut word, mut mask) = (0, 0);
        let give = |word: u64, mask: u64| {
            if mask != 0 {
                self.machine.frames.free_by_mask(self.cpu, word, mask);
            }
        };
        // Of those that are given back together; a list can be long.
        let mut section = Some(self.seat.section());
        self.drain(list, |number| {
            if number / 64 != word {
                drop(section.take());
                give(word, mask);
                (word, mask) = (number / 64, 0);
            }
            let change = section.get_or_insert_with(|| self.seat.section()).change();
            if self.retire(self.machine.frame_pa(number), kind, change) {
                mask |= 1 << (number % 64);
            }
        });
        drop(section);
        give(word, mask);
    }
}
