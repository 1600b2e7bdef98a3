"""Bytes of a dump's file by offset: the file as it is, or makedumpfile's flattened form of one put in order.

A flattened file is what makedumpfile and QEMU send through a pipe: a header of 4,096 bytes, then pieces, each with its
offset in the file that they make and its length, big-endian; a later piece replaces what an earlier one put there
(makedumpfile's ``README``, ``write_buffer`` in its ``makedumpfile.c``). Nothing is written anywhere to read one: only
where its pieces are is kept, 24 bytes for each.
"""

from __future__ import annotations

import heapq
import itertools
import os
import struct
from array import array
from bisect import bisect_right
from pathlib import Path
from typing import Final

from ..errors import ImageError

__all__ = ["FLATTENED_MAGIC", "Flattened", "Storage", "open_storage"]

FLATTENED_MAGIC: Final = b"makedumpfile\0\0\0\0"
_HEADER_SIZE: Final = 4096
_PIECE: Final = struct.Struct(">qq")
_PIECES_LIMIT: Final = 1 << 23
"""Most pieces: 24 bytes of memory each. QEMU writes one for 256 KiB, makedumpfile for some ten pages."""
_END_LIMIT: Final = 1 << 56


class Storage:
    """An open file, read where it is asked for: nothing is mapped,
    so a file that shrinks meanwhile is an error of one line.
    """

    cut: str | None = None
    """What the file lacks, if it was cut off and that shows."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """``descriptor`` is the open file and is closed by ``close``."""
        self.path, self._descriptor = path, descriptor
        self.file_size = os.fstat(descriptor).st_size
        self.size = self.file_size

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset`` on, fewer at the end. Raises ``ImageError`` if the file cannot be read."""
        parts: list[bytes] = []
        while length > 0:
            try:
                part = os.pread(self._descriptor, length, offset)
            except (OSError, OverflowError) as error:
                reason = getattr(error, "strerror", None) or error
                raise ImageError(f"{self.path}: cannot be read at offset {offset:#x}: {reason}") from error
            if not part:
                break
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def next_data(self, offset: int) -> int:
        """The first offset from ``offset`` on that is no hole of a sparse file, if the file system can tell."""
        try:
            return os.lseek(self._descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            return self.size if error.errno == 6 and offset < self.size else offset

    def close(self) -> None:
        """Let go of the file; nothing can be read afterwards."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


class Flattened(Storage):
    """The file that the pieces of a flattened one make. What no piece covers reads as zeros, as a hole does."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Find the pieces.

        :raises ImageError: no flattened file, or pieces that cannot be.
        """
        super().__init__(path, descriptor)
        kind, version = _PIECE.unpack(super().read(16, 16).ljust(16, b"\0"))
        if (kind, version) != (1, 1):
            raise ImageError(f"{path}: flattened file of type {kind}, version {version}: expected type 1, version 1")
        self._starts, self._ends, self._places = array("q"), array("q"), array("q")
        self._find_pieces()
        if not self._starts:
            raise ImageError(f"{path}: a flattened file without a piece: cut off after {self.file_size} bytes")
        self._put_in_order()
        self.size = self._ends[-1]

    def _find_pieces(self) -> None:
        at = _HEADER_SIZE
        window, window_at = b"", 0
        while True:
            # Pieces may be small: a look at their headers is a read of a window, not of sixteen bytes.
            if not window_at <= at <= window_at + len(window) - _PIECE.size:
                window, window_at = super().read(at, 1 << 16 if self.file_size - at < 1 << 20 else _PIECE.size), at
            head = window[at - window_at : at - window_at + _PIECE.size]
            if len(head) < _PIECE.size:
                self.cut = "the flattened file ends without its end mark: it was cut off"
                return
            offset, length = _PIECE.unpack(head)
            if (offset, length) == (-1, -1):
                return
            if offset < 0 or length <= 0 or offset + length > _END_LIMIT:
                raise ImageError(
                    f"{self.path}: piece at {at:#x} of the flattened file: {length} bytes at offset {offset} cannot be"
                )
            if len(self._starts) == _PIECES_LIMIT:
                raise ImageError(f"{self.path}: a flattened file of more than {_PIECES_LIMIT:,} pieces")
            at += _PIECE.size
            there = min(length, self.file_size - at)
            if there > 0:
                self._starts.append(offset)
                self._ends.append(offset + there)
                self._places.append(at)
            if there < length:
                self.cut = (
                    f"the flattened file ends {length - max(there, 0):,} bytes before its last piece does: "
                    "it was cut off"
                )
                return
            at += length

    def _put_in_order(self) -> None:
        """By offset and apart: of two pieces that cover the same, the later counts."""
        import numpy as np

        starts, ends = np.frombuffer(self._starts, dtype=np.int64), np.frombuffer(self._ends, dtype=np.int64)
        order = np.argsort(starts, kind="stable")
        if not np.any(starts[order][1:] < ends[order][:-1]):
            columns = [starts[order], ends[order], np.frombuffer(self._places, dtype=np.int64)[order]]
            self._starts, self._ends, self._places = (array("q", column.tobytes()) for column in columns)
            return
        # Sweep over all bounds; of the pieces open between two of them the one written last is taken.
        pieces = list(zip(self._starts, self._ends, self._places, strict=True))
        bounds = sorted({*self._starts, *self._ends})
        self._starts, self._ends, self._places = array("q"), array("q"), array("q")
        waiting, following = [int(n) for n in order], 0
        live: list[tuple[int, int]] = []
        for low, high in itertools.pairwise(bounds):
            while following < len(waiting) and pieces[waiting[following]][0] <= low:
                number = waiting[following]
                heapq.heappush(live, (-number, number))
                following += 1
            while live and pieces[live[0][1]][1] <= low:
                heapq.heappop(live)
            if live:
                start, _, place = pieces[live[0][1]]
                self._starts.append(low)
                self._ends.append(high)
                self._places.append(place + low - start)

    def read(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        end = min(offset + length, self.size)
        while offset < end:
            index = bisect_right(self._starts, offset) - 1
            if index >= 0 and offset < self._ends[index]:
                part = super().read(
                    self._places[index] + offset - self._starts[index], min(end, self._ends[index]) - offset
                )
                if not part:
                    break
            else:
                following = self._starts[index + 1] if index + 1 < len(self._starts) else end
                part = bytes(min(end, following) - offset)
            parts.append(part)
            offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def next_data(self, offset: int) -> int:
        index = bisect_right(self._starts, offset) - 1
        if index >= 0 and offset < self._ends[index]:
            return offset
        return self._starts[index + 1] if index + 1 < len(self._starts) else self.size


def open_storage(path: Path, descriptor: int) -> Storage:
    """The file of an open descriptor, which the storage owns from then on, in order if it is flattened.

    :raises ImageError: a flattened file that is none.
    """
    try:
        head = os.pread(descriptor, len(FLATTENED_MAGIC), 0)
    except OSError as error:
        os.close(descriptor)
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error
    return (Flattened if head == FLATTENED_MAGIC else Storage)(path, descriptor)
