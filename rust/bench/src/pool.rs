//! A pool of hugepages filled and emptied: what giving a page back costs beside what it took to make it.

use std::cell::Cell;

use vmemmap_arch::Pa;
use vmemmap_kernel::policy::{Mapping, PteUpdate};
use vmemmap_kernel::{Kernel, Operation, Policies, Ram};
use vmemmap_lab::live::LiveMachine;

use crate::rounds::{Rounds, timed};
use crate::setup::{self, DRAM};
use crate::{BenchError, Effort, Figure, Stop};

/// Bytes of a page of the pool.
const SIZE: u64 = 2 << 20;

/// `pool-free`.
pub fn free(effort: Effort, stop: Stop<'_>) -> Result<Figure, BenchError> {
    let pages = effort.amount(50_000, 64);
    let policies = Policies { mapping: Mapping::BasePages, update: PteUpdate::Swap, ..Policies::default() };
    // Its struct pages too, and some room.
    let bytes = (pages * 17 / 16 + 64) * SIZE;
    let (k, _) = setup::machine(policies, bytes)?;
    let kernel = Kernel::new(k.layout, policies, &[Ram { start: Pa(DRAM), bytes, boot: true }], true);
    let live = LiveMachine::boot(kernel, false)?;
    let hstate = live.hstate_of(SIZE >> k.geometry.page_shift()).unwrap_or_default();
    let resize = |count| {
        let mut reached = Ok(0);
        let seconds = timed(|| reached = live.run(&Operation::NrHugepages { hstate, count }));
        match reached? {
            reached if reached == count => Ok(seconds),
            reached => Err(BenchError::Work(format!("a pool of {count} pages came to {reached}"))),
        }
    };
    // Each round of one side leaves what the other's begins with.
    let filled = Cell::new(0.0);
    let value = || {
        filled.set(resize(pages)?);
        resize(0)
    };
    let rounds = Rounds::of(effort.rounds(15), stop, value, || Ok(filled.get()))?;
    setup::sound(live.machine())?;
    let what = format!("one of {pages} hugepages freed that HVO had optimised (update=swap); limit: one allocated");
    Ok(rounds.nanoseconds(pages, what))
}
