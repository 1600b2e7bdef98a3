"""R32: HVO beside the removal of a neighbouring section, the question of May 2021 (negative control).

Sections meet in the PMD table (4K) or in a PTE table (16K, 64K), which hot remove scans and frees if it is empty. An
exchange in one store is never none, so the scan always meets it: the table stays, at either level, however lonely the
two sections are. With anything else live in the window even a scheme that opens a hole cannot lose the table.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import Neighbours
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup


def _variants() -> list[Variant]:
    exchange = [
        Variant(
            f"{granule.lower()}-{update}-{kernel}",
            "safe",
            (),
            {"update": update, **mapping},
            kernel,
            {"granule": granule},
        )
        for granule, mapping in (("4K", {"mapping": "blocks"}), ("64K", {}), ("16K", {}))
        for update in ("store", "swap")
        for kernel in ("2021", "6.1", "6.12")
    ]
    third = {"also_live": True}
    return [
        *exchange,
        Variant("4k-basepages-2021", "safe", (), {"mapping": "basepages"}, "2021", {"granule": "4K"}),
        Variant("4k-split-bbm-third-live", "safe", (), {"split": "bbm"}, "6.1", {"granule": "4K", **third}),
        Variant(
            "64k-clear-then-set-third-live",
            "safe",
            (),
            {"update": "clear-then-set"},
            "6.12",
            {"granule": "64K", **third},
        ),
        Variant("64k-bbm-third-live", "safe", (), {"update": "bbm"}, "6.12", {"granule": "64K", **third}),
        Variant(
            "16k-clear-then-set-third-live",
            "safe",
            (),
            {"update": "clear-then-set"},
            "6.12",
            {"granule": "16K", **third},
        ),
    ]


@scenario(
    title="HVO beside the hot remove of the neighbouring section: the table is never lost (negative control)",
    corpus="R32",
    sources=[
        "https://lore.kernel.org/all/1b9d008a-7544-cc85-5c2f-532b984eb5b5@arm.com/ (A. Khandual, 20 May 2021)",
        "https://lore.kernel.org/all/20220111131652.61947-1-songmuchun@bytedance.com/ (M. Song's answer, 2022)",
    ],
    judged=["I1", "I5", "I6"],
    variants=_variants(),
    kernels={"2021": "4k-store-2021", "6.1": "4k-store-6.1", "*": "4k-store-6.12"},
)
def r32_neighbour_section(m: Setup, granule: str = "4K", also_live: bool = False) -> Sequence[Actor]:
    pair = Neighbours.of(m, granule, also_live=also_live)
    return [pair.hvo(), pair.hot_remove()]
