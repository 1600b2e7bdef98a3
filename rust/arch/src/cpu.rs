//! A CPU executing kernel code: the one trait every kernel algorithm is generic over.
//!
//! Each method not marked *local* is one scheduling point on an explored machine, taken *before* its effect. On the
//! native machine a method is the instruction it is named after. A method never unwinds and never returns an error for
//! something a CPU would not report: faults and broken promises are recorded by the machine as violations, and the
//! access returns a harmless value (0, none), so that every walk ends by itself.

use crate::access::{Barrier, Data, Fault, Mode, Order, Rmw, Tlbi, Until, Var};
use crate::address::{Pa, Va};
use crate::contents::Template;
use crate::descriptor::Desc;
use crate::frame::{Alloc, Entry, Frame, FrameKind, FrameList, InUse, RangeOp, Slot, Token};
use crate::geometry::Geometry;
use crate::invariant::Invariant;
use crate::lock::LockId;
use crate::outcome::{Observed, Outcome};

/// Words of a struct page.
const STRUCT_PAGE_WORDS: u16 = 8;

/// A CPU executing kernel code. See the module documentation.
pub trait Cpu {
    /// Generation and dependency token that travels with table and frame handles; `()` on the native machine.
    type Tok: Token;

    /// Descriptors that kernel code changes before it lists the frames that they gave up. 1 where the order of steps is
    /// recorded or explored; elsewhere nobody sees a private list, and an exchange would wait for the stores to it.
    const LIST_BATCH: usize = 1;
    /// Whether a loop over addresses may stay in the table that a walk found for as long as they belong to it, instead
    /// of walking from the root for each. It may where no table can go meanwhile, as under `mem_hotplug_lock`, and
    /// nobody looks at the reads that are saved: a machine that checks or explores makes them all.
    const KEEPS_TABLES: bool = false;

    /// *local* Number of this CPU, from 0.
    fn id(&self) -> u8;
    /// *local* Name the function (or the step of it) that the next operations belong to; what a trace prints.
    fn label(&self, function: &'static str);

    // ---- descriptors: single-copy atomic 64-bit accesses -------------------------------------------------
    /// *local* `swapper_pg_dir`, as the table of the top level.
    fn root(&self) -> Frame<Self::Tok>;
    /// READ_ONCE of a descriptor.
    fn read(&self, at: Slot<Self::Tok>, order: Order) -> Entry<Self::Tok>;
    /// Reads of entries from `at` on, of at most so many, that were made at once and found none: how many. An explored
    /// machine makes those of a scan at once that nobody else can tell; 0, which leaves them all to the caller, is
    /// always right.
    #[inline]
    fn skip_none(&self, _at: Slot<Self::Tok>, _entries: usize) -> usize {
        0
    }
    /// VAALE1IS of pages from `first` on, of at most so many, that were issued at once and reached nothing: how many.
    /// As above, 0 is always right.
    #[inline]
    fn skip_tlbi(&self, _first: Va, _pages: usize) -> usize {
        0
    }
    /// `read` of `count` entries from `at` on, in order; a machine without scheduling points may look the table up
    /// once.
    #[inline]
    fn read_each(&self, at: Slot<Self::Tok>, count: usize, mut each: impl FnMut(u16, Entry<Self::Tok>)) {
        for index in (at.index..).take(count) {
            each(index, self.read(Slot { index, ..at }, Order::Plain));
        }
    }
    /// `read_each` of which only a change matters: the bits in `mask` of the first entry, and of each that differs in
    /// them from the one before.
    #[inline]
    fn read_changes(&self, at: Slot<Self::Tok>, count: usize, mask: u64, mut each: impl FnMut(u16, u64)) {
        let mut before = None;
        self.read_each(at, count, |index, entry| {
            let found = entry.desc.0 & mask;
            if before.replace(found) != Some(found) {
                each(index, found);
            }
        });
    }
    /// `write` of `count` entries from `at` on, in order, each followed by the barriers `then`; `new` makes the entry
    /// of an index. A machine without scheduling points may look the table up once.
    #[inline]
    fn write_each(&self, at: Slot<Self::Tok>, count: usize, then: &[Barrier], mut new: impl FnMut(u16) -> Desc) {
        for index in (at.index..).take(count) {
            self.write(Slot { index, ..at }, new(index), Order::Plain);
            for &barrier in then {
                self.barrier(barrier);
            }
        }
    }
    /// `read` of `count` entries from `at` on, in order, each followed by a `write` if `each` says what. A machine
    /// without scheduling points may look the table up once.
    #[inline]
    fn update_each(
        &self,
        at: Slot<Self::Tok>,
        count: usize,
        mut each: impl FnMut(u16, Entry<Self::Tok>) -> Option<Desc>,
    ) {
        for index in (at.index..).take(count) {
            let at = Slot { index, ..at };
            if let Some(new) = each(index, self.read(at, Order::Plain)) {
                self.write(at, new, Order::Plain);
            }
        }
    }
    /// WRITE_ONCE of a descriptor, no barrier.
    fn write(&self, at: Slot<Self::Tok>, new: Desc, order: Order);
    /// One atomic exchange (`xchg`, `swpal`).
    fn swap(&self, at: Slot<Self::Tok>, new: Desc, order: Order) -> Entry<Self::Tok>;
    /// `swap` of `count` entries from `at` on for the same word, in order, each followed by the barriers `then`; `each`
    /// gets what was there. A machine without scheduling points may look the table up once.
    #[inline]
    fn swap_each(
        &self,
        at: Slot<Self::Tok>,
        count: usize,
        new: Desc,
        order: Order,
        then: &[Barrier],
        mut each: impl FnMut(Entry<Self::Tok>),
    ) {
        for index in (at.index..).take(count) {
            let old = self.swap(Slot { index, ..at }, new, order);
            for &barrier in then {
                self.barrier(barrier);
            }
            each(old);
        }
    }
    /// # Errors
    /// The entry found, if it was not `old`; nothing is stored then.
    fn compare_exchange(
        &self,
        at: Slot<Self::Tok>,
        old: Desc,
        new: Desc,
        order: Order,
    ) -> Result<Entry<Self::Tok>, Entry<Self::Tok>>;

    // ---- ordering and TLB --------------------------------------------------------------------------------
    fn barrier(&self, barrier: Barrier);
    fn tlbi(&self, op: Tlbi);
    /// Have an IOMMU that walks these tables (SVA) forget what it caches of them, and wait for it
    /// (`iommu_sva_invalidate_kva_range`, 6.19). Broadcast invalidates do not reach it.
    fn iommu_invalidate(&self);

    // ---- data through a virtual address: translates, may use a stale TLB entry, may fault ------------------
    /// Load of an aligned 64-bit word.
    fn load(&self, va: Va, order: Order) -> u64;
    /// Loads of all struct pages of vmemmap pages from `va` on, of at most so many, that were made at once and found
    /// them as in `template`: how many pages. 0, which leaves them all to the caller, is always right.
    #[inline]
    fn skip_filled(&self, _va: Va, _pages: u64, _template: Template) -> u64 {
        0
    }
    fn store(&self, va: Va, value: u64, order: Order);
    /// Plain stores of 64-bit words, by their number from `va` on, in that order. A machine without scheduling points
    /// may make them as one.
    #[inline]
    fn store_each(&self, va: Va, words: &[(u64, u64)]) {
        for &(index, value) in words {
            self.store(va.plus(index * 8), value, Order::Plain);
        }
    }
    /// Atomic read-modify-write; returns the word before. Needs write permission even if nothing is stored.
    fn rmw(&self, va: Va, op: Rmw, order: Order) -> u64;
    /// Bulk store: make every struct page of the vmemmap page at `va` (page aligned) read as `template`.
    fn fill(&self, va: Va, template: Template);
    /// `fill` of so many vmemmap pages from `va` on, in order. A machine without TLBs may walk once for as many as one
    /// table maps, as a walk cache does.
    #[inline]
    fn fill_each(&self, va: Va, pages: u64, template: Template) {
        for page in 0..pages {
            self.fill(va.plus(page << self.geometry().page_shift()), template);
        }
    }
    /// The access, or the exception that it takes instead: what a fault handler is written against. Nothing is recorded
    /// for a fault; a store through a read-only leaf is recorded as by the methods above.
    ///
    /// # Errors
    /// `Fault`: nothing was loaded or stored.
    fn attempt(&self, access: Data<Self::Tok>) -> Result<u64, Fault>;
    /// A translation that hardware makes alone: fills TLBs, never faults.
    fn speculate(&self, va: Va);
    /// The same, made by an IOMMU for a device.
    fn iommu_walk(&self, va: Va);

    // ---- frames --------------------------------------------------------------------------------------------
    /// `None` is -ENOMEM, real or injected. A table frame comes zeroed.
    fn alloc(&self, request: Alloc) -> Option<Frame<Self::Tok>>;
    /// `alloc` again and again, at most so often and until one fails; `each` gets what came of it. How many there were.
    /// A machine without scheduling points may take several at once: nobody knows of a frame that is not handed on yet.
    #[inline]
    fn alloc_each(&self, request: Alloc, count: usize, mut each: impl FnMut(Frame<Self::Tok>)) -> usize {
        (0..count).take_while(|_| self.alloc(request).map(&mut each).is_some()).count()
    }
    /// Return a run to the allocator. A default token means the run that is there now: the pools know hugepages by
    /// number.
    fn free(&self, frame: Frame<Self::Tok>, order: u8, kind: FrameKind);
    /// Handle of the frame (or run) that a leaf or table descriptor names. *local*
    fn frame_of(&self, entry: Entry<Self::Tok>, pa: Pa) -> Frame<Self::Tok>;
    /// `split_page`, and marking parts of a run as frames of their own. *local*
    fn split_frame(&self, frame: Frame<Self::Tok>, order: u8);
    /// Cut a run into runs of order `into`, freed one by one later: a hugepage that is demoted. *local*
    fn split_run(&self, frame: Frame<Self::Tok>, order: u8, into: u8) {
        let _ = into;
        self.split_frame(frame, order);
    }
    /// Frame was allocated at boot (`PG_reserved`). *local*
    fn is_reserved(&self, frame: Frame<Self::Tok>) -> bool;
    /// Copy one whole frame through the linear map.
    fn copy_frame(&self, from: Frame<Self::Tok>, to: Frame<Self::Tok>);
    /// Copy the page that `from` translates to (vmemmap VA, page aligned) into a frame.
    fn copy_from_va(&self, from: Va, to: Frame<Self::Tok>);
    /// `copy_frame`, then `reset_tails`; a machine may know a frame of equal tails by one of them.
    fn copy_tail_frame(&self, from: Frame<Self::Tok>, to: Frame<Self::Tok>, reset: u16) {
        self.copy_frame(from, to);
        self.reset_tails(to, reset);
    }
    /// `copy_from_va`, then `reset_tails`.
    fn copy_tail_from_va(&self, from: Va, to: Frame<Self::Tok>, reset: u16) {
        self.copy_from_va(from, to);
        self.reset_tails(to, reset);
    }
    /// `copy_tail_from_va` to each of these frames, in order. A machine without TLBs may walk once for all.
    #[inline]
    fn copy_tails_from_va(&self, from: Va, to: impl Iterator<Item = Frame<Self::Tok>>, reset: u16) {
        to.for_each(|to| self.copy_tail_from_va(from, to, reset));
    }
    /// Overwrite the first `reset` struct pages of a frame with as many that follow.
    fn reset_tails(&self, frame: Frame<Self::Tok>, reset: u16) {
        for word in 0..reset * STRUCT_PAGE_WORDS {
            let plain = self.load_frame(frame, reset * STRUCT_PAGE_WORDS + word);
            self.store_frame(frame, word, plain);
        }
    }
    /// Every struct page of a frame that nobody else can see yet, through the linear map.
    fn fill_frame(&self, frame: Frame<Self::Tok>, template: Template) {
        for index in 0..self.geometry().entries() as u16 {
            self.store_frame(frame, index, template.word((index & 7) as u8));
        }
    }
    /// Word `index` of a frame through the linear map (struct page index * 8 + word).
    fn load_frame(&self, frame: Frame<Self::Tok>, index: u16) -> u64;
    fn store_frame(&self, frame: Frame<Self::Tok>, index: u16, value: u64);
    /// Push a frame on a private list (linked beside the frames; no heap). *local*
    fn list_push(&self, list: &mut FrameList<Self::Tok>, frame: Frame<Self::Tok>);
    /// `list_push` of all of them, in order. A machine may keep the end of the list at hand. *local*
    #[inline]
    fn list_push_each(&self, list: &mut FrameList<Self::Tok>, frames: impl Iterator<Item = Frame<Self::Tok>>) {
        for frame in frames {
            self.list_push(list, frame);
        }
    }
    /// Take the frame pushed last. *local*
    fn list_pop(&self, list: &mut FrameList<Self::Tok>) -> Option<Frame<Self::Tok>>;
    /// Take the frame pushed first (a list appended to at its tail). *local*
    fn list_shift(&self, list: &mut FrameList<Self::Tok>) -> Option<Frame<Self::Tok>>;
    /// `free` of every frame on the list, from the one pushed first on. A machine without scheduling points may return
    /// neighbours together.
    fn list_free(&self, list: &mut FrameList<Self::Tok>, kind: FrameKind) {
        while let Some(frame) = self.list_shift(list) {
            self.free(frame, 0, kind);
        }
    }
    /// Allocator's side of online, isolate, offline. Returns the first obstacle for `Offline` and `Isolate`.
    ///
    /// # Errors
    /// `InUse`: a frame in the range is allocated (for `Isolate` only if it is not movable: neither `Huge` nor `Data`).
    fn range_op(&self, start: Pa, bytes: u64, op: RangeOp) -> Result<(), InUse>;
    /// The linear map of memory that leaves the machine is down: from here on nobody may translate to it (I4). For
    /// checking.
    fn memory_gone(&self, start: Pa, bytes: u64);
    /// First allocated frame in the range, if any (`scan_movable_pages`).
    fn range_in_use(&self, start: Pa, bytes: u64) -> Option<InUse>;
    /// Altmap storage: take frames inside a hot-added range out of the allocator's sight (`Vmemmap`, self-hosted).
    /// *local*
    fn claim_self_hosted(&self, start: Pa, frames: u64) -> Frame<Self::Tok>;
    /// The altmap storage goes back to the range that is being removed, not to the allocator. *local*
    fn release_self_hosted(&self, frame: Frame<Self::Tok>, frames: u64) {
        let _ = (frame, frames);
    }
    /// Whether the frame's own struct page is VmemmapSelfHosted. *local*
    fn is_self_hosted(&self, frame: Frame<Self::Tok>) -> bool;

    // ---- locks ---------------------------------------------------------------------------------------------
    fn acquire(&self, lock: LockId, mode: Mode);
    /// Never blocks.
    fn try_acquire(&self, lock: LockId, mode: Mode) -> bool;
    fn release(&self, lock: LockId, mode: Mode);

    // ---- kernel variables that CPUs share --------------------------------------------------------------------
    fn var_load(&self, var: Var, order: Order) -> u64;
    fn var_store(&self, var: Var, value: u64, order: Order);
    /// Returns the word before.
    fn var_rmw(&self, var: Var, op: Rmw, order: Order) -> u64;
    /// Adds where nobody asks what was there before: `atomic_add`, `mod_node_page_state`.
    fn var_add(&self, var: Var, n: i64, order: Order) {
        self.var_rmw(var, Rmw::FetchAdd(n), order);
    }
    /// The only way to wait for a variable: blocks until the condition holds, returns the word that satisfied it.
    fn wait_until(&self, var: Var, condition: Until) -> u64;

    // ---- contexts and other CPUs -------------------------------------------------------------------------------
    fn rcu_read_lock(&self);
    fn rcu_read_unlock(&self);
    fn synchronize_rcu(&self);
    fn irq_disable(&self);
    fn irq_enable(&self);
    /// Raise an interrupt line on every other CPU that has a handler for it (`smp_cross_call` to all but this one):
    /// sets their bits in the variable, which the handler's entry takes. Returns how many it was sent to; real threads
    /// take no interrupts, so there it is counted and sent to nobody.
    fn send_ipi(&self, line: Var) -> u64;
    /// From here to `stop_machine_end` no other CPU runs, with interrupts off everywhere (pseudo-NMIs still come).
    /// Sleeps until every other CPU can be preempted. Real threads are not stopped: it is counted only.
    fn stop_machine_begin(&self);
    fn stop_machine_end(&self);

    // ---- checks and exploring, all *local* -----------------------------------------------------------------------
    /// Whether `pending_signal` would say so (Ctrl-C, end of a stress).
    fn signal_pending(&self) -> bool;
    /// WARN_ON with a name: a broken promise that the kernel itself tests for.
    fn warn(&self, what: Invariant, address: u64, message: &'static str);
    /// From here (`true`) to here (`false`) nobody may store into a table (I18); what `mmap_write_lock` promises
    /// ptdump.
    fn expect_stable(&self, on: bool);
    /// Kernel code says that it holds the exclusive right named (I17): overlapping holders are a violation.
    fn exclusive(&self, what: Invariant, begin: bool);
    /// A choice of the environment, 0 to n-1. Native: 0.
    fn choose(&self, n: u32, why: &'static str) -> u32;
    /// Head of an endless loop; `state` is a hash of the live locals.
    fn round(&self, state: u64);
    /// What this CPU has observed so far; for `conclude`.
    #[inline]
    fn observed(&self) -> Observed {
        Observed(0)
    }
    /// What it has observed since `since` matters from here on only by `outcome`: no local that is still live depends
    /// on more of it. An explored machine then takes executions for the same that differ in the rest; to leave it out
    /// is always right.
    #[inline]
    fn conclude(&self, _since: Observed, _outcome: u64) {}
    /// Work of which only the outcome matters later: whatever else it changes is in the machine, not in locals of its
    /// callers, which an `Fn` cannot change.
    #[inline]
    fn concluding<R: Outcome>(&self, work: impl Fn() -> R) -> R {
        let since = self.observed();
        let outcome = work();
        self.conclude(since, outcome.bits());
        outcome
    }

    /// Geometry of this machine. *local*
    fn geometry(&self) -> &Geometry;
}

impl<T: Token> Data<T> {
    /// The access by the method of `Cpu` that records a fault as a violation.
    pub fn perform<C: Cpu<Tok = T>>(self, cpu: &C) -> u64 {
        match self {
            Data::Load { va, order } => return cpu.load(va, order),
            Data::Rmw { va, op, order } => return cpu.rmw(va, op, order),
            Data::Probe { va } => return cpu.load(va, Order::Plain),
            Data::Store { va, value, order } => cpu.store(va, value, order),
            Data::Fill { va, template } => cpu.fill(va, template),
            Data::Copy { from, to } => cpu.copy_from_va(from, to),
        }
        0
    }
}
