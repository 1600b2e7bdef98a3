//! Tables that are counted: constructed, destructed, and what /proc/meminfo says of them (`include/linux/mm.h`,
//! `arch/arm64/include/asm/pgalloc.h`).

use vmemmap_arch::{Cpu, Invariant, Order};

use crate::Kernel;
use crate::policy::TableCount;
use crate::state::Scalar;

/// `pagetable_pte_ctor` and the like, which hot-added linear maps and HVO's splits call, and populate does not.
pub(crate) fn table_constructed<C: Cpu>(k: &Kernel, cpu: &C) {
    if k.features.table_destructor {
        cpu.var_add(k.vars.scalar(Scalar::NrPagetable), 1, Order::Relaxed);
    }
}

/// Whether `vmemmap_alloc_block_zero` counts its tables in, too. No kernel does.
pub(crate) const fn populate_constructs(k: &Kernel) -> bool {
    match k.policies.table_count {
        TableCount::Balanced => true,
        TableCount::ByKernel | TableCount::NoDestructor => false,
    }
}

/// `PageTables:` of /proc/meminfo, with nothing hot-added left and no block split since boot: `NR_PAGETABLE` less its
/// value at boot, which is to be 0.
pub fn nr_pagetable<C: Cpu>(k: &Kernel, cpu: &C) -> u64 {
    cpu.label("meminfo_proc_show");
    let since_boot = cpu.var_load(k.vars.scalar(Scalar::NrPagetable), Order::Plain);
    let message = match since_boot as i64 {
        0 => return 0,
        ..0 => "NR_PAGETABLE is lower than at boot: tables were counted out that never were counted in",
        1.. => "NR_PAGETABLE is higher than at boot: tables were freed and never counted out",
    };
    cpu.warn(Invariant::CountersBalance, since_boot, message);
    since_boot
}

/// `pagetable_dtor`, which `free_hotplug_pgtable_page` calls for every table, constructed or not.
pub(crate) fn table_destructed<C: Cpu>(k: &Kernel, cpu: &C) {
    let destructs = match k.policies.table_count {
        TableCount::ByKernel | TableCount::Balanced => k.features.table_destructor,
        TableCount::NoDestructor => false,
    };
    if destructs {
        cpu.var_add(k.vars.scalar(Scalar::NrPagetable), -1, Order::Relaxed);
    }
}
