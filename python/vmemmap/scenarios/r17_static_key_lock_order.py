"""R17: hard offline takes cpu_hotplug_lock through a static key, in the wrong order.

==== ==================================== ================================================
step hard offline                         a CPU comes online
==== ==================================== ================================================
1    zone_pcp_disable: pcp_batch_high_lock
2                                         cpus_write_lock: cpu_hotplug_lock
3    dissolve → restore →
     static_branch_dec: cpu_hotplug_lock
4                                         zone_pcp_update: pcp_batch_high_lock
==== ==================================== ================================================

Fixed in 1983184c22dd (6.9): dissolve first, then disable the per-CPU lists; both kernel trees looked at have the fix.
Of the two paths only the locks and the dissolve are there. 2021 has no static key, so the old order hangs nobody.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import Neighbours
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_OLD = {"hwpoison": "drain-first"}


@scenario(
    title="pcp_batch_high_lock and cpu_hotplug_lock are taken in both orders",
    corpus="R17",
    sources=["commit 1983184c22dd (M. Lin, 2024-04-07)", "CVE-2024-26987"],
    judged=["I25"],
    variants=[
        Variant("drain-first", "violated", ("I25",), _OLD),
        Variant("dissolve-first", "safe"),
        Variant("drain-first-6.12", "violated", ("I25",), _OLD, "6.12"),
        Variant("dissolve-first-6.12", "safe", (), {}, "6.12"),
        Variant("drain-first-2021", "safe", (), _OLD, "2021"),
    ],
    kernels={"2021": "drain-first-2021", "*": "dissolve-first"},
)
def r17_static_key_lock_order(m: Setup) -> Sequence[Actor]:
    pair = Neighbours.of(m, "64K")
    m.setup(*pair.hvo().program() or ())
    return [
        Actor("hard offline", [m.page_handle_poison(pair.hugepages[0])]),
        Actor("CPU online", [m.cpu_online()]),
    ]
