"""Memory hotplug of a machine: memory blocks, added, online, offline, removed (``/sys/devices/system/memory``)."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..errors import KernelError, SpecError
from ..spec import format_size, parse_size
from .operations import run

if TYPE_CHECKING:
    from .._core import Machine as Core

__all__ = ["Memory", "MemoryBlock", "MemoryRange"]

ZONES: Final = {
    "movable": "movable",
    "online_movable": "movable",
    "normal": "normal",
    "kernel": "normal",
    "online_kernel": "normal",
}
"""What ``online`` takes → the zone that the memory goes to."""


@dataclass(frozen=True, slots=True)
class MemoryBlock:
    """One memory block device, as it was when asked for."""

    number: int
    """N of ``memoryN``."""
    start: int
    """Physical address."""
    size: int
    """Bytes; one section."""
    state: str
    """``online``, ``offline``, ``going-offline``."""
    zone: str | None
    """``normal`` or ``movable`` while online."""


class MemoryRange:
    """A range of whole memory blocks that was hot-added: what ``add`` returns."""

    __slots__ = ("_core", "size", "start")

    def __init__(self, core: Core, start: int, size: int) -> None:
        """A handle; nothing happens.

        Args:
            core: The machine.
            start: Physical address, in bytes.
            size: Bytes, or text such as ``256M``.
        """
        self._core = core
        self.start: int = start
        """Physical address."""
        self.size: int = size
        """Bytes."""

    def __repr__(self) -> str:
        return f"<MemoryRange {format_size(self.size)} at {self.start:#x}, {self.state}>"

    def _run(self, op: str, **fields: str) -> int:
        return run(self._core, op, start=self.start, bytes=self.size, **fields)

    @property
    def blocks(self) -> list[MemoryBlock]:
        """The block devices of the range, as they are now; none after removal."""
        return [MemoryBlock(**block) for block in self._core.blocks(self.start, self.size)]

    @property
    def state(self) -> str:
        """``online``, ``offline``, ``mixed``, or ``absent`` after removal."""
        states = {block.state for block in self.blocks}
        return states.pop() if len(states) == 1 else "mixed" if states else "absent"

    @property
    def online_somewhere(self) -> bool:
        """A block of the range is online."""
        return any(block.state == "online" for block in self.blocks)

    def online(self, zone: str = "movable") -> None:
        """Give the memory to the page allocator, in zone ``movable`` or ``normal`` (sysfs: ``online_movable``,
        ``online_kernel``).

        Kernel: ``memory_block_online``, ``drivers/base/memory.c``.

        Args:
            zone: ``movable`` or ``normal``.

        Raises:
            SpecError: No such zone.
            KernelError: EINVAL if there is no such block, or it is online.
        """
        if zone not in ZONES:
            raise SpecError(f"zone is {zone!r}: expected movable or normal")
        self._run("memory_online", zone=ZONES[zone])

    def offline(self) -> None:
        """Take the memory from the page allocator; HugeTLB pages in it are migrated or dissolved first.

        As in the kernel (``offline_pages``), this goes on for as long as a page in use finds no other place: until its
        user lets go, or Ctrl-C.

        Kernel: ``offline_pages``, ``mm/memory_hotplug.c``.

        Raises:
            KernelError: EBUSY if something in it cannot move, EINTR if interrupted, EINVAL if it is not
                online.
        """
        self._run("memory_offline")


class Memory:
    """The memory of a machine."""

    __slots__ = ("_core",)

    def __init__(self, core: Core) -> None:
        """A handle on all memory.

        Args:
            core: The machine.
        """
        self._core = core

    def __repr__(self) -> str:
        return f"<Memory: {len(self.blocks)} blocks>"

    @property
    def blocks(self) -> list[MemoryBlock]:
        """Every memory block device, by address."""
        return [MemoryBlock(**block) for block in self._core.blocks()]

    @property
    def ranges(self) -> list[tuple[int, int, bool]]:
        """(physical address, bytes, present at boot) of each range where RAM is or may be hot-added."""
        return self._core.ram()

    def add(
        self,
        size: int | str | None = None,
        *,
        start: int | str | None = None,
        memmap_on_memory: bool = False,
    ) -> MemoryRange:
        """``add_memory``: sections, linear map and vmemmap for a range, which is left offline. Sizes in bytes or like
        ``256M``; without `start` the lowest free place of the hotplug regions is taken.

        With `memmap_on_memory` the vmemmap frames come from the range itself, if the kernel allows it for that size.

        Kernel: ``add_memory_resource``, ``mm/memory_hotplug.c``.

        Args:
            size: Bytes, or text such as ``256M``.
            start: Physical address; None: the lowest free place of the hotplug regions.
            memmap_on_memory: Take the vmemmap frames from the range itself, if the kernel allows that
                for its size.

        Returns:
            The range, offline.

        Raises:
            SpecError: No size is given, or one that is none.
            KernelError: EINVAL if the range is not of whole blocks, EEXIST if a part of it is there
                already, ENOMEM.
        """
        if size is None:
            raise SpecError("memory.add needs a size, like 256M")
        length = parse_size(size, "size")
        address = self._free_place(length) if start is None else parse_size(start, "start")
        run(self._core, "memory_add", start=address, bytes=length, memmap_on_memory=bool(memmap_on_memory))
        return MemoryRange(self._core, address, length)

    def remove(
        self,
        block: MemoryRange | MemoryBlock | None = None,
        *,
        start: int | str | None = None,
        size: int | str | None = None,
    ) -> None:
        """Of a block: ``remove_memory``, EBUSY unless it is offline. Of `start` and `size`:
        ``offline_and_remove_memory``.

        Kernel: ``remove_memory``, ``offline_and_remove_memory``, ``mm/memory_hotplug.c``.

        Args:
            block: A range or block that is offline.
            start: Or a physical address, with `size`: offlined first.
            size: Bytes, or text such as ``256M``.

        Raises:
            SpecError: Neither a block, nor start and size.
            KernelError: EBUSY as above, or if something in the range cannot move; EINVAL if the range
                is not of whole hot-added blocks.
        """
        if (block is None) == (start is None or size is None) or (
            block is not None and (start is not None or size is not None)
        ):
            raise SpecError("memory.remove takes a block, or start and size")
        if block is not None:
            if not isinstance(block, (MemoryRange, MemoryBlock)):
                raise SpecError(
                    f"block is {block!r}: expected what memory.add or memory.blocks gave, or start and size"
                )
            run(self._core, "memory_remove", start=block.start, bytes=block.size)
        elif start is not None and size is not None:
            address, length = parse_size(start, "start"), parse_size(size, "size")
            run(self._core, "memory_offline_and_remove", start=address, bytes=length)

    def range(self, start: int | str, size: int | str) -> MemoryRange:
        """A handle on blocks that exist already, such as those of a loaded machine.

        Args:
            start: Physical address, in bytes.
            size: Bytes, or text such as ``256M``.

        Returns:
            The handle.
        """
        return MemoryRange(self._core, parse_size(start, "start"), parse_size(size, "size"))

    def _free_place(self, length: int) -> int:
        unit = self._core.section_size
        for start, size, boot in self._core.ram():
            if boot:
                continue
            taken, place = {block["start"] for block in self._core.blocks(start, size)}, start
            for address in range(start, start + size, unit):
                if address in taken:
                    place = address + unit
                elif address + unit - place >= length:
                    return place
        why = "no hotplug region has that much left in one piece"
        raise KernelError(errno.ENOMEM, f"memory_add of {format_size(length)}: ENOMEM: {why}")
