"""R47: an error path of hot add removes the range without its altmap.

==== ================================================================================
step `add_memory` with memmap_on_memory
==== ================================================================================
1    `arch_add_memory` with an altmap: the block's vmemmap is in its own first frames
2    `create_memory_block_devices`: -ENOMEM
3    `arch_remove_memory(..., NULL)`: leaf frames of vmemmap go to the page allocator,
     frames of memory that is about to disappear
==== ================================================================================

Derived by hand: no second actor is needed. Without the altmap step 3 hands self-hosted storage to the allocator (I16;
the lab says so and does not hand it over). With the altmap, as in 6.12.100 and later and in 7.x: the frames leave the
altmap's count, safe. A block whose vmemmap is elsewhere has no altmap, and NULL is right: safe.

The failing allocation is a policy (``block-devices``), since the lab has no memory of devices. Scope: one block, 4K.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import lone_block
from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import Setup

_BLOCKS = {"mapping": "blocks"}
_FORGOTTEN = {**_BLOCKS, "block-devices": "fail-no-altmap"}
_FAIL = {**_BLOCKS, "block-devices": "fail"}
_NOT_WITH_HVO = Absent("memmap_on_memory and HVO exclude each other: nothing is self-hosted")


@scenario(
    title="a failed hot add gives storage that lies in the added memory to the page allocator",
    corpus="R47",
    sources=["create_altmaps_and_memory_blocks, add_memory_resource (mm/memory_hotplug.c), 6.12.100 and before"],
    judged=["I13", "I16"],
    variants=[
        Variant("no-altmap", "violated", ("I16",), _FORGOTTEN, "6.12"),
        Variant("no-altmap-6.1", "violated", ("I16",), _FORGOTTEN, "6.1"),
        *(Variant(kernel, "safe", (), _FAIL, kernel) for kernel in ("6.1", "6.12", "7.2", "7.3")),
        Variant("no-altmap-elsewhere", "safe", (), _FORGOTTEN, "6.12", {"memmap_on_memory": False}),
    ],
    kernels={"2021": _NOT_WITH_HVO, "6.1": "6.1", "7.2": "7.2", "7.3": "7.3", "*": "6.12"},
)
def r47_altmap_forgotten(m: Setup, memmap_on_memory: bool = True) -> Sequence[Actor]:
    lone_block(m, "4K", add=False)
    start = m.hotplug[0][0]
    return [Actor("hot add", [m.memory.add(start=start, memmap_on_memory=memmap_on_memory)])]
