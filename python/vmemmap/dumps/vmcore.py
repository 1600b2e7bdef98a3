"""Page tables out of the memory of a kernel: crash dumps, dumps of virtual machines, ``/proc/kcore``, raw memory.

ELF is decoded by pyelftools, kdump-compressed dumps by ``dumps.kdump``; drgn reads both on request. What VMCOREINFO
does not say is given by hand or found in the memory itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ..errors import ImageError, SpecError
from ..spec import parse_address, parse_granule, parse_kernel, parse_va_bits
from .drgn_reader import DrgnMemory
from .elfcore import read_elf_core
from .image import VMCORE_MAGIC, Image
from .image_json import Description
from .kdump import KDUMP_MAGIC, KdumpMemory
from .kernel_facts import Given, KernelFacts, kernel_facts
from .physical_memory import FileMemory, JoinedMemory, PhysicalMemory, Segment
from .reading import place_of
from .storage import Storage, open_storage
from .vmcoreinfo import Vmcoreinfo

__all__ = ["Source", "Vmcore", "read_vmcore"]

Source = Literal["elf", "kcore", "raw", "kdump"]
"""What a dump is: ``elf`` is a vmcore or QEMU's, ``kcore`` has segments that are no physical memory."""

_ELF: Final = b"\x7fELF"
_SHOWN: Final = 4
"""Addresses that a note lists."""


@dataclass(frozen=True, slots=True)
class Vmcore:
    """The tables of a dump, and its memory as long as it is not closed."""

    image: Image
    memory: PhysicalMemory
    source: Source
    head_mask: int | None = None
    """``PG_head`` in ``page->flags``, if the kernel says."""
    missing: tuple[int, ...] = ()
    """Physical addresses of tables that other tables name and the dump has not got."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken instead of what the dump does not say, and what it lacks: a sentence each."""
        return self.image.description.notes


def read_vmcore(
    path: str | os.PathLike[str],
    *,
    kernel: str | None = None,
    root: int | str | None = None,
    granule: int | str | None = None,
    va_bits: int | str | None = None,
    memstart: int | str | None = None,
    base: int | str | None = None,
    ram: Iterable[tuple[str | os.PathLike[str], int | str]] = (),
    through: Literal["auto", "drgn"] = "auto",
) -> Vmcore:
    """Read a dump and collect every table page that can be reached from ``swapper_pg_dir``.

    What is given replaces what VMCOREINFO says: ``kernel`` (one of the modelled behaviours), ``root`` (physical address
    of ``swapper_pg_dir``), ``granule``, ``va_bits``, ``memstart`` (``memstart_addr``, may be negative). ``base`` is the
    physical address of the first byte of a raw file; a file is taken as raw if it is given and not otherwise, and
    ``ram`` are further raw files, each with its own address. Addresses are integers or text like ``0x40000000``.
    ``through="drgn"`` reads with drgn. What is neither said nor given is looked for in the memory of the dump.

    RAM of the image is what the dump has a program header or a bit for, to the page, whether or not its contents were
    stored; where drgn reads, it is what the linear map maps. All of it counts as present at boot, since a dump does not
    tell it from memory added later: a removal of it is refused, and memory blocks that host their own memmap are not
    recognised. Hugepages are not visible and the image has none; ``vm.hugetlb_optimize_vmemmap`` counts as on.

    Tables are not verified against each other: a damaged tree gives what can be read of it.

    Args:
        path: An ELF core, a kdump-compressed file, or raw memory with `base`.
        kernel: Kernel behaviour, instead of the one that VMCOREINFO names.
        root: Physical address of ``swapper_pg_dir``.
        granule: Bytes of a base page, or text: ``4K``, ``16K``, ``64K``.
        va_bits: Bits of a kernel virtual address: 36, 39, 42, 47, 48 or 52.
        memstart: ``memstart_addr``: physical address where the linear map starts, in bytes.
        base: Physical address of the first byte of a raw memory file.
        ram: Further raw memory files, each with the physical address of its first byte.
        through: ``drgn`` reads also what is read without it.

    Returns:
        Its tables as an image, and its memory, which the caller closes.

    Raises:
        ImageError: The file is no such dump, is cut, says too little or contradicts itself; one line that
            names the place, and what can be given by hand.
        SpecError: An argument is none.
    """
    path = Path(path)
    given = Given(
        kernel=None if kernel is None else parse_kernel(kernel),
        granule=None if granule is None else parse_granule(granule),
        va_bits=None if va_bits is None else parse_va_bits(va_bits),
        memstart=parse_address(memstart, "memstart"),
        root=parse_address(root, "root"),
    )
    if through not in ("auto", "drgn"):
        raise SpecError(f"through is {through!r}: expected auto or drgn")
    raw = [(Path(name), parse_address(at, "base")) for name, at in (*(() if base is None else ((path, base),)), *ram)]
    if raw:
        if base is None:
            raise SpecError(f"{path}: base: expected, since ram gives further raw files")
        memory: PhysicalMemory = _raw([(name, at or 0) for name, at in raw])
        return _vmcore(path, Vmcoreinfo(str(path), None), given, memory, "raw")
    storage = open_storage(path, _open(path))
    try:
        head = storage.read(0, 8)
        if not head.startswith((_ELF, KDUMP_MAGIC)):
            what = (
                "a flattened file of neither"
                if head.startswith(VMCORE_MAGIC) or type(storage) is not Storage
                else "neither"
            )
            raise ImageError(
                f"{path}: {what} an ELF core dump nor kdump-compressed: give base if it is raw physical memory"
            )
        if head.startswith(_ELF):
            return _elf(path, storage, given, through)
        memory = KdumpMemory(storage)
        text = memory.vmcoreinfo
        if through == "drgn":
            memory = DrgnMemory(path, text or b"", memory.block_size, memory.holds)
        return _vmcore(path, Vmcoreinfo(str(path), text), given, memory, "kdump")
    except BaseException as error:
        storage.close()
        if isinstance(error, ImageError) and not str(error).startswith(str(path)):
            raise ImageError(f"{path}: {error}") from None
        raise


def _elf(path: Path, storage: Storage, given: Given, through: str) -> Vmcore:
    core = read_elf_core(storage)
    info = Vmcoreinfo(str(path), core.vmcoreinfo)
    # Where the linear map would have physical address 0, as far as that is known yet.
    va_bits = given.va_bits or info.decimal("NUMBER(VA_BITS)") or 48
    va_bits = va_bits if 0 < va_bits <= 52 else 48
    memstart = given.memstart if given.memstart is not None else info.address("NUMBER(PHYS_OFFSET)") or 0
    segments, is_kcore = core.memory((-(1 << va_bits) - memstart) % (1 << 64))
    memory: PhysicalMemory = FileMemory(storage, segments)
    if through == "drgn":
        memory = DrgnMemory(path, core.vmcoreinfo or b"", None, memory.holds)
        return _vmcore(path, info, given, memory, "elf")
    return _vmcore(path, info, given, memory, "kcore" if is_kcore else "elf")


def _open(path: Path) -> int:
    """The file, open for reading; a pipe or a device is refused before anything waits for it.

    Raises:
        ImageError: It cannot be read, or is no regular file.
    """
    try:
        descriptor = os.open(place_of(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ImageError(f"{str(path)!r}: not the name of a file") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ImageError(f"{path}: not a regular file")
    return descriptor


def _raw(files: list[tuple[Path, int]]) -> PhysicalMemory:
    memories: list[PhysicalMemory] = []
    taken: list[tuple[int, int, Path]] = []
    try:
        for path, base in files:
            storage = Storage(path, _open(path))
            size = storage.size
            memories.append(FileMemory(storage, [Segment(base, size, size, 0)]))
            if not size or not base >= 0 or base + size > 1 << 52:
                raise ImageError(f"{path}: {size} bytes from {base:#x} on: expected some, below 52 bits")
            for start, end, other in taken:
                if base < end and start < base + size:
                    raise ImageError(
                        f"{path}: {size:#x} bytes at {base:#x}: overlaps {other}, which has {start:#x} to {end:#x}"
                    )
            taken.append((base, base + size, path))
    except BaseException:
        for memory in memories:
            memory.close()
        raise
    return memories[0] if len(memories) == 1 else JoinedMemory(memories)


def _vmcore(path: Path, info: Vmcoreinfo, given: Given, memory: PhysicalMemory, source: Source) -> Vmcore:
    try:
        return _collected(path, kernel_facts(path, info, given, memory), memory, source)
    except BaseException as error:
        memory.close()
        if isinstance(error, ImageError) and not str(error).startswith(str(path)):
            raise ImageError(f"{path}: {error}") from None
        raise


def _collected(path: Path, k: KernelFacts, memory: PhysicalMemory, source: Source) -> Vmcore:
    from .. import _core

    missing: list[int] = []

    def table(pa: int) -> bytes | None:
        page = memory.read(pa, k.granule)
        if page is None:
            missing.append(pa)
        return page

    pa, level, words = _core.collect(k.root, k.granule, k.va_bits, memory.pages(k.granule), table)
    if not len(pa) or k.root not in pa:
        why = f" ({memory.reason})" if memory.reason else ""
        raise ImageError(f"{path}: swapper_pg_dir at {k.root:#x} ({k.root_from}) is not in the dump{why}")
    layout = _core.layout(k.granule, k.va_bits, k.kernel, k.memstart)
    vmemmap_start, vmemmap_end = k.vmemmap or (layout["VMEMMAP_START"], layout["VMEMMAP_END"])
    ranges = memory.ranges
    if isinstance(memory, DrgnMemory):
        linear = layout["PAGE_OFFSET"], layout["PAGE_END"]
        ranges = memory.ranges = tuple(_core.mapped(k.root, k.granule, k.va_bits, pa, words, linear))
    ram = [(-(-start // k.granule) * k.granule, end // k.granule * k.granule) for start, end in ranges]
    highest = max((end for _, end in ram), default=0)
    if k.va_bits != 52 and highest > 1 << 48:
        raise ImageError(
            f"{path}: memory up to {highest:#x}: "
            f"tables with {k.va_bits} bits of VA are read with 48 bits of physical address"
        )
    description = Description(
        granule=k.granule,
        va_bits=k.va_bits,
        kernel=k.kernel,
        root_pa=k.root,
        memstart=k.memstart,
        vmemmap_start=vmemmap_start,
        vmemmap_end=vmemmap_end,
        markers=k.markers,
        ram=tuple((start, end, True) for start, end in ram if start < end),
        blocks_online=None,
        block_size=0,
        hugepages=(),
        hvo=True,
        kernel_text=k.kernel_text,
        notes=(*k.notes, *memory.notes, *_told_missing(missing, memory)),
    )
    return Vmcore(
        Image(pa=pa, level=level, words=words, description=description), memory, source, k.head_mask, tuple(missing)
    )


def _told_missing(missing: list[int], memory: PhysicalMemory) -> list[str]:
    if not missing:
        return []
    listed = ", ".join(hex(pa) for pa in missing[:_SHOWN]) + (" and more" if len(missing) > _SHOWN else "")
    inside = sum(any(start <= pa < end for start, end in memory.ranges) for pa in missing[:64]) == len(missing[:64])
    why = "left out of the dump or cut off with it" if inside else "some outside the memory of the dump"
    return [
        f"{len(missing)} of the tables that other tables name {'is' if len(missing) == 1 else 'are'} not in the dump "
        f"({why}): {listed}"
    ]
