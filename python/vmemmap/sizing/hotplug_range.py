"""Whether a range of physical memory would be accepted for hot add or hot remove, with the reason in the kernel's
terms; and the struct
pages that RAM with holes needs (``mm/memory_hotplug.c``, ``arch/arm64/mm/mmu.c``, ``mm/sparse.c``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from ..errors import SpecError
from ..spec import format_size, parse_size
from .layout import Layout

__all__ = ["Memmap", "RangeAnswer", "add", "memmap_of", "parse_at", "remove"]

_PHYSICAL_BITS: Final = 52


@dataclass(frozen=True, slots=True)
class RangeAnswer:
    """The answer for one range."""

    operation: str
    """``add`` or ``remove``."""
    start: int
    size: int
    accepted: bool
    errno: str | None
    """``EINVAL`` and so on."""
    reason: str
    """Of a refusal the test that refuses it; of an acceptance what is made or taken."""
    right: str | None
    """The range that would be accepted instead, if rounding makes one."""
    blocks: tuple[int, int] | None
    """First and last memory block, ``memoryN``."""
    facts: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON: addresses as hexadecimal text, as everywhere in ``layout --json``.

        Returns:
            The object that ``--json`` prints for a range, in ``ranges``.
        """
        return {
            "operation": self.operation,
            "start": hex(self.start),
            "size": self.size,
            "accepted": self.accepted,
            "errno": self.errno,
            "reason": self.reason,
            "right": self.right,
            "blocks": None if self.blocks is None else list(self.blocks),
            "facts": list(self.facts),
        }

    def text(self) -> str:
        """For people.

        Returns:
            Lines for people, without a newline at the end.
        """
        verdict = "accepted" if self.accepted else f"refused, {self.errno}"
        lines = [f"  {self.operation} {format_size(self.size)} at {self.start:#x}: {verdict}: {self.reason}"]
        if self.right is not None:
            lines.append(f"    would be accepted: {self.right}")
        return "\n".join([*lines, *(f"    {fact}" for fact in self.facts)])


@dataclass(frozen=True, slots=True)
class Memmap:
    """Struct pages of RAM, which come by whole sections."""

    ram: int
    sections: int
    vmemmap: int
    """Bytes of struct pages that are allocated."""
    needed: int
    """Bytes that the RAM alone would need."""
    partial: tuple[int, ...]
    """Numbers of the sections that RAM does not fill."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON.

        Returns:
            The object that ``--json`` prints as ``ram``.
        """
        return {
            "ram": self.ram,
            "sections": self.sections,
            "vmemmap": self.vmemmap,
            "vmemmap_needed": self.needed,
            "vmemmap_for_holes": self.vmemmap - self.needed,
            "partial_sections": list(self.partial),
        }

    def text(self) -> str:
        """For people.

        Returns:
            One line, without a newline at the end.
        """
        some = ", ".join(map(str, self.partial[:8])) + (" and more" if len(self.partial) > 8 else "")
        holes = (
            f"; {format_size(self.vmemmap - self.needed)} of them for holes in section {some}" if self.partial else ""
        )
        return (
            f"  {format_size(self.ram)} of RAM: {self.sections} sections, "
            f"{format_size(self.vmemmap)} of struct pages{holes}"
        )


def parse_at(text: str, what: str) -> tuple[int, int]:
    """``768M@0xc8000000`` → (first byte, one past the last).

    Args:
        text: What somebody typed.
        what: What it is, for messages.

    Returns:
        First byte, and one past the last.

    Raises:
        SpecError: It is no such range.
    """
    size_text, at, start_text = text.partition("@")
    if not at:
        raise SpecError(f"{what} is {text[:60]!r}: expected SIZE@ADDRESS like 768M@0xc8000000")
    start, size = parse_size(start_text, f"{what} (address)"), parse_size(size_text, f"{what} (size)")
    if start + size > 1 << _PHYSICAL_BITS:
        raise SpecError(f"{what} is {text[:60]!r}: ends above {1 << _PHYSICAL_BITS:#x}, the highest physical address")
    return start, start + size


def memmap_of(machine: Layout, ram: Iterable[tuple[int, int]]) -> Memmap:
    """Struct pages of ranges of RAM: every section that has any is populated whole.

    Args:
        machine: Its layout.
        ram: First byte and one past the last of each range.

    Returns:
        What they need and what is allocated.

    Raises:
        SpecError: Ranges that overlap, or are no whole pages.
    """
    ranges = sorted(ram)
    for start, end in ranges:
        if start % machine.granule or end % machine.granule or start >= end:
            raise SpecError(f"ram is {start:#x}-{end:#x}: expected whole pages of {format_size(machine.granule)}")
    for (_, end), (start, _) in pairwise(ranges):
        if start < end:
            raise SpecError(f"ram: {start:#x} lies in the range before it, which ends at {end:#x}")
    filled: dict[int, int] = {}
    size = machine.section_size
    whole = 0
    for start, end in ranges:
        first, last = start // size, (end - 1) // size
        if last - first > 1:
            whole += last - first - 1
        for section in {first, last}:
            part = min(end, (section + 1) * size) - max(start, section * size)
            filled[section] = filled.get(section, 0) + part
    sections = whole + len(filled)
    total = sum(end - start for start, end in ranges)
    return Memmap(
        ram=total,
        sections=sections,
        vmemmap=sections * machine.section_vmemmap,
        needed=total // machine.granule * machine.struct_page_size,
        partial=tuple(sorted(section for section, part in filled.items() if part < size)),
    )


def add(
    machine: Layout,
    text: str,
    *,
    memstart: int | None = None,
    block_size: int | None = None,
    ram: Sequence[tuple[int, int]] = (),
) -> RangeAnswer:
    """``add_memory()`` of a range: the tests in the kernel's order.

    Args:
        machine: Its layout.
        text: The range, as `parse_at` reads it.
        memstart: ``memstart_addr``; ``None`` if not known: then only the size is held against the linear map.
        block_size: Bytes of a memory block; ``None``: a section.
        ram: First byte and one past the last of each range of System RAM.

    Returns:
        Whether it is accepted, and why.
    """
    start, end = parse_at(text, "add")
    block = block_size or machine.section_size

    def refused(errno: str, reason: str, right: str | None = None) -> RangeAnswer:
        return RangeAnswer("add", start, end - start, False, errno, reason, right, None)

    taken = next((r for r in ram if start < r[1] and r[0] < end), None)
    if taken is not None and start < end:
        return refused("EEXIST", f"register_memory_resource: System RAM is at {taken[0]:#x}-{taken[1]:#x} already")
    unaligned = _unaligned(start, end, block)
    if unaligned is not None:
        return refused("EINVAL", *unaligned)
    low = memstart if memstart is not None else 0
    room = machine.regions["linear map"][1] - machine.regions["linear map"][0]
    if memstart is None and end - start > room:
        return refused(
            "EINVAL", f"mhp_range_allowed: the linear map has addresses for {format_size(room)}, wherever it begins"
        )
    if memstart is not None and (start < low or end > low + room):
        span = f"[{max(0, low):#x}-{low + room - 1:#x}]"
        return refused(
            "EINVAL",
            f"mhp_range_allowed: Hotplug memory [{start:#x}-{end - 1:#x}] exceeds maximum addressable range {span}",
        )
    shared = [
        r
        for r in ram
        if any(edge // machine.section_size == start // machine.section_size for edge in (r[0], r[1] - 1))
    ]
    if shared:
        return refused(
            "EEXIST",
            f"the section at {start // machine.section_size * machine.section_size:#x} is present: "
            "boot RAM fills a part of it",
        )
    facts = [_memory(machine, end - start)]
    if memstart is None:
        facts.append("not asked: whether the linear map has addresses for it (--memstart)")
    else:
        facts.append(f"linear map from {machine.regions['linear map'][0] + start - low:#x}")
        facts.append(
            "struct pages from "
            f"{machine.regions['vmemmap'][0] + (start - low) // machine.granule * machine.struct_page_size:#x}"
        )
    made = "whole memory blocks, and nothing is there"
    return RangeAnswer(
        "add", start, end - start, True, None, made, None, (start // block, end // block - 1), tuple(facts)
    )


def remove(
    machine: Layout,
    text: str,
    *,
    block_size: int | None = None,
    boot: Sequence[tuple[int, int]] = (),
    added: Sequence[tuple[int, int]] = (),
) -> RangeAnswer:
    """``offline_and_remove_memory()`` of a range, as far as arithmetic goes: not whether its pages can move.

    Args:
        machine: Its layout.
        text: The range, as `parse_at` reads it.
        block_size: Bytes of a memory block; ``None``: a section.
        boot: First byte and one past the last of each range that was there at boot.
        added: The same of hot-added ranges; none: not tested.

    Returns:
        Whether it is accepted, and why.
    """
    start, end = parse_at(text, "remove")
    block = block_size or machine.section_size

    def refused(errno: str, reason: str, right: str | None = None) -> RangeAnswer:
        return RangeAnswer("remove", start, end - start, False, errno, reason, right, None)

    unaligned = _unaligned(start, end, block)
    if unaligned is not None:
        return refused("EINVAL", *unaligned)
    at_boot = next((r for r in boot if start < r[1] and r[0] < end), None)
    if at_boot is not None:
        return refused(
            "EPERM",
            f"prevent_bootmem_remove_notifier: Boot memory [{at_boot[0]:#x} {at_boot[1]:#x}] offlining attempted",
        )
    if added and not any(r[0] <= start and end <= r[1] for r in added):
        return refused("EINVAL", "no memory was added there, or not in one range")
    facts = [_memory(machine, end - start).replace("takes", "gives back")]
    facts.append(
        "not asked: whether its pages can move (offline_pages), and whether a leaf would be split (estimate --remove)"
    )
    return RangeAnswer(
        "remove",
        start,
        end - start,
        True,
        None,
        "whole memory blocks of hot-added memory",
        None,
        (start // block, end // block - 1),
        tuple(facts),
    )


def _unaligned(start: int, end: int, block: int) -> tuple[str, str | None] | None:
    """Why ``check_hotplug_memory_range`` refuses it, and what it would take."""
    if start < end and not start % block and not end % block:
        return None
    reason = (
        f"check_hotplug_memory_range: Block size [{block:#x}] unaligned hotplug range: start {start:#x}, "
        f"size {end - start:#x}"
    )
    first, last = -(-start // block) * block, end // block * block
    return reason, f"{format_size(last - first)}@{first:#x}" if first < last else None


def _memory(machine: Layout, size: int) -> str:
    sections = size // machine.section_size
    bytes_of = sections * machine.section_vmemmap
    how = (
        f"{sections} blocks of {format_size(machine.section_vmemmap)}"
        if machine.granule == 4096
        else f"{bytes_of // machine.granule} pages"
    )
    return f"takes {format_size(bytes_of)} of struct pages: {how} of vmemmap, {sections} sections"
