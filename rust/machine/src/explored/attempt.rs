//! Data accesses whose translation fault goes to a handler: the fault is one of the ways in which the access can go.

use vmemmap_arch::{Data, Rmw, Va};

use super::candidates::{Access, End};
use super::world::World;
use crate::op::{Op, Reply, Tok};

/// The same access without a handler; a probe looks and does nothing else.
pub(super) const fn unhandled(access: Data<Tok>) -> Op {
    match access {
        Data::Load { va, order } => Op::Load { va, order },
        Data::Store { va, value, order } => Op::Store { va, value, order },
        Data::Rmw { va, op, order } => Op::Rmw { va, op, order },
        Data::Fill { va, template } => Op::Fill { va, template },
        Data::Copy { from, to } => Op::CopyFromVa { from, to },
        Data::Probe { va } => Op::Speculate { va },
    }
}

const fn kind(access: Data<Tok>) -> Access {
    match access {
        Data::Load { .. } => Access::Load,
        Data::Store { value, .. } => Access::Rmw(Rmw::Swap(value)),
        Data::Rmw { op, .. } => Access::Rmw(op),
        Data::Fill { template, .. } => Access::Fill(template),
        Data::Copy { .. } | Data::Probe { .. } => Access::Copy,
    }
}

impl World {
    /// In how many ways it can translate, and whether it can fault: a walk that finds no valid entry, or may still see
    /// the entry as it was before it became valid.
    fn ways(&mut self, actor: u8, access: Data<Tok>) -> (u16, bool) {
        let (cpu, va): (u8, Va) = (self.cpu_of(actor), access.va());
        let mut faults = false;
        self.gather(cpu, va, |end| faults |= end == End::None);
        faults |= !self.stale.is_empty() && self.usable(cpu, va).any(|r| r.value.is_none());
        self.alternatives(cpu, va, kind(access));
        let n = self.candidates.len() as u16 + self.mishaps.count();
        (if matches!(access, Data::Probe { .. }) { n.min(1) } else { n }, faults)
    }
    pub(super) fn attempt_outcomes(&mut self, actor: u8, access: Data<Tok>) -> u16 {
        let (n, faults) = self.ways(actor, access);
        (n + u16::from(faults)).max(1)
    }
    /// The last outcome is the fault, if there is one.
    pub(super) fn attempt(&mut self, actor: u8, access: Data<Tok>, outcome: u16) -> Reply {
        let (n, faults) = self.ways(actor, access);
        if faults && outcome >= n {
            self.note_fault(actor);
            return Reply::FAULT;
        }
        if self.options.permission_faults
            && self.candidates.get(usize::from(outcome)).is_some_and(|c| !c.desc.is_writable())
            && !matches!(kind(access), Access::Load)
        {
            self.note_fault(actor);
            return Reply::PERMISSION_FAULT;
        }
        self.attempting = true;
        let value = match access {
            Data::Probe { .. } => 0,
            Data::Copy { from, to } => {
                self.copy_from_va(actor, from, to, outcome);
                0
            }
            Data::Load { va, .. } | Data::Store { va, .. } | Data::Rmw { va, .. } | Data::Fill { va, .. } => {
                self.access(actor, va, kind(access), outcome)
            }
        };
        self.attempting = false;
        Reply::of(if matches!(access, Data::Load { .. } | Data::Rmw { .. }) { value } else { 0 })
    }
}
