//! Tables built and taken down.

use std::sync::atomic::{AtomicBool, Ordering};

use vmemmap_arch::{Pa, Zone};
use vmemmap_kernel::mmu::vmemmap_populate;
use vmemmap_kernel::policy::Mapping;
use vmemmap_kernel::sparse_vmemmap::Storage;
use vmemmap_kernel::{Errno, Kernel, Operation, Policies, Ram};
use vmemmap_machine::native::arena::Arena;

use crate::rounds::{Rounds, timed};
use crate::setup::{self, DRAM};
use crate::threads::scaled;
use crate::{BenchError, Effort, Figure, Stop};
use vmemmap_lab::live::LiveMachine;

/// Writes all words of fresh memory, one store each.
fn write_fresh(words: u64) -> Result<f64, BenchError> {
    let fresh = Arena::new(words)?;
    Ok(timed(|| {
        for (value, word) in (1..).zip(fresh.words()) {
            word.store(value, Ordering::Relaxed);
        }
    }))
}

/// `populate`.
pub fn populate(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let sections = effort.amount(1024, 16);
    let policies = Policies { mapping: Mapping::BasePages, ..Policies::default() };
    let pages = sections * 512;
    let memory = (pages << 12).next_power_of_two().max(64 << 20) * 2;
    let value = || {
        let (k, machine) = setup::machine(policies, memory)?;
        let cpu = machine.cpu(0);
        let (start, bytes) = (setup::start(&k), k.geometry.section_vmemmap());
        let mut done = Ok(());
        let seconds = timed(|| {
            done = (0..sections).try_for_each(|n| {
                vmemmap_populate(&k, &cpu, start.plus(n * bytes), start.plus((n + 1) * bytes), &mut Storage::Buddy)
            });
        });
        done?;
        setup::sound(&machine)?;
        Ok(seconds)
    };
    let rounds = Rounds::of(effort.rounds(11), stop, value, || write_fresh(pages))?;
    Ok(rounds.seconds(format!(
        "vmemmap_populate of {sections} sections of 128M with base pages on a fresh machine, {pages} frames allocated; \
         limit: fault in and write the {} KiB of their tables",
        pages * 8 / 1024
    )))
}

/// `populate-2t`: each thread on its own machine, as the kernel populates under one lock.
pub fn two_threads(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let sections = effort.amount(256, 16);
    let policies = Policies { mapping: Mapping::BasePages, ..Policies::default() };
    let pages = sections * 512;
    let memory = (pages << 12).next_power_of_two().max(64 << 20) * 2;
    let failed = AtomicBool::new(false);
    let machine_of = |_| {
        let made = setup::machine(policies, memory).ok();
        let failed = &failed;
        move || {
            let populated = made.as_ref().is_some_and(|(k, machine)| {
                let (cpu, start, bytes) = (machine.cpu(0), setup::start(k), k.geometry.section_vmemmap());
                (0..sections).all(|n| {
                    let (start, end) = (start.plus(n * bytes), start.plus((n + 1) * bytes));
                    vmemmap_populate(k, &cpu, start, end, &mut Storage::Buddy).is_ok()
                })
            });
            failed.fetch_or(!populated, Ordering::Relaxed);
        }
    };
    let bare_of = |_| {
        let fresh = Arena::new(pages);
        move || {
            for (value, word) in (1..).zip(fresh.iter().flat_map(Arena::words)) {
                word.store(value, Ordering::Relaxed);
            }
        }
    };
    let what = "sections populated with base pages by two threads, each on its own fresh machine";
    let figure = scaled(effort.rounds(15), stop, sections as f64, "sections/s", what, machine_of, bare_of)?;
    if failed.into_inner() { Err(BenchError::Work("a section was not populated".to_owned())) } else { Ok(figure) }
}

/// `hotplug-section`.
pub fn hotplug_section(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let k = kernel()?;
    let live = LiveMachine::boot(k, false)?;
    let whole = || cycle(&live);
    let writes = |live: &LiveMachine| live.machine().counters().writes;
    let before = writes(&live);
    whole()?;
    let stores = writes(&live) - before;
    let arena = Arena::new(stores)?;
    let value = || {
        let mut done = Ok(());
        let seconds = timed(|| done = whole());
        done?;
        Ok(seconds)
    };
    let limit = || {
        Ok(timed(|| {
            for (value, word) in (1..).zip(arena.words()) {
                word.store(value, Ordering::Relaxed);
            }
        }))
    };
    let rounds = Rounds::of(effort.rounds(41), stop, value, limit)?;
    setup::sound(live.machine())?;
    Ok(rounds.seconds(format!(
        "a section of 128M added, onlined, offlined and removed (linear map in base pages); limit: {stores} bare \
            stores, as many as it makes"
    )))
}

/// One section added, onlined, offlined and removed.
fn cycle(live: &LiveMachine) -> Result<(), Errno> {
    let (start, bytes) = (Pa(DRAM + (64 << 30)), live.kernel().geometry.section_size());
    let operations = [
        Operation::MemoryAdd { start, bytes, memmap_on_memory: false },
        Operation::MemoryOnline { start, bytes, zone: Zone::Movable },
        Operation::MemoryOffline { start, bytes },
        Operation::MemoryRemove { start, bytes },
    ];
    operations.iter().try_for_each(|operation| live.run(operation).map(drop))
}

/// `hotplug-section-2t`: each thread on its own machine, as `mem_hotplug_lock` is one.
pub fn hotplug_two_threads(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let machines = [LiveMachine::boot(kernel()?, false)?, LiveMachine::boot(kernel()?, false)?];
    let sections = effort.amount(20, 1);
    machines.iter().try_for_each(cycle)?;
    let arenas = [Arena::new(1 << 16)?, Arena::new(1 << 16)?];
    let failed = AtomicBool::new(false);
    let machine_of = |number: usize| {
        let (live, failed) = (&machines[number], &failed);
        move || {
            let done = (0..sections).try_for_each(|_| cycle(live));
            failed.fetch_or(done.is_err(), Ordering::Relaxed);
        }
    };
    let bare_of = |number: usize| {
        let words = arenas[number].words();
        move || {
            for _ in 0..sections * 8 {
                for (value, word) in (1..).zip(words) {
                    word.store(value, Ordering::Relaxed);
                }
            }
        }
    };
    let what = "sections added, onlined, offlined and removed by two threads, each on its own machine";
    let figure = scaled(effort.rounds(21), stop, sections as f64, "sections/s", what, machine_of, bare_of)?;
    if failed.into_inner() { Err(BenchError::Work("a section did not come or go".to_owned())) } else { Ok(figure) }
}

/// Boot memory, and one section's place a whole PMD table's window beyond it.
fn kernel() -> Result<Kernel, BenchError> {
    let (k, _) = setup::machine(Policies::default(), 256 << 20)?;
    let ram = [
        Ram { start: Pa(DRAM), bytes: 256 << 20, boot: true },
        Ram { start: Pa(DRAM + (64 << 30)), bytes: k.geometry.section_size(), boot: false },
    ];
    Ok(Kernel::new(k.layout, Policies::default(), &ram, true))
}
