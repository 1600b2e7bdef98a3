"""R21: a contiguous range of the linear map survives a flush that goes entry by entry.

==== ======================================= ===============================================
step hot remove, linear map of the block     a CPU, by itself
==== ======================================= ===============================================
1    clears entry 0, TLBI of its address
2                                            walks entry 1, which is live with the Contiguous
                                             bit: may cache all entries of the set, singly
3    clears entry 1, TLBI of its address:
     the new entry for address 0 stays
4    ... the memory leaves the machine; address 0 still translates to it
==== ======================================= ===============================================

Found by inspection and called hypothetical by its fix. Before 48478b9f7913 `unmap_hotplug_range` flushed one page after
each entry it cleared, for the linear map too; since then it clears all and flushes the range once, which 6.1.192 and
6.12.117 have (`linear-flush=range`). vmemmap itself has no contiguous entries. A section of a 4K machine has four sets
of PMD blocks (`linear-map=blocks`); `linear-map=cont` has its first block's worth in sets of base pages instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import lone_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_STAYS = ("I4",)


def _variants() -> list[Variant]:
    def variant(granule: str, mapping: str, flush: str, invariants: tuple[str, ...]) -> Variant:
        expect = "violated" if invariants else "safe"
        policies = {"linear-map": mapping, "linear-flush": flush}
        return Variant(
            f"{granule.lower()}-{mapping}-{flush}", expect, invariants, policies, arguments={"granule": granule}
        )

    sets = [("4K", "blocks"), ("4K", "cont"), ("16K", "cont")]
    return [
        *(variant(granule, mapping, "entry", _STAYS) for granule, mapping in sets),
        *(variant(granule, mapping, "range", ()) for granule, mapping in sets),
        variant("16K", "pages", "entry", ()),
    ]


@scenario(
    title="hot remove flushes a contiguous range of the linear map entry by entry",
    corpus="R21",
    sources=["48478b9f7913 (arm64 hot remove; stable 7.0, 6.12 and 6.1), reported by W. Deacon"],
    judged=["I4", "I5"],
    variants=_variants(),
    kernels={"2021": "4k-blocks-entry", "*": "4k-blocks-range"},
)
def r21_shattered_contiguous(m: Setup, granule: str) -> Sequence[Actor]:
    block = lone_block(m, granule)
    m.scope(machine=f"linear map of hot-added memory: {m.policies['linear-map']}")
    return [Actor("hot remove", [m.memory.remove(block)])]
