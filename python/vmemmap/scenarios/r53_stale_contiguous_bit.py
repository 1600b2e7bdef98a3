"""R53: a split builds its pages from an entry that it read before it rewrote the run (fixture, one thread).

==== =============================================================================================
step `linear_map_split_to_ptes`, for a CPU that cannot take a live split
==== =============================================================================================
1    reads a PMD block of a contiguous run: CONT is set
2    clears CONT in the whole run
3    builds 512 pages from the value of step 1: each inherits CONT
4    later, one page is to change: it is in a contiguous run of pages, which may not be split any more
==== =============================================================================================

"refresh stale pmd after split_contpmd" (2026): the value is read again after step 2; 7.x also masks the bit out.

Derived by hand: inherited, I30 in step 4, where the kernel would change one entry of a run whose others say otherwise.
Read again, or masked: safe. A map that never had a contiguous run (`pages`) has nothing to inherit: safe.

What kind of statement this is: deterministic; the interleaving in it is a CPU with itself, and every other CPU is
stopped meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup
from ..lab.steps import Operation
from .r28_split_before_capabilities import NO_SPLIT, NOABORT, linear_block, set_valid

#: After all is in pages nothing is split any more.
_AFTER = {"linear-split": "refused"}


@scenario(
    title="the contiguous bit of a run that was split already is inherited by its pages (fixture)",
    corpus="R53",
    sources=["20260625113953.2332-1-: arm64: mm: refresh stale pmd after split_contpmd (title, June 2026)"],
    judged=["I30"],
    variants=[
        Variant("inherited", "violated", ("I30",), {**_AFTER, "split-cont": "inherited"}, "7.3", {}, NOABORT),
        Variant("read-again", "safe", (), {**_AFTER, "split-cont": "read-again"}, "7.3", {}, NOABORT),
        Variant("7.3", "safe", (), _AFTER, "7.3", environment=NOABORT),
        Variant("7.2", "safe", (), _AFTER, "7.2", environment=NOABORT),
        Variant("pages", "safe", (), {**_AFTER, "split-cont": "inherited"}, "7.3", {"linear_map": "pages"}, NOABORT),
    ],
    kernels={"7.2": "7.2", "7.3": "7.3", "*": NO_SPLIT},
)
def r53_stale_contiguous_bit(m: Setup, linear_map: str = "blocks") -> Sequence[Actor]:
    first = linear_block(m, linear_map)
    split = Operation("linear_map_split_to_ptes", {"pfn": first, "pages": 512})
    return [Actor("set_memory", [split, set_valid(first, 1, on=False)])]
