"""Actors that the question of May 2021 does not name, beside HVO and hot remove: each derived, none of them reported.

============== =========================================================================================================
actor          what is derived
============== =========================================================================================================
second HVO     of the same section, hence the same PMD block (4K) or PTE table: entries are disjoint. By
               break-before-make of the split the hole is one for all struct pages of the section, those of the other
               too (I2). What a second split would do then (6.1 descends into the empty entry as if it were a table,
               6.12's page walker skips it and reports success: kernel-semantics §H9) comes after that.
device removal `memunmap_pages` takes mem_hotplug_lock but not device_hotplug_lock: hot remove and it exclude each other
               by the former, HVO takes neither. Its scan meets HVO's entries as hot remove's does (R33, R35).
1G page        over eight sections. 4K: its splits come one after the other, so by break-before-make one of eight
               entries of the PMD table is the hole and seven are live: the scan of hot remove always meets one of them
               (not searched: 4096 entries). 16K: its 256 entries lie in one PTE table, of which 6.1 never rewrites the
               first. Where 6.12 clears all of them the table is lost as in R33, whose four hugepages of 8 entries show
               it sooner.
deferred free  `free_hpage_workfn` frees what atomic context left: an optimised page on no list of the pool. A dissolve
               that meets it does the worker's work; memory failure still finds the mark.
============== =========================================================================================================

Memory failure beside HVO and beside other ways to free: R14.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import Neighbours, lone_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import DRAM, Setup

_PAGES = {"mapping": "basepages"}
_BLOCKS = {"mapping": "blocks"}


@scenario(
    title="two users of hugepages in one section, HVO or not",
    sources=["derived: kernel-semantics §H6, §H9 (HVO(A) ∥ HVO(B); BBM variant)"],
    judged=["I1", "I2", "I3", "I5", "I6", "I8", "I13", "I20", "I25"],
    variants=[
        Variant("4k-pages-6.1", "safe", (), _PAGES, "6.1"),
        Variant("16k-6.1", "safe", (), {}, "6.1", {"granule": "16K"}),
        Variant("16k-bbm-each-6.1", "safe", (), {"update": "bbm-each"}, "6.1", {"granule": "16K"}),
        Variant("4k-split-store-free", "safe", (), _BLOCKS, "6.1", {"second": "free"}),
        Variant("4k-split-bbm-free", "violated", ("I2",), {**_BLOCKS, "split": "bbm"}, "6.1", {"second": "free"}),
        Variant("4k-split-bbm-free-6.12", "violated", ("I2",), {**_BLOCKS, "split": "bbm"}, "6.12", {"second": "free"}),
    ],
)
def second_hvo(m: Setup, granule: str = "4K", second: str = "HVO") -> Sequence[Actor]:
    """Two pages optimised at once; or (`second` is ``free``) one of them was made without HVO and is freed
    meanwhile.
    """
    pair = Neighbours.of(m, granule)
    pool = m.pmd_hugepage
    one, other = (m.pfn(pair.a.start + n * pool.size) for n in range(2))
    if second == "free":
        m.setup(m.set_hvo(False), pool.allocate(other), m.set_hvo(True))
        return [Actor("HVO", [pool.allocate(one)]), Actor("free", [pool.free(other)])]
    return [Actor("HVO A", [pool.allocate(one)]), Actor("HVO B", [pool.allocate(other)])]


@scenario(
    title="device removal, without device_hotplug_lock, beside HVO and beside hot remove",
    sources=["derived: mm/memremap.c pageunmap_range; kernel-semantics §5.9, §2.3"],
    judged=["I1", "I2", "I3", "I5", "I6", "I13", "I17", "I25"],
    variants=[
        Variant("4k-hvo-store", "safe", (), _BLOCKS),
        Variant("4k-hvo-split-bbm", "violated", ("I6", "I1"), {**_BLOCKS, "split": "bbm"}),
        Variant("64k-hvo-store-6.12", "safe", (), {}, "6.12", {"granule": "64K"}),
        Variant("64k-hvo-clear-then-set-6.1", "safe", (), {"update": "clear-then-set"}, "6.1", {"granule": "64K"}),
        Variant("4k-hot-remove", "safe", (), {}, "6.1", {"beside": "hot remove"}),
        Variant("4k-hot-remove-unlocked", "violated", ("I17",), {"hotplug": "none"}, "6.1", {"beside": "hot remove"}),
    ],
)
def device_removal(m: Setup, granule: str = "4K", beside: str = "HVO") -> Sequence[Actor]:
    """The device is a whole section beside A, which has hugepages, or beside the offline block that is removed."""
    if beside == "HVO":
        pair = Neighbours.of(m, granule, device=True)
        start, other = pair.b.start, pair.hvo()
    else:
        block = lone_block(m, granule)
        start, other = block.start + m.section, Actor("hot remove", [m.memory.remove(block)])
        m.setup(m.device_add(start, m.section))
    return [other, Actor("device removal", [m.device_remove(start, m.section)])]


_PUBLISHED = {"ordering": "published"}
"""Stricter than the architecture, so safe is safe; and no invalidate of one actor has to be tried before and after each
of the 256 stores of the other, whose translations it does not reach.
"""


@scenario(
    title="a 1G page beside the hot remove of the neighbouring section, 16K pages",
    sources=["derived: kernel-semantics §2.3, §4.6"],
    judged=["I1", "I5", "I6", "I13", "I25"],
    variants=[
        Variant("store-6.1", "safe", environment=_PUBLISHED),
        Variant("clear-then-set-6.1", "safe", (), {"update": "clear-then-set"}, environment=_PUBLISHED),
        Variant("bbm-6.1", "safe", (), {"update": "bbm"}, environment=_PUBLISHED),
    ],
)
def gigantic_page(m: Setup) -> Sequence[Actor]:
    m.policies = {"linear-map": "blocks", **m.policies}
    m.configure(granule="16K", hotplug=[(DRAM + (8 << 30), "2G")])
    page, neighbour = m.memory.add("1G"), m.memory.add()
    m.setup(page, m.memory.online(page), neighbour)
    m.scope(window="8G of RAM share the PTE table: eight sections of the 1G page, the removed block, nothing else")
    return [
        Actor("HVO", [m.hugetlb["1G"].allocate(m.pfn(page.start))]),
        Actor("hot remove", [m.memory.remove(neighbour)]),
    ]


@scenario(
    title="the worker that frees hugepages for atomic context, beside a dissolve",
    sources=["derived: mm/hugetlb.c free_hpage_workfn, dissolve_free_huge_page; kernel-semantics §7.4, §7.5"],
    judged=["I3", "I8", "I11", "I13", "I25", "I28", "I29"],
    variants=[
        Variant("worker-6.1", "safe", (), _PAGES, "6.1"),
        Variant("worker-6.12", "safe", (), _PAGES, "6.12"),
        Variant("two-workers-6.1", "safe", (), _PAGES, "6.1", {"actors": "worker worker"}),
        Variant("failure-6.1", "safe", (), _PAGES, "6.1", {"actors": "worker failure"}),
        Variant(
            "failure-before-restore-6.1",
            "violated",
            ("I8", "I29"),
            {**_PAGES, "dtor-clear": "before-restore"},
            "6.1",
            {"actors": "worker failure"},
        ),
    ],
)
def deferred_free(m: Setup, actors: str = "worker dissolve") -> Sequence[Actor]:
    """The pool has one surplus page in use; its user lets go in atomic context, which leaves it to the worker."""
    pair = Neighbours.of(m, "4K")
    pool, head = m.pmd_hugepage, pair.hugepages[0]
    m.setup(pool.allocate(head), pool.get(), pool.resize(0), pool.put(head))
    tail = head + 2 * (m.granule // 64) + 3
    programs = {
        "worker": [m.deferred_free()],
        "dissolve": [m.dissolve(head)],
        "failure": [m.memory_failure(tail)],
    }
    names = actors.split()
    return [Actor(name if name not in names[:n] else f"second {name}", programs[name]) for n, name in enumerate(names)]
