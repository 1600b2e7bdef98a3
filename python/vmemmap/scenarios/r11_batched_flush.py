"""R11: a store to the head page through a stale translation, in the window of the batched flush.

==== ========================================= =====================================
step HVO, a batch (6.12)                       its own CPU's TLB
==== ========================================= =====================================
1    copies the head page H to a fresh H'      may hold H
2    the head's entry maps H' now; no TLBI
     before the end of the batch
3    sets the optimised flag in the head's     translates to H: the store is not in H'
     struct page
4    `flush_tlb_all`; H is freed, the flag
     with it
5    the flag reads clear: the page is taken
     for one that is not optimised
==== ========================================= =====================================

One CPU is enough. "Various BUGs" while the batching was developed (M. Kravetz, September 2023); the code that was
merged sets the flag before the copy ("Very Subtle" in mm/hugetlb_vmemmap.c), so that old and new page agree whichever
the store reaches, and where the remap fails it flushes before it clears the flag. So no kernel shipped the fault:
``flag-after-copy`` is it, as a seeded fault. Flushing before the flag is set (``single-page``: the path that does not
batch) hides it as well. 6.1 has no batch and never moves the head page.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import Setup

_LOST = ("I28",)
_LATE = {"mutant": "flag-after-copy"}
_NO_BATCH = Absent("no batch, and the head's page is never moved")


@scenario(
    title="the flag of an optimised page is stored into the head page that it no longer has",
    corpus="R11",
    sources=[
        "M. Kravetz, September 2023, review of the batched TLB flush",
        'mm/hugetlb_vmemmap.c of 6.12, __hugetlb_vmemmap_optimize_folio: comment "Very Subtle"',
    ],
    judged=["I8", "I28"],
    variants=[
        Variant("flag-after-copy", "violated", _LOST, _LATE, "6.12"),
        Variant("flag-after-copy-split", "violated", _LOST, _LATE, "6.12", {"split": True}),
        Variant("flag-after-copy-reader", "violated", _LOST, _LATE, "6.12", {"reader": True}),
        Variant("6.12", "safe", kernel="6.12"),
        Variant("6.12.117", "safe", kernel="6.12.117"),
        Variant("6.12-split", "safe", kernel="6.12", arguments={"split": True}),
        Variant("6.12-reader", "safe", kernel="6.12", arguments={"reader": True}),
        Variant("6.12-out-of-memory", "safe", (), {}, "6.12", {"split": True}, {"alloc_failures": 2}),
        Variant("6.12-back", "safe", kernel="6.12", arguments={"back": True}),
        Variant("single-page", "safe", (), _LATE, "6.12", {"batch": False}),
    ],
    kernels={"2021": _NO_BATCH, "6.1": _NO_BATCH, "*": "6.12"},
)
def r11_batched_flush(
    m: Setup, split: bool = False, reader: bool = False, batch: bool = True, back: bool = False
) -> Sequence[Actor]:
    block = hugepage_block(m, split=split)
    head = m.pfn(block.start)
    pool = m.pmd_hugepage
    steps = [pool.resize(1) if batch else pool.allocate(head), *([pool.resize(0)] if back else [])]
    # The walker looks at the head's struct page only: whether tails resolve to it is I10's question (R3).
    walker = [Actor("PFN walker", [m.pfn_walk(head, head + 1)])] if reader else []
    return [Actor("HVO", steps), *walker]
