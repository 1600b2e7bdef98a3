#![cfg(loom)]
//! The allocator core under every interleaving that loom finds with three preemptions (one in the longest test):
//! `RUSTFLAGS="--cfg loom" cargo test --release -p vmemmap-machine --test loom_frames`.

use std::sync::atomic::{AtomicUsize, Ordering};

use loom::sync::Arc;
use loom::thread;
use vmemmap_arch::Zone;
use vmemmap_machine::native::frames::{Frames, Span};

/// Runs `test` under each interleaving; one that has no choice to make tests nothing.
fn model(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
    static EXECUTIONS: [AtomicUsize; 7] = [const { AtomicUsize::new(0) }; 7];
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
    Arc::new(Frames::new(512, &[Span { first: 0, end: free, boot: true }]).unwrap())
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
        let frames = Arc::new(Frames::new(512, &[Span { first: 0, end: 512, boot: true }]).unwrap());
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
        frames.settle(0);
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
        frames.settle(0);
        let seen = frames.is_used(64);
        let got = alloc.join().unwrap();
        free.join().unwrap();
        assert_eq!(got.is_some(), seen);
    });
}

#[test]
fn settling_beside_a_run_that_moves_on_still_waits() {
    model(3, || {
        let frames = Arc::new(Frames::new(512, &[Span { first: 0, end: 512, boot: true }]).unwrap());
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
        frames.settle(0);
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
