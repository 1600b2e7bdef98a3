//! One CPU without a TLB, deterministic, for tests of what an algorithm does by itself: the k-th allocation can fail, every
//! access is judged at once, and the frames can be counted.
#![allow(dead_code)]

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::*;
use vmemmap_kernel::check::{Finding, FrameInfo, Marks, StateView, Visible, check};
use vmemmap_kernel::state::{Scalar, Section, section_flag};
use vmemmap_kernel::{Kernel, Policies, Ram, hugetlb};

#[derive(Clone, Copy)]
struct State {
    info: FrameInfo,
    reserved: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub allocated: u64,
    pub freed: u64,
    pub tlbi: u64,
    pub rcu: u64,
    pub stores: u64,
}

pub struct Single {
    pub k: Kernel,
    root: Pa,
    tables: RefCell<HashMap<u64, Vec<u64>>>,
    /// Struct pages: by frame, template or words.
    templates: RefCell<HashMap<u64, Template>>,
    words: RefCell<HashMap<u64, Vec<u64>>>,
    /// By frame number from `BASE`.
    frames: RefCell<Vec<State>>,
    links: RefCell<HashMap<u64, Option<u64>>>,
    vars: RefCell<HashMap<u32, u64>>,
    held: RefCell<Vec<LockId>>,
    pub counts: Cell<Counts>,
    /// Allocations until one fails; `None` = never. With `sticky` all later ones fail as well.
    pub fail_in: Cell<Option<u64>>,
    pub sticky: Cell<bool>,
    pub faults: RefCell<Vec<(Invariant, u64, &'static str)>>,
    isolated: RefCell<Option<(u64, u64)>>,
}

pub const BASE: u64 = 0x4000_0000;

impl Single {
    /// `sections` present boot sections from `BASE`, vmemmap in blocks (4K only) or pages.
    pub fn new(granule: Granule, version: Version, sections: u64, blocks: bool, policies: Policies) -> Self {
        let va_bits = 48;
        let g = Geometry::new(granule, va_bits).unwrap();
        let layout = Layout::new(g, version, BASE as i64).unwrap();
        let bytes = sections * g.section_size();
        let k = Kernel::new(layout, policies, &[Ram { start: Pa(BASE), bytes, boot: true }], true);
        let info = FrameInfo { kind: FrameKind::Data, free: true, self_hosted: false };
        let frames = vec![State { info, reserved: false }; (bytes >> g.page_shift()) as usize];
        let machine = Self {
            k,
            root: Pa(0),
            tables: RefCell::default(),
            templates: RefCell::default(),
            words: RefCell::default(),
            frames: RefCell::new(frames),
            links: RefCell::default(),
            vars: RefCell::default(),
            held: RefCell::default(),
            counts: Cell::default(),
            fail_in: Cell::new(None),
            sticky: Cell::new(false),
            faults: RefCell::default(),
            isolated: RefCell::default(),
        };
        machine.boot(sections, blocks)
    }

    fn boot(mut self, sections: u64, blocks: bool) -> Self {
        let g = self.k.geometry;
        self.root = self.boot_frame(0, FrameKind::Table);
        for section in 0..sections {
            let pfn = g.pfn(Pa(BASE + section * g.section_size()));
            let start = self.k.layout.page_va(pfn);
            let end = start.plus(g.section_vmemmap());
            let step = if blocks { g.entry_span(Level::PMD) } else { g.page_size() };
            let level = if blocks { Level::PMD } else { Level::PTE };
            let mut va = start;
            while va < end {
                let order = (step >> g.page_shift()).trailing_zeros() as u8;
                let frame = self.boot_frame(order, FrameKind::Vmemmap);
                for i in 0..step >> g.page_shift() {
                    self.templates.borrow_mut().insert(frame.0 + (i << g.page_shift()), Template::FREE);
                }
                let attributes = if blocks { prot::PROT_SECT_NORMAL_6_1 } else { prot::PAGE_KERNEL };
                let slot = self.slot(va, level);
                self.write(slot, g.descriptor(frame, attributes), Order::Plain);
                va = va.plus(step);
            }
            let flags = section_flag::MARKED_PRESENT | section_flag::HAS_MEM_MAP | section_flag::IS_ONLINE | section_flag::IS_EARLY;
            let mut vars = self.vars.borrow_mut();
            vars.insert(self.k.vars.section(section as u32, Section::MemMap).0, flags);
            vars.insert(self.k.vars.section(section as u32, Section::Usage).0, 2);
            for word in 0..4 {
                vars.insert(self.k.vars.subsection_map(section as u32, word).0, u64::MAX);
            }
        }
        hugetlb::init_hstates(&self.k, &self).unwrap();
        self.counts.set(Counts::default());
        self
    }

    fn boot_frame(&self, order: u8, kind: FrameKind) -> Pa {
        let request = Alloc { order, kind, zone: Zone::Normal, at: None, may_sleep: true, top_down: true };
        let pa = self.alloc(request).unwrap().pa;
        let page = self.k.geometry.page_size();
        for i in 0..1u64 << order {
            self.frames.borrow_mut()[self.number(pa.0 + i * page)].reserved = true;
        }
        pa
    }

    /// Slot of `va` at `level`, making tables on the way (boot only).
    fn slot(&self, va: Va, level: Level) -> Slot<()> {
        let g = self.k.geometry;
        let (mut table, mut at) = (self.root, g.top());
        while at < level {
            let index = usize::from(g.index(va, at));
            let desc = Desc(self.tables.borrow()[&table.0][index]);
            table = match g.kind(desc, at) {
                Kind::Table(next) => next,
                _ => {
                    let next = self.boot_frame(0, FrameKind::Table);
                    self.tables.borrow_mut().get_mut(&table.0).unwrap()[index] = g.descriptor(next, prot::TABLE).0;
                    next
                }
            };
            at = at.next();
        }
        Slot { table, index: g.index(va, level), level, tok: () }
    }

    fn number(&self, pa: u64) -> usize {
        ((pa - BASE) >> self.k.geometry.page_shift()) as usize
    }
    fn state(&self, pa: Pa) -> Option<State> {
        (pa.0 >= BASE).then(|| self.frames.borrow().get(self.number(pa.0)).copied()).flatten()
    }

    pub fn fault(&self, invariant: Invariant, address: u64, message: &'static str) {
        self.faults.borrow_mut().push((invariant, address, message));
    }

    pub fn pte(&self, va: Va) -> Option<Desc> {
        let w = tables::walk(self, va)?;
        (w.level == Level::PTE).then_some(w.desc)
    }

    /// All vmemmap leaves, as (address, level, descriptor).
    pub fn leaves(&self) -> Vec<(Va, Level, Desc)> {
        let g = self.k.geometry;
        let start = self.k.layout.page_va(g.pfn(Pa(BASE)));
        let ram = self.k.ram()[0];
        let end = start.plus((ram.bytes >> g.page_shift()) * STRUCT_PAGE_SIZE);
        let (mut va, mut all) = (start, Vec::new());
        while va < end {
            let w = tables::walk(self, va).unwrap();
            all.push((va, w.level, w.desc));
            va = va.align_down(g.entry_span(w.level)).plus(g.entry_span(w.level));
        }
        all
    }

    /// Distinct base frames that vmemmap maps.
    pub fn vmemmap_frames(&self) -> HashSet<u64> {
        let g = self.k.geometry;
        let mut all = HashSet::new();
        for (_, level, desc) in self.leaves() {
            for i in 0..g.entry_span(level) >> g.page_shift() {
                all.insert(g.output(desc).0 + (i << g.page_shift()));
            }
        }
        all
    }

    pub fn var(&self, var: Var) -> u64 {
        self.vars.borrow().get(&var.0).copied().unwrap_or(0)
    }
    pub fn scalar(&self, which: Scalar) -> u64 {
        self.var(self.k.vars.scalar(which))
    }
    pub fn set_hvo(&self, on: bool) {
        self.vars.borrow_mut().insert(self.k.vars.scalar(Scalar::HvoEnabled).0, u64::from(on));
    }
    pub fn free_frames(&self) -> u64 {
        self.frames.borrow().iter().filter(|s| s.info.free).count() as u64
    }
    pub fn frames_of(&self, kind: FrameKind) -> u64 {
        self.frames.borrow().iter().filter(|s| !s.info.free && s.info.kind == kind).count() as u64
    }
    pub fn mark_self_hosted(&self, pa: Pa) {
        self.frames.borrow_mut()[self.number(pa.0)].info.self_hosted = true;
    }
    fn bump(&self, f: impl FnOnce(&mut Counts)) {
        let mut c = self.counts.get();
        f(&mut c);
        self.counts.set(c);
    }

    pub fn check(&self) -> (Vec<Finding>, Visible) {
        let mut found = Vec::new();
        let visible = check(self, &mut MarkSet::default(), |finding| found.push(finding));
        (found, visible)
    }
    /// Panics unless nothing is wrong, now and until now.
    pub fn assert_clean(&self, when: &str) {
        let (found, _) = self.check();
        assert!(found.is_empty(), "{when}: {found:#x?}");
        let faults = self.faults.borrow();
        assert!(faults.is_empty(), "{when}: {faults:#x?}");
        assert!(self.held.borrow().is_empty(), "{when}: locks held: {:?}", self.held.borrow());
    }

    fn access(&self, va: Va, write: bool) -> Option<Pa> {
        let Some(w) = tables::walk(self, va) else {
            self.fault(Invariant::NoWalkOfFreedTable, va.0, "walk left the tables");
            return None;
        };
        let Some(pa) = w.output else {
            self.fault(Invariant::AlwaysTranslates, va.0, "hole");
            return None;
        };
        if write && !w.desc.is_writable() {
            self.fault(Invariant::SharedTailsReadOnly, va.0, "store through a read-only leaf");
            return None;
        }
        Some(pa)
    }
    fn page_of(&self, pa: Pa) -> u64 {
        pa.align_down(self.k.geometry.page_size()).0
    }
    fn word_at(&self, pa: Pa) -> usize {
        (pa.0 % self.k.geometry.page_size() / 8) as usize
    }
    fn get(&self, pa: Pa) -> u64 {
        let page = self.page_of(pa);
        if let Some(words) = self.words.borrow().get(&page) {
            return words[self.word_at(pa)];
        }
        let template = self.templates.borrow().get(&page).copied().unwrap_or(Template::ZERO);
        template.word((pa.0 / 8 % 8) as u8)
    }
    fn put(&self, pa: Pa, value: u64) {
        self.bump(|c| c.stores += 1);
        let page = self.page_of(pa);
        if !self.words.borrow().contains_key(&page) {
            let words = (0..self.k.geometry.page_size() / 8).map(|i| self.get(Pa(page + i * 8))).collect();
            self.words.borrow_mut().insert(page, words);
        }
        self.words.borrow_mut().get_mut(&page).unwrap()[self.word_at(pa)] = value;
    }
    fn set_template(&self, page: u64, template: Template) {
        self.words.borrow_mut().remove(&page);
        self.templates.borrow_mut().insert(page, template);
    }
    fn copy(&self, from: u64, to: u64) {
        let template = self.templates.borrow().get(&from).copied().unwrap_or(Template::ZERO);
        let words = self.words.borrow().get(&from).cloned();
        self.set_template(to, template);
        if let Some(words) = words {
            self.words.borrow_mut().insert(to, words);
        }
    }
    fn take(&self, pa: u64, count: u64, kind: FrameKind) -> bool {
        let page = self.k.geometry.page_size();
        let mut frames = self.frames.borrow_mut();
        let isolated = *self.isolated.borrow();
        let ok = (0..count).all(|i| {
            let at = pa + i * page;
            frames.get(self.number(at)).is_some_and(|s| s.info.free) && isolated.is_none_or(|(a, b)| at < a || at >= b)
        });
        if ok {
            for i in 0..count {
                let state = &mut frames[self.number(pa + i * page)];
                state.info = FrameInfo { kind, free: false, self_hosted: false };
                state.reserved = false;
            }
        }
        ok
    }
}

#[derive(Default)]
pub struct MarkSet(HashSet<u64>);

impl Marks for MarkSet {
    fn mark(&mut self, frame: Pfn) -> bool {
        !self.0.insert(frame.0)
    }
    fn is_marked(&self, frame: Pfn) -> bool {
        self.0.contains(&frame.0)
    }
}

impl TableView for Single {
    fn geometry(&self) -> Geometry {
        self.k.geometry
    }
    fn root(&self) -> Pa {
        self.root
    }
    fn word(&self, table: Pa, index: usize) -> Option<Desc> {
        self.tables.borrow().get(&table.0).map(|words| Desc(words[index]))
    }
}

impl StateView for Single {
    fn kernel(&self) -> &Kernel {
        &self.k
    }
    fn var(&self, var: Var) -> Option<u64> {
        Some(Single::var(self, var))
    }
    fn data_word(&self, pa: Pa) -> Option<u64> {
        Some(self.get(pa))
    }
    fn frame(&self, pa: Pa) -> Option<FrameInfo> {
        self.state(pa).map(|s| s.info)
    }
}

impl Cpu for Single {
    type Tok = ();
    fn id(&self) -> u8 {
        0
    }
    fn label(&self, _: &'static str) {}
    fn root(&self) -> Frame<()> {
        Frame { pa: self.root, tok: () }
    }
    fn read(&self, at: Slot<()>, _: Order) -> Entry<()> {
        let desc = match self.tables.borrow().get(&at.table.0) {
            Some(words) => Desc(words[usize::from(at.index)]),
            None => {
                self.fault(Invariant::NoWalkOfFreedTable, at.table.0, "read of what is no table");
                Desc::NONE
            }
        };
        Entry { desc, tok: () }
    }
    fn write(&self, at: Slot<()>, new: Desc, _: Order) {
        match self.tables.borrow_mut().get_mut(&at.table.0) {
            Some(words) => words[usize::from(at.index)] = new.0,
            None => self.fault(Invariant::NoWalkOfFreedTable, at.table.0, "write to what is no table"),
        }
    }
    fn swap(&self, at: Slot<()>, new: Desc, order: Order) -> Entry<()> {
        let old = self.read(at, order);
        self.write(at, new, order);
        old
    }
    fn compare_exchange(&self, at: Slot<()>, old: Desc, new: Desc, order: Order) -> Result<Entry<()>, Entry<()>> {
        let found = self.read(at, order);
        if found.desc != old {
            return Err(found);
        }
        self.write(at, new, order);
        Ok(found)
    }
    fn barrier(&self, _: Barrier) {}
    fn tlbi(&self, _: Tlbi) {
        self.bump(|c| c.tlbi += 1);
    }
    fn load(&self, va: Va, _: Order) -> u64 {
        self.access(va, false).map_or(0, |pa| self.get(pa))
    }
    fn store(&self, va: Va, value: u64, _: Order) {
        if let Some(pa) = self.access(va, true) {
            self.put(pa, value);
        }
    }
    fn rmw(&self, va: Va, op: Rmw, _: Order) -> u64 {
        let Some(pa) = self.access(va, true) else { return 0 };
        let old = self.get(pa);
        self.put(pa, op.apply(old));
        old
    }
    fn fill(&self, va: Va, template: Template) {
        if let Some(pa) = self.access(va, true) {
            self.set_template(pa.0, template);
        }
    }
    fn speculate(&self, _: Va) {}
    fn alloc(&self, request: Alloc) -> Option<Frame<()>> {
        if request.may_sleep && self.held.borrow().iter().any(|l| l.is_spinlock()) {
            self.fault(Invariant::LockOrder, 0, "sleeping allocation under a spinlock");
        }
        if let Some(n) = self.fail_in.get() {
            if n == 0 {
                self.fail_in.set(self.sticky.get().then_some(0));
                return None;
            }
            self.fail_in.set(Some(n - 1));
        }
        let page = self.k.geometry.page_size();
        let count = 1u64 << request.order;
        let bytes = count * page;
        let ram = self.k.ram()[0];
        let runs = ram.bytes / bytes;
        let first = ram.start.0.next_multiple_of(bytes);
        let pa = match request.at {
            Some(pa) => self.take(pa.0, count, request.kind).then_some(pa.0),
            None if request.top_down => (0..runs).rev().map(|i| first + i * bytes).find(|&pa| self.take(pa, count, request.kind)),
            None => (0..runs).map(|i| first + i * bytes).find(|&pa| self.take(pa, count, request.kind)),
        }?;
        self.bump(|c| c.allocated += count);
        if request.kind == FrameKind::Table {
            self.tables.borrow_mut().insert(pa, vec![0; self.k.geometry.entries()]);
        }
        Some(Frame { pa: Pa(pa), tok: () })
    }
    fn free(&self, frame: Frame<()>, order: u8, kind: FrameKind) {
        let page = self.k.geometry.page_size();
        for i in 0..1u64 << order {
            let pa = frame.pa.0 + i * page;
            match self.frames.borrow_mut().get_mut(self.number(pa)) {
                Some(state) if !state.info.free && state.info.kind == kind => {
                    state.info.free = true;
                    state.reserved = false;
                }
                _ => self.fault(Invariant::FramesConserved, pa, "double or wrong free"),
            }
            if kind == FrameKind::Table {
                self.tables.borrow_mut().remove(&pa);
            }
        }
        self.bump(|c| c.freed += 1 << order);
    }
    fn frame_of(&self, _: Entry<()>, pa: Pa) -> Frame<()> {
        Frame { pa, tok: () }
    }
    fn split_frame(&self, _: Frame<()>, _: u8) {}
    fn is_reserved(&self, frame: Frame<()>) -> bool {
        self.state(frame.pa).is_some_and(|s| s.reserved)
    }
    fn copy_frame(&self, from: Frame<()>, to: Frame<()>) {
        self.copy(from.pa.0, to.pa.0);
    }
    fn copy_from_va(&self, from: Va, to: Frame<()>) {
        if let Some(pa) = self.access(from, false) {
            self.copy(pa.0, to.pa.0);
        }
    }
    fn load_frame(&self, frame: Frame<()>, index: u16) -> u64 {
        self.get(frame.pa.plus(u64::from(index) * 8))
    }
    fn store_frame(&self, frame: Frame<()>, index: u16, value: u64) {
        self.put(frame.pa.plus(u64::from(index) * 8), value);
    }
    fn list_push(&self, list: &mut FrameList<()>, frame: Frame<()>) {
        self.links.borrow_mut().insert(frame.pa.0, None);
        match list.last {
            Some(last) => {
                self.links.borrow_mut().insert(last.pa.0, Some(frame.pa.0));
            }
            None => list.first = Some(frame),
        }
        list.last = Some(frame);
        list.len += 1;
    }
    fn list_pop(&self, list: &mut FrameList<()>) -> Option<Frame<()>> {
        let last = list.last?;
        let mut before = None;
        let mut at = list.first?;
        while at.pa != last.pa {
            before = Some(at);
            at = Frame { pa: Pa(self.links.borrow()[&at.pa.0]?), tok: () };
        }
        list.last = before;
        match before {
            Some(before) => {
                self.links.borrow_mut().insert(before.pa.0, None);
            }
            None => list.first = None,
        }
        list.len -= 1;
        Some(last)
    }
    fn list_shift(&self, list: &mut FrameList<()>) -> Option<Frame<()>> {
        let first = list.first?;
        list.first = self.links.borrow()[&first.pa.0].map(|pa| Frame { pa: Pa(pa), tok: () });
        if list.first.is_none() {
            list.last = None;
        }
        list.len -= 1;
        Some(first)
    }
    fn range_op(&self, start: Pa, bytes: u64, op: RangeOp) -> Result<(), InUse> {
        *self.isolated.borrow_mut() = (op == RangeOp::Isolate).then_some((start.0, start.0 + bytes));
        Ok(())
    }
    fn range_in_use(&self, start: Pa, bytes: u64) -> Option<InUse> {
        let page = self.k.geometry.page_size();
        (0..bytes / page).map(|i| start.plus(i * page)).find_map(|pa| {
            let state = self.state(pa)?;
            (!state.info.free).then_some(InUse { pa, kind: state.info.kind })
        })
    }
    fn claim_self_hosted(&self, start: Pa, _: u64) -> Frame<()> {
        Frame { pa: start, tok: () }
    }
    fn is_self_hosted(&self, frame: Frame<()>) -> bool {
        self.state(frame.pa).is_some_and(|s| s.info.self_hosted)
    }
    fn acquire(&self, lock: LockId, _: Mode) {
        if self.held.borrow().contains(&lock) {
            self.fault(Invariant::LockOrder, 0, "lock taken twice");
        }
        if !lock.is_spinlock() && self.held.borrow().iter().any(|l| l.is_spinlock()) {
            self.fault(Invariant::LockOrder, 0, "sleeping lock under a spinlock");
        }
        self.held.borrow_mut().push(lock);
    }
    fn try_acquire(&self, lock: LockId, mode: Mode) -> bool {
        self.acquire(lock, mode);
        true
    }
    fn release(&self, lock: LockId, _: Mode) {
        let at = self.held.borrow().iter().rposition(|l| *l == lock);
        match at {
            Some(at) => {
                self.held.borrow_mut().remove(at);
            }
            None => self.fault(Invariant::LockOrder, 0, "released what was not held"),
        }
    }
    fn var_load(&self, var: Var, _: Order) -> u64 {
        Single::var(self, var)
    }
    fn var_store(&self, var: Var, value: u64, _: Order) {
        self.vars.borrow_mut().insert(var.0, value);
    }
    fn var_rmw(&self, var: Var, op: Rmw, _: Order) -> u64 {
        let old = Single::var(self, var);
        self.vars.borrow_mut().insert(var.0, op.apply(old));
        old
    }
    fn wait_until(&self, var: Var, condition: Until) -> u64 {
        let word = Single::var(self, var);
        assert!(condition.holds(word), "waits for ever");
        word
    }
    fn rcu_read_lock(&self) {}
    fn rcu_read_unlock(&self) {}
    fn synchronize_rcu(&self) {
        self.bump(|c| c.rcu += 1);
    }
    fn irq_disable(&self) {}
    fn irq_enable(&self) {}
    fn ipi_pause(&self) {}
    fn ipi_resume(&self) {}
    fn stop_machine_begin(&self) {}
    fn stop_machine_end(&self) {}
    fn signal_pending(&self) -> bool {
        false
    }
    fn warn(&self, what: Invariant, address: u64, message: &'static str) {
        self.fault(what, address, message);
    }
    fn expect_stable(&self, _: bool) {}
    fn exclusive(&self, _: Invariant, _: bool) {}
    fn choose(&self, _: u32, _: &'static str) -> u32 {
        0
    }
    fn round(&self, _: u64) {
        panic!("an endless loop that nobody else can end");
    }
    fn geometry(&self) -> &Geometry {
        &self.k.geometry
    }
}
