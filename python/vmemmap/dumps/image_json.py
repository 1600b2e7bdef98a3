"""The JSON beside a table image: what is known of the kernel that its tables do not say. Keys are those of a capture;
an error names the key.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, SpecError
from ..spec import KERNELS, check_machine, format_size, parse_kernel, section_size
from .reading import read_at_most
from .releases import behaviour_of_release, kernel_behaviour
from .va_layout import generation_of

__all__ = ["Description", "HugepageRuns", "describe", "read_description"]

_LIMIT: Final = 64 << 20
_MISSING: Final = object()
_LISTED: Final = 1 << 16
"""Most hugepages that are listed one by one; more are written as runs."""
_COUNT_LIMIT: Final = 1 << 24
"""Most hugepages in runs, which a few bytes can claim: 32 TiB of 2M pages."""


class HugepageRuns(Sequence[tuple[int, int]]):
    """(PFN of the head, length in base pages) of each HugeTLB page, kept as runs of those side by side: terabytes have
    millions.
    """

    __slots__ = ("_ends", "runs")

    def __init__(self, runs: Sequence[tuple[int, int, int]]) -> None:
        """Hold these runs.

        Args:
            runs: (PFN of the first head, length of each in base pages, number of pages).
        """
        self.runs = tuple(runs)
        self._ends = tuple(accumulate(count for _, _, count in self.runs))

    @staticmethod
    def of(runs: Sequence[tuple[int, int, int]]) -> Sequence[tuple[int, int]]:
        """The pages as a tuple, if they are few, else as runs.

        Args:
            runs: As above.

        Returns:
            The pages.
        """
        pages = HugepageRuns(runs)
        return pages if len(pages) > _LISTED else tuple(sorted(pages))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        run = bisect_right(self._ends, place)
        first, length, count = self.runs[run]
        return first + (place - self._ends[run] + count) * length, length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for first, length, count in self.runs:
            for n in range(count):
                yield first + n * length, length

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HugepageRuns) and self.runs == other.runs

    def __hash__(self) -> int:
        return hash(self.runs)

    def counted(self) -> dict[int, int]:
        """Number of pages by length."""
        counts: Counter[int] = Counter()
        for _, length, count in self.runs:
            counts[length] += count
        return counts


@dataclass(frozen=True, slots=True)
class Description:
    """What an image's JSON says, checked for type. Addresses and sizes are integers."""

    granule: int
    va_bits: int
    kernel: str
    root_pa: int
    """Physical address of ``swapper_pg_dir``."""
    memstart: int
    """``memstart_addr``; KASLR can make it negative."""
    vmemmap_start: int
    vmemmap_end: int
    markers: tuple[tuple[int, str | None], ...]
    """ptdump's markers, the nameless terminator last."""
    ram: tuple[tuple[int, int, bool], ...]
    """(first byte, one past the last, present at boot) of each range of RAM, plugged or not."""
    blocks_online: tuple[int, ...] | None
    """Numbers of the memory blocks that are online; ``None`` if the JSON does not say."""
    block_size: int
    """``memory_block_size_bytes``; 0 if the JSON does not say."""
    hugepages: Sequence[tuple[int, int]]
    """(PFN of the head, length in base pages) of each HugeTLB page."""
    hvo: bool
    """``vm.hugetlb_optimize_vmemmap``."""
    kernel_text: str = ""
    """What the JSON calls the kernel."""
    hugepages_known: bool = True
    """``hugepages`` is the list of all of them, not an empty one for want of any."""
    blocks_kernel: tuple[int, ...] = ()
    """Numbers of the memory blocks that were added and are online in a kernel zone; the others are movable."""
    pools: tuple[tuple[int, int], ...] = ()
    """(length in base pages, ``nr_hugepages``) of the pools that the JSON names."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was taken instead of what is not said, and what is not there: a sentence each."""


class _Keys:
    """Typed access to nested JSON; every error names the file and the key."""

    def __init__(self, path: Path, data: Mapping[str, Any], prefix: str = "") -> None:
        self.path, self.data, self.prefix = path, data, prefix

    def bad(self, key: str, expected: str) -> ImageError:
        return ImageError(f"{self.path}: key {self.prefix}{key}: expected {expected}")

    def get(self, key: str, kind: type, expected: str, default: object = _MISSING) -> Any:
        value = self.data.get(key, _MISSING)
        if value is _MISSING or (value is None and default is not _MISSING):
            if default is _MISSING:
                raise ImageError(f"{self.path}: key {self.prefix}{key} is missing")
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.bad(key, expected)
        return value

    def inside(self, key: str) -> _Keys:
        return _Keys(self.path, self.get(key, dict, "an object"), f"{self.prefix}{key}.")

    def items(self, key: str, default: list[Any] | None = None) -> list[Any]:
        return self.get(key, list, "a list", _MISSING if default is None else default)

    def pair(self, key: str, item: object, expected: str) -> tuple[object, object]:
        """An item that is a list of two."""
        values = cast("list[object]", item) if isinstance(item, list) else []
        if len(values) != 2:
            raise self.bad(key, expected)
        return values[0], values[1]

    def integer(self, key: str, default: object = _MISSING) -> int:
        value = self.data.get(key, _MISSING)
        if isinstance(value, str):
            return self.address(key, value)
        return self.in_range(key, self.get(key, int, "an integer", default))

    def address(self, key: str, value: object) -> int:
        """An integer, or hexadecimal digits after ``0x``."""
        if isinstance(value, int) and not isinstance(value, bool):
            return self.in_range(key, value)
        if isinstance(value, str) and re.fullmatch(r"-?0x[0-9a-fA-F]{1,16}", value):
            return self.in_range(key, int(value, 16))
        raise self.bad(key, "an integer or text like 0x40000000")

    def in_range(self, key: str, value: int) -> int:
        if not -(1 << 63) <= value < 1 << 64:
            raise self.bad(key, "a 64-bit integer")
        return value


def read_description(path: Path, *, kernel: str | None = None) -> Description:
    """Read and check the JSON of an image. ``kernel`` replaces the behaviour that it names."""
    keys = _Keys(path, _load(path))
    text = keys.get("kernel", str, "text like 6.1.192", default="" if kernel else _MISSING)
    granule = keys.integer("granule")
    if granule not in (4096, 16384, 65536):
        raise keys.bad("granule", "4096, 16384 or 65536")
    va_bits = keys.integer("va_bits")
    behaviour, notes = (parse_kernel(kernel), ()) if kernel is not None else _behaviour(keys, text, granule, va_bits)
    try:
        check_machine(granule, va_bits, behaviour)
    except SpecError as error:
        raise ImageError(f"{path}: key va_bits: {error}") from None
    _check_constants(keys, granule, va_bits)
    root = keys.integer("root_pa")
    if not 0 <= root < 1 << 52:
        raise keys.bad("root_pa", "a physical address of at most 52 bits")
    memstart = keys.integer("memstart")
    guest = keys.inside("guest")
    return Description(
        granule=granule,
        va_bits=va_bits,
        kernel=behaviour,
        root_pa=root,
        memstart=memstart if memstart < 1 << 63 else memstart - (1 << 64),
        vmemmap_start=keys.integer("vmemmap_start") % (1 << 64),
        vmemmap_end=keys.integer("vmemmap_end") % (1 << 64),
        markers=_markers(keys),
        ram=_ram(keys),
        blocks_online=_blocks_online(guest),
        blocks_kernel=_blocks_kernel(guest),
        block_size=_block_size(guest),
        hugepages=_hugepages(guest),
        pools=_pools(guest, granule),
        hvo=bool(guest.integer("hugetlb_optimize_vmemmap", default=1)),
        kernel_text=text,
        notes=notes,
    )


def _behaviour(keys: _Keys, text: str, granule: int, va_bits: int) -> tuple[str, tuple[str, ...]]:
    """The behaviour of a release, or the nearest, and why."""
    own = kernel_behaviour(text)
    if own is not None:
        return own, ()
    nearest = behaviour_of_release(text, generation_of(keys.integer("vmemmap_start") % (1 << 64), granule, va_bits))
    if nearest is None:
        raise ImageError(
            f"{keys.path}: key kernel: {text[:40]!r} is not modelled: expected {', '.join(KERNELS)}, "
            "or load it as one of them"
        )
    return nearest.kernel, (f"taken as {nearest.kernel}: {nearest.why}",)


def _load(path: Path) -> Mapping[str, Any]:
    raw = read_at_most(path, _LIMIT, "description")
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise ImageError(f"{path}: not JSON: {reason[:120]}") from error
    if not isinstance(data, dict):
        raise ImageError(f"{path}: not a JSON object")
    return cast("dict[str, Any]", data)


def _check_constants(keys: _Keys, granule: int, va_bits: int) -> None:
    """Facts that the granule and the VA size already settle; a JSON that contradicts them describes something else."""
    shift = granule.bit_length() - 1
    settled = {
        "page_offset": -(1 << va_bits) % (1 << 64),
        "table_levels": (va_bits - 4) // (shift - 3),
        "struct_page_size": 64,
        "section_size": section_size(granule),
    }
    for key, expected in settled.items():
        if keys.data.get(key) is not None and keys.integer(key) % (1 << 64) != expected:
            shown = f"{expected:#x}" if key == "page_offset" else str(expected)
            raise keys.bad(
                key, f"{shown} with {format_size(granule)} pages and {va_bits} bits, found {ascii(keys.data[key])[:40]}"
            )


def _markers(keys: _Keys) -> tuple[tuple[int, str | None], ...]:
    markers: list[tuple[int, str | None]] = []
    for i, item in enumerate(keys.items("ptdump_markers", default=[])):
        key = f"ptdump_markers[{i}]"
        start, name = keys.pair(key, item, "[address, name]")
        if not (name is None or (isinstance(name, str) and name.isascii())):
            raise keys.bad(key, "[address, name]")
        markers.append((keys.address(key, start) % (1 << 64), name))
    return tuple(markers)


def _ram(keys: _Keys) -> tuple[tuple[int, int, bool], ...]:
    ranges: list[tuple[int, int, bool]] = []
    for i, item in enumerate(keys.items("ram")):
        if not isinstance(item, dict):
            raise keys.bad(f"ram[{i}]", "an object with base, size and kind")
        entry = _Keys(keys.path, cast("dict[str, Any]", item), f"ram[{i}].")
        base, size = entry.integer("base"), entry.integer("size")
        if base < 0 or size <= 0 or base + size > 1 << 52:
            raise keys.bad(f"ram[{i}]", "a range of physical addresses below 52 bits")
        ranges.append((base, base + size, entry.get("kind", str, "text").lower().startswith("boot")))
    if not ranges:
        raise keys.bad("ram", "at least one range")
    return tuple(ranges)


def _of_blocks(guest: _Keys, key: str, example: str) -> Iterator[tuple[int, str]]:
    for i, item in enumerate(guest.items(key)):
        match = re.fullmatch(r"memory(\d{1,12}):([A-Za-z0-9-]+)", item) if isinstance(item, str) else None
        if match is None:
            raise guest.bad(f"{key}[{i}]", f"text like {example}")
        yield int(match[1]), match[2]


def _blocks_online(guest: _Keys) -> tuple[int, ...] | None:
    if guest.data.get("memory_blocks_online") is None:
        return None
    states = _of_blocks(guest, "memory_blocks_online", "memory8:online")
    return tuple(sorted(number for number, state in states if state == "online"))


def _blocks_kernel(guest: _Keys) -> tuple[int, ...]:
    if guest.data.get("memory_blocks_valid_zones") is None:
        return ()
    zones = _of_blocks(guest, "memory_blocks_valid_zones", "memory16:Normal")
    return tuple(sorted(number for number, zone in zones if zone not in ("Movable", "none")))


def _block_size(guest: _Keys) -> int:
    size = guest.integer("memory_block_size_bytes", default=0)
    if size < 0 or size & (size - 1):
        raise guest.bad("memory_block_size_bytes", "a power of two")
    return size


def _hugepages(guest: _Keys) -> Sequence[tuple[int, int]]:
    if "hugetlb_runs_pfn_npages_count" in guest.data:
        return _hugepage_runs(guest)
    pages: list[tuple[int, int]] = []
    for i, item in enumerate(guest.items("hugetlb_heads_pfn_npages")):
        key = f"hugetlb_heads_pfn_npages[{i}]"
        head, length = guest.pair(key, item, "[PFN of the head, base pages]")
        pfn, count = guest.address(key, head), guest.address(key, length)
        if pfn < 0 or count <= 0:
            raise guest.bad(key, "[PFN of the head, base pages]")
        pages.append((pfn, count))
    return tuple(pages)


def _hugepage_runs(guest: _Keys) -> HugepageRuns:
    runs: list[tuple[int, int, int]] = []
    total = 0
    for i, item in enumerate(guest.items("hugetlb_runs_pfn_npages_count")):
        key, expected = f"hugetlb_runs_pfn_npages_count[{i}]", "[PFN of the first head, base pages of each, pages]"
        values = cast("list[object]", item) if isinstance(item, list) else []
        if len(values) != 3:
            raise guest.bad(key, expected)
        first, length, count = (guest.address(key, value) for value in values)
        total += count
        if first < 0 or length <= 0 or count <= 0 or total > _COUNT_LIMIT or first + count * length >= 1 << 52:
            raise guest.bad(key, expected)
        runs.append((first, length, count))
    return HugepageRuns(runs)


def _pools(guest: _Keys, granule: int) -> tuple[tuple[int, int], ...]:
    """``{"2048kB": "8"}``, as the directories of ``/sys/kernel/mm/hugepages`` are named."""
    pools: list[tuple[int, int]] = []
    for name, count in guest.get("hugepages", dict, "an object", default={}).items():
        match = re.fullmatch(r"(\d{1,12})kB", name)
        text = str(count) if isinstance(count, int) and not isinstance(count, bool) else count
        if match is None or not isinstance(text, str) or not re.fullmatch(r"\d{1,12}", text):
            raise guest.bad("hugepages", 'sizes and numbers like {"2048kB": "8"}')
        pools.append((int(match[1]) * 1024 // granule, int(text)))
    return tuple(sorted(pools))


def describe(description: Description, level: NDArray[np.uint8], *, state: str, note: str) -> dict[str, Any]:
    """The JSON object for ``description``, with a capture's keys."""
    d = description
    levels, counts = np.unique(np.asarray(level).astype(np.int8), return_counts=True)
    runs = d.hugepages if isinstance(d.hugepages, HugepageRuns) else None
    counted = Counter(pages for _, pages in d.hugepages) if runs is None else runs.counted()
    pools = {f"{pages * d.granule >> 10}kB": nr for pages, nr in {**counted, **dict(d.pools)}.items()}
    guest: dict[str, Any] = {
        "hugepages": {name: str(count) for name, count in sorted(pools.items())},
        **(
            {"hugetlb_heads_pfn_npages": [list(page) for page in d.hugepages]}
            if runs is None
            else {"hugetlb_runs_pfn_npages_count": [list(run) for run in runs.runs]}
        ),
        "hugetlb_optimize_vmemmap": int(d.hvo),
        "memory_block_size_bytes": d.block_size or section_size(d.granule),
    }
    if d.blocks_online is not None:
        guest["memory_blocks_online"] = [f"memory{n}:online" for n in d.blocks_online]
    if d.blocks_kernel:
        guest["memory_blocks_valid_zones"] = [f"memory{n}:Normal" for n in d.blocks_kernel]
    return {
        "state": state,
        "note": note,
        "kernel": d.kernel_text if kernel_behaviour(d.kernel_text) == d.kernel else d.kernel,
        "granule": d.granule,
        "va_bits": d.va_bits,
        "table_levels": (d.va_bits - 4) // (d.granule.bit_length() - 4),
        "root_pa": hex(d.root_pa),
        "page_offset": hex(-(1 << d.va_bits) % (1 << 64)),
        "vmemmap_start": hex(d.vmemmap_start),
        "vmemmap_end": hex(d.vmemmap_end),
        "memstart": hex(d.memstart),
        "struct_page_size": 64,
        "section_size": section_size(d.granule),
        "ram": [
            {"base": hex(start), "size": end - start, "kind": "boot RAM" if boot else "hot-pluggable region"}
            for start, end, boot in d.ram
        ],
        "ptdump_markers": [[hex(start), name] for start, name in d.markers],
        "tables": len(level),
        "tables_by_level": {str(int(v)): int(n) for v, n in zip(levels, counts, strict=True)},
        "guest": guest,
    }
