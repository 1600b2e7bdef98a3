"""R4: break-before-make with a fault handler that waits (approach A), where the handler cannot run.

==== ================================== ==================================================
step CPU 0, HVO                         CPU 0, interrupt (or another CPU)
==== ================================== ==================================================
1    takes init_mm.page_table_lock,
     clears a PTE, TLBI
2                                       touches a struct page in the hole: translation fault
3                                       the handler takes page_table_lock, to look again
4    (interrupted)                      interrupt of CPU 0: it waits for the CPU it runs on
==== ================================== ==================================================

Approach A was a proposal of 2023 and 2024 and no kernel has it; nor has any kernel B or D. The handler is written after
what the reviewers say of it (2024-02-07), not after the patch.

* A reader on another CPU waits and goes on, which is the author's answer: whoever faults does not hold the lock. It
  holds for a task and for an interrupt there, and with interrupts off from clear to set also for an interrupt here; a
  pseudo-NMI that reads a struct page (none is known to) would still hang.
* On PREEMPT_RT the lock sleeps, so no interrupt may wait for it on any CPU. Of the remark that RT can deadlock from
  process context nothing is shown: it needs a reader with preemption off, and no reader here runs so.
* Without a handler the reader dies, and the kernel's own re-check (`is_spurious_el1_translation_fault`) comes too late
  if the hole is still there.
* B (stop_machine) and D (pause by IPI): nobody runs while the hole is open. What B costs in time is not judged here; it
  takes cpu_hotplug_lock under mmap_lock, which `lock_order` of the answer shows where another actor takes them in turn.

64K pages: one hugepage of 512M fills a section, seven PTEs are rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ..lab.neighbours import Neighbours
from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import Setup

_A = {"update": "bbm-fault-waits", "fault": "wait"}
_A_MASKED = {"update": "bbm-fault-waits-irqs-off", "fault": "wait"}
_IRQ_HERE = {"irq": 0}
_TASK = {"task": True}
_RT = {"preempt_rt": True}
_DEFAULT: Mapping[str, bool] = MappingProxyType({})


def _safe(
    name: str, policies: Mapping[str, str], arguments: Mapping[str, object], environment: Mapping[str, bool] = _DEFAULT
) -> Variant:
    return Variant(name, "safe", (), policies, "6.1", arguments, environment)


def _violates(
    name: str,
    invariant: str,
    policies: Mapping[str, str],
    arguments: Mapping[str, object],
    environment: Mapping[str, bool] = _DEFAULT,
) -> Variant:
    return Variant(name, "violated", (invariant,), policies, "6.1", arguments, environment)


@scenario(
    title="the fault handler of approach A waits for a lock that its own CPU holds",
    corpus="R4",
    sources=[
        "https://lore.kernel.org/all/20240113094436.2506396-1-sunnanyong@huawei.com/",
        "https://lore.kernel.org/all/20240207111252.GA22167@willie-the-truck/ (W. Deacon)",
        "https://lore.kernel.org/all/ZcN2emKK8jrJ6Gyt@FVFF77S0Q05N.cambridge.arm.com/ (M. Rutland)",
    ],
    judged=["I2", "I25"],
    variants=[
        _violates("a-irq-same-cpu", "I25", _A, _IRQ_HERE),
        _safe("a-irq-same-cpu-masked", _A_MASKED, _IRQ_HERE),
        _violates("a-nmi-same-cpu-masked", "I25", _A_MASKED, {"nmi": 0}),
        _safe("a-task-other-cpu", _A, _TASK),
        _safe("a-irq-other-cpu", _A, {"irq": 1}),
        _safe("a-rt-task-other-cpu", _A, _TASK, _RT),
        _violates("a-rt-irq-other-cpu", "I25", _A, {"irq": 1}, _RT),
        _violates("no-handler", "I2", {"update": "bbm-each"}, _TASK),
        _violates("recheck-only", "I2", {"update": "bbm-each", "fault": "recheck"}, _TASK),
        _safe("b-irq-same-cpu", {"update": "bbm-stop-machine"}, _IRQ_HERE),
        _safe("b-task-other-cpu", {"update": "bbm-stop-machine"}, _TASK),
        _safe("d-irq-same-cpu", {"update": "bbm-ipi-pause"}, _IRQ_HERE),
        _safe("d-task-other-cpu", {"update": "bbm-ipi-pause"}, _TASK),
    ],
    kernels={"*": Absent("approach A was merged nowhere: no kernel handles a fault in vmemmap")},
)
def r04_fault_fixup_deadlock(
    m: Setup, irq: int | None = None, nmi: int | None = None, task: bool = False
) -> Sequence[Actor]:
    pair = Neighbours.of(m, "64K")
    walk = pair.reader().steps
    actors = [pair.hvo()]
    if irq is not None:
        actors.append(Actor("interrupt", walk, cpu=irq, context="irq"))
    if nmi is not None:
        actors.append(Actor("pseudo-NMI", walk, cpu=nmi, context="nmi"))
    if task:
        actors.append(Actor("PFN walker", walk, cpu=1))
    return actors
