"""ELF core dumps of arm64 kernels: ``/proc/vmcore`` and its copies, QEMU's ``dump-guest-memory``, ``/proc/kcore``.

Headers and notes are decoded by pyelftools, from streams that end where the notes end. What differs between the three
is whether a segment has a physical address: ``fs/proc/kcore.c`` gives its segments of vmalloc, modules and vmemmap the
physical address -1 (before v4.11: 0), which is none.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import ImageError
from .physical_memory import Segment
from .storage import Storage

__all__ = ["ElfCore", "read_elf_core"]

_NOTES_LIMIT: Final = 16 << 20
"""Most bytes of notes that are read: a note of each CPU is below 16 KiB."""
_SEGMENTS_LIMIT: Final = 1 << 20
_PHDR_SIZE: Final = 56
_NO_ADDRESS: Final = (1 << 64) - 1
_HIGHEST: Final = 1 << 52


@dataclass(frozen=True, slots=True)
class ElfCore:
    """Program headers and the VMCOREINFO note of a core dump."""

    loads: tuple[tuple[int, Segment], ...]
    """(virtual address, segment) of each ``PT_LOAD`` that is not empty;
    a segment without a physical address is at -1.
    """
    vmcoreinfo: bytes | None
    """What the note named VMCOREINFO holds; ``None`` if there is none."""

    def memory(self, va_of_zero: int) -> tuple[list[Segment], bool]:
        """The segments that are physical memory, and whether others were among them: those of ``/proc/kcore``.

        ``va_of_zero`` is where the linear map would have physical address 0: only there, or with no virtual address at
        all, is a segment of a kernel address that claims to be at 0 really at 0.
        """
        real = [s for va, s in self.loads if s.start >= 0 and (s.start or va < 1 << 63 or va == va_of_zero)]
        return real, len(real) != len(self.loads)


class _Reader(io.RawIOBase):
    """A file as pyelftools wants it, that never gives more than a window at once, whatever a header asks for."""

    def __init__(self, storage: Storage) -> None:
        self._storage, self._size, self._at = storage, storage.size, 0

    def read(self, size: int = -1) -> bytes:
        wanted = _NOTES_LIMIT if size < 0 else min(size, _NOTES_LIMIT)
        data = self._storage.read(self._at, wanted) if self._at < self._size else b""
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at


def read_elf_core(storage: Storage) -> ElfCore:
    """Read the headers and notes of an ELF file.

    Raises:
        ImageError: No core dump of an arm64 kernel, or headers and notes that the file does not hold.
    """
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError

    path = storage.path
    try:
        return _read(path, storage)
    except (ELFError, ConstructError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        if isinstance(error, ImageError):
            raise
        reason = ascii(str(error) or type(error).__name__)[1:-1]
        raise ImageError(f"{path}: broken or cut ELF file: {reason[:120]}") from error


def _read(path: Path, storage: Storage) -> ElfCore:
    from elftools.common.utils import struct_parse
    from elftools.elf.elffile import ELFFile

    size = storage.size
    elf: Any = ELFFile(_Reader(storage))  # pyright: ignore[reportArgumentType]
    if elf.elfclass != 64 or not elf.little_endian or elf["e_machine"] != "EM_AARCH64":
        raise ImageError(
            f"{path}: ELF of {ascii(elf['e_machine'])[1:-1][:20]}: expected 64-bit little-endian EM_AARCH64"
        )
    if elf["e_type"] != "ET_CORE":
        raise ImageError(f"{path}: ELF of type {ascii(elf['e_type'])[1:-1][:20]}: expected a core dump (ET_CORE)")
    count, first = elf.num_segments(), elf["e_phoff"]
    if elf["e_phentsize"] != _PHDR_SIZE:
        raise ImageError(f"{path}: program headers of {elf['e_phentsize']} bytes: expected {_PHDR_SIZE}")
    if count > _SEGMENTS_LIMIT or first + count * _PHDR_SIZE > size or count * _PHDR_SIZE > storage.file_size:
        raise ImageError(
            f"{path}: {count} program headers at offset {first:#x}, which {size} bytes of file do not hold"
        )
    loads: list[tuple[int, Segment]] = []
    vmcoreinfo: bytes | None = None
    headers = io.BytesIO(storage.read(first, count * _PHDR_SIZE))
    for number in range(count):
        header = struct_parse(elf.structs.Elf_Phdr, headers, stream_pos=number * _PHDR_SIZE)
        if header["p_type"] == "PT_LOAD" and header["p_memsz"]:
            loads.append((header["p_vaddr"], _segment(path, number, header)))
        elif header["p_type"] == "PT_NOTE" and vmcoreinfo is None:
            vmcoreinfo = _vmcoreinfo(path, elf, storage, header["p_offset"], header["p_filesz"])
    if not loads:
        raise ImageError(f"{path}: no PT_LOAD segment: nothing of memory is in it")
    return ElfCore(tuple(loads), vmcoreinfo)


def _segment(path: Path, number: int, header: Any) -> Segment:
    start = header["p_paddr"]
    if start == _NO_ADDRESS:
        start = -1
    elif start + header["p_memsz"] > _HIGHEST:
        raise ImageError(
            f"{path}: program header {number}: {header['p_memsz']:#x} bytes at {start:#x} end above 52 bits"
        )
    return Segment(start, min(header["p_filesz"], header["p_memsz"]), header["p_memsz"], header["p_offset"])


def _vmcoreinfo(path: Path, elf: Any, storage: Storage, offset: int, length: int) -> bytes | None:
    """The VMCOREINFO note among notes, whatever the others are."""
    from elftools.elf.notes import iter_notes

    if length > _NOTES_LIMIT:
        raise ImageError(f"{path}: {length} bytes of notes: expected at most {_NOTES_LIMIT >> 20} MiB")
    data = storage.read(offset, length)
    if len(data) != length:
        raise ImageError(f"{path}: {length} bytes of notes at offset {offset:#x}, of which the file holds {len(data)}")
    elf.stream = io.BytesIO(data)
    for note in iter_notes(elf, 0, length):
        if note["n_name"] == "VMCOREINFO":
            if len(note["n_descdata"]) != note["n_descsz"]:
                raise ImageError(
                    f"{path}: the note VMCOREINFO claims {note['n_descsz']} bytes and has {len(note['n_descdata'])}"
                )
            return note["n_descdata"]
    return None
