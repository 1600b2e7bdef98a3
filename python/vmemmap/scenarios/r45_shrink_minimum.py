"""R45: which pages a shrink keeps, of a pool with surplus pages.

``echo count > nr_hugepages`` frees pages while ``min_count < persistent``, persistent = nr - surplus:

================= ============================================== ===============================
rule              min_count = max(count, ...)                    who
================= ============================================== ===============================
all-in-use        resv + nr - free                               2021, 6.1, 6.12
persistent-in-use resv + persistent - pf; pf = free, or (free    7.2, 7.3
                  more than persistent) free - surplus, at least 0
one-word          resv + persistent - free                       nobody; the obvious repair
================= ============================================== ===============================

Derived by hand, before any search. What must hold is free ≥ resv when the loop ends (I24). It frees
n = persistent - min_count pages, so free ≥ resv afterwards exactly if min_count ≥ resv + persistent - free.

* all-in-use is larger by the surplus: safe, and too careful. With surplus pages in use it keeps as many free pages,
  relabels them surplus, and they stay allocated (``in-use``).
* persistent-in-use is never smaller than the bound, since pf ≤ free: safe.
* one-word *is* the bound, as long as it does not wrap: safe. It is below zero if more than resv + persistent pages are
  free, which takes free surplus pages, as failed restores leave them. An unsigned long wraps to a huge minimum: nothing
  is freed at all, and every page is relabelled: useless, and safe. Read as a signed number it is count, and
  n = persistent < free - resv: safe again.

So the comment of 7.x, that free surplus pages would be "subtracted twice", is true and harms no reservation. (The
design text of this corpus called one-word unsafe, reserved pages could go. It is not: the derivation above, and the
searches below, which let any two restores fail.) What distinguishes the rules is how many pages they give back:
`rust/kernel/tests/pool_rules.rs` has the figures.

``free-surplus``: four pages, two reserved; two resizes, of which restores fail, while somebody takes and gives back a
page; then everybody's reservations must be there.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_RULES = ("all-in-use", "persistent-in-use", "one-word")
_TWO = {"alloc_failures": 2}


@scenario(
    title="a shrink beside surplus pages, in use and free: three rules for what it keeps",
    corpus="R45",
    sources=["set_max_huge_pages (mm/hugetlb.c): min_count in 6.12.117 and in 7.2.13, 7.3.4"],
    judged=["I13", "I24"],
    variants=[
        *(Variant(f"in-use-{kernel}", "safe", (), {}, kernel, {"what": "in-use"}) for kernel in ("6.12", "7.3")),
        *(
            Variant(f"in-use-{rule}", "safe", (), {"shrink-minimum": rule}, "7.3", {"what": "in-use"})
            for rule in _RULES
        ),
        *(Variant(f"free-surplus-{rule}", "safe", (), {"shrink-minimum": rule}, "7.3", {}, _TWO) for rule in _RULES),
        Variant("free-surplus-6.12", "safe", (), {}, "6.12", {}, _TWO),
    ],
    kernels={"7.2": "in-use-7.3", "7.3": "in-use-7.3", "*": "in-use-6.12"},
)
def r45_shrink_minimum(m: Setup, what: str = "free-surplus") -> Sequence[Actor]:
    block = hugepage_block(m)
    pool, first = m.pmd_hugepage, m.pfn(block.start)
    pages = pool.size // m.granule
    rest = Actor("at rest", [pool.at_rest(2)])
    if what == "in-use":
        # A surplus page in use; two free pages that came in otherwise, as demoted ones do.
        m.setup(pool.overcommit(1), pool.get())
        m.setup(*(pool.allocate(first + n * pages) for n in (2, 3)))
        return [
            Actor("resize", [pool.resize(0), m.actor_done()]),
            Actor("reserve", [pool.reserve(1), m.actor_done()]),
            rest,
        ]
    m.setup(*(pool.allocate(first + n * pages) for n in range(4)), pool.reserve(2))
    return [
        Actor("resize", [pool.resize(2), pool.resize(0), m.actor_done()]),
        Actor("user", [pool.use(), m.actor_done()]),
        rest,
    ]
