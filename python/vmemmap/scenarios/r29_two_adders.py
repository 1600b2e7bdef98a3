"""R29: two adders find the same upper entry empty, and the one who stores last wins.

==== ===================================== ==========================================
step device A                              device B, of the same empty table
==== ===================================== ==========================================
1    reads the upper entry: none
2                                          reads it: none
3    makes table X, links it
4                                          makes table Y, links it over X
5    maps its struct pages below X
6    looks at them: the walk goes by Y, and
     finds nothing
==== ===================================== ==========================================

`devm_memremap_pages` took no lock of memory hotplug until f931ab479dd2 (2017); on x86 the entry was one of the PGD.
Here it is the entry of the table that devices in one window of vmemmap share, and neither finds it made. Populate takes
no page-table lock: `mem_hotplug_lock` is all there is.

Derived by hand: unlocked, whoever stores first loses what it maps, if it mapped it below its own table: I2 when it
looks. Locked, safe. The entry there already (`table-there`, a third device in the window): safe even without the lock,
since neither makes a table that the other makes as well: a test on a machine that has run for a while shows nothing.
``same-section`` is two devices of one section, whose PTE table (4K, parts of a section) both make: unlocked, I2 again.

What kind of statement this is: a lost update of populate, old and fixed; every kernel of the lab has the lock.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import lone_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_HOLE = ("I2",)
_NONE = {"hotplug": "none"}
PART = 2 << 20
"""Bytes of a sub-section."""


@scenario(
    title="two devices are added at once and both make the table that they share",
    corpus="R29",
    sources=[
        "f931ab479dd2 mm: fix devm_memremap_pages crash, use mem_hotplug_{begin, done} (D. Williams, 2017)",
        "kernel-semantics §3 (populate takes no page-table lock)",
    ],
    judged=["I2", "I3", "I30"],
    variants=[
        Variant("unlocked", "violated", _HOLE, _NONE),
        Variant("unlocked-same-section", "violated", _HOLE, _NONE, arguments={"apart": PART}),
        Variant("table-there", "safe", (), _NONE, arguments={"third": True}),
        Variant("kernel", "safe"),
        Variant("kernel-same-section", "safe", arguments={"apart": PART}),
        Variant("kernel-7.3", "safe", kernel="7.3"),
    ],
    kernels={"7.3": "kernel-7.3", "*": "kernel"},
)
def r29_two_adders(m: Setup, apart: int | None = None, third: bool = False) -> Sequence[Actor]:
    """Two devices of a sub-section each, a section or `apart` bytes from each other."""
    start = lone_block(m, "4K", add=False).start
    second = start + (apart or m.section)
    if third:
        m.setup(*(m.device_add(first + 16 * PART, PART) for first in (start, second)))
    m.scope(window="64G of RAM share the PMD table: two devices of 2 MiB" + (", a third before them" if third else ""))
    return [
        Actor(f"device {name}", [m.device_add(at, PART), m.device_use(m.pfn(at))])
        for name, at in (("A", start), ("B", second))
    ]
