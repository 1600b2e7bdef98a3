"""R26: two hugepages are the first of their size in a zone, and both make its tail frame.

==== ===================================== ==========================================
step HVO                                   HVO 2
==== ===================================== ==========================================
1    `zone->vmemmap_tails[order]`: none
2                                          none
3    fills frame T, publishes it
4                                          fills frame U, publishes it
==== ===================================== ==========================================

7.1 publishes by a compare-and-exchange against none, without a lock: who loses frees its frame and takes the other's.
By a plain store the second one overwrites T: the tails of the first page map a frame that the zone does not know.

Derived by hand: `store` I13, T has an owner in the tables and none in the zone. A second look before the store
(`checked-store`) leaves the same race, between that look and the store: I13. Look and store under one lock (`locked`):
safe, at a lock for each first page of a size. `cmpxchg`: safe. All tails stay right in every variant: T's and U's words
are equal, so nobody would notice but who counts frames.

What kind of statement this is: a mutation of 7.x, whose review went from a plain store (v2) to cmpxchg (v5); no kernel
shipped the fault.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import Setup

_LOST = ("I13",)
_NO_ZONE_TAIL = Absent("tails share a frame of their own page; a zone has none before 7.1")


@scenario(
    title="two optimised pages make the shared tail frame of their zone at once",
    corpus="R26",
    sources=[
        "https://lore.kernel.org/all/20260227194302.274384-1-kas@kernel.org/ (K. Shutsemau, v7; changelog since v2)",
        "mm/hugetlb_vmemmap.c of 7.3.4: vmemmap_get_tail",
    ],
    judged=["I3", "I8", "I13"],
    variants=[
        Variant("store", "violated", _LOST, {"tail-publish": "store"}, "7.3"),
        Variant("checked-store", "violated", _LOST, {"tail-publish": "checked-store"}, "7.3"),
        Variant("locked", "safe", (), {"tail-publish": "locked"}, "7.3"),
        Variant("7.3", "safe", kernel="7.3"),
        Variant("7.2", "safe", kernel="7.2"),
    ],
    kernels={"7.2": "7.2", "7.3": "7.3", "*": _NO_ZONE_TAIL},
)
def r26_two_makers_of_a_zone_tail(m: Setup) -> Sequence[Actor]:
    block = hugepage_block(m)
    pool = m.pmd_hugepage
    first = m.pfn(block.start)
    return [Actor("HVO", [pool.allocate(first)]), Actor("HVO 2", [pool.allocate(first + pool.size // m.granule)])]
