"""R60: the veto of a removal that would split a leaf looks at tables without a lock (negative control).

==== ===================================== ==========================================
step offline of section B, 7.x             HVO in section A, next door
==== ===================================== ==========================================
1    `can_unmap_without_split`: walks to
     the end of B's range
2                                          rewrites, or clears and sets, entries there
3    reads an entry: a leaf, a table or none
==== ===================================== ==========================================

[derived] The range's end is the neighbour's first address: its block (4K) or its first PTE. Of what is read there only
"a leaf, and the address strictly inside it" leads to a veto. At a block's edge an address is aligned to any leaf that
HVO makes, so a table, a page, a block and none all say "no split", and none of them is followed once read.

Derived by hand: nothing falls, under one store, by break-before-make of the entries or of the block; what was read is
used as a number, and the one table that the walk descends by is that of A, which nobody frees (I1, I5 hold). Expected
safe throughout. What `offline` returns is the same in each, since no leaf is ever contiguous in vmemmap.

What kind of statement this is: a negative control; 7.x code, which only looks.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import Neighbours
from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import Setup

_NO_VETO = Absent("no veto of a removal that splits a leaf yet (95a58852b0e5)")


@scenario(
    title="the veto of a splitting removal walks while HVO rewrites the neighbour (negative control)",
    corpus="R60",
    sources=[
        "95a58852b0e5 arm64/mm: Reject memory removal that splits a kernel leaf mapping (v7.1)",
        "derived: arch/arm64/mm/mmu.c of 7.3.4, can_unmap_without_split",
    ],
    judged=["I1", "I5", "I6", "I25"],
    variants=[
        Variant("4k-store-7.3", "safe", kernel="7.3"),
        Variant("4k-store-7.2", "safe", kernel="7.2"),
        Variant("4k-split-bbm-7.3", "safe", (), {"split": "bbm"}, "7.3"),
        Variant("64k-store-7.3", "safe", kernel="7.3", arguments={"granule": "64K"}),
        Variant("64k-bbm-7.3", "safe", (), {"update": "bbm"}, "7.3", {"granule": "64K"}),
    ],
    kernels={"7.2": "4k-store-7.2", "7.3": "4k-store-7.3", "*": _NO_VETO},
)
def r60_split_veto_unlocked(m: Setup, granule: str = "4K") -> Sequence[Actor]:
    pair = Neighbours.of(m, granule)
    m.setup(m.memory.online(pair.b))
    return [pair.hvo(), Actor("offline", [m.memory.offline(pair.b)])]
