"""R31: the fix of R1 waits once for each page (a price, no race).

==== =============================================================================================
step a pool grows by n pages and shrinks again
==== =============================================================================================
1    bd225530a4c7: `synchronize_rcu` before the remap of each page, and before its restore: 2n grace periods
2    c2a967f6ab0e: once for a batch, before its first page; a page by itself still pays
==== =============================================================================================

Published: demoting 100 pages of 1G took 8m58s before the batch and 0.9 s after; -34.3 % in a robot's test; an s390
guest started in 50 s instead of 5.

Derived by hand: nothing is violated in any variant, one task and no reader: what differs is how many grace periods a
pool of n pages costs. n each way for `each-page`; one each way for `6.12`; none for `7.3`, which is what R36 says of
it. The grace periods are counted by ``vmemmap stress R31 --variant V`` (`grace_periods` of its counters), and the
counts are asserted in ``tests/scenarios/test_counts_and_outcomes.py``.

What kind of statement this is: cost alone. No time is claimed: what a grace period takes is the machine's.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import Setup

PAGES = 4
"""In the batch."""


@scenario(
    title="a grace period for each page, for a batch, or none (a price, no race)",
    corpus="R31",
    sources=[
        "bd225530a4c7 (waits), c2a967f6ab0e mm/hugetlb_vmemmap: batch the wait, none where HVO is off",
        "https://lore.kernel.org/all/202407091001.1250ad4a-oliver.sang@intel.com/ (-34.3 %)",
    ],
    judged=["I8", "I28"],
    variants=[
        Variant("each-page", "safe", (), {"remap-grace": "each-page"}, "6.12"),
        Variant("6.12", "safe", kernel="6.12"),
        Variant("7.3", "safe", kernel="7.3"),
    ],
    kernels={
        "2021": Absent("waits for nobody: R1"),
        "6.1": Absent("waits for nobody: R1"),
        "7.2": Absent("waits for nobody: R36"),
        "7.3": Absent("waits for nobody: R36"),
        "*": "6.12",
    },
)
def r31_price_of_the_wait(m: Setup) -> Sequence[Actor]:
    hugepage_block(m)
    return [Actor("pool", [m.pmd_hugepage.resize(PAGES), m.pmd_hugepage.resize(0)])]
