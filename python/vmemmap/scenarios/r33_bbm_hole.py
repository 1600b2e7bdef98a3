"""R33: the hole of break-before-make is taken for an empty table by hot remove.

==== ================================== ==================================================
step HVO                                hot remove of the only other section under table X
==== ================================== ==================================================
1    clears its entries in X (break)
2                                       scans X: all none (it takes no lock)
3    writes its entries into X (make)
4                                       clears the entry above, TLBI, frees X
5    the VAs of A are unmapped, X is
     somebody else's
==== ================================== ==================================================

4K: X is the PMD table, one entry is enough: a *split* by break-before-make loses it whatever the kernel behaviour.
16K, 64K: X is a PTE table and all entries of A must be none, one after the other, while the scan passes. 2021 and 6.1
never touch a hugepage's first entry, so the scan always meets it; 6.12 moves the head as well and loses the table.
Faults of proposed schemes: no arm64 kernel shipped break-before-make or a clear entry for HVO. What arm64 could select
from v5.19 until 060a2c92d1b6 was the exchange in one store, see R3.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import Neighbours
from ..lab.scenario import Absent, Actor, Expect, Variant, scenario
from ..lab.setup import Setup

_LOST = ("I6",)
#: The table may be unlinked while it is empty, too (two switches): then HVO itself writes into a freed table.
_LOST_OR_WALKED = ("I6", "I1")
#: With four hugepages (16K) the other three are set again by the time the last is none, and the table is never empty.
_FALL = {"64K": _LOST_OR_WALKED, "16K": _LOST}


def _variants() -> list[Variant]:
    split_outcomes: list[tuple[str, Expect, tuple[str, ...]]] = [
        ("bbm", "violated", _LOST_OR_WALKED),
        ("store", "safe", ()),
    ]
    splits = [
        Variant(
            f"4k-split-{split}-{kernel}",
            expect,
            violated,
            {"split": split, "mapping": "blocks"},
            kernel,
            {"granule": "4K"},
        )
        for split, expect, violated in split_outcomes
        for kernel in ("6.1", "2021", "6.12")
    ]
    updates = [
        Variant(
            f"{granule.lower()}-{update}-{kernel}",
            "violated" if kernel == "6.12" else "safe",
            _FALL[granule] if kernel == "6.12" else (),
            {"update": update},
            kernel,
            {"granule": granule},
        )
        for granule in ("64K", "16K")
        for update in ("clear-then-set", "bbm")
        for kernel in ("6.12", "6.1", "2021")
    ]
    holes = [
        Variant(
            f"64k-{update}-{kernel}-reader",
            "violated",
            ("I2",),
            {"update": update},
            kernel,
            {"granule": "64K", "reader": True},
        )
        for update in ("clear-then-set", "bbm")
        for kernel in ("6.1", "2021")
    ]
    return [*splits, *updates, *holes]


@scenario(
    title="the hole of break-before-make makes a table in use look empty to hot remove",
    corpus="R33",
    sources=[
        (
            "https://lore.kernel.org/all/b8cdc9c8-853c-8392-a2fa-4f1a8f02057a@arm.com/ (condition 2 of D. "
            "Hildenbrand, 21 May 2021)"
        ),
        "derived: kernel-semantics §4.4, §4.6",
    ],
    judged=["I1", "I2", "I5", "I6"],
    variants=_variants(),
    kernels={"*": Absent("no kernel changes an entry by break-before-make; one store is R32")},
)
def r33_bbm_hole(m: Setup, granule: str = "4K", reader: bool = False) -> Sequence[Actor]:
    pair = Neighbours.of(m, granule)
    return [pair.hvo(), pair.hot_remove(), *([pair.reader()] if reader else [])]
