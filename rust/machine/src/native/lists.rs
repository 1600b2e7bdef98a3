//! Private lists of frames, linked through their symbol words: a frame on a list holds nothing that anybody reads
//! (`symbol::link`, from either end to the other).

use std::sync::atomic::{AtomicU64, Ordering};

use vmemmap_arch::{Frame, FrameList, Pa};

use crate::native::cpu::Native;
use crate::native::symbol::{across, link};

fn load(at: &AtomicU64) -> u64 {
    at.load(Ordering::Relaxed)
}

impl Native<'_> {
    /// Number and link of a frame.
    #[inline]
    fn linked(&self, pa: Pa) -> Option<(u64, &AtomicU64)> {
        let n = self.machine.frame_of(pa);
        self.machine.states.symbol(n).map(|at| (n & 0xffff_ffff, at))
    }
    #[inline(always)]
    pub(crate) fn push<T: Copy>(&self, list: &mut FrameList<T>, frame: Frame<T>) {
        self.push_each(list, core::iter::once(frame));
    }
    /// `push` of all of them: each link is stored once, when the frame after it is known.
    #[inline(always)]
    pub(crate) fn push_each<T: Copy>(&self, list: &mut FrameList<T>, frames: impl Iterator<Item = Frame<T>>) {
        let (number, links) = (self.machine.frame_numbers(), self.machine.states.symbols());
        let linked = |frame: Frame<T>| {
            let n = number(frame.pa);
            let at = links.get(n as usize);
            if at.is_none() {
                self.wild(frame.pa);
            }
            at.map(|at| (frame, n, at))
        };
        let mut frames = frames.filter_map(linked);
        let (mut previous, mut end) = match list.last {
            Some(last) => {
                let Some(end) = linked(last) else { return };
                (across(load(end.2), end.1), end)
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
            end.2.store(link(previous, next.1), Ordering::Relaxed);
            (previous, end) = (end.1, next);
            len += 1;
        }
        end.2.store(link(previous, end.1), Ordering::Relaxed);
        list.last = Some(end.0);
        list.len = len;
    }
    /// `handle` makes a handle of the frame's number.
    pub(crate) fn pop<T: Copy>(&self, list: &mut FrameList<T>, handle: impl Fn(u64) -> Frame<T>) -> Option<Frame<T>> {
        let last = list.last?;
        list.last = self.without(last, list.len, handle);
        if list.last.is_none() {
            *list = FrameList::new();
            return Some(last);
        }
        list.len -= 1;
        Some(last)
    }
    pub(crate) fn shift<T: Copy>(&self, list: &mut FrameList<T>, handle: impl Fn(u64) -> Frame<T>) -> Option<Frame<T>> {
        let first = list.first?;
        list.first = self.without(first, list.len, handle);
        if list.first.is_none() {
            *list = FrameList::new();
            return Some(first);
        }
        list.len -= 1;
        Some(first)
    }
    /// `shift` until the list is empty: none of its frames becomes an end on the way. `each` gets their numbers.
    pub(crate) fn drain<T: Copy>(&self, list: &mut FrameList<T>, mut each: impl FnMut(u64)) {
        let FrameList { first, len, .. } = core::mem::take(list);
        let Some(mut n) = first.map(|first| self.machine.frame_of(first.pa)) else { return };
        let mut previous = n;
        for _ in 0..len {
            let Some(at) = self.machine.states.symbol(n) else { return };
            let next = across(load(at), previous);
            each(n);
            (previous, n) = (n, next);
        }
    }
    /// The only neighbour of a frame at an end, which becomes an end itself.
    fn without<T: Copy>(&self, end: Frame<T>, len: u32, handle: impl Fn(u64) -> Frame<T>) -> Option<Frame<T>> {
        if len <= 1 {
            return None;
        }
        let (n, at) = self.linked(end.pa)?;
        let neighbour = across(load(at), n);
        let beside = self.machine.states.symbol(neighbour)?;
        beside.store(link(across(load(beside), n), neighbour), Ordering::Relaxed);
        Some(handle(neighbour))
    }
}
