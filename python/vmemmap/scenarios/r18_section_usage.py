"""R18: `mem_section->usage` is freed under `pfn_valid`.

==== ===================================== ==========================================
step `pfn_valid`                           hot remove: `section_deactivate`
==== ===================================== ==========================================
1    `valid_section()`: true
2                                          frees `ms->usage`, sets it to NULL
3    `pfn_section_valid` reads
     `usage->subsection_map`: NULL, or freed
4                                          clears SECTION_HAS_MEM_MAP
==== ===================================== ==========================================

History has three steps. b943f045a9af (v5.6) cleared SECTION_HAS_MEM_MAP, but after the free: ``free-first``, which is
what was seen to crash daily on a farm of arm64 phones. 5ec8e8ea8b77 (v6.8) clears it first, frees by `kfree_rcu` and
reads in an RCU section; the pointer may still become NULL between the test of the flag and the dereference:
``no-null-test``. 82f0b6f041fa (v6.10, CVE-2024-41055) tests it for NULL. The order alone, without the grace period, is
``no-grace``. I1 stands here for what it says of tables: no walk through freed metadata.

The `kfree_rcu` worker is an actor of its own, so that the grace period may begin and end anywhere after the hand-over,
and the remover waits for nothing.

What the fix does not cover, and does not claim to [derived]: the *memmap* is depopulated right after, without a grace
period. ``memmap`` is a caller that holds nothing, learns that a PFN is valid and then reads the struct page: I2.
`pfn_valid` never promised more; a caller that must not see its answer go stale needs `pfn_to_online_page`, and against
removal also `get_online_mems` (``kmemleak``, safe) or another reason why the block stays online. ``online-page`` is
`pfn_to_online_page` without it, as most walkers use it: the same violation, which needs the whole of offline and
removal between two of its steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import lone_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_FREED = ("I1",)
_HOLE = ("I2",)
#: Nothing goes by `kfree_rcu`, or it does not matter when it does: no worker.
_AT_ONCE = {"worker": False}


@scenario(
    title="mem_section->usage, or the memmap, goes while pfn_valid or its caller looks",
    corpus="R18",
    sources=[
        "5ec8e8ea8b77 mm/sparsemem: fix race in accessing memory_section->usage (v6.8), CVE-2023-52489",
        "82f0b6f041fa mm: prevent derefencing NULL ptr in pfn_section_valid() (v6.10), CVE-2024-41055",
        "b943f045a9af mm/sparse: fix kernel crash with pfn_section_valid check (v5.6)",
        "derived: kernel-semantics §5.3 step 3 (the memmap goes without a grace period)",
    ],
    judged=["I1", "I2", "I3", "I5", "I6"],
    variants=[
        Variant("free-first", "violated", _FREED, {"section-usage": "free-first"}, arguments=_AT_ONCE),
        Variant("free-first-2021", "violated", _FREED, {"section-usage": "free-first"}, "2021", _AT_ONCE),
        Variant("no-null-test", "violated", _FREED, {"section-usage": "no-null-test"}),
        Variant("no-grace", "violated", _FREED, {"section-usage": "no-grace"}, arguments=_AT_ONCE),
        Variant("6.1", "safe"),
        Variant("6.12", "safe", kernel="6.12"),
        Variant("64k", "safe", arguments={"granule": "64K"}),
        Variant("memmap", "violated", _HOLE, arguments={"reader": "memmap", **_AT_ONCE}),
        Variant("online-page", "violated", _HOLE, arguments={"reader": "online-page", **_AT_ONCE}),
        Variant("kmemleak", "safe", arguments={"reader": "kmemleak"}),
    ],
    kernels={"2021": "free-first-2021", "*": "6.1"},
)
def r18_section_usage(m: Setup, granule: str = "4K", reader: str = "pfn_valid", worker: bool = True) -> Sequence[Actor]:
    online = reader in ("online-page", "kmemleak")
    block = lone_block(m, granule, online=online)
    pfn = m.pfn(block.start)
    readers = {
        "pfn_valid": m.pfn_valid(pfn),
        "memmap": m.pfn_valid(pfn, access=True),
        "online-page": m.pfn_walk(pfn, pfn + 1),
        "kmemleak": m.kmemleak_scan(pfn, pfn + 1),
    }
    removal = m.memory.offline_and_remove(block) if online else m.memory.remove(block)
    return [
        Actor(reader, [readers[reader]]),
        Actor("hot remove", [removal]),
        *([Actor("kfree_rcu", [m.kfree_rcu_work(block)])] if worker else []),
    ]
