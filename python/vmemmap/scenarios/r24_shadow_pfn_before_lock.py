"""R24: KASAN frees the shadow page that it saw before it took the lock.

==== ===================================== ==========================================
step `kasan_depopulate_vmalloc_pte`        another area with the same shadow page
==== ===================================== ==========================================
1    reads the entry: page P
2                                          depopulates: clears the entry, frees P
3                                          populates: the entry maps page Q
4    takes the lock; the entry is not none:
     clears it, frees P
==== ===================================== ==========================================

P is freed twice and Q is lost. The fix reads the entry under the lock (A. Gordeev, 2025; in 7.x, in neither 6.1.192 nor
6.12.117).

Derived by hand: `snapshot` falls by I13 in step 4, whatever page Q is: were it P again, the frame that is freed is the
one in use. `locked` is safe. The test for none under the lock, which the old code has, covers the case without step 3
(`snapshot-two-freers`, safe): it takes a new page in between. Populate's own first test, outside the lock, is made
again under it: harmless in all variants.

The caller flushes after all pages of an area are freed, in every kernel; that the page is free while a translation to
it may be cached is filled in the column of I4, and not judged here.

What kind of statement this is: an interleaving of generic code, over a PTE table of the vmalloc region in the place of
the shadow's. Both areas must share the page of the shadow, which stands for 8 pages of memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup
from ..lab.steps import Operation

_TWICE = ("I13",)
_OLD = {"kasan": "snapshot"}


@scenario(
    title="a KASAN shadow page is freed by a PFN that was read before the lock",
    corpus="R24",
    sources=["A. Gordeev, 2025-08-18: mm/kasan: fix vmalloc shadow depopulation, avoid a stale PFN"],
    judged=["I3", "I13", "I25"],
    variants=[
        Variant("snapshot", "violated", _TWICE, _OLD),
        Variant("snapshot-two-freers", "safe", (), _OLD, arguments={"again": False}),
        Variant("locked", "safe"),
        Variant("locked-7.3", "safe", kernel="7.3"),
    ],
    kernels={"7.2": "locked-7.3", "7.3": "locked-7.3", "*": "snapshot"},
)
def r24_shadow_pfn_before_lock(m: Setup, again: bool = True) -> Sequence[Actor]:
    m.configure()
    populate, depopulate = Operation("kasan_populate", {"page": 0}), Operation("kasan_depopulate", {"page": 0})
    m.setup(populate)
    m.scope(window="one PTE table of vmalloc, one entry of it: the shadow page that two areas share")
    return [Actor("vfree", [depopulate]), Actor("another area", [depopulate, *([populate] if again else [])])]
