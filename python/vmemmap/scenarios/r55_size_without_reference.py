"""R55: an offline skips a hugepage by a size that it read without a reference.

==== ===================================== ==========================================
step `scan_movable_pages`                  free of the hugepage
==== ===================================== ==========================================
1    the page is of a hugepage, head H
2                                          H is a free page
3    order of H: 0; the page lies three
     pages behind H: skips 1 - 3 pages
==== ===================================== ==========================================

The scan goes back, or with another size beyond its end; pages are looked at twice, or missed. What is missed is found
by `test_pages_isolated`, which sends the offline round again: a wrong skip, not a lost page. 7.x looks whether the page
is inside what it is to skip, and where it takes a reference it takes it first.

Derived by hand: unchecked I29, the two reads are not of one page; checked, safe, with or without a larger page built in
the place of the first (`-grown`).

What kind of statement this is: an interleaving of reads without a lock; its effect is on the progress of an offline,
and what is said is that the size was not that page's."""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup
from ..lab.steps import Operation

_OTHER = ("I29",)
_UNCHECKED = {"scan-size": "unchecked"}
_GROWN = {"grown": True}


@scenario(
    title="scan_movable_pages skips by the size of a page that is freed meanwhile",
    corpus="R55",
    sources=["mm/memory_hotplug.c of 7.3.4: scan_movable_pages, do_migrate_range; not in 6.1.192, 6.12.117"],
    judged=["I2", "I29"],
    variants=[
        Variant("unchecked", "violated", _OTHER, _UNCHECKED),
        Variant("unchecked-grown", "violated", _OTHER, _UNCHECKED, arguments=_GROWN),
        Variant("checked", "safe", kernel="7.3"),
        Variant("checked-grown", "safe", kernel="7.3", arguments=_GROWN),
    ],
    kernels={"7.2": "checked", "7.3": "checked", "*": "unchecked"},
)
def r55_size_without_reference(m: Setup, grown: bool = False) -> Sequence[Actor]:
    block = hugepage_block(m)
    small, large, head = m.hugetlb["64K"], m.pmd_hugepage, m.pfn(block.start)
    m.setup(m.set_hvo(False), small.allocate(head))
    page = head + 3
    return [
        Actor("free", [small.free(head), *([large.allocate(head)] if grown else [])]),
        Actor("offline's scan", [Operation("scan_movable_pages", {"start": page, "end": page + 1})]),
    ]
