"""R10: a collapse of pages to a block frees the PTE table under a dump.

==== ===================================== ==========================================
step ptdump                                collapse (x86: `collapse_pmd_page`)
==== ===================================== ==========================================
1    reads the PMD entry: PTE table X
2                                          512 pages make a block: the entry maps it
3                                          flushes, frees X
4    reads X
==== ===================================== ==========================================

x86's CPA collapses what it split earlier, since 6.16; its answer is R7's, init_mm's lock for reading around the free
(4f03b430c1e4). arm64 splits its linear map (R28, R52, R53) and collapses nothing yet.

Derived by hand: without the lock the dump reads X after the free (I1). With it around set, flush and free, or around
the set alone, safe: a dump holds the lock for writing from its first read to its last, so that no set falls into a
dump, and a dump that begins after the set finds no X.

What kind of statement this is: x86's code over arm64's primitives and tables, as a contrast to R7; no arm64 kernel has
it. The store of the block over a table is not break-before-make either (I19), which x86 does not ask for, and the table
is full when it is freed (I6, which speaks of hot remove's tables).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.scenario import Absent, Actor, Operation, Variant, scenario
from ..lab.setup import DRAM, Setup
from ..sizing.layout import layout

_FREED = ("I1",)
_NO_COLLAPSE = Absent("no collapse of kernel mappings; x86's came in 6.16")


@scenario(
    title="ptdump walks a PTE table that a collapse to a block frees (x86, as a contrast)",
    corpus="R10",
    sources=[
        (
            "https://lore.kernel.org/all/20260712-series-vmap-race-fix-v2-1-ad134cc3a12a@kernel.org/ (L. Stoakes; the "
            "series has x86/mm/pat: acquire mmap lock on page table free, 4f03b430c1e4)"
        ),
    ],
    judged=["I1", "I5", "I25"],
    variants=[
        Variant("none", "violated", _FREED, {"collapse": "none"}, "7.3"),
        Variant("mmap-read", "safe", (), {}, "7.3"),
        Variant("set-locked", "safe", (), {"collapse": "set-locked"}, "7.3"),
        Variant("other-mm", "violated", _FREED, {"walker": "other-mm"}, "7.3"),
    ],
    kernels={"7.2": "mmap-read", "7.3": "mmap-read", "*": _NO_COLLAPSE},
)
def r10_collapse_beside_ptdump(m: Setup) -> Sequence[Actor]:
    m.policies = {"linear-map": "pages", **m.policies}
    m.configure()
    block = m.memory.add()
    m.setup(block)
    start, _ = layout(m.granule, 48, m.kernel).regions["linear map"]
    # memstart_addr is the start of RAM here.
    first = start + block.start - DRAM
    m.scope(window="linear map: one PTE table of the block that was added; the dump is of the first page that it maps")
    dump = Operation("ptdump_walk", {"range": {"start": first, "end": first + m.granule}})
    return [
        Actor("ptdump", [dump]),
        Actor("collapse", [Operation("collapse_pmd_page", {"pfn": m.pfn(block.start)})]),
    ]
