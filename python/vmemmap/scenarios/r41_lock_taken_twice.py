"""R41: memory failure drops a reference under hugetlb_lock, and it was the last one.

==== =========================================== ==================== ==========================
step memory failure                              user                 another reference (GUP)
==== =========================================== ==================== ==========================
1                                                                     takes one: count 2
2                                                unmaps: count 1
3    hugetlb_lock; takes a reference: count 2
4                                                                     drops it: count 1
5    the page is poisoned already (-EHWPOISON):
     `folio_put`, still under the lock: count 0
6    `free_huge_folio` takes hugetlb_lock: hangs
==== =========================================== ==================== ==========================

The fix (3c2d42b8ee34, 7.1; CVE-2026-53207; also 6.12.94 and 6.1.176) drops the lock first.

Derived by hand: with the put under the lock the schedule above ends in a CPU that waits for itself, I25. Put after the
unlock: in step 6 the lock is free, safe. Without the other reference (``no-gup``) the user's own drop is under the lock
in the model (docs/limits.md), so that it comes either before step 3, where the page is free and no reference is taken,
or after step 6, where memory failure's is not the last: safe, although the code is the broken one. Three actors are
needed here, in the kernel two.

What is modelled is `__get_huge_page_for_hwpoison` of a page in use that was marked before. All kernels that the lab has
contain the fix; the broken order is a policy.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import Setup

_UNDER_LOCK = {"hwpoison-put": "under-lock"}


@scenario(
    title="memory failure drops the last reference of a hugepage under the lock that frees it",
    corpus="R41",
    sources=["3c2d42b8ee34 (v7.1), CVE-2026-53207; in 6.12.94 and 6.1.176"],
    judged=["I13", "I25"],
    variants=[
        Variant("under-lock", "violated", ("I25",), _UNDER_LOCK, "7.3"),
        Variant("under-lock-6.1", "violated", ("I25",), _UNDER_LOCK, "6.1"),
        *(Variant(kernel, "safe", (), {}, kernel) for kernel in ("7.3", "6.12", "6.1")),
        Variant("under-lock-no-gup", "safe", (), _UNDER_LOCK, "7.3", {"gup": False}),
    ],
    kernels={
        "2021": Absent("memory failure takes no reference under hugetlb_lock yet (get_huge_page_for_hwpoison)"),
        "6.1": "6.1",
        "7.2": "7.3",
        "7.3": "7.3",
        "*": "6.12",
    },
)
def r41_lock_taken_twice(m: Setup, gup: bool = True) -> Sequence[Actor]:
    block = hugepage_block(m)
    # The smallest size owns no vmemmap page of its own: nothing is optimised, and only the lock is at stake.
    pool, head = m.hugetlb["64K"], m.pfn(block.start)
    m.setup(pool.allocate(head), pool.get(), m.memory_failure(head))
    actors = [
        Actor("memory failure", [m.get_huge_page_for_hwpoison(head)]),
        Actor("user", [pool.put(head)]),
    ]
    return [*actors, Actor("GUP", [m.speculative_ref(head)])] if gup else actors
