"""Physical memory through drgn, in a process of its own.

drgn reads kdump-compressed files with libkdumpfile, a C library that maps what a header tells it to: a dump that was cut
short ends the process that reads it (SIGBUS), and a wrong length in one makes it ask for gigabytes. So a child reads, with
a limit on its memory that grows with the file, and its end is an error like any other.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from ..errors import ImageError
from . import drgn_child
from .physical_memory import PhysicalMemory

__all__ = ["DrgnMemory"]

_MEMORY: Final = 32 << 20
"""Bytes that the child may allocate beside what it has at the start, the size of the file and libkdumpfile's page caches."""
_CACHED_PAGES: Final = 2048
"""Pages that libkdumpfile makes room for: a cache of 1,024, and another while it changes the size."""
# `block_size` in the 64-bit `struct disk_dump_header`; in a flattened file that is the first piece.
_BLOCK_SIZE_AT: Final = {b"KDUMP   ": 428, b"makedump": 4096 + 16 + 428}
# Each page of a kdump-compressed file has a `struct page_desc` there, whatever its data shares.
_PAGE_DESC_SIZE: Final = 24
# sys.path of the parent, and nothing from the working directory.
_START: Final = "import runpy, sys; sys.path[:] = {path!r}; runpy.run_path({file!r}, run_name='__main__')"


class DrgnMemory(PhysicalMemory):
    """The memory of a dump as drgn shows it. ``ranges`` is empty until the caller knows better: drgn does not say."""

    vmcoreinfo: bytes

    def __init__(self, path: Path) -> None:
        """Start the reader.

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
        ]
        # One thread: the stacks of more would count as memory.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment)
        try:
            self.vmcoreinfo = self._answer("VMCOREINFO") or b""
        except BaseException:
            self.close()
            raise

    def read(self, pa: int, length: int) -> bytes | None:
        if self._child is None or self._child.stdin is None:
            raise ImageError(f"{self._path}: closed")
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(drgn_child.REQUEST.pack(pa, length))
            self._child.stdin.flush()
        return self._answer(f"{length} bytes at {pa:#x}")

    def _answer(self, what: str) -> bytes | None:
        assert self._child is not None and self._child.stdout is not None
        head = self._child.stdout.read(drgn_child.ANSWER.size)
        kind, length = drgn_child.ANSWER.unpack(head) if len(head) == drgn_child.ANSWER.size else (drgn_child.NOTHING, -1)
        data = self._child.stdout.read(length) if length > 0 else b""
        if len(data) != length:
            code = self._child.wait()
            reason = f"{signal.Signals(-code).name}: the dump is cut or damaged" if code < 0 else f"exit code {code}"
            raise ImageError(f"{self._path}: drgn ended while it read {what} ({reason})")
        if kind == drgn_child.NO_DRGN:
            raise ImageError(f"{self._path}: reading this takes drgn, which is not installed: pip install 'vmemmap[vmcore]'")
        if kind == drgn_child.ERROR:
            raise ImageError(f"{self._path}: drgn cannot read {what}: {data.decode('ascii', 'replace')}")
        return None if kind == drgn_child.NOTHING else data

    def pages(self, page_size: int) -> int:
        return self._file_size // _PAGE_DESC_SIZE

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
