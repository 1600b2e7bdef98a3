"""R3: a live vmemmap entry changes its output address without break-before-make.

==== ==================================== =============================================
step HVO                                  reader
==== ==================================== =============================================
1                                         TLB holds tail page 3: read-write, frame P3
2    stores the entry: read-only, P0
3                                         a walk finds a second entry for the same VA
4                                         a load may take bytes of P3 and of P0, or abort
5    TLBI; P3 is freed
==== ==================================== =============================================

The reason why arm64, which could select HVO from v5.19, switched it off in early 2023 (060a2c92d1b6; stable 6.1.16 and
6.2.3). I19 is judged at the write, since break-before-make is an obligation of the writer: no schedule avoids it. A
break-before-make that nobody protects trades it for a hole (I2).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import Neighbours
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_PAGES = {"mapping": "basepages"}


@scenario(
    title="HVO exchanges live vmemmap entries without break-before-make",
    corpus="R3",
    sources=[
        "060a2c92d1b6 arm64: mm: hugetlb: disable HUGETLB_PAGE_OPTIMIZE_VMEMMAP",
        "Arm ARM (DDI 0487), RWHZWS, RFVQCK, ITHWDH: using break-before-make when updating translation table entries",
    ],
    judged=["I2", "I19"],
    variants=[
        Variant("store", "violated", ("I19",), {**_PAGES, "update": "store"}),
        Variant("swap", "violated", ("I19",), {**_PAGES, "update": "swap"}),
        Variant("store-6.12", "violated", ("I19",), {**_PAGES, "update": "store"}, kernel="6.12"),
        Variant("clear-then-set", "violated", ("I19", "I2"), {**_PAGES, "update": "clear-then-set"}),
        Variant("bbm", "violated", ("I2",), {**_PAGES, "update": "bbm"}),
        Variant("bbm-no-reader", "safe", (), {**_PAGES, "update": "bbm"}, arguments={"reader": False}),
        Variant("split-store", "violated", ("I19",), {"split": "store"}),
    ],
    kernels={"*": "store"},
)
def r03_live_change_without_bbm(m: Setup, reader: bool = True) -> Sequence[Actor]:
    pair = Neighbours.of(m, "4K")
    return [pair.hvo(), *([pair.reader()] if reader else [])]
