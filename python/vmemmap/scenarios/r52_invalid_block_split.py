"""R52: a block that was made invalid becomes valid again when it is split (fixture, one thread).

==== =============================================================================================
step one task, linear map in blocks
==== =============================================================================================
1    `set_memory_valid(off)` of 2 MiB: the block is present and invalid (secret memory, memory shared with a host)
2    one page of it is to be valid again: the block is split first
3    the split writes *valid* entries for all 512 pages: memory that was taken away is readable again
==== =============================================================================================

15bfba1ad77f (7.1) keeps the entries as invalid as the block was. The leaf tests before it had the twin fault: they
asked for a *valid* leaf, and took the invalid one for a table (`takes-for-table`): the walk goes on in a page of data.

Derived by hand: `makes-valid` breaks I34, a block that is present and invalid stays invalid when it is split;
`taken-for-table` never splits it, and is I30. Kept invalid: safe; so is a machine whose linear map is in pages, which
splits nothing.

What kind of statement this is: deterministic, no interleaving is in it. That other CPUs then read the memory is what
follows, and nothing more is needed for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup
from .r28_split_before_capabilities import NO_SPLIT, NOABORT, linear_block, set_valid


@scenario(
    title="the split of a present-invalid block of the linear map (fixture)",
    corpus="R52",
    sources=["15bfba1ad77f (v7.1; stable 6.18): a split of an invalid leaf keeps it invalid"],
    judged=["I30", "I34"],
    variants=[
        Variant("makes-valid", "violated", ("I34",), {"split-invalid": "makes-valid"}, "7.3", environment=NOABORT),
        Variant("taken-for-table", "violated", ("I30",), {"split-invalid": "takes-for-table"}, "7.3", {}, NOABORT),
        Variant("7.3", "safe", kernel="7.3", environment=NOABORT),
        Variant("7.2", "safe", kernel="7.2", environment=NOABORT),
        Variant("pages", "safe", (), {"split-invalid": "makes-valid"}, "7.3", {"linear_map": "pages"}, NOABORT),
    ],
    kernels={"7.2": "7.2", "7.3": "7.3", "*": NO_SPLIT},
)
def r52_invalid_block_split(m: Setup, linear_map: str = "blocks") -> Sequence[Actor]:
    first = linear_block(m, linear_map)
    return [Actor("set_memory", [set_valid(first, 512, on=False), set_valid(first, 1, on=True)])]
