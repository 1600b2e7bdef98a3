//! Where an actor runs: on which CPU, as what.

use vmemmap_arch::Var;

/// Most CPUs (actors) of an explored machine.
pub const MAX_ACTORS: u8 = 16;

/// In which context an actor runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Context {
    /// A task: may sleep, may be interrupted.
    #[default]
    Task,
    /// A maskable interrupt: enters where no interrupt runs and the CPU has interrupts on.
    Irq,
    /// A pseudo-NMI (GIC priority masking): also enters while `irq_disable` masks interrupts, and interrupts an
    /// interrupt.
    Nmi,
    /// No work of the CPU's, but the store buffer beside it: its stores commit whatever the CPU does (`Op::Commit`).
    StoreBuffer,
    /// Nor this, but the loads of the CPU that take effect before their place in its program (`Op::LoadEarly`).
    LoadQueue,
}

impl Context {
    /// Whether it is work of the CPU's.
    pub(super) const fn runs(self) -> bool {
        !matches!(self, Context::StoreBuffer | Context::LoadQueue)
    }
    /// Its byte in a CPU's cell.
    pub(super) const fn shift(self) -> u32 {
        match self {
            Context::Nmi => 8,
            Context::Task | Context::Irq | Context::StoreBuffer | Context::LoadQueue => 0,
        }
    }
}

/// Where an actor runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    pub cpu: u8,
    pub context: Context,
    /// An interrupt that comes only when its CPU's bit of this variable is set (`Cpu::send_ipi`); else it may come at
    /// any time, or never.
    pub line: Option<Var>,
}
