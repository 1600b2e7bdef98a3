"""R1: a speculative reference to a struct page that becomes a read-only tail.

==== ===================================== ==========================================
step HVO                                   `get_page_unless_zero(page1)`
==== ===================================== ==========================================
1    page1 is in use, with a count of one  loads the count: not zero
2    page1 is freed; a HugeTLB page is
     built over it, page1 is a tail
3    remaps the tails: read-only
4                                          compare-and-exchange: a store to read-only
                                           memory, whether or not it would succeed
==== ===================================== ==========================================

`atomic_fetch_add_unless` loads first and writes nothing if it finds zero, so what matters is which count the load sees.
It is not zero in two cases: the load came before the page was freed (``freed``), or the page is slot 0 of a tail
vmemmap page, whose count reads as the head's, and the hugepage is in use (``in-use``). In the second case the call
needs no race at all; what keeps callers from making it are their own tests (`PageLRU`, `PageHuge`), which are not in
the model: what is shown there is what `page_ref_add_unless` itself does when it is asked.

The fix (bd225530a4c7, v6.10) has three parts: an RCU read section around test and exchange; no exchange on a fake head;
and `synchronize_rcu` between the freeze and the remap, so that whoever saw a count before has done its exchange. Each
part alone is not enough: the section without the fake-head test leaves ``in-use``, the tests without the grace period
leave ``freed``. A hugepage that is in use *again* while the walker is between its tests is R2. 6.1 has none of the
three.

Page1 is here a 64K HugeTLB page, the kind of page with references that the model has; in the report it is an LRU folio.
Of either only the count matters, and that it goes back to the page allocator.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_STORE = ("I8",)
_IN_USE = {"page": "in-use"}
_SLOT_0 = {"slot": 0}


@scenario(
    title="a speculative reference is taken to a struct page that HVO makes read-only",
    corpus="R1",
    sources=[
        "bd225530a4c7 mm/hugetlb_vmemmap: fix race with speculative PFN walkers (v6.10)",
        "https://lore.kernel.org/all/20240627222705.2974207-1-yuzhao@google.com/ (Yu Zhao, v2)",
    ],
    judged=["I8"],
    variants=[
        Variant("6.1", "violated", _STORE),
        Variant("2021", "violated", _STORE, kernel="2021"),
        Variant("6.1-in-use", "violated", _STORE, arguments=_IN_USE),
        Variant("6.12", "safe", kernel="6.12"),
        Variant("6.12-slot-0", "safe", kernel="6.12", arguments=_SLOT_0),
        Variant("6.12-in-use", "safe", kernel="6.12", arguments=_IN_USE),
        Variant("6.1-backport", "safe", (), {"page-ref": "fake-head-first", "remap-grace": "synchronize-rcu"}),
        Variant("no-fake-head-test", "violated", _STORE, {"page-ref": "rcu"}, "6.12", _IN_USE),
        Variant("no-fake-head-test-freed", "safe", (), {"page-ref": "rcu"}, "6.12"),
        Variant("no-grace-period", "violated", _STORE, {"remap-grace": "none"}, "6.12"),
        Variant("no-rcu-section", "violated", _STORE, {"page-ref": "plain"}, "6.12"),
    ],
    kernels={"2021": "2021", "6.12": "6.12", "6.12.117": "6.12", "*": "6.1"},
)
def r01_speculative_ref(m: Setup, page: str = "freed", slot: int = 16) -> Sequence[Actor]:
    block = hugepage_block(m)
    head = m.pfn(block.start)
    large = m.pmd_hugepage
    per_page = m.granule // 64
    if page == "in-use":
        # Its vmemmap is remapped and its head referenced before anybody looks; it is given back beside the walker.
        m.setup(large.allocate(head), large.get())
        return [
            Actor("HVO", [large.put(head), large.free(head)]),
            Actor("speculative reference", [m.speculative_ref(head + 3 * per_page)]),
        ]
    small = m.hugetlb["64K"]
    page1 = head + 3 * per_page + slot
    m.setup(small.allocate(page1), small.get())
    return [
        Actor("HVO", [small.put(page1), small.free(page1), large.allocate(head)]),
        Actor("speculative reference", [m.speculative_ref(page1)]),
    ]
