//! The machine that the rows run on: 4K pages, 48 bits, one range of memory.

use std::sync::atomic::AtomicU64;

use vmemmap_arch::{Cpu, Frame, Geometry, Granule, Layout, Pa, Va};
use vmemmap_kernel::sparse_vmemmap::{Storage, vmemmap_populate_basepages};
use vmemmap_kernel::{Kernel, Policies, Ram, pgtable};
use vmemmap_machine::native::arena::Arena;
use vmemmap_machine::{Machine, MachineConfig, RamRange};

use crate::BenchError;

/// Where RAM begins; `memstart`, so that its struct pages are the first of vmemmap.
pub const DRAM: u64 = 1 << 30;
/// Descriptors of a table.
pub const ENTRIES: usize = 512;

/// A kernel with `bytes` of memory and its machine, on which nothing has happened yet.
pub fn machine(policies: Policies, bytes: u64) -> Result<(Kernel, Machine), BenchError> {
    let geometry = Geometry { granule: Granule::K4, va_bits: 48, levels: 4 };
    let version = vmemmap_lab::document::version("6.1").map_err(|e| BenchError::Work(e.to_string()))?;
    let layout = Layout::new(geometry, version, DRAM as i64).map_err(|e| BenchError::Work(format!("{e:?}")))?;
    let kernel = Kernel::new(layout, policies, &[Ram { start: Pa(DRAM), bytes, boot: true }], true);
    let ram = vec![RamRange { start: Pa(DRAM), bytes, boot: true }];
    let config = MachineConfig { geometry, ram, cpus: 2, vars: kernel.vars.count(), root: None, seed: 0 };
    Ok((kernel, Machine::new(&config)?))
}

/// First address of vmemmap on such a machine.
pub fn start(k: &Kernel) -> Va {
    k.layout.page_va(k.geometry.pfn(Pa(DRAM)))
}

/// The PTE tables of the first `count` that vmemmap has, each entry a page of its own.
pub fn populated<C: Cpu>(k: &Kernel, cpu: &C, count: u64) -> Result<Vec<Frame<C::Tok>>, BenchError> {
    let span = k.geometry.page_size() * ENTRIES as u64;
    let end = start(k).plus(count * span);
    vmemmap_populate_basepages(k, cpu, start(k), end, &mut Storage::Buddy)?;
    let table = |n| {
        let (slot, _) = pgtable::walk(cpu, start(k).plus(n * span));
        Frame { pa: slot.table, tok: slot.tok }
    };
    Ok((0..count).map(table).collect())
}

/// Words outside any machine, in memory of the same kind.
pub fn bare(tables: u64) -> Result<Arena, BenchError> {
    Ok(Arena::new(tables * ENTRIES as u64)?)
}

/// Words of one table of those.
pub fn bare_table(words: &Arena, table: usize) -> &[AtomicU64] {
    &words.words()[table * ENTRIES..][..ENTRIES]
}

/// A machine that saw something go wrong has not done the work that was measured.
pub fn sound(machine: &Machine) -> Result<(), BenchError> {
    match machine.violations().first() {
        None => Ok(()),
        Some(violation) => Err(BenchError::Work(violation.to_string())),
    }
}
