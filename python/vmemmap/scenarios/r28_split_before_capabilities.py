"""R28: a part of a block is to change and nobody may split it yet (fixture, one thread).

==== =============================================================================================
step a realm guest, early
==== =============================================================================================
1    the linear map is in blocks, on the ground that CPUs with BBML2_NOABORT can split them
2    `set_memory_*` of one page, before CPU capabilities are final: the split is refused
3    `pageattr_pmd_entry` meets a block of which only a part is in the range: a warning, and the page is not changed
==== =============================================================================================

Reported with a WARN at pageattr.c:56 (J. Tu, March 2026). The answer in 7.x: a realm guest's linear map is in pages
from the start (`force_pte_mapping`), and before capabilities are final a split is allowed while one CPU is online.

Derived by hand: blocks and no split, I30 (it is the kernel's own warning that is counted: a leaf that reaches beyond
what is to change). Pages, safe with or without splits; blocks with splits, safe. A whole block of 2 MiB needs no split
of itself, but its contiguous set does (`block-refused`, I30).

What kind of statement this is: deterministic, no interleaving is in it. What the page would have been made is nowhere
looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import Setup
from ..lab.steps import Operation

_PART = ("I30",)
_REFUSED = {"linear-split": "refused"}
NOABORT = {"feat_bbm": "noabort"}
"""Every CPU takes a live split."""
NO_SPLIT = Absent("the linear map is not split at run time: blocks came with BBML2_NOABORT (v6.18)")


def linear_block(m: Setup, linear_map: str = "blocks") -> int:
    """A hot-added block, in blocks of the linear map unless `linear_map` is ``pages``; its first PFN."""
    m.policies = {"linear-map": linear_map, **m.policies}
    m.configure()
    block = m.memory.add()
    m.setup(block)
    m.scope(window=f"linear map of one hot-added block, in {linear_map}")
    return m.pfn(block.start)


def set_valid(pfn: int, pages: int, on: bool) -> Operation:
    """`set_memory_valid` of so many pages of the linear map."""
    return Operation("set_memory_valid", {"pfn": pfn, "pages": pages, "on": on})


@scenario(
    title="a page of a linear-map block is to change before blocks may be split (fixture)",
    corpus="R28",
    sources=[
        "J. Tu, 2026-03-16: WARN in pageattr_pmd_entry on a realm guest; 20260330161705.3349825-4- (its fixes)",
        "arch/arm64/mm/mmu.c of 7.3.4: force_pte_mapping, split_kernel_leaf_mapping",
    ],
    judged=["I30"],
    variants=[
        Variant("refused", "violated", _PART, _REFUSED, "7.3", environment=NOABORT),
        Variant("block-refused", "violated", _PART, _REFUSED, "7.3", {"pages": 512}, NOABORT),
        Variant("7.3-pages", "safe", (), _REFUSED, "7.3", {"linear_map": "pages"}, NOABORT),
        Variant("7.3-split", "safe", kernel="7.3", environment=NOABORT),
        Variant("7.2-split", "safe", kernel="7.2", environment=NOABORT),
    ],
    kernels={"7.2": "7.2-split", "7.3": "7.3-split", "*": NO_SPLIT},
)
def r28_split_before_capabilities(m: Setup, linear_map: str = "blocks", pages: int = 1) -> Sequence[Actor]:
    return [Actor("set_memory", [set_valid(linear_block(m, linear_map), pages, on=False)])]
