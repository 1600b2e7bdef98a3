"""R23: memory is added, and the top tables of other address spaces do not know it yet (contrast: arm64 is immune).

==== =============================================================================================
step hot add by a task with an mm of its own; x86 with four levels
==== =============================================================================================
1    `vmemmap_populate` needs a new entry of the top table: made in init_mm's
2    `__init_single_page` stores to the new struct pages: the walk begins at this mm's own top table, which was
     copied from init_mm's before step 1: no entry, a fault in the kernel
3    only now `arch_sync_kernel_mappings` would copy the entry
==== =============================================================================================

x86 gives every mm a copy of the upper half of the top table. 6659d0279980 (CVE-2025-39845) lets the function that makes
an entry copy it at once. arm64 has one TTBR1 for kernel addresses: what is in init_mm's table every CPU walks.

Derived by hand: with copies that learn late, I2, by one thread alone; with copies that learn at once, safe; with the
entry there already (another block in the same 64 GiB of RAM) nothing is to be copied, safe: why it took years to be
seen. Without copies (arm64) safe, whatever is added.

What kind of statement this is: deterministic, and a negative control for arm64; of the copies there is one word, the
entry that they lack. The machine has 39-bit addresses, in which an entry of the top table maps the vmemmap of 64 GiB.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import DRAM, Setup

_LATE = {"pgd-copies": "synced-after"}


@scenario(
    title="added memory that other address spaces' top tables do not map yet (x86; arm64 is immune)",
    corpus="R23",
    sources=["6659d0279980 x86/mm/64: define p4d_populate_kernel and sync there (H. Yoo, v6.17), CVE-2025-39845"],
    judged=["I2"],
    variants=[
        Variant("arm64", "safe"),
        Variant("arm64-7.3", "safe", kernel="7.3"),
        Variant("synced-after", "violated", ("I2",), _LATE),
        Variant("synced-at-once", "safe", (), {"pgd-copies": "synced-at-once"}),
        Variant("synced-after-entry-there", "safe", (), _LATE, arguments={"there": True}),
    ],
    kernels={"7.3": "arm64-7.3", "*": "arm64"},
)
def r23_top_entry_unsynced(m: Setup, there: bool = False) -> Sequence[Actor]:
    m.policies = {"linear-map": "blocks", **m.policies}
    m.configure(va_bits=39, hotplug=[(DRAM + (64 << 30), 2 * m.section)])
    first, second = m.memory.add(), m.memory.add()
    m.scope(
        window="64 GiB of RAM share the entry of the top table: " + ("another block" if there else "the added block")
    )
    if there:
        m.setup(first)
    return [Actor("hot add", [second if there else first])]
