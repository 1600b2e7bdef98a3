"""R40: a hot remove that meets one optimised page frees the tail frame of its whole zone.

A mutation: it takes a kernel whose offline neither dissolves nor migrates (I14 broken, ``offline-keeps-huge``), and
asks how far the damage goes.

==== ============================================== ===============================================
step hot remove of block A, with an optimised page  a PFN walker in block B, another optimised page
==== ============================================== ===============================================
1    entry 0: H of A's page, writable: freed
2    entry 1: read-only, the zone's T: cleared,
     flushed, and T is *freed* (its count is one,
     whatever number of entries map it)
3    entries 2 to 7: T is freed again, six times
4                                                   a tail of B's page: read through T, which is
                                                    the allocator's
==== ============================================== ===============================================

Judged is I3 by what an access meets (the oracle that counts accesses only): who else is hit. I13 and I14 fall in
whatever meets the page, and are in the columns. Derived by hand:

* 7.2 and 7.3: step 3 is I13 (a frame freed seven times), step 4 is I3: the walker of a page that nobody touched. With
  one hugepage size in a zone, *every* optimised page of it is hit.
* 6.12: the tails of A's page map A's own copy H. Step 2 frees H a second time: I13, and nobody else maps it: the
  walker in B is safe. Milder, not right.
* B in another zone has another tail frame: the walker is safe (``other-zone``), all the rest as above.
* 7.3 as it is: offline dissolves A's page first, nothing falls.
* The naive guard, hot remove that leaves the frames of read-only entries alone: T survives, the walker is safe. The
  offline is wrong all the same: I14 falls, and is told.

Scope: 64K pages, one 512M page a block; a seeded fault over code that no arm64 kernel selects.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import DRAM, SECTION_SIZE, Setup

_KEEPS = {"mutant": "offline-keeps-huge"}
_ACCESSES = {"oracle": "observed"}


@scenario(
    title="one optimised page left in a removed block frees the tail frame of its zone",
    corpus="R40",
    sources=["derived: vmemmap_get_tail (mm/hugetlb_vmemmap.c), unmap_hotplug_pte_range (arch/arm64/mm/mmu.c)"],
    judged=["I3"],
    variants=[
        Variant("7.3-keeps-huge", "violated", ("I3", "I13"), _KEEPS, "7.3", {}, _ACCESSES),
        Variant("7.2-keeps-huge", "violated", ("I3", "I13"), _KEEPS, "7.2", {}, _ACCESSES),
        Variant("6.12-keeps-huge", "safe", (), _KEEPS, "6.12", {}, _ACCESSES),
        Variant("7.3-other-zone", "safe", (), _KEEPS, "7.3", {"zone": "normal"}, _ACCESSES),
        Variant("7.3", "safe", (), {}, "7.3", {}, _ACCESSES),
        Variant("7.3-read-only-kept", "safe", (), {**_KEEPS, "removed-tail": "kept"}, "7.3", {}, _ACCESSES),
    ],
    kernels={"*": "7.3"},
)
def r40_zone_tail_freed(m: Setup, zone: str = "movable") -> Sequence[Actor]:
    m.policies = {"linear-map": "blocks", **m.policies}
    m.configure(granule="64K", hotplug=[(DRAM + (512 << 30), 4 * SECTION_SIZE[65536])])
    a, b = m.memory.add(), m.memory.add()
    pool = m.pmd_hugepage
    m.setup(a, m.memory.online(a), b, m.memory.online(b, zone=zone))
    m.setup(pool.allocate(m.pfn(a.start)), pool.allocate(m.pfn(b.start)))
    m.scope(
        window="512G of RAM share the PTE table: A (removed) and B, an optimised page each, nothing else",
        machine="linear map of hot-added memory in blocks",
    )
    return [
        Actor("hot remove", [m.memory.offline(a), m.memory.remove(a)]),
        Actor("PFN walker", [m.tail_walk(b)]),
    ]
