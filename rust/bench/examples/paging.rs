//! The crate `aarch64-paging` asked for the same tables: 1 GiB mapped page by page, walked, and 512 blocks split.
//! `cargo run --profile profiling -p vmemmap-bench --example paging`
//!
//! What differs: its tables are memory of the program's own, one allocation each, behind pointers; ours are memory of a
//! modelled machine, reached by physical address behind a bounds check, from an allocator that knows what each frame
//! is. It refuses changes that need break-before-make, and has no locks, TLBs or counters. Its identity map lies at the
//! addresses that it maps, ours is the kernel's linear map. A split there changes one page of the block in the same
//! call; ours is `vmemmap_split_pmd`, with its barriers, a flush counted for each, and the page table lock.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use aarch64_paging::descriptor::El1Attributes;
use aarch64_paging::idmap::IdMap;
use aarch64_paging::paging::{Constraints, El1And0, MemoryRegion};
use vmemmap_arch::Pa;
use vmemmap_bench::{leaves, machine, start};
use vmemmap_kernel::hugetlb_vmemmap::remap::walk_range;
use vmemmap_kernel::hugetlb_vmemmap::walk::{Action, RemapWalk};
use vmemmap_kernel::mmu::{__create_pgd_mapping, vmemmap_populate};
use vmemmap_kernel::policy::Mapping;
use vmemmap_kernel::sparse_vmemmap::Storage;
use vmemmap_kernel::{Errno, Kernel, Policies};
use vmemmap_machine::Machine;

const BYTES: u64 = 1 << 30;
const BLOCK: u64 = 2 << 20;
const PAGE: u64 = 4096;
const ROUNDS: usize = 15;
const BASE: usize = 1 << 30;

const FLAGS: El1Attributes = El1Attributes::VALID
    .union(El1Attributes::ATTRIBUTE_INDEX_1)
    .union(El1Attributes::INNER_SHAREABLE)
    .union(El1Attributes::ACCESSED)
    .union(El1Attributes::UXN);

type Side<'s> = &'s mut dyn FnMut() -> Result<f64, Box<dyn Error>>;

/// The best of both sides, measured in turns, for each of `count`; printed.
#[allow(clippy::print_stdout)]
fn compare(name: &str, count: u64, ours: Side<'_>, theirs: Side<'_>) -> Result<(), Box<dyn Error>> {
    let (mut mine, mut peer) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        mine = mine.min(ours()?);
        peer = peer.min(theirs()?);
    }
    let each = |seconds: f64| seconds * 1e9 / count as f64;
    println!("{name:30} {:8.2} ns {:8.2} ns {:8.3}", each(mine), each(peer), mine / peer);
    Ok(())
}

/// Seconds of `work`, and what it said.
fn timed<R>(work: impl FnOnce() -> R) -> (f64, R) {
    let began = Instant::now();
    let done = black_box(work());
    (began.elapsed().as_secs_f64(), done)
}

/// A fresh identity map, its first GiB mapped by pages or by blocks.
fn mapped(constraints: Constraints) -> Result<(f64, IdMap<El1And0>), Box<dyn Error>> {
    let mut map = IdMap::with_asid(1, 0, El1And0);
    let region = MemoryRegion::new(BASE, BASE + BYTES as usize);
    let (seconds, done) = timed(|| map.map_range_with_constraints(&region, FLAGS, constraints));
    done?;
    Ok((seconds, map))
}

fn failed(errno: Errno) -> Box<dyn Error> {
    format!("{errno}").into()
}

/// A machine on which the linear map of a GiB is made.
fn linear() -> Result<(f64, Kernel, Machine), Box<dyn Error>> {
    let (k, machine) = machine(Policies::default(), 2 * BYTES)?;
    let (seconds, done) = timed(|| __create_pgd_mapping(&k, &machine.cpu(0), Pa(BASE as u64), BYTES, false));
    done.map_err(failed)?;
    Ok((seconds, k, machine))
}

/// A machine whose vmemmap has so many bytes, in blocks, and its blocks split.
fn split() -> Result<f64, Box<dyn Error>> {
    let policies = Policies { mapping: Mapping::Blocks, ..Policies::default() };
    let (k, machine) = machine(policies, 2 * BYTES)?;
    let (cpu, first) = (machine.cpu(0), start(&k));
    for n in 0..BYTES / BLOCK {
        let (from, to) = (first.plus(n * BLOCK), first.plus((n + 1) * BLOCK));
        vmemmap_populate(&k, &cpu, from, to, &mut Storage::Buddy).map_err(failed)?;
    }
    let (seconds, done) = timed(|| {
        (0..BYTES / BLOCK).try_for_each(|n| {
            let page = first.plus(n * BLOCK);
            walk_range(&k, &cpu, &(page..page.plus(PAGE)), &mut RemapWalk::new(Action::Split))
        })
    });
    done.map_err(failed)?;
    Ok(seconds)
}

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn Error>> {
    let pages = BYTES / PAGE;
    println!("{:30} {:>11} {:>11} {:>8}", "", "vmemmap", "the crate", "ratio");
    let no_blocks = Constraints::NO_BLOCK_MAPPINGS | Constraints::NO_CONTIGUOUS_HINT;
    compare("map, each page", pages, &mut || Ok(linear()?.0), &mut || Ok(mapped(no_blocks)?.0))?;

    let (_, _k, machine) = linear()?;
    let (_, map) = mapped(no_blocks)?;
    let region = MemoryRegion::new(BASE, BASE + BYTES as usize);
    let counted = |found: u64| if found == pages { Ok(()) } else { Err(format!("{found} leaves of {pages}")) };
    compare(
        "walk, each page",
        pages,
        &mut || {
            let (seconds, found) = timed(|| leaves(&machine.cpu(0)));
            counted(found)?;
            Ok(seconds)
        },
        &mut || {
            let (mut found, region) = (0, black_box(&region));
            let (seconds, done) = timed(|| {
                map.walk_range(region, &mut |_, descriptor, level| {
                    found += u64::from(level == 3 && descriptor.is_valid());
                    Ok(())
                })
            });
            done?;
            counted(found)?;
            Ok(seconds)
        },
    )?;
    compare("split, each block", BYTES / BLOCK, &mut split, &mut || {
        let (_, mut map) = mapped(Constraints::NO_CONTIGUOUS_HINT)?;
        // Two mebibytes a block: one of a gibibyte would be split twice.
        let whole = MemoryRegion::new(BASE, BASE + PAGE as usize);
        map.modify_range(&whole, &|_, _| Ok(()))?;
        let (seconds, done) = timed(|| {
            (1..(BYTES / BLOCK) as usize).try_for_each(|n| {
                let page = BASE + n * BLOCK as usize;
                map.modify_range(&MemoryRegion::new(page, page + PAGE as usize), &|_, descriptor| {
                    descriptor.modify_flags(El1Attributes::SWFLAG_0, El1Attributes::empty())
                })
            })
        });
        done?;
        Ok(seconds)
    })
}
