//! Break-before-make by the levels of FEAT_BBM, and what an access may do that meets two translations.

mod bench;

use bench::{BASE, Bench, page, request};
use vmemmap_arch::bbm::FeatBbm::{self, Level0, Level1, Level2, NoAbort};
use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Alloc, Attr, Barrier, Cpu, Desc, Frame, FrameKind, Invariant, Level, Order, Pa, Slot, Tlbi, Va};
use vmemmap_machine::Ets;
use vmemmap_machine::explored::{Conflict, Ordering, WorldOptions};
use vmemmap_machine::op::{Op, Tok};

fn bench(conflict: Conflict, feat_bbm: &[FeatBbm]) -> Bench {
    Bench::new(WorldOptions { conflict, feat_bbm: feat_bbm.to_vec(), ..WorldOptions::default() })
}

fn flush(b: &Bench) {
    let cpu = b.cpu(0);
    cpu.barrier(Barrier::DsbIshst);
    cpu.tlbi(Tlbi::Vmalle1is);
    cpu.barrier(Barrier::DsbIsh);
}

const BLOCK: Va = Va(BASE.0 + (2 << 20));

/// A live block, then a table with the same pages in one store.
fn split(b: &Bench, block: u64) -> Frame<Tok> {
    let cpu = b.cpu(0);
    let at = Some(Pa((1 << 30) + (8 << 20)));
    let run = cpu.alloc(Alloc { order: 9, at, ..request(FrameKind::Vmemmap) }).expect("memory");
    let table = cpu.alloc(request(FrameKind::Table)).expect("memory");
    let slot = Slot { index: b.g.index(BLOCK, Level::PMD), ..b.pmd() };
    cpu.write(slot, b.g.descriptor(run.pa, block), Order::Plain);
    cpu.barrier(Barrier::DsbIshst);
    for index in 0..512u64 {
        let leaf = b.g.descriptor(run.pa.plus(index << 12), prot::PAGE_KERNEL);
        cpu.write(Slot { table: table.pa, index: index as u16, level: Level::PTE, tok: table.tok }, leaf, Order::Plain);
    }
    cpu.barrier(Barrier::DsbIshst);
    cpu.write(slot, b.g.descriptor(table.pa, prot::TABLE), Order::Plain);
    run
}

/// The messages of I19.
fn told(b: &Bench) -> Vec<&'static str> {
    b.world
        .borrow()
        .violations()
        .iter()
        .filter(|b| b.invariant == Invariant::BreakBeforeMake)
        .map(|b| b.message)
        .collect()
}

#[test]
fn a_split_is_judged_by_the_weakest_cpu_that_may_hold_the_block() {
    let plain = prot::PAGE_KERNEL & !Attr::TABLE_BIT.bits();
    for (feat, block, broken) in [
        (vec![], plain, true),
        (vec![Level0], plain, true),
        (vec![Level1], plain, true),
        (vec![Level1], plain | Attr::NT.bits(), false),
        (vec![Level2], plain, false),
        (vec![NoAbort], plain, false),
        (vec![NoAbort, Level0, NoAbort], plain, true),
        (vec![NoAbort, NoAbort, Level0], plain, true),
        (vec![NoAbort, Level2], plain, false),
        (vec![NoAbort, Level1], plain, true),
    ] {
        let b = bench(Conflict::AtWrite, &feat);
        split(&b, block);
        assert_eq!(b.broke(Invariant::BreakBeforeMake), broken, "{feat:?}");
        assert!(told(&b).iter().all(|m| m.contains("RWHZWS") && m.contains("conflict abort")));
    }
}

#[test]
fn a_cpu_that_flushed_for_itself_no_longer_counts() {
    // CPU 0 has level 0 and drops the block before it is there again; the others may hold it and allow the table.
    let b = bench(Conflict::AtWrite, &[Level0, NoAbort, NoAbort]);
    let cpu = b.cpu(0);
    let at = Some(Pa((1 << 30) + (8 << 20)));
    let run = cpu.alloc(Alloc { order: 9, at, ..request(FrameKind::Vmemmap) }).expect("memory");
    let table = cpu.alloc(request(FrameKind::Table)).expect("memory");
    let slot = Slot { index: b.g.index(BLOCK, Level::PMD), ..b.pmd() };
    for local in [true, false] {
        cpu.write(slot, b.g.descriptor(run.pa, prot::PAGE_KERNEL & !Attr::TABLE_BIT.bits()), Order::Plain);
        cpu.write(slot, Desc::NONE, Order::Plain);
        cpu.barrier(Barrier::DsbIshst);
        if local {
            cpu.tlbi(Tlbi::Vaae1(BLOCK));
            cpu.barrier(Barrier::DsbNsh);
        }
        cpu.write(slot, b.g.descriptor(table.pa, prot::TABLE), Order::Plain);
        assert_eq!(b.broke(Invariant::BreakBeforeMake), !local);
        cpu.write(slot, Desc::NONE, Order::Plain);
        flush(&b);
    }
}

/// Page 0 leads to a frame whose first word is `old`, then in one store to another with `new`.
fn exchanged(conflict: Conflict, feat: &[FeatBbm], old: u64, new: u64) -> Bench {
    let b = bench(conflict, feat);
    let cpu = b.cpu(0);
    cpu.store_frame(b.mapped[0], 0, old);
    cpu.store_frame(b.spare[0], 0, new);
    cpu.write(b.pte(0), b.ro(b.spare[0]), Order::Plain);
    b
}

fn results(b: &Bench, op: Op) -> Vec<u64> {
    let n = b.outcomes(1, op);
    // A load changes nothing, so one machine answers for all.
    (0..n).map(|outcome| b.execute(1, op, outcome)).collect()
}

const LOAD: Op = Op::Load { va: page_0(), order: Order::Plain };
const fn page_0() -> Va {
    BASE
}

#[test]
fn an_amalgamating_load_returns_the_first_bytes_of_one_and_the_rest_of_the_other() {
    let b = exchanged(Conflict::Amalgamate, &[], 0x1122_3344, 0x5566_7788);
    let mut all = results(&b, LOAD);
    all.sort_unstable();
    let mut expected =
        vec![0x1122_3344, 0x5566_7788, 0x5566_7744, 0x1122_3388, 0x5566_3344, 0x1122_7788, 0x5522_3344, 0x1166_7788];
    expected.sort_unstable();
    assert_eq!(all, expected, "bytes 4 to 7 do not differ, so mixes there are none of their own");
    assert!(told(&b).iter().any(|m| m.contains("amalgamation (RFVQCK)")));
}

#[test]
fn words_that_differ_in_one_byte_cannot_be_mixed() {
    let b = exchanged(Conflict::Amalgamate, &[], 0x1100, 0x2200);
    assert_eq!(results(&b, LOAD).len(), 2);
    let b = exchanged(Conflict::AtWrite, &[], 0x1122_3344, 0x5566_7788);
    assert_eq!(results(&b, LOAD).len(), 2, "at_write: one of both");
}

#[test]
fn after_the_invalidate_nothing_is_mixed_and_nothing_aborts() {
    for conflict in [Conflict::Amalgamate, Conflict::Abort, Conflict::AtAccess] {
        let b = exchanged(conflict, &[], 0x1122, 0x3344);
        flush(&b);
        let before = told(&b).len();
        assert_eq!(results(&b, LOAD), [0x3344]);
        assert_eq!(told(&b).len(), before, "{conflict:?}");
    }
}

#[test]
fn an_abort_is_one_more_outcome_of_any_access() {
    let store = Op::Store { va: page(0), value: 3, order: Order::Plain };
    let b = exchanged(Conflict::Abort, &[NoAbort], 1, 2);
    assert_eq!(b.outcomes(1, LOAD), 3, "no level allows another output address");
    assert_eq!(b.execute(1, LOAD, 2), 0);
    assert!(told(&b).iter().any(|m| m.starts_with("TLB conflict abort")));
    assert_eq!(b.outcomes(1, store), 3);
    b.execute(1, store, 2);
    assert_eq!(b.cpu(0).load_frame(b.mapped[0], 0), 1, "an aborted store stores nothing");
    assert_eq!(b.cpu(0).load_frame(b.spare[0], 0), 2);
}

#[test]
fn level_2_allows_a_split_and_may_abort_on_it_which_noabort_may_not() {
    let plain = prot::PAGE_KERNEL & !Attr::TABLE_BIT.bits();
    let load = Op::Load { va: BLOCK, order: Order::Plain };
    for (feat, outcomes) in [(Level2, 2), (NoAbort, 1)] {
        let b = bench(Conflict::Abort, &[feat]);
        split(&b, plain);
        assert_eq!(told(&b), [""; 0], "the store itself is allowed");
        assert_eq!(b.outcomes(1, load), outcomes, "{feat:?}");
        b.execute(1, load, outcomes - 1);
        assert_eq!(b.broke(Invariant::BreakBeforeMake), feat == Level2);
    }
}

#[test]
fn at_access_a_block_beside_its_own_pages_conflicts_by_size_alone() {
    let plain = prot::PAGE_KERNEL & !Attr::TABLE_BIT.bits();
    let no_translation = plain | Attr::NT.bits();
    for (feat, block, conflicts) in [
        (Level0, plain, true),
        (Level0, no_translation, true),
        (Level1, plain, true),
        (Level1, no_translation, false),
        (Level2, plain, false),
        (NoAbort, plain, false),
    ] {
        let b = bench(Conflict::AtAccess, &[NoAbort, feat]);
        split(&b, block);
        let before = told(&b).len();
        b.cpu(1).load(BLOCK.plus(5 << 12), Order::Plain);
        let at = b.world.borrow().violations().iter().any(|b| b.address == BLOCK.0 + (5 << 12));
        assert_eq!(at, conflicts, "{feat:?}, {before} before");
    }
}

#[test]
fn without_ets_an_old_invalid_entry_is_seen_until_the_cpus_own_isb_or_exception() {
    let spurious = |b: &Bench, cpu: u8| {
        let before = b.world.borrow().spurious_faults();
        b.cpu(cpu).load(page(5), Order::Plain);
        b.world.borrow().spurious_faults() != before
    };
    for ets in [true, false] {
        let feature = if ets { Ets::Two } else { Ets::None };
        let b = Bench::new(WorldOptions { ets: feature, spurious_fault_is_fatal: true, ..WorldOptions::default() });
        b.cpu(0).write(b.pte(5), b.rw(b.spare[0]), Order::Plain);
        b.cpu(1).barrier(Barrier::Isb);
        assert!(!b.broke(Invariant::AlwaysTranslates));
        b.cpu(0).barrier(Barrier::DsbIshst);
        assert_eq!(spurious(&b, 1), !ets, "an ISB before the writer's DSB is too early");
        assert_eq!(spurious(&b, 0), !ets);
        b.cpu(1).barrier(Barrier::Isb);
        assert!(!spurious(&b, 1));
        assert_eq!(spurious(&b, 2), !ets, "each CPU needs its own");
        b.cpu(0).stop_machine_begin();
        assert_eq!(spurious(&b, 0), !ets, "who stops the others is not stopped");
        b.cpu(0).stop_machine_end();
        assert!(!spurious(&b, 2));
        assert_eq!(b.broke(Invariant::AlwaysTranslates), !ets);
    }
}

/// That a CPU has read a new entry tells it something where stores are ordered by the model, not where they count when
/// they are published.
#[test]
fn a_read_of_a_new_entry_ends_faults_where_memory_is_ordered() {
    for (ordering, faults) in [(Ordering::Ordered, false), (Ordering::Published, true)] {
        let b = Bench::new(WorldOptions { ordering, ..WorldOptions::default() });
        b.cpu(0).write(b.pte(5), b.rw(b.spare[0]), Order::Plain);
        b.cpu(1).read(b.pte(5), Order::Plain);
        let before = b.world.borrow().spurious_faults();
        b.cpu(1).load(page(5), Order::Plain);
        assert_eq!(b.world.borrow().spurious_faults() != before, faults, "{ordering:?}");
    }
}
