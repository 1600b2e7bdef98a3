"""Files from elsewhere, opened and read with suspicion: what cannot be read is one line, and no more memory is asked
for than the file has bytes.

A pipe has its bytes once, and a dump is looked at more than once: within `keeping_pipes` they are kept in a temporary
file.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Final

from ..errors import ImageError

__all__ = ["is_pipe", "keeping_pipes", "opened", "place_of", "read_at_most"]

# A file of debugfs says that its size is 0.
_LEAST: Final = 1 << 16
_PIECE: Final = 1 << 20
PIPE_LIMIT: Final = 1 << 30
"""Most bytes of a pipe that begins as no binary dump does: as many as of a text."""
_BINARY: Final = (b"PK", b"\x7fELF", b"KDUMP   ", b"makedump")


class _Kept:
    """Pipes by the name that was given, and where their bytes are."""

    def __init__(self, files: ExitStack) -> None:
        self._files = files
        self.places: dict[str, Path] = {}

    def place(self, path: Path) -> Path:
        name = str(path)
        if name not in self.places:
            self.places[name] = self._copy(path)
        return self.places[name]

    def _copy(self, path: Path) -> Path:
        import tempfile

        copy = self._files.enter_context(tempfile.NamedTemporaryFile(prefix="vmemmap-"))  # noqa: SIM115
        with open(0, "rb", closefd=False) if str(path) == "-" else path.open("rb") as source:
            left = None
            while piece := source.read(_PIECE):
                if left is None:
                    left = sys.maxsize if piece.startswith(_BINARY) else PIPE_LIMIT
                left -= len(piece)
                if left < 0:
                    raise ImageError(f"{path}: more than {PIPE_LIMIT >> 20} MiB, which no text is: give it as a file")
                copy.write(piece)
        copy.flush()
        return Path(copy.name)


_kept: ContextVar[_Kept | None] = ContextVar("kept", default=None)


@contextmanager
def keeping_pipes() -> Generator[None, None, None]:
    """As long as the block lasts, ``-`` is standard input, and what a pipe gave is there again each time that it is
    opened. Not for longer: a FIFO of the same name may give something else later.
    """
    with ExitStack() as stack:
        before = _kept.set(_Kept(stack))
        try:
            yield
        finally:
            _kept.reset(before)


def is_pipe(path: Path) -> bool:
    """Whether it has nothing beside it and can be read once."""
    if _kept.get() is None:
        return False
    if str(path) == "-":
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def place_of(path: Path) -> Path:
    """Where the bytes of ``path`` are: itself, or a copy of what a pipe gave.

    Raises:
        ImageError: A pipe cannot be read or kept.
    """
    kept = _kept.get()
    if kept is None or not is_pipe(path):
        return path
    try:
        return kept.place(path)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read into a temporary file: {error.strerror or error}") from error


@contextmanager
def opened(path: Path) -> Generator[IO[bytes], None, None]:
    """The file at ``path``. Raises ``ImageError`` if it cannot be opened, or not be read within the block."""
    try:
        file = place_of(path).open("rb")
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ImageError(f"{str(path)!r}: not the name of a file") from error
    with file:
        try:
            yield file
        except OSError as error:
            raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_at_most(path: Path, limit: int, what: str) -> bytes:
    """All bytes of a file; ``limit`` is the most that any ``what`` has. Raises ``ImageError``."""
    with opened(path) as file:
        # `read` of a count allocates that count first.
        size = max(os.fstat(file.fileno()).st_size, _LEAST)
        pieces: list[bytes] = []
        left = limit + 1
        while left > 0 and (piece := file.read(min(size + 1, left))):
            pieces.append(piece)
            left -= len(piece)
    if left <= 0:
        raise ImageError(f"{path}: larger than {limit >> 20} MiB, which no {what} is")
    return b"".join(pieces)
