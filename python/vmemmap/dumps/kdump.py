"""kdump-compressed dumps, of makedumpfile and of QEMU: ``KDUMP   ``, the 64-bit form of ``diskdump_mod.h``.

A block of headers, two bitmaps (a bit for each block: is it memory, is it stored), a descriptor of 24 bytes for each
stored block, and the blocks, each packed by itself. What a header says of the machine is little and often nothing: QEMU
writes neither system nor release, the machine as ``Unknown`` and 64 KiB blocks whatever page size the guest has, and
lets all blocks of zeros share their data. So nothing here relies on them; the tables are read by their own page size.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from ..errors import ImageError
from .physical_memory import PhysicalMemory, joined
from .storage import Storage
from .unpack import Unpackable, unpack

__all__ = ["KDUMP_MAGIC", "KdumpMemory"]

KDUMP_MAGIC: Final = b"KDUMP   "
_HEADER: Final = struct.Struct("<8si390s6xqqIiiIIIIIII")
_SUB_HEADER: Final = struct.Struct("<QiiQQQQQQQQQQQ")
_DESCRIPTOR: Final = struct.Struct("<QIIQ")
_MACHINES: Final = (b"aarch64", b"arm64", b"Unknown", b"")
_BLOCK_SIZES: Final = (4096, 8192, 16384, 32768, 65536)
_EXCLUDES_ZEROS: Final = 1
"""``DL_EXCLUDE_ZERO`` of a dump level."""
_INCOMPLETE: Final = 8
"""``DUMP_DH_COMPRESSED_INCOMPLETE``: makedumpfile had no room for the rest."""
_CHUNK: Final = 4096
"""Bytes of a bitmap whose set bits are counted together."""
_BITMAP_LIMIT: Final = 1 << 31
_RANGES_LIMIT: Final = 1 << 16
_VMCOREINFO_LIMIT: Final = 1 << 16
_NOTES_LIMIT: Final = 16 << 20
_CACHED_BYTES: Final = 4 << 20
_TABLES_PER_BYTE: Final = 64
_TABLES_AT_LEAST: Final = 16 << 20


class KdumpMemory(PhysicalMemory):
    """The memory of a kdump-compressed dump, a block unpacked when it is asked for, the last few kept."""

    vmcoreinfo: bytes | None
    """VMCOREINFO of the sub header, or of the notes; ``None`` if there is none."""

    def __init__(self, storage: Storage) -> None:
        """Read headers and bitmaps. The storage is closed by ``close``.

        :raises ImageError: headers that cannot be, or that the file does not hold.
        """
        self._storage, self._path = storage, storage.path
        raw = storage.read(0, _HEADER.size).ljust(_HEADER.size, b"\0")
        magic, self.version, utsname, _, _, status, block, sub_blocks, bitmap_blocks, max_mapnr, *_ = _HEADER.unpack(
            raw
        )
        if magic != KDUMP_MAGIC:
            raise self._bad("signature", f"{KDUMP_MAGIC!r}")
        machine = utsname[260:325].split(b"\0")[0]
        if machine not in _MACHINES:
            raise self._bad("machine", f"aarch64 (QEMU writes Unknown), found {ascii(machine.decode('latin-1'))[:20]}")
        if block not in _BLOCK_SIZES:
            raise self._bad("block_size", f"one of {', '.join(map(str, _BLOCK_SIZES))}, found {block}")
        self.release = utsname[130:195].split(b"\0")[0].decode("ascii", "replace")
        self.block_size = block
        if not 1 <= sub_blocks <= _NOTES_LIMIT // block + 16:
            raise self._bad("sub_hdr_size", f"a few blocks, found {sub_blocks}")
        self._read_sub_header(block, max_mapnr)
        self.notes: tuple[str, ...] = (storage.cut,) if storage.cut else ()
        if status & _INCOMPLETE:
            self.notes += ("the dump says that it is incomplete: makedumpfile had no room for the rest",)
        if self._first or self._end < self._blocks:
            self.notes += (
                "one file of a split dump: "
                f"it holds PFNs {self._first:#x} to {self._end:#x} in pages of {block >> 10}K",
            )
        self._read_bitmaps((1 + sub_blocks) * block, bitmap_blocks * block)
        self._descriptors = (1 + sub_blocks + bitmap_blocks) * block
        self._cache: dict[int, bytes] = {}

    def _bad(self, field: str, expected: str) -> ImageError:
        return ImageError(f"{self._path}: header of the kdump-compressed dump: {field}: expected {expected}")

    def _read_sub_header(self, at: int, max_mapnr: int) -> None:
        """Fields that came with a later version are whatever the rest of the block holds in an earlier one."""
        raw = self._storage.read(at, _SUB_HEADER.size).ljust(_SUB_HEADER.size, b"\0")
        (
            self.phys_base,
            level,
            split,
            first,
            end,
            info_at,
            info_size,
            notes_at,
            notes_size,
            *_,
            first64,
            end64,
            mapnr64,
        ) = _SUB_HEADER.unpack(raw)
        version = self.version
        self.dump_level = level if version >= 1 else 0
        if version >= 6:
            first, end, max_mapnr = first64, end64, mapnr64 or max_mapnr
        self._blocks = max_mapnr
        if max_mapnr * self.block_size > 1 << 52:
            raise self._bad("max_mapnr", f"memory below 52 bits, found {max_mapnr:#x} blocks of {self.block_size}")
        self._first, self._end = (first, min(end, max_mapnr)) if version >= 2 and split else (0, max_mapnr)
        self.vmcoreinfo = None
        if version >= 3 and info_at and info_size:
            self.vmcoreinfo = self._read_whole("VMCOREINFO", info_at, min(info_size, _VMCOREINFO_LIMIT))
        elif version >= 4 and notes_at and notes_size:
            if notes_size > _NOTES_LIMIT:
                raise self._bad("size_note", f"at most {_NOTES_LIMIT >> 20} MiB of notes, found {notes_size}")
            self.vmcoreinfo = _note(self._read_whole("the notes", notes_at, notes_size), b"VMCOREINFO")

    def _read_whole(self, what: str, at: int, size: int) -> bytes:
        if at + size > max(self._storage.size, self._storage.file_size):
            raise ImageError(f"{self._path}: {what}: {size} bytes at {at:#x}, which the file does not hold")
        return self._storage.read(at, size)

    def _read_bitmaps(self, at: int, size: int) -> None:
        storage, needed = self._storage, -(-self._blocks // 8)
        if size < needed:
            raise self._bad(
                "bitmap_blocks", f"a bit for each of {self._blocks:#x} blocks, found room for {size * 8:#x}"
            )
        if at + size > storage.size:
            raise ImageError(
                f"{self._path}: the bitmaps: {size:,} bytes at {at:#x}, which the file does not hold: it was cut off"
            )
        if size > _BITMAP_LIMIT:
            raise self._bad("bitmap_blocks", f"at most {_BITMAP_LIMIT >> 30} GiB of bitmaps, found {size:,} bytes")
        # One bitmap for both in a dump that leaves nothing out, as diskdump's may be; else two of the same length.
        half = size // 2 if size // 2 >= needed else 0
        self._stored_at = at + half
        memory = _runs(storage, at, self._blocks)
        ranges: list[tuple[int, int]] = []
        for low, high in memory:
            if len(ranges) == _RANGES_LIMIT:
                raise ImageError(f"{self._path}: the bitmap of memory has more than {_RANGES_LIMIT:,} ranges")
            ranges.append((low * self.block_size, high * self.block_size))
        self.ranges = joined(ranges)
        self._starts = [start for start, _ in self.ranges]
        # Set bits before each chunk of the bitmap of what is stored.
        self._before = array("q", [0])
        total = 0
        for chunk in range(0, needed, _CHUNK):
            data = storage.read(self._stored_at + chunk, min(_CHUNK, needed - chunk))
            total += int.from_bytes(data, "little").bit_count()
            self._before.append(total)
        if self._first > self._blocks:
            raise self._bad("start_pfn", f"at most {self._blocks:#x}, the blocks of the dump, found {self._first:#x}")
        self._skipped = self._rank(self._first)

    def _rank(self, number: int) -> int:
        """Stored blocks before that one."""
        chunk, bit = divmod(number, _CHUNK * 8)
        if bit == 0:
            return self._before[min(chunk, len(self._before) - 1)]
        data = self._storage.read(self._stored_at + chunk * _CHUNK, -(-bit // 8))
        return self._before[chunk] + (int.from_bytes(data, "little") & ((1 << bit) - 1)).bit_count()

    def _is_stored(self, number: int) -> bool:
        if not self._first <= number < self._end:
            return False
        byte = self._storage.read(self._stored_at + number // 8, 1)
        return bool(byte) and bool(byte[0] >> number % 8 & 1)

    def holds(self, pa: int, length: int) -> bool:
        """Whether all of these bytes are in the dump."""
        first, last = pa // self.block_size, (pa + max(length, 1) - 1) // self.block_size
        return last - first < 1 << 16 and all(self._is_stored(number) for number in range(first, last + 1))

    def read(self, pa: int, length: int) -> bytes | None:
        if not 0 <= length <= 1 << 26:
            raise ImageError(f"{self._path}: {length} bytes asked for at once: expected at most 64 MiB")
        parts: list[bytes] = []
        while length:
            number, inside = divmod(pa, self.block_size)
            wanted = min(length, self.block_size - inside)
            block = self._block(number)
            if block is None:
                return None
            parts.append(block[inside : inside + wanted])
            pa, length = pa + wanted, length - wanted
        return b"".join(parts)

    def _block(self, number: int) -> bytes | None:
        """A block; one that was left out of a dump without its pages of zeros was one of them, as a table cannot be
        anything else that is left out.
        """
        cached = self._cache.pop(number, None)
        if cached is not None:
            self._cache[number] = cached
            return cached
        if not self._is_stored(number):
            self.reason = "the dump left it out" if self._is_memory(number) else "no memory of the dump is there"
            return bytes(self.block_size) if self.dump_level & _EXCLUDES_ZEROS and self._is_memory(number) else None
        block = self._unpacked(number, self._descriptor(self._rank(number) - self._skipped))
        if block is None:
            return None
        while self._cache and (len(self._cache) + 1) * self.block_size > _CACHED_BYTES:
            self._cache.pop(next(iter(self._cache)))
        self._cache[number] = block
        return block

    def _is_memory(self, number: int) -> bool:
        pa = number * self.block_size
        index = bisect_right(self._starts, pa) - 1
        return index >= 0 and pa < self.ranges[index][1] and self._first <= number < self._end

    def _descriptor(self, rank: int) -> tuple[int, int, int] | None:
        """Offset, size and flags of the data of a stored block; ``None`` if the file ends before it."""
        raw = self._storage.read(self._descriptors + rank * _DESCRIPTOR.size, _DESCRIPTOR.size)
        return None if len(raw) != _DESCRIPTOR.size else _DESCRIPTOR.unpack(raw)[:3]

    def _unpacked(self, number: int, descriptor: tuple[int, int, int] | None) -> bytes | None:
        if descriptor is None or descriptor == (0, 0, 0):
            return None
        at, size, flags = descriptor
        if not 0 < size <= 2 * self.block_size:
            raise ImageError(
                f"{self._path}: block {number:#x}: "
                f"{size} bytes of data for a block of {self.block_size}: damaged descriptor"
            )
        data = self._storage.read(at, size) if at < 1 << 62 else b""
        if len(data) != size:
            return None
        try:
            if flags & ~_INCOMPLETE == 0:
                if size != self.block_size:
                    raise Unpackable(f"{size} bytes that are not packed: expected the block of {self.block_size:,}")
                return data
            return unpack(flags, data, self.block_size)
        except Unpackable as error:
            raise ImageError(f"{self._path}: block {number:#x} at {at:#x}: {error}") from error

    def pages(self, page_size: int) -> int:
        # Blocks can share their data and so be more than the file has bytes, but tables are not alike for long.
        blocks = self._before[-1] * max(1, self.block_size // page_size)
        if self.dump_level & _EXCLUDES_ZEROS:
            blocks += sum(end - start for start, end in self.ranges) // page_size
        return min(blocks, (_TABLES_AT_LEAST + _TABLES_PER_BYTE * self._storage.file_size) // page_size)

    def stored(self) -> Iterator[tuple[int, bytes]]:
        shown: set[int] = set()
        for low, high in _runs(self._storage, self._stored_at, self._blocks):
            rank = self._rank(low)
            for number in range(max(low, self._first), min(high, self._end)):
                descriptor = self._descriptor(rank + number - low - self._skipped)
                # Blocks that share their data are zeros in QEMU's dumps, and the same in any.
                if descriptor is None or descriptor[0] in shown:
                    continue
                if len(shown) < _RANGES_LIMIT:
                    shown.add(descriptor[0])
                try:
                    block = self._unpacked(number, descriptor)
                except ImageError:
                    continue
                if block is not None:
                    yield number * self.block_size, block

    def close(self) -> None:
        self._storage.close()


def _runs(storage: Storage, at: int, bits: int) -> Iterator[tuple[int, int]]:
    """(first, one past the last) of each run of set bits."""
    import numpy as np

    size, window = -(-bits // 8), 1 << 16
    start = -1
    for chunk in range(0, size, window):
        data = storage.read(at + chunk, min(window, size - chunk))
        data = data.ljust(min(window, size - chunk), b"\0")
        first = chunk * 8
        if (start < 0 and not any(data)) or (start >= 0 and data.count(0xFF) == len(data)):
            continue
        values = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little").astype(np.int8)
        for place in np.flatnonzero(np.diff(values, prepend=np.int8(start >= 0))):
            if start < 0:
                start = first + int(place)
            else:
                yield start, min(first + int(place), bits)
                start = -1
    if 0 <= start < bits:
        yield start, bits


def _note(data: bytes, name: bytes) -> bytes | None:
    """What the note of that name holds, among ELF notes; ``None`` if it is not there or the notes are damaged."""
    at = 0
    while at + 12 <= len(data):
        name_size, size, _ = struct.unpack_from("<III", data, at)
        body = at + 12 + -(-name_size // 4) * 4
        if data[at + 12 : at + 12 + name_size].rstrip(b"\0") == name and body + size <= len(data):
            return data[body : body + size]
        at = body + -(-size // 4) * 4
    return None
