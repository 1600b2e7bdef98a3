"""A CPU that makes an entry valid takes it itself after ``dsb(ishst); isb()``: with FEAT_ETS2 that needs neither.

==== ==============================================
step vmalloc, alone
==== ==============================================
1    stores the entry of a page: was none, is valid
2    ``dsb(ishst)``; no ``isb()``
3    uses the page: a walk that was made before step
     1 says that nothing is mapped
==== ==============================================

Derived by hand, and then run. A DSB publishes the entry to the walkers of all CPUs. Without FEAT_ETS2 it does not
order a translation of the own CPU: what comes later in the program may have been translated before, until a context
synchronization event (Arm's model: `I2V-UP-DSB` Sometimes, with ISB Never). So the ``isb()`` of `set_pte` is what
keeps the own CPU from a fault (I2; ``spurious_fault`` ``fatal``, as where no handler looks again). With FEAT_ETS2,
translations that fault come after all that is before them in the program, and the fault is Never with or without it.
arm64 keeps the ``isb()`` for CPUs of both kinds; the mutant (``missing-isb``) is nobody's proposal.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_FATAL = {"spurious_fault": "fatal"}
_MUTANT = {"mutant": "missing-isb"}


@scenario(
    title="an entry is used by its own CPU without the isb of set_pte",
    sources=[
        "arch/arm64/include/asm/pgtable.h: set_pte, dsb(ishst) and isb() for valid kernel entries",
        "derived: docs/memory-model.md",
    ],
    judged=["I2"],
    variants=[
        Variant("no-ets", "violated", ("I2",), _MUTANT, environment={**_FATAL, "ets": "none"}),
        Variant("no-ets-kernel", "safe", (), {}, environment={**_FATAL, "ets": "none"}),
        Variant("ets2", "safe", (), _MUTANT, environment={**_FATAL, "ets": "2"}),
    ],
)
def missing_isb(m: Setup, pages: int = 2) -> Sequence[Actor]:
    return [Actor("vmalloc", [m.vmalloc(pages)])]
