"""R7: ptdump reads a PTE table that a huge vmalloc mapping replaces.

==== ================================ =============================================
step ptdump                           vmalloc of 2 MiB where 4 KiB were mapped before
==== ================================ =============================================
1    reads the PMD entry: PTE table X
2                                     `pmd_free_pte_page`: clears the entry, flushes
                                      walk caches, frees X
3                                     `pmd_set_huge`
4    reads X
==== ================================ =============================================

Empty tables of vmalloc stay linked until a block takes their place, and vmalloc takes no lock that a dump takes. The
answers differ in how little they lock: `trylock` holds init_mm for reading around clear, free and set, and maps pages
if a dump has the lock; `clear-locked` locks the clear alone, which is enough: during a dump nobody clears, and after
the clear no dump finds X. `static-key` locks nothing around the clear: it looks after the flush whether a dump is under
way, and if so waits for it before the free. Looked at *before* the clear instead (derived) the key protects nothing:
the dump may begin in between. None of these helps if the dump locks an mm that is not init_mm (R9).

On arm64, 6.1 and 6.12 (as of 2026-07: trylock in both trees) never come here if PTDUMP_DEBUGFS is built in:
`arch_vmap_pmd_supported` says no. What `none` shows is the generic code as it was, which other architectures ran.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.scenario import Absent, Actor, Operation, Variant, scenario
from ..lab.setup import Setup
from ..sizing.layout import layout

_BLOCKS = {"linear-map": "blocks"}
_FREED = ("I1",)


def dump_and_promotion(m: Setup) -> list[Actor]:
    """A PTE table of vmalloc that is empty; a 2 MiB mapping that replaces it, and a dump of its first page.

    The second mapping of the setup moves the address on, so that the next one begins at the window's start again.
    """
    m.policies = {**_BLOCKS, **m.policies}
    m.configure()
    huge = 512
    m.setup(m.vmalloc(1), m.vmalloc(huge))
    start, end = layout(m.granule, 48, m.kernel).regions["vmalloc"]
    block = huge * m.granule
    window = (start + (end - start) // 2 + block - 1) // block * block
    dump = Operation("ptdump_walk", {"range": {"start": window, "end": window + m.granule}})
    m.scope(window="vmalloc: one empty PTE table; the dump is of the first page that it maps")
    return [Actor("vmalloc", [m.vmalloc_and_keep(huge)]), Actor("ptdump", [dump])]


_NO_HUGE_VMAP = Absent("with PTDUMP_DEBUGFS arm64 maps vmalloc by pages alone (arch_vmap_pmd_supported)")


@scenario(
    title="ptdump walks vmalloc while a huge mapping replaces an empty PTE table",
    corpus="R7",
    sources=[
        (
            "https://lore.kernel.org/all/20260712-series-vmap-race-fix-v2-1-ad134cc3a12a@kernel.org/ (L. Stoakes; "
            "Fixes: b6bdb7517c3d)"
        ),
        (
            "fa93b45fd397 arm64: Enable vmalloc-huge with ptdump (D. Jain), "
            "https://lore.kernel.org/all/20250723102905.7894-1-dev.jain@arm.com/ (v5)"
        ),
        "https://lore.kernel.org/all/20250610160048.11254-1-dev.jain@arm.com/ (v2: lock around the clear)",
    ],
    judged=["I1", "I5", "I25"],
    variants=[
        Variant("trylock", "safe"),
        Variant("none", "violated", _FREED, {"vmap": "none"}),
        Variant("clear-locked", "safe", (), {"vmap": "clear-locked"}),
        Variant("static-key", "safe", (), {"vmap": "static-key"}),
        Variant("static-key-first", "violated", _FREED, {"vmap": "static-key-first"}),
        Variant("trylock-6.12", "safe", kernel="6.12"),
        Variant("static-key-6.12", "safe", (), {"vmap": "static-key"}, kernel="6.12"),
    ],
    kernels={"2021": _NO_HUGE_VMAP, "*": "trylock"},
)
def r07_ptdump_vs_vmap(m: Setup) -> Sequence[Actor]:
    return dump_and_promotion(m)
