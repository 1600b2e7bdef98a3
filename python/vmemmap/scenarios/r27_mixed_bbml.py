"""R27: a block is split by one store while a CPU is online that does not allow it.

==== ========================================= =============================================
step boot CPU: HVO splits a live vmemmap block CPU that came online late
==== ========================================= =============================================
1                                              its TLB holds the block
2    one store: the block becomes a table of
     the same pages
3                                              a walk caches one of the pages; block and page
                                               together may abort, or be mixed
4    TLBI
==== ========================================= =============================================

What a store needs is decided by the weakest CPU that may hold the old entry. Kernels with BBML2_NOABORT split live
blocks of the *linear map* by one store where every CPU has it; where one lacks it they map by base pages, or do not
take the late CPU. None splits vmemmap on these grounds: HVO stands for the splitter here, its own entries changed by
break-before-make, so that nothing but the split is judged. Level 2 allows the store and does not exclude the conflict
abort, which is fatal to a kernel (`conflict: abort` makes it an outcome of the access): that is why the kernel asks for
NOABORT and not for level 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.description import Environment
from ..lab.neighbours import Neighbours
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import STRUCT_PAGE, Setup

_SPLIT = {"mapping": "blocks", "split": "store", "update": "bbm"}
_PAGES = {**_SPLIT, "mapping": "basepages"}


def _cpus(boot: str, late: str, *, abort: bool = False) -> Environment:
    return {"feat_bbm": [boot, late], **({"conflict": "abort"} if abort else {})}


def _variants() -> list[Variant]:
    levels = ("noabort", "2", "1", "0")
    matrix = [
        Variant(
            f"{boot}-{late}",
            "safe" if {boot, late} <= {"noabort", "2"} else "violated",
            () if {boot, late} <= {"noabort", "2"} else ("I19",),
            _SPLIT,
            environment=_cpus(boot, late),
        )
        for boot in levels
        for late in levels
    ]
    return [
        *matrix,
        Variant("noabort-2-abort", "violated", ("I19",), _SPLIT, environment=_cpus("noabort", "2", abort=True)),
        Variant("noabort-noabort-abort", "safe", (), _SPLIT, environment=_cpus("noabort", "noabort", abort=True)),
        Variant("noabort-0-basepages", "safe", (), _PAGES, environment=_cpus("noabort", "0")),
        Variant("noabort-0-refused", "safe", (), _SPLIT, arguments={"late": False}, environment=_cpus("noabort", "0")),
    ]


@scenario(
    title="a live block is split by one store while some CPU lacks BBML2_NOABORT",
    corpus="R27",
    sources=[
        "Arm ARM (DDI 0487), RWHZWS, RFVQCK; FEAT_BBM, ID_AA64MMFR2_EL1.BBM",
        "a166563e7ec3 arm64: linear map in blocks, split without break-before-make where all CPUs have BBML2_NOABORT",
    ],
    judged=["I19"],
    variants=_variants(),
    kernels={"*": "0-0"},
)
def r27_mixed_bbml(m: Setup, late: bool = True) -> Sequence[Actor]:
    pair = Neighbours.of(m, "4K")
    # Behind the first hugepage: in the same block, and never remapped.
    beyond = m.pfn(pair.a.start) + 8 * m.granule // STRUCT_PAGE
    walker = [Actor("late CPU", [m.pfn_walk(beyond, beyond + 1)])] if late else []
    return [pair.hvo(), *walker]
