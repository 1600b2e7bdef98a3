"""For each invariant a policy that breaks it: the machine must say so by that number, and nothing without the policy.

A machine that never accuses anybody passes every other test. Where an invariant can be seen, one of three ways:

* access: a checked machine sees it happen (``Machine.violations``);
* at rest: ``Machine.check()`` finds what was left behind;
* explored: some interleaving, or some choice of a TLB, breaks it (``vmemmap.explore``).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

import vmemmap
from vmemmap import Actor, KernelError, Machine, Variant
from vmemmap.lab.description import Environment, Value
from vmemmap.lab.neighbours import Neighbours, lone_block
from vmemmap.lab.setup import Setup
from vmemmap.scenarios.r28_split_before_capabilities import linear_block, set_valid

EXEMPT = {"I23"}
"""Broken only by torn stores, which no machine here has (kernel-semantics §12)."""

EXPLORED_ONLY = {"I4", "I5", "I19"}
"""What a TLB holds, and the architecture's rule: a checked machine runs on the host's memory, without a modelled
TLB.
"""

History = Callable[[Machine], None]
Script = Callable[[Setup], Sequence[Actor]]

BOOT = 0x4000_0000


# ---- histories of one thread
# ------------------------------------------------------------------------------------------


def use_and_free(m: Machine) -> None:
    """Two pages optimised, one used, all restored."""
    pool = m.hugetlb["2M"]
    pool.nr_hugepages = 2
    pool.put(pool.get())
    pool.nr_hugepages = 0


def optimise(m: Machine) -> None:
    m.hugetlb["2M"].nr_hugepages = 1


def offline_with_a_hugepage(m: Machine) -> None:
    block = m.memory.add("128M")
    block.online()
    m.hugetlb["2M"].allocate(pfns=[block.start // m.granule])
    block.offline()
    m.memory.remove(block)


def remove_a_block(m: Machine) -> None:
    m.memory.add("128M")
    block = m.memory.add("128M")
    m.memory.remove(block)


def boot_memory_offline(m: Machine) -> None:
    """The lowest block: nothing that boot allocated lies there, it came from the top."""
    try:
        m.memory.remove(start=BOOT + (128 << 20), size="128M")
    except KernelError as refused:
        assert refused.errno == errno.EPERM


def self_hosted_block(m: Machine) -> None:
    block = m.memory.add("128M", memmap_on_memory=True)
    block.online()
    m.hugetlb["2M"].allocate(pfns=[(block.start + (4 << 20)) // m.granule])


def split_that_fails_half_way(m: Machine) -> None:
    """A 1G page has its struct pages in eight blocks: the fourth split finds no table."""
    m.fail_allocation(5)
    m.hugetlb["1G"].allocate(1)
    assert m.hugetlb["1G"].optimised_hugepages == 0


def restore_that_fails(m: Machine) -> None:
    pool = m.hugetlb["2M"]
    pool.nr_hugepages = 2
    m.fail_allocation(1)
    with pytest.raises(KernelError) as refused:
        pool.free()
    assert refused.value.errno == errno.ENOMEM


def dissolve_a_surplus_page(m: Machine) -> None:
    """A page that a failed restore made surplus is free; then its block goes offline."""
    block = m.memory.add("128M")
    block.online()
    pool = m.hugetlb["2M"]
    pool.allocate(pfns=[block.start // m.granule])
    m.fail_allocation(1)
    pool.nr_hugepages = 0
    assert (pool.nr_hugepages, pool.surplus_hugepages) == (1, 1)
    block.offline()


def add_that_fails(m: Machine) -> None:
    """In the linear map and in vmemmap; 2021 with HVO populates base pages, and has nothing to fall back to."""
    for nth in (1, 30, 100, 300):
        m.fail_allocation(nth)
        with pytest.raises(KernelError):
            m.memory.add("128M")
    m.fail_allocation(None)


def offline_that_fails(m: Machine) -> None:
    """All free pages are reserved: none can be dissolved."""
    block = m.memory.add("128M")
    block.online()
    pool = m.hugetlb["2M"]
    pool.allocate(pfns=[block.start // m.granule])
    pool.reserve(1)
    with pytest.raises(KernelError) as refused:
        block.offline()
    assert refused.value.errno == errno.EBUSY


# ---- scenarios
# ---------------------------------------------------------------------------------------------------------


def ptdump_beside_removal(m: Setup) -> Sequence[Actor]:
    block = lone_block(m, "4K")
    return [Actor("ptdump", [m.ptdump(block)]), Actor("hot remove", [m.memory.remove(block)])]


def hvo_beside_a_reader(m: Setup) -> Sequence[Actor]:
    """The reader looks at the first struct page of a tail page, which reads as the head's once it is shared."""
    pair = Neighbours.of(m, "4K")
    return [pair.hvo(), pair.reader()]


def hvo_alone(m: Setup) -> Sequence[Actor]:
    return [Neighbours.of(m, "4K").hvo()]


def hvo_in_a_batch(m: Setup) -> Sequence[Actor]:
    """6.12 flushes once, after all pages: until then the CPU itself may use what it had."""
    Neighbours.of(m, "4K")
    return [Actor("HVO", [m.pmd_hugepage.resize(1)])]


def hvo_twice_in_a_block(m: Setup) -> Sequence[Actor]:
    pair = Neighbours.of(m, "4K")
    heads = (m.pfn(pair.a.start + n * m.pmd_hugepage.size) for n in range(2))
    return [Actor(f"HVO {n}", [m.pmd_hugepage.allocate(head)]) for n, head in enumerate(heads)]


def removal_alone(m: Setup) -> Sequence[Actor]:
    block = lone_block(m, "4K")
    return [Actor("hot remove", [m.memory.remove(block)])]


def removal_at_the_border(m: Setup) -> Sequence[Actor]:
    """16K, 47 bits, 6.12: VMEMMAP_START lies within the span of a PMD table, so vmalloc and the first gigabyte of
    vmemmap share one. KASLR has put that gigabyte below the memory of boot; only the block removed lives in it."""
    m.policies = {"linear-map": "blocks", **m.policies}
    m.configure(granule="16K", va_bits=47, memstart=BOOT - (256 << 30), hotplug=[(0x2000_0000, "128M")])
    block = m.memory.add(start=0x2000_0000)
    m.setup(block)
    return [Actor("hot remove", [m.memory.remove(block)])]


def two_removals(m: Setup) -> Sequence[Actor]:
    pair = Neighbours.of(m, "4K")
    other = m.memory.add()
    m.setup(other)
    return [pair.hot_remove(), Actor("another", [m.memory.remove(other)])]


def vmalloc_alone(m: Setup) -> Sequence[Actor]:
    return [Actor("vmalloc", [m.vmalloc(1)])]


def restore_beside_a_reader(m: Setup) -> Sequence[Actor]:
    pair = Neighbours.of(m, "4K")
    m.setup(*(m.pmd_hugepage.allocate(pfn) for pfn in pair.hugepages))
    return [Actor("HVO", [m.pmd_hugepage.free(pfn) for pfn in pair.hugepages]), pair.reader()]


def invalid_block_split(m: Setup) -> Sequence[Actor]:
    """2 MiB of the linear map are made invalid, then one page of it valid again."""
    first = linear_block(m)
    return [Actor("set_memory", [set_valid(first, 512, on=False), set_valid(first, 1, on=True)])]


# ---- the table
# -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Broken:
    """How an invariant is broken, and where that is seen. `sound` replaces `policies` in the history that must be
    clean.
    """

    invariant: str
    seen: str
    happens: History | Script
    policies: Mapping[str, str]
    kernel: str = "6.1"
    sound: Mapping[str, str] = field(default_factory=dict[str, str])
    besides: frozenset[str] = frozenset({"I19"})
    """Falls with and without: the kernel's own exchange breaks I19 whatever else it does, break-before-make makes
    holes.
    """
    strategy: str = "exhaustive"
    memory: str = "sc"
    environment: Environment = field(default_factory=dict[str, Value])

    @property
    def name(self) -> str:
        how = ",".join(f"{row}={value}" for row, value in self.policies.items())
        return f"{self.invariant}-{self.seen.replace(' ', '-')}-{how}-{self.kernel}"

    def fallen(self, policies: Mapping[str, str]) -> set[str]:
        """Numbers of the invariants that fall."""
        if self.seen == "explored":
            return set(self.explore(policies).violated)
        m = Machine(kernel=self.kernel, boot_memory="2560M", hotplug_memory="512M", checked=True, **_keywords(policies))
        self.happens(m)  # type: ignore[arg-type]
        return {found.invariant for found in (m.violations if self.seen == "access" else m.check())}

    def explore(self, policies: Mapping[str, str]) -> vmemmap.Result:
        variant = Variant("mutant", "violated", (), policies, self.kernel, environment=self.environment)
        scenario = vmemmap.scenario(title=self.name, sources=["kernel-semantics §12"], judged=[self.invariant])(
            self.happens
        )  # type: ignore[arg-type]
        budget = 20.0 if self.strategy == "exhaustive" else 50
        return vmemmap.explore(
            scenario,
            variant=variant,
            memory=self.memory,
            strategy=self.strategy,
            seed=1,
            budget=budget,
            shorten=0.0,
        )


def _keywords(policies: Mapping[str, str]) -> dict[str, Any]:
    return {row.replace("-", "_"): value for row, value in policies.items()}


def mutant(invariant: str, seen: str, happens: History | Script, name: str, kernel: str = "6.1") -> Broken:
    return Broken(invariant, seen, happens, {"mutant": name}, kernel)


BLOCKS = {"mapping": "blocks"}
"""2021 has no fake heads. (On 6.1 a CPU that uses old and new translations in turn takes a tail for a head: that is
what the missing break-before-make costs, and no policy of the row.) It would map base pages if HVO is on.
"""

BBM = {"update": "bbm", "split": "bbm"}

TABLE = [
    Broken("I1", "explored", ptdump_beside_removal, {"walker": "mmap-only"}),
    Broken("I2", "explored", hvo_beside_a_reader, {**BLOCKS, "update": "clear-then-set"}, "2021", BLOCKS),
    Broken("I2", "at rest", remove_a_block, {"table-free": "no-scan"}),
    Broken(
        "I2",
        "explored",
        vmalloc_alone,
        {"mutant": "missing-isb"},
        environment={"ets": "none", "spurious_fault": "fatal"},
    ),
    Broken("I3", "explored", hvo_beside_a_reader, {**BLOCKS, "free-order": "free-then-invalidate"}, "2021", BLOCKS),
    Broken("I4", "explored", hvo_alone, {"free-order": "free-then-invalidate"}),
    Broken("I5", "explored", removal_alone, {"table-free": "last-level-tlbi"}),
    Broken("I6", "access", remove_a_block, {"table-free": "no-scan"}),
    Broken("I7", "explored", removal_at_the_border, {"table-free": "wrong-bounds"}, "6.12"),
    mutant("I8", "at rest", optimise, "writable-tails"),
    mutant("I8", "at rest", optimise, "writable-tails", "7.3"),
    mutant("I9", "at rest", optimise, "read-only-head"),
    mutant("I9", "at rest", optimise, "read-only-head", "7.3"),
    mutant("I10", "at rest", optimise, "foreign-tail", "7.3"),
    Broken("I10", "explored", hvo_beside_a_reader, {**BBM, "mutant": "key-too-late"}, "6.1", BBM, frozenset({"I2"})),
    mutant("I11", "at rest", use_and_free, "restore-shared"),
    mutant("I12", "at rest", split_that_fails_half_way, "rollback-short"),
    mutant("I13", "at rest", use_and_free, "leak-on-restore"),
    mutant("I13", "at rest", use_and_free, "leak-on-restore", "7.3"),
    mutant("I14", "access", offline_with_a_hugepage, "offline-keeps-huge"),
    mutant("I15", "access", boot_memory_offline, "boot-removable"),
    mutant("I16", "at rest", self_hosted_block, "ignore-self-hosted"),
    mutant("I17", "explored", two_removals, "no-device-lock"),
    Broken("I18", "explored", ptdump_beside_removal, {"walker": "mmap-only"}),
    Broken("I19", "explored", hvo_alone, {"update": "store"}, sound=BBM),
    # Two actors that fill a table of 512 entries each: more than is searched exhaustively in a moment.
    Broken("I20", "explored", hvo_twice_in_a_block, {"mutant": "split-no-retest"}, strategy="random"),
    mutant("I21", "access", optimise, "publish-early"),
    Broken(
        "I21",
        "explored",
        hvo_beside_a_reader,
        {**BLOCKS, "mutant": "unordered-table"},
        sound=BLOCKS,
        besides=frozenset({"I2", "I10", "I19"}),
        memory="views",
    ),
    Broken(
        "I22",
        "explored",
        restore_beside_a_reader,
        {"mutant": "unordered-content"},
        besides=frozenset({"I10", "I19"}),
        memory="views",
    ),
    mutant("I24", "at rest", restore_that_fails, "surplus-lost"),
    mutant("I24", "at rest", restore_that_fails, "surplus-lost", "7.3"),
    mutant("I24", "at rest", dissolve_a_surplus_page, "surplus-kept"),
    mutant("I24", "at rest", offline_with_a_hugepage, "max-kept", "7.3"),
    mutant("I25", "access", optimise, "sleep-under-lock"),
    mutant("I26", "at rest", add_that_fails, "subsection-map-early", "2021"),
    mutant("I27", "at rest", offline_that_fails, "no-undo"),
    mutant("I28", "explored", hvo_in_a_batch, "flag-after-copy", "6.12"),
    Broken("I29", "access", use_and_free, {"dtor-clear": "before-restore"}),
    Broken("I29", "access", dissolve_a_surplus_page, {"dtor-clear": "sampled"}),
    mutant("I30", "at rest", optimise, "table-twice"),
    mutant("I31", "at rest", use_and_free, "executable"),
    Broken("I32", "at rest", offline_with_a_hugepage, {"table-free": "never"}),
    mutant("I33", "at rest", use_and_free, "restore-uncounted", "6.12"),
    mutant("I33", "at rest", use_and_free, "restore-uncounted", "7.3"),
    Broken("I34", "explored", invalid_block_split, {"split-invalid": "makes-valid"}, "7.3"),
]


def test_every_invariant_has_a_row_but_those_exempt_by_name() -> None:
    assert {f"I{n}" for n in range(1, 35)} == {row.invariant for row in TABLE} | EXEMPT
    assert not {row.invariant for row in TABLE} & EXEMPT


def test_every_mutant_of_the_policy_table_is_in_a_row() -> None:
    known = set(vmemmap.policies()["mutant"])
    assert known - {"none"} == {row.policies["mutant"] for row in TABLE if "mutant" in row.policies}


def test_what_only_an_explored_machine_can_show_is_said_by_name() -> None:
    shown = {row.invariant for row in TABLE if row.seen != "explored"}
    assert not shown & EXPLORED_ONLY


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_invariant_falls_by_its_own_number(row: Broken) -> None:
    assert row.invariant in row.fallen(row.policies)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_without_it_the_same_history_is_clean(row: Broken) -> None:
    assert row.fallen(row.sound) <= row.besides - {row.invariant}


def dump_beside_vmalloc(m: Setup) -> Sequence[Actor]:
    return [Actor("ptdump", [m.ptdump_check_wx()]), Actor("vmalloc", [m.vmalloc(8)])]


def test_a_dump_that_sees_vmalloc_come_and_go_accuses_nobody() -> None:
    """Entries of vmalloc change under locks that no dump takes; only the free of a table would harm one (R7)."""
    assert vmemmap.stress(dump_beside_vmalloc, seconds=0.5).violations == ()


def demote_beside_free(m: Setup) -> Sequence[Actor]:
    m.setup(m.hugetlb["32M"].resize(1))
    return [Actor("demote", [m.hugetlb["32M"].demote(1)]), Actor("free", [m.hugetlb["2M"].free()])]


def test_the_parts_of_a_demoted_page_are_freed_as_what_they_are() -> None:
    found = vmemmap.explore(demote_beside_free, strategy="random", seed=1, budget=20, shorten=0.0)
    assert set(found.violated) <= {"I19"}
