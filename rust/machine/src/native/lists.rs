//! Private lists of frames, linked beside the frames: in a frame's link word the previous frame in the high half, the
//! next one in the low half; itself: none.

use std::sync::atomic::Ordering;

use vmemmap_arch::{Frame, FrameList, Pa};

use crate::native::cpu::Native;

impl Native<'_> {
    #[inline(always)]
    pub(crate) fn push<T: Copy>(&self, list: &mut FrameList<T>, frame: Frame<T>) {
        let n = self.machine.frame_of(frame.pa) & 0xffff_ffff;
        let Some(link) = self.machine.states.link(n) else {
            self.wild(frame.pa);
            return;
        };
        match list.last {
            None => {
                link.store(n << 32 | n, Ordering::Relaxed);
                list.first = Some(frame);
            }
            Some(last) => {
                let l = self.machine.frame_of(last.pa);
                link.store(l << 32 | n, Ordering::Relaxed);
                if let Some(before) = self.machine.states.link(l) {
                    let old = before.load(Ordering::Relaxed);
                    before.store(old & !0xffff_ffff | n, Ordering::Relaxed);
                }
            }
        }
        list.last = Some(frame);
        list.len += 1;
    }
    /// `push` of all of them: each link is stored once, when the frame after it is known.
    #[inline(always)]
    pub(crate) fn push_each<T: Copy>(&self, list: &mut FrameList<T>, frames: impl Iterator<Item = Frame<T>>) {
        let (number, links) = (self.machine.frame_numbers(), self.machine.states.links());
        let linked = |frame: Frame<T>| {
            let n = number(frame.pa) & 0xffff_ffff;
            let link = links.get(n as usize);
            if link.is_none() {
                self.wild(frame.pa);
            }
            link.map(|link| (frame, n, link))
        };
        let mut frames = frames.filter_map(linked);
        let (mut previous, mut end) = match list.last {
            Some(last) => {
                let Some(end) = linked(last) else { return };
                (end.2.load(Ordering::Relaxed) >> 32, end)
            }
            None => {
                let Some(end) = frames.next() else { return };
                list.first = Some(end.0);
                list.len = 1;
                (end.1, end)
            }
        };
        let mut len = list.len;
        for next in frames {
            end.2.store(previous << 32 | next.1, Ordering::Relaxed);
            (previous, end) = (end.1, next);
            len += 1;
        }
        end.2.store(previous << 32 | end.1, Ordering::Relaxed);
        list.last = Some(end.0);
        list.len = len;
    }
    /// Number of the neighbour of a frame on its list.
    fn neighbour(&self, pa: Pa, previous: bool) -> Option<u64> {
        let n = self.machine.frame_of(pa);
        let link = self.machine.states.link(n)?.load(Ordering::Relaxed);
        let other = if previous { link >> 32 } else { link & 0xffff_ffff };
        (other != n).then_some(other)
    }
    /// `handle` makes a handle of the frame's number.
    pub(crate) fn pop<T: Copy>(&self, list: &mut FrameList<T>, handle: impl Fn(u64) -> Frame<T>) -> Option<Frame<T>> {
        let last = list.last?;
        list.last = if list.len > 1 { self.neighbour(last.pa, true).map(handle) } else { None };
        self.shrink(list, false);
        Some(last)
    }
    pub(crate) fn shift<T: Copy>(&self, list: &mut FrameList<T>, handle: impl Fn(u64) -> Frame<T>) -> Option<Frame<T>> {
        let first = list.first?;
        list.first = if list.len > 1 { self.neighbour(first.pa, false).map(handle) } else { None };
        self.shrink(list, true);
        Some(first)
    }
    fn shrink<T: Copy>(&self, list: &mut FrameList<T>, at_front: bool) {
        list.len = list.len.saturating_sub(1);
        let end = if at_front { list.first } else { list.last };
        let Some(end) = end else {
            *list = FrameList::new();
            return;
        };
        let n = self.machine.frame_of(end.pa);
        if let Some(link) = self.machine.states.link(n) {
            let old = link.load(Ordering::Relaxed);
            link.store(if at_front { n << 32 | old & 0xffff_ffff } else { old & !0xffff_ffff | n }, Ordering::Relaxed);
        }
    }
}
