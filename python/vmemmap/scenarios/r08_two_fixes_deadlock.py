"""R8: two correct fixes of R7 deadlock together.

==== ============================================== =====================================
step vmalloc                                        ptdump
==== ============================================== =====================================
1    `mmap_read_trylock(&init_mm)`: had
2                                                   `mmap_write_lock(&init_mm)`: queued
3    `pmd_free_pte_page`: `mmap_read_lock(&init_mm)`
     waits behind the queued writer
4    never drops 1                                  never gets it
==== ============================================== =====================================

The first lock is the generic fix, the second that of arm64 (fa93b45fd397). Each alone is sound. An rwsem lets no reader
overtake a queued writer, hence a task that reads twice waits for itself. Stated in the cover letter of the generic fix.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import Setup
from .r07_ptdump_vs_vmap import dump_and_promotion

_NO_HUGE_VMAP = Absent("with PTDUMP_DEBUGFS arm64 maps vmalloc by pages alone (arch_vmap_pmd_supported)")


@scenario(
    title="the generic and the arm64 protection of vmalloc against ptdump, one inside the other",
    corpus="R8",
    sources=[
        (
            "https://lore.kernel.org/all/20260712-series-vmap-race-fix-v2-1-ad134cc3a12a@kernel.org/ (cover letter "
            "of the series)"
        ),
    ],
    judged=["I1", "I5", "I25"],
    variants=[
        Variant("both", "violated", ("I25",), {"vmap": "both"}),
        Variant("both-6.12", "violated", ("I25",), {"vmap": "both"}, kernel="6.12"),
        Variant("trylock-alone", "safe", (), {"vmap": "trylock"}),
        Variant("static-key-alone", "safe", (), {"vmap": "static-key"}),
    ],
    kernels={"2021": _NO_HUGE_VMAP, "*": "trylock-alone"},
)
def r08_two_fixes_deadlock(m: Setup) -> Sequence[Actor]:
    return dump_and_promotion(m)
