//! The walk behind `/sys/kernel/debug/kernel_page_tables` and the W+X check (`mm/ptdump.c`, `mm/pagewalk.c`,
//! `arch/arm64/mm/ptdump.c`; kernel-semantics §8).

use vmemmap_arch::layout::{MAX_MARKERS, Marker};
use vmemmap_arch::{Attr, Cpu, Frame, Invariant, Kind, Level, LockId, Mode, Order, Slot, Va, VaRange};

use crate::Kernel;
use crate::hotplug_lock::{get_online_mems, put_online_mems};
use crate::policy::{VmapLock, WalkerLock};
use crate::state::Scalar;
use crate::static_key::static_branch_add;

/// Bits that tell one range from the next: those of `pte_bits`. Output address, DBM and software bits are not compared.
pub const PROT_MASK: u64 = vmemmap_arch::descriptor::prot::PTDUMP_MASK;

/// Where the walk's findings go.
pub trait PtdumpSink {
    /// Whether anybody looks at what it was told.
    const READ: bool = true;
    /// Header of a region, `---[ name ]---`.
    fn marker(&mut self, name: &'static str);
    /// A finished range. `level`: 0 PGD, 1 P4D, 2 PUD, 3 PMD, 4 PTE. `prot` is masked with `PROT_MASK`; 0 = a hole.
    fn range(&mut self, start: Va, end: Va, level: i8, prot: u64);
}

/// `struct pg_state`.
struct PgState<'a, S> {
    sink: &'a mut S,
    markers: &'a [Marker],
    marker: usize,
    /// -1 = nothing noted yet.
    level: i8,
    prot: u64,
    start: Va,
    /// Where the next marker is: `marker[1].start_address`.
    next_marker: Va,
    /// Levels 1 and 2 that report as 0 because they are folded.
    folded_below: i8,
}

impl<'a, S: PtdumpSink> PgState<'a, S> {
    fn new(k: &Kernel, markers: &'a [Marker], sink: &'a mut S) -> Self {
        // P4D is folded below 5 levels, PUD below 4.
        let folded_below = if k.features.ptdump_notes_folded_as_pgd { (5 - k.geometry.levels as i8).min(2) } else { 0 };
        let mut state = Self {
            sink,
            markers,
            marker: 0,
            level: -1,
            prot: 0,
            start: Va(0),
            next_marker: Va(u64::MAX),
            folded_below,
        };
        state.set_marker(0);
        state
    }

    fn set_marker(&mut self, marker: usize) {
        self.marker = marker;
        self.next_marker = self.markers.get(marker + 1).map_or(Va(u64::MAX), |m| m.start);
    }

    fn header(&mut self) {
        if let Some(name) = self.markers.get(self.marker).and_then(|m| m.name) {
            self.sink.marker(name);
        }
    }

    /// `note_page`. `prot` is masked already; nothing happens for an entry like those before it.
    #[inline]
    fn note_page(&mut self, addr: Va, level: i8, prot: u64) {
        let level = if level > 0 && level <= self.folded_below { 0 } else { level };
        if level != self.level || addr >= self.next_marker {
            self.note_change(addr, level, prot);
        } else if prot != self.prot {
            self.note_prot(addr, prot);
        }
    }
    /// Where only the protection changes, and no marker lies: nothing but the end of one range.
    #[inline(always)]
    fn note_prot(&mut self, addr: Va, prot: u64) {
        self.sink.range(self.start, addr, self.level, self.prot);
        self.start = addr;
        self.prot = prot;
    }

    #[inline(never)]
    fn note_change(&mut self, addr: Va, level: i8, prot: u64) {
        if self.level == -1 {
            self.header();
        } else {
            self.sink.range(self.start, addr, self.level, self.prot);
            self.step_marker(addr);
        }
        self.start = addr;
        self.prot = prot;
        self.level = level;
        // At most two headers for one address.
        self.step_marker(addr);
    }

    fn step_marker(&mut self, addr: Va) {
        if addr >= self.next_marker {
            self.set_marker(self.marker + 1);
            self.header();
        }
    }
}

/// Last address of [.., end): `end` may be 0 or ~0 for the top of the address space.
const fn last_address(end: Va) -> Va {
    Va(end.0.wrapping_sub(1))
}

/// `walk_pgd_range`, `walk_p4d_range`, `walk_pud_range`, `walk_pmd_range`, `walk_pte_range`: one table's part of
/// [start, last].
fn walk_table<C: Cpu, S: PtdumpSink>(
    cpu: &C,
    state: &mut PgState<S>,
    table: Frame<C::Tok>,
    level: Level,
    start: Va,
    last: Va,
) {
    let g = *cpu.geometry();
    let span = g.entry_span(level);
    let (from, to) = (usize::from(g.index(start, level)), usize::from(g.index(last, level)));
    // What a dump makes of an entry, it prints; where it goes on depends on tables only, one at a time.
    let since = cpu.observed();
    let slot = |index: usize| Slot { table: table.pa, index: index as u16, level, tok: table.tok };
    if level == Level::PTE {
        // Every PTE is noted, none ones too. Where no marker falls into the table, only a change of protection can
        // matter after the first.
        let quiet = last < state.next_marker;
        let count = to + 1 - from;
        let addr = |index: u16| start.plus((usize::from(index) - from) as u64 * span);
        if quiet && C::KEEPS_TABLES {
            let mut first = true;
            cpu.read_changes(slot(from), count, PROT_MASK, |index, found| {
                if core::mem::take(&mut first) {
                    state.note_page(addr(index), 4, found);
                } else {
                    state.note_prot(addr(index), found);
                }
            });
            return;
        }
        let mut prot = u64::MAX;
        cpu.read_each(slot(from), count, |index, entry| {
            let found = entry.desc.0 & PROT_MASK;
            if found != prot {
                state.note_page(addr(index), 4, found);
                prot = if quiet { found } else { u64::MAX };
            }
            if !S::READ {
                cpu.conclude(since, u64::from(index));
            }
        });
        return;
    }
    let mut addr = start;
    let top = level == g.top();
    for index in from..to + 1 {
        let next = Va(addr.0 & !(span - 1)).plus(span);
        let entry = cpu.read(slot(index), Order::Plain);
        match g.kind(entry.desc, level) {
            // `real_depth`: a hole in the top table is one of the PGD, whatever is folded into it.
            Kind::None => state.note_page(addr, if top { 0 } else { level.0 + 1 }, 0),
            Kind::Table(pa) => {
                let part_last = if index == to { last } else { last_address(next) };
                walk_table(cpu, state, cpu.frame_of(entry, pa), level.next(), addr, part_last);
            }
            Kind::Block(_) | Kind::Page(_) | Kind::Invalid | Kind::Reserved => {
                state.note_page(addr, level.0 + 1, entry.desc.0 & PROT_MASK)
            }
        }
        if !S::READ {
            cpu.conclude(since, index as u64);
        }
        addr = next;
    }
}

/// What a walk is protected by.
struct Protection {
    hotplug: bool,
    mmap: bool,
    rcu: bool,
}

#[inline]
const fn protection(policy: WalkerLock) -> Protection {
    match policy {
        WalkerLock::Kernel => Protection { hotplug: true, mmap: true, rcu: false },
        WalkerLock::MmapOnly => Protection { hotplug: false, mmap: true, rcu: false },
        // Of `other-mm` the lock itself is left out: nobody else takes it.
        WalkerLock::HotplugOnly | WalkerLock::OtherMm => Protection { hotplug: true, mmap: false, rcu: false },
        WalkerLock::Rcu => Protection { hotplug: false, mmap: false, rcu: true },
        WalkerLock::None => Protection { hotplug: false, mmap: false, rcu: false },
    }
}

/// Calls `walk` under the locks of the policy; the kernel's own are `get_online_mems` and `mmap_write_lock(&init_mm)`.
fn with_walker_locks<C: Cpu>(k: &Kernel, cpu: &C, walk: impl FnOnce()) {
    let Protection { hotplug, mmap, rcu } = protection(k.policies.walker);
    // `arm64_ptdump_walk_pgd` of fa93b45fd397.
    let key = match k.policies.vmap {
        VmapLock::StaticKey | VmapLock::StaticKeyFirst | VmapLock::Both => true,
        VmapLock::TryLock | VmapLock::None | VmapLock::ClearLocked => false,
    };
    if key {
        static_branch_add(k, cpu, Scalar::PtdumpLockKey, 1);
    }
    if hotplug {
        get_online_mems(cpu);
    }
    if mmap {
        cpu.acquire(LockId::InitMmMmap, Mode::Write);
    }
    if rcu {
        cpu.rcu_read_lock();
    }
    cpu.expect_stable(true);
    walk();
    cpu.expect_stable(false);
    if rcu {
        cpu.rcu_read_unlock();
    }
    if mmap {
        cpu.release(LockId::InitMmMmap, Mode::Write);
    }
    if hotplug {
        put_online_mems(cpu);
    }
    if key {
        static_branch_add(k, cpu, Scalar::PtdumpLockKey, -1);
    }
}

/// The range that the debugfs file shows: [PAGE_OFFSET, ~0].
#[must_use]
pub const fn whole_range(k: &Kernel) -> VaRange {
    k.layout.page_offset..Va(u64::MAX)
}

/// `ptdump_walk_pgd` with the markers given: walk [start, end) into `sink`.
fn ptdump_walk<C: Cpu, S: PtdumpSink>(k: &Kernel, cpu: &C, range: VaRange, markers: &[Marker], sink: &mut S) {
    let mut state = PgState::new(k, markers, sink);
    with_walker_locks(k, cpu, || {
        cpu.label("ptdump_walk_pgd");
        walk_table(cpu, &mut state, cpu.root(), k.geometry.top(), range.start, last_address(range.end));
    });
    // The last line, after the locks.
    let end = if k.features.ptdump_ends_with_range && range.end.0 != u64::MAX { range.end } else { Va(0) };
    state.note_page(end, -1, 0);
}

/// `ptdump_walk_pgd`: the kernel's own dump of a range, with the layout's markers.
pub fn ptdump_walk_pgd<C: Cpu, S: PtdumpSink>(k: &Kernel, cpu: &C, range: VaRange, sink: &mut S) {
    ptdump_walk(k, cpu, range, &k.layout.markers[..k.layout.nr_markers.min(MAX_MARKERS)], sink);
}

/// A sink that only counts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RangeCount {
    pub ranges: u64,
}

/// A sink for a dump that nobody reads.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Unread;

impl PtdumpSink for Unread {
    const READ: bool = false;
    fn marker(&mut self, _: &'static str) {}
    fn range(&mut self, _: Va, _: Va, _: i8, _: u64) {}
}

impl PtdumpSink for RangeCount {
    fn marker(&mut self, _: &'static str) {}
    fn range(&mut self, _: Va, _: Va, _: i8, _: u64) {
        self.ranges += 1;
    }
}

/// What `ptdump_check_wx` found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WxCheck {
    /// Pages that are writable and executable at EL1.
    pub wx_pages: u64,
    /// Pages that user space could execute.
    pub uxn_pages: u64,
    /// First address counted in `wx_pages`.
    pub first_wx: Option<Va>,
    page_size: u64,
}

impl PtdumpSink for WxCheck {
    fn marker(&mut self, _: &'static str) {}
    /// `note_prot_uxn`, `note_prot_wx`.
    fn range(&mut self, start: Va, end: Va, _: i8, prot: u64) {
        let has = |attr: Attr| prot & attr.bits() != 0;
        let pages = end.since(start) / self.page_size.max(1);
        if prot != 0 && !has(Attr::UXN) {
            self.uxn_pages += pages;
        }
        if prot != 0 && !has(Attr::RDONLY) && !has(Attr::PXN) {
            self.wx_pages += pages;
            self.first_wx = self.first_wx.or(Some(start));
        }
    }
}

/// `ptdump_check_wx`: the same walk without output.
pub fn ptdump_check_wx<C: Cpu>(k: &Kernel, cpu: &C) -> WxCheck {
    let mut found = WxCheck { page_size: k.geometry.page_size(), ..WxCheck::default() };
    let markers = [Marker { start: Va(0), name: None }, Marker { start: Va(u64::MAX), name: None }];
    ptdump_walk(k, cpu, whole_range(k), &markers, &mut found);
    if let Some(va) = found.first_wx {
        cpu.warn(Invariant::NoWritableExecutable, va.0, "ptdump_check_wx: insecure W+X mapping");
    }
    found
}
