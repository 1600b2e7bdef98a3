//! Runs of frames: allocated, freed, split; and the allocator's side of online, isolate, offline.

use std::ops::Range;
use std::sync::atomic::Ordering;

use vmemmap_arch::{FrameKind, InUse, Pa, RangeOp, Zone};

use crate::native::arena::all_zero;
use crate::native::frame_state::{Contents, State, bit};
use crate::native::frames::{CHUNK, MAX_ORDER, Some64};
use crate::native::locks::Patience;
use crate::native::machine::Machine;
use crate::native::running::{Change, Seat};
use crate::native::sync::relax;

/// Why a run could not be freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadFree {
    /// It is not allocated: freed twice, or never given out.
    NotAllocated,
    /// It is allocated, but as something else, or with another order, or it is the inside of a run.
    Mismatch(State),
    SelfHosted,
}

/// How a run is freed.
#[derive(Clone, Copy, Debug)]
pub struct Freeing {
    /// What its frames read as from now on.
    pub poison: Contents,
    /// The generation that it must have.
    pub generation: Option<u32>,
    /// Each frame goes when no checked CPU accesses it.
    pub wait_for_readers: bool,
    pub change: Change,
}

impl Default for Freeing {
    fn default() -> Self {
        Self { poison: Contents::Zero, generation: None, wait_for_readers: false, change: Change::Atomic }
    }
}

/// The numbers of the bits that are set, from the lowest or from the highest on.
#[inline]
fn bits_of(mut mask: u64, top_down: bool) -> impl Iterator<Item = u64> {
    core::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let bit = if top_down { mask.ilog2() } else { mask.trailing_zeros() };
        mask &= !(1 << bit);
        Some(u64::from(bit))
    })
}

impl Machine {
    /// How many frames of a run carry its state: HugeTLB pages are known by their head alone.
    fn marked(kind: FrameKind, order: u8) -> u64 {
        if kind == FrameKind::Huge { 1 } else { 1 << order }
    }

    /// Allocate a run, for a CPU that may keep frames at hand; its first frame's number.
    #[inline]
    pub(crate) fn take_run(
        &self,
        cpu: Option<u8>,
        order: u8,
        kind: FrameKind,
        zone: Zone,
        at: Option<u64>,
        top_down: bool,
    ) -> Option<u64> {
        let first = self.frames.alloc_by(cpu, order, zone, at, top_down)?;
        let flags = if self.is_booting() { bit::RESERVED } else { 0 };
        match kind {
            FrameKind::Vmemmap | FrameKind::Data if order == 0 => self.mark_frame(first, kind, flags, Change::Atomic),
            _ => self.mark_run(first, order, kind, flags),
        }
        Some(first)
    }

    /// `take_run` of single frames that are no tables by an unchecked CPU, at most so many; `each` gets their numbers.
    /// How many there were.
    pub(crate) fn take_each(
        &self,
        cpu: u8,
        seat: &Seat<'_>,
        kind: FrameKind,
        top_down: bool,
        count: usize,
        mut each: impl FnMut(u64),
    ) -> usize {
        let flags = if self.is_booting() { bit::RESERVED } else { 0 };
        let mut taken = 0;
        while taken < count {
            let Some(Some64 { word, mask }) = self.frames.alloc_some(cpu, top_down, count - taken) else { break };
            self.states.touch(word * 64);
            let section = seat.section();
            for bit in bits_of(mask, false) {
                self.mark_frame(word * 64 + bit, kind, flags, section.change());
            }
            drop(section);
            for bit in bits_of(mask, top_down) {
                each(word * 64 + bit);
                taken += 1;
            }
        }
        taken
    }

    /// `mark_run` of one frame that is no table.
    #[inline]
    fn mark_frame(&self, frame: u64, kind: FrameKind, flags: u64, how: Change) {
        let _ = self.states.change(frame, how, |s| Some(s.single(kind, flags)));
    }
    /// What all frames of a run that is allocated share, so that one mapped by a block can be told from what replaced
    /// it.
    fn generation_after(&self, run: Range<u64>) -> u32 {
        run.map(|f| self.states.get(f).generation()).max().unwrap_or(0).wrapping_add(1) | 1
    }

    fn mark_run(&self, first: u64, order: u8, kind: FrameKind, flags: u64) {
        let marked = Self::marked(kind, order);
        let generation = self.generation_after(first..first + marked);
        for f in first..first + marked {
            if kind == FrameKind::Table {
                self.zero_words(f);
            }
            let dirty = if kind == FrameKind::Table { bit::DIRTY } else { 0 };
            let _ = self.states.update(f, |s| {
                let new = s.allocated(generation, kind, order, f != first, flags | dirty);
                Some(new.with_contents(if kind == FrameKind::Table { Contents::Words } else { Contents::Zero }))
            });
        }
    }

    fn zero_words(&self, frame: u64) {
        if self.states.get(frame).has(bit::DIRTY) {
            // A table is nearly always free because all its entries were none: to look takes half of what stores take.
            let (eights, rest) = self.words_of(frame).as_chunks::<8>();
            if !rest.is_empty() || !eights.iter().all(all_zero) {
                self.overwrite(frame, 0);
            }
        } else if let Some(first) = self.words_of(frame).first() {
            // Entries are read before one is stored, and the host would make the page twice (`FrameStates::touch`).
            first.store(0, Ordering::Relaxed);
        }
    }
    /// Set every word of a frame.
    pub(crate) fn overwrite(&self, frame: u64, value: u64) {
        self.words_of(frame).iter().for_each(|w| w.store(value, Ordering::Relaxed));
    }

    /// Return a run to the allocator; `each` sees each of its frames that carries a state, before any can be allocated
    /// again.
    ///
    /// # Errors
    /// `BadFree`; nothing is freed then.
    pub(crate) fn give_run(
        &self,
        cpu: u8,
        pa: Pa,
        order: u8,
        kind: FrameKind,
        how: Freeing,
        each: impl Fn(u64),
    ) -> Result<(), BadFree> {
        let first = self.retire_run(pa, order, kind, how, each)?;
        self.frames.free_by(cpu, first, order);
        Ok(())
    }
    /// `give_run` up to where the allocator gets it; the number of its first frame.
    #[inline]
    pub(crate) fn retire_run(
        &self,
        pa: Pa,
        order: u8,
        kind: FrameKind,
        how: Freeing,
        each: impl Fn(u64),
    ) -> Result<u64, BadFree> {
        let first = self.frame_of(pa);
        let right = |s: State| {
            let same = how.generation.is_none_or(|g| g == s.generation());
            same && s.kind() == Some(kind) && s.order() == order && !s.has(bit::TAIL | bit::SELF_HOSTED)
        };
        if let Err(found) = self.free_state(first, how, right) {
            return Err(match found.kind() {
                None => BadFree::NotAllocated,
                Some(_) if found.has(bit::SELF_HOSTED) => BadFree::SelfHosted,
                Some(_) => BadFree::Mismatch(found),
            });
        }
        each(first);
        for f in first + 1..first + Self::marked(kind, order) {
            let _ = self.free_state(f, how, |_| true);
            each(f);
        }
        Ok(first)
    }

    fn free_state(&self, frame: u64, how: Freeing, right: impl Fn(State) -> bool) -> Result<State, State> {
        let busy = |s: State| how.wait_for_readers && s.has(bit::READERS | bit::WRITER);
        let mut patience = Patience::default();
        loop {
            match self.states.change(frame, how.change, |s| (right(s) && !busy(s)).then(|| s.freed(how.poison))) {
                Err(found) if right(found) && self.states.word(frame).is_some() => patience.wait(),
                done => return done,
            }
        }
    }

    /// `split_page`: each part of order `into` becomes a run of its own, with the generation that it has.
    pub(crate) fn split_run(&self, pa: Pa, order: u8, into: u8) {
        let first = self.frame_of(pa);
        let head = self.states.get(first);
        let Some(kind) = head.kind() else { return };
        if order <= into || head.order() != order {
            return;
        }
        self.frames.split(first, order);
        for f in first..first + (1 << order) {
            let tail = f & ((1 << into) - 1) != 0;
            if tail && kind == FrameKind::Huge {
                continue;
            }
            let _ = self.states.update(f, |s| {
                if kind == FrameKind::Huge && f != first {
                    return Some(s.allocated(head.generation(), kind, into, false, head.0 & bit::RESERVED));
                }
                let place = u64::from(into) << bit::ORDER_SHIFT | if tail { bit::TAIL } else { 0 };
                Some(State(s.0 & !(bit::TAIL | bit::ORDER) | place))
            });
        }
    }

    /// First frame of the allocated run that holds this frame.
    pub(crate) fn head_of(&self, frame: u64) -> Option<u64> {
        let state = self.states.get(frame);
        if state.kind().is_some() {
            return Some(if state.has(bit::TAIL) { frame & !((1 << state.order()) - 1) } else { frame });
        }
        (1..=MAX_ORDER).map(|o| (o, frame & !((1u64 << o) - 1))).find_map(|(o, head)| {
            let s = self.states.get(head);
            (s.kind() == Some(FrameKind::Huge) && s.order() >= o).then_some(head)
        })
    }

    fn frames_in(&self, start: Pa, bytes: u64) -> (u64, u64) {
        let first = self.frame_of(start);
        (
            first,
            first
                .wrapping_add(bytes >> self.geometry().page_shift())
                .min(self.frame_of(Pa(self.frame_pa(0).0 + self.span()))),
        )
    }
    /// Parts of a range by chunk.
    fn chunks_in(first: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let part = move |c: u64| (first.max(c * CHUNK), end.min((c + 1) * CHUNK));
        (first / CHUNK..end.div_ceil(CHUNK)).map(part).filter(|(a, b)| a < b)
    }

    /// First allocated run in [first, end) that `matters`.
    fn first_in_use(&self, first: u64, end: u64, matters: impl Fn(FrameKind) -> bool) -> Option<InUse> {
        for (a, b) in Self::chunks_in(first, end) {
            let mut f = a;
            while f < b {
                let chunk = self.frames.chunk(f / CHUNK);
                if !chunk.is_present() || chunk.used() == 0 {
                    break;
                }
                if !chunk.is_whole() && self.frames.bits_of(f) >> (f % 64) == 0 {
                    f = (f | 63) + 1;
                    continue;
                }
                if !self.frames.is_used(f) || self.is_absent(f) {
                    f += 1;
                    continue;
                }
                // The bit is set before the state, by a CPU that is in between right now.
                let Some(head) = self.head_of(f) else {
                    relax();
                    continue;
                };
                let state = self.states.get(head);
                let Some(kind) = state.kind() else { continue };
                if matters(kind) {
                    return Some(InUse { pa: self.frame_pa(head), kind });
                }
                f = head + (1 << state.order());
            }
        }
        None
    }

    /// A frame of a present chunk that is not the allocator's.
    fn is_absent(&self, frame: u64) -> bool {
        self.states.get(frame).has(bit::SELF_HOSTED) || self.states.get(frame).is_absent()
    }
    /// In chunks that only part of which is memory of the allocator: mark the other frames.
    pub(crate) fn mark_absent(&self, frame: u64, absent: bool) {
        let _ = self
            .states
            .update(frame, |s| (s.kind().is_none() && s.is_absent() != absent).then_some(State(s.0 ^ bit::KIND)));
    }

    pub(crate) fn in_use(&self, start: Pa, bytes: u64) -> Option<InUse> {
        let (first, end) = self.frames_in(start, bytes);
        self.first_in_use(first, end, |_| true)
    }

    /// # Errors
    /// `InUse`: the first obstacle; nothing is changed then.
    pub(crate) fn apply_range_op(&self, start: Pa, bytes: u64, op: RangeOp) -> Result<(), InUse> {
        let (first, end) = self.frames_in(start, bytes);
        match op {
            RangeOp::OnlineNormal => self.online(first, end, false),
            RangeOp::OnlineMovable => self.online(first, end, true),
            RangeOp::Isolate => return self.isolate(first, end),
            RangeOp::UndoIsolate => {
                for (a, _) in Self::chunks_in(first, end) {
                    self.frames.isolate(a / CHUNK, false);
                }
            }
            RangeOp::Offline => return self.offline(first, end),
        }
        Ok(())
    }

    fn online(&self, first: u64, end: u64, movable: bool) {
        if self.self_hosted.load(Ordering::Relaxed) != 0 {
            self.forget_self_hosted(first, end);
        }
        for (a, b) in Self::chunks_in(first, end) {
            if b - a != CHUNK {
                let here = a / CHUNK * CHUNK..(a / CHUNK + 1) * CHUNK;
                let fresh = !self.frames.chunk(a / CHUNK).is_present();
                here.filter(|f| fresh || (a..b).contains(f)).for_each(|f| self.mark_absent(f, !(a..b).contains(&f)));
            }
        }
        self.frames_total.fetch_add(end - first, Ordering::Relaxed);
        for (a, b) in Self::chunks_in(first, end) {
            self.frames.bring(a, b, movable);
        }
    }
    /// Storage of an earlier life of the range.
    fn forget_self_hosted(&self, first: u64, end: u64) {
        for f in first..end {
            if self.states.update(f, |s| s.has(bit::SELF_HOSTED).then(|| s.freed(Contents::Zero))).is_ok() {
                self.self_hosted.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn isolate(&self, first: u64, end: u64) -> Result<(), InUse> {
        let chunks = first / CHUNK..end.div_ceil(CHUNK);
        let changed: Vec<u64> = chunks.clone().filter(|&c| self.frames.isolate(c, true)).collect();
        self.frames.settle(chunks);
        match self.first_in_use(first, end, |kind| matches!(kind, FrameKind::Table | FrameKind::Vmemmap)) {
            None => Ok(()),
            Some(obstacle) => {
                for c in changed {
                    self.frames.isolate(c, false);
                }
                Err(obstacle)
            }
        }
    }

    fn offline(&self, first: u64, end: u64) -> Result<(), InUse> {
        if let Some(obstacle) = self.first_in_use(first, end, |_| true) {
            return Err(obstacle);
        }
        for (a, b) in Self::chunks_in(first, end) {
            self.frames.take_away(a, b);
            if b - a != CHUNK {
                let gone = !self.frames.chunk(a / CHUNK).is_present();
                (a / CHUNK * CHUNK..(a / CHUNK + 1) * CHUNK)
                    .filter(|f| gone || (a..b).contains(f))
                    .for_each(|f| self.mark_absent(f, !gone));
            }
        }
        self.frames_total.fetch_sub(end - first, Ordering::Relaxed);
        Ok(())
    }

    /// Mark frames inside a hot-added range as storage of their own descriptors.
    pub(crate) fn claim_storage(&self, start: Pa, frames: u64) {
        let first = self.frame_of(start);
        let run = first..first.saturating_add(frames);
        let generation = self.generation_after(run.clone());
        for f in run {
            let claimed = |s: State| s.allocated(generation, FrameKind::Vmemmap, 0, false, bit::SELF_HOSTED);
            if let Ok(old) = self.states.update(f, |s| Some(claimed(s)))
                && !old.has(bit::SELF_HOSTED)
            {
                self.self_hosted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Such storage goes back to the range that is removed: neither allocated nor free.
    pub(crate) fn release_storage(&self, start: Pa, frames: u64) {
        let first = self.frame_of(start);
        for f in first..first.saturating_add(frames) {
            let hosted = self.states.update(f, |s| s.has(bit::SELF_HOSTED).then(|| s.freed(Contents::Poison)));
            if hosted.is_ok() {
                self.self_hosted.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}
