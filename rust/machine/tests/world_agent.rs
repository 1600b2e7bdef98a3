//! An agent that no TLBI reaches: an IOMMU that shares the kernel's tables (races R22).

mod bench;

use bench::{Bench, page};
use vmemmap_arch::{Barrier, Cpu, Desc, FrameKind, Invariant, Order, Tlbi};
use vmemmap_machine::explored::WorldOptions;

fn bench(iommu: bool, strict: bool) -> Bench {
    Bench::new(WorldOptions { iommu, strict, ..WorldOptions::default() })
}

/// Everything below the PMD entry is gone and flushed, and the entry itself.
fn unlink(b: &Bench) {
    let cpu = b.cpu(0);
    (0..4).for_each(|i| cpu.write(b.pte(i), Desc::NONE, Order::Plain));
    cpu.write(b.pmd(), Desc::NONE, Order::Plain);
    cpu.barrier(Barrier::DsbIshst);
    cpu.tlbi(Tlbi::Vmalle1is);
    cpu.barrier(Barrier::DsbIsh);
}

#[test]
fn a_walk_cache_beyond_the_broadcast_keeps_a_freed_table() {
    for iommu in [false, true] {
        let b = bench(iommu, true);
        unlink(&b);
        b.cpu(0).free(b.pte, 0, FrameKind::Table);
        assert_eq!(b.broke(Invariant::NoStaleWalkCache), iommu);
        assert!(b.world.borrow().violations().iter().all(|b| b.message.contains("IOMMU")));
    }
}

#[test]
fn the_iommus_own_invalidate_ends_it_and_leaves_the_cpus_alone() {
    let b = bench(true, true);
    unlink(&b);
    b.cpu(1).iommu_invalidate();
    b.cpu(0).free(b.pte, 0, FrameKind::Table);
    assert_eq!(b.broken(), []);
    let b = bench(true, true);
    let cpu = b.cpu(0);
    (0..4).for_each(|i| cpu.write(b.pte(i), Desc::NONE, Order::Plain));
    cpu.write(b.pmd(), Desc::NONE, Order::Plain);
    cpu.barrier(Barrier::DsbIshst);
    cpu.iommu_invalidate();
    cpu.free(b.pte, 0, FrameKind::Table);
    assert_eq!(b.broken(), [5]);
    assert!(!b.world.borrow().violations()[0].message.contains("IOMMU"), "the CPUs' walk caches");
}

#[test]
fn its_invalidate_before_the_clear_is_published_does_not_cover_it() {
    let b = bench(true, true);
    let cpu = b.cpu(0);
    (0..4).for_each(|i| cpu.write(b.pte(i), Desc::NONE, Order::Plain));
    cpu.write(b.pmd(), Desc::NONE, Order::Plain);
    cpu.iommu_invalidate();
    cpu.barrier(Barrier::DsbIshst);
    cpu.tlbi(Tlbi::Vmalle1is);
    cpu.barrier(Barrier::DsbIsh);
    cpu.free(b.pte, 0, FrameKind::Table);
    assert_eq!(b.broken(), [5]);
}

#[test]
fn it_caches_table_entries_only() {
    let b = bench(true, true);
    let cpu = b.cpu(0);
    cpu.write(b.pte(0), Desc::NONE, Order::Plain);
    cpu.barrier(Barrier::DsbIshst);
    cpu.tlbi(Tlbi::Vaale1is(page(0)));
    cpu.barrier(Barrier::DsbIsh);
    cpu.free(b.mapped[0], 0, FrameKind::Vmemmap);
    assert_eq!(b.broken(), []);
}

#[test]
fn one_walk_of_it_finds_the_freed_table_under_the_observed_oracle() {
    for (iommu, invalidate, broken) in [(true, false, vec![5]), (true, true, vec![]), (false, false, vec![])] {
        let b = bench(iommu, false);
        unlink(&b);
        if invalidate {
            b.cpu(0).iommu_invalidate();
        }
        b.cpu(0).free(b.pte, 0, FrameKind::Table);
        b.cpu(1).speculate(page(0));
        assert_eq!(b.broken(), [], "a CPU's walk cache was flushed");
        b.cpu(1).iommu_walk(page(0));
        assert_eq!(b.broken(), broken);
    }
}
