#![cfg(not(loom))]
//! The unchecked machine: frames, contents, lists, hotplug ranges, locks.

use std::sync::atomic::{AtomicU64, Ordering};

use vmemmap_arch::contents::word;
use vmemmap_arch::{
    Alloc, Cpu, Data, Desc, Entry, Fault, FrameKind, FrameList, Geometry, Granule, Invariant, Level, LockId, Mode,
    Order, Pa, RangeOp, Rmw, Slot, TableView, Template, Va, Var, Zone, descriptor::prot,
};
use vmemmap_machine::{ConfigError, Machine, MachineConfig, Native, RamRange};

const MIB: u64 = 1 << 20;

fn config() -> MachineConfig {
    MachineConfig {
        geometry: Geometry::new(Granule::K4, 48).unwrap(),
        ram: vec![
            RamRange { start: Pa(0x4000_0000), bytes: 64 * MIB, boot: true },
            RamRange { start: Pa(0x8000_0000), bytes: 256 * MIB, boot: false },
        ],
        cpus: 4,
        vars: 1024,
        root: None,
        seed: 1,
    }
}
fn machine() -> Machine {
    Machine::new(&config()).unwrap()
}
fn request(kind: FrameKind, order: u8) -> Alloc {
    Alloc { order, kind, zone: Zone::Normal, at: None, may_sleep: true, top_down: false }
}

/// Map `va` to `pa` with `attributes` by hand; returns the PTE's slot.
fn map(cpu: &Native<'_>, va: Va, pa: Pa, attributes: u64) -> Slot<()> {
    let g = *cpu.geometry();
    let mut table = cpu.root();
    let mut level = g.top();
    while level < Level::PTE {
        let at = Slot { table: table.pa, index: g.index(va, level), level, tok: () };
        let entry = cpu.read(at, Order::Plain);
        table = if entry.desc.is_none() {
            let new = cpu.alloc(request(FrameKind::Table, 0)).unwrap();
            cpu.write(at, g.descriptor(new.pa, prot::TABLE), Order::Plain);
            new
        } else {
            cpu.frame_of(entry, g.output(entry.desc))
        };
        level = level.next();
    }
    let at = Slot { table: table.pa, index: g.index(va, level), level, tok: () };
    cpu.write(at, g.descriptor(pa, attributes), Order::Plain);
    at
}

#[test]
fn an_exchange_returns_the_old_word_and_is_counted() {
    let m = machine();
    {
        let cpu = m.cpu(0);
        let at = Slot { table: m.root(), index: 3, level: Level(0), tok: () };
        cpu.write(at, Desc(7), Order::Plain);
        assert_eq!(cpu.swap(at, Desc(9), Order::Relaxed).desc, Desc(7));
        assert_eq!(cpu.compare_exchange(at, Desc(7), Desc(8), Order::AcqRel).unwrap_err().desc, Desc(9));
        assert_eq!(cpu.compare_exchange(at, Desc(9), Desc(8), Order::AcqRel).unwrap().desc, Desc(9));
        assert_eq!(m.word(m.root(), 3), Some(Desc(8)));
    }
    assert_eq!((m.counters().exchanges, m.counters().writes), (3, 1));
}

#[test]
fn a_wild_table_address_is_a_report() {
    let m = machine();
    let cpu = m.cpu(0);
    for pa in [0, 0x3fff_f000, 0x10_0000_0000, 0xf_ffff_ffff_f000] {
        let at = Slot { table: Pa(pa), index: 511, level: Level(2), tok: () };
        assert_eq!(cpu.read(at, Order::Plain).desc, Desc::NONE);
        cpu.write(at, Desc(1), Order::Plain);
    }
    assert_eq!(m.violations_of(Invariant::TreeWellFormed), 8);
}

#[test]
fn a_frame_reads_as_its_template_until_a_store_makes_it_real() {
    let m = machine();
    let cpu = m.cpu(0);
    let va = Va(0xffff_fc00_0000_0000);
    let f = cpu.alloc(request(FrameKind::Vmemmap, 0)).unwrap();
    map(&cpu, va, f.pa, prot::PAGE_KERNEL);
    cpu.fill(va, Template::FREE);
    assert_eq!(cpu.load(va.plus(64 * 5 + 48), Order::Plain), 0xffff_ffff);
    assert!(!m.is_materialised(f.pa));
    assert_eq!(cpu.rmw(va.plus(48), Rmw::FetchAdd(1 << 32), Order::AcqRel), 0xffff_ffff);
    assert!(m.is_materialised(f.pa));
    assert_eq!(cpu.load(va.plus(48), Order::Plain), 0x1_ffff_ffff);
    assert_eq!(cpu.load_frame(f, u16::from(word::COUNT) + 8), 0xffff_ffff);
    let copy = cpu.alloc(request(FrameKind::Vmemmap, 0)).unwrap();
    cpu.copy_from_va(va, copy);
    assert_eq!(cpu.load_frame(copy, u16::from(word::COUNT)), 0x1_ffff_ffff);
    assert_eq!(m.violation_count(), 0);
}

/// Words stored together read as those stored one after the other, whether the frame has words of its own or not, and
/// do not give it any where the single stores would not.
#[test]
fn words_that_are_stored_together_are_those_stored_alone() {
    let (count, info, mapping) = (u64::from(word::COUNT), u64::from(word::COMPOUND_INFO), u64::from(word::MAPPING));
    let head = [(8 + info, 9 << 8 | 1), (16 + mapping, 0), (u64::from(word::FLAGS), 1 << 16), (count, 0xffff_ffff)];
    let other = [(count, 0xffff_ffff), (8 * 9 + mapping, 77), (count, 5 << 32 | 0xffff_ffff)];
    // The last begins at the second struct page, and reaches into the next frame.
    let beyond = [(mapping, 0), (503, 7), (504, 8)];
    for (words, skip, materialised) in [(&head[..], 0, false), (&other[..], 0, true), (&beyond[..], 64, true)] {
        let read = |together: bool| {
            let m = machine();
            let cpu = m.cpu(0);
            let va = Va(0xffff_fc00_0000_0000);
            let frames = [0, 1].map(|n| {
                let f = cpu.alloc(request(FrameKind::Vmemmap, 0)).unwrap();
                map(&cpu, va.plus(n << 12), f.pa, prot::PAGE_KERNEL);
                cpu.fill(va.plus(n << 12), Template::tail(va.0 | 1));
                f
            });
            if together {
                cpu.store_each(va.plus(skip), words);
            } else {
                words.iter().for_each(|&(n, value)| cpu.store(va.plus(skip + n * 8), value, Order::Plain));
            }
            assert_eq!(m.violation_count(), 0);
            assert_eq!(m.is_materialised(frames[0].pa), materialised, "{together} {words:?}");
            let read: Vec<u64> = (0..1024).map(|n| cpu.load(va.plus(n * 8), Order::Plain)).collect();
            cpu.flush();
            (read, m.counters().stores)
        };
        assert_eq!(read(true), read(false), "{words:?}");
    }
}

/// Every frame of it, whatever its ends were before, and no other; a frame that is free already is reported and left.
#[test]
fn a_list_is_freed_from_end_to_end() {
    let m = machine();
    let cpu = m.cpu(0);
    let mut list = FrameList::new();
    let frames: Vec<_> = (0..70).map(|_| cpu.alloc(request(FrameKind::Vmemmap, 0)).unwrap()).collect();
    frames.iter().for_each(|&frame| cpu.list_push(&mut list, frame));
    assert_eq!((cpu.list_shift(&mut list), cpu.list_pop(&mut list)), (Some(frames[0]), Some(frames[69])));
    cpu.free(frames[33], 0, FrameKind::Vmemmap);
    let before = m.frames_free();
    cpu.list_free(&mut list, FrameKind::Vmemmap);
    assert_eq!(m.frames_free(), before + 67);
    assert!(list.is_empty() && cpu.list_shift(&mut list).is_none());
    assert!((0..70).all(|n| m.frame_use(frames[n].pa).is_some() == (n == 0 || n == 69)));
    let reported: Vec<Invariant> = m.violations().iter().map(|v| v.invariant).collect();
    assert_eq!(reported, [Invariant::FramesConserved]);
}

#[test]
fn faults_are_violations_and_read_as_zero() {
    let m = machine();
    let cpu = m.cpu(1);
    m.set_actor(1, "walker");
    let va = Va(0xffff_fc00_0000_0000);
    assert_eq!(cpu.load(va, Order::Plain), 0);
    let f = cpu.alloc(request(FrameKind::Vmemmap, 0)).unwrap();
    map(&cpu, va, f.pa, prot::PAGE_KERNEL_RO);
    cpu.store(va, 1, Order::Plain);
    assert_eq!(cpu.load(va, Order::Plain), 0);
    let v = m.violations();
    assert_eq!(
        v.iter().map(|v| v.invariant).collect::<Vec<_>>(),
        [Invariant::AlwaysTranslates, Invariant::SharedTailsReadOnly]
    );
    assert_eq!((v[0].actor.name.as_str(), v[0].address), ("walker", va.0));
}

fn load<T>(va: Va) -> Data<T> {
    Data::Load { va, order: Order::Plain }
}

#[test]
fn a_fault_of_an_attempt_is_its_answer_on_both_machines() {
    let m = machine();
    let cpu = m.cpu(1);
    let (hole, mapped) = (Va(0xffff_fc00_0000_0000), Va(0xffff_fc00_0000_1000));
    let f = cpu.alloc(request(FrameKind::Vmemmap, 0)).unwrap();
    map(&cpu, mapped, f.pa, prot::PAGE_KERNEL_RO);
    let checked = m.checked_cpu(2);
    assert_eq!((cpu.attempt(load(hole)), checked.attempt(load(hole))), (Err(Fault), Err(Fault)));
    assert_eq!(cpu.attempt(load(mapped)), checked.attempt(load(mapped)));
    assert_eq!(m.violation_count(), 0);
    assert_eq!(cpu.attempt(Data::Store { va: mapped, value: 1, order: Order::Plain }), Ok(0));
    checked.load(hole, Order::Plain);
    let violated: Vec<_> = m.violations().iter().map(|v| v.invariant).collect();
    assert_eq!(
        violated,
        [Invariant::SharedTailsReadOnly, Invariant::AlwaysTranslates],
        "only translation faults are answers"
    );
}

#[test]
fn an_ipi_is_counted_and_reaches_no_thread() {
    let m = machine();
    {
        let cpu = m.cpu(0);
        assert_eq!(cpu.send_ipi(Var(3)), 0);
        assert_eq!(cpu.var_load(Var(3), Order::Plain), 0);
    }
    assert_eq!(m.counters().ipi, 3);
}

#[test]
fn allocation_takes_the_lowest_or_the_highest_run_or_exactly_the_one_asked_for() {
    let m = machine();
    let cpu = m.cpu(0);
    let base = 0x4000_0000;
    assert_eq!(m.root(), Pa(base));
    assert_eq!(cpu.alloc(request(FrameKind::Data, 0)).unwrap().pa, Pa(base + 0x1000));
    assert_eq!(cpu.alloc(request(FrameKind::Data, 3)).unwrap().pa, Pa(base + 0x8000));
    assert_eq!(cpu.alloc(request(FrameKind::Data, 9)).unwrap().pa, Pa(base + 0x20_0000));
    let top = Alloc { top_down: true, ..request(FrameKind::Data, 0) };
    assert_eq!(cpu.alloc(top).unwrap().pa, Pa(base + 64 * MIB - 0x1000));
    let exact = Alloc { at: Some(Pa(base + 0x30_0000)), ..request(FrameKind::Data, 0) };
    assert!(cpu.alloc(exact).is_none(), "inside the order-9 run");
    let exact = Alloc { at: Some(Pa(base + 0x40_0000)), ..request(FrameKind::Huge, 10) };
    let huge = cpu.alloc(exact).unwrap();
    assert!(cpu.alloc(exact).is_none());
    cpu.free(huge, 10, FrameKind::Huge);
    assert!(cpu.alloc(exact).is_some());
    assert_eq!(m.violation_count(), 0);
}

#[test]
fn single_frames_keep_together() {
    let m = machine();
    let cpu = m.cpu(0);
    let (base, chunk) = (Pa(0x4000_0000), 2 * MIB);
    let single = || cpu.alloc(request(FrameKind::Data, 0)).unwrap();
    // A part of another chunk is used, but as a run.
    let run = cpu.alloc(Alloc { at: Some(base.plus(chunk)), ..request(FrameKind::Huge, 4) }).unwrap();
    let highest = cpu.alloc(Alloc { top_down: true, ..request(FrameKind::Data, 0) }).unwrap();
    // The root is in the first chunk.
    let rest: Vec<_> = (0..511).map(|_| single()).collect();
    assert!(rest.iter().all(|frame| frame.pa < base.plus(chunk)));
    let (beside, below) = (single(), base.plus(64 * MIB - chunk));
    assert!(beside.pa >= below, "{beside:?} is beside the highest frame, not in a chunk without single ones");
    cpu.free(rest[9], 0, FrameKind::Data);
    assert_eq!(single(), rest[9]);
    // All of the last chunk is free again; it is no better than any other.
    cpu.free(beside, 0, FrameKind::Data);
    cpu.free(highest, 0, FrameKind::Data);
    assert_eq!(single().pa, run.pa.plus(16 << 12));
    // Highest first, as memblock: whatever is beside it.
    let top = Alloc { top_down: true, ..request(FrameKind::Data, 0) };
    assert_eq!(cpu.alloc(top).unwrap(), highest);
    assert_eq!(m.violation_count(), 0);
}

#[test]
fn freed_frames_are_found_again_and_counts_come_back() {
    let m = machine();
    let cpu = m.cpu(0);
    let before = m.frames_free();
    let mut list = FrameList::new();
    while let Some(f) = cpu.alloc(request(FrameKind::Data, 0)) {
        cpu.list_push(&mut list, f);
    }
    assert_eq!((m.frames_free(), u64::from(list.len)), (0, before));
    let mut odd = true;
    while let Some(f) = if odd { cpu.list_pop(&mut list) } else { cpu.list_shift(&mut list) } {
        cpu.free(f, 0, FrameKind::Data);
        odd = !odd;
    }
    assert_eq!(m.frames_free(), before);
    assert_eq!(cpu.alloc(request(FrameKind::Data, 0)).unwrap().pa, Pa(0x4000_1000));
    assert_eq!(cpu.alloc(request(FrameKind::Huge, 13)).unwrap().pa, Pa(0x4200_0000));
    assert_eq!(m.violation_count(), 0);
}

#[test]
fn a_list_gives_frames_back_in_both_orders() {
    let m = machine();
    let cpu = m.cpu(0);
    let frames: Vec<_> = (0..4).map(|_| cpu.alloc(request(FrameKind::Data, 0)).unwrap()).collect();
    let mut list = FrameList::new();
    frames.iter().for_each(|&f| cpu.list_push(&mut list, f));
    assert_eq!(cpu.list_pop(&mut list), Some(frames[3]));
    assert_eq!(cpu.list_shift(&mut list), Some(frames[0]));
    cpu.list_push(&mut list, frames[0]);
    assert_eq!(
        [cpu.list_shift(&mut list), cpu.list_shift(&mut list), cpu.list_shift(&mut list)],
        [1, 2, 0].map(|i| Some(frames[i]))
    );
    assert!(cpu.list_pop(&mut list).is_none() && list.is_empty());
}

#[test]
fn the_parts_of_a_split_run_are_freed_one_by_one() {
    let m = machine();
    let cpu = m.cpu(0);
    let before = m.frames_free();
    for (order, kind) in [(4, FrameKind::Vmemmap), (9, FrameKind::Vmemmap), (9, FrameKind::Huge)] {
        let run = cpu.alloc(request(kind, order)).unwrap();
        cpu.split_frame(run, order);
        for i in 0..1 << order {
            cpu.free(vmemmap_arch::Frame { pa: run.pa.plus(i << 12), tok: () }, 0, kind);
        }
        assert_eq!((m.frames_free(), m.violation_count()), (before, 0));
    }
}

#[test]
fn a_double_free_is_reported_once_and_changes_nothing() {
    let m = machine();
    let cpu = m.cpu(0);
    let f = cpu.alloc(request(FrameKind::Data, 0)).unwrap();
    cpu.free(f, 0, FrameKind::Data);
    let free = m.frames_free();
    cpu.free(f, 0, FrameKind::Data);
    assert_eq!((m.frames_free(), m.violations_of(Invariant::FramesConserved)), (free, 1));
}

#[test]
fn memory_comes_online_is_isolated_and_goes() {
    let m = machine();
    m.seal_boot();
    let cpu = m.cpu(0);
    let (start, bytes) = (Pa(0x8000_0000), 128 * MIB);
    let movable = Alloc { zone: Zone::Movable, ..request(FrameKind::Huge, 9) };
    let (total, free) = (m.frames_total(), m.frames_free());
    assert!(cpu.alloc(movable).unwrap().pa < start);
    cpu.range_op(start, bytes, RangeOp::OnlineMovable).unwrap();
    assert_eq!(m.frames_total(), total + (bytes >> 12));
    let huge = cpu.alloc(movable).unwrap();
    assert_eq!(huge.pa, start);
    assert!(
        cpu.alloc(request(FrameKind::Data, 0)).unwrap().pa < start,
        "unmovable allocations stay out of movable memory"
    );
    cpu.range_op(start, bytes, RangeOp::Isolate).unwrap();
    assert_eq!(cpu.range_op(start, bytes, RangeOp::Offline).unwrap_err().pa, huge.pa);
    assert_eq!(cpu.range_in_use(start.plus(0x1000), 0x1000).unwrap().kind, FrameKind::Huge);
    cpu.free(huge, 9, FrameKind::Huge);
    assert!(cpu.alloc(movable).unwrap().pa < start, "isolated");
    cpu.range_op(start, bytes, RangeOp::Offline).unwrap();
    assert!(cpu.alloc(Alloc { at: Some(start), ..movable }).is_none());
    assert_eq!(m.frames_total(), total);
    assert_eq!(m.frames_free(), free - 512 * 2 - 1);
    cpu.range_op(start, bytes, RangeOp::OnlineNormal).unwrap();
    assert_eq!(cpu.alloc(Alloc { at: Some(start), ..request(FrameKind::Table, 0) }).unwrap().pa, start);
    let obstacle = cpu.range_op(start, bytes, RangeOp::Isolate).unwrap_err();
    assert_eq!((obstacle.pa, obstacle.kind), (start, FrameKind::Table));
    assert!(cpu.alloc(Alloc { at: Some(start.plus(0x1000)), ..movable }).is_none(), "misaligned");
    assert!(
        cpu.alloc(Alloc { at: Some(start.plus(MIB * 2)), ..movable }).is_some(),
        "a refused isolation leaves nothing behind"
    );
    assert_eq!(m.violation_count(), 0);
}

#[test]
fn a_block_with_its_own_descriptors_comes_and_goes_in_part_of_a_chunk() {
    let mut c = config();
    c.geometry = Geometry::new(Granule::K64, 48).unwrap();
    c.ram = vec![
        RamRange { start: Pa(0x4000_0000), bytes: 512 * MIB, boot: true },
        RamRange { start: Pa(0x8000_0000), bytes: 1024 * MIB, boot: false },
    ];
    let m = Machine::new(&c).unwrap();
    let cpu = m.cpu(0);
    let start = Pa(0x8000_0000);
    for _ in 0..2 {
        let storage = cpu.claim_self_hosted(start, 8);
        assert!(cpu.is_self_hosted(storage));
        let (rest, bytes) = (start.plus(8 << 16), (512 << 20) - (8 << 16));
        cpu.range_op(rest, bytes, RangeOp::OnlineMovable).unwrap();
        let f = cpu.alloc(Alloc { zone: Zone::Movable, ..request(FrameKind::Data, 0) }).unwrap();
        assert_eq!(f.pa, rest);
        cpu.range_op(rest, bytes, RangeOp::Isolate).unwrap();
        assert_eq!(cpu.range_in_use(rest, bytes).unwrap().pa, rest);
        cpu.free(f, 0, FrameKind::Data);
        assert!(cpu.range_in_use(start, 512 << 20).is_none());
        cpu.range_op(rest, bytes, RangeOp::Offline).unwrap();
    }
    cpu.range_op(start, 512 << 20, RangeOp::OnlineMovable).unwrap();
    assert_eq!(cpu.alloc(Alloc { zone: Zone::Movable, ..request(FrameKind::Huge, 13) }).unwrap().pa, start);
    assert_eq!(m.violation_count(), 0);
}

#[test]
fn the_nth_allocation_of_a_cpu_fails_when_asked() {
    let m = machine();
    let cpu = m.cpu(0);
    m.fail_alloc(0, 3);
    let got: Vec<bool> = (0..5).map(|_| cpu.alloc(request(FrameKind::Data, 0)).is_some()).collect();
    assert_eq!(got, [true, true, false, true, true]);
    m.fail_probability(1.0);
    assert!(cpu.alloc(request(FrameKind::Data, 0)).is_none());
}

#[test]
fn boot_frames_are_reserved_and_later_ones_are_not() {
    let m = machine();
    let cpu = m.cpu(0);
    let early = cpu.alloc(request(FrameKind::Vmemmap, 0)).unwrap();
    m.seal_boot();
    let late = cpu.alloc(request(FrameKind::Vmemmap, 0)).unwrap();
    assert!(cpu.is_reserved(early) && !cpu.is_reserved(late));
    cpu.free(early, 0, FrameKind::Vmemmap);
    assert!(!cpu.is_reserved(cpu.alloc(request(FrameKind::Vmemmap, 0)).unwrap()));
}

#[test]
fn a_loaded_table_is_seen_through_the_view() {
    let m = machine();
    let child = Pa(0x4100_0000);
    assert!(m.write_table_raw(m.root(), &[0, child.0 | prot::TABLE], Level(0)));
    assert!(m.write_table_raw(child, &[0; 512], Level(1)));
    assert_eq!(m.tables(), [(m.root(), Level(0)), (child, Level(1))]);
    assert_eq!(m.table_words(child).unwrap().len(), 512);
    assert_eq!(m.word(Pa(0x4200_0000), 0), None);
    assert!(!m.write_table_raw(Pa(0x10), &[0], Level(1)));
}

#[test]
fn counts_of_frames_stay_counts_while_memory_comes_and_goes() {
    let m = machine();
    m.seal_boot();
    let (start, bytes) = (Pa(0x8000_0000), 8 * MIB);
    let before = (m.frames_free(), m.frames_total());
    let most = before.1 + (bytes >> 12);
    let over = AtomicU64::new(0);
    std::thread::scope(|s| {
        s.spawn(|| {
            let cpu = m.cpu(0);
            let mut removed = 0;
            while removed < 300 {
                cpu.range_op(start, bytes, RangeOp::OnlineMovable).unwrap();
                while cpu.range_op(start, bytes, RangeOp::Isolate).is_err() {}
                while cpu.range_op(start, bytes, RangeOp::Offline).is_err() {}
                removed += 1;
            }
            over.store(1, Ordering::SeqCst);
        });
        s.spawn(|| {
            // Takes what comes before anybody has counted it.
            let cpu = m.cpu(1);
            let huge = Alloc { zone: Zone::Movable, at: Some(start), ..request(FrameKind::Huge, 9) };
            while over.load(Ordering::SeqCst) == 0 {
                if let Some(frame) = cpu.alloc(huge) {
                    cpu.free(frame, 9, FrameKind::Huge);
                }
            }
        });
        while over.load(Ordering::SeqCst) == 0 {
            let counts = m.frame_counts();
            assert!(m.frames_free() <= most, "{} free", m.frames_free());
            assert!(counts.total <= most && counts.free + counts.used == counts.total, "{counts:?}");
        }
    });
    assert_eq!((m.frames_free(), m.frames_total()), before);
}

#[test]
fn no_frame_is_given_out_twice_under_threads() {
    for seed in 1..=3u64 {
        let m = machine();
        let before = m.frames_free();
        let owners: Vec<AtomicU64> = (0..(64 * MIB) >> 12).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|s| {
            for c in 0..4u8 {
                let (m, owners) = (&m, &owners);
                s.spawn(move || {
                    let cpu = m.cpu(c);
                    let mut x = (seed << 8) | u64::from(c);
                    let mut held = Vec::new();
                    let mark = |f: vmemmap_arch::Frame<()>, order: u8, from: u64, to: u64| {
                        let first = ((f.pa.0 - 0x4000_0000) >> 12) as usize;
                        for owner in &owners[first..first + (1 << order)] {
                            assert_eq!(owner.swap(to, Ordering::SeqCst), from, "seed {seed}");
                        }
                    };
                    let me = u64::from(c) + 1;
                    for _ in 0..4000 {
                        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        let order = [0, 0, 0, 1, 3, 6, 7, 9, 10][(x >> 33) as usize % 9];
                        if held.len() > 24 || x >> 63 == 1 && !held.is_empty() {
                            let (f, order): (vmemmap_arch::Frame<()>, u8) =
                                held.swap_remove((x >> 40) as usize % held.len());
                            mark(f, order, me, 0);
                            cpu.free(f, order, FrameKind::Data);
                        } else if let Some(f) =
                            cpu.alloc(Alloc { top_down: x >> 50 & 1 == 0, ..request(FrameKind::Data, order) })
                        {
                            mark(f, order, 0, me);
                            held.push((f, order));
                        }
                    }
                    for (f, order) in held {
                        mark(f, order, me, 0);
                        cpu.free(f, order, FrameKind::Data);
                    }
                });
            }
        });
        assert_eq!((m.frames_free(), m.violation_count()), (before, 0), "seed {seed}");
        let largest = m.cpu(0).alloc(Alloc { at: Some(Pa(0x4200_0000)), ..request(FrameKind::Huge, 13) });
        assert!(largest.is_some(), "seed {seed}");
    }
}

#[test]
fn a_lock_excludes_and_a_waiting_writer_goes_before_new_readers() {
    let m = machine();
    let inside = AtomicU64::new(0);
    std::thread::scope(|s| {
        for c in 0..4u8 {
            let (m, inside) = (&m, &inside);
            s.spawn(move || {
                let cpu = m.cpu(c);
                for i in 0..500u32 {
                    if (i + u32::from(c)) % 3 == 0 {
                        cpu.acquire(LockId::MemHotplug, Mode::Write);
                        assert_eq!(inside.swap(1000, Ordering::SeqCst), 0);
                        inside.store(0, Ordering::SeqCst);
                        cpu.release(LockId::MemHotplug, Mode::Write);
                    } else {
                        cpu.acquire(LockId::MemHotplug, Mode::Read);
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < 4);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        cpu.release(LockId::MemHotplug, Mode::Read);
                    }
                }
            });
        }
    });
    let cpu = m.cpu(0);
    assert!(cpu.try_acquire(LockId::Hugetlb, Mode::Write));
    assert!(!m.cpu(1).try_acquire(LockId::Hugetlb, Mode::Write));
}

#[test]
fn a_grace_period_outlasts_the_sections_that_began_before_it() {
    let m = machine();
    let (begun, freed) = (Var(1), Var(2));
    std::thread::scope(|s| {
        s.spawn(|| {
            let cpu = m.cpu(1);
            cpu.rcu_read_lock();
            cpu.var_store(begun, 1, Order::Release);
            for _ in 0..10_000 {
                assert_eq!(cpu.var_load(freed, Order::Acquire), 0);
            }
            cpu.rcu_read_unlock();
        });
        let cpu = m.cpu(0);
        cpu.wait_until(begun, vmemmap_arch::Until::Equals(1));
        cpu.synchronize_rcu();
        cpu.var_store(freed, 1, Order::Release);
    });
}

#[test]
fn sixteen_tebibytes_cost_nothing_until_they_are_used() {
    let mut c = config();
    c.ram = vec![
        RamRange { start: Pa(0), bytes: 1 << 30, boot: true },
        RamRange { start: Pa(1 << 30), bytes: (1 << 44) - (1 << 30), boot: false },
    ];
    let m = Machine::new(&c).unwrap();
    let cpu = m.cpu(0);
    let top = Pa((1 << 44) - (1 << 27));
    cpu.range_op(top, 1 << 27, RangeOp::OnlineMovable).unwrap();
    let f = cpu.alloc(Alloc { zone: Zone::Movable, top_down: true, ..request(FrameKind::Data, 0) }).unwrap();
    assert_eq!(f.pa, Pa((1 << 44) - 0x1000));
    cpu.store_frame(f, 511, 5);
    assert_eq!(m.frame_word(f.pa, 511), Some(5));
    c.ram[1].bytes += 1 << 30;
    assert!(Machine::new(&c).is_err());
}

/// As much address space as a host has for them once, 47 bits of it or 48.
#[test]
fn sixty_four_tebibytes_are_mapped_once_and_their_records_where_there_are_tables() {
    let geometry = Geometry::new(Granule::K16, 48).unwrap();
    let all = RamRange { start: Pa(0), bytes: 1 << 46, boot: true };
    let mut c = MachineConfig { geometry, ram: vec![all], ..config() };
    let m = Machine::new(&c).unwrap();
    let cpu = m.checked_cpu(0);
    let top = Alloc { top_down: true, ..request(FrameKind::Table, 0) };
    for request in [request(FrameKind::Table, 0), top] {
        let table = cpu.alloc(request).unwrap();
        let at = Slot { table: table.pa, index: 2047, level: Level::PTE, tok: table.tok };
        let data = cpu.alloc(Alloc { kind: FrameKind::Data, ..request }).unwrap();
        let desc = geometry.descriptor(data.pa, prot::PAGE_KERNEL);
        cpu.write(at, desc, Order::Plain);
        cpu.free(data, 0, FrameKind::Data);
        // The record says of which generation the frame was.
        assert_ne!(cpu.alloc(Alloc { at: Some(data.pa), kind: FrameKind::Data, ..request }).unwrap().tok, data.tok);
        assert_eq!(cpu.swap(at, Desc::NONE, Order::Plain), Entry { desc, tok: data.tok });
        cpu.free(table, 0, FrameKind::Table);
    }
    assert_eq!(m.violation_count(), 0);
    c.ram[0].bytes += 1 << 30;
    assert!(matches!(Machine::new(&c), Err(ConfigError::TooManyFrames { .. })));
}

/// What a walk of many entries does is what one read and one write after the other do.
#[test]
fn entries_are_updated_where_the_caller_says_so() {
    let m = machine();
    let cpu = m.cpu(0);
    let table = cpu.alloc(request(FrameKind::Table, 0)).unwrap();
    let slot = |index| Slot { table: table.pa, index, level: Level::PTE, tok: () };
    for index in 0..16 {
        cpu.write(slot(index), Desc(0x4000_0003 + (u64::from(index) << 12)), Order::Plain);
    }
    let mut seen = Vec::new();
    cpu.update_each(slot(4), 8, |index, entry| {
        seen.push((index, entry.desc.0));
        (index % 2 == 0).then_some(Desc::NONE)
    });
    let expected = |index: u16| 0x4000_0003 + (u64::from(index) << 12);
    assert_eq!(seen, (4..12).map(|index| (index, expected(index))).collect::<Vec<_>>());
    for index in 0..16 {
        let gone = (4..12).contains(&index) && index % 2 == 0;
        assert_eq!(cpu.read(slot(index), Order::Plain).desc.0, if gone { 0 } else { expected(index) }, "{index}");
    }
}

/// Whatever it held in words before.
#[test]
fn a_frame_that_is_filled_reads_as_its_new_template() {
    let m = machine();
    let cpu = m.cpu(0);
    let f = cpu.alloc(request(FrameKind::Vmemmap, 0)).unwrap();
    let tail = Template::tail_of(Va(0xffff_fc00_0000_0040));
    for template in [Template::ZERO, Template::POISON, Template::FREE, tail, Template::ZERO] {
        for index in 0..16 {
            cpu.store_frame(f, index, 7);
        }
        assert!(m.is_materialised(f.pa));
        cpu.fill_frame(f, template);
        for index in 0..16 {
            assert_eq!(cpu.load_frame(f, index), template.word((index & 7) as u8), "{template:?}, word {index}");
        }
    }
}

/// RAM may begin and end inside a chunk of the allocator.
#[test]
fn no_frame_outside_ram_is_given_out() {
    for (before, after) in [(0, 5), (3, 0), (7, 100), (511, 1)] {
        let (start, bytes) = (0x4000_0000 + before * 0x1000, (3 << 20) + after * 0x1000);
        let ram = vec![RamRange { start: Pa(start), bytes, boot: true }];
        let m = Machine::new(&MachineConfig { ram, ..config() }).unwrap();
        let cpu = m.cpu(0);
        let mut given = 0;
        while let Some(frame) = cpu.alloc(request(FrameKind::Vmemmap, 0)) {
            assert!((start..start + bytes).contains(&frame.pa.0), "{:?}", frame.pa);
            given += 1;
        }
        // All but the root table.
        assert_eq!(given + 1, bytes >> 12, "{before}, {after}");
        for outside in [start.wrapping_sub(0x1000), start + bytes] {
            assert_eq!(m.frame_info(Pa(outside)), None);
        }
    }
}

#[test]
fn entries_written_at_once_are_each_the_callers() {
    let m = machine();
    let cpu = m.cpu(0);
    let table = cpu.alloc(request(FrameKind::Table, 0)).unwrap();
    let slot = |index| Slot { table: table.pa, index, level: Level::PTE, tok: () };
    let entry = |index: u16| Desc(0x4000_0003 + (u64::from(index) << 12));
    cpu.write_each(slot(3), 9, &[], entry);
    for index in 0..16 {
        let expected = if (3..12).contains(&index) { entry(index) } else { Desc::NONE };
        assert_eq!(cpu.read(slot(index), Order::Plain).desc, expected, "{index}");
    }
}
