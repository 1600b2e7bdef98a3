//! The frame that all tails of one order share in a zone, since 7.1 (`mm/hugetlb_vmemmap.c: vmemmap_get_tail`,
//! `zone->vmemmap_tails`; kernel-7.3 §2.2).

use vmemmap_arch::{Cpu, Frame, FrameKind, Invariant, LockId, Mode, Order, Pa, Rmw, Template, Var, Zone};

use crate::hugetlb::page::HugePage;
use crate::mmzone::{block_zone, is_zone_dma};
use crate::page::tail_word;
use crate::policy::TailPublish;
use crate::{Kernel, mutants};

/// `order - VMEMMAP_TAIL_MIN_ORDER`: the smallest order whose struct pages fill two vmemmap pages is 0.
#[must_use]
pub(crate) const fn tail_index(k: &Kernel, order: u8) -> u32 {
    (order as u32 + 5).saturating_sub(k.geometry.page_shift())
}

/// Number, among the zones that have such frames, of the one that the page at `pa` is in.
pub(crate) fn zone_number(k: &Kernel, zone: Zone, pa: Pa) -> u32 {
    match zone {
        Zone::Normal if is_zone_dma(k, pa) => 0,
        Zone::Movable => 1,
        Zone::Normal => 2,
    }
}

/// The slot of the frame that the tails of `page` share.
fn slot<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage, order: u8) -> Var {
    let pa = k.geometry.pa(page.head);
    let zone = block_zone(k, cpu, k.vars.section_number(pa));
    k.vars.zone_tail(zone_number(k, zone, pa), tail_index(k, order))
}

fn template(k: &Kernel, page: HugePage, order: u8) -> Template {
    Template::tail(tail_word(k, page.va(k), order))
}

/// `vmemmap_get_tail`: made on first need, never freed, in no counter. Without a lock: who loses the exchange frees its
/// frame. The zone's bits in `flags`, for which there is one frame a zone, are not in the model.
pub(super) fn vmemmap_get_tail<C: Cpu>(
    k: &Kernel,
    cpu: &C,
    page: HugePage,
    alloc: impl FnOnce() -> Option<Frame<C::Tok>>,
) -> Option<Frame<C::Tok>> {
    cpu.label("vmemmap_get_tail");
    let order = page.order() + u8::from(mutants::foreign_tail(k));
    let slot = slot(k, cpu, page, order);
    // Known by address, as a hugepage is: nobody gives it back.
    let shared = |pa| Frame { pa: Pa(pa), tok: C::Tok::default() };
    match cpu.var_load(slot, Order::Acquire) {
        0 => {}
        pa => return Some(shared(pa)),
    }
    let tail = alloc()?;
    cpu.fill_frame(tail, template(k, page, order));
    let found = match k.policies.tail_publish {
        TailPublish::CmpXchg => cpu.var_rmw(slot, Rmw::CompareExchange { old: 0, new: tail.pa.0 }, Order::AcqRel),
        TailPublish::Store => {
            store_tail(cpu, slot, tail.pa);
            0
        }
        TailPublish::CheckedStore => {
            let found = cpu.var_load(slot, Order::Acquire);
            if found == 0 {
                store_tail(cpu, slot, tail.pa);
            }
            found
        }
        TailPublish::Locked => {
            cpu.acquire(LockId::InitMmPageTable, Mode::Write);
            let found = cpu.var_load(slot, Order::Acquire);
            if found == 0 {
                store_tail(cpu, slot, tail.pa);
            }
            cpu.release(LockId::InitMmPageTable, Mode::Write);
            found
        }
    };
    if found == 0 {
        return Some(tail);
    }
    cpu.free(tail, 0, FrameKind::Vmemmap);
    Some(shared(found))
}

/// A plain store to the slot: an exchange, so that what it overwrites is seen and said.
fn store_tail<C: Cpu>(cpu: &C, slot: Var, tail: Pa) {
    if cpu.var_rmw(slot, Rmw::Swap(tail.0), Order::Release) != 0 {
        cpu.warn(
            Invariant::FramesConserved,
            tail.0,
            "vmemmap_get_tail: the tail frame of the zone is overwritten; nobody will find the one that is mapped",
        );
    }
}

/// The frame at `pa`, which the tails of `page` share in tables that were loaded.
pub(crate) fn adopt_zone_tail<C: Cpu>(k: &Kernel, cpu: &C, page: HugePage, pa: Pa) {
    let slot = slot(k, cpu, page, page.order());
    if cpu.var_load(slot, Order::Plain) == 0 {
        cpu.var_store(slot, pa.0, Order::Plain);
        cpu.fill_frame(Frame { pa, tok: C::Tok::default() }, template(k, page, page.order()));
    }
}
