"""The questions of the handmade model (``rust/bench/src/handmade.rs``), put to the real algorithms on real tables.

A variant has the name of its row. 64K pages, 48 bits, 6.12, whose remap rewrites all eight PTEs of a hugepage:

============= ===================================== =======================================================
              handmade                              here
============= ===================================== =======================================================
table X       4 or 8 entries                        8192 entries
HVO's entries 2 for each actor                      8 for each actor, a 512M page
removed block 2 or 4 entries of X, 2 of table Y     8 of X and, but in the first row, 8 of Y (8192 entries)
ptdump        the entries of X and Y                the vmemmap from the first hugepage to the end of the block
a round       remap, restore; remove, add; a dump   ``nr_hugepages`` up and down; the same; the same
not there     frames, TLBs, the linear map, the hugetlb pool, the upper tables, queued writers
============= ===================================== =======================================================

The sections lie at the end of one window of 512 GiB, the second half of the removed block at the beginning of the next.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmemmap.lab.neighbours import hugepages_and_block
from vmemmap.lab.scenario import Actor, Operation, Variant, scenario
from vmemmap.lab.setup import Setup

GRANULE = 65536
_KERNEL = "6.12"


def _three(rounds: int) -> dict[str, int]:
    return {"rounds": rounds, "ptdump": True}


@scenario(
    title="the questions of the comparison with Spin, loom and shuttle, on real tables",
    sources=["rust/bench/src/handmade.rs"],
    judged=["I1", "I5", "I6"],
    variants=[
        Variant("exchange-3", "safe", (), {}, _KERNEL, {"rounds": 3}),
        Variant("locks-1", "safe", (), {}, _KERNEL, _three(1)),
        Variant("locks-3", "safe", (), {}, _KERNEL, _three(3)),
        Variant("unlocked-3", "violated", ("I1",), {"walker": "mmap-only"}, _KERNEL, _three(3)),
        Variant("two-hvo-2", "safe", (), {}, _KERNEL, {**_three(2), "hugepages": 2}),
        Variant("clear-then-set-3", "violated", ("I6",), {"update": "clear-then-set-each"}, _KERNEL, {"rounds": 3}),
    ],
)
def peers(m: Setup, rounds: int, ptdump: bool = False, hugepages: int = 1) -> Sequence[Actor]:
    # One section holds one hugepage.
    a, block = hugepages_and_block(m, GRANULE, hugepages, 2 if ptdump else 1)
    m.scope(window="512 GiB of RAM share PTE table X: the hugepages' sections and the removed block")
    pool = m.pmd_hugepage
    heads = [m.pfn(one.start) for one in a]
    actors = [
        Actor(f"HVO {n + 1}" if hugepages > 1 else "HVO", [pool.allocate(head), pool.free(head)], rounds)
        for n, head in enumerate(heads)
    ]
    actors.append(Actor("hot remove", [m.memory.remove(block), block], rounds))
    if ptdump:
        walked = {"start": heads[0], "end": m.pfn(block.start + block.bytes)}
        actors.append(Actor("ptdump", [Operation("ptdump_walk", {"pfns": walked})], rounds))
    return actors
