"""R12: the split of a vmemmap block reads the entry again, without the lock, and finds the other splitter's table.

==== ===================================== ==========================================
step HVO of one hugepage                   HVO of another in the same 2 MiB of vmemmap
==== ===================================== ==========================================
1    under `page_table_lock`: a block
2                                          splits it: the entry links PTE table X
3    `pmd_page(*pmd)`, unlocked: X
4    fills its own table with the frames
     X, X + 1, …
5    under the lock: no block any more;
     the table is dropped
==== ===================================== ==========================================

Nothing of the table filled in step 4 is ever reachable: the test of step 5 saves it. What is wrong is that `set_pte_at`
is given a struct page that is none, which "may crash the kernel" if it looks there (3ce2c24cb68f, with
CONFIG_PAGE_TABLE_CHECK as the example). The model says so where the page is taken: the flag that was tested (is it a
block?) no longer describes the entry that is used, I29. The fix reads the block's first page under the same lock as the
test. Both trees have it; what differs in 6.12 (the head moves too) comes after the split, and two such actors are more
than is searched in a moment.

The twin without the second test (``no-retest``) shows what that test is worth: both splits publish (I20).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import Setup

_BLOCKS = {"mapping": "blocks"}
_UNLOCKED = {**_BLOCKS, "split-read": "unlocked"}


@scenario(
    title="two splits of one vmemmap block, the first page read outside page_table_lock",
    corpus="R12",
    sources=[
        "3ce2c24cb68f mm: hugetlb_vmemmap: fix a race between vmemmap pmd split",
        "https://lore.kernel.org/all/20230707033859.16148-1-songmuchun@bytedance.com/ (M. Song)",
    ],
    judged=["I1", "I20", "I21", "I29"],
    variants=[
        Variant("unlocked", "violated", ("I29",), _UNLOCKED),
        Variant("6.1", "safe", (), _BLOCKS),
        Variant("no-retest", "violated", ("I20",), {**_BLOCKS, "mutant": "split-no-retest"}),
    ],
    kernels={
        "2021": Absent("with HVO on, vmemmap is populated by base pages: nothing is split"),
        "*": "6.1",
    },
)
def r12_pmd_split(m: Setup) -> Sequence[Actor]:
    block = hugepage_block(m, split=True)
    pool = m.pmd_hugepage
    first = m.pfn(block.start)
    return [Actor("HVO", [pool.allocate(first)]), Actor("HVO 2", [pool.allocate(first + pool.size // m.granule)])]
