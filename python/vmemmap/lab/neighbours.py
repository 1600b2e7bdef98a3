"""Layouts in which two sections meet in one table and nothing else lives there (kernel-semantics §2.3).

Hot-added blocks lie one whole table window beyond boot memory: A, whose pages HVO rewrites, and B, which is removed.

===== ============= ========================= ==========================================
page  table shared  window of RAM             A
===== ============= ========================= ==========================================
4K    PMD table     64 GiB (512 sections)     one 2 MiB block, or its table of 512 pages
16K   PTE table     8 GiB (64 sections)       four 32M pages, 8 PTEs each
64K   PTE table     512 GiB (1024 sections)   one 512M page, 8 PTEs
===== ============= ========================= ==========================================
"""

from __future__ import annotations

from dataclasses import dataclass

from ..spec import format_size, parse_granule
from .actor import Actor
from .memory import Block
from .setup import DRAM, SECTION_SIZE, Setup
from .steps import Operation

WINDOW = {4096: 64 << 30, 16384: 8 << 30, 65536: 512 << 30}
"""RAM whose vmemmap shares the table in which neighbouring sections meet."""

LEVEL = {4096: "PMD", 16384: "PTE", 65536: "PTE"}


_MACHINE = "linear map of hot-added memory in blocks"


def _configure(m: Setup, granule: int) -> int:
    """A machine whose hotplug region begins one window beyond boot memory; returns the window in bytes of RAM.

    The linear map is in blocks: its 32768 entries would hide what the search is about behind steps that nobody shares.
    """
    m.policies = {"linear-map": "blocks", **m.policies}
    m.configure(granule=granule, hotplug=[(DRAM + WINDOW[granule], 4 * SECTION_SIZE[granule])])
    return WINDOW[granule]


def lone_block(m: Setup, granule: str, *, add: bool = True, online: bool = False) -> Block:
    """Configure the machine with one hot-added block that is alone in its window: removing it frees its tables. It is
    offline unless `online`, and yet to be added without `add`.

    Args:
        m: What the scenario function was given.
        granule: Bytes of a base page, or text: ``4K``, ``16K``, ``64K``.
        add: Add it before the actors start.
        online: And set it online.

    Returns:
        The block.
    """
    size = parse_granule(granule)
    window = _configure(m, size)
    block = m.memory.add()
    if add:
        m.setup(block, *([m.memory.online(block)] if online else []))
    m.scope(
        window=(
            f"{format_size(window)} of RAM share the {LEVEL[size]} table: the {'removed' if add else 'added'} block, "
            "nothing else"
        ),
        machine=_MACHINE,
    )
    return block


def hugepages_and_block(m: Setup, granule: int, hugepages: int, sections: int = 2) -> tuple[list[Block], Block]:
    """Configure the machine with sections at the end of a window, and right behind them an offline block whose first
    section still lies in that window, and the others in the next.

    Args:
        m: What the scenario function was given.
        granule: Bytes of a base page.
        hugepages: How many sections come before the block.
        sections: How many the block has.

    Returns:
        The sections, online, and the block.
    """
    m.policies = {"linear-map": "blocks", **m.policies}
    section = SECTION_SIZE[granule]
    end_of_window = DRAM + 2 * WINDOW[granule]
    m.configure(
        granule=granule, hotplug=[(end_of_window - (hugepages + 1) * section, (hugepages + sections) * section)]
    )
    online = [m.memory.add() for _ in range(hugepages)]
    block = m.memory.add(sections * section)
    for one in online:
        m.setup(one, m.memory.online(one))
    m.setup(block)
    return online, block


@dataclass(frozen=True)
class Neighbours:
    """Section A, with hugepages; B, hot-added and offline; both alone in their window unless `also_live`."""

    m: Setup
    a: Block
    b: Block

    @classmethod
    def of(cls, m: Setup, granule: str, *, also_live: bool = False, device: bool = False) -> Neighbours:
        """Configure the machine and add the blocks. `also_live`: a third section lives in the window, without
        hugepages, which is the negative control. `device`: B is device memory rather than a memory block.

        Args:
            m: What the scenario function was given.
            granule: Bytes of a base page, or text: ``4K``, ``16K``, ``64K``.
            also_live: A third section lives in the window, so that the table is never empty.
            device: B is a ZONE_DEVICE range instead of a memory block.

        Returns:
            The blocks, as the actors need them.
        """
        size = parse_granule(granule)
        window = _configure(m, size)
        a, b = m.memory.add(), m.memory.add()
        m.setup(a, m.memory.online(a), m.device_add(b.start, b.bytes) if device else b)
        beside = "A (hugepages), B (removed), nothing else"
        if also_live:
            c = m.memory.add()
            m.setup(c, m.memory.online(c))
            beside = "A (hugepages), B (removed) and a third section that stays"
        m.scope(
            window=f"{format_size(window)} of RAM share the {LEVEL[m.granule]} table: {beside}",
            machine=_MACHINE,
        )
        return cls(m, a, b)

    @property
    def hugepages(self) -> list[int]:
        """Head PFNs of the PMD-sized pages that fill A; with 4K only the first, which is enough to split the block."""
        size = self.m.pmd_hugepage.size
        count = 1 if self.m.granule == 4096 else self.m.section // size
        return [self.m.pfn(self.a.start + index * size) for index in range(count)]

    def hvo(self, *, free: bool = False) -> Actor:
        """Allocates the hugepages of A, so that HVO optimises them; with `free` also gives them back.

        Args:
            free: Give them back, too.

        Returns:
            The actor.
        """
        pool = self.m.pmd_hugepage
        steps: list[Operation] = [pool.allocate(pfn) for pfn in self.hugepages]
        if free:
            steps += [pool.free(pfn) for pfn in self.hugepages]
        return Actor("HVO", steps)

    def hot_remove(self) -> Actor:
        """Removes B, which is offline.

        Returns:
            The actor.
        """
        return Actor("hot remove", [self.m.memory.remove(self.b)])

    def reader(self, pages: int = 1) -> Actor:
        """A PFN walker over the tail struct pages of A's first hugepage.

        Args:
            pages: How many tail vmemmap pages it looks at.

        Returns:
            The actor.
        """
        return Actor("PFN walker", [self.m.tail_walk(self.a, pages)])


def hugepage_block(m: Setup, granule: str = "4K", *, split: bool = False) -> Block:
    """Configure the machine with one hot-added block, online, for hugepages; nobody removes anything. Without `split`
    its vmemmap is in base pages from the start: the 512 entries of a split are steps that nobody shares.

    Args:
        m: What the scenario function was given.
        granule: Bytes of a base page, or text: ``4K``, ``16K``, ``64K``.
        split: Map its vmemmap by blocks, which HVO has to split first.

    Returns:
        The block.
    """
    if not split:
        m.policies = {"mapping": "basepages", **m.policies}
    _configure(m, parse_granule(granule))
    block = m.memory.add()
    m.setup(block, m.memory.online(block))
    vmemmap = "blocks, where the granule has them" if split else "base pages"
    m.scope(window="nothing is removed, so no table is at stake", machine=f"{_MACHINE}; vmemmap in {vmemmap}")
    return block
