"""``kernel_page_tables`` text in parsed form: one NumPy array for each thing that a line says, printed back byte for
byte.

A dump of a hundred megabytes is a million ranges; as arrays they take 13 bytes each. Columns that this package does not
know are kept as they stand, and so are markers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .image import read_text

__all__ = ["LEVELS", "Columns", "Marker", "Ptdump", "Range", "load_ptdump", "parse_ptdump"]

LEVELS: Final = ("PGD", "P4D", "PUD", "PMD", "PTE", "")
"""Names of levels by their number in ``Ptdump.level``. 6.1 prints a folded level by the name of that it is folded into;
4.4 prints none, which is the last. Without columns that is a hole, as kernels before 5.6 do not print any."""


class Columns(NamedTuple):
    """Everything that a line has after its level."""

    text: str
    """As it stands, with the leading space; empty for a hole."""
    prot: int = 0
    """The descriptor bits that the known columns say; 0 for a hole."""
    known: bool = True
    """There are no others, and they stand as this package prints them."""


class Marker(NamedTuple):
    """``---[ name ]---``."""

    before: int
    """Index of the range that it stands before; the number of ranges if it is the last line."""
    name: str


class Range(NamedTuple):
    """One line."""

    start: int
    end: int
    """One past the last address, 2^64 for the top of the address space."""
    level: str
    """The name printed."""
    columns: Columns
    marker: str | None
    """The last header above it."""


@dataclass(frozen=True, slots=True, eq=False)
class Ptdump:
    """A dump, or a slice of one: ranges without a gap, and the headers between them.

    Change it with ``dataclasses.replace``; `to_bytes` refuses what no dump can say.
    """

    bounds: NDArray[np.uint64]
    """First address of each range, and one past the last of all: 0 if that is the top of the address space."""
    level: NDArray[np.uint8]
    """Level of each range, an index into `LEVELS`; the last, without columns, is not printed."""
    columns: NDArray[np.uint32]
    """Columns of each range, an index into `texts`."""
    texts: tuple[Columns, ...]
    """The distinct columns of the dump."""
    markers: tuple[Marker, ...]
    notes: tuple[str, ...] = ()
    """What stood around the text in the file that it was read from, and was left out."""

    def __len__(self) -> int:
        return len(self.level)

    @property
    def start(self) -> NDArray[np.uint64]:
        """First address of each range."""
        return self.bounds[:-1]

    @property
    def end(self) -> NDArray[np.uint64]:
        """One past the last address of each range; 0 is the top of the address space."""
        return self.bounds[1:]

    @property
    def size(self) -> NDArray[np.uint64]:
        """Bytes of each range."""
        return self.end - self.start

    @property
    def prot(self) -> NDArray[np.uint64]:
        """The descriptor bits that the known columns of each range say; 0 is a hole."""
        return np.array([columns.prot for columns in self.texts] or [0], np.uint64)[self.columns]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether a range has known columns only."""
        return np.array([columns.known for columns in self.texts] or [True], np.bool_)[self.columns]

    @property
    def marker(self) -> NDArray[np.int64]:
        """The last of `markers` above each range; -1 if there is none."""
        before = np.array([marker.before for marker in self.markers], np.int64)
        return np.searchsorted(before, np.arange(len(self)), side="right") - 1

    def __getitem__(self, index: int) -> Range:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._range(index % len(self), int(self.marker[index]))

    def __iter__(self) -> Iterator[Range]:
        return (self._range(index, int(marker)) for index, marker in enumerate(self.marker))

    def _range(self, index: int, marker: int) -> Range:
        start, end = int(self.bounds[index]), int(self.bounds[index + 1]) or 1 << 64
        header = self.markers[marker].name if marker >= 0 else None
        return Range(start, end, LEVELS[self.level[index]], self.texts[self.columns[index]], header)

    def to_bytes(self) -> bytes:
        """The text, byte for byte as the kernel prints it.

        Returns:
            The text as the kernel prints it, byte for byte.

        Raises:
            ImageError: The arrays were changed to what no dump can say; the message names the place.
        """
        bounds = np.ascontiguousarray(self.bounds, np.uint64)
        level, columns = np.ascontiguousarray(self.level, np.uint8), np.ascontiguousarray(self.columns, np.uint32)
        return _core.print_ptdump(bounds, level, columns, [text.text for text in self.texts], list(self.markers))

    def __str__(self) -> str:
        return self.to_bytes().decode("ascii")

    def __repr__(self) -> str:
        return f"<Ptdump: {len(self)} ranges, {len(self.markers)} markers>"


def parse_ptdump(text: str | bytes) -> Ptdump:
    """Take a ``kernel_page_tables`` text apart: a whole one, or the slice of a region.

    Args:
        text: The text, or its bytes.

    Returns:
        Ranges, levels and columns as arrays.

    Raises:
        ImageError: The first line that is none of a dump's, with its number.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    bounds, level, columns, texts, markers = _core.parse_ptdump(data)
    return Ptdump(bounds, level, columns, tuple(map(Columns._make, texts)), tuple(map(Marker._make, markers)))


def load_ptdump(path: str | os.PathLike[str]) -> Ptdump:
    """Take the text of a file apart, whatever people have put around it: see ``Ptdump.notes``.

    Args:
        path: The file.

    Returns:
        Ranges, levels and columns as arrays.

    Raises:
        ImageError: It cannot be read, or is no dump; the message names line and column.
    """
    text, notes = read_text(Path(path))
    return replace(parse_ptdump(text), notes=notes)
