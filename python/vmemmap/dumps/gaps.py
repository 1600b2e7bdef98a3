"""What of the address space a dump cannot show, because a table below another is not in it."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .addresses import index_of, kernel_start, levels_of, output_of, shift_of
from .image import Image

__all__ = ["Gap", "gaps_of", "told", "without"]


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """The addresses that a missing table translates."""

    start: int
    end: int
    """One past the last."""
    level: int
    """Arm level of the entry that leads there."""

    def touches(self, start: int, end: int) -> bool:
        """Whether some of these addresses are among them.

        Args:
            start: The first of them.
            end: One past the last.

        Returns:
            Whether the two overlap.
        """
        return self.start < end and start < self.end


def _tables(image: Image) -> Generator[tuple[int, int, int, int, int], None, None]:
    """Of each table entry that can be reached: its row, index, level, address, and the table that it names."""
    d = image.description
    rows = {int(pa): row for row, pa in enumerate(image.pa)}
    top = levels_of(d.granule, d.va_bits)[0]
    todo, seen = [(d.root_pa, top, kernel_start(d.va_bits))], {d.root_pa}
    while todo:
        table, level, start = todo.pop()
        row, shift = rows.get(table), shift_of(d.granule, level)
        if row is None or level == 3:
            continue
        width = d.va_bits - shift if level == top else d.granule.bit_length() - 4
        words = image.words[row][: 1 << width]
        for index in np.flatnonzero((words & np.uint64(3)) == 3):
            kind, output = output_of(d.granule, d.va_bits, level, int(words[index]))
            if kind != "table" or output is None:
                continue
            address = start + (int(index) << shift)
            yield row, int(index), level, address, output
            if output not in seen:
                seen.add(output)
                todo.append((output, level + 1, address))


def gaps_of(image: Image, missing: Collection[int]) -> tuple[Gap, ...]:
    """The gaps of a dump.

    Args:
        image: Its tables.
        missing: Physical addresses of those that it has not got.

    Returns:
        A gap for each entry that names one of them, by address.
    """
    if not missing:
        return ()
    absent, granule = frozenset(missing), image.description.granule
    return tuple(
        sorted(
            Gap(address, address + (1 << shift_of(granule, level)), level)
            for _, _, level, address, table in _tables(image)
            if table in absent
        )
    )


def without(image: Image, gaps: Iterable[Gap]) -> tuple[Image, tuple[Gap, ...]]:
    """An image without what lies in the gaps of another dump.

    Args:
        image: The tables.
        gaps: Addresses to leave out.

    Returns:
        The image with nothing there, and the gaps: wider where a block of it reaches beyond one.
    """
    d = image.description
    rows = {int(pa): row for row, pa in enumerate(image.pa)}
    words: NDArray[np.uint64] = np.array(image.words)
    wider = set[Gap]()
    for gap in gaps:
        table: int | None = d.root_pa
        for level in levels_of(d.granule, d.va_bits):
            row = rows.get(table) if table is not None else None
            if row is None:
                break
            index = index_of(gap.start, d.granule, d.va_bits, level)
            kind, table = output_of(d.granule, d.va_bits, level, int(words[row, index]))
            if level == gap.level or kind != "table":
                words[row, index] = 0
                span = 1 << shift_of(d.granule, level)
                gap = (
                    gap
                    if level == gap.level or kind == "none"
                    else Gap(gap.start & -span, (gap.start & -span) + span, level)
                )
                break
        wider.add(gap)
    left = replace(image, words=words)
    reached = {d.root_pa, *(table for _, _, _, _, table in _tables(left))}
    kept = np.isin(image.pa, np.array(sorted(reached), dtype=np.uint64))
    return replace(left, pa=image.pa[kept], level=image.level[kept], words=words[kept]), tuple(sorted(wider))


def told(gaps: Iterable[Gap], most: int = 4) -> str:
    """The gaps in words, those that touch as one.

    Args:
        gaps: By address.
        most: How many are listed.

    Returns:
        Ranges of addresses with commas between them.
    """
    joined: list[tuple[int, int]] = []
    for gap in gaps:
        if joined and gap.start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], gap.end)
        else:
            joined.append((gap.start, gap.end))
    shown = ", ".join(f"{start:#x}-{end - 1:#x}" for start, end in joined[:most])
    return shown + (f" and {len(joined) - most} more" if len(joined) > most else "")
