"""Whether removing a range of physical memory would split a leaf of the linear map or of vmemmap: an edge of the range
in the middle of a block or of a contiguous set. Hot remove cannot split one: it clears whole leaves (kernel-semantics
4.2).

Since commit 95a58852b0e5 "arm64/mm: Reject memory removal that splits a kernel leaf mapping" the kernel asks so itself,
of the range of each ``offline_pages()`` call, and refuses to offline it. Such a call is for one memory block, whatever
is to be removed altogether; so the answer is given for the edges of the range, and for the memory blocks in it one by
one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ..errors import SpecError
from ..spec import format_size, parse_size
from .layout import STRUCT_PAGE, Layout, layout

__all__ = ["LeafEdge", "MappingAnswer", "Removal", "by_arithmetic", "in_tables", "parse_range"]

_CONTIGUOUS: Final = 1 << 52
_PHYSICAL_BITS: Final = 52
_MOST_BLOCKS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class LeafEdge:
    """An edge of a range that lies inside a leaf."""

    edge: str
    """``start`` or ``end``."""
    physical: int
    leaf: int
    """Bytes of VA that the leaf maps: a block, a page, or a contiguous set of them."""
    kind: str
    """``2M block``, ``64K contiguous set of pages`` and so on."""
    ram: tuple[int, int]
    """Physical range that the leaf maps; of a leaf of vmemmap, the range whose struct pages it maps."""

    def to_dict(self) -> dict[str, object]:
        """For JSON: addresses as hexadecimal text.

        Returns:
            The object that ``--json`` prints.
        """
        return {
            "edge": self.edge,
            "physical": hex(self.physical),
            "leaf": self.leaf,
            "kind": self.kind,
            "ram": [hex(self.ram[0]), hex(self.ram[1])],
        }


@dataclass(frozen=True, slots=True)
class MappingAnswer:
    """What a removal would do to one region, mapped in one way."""

    region: str
    """``linear map`` or ``vmemmap``."""
    mapping: str
    """``blocks``, ``basepages``; or ``tables``: as the tables of an image have it."""
    edges: tuple[LeafEdge, ...]
    """Leaves that the range would split."""
    blocks_refused: int
    """Memory blocks of the range that could not go offline, each by itself,
    since an edge of theirs is inside a leaf.
    """

    def to_dict(self) -> dict[str, object]:
        """For JSON.

        Returns:
            The object that ``--json`` prints.
        """
        return {
            "region": self.region,
            "mapping": self.mapping,
            "splits": bool(self.edges),
            "edges": [edge.to_dict() for edge in self.edges],
            "blocks_refused": self.blocks_refused,
        }


@dataclass(frozen=True, slots=True)
class Removal:
    """The answer for one range; sizes in bytes."""

    start: int
    end: int
    machine: Layout
    added: tuple[int, int] | None
    """The range hot-added in one piece; ``None``: not known, the neighbours are taken to have been added with it."""
    source: str | None
    """The image whose tables were asked; ``None``: arithmetic."""
    mappings: tuple[MappingAnswer, ...]
    boot_memory: bool | None
    """Part of the range was there at boot, which arm64 never offlines; ``None`` if that is not known."""

    @property
    def memory_block(self) -> int:
        """Bytes of a memory block: one section, as everywhere on arm64 (``memory_block_size_bytes``)."""
        return self.machine.section_size

    @property
    def whole_blocks(self) -> bool:
        """The range consists of whole memory blocks: nothing else can be offlined or removed as RAM."""
        return not (self.start % self.memory_block or self.end % self.memory_block)

    def to_dict(self) -> dict[str, object]:
        """For JSON: addresses as hexadecimal text.

        Returns:
            The object that ``--json`` prints.
        """
        return {
            "start": hex(self.start),
            "end": hex(self.end),
            "granule": self.machine.granule,
            "memory_block": self.memory_block,
            "whole_blocks": self.whole_blocks,
            "added": None if self.added is None else [hex(address) for address in self.added],
            "tables": self.source,
            "boot_memory": self.boot_memory,
            "splits": any(mapping.edges for mapping in self.mappings),
            "mappings": [mapping.to_dict() for mapping in self.mappings],
        }

    def text(self) -> str:
        """For people: one line for each region and mapping, then what the kernel makes of it.

        Returns:
            Lines for people, without a newline at the end.
        """
        where = "" if self.source is None else f", in the tables of {self.source}"
        size, block = format_size(self.end - self.start), format_size(self.memory_block)
        lines = [f"removing {self.start:#x}-{self.end:#x}, {size} in memory blocks of {block}{where}"]
        for answer in self.mappings:
            name = answer.region if answer.mapping == "tables" else f"{answer.region} by {_MAPPED[answer.mapping]}"
            found = "; ".join(
                f"{edge.edge} {edge.physical:#x} is inside a {edge.kind}, {edge.ram[0]:#x}-{edge.ram[1]:#x}"
                for edge in answer.edges
            )
            lines.append(f"  {name:<25}  {found or 'no leaf is split'}")
            if answer.blocks_refused:
                blocks = (
                    f"{answer.blocks_refused} of its memory blocks have"
                    if answer.blocks_refused > 1
                    else "1 of its memory blocks has"
                )
                lines.append(
                    f"  {'':<25}  {blocks} an edge inside a leaf: Linux with 95a58852b0e5 does not offline such a block"
                )
        if self.source is None:
            lines.append(
                "  6.1 and 6.12 map hot-added memory by base pages if can_set_direct_map(), "
                "as with rodata=full, the default"
            )
            if self.added is None:
                lines.append(
                    "  blocks: as if memory on both sides had been added in one piece; --added START-END tells what was"
                )
        if not self.whole_blocks:
            lines.append("  not whole memory blocks: such a range is never offlined or removed as RAM")
        if self.boot_memory:
            lines.append("  part of it was there at boot: arm64 does not offline boot memory")
        return "\n".join(lines)


_MAPPED: Final = {"blocks": "blocks", "basepages": "base pages"}


def parse_range(text: str, what: str, granule: int) -> tuple[int, int]:
    """``0x80000000-0x88000000`` or ``2G-2176M`` → (start, end), physical, of whole pages.

    Args:
        text: ``0x80000000-0x88000000`` or ``2G-2176M``.
        what: What it is, for the message.
        granule: Bytes of a base page.

    Returns:
        (start, end): physical addresses in bytes, of whole pages.

    Raises:
        SpecError: For anything else.
    """
    first, dash, last = text.partition("-") if isinstance(text, str) else ("", "", "")
    if not dash:
        raise SpecError(f"{what} is {text!r}: expected START-END, like 0x80000000-0x88000000")
    start, end = parse_size(first, f"start of {what}"), parse_size(last, f"end of {what}")
    if start >= end:
        raise SpecError(f"{what} is {start:#x}-{end:#x}: expected an end above the start")
    if start % granule or end % granule:
        raise SpecError(f"{what} is {start:#x}-{end:#x}: expected whole {format_size(granule)} pages")
    if end > 1 << _PHYSICAL_BITS:
        raise SpecError(f"{what} ends at {end:#x}: arm64 has at most {_PHYSICAL_BITS} bits of physical address")
    return start, end


def by_arithmetic(
    remove: str,
    *,
    granule: int | str = "4K",
    mapping: str = "blocks",
    added: str | None = None,
) -> Removal:
    """Which leaves removing the range `remove` would split, if it was hot-added as arm64 does it (``arch_add_memory``,
    ``vmemmap_populate``): the linear map by base pages, and by the largest blocks and contiguous sets that fit into the
    range `added` in one call; vmemmap as `mapping` says. ``memstart_addr`` is taken to be a multiple of the largest
    leaf.

    Args:
        remove: START-END, physical addresses.
        granule: Bytes of a base page, or text: ``4K``, ``16K``, ``64K``.
        mapping: ``blocks`` or ``basepages``.
        added: START-END that was hot-added in one piece.

    Returns:
        The answer for linear map and vmemmap.

    Raises:
        SpecError: No such range; `remove` is not within `added`.
    """
    machine = layout(granule)
    start, end = parse_range(remove, "remove", machine.granule)
    piece = None
    if added is not None:
        piece = parse_range(added, "added", machine.granule)
        if not piece[0] <= start < end <= piece[1]:
            raise SpecError(
                f"remove is {start:#x}-{end:#x}: expected a part of {piece[0]:#x}-{piece[1]:#x}, which was added"
            )
        if piece[0] % machine.section_size or piece[1] % machine.section_size:
            raise SpecError(
                f"added is {piece[0]:#x}-{piece[1]:#x}: "
                f"expected whole memory blocks of {format_size(machine.section_size)}"
            )
    if mapping not in _MAPPED:
        raise SpecError(f"mapping is {mapping!r}: expected blocks or basepages")
    page = (machine.granule, f"{format_size(machine.granule)} page")
    described = machine.granule // STRUCT_PAGE
    # What a leaf of vmemmap maps, as bytes of RAM: the same arithmetic then serves both regions.
    pages = [(size * described, kind) for size, kind in (page,)]
    if mapping == "blocks" and machine.granule == 4096:
        pages.append((machine.pmd_size * described, f"{format_size(machine.pmd_size)} block"))
    vmemmap = "blocks" if len(pages) > 1 else "basepages"
    regions = (
        ("linear map", "basepages", [page], 1),
        ("linear map", "blocks", [page, *_large_leaves(machine)], 1),
        ("vmemmap", vmemmap, pages, described),
    )
    return Removal(
        start=start,
        end=end,
        machine=machine,
        added=piece,
        source=None,
        mappings=tuple(
            MappingAnswer(
                region=region,
                mapping=way,
                edges=tuple(
                    LeafEdge(edge, at, size // ratio, kind, (at // size * size, at // size * size + size))
                    for edge, at in (("start", start), ("end", end))
                    for size, kind in [_leaf(at, leaves, piece)]
                    if at % size
                ),
                blocks_refused=_refused(start, end, machine.section_size, leaves, piece),
            )
            for region, way, leaves, ratio in regions
        ),
        boot_memory=None if piece is None else False,
    )


def _large_leaves(machine: Layout) -> list[tuple[int, str]]:
    """Leaves of the linear map above a page, smallest first; PUD blocks only with 4K pages (``pud_sect_supported``)."""
    pmd = machine.pmd_size
    leaves = [
        (machine.cont_pte_size, f"{format_size(machine.cont_pte_size)} contiguous set of pages"),
        (pmd, f"{format_size(pmd)} block"),
        (machine.cont_pmd_size, f"{format_size(machine.cont_pmd_size)} contiguous set of blocks"),
    ]
    if machine.granule == 4096:
        leaves.append((1 << 30, "1G block"))
    return leaves


def _leaf(at: int, leaves: list[tuple[int, str]], added: tuple[int, int] | None) -> tuple[int, str]:
    """The largest leaf around `at` that lies within what was added. At an edge of the piece that is a page."""
    fitting = [
        (size, kind)
        for size, kind in leaves
        if added is None or (added[0] <= at // size * size and at // size * size + size <= added[1])
    ]
    return fitting[-1] if fitting else leaves[0]


def _refused(start: int, end: int, block: int, leaves: list[tuple[int, str]], added: tuple[int, int] | None) -> int:
    """Memory blocks in the range that lie within a leaf larger than they are. Leaves are nested, so the smallest such
    size says where.
    """
    larger = [size for size, _ in leaves if size > block]
    if not larger:
        return 0
    size = larger[0]
    first, last = (0, 1 << _PHYSICAL_BITS) if added is None else (-(-added[0] // size) * size, added[1] // size * size)
    return max(0, min(end, last) // block - -(-max(start, first) // block))


class _Translation(Protocol):
    @property
    def level(self) -> int: ...
    @property
    def descriptor(self) -> int: ...
    def __bool__(self) -> bool: ...


class _Block(Protocol):
    @property
    def start(self) -> int: ...
    @property
    def size(self) -> int: ...


class _Memory(Protocol):
    @property
    def blocks(self) -> Sequence[_Block]: ...
    @property
    def ranges(self) -> Sequence[tuple[int, int, bool]]: ...


class _Tables(Protocol):
    """What is asked of a ``vmemmap.Machine``."""

    @property
    def granule(self) -> int: ...
    @property
    def va_bits(self) -> int: ...
    @property
    def kernel(self) -> str: ...
    @property
    def memory(self) -> _Memory: ...
    def page_address(self, pfn: int) -> int: ...
    def linear_address(self, physical: int) -> int: ...
    def translate(self, va: int) -> _Translation: ...


def in_tables(machine: _Tables, remove: str, source: str) -> Removal:
    """Which leaves removing the range would split in the tables that `machine` has (``addr_splits_kernel_leaf``).
    `source` names them in the answer.

    Args:
        machine: The machine whose tables are asked.
        remove: START-END, physical addresses.
        source: Name of the tables, for the answer.

    Returns:
        The answer for linear map and vmemmap.

    Raises:
        SpecError: No such range.
    """
    geometry = layout(machine.granule, machine.va_bits, machine.kernel)
    start, end = parse_range(remove, "remove", machine.granule)
    if (end - start) // geometry.section_size > _MOST_BLOCKS:
        raise SpecError(f"remove is {start:#x}-{end:#x}: more than {_MOST_BLOCKS} memory blocks")
    return Removal(
        start=start,
        end=end,
        machine=geometry,
        added=None,
        source=source,
        mappings=tuple(
            MappingAnswer(
                region=region,
                mapping="tables",
                edges=tuple(
                    found
                    for edge, at in (("start", start), ("end", end))
                    for found in [_split_at(machine, geometry, region, edge, at)]
                    if found is not None
                ),
                blocks_refused=sum(
                    any(_split_at(machine, geometry, region, "edge", at) is not None for at in block)
                    for block in _blocks(start, end, geometry.section_size)
                ),
            )
            for region in ("linear map", "vmemmap")
        ),
        boot_memory=any(boot and first < end and start < first + size for first, size, boot in machine.memory.ranges),
    )


def _blocks(start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Whole memory blocks of a range."""
    for at in range(-(-start // size) * size, end // size * size, size):
        yield at, at + size


def _split_at(machine: _Tables, geometry: Layout, region: str, edge: str, at: int) -> LeafEdge | None:
    """The leaf that an edge at physical address `at` is inside of."""
    linear = region == "linear map"
    address = machine.linear_address(at) if linear else machine.page_address(at // machine.granule)
    found = machine.translate(address)
    if not found:
        return None
    size = next(table.entry_span for table in geometry.levels if table.level == found.level)
    kind = f"{format_size(size)} {'page' if found.level == 3 else 'block'}"
    if found.descriptor & _CONTIGUOUS:
        size = geometry.cont_pte_size if found.level == 3 else geometry.cont_pmd_size
        kind = f"{format_size(size)} contiguous set of {'pages' if found.level == 3 else 'blocks'}"
    inside = address % size
    if not inside:
        return None
    ratio = 1 if linear else machine.granule // STRUCT_PAGE
    return LeafEdge(edge, at, size, kind, (at - inside * ratio, at + (size - inside) * ratio))
