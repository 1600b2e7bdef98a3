"""R38: what a restore without reset leaves behind, and who meets it: the code of 6.12.117 as read, beside 6.1, the
intent, and 7.x.

Of the code as read (kernel-semantics §H7), with 4K pages and a 2M page, whose struct pages fill eight vmemmap pages:

==== =================================================== ===============================================================
step 6.12.117                                            who meets it
==== =================================================== ===============================================================
1    optimise: all eight entries map H, a copy of the
     head's vmemmap page
2    restore: each tail page gets a copy of H; no reset,
     so slots 0 to 2 are those of the head, of the first
     and of the second tail
3    the type of the head goes, those of the seven copies
     stay
4    the page is freed. `free_tail_page_prepare` would    `free`, I11: ``bad page``, at slot 0 first
     find slots 0 to 2 of the seven pages wrong; it
     clears flags, mapping and compound_head, not the
     type
5    seven free pages answer to `folio_test_hugetlb`      `dissolve`, `failure`, `offline`, I29: no size, so no hstate
6    memory is hot-added: the vmemmap of a section is one `add`, I11: seven pages of the block are not as a new
     block, which may be that hugepage                   page should be
7    more hugepages: the block is split, its pages freed  `reuse`, I11: page 64 of the block is freed with the type on,
     one by one                                          when the ninth hugepage of the section is optimised
==== =================================================== ===============================================================

A violation ends its execution, so each variant begins behind the violations of the steps before it. The other half of
that code, the rollback that loses the copy of the head (I13), is R13's.

In 6.1 and in the intent of 6.12 slots 0 to 2 are overwritten with plain tails (`reset_struct_pages`), and nobody meets
anything. In 7.2 and 7.3 the restore is 6.12.117's word for word, a plain copy without reset; but the frame that it
copies is the zone's, in which every slot is a tail: derived by hand, nobody meets anything there either. Each of the
two patches that 6.12.114 took is right upstream; the one between them, which gives the tails a frame of their own, is
what makes them so. docs/restore-6.12.117.md says what follows, and what is not shown.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import DRAM, Setup

_AS_WRITTEN = "6.12.117"
_SOUND = ("6.1", "6.12", "7.3")


def _variants() -> list[Variant]:
    violations = {
        "free walker": ("I11",),
        "free failure": ("I11",),
        "bulk walker": ("I11",),
        "dissolve": ("I29",),
        "failure": ("I29",),
        "offline walker": ("I29",),
        "add walker": ("I11",),
        "reuse walker": ("I11",),
    }
    return [
        Variant(
            f"{what.replace(' ', '-')}-{kernel}",
            "safe" if kernel in _SOUND else "violated",
            () if kernel in _SOUND else invariants,
            kernel=kernel,
            arguments={"what": what},
        )
        for what, invariants in violations.items()
        for kernel in (_AS_WRITTEN, *_SOUND)
    ] + [Variant("dissolve-7.2", "safe", kernel="7.2", arguments={"what": "dissolve"})]


@scenario(
    title="a restore that leaves copies of the head, and who meets them after the free",
    corpus="R38",
    sources=[
        "kernel-semantics §H3, §H5, §H7, §13.1 (6.12.117 as read, 6.12 as intended)",
        "derived: what a free leaves of a type, and who asks for it; docs/restore-6.12.117.md",
    ],
    judged=["I3", "I8", "I11", "I13", "I25", "I28", "I29"],
    variants=_variants(),
    kernels={
        "2021": "free-walker-6.1",
        "6.1": "free-walker-6.1",
        "6.12": "free-walker-6.12",
        "6.12.117": "free-walker-6.12.117",
        "*": "free-walker-7.3",
    },
)
def restore_6_12_117(m: Setup, what: str = "free walker") -> Sequence[Actor]:
    names = what.split()
    if "add" in names or "reuse" in names:
        return _hot_added(m, names)
    block = hugepage_block(m)
    pool, head = m.pmd_hugepage, m.pfn(block.start)
    per_page = m.granule // 64
    # Slot 0 of the first tail vmemmap page: a copy of the head.
    copy = head + per_page
    m.setup(pool.allocate(head))
    if not {"free", "bulk"} & set(names):
        m.setup(pool.free(head))
    # Beside a free: a slot whose own words say what it is. What a CPU makes of slot 0 that uses the old and the new
    # translation in turn is I10's matter (docs/limits.md).
    error = copy if "free" not in names else copy + per_page + 3
    programs = {
        "free": Actor("free", [pool.free(head)]),
        "bulk": Actor("bulk free", [pool.resize(0)]),
        "walker": Actor("PFN walker", [m.pfn_walk(copy, copy + 1)]),
        "failure": Actor("memory failure", [m.memory_failure(error)]),
        "dissolve": Actor("dissolve", [m.dissolve(copy)]),
        "offline": Actor("offline", [m.memory.offline(block)]),
    }
    return [programs[name] for name in names]


def _hot_added(m: Setup, names: Sequence[str]) -> list[Actor]:
    """Every block of boot memory that a hugepage fits in has been one; then a section is added, whose vmemmap is a
    block.
    """
    m.policies = {"linear-map": "blocks", "mapping": "blocks", **m.policies}
    m.configure(hotplug=[(DRAM + (1 << 30), "128M")])
    pool = m.pmd_hugepage
    m.setup(pool.resize(64), pool.resize(0))
    block = m.memory.add()
    first = m.pfn(block.start)
    pages = pool.size // m.granule
    add = [block, m.memory.online(block)]
    m.scope(
        window="nothing is removed",
        machine="linear map of hot-added memory in blocks; all of boot memory that is free has been hugepages",
    )
    if "add" in names:
        actors = [Actor("hot add", [*add, pool.allocate(first)])]
    else:
        m.setup(*add, *(pool.allocate(first + n * pages) for n in range(8)))
        actors = [Actor("HVO", [pool.allocate(first + 8 * pages)])]
    if "walker" in names:
        # Of the added memory, whose struct pages come from the block.
        tail = first + 9 * pages - m.granule // 64
        actors.append(Actor("PFN walker", [m.pfn_walk(tail, tail + 1)]))
    return actors
