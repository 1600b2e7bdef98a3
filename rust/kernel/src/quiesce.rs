//! A section in which no other CPU runs kernel code: `stop_machine` (approach B, suggested by C. Marinas in January
//! 2024) and the pause by IPI (approach D, Yu Zhao's series of October and November 2024).
//!
//! The pause is written after what its reviewers say of it (R5 of the corpus), not after the patch's text: one counter
//! of paused CPUs, as in its second version. What it needs is that every CPU answers: a CPU that masks the interrupt,
//! or waits for a lock of the pauser with it masked, never does. Page table walks of hardware go on in either.

use vmemmap_arch::{Cpu, LockId, Mode, Order, Rmw, Until};

use crate::Kernel;
use crate::policy::{PauseIpi, PmdSplit, PteUpdate};
use crate::state::Scalar;

/// How the other CPUs are kept from running.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pause {
    StopMachine,
    Ipi,
}

impl Pause {
    #[must_use]
    pub const fn of_update(update: PteUpdate) -> Option<Self> {
        match update {
            PteUpdate::BbmStopMachine => Some(Self::StopMachine),
            PteUpdate::BbmIpiPause => Some(Self::Ipi),
            PteUpdate::Store
            | PteUpdate::Swap
            | PteUpdate::ClearThenSet
            | PteUpdate::ClearThenSetEach
            | PteUpdate::Bbm
            | PteUpdate::BbmEach
            | PteUpdate::BbmFaultWaits
            | PteUpdate::BbmFaultWaitsIrqsOff
            | PteUpdate::ReadOnlyFirst => None,
        }
    }
    #[must_use]
    pub const fn of_split(split: PmdSplit) -> Option<Self> {
        match split {
            PmdSplit::BbmStopMachine => Some(Self::StopMachine),
            PmdSplit::BbmIpiPause => Some(Self::Ipi),
            PmdSplit::Store | PmdSplit::Bbm => None,
        }
    }
}

/// Runs `body` while no other CPU runs. It must not sleep, nor call this again.
pub fn with_others_paused<C: Cpu, R>(k: &Kernel, cpu: &C, pause: Pause, body: impl FnOnce() -> R) -> R {
    match pause {
        Pause::StopMachine => stop_machine(cpu, body),
        Pause::Ipi => {
            // `spin_lock_irq`, which masks before it waits: one pauser at a time, and no interrupt of this CPU may meet
            // the hole.
            cpu.irq_disable();
            cpu.acquire(LockId::InitMmPageTable, Mode::Write);
            pause_remote_cpus(k, cpu);
            let result = body();
            resume_remote_cpus(k, cpu);
            cpu.release(LockId::InitMmPageTable, Mode::Write);
            cpu.irq_enable();
            result
        }
    }
}

/// `stop_machine` (`kernel/stop_machine.c`): takes cpu_hotplug_lock for reading, and sleeps until every CPU runs its
/// stopper.
fn stop_machine<C: Cpu, R>(cpu: &C, body: impl FnOnce() -> R) -> R {
    cpu.label("stop_machine");
    cpu.acquire(LockId::CpuHotplug, Mode::Read);
    cpu.stop_machine_begin();
    let result = body();
    cpu.label("stop_machine");
    cpu.stop_machine_end();
    cpu.release(LockId::CpuHotplug, Mode::Read);
    result
}

/// Send the IPI and wait until each CPU that got it says that it is paused.
fn pause_remote_cpus<C: Cpu>(k: &Kernel, cpu: &C) {
    cpu.label("pause_remote_cpus");
    let sent = cpu.send_ipi(k.vars.scalar(Scalar::IpiCpuPause));
    if sent != 0 {
        cpu.wait_until(k.vars.scalar(Scalar::NrPausedCpus), Until::AtLeast(sent));
    }
}

/// Let them go, and wait until all have gone, so that the next pause counts from 0.
fn resume_remote_cpus<C: Cpu>(k: &Kernel, cpu: &C) {
    cpu.label("resume_remote_cpus");
    cpu.var_rmw(k.vars.scalar(Scalar::NrResumes), Rmw::FetchAdd(1), Order::Release);
    cpu.wait_until(k.vars.scalar(Scalar::NrPausedCpus), Until::Equals(0));
}

/// Handler of `IPI_CPU_PAUSE`.
pub fn pause_local_cpu<C: Cpu>(k: &Kernel, cpu: &C) {
    cpu.label("pause_local_cpu");
    let paused = k.vars.scalar(Scalar::NrPausedCpus);
    let resumes = k.vars.scalar(Scalar::NrResumes);
    let before = cpu.var_load(resumes, Order::Acquire);
    match k.policies.ipi {
        PauseIpi::PseudoNmi | PauseIpi::Irq => {
            cpu.var_rmw(paused, Rmw::FetchAdd(1), Order::AcqRel);
            cpu.wait_until(resumes, Until::Differs(before));
        }
        PauseIpi::WaitFirst => {
            cpu.wait_until(resumes, Until::Differs(before));
            cpu.var_rmw(paused, Rmw::FetchAdd(1), Order::AcqRel);
        }
    }
    cpu.var_rmw(paused, Rmw::FetchAdd(-1), Order::AcqRel);
}
