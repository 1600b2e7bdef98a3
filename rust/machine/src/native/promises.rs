//! Promises that CPUs make to each other, and who breaks them: exclusive rights, a stable tree, the lock order.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use vmemmap_arch::{ByInvariant, Desc, Geometry, Invariant, Kind, Level, LockId, Pa, TableView, Va, VaRange};

use crate::native::pins::Pins;

/// Locks whose holder may not sleep.
pub const SPINLOCKS: [LockId; 5] =
    [LockId::Hugetlb, LockId::InitMmPageTable, LockId::SwapperPgdir, LockId::VmapArea, LockId::Subpool];

/// Name of the lock with that index.
#[must_use]
pub fn name_of(index: usize) -> &'static str {
    let others = [
        LockId::DeviceHotplug,
        LockId::CpuHotplug,
        LockId::MemHotplug,
        LockId::PcpBatchHigh,
        LockId::InitMmMmap,
        LockId::Fixmap,
    ];
    others.iter().chain(&SPINLOCKS).find(|l| l.index() == index).map_or(LockId::HugetlbResize(0).name(), |l| l.name())
}

/// Machine-wide; CPUs are bits of a mask.
#[derive(Debug)]
pub struct Watch {
    /// The CPUs that say they hold that exclusive right.
    holders: ByInvariant<AtomicU64>,
    /// CPUs that were promised that nobody stores into a table.
    stable: AtomicU64,
    /// Addresses whose entries change under locks that nobody who relies on a stable tree takes.
    unstable: OnceLock<VaRange>,
    /// Which table each CPU is at, and whether it is between asking `stable` and having stored.
    pub(crate) pins: Pins,
    /// By lock: the locks that were acquired while it was held.
    after: [AtomicU32; LockId::COUNT],
}

impl Watch {
    #[must_use]
    pub fn new(cpus: u8) -> Self {
        Self {
            holders: ByInvariant::default(),
            stable: AtomicU64::new(0),
            unstable: OnceLock::new(),
            pins: Pins::new(cpus),
            after: [const { AtomicU32::new(0) }; LockId::COUNT],
        }
    }

    /// Begin or end an exclusive right; the other CPUs that hold it at the begin, if any.
    pub fn exclusive(&self, cpu: u8, what: Invariant, begin: bool) -> Option<u64> {
        let holders = &self.holders[what];
        let me = 1u64 << cpu;
        if !begin {
            holders.fetch_and(!me, Ordering::AcqRel);
            return None;
        }
        let others = holders.fetch_or(me, Ordering::AcqRel) & !me;
        (others != 0).then_some(others)
    }

    /// From the return on, every store of another CPU into a table sees the promise; all earlier ones are done.
    pub fn begin_stable(&self, cpu: u8) {
        self.stable.fetch_or(1 << cpu, Ordering::SeqCst);
        self.pins.wait_for_stores(cpu);
    }
    pub fn end_stable(&self, cpu: u8) {
        self.stable.fetch_and(!(1 << cpu), Ordering::SeqCst);
    }
    /// The other CPUs that were promised that there is no store; for a CPU that has pinned a table to store in it.
    #[inline]
    pub fn promised(&self, cpu: u8) -> u64 {
        self.stable.load(Ordering::Relaxed) & !(1 << cpu)
    }

    /// Nobody may rely on the entries that translate this range; said once, before CPUs run.
    pub fn set_unstable(&self, range: VaRange) {
        let _ = self.unstable.set(range);
    }
    /// Whether the entry belongs to that range. Finds its table from the root: vmalloc has few.
    pub fn is_unstable(&self, tree: &impl TableView, table: Pa, index: u16, level: Level) -> bool {
        let g = tree.geometry();
        let top = Va(0u64.wrapping_sub(g.table_span(g.top())));
        let entry = |base: Va| base.plus(u64::from(index) << g.level_shift(level));
        let found = |range: &VaRange| {
            let base = base_of(tree, &g, (table, level), (tree.root(), g.top(), top), range)?;
            Some(range.contains(&entry(base)))
        };
        self.unstable.get().and_then(found).unwrap_or(false)
    }

    /// `lock` is about to be acquired by a holder of the locks in `held`. A lock of these that somebody acquired,
    /// directly or over others, while holding `lock`: the order has a cycle. Each cycle is reported once.
    pub fn order_cycle(&self, held: u32, lock: LockId) -> Option<usize> {
        let mut cycle = None;
        for h in (0..LockId::COUNT).filter(|h| held >> h & 1 != 0 && *h != lock.index()) {
            let known = self.after[h].fetch_or(1 << lock.index(), Ordering::AcqRel) >> lock.index() & 1 != 0;
            if !known && self.reachable(lock.index()) >> h & 1 != 0 {
                cycle = Some(h);
            }
        }
        cycle
    }
    fn reachable(&self, from: usize) -> u32 {
        let mut seen = self.after[from].load(Ordering::Acquire);
        loop {
            let next = (0..LockId::COUNT)
                .filter(|l| seen >> l & 1 != 0)
                .fold(seen, |s, l| s | self.after[l].load(Ordering::Acquire));
            if next == seen {
                return seen;
            }
            seen = next;
        }
    }
}

/// First address that a table maps, if walks of `range` from the table `from` on reach it.
fn base_of(
    tree: &impl TableView,
    g: &Geometry,
    wanted: (Pa, Level),
    from: (Pa, Level, Va),
    range: &VaRange,
) -> Option<Va> {
    let (table, level, base) = from;
    if (table, level) == wanted {
        return Some(base);
    }
    if level >= wanted.1 {
        return None;
    }
    let shift = g.level_shift(level);
    let index = |va: Va| (va.max(base).since(base) >> shift) as usize;
    let last = index(Va(range.end.0 - 1)).min(g.entries_at(level) - 1);
    (index(range.start)..=last).find_map(|i| match g.kind(tree.word(table, i).unwrap_or(Desc::NONE), level) {
        Kind::Table(next) => base_of(tree, g, wanted, (next, level.next(), base.plus((i as u64) << shift)), range),
        _ => None,
    })
}
