#![cfg(not(loom))]
//! The checked machine: what it must report, and that it accuses nobody who did nothing.

use vmemmap_arch::{
    Alloc, Cpu, Desc, Entry, Frame, FrameKind, FrameList, Geometry, Granule, Invariant, Level, LockId, Mode, Order, Pa,
    Rmw, Slot, Template, Va, Var, Zone, descriptor::prot,
};
use vmemmap_machine::{Checked, Machine, MachineConfig, RamRange};

const VA: Va = Va(0xffff_fc00_0000_0000);

fn machine() -> Machine {
    Machine::new(&MachineConfig {
        geometry: Geometry::new(Granule::K4, 48).unwrap(),
        ram: vec![RamRange { start: Pa(0x4000_0000), bytes: 64 << 20, boot: true }],
        cpus: 4,
        vars: 64,
        root: None,
        seed: 1,
    })
    .unwrap()
}
fn request(kind: FrameKind, order: u8) -> Alloc {
    Alloc { order, kind, zone: Zone::Normal, at: None, may_sleep: true, top_down: false }
}
fn page(cpu: &Checked<'_>) -> Frame<u32> {
    cpu.alloc(request(FrameKind::Vmemmap, 0)).unwrap()
}
fn next(cpu: &Checked<'_>, table: Frame<u32>, level: Level, va: Va) -> (Slot<u32>, Entry<u32>) {
    let at = Slot { table: table.pa, index: cpu.geometry().index(va, level), level, tok: table.tok };
    (at, cpu.read(at, Order::Plain))
}
/// The slots on the way to `va`, tables made where there are none.
fn slots(cpu: &Checked<'_>, va: Va) -> Vec<Slot<u32>> {
    let g = *cpu.geometry();
    let (mut table, mut level) = (cpu.root(), g.top());
    let mut path = Vec::new();
    loop {
        let (at, entry) = next(cpu, table, level, va);
        path.push(at);
        if level == Level::PTE {
            return path;
        }
        table = if entry.desc.is_none() {
            let new = cpu.alloc(request(FrameKind::Table, 0)).unwrap();
            cpu.write(at, g.descriptor(new.pa, prot::TABLE), Order::Plain);
            new
        } else {
            cpu.frame_of(entry, g.output(entry.desc))
        };
        level = level.next();
    }
}
fn map(cpu: &Checked<'_>, va: Va, pa: Pa, attributes: u64) -> Slot<u32> {
    let at = *slots(cpu, va).last().unwrap();
    cpu.write(at, cpu.geometry().descriptor(pa, attributes), Order::Plain);
    at
}
fn only(m: &Machine, invariant: Invariant) -> vmemmap_machine::Violation {
    let v = m.take_violations();
    assert_eq!(v.iter().map(|v| v.invariant).collect::<Vec<_>>(), [invariant], "{v:?}");
    v[0].clone()
}

#[test]
fn a_walk_that_holds_a_freed_table_is_i1_with_both_histories() {
    let m = machine();
    m.set_actor(0, "walker");
    m.set_actor(1, "hot remove");
    let (walker, remover) = (m.checked_cpu(0), m.checked_cpu(1));
    remover.label("populate");
    let path = slots(&remover, VA);
    let (pmd, pte) = (path[2], path[3]);
    let entry = walker.read(pmd, Order::Plain);
    let held = walker.frame_of(entry, walker.geometry().output(entry.desc));
    remover.label("free_empty_pte_table");
    remover.write(pmd, Desc::NONE, Order::Plain);
    remover.free(held, 0, FrameKind::Table);
    assert_eq!(m.violation_count(), 0);
    walker.label("ptdump_walk");
    assert_eq!(walker.read(pte, Order::Plain).desc, Desc::NONE);
    let v = only(&m, Invariant::NoWalkOfFreedTable);
    assert_eq!((v.actor.name.as_str(), v.actor.label, v.address), ("walker", "ptdump_walk", held.pa.0));
    let (freed, held) = (v.evidence.freed.unwrap(), v.evidence.held.unwrap());
    assert_eq!((freed.actor.as_str(), freed.label, held.label), ("hot remove", "free_empty_pte_table", "populate"));
    assert!(held.step < freed.step && freed.step < v.step);
}

#[test]
fn reuse_of_the_frame_as_a_table_does_not_hide_the_use_after_free() {
    let m = machine();
    let cpu = m.checked_cpu(0);
    let path = slots(&cpu, VA);
    let (pmd, pte) = (path[2], path[3]);
    let entry = cpu.read(pmd, Order::Plain);
    cpu.write(pmd, Desc::NONE, Order::Plain);
    cpu.free(cpu.frame_of(entry, pte.table), 0, FrameKind::Table);
    let again = cpu.alloc(request(FrameKind::Table, 0)).unwrap();
    assert_eq!(again.pa, pte.table, "the lowest free frame is the one just freed");
    cpu.write(pte, Desc(3), Order::Plain);
    only(&m, Invariant::NoWalkOfFreedTable);
    assert_eq!(m.frame_word(again.pa, pte.index), Some(0), "the refused store stored nothing");
    // An entry that named the old table must not name the new one, though the address is the same.
    cpu.write(pmd, cpu.geometry().descriptor(again.pa, prot::TABLE), Order::Plain);
    let fresh = cpu.read(pmd, Order::Plain);
    assert_eq!(cpu.frame_of(fresh, again.pa), again);
    assert_ne!(entry.tok, fresh.tok);
    assert_eq!(m.violation_count(), 0);
}

#[test]
fn a_hole_is_i2_only() {
    let m = machine();
    let cpu = m.checked_cpu(0);
    let at = map(&cpu, VA, page(&cpu).pa, prot::PAGE_KERNEL);
    cpu.load(VA, Order::Plain);
    assert_eq!(m.violation_count(), 0);
    cpu.swap(at, Desc::NONE, Order::Relaxed);
    assert_eq!(m.violation_count(), 0, "judged at the access, not at the clear");
    assert_eq!(cpu.load(VA.plus(8), Order::Plain), 0);
    assert_eq!(only(&m, Invariant::AlwaysTranslates).address, VA.0 + 8);
}

#[test]
fn access_to_a_freed_or_reused_leaf_frame_is_i3() {
    let m = machine();
    let cpu = m.checked_cpu(0);
    let f = page(&cpu);
    let at = map(&cpu, VA, f.pa, prot::PAGE_KERNEL);
    cpu.free(f, 0, FrameKind::Vmemmap);
    assert_eq!(m.violation_count(), 0);
    cpu.store(VA, 1, Order::Plain);
    assert_eq!(only(&m, Invariant::NoUseOfFreedFrame).evidence.freed.unwrap().cpu, 0);
    let again = page(&cpu);
    assert_eq!(again.pa, f.pa);
    cpu.load(VA, Order::Plain);
    only(&m, Invariant::NoUseOfFreedFrame);
    cpu.free(again, 0, FrameKind::Vmemmap);
    let huge = cpu.alloc(Alloc { at: Some(f.pa.align_down(1 << 14)), ..request(FrameKind::Huge, 0) });
    assert!(huge.is_none() || huge.unwrap().pa != f.pa);
    cpu.load(VA, Order::Plain);
    only(&m, Invariant::NoUseOfFreedFrame);
    let g = *cpu.geometry();
    let new = page(&cpu);
    cpu.write(at, g.descriptor(new.pa, prot::PAGE_KERNEL), Order::Plain);
    cpu.store(VA, 1, Order::Plain);
    cpu.store_frame(f, 0, 1);
    if new.pa != f.pa {
        only(&m, Invariant::NoUseOfFreedFrame);
    }
}

#[test]
fn a_frame_that_became_the_inside_of_a_hugepage_is_still_freed() {
    let m = machine();
    let cpu = m.checked_cpu(0);
    let at = Pa(0x4100_3000);
    let f = cpu.alloc(Alloc { at: Some(at), ..request(FrameKind::Vmemmap, 0) }).unwrap();
    map(&cpu, VA, f.pa, prot::PAGE_KERNEL);
    cpu.free(f, 0, FrameKind::Vmemmap);
    cpu.alloc(Alloc { at: Some(Pa(0x4100_0000)), ..request(FrameKind::Huge, 9) }).unwrap();
    cpu.store(VA, 1, Order::Plain);
    only(&m, Invariant::NoUseOfFreedFrame);
}

#[test]
fn hardware_that_walks_a_freed_table_is_i5() {
    let m = machine();
    let cpu = m.checked_cpu(0);
    let pte = map(&cpu, VA, page(&cpu).pa, prot::PAGE_KERNEL);
    cpu.write(pte, Desc::NONE, Order::Plain);
    cpu.free(Frame { pa: pte.table, tok: pte.tok }, 0, FrameKind::Table);
    cpu.load(VA, Order::Plain);
    only(&m, Invariant::NoStaleWalkCache);
}

#[test]
fn a_linked_table_freed_with_entries_is_i6_and_an_unpublished_one_is_not() {
    let m = machine();
    let cpu = m.checked_cpu(0);
    let path = slots(&cpu, VA);
    cpu.write(path[3], Desc(0x4000_0000 | prot::PAGE_KERNEL), Order::Plain);
    cpu.write(path[2], Desc::NONE, Order::Plain);
    cpu.free(Frame { pa: path[3].table, tok: path[3].tok }, 0, FrameKind::Table);
    only(&m, Invariant::FreedTableIsEmpty);
    let loser = cpu.alloc(request(FrameKind::Table, 0)).unwrap();
    let at = Slot { table: loser.pa, index: 5, level: Level::PTE, tok: loser.tok };
    cpu.write(at, Desc(0x4000_0000 | prot::PAGE_KERNEL), Order::Plain);
    cpu.free(loser, 0, FrameKind::Table);
    assert_eq!(m.violation_count(), 0);
}

#[test]
fn a_store_through_a_read_only_leaf_is_i8_and_a_failed_compare_too() {
    let m = machine();
    let cpu = m.checked_cpu(0);
    map(&cpu, VA, page(&cpu).pa, prot::PAGE_KERNEL_RO);
    assert_eq!(cpu.load(VA, Order::Plain), 0);
    assert_eq!(m.violation_count(), 0);
    cpu.store(VA, 1, Order::Plain);
    only(&m, Invariant::SharedTailsReadOnly);
    cpu.rmw(VA, Rmw::CompareExchange { old: 9, new: 1 }, Order::AcqRel);
    only(&m, Invariant::SharedTailsReadOnly);
    cpu.fill(VA, Template::FREE);
    only(&m, Invariant::SharedTailsReadOnly);
}

#[test]
fn a_double_free_is_i13_even_when_the_frame_was_given_out_again() {
    let m = machine();
    let cpu = m.checked_cpu(0);
    let f = page(&cpu);
    cpu.free(f, 0, FrameKind::Vmemmap);
    cpu.free(f, 0, FrameKind::Vmemmap);
    only(&m, Invariant::FramesConserved);
    let again = page(&cpu);
    assert_eq!(again.pa, f.pa);
    cpu.free(f, 0, FrameKind::Vmemmap);
    only(&m, Invariant::FramesConserved);
    cpu.free(again, 1, FrameKind::Vmemmap);
    only(&m, Invariant::FramesConserved);
    cpu.free(again, 0, FrameKind::Vmemmap);
    assert_eq!(m.violation_count(), 0);
}

#[test]
fn self_hosted_storage_that_is_freed_is_i16() {
    let m = machine();
    let cpu = m.checked_cpu(0);
    let f = cpu.claim_self_hosted(Pa(0x4200_0000), 4);
    cpu.free(f, 0, FrameKind::Vmemmap);
    only(&m, Invariant::SelfHostedUntouched);
}

/// Frames of a block that were allocated before, one more often than the others, have nothing to do with the storage
/// that they are now.
#[test]
fn self_hosted_storage_may_be_of_frames_with_a_past() {
    let m = machine();
    let cpu = m.checked_cpu(0);
    let start = Pa(0x4200_0000);
    let at = |pa, order| Alloc { at: Some(pa), ..request(FrameKind::Data, order) };
    for (pa, order) in [(start, 9), (start.plus(0x5000), 0), (start.plus(0x5000), 0), (start.plus(0x9000), 0)] {
        let f = cpu.alloc(at(pa, order)).unwrap();
        cpu.free(f, order, FrameKind::Data);
    }
    cpu.claim_self_hosted(start, 512);
    let pmd = slots(&cpu, VA)[2];
    cpu.write(pmd, Desc::NONE, Order::Plain);
    cpu.write(pmd, cpu.geometry().descriptor(start, prot::PROT_SECT_NORMAL_6_12), Order::Plain);
    for page in 0..512 {
        let va = VA.plus(page << 12);
        cpu.store(va, page, Order::Plain);
        assert_eq!(cpu.load(va, Order::Plain), page);
    }
    assert_eq!(m.violation_count(), 0);
}

#[test]
fn overlapping_holders_of_an_exclusive_right_are_i17() {
    let m = machine();
    m.set_actor(0, "adder");
    let (a, b) = (m.checked_cpu(0), m.checked_cpu(1));
    a.exclusive(Invariant::HotplugExclusive, true);
    a.exclusive(Invariant::HotplugExclusive, false);
    b.exclusive(Invariant::HotplugExclusive, true);
    assert_eq!(m.violation_count(), 0);
    a.exclusive(Invariant::HotplugExclusive, true);
    assert_eq!(only(&m, Invariant::HotplugExclusive).actor.name, "adder");
}

#[test]
fn a_table_that_changes_under_a_promise_of_stability_is_i18() {
    let m = machine();
    let (dumper, other) = (m.checked_cpu(0), m.checked_cpu(1));
    let at = map(&other, VA, page(&other).pa, prot::PAGE_KERNEL);
    dumper.expect_stable(true);
    dumper.write(at, Desc::NONE, Order::Plain);
    assert_eq!(m.violation_count(), 0, "the promise is about the others");
    other.write(at, Desc(0x4000_0000 | prot::PAGE_KERNEL), Order::Plain);
    only(&m, Invariant::StableDump);
    dumper.expect_stable(false);
    other.write(at, Desc::NONE, Order::Plain);
    assert_eq!(m.violation_count(), 0);
}

#[test]
fn sleeping_under_a_spinlock_and_a_cycle_in_the_lock_order_are_i25() {
    let m = machine();
    let cpu = m.checked_cpu(0);
    cpu.acquire(LockId::Hugetlb, Mode::Write);
    cpu.alloc(Alloc { may_sleep: false, ..request(FrameKind::Data, 0) });
    assert_eq!(m.violation_count(), 0);
    cpu.alloc(request(FrameKind::Data, 0));
    assert!(only(&m, Invariant::LockOrder).message.contains("hugetlb_lock"));
    cpu.synchronize_rcu();
    only(&m, Invariant::LockOrder);
    cpu.acquire(LockId::MemHotplug, Mode::Read);
    only(&m, Invariant::LockOrder);
    cpu.release(LockId::MemHotplug, Mode::Read);
    cpu.release(LockId::Hugetlb, Mode::Write);

    let in_order = [LockId::DeviceHotplug, LockId::MemHotplug, LockId::InitMmMmap];
    in_order.iter().for_each(|&l| cpu.acquire(l, Mode::Write));
    in_order.iter().rev().for_each(|&l| cpu.release(l, Mode::Write));
    assert_eq!(m.violation_count(), 0);
    cpu.acquire(LockId::InitMmMmap, Mode::Write);
    cpu.acquire(LockId::DeviceHotplug, Mode::Write);
    assert!(only(&m, Invariant::LockOrder).message.contains("device_hotplug_lock"));
    cpu.acquire(LockId::DeviceHotplug, Mode::Write);
    only(&m, Invariant::LockOrder);
}

#[test]
fn a_list_keeps_the_generations_of_its_frames() {
    let m = machine();
    let cpu = m.checked_cpu(0);
    let mut list = FrameList::new();
    let frames: Vec<_> = (0..3).map(|_| page(&cpu)).collect();
    frames.iter().for_each(|&f| cpu.list_push(&mut list, f));
    cpu.free(frames[1], 0, FrameKind::Vmemmap);
    for _ in 0..3 {
        let f = cpu.list_pop(&mut list).unwrap();
        cpu.free(f, 0, FrameKind::Vmemmap);
    }
    only(&m, Invariant::FramesConserved);
}

#[test]
fn what_unchecked_cpus_stored_is_not_held_against_anybody() {
    let m = machine();
    let f = {
        let cpu = m.checked_cpu(0);
        let f = page(&cpu);
        map(&cpu, VA, f.pa, prot::PAGE_KERNEL);
        f
    };
    {
        // The same frame freed, taken again and mapped by the same word.
        let cpu = m.cpu(0);
        let plain = Frame { pa: f.pa, tok: () };
        cpu.free(plain, 0, FrameKind::Vmemmap);
        assert_eq!(cpu.alloc(request(FrameKind::Vmemmap, 0)), Some(plain));
    }
    m.checked_cpu(0).store(VA, 1, Order::Plain);
    assert_eq!(m.violations(), []);
}

#[test]
fn correct_threads_are_accused_of_nothing() {
    for seed in 1..=3u64 {
        let m = machine();
        let boot = m.checked_cpu(0);
        // CPUs 0 and 1 remap their own window by exchange, free what was there, and use it; 2 tears down and rebuilds a
        // table of its own under the hotplug lock; 3 walks everything under the same lock, and reads through addresses.
        let window = |c: u64| VA.plus(c << 21);
        for c in 0..3 {
            for i in 0..8 {
                map(&boot, window(c).plus(i << 12), page(&boot).pa, prot::PAGE_KERNEL);
            }
        }
        let before = m.frames_free();
        std::thread::scope(|s| {
            for c in 0..4u64 {
                let m = &m;
                s.spawn(move || run(&m.checked_cpu(c as u8), c, seed, window(c), VA));
            }
        });
        assert_eq!(m.violations(), [], "seed {seed}");
        assert_eq!(m.frames_free(), before, "seed {seed}");
    }
}

fn run(cpu: &Checked<'_>, c: u64, seed: u64, mine: Va, all: Va) {
    let g = *cpu.geometry();
    let mut x = (seed << 8) | c;
    for round in 0..400u64 {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let va = mine.plus(((x >> 40) % 8) << 12);
        match c {
            0 | 1 => {
                let at = *slots(cpu, va).last().unwrap();
                cpu.store(va, round, Order::Release);
                assert_eq!(cpu.load(va, Order::Acquire), round, "seed {seed}");
                let new = page(cpu);
                let old = cpu.swap(at, g.descriptor(new.pa, prot::PAGE_KERNEL), Order::AcqRel);
                cpu.free(cpu.frame_of(old, g.output(old.desc)), 0, FrameKind::Vmemmap);
                cpu.var_rmw(Var(c as u32), Rmw::FetchAdd(1), Order::Relaxed);
            }
            2 => {
                cpu.acquire(LockId::MemHotplug, Mode::Write);
                cpu.exclusive(Invariant::HotplugExclusive, true);
                let path = slots(cpu, mine);
                for i in 0..8 {
                    let at = Slot { index: i, ..path[3] };
                    let old = cpu.swap(at, Desc::NONE, Order::Relaxed);
                    cpu.free(cpu.frame_of(old, g.output(old.desc)), 0, FrameKind::Vmemmap);
                }
                let table = cpu.swap(path[2], Desc::NONE, Order::Relaxed);
                cpu.free(cpu.frame_of(table, path[3].table), 0, FrameKind::Table);
                for i in 0..8u64 {
                    map(cpu, mine.plus(i << 12), page(cpu).pa, prot::PAGE_KERNEL);
                }
                cpu.exclusive(Invariant::HotplugExclusive, false);
                cpu.release(LockId::MemHotplug, Mode::Write);
            }
            _ => {
                cpu.acquire(LockId::MemHotplug, Mode::Read);
                for w in 0..3u64 {
                    slots(cpu, all.plus(w << 21));
                    for i in 0..8u64 {
                        cpu.load(all.plus((w << 21) + (i << 12)), Order::Plain);
                    }
                }
                cpu.release(LockId::MemHotplug, Mode::Read);
            }
        }
    }
}

#[test]
fn unlocked_threads_are_caught() {
    let m = machine();
    let boot = m.checked_cpu(0);
    map(&boot, VA, page(&boot).pa, prot::PAGE_KERNEL);
    drop(boot);
    std::thread::scope(|s| {
        s.spawn(|| {
            let cpu = m.checked_cpu(0);
            for _ in 0..20_000 {
                if m.violation_count() != 0 {
                    break;
                }
                let path = slots(&cpu, VA);
                let old = cpu.swap(path[3], Desc::NONE, Order::Relaxed);
                if old.desc.is_valid() {
                    cpu.free(cpu.frame_of(old, cpu.geometry().output(old.desc)), 0, FrameKind::Vmemmap);
                }
                map(&cpu, VA, page(&cpu).pa, prot::PAGE_KERNEL);
            }
        });
        s.spawn(|| {
            let cpu = m.checked_cpu(1);
            for _ in 0..1_000_000 {
                if m.violation_count() != 0 {
                    break;
                }
                cpu.load(VA, Order::Plain);
            }
        });
    });
    assert!(m.violations().iter().all(|v| v.invariant == Invariant::AlwaysTranslates), "{:?}", m.violations());
}

#[test]
fn a_store_under_a_stable_walk_is_i18_unless_it_is_vmallocs() {
    let m = machine();
    let vmalloc = VA.plus(1 << 30);
    m.set_unstable(vmalloc..vmalloc.plus(1 << 30));
    let (dump, other) = (m.checked_cpu(0), m.checked_cpu(1));
    let (theirs, ours) = (*slots(&other, vmalloc).last().unwrap(), *slots(&other, VA).last().unwrap());
    let leaf = |cpu: &Checked<'_>| cpu.geometry().descriptor(page(cpu).pa, prot::PAGE_KERNEL);
    dump.expect_stable(true);
    other.write(theirs, leaf(&other), Order::Plain);
    slots(&other, vmalloc.plus(2 << 20));
    dump.write(ours, leaf(&dump), Order::Plain);
    assert_eq!(m.violations(), [], "vmalloc's own, and the walker's own");
    other.write(ours, Desc::NONE, Order::Plain);
    only(&m, Invariant::StableDump);
    dump.expect_stable(false);
    other.write(ours, leaf(&other), Order::Plain);
    assert_eq!(m.violations(), []);
}

#[test]
fn the_parts_of_a_split_hugepage_are_freed_one_by_one() {
    let m = machine();
    let cpu = m.checked_cpu(0);
    let large = cpu.alloc(request(FrameKind::Huge, 13)).unwrap();
    let free = m.frames_free();
    cpu.split_run(Frame { tok: 0, ..large }, 13, 9);
    for part in 0..16 {
        cpu.free(Frame { pa: large.pa.plus(part << 21), tok: 0 }, 9, FrameKind::Huge);
    }
    assert_eq!((m.violations(), m.frames_free()), (vec![], free + (1 << 13)));
}
