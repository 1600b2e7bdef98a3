"""R46: a contiguous allocation asks whether its range is free before the deferred free of a hugepage has run.

==== ============================================================== ===========================
step `alloc_contig_range`                                           worker
==== ============================================================== ===========================
1    isolates the range; migrates the hugepage in use out of it
2    drops its last reference as in atomic context: the page is
     optimised, so that its restore is left to `free_hpage_work`
3    `test_pages_isolated`: a page that is not free: -EBUSY
4                                                                   restores and frees the page
==== ============================================================== ===========================

Nobody uses the page any more, its pool has counted it off, and the allocator does not have it: the state and what
describes it flip in two places (I29). It is a matter of liveness, not of memory: the allocation fails in vain, and who
tries again until it succeeds, as offlining does, spins until the worker has run.

Derived by hand: broken in 2021 and 6.1, and without any second actor: only that the worker has not run yet. 6.12.20 and
later wait for the deferred frees before the test: safe. To wait for them *before* the migration is of no use, since the
free that matters comes after it: violated. A page that is not optimised (``not-optimised``) is freed at once: safe
everywhere.

Scope: one hugepage; the lab's `alloc_contig` ends where the range is free, and takes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup


@scenario(
    title="a range is tested before the hugepage that was migrated out of it is freed",
    corpus="R46",
    sources=["mm/hugetlb: wait for hugetlb folios to be freed (v6.15; 6.12.20)"],
    judged=["I3", "I13", "I25", "I29"],
    variants=[
        *(Variant(kernel, "violated", ("I29",), {}, kernel) for kernel in ("6.1", "2021")),
        *(Variant(kernel, "safe", (), {}, kernel) for kernel in ("6.12", "7.2", "7.3")),
        Variant("7.3-at-once", "violated", ("I29",), {"isolated-test": "at-once"}, "7.3"),
        Variant("7.3-flush-first", "violated", ("I29",), {"isolated-test": "flush-first"}, "7.3"),
        Variant("6.1-after-flush", "safe", (), {"isolated-test": "after-flush"}, "6.1"),
        Variant("6.1-not-optimised", "safe", (), {}, "6.1", {"size": "64K"}),
    ],
    kernels={"2021": "2021", "6.1": "6.1", "7.2": "7.2", "7.3": "7.3", "*": "6.12"},
)
def r46_isolated_test_too_early(m: Setup, size: str = "2M") -> Sequence[Actor]:
    block = hugepage_block(m)
    pool, head = m.hugetlb[size], m.pfn(block.start)
    m.setup(pool.allocate(head), pool.get())
    return [Actor("alloc_contig", [m.alloc_contig(head)])]
