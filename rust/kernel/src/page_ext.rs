//! `page_ext`: metadata of a section's pages beside vmemmap, freed when its memory goes offline (`mm/page_ext.c`; R19).
//!
//! Of it only the lifetime is there: that a lookup finds it, and that it is freed.

use vmemmap_arch::{Cpu, Invariant, Order, Pa, Pfn, Var};

use crate::Kernel;
use crate::policy::PageExt;
use crate::state::Block;

fn word(k: &Kernel, pa: Pa, which: Block) -> Var {
    k.vars.block(k.vars.section_number(pa), which)
}

/// What protects a reader, and what the offline does.
struct Lifetime {
    /// The reader is in an RCU section from lookup to use.
    read_lock: bool,
    /// `__invalidate_page_ext` first.
    invalid_first: bool,
    /// `synchronize_rcu` before the free.
    grace: bool,
}

const fn lifetime(policy: PageExt) -> Lifetime {
    match policy {
        PageExt::Kernel => Lifetime { read_lock: true, invalid_first: true, grace: true },
        PageExt::NoRcu => Lifetime { read_lock: false, invalid_first: false, grace: false },
        PageExt::NoInvalidate => Lifetime { read_lock: true, invalid_first: false, grace: true },
        PageExt::NoGrace => Lifetime { read_lock: true, invalid_first: true, grace: false },
    }
}

/// `page_ext_get`, a look at what it found, `page_ext_put`: a reader of page_owner. Whether there was one.
pub fn page_ext_get<C: Cpu>(k: &Kernel, cpu: &C, pfn: Pfn) -> bool {
    cpu.label("page_ext_get");
    let pa = k.geometry.pa(pfn);
    if !k.vars.contains(pa) {
        return false;
    }
    let how = lifetime(k.policies.page_ext);
    if how.read_lock {
        cpu.rcu_read_lock();
    }
    // `lookup_page_ext`: `section->page_ext`, NULL once it is freed.
    let found = cpu.var_load(word(k, pa, Block::PageExtInvalid), Order::Plain) == 0
        && cpu.var_load(word(k, pa, Block::PageExtFreed), Order::Acquire) == 0;
    if found {
        cpu.label("print_page_owner");
        if cpu.var_load(word(k, pa, Block::PageExtFreed), Order::Acquire) != 0 {
            cpu.warn(Invariant::NoUseOfFreedFrame, pa.0, "page_ext is used after its section's was freed");
        }
    }
    if how.read_lock {
        cpu.rcu_read_unlock();
    }
    found
}

/// `offline_page_ext`, by the notifier of MEM_OFFLINE, of the section at `start`.
pub fn offline_page_ext<C: Cpu>(k: &Kernel, cpu: &C, start: Pa) {
    cpu.label("offline_page_ext");
    let how = lifetime(k.policies.page_ext);
    if how.invalid_first {
        cpu.var_store(word(k, start, Block::PageExtInvalid), 1, Order::Plain);
    }
    if how.grace {
        cpu.synchronize_rcu();
    }
    cpu.label("__free_page_ext");
    cpu.var_store(word(k, start, Block::PageExtFreed), 1, Order::Release);
}
