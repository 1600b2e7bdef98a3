//! Contiguous sets: one live entry may bring back what its neighbours held (races R21).

mod bench;

use bench::{Bench, page, request};
use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Alloc, Attr, Barrier, Cpu, Desc, Frame, FrameKind, Invariant, Order, Pa, Tlbi};
use vmemmap_machine::explored::WorldOptions;
use vmemmap_machine::op::Tok;

const SET: u64 = 16;
const RUN: Pa = Pa((1 << 30) + (4 << 20));

/// Pages 16 to 31 are mapped by one contiguous set; `linear`: they lie in the linear map.
fn bench(linear: bool) -> (Bench, Frame<Tok>) {
    let linear_map = linear.then_some(page(SET)..page(2 * SET));
    let b = Bench::new(WorldOptions { linear_map, ..WorldOptions::default() });
    let run = b.cpu(0).alloc(Alloc { order: 4, at: Some(RUN), ..request(FrameKind::Vmemmap) }).expect("memory");
    b.cpu(0).split_frame(run, 4);
    for i in 0..SET {
        b.cpu(0).write(b.pte(SET + i), entry(&b, i), Order::Plain);
    }
    b.cpu(0).barrier(Barrier::DsbIshst);
    (b, run)
}

fn entry(b: &Bench, i: u64) -> Desc {
    b.g.descriptor(RUN.plus(i << 12), prot::PAGE_KERNEL).with(Attr::CONT)
}

fn clear(b: &Bench, i: u64) {
    b.cpu(0).write(b.pte(SET + i), Desc::NONE, Order::Plain);
}

fn flush(b: &Bench, op: Tlbi) {
    let cpu = b.cpu(0);
    cpu.barrier(Barrier::DsbIshst);
    cpu.tlbi(op);
    cpu.barrier(Barrier::DsbIsh);
}

/// Which of the set's frames a TLB may still lead to.
fn held(b: &Bench, run: Frame<Tok>) -> Vec<u64> {
    let free = |i: &u64| {
        let before = b.world.borrow().violations().len();
        b.cpu(0).free(Frame { pa: run.pa.plus(i << 12), ..run }, 0, FrameKind::Vmemmap);
        b.world.borrow().violations().len() != before
    };
    (0..SET).filter(free).collect()
}

#[test]
fn entry_by_entry_only_the_last_of_a_set_is_finished() {
    let (b, run) = bench(false);
    for i in 0..SET {
        clear(&b, i);
        flush(&b, Tlbi::Vaale1is(page(SET + i)));
    }
    assert_eq!(held(&b, run), (0..SET - 1).collect::<Vec<_>>());
    assert_eq!(b.broken(), [4]);
}

#[test]
fn entries_without_the_bit_are_finished_one_by_one() {
    let (b, run) = bench(false);
    for i in 0..SET {
        b.cpu(0).write(b.pte(SET + i), Desc::NONE, Order::Plain);
    }
    flush(&b, Tlbi::Vmalle1is);
    for i in 0..SET {
        b.cpu(0).write(b.pte(SET + i), entry(&b, i).without(Attr::CONT), Order::Plain);
    }
    b.cpu(0).barrier(Barrier::DsbIshst);
    for i in 0..SET {
        clear(&b, i);
        flush(&b, Tlbi::Vaale1is(page(SET + i)));
    }
    assert_eq!(held(&b, run), []);
}

#[test]
fn a_set_cleared_as_a_whole_is_finished_by_any_invalidate_that_covers_it() {
    let each = |b: &Bench| (0..SET).for_each(|i| flush(b, Tlbi::Vaale1is(page(SET + i))));
    let range = |b: &Bench| flush(b, Tlbi::Rvaale1is(page(SET), SET as u32));
    let all = |b: &Bench| flush(b, Tlbi::Vmalle1is);
    for finish in [&each as &dyn Fn(&Bench), &range, &all] {
        let (b, run) = bench(false);
        (0..SET).for_each(|i| clear(&b, i));
        finish(&b);
        assert_eq!(held(&b, run), []);
    }
}

#[test]
fn even_an_invalidate_of_everything_finishes_nothing_while_one_entry_is_live() {
    let (b, run) = bench(false);
    (0..SET - 1).for_each(|i| clear(&b, i));
    flush(&b, Tlbi::Vmalle1is);
    assert_eq!(held(&b, run).len() as u64, SET, "and the last is mapped");
}

/// Nothing but a DSB orders an own clear before an own invalidate: a walk in between finds the entry. What another CPU
/// cleared was cleared before.
#[test]
fn an_entry_whose_own_clear_is_not_published_counts_as_live() {
    for (by, left) in [(0, SET), (1, 0)] {
        let (b, run) = bench(false);
        (0..SET - 1).for_each(|i| clear(&b, i));
        b.cpu(0).barrier(Barrier::DsbIshst);
        b.cpu(by).write(b.pte(2 * SET - 1), Desc::NONE, Order::Plain);
        b.cpu(0).tlbi(Tlbi::Vmalle1is);
        b.cpu(0).barrier(Barrier::DsbIsh);
        assert_eq!(held(&b, run).len() as u64, left, "cleared by CPU {by}");
    }
}

#[test]
fn an_entry_made_live_before_the_dsb_brings_its_neighbours_back() {
    for again in [false, true] {
        let (b, run) = bench(false);
        let cpu = b.cpu(0);
        (0..SET).for_each(|i| clear(&b, i));
        cpu.barrier(Barrier::DsbIshst);
        cpu.tlbi(Tlbi::Vmalle1is);
        if again {
            cpu.write(b.pte(SET + 3), entry(&b, 3), Order::Plain);
        }
        cpu.barrier(Barrier::DsbIsh);
        if again {
            clear(&b, 3);
            flush(&b, Tlbi::Vaale1is(page(SET + 3)));
        }
        assert_eq!(held(&b, run).len() as u64, if again { SET - 1 } else { 0 });
    }
}

#[test]
fn a_neighbour_that_leads_elsewhere_brings_nothing_back() {
    let (b, run) = bench(false);
    (0..SET).for_each(|i| clear(&b, i));
    flush(&b, Tlbi::Vmalle1is);
    let elsewhere = b.g.descriptor(RUN.plus(SET << 12), prot::PAGE_KERNEL).with(Attr::CONT);
    b.cpu(0).write(b.pte(SET), entry(&b, 0), Order::Plain);
    b.cpu(0).barrier(Barrier::DsbIshst);
    b.cpu(0).write(b.pte(SET + 1), elsewhere, Order::Plain);
    clear(&b, 0);
    flush(&b, Tlbi::Vaale1is(page(SET)));
    assert_eq!(held(&b, run), []);
}

#[test]
fn memory_that_has_left_must_not_be_translated_by_the_linear_map() {
    for (per_entry, strict) in [(true, true), (false, true), (true, false)] {
        let linear_map = Some(page(SET)..page(2 * SET));
        let b = Bench::new(WorldOptions { linear_map, strict, ..WorldOptions::default() });
        for i in 0..SET {
            b.cpu(0).write(b.pte(SET + i), entry(&b, i), Order::Plain);
        }
        b.cpu(0).barrier(Barrier::DsbIshst);
        for i in 0..SET {
            clear(&b, i);
            if per_entry {
                flush(&b, Tlbi::Vaale1is(page(SET + i)));
            }
        }
        if !per_entry {
            flush(&b, Tlbi::Rvaale1is(page(SET), SET as u32));
        }
        b.cpu(0).memory_gone(RUN.plus(SET << 12), SET << 12);
        assert_eq!(b.broken(), [], "memory beside it");
        b.cpu(0).memory_gone(RUN, 1 << 12);
        assert_eq!(b.broke(Invariant::NoStaleTranslation), per_entry && strict);
    }
}

#[test]
fn a_frame_may_be_freed_while_the_linear_map_leads_to_it() {
    let (b, run) = bench(true);
    (0..SET).for_each(|i| clear(&b, i));
    assert_eq!(held(&b, run), []);
}
