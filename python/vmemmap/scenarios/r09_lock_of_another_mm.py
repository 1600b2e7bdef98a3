"""R9: the dump holds the right lock of the wrong instance.

==== ===================================== ==========================================
step ptdump of `efi_mm`                    vmalloc of 2 MiB where 4 KiB were mapped
==== ===================================== ==========================================
1    `mmap_write_lock(&efi_mm)`
2    walks kernel addresses: reads the PMD
     entry, gets PTE table X
3                                          `mmap_read_trylock(&init_mm)`: had
4                                          `pmd_free_pte_page`: clears the entry, frees X
5    reads X
==== ===================================== ==========================================

A dump of `efi_mm` (arm64, x86) or of a process (x86) locks that mm. Kernel tables are guarded by init_mm's lock, which
nobody who frees them exchanges for another. The fix takes init_mm's too, nested in the other (538797bc0e9a, in 6.1.192,
6.12.117 and 7.x).

Derived by hand: whatever the freeing side locks, it meets nobody (`trylock`, `static-key`: I1); so does no lock at all
on that side (`none`). With init_mm's lock in the dump both choices exclude each other (`fixed`, `fixed-static-key`).
The naive fix, to leave the hotplug lock in and drop the mmap lock as useless here, is the same race (`hotplug-only`).

What kind of statement this is: an interleaving of generic code. On arm64 the freeing side was compiled out in 6.1 and
6.12 wherever ptdump is built (R7); since 7.1 it is there.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import Setup
from .r07_ptdump_vs_vmap import dump_and_promotion

_FREED = ("I1",)
_OTHER = {"walker": "other-mm"}


@scenario(
    title="ptdump of another mm locks that mm and walks init_mm's tables",
    corpus="R9",
    sources=[
        "538797bc0e9a mm/ptdump: always stabilise against page table freeing using init_mm, CVE-2026-74599",
        (
            "https://lore.kernel.org/all/20260712-series-vmap-race-fix-v2-1-ad134cc3a12a@kernel.org/ (L. Stoakes; the "
            "same series)"
        ),
    ],
    judged=["I1", "I5", "I25"],
    variants=[
        Variant("trylock", "violated", _FREED, _OTHER),
        Variant("static-key", "violated", _FREED, {"vmap": "static-key", **_OTHER}),
        Variant("none", "violated", _FREED, {"vmap": "none", **_OTHER}),
        Variant("hotplug-only", "violated", _FREED, {"walker": "hotplug-only"}),
        Variant("fixed", "safe"),
        Variant("fixed-static-key", "safe", (), {"vmap": "static-key"}),
    ],
    kernels={
        "2021": Absent("with PTDUMP_DEBUGFS arm64 maps vmalloc by pages alone (arch_vmap_pmd_supported)"),
        "*": "fixed",
    },
)
def r09_lock_of_another_mm(m: Setup) -> Sequence[Actor]:
    return dump_and_promotion(m)
