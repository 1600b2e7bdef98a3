"""R25: a split wants to sleep where nobody may.

A split allocates its table and takes sleeping locks, so it may not be asked for in atomic context. ce2b3a50ad92 (2025)
repaired that for the linear map's `split_kernel_leaf_mapping`; here it is vmemmap's split, whose table 6.1 and 6.12
allocate before they take page_table_lock.

* `task`: as the kernel has it.
* `under-lock`: the table is allocated with page_table_lock held.
* `in-interrupt`: the hugepage is made in an interrupt. No kernel does that; what is freed in atomic context is left to
  a worker for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import Neighbours
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_BLOCKS = {"mapping": "blocks"}


@scenario(
    title="a split is asked for in atomic context",
    corpus="R25",
    sources=[
        "https://lore.kernel.org/all/20251106160945.3182799-1-ryan.roberts@arm.com/ (ce2b3a50ad92)",
        "kernel-semantics §H6",
    ],
    judged=["I25"],
    variants=[
        Variant("task", "safe", (), _BLOCKS),
        Variant("under-lock", "violated", ("I25",), {**_BLOCKS, "mutant": "sleep-under-lock"}),
        Variant("in-interrupt", "violated", ("I25",), _BLOCKS, arguments={"context": "irq"}),
    ],
    kernels={"*": "task"},
)
def r25_sleep_in_atomic(m: Setup, context: str = "task") -> Sequence[Actor]:
    hvo = Neighbours.of(m, "4K").hvo()
    return [Actor("HVO", hvo.steps, context="irq" if context == "irq" else "task")]
