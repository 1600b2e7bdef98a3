"""One way into every dump: a table image, a ``kernel_page_tables`` text or a vmcore is opened by what it is, and shows
of vmemmap what it can.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .. import _core
from ..errors import ImageError, SpecError
from ..spec import parse_address, parse_granule, parse_kernel, parse_va_bits, section_size
from .image import Image, kind_of, read_npz, read_text

if TYPE_CHECKING:
    from .image_json import Description
    from .physical_memory import PhysicalMemory
    from .vmcore import Vmcore

__all__ = ["Dump", "Hints", "dump_of_image", "kind_of_dump", "open_dump", "read_tables"]


@dataclass(frozen=True, slots=True)
class Hints:
    """What a dump does not say and its reader knows: of a text the machine, of raw memory where its tables are."""

    kernel: str | None = None
    """Kernel behaviour: ``6.1``, ``6.12`` and so on."""
    granule: int | None = None
    """Bytes of a base page."""
    va_bits: int | None = None
    memstart: int | None = None
    """``memstart_addr``: physical address of the start of the linear map."""
    root: int | None = None
    """Physical address of ``swapper_pg_dir``."""
    base: int | None = None
    """Physical address of the first byte of a raw memory file."""
    ram: tuple[tuple[Path, int], ...] = ()
    """Further raw memory files, each with the physical address of its first byte."""

    @classmethod
    def parse(
        cls,
        *,
        kernel: str | None = None,
        granule: str | int | None = None,
        va_bits: str | int | None = None,
        memstart: str | int | None = None,
        root: str | int | None = None,
        base: str | int | None = None,
        ram: Iterable[str | tuple[str | os.PathLike[str], str | int]] = (),
    ) -> Hints:
        """From a command line.

        Args:
            kernel: Kernel behaviour, by name: ``6.1``, ``6.12`` and so on.
            granule: Bytes of a base page, or text: ``4K``, ``16K``, ``64K``.
            va_bits: Bits of a kernel virtual address: 36, 39, 42, 47, 48 or 52.
            memstart: ``memstart_addr``: physical address where the linear map starts, in bytes.
            root: Physical address of ``swapper_pg_dir``.
            base: Physical address of the first byte of a raw memory file.
            ram: Further raw files of the same memory: ``FILE@ADDRESS``, or (file, address of its first byte).

        Returns:
            The hints, addresses and sizes as integers.

        Raises:
            SpecError: What was given is not that.
        """
        return cls(
            kernel=None if kernel is None else parse_kernel(kernel),
            granule=None if granule is None else parse_granule(granule),
            va_bits=None if va_bits is None else parse_va_bits(va_bits),
            memstart=parse_address(memstart, "memstart"),
            root=parse_address(root, "root"),
            base=parse_address(base, "base"),
            ram=tuple(_parse_ram(item) for item in ram or ()),
        )


def _parse_ram(item: str | tuple[str | os.PathLike[str], str | int]) -> tuple[Path, int]:
    """``FILE@0x80000000``, or a pair of the two.

    Raises:
        SpecError: No such pair.
    """
    if isinstance(item, str):
        name, at, address = item.rpartition("@")
        if not at or not name:
            raise SpecError(
                f"ram is {item[:80]!r}: expected a file and the physical address of its first byte, "
                "like ram1.bin@0x80000000"
            )
        item = name, address
    base = parse_address(item[1], "ram")
    assert base is not None
    return Path(item[0]), base


@dataclass(frozen=True, slots=True)
class Dump:
    """A dump that has been opened. Its tables may be damaged: only what makes it no dump at all has been refused."""

    path: Path
    kind: Literal["npz", "ptdump", "vmcore"]
    shape: _core.Shape
    """What it shows of vmemmap."""
    image: Image | None
    """Its tables, unless it is a text."""
    tables: _core.TableImage | None
    text: bytes | None
    """The text, if it is one."""
    memory: PhysicalMemory | None = None
    """The memory of a vmcore, struct pages too, if they were dumped."""
    head_mask: int | None = None
    """``PG_head`` in ``page->flags``, if the vmcore says."""
    left_out: tuple[int, ...] = ()
    """Physical addresses of tables that a vmcore left out: memory that it names and has not got."""
    text_notes: tuple[str, ...] = ()
    """What stood around a text and was left out, in words."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken instead of what the dump does not say, what it lacks, and what was left out:
        a sentence each.
        """
        if self.image is not None:
            return self.image.description.notes
        return (*self.text_notes, *self._generation_notes())

    def _generation_notes(self) -> tuple[str, ...]:
        """What a text with optimised hugepages leaves open: it shows no frame."""
        from .releases import hvo_left_open

        note = hvo_left_open(self.shape.kernel) if self.shape.optimised() else None
        return () if note is None else (note,)

    @property
    def machine(self) -> str:
        """In words: ``4K pages, 48-bit addresses, Linux 6.1``."""
        return f"{self.shape.granule >> 10}K pages, {self.shape.va_bits}-bit addresses, Linux {self.shape.kernel}"


def kind_of_dump(path: str | os.PathLike[str], hints: Hints = Hints()) -> Literal["npz", "ptdump", "vmcore", "raw"]:
    """What a file is, by its first bytes; what is none of a dump's is raw memory if its address is given.

    Args:
        path: The file.
        hints: What the file does not say of its machine.

    Returns:
        ``npz``, ``ptdump``, ``vmcore`` or ``raw``.

    Raises:
        ImageError: It cannot be read, or is no dump.
    """
    try:
        return kind_of(path)
    except ImageError:
        if hints.base is None:
            raise
        return "raw"


def open_dump(path: str | os.PathLike[str], hints: Hints = Hints(), *, like: Dump | None = None) -> Dump:
    """Open a dump of any kind. A text takes the machine of `like`, if there is one.

    Args:
        path: The file.
        hints: What the file does not say of its machine.
        like: A dump of the same machine, for a text that does not say its own.

    Returns:
        The dump, its tables not yet verified against each other.

    Raises:
        ImageError: It cannot be read, or is no dump; one line that names the place.
    """
    path = Path(path)
    kind = kind_of_dump(path, hints)
    if kind in ("vmcore", "raw"):
        core = _read_vmcore(path, hints, kind)
        inside = tuple(pa for pa in core.missing if any(start <= pa < end for start, end in core.memory.ranges))
        return replace(
            dump_of_image(path, core.image, "vmcore"), memory=core.memory, head_mask=core.head_mask, left_out=inside
        )
    if kind == "npz":
        image = read_npz(path, kernel=hints.kernel)
        _check_layout(path, image.description, hints.kernel)
        return dump_of_image(path, image)
    text, text_notes = read_text(path)

    def shape_with(memstart: int | None) -> _core.Shape:
        return _core.Shape.of_text(
            text,
            granule=hints.granule,
            va_bits=hints.va_bits,
            kernel=hints.kernel,
            memstart=memstart,
            like=None if like is None else like.shape,
        )

    try:
        shape = shape_with(None)
        if hints.memstart is not None:
            from .va_layout import in_use_memstart

            # As a kernel built for more bits than are in use has it, what is read off is another number.
            shape = shape_with(in_use_memstart(hints.memstart, shape.granule, shape.va_bits))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    return Dump(path, "ptdump", shape, None, None, text, text_notes=text_notes)


def _check_layout(path: Path, description: Description, kernel: str | None) -> None:
    """Refuse a behaviour that is given and has another vmemmap than the image: what it would judge is not there.

    Raises:
        ImageError: The layouts differ.
    """
    from .va_layout import generation_of

    generation = generation_of(description.vmemmap_start, description.granule, description.va_bits)
    if kernel is not None and generation is not None and generation.behaviours and kernel not in generation.behaviours:
        raise ImageError(
            f"{path}: kernel is given as {kernel}, "
            f"but vmemmap begins at {description.vmemmap_start:#x} as in {generation.releases}: "
            f"give one of {', '.join(generation.behaviours)}"
        )


def read_tables(path: str | os.PathLike[str], hints: Hints = Hints()) -> Image:
    """The tables of an image or of a vmcore, not yet verified against each other. Hugepages of a vmcore are the
    optimised ones, found in the tables.

    Args:
        path: The file.
        hints: What the file does not say of its machine.

    Returns:
        Tables and description.

    Raises:
        ImageError: It cannot be read, or has no tables.
    """
    path = Path(path)
    kind = kind_of_dump(path, hints)
    if kind in ("npz", "ptdump"):
        return read_npz(path, kernel=hints.kernel)
    core = _read_vmcore(path, hints, kind)
    core.memory.close()
    image = dump_of_image(path, core.image, "vmcore").image
    assert image is not None
    return image


def _read_vmcore(path: Path, hints: Hints, kind: str) -> Vmcore:
    from .vmcore import read_vmcore

    return read_vmcore(
        path,
        kernel=hints.kernel,
        root=hints.root,
        granule=hints.granule,
        va_bits=hints.va_bits,
        memstart=hints.memstart,
        base=hints.base if kind == "raw" else None,
        ram=hints.ram,
    )


def dump_of_image(path: str | os.PathLike[str], image: Image, kind: Literal["npz", "vmcore"] = "npz") -> Dump:
    """Tables in hand as a dump.

    Args:
        path: Where the tables came from, for messages.
        image: The tables and their description.
        kind: ``npz`` or ``vmcore``; of a vmcore, hugepages are searched for in the tables.

    Returns:
        The dump.

    Raises:
        ImageError: They are no tables.
        ImageError: If they are none.
    """
    path = Path(path)
    tables = _tables(path, image)
    if kind == "vmcore":
        # A vmcore has no list of hugepages, but optimised ones show in the tables.
        found = tuple(sorted(_core.Shape.of_image(tables).optimised()))
        ram = tuple(_plugged(image.description, [s["start"] for s in _core.survey(tables)["sections"]]))
        image = replace(image, description=replace(image.description, hugepages=found, hugepages_known=False, ram=ram))
        tables = _tables(path, image)
    return Dump(path, kind, _core.Shape.of_image(tables), image, tables, None)


def _tables(path: Path, image: Image) -> _core.TableImage:
    try:
        return _core.TableImage.damaged(image.pa, image.level, image.words, image.description)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def _plugged(description: Description, sections: Sequence[int]) -> Iterator[tuple[int, int, bool]]:
    """RAM of a vmcore, cut where sections with struct pages meet sections without: those may be plugged,
    and are not.
    """
    size = section_size(description.granule)
    present = set(sections)
    for start, end, _ in description.ram:
        first = start
        for at in range(start // size * size + size, end, size):
            if (at in present) != (at - size in present):
                yield first, at, at - size in present
                first = at
        yield first, end, (end - 1) // size * size in present
