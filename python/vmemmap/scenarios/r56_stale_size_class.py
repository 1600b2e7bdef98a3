"""R56: the size class of a hugepage is read under the lock and used in a later cycle of it.

==== ===================================== ==========================================
step contiguous allocation                 somebody else
==== ===================================== ==========================================
1    the page in the way is of the 2M pool
2    allocates a 2M page to take its place
3                                          frees the 2M page; a 64K page is made there
4    hugetlb_lock: a free page of a pool;
     takes it out of the *2M* pool
==== ===================================== ==========================================

Counters and lists of the 2M pool are charged with a page of the 64K pool. The fix reads the class at the moment of use,
under the lock (7.x; not in 6.1.192, 6.12.117).

Derived by hand: read before, I29: the class is what says which pool the page is of, and it was not tested in the
section that uses it. Read at use, safe.

What kind of statement this is: an interleaving of pool code; what follows for the counters is not searched, as the
model leaves the page alone once it has said so."""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup
from ..lab.steps import Operation

_OLD = {"hstate-read": "before"}


@scenario(
    title="a contiguous allocation replaces a hugepage that became one of another size",
    corpus="R56",
    sources=["mm/hugetlb.c of 7.3.4: isolate_or_dissolve_huge_folio, alloc_and_dissolve_hugetlb_folio"],
    judged=["I3", "I24", "I29"],
    variants=[
        Variant("before", "violated", ("I29",), _OLD),
        Variant("at-use", "safe", kernel="7.3"),
    ],
    kernels={"7.2": "at-use", "7.3": "at-use", "*": "before"},
)
def r56_stale_size_class(m: Setup) -> Sequence[Actor]:
    block = hugepage_block(m)
    small, large, head = m.hugetlb["64K"], m.pmd_hugepage, m.pfn(block.start)
    m.setup(m.set_hvo(False), large.allocate(head))
    return [
        Actor("alloc_contig", [Operation("isolate_or_dissolve", {"at": head})]),
        Actor("pools", [large.free(head), small.allocate(head)]),
    ]
