"""R35: a scan that is not atomic frees a table that was never empty.

==== ================================== =========================================
step HVO, entry by entry                hot remove of the neighbour under table X
==== ================================== =========================================
1    clears entry 0
2                                       reads entry 0: none
3    sets entry 0, clears entry 1
4                                       reads entry 1: none; … end: "all none"
5    sets entry 1
                                        clears the entry above, TLBI, frees X
6    stores into the freed table
==== ================================== =========================================

X holds live entries at every instant. Hence "some entry is always non-none" protects nothing; one *fixed* entry does
(the first of each hugepage under 2021 and 6.1), and so does an exchange in one store.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import Neighbours
from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import Setup

_LOST = ("I6",)


def _variants() -> list[Variant]:
    each = [
        Variant(
            f"{granule.lower()}-{update}-{kernel}",
            "violated" if kernel == "6.12" else "safe",
            _LOST if kernel == "6.12" else (),
            {"update": update},
            kernel,
            {"granule": granule},
        )
        for granule in ("64K", "16K")
        for update in ("clear-then-set-each", "bbm-each")
        for kernel in ("6.12", "6.1", "2021")
    ]
    store = Variant("64k-store-6.12", "safe", (), {"update": "store"}, "6.12", {"granule": "64K"})
    third = Variant(
        "64k-third-live", "safe", (), {"update": "clear-then-set-each"}, "6.12", {"granule": "64K", "also_live": True}
    )
    return [*each, store, third]


@scenario(
    title="hot remove's scan of a table frees it although it was never empty",
    corpus="R35",
    sources=["derived, found by model checking: kernel-semantics §4.4 step 3, §4.6"],
    judged=["I1", "I5", "I6"],
    variants=_variants(),
    kernels={"*": Absent("no kernel clears entries before it sets them; one store is R32")},
)
def r35_scan_not_atomic(m: Setup, granule: str = "64K", also_live: bool = False) -> Sequence[Actor]:
    pair = Neighbours.of(m, granule, also_live=also_live)
    return [pair.hvo(), pair.hot_remove()]
