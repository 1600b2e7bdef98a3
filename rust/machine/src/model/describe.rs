//! Operations as people read them: the same words in every run.

use vmemmap_arch::{Frame, Pa, Slot, Tlbi, Va};

use super::World;
use crate::op::{Op, Tok};

/// One operation in words.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Described {
    /// `write`, `tlbi vaale1is`, `lock`.
    pub op: &'static str,
    /// `pte 0xffff…`, `frame actor 1 #3`, `mem_hotplug_lock`.
    pub place: String,
    pub address: Option<u64>,
    /// Word before the operation, if it looks at one.
    pub old: Option<u64>,
    /// Word that the operation wants to leave there.
    pub new: Option<u64>,
}

impl World {
    /// What the operation is, and what it finds; call it before executing.
    #[must_use]
    pub fn describe(&self, actor: u8, op: &Op) -> Described {
        let mut d = Described { op: op.name(), ..Described::default() };
        match *op {
            Op::Read { at, .. } => self.describe_slot(&mut d, at),
            Op::Write { at, new, .. } | Op::Swap { at, new, .. } | Op::CompareExchange { at, new, .. } => {
                self.describe_slot(&mut d, at);
                d.new = Some(new.0);
            }
            Op::Tlbi(tlbi) => describe_tlbi(&mut d, tlbi),
            Op::Load { va, .. } | Op::Speculate { va } | Op::IommuWalk { va } | Op::Fill { va, .. } | Op::Rmw { va, .. } => {
                describe_va(&mut d, va);
            }
            Op::Store { va, value, .. } => {
                describe_va(&mut d, va);
                d.new = Some(value);
            }
            Op::Free { frame, .. }
            | Op::IsReserved { frame }
            | Op::IsSelfHosted { frame }
            | Op::SplitFrame { frame, .. }
            | Op::SplitRun { frame, .. }
            | Op::LoadFrame { frame, .. } => {
                self.describe_frame(&mut d, frame);
            }
            Op::StoreFrame { frame, value, .. } => {
                self.describe_frame(&mut d, frame);
                d.new = Some(value);
            }
            Op::CopyFrame { to, .. } | Op::CopyFromVa { to, .. } => self.describe_frame(&mut d, to),
            Op::Alloc(request) => d.place = format!("order {} {:?}", request.order, request.kind),
            Op::Range { start, .. } | Op::RangeInUse { start, .. } | Op::MemoryGone { start, .. } | Op::ClaimSelfHosted { start, .. } => {
                d.address = Some(start.0);
                d.place = format!("memory {start}");
            }
            Op::Queue { lock } | Op::Acquire { lock, .. } | Op::TryAcquire { lock, .. } | Op::Release { lock, .. } => {
                d.place = lock.name().into()
            }
            Op::VarLoad { var, .. } | Op::WaitUntil { var, .. } | Op::VarRmw { var, .. } => {
                d.place = format!("variable {}", var.0);
                d.old = Some(self.var(var));
            }
            Op::VarStore { var, value, .. } => {
                d.place = format!("variable {}", var.0);
                (d.old, d.new) = (Some(self.var(var)), Some(value));
            }
            Op::Warn { what, address, message } => {
                d.place = format!("{what}: {message}");
                d.address = Some(address);
            }
            Op::Exclusive { what, .. } => d.place = what.to_string(),
            Op::Choose { why, .. } => d.place = why.into(),
            Op::RcuWait | Op::IpiPause | Op::StopMachineBegin => d.place = format!("CPUs {:#x}", self.waits_for(actor, op)),
            _ => {}
        }
        d
    }

    fn describe_slot(&self, d: &mut Described, at: Slot<Tok>) {
        let level = match at.level.0 {
            3 => "pte",
            2 => "pmd",
            1 => "pud",
            0 => "p4d",
            _ => "pgd",
        };
        let slot = self.table_of(at);
        match slot.ok().and_then(|s| self.reach(s.table)) {
            Some(place) => {
                let va = place.va.plus(u64::from(at.index) << self.geometry.level_shift(at.level));
                d.place = format!("{level} {va}");
                d.address = Some(va.0);
            }
            None => {
                d.place = format!("{level}[{}] of {}", at.index, self.frame_name(at.table));
                d.address = Some(at.table.0);
            }
        }
        d.old = slot.ok().map(|s| self.memory.desc(s).0);
    }

    fn describe_frame(&self, d: &mut Described, frame: Frame<Tok>) {
        d.place = self.frame_name(frame.pa);
        d.address = Some(frame.pa.0);
    }

    /// Frames out of a pool by actor and number, others by address.
    #[must_use]
    pub fn frame_name(&self, pa: Pa) -> String {
        let pfn = self.geometry.pfn(pa).0;
        let pool = (0..).zip(&self.allocator.pools).find(|(_, p): &(u8, _)| pfn >= p.first && pfn < p.first + p.frames);
        match pool {
            Some((actor, p)) => format!("frame of actor {actor} #{}", pfn - p.first),
            None => format!("frame {pa}"),
        }
    }
}

fn describe_tlbi(d: &mut Described, tlbi: Tlbi) {
    if let Some((va, pages)) = tlbi.pages() {
        describe_va(d, va);
        if pages != 1 {
            d.place += &format!(", {pages} pages");
        }
    }
    if let Tlbi::Vale1is(_, asid) | Tlbi::Vae1is(_, asid) | Tlbi::Aside1is(asid) = tlbi {
        d.place += if d.place.is_empty() { "" } else { ", " };
        d.place += &format!("asid {asid}");
    }
}

fn describe_va(d: &mut Described, va: Va) {
    d.place = format!("va {va}");
    d.address = Some(va.0);
}
