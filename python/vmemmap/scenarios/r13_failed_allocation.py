"""R13: an allocation fails half way, and what was done must be taken back.

The struct pages of a 1G page fill eight PMD blocks at 4K. HVO splits one, rewrites its entries, splits the next; the
table of a later split is not to be had, and the entries walked so far are rebuilt.

==== =============================================================================================
step HVO, 6.12.117
==== =============================================================================================
1    H' := copy of the head page; entry 0 maps H' writable, entries 1… map H' read-only
2    split of the k-th block, k ≥ 2: -ENOMEM
3    rollback: *every* entry walked gets a frame of the list back, entry 0 too: as head and tails share H', the
     test that was to spare entry 0 spares nothing
4    all frames of the list are used up; H' is mapped nowhere and on no list
==== =============================================================================================

One frame is lost (I13). The contents of the head survive, as the frame restored over it is the one it was copied from;
the tails get copies of the head page without the reset, which the page allocator will not like once the page is freed
(I11; so it is after every restore of 6.12.117). 6.12 as released leaves entry 0 on H' and frees the old head page; 6.1
never rewrites entry 0 and gives each tail its own frame back. The upstream fix (May 2026, Fixes: c0b495b91a47) is for a
later layout of the code; 6.12.117 has its text.

Which allocation fails is a choice of the environment, and all are tried: tables of splits, the copy of the head, the
frames of a restore, tables of the linear map and of vmemmap, the blocks and pages of vmemmap, hugepages, pages and
tables of vmalloc. (The kernel takes a failed table of the linear map for a BUG.) What a failure leaves behind *at rest*
(I12, I26, I27, and frames lost elsewhere) an exploration does not ask; the tests of the core do, for each allocation of
each operation by one CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import Neighbours, lone_block
from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import DRAM, Setup
from .r14_hugetlb_mark import REPEATED

_ONE = {"alloc_failures": 1}
_TWO = {"alloc_failures": 2}
_PAGES = {"mapping": "basepages"}
#: What is rolled back does not depend on how an entry is exchanged; by break-before-make no translation is stale for
#: long, of which thousands would have to be kept in mind.
_BBM = {"update": "bbm-each", "split": "bbm"}


def _variants() -> list[Variant]:
    gigantic = [
        Variant("1g-6.12.117", "violated", ("I13",), _BBM, "6.12.117", {"what": "1g"}, _ONE),
        *(Variant(f"1g-{kernel}", "safe", (), _BBM, kernel, {"what": "1g"}, _ONE) for kernel in ("6.12", "6.1")),
    ]
    cycle = [
        Variant(f"2m-cycle-{kernel}", "safe", (), _PAGES, kernel, {"what": "2m"}, _TWO)
        for kernel in ("6.1", "6.12", "2021")
    ]
    batch = [
        Variant(f"2m-batch-{kernel}", "safe", (), {}, kernel, {"what": "batch"}, _ONE) for kernel in ("6.1", "6.12")
    ]
    return [
        *gigantic,
        *cycle,
        *batch,
        Variant("2m-cycle-6.12.117", "violated", ("I11",), _PAGES, "6.12.117", {"what": "2m"}, _ONE),
        Variant("reader-2021", "safe", (), {"mapping": "blocks"}, "2021", {"what": "reader"}, _ONE),
        Variant("failure-6.1", "safe", (), _PAGES, "6.1", {"what": "failure"}, _ONE, repeated=REPEATED),
        Variant("failure-6.12", "safe", (), _PAGES, "6.12", {"what": "failure"}, _ONE, repeated=REPEATED),
        Variant("demote-6.1", "safe", (), _PAGES, "6.1", {"what": "demote"}, _ONE),
        Variant("demote-6.12", "safe", (), _PAGES, "6.12", {"what": "demote"}, _ONE),
        Variant("offline-6.1", "safe", (), _PAGES, "6.1", {"what": "offline"}, _ONE),
        Variant("offline-6.12", "safe", (), _PAGES, "6.12", {"what": "offline"}, _ONE),
        Variant("vmalloc", "safe", (), {}, "6.1", {"what": "vmalloc"}, _TWO),
        Variant("add-4k-blocks", "safe", (), {"mapping": "blocks"}, "6.1", {"what": "add"}, _TWO),
        Variant("add-4k-pages", "safe", (), _PAGES, "6.12", {"what": "add"}, _ONE),
        Variant("add-16k", "safe", (), {}, "6.1", {"what": "add", "granule": "16K"}, _TWO),
        Variant("add-64k-dump", "safe", (), {}, "6.1", {"what": "add dump", "granule": "64K"}, _ONE),
    ]


@scenario(
    title="an allocation fails: rollback, restore and hot add take back what they did",
    corpus="R13",
    sources=[
        "https://lore.kernel.org/all/20260525025213.2229628-1-songmuchun@bytedance.com/ (M. Song, May 2026)",
        "derived for 6.12.117: kernel-semantics §H7, §H10, §7.9",
    ],
    judged=["I1", "I2", "I3", "I4", "I5", "I6", "I8", "I11", "I13", "I25", "I29"],
    variants=_variants(),
    kernels={
        "2021": Absent("with HVO on, vmemmap is populated by base pages: no split that could fail half way"),
        "6.12.117": "1g-6.12.117",
        "6.1": "1g-6.1",
        "*": "1g-6.12",
    },
)
def r13_failed_allocation(m: Setup, what: str = "1g", granule: str = "4K") -> Sequence[Actor]:
    if what == "1g":
        m.policies = {"linear-map": "blocks", "mapping": "blocks", **m.policies}
        m.configure(hotplug=[(DRAM + (1 << 30), "1G")])
        block = m.memory.add("1G")
        m.setup(block, m.memory.online(block))
        m.scope(window="one 1G page over eight blocks of vmemmap", update="break-before-make, entry by entry")
        return [Actor("HVO", [m.hugetlb["1G"].allocate(m.pfn(block.start))])]
    if what.startswith("add"):
        block = lone_block(m, granule, add=False)
        actors = [Actor("hot add", [block])]
        return [*actors, Actor("ptdump", [m.ptdump(block)])] if "dump" in what else actors
    pair = Neighbours.of(m, "4K")
    pool, head = m.pmd_hugepage, pair.hugepages[0]
    if what == "vmalloc":
        return [Actor("vmalloc", [m.vmalloc(2)])]
    if what == "demote":
        large = m.hugetlb["32M"]
        m.setup(large.allocate(head))
        return [Actor("demote", [large.demote(1)])]
    if what == "offline":
        # One page of the block is free, one in use: the first is dissolved, the second migrated.
        m.setup(pool.allocate(head), pool.get(), pool.allocate(head + pool.size // m.granule))
        return [Actor("offline", [m.memory.offline(pair.a)])]
    if what == "2m":
        return [pair.hvo(free=True)]
    if what == "batch":
        return [Actor("HVO", [pool.resize(2), pool.resize(0)])]
    if what == "reader":
        return [pair.hvo(), pair.reader()]
    m.setup(pool.allocate(head))
    tail = head + 2 * (m.granule // 64) + 3
    return [Actor("free", [pool.free(head)]), Actor("memory failure", [m.memory_failure(tail)])]
