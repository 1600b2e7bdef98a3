"""R14, R15, R16: the mark by which everybody knows a HugeTLB page, taken off too early, not at all, too late.

R14, the mark goes before vmemmap is back:

==== ================================================ =============================================
step free (page optimised)                            memory failure of a tail
==== ================================================ =============================================
1    `remove_hugetlb_page`: mark off, under the lock
2    restores vmemmap, which may sleep: no lock
3                                                     no HugeTLB page: `SetPageHWPoison(tail)`
                                                      stores through the read-only tail
==== ================================================ =============================================

R15, the fix of R14 asked *before* the restore whether the page is optimised, to know afterwards whether the mark is
still to be taken off. The report has two freers that meet on one page. A dissolve, which restores the page itself
before it hands it over, needs no second one (derived): the flag is off when it is sampled, and the page leaves with its
mark. `folio_put` then calls `free_huge_folio` for a page that no pool has.

R16, with the mark tested itself, errors that were noted on the head moved to their pages *before* the mark was off:

==== ================================================ =============================================
step free                                             memory failure of a tail
==== ================================================ =============================================
1    restores vmemmap; moves errors noted so far
2                                                     still HugeTLB: noted on the head
3    mark off; frees
==== ================================================ =============================================

The raw page is never flagged. 6.1.192 and 6.12.117 have the last order: mark off, then move.

`alloc` is the other end of a page's life [derived, unpublished]: what memory failure found under hugetlb_lock, no
HugeTLB page, is stale when it stores. 6.1 optimises before it sets the mark, 6.12 after; either way the store may meet
a tail that has read-only in between (I8), or the old frame of the tail, through a translation not yet invalidated,
where the flag is lost (I28). It is not known to have been seen. A stress of `free` beside memory failure allocates the
page again between its rounds, and so meets the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import Neighbours
from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import Setup

_PAGES = {"mapping": "basepages"}
_EARLY = {**_PAGES, "dtor-clear": "before-restore"}
_SAMPLED = {**_PAGES, "dtor-clear": "sampled"}
_HWPOISON = {**_PAGES, "dtor-clear": "hwpoison-first"}

#: What `alloc` violates, in the rounds of a stress that frees.
REPEATED = ("I8", "I28")
_JUDGED = ["I3", "I8", "I13", "I25", "I28", "I29"]


def _actors(m: Setup, names: str) -> list[Actor]:
    """A pool with one optimised 2M page, unless it is yet to be allocated, and those who come to it."""
    pair = Neighbours.of(m, "4K")
    pool, head = m.pmd_hugepage, pair.hugepages[0]
    if "alloc" not in names:
        m.setup(pool.allocate(head))
    # The fourth page of the second tail vmemmap page: its descriptor is in a frame that HVO frees.
    tail = head + 2 * (m.granule // 64) + 3
    programs = {
        "alloc": Actor("HVO", [pool.allocate(head)]),
        "free": Actor("free", [pool.free(head)]),
        "bulk": Actor("bulk free", [pool.resize(0)]),
        "dissolve": Actor("dissolve", [m.dissolve(head)]),
        "failure": Actor("memory failure", [m.memory_failure(tail)]),
    }
    return [programs[name] for name in names.split()]


@scenario(
    title="memory failure beside a hugepage that leaves its pool, or enters it",
    corpus="R14",
    sources=[
        "32c877191e02 hugetlb: do not clear hugetlb dtor until allocating vmemmap",
        "derived: kernel-semantics §7.3, for `alloc`",
    ],
    judged=_JUDGED,
    variants=[
        *(
            Variant(f"kernel-{kernel}", "safe", (), _PAGES, kernel, repeated=REPEATED)
            for kernel in ("6.1", "6.12", "2021")
        ),
        Variant("before-restore-6.1", "violated", ("I8", "I29"), _EARLY, "6.1"),
        Variant("before-restore-6.12", "violated", ("I8", "I29"), _EARLY, "6.12"),
        Variant("kernel-bulk", "safe", (), _PAGES, "6.12", {"actors": "bulk failure"}),
        Variant("kernel-dissolve", "safe", (), _PAGES, "6.12", {"actors": "dissolve failure"}),
        Variant("alloc-6.1", "violated", ("I8", "I28"), _PAGES, "6.1", {"actors": "alloc failure"}),
        Variant("alloc-6.12", "violated", ("I8", "I28"), _PAGES, "6.12", {"actors": "alloc failure"}),
    ],
    kernels={"2021": "before-restore-6.1", "*": "kernel-6.12"},
)
def r14_hugetlb_mark(m: Setup, actors: str = "free failure") -> Sequence[Actor]:
    return _actors(m, actors)


@scenario(
    title="two freers of one hugepage, and whether its mark is still to be taken off",
    corpus="R15",
    sources=[
        "https://lore.kernel.org/all/20240419085819.1901645-1-linmiaohe@huawei.com/ (52ccdde16b65; Fixes: 32c877191e02)"
    ],
    judged=_JUDGED,
    variants=[
        Variant("kernel", "safe", (), _PAGES, "6.12"),
        Variant("sampled", "violated", ("I29",), _SAMPLED, "6.12"),
        Variant("sampled-alone", "violated", ("I29",), _SAMPLED, "6.12", {"actors": "dissolve"}),
        Variant("sampled-free", "safe", (), _SAMPLED, "6.12", {"actors": "free failure"}, repeated=REPEATED),
    ],
    kernels={"2021": Absent("the fix of R14, of which this is the fault, is not there yet"), "*": "kernel"},
)
def r15_sampled_flag(m: Setup, actors: str = "dissolve free") -> Sequence[Actor]:
    return _actors(m, actors)


@scenario(
    title="an error noted on a hugepage whose errors were moved already",
    corpus="R16",
    sources=["5596d9e8b553 mm/hugetlb: fix potential race in __update_and_free_hugetlb_folio()"],
    judged=_JUDGED,
    variants=[
        Variant("kernel", "safe", (), _PAGES, "6.12", repeated=REPEATED),
        Variant("hwpoison-first", "violated", ("I29",), _HWPOISON, "6.12"),
        Variant("hwpoison-first-6.1", "violated", ("I29",), _HWPOISON, "6.1"),
    ],
    kernels={"2021": Absent("no list of raw errors: memory failure marks the page itself"), "*": "kernel"},
)
def r16_hwpoison_moved(m: Setup, actors: str = "free failure") -> Sequence[Actor]:
    return _actors(m, actors)
