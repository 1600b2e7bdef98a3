"""R43: a surplus page is in `nr_huge_pages` before it is in `surplus_huge_pages`.

==== ===================================== ==========================================
step reserve one page more than are free   ``echo 1 > nr_hugepages``
==== ===================================== ==========================================
1    a fresh page; lock; nr := 2; unlock
2                                          persistent = nr - surplus = 2, one too many:
                                           frees the free page; nr := 1; max := 1
3    lock; surplus := 1; unlock
==== ===================================== ==========================================

At rest: one page, which is surplus, so none persistent, and max_huge_pages says one (I24).

Derived by hand:

* 2021, 6.1, 6.12: two cycles of hugetlb_lock, violated. 7.2 and 7.3: one cycle, in which the limit is tested too: safe.
* The order turned round (surplus first): between the two cycles there is one persistent page too few. The resize sees
  none where it wants one, and takes the surplus page for it (``surplus := 0``, the loop at its start); then nr is
  raised: two persistent pages where max_huge_pages says one or none (I24): violated.

In step 2 the free page must not be reserved, so the first actor's own reservation comes last, as in
`gather_surplus_pages`. The pages are 64K hugepages: nothing is optimised, and only counters are at stake.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_COUNTERS = ("I24",)


@scenario(
    title="a surplus page counted in two cycles of hugetlb_lock, beside a resize",
    corpus="R43",
    sources=["alloc_surplus_hugetlb_folio (mm/hugetlb.c), v7.1 against 6.12.117"],
    judged=["I13", "I24"],
    variants=[
        *(Variant(kernel, "violated", _COUNTERS, {}, kernel) for kernel in ("6.12", "6.1", "2021")),
        *(Variant(kernel, "safe", (), {}, kernel) for kernel in ("7.2", "7.3")),
        Variant("6.12-at-once", "safe", (), {"surplus-count": "at-once"}, "6.12"),
        Variant("7.3-surplus-first", "violated", _COUNTERS, {"surplus-count": "surplus-first"}, "7.3"),
    ],
    kernels={"2021": "2021", "6.1": "6.1", "7.2": "7.2", "7.3": "7.3", "*": "6.12"},
)
def r43_surplus_in_two_cycles(m: Setup) -> Sequence[Actor]:
    block = hugepage_block(m)
    pool = m.hugetlb["64K"]
    m.setup(pool.allocate(m.pfn(block.start)), pool.overcommit(1))
    return [
        Actor("reserve", [pool.reserve(2), m.actor_done()]),
        Actor("resize", [pool.resize(1), m.actor_done()]),
        Actor("at rest", [pool.at_rest(2)]),
    ]
