"""R19: a section's `page_ext` is used after the offline has freed it.

==== ===================================== ==========================================
step page_owner                            offline: `offline_page_ext`
==== ===================================== ==========================================
1    `lookup_page_ext`: there
2                                          frees the section's table of them
3    reads it
==== ===================================== ==========================================

b1d5488a252d (6.1) gave it a life: readers take it up and put it back in an RCU section (`page_ext_get`,
`page_ext_put`); the offline marks it invalid, waits a grace period, frees.

Derived by hand, of the three parts:

* none (`no-rcu`): I3.
* readers' section and the grace period, no mark (`no-invalidate`): a reader may come in after the wait and before the
  free, so I3 again: the wait covers those who came before it.
* readers' section and the mark, no wait (`no-grace`): a reader that looked before the mark is not waited for: I3.
* all three: safe.

What kind of statement this is: fixed in 6.1.192, 6.12.117 and 7.x; 2021 is without. Of page_ext there is the lifetime
alone, of the offline the one notifier. I3 stands for what it says of frames: the table is memory of the allocator's.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import lone_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup
from ..lab.steps import Operation

_FREED = ("I3",)


@scenario(
    title="page_ext of a section that goes offline, and a reader of it",
    corpus="R19",
    sources=["b1d5488a252d mm: fix use-after free of page_ext after race with memory-offline (C. T. Kalla, 2022)"],
    judged=["I3", "I25"],
    variants=[
        Variant("no-rcu", "violated", _FREED, {"page-ext": "no-rcu"}),
        Variant("no-invalidate", "violated", _FREED, {"page-ext": "no-invalidate"}),
        Variant("no-grace", "violated", _FREED, {"page-ext": "no-grace"}),
        Variant("kernel", "safe"),
    ],
    kernels={"2021": "no-rcu", "*": "kernel"},
)
def r19_page_ext_after_offline(m: Setup) -> Sequence[Actor]:
    block = lone_block(m, "4K")
    return [
        Actor("page_owner", [Operation("page_ext_get", {"pfn": m.pfn(block.start)})]),
        Actor("offline", [Operation("offline_page_ext", {"start": block.start})]),
    ]
