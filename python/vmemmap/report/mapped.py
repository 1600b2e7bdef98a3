"""How the vmemmap is mapped, as a drawing: a bar for the struct pages of each section.

Read from the text of ``kernel_page_tables``, so that images, vmcores and texts are drawn alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..dumps.ptdump import Ptdump, parse_ptdump
from ..spec import format_size, section_size

__all__ = ["Bar", "Map", "mapped", "mapped_text"]

#: Bars that are drawn; equal ones beside each other are one.
MOST_BARS = 48
#: sizeof(struct page).
STRUCT_PAGE = 64
#: Pixels of a bar.
WIDTH = 640


@dataclass(frozen=True)
class Bar:
    """Sections side by side that are mapped alike: pieces (x, width, kind) and words."""

    start: int
    count: int
    pieces: tuple[tuple[float, float, str], ...]
    words: str


@dataclass(frozen=True)
class Map:
    """Bars in the order of their addresses."""

    unit: str
    bars: tuple[Bar, ...]
    left_out: int


_NAMES = {"block": "block", "rw": "pages rw", "ro": "pages ro", "none": "not mapped"}


def _kind(level: str, columns: str) -> str:
    if not columns.strip():
        return "none"
    if level != "PTE" or " BLK" in columns:
        return "block"
    return "ro" if " ro " in f" {columns} " else "rw"


def _runs(dump: Ptdump) -> list[tuple[int, int, str]]:
    """(start, end, kind) of what lies between the headers of vmemmap."""
    return [
        (line.start, line.end, _kind(line.level, line.columns.text))
        for line in dump
        if line.marker is not None and line.marker.lower() == "vmemmap start"
    ]


def _bar(start: int, unit: int, runs: Sequence[tuple[int, int, str]]) -> Bar:
    pieces = [
        ((max(low, start) - start) * WIDTH / unit, (min(high, start + unit) - max(low, start)) * WIDTH / unit, kind)
        for low, high, kind in runs
    ]
    sums: dict[str, int] = {}
    for low, high, kind in runs:
        sums[kind] = sums.get(kind, 0) + min(high, start + unit) - max(low, start)
    words = ", ".join(f"{format_size(size)} {_NAMES[kind]}" for kind, size in sums.items())
    return Bar(start, 1, tuple((round(x, 2), round(w, 2), kind) for x, w, kind in pieces), words)


def mapped(dump: Ptdump, granule: int) -> Map | None:
    """The drawing; ``None`` if the text has no vmemmap, or nothing in it is mapped."""
    unit = section_size(granule) // granule * STRUCT_PAGE
    runs = _runs(dump)
    if not any(kind != "none" for _, _, kind in runs):
        return None
    bars: list[Bar] = []
    for low, high, kind in runs:
        if kind == "none" and high - low >= unit:
            continue
        # Whole sections of the run but for its ends, each of which may share its section with a neighbour.
        for start in range(low - low % unit, high, unit):
            if bars and bars[-1].start + bars[-1].count * unit > start:
                continue
            within = [run for run in runs if run[0] < start + unit and run[1] > start]
            bar = _bar(start, unit, within)
            last = bars[-1] if bars else None
            if last and (last.pieces, last.start + last.count * unit) == (bar.pieces, start):
                bars[-1] = Bar(last.start, last.count + 1, last.pieces, last.words)
            else:
                bars.append(bar)
            if len(bars) > 4 * MOST_BARS:
                break
    return Map(format_size(unit), tuple(bars[:MOST_BARS]), max(0, len(bars) - MOST_BARS))


def mapped_text(text: str, granule: int) -> Map | None:
    """The drawing of a text, or of the slice that has its vmemmap; ``None`` for an empty one."""
    return mapped(parse_ptdump(text), granule) if text else None
