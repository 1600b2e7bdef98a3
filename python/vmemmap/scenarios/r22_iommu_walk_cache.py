"""R22: an IOMMU that shares the kernel's tables still walks one that hot remove has freed.

==== ======================================== ==============================================
step hot remove                               device (SVA)
==== ======================================== ==============================================
1                                             its IOMMU caches the entry that leads to table X
2    clears the entry, TLBI: reaches the CPUs
3    frees X
4                                             a walk goes on in X, which is somebody else's
==== ======================================== ==============================================

CVE-2025-71089, reported for x86, where a device may be given the page tables of a process, kernel half included. On
arm64 an SMMU that takes part in the broadcast (BTM) hears the TLBI; one without it is what is modelled here, as any
agent that caches table entries and forgets them by its own invalidate only. Fixes: no SVA (72f98ef9a4be), or tables
freed after that invalidate (5ba2f0a15564; there in a worker that frees many, which to one table is the same order).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import lone_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_WALKS = ("I5",)
_IOMMU = {"iommu": True}
_SEEN = {**_IOMMU, "oracle": "observed"}
_DEFERRED = {"table-free": "iommu-deferred"}


@scenario(
    title="an IOMMU beyond the TLBI broadcast caches the way to a table that hot remove frees",
    corpus="R22",
    sources=[
        "72f98ef9a4be iommu: disable SVA when CONFIG_X86 is set (v6.19), CVE-2025-71089",
        "5ba2f0a15564 mm: introduce deferred freeing for kernel page tables",
    ],
    judged=["I4", "I5"],
    variants=[
        Variant("sva", "violated", _WALKS, environment=_IOMMU),
        Variant("no-sva", "safe"),
        Variant("deferred", "safe", (), _DEFERRED, environment=_IOMMU),
        Variant("64k-sva", "violated", _WALKS, arguments={"granule": "64K"}, environment=_IOMMU),
        Variant("64k-deferred", "safe", (), _DEFERRED, arguments={"granule": "64K"}, environment=_IOMMU),
        Variant("sva-walk", "violated", _WALKS, arguments={"device": True}, environment=_SEEN),
        Variant("no-sva-walk", "safe", arguments={"device": True}, environment={"oracle": "observed"}),
        Variant("deferred-walk", "safe", (), _DEFERRED, arguments={"device": True}, environment=_SEEN),
    ],
    kernels={"2021": "sva", "7.2": "deferred", "7.3": "deferred", "*": "no-sva"},
)
def r22_iommu_walk_cache(m: Setup, granule: str = "4K", device: bool = False) -> Sequence[Actor]:
    block = lone_block(m, granule)
    walker = [Actor("device", [m.iommu_walk(block)])] if device else []
    return [Actor("hot remove", [m.memory.remove(block)]), *walker]
