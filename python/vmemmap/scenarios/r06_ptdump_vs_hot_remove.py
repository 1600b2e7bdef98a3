"""R6: ptdump reads a table that hot remove frees.

==== ================================== ==========================================
step ptdump                             hot remove
==== ================================== ==========================================
1    reads the PUD, gets PMD table X
2                                       `unmap_hotplug_range` clears the block
3                                       `free_empty_tables`: X is none throughout;
                                        `pud_clear`, TLBI, X is freed
4    reads X
==== ================================== ==========================================

Races between leaves are harmless (a stale line in the dump); only the free of a table matters. The kernel's answer is
`get_online_mems()` in the walk itself. Until 59305202c67f the second entry point, `ptdump_check_wx`, did without.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import lone_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_FREED = ("I1",)


@scenario(
    title="ptdump walks the vmemmap of a block while it is hot-removed",
    corpus="R6",
    sources=[
        "59305202c67f mm/ptdump: take the memory hotplug lock inside ptdump_walk_pgd() (v6.17), CVE-2025-38681",
        "https://lore.kernel.org/all/1b9d008a-7544-cc85-5c2f-532b984eb5b5@arm.com/ (A. Khandual, May 2021)",
    ],
    judged=["I1", "I5", "I6"],
    variants=[
        Variant("kernel", "safe"),
        Variant("mmap-only", "violated", _FREED, {"walker": "mmap-only"}),
        Variant("unlocked", "violated", _FREED, {"walker": "none"}),
        Variant("hotplug-unlocked", "violated", _FREED, {"hotplug": "none"}),
        Variant("kernel-6.12", "safe", kernel="6.12"),
        Variant("64k-kernel", "safe", arguments={"granule": "64K"}),
        Variant("64k-mmap-only", "violated", _FREED, {"walker": "mmap-only"}, arguments={"granule": "64K"}),
    ],
    kernels={"2021": "mmap-only", "*": "kernel"},
)
def r06_ptdump_vs_hot_remove(m: Setup, granule: str = "4K") -> Sequence[Actor]:
    block = lone_block(m, granule)
    return [Actor("ptdump", [m.ptdump(block)]), Actor("hot remove", [m.memory.remove(block)])]
