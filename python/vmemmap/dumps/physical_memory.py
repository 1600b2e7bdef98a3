"""Physical memory of a machine that stands still: which ranges are memory, and the bytes that a dump has of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import ImageError
from .storage import Storage

__all__ = ["FileMemory", "JoinedMemory", "PhysicalMemory", "Segment", "joined"]

_READ_LIMIT: Final = 1 << 26
_CHUNK: Final = 1 << 20


class PhysicalMemory(ABC):
    """Physical memory by address. Addresses and lengths are bytes."""

    ranges: tuple[tuple[int, int], ...]
    """(first byte, one past the last) of the memory that there is, ascending and apart;
    not all of it need be readable.
    """
    notes: tuple[str, ...] = ()
    """What the dump says of its own completeness."""
    reason: str = ""
    """Why the last ``read`` gave nothing, if more is known than that the dump has not got it."""

    @abstractmethod
    def read(self, pa: int, length: int) -> bytes | None:
        """``length`` bytes (at most 64 MiB) from ``pa`` on; ``None`` unless all of them are in the dump.

        Raises:
            ImageError: The file cannot be read.
        """

    @abstractmethod
    def pages(self, page_size: int) -> int:
        """No more pages of that size than this can be read as different ones."""

    @abstractmethod
    def stored(self) -> Iterator[tuple[int, bytes]]:
        """(address, bytes) of all memory that the dump holds, in pieces of at most 1 MiB; what is known to be zeros, or
        the same bytes again, may be left out.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the file; nothing can be read afterwards."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of physical memory in a file."""

    start: int
    """Physical address of its first byte."""
    stored: int
    """Bytes of it that are in the file."""
    size: int
    """Bytes of memory; what is not stored was left out of the dump."""
    offset: int
    """Where in the file it begins."""


class FileMemory(PhysicalMemory):
    """Segments of a file, read when asked for, wherever they are; ``/proc/kcore``, which cannot be mapped,
    is a file like any other.
    """

    def __init__(self, storage: Storage, segments: Iterable[Segment]) -> None:
        """The storage is closed by ``close``. Of two segments that hold the same memory (a dump names the kernel's text
        again) the first counts.
        """
        self._storage = storage
        segments = [s for s in segments if s.size > 0]
        self.ranges = joined((s.start, s.start + s.size) for s in segments)
        pieces = _apart(
            [(s.start, s.start + min(s.stored, s.size, max(0, storage.size - s.offset)), s.offset) for s in segments]
        )
        self._pieces = pieces
        self._starts = [start for start, _, _ in pieces]
        self.notes = (storage.cut,) if storage.cut else ()
        if any(s.offset + min(s.stored, s.size) > storage.size for s in segments if s.offset < 1 << 46):
            self.notes += ("the file ends before its segments do: it was cut off",)

    def read(self, pa: int, length: int) -> bytes | None:
        parts: list[bytes] = []
        if not 0 <= length <= _READ_LIMIT:
            raise ImageError(
                f"{self._storage.path}: {length} bytes asked for at once: expected at most {_READ_LIMIT >> 20} MiB"
            )
        while length:
            index = bisect_right(self._starts, pa) - 1
            if index < 0:
                return None
            start, end, offset = self._pieces[index]
            wanted = min(length, end - pa)
            if wanted <= 0:
                return None
            part = self._storage.read(offset + pa - start, wanted)
            if len(part) != wanted:
                return None
            parts.append(part)
            pa, length = pa + wanted, length - wanted
        return b"".join(parts)

    def pages(self, page_size: int) -> int:
        # A dump that shows one stored page at many addresses has no more to say than the file holds.
        stored = sum(end - start for start, end, _ in self._pieces)
        return min(stored, self._storage.file_size) // page_size

    def holds(self, pa: int, length: int) -> bool:
        """Whether all of these bytes are in the file."""
        index = bisect_right(self._starts, pa) - 1
        while length > 0 and 0 <= index < len(self._pieces) and self._pieces[index][0] <= pa < self._pieces[index][1]:
            step = min(length, self._pieces[index][1] - pa)
            pa, length, index = pa + step, length - step, index + 1
        return length <= 0

    def stored(self) -> Iterator[tuple[int, bytes]]:
        for start, end, offset in self._pieces:
            pa = start
            while pa < end:
                # Past holes of a sparse file, by whole pages of any granule.
                data_at = self._storage.next_data(offset + pa - start)
                pa = max(pa, min(end, (start + data_at - offset) & ~0xFFFF))
                stop = min(end, (pa & -_CHUNK) + _CHUNK)
                if pa < stop:
                    yield pa, self._storage.read(offset + pa - start, stop - pa)
                pa = stop

    def close(self) -> None:
        self._storage.close()


class JoinedMemory(PhysicalMemory):
    """Memory that lies in several files; where two have the same, the first counts."""

    def __init__(self, parts: Sequence[PhysicalMemory]) -> None:
        """All of them are closed by ``close``."""
        self._parts = tuple(parts)
        self.ranges = joined(r for part in parts for r in part.ranges)
        self.notes = tuple(note for part in parts for note in part.notes)

    def read(self, pa: int, length: int) -> bytes | None:
        for part in self._parts:
            data = part.read(pa, length)
            if data is not None:
                return data
        return None

    def pages(self, page_size: int) -> int:
        return sum(part.pages(page_size) for part in self._parts)

    def stored(self) -> Iterator[tuple[int, bytes]]:
        for part in self._parts:
            yield from part.stored()

    def close(self) -> None:
        for part in self._parts:
            part.close()


def joined(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same memory as ascending ranges of which no two touch."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        elif start < end:
            found.append((start, end))
    return tuple(found)


def _apart(pieces: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """(start, end, offset) by address, with what an earlier one of the same start or a lower one holds cut off."""
    found: list[tuple[int, int, int]] = []
    reached = 0
    for start, end, offset in sorted(pieces, key=lambda piece: piece[0]):
        begin = max(start, reached)
        if begin < end:
            found.append((begin, end, offset + begin - start))
            reached = end
    return found
