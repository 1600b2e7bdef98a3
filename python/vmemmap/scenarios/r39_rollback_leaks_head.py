"""R39: the rollback of 6.12.117 restores the head over its copy, and loses the copy.

R13 has the steps (`what=1g`); this is the same failure with the kernels before and after, under its own number.

==== =============================================================================================
step HVO of a 1G page, whose struct pages fill eight PMD blocks at 4K
==== =============================================================================================
1    H := copy of the head's vmemmap page; entry 0 maps H writable, the tails map T read-only
2    the table of the second split is not to be had: -ENOMEM, 512 entries are done
3    rollback: every walked entry that maps T gets a frame of the list back
==== =============================================================================================

Derived by hand:

* 6.12.117: T *is* H, so entry 0 gets a frame back as well; the list is used up and nothing maps H: one frame lost, I13.
* 6.12 as intended leaves the head on H and frees the old head frame: as many frames as before. 6.1 never rewrote
  entry 0.
* 7.2 and 7.3 have 6.12.117's test word for word, and a T that is not H: entry 0 maps H, is left alone, and one old
  frame remains on the list and is freed. The same line is right because another patch changed what T is.

Scope: one page, one failing allocation, every choice of it. Which kernel a patch is put into decides here, not the
patch: "refactor code around vmemmap_walk" and the rollback's fix went into 6.12.114 without the separate tail frame.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import DRAM, Setup

_ONE = {"alloc_failures": 1}


@scenario(
    title="a rollback that cannot tell the head from its tails loses the copy of the head",
    corpus="R39",
    sources=[
        "https://lore.kernel.org/all/20260525025213.2229628-1-songmuchun@bytedance.com/ (M. Song, May 2026)",
        "kernel-semantics §H7; c0b495b91a47 in 6.12.114 without the separate tail frame",
    ],
    judged=["I3", "I13"],
    variants=[
        Variant("6.12.117", "violated", ("I13",), {}, "6.12.117", {}, _ONE),
        *(Variant(kernel, "safe", (), {}, kernel, {}, _ONE) for kernel in ("6.12", "6.1", "7.2", "7.3")),
    ],
    kernels={
        "2021": Absent("with HVO on, vmemmap is populated by base pages: no split that could fail half way"),
        **{kernel: kernel for kernel in ("6.1", "6.12", "6.12.117", "7.2", "7.3")},
    },
)
def r39_rollback_leaks_head(m: Setup) -> Sequence[Actor]:
    # Break-before-make, as in R13: no translation is stale for long.
    m.policies = {"linear-map": "blocks", "mapping": "blocks", "update": "bbm-each", "split": "bbm", **m.policies}
    m.configure(hotplug=[(DRAM + (1 << 30), "1G")])
    block = m.memory.add("1G")
    m.setup(block, m.memory.online(block))
    m.scope(window="one 1G page over eight blocks of vmemmap", update="break-before-make, entry by entry")
    return [Actor("HVO", [m.hugetlb["1G"].allocate(m.pfn(block.start))])]
