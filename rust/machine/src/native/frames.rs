//! Lock-free page frame allocator: which frames are free. What a frame *is* lives in `frame_state`.
//!
//! # Protocol
//! Memory is cut into chunks of 512 frames. Each chunk has one word: how many of its frames are unavailable, and flags;
//! and a bitmap of 512 bits (1 = unavailable). Runs below a chunk are taken in two steps: reserve the number of frames
//! in the chunk's word, then find them in the bitmap; freeing clears the bits first and the reservation second. Hence
//! a chunk whose word says 0 has an all-clear bitmap, and an order-0 reservation always finds its bit. Runs of whole
//! chunks never touch the bitmap: each chunk's word goes from 0 to `WHOLE` by one compare-and-exchange.
//!
//! CPUs keep single frames at hand (`magazines`). A word of 0 is the initial state (free in boot memory, absent
//! elsewhere), so untouched memory costs nothing. Which chunks may have room, of their own or as wholes, is kept in
//! trees of bits (`rooms`), which whoever makes room and whoever finds none keep right.

use core::ops::Range;
use std::io;

use vmemmap_arch::Zone;

use crate::native::arena::Arena;
use crate::native::bitmap::{Bitmap, WORDS};
pub use crate::native::chunk::CHUNK;
use crate::native::chunk::{Chunk, flag};
use crate::native::magazines::{GROUP, Magazines, Rest, next_of};
use crate::native::rooms::Rooms;
use crate::native::sync::{AtomicU64, Ordering, relax};

/// log2 of `CHUNK`.
pub const CHUNK_ORDER: u8 = 9;
/// Largest order of an allocation.
pub const MAX_ORDER: u8 = 24;

/// A range of frame indices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    pub first: u64,
    pub end: u64,
    pub boot: bool,
}

/// Of the frames `word * 64..` those in `mask`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Some64 {
    pub word: u64,
    pub mask: u64,
}

/// The allocator.
#[derive(Debug)]
pub struct Frames {
    chunks: Arena,
    bits: Bitmap,
    nr_chunks: u64,
    /// Chunks of each range, sorted; those that share a chunk are merged.
    spans: Vec<Span>,
    /// By zone.
    rooms: [ZoneRooms; 2],
    magazines: Magazines,
    /// Free frames but those in magazines.
    free: Padded,
}

/// Where a zone may have room.
#[derive(Debug)]
struct ZoneRooms {
    /// For a single frame.
    any: Rooms,
    /// The same, in chunks from which frames are taken one by one. Nothing rests on a chunk being among these.
    singles: Rooms,
    /// For a whole chunk.
    whole: Rooms,
}

impl ZoneRooms {
    fn new(chunks: u64) -> io::Result<Self> {
        let of = |open| Rooms::new(chunks, open);
        Ok(Self { any: of(true)?, singles: of(false)?, whole: of(true)? })
    }
}

/// On a cache line (pair) of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Padded(AtomicU64);

impl Frames {
    /// An allocator of `frames` frames, of which the boot spans are free and the others absent, for so many CPUs.
    ///
    /// # Errors
    /// Of `mmap`.
    pub fn new(frames: u64, ram: &[Span], cpus: u8) -> io::Result<Self> {
        let nr_chunks = frames.div_ceil(CHUNK);
        let mut spans: Vec<Span> = Vec::new();
        for r in ram {
            let span = Span { first: r.first / CHUNK, end: r.end.div_ceil(CHUNK), boot: r.boot };
            let Some(last) = spans.last_mut().filter(|last| span.first < last.end) else {
                spans.push(span);
                continue;
            };
            // A chunk that boot and hot-added memory share is a boot chunk with absent frames.
            let seam = last.end;
            if last.boot == span.boot {
                last.end = span.end;
            } else if last.boot {
                spans.push(Span { first: seam, ..span });
            } else {
                last.end = span.first;
                spans.push(span);
            }
        }
        spans.retain(|s| s.first < s.end);
        let this = Self {
            chunks: Arena::new(nr_chunks)?,
            bits: Bitmap::new(nr_chunks)?,
            nr_chunks,
            spans,
            rooms: [ZoneRooms::new(nr_chunks)?, ZoneRooms::new(nr_chunks)?],
            magazines: Magazines::new(cpus),
            free: Padded(AtomicU64::new(ram.iter().filter(|r| r.boot).map(|r| r.end - r.first).sum())),
        };
        this.mark_ragged_edges(ram);
        Ok(this)
    }

    /// Frames of boot chunks that lie in no boot range are unavailable.
    fn mark_ragged_edges(&self, ram: &[Span]) {
        let in_boot = |f: u64| ram.iter().any(|r| r.boot && f >= r.first && f < r.end);
        for edge in ram.iter().flat_map(|r| [r.first, r.end.saturating_sub(1)]) {
            let c = edge / CHUNK;
            if !self.is_boot(c) || self.chunk(c).used() != 0 {
                continue;
            }
            self.block_out(c, |f| !in_boot(f));
        }
    }
    /// Make free or absent frames of a chunk unavailable, in bitmap and count.
    fn block_out(&self, chunk: u64, gone: impl Fn(u64) -> bool) {
        let mut count = 0;
        for word in chunk * WORDS..(chunk + 1) * WORDS {
            let mask = (0..64).filter(|i| gone(word * 64 + i)).fold(0, |mask, i| mask | 1u64 << i);
            if mask != 0 && self.bits.set(word, mask) {
                count += u64::from(mask.count_ones());
            }
        }
        self.update(chunk, |c| Some(c.0 + count));
    }

    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }
    fn is_boot(&self, chunk: u64) -> bool {
        self.spans.iter().any(|s| s.boot && chunk >= s.first && chunk < s.end)
    }
    /// What turns the stored word into the decoded one and back.
    fn inversion(&self, chunk: u64) -> u64 {
        if self.is_boot(chunk) { flag::PRESENT } else { 0 }
    }
    #[must_use]
    pub fn chunk(&self, chunk: u64) -> Chunk {
        self.chunks.get(chunk).map_or(Chunk(0), |w| Chunk(w.load(Ordering::Acquire) ^ self.inversion(chunk)))
    }
    /// Replace the chunk's word by `change` of it, unless that is `None`. Returns the old word if it was replaced.
    fn update(&self, chunk: u64, change: impl Fn(Chunk) -> Option<u64>) -> Option<Chunk> {
        let word = self.chunks.get(chunk)?;
        let inversion = self.inversion(chunk);
        let mut old = word.load(Ordering::Acquire);
        loop {
            let new = change(Chunk(old ^ inversion))? ^ inversion;
            match word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Chunk(old ^ inversion)),
                Err(now) => old = now,
            }
        }
    }

    /// `alloc` by a CPU that may keep frames at hand. By one CPU alone the frames are those that `alloc` would give.
    #[inline]
    pub fn alloc_by(&self, cpu: Option<u8>, order: u8, zone: Zone, at: Option<u64>, top_down: bool) -> Option<u64> {
        let single = order == 0 && zone == Zone::Normal && at.is_none();
        if single && let Some(frame) = cpu.and_then(|cpu| self.magazines.pop(cpu, top_down)) {
            return Some(frame);
        }
        self.alloc_afresh(cpu, order, zone, at, top_down, single)
    }
    /// What `alloc_by` of single frames of the normal zone would give next as long as the CPU has any at hand, at most
    /// so many.
    #[inline]
    pub fn at_hand(&self, cpu: u8, top_down: bool, count: usize) -> Option<Rest> {
        self.magazines.pop_each(cpu, top_down, count)
    }
    #[inline(never)]
    fn alloc_afresh(
        &self,
        cpu: Option<u8>,
        order: u8,
        zone: Zone,
        at: Option<u64>,
        top_down: bool,
        single: bool,
    ) -> Option<u64> {
        cpu.inspect(|&cpu| self.drain(cpu));
        if let Some(first) = self.alloc(order, zone, at, top_down) {
            if single && let Some(cpu) = cpu {
                self.fill(cpu, first, top_down);
            }
            return Some(first);
        }
        // What CPUs have at hand is free memory; some of it may have come back just now.
        loop {
            let fills = self.magazines.fills();
            let more = self.drain_all(&(0..self.nr_chunks));
            let found = self.alloc(order, zone, at, top_down);
            if found.is_some() || !more && self.magazines.fills() == fills {
                return found;
            }
        }
    }
    /// What `alloc_by` of single frames of the normal zone would give next if no other CPU asked: of 64 frames side by
    /// side so many. Of few the others of the group are kept at hand; many go past the magazine.
    #[inline]
    pub fn alloc_some(&self, cpu: u8, top_down: bool, count: usize) -> Option<Some64> {
        if let Some(Rest { group, mask }) = self.at_hand(cpu, top_down, count) {
            return Some(Some64 { word: group * GROUP / 64, mask: mask << (group * GROUP % 64) });
        }
        let few = count < GROUP as usize;
        let first = self.alloc_afresh(Some(cpu), 0, Zone::Normal, None, top_down, few)?;
        let (word, own) = (first / 64, 1 << (first % 64));
        let others = if few { 0 } else { self.take_beside(word, next_of(!self.bits.word(word), count - 1, top_down)) };
        Some(Some64 { word, mask: own | others })
    }
    /// The frame was found first; the others of its group are the next in that direction.
    fn fill(&self, cpu: u8, first: u64, top_down: bool) {
        let (group, shift) = (first / GROUP, first / GROUP * GROUP % 64);
        let wanted = !(self.bits.word(first / 64) >> shift) & ((1 << GROUP) - 1);
        if wanted == 0 || !self.magazines.begin_filling(cpu, group) {
            return;
        }
        let mask = self.take_beside(first / 64, wanted << shift) >> shift;
        self.magazines.filled(cpu, Rest { group, mask }, top_down);
    }
    /// Of 64 frames of the normal zone, one of which was just taken, those in `wanted` that are still free; which.
    fn take_beside(&self, word: u64, wanted: u64) -> u64 {
        let (chunk, wished) = (word / WORDS, u64::from(wanted.count_ones()));
        if wished == 0 || self.reserve(chunk, wished, false, true).is_none() {
            return 0;
        }
        let mask = self.bits.take_clear(word, wanted);
        let taken = u64::from(mask.count_ones());
        self.free.0.fetch_sub(taken, Ordering::Relaxed);
        if taken != wished {
            self.unreserve(chunk, wished - taken);
        }
        mask
    }
    /// What a CPU keeps at hand goes back.
    #[inline]
    pub fn drain(&self, cpu: u8) {
        self.magazines.empty(cpu, |rest| self.give_back(rest));
    }
    /// What all CPUs keep at hand goes back; what is on its way there too, if it is of a chunk in `awaited`. Whether
    /// there was anything.
    fn drain_all(&self, awaited: &Range<u64>) -> bool {
        let groups = awaited.start * (CHUNK / GROUP)..awaited.end * (CHUNK / GROUP);
        self.magazines.empty_all(&groups, |rest| self.give_back(rest))
    }
    fn give_back(&self, rest: Rest) {
        let first = rest.group * GROUP;
        self.free.0.fetch_add(u64::from(rest.mask.count_ones()), Ordering::Relaxed);
        self.bits.clear_mask(first / 64, rest.mask << (first % 64));
        self.unreserve(first / CHUNK, u64::from(rest.mask.count_ones()));
    }
    /// Frames that are free, those that CPUs keep at hand among them.
    #[must_use]
    pub fn nr_free(&self) -> u64 {
        self.free.0.load(Ordering::Relaxed).wrapping_add(self.magazines.count())
    }
    /// `free` by a CPU that may keep frames at hand.
    #[inline]
    pub fn free_by(&self, cpu: u8, first: u64, order: u8) {
        if self.magazines.precedes(cpu, first) {
            self.drain(cpu);
        }
        self.free(first, order);
    }

    /// `free_by` of single frames, those in `mask` of 64.
    pub fn free_by_mask(&self, cpu: u8, word: u64, mask: u64) {
        let frames = u64::from(mask.count_ones());
        if [mask.trailing_zeros(), mask.ilog2()]
            .iter()
            .any(|&bit| self.magazines.precedes(cpu, word * 64 + u64::from(bit)))
        {
            self.drain(cpu);
        }
        self.free.0.fetch_add(frames, Ordering::Relaxed);
        self.bits.clear_mask(word, mask);
        self.unreserve(word * 64 / CHUNK, frames);
    }

    /// Take a naturally aligned run of 2^`order` frames; the index of its first frame.
    pub fn alloc(&self, order: u8, zone: Zone, at: Option<u64>, top_down: bool) -> Option<u64> {
        if order > MAX_ORDER {
            return None;
        }
        let found = self.find(order, zone, at, top_down)?;
        self.free.0.fetch_sub(1 << order, Ordering::Relaxed);
        Some(found)
    }
    fn find(&self, order: u8, zone: Zone, at: Option<u64>, top_down: bool) -> Option<u64> {
        if let Some(at) = at {
            return self.alloc_at(order, zone, at);
        }
        if zone == Zone::Movable
            && self.spans.iter().any(|s| !s.boot)
            && let Some(found) = self.search(order, true, top_down)
        {
            return Some(found);
        }
        self.search(order, false, top_down)
    }

    fn alloc_at(&self, order: u8, zone: Zone, at: u64) -> Option<u64> {
        let n = 1u64 << order;
        if !at.is_multiple_of(n) {
            return None;
        }
        let movable = self.chunk(at / CHUNK).zone() == Zone::Movable;
        if movable && zone == Zone::Normal {
            return None;
        }
        if order >= CHUNK_ORDER {
            return self.take_chunks(at / CHUNK, n / CHUNK, movable).then_some(at);
        }
        let c = at / CHUNK;
        self.reserve(c, n, movable, order == 0)?;
        let taken = self.bits.take(at, n);
        self.reserved(c, n, taken);
        taken.then_some(at)
    }

    /// Take these of 64 frames, all or none, wherever they are.
    pub fn take_mask(&self, word: u64, mask: u64) -> bool {
        let (chunk, frames) = (word / WORDS, u64::from(mask.count_ones()));
        if self.reserve(chunk, frames, self.chunk(chunk).zone() == Zone::Movable, true).is_none() {
            return false;
        }
        let taken = self.bits.take_in_word(word, mask);
        self.reserved(chunk, frames, taken);
        if taken {
            self.free.0.fetch_sub(frames, Ordering::Relaxed);
        }
        taken
    }

    /// The lowest (highest) run in a zone; but a single frame from below out of a chunk in which there are single
    /// frames already: the kernel splits no larger block while there is a smaller one, and keeps what cannot move
    /// together.
    fn search(&self, order: u8, movable: bool, top_down: bool) -> Option<u64> {
        let rooms = &self.rooms[usize::from(movable)];
        if order >= CHUNK_ORDER {
            return self.search_whole(&rooms.whole, order, movable, top_down);
        }
        let beside_others = || self.search_parts(&rooms.singles, order, movable, top_down, Chunk::has_singles);
        let anywhere = || self.search_parts(&rooms.any, order, movable, top_down, |_| true);
        if order == 0 && !top_down { beside_others().or_else(anywhere) } else { anywhere() }
    }
    /// A run below a chunk, in a chunk that `suits`.
    fn search_parts(
        &self,
        rooms: &Rooms,
        order: u8,
        movable: bool,
        top_down: bool,
        suits: impl Fn(Chunk) -> bool,
    ) -> Option<u64> {
        let mut at = if top_down { self.nr_chunks.checked_sub(1) } else { Some(0) };
        while let Some(from) = at {
            let chunk = if top_down { rooms.last(from) } else { rooms.next(from) }?;
            let suitable = || {
                let now = self.chunk(chunk);
                suits(now) && now.has_room(1, movable)
            };
            if suits(self.chunk(chunk))
                && let Some(found) = self.take_part(chunk, order, movable, top_down)
            {
                return Some(found);
            }
            if !suitable() {
                rooms.has_none(chunk, suitable);
            }
            at = if top_down { chunk.checked_sub(1) } else { Some(chunk + 1) };
        }
        None
    }
    /// A run of whole chunks.
    fn search_whole(&self, rooms: &Rooms, order: u8, movable: bool, top_down: bool) -> Option<u64> {
        let step = 1 << (order - CHUNK_ORDER);
        let mut at = if top_down { self.nr_chunks.checked_sub(1) } else { Some(0) };
        while let Some(from) = at {
            let chunk = if top_down { rooms.last(from) } else { rooms.next(from) }?;
            let first = chunk / step * step;
            let inside = |s: &Span| first >= s.first && first + step <= s.end;
            if self.spans.iter().any(inside) && self.take_chunks(first, step, movable) {
                return Some(first * CHUNK);
            }
            let has_room = || self.chunk(chunk).has_room(CHUNK, movable);
            if !has_room() {
                rooms.has_none(chunk, has_room);
            }
            at = if top_down { first.checked_sub(1) } else { Some(first + step) };
        }
        None
    }
    fn take_part(&self, chunk: u64, order: u8, movable: bool, top_down: bool) -> Option<u64> {
        let n = 1u64 << order;
        self.reserve(chunk, n, movable, order == 0)?;
        let found = self.bits.find(chunk, order, top_down);
        self.reserved(chunk, n, found.is_some());
        found
    }

    /// `single`: frames to be taken one by one.
    fn reserve(&self, chunk: u64, frames: u64, movable: bool, single: bool) -> Option<()> {
        let singles = if single { flag::SINGLES } else { 0 };
        let taken = |c: Chunk| (c.0 + frames + Self::spread(frames)) | singles;
        let old = self.update(chunk, |c| c.has_room(frames, movable).then(|| taken(c)))?;
        if single && !old.has_singles() {
            self.rooms[usize::from(movable)].singles.may_have(chunk);
        }
        Some(())
    }
    /// The second step is over: the frames reserved have become bits, or are given back.
    fn reserved(&self, chunk: u64, frames: u64, taken: bool) {
        if Self::spread(frames) != 0 {
            self.update(chunk, |c| Some(c.0 - flag::SPREAD));
        }
        if !taken {
            self.unreserve(chunk, frames);
        }
    }
    /// Such a run sets one word after the other, and clears them again if it meets a word that is taken: for that time
    /// the bitmap does not say whose bits they are.
    const fn spread(frames: u64) -> u64 {
        if frames > 64 { flag::SPREAD } else { 0 }
    }
    fn unreserve(&self, chunk: u64, frames: u64) {
        let left = |c: Chunk| c.0.wrapping_sub(frames) & if c.used() == frames { !flag::SINGLES } else { !0 };
        if let Some(old) = self.update(chunk, |c| Some(left(c))) {
            self.made_room(chunk, old, old.used() - frames);
        }
    }
    /// Say so if the chunk went from full to not full, or became wholly free.
    fn made_room(&self, chunk: u64, old: Chunk, used: u64) {
        let rooms = &self.rooms[usize::from(old.zone() == Zone::Movable)];
        if old.used() == CHUNK || old.is_isolated() {
            rooms.any.may_have(chunk);
            if used != 0 && old.has_singles() {
                rooms.singles.may_have(chunk);
            }
        }
        if used == 0 {
            rooms.whole.may_have(chunk);
        }
    }

    fn take_chunks(&self, first: u64, n: u64, movable: bool) -> bool {
        for i in 0..n {
            let taken = self.update(first + i, |c| c.has_room(CHUNK, movable).then_some(c.0 | CHUNK | flag::WHOLE));
            if taken.is_none() {
                self.give_chunks(first, i);
                return false;
            }
        }
        true
    }
    fn give_chunks(&self, first: u64, n: u64) {
        for c in first..first + n {
            if let Some(old) = self.update(c, |c| Some(c.0 & !(flag::USED | flag::WHOLE))) {
                self.made_room(c, old, 0);
            }
        }
    }

    /// Give back a run that `alloc` (or `split`) made; the caller has made sure that it is one.
    pub fn free(&self, first: u64, order: u8) {
        let n = 1u64 << order;
        // Before anybody can take them: the count never falls below 0.
        self.free.0.fetch_add(n, Ordering::Relaxed);
        if order >= CHUNK_ORDER {
            if self.chunk(first / CHUNK).is_whole() {
                self.give_chunks(first / CHUNK, n / CHUNK);
            } else {
                for c in 0..n / CHUNK {
                    self.bits.clear(first + c * CHUNK, CHUNK);
                    self.unreserve(first / CHUNK + c, CHUNK);
                }
            }
            return;
        }
        self.bits.clear(first, n);
        self.unreserve(first / CHUNK, n);
    }
    /// Make the parts of a run of whole chunks freeable one by one.
    pub fn split(&self, first: u64, order: u8) {
        if order < CHUNK_ORDER {
            return;
        }
        for c in first / CHUNK..(first + (1 << order)) / CHUNK {
            if !self.chunk(c).is_whole() {
                continue;
            }
            self.bits.fill(c);
            self.update(c, |c| Some(c.0 & !flag::WHOLE | flag::SINGLES));
        }
    }

    /// Whether a frame is unavailable: allocated, absent within its chunk, or its chunk absent.
    #[must_use]
    pub fn is_used(&self, frame: u64) -> bool {
        let c = self.chunk(frame / CHUNK);
        !c.is_present() || c.is_whole() || self.bits.has(frame) && !self.magazines.holds(frame)
    }
    /// 64 frames of the bitmap, the first of them a multiple of 64.
    #[must_use]
    pub fn bits_of(&self, frame: u64) -> u64 {
        self.bits.word(frame / 64)
    }

    /// Let no allocation start in the chunk (or let them again). Returns whether this changed anything.
    pub fn isolate(&self, chunk: u64, on: bool) -> bool {
        let old = self.update(chunk, |c| (c.is_isolated() != on).then_some(c.0 ^ flag::ISOLATED));
        if let Some(old) = old
            && !on
        {
            self.made_room(chunk, old, old.used());
        }
        old.is_some()
    }
    /// Wait until every reservation of isolated chunks has become bits of frames that are allocated.
    ///
    /// The count of an isolated chunk can only fall, and a free clears its bits before it lowers the count. If the
    /// count was the same before and after the words were read, every reservation in it was there all the time, none of
    /// them moved its bits (those that could are `SPREAD`), and each bit seen is of one of them: as many bits as the
    /// count says are all of them.
    ///
    /// The frames that CPUs keep at hand are no reservations and go back first.
    pub fn settle(&self, chunks: Range<u64>) {
        self.drain_all(&chunks);
        chunks.for_each(|chunk| self.settle_one(chunk));
    }
    fn settle_one(&self, chunk: u64) {
        loop {
            let c = self.chunk(chunk);
            if !c.is_present() || c.is_whole() {
                return;
            }
            if self.bits.count(chunk) == c.used() && !c.is_spread() && self.chunk(chunk).used() == c.used() {
                return;
            }
            relax();
        }
    }

    /// Hand part (`first` to `end`, within one chunk) of an absent chunk, or the absent part of a present one, to the
    /// allocator. Hotplug excludes other callers for the same chunk.
    pub fn bring(&self, first: u64, end: u64, movable: bool) {
        let chunk = first / CHUNK;
        self.free.0.fetch_add(end - first, Ordering::Relaxed);
        let flags = flag::PRESENT | if movable { flag::MOVABLE } else { 0 };
        if self.chunk(chunk).is_present() {
            for f in first..end {
                self.bits.clear(f, 1);
            }
            self.unreserve(chunk, end - first);
            return;
        }
        if end - first != CHUNK {
            self.block_out(chunk, |f| f < first || f >= end);
        }
        if let Some(old) = self.update(chunk, |c| Some(flags | c.used())) {
            self.made_room(chunk, Chunk(flags | CHUNK), old.used());
        }
    }
    /// Take part of an isolated chunk, all of it free, away from the allocator.
    pub fn take_away(&self, first: u64, end: u64) {
        let chunk = first / CHUNK;
        if end - first != CHUNK {
            self.block_out(chunk, |f| f >= first && f < end);
        }
        let used = self.chunk(chunk).used();
        if used == 0 || used == CHUNK {
            for w in 0..WORDS {
                self.bits.clear(chunk * CHUNK + w * 64, 64);
            }
            self.update(chunk, |_| Some(0));
        }
        self.free.0.fetch_sub(end - first, Ordering::Relaxed);
    }
}
