"""R49: tables that were never counted in are counted out (one thread).

==== =============================================================================================
step one task, 7.x
==== =============================================================================================
1    hot add: tables of the linear map are constructed, which counts them in NR_PAGETABLE; those of vmemmap are not
2    hot remove: `free_hotplug_pgtable_page` runs the destructor of every table that it frees
3    NR_PAGETABLE is lower than before by the tables of vmemmap
==== =============================================================================================

c594b83457cc (7.1) had repaired the opposite: constructed and never destructed, which counts up (`no-destructor`), and
with DEBUG_VM is a "Bad page state" at the free. riscv had the mirror of it.

Derived by hand: 7.x, I24, the counter drifts down by one for each table of vmemmap that goes; `no-destructor`, I24, up
by those of the linear map; constructors for both kinds (`balanced`): 0, safe. Older kernels run no destructor and count
neither kind here.

What kind of statement this is: deterministic, a counter and no memory error; derived from 7.2.13 and 7.3.4, and stated
for "vmemmap page tables" in a cover letter of June 2026 that is not merged in 7.3.4."""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import lone_block
from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import Setup
from ..lab.steps import Operation

_DRIFTS = ("I24",)


@scenario(
    title="hot add and hot remove do not leave NR_PAGETABLE as it was",
    corpus="R49",
    sources=[
        "c594b83457cc arm64/mm: free_hotplug_pgtable_page runs the destructor (v7.1)",
        "derived: arch/arm64/mm/mmu.c and mm/sparse-vmemmap.c of 7.3.4",
    ],
    judged=["I13", "I24"],
    variants=[
        Variant("7.3", "violated", _DRIFTS, kernel="7.3"),
        Variant("7.2", "violated", _DRIFTS, kernel="7.2"),
        Variant("no-destructor", "violated", _DRIFTS, {"table-count": "no-destructor"}, "7.3"),
        Variant("balanced", "safe", (), {"table-count": "balanced"}, "7.3"),
        Variant("64k-7.3", "violated", _DRIFTS, {}, "7.3", {"granule": "64K"}),
    ],
    kernels={"7.2": "7.2", "7.3": "7.3", "*": Absent("hot remove runs no destructor of tables")},
)
def r49_table_destructor(m: Setup, granule: str = "4K") -> Sequence[Actor]:
    block = lone_block(m, granule, add=False)
    return [Actor("hot add and remove", [block, m.memory.remove(block), Operation("nr_pagetable")])]
