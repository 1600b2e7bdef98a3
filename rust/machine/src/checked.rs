//! stub
use std::sync::atomic::{AtomicU64, Ordering};
use vmemmap_arch::Invariant;
use crate::counters::CachePadded;
use crate::machine::Machine;
use crate::native::Native;

/// Who promised what to whom, machine-wide.
#[derive(Debug)]
pub struct Watch {
    /// By invariant number: the CPUs that say they hold that exclusive right.
    holders: [AtomicU64; 33],
}
impl Watch {
    pub fn new(_cpus: u8) -> Self {
        Self { holders: [const { AtomicU64::new(0) }; 33] }
    }
    /// Begin or end; the other CPUs that hold the right at the begin, if any.
    pub fn exclusive(&self, cpu: u8, what: Invariant, begin: bool) -> Option<u64> {
        let holders = &self.holders[usize::from(what.number())];
        let me = 1u64 << cpu;
        if !begin {
            holders.fetch_and(!me, Ordering::AcqRel);
            return None;
        }
        let others = holders.fetch_or(me, Ordering::AcqRel) & !me;
        (others != 0).then_some(others)
    }
}
pub struct Checked<'m>(pub Native<'m>);
impl<'m> Checked<'m> { pub fn new(machine: &'m Machine, cpu: u8) -> Self { Self(Native::new(machine, cpu)) } }
pub type _P = CachePadded<u8>;
