"""Page tables out of the memory of a kernel: crash dumps, dumps of virtual machines, ``/proc/kcore``, raw memory.

ELF is decoded by pyelftools, kdump-compressed dumps (and ELF on request) are read by drgn, which has libkdumpfile inside.
What VMCOREINFO does not say is given by hand.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ..errors import ImageError, SpecError
from ..spec import GRANULES, KERNELS, check_machine, format_size, parse_address, parse_granule, parse_kernel, parse_va_bits, section_size
from .drgn_reader import DrgnMemory
from .elfcore import read_elf_core
from .image import VMCORE_MAGIC, Image
from .image_json import Description, kernel_behaviour
from .physical_memory import FileMemory, PhysicalMemory, Segment
from .vmcoreinfo import Vmcoreinfo

__all__ = ["Source", "Vmcore", "read_vmcore"]

Source = Literal["elf", "kcore", "raw", "kdump"]
"""What a dump is: ``elf`` is a vmcore or QEMU's, ``kcore`` has segments that are no physical memory."""

_ELF: Final = b"\x7fELF"
_STRUCT_PAGE_SIZE: Final = 64


@dataclass(frozen=True, slots=True)
class Vmcore:
    """The tables of a dump, and its memory as long as it is not closed."""

    image: Image
    memory: PhysicalMemory
    source: Source
    head_mask: int | None = None
    """``PG_head`` in ``page->flags``, if the kernel says."""


@dataclass(frozen=True, slots=True)
class _Kernel:
    """What must be known before a table can be read."""

    granule: int
    va_bits: int
    kernel: str
    kernel_text: str
    memstart: int
    root: int
    root_from: str
    vmemmap: tuple[int, int] | None
    """VMEMMAP_START and VMEMMAP_END, if the kernel says."""
    head_mask: int | None


def read_vmcore(
    path: str | os.PathLike[str],
    *,
    kernel: str | None = None,
    root: int | str | None = None,
    granule: int | str | None = None,
    va_bits: int | str | None = None,
    memstart: int | str | None = None,
    base: int | str | None = None,
    through: Literal["auto", "drgn"] = "auto",
) -> Vmcore:
    """Read a dump and collect every table page that can be reached from ``swapper_pg_dir``.

    What is given replaces what VMCOREINFO says: ``kernel`` (one of the modelled behaviours), ``root`` (physical address
    of ``swapper_pg_dir``), ``granule``, ``va_bits``, ``memstart`` (``memstart_addr``, may be negative). ``base`` is the
    physical address of the first byte of a raw file; a file is taken as raw if it is given and not otherwise. Addresses
    are integers or text like ``0x40000000``. ``through="drgn"`` reads ELF with drgn too.

    RAM of the image is what the dump has a program header for, to the page, whether or not its contents were stored; where
    drgn reads, it is what the linear map maps. All of it counts as present at boot, since a dump does not tell it from
    memory added later: a removal of it is refused, and memory blocks that host their own memmap are not recognised.
    Hugepages are not visible and the image has none; ``vm.hugetlb_optimize_vmemmap`` counts as on.

    Tables are not verified against each other: a damaged tree gives what can be read of it.

    Args:
        path: An ELF core, a kdump-compressed file, or raw memory with `base`.
        kernel: Kernel behaviour, instead of the one that VMCOREINFO names.
        root: Physical address of ``swapper_pg_dir``.
        granule: Bytes of a base page, or text: ``4K``, ``16K``, ``64K``.
        va_bits: Bits of a kernel virtual address: 36, 39, 42, 47, 48 or 52.
        memstart: ``memstart_addr``: physical address where the linear map starts, in bytes.
        base: Physical address of the first byte of a raw memory file.
        through: ``drgn`` reads also what pyelftools could.

    Returns:
        Its tables as an image, and its memory, which the caller closes.

    Raises:
        ImageError: The file is no such dump, is cut, says too little or contradicts itself; one line that
            names the place, and what can be given by hand.
        SpecError: An argument is none.
    """
    path = Path(path)
    given = {"root": parse_address(root, "root"), "memstart": parse_address(memstart, "memstart"), "base": parse_address(base, "base")}
    kernel = None if kernel is None else parse_kernel(kernel)
    granule = None if granule is None else parse_granule(granule)
    va_bits = None if va_bits is None else parse_va_bits(va_bits)
    if through not in ("auto", "drgn"):
        raise SpecError(f"through is {through!r}: expected auto or drgn")

    def known(info: Vmcoreinfo) -> _Kernel:
        return _kernel(path, info, kernel, granule, va_bits, given["memstart"], given["root"])

    if given["base"] is not None:
        k = known(Vmcoreinfo(str(path), None))
        return _vmcore(path, k, _raw(path, given["base"]), "raw")
    with _open(path) as descriptor:
        head = os.pread(descriptor, 8, 0)
        if not head.startswith(VMCORE_MAGIC):
            raise ImageError(f"{path}: neither an ELF core dump nor kdump-compressed: give base if it is raw physical memory")
        is_elf = head.startswith(_ELF)
        if through == "auto" and is_elf:
            core = read_elf_core(path, descriptor)
            k = known(Vmcoreinfo(str(path), core.vmcoreinfo))
            segments, is_kcore = core.memory((-(1 << k.va_bits) - k.memstart) % (1 << 64))
            return _vmcore(path, k, FileMemory(path, os.dup(descriptor), segments), "kcore" if is_kcore else "elf")
        memory = DrgnMemory(path)
        k = known(Vmcoreinfo(str(path), memory.vmcoreinfo))
        return _vmcore(path, k, memory, "elf" if is_elf else "kdump")


@contextmanager
def _open(path: Path) -> Generator[int, None, None]:
    """The file, open for reading; a pipe or a device is refused before anything waits for it.

    Raises:
        ImageError: It cannot be read, or is no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ImageError(f"{str(path)!r}: not the name of a file") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ImageError(f"{path}: not a regular file")
        yield descriptor
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error
    finally:
        os.close(descriptor)


def _raw(path: Path, base: int) -> FileMemory:
    with _open(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if not size or base + size > 1 << 52:
            raise ImageError(f"{path}: {size} bytes from {base:#x} on: expected some, below 52 bits")
        return FileMemory(path, os.dup(descriptor), [Segment(base, size, size, 0)])


def _kernel(
    path: Path, info: Vmcoreinfo, kernel: str | None, granule: int | None, va_bits: int | None, memstart: int | None, root: int | None
) -> _Kernel:
    """What was given, and VMCOREINFO for the rest.

    Raises:
        ImageError: The dump names no kernel behaviour that is modelled.
    """
    page = info.decimal("SIZE(page)")
    if page not in (None, _STRUCT_PAGE_SIZE):
        raise info.bad("SIZE(page)", f"{_STRUCT_PAGE_SIZE} (other sizes have another vmemmap and no HVO), found {page}")
    if granule is None:
        granule = info.decimal("PAGESIZE")
        if granule is None:
            raise info.missing("PAGESIZE", "granule")
        if granule not in GRANULES.values():
            raise info.bad("PAGESIZE", f"4096, 16384 or 65536, found {granule}")
    section, expected = info.decimal("NUMBER(SECTION_SIZE_BITS)"), section_size(granule).bit_length() - 1
    if section not in (None, expected):
        raise info.bad("NUMBER(SECTION_SIZE_BITS)", f"{expected} with {format_size(granule)} pages, found {section}")
    va_bits = _va_bits(info, va_bits)
    text = info.text("OSRELEASE") or ""
    behaviour = kernel or kernel_behaviour(text)
    if behaviour is None:
        if not text:
            raise info.missing("OSRELEASE", "kernel")
        raise info.bad("OSRELEASE", f"a release that is modelled ({', '.join(KERNELS)}), or kernel given as one of them; found {text[:40]!r}")
    try:
        check_machine(granule, va_bits, behaviour)
    except SpecError as error:
        raise ImageError(f"{path}: {error}") from None
    if memstart is None:
        memstart = info.address("NUMBER(PHYS_OFFSET)")
        if memstart is None:
            raise info.missing("NUMBER(PHYS_OFFSET)", "memstart")
        memstart -= (memstart >> 63) << 64
    root_from = "root"
    if root is None:
        symbol, voffset = "SYMBOL(swapper_pg_dir)", "NUMBER(kimage_voffset)"
        va, offset = info.address(symbol), info.address(voffset)
        if va is None or offset is None:
            raise info.missing(symbol if va is None else voffset, "root")
        root, root_from = (va - offset) % (1 << 64), f"{symbol} less {voffset}"
    if root % granule or root >= 1 << 52:
        raise ImageError(f"{path}: swapper_pg_dir at {root:#x} ({root_from}): expected a multiple of {granule} below 52 bits")
    start, end = info.address("NUMBER(VMEMMAP_START)"), info.address("NUMBER(VMEMMAP_END)")
    vmemmap = None if start is None or end is None else (start, end)
    return _Kernel(granule, va_bits, behaviour, text, memstart, root, root_from, vmemmap, info.decimal("NUMBER(PG_head_mask)"))


def _va_bits(info: Vmcoreinfo, given: int | None) -> int:
    key, register = "NUMBER(VA_BITS)", "NUMBER(TCR_EL1_T1SZ)"
    va_bits = info.decimal(key) if given is None else given
    if va_bits is None:
        raise info.missing(key, "va_bits")
    t1sz = info.address(register)
    if t1sz is not None and t1sz != 12 and info.text(key) == "52":
        # memstart_addr is then less than the physical address of PAGE_OFFSET in the layout of those bits.
        raise info.bad(register, f"0xc, since {key} is 52; found {t1sz:#x}: such a kernel on a CPU with fewer bits is not modelled")
    if t1sz is not None and va_bits + t1sz != 64:
        said = f"{key} is" if given is None else "va_bits is given as"
        raise info.bad(register, f"{64 - va_bits:#x}, since {said} {va_bits}; found {t1sz:#x}")
    return va_bits


def _vmcore(path: Path, k: _Kernel, memory: PhysicalMemory, source: Source) -> Vmcore:
    from .. import _core

    try:
        pa, level, words = _core.collect(k.root, k.granule, k.va_bits, memory.pages(k.granule), lambda at: memory.read(at, k.granule))
        if not len(pa) or k.root not in pa:
            raise ImageError(f"{path}: swapper_pg_dir at {k.root:#x} ({k.root_from}) is not in the dump")
        layout = _core.layout(k.granule, k.va_bits, k.kernel, k.memstart)
        vmemmap_start, vmemmap_end = k.vmemmap or (layout["VMEMMAP_START"], layout["VMEMMAP_END"])
        if isinstance(memory, DrgnMemory):
            linear = layout["PAGE_OFFSET"], layout["PAGE_END"]
            memory.ranges = tuple(_core.mapped(k.root, k.granule, k.va_bits, pa, words, linear))
        ram = [(-(-start // k.granule) * k.granule, end // k.granule * k.granule) for start, end in memory.ranges]
        highest = max((end for _, end in ram), default=0)
        if k.va_bits != 52 and highest > 1 << 48:
            raise ImageError(f"{path}: memory up to {highest:#x}: tables with {k.va_bits} bits of VA are read with 48 bits of physical address")
        description = Description(
            granule=k.granule,
            va_bits=k.va_bits,
            kernel=k.kernel,
            root_pa=k.root,
            memstart=k.memstart,
            vmemmap_start=vmemmap_start,
            vmemmap_end=vmemmap_end,
            markers=(),
            ram=tuple((start, end, True) for start, end in ram if start < end),
            blocks_online=None,
            block_size=0,
            hugepages=(),
            hvo=True,
            kernel_text=k.kernel_text,
        )
    except BaseException as error:
        memory.close()
        if isinstance(error, ImageError) and not str(error).startswith(str(path)):
            raise ImageError(f"{path}: {error}") from None
        raise
    return Vmcore(Image(pa=pa, level=level, words=words, description=description), memory, source, k.head_mask)
