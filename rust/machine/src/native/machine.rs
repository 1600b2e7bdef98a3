//! The state that all CPUs of a native machine share, and what loaders and bindings ask of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use vmemmap_arch::descriptor::OutputBits;
use vmemmap_arch::{Desc, FrameKind, Geometry, Invariant, Kind, Level, Pa, TableView, Va};

use crate::config::{ConfigError, MachineConfig, RamRange, first_frame_alignment};
use crate::native::ahead::Ahead;
use crate::native::arena::Arena;
use crate::native::counters::{CachePadded, Counters, Shards};
use crate::native::frame_state::{Contents, FrameStates, PackedEvent, State, bit};
use crate::native::frames::{CHUNK, Frames, Span};
use crate::native::injection::Injection;
use crate::native::locks::{Locks, Rcu};
use crate::native::promises::Watch;
use crate::native::records::Records;
use crate::native::running::Running;
use crate::violation::{Actor, Event, History, Sink, Violation};

/// A machine on which real threads run kernel code: one `Native` or `Checked` a thread.
#[derive(Debug)]
pub struct Machine {
    geometry: Geometry,
    pub(crate) output: OutputBits,
    page_shift: u32,
    /// log2 of the bytes that a table of PTEs maps.
    pte_table_shift: u32,
    ram: Vec<RamRange>,
    base: u64,
    /// Bytes from `base` to the end of the last range.
    bytes: u64,
    cpus: u8,
    root: Pa,
    /// Modelled memory by physical address.
    pub(crate) words: Arena,
    pub(crate) records: Records,
    pub(crate) vars: Arena,
    pub(crate) frames: Frames,
    pub(crate) states: FrameStates,
    pub(crate) locks: Locks,
    pub(crate) rcu: Rcu,
    pub(crate) counters: Shards,
    pub(crate) injection: Injection,
    pub(crate) watch: Watch,
    /// An unchecked CPU was made since `records` were last complete.
    records_void: Mutex<bool>,
    violations: Sink,
    step: CachePadded<AtomicU64>,
    pub(crate) running: Running,
    /// How often a descriptor was stored above the tables of PTEs.
    pub(crate) upper_stores: CachePadded<AtomicU64>,
    pub(crate) frames_total: AtomicU64,
    pub(crate) self_hosted: AtomicU64,
    booting: AtomicBool,
    /// Of the tables that a loader writes.
    loaded: Ahead,
    signal: AtomicBool,
    actors: Mutex<Vec<String>>,
    labels: RwLock<Vec<&'static str>>,
}

/// Base pages of the allocator. `free + used = total`, also while memory comes or goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameCounts {
    pub free: u64,
    pub used: u64,
    pub total: u64,
}

impl FrameCounts {
    /// Two counters, each as it was at a moment of its own: memory that came or went in between may be in one and not
    /// in the other, whichever was read first.
    const fn of(free: u64, total: u64) -> Self {
        let used = total.saturating_sub(free);
        Self { free: total - used, used, total }
    }
}

impl Machine {
    /// A machine with empty memory: all boot frames free but the root table.
    ///
    /// # Errors
    /// Any `ConfigError`.
    pub fn new(config: &MachineConfig) -> Result<Self, ConfigError> {
        let ram = config.checked_ranges()?;
        let geometry = config.geometry;
        let base = ram.first().map_or(0, |r| r.start.0) & !(first_frame_alignment(&geometry) - 1);
        let bytes = ram.last().map_or(0, |r| r.end().0) - base;
        let frames = bytes >> geometry.page_shift();
        if frames > 1 << 32 {
            return Err(ConfigError::TooManyFrames { frames });
        }
        let map = |what, words: u64| {
            Arena::new(words).map_err(|source| ConfigError::Map { what, bytes: words.saturating_mul(8), source })
        };
        let metadata = |source| ConfigError::Map { what: "frame metadata", bytes: frames * 48, source };
        let spans: Vec<Span> = ram
            .iter()
            .map(|r| Span {
                first: (r.start.0 - base) >> geometry.page_shift(),
                end: (r.end().0 - base) >> geometry.page_shift(),
                boot: r.boot,
            })
            .collect();
        let boot_frames: u64 = spans.iter().filter(|s| s.boot).map(|s| s.end - s.first).sum();
        let mut machine = Self {
            geometry,
            output: geometry.output_bits(),
            page_shift: geometry.page_shift(),
            pte_table_shift: geometry.level_shift(Level::PMD),
            ram,
            base,
            bytes,
            cpus: config.cpus,
            root: Pa(base),
            words: map("modelled memory", bytes / 8)?,
            records: Records::new(bytes / 8),
            vars: map("kernel variables", config.vars)?,
            frames: Frames::new(frames, &spans, config.cpus).map_err(metadata)?,
            states: FrameStates::new(frames).map_err(metadata)?,
            locks: Locks::default(),
            rcu: Rcu::new(config.cpus),
            counters: Shards::new(config.cpus),
            injection: Injection::new(config.cpus, config.seed),
            watch: Watch::new(config.cpus),
            records_void: Mutex::new(false),
            violations: Sink::default(),
            step: CachePadded(AtomicU64::new(1)),
            running: Running::new(config.cpus),
            upper_stores: CachePadded(AtomicU64::new(1)),
            frames_total: AtomicU64::new(boot_frames),
            self_hosted: AtomicU64::new(0),
            booting: AtomicBool::new(true),
            loaded: Ahead::new(),
            signal: AtomicBool::new(false),
            actors: Mutex::new((0..config.cpus).map(|c| format!("cpu{c}")).collect()),
            labels: RwLock::new(vec!["boot"]),
        };
        machine.mark_ragged_edges(&spans);
        let root = match config.root {
            Some(root) => machine.adopt_frame(root, 0, FrameKind::Table, true).then_some(root),
            None => machine
                .take_run(None, 0, FrameKind::Table, vmemmap_arch::Zone::Normal, None, false)
                .map(|f| machine.frame_pa(f)),
        };
        machine.root = root.ok_or(ConfigError::Root(config.root.unwrap_or(Pa(base))))?;
        Ok(machine)
    }

    /// Frames of boot chunks that lie in no boot range.
    fn mark_ragged_edges(&self, spans: &[Span]) {
        let in_boot = |f: u64| spans.iter().any(|s| s.boot && f >= s.first && f < s.end);
        for edge in spans.iter().filter(|s| s.boot).flat_map(|s| [s.first, s.end - 1]) {
            let first = edge / CHUNK * CHUNK;
            (first..first + CHUNK).filter(|&f| !in_boot(f)).for_each(|f| self.mark_absent(f, true));
        }
    }

    /// A CPU runs that stores descriptors without a record.
    pub(crate) fn void_records(&self) {
        *self.records_void.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
    /// Records count from here on: those that a CPU without any may have outdated are forgotten.
    pub(crate) fn renew_records(&self) {
        let mut void = self.records_void.lock().unwrap_or_else(PoisonError::into_inner);
        if core::mem::take(&mut *void) {
            self.forget_records();
        }
    }
    /// A table that is freed has none. What they took is given back: tables come and go all over memory, and what was
    /// once touched would stay resident for good.
    pub(crate) fn discard_records(&self, table: u64) {
        let entries = self.geometry.entries();
        self.records.discard(table.saturating_mul(entries as u64), entries);
    }
    /// Unchecked CPUs store descriptors without a record; an older record of the same slot could accuse them falsely.
    fn forget_records(&self) {
        for (table, _) in self.tables() {
            for record in self.records.of_table(self.word_number(table, 0), self.geometry.entries()) {
                if record.load(Ordering::Relaxed) != 0 {
                    record.store(0, Ordering::Relaxed);
                }
            }
        }
    }
    #[must_use]
    pub fn cpus(&self) -> u8 {
        self.cpus
    }
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }
    /// Memory ranges, sorted.
    #[must_use]
    pub fn ram(&self) -> &[RamRange] {
        &self.ram
    }
    #[must_use]
    pub fn root(&self) -> Pa {
        self.root
    }
    /// Frames allocated from now on are not `PG_reserved`.
    pub fn seal_boot(&self) {
        self.booting.store(false, Ordering::Release);
    }
    pub(crate) fn is_booting(&self) -> bool {
        self.booting.load(Ordering::Relaxed)
    }

    // ---- addresses ----------------------------------------------------------------------------------------
    /// Number of the frame of `pa`, from the machine's first; may lie outside the machine.
    #[inline]
    pub(crate) fn frame_of(&self, pa: Pa) -> u64 {
        self.frame_numbers()(pa)
    }
    /// `frame_of`, for many addresses.
    #[inline]
    pub(crate) fn frame_numbers(&self) -> impl Fn(Pa) -> u64 + Copy + use<> {
        let (base, shift) = (self.base, self.page_shift);
        move |pa| pa.0.wrapping_sub(base) >> shift
    }
    /// The first address that the table of PTEs maps which maps `va`, and the index of `va` in it.
    #[inline]
    pub(crate) fn pte_table_of(&self, va: Va) -> (Va, u64) {
        let inside = va.0 & ((1 << self.pte_table_shift) - 1);
        (Va(va.0 - inside), inside >> self.page_shift)
    }
    /// Where in a page an address lies.
    #[inline]
    pub(crate) fn in_page(&self, va: Va) -> u64 {
        va.0 & ((1 << self.page_shift) - 1)
    }
    /// Number of the frame that a descriptor names, a table or memory; may lie outside the machine.
    #[inline]
    pub(crate) fn named_frame(&self, desc: Desc, level: Level) -> Option<u64> {
        if level == Level::PTE {
            // As `kind` says, for most.
            return desc.is_table_type().then(|| self.frame_of(self.output.of(desc)));
        }
        self.named_above_ptes(desc, level)
    }
    #[inline(never)]
    fn named_above_ptes(&self, desc: Desc, level: Level) -> Option<u64> {
        match self.geometry.kind(desc, level) {
            Kind::Table(pa) | Kind::Page(pa) | Kind::Block(pa) => Some(self.frame_of(pa)),
            Kind::None | Kind::Invalid | Kind::Reserved => None,
        }
    }
    #[inline]
    pub(crate) fn frame_pa(&self, frame: u64) -> Pa {
        Pa(self.base + (frame << self.page_shift))
    }
    #[inline]
    pub(crate) fn word_number(&self, table: Pa, index: u64) -> u64 {
        (table.0.wrapping_sub(self.base) >> 3).wrapping_add(index)
    }
    /// A word of memory; `None` outside the machine.
    #[inline]
    pub(crate) fn word_at(&self, table: Pa, index: u64) -> Option<&AtomicU64> {
        self.words.get(self.word_number(table, index))
    }
    /// All words of a frame; none outside the machine.
    #[inline]
    pub(crate) fn words_of(&self, frame: u64) -> &[AtomicU64] {
        let count = self.geometry.entries();
        let first = (frame as usize).saturating_mul(count);
        self.words.words().get(first..first.saturating_add(count)).unwrap_or_default()
    }
    /// Bytes between the first and the last address of the machine.
    #[must_use]
    pub fn span(&self) -> u64 {
        self.bytes
    }

    // ---- loading ------------------------------------------------------------------------------------------
    /// Take exactly this run out of the allocator's hands, as the loaded machine's kernel had. A table's words are
    /// zeroed. `false` if any frame of it is already taken or absent.
    pub fn adopt_frame(&self, pa: Pa, order: u8, kind: FrameKind, reserved: bool) -> bool {
        let frame = self.frame_of(pa);
        let Some(frame) = self.take_run(None, order, kind, vmemmap_arch::Zone::Movable, Some(frame), false) else {
            return false;
        };
        let flags = if reserved { bit::RESERVED } else { 0 } | if kind == FrameKind::Table { bit::LINKED } else { 0 };
        for f in frame..frame + if kind == FrameKind::Huge { 1 } else { 1 << order } {
            let _ = self.states.update(f, |s| Some(State(s.0 & !bit::RESERVED | flags)));
        }
        true
    }
    /// `adopt_frame` of each frame that these PTEs of a table map, as runs of single frames; those that are adopted
    /// already, since another PTE maps them too, are left.
    ///
    /// # Errors
    /// The first of them that is taken or absent.
    pub fn adopt_leaves(
        &self,
        table: Pa,
        ptes: core::ops::Range<usize>,
        kind: FrameKind,
        reserved: bool,
    ) -> Result<(), Pa> {
        let (mut word, mut mask, mut last) = (0, 0u64, None);
        for pte in self.table_words(table).and_then(|words| words.get(ptes)).unwrap_or_default() {
            let desc = Desc(pte.load(Ordering::Relaxed));
            let Kind::Page(pa) = self.geometry.kind(desc, Level::PTE) else { continue };
            if last.replace(pa) == Some(pa) {
                continue;
            }
            let frame = self.frame_of(pa);
            if frame / 64 != word {
                self.adopt_in_word(word, mask, kind, reserved)?;
                (word, mask) = (frame / 64, 0);
                self.states.touch(frame);
            }
            if self.states.get(frame).kind() != Some(kind) {
                mask |= 1 << (frame % 64);
            }
        }
        self.adopt_in_word(word, mask, kind, reserved)
    }
    /// Of 64 frames those in `mask`.
    fn adopt_in_word(&self, word: u64, mask: u64, kind: FrameKind, reserved: bool) -> Result<(), Pa> {
        if mask == 0 {
            return Ok(());
        }
        let frames = (0..64).filter(|bit| mask >> bit & 1 != 0).map(|bit| word * 64 + bit);
        if !self.frames.take_mask(word, mask) {
            let mut taken = frames.clone().filter(|&f| self.frames.is_used(f));
            return Err(self.frame_pa(taken.next().unwrap_or(word * 64 + u64::from(mask.trailing_zeros()))));
        }
        let flags = if reserved { bit::RESERVED } else { 0 };
        for frame in frames {
            let _ = self.states.update(frame, |s| Some(s.single(kind, flags)));
        }
        Ok(())
    }
    /// What CPUs remember of walks holds no longer.
    pub(crate) fn stored_above_ptes(&self) {
        self.upper_stores.0.fetch_add(1, Ordering::AcqRel);
    }
    /// Store the words of a table page of an image. The page becomes a reserved table of init_mm.
    /// `false` if it lies outside the machine, is longer than a page, or belongs to something else.
    pub fn write_table_raw(&self, table: Pa, words: &[u64], level: Level) -> bool {
        if words.len() > self.geometry.entries() || !table.is_aligned(self.geometry.page_size()) {
            return false;
        }
        if self.states.get(self.frame_of(table)).kind() != Some(FrameKind::Table)
            && !self.adopt_frame(table, 0, FrameKind::Table, true)
        {
            return false;
        }
        self.stored_above_ptes();
        // An image has its tables by address, most of them side by side.
        if let Some((first, count)) = self.loaded.pages(self.frame_of(table)) {
            let entries = self.geometry.entries() as u64;
            self.words.populate(first * entries, count * entries);
        }
        for (i, &w) in (0..).zip(words) {
            if w == 0 {
                continue;
            }
            let number = self.word_number(table, i);
            let Some(at) = self.words.get(number) else { return false };
            at.store(w, Ordering::Relaxed);
            if let Some(record) = self.records.get(number).filter(|r| r.load(Ordering::Relaxed) != 0) {
                record.store(0, Ordering::Relaxed);
            }
            if let Kind::Table(next) = self.geometry.kind(Desc(w), level) {
                let _ = self.states.update(self.frame_of(next), |s| s.kind().map(|_| State(s.0 | bit::LINKED)));
            }
        }
        true
    }
    /// All words of a table page; `None` unless `table` is the address of one. They change while CPUs run.
    #[must_use]
    pub fn table_words(&self, table: Pa) -> Option<&[AtomicU64]> {
        if !table.is_aligned(self.geometry.page_size())
            || self.states.get(self.frame_of(table)).kind() != Some(FrameKind::Table)
        {
            return None;
        }
        let first = self.word_number(table, 0) as usize;
        self.words.words().get(first..first + self.geometry.entries())
    }
    /// The table pages reached from the root, each with its level, parents first.
    #[must_use]
    pub fn tables(&self) -> Vec<(Pa, Level)> {
        let mut found = vec![(self.root, self.geometry.top())];
        let mut next = 0;
        while let Some(&(table, level)) = found.get(next) {
            next += 1;
            if level >= Level::PTE {
                continue;
            }
            for word in self.table_words(table).into_iter().flatten() {
                if let Kind::Table(child) = self.geometry.kind(Desc(word.load(Ordering::Relaxed)), level)
                    && self.table_words(child).is_some()
                {
                    found.push((child, level.next()));
                }
            }
        }
        found
    }
    /// What a frame is used for, the head of its run, and the run's order; `None` if it is free or not in the machine.
    #[must_use]
    pub fn frame_use(&self, pa: Pa) -> Option<(FrameKind, Pa, u8)> {
        let head = self.head_of(self.frame_of(pa))?;
        let state = self.states.get(head);
        state.kind().map(|k| (k, self.frame_pa(head), state.order()))
    }
    /// Kind of a frame, whether it is free, and whether it is self-hosted storage; `None` for memory that the allocator
    /// does not have (offline, or outside the machine).
    #[must_use]
    pub fn frame_info(&self, pa: Pa) -> Option<(FrameKind, bool, bool)> {
        let frame = self.frame_of(pa);
        let state = self.states.get(frame);
        if state.has(bit::SELF_HOSTED) {
            return Some((FrameKind::Vmemmap, state.kind().is_none(), true));
        }
        if let Some(kind) = state.kind() {
            return Some((kind, false, false));
        }
        if !self.frames.chunk(frame / CHUNK).is_present() || state.is_absent() {
            return None;
        }
        if !self.frames.is_used(frame) {
            return Some((FrameKind::Data, true, false));
        }
        let head = self.head_of(frame)?;
        self.states.get(head).kind().map(|kind| (kind, false, false))
    }
    /// Whether the allocator gives out nothing from around that address until an offline of it ends.
    #[must_use]
    pub fn is_isolated(&self, pa: Pa) -> bool {
        let chunk = self.frames.chunk(self.frame_of(pa) / CHUNK);
        chunk.is_present() && chunk.is_isolated()
    }
    /// Bytes of the allocator's chunk that begins at `pa`, if all its frames are free, or absent, or of one HugeTLB
    /// page or run of data; else 0.
    #[must_use]
    pub fn unlisted_chunk(&self, pa: Pa) -> u64 {
        let frame = self.frame_of(pa);
        if !frame.is_multiple_of(CHUNK) {
            return 0;
        }
        let chunk = self.frames.chunk(frame / CHUNK);
        let listed = |kind| matches!(kind, Some(FrameKind::Table | FrameKind::Vmemmap));
        let unlisted = if chunk.is_whole() {
            self.head_of(frame).is_some_and(|head| !listed(self.states.get(head).kind()))
        } else {
            chunk.used() == 0 && self.states.get(frame).kind().is_none()
        };
        if unlisted { CHUNK << self.geometry.page_shift() } else { 0 }
    }
    /// Whether the frame's words are real rather than given by a template.
    #[must_use]
    pub fn is_materialised(&self, pa: Pa) -> bool {
        self.states.get(self.frame_of(pa)).contents() == Contents::Words
    }

    // ---- kernel variables, for loaders --------------------------------------------------------------------
    #[must_use]
    pub fn var(&self, var: vmemmap_arch::Var) -> u64 {
        self.vars.get(u64::from(var.0)).map_or(0, |w| w.load(Ordering::SeqCst))
    }
    pub fn set_var(&self, var: vmemmap_arch::Var, value: u64) {
        if let Some(w) = self.vars.get(u64::from(var.0)) {
            w.store(value, Ordering::SeqCst);
        }
    }

    // ---- numbers ------------------------------------------------------------------------------------------
    /// Counts of all CPUs that stopped or flushed.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters.total()
    }
    /// Counts of one CPU.
    #[must_use]
    pub fn counters_of(&self, cpu: u8) -> Counters {
        self.counters.of(cpu)
    }
    /// Free base pages in the allocator.
    #[must_use]
    pub fn frames_free(&self) -> u64 {
        self.frames.nr_free()
    }
    /// Base pages that the allocator manages, free or not.
    #[must_use]
    pub fn frames_total(&self) -> u64 {
        self.frames_total.load(Ordering::Relaxed)
    }
    /// The base pages that the allocator manages, and how many are free.
    #[must_use]
    pub fn frame_counts(&self) -> FrameCounts {
        FrameCounts::of(self.frames_free(), self.frames_total())
    }
    /// The `nth` allocation from now by that CPU fails (1 = the next); 0 disarms.
    pub fn fail_alloc(&self, cpu: u8, nth: u64) {
        self.injection.arm(cpu, nth);
    }
    /// Each allocation fails with that probability (0 to 1), drawn from the machine's seed.
    pub fn fail_probability(&self, probability: f64) {
        self.injection.set_probability(probability);
    }
    /// What `signal_pending` says on every CPU.
    pub fn set_signal(&self, pending: bool) {
        self.signal.store(pending, Ordering::Release);
    }
    #[must_use]
    pub fn signal(&self) -> bool {
        self.signal.load(Ordering::Acquire)
    }

    /// The part of the tree that nobody may rely on being stable (I18): the vmalloc area. Said once, before CPUs run.
    pub fn set_unstable(&self, range: vmemmap_arch::VaRange) {
        self.watch.set_unstable(range);
    }

    // ---- who, when, what ----------------------------------------------------------------------------------
    /// Name of what runs on a CPU, for violations.
    pub fn set_actor(&self, cpu: u8, name: &str) {
        let mut actors = self.actors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(actor) = actors.get_mut(usize::from(cpu)) {
            name.clone_into(actor);
        }
    }
    #[must_use]
    pub fn actor(&self, cpu: u8) -> String {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner).get(usize::from(cpu)).cloned().unwrap_or_default()
    }
    #[inline]
    pub(crate) fn next_step(&self) -> u64 {
        self.step.0.fetch_add(1, Ordering::Relaxed)
    }
    pub(crate) fn intern(&self, label: &'static str) -> u16 {
        let find = |labels: &[&'static str]| labels.iter().position(|l| core::ptr::eq(*l, label) || *l == label);
        if let Some(i) = find(&self.labels.read().unwrap_or_else(PoisonError::into_inner)) {
            return i as u16;
        }
        let mut labels = self.labels.write().unwrap_or_else(PoisonError::into_inner);
        find(&labels).unwrap_or_else(|| {
            labels.push(label);
            labels.len() - 1
        }) as u16
    }
    fn unpack(&self, event: u64) -> Option<Event> {
        if event == 0 {
            return None;
        }
        let e = PackedEvent(event);
        let label = self
            .labels
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(usize::from(e.label()))
            .copied()
            .unwrap_or("?");
        Some(Event { cpu: e.cpu(), actor: self.actor(e.cpu()), label, step: e.step() })
    }
    /// Who freed and who allocated a frame last, as far as checked CPUs did.
    #[must_use]
    pub fn history(&self, pa: Pa) -> History {
        let frame = self.frame_of(pa);
        let of = |w: Option<&AtomicU64>| w.and_then(|w| self.unpack(w.load(Ordering::Relaxed)));
        History { freed: of(self.states.freed_event(frame)), held: of(self.states.held_event(frame)) }
    }
    /// Record a violation. `frame`: the frame whose history belongs to it.
    pub(crate) fn report(
        &self,
        cpu: u8,
        label: &'static str,
        invariant: Invariant,
        address: u64,
        message: String,
        frame: Option<Pa>,
    ) {
        let evidence = frame.map_or_else(History::default, |pa| self.history(pa));
        let actor = Actor { cpu, name: self.actor(cpu), label };
        let step = self.next_step();
        self.violations.record(Violation { invariant, address, actor, step, message, evidence });
    }
    /// Violations so far, all kinds; the first `MAX_KEPT` of each with details.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.violations.kept()
    }
    /// The same, and forget them.
    #[must_use]
    pub fn take_violations(&self) -> Vec<Violation> {
        self.violations.take()
    }
    /// How many there were, kept or not.
    #[must_use]
    pub fn violation_count(&self) -> u64 {
        self.violations.total()
    }
    #[must_use]
    pub fn violations_of(&self, invariant: Invariant) -> u64 {
        self.violations.count(invariant)
    }
}

impl TableView for Machine {
    fn geometry(&self) -> Geometry {
        self.geometry
    }
    fn root(&self) -> Pa {
        self.root
    }
    fn word(&self, table: Pa, index: usize) -> Option<Desc> {
        self.table_words(table)?.get(index).map(|w| Desc(w.load(Ordering::Relaxed)))
    }
}

impl TableView for &Machine {
    fn geometry(&self) -> Geometry {
        self.geometry
    }
    fn root(&self) -> Pa {
        self.root
    }
    fn word(&self, table: Pa, index: usize) -> Option<Desc> {
        TableView::word(*self, table, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_frame_is_used_that_is_not_there() {
        assert_eq!(FrameCounts::of(3, 10), FrameCounts { free: 3, used: 7, total: 10 });
        // A section went, or came, between the two reads.
        for (free, total) in [(10, 3), (u64::MAX, 0), (1, 0), (0, 0), (0, u64::MAX), (u64::MAX, u64::MAX)] {
            let counts = FrameCounts::of(free, total);
            assert_eq!((counts.free + counts.used, counts.total), (total, total));
            assert!(counts.free <= free);
        }
    }
}
