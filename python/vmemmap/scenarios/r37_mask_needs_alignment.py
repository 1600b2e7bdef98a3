"""R37: a mask finds the head of a compound page only where struct pages are aligned to those of the page.

From 7.2 on, where HVO is configured, a tail stores ``-(64 << order) | 1``, and its head is at its own address under
that mask. So the struct pages of a page of 2^order must begin at a multiple of 64 << order bytes. Heads are aligned in
*physical* memory; their struct pages are at ``VMEMMAP_START + (pa - memstart) / PAGE_SIZE * 64``, and arm64 aligns
memstart_addr to 1 GiB (4K, 16K) or 512 MiB (64K) only.

======= ================= ==================== ========== =====================
granule memstart gives    largest HugeTLB page needs      verdict
======= ================= ==================== ========== =====================
4K      16 MiB of vmemmap 1G                   16 MiB     right
16K     4 MiB             1G                   4 MiB      right
64K     512 KiB           512M                 512 KiB    right
64K     512 KiB           16G                  16 MiB     wrong, unless memstart
                                                          is a multiple of 16 GiB
======= ================= ==================== ========== =====================

No interleaving is needed: this is arithmetic, granule × size × memstart, and `tests/api/test_linux7.py` sweeps it.
The variants are its corners on whole machines, one CPU each. Derived by hand:

* 64K, DRAM (and so memstart) at 1 GiB, a page at 16 GiB: its struct pages begin 15 MiB into vmemmap. The mask of 16 MiB
  gives the start of vmemmap, whatever is there: every tail resolves 15 GiB too low, I10.
* The same with memstart at 0, as a kernel that aligned it to the largest folio would have it (riscv and loongarch align
  the base of vmemmap): right.
* HVO switched off does not help: the encoding depends on the configuration. HVO not configured, as in every arm64
  kernel as shipped: pointers, right. 6.12: pointers, right.

Scope: generic code of 7.2 and 7.3 over arm64's layout; arm64 does not select HVO in either. With 64K pages and DEBUG_VM
a 7.3.4 kernel with HVO selected warns of the alignment at boot; a 16G page on one has not been tried.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import DRAM, Setup

_16G = {"granule": "64K", "size": "16G"}
_512M = {"granule": "64K", "size": "512M"}


@scenario(
    title="a tail of 7.x finds its head by a mask, and vmemmap is not aligned to the page",
    corpus="R37",
    sources=[
        "MAX_FOLIO_VMEMMAP_ALIGN (include/linux/mmzone.h), sparse_init (mm/sparse.c), arm64_memblock_init; 7.3.4",
        "derived; reported by nobody for arm64",
    ],
    judged=["I10"],
    variants=[
        Variant("64k-16g-7.3", "violated", ("I10",), {}, "7.3", _16G),
        Variant("64k-16g-7.2", "violated", ("I10",), {}, "7.2", _16G),
        Variant("64k-16g-hvo-off", "violated", ("I10",), {}, "7.3", {**_16G, "hvo": False}),
        Variant("64k-16g-memstart-aligned", "safe", (), {}, "7.3", {**_16G, "memstart": 0}),
        Variant("64k-16g-hvo-not-configured", "safe", (), {"hvo-config": "no"}, "7.3", _16G),
        Variant("64k-16g-6.12", "safe", (), {}, "6.12", _16G),
        Variant("64k-512m-7.3", "safe", (), {}, "7.3", _512M),
        Variant("16k-1g-7.3", "safe", (), {}, "7.3", {"granule": "16K", "size": "1G"}),
        Variant("4k-1g-7.3", "safe", (), {"mapping": "basepages"}, "7.3", {"granule": "4K", "size": "1G"}),
    ],
    kernels={"7.2": "64k-16g-7.2", "7.3": "64k-16g-7.3", "*": "64k-16g-6.12"},
)
def r37_mask_needs_alignment(
    m: Setup, granule: str = "64K", size: str = "16G", memstart: int | None = None, hvo: bool = True
) -> Sequence[Actor]:
    # Break-before-make: no translation is stale for long, of which hundreds would have to be kept in mind.
    m.policies = {"linear-map": "blocks", "update": "bbm-each", "split": "bbm", **m.policies}
    start = DRAM + (15 << 30)
    m.configure(granule=granule, hotplug=[(start, "16G")], memstart=memstart, hvo=hvo)
    pool = m.hugetlb[size]
    block = m.memory.add(pool.size, start=start)
    m.setup(block, m.memory.online(block))
    m.scope(window="one hugepage at 16 GiB, DRAM from 1 GiB", machine="linear map of hot-added memory in blocks")
    return [Actor("user", [pool.allocate(m.pfn(start)), pool.use()])]
