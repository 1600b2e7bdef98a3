"""Physical memory through drgn, in a process of its own.

drgn reads kdump-compressed files with libkdumpfile, a C library that maps what a header tells it to: a dump that was
cut short ends the process that reads it (SIGBUS), and a wrong length in one makes it ask for gigabytes. So a child
reads, with a limit on its memory that grows with the file, and its end is an error like any other.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from ..errors import ImageError
from . import drgn_child
from .physical_memory import PhysicalMemory

__all__ = ["DrgnMemory"]

_MEMORY: Final = 32 << 20
"""Bytes that the child may allocate beside what it has at the start,
the size of the file and libkdumpfile's page caches.
"""
_CACHED_PAGES: Final = 2048
"""Pages that libkdumpfile makes room for: a cache of 1,024, and another while it changes the size."""
# `block_size` in the 64-bit `struct disk_dump_header`; in a flattened file that is the first piece.
_BLOCK_SIZE_AT: Final = {b"KDUMP   ": 428, b"makedump": 4096 + 16 + 428}
# Each page of a kdump-compressed file has a `struct page_desc` there, whatever its data shares.
_PAGE_DESC_SIZE: Final = 24
_DRGN_NEEDS: Final = {
    b"OSRELEASE": b"6.1.0",
    b"PAGESIZE": b"4096",
    b"SYMBOL(swapper_pg_dir)": b"ffff800008000000",
    b"SYMBOL(_stext)": b"ffff800008010000",
    b"KERNELOFFSET": b"0",
    b"NUMBER(VA_BITS)": b"48",
    b"NUMBER(kimage_voffset)": b"0xffff7fffc8000000",
    b"NUMBER(PHYS_OFFSET)": b"0x40000000",
    b"NUMBER(TCR_EL1_T1SZ)": b"0x10",
}
"""Keys of which drgn and libkdumpfile want one or the other, whatever is read."""
# sys.path of the parent, and nothing from the working directory.
_START: Final = "import runpy, sys; sys.path[:] = {path!r}; runpy.run_path({file!r}, run_name='__main__')"


class DrgnMemory(PhysicalMemory):
    """The memory of a dump as drgn shows it. ``ranges`` is empty until the caller knows better: drgn does not say."""

    def __init__(
        self, path: Path, vmcoreinfo: bytes, block_size: int | None, holds: Callable[[int, int], bool]
    ) -> None:
        """Start the reader. ``vmcoreinfo`` is the dump's, empty if it has none; ``block_size`` is that of a
        kdump-compressed file. ``holds`` says whether bytes (address and length) were dumped: drgn gives zeros for what
        an ELF file leaves out.

        Raises:
            ImageError: Drgn is not installed, or cannot read the file.
        """
        self.ranges = ()
        self._path, self._file_size = path, path.stat().st_size
        memory = _MEMORY + self._file_size + _CACHED_PAGES * _page_size(path)
        self._child: subprocess.Popen[bytes] | None = None
        command = [
            sys.executable,
            "-c",
            _START.format(path=sys.path, file=drgn_child.__file__),
            os.fspath(path.absolute()),
            str(memory),
            str(len(info := _vmcoreinfo_for_drgn(vmcoreinfo, block_size))),
        ]
        # One thread: the stacks of more would count as memory.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment)
        self._holds = holds
        try:
            with contextlib.suppress(BrokenPipeError):
                assert self._child.stdin is not None
                self._child.stdin.write(info)
                self._child.stdin.flush()
            self._answer("its headers")
        except BaseException:
            self.close()
            raise

    def read(self, pa: int, length: int) -> bytes | None:
        if self._child is None or self._child.stdin is None:
            raise ImageError(f"{self._path}: closed")
        if not self._holds(pa, length):
            self.reason = "the dump left it out"
            return None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(drgn_child.REQUEST.pack(pa, length))
            self._child.stdin.flush()
        return self._answer(f"{length} bytes at {pa:#x}")

    def _answer(self, what: str) -> bytes | None:
        assert self._child is not None and self._child.stdout is not None
        head = self._child.stdout.read(drgn_child.ANSWER.size)
        kind, length = (
            drgn_child.ANSWER.unpack(head) if len(head) == drgn_child.ANSWER.size else (drgn_child.NOTHING, -1)
        )
        data = self._child.stdout.read(length) if length > 0 else b""
        if len(data) != length:
            code = self._child.wait()
            reason = f"{signal.Signals(-code).name}: the dump is cut or damaged" if code < 0 else f"exit code {code}"
            raise ImageError(f"{self._path}: drgn ended while it read {what} ({reason})")
        if kind == drgn_child.NO_DRGN:
            raise ImageError(
                f"{self._path}: reading this takes drgn, which is not installed: pip install 'vmemmap[vmcore]'"
            )
        if kind == drgn_child.ERROR:
            raise ImageError(f"{self._path}: drgn cannot read {what}: {data.decode('ascii', 'replace')}")
        if kind == drgn_child.NOTHING:
            self.reason = f"drgn: {data.decode('ascii', 'replace')}"
            return None
        return data

    def pages(self, page_size: int) -> int:
        return self._file_size // _PAGE_DESC_SIZE

    def stored(self) -> Iterator[tuple[int, bytes]]:
        return iter(())

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            child.wait()

    def __del__(self) -> None:
        self.close()


def _page_size(path: Path) -> int:
    """Page size that a kdump-compressed file names; 4096 if it names none that arm64 has."""
    with path.open("rb") as file:
        at = _BLOCK_SIZE_AT.get(file.read(8), 0)
        file.seek(at)
        size = int.from_bytes(file.read(4), "little")
    return size if size in (16384, 65536) else 4096


def _vmcoreinfo_for_drgn(text: bytes, block_size: int | None) -> bytes:
    """VMCOREINFO that drgn opens the file with. libkdumpfile takes the page size of the machine for that of the file,
    which are two things where QEMU wrote it, and drgn wants a release and a root before it reads physical memory, of
    which neither is needed for that.
    """
    lines = dict(re.findall(rb"^([^=\n]{1,80})=([^\n]*)$", text, re.MULTILINE))
    if block_size is not None:
        lines[b"PAGESIZE"] = str(block_size).encode()
    elif not text:
        return b""
    for key, value in _DRGN_NEEDS.items():
        lines.setdefault(key, value)
    return b"".join(key + b"=" + value + b"\n" for key, value in lines.items())
