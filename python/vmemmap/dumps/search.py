"""Page tables found in memory of which nothing is known: ``swapper_pg_dir``, ``memstart_addr``, the granule and the VA
size.

A page is a root if, read as one, it *translates its own linear map*: every leaf of the lower half of the kernel's
addresses has the same distance between its virtual and its physical address, that distance makes a ``memstart_addr``
that can be, and the root itself is mapped where the linear map has it. User tables have no linear map, other kernel
tables have no upper half. Independently VMCOREINFO is looked for: a kernel has it in a page of its own memory, whether
the dump has the note or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..errors import ImageError
from ..spec import VA_BITS, format_size, section_size
from .physical_memory import PhysicalMemory
from .va_layout import GENERATIONS, page_end, page_offset, vmemmap_start

__all__ = ["Root", "Search", "search", "verified", "vmemmap_of"]

_NOTE_HEADER: Final = b"VMCOREINFO\0"
_INFO_START: Final = b"OSRELEASE="
_INFO_LIMIT: Final = 1 << 16
_INFOS: Final = 64
_TABLES: Final = 512
"""Most tables that are read to verify a candidate."""
_FEW_TABLES: Final = 8
_CANDIDATES: Final = 1 << 14
_LEAST: Final = 2 << 20
"""Bytes that a linear map has at least."""


@dataclass(frozen=True, slots=True)
class Root:
    """A root that translates its own linear map."""

    pa: int
    granule: int
    va_bits: int
    """In use: ``64 - T1SZ``."""
    from_52: bool
    """A table of a 64K kernel built for 52 bits, of which the upper 64 entries are in use."""
    memstart: int
    """Physical address of PAGE_OFFSET of the bits in use."""
    mapped: int
    """Bytes that its linear map maps."""
    vmemmap: int
    """VMEMMAP_START of the bits in use: the struct page of the root is mapped where that has it."""

    def __str__(self) -> str:
        return (
            f"root {self.pa:#x} ({self.granule >> 10}K pages, {self.va_bits} bits, memstart {self.memstart:#x}, "
            f"{format_size(self.mapped)} of RAM in its linear map)"
        )


@dataclass(frozen=True, slots=True)
class Search:
    """What was found in memory."""

    roots: tuple[Root, ...]
    vmcoreinfo: tuple[tuple[int, bytes], ...]
    """(physical address, text) of each VMCOREINFO, the same text once."""


def _geometries(granule: int | None, va_bits: int | None) -> Iterator[tuple[int, int, bool]]:
    """(granule, VA bits in use, whether a 64K root of 52 bits serves them)."""
    for pages, sizes in VA_BITS.items():
        if granule in (None, pages):
            for bits in sizes:
                if va_bits in (None, bits):
                    yield pages, bits, False
            if pages == 65536 and va_bits in (None, 48):
                yield pages, 48, True


def verified(memory: PhysicalMemory, root: int, granule: int | None, va_bits: int | None) -> list[Root]:
    """What the page at ``root`` can be a root of, the best first."""
    found = [r for g in _geometries(granule, va_bits) if (r := _verify(memory, root, *g)) is not None]
    # A small root read as a larger one has the same entries; the one that maps most with fewest bits is meant.
    return sorted(found, key=lambda r: (-r.mapped, r.va_bits))


def _verify(memory: PhysicalMemory, root: int, granule: int, va_bits: int, from_52: bool) -> Root | None:
    if root % granule:
        return None
    low, high = page_offset(va_bits), page_end(granule, va_bits)
    # A few tables tell most pages that are none.
    runs: list[tuple[int, int, int, bool]] = []
    distances: set[int] = set()
    for tables in (_FEW_TABLES, _TABLES):
        runs = _leaves(memory, root, granule, 52 if from_52 else va_bits, low, high, tables)
        distances = {va - pa for va, pa, _, _ in runs}
        if len(distances) > 1:
            return None
    mapped = sum(size for _, _, size, _ in runs)
    if not distances or mapped < _LEAST:
        return None
    memstart = low - distances.pop()
    if memstart % section_size(granule) or not -(1 << 51) < memstart < 1 << 52:
        return None
    if not any(pa <= root < pa + size for _, pa, size, _ in runs):
        return None
    # A table of the linear map of much memory is alike, but only a root has struct pages too.
    start = vmemmap_of(memory, root, granule, 52 if from_52 else va_bits, va_bits, memstart)
    return None if start is None else Root(root, granule, va_bits, from_52, memstart, mapped, start)


def vmemmap_of(
    memory: PhysicalMemory, root: int, granule: int, walk: int, va_bits: int, memstart: int, kernel: str | None = None
) -> int | None:
    """VMEMMAP_START of the bits in use, of the first layout in which the struct page of the root is mapped; that of
    ``kernel`` is tried first.
    """
    for generation in sorted(GENERATIONS, key=lambda g: kernel not in g.behaviours):
        start = vmemmap_start(generation, granule, va_bits)
        if start is not None:
            page = start + (root - memstart) // granule * 64
            leaves = _leaves(memory, root, granule, walk, page, page + 64, _TABLES) if 0 < page < (1 << 64) - 64 else []
            if any(valid for *_, valid in leaves):
                return start
    return None


def _leaves(
    memory: PhysicalMemory, root: int, granule: int, va_bits: int, low: int, high: int, tables: int
) -> list[tuple[int, int, int, bool]]:
    try:
        return _core.leaves(root, granule, va_bits, (low, high), tables, lambda pa: memory.read(pa, granule))
    except ImageError:
        return []


def search(memory: PhysicalMemory, granule: int | None, va_bits: int | None) -> Search:
    """Look through all memory that the dump holds.

    :raises ImageError: the file cannot be read.
    """
    geometries = list(_geometries(granule, va_bits))
    infos: dict[bytes, int] = {}
    candidates: list[tuple[int, tuple[int, int, bool]]] = []
    highest = max((end for _, end in memory.ranges), default=1 << 52)
    for pa, data in memory.stored():
        if not data.strip(b"\0"):
            continue
        infos.update((text, at) for at, text in _infos(memory, pa, data) if text not in infos and len(infos) < _INFOS)
        for pages in {g[0] for g in geometries}:
            skip = -pa % pages
            count = (len(data) - skip) // pages
            if count <= 0 or len(candidates) >= _CANDIDATES:
                continue
            words: NDArray[np.uint64] = np.frombuffer(data, dtype=np.uint64, count=count * (pages // 8), offset=skip)
            rows = np.reshape(words, (count, pages // 8))
            # Every word of a table is zero or valid.
            numbers = np.flatnonzero(((rows & np.uint64(1)) == (rows != 0)).all(axis=1) & rows.any(axis=1))
            if numbers.size:
                rows = rows[numbers]
                for g in geometries:
                    if g[0] == pages:
                        candidates += [(pa + skip + int(numbers[n]) * pages, g) for n in _plausible(rows, g, highest)]
    best: dict[int, Root] = {}
    for at, g in candidates:
        root = _verify(memory, at, *g)
        if root is not None and (at not in best or (root.mapped, -root.va_bits) > (best[at].mapped, -best[at].va_bits)):
            best[at] = root
    return Search(
        tuple(sorted(best.values(), key=lambda r: (-r.mapped, r.pa))), tuple((at, text) for text, at in infos.items())
    )


def _plausible(rows: NDArray[np.uint64], g: tuple[int, int, bool], highest: int) -> Iterable[int]:
    """Rows that can be roots: nothing but descriptors of tables (of blocks where the level has some), in both halves of
    the entries in use, and zeros behind them.
    """
    granule, bits, from_52 = g
    shift = granule.bit_length() - 4
    levels = (bits - 4) // shift
    entries = 1 << (bits - 3 - shift * levels)
    first = 1024 - entries if from_52 else 0
    used = rows[:, first : first + entries]
    lower, upper = used[:, : max(1, entries // 2)], used[:, max(1, entries // 2) :]
    plausible: NDArray[np.bool_] = np.asarray(lower.any(axis=1))
    if upper.shape[1]:
        plausible &= np.asarray(upper.any(axis=1))
    if first + entries < rows.shape[1]:
        plausible &= ~rows[:, first + entries :].any(axis=1)
    if first:
        plausible &= ~rows[:, :first].any(axis=1)
    numbers = np.flatnonzero(plausible)
    if not numbers.size:
        return ()
    used = used[numbers]
    kind = used & np.uint64(3)
    allowed = kind == 3
    if (levels == 3 and granule == 4096) or levels == 2:
        allowed |= kind == 1
    address = used & np.uint64(0xFFFF_FFFF_FFFF & ~(granule - 1))
    if highest <= 1 << 48:
        allowed &= address < np.uint64(highest)
    return numbers[(allowed | (used == 0)).all(axis=1)].tolist()


def _infos(memory: PhysicalMemory, pa: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """VMCOREINFO at the start of a page, as a note (``vmcoreinfo_note``) or as text alone (``vmcoreinfo_data``)."""
    at = data.find(_INFO_START)
    while at >= 0:
        page = at & ~0xFFF
        in_note = at - page == 24 and data[page + 12 : page + 12 + len(_NOTE_HEADER)] == _NOTE_HEADER
        if (at == page or in_note) and pa % 4096 == 0:
            text = memory.read(pa + at, 4096 - (at - page)) or data[at : page + 4096]
            text = text[: text.find(b"\0")] if b"\0" in text else text
            if b"\nPAGESIZE=" in text and b"SYMBOL(swapper_pg_dir)=" in text:
                yield pa + at, text[:_INFO_LIMIT]
        at = data.find(_INFO_START, at + 1)
