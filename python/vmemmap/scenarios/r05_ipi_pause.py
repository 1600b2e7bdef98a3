"""R5: break-before-make while the other CPUs are paused by IPI (approach D), and who does not answer.

==== ================================== ==================================================
step T1 (pauses)                        T2 (handler of the IPI)
==== ================================== ==================================================
1    sends the IPI
2                                       a: waits for the resume before it says "paused"
                                        e: waits for T1's lock with the IPI masked, takes none
3    waits for "paused"
4    never resumes                      never says it
==== ================================== ==================================================

(a) is a mistake in the order of two steps of the handler, made here on purpose. (e) is what a plain IPI in place of a
pseudo-NMI comes to: `spin_lock_irq` masks interrupts before it waits, so of two HVO actors the second does not answer
the first, whose lock it waits for. Where a CPU only masks interrupts for a while (`memory_failure` under hugetlb_lock)
the pause lasts as long, which no invariant forbids. Not shown: (b) spinlocks that sleep on PREEMPT_RT while mappings
are broken, (c) cost, (d) a resumed CPU that has executed no ISB.

Approach D was a proposal of 2024 and no kernel has it. The protocol is written after its review, not after the patch.
64K pages; each of the two sections is one hugepage of 512M.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import Neighbours
from ..lab.scenario import Absent, Actor, Operation, Variant, scenario
from ..lab.setup import Setup

_D = {"update": "bbm-ipi-pause"}
_TWO = {"second": True}
_MASKED = {"masked": True}


@scenario(
    title="a CPU that does not answer the pausing IPI stops the machine",
    corpus="R5",
    sources=[
        (
            "https://lore.kernel.org/all/20241021042218.746659-1-yuzhao@google.com/ and the review by M. Zyngier and "
            "D. Anderson"
        ),
        "https://lore.kernel.org/all/20241107202033.2721681-1-yuzhao@google.com/",
        "derived: docs/scenarios.md R5",
    ],
    judged=["I2", "I25"],
    variants=[
        Variant("reader", "safe", (), _D),
        Variant("a-wait-first", "violated", ("I25",), {**_D, "ipi": "wait-first"}),
        Variant("e-two-plain-ipi", "violated", ("I25",), {**_D, "ipi": "irq"}, arguments=_TWO),
        Variant("e-two-pseudo-nmi", "safe", (), _D, arguments=_TWO),
        Variant("e-masked-for-a-while", "safe", (), {**_D, "ipi": "irq"}, arguments=_MASKED),
    ],
    kernels={"*": Absent("approach D was merged nowhere: no kernel pauses CPUs for a remap")},
)
def r05_ipi_pause(m: Setup, second: bool = False, masked: bool = False) -> Sequence[Actor]:
    pair = Neighbours.of(m, "64K")
    if second:
        m.setup(m.memory.online(pair.b))
        pool = m.pmd_hugepage
        return [pair.hvo(), Actor("HVO 2", [pool.allocate(m.pfn(pair.b.start))])]
    if masked:
        return [pair.hvo(), Actor("memory failure", [Operation("memory_failure", {"pfn": m.pfn(pair.a.start) + 2})])]
    return [pair.hvo(), pair.reader()]
