"""R44: a dissolved page is counted off as a persistent one, whatever the pool has.

6.1 removes the page with "not surplus" and lowers max_huge_pages; 6.12.113 uses up a surplus page first, keeps
max_huge_pages then, and undoes it the same way if the restore fails.

==== ====================================== ==========================================
step ``echo 0 > nr_hugepages``              dissolve (offline, memory failure)
==== ====================================== ==========================================
1    off the pool; restore: -ENOMEM;
     back as a *surplus* page, which is free
2                                           off the pool, surplus stays: nr 0, surplus 1
==== ====================================== ==========================================

Derived by hand:

* As 6.1 has it (``surplus-kept``): more surplus pages than pages; nr - surplus wraps, I24.
* 6.1 as modelled counts the last page off as surplus when all are (the model's own repair, docs/limits.md): safe.
* 6.12, 7.2 and 7.3: the surplus page is used up, safe. If it is the dissolve's own restore that fails, the page and
  both counters come back as they were: safe.

Only one allocation fails, any one. With several nodes it takes no failure: a node's surplus page in use and its
persistent page free are enough; the lab has one node.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_ONE = {"alloc_failures": 1}


@scenario(
    title="a dissolve takes a surplus page for a persistent one",
    corpus="R44",
    sources=["dissolve_free_hugetlb_folio (mm/hugetlb.c), 6.12.113 against 6.1.192"],
    judged=["I13", "I24"],
    variants=[
        Variant("6.1-as-read", "violated", ("I24",), {"mutant": "surplus-kept"}, "6.1", {}, _ONE),
        *(Variant(kernel, "safe", (), {}, kernel, {}, _ONE) for kernel in ("6.1", "6.12", "7.2", "7.3")),
    ],
    kernels={"2021": "6.1-as-read", "6.1": "6.1-as-read", "7.2": "7.2", "7.3": "7.3", "*": "6.12"},
)
def r44_dissolve_beside_surplus(m: Setup) -> Sequence[Actor]:
    block = hugepage_block(m)
    pool, head = m.pmd_hugepage, m.pfn(block.start)
    m.setup(pool.allocate(head))
    return [
        Actor("resize", [pool.resize(0), m.actor_done()]),
        Actor("dissolve", [m.dissolve(head), m.actor_done()]),
        Actor("at rest", [pool.at_rest(2)]),
    ]
