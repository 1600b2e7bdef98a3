"""Memory hotplug in a scenario: operations on memory blocks, under the names of `vmemmap.machine.memory`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import SpecError
from ..spec import format_size, parse_size
from .steps import Operation

__all__ = ["Block", "Memory"]


@dataclass(frozen=True)
class Block(Operation):
    """A range of memory blocks, as `memory.add` describes it: physical address and bytes."""

    start: int = 0
    bytes: int = 0


class Memory:
    """The operations of memory hotplug. A range is a `Block` from `add`, or `start` and `size`."""

    def __init__(self, section: int, hotplug: Sequence[tuple[int, int]]) -> None:
        """Nothing is added yet.

        Args:
            section: Bytes of a section.
            hotplug: (physical address, bytes) of each region where memory may be hot-added.
        """
        self._section, self._hotplug = section, hotplug
        self._next = 0

    def add(self, size: int | str | None = None, *, start: int | None = None, memmap_on_memory: bool = False) -> Block:
        """`add_memory`; leaves the blocks offline. Without `start`: the next free part of the hotplug region.

        Kernel: ``add_memory_resource``, ``mm/memory_hotplug.c``.

        Args:
            size: Bytes, or text such as ``256M``; one section by default.
            start: Physical address; None: the next free part of the hotplug region.
            memmap_on_memory: Take the vmemmap frames from the block itself.

        Returns:
            The operation, which is also the block that it adds.

        Raises:
            SpecError: The hotplug region has no room left.
        """
        length = parse_size(size, "size") if size is not None else self._section
        if start is None:
            start, limit = self._hotplug[0][0] + self._next, sum(self._hotplug[0])
            if start + length > limit:
                raise SpecError(f"the hotplug region has no {format_size(length)} left")
            self._next += length
        return Block(
            "memory_add",
            {"start": start, "bytes": length, "memmap_on_memory": memmap_on_memory},
            start=start,
            bytes=length,
        )

    @staticmethod
    def _range(block: Block | None, start: int | None, size: int | str | None) -> dict[str, int]:
        if block is not None:
            return {"start": block.start, "bytes": block.bytes}
        if start is None or size is None:
            raise SpecError("memory: give a block, or start and size")
        return {"start": start, "bytes": parse_size(size, "size")}

    def online(
        self,
        block: Block | None = None,
        *,
        start: int | None = None,
        size: int | str | None = None,
        zone: str = "movable",
    ) -> Operation:
        """Give the blocks to the page allocator.

        Kernel: ``memory_block_online``, ``drivers/base/memory.c``.

        Args:
            block: The memory block, as `Memory.add` describes it.
            start: Physical address, in bytes.
            size: Bytes, or text such as ``256M``.
            zone: ``movable`` or ``normal``.

        Returns:
            The operation.

        Raises:
            SpecError: Neither a block, nor start and size.
        """
        return Operation("memory_online", {**self._range(block, start, size), "zone": zone})

    def offline(
        self, block: Block | None = None, *, start: int | None = None, size: int | str | None = None
    ) -> Operation:
        """Take the blocks from the page allocator.

        Kernel: ``memory_block_offline``, ``drivers/base/memory.c``.

        Args:
            block: The memory block, as `Memory.add` describes it.
            start: Physical address, in bytes.
            size: Bytes, or text such as ``256M``.

        Returns:
            The operation.

        Raises:
            SpecError: Neither a block, nor start and size.
        """
        return Operation("memory_offline", self._range(block, start, size))

    def remove(
        self, block: Block | None = None, *, start: int | None = None, size: int | str | None = None
    ) -> Operation:
        """`remove_memory`: EBUSY unless offline.

        Kernel: ``remove_memory``, ``mm/memory_hotplug.c``.

        Args:
            block: The memory block, as `Memory.add` describes it.
            start: Physical address, in bytes.
            size: Bytes, or text such as ``256M``.

        Returns:
            The operation.

        Raises:
            SpecError: Neither a block, nor start and size.
        """
        return Operation("memory_remove", self._range(block, start, size))

    def offline_and_remove(self, block: Block) -> Operation:
        """Offline, then remove, in one call.

        Kernel: ``offline_and_remove_memory``, ``mm/memory_hotplug.c``.

        Args:
            block: The memory block, as `Memory.add` describes it.

        Returns:
            The operation.
        """
        return Operation("memory_offline_and_remove", self._range(block, None, None))
