"""R30: /proc/kpageflags reads a compound page that is taken apart meanwhile.

==== ===================================== ==========================================
step `stable_page_flags` of a tail         free of the compound page
==== ===================================== ==========================================
1    reads the tail's word: its head is H
2                                          H and the tails become free pages
3    reads flags and order of H: no head;
     the pair is of no page that ever was
==== ===================================== ==========================================

Assertions about folios (`VM_BUG_ON_FOLIO`) then stop the kernel. `snapshot_page` (L. Capitulino, 2025; in 7.x, in
neither 6.1.192 nor 6.12.117) copies both struct pages, looks whether the copies belong together and whether the tail
still says the same, tries five times, and then shows the page by itself.

Derived by hand: `plain` I29, beside one free. To look the head up twice and compare (`twice`), without a look at the
copy, closes that, and not a free with a new allocation of the same page between the two looks (`twice-aba`, I29). The
copy validated as well, with the same two actors: safe.

What kind of statement this is: an interleaving of reads without a lock. The compound page is a 64K HugeTLB page; a THP
split is the report's. That a page is shown late, or not as part of a compound, is no fault here.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup
from ..lab.steps import Operation

_TORN = ("I29",)
_AGAIN = {"again": True}


@scenario(
    title="/proc/kpageflags of a compound page that is freed meanwhile",
    corpus="R30",
    sources=["https://lore.kernel.org/all/cover.1751914235.git.luizcap@redhat.com/ (L. Capitulino, snapshot_page, v2)"],
    judged=["I2", "I29"],
    variants=[
        Variant("plain", "violated", _TORN, {"snapshot": "plain"}),
        Variant("twice-aba", "violated", _TORN, {"snapshot": "twice"}, arguments=_AGAIN),
        Variant("validated", "safe", kernel="7.3"),
        Variant("validated-aba", "safe", kernel="7.3", arguments=_AGAIN),
    ],
    kernels={"7.2": "validated", "7.3": "validated", "*": "plain"},
)
def r30_torn_compound_page(m: Setup, again: bool = False) -> Sequence[Actor]:
    block = hugepage_block(m)
    pool, head = m.hugetlb["64K"], m.pfn(block.start)
    m.setup(pool.allocate(head))
    return [
        Actor("free", [pool.free(head), *([pool.allocate(head)] if again else [])]),
        Actor("kpageflags", [Operation("stable_page_flags", {"pfn": head + 3})]),
    ]
