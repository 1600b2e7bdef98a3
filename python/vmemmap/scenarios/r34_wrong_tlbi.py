"""R34: a table is freed behind an invalidate of the wrong kind.

==== ======================================== ==============================================
step hot remove                               a CPU, by itself
==== ======================================== ==============================================
1                                             its walk cache holds the entry that leads to X
2    clears the entry, TLBI VAALE1IS: last
     level only, the walk cache keeps it
3    frees X
4                                             a walk goes on in X, which is somebody else's
==== ======================================== ==============================================

`flush_tlb_kernel_range` uses VAALE1IS, which is right for leaves; `__flush_tlb_kernel_pgtable` uses VAAE1IS, which
tables need. The scenario swaps them: a mutation, no bug of a shipped kernel, that only a model with walk caches
notices.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import lone_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_WRONG = {"table-free": "last-level-tlbi"}
_WALKS = ("I5",)
_SEEN = {"oracle": "observed"}
_WALKED = {"walk": True}


@scenario(
    title="a table is freed after an invalidate that leaves walk caches alone",
    corpus="R34",
    sources=[
        "derived from arch/arm64/include/asm/tlbflush.h, 6.12.117: flush_tlb_kernel_range, __flush_tlb_kernel_pgtable"
    ],
    judged=["I4", "I5"],
    variants=[
        Variant("last-level", "violated", _WALKS, _WRONG),
        Variant("kernel", "safe"),
        Variant("64k-last-level", "violated", _WALKS, _WRONG, arguments={"granule": "64K"}),
        Variant("64k-kernel", "safe", arguments={"granule": "64K"}),
        Variant("last-level-walk", "violated", _WALKS, _WRONG, arguments=_WALKED, environment=_SEEN),
        Variant("kernel-walk", "safe", arguments=_WALKED, environment=_SEEN),
    ],
    kernels={"*": "kernel"},
)
def r34_wrong_tlbi(m: Setup, granule: str = "4K", walk: bool = False) -> Sequence[Actor]:
    block = lone_block(m, granule)
    walker = [Actor("another CPU", [m.speculate(block)])] if walk else []
    return [Actor("hot remove", [m.memory.remove(block)]), *walker]
