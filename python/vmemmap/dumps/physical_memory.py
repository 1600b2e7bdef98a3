"""Physical memory of a machine that stands still: which ranges are memory, and the bytes that a dump has of them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import ImageError

__all__ = ["FileMemory", "PhysicalMemory", "Segment", "joined"]

_READ_LIMIT: Final = 1 << 26


class PhysicalMemory(ABC):
    """Physical memory by address. Addresses and lengths are bytes."""

    ranges: tuple[tuple[int, int], ...]
    """(first byte, one past the last) of the memory that there is, ascending and apart; not all of it need be readable."""

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
    """Segments of an open file, read when asked for, wherever they are: nothing is mapped, so a file that shrinks meanwhile
    is an error and not a signal, and ``/proc/kcore``, which cannot be mapped, is a file like any other.
    """

    def __init__(self, path: Path, descriptor: int, segments: Iterable[Segment]) -> None:
        """``descriptor`` is the open file and is closed by ``close``. Of two segments that hold the same memory (a dump
        names the kernel's text again) the first counts.
        """
        self._path, self._descriptor = path, descriptor
        self._file_size = os.fstat(descriptor).st_size
        segments = [s for s in segments if s.size > 0]
        self.ranges = joined((s.start, s.start + s.size) for s in segments)
        pieces = _apart([(s.start, s.start + min(s.stored, s.size, max(0, self._file_size - s.offset)), s.offset) for s in segments])
        self._pieces = pieces
        self._starts = [start for start, _, _ in pieces]

    def read(self, pa: int, length: int) -> bytes | None:
        parts: list[bytes] = []
        if not 0 <= length <= _READ_LIMIT:
            raise ImageError(f"{self._path}: {length} bytes asked for at once: expected at most {_READ_LIMIT >> 20} MiB")
        while length:
            index = bisect_right(self._starts, pa) - 1
            if index < 0:
                return None
            start, end, offset = self._pieces[index]
            wanted = min(length, end - pa)
            if wanted <= 0:
                return None
            part = self._pread(offset + pa - start, wanted)
            if len(part) != wanted:
                return None
            parts.append(part)
            pa, length = pa + wanted, length - wanted
        return b"".join(parts)

    def _pread(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        while length:
            try:
                part = os.pread(self._descriptor, length, offset)
            except (OSError, OverflowError) as error:
                reason = getattr(error, "strerror", None) or error
                raise ImageError(f"{self._path}: cannot be read at offset {offset:#x}: {reason}") from error
            if not part:
                break
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def pages(self, page_size: int) -> int:
        # A dump that shows one stored page at many addresses has no more to say than the file holds.
        stored = sum(end - start for start, end, _ in self._pieces)
        return min(stored, self._file_size) // page_size

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


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
