//! The page frame allocator of an explored machine.
//!
//! While the machine is set up, frames are found in RAM from either end. Once it is marked, each actor takes tables and
//! vmemmap from a pool of its own and freed frames stay freed, so that allocations of different actors commute and a
//! frame has the same name in every interleaving. HugeTLB pages, whose contents nobody looks at, come and go.

use vmemmap_arch::{Alloc, Frame, FrameKind, InUse, Invariant, Pa, RangeOp, Zone};

use super::cells::Cell;
use super::memory::{FrameId, Life, SlotId};
use super::pools::Pool;
use super::world::World;
use crate::op::{Reply, Tok};

/// State of a section, in one cell.
mod section {
    pub const NORMAL: u64 = 1;
    pub const MOVABLE: u64 = 2;
    pub const ISOLATED: u64 = 4;
}

/// Runs of this many frames (log2) and more come from the second half of a pool.
const LONG: u8 = 3;

impl World {
    pub(super) fn init_allocator(&mut self) {
        let g = self.geometry;
        let size = g.section_size();
        let base = self.ram.first().map_or(0, |r| r.start.0) & !(size - 1);
        let limit = self.ram.last().map_or(0, |r| r.end().0).next_multiple_of(size);
        self.allocator.base = base >> g.page_shift();
        self.allocator.limit = limit >> g.page_shift();
        self.allocator.sections = self.memory.cells.reserve(((limit - base) / size) as usize);
        self.allocator.high = u64::MAX;
        for i in 0..self.ram.len() {
            let r = self.ram[i];
            if r.boot {
                for s in (r.start.0 - base) / size..(r.end().0 - base).div_ceil(size) {
                    self.memory.cells.set(self.allocator.sections + s as Cell, section::NORMAL);
                }
            }
        }
    }

    /// Give each actor its pool, from the top of boot memory.
    pub(super) fn carve_pools(&mut self, frames: u64) {
        if !self.allocator.pools.is_empty() {
            return;
        }
        let mut frames = frames.next_power_of_two();
        for _ in 0..self.cpus {
            let first = loop {
                let order = frames.trailing_zeros() as u8;
                if let Some(pfn) = self.find_run(order, Zone::Normal, true) {
                    break pfn;
                }
                frames /= 2;
                if frames < 16 {
                    break 0;
                }
            };
            let taken = self.memory.cells.reserve(3);
            let frames = if first == 0 { 0 } else { frames };
            self.allocator.pools.push(Pool { first, frames, taken, count: taken + 2 });
        }
    }

    pub(super) fn alloc(&mut self, actor: u8, request: &Alloc, outcome: u16) -> Reply {
        if request.may_sleep {
            self.may_sleep(actor, "an allocation that may sleep, in atomic context");
        }
        if let Some(pool) = self.allocator.pools.get(usize::from(actor)).copied() {
            let n = self.memory.cells.get(pool.count) + 1;
            self.memory.cells.set(pool.count, n);
            if self.options.fail_alloc.contains(&(actor, n)) {
                return Reply::NOTHING;
            }
        }
        if outcome != 0 {
            let failed = self.memory.cells.get(self.fixed.failures) + 1;
            self.memory.cells.set(self.fixed.failures, failed);
            return Reply::NOTHING;
        }
        let shift = self.geometry.page_shift();
        let own = usize::from(actor) < self.allocator.pools.len();
        let pfn = match request.at {
            Some(at) => {
                let pfn = at.0 >> shift;
                self.run_is_free(pfn, 1 << request.order).then_some(pfn)
            }
            None if request.kind == FrameKind::Huge || !own => self.search(request),
            None => self.take_from_pool(actor, request.order),
        };
        let Some(pfn) = pfn else { return Reply::NOTHING };
        let frame = self.hand_out(pfn, request.order, request.kind, !self.allocator.sealed, false);
        Reply::frame(frame)
    }

    fn take_from_pool(&mut self, actor: u8, order: u8) -> Option<u64> {
        let pool = self.allocator.pools[usize::from(actor)];
        let long = order >= LONG;
        let half = pool.frames / 2;
        let cell = pool.taken + Cell::from(long);
        let first = self.memory.cells.get(cell).next_multiple_of(1 << order);
        let end = first + (1 << order);
        if end > half {
            self.overflow = true;
            return None;
        }
        self.memory.cells.set(cell, end);
        Some(pool.first + if long { half } else { 0 } + first)
    }

    fn search(&mut self, request: &Alloc) -> Option<u64> {
        if request.zone == Zone::Movable
            && let Some(pfn) = self.find_run(request.order, Zone::Movable, request.top_down)
        {
            return Some(pfn);
        }
        let found = self.find_run(request.order, Zone::Normal, request.top_down)?;
        if request.order == 0 && self.allocator.pools.is_empty() {
            if request.top_down {
                self.allocator.high = found;
            } else {
                self.allocator.low = found;
            }
        }
        Some(found)
    }

    /// Lowest (highest) free, naturally aligned run in memory of that zone.
    fn find_run(&self, order: u8, zone: Zone, top_down: bool) -> Option<u64> {
        let n = 1u64 << order;
        let shift = self.geometry.page_shift();
        let small = order == 0 && self.allocator.pools.is_empty() && zone == Zone::Normal;
        for k in 0..self.ram.len() {
            let r = self.ram[if top_down { self.ram.len() - 1 - k } else { k }];
            let (start, end) = (r.start.0 >> shift, r.end().0 >> shift);
            if top_down {
                let mut next = if small { end.min(self.allocator.high) } else { end };
                while let Some(pfn) = next.checked_sub(n).map(|p| p & !(n - 1)).filter(|p| *p >= start) {
                    match self.obstacle(pfn, n, zone) {
                        None => return Some(pfn),
                        Some((first, _)) => next = first.max(start).min(next - 1),
                    }
                }
            } else {
                let mut pfn = if small { start.max(self.allocator.low) } else { start }.next_multiple_of(n);
                while pfn + n <= end {
                    match self.obstacle(pfn, n, zone) {
                        None => return Some(pfn),
                        Some((_, past)) => pfn = past.max(pfn + 1).next_multiple_of(n),
                    }
                }
            }
        }
        None
    }

    /// What keeps `[pfn, pfn + n)` from being handed out: first frame of the obstacle, and one past its end.
    fn obstacle(&self, pfn: u64, n: u64, zone: Zone) -> Option<(u64, u64)> {
        let per = self.geometry.pages_per_section();
        let wanted = if zone == Zone::Movable { section::MOVABLE } else { section::NORMAL };
        let mut s = pfn & !(per - 1);
        while s < pfn + n {
            if self.section(s) != wanted {
                return Some((s, s + per));
            }
            s += per;
        }
        self.taken_in(pfn, n)
    }

    /// First frame in `[pfn, pfn + n)` that is not to be had again.
    fn taken_in(&self, pfn: u64, n: u64) -> Option<(u64, u64)> {
        let pools = self.allocator.pools.iter();
        if let Some(p) = pools.filter(|p| p.frames != 0).find(|p| p.first < pfn + n && pfn < p.first + p.frames) {
            return Some((p.first, p.first + p.frames));
        }
        if let Some((head, order)) = self.huge_run_over(pfn) {
            return Some((head, head + (1 << order)));
        }
        let busy = |l: Life| l.is_allocated() || l.is_freed();
        let (at, life) =
            self.memory.numbered(pfn, pfn + n).map(|(p, f)| (p, self.memory.life(f))).find(|(_, l)| busy(*l))?;
        Some((at, at + if life.is(FrameKind::Huge) { 1 << life.order() } else { 1 }))
    }

    /// Head and order of an allocated HugeTLB page that starts below `pfn` and covers it.
    fn huge_run_over(&self, pfn: u64) -> Option<(u64, u8)> {
        let (sizes, n) = self.geometry.hugetlb_sizes();
        sizes[..n].iter().find_map(|size| {
            let head = pfn & !(size - 1);
            let life = self.memory.life(self.memory.find(self.geometry.pa(vmemmap_arch::Pfn(head)))?);
            let covers = life.is_allocated() && life.is(FrameKind::Huge) && head + (1 << life.order()) > pfn;
            (covers && head != pfn).then_some((head, life.order()))
        })
    }

    fn run_is_free(&self, pfn: u64, n: u64) -> bool {
        self.obstacle(pfn, n, Zone::Normal).is_none() || self.obstacle(pfn, n, Zone::Movable).is_none()
    }

    /// Make a run allocated.
    pub(super) fn hand_out(
        &mut self,
        pfn: u64,
        order: u8,
        kind: FrameKind,
        reserved: bool,
        self_hosted: bool,
    ) -> Frame<Tok> {
        let n = if kind == FrameKind::Huge { 1 } else { 1u64 << order };
        let shift = self.geometry.page_shift();
        let mut tok = 0;
        for i in 0..n {
            let id = self.memory.frame(Pa((pfn + i) << shift));
            let life = self.memory.life(id).allocated(kind, order, reserved, self_hosted);
            self.memory.set_life(id, life);
            if i == 0 {
                tok = life.generation();
            }
            if kind == FrameKind::Table {
                self.memory.make_table(id);
            }
        }
        Frame { pa: Pa(pfn << shift), tok }
    }

    pub(super) fn free(&mut self, actor: u8, frame: Frame<Tok>, order: u8, kind: FrameKind) {
        let shift = self.geometry.page_shift();
        let n = if kind == FrameKind::Huge { 1 } else { 1u64 << order };
        for i in 0..n {
            let pa = frame.pa.plus(i << shift);
            let id = self.memory.frame(pa);
            let life = self.memory.life(id);
            // A HugeTLB page is known by its PFN; the kernel keeps no handle to it.
            let other_life = kind != FrameKind::Huge && life.generation() != frame.tok;
            if !life.is_allocated() || !life.is(kind) || other_life {
                let message = match () {
                    () if life.is_freed() => "freed twice",
                    () if !life.is_allocated() => "freed, but was never allocated",
                    () if !life.is(kind) => "freed as something that it is not",
                    () => "freed through a handle to an earlier life of the frame",
                };
                self.violate(Invariant::FramesConserved, actor, pa.0, message);
                continue;
            }
            if life.is_self_hosted() {
                self.violate(
                    Invariant::SelfHostedUntouched,
                    actor,
                    pa.0,
                    "self-hosted descriptor storage goes to the allocator",
                );
            }
            if kind == FrameKind::Huge {
                self.memory.set_life(id, life.vacant());
                continue;
            }
            self.judge_free(actor, id, kind);
            self.memory.set_life(id, life.freed());
        }
    }

    /// What the strict oracle and the store rules say about freeing this frame.
    fn judge_free(&mut self, actor: u8, id: FrameId, kind: FrameKind) {
        let pa = self.memory.pa(id);
        if kind == FrameKind::Table {
            if self.memory.was_reachable(id) && !self.memory.table_is_empty(id) {
                self.violate(Invariant::FreedTableIsEmpty, actor, pa.0, "a table is freed while entries are not none");
            }
        } else {
            self.judge_lost_stores(actor, id);
        }
        if self.options.strict {
            self.judge_mapped(actor, id, kind);
        }
    }

    pub(super) fn split_frame(&mut self, frame: Frame<Tok>, order: u8) {
        let shift = self.geometry.page_shift();
        for i in 0..1u64 << order {
            let id = self.memory.frame(frame.pa.plus(i << shift));
            self.memory.set_life(id, self.memory.life(id).with_order(0));
        }
    }

    /// A HugeTLB run is known by its first frame, so each part needs one that is.
    pub(super) fn split_run(&mut self, frame: Frame<Tok>, order: u8, into: u8) {
        let head = self.memory.frame(frame.pa);
        let life = self.memory.life(head);
        if !life.is_allocated() || !life.is(FrameKind::Huge) || life.order() != order || order < into {
            return;
        }
        self.memory.set_life(head, life.with_order(into));
        let first = frame.pa.0 >> self.geometry.page_shift();
        for part in 1..1u64 << (order - into) {
            self.hand_out(first + (part << into), into, FrameKind::Huge, life.is_reserved(), false);
        }
    }

    pub(super) fn claim_self_hosted(&mut self, start: Pa, frames: u64) -> Reply {
        let shift = self.geometry.page_shift();
        let mut tok = 0;
        for i in 0..frames {
            tok = self.hand_out((start.0 >> shift) + i, 0, FrameKind::Vmemmap, false, true).tok;
        }
        Reply { value: start.0, tok }
    }

    fn section(&self, pfn: u64) -> u64 {
        let a = &self.allocator;
        if pfn < a.base || pfn >= a.limit {
            return 0;
        }
        self.memory.cells.get(a.sections + ((pfn - a.base) / self.geometry.pages_per_section()) as Cell)
    }

    /// Page frame numbers of a physical range, clipped to RAM.
    pub(super) fn pfns(&self, start: Pa, bytes: u64) -> (u64, u64) {
        let shift = self.geometry.page_shift();
        let clip = |pfn: u64| pfn.clamp(self.allocator.base, self.allocator.limit);
        (clip(start.0 >> shift), clip(start.0.saturating_add(bytes) >> shift))
    }

    pub(super) fn range_op(&mut self, start: Pa, bytes: u64, op: RangeOp) -> Reply {
        let obstacle = match op {
            RangeOp::Offline => self.in_use(start, bytes, |_| true),
            RangeOp::Isolate => self.in_use(start, bytes, |k| !matches!(k, FrameKind::Huge | FrameKind::Data)),
            _ => None,
        };
        if obstacle.is_none() {
            let (first, end) = self.pfns(start, bytes);
            let per = self.geometry.pages_per_section();
            let mut pfn = first & !(per - 1);
            while pfn < end {
                let cell = self.allocator.sections + ((pfn - self.allocator.base) / per) as Cell;
                let old = self.memory.cells.get(cell);
                let new = match op {
                    RangeOp::OnlineNormal => section::NORMAL,
                    RangeOp::OnlineMovable => section::MOVABLE,
                    RangeOp::Isolate => old | section::ISOLATED,
                    RangeOp::UndoIsolate => old & !section::ISOLATED,
                    RangeOp::Offline => 0,
                };
                self.memory.cells.set(cell, new);
                pfn += per;
            }
        }
        Reply::obstacle(obstacle)
    }

    pub(super) fn range_in_use(&self, start: Pa, bytes: u64) -> Reply {
        Reply::obstacle(self.in_use(start, bytes, |_| true))
    }

    /// First allocated frame in the range whose kind counts. Self-hosted descriptor storage never does: the allocator
    /// does not know it.
    fn in_use(&self, start: Pa, bytes: u64, counts: impl Fn(FrameKind) -> bool) -> Option<InUse> {
        let (first, end) = self.pfns(start, bytes);
        if first < end
            && let Some((_, _)) = self.huge_run_over(first)
            && counts(FrameKind::Huge)
        {
            return Some(InUse { pa: start, kind: FrameKind::Huge });
        }
        self.memory.numbered(first, end).find_map(|(_, id)| {
            let life = self.memory.life(id);
            let kind = life.kind().filter(|k| life.is_allocated() && !life.is_self_hosted() && counts(*k))?;
            Some(InUse { pa: self.memory.pa(id), kind })
        })
    }

    /// Whether `slot` is one of those that ever named `id` and does so now, in a table that a walk can reach.
    pub(super) fn names_now(&self, slot: SlotId, id: FrameId) -> bool {
        let desc = self.memory.desc(slot);
        desc.is_valid() && self.geometry.output(desc) == self.memory.pa(id) && self.reach(slot.table).is_some()
    }
}
