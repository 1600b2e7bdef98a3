"""What is published by a store is there before it, or not: ``smp_wmb`` before a table or a frame becomes reachable.

==== ========================================== ==========================================
step split, or restore                          reader of the struct pages
==== ========================================== ==========================================
1    fills a new table; or copies a tail page
     to a new frame
2    no barrier
3    stores the entry that leads there
4                                               the store of step 3 is seen: walks or reads there
5    the stores of step 1 become visible
==== ========================================== ==========================================

Under sequential consistency (``--memory sc``) nothing is wrong, and I22 is not visible. In weak memory (``memory
views``) the stores of step 1 are plain, so one of them may come after that of step 3: the reader finds no translation
in a table that is reachable (I2, I21), or what the frame held before (I22).

Derived by hand, and then run. On arm64 the ``smp_wmb`` of `split_vmemmap_huge_pmd` is not what keeps the table in
order: `set_pte` ends with ``dsb(ishst)`` for every kernel entry, so leaving out ``smp_wmb`` alone changes nothing. A
kernel that batches those barriers (``unordered-table``: none of them, and no ``smp_wmb``) breaks I21. The copy in
`vmemmap_restore_pte` is plain stores through the linear map with no barrier but its own ``smp_wmb``: without that
(``unordered-content``) the next store is the one that exposes the frame, I22.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import Neighbours
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_VIEWS = {"memory": "views"}
_BLOCKS = {"mapping": "blocks"}
_TABLE = {**_BLOCKS, "mutant": "unordered-table"}
_CONTENT = {"mutant": "unordered-content"}
_RESTORE = {"restore": True}


@scenario(
    title="a table or a frame is published before what was stored there",
    sources=[
        "mm/hugetlb_vmemmap.c: smp_wmb in split_vmemmap_huge_pmd and vmemmap_restore_pte",
        "derived: docs/memory-model.md",
    ],
    judged=["I21", "I22"],
    variants=[
        Variant("table", "violated", ("I21",), _TABLE, environment=_VIEWS),
        Variant("table-kernel", "safe", (), _BLOCKS, environment=_VIEWS),
        Variant("content", "violated", ("I22",), _CONTENT, arguments=_RESTORE, environment=_VIEWS),
        Variant("content-kernel", "safe", (), {}, arguments=_RESTORE, environment=_VIEWS),
    ],
)
def published_out_of_order(m: Setup, restore: bool = False) -> Sequence[Actor]:
    pair = Neighbours.of(m, "4K")
    if not restore:
        return [pair.hvo(), pair.reader()]
    pool = m.pmd_hugepage
    m.setup(*(pool.allocate(pfn) for pfn in pair.hugepages))
    return [Actor("HVO", [pool.free(pfn) for pfn in pair.hugepages]), pair.reader()]
