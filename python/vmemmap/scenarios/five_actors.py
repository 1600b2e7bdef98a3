"""Five actors at once, on real tables: two users of hugepages, hot remove, a dump of the tables, a PFN walker.

64K pages. One PTE table, X, maps the struct pages of two sections, each a hugepage, and of the first half of the block
that is removed; its second half begins the next window of 512 GiB.

Derived by hand: nothing falls that does not fall between two of them, and of the pairs each is sound under 6.12.

* HVO beside HVO: disjoint entries of X (`second_hvo`).
* HVO beside hot remove: each entry is exchanged by one store, and eight of them live, so the scan never finds X empty
  (R32); the other table of the block is its own.
* ptdump: holds mem_hotplug_lock for reading, which hot remove needs for writing (R6).
* The PFN walker looks at tails of a page that HVO allocates and frees again: what it reads through is the head's frame
  or the tail's own, and either is mapped until the entry has been exchanged and flushed (R36 is about writes).

With one round of each actor the search decides it in seconds. With two rounds it has not decided it in two minutes.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepages_and_block
from ..lab.scenario import Actor, Operation, Variant, scenario
from ..lab.setup import Setup

_GRANULE = 65536


@scenario(
    title="two users of hugepages, hot remove, ptdump and a PFN walker at once, on 64K tables",
    sources=["derived: the question of May 2021, with each of its actors; kernel-semantics §2.3"],
    judged=["I1", "I2", "I3", "I5", "I6"],
    variants=[Variant("one-round", "safe", (), {}, "6.12")],
)
def five_actors(m: Setup, rounds: int = 1) -> Sequence[Actor]:
    sections, block = hugepages_and_block(m, _GRANULE, 2)
    m.scope(window="512 GiB of RAM share PTE table X: the hugepages' sections and the removed block, nothing else")
    pool = m.pmd_hugepage
    heads = [m.pfn(one.start) for one in sections]
    dumped = {"start": heads[0], "end": m.pfn(block.start + block.bytes)}
    return [
        *(Actor(f"HVO {n + 1}", [pool.allocate(head), pool.free(head)], rounds) for n, head in enumerate(heads)),
        Actor("hot remove", [m.memory.remove(block), block], rounds),
        Actor("ptdump", [Operation("ptdump_walk", {"pfns": dumped})], rounds),
        Actor("PFN walker", [m.tail_walk(sections[0])], rounds),
    ]
