"""How each region is mapped: bytes by level of the leaves and contiguous bit; and what of that differs between two
dumps."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from .. import _core
from ..errors import ImageError
from ..spec import format_size
from .addresses import Regions, levels_of, shift_of
from .dump import Dump, Hints, kind_of_dump, open_dump
from .image import read_text
from .ptdump import Ptdump, parse_ptdump

__all__ = ["Mapped", "Mapping", "changes", "human_bytes", "mapping", "mapping_of"]

_VALID, _CONT, _TABLE_BIT = 1, 1 << 52, 1 << 1
_NO_REGION: Final = "(no region)"


@dataclass(frozen=True, slots=True)
class Mapped:
    """Leaves of one kind in one region."""

    region: str
    level: int | None
    """Arm level; ``None`` if the text does not say."""
    contiguous: bool
    bytes: int
    leaf: int | None
    """Bytes that a leaf of that level maps."""

    @property
    def kind(self) -> str:
        """``2M blocks``, ``4K pages``, with ``contiguous`` in front if they are."""
        if self.leaf is None:
            return "leaves"
        return (
            f"{'contiguous ' if self.contiguous else ''}{format_size(self.leaf)} "
            f"{'pages' if self.level == 3 else 'blocks'}"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON.

        Returns:
            The object that ``--json`` prints for a row.
        """
        return {
            "region": self.region,
            "level": self.level,
            "contiguous": self.contiguous,
            "bytes": self.bytes,
            "leaf": self.leaf,
            "kind": self.kind,
        }


@dataclass(frozen=True, slots=True)
class Mapping:
    """How a dump maps its regions."""

    source: str
    granule: int
    machine: str
    rows: tuple[Mapped, ...]
    notes: tuple[str, ...]
    shown: frozenset[str] | None = None
    """Regions that are in a slice of a text, whole; ``None``: all are in the dump."""

    def to_json(self) -> list[dict[str, Any]]:
        """For JSON: a row for each kind of leaf of each region.

        Returns:
            What ``--json`` prints.
        """
        return [row.to_dict() for row in self.rows]

    def text(self) -> str:
        """For people: bytes and shares of each region.

        Returns:
            Lines for people, without a newline at the end.
        """
        lines = [f"{self.source}: {self.machine}", ""]
        for region in dict.fromkeys(row.region for row in self.rows):
            mine = [row for row in self.rows if row.region == region]
            total = sum(row.bytes for row in mine)
            lines.append(f"  {region:<14} {human_bytes(total):>10} mapped")
            lines += [
                f"  {'':<14} {human_bytes(row.bytes):>10}  {100 * row.bytes / total:>7.3f}%  {row.kind}" for row in mine
            ]
        if not self.rows:
            lines.append("  nothing is mapped")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def mapping(path: str | os.PathLike[str], known: Hints | None = None) -> Mapping:
    """How the regions of a dump are mapped.

    Args:
        path: The dump: a table image, ``kernel_page_tables`` text or a vmcore.
        known: What it does not say itself.

    Returns:
        Bytes by region and kind of leaf.

    Raises:
        ImageError: It cannot be read, or is no dump.
    """
    known = known or Hints()
    if kind_of_dump(path, known) == "ptdump":
        return _of_text_file(Path(path), known)
    return mapping_of(open_dump(path, known))


def mapping_of(dump: Dump) -> Mapping:
    """The same of one that is open.

    Args:
        dump: The dump.

    Returns:
        Bytes by region and kind of leaf.
    """
    if dump.tables is None or dump.image is None:
        text = dump.text or b""
        layout = _core.layout(dump.shape.granule, dump.shape.va_bits, dump.shape.kernel)
        parsed, regions = parse_ptdump(text), Regions(layout["markers"])
        rows = _of_text(parsed, dump.shape.granule, dump.shape.va_bits, regions)
        shown = _shown(parsed, regions, layout["PAGE_OFFSET"])
        return Mapping(os.fspath(dump.path), dump.shape.granule, dump.machine, rows, dump.text_notes, shown)
    d = dump.image.description
    regions = Regions(d.markers or _core.layout(d.granule, d.va_bits, d.kernel, d.memstart)["markers"])
    counted: Counter[tuple[str, int, bool]] = Counter()
    for number, level, contiguous, size in _core.mapping(dump.tables, regions.starts):
        name = regions.names[number - 1] if number else None
        counted[name or _NO_REGION, level, contiguous] += size
    return Mapping(
        os.fspath(dump.path),
        dump.shape.granule,
        dump.machine,
        _rows(counted, d.granule, regions.names),
        dump.text_notes,
    )


def _of_text_file(path: Path, known: Hints) -> Mapping:
    text, notes = read_text(path)
    try:
        shape = _core.Shape.of_text(
            text, granule=known.granule, va_bits=known.va_bits, kernel=known.kernel, memstart=known.memstart
        )
        return mapping_of(Dump(path, "ptdump", shape, None, None, text, text_notes=notes))
    except ImageError:
        if _is_modelled(text):
            raise  # What the call says of the machine is not what the text shows.
        # No vmemmap, or a machine that is none of those modelled: headers tell the regions.
        alone = _core.check_text_alone(text, granule=known.granule, va_bits=known.va_bits)
    if not alone["machines"]:
        raise ImageError(f"{path}: no arm64 kernel has pages and addresses like these (--granule, --va-bits)")
    granule, va_bits = alone["machines"][0]
    parsed = parse_ptdump(text)
    rows = _of_text(parsed, granule, va_bits, None)
    machine, notes = f"{granule >> 10}K pages, {va_bits}-bit addresses", (*notes, *alone["notes"])
    return Mapping(os.fspath(path), granule, machine, rows, notes, _headed(parsed))


def _is_modelled(text: bytes) -> bool:
    """Whether a text tells by itself which machine it is of."""
    try:
        _core.Shape.of_text(text)
    except ImageError:
        return False
    return True


def _shown(dump: Ptdump, regions: Regions, page_offset: int) -> frozenset[str] | None:
    """Regions that a slice has from their first address to their last."""
    first, last = int(dump.bounds[0]), int(dump.bounds[-1]) or 1 << 64
    if first <= page_offset and last == 1 << 64:
        return None
    ends = [*regions.starts[1:], 1 << 64]
    return frozenset(
        name
        for name, start, end in zip(regions.names, regions.starts, ends, strict=True)
        if name is not None and first <= start and end <= last
    )


def _headed(dump: Ptdump) -> frozenset[str] | None:
    """The same by headers alone. Without any it is for the reader to know that two texts are of the same addresses."""
    return frozenset(name for found in dump.markers if (name := _header(found.name)) is not None) or None


def _of_text(dump: Ptdump, granule: int, va_bits: int, regions: Regions | None) -> tuple[Mapped, ...]:
    """`regions`: by address; else by the headers of the text."""
    prot, size, marker = dump.prot, dump.size, dump.marker
    names = [_header(found.name) for found in dump.markers]
    counted: Counter[tuple[str, int | None, bool]] = Counter()
    top = levels_of(granule, va_bits)[0]
    mapped = np.flatnonzero(prot & np.uint64(_VALID))
    for at in mapped.tolist():
        word, depth = int(prot[at]), int(dump.level[at])
        region = (
            regions.of(int(dump.bounds[at])) if regions is not None else names[marker[at]] if marker[at] >= 0 else None
        )
        # Folded levels are called PGD before 6.12; without a level column nothing tells.
        level = None if depth == 5 else max(depth - 1, top)
        counted[region or _NO_REGION, level, bool(word & _CONT)] += int(size[at])
    return _rows(counted, granule, regions.names if regions is not None else names)


def _header(name: str) -> str | None:
    found = Regions([(0, name)])
    return found.names[0] if found.names else None


def _rows(counted: Counter[Any], granule: int, order: Sequence[str | None]) -> tuple[Mapped, ...]:
    """Regions by address, the largest leaves first."""
    places = {name: n for n, name in reversed(list(enumerate(order)))}
    keys = sorted(
        counted, key=lambda key: (places.get(key[0], len(order)), key[1] if key[1] is not None else 4, not key[2])
    )
    return tuple(
        Mapped(
            region,
            level,
            contiguous,
            counted[region, level, contiguous],
            None if level is None else 1 << shift_of(granule, level),
        )
        for region, level, contiguous in keys
    )


def changes(a: Mapping, b: Mapping, *, without: str | None = None) -> list[tuple[str, str, int, int]]:
    """(region, kind of leaf, bytes in `a`, bytes in `b`) where they differ, but in the region `without`, and in those
    that a slice leaves out: not to be in the text is not to be unmapped.

    Args:
        a: How it was mapped before.
        b: How it is mapped after.
        without: Region that is left out.

    Returns:
        A tuple for each difference, in the order of the rows.
    """
    before, after = ({(row.region, row.kind): row.bytes for row in found.rows} for found in (a, b))
    keys = [
        key
        for key in dict.fromkeys([*before, *after])
        if key[0] != without and all(found.shown is None or key[0] in found.shown for found in (a, b))
    ]
    return [(*key, before.get(key, 0), after.get(key, 0)) for key in keys if before.get(key, 0) != after.get(key, 0)]


def human_bytes(size: int) -> str:
    """In the largest unit that leaves at most four digits before the point; exact where it can be.

    Args:
        size: Bytes.

    Returns:
        Number and unit.
    """
    unit = max(0, (size.bit_length() - 1) // 10)
    if not size % (1 << 10 * unit):
        return format_size(size)
    value = size / (1 << 10 * unit)
    return f"{value:.2f}{'_KMGTPE'[unit]}"
