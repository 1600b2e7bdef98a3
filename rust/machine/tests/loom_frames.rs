#![cfg(loom)]
//! The allocator core under every interleaving that loom finds with three preemptions (one in the longest test):
//! `RUSTFLAGS="--cfg loom" cargo test --release -p vmemmap-machine --test loom_frames`.

use std::sync::atomic::{AtomicUsize, Ordering};

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;
use vmemmap_arch::Zone;
use vmemmap_machine::native::frames::{Frames, Span};
use vmemmap_machine::native::pins::Pins;
use vmemmap_machine::native::running::Running;

/// Runs `test` under each interleaving; one that has no choice to make tests nothing.
fn model(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
    static EXECUTIONS: [AtomicUsize; 16] = [const { AtomicUsize::new(0) }; 16];
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let executions = &EXECUTIONS[NEXT.fetch_add(1, Ordering::Relaxed)];
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        executions.fetch_add(1, Ordering::Relaxed);
        test();
    });
    let executions = executions.load(Ordering::Relaxed);
    assert!(executions > 4, "{executions} executions");
}

/// One chunk of which only the first `free` frames are the allocator's.
fn small(free: u64) -> Arc<Frames> {
    Arc::new(Frames::new(512, &[Span { first: 0, end: free, boot: true }], 2).unwrap())
}

#[test]
fn two_threads_never_get_the_same_frame() {
    model(3, || {
        let frames = small(2);
        let other = {
            let frames = frames.clone();
            thread::spawn(move || frames.alloc(0, Zone::Normal, None, false))
        };
        let mine = frames.alloc(0, Zone::Normal, None, false);
        let theirs = other.join().unwrap();
        let mut both = [mine.unwrap(), theirs.unwrap()];
        both.sort_unstable();
        assert_eq!(both, [0, 1]);
        assert_eq!(frames.alloc(0, Zone::Normal, None, false), None);
    });
}

#[test]
fn a_frame_freed_beside_a_failing_search_is_found_afterwards() {
    model(3, || {
        let frames = small(1);
        assert_eq!(frames.alloc(0, Zone::Normal, None, false), Some(0));
        let other = {
            let frames = frames.clone();
            thread::spawn(move || frames.free(0, 0))
        };
        let raced = frames.alloc(0, Zone::Normal, None, false);
        other.join().unwrap();
        if raced.is_none() {
            assert_eq!(frames.alloc(0, Zone::Normal, None, false), Some(0));
        }
    });
}

#[test]
fn a_whole_chunk_and_a_single_frame_exclude_each_other() {
    model(3, || {
        let frames = Arc::new(Frames::new(512, &[Span { first: 0, end: 512, boot: true }], 2).unwrap());
        let other = {
            let frames = frames.clone();
            thread::spawn(move || frames.alloc(9, Zone::Normal, Some(0), false))
        };
        let single = frames.alloc(0, Zone::Normal, Some(7), false);
        let whole = other.join().unwrap();
        assert!(single.is_some() != whole.is_some());
    });
}

#[test]
fn an_isolated_chunk_gives_nothing_out_after_it_has_settled() {
    model(3, || {
        let frames = small(2);
        let other = {
            let frames = frames.clone();
            thread::spawn(move || frames.alloc(0, Zone::Normal, None, false))
        };
        frames.isolate(0, true);
        frames.settle(0..1);
        let seen = frames.is_used(0);
        let got = other.join().unwrap();
        assert_eq!(got.is_some(), seen);
    });
}

#[test]
fn settling_beside_a_free_in_another_word_still_waits() {
    model(2, || {
        let frames = small(128);
        assert_eq!(frames.alloc(0, Zone::Normal, Some(0), false), Some(0));
        let alloc = {
            let frames = frames.clone();
            thread::spawn(move || frames.alloc(0, Zone::Normal, Some(64), false))
        };
        let free = {
            let frames = frames.clone();
            thread::spawn(move || frames.free(0, 0))
        };
        frames.isolate(0, true);
        frames.settle(0..1);
        let seen = frames.is_used(64);
        let got = alloc.join().unwrap();
        free.join().unwrap();
        assert_eq!(got.is_some(), seen);
    });
}

#[test]
fn settling_beside_a_run_that_moves_on_still_waits() {
    model(3, || {
        let frames = Arc::new(Frames::new(512, &[Span { first: 0, end: 512, boot: true }], 2).unwrap());
        assert_eq!(frames.alloc(0, Zone::Normal, Some(64), false), Some(64));
        // Sets the first word, meets the frame in the second, clears the first, and takes the third and the fourth.
        let run = {
            let frames = frames.clone();
            thread::spawn(move || frames.alloc(7, Zone::Normal, None, false))
        };
        let alloc = {
            let frames = frames.clone();
            thread::spawn(move || frames.alloc(6, Zone::Normal, Some(320), false))
        };
        frames.isolate(0, true);
        frames.settle(0..1);
        let seen = (frames.is_used(320), frames.is_used(128));
        assert_eq!((alloc.join().unwrap().is_some(), run.join().unwrap().is_some()), seen);
    });
}

#[test]
fn frames_freed_and_taken_again_by_two_threads_keep_one_owner() {
    model(1, || {
        let frames = small(2);
        let cycle = |frames: &Frames| {
            let first = frames.alloc(0, Zone::Normal, None, false).unwrap();
            frames.free(first, 0);
            frames.alloc(0, Zone::Normal, None, true).unwrap()
        };
        let other = {
            let frames = frames.clone();
            thread::spawn(move || cycle(&frames))
        };
        let mine = cycle(&frames);
        let mut both = [mine, other.join().unwrap()];
        both.sort_unstable();
        assert_eq!(both, [0, 1]);
    });
}

#[test]
fn an_isolated_chunk_gives_nothing_out_of_a_magazine() {
    model(2, || {
        let frames = small(3);
        let other = {
            let frames = frames.clone();
            thread::spawn(move || {
                let one = |frames: &Frames| frames.alloc_by(Some(0), 0, Zone::Normal, None, false);
                (one(&frames), one(&frames))
            })
        };
        frames.isolate(0, true);
        frames.settle(0..1);
        let seen = (0..3).filter(|&f| frames.is_used(f)).count();
        let (first, second) = other.join().unwrap();
        assert_eq!(usize::from(first.is_some()) + usize::from(second.is_some()), seen);
        assert_eq!(frames.nr_free(), 3 - seen as u64);
        assert_eq!(frames.chunk(0).used(), 512 - 3 + seen as u64, "nothing is at hand any more");
    });
}

#[test]
fn what_one_cpu_has_at_hand_another_one_gets_before_there_is_no_memory() {
    model(2, || {
        let frames = small(2);
        let other = {
            let frames = frames.clone();
            thread::spawn(move || frames.alloc_by(Some(0), 0, Zone::Normal, None, false).unwrap())
        };
        let mine = frames.alloc_by(Some(1), 0, Zone::Normal, None, false);
        let theirs = other.join().unwrap();
        let mine = mine.or_else(|| frames.alloc_by(Some(1), 0, Zone::Normal, None, false)).unwrap();
        let mut both = [mine, theirs];
        both.sort_unstable();
        assert_eq!(both, [0, 1]);
        assert_eq!(frames.nr_free(), 0);
    });
}

#[test]
fn a_frame_that_is_popped_beside_a_drain_has_one_owner() {
    model(2, || {
        let frames = small(3);
        assert_eq!(frames.alloc_by(Some(0), 0, Zone::Normal, None, false), Some(0));
        let other = {
            let frames = frames.clone();
            thread::spawn(move || frames.alloc_by(Some(0), 0, Zone::Normal, None, false).unwrap())
        };
        frames.drain(0);
        let mine = frames.alloc_by(Some(1), 0, Zone::Normal, None, true).unwrap();
        let theirs = other.join().unwrap();
        assert_ne!(mine, theirs);
        assert_eq!(frames.nr_free(), 0);
    });
}

#[test]
fn frames_that_are_popped_together_beside_a_drain_have_one_owner() {
    model(2, || {
        let frames = small(4);
        assert_eq!(frames.alloc_by(Some(0), 0, Zone::Normal, None, false), Some(0));
        let other = {
            let frames = frames.clone();
            thread::spawn(move || frames.at_hand(0, false, 2).map_or(0, |rest| rest.mask))
        };
        frames.drain(0);
        let mine = frames.alloc_by(Some(1), 0, Zone::Normal, None, true).unwrap();
        let theirs = other.join().unwrap();
        assert!(theirs == 0b110 || theirs == 0, "{theirs:b}: the first two, or none");
        assert_eq!((mine, theirs >> mine & 1), (3, 0));
        assert_eq!(frames.nr_free(), 2 - u64::from(theirs.count_ones()));
    });
}

#[test]
fn frames_that_are_taken_past_the_magazine_have_one_owner() {
    model(2, || {
        let frames = small(3);
        let other = {
            let frames = frames.clone();
            thread::spawn(move || frames.alloc(0, Zone::Normal, None, false))
        };
        let many = frames.alloc_some(0, false, 64).unwrap();
        let theirs = other.join().unwrap();
        let mut left = many.mask;
        if let Some(theirs) = theirs {
            assert_eq!(left >> theirs & 1, 0);
            left |= 1 << theirs;
        }
        assert_eq!(frames.nr_free(), 3 - u64::from(left.count_ones()));
        assert_eq!(frames.chunk(0).used(), 512 - frames.nr_free());
    });
}

#[test]
fn an_isolated_chunk_gives_nothing_out_past_the_magazine() {
    model(2, || {
        let frames = small(3);
        let other = {
            let frames = frames.clone();
            thread::spawn(move || frames.alloc_some(0, false, 64))
        };
        frames.isolate(0, true);
        frames.settle(0..1);
        let seen = (0..3).filter(|&f| frames.is_used(f)).fold(0, |mask, f| mask | 1 << f);
        assert_eq!(other.join().unwrap().map_or(0, |some| some.mask), seen);
        assert_eq!(frames.nr_free(), 3 - u64::from(seen.count_ones()));
    });
}

/// What a checked CPU does beside a free of the table: look at its state behind a pin, then use it.
#[test]
fn a_table_is_not_freed_under_an_access_that_pinned_it() {
    model(3, || {
        let (pins, freed, words) = (Arc::new(Pins::new(2)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(1)));
        let other = {
            let (pins, freed, words) = (pins.clone(), freed.clone(), words.clone());
            thread::spawn(move || {
                pins.pin(1, 7, true);
                let seen = freed.load(Ordering::Acquire);
                if seen == 0 {
                    words.fetch_add(1, Ordering::Relaxed);
                }
                pins.unpin(1);
                seen == 0
            })
        };
        freed.store(1, Ordering::Relaxed);
        pins.wait_for(7);
        let found = words.swap(100, Ordering::Relaxed);
        let stored = other.join().unwrap();
        assert_eq!(found, 1 + u64::from(stored), "a store is before the free, or refused");
        assert_eq!(words.load(Ordering::Relaxed), 100);
    });
}

#[test]
fn a_store_sees_the_promise_or_the_promise_waits_for_the_store() {
    model(3, || {
        let (pins, promised, words) =
            (Arc::new(Pins::new(2)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let other = {
            let (pins, promised, words) = (pins.clone(), promised.clone(), words.clone());
            thread::spawn(move || {
                pins.pin(1, 7, true);
                let seen = promised.load(Ordering::Relaxed);
                words.store(1, Ordering::Relaxed);
                pins.unpin(1);
                seen
            })
        };
        promised.store(1, Ordering::Relaxed);
        pins.wait_for_stores(0);
        let before = words.load(Ordering::Relaxed);
        let seen = other.join().unwrap();
        assert!(seen == 1 || before == 1, "a store after the promise that did not see it");
    });
}

/// Each CPU adds to a word twice, by plain loads and stores where it is told that no other one runs.
#[test]
fn a_change_by_the_only_cpu_is_not_lost() {
    model(3, || {
        let (running, word) = (Arc::new(Running::new(2)), Arc::new(AtomicU64::new(0)));
        let run = |cpu, running: &Running, word: &AtomicU64| {
            let seat = running.begin(cpu);
            for _ in 0..2 {
                let section = seat.section();
                let mut old = word.load(Ordering::Acquire);
                while let Err(found) = section.change().replace(word, old, old + 1) {
                    old = found;
                }
            }
        };
        let other = {
            let (running, word) = (running.clone(), word.clone());
            thread::spawn(move || run(1, &running, &word))
        };
        run(0, &running, &word);
        other.join().unwrap();
        assert_eq!(word.load(Ordering::Relaxed), 4);
    });
}
