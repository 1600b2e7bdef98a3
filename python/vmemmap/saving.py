"""Files that are written whole or not at all, wherever their names lead."""

from __future__ import annotations

import io
import os
import secrets
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TextIO

from .errors import SpecError, VmemmapError

__all__ = ["check", "whole", "whole_text"]


def check(path: Path, what: str) -> None:
    """Before work whose result is to be saved.

    Raises:
        SpecError: Nothing can be written to that place.
    """
    if str(path) == "-":
        raise SpecError(f"-: {what} cannot be saved there: standard output has the answer; expected a file's name")
    try:
        found = path.stat()
    except OSError:
        found = None
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise SpecError(f"{path}: {what} cannot be saved there: it is a directory")
    if found is not None and not stat.S_ISREG(found.st_mode):
        if not os.access(path, os.W_OK):
            raise SpecError(f"{path}: {what} cannot be saved there: it is not to be written to")
        return
    folder = Path(os.path.realpath(path)).parent
    if not os.access(folder, os.W_OK):
        raise SpecError(f"{path}: {what} cannot be saved there: {folder} is no directory to write to")


@contextmanager
def whole(path: Path, failure: type[VmemmapError] = SpecError) -> Generator[IO[bytes], None, None]:
    """A file to write to, which takes the place of what `path` leads to if nothing went wrong.

    Symbolic links stay and their target is replaced; an existing file's mode stays, a new one's is what the umask
    leaves. What is there and is no regular file (a device, a FIFO) cannot be replaced and is written to as it is, and
    so is the file that standard output or standard error goes to: this process holds it open.

    Raises:
        failure: It cannot be written.
    """
    try:
        with _straight(path) or _replacing(path) as file:
            yield file
    except OSError as error:
        raise failure(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def whole_text(path: Path) -> Generator[TextIO, None, None]:
    """The same for text, in UTF-8."""
    with whole(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="\n", write_through=True)
        try:
            yield text
            text.flush()
        finally:
            # Not closed with this view of it: it is synced first.
            with suppress(OSError, ValueError):
                text.detach()


def _straight(path: Path) -> IO[bytes] | None:
    """What `path` leads to, open, if that is nothing to replace."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        with suppress(OSError):
            if os.path.samestat(found, os.fstat(number)):
                with suppress(OSError, ValueError, AttributeError):
                    stream.flush()
                return os.fdopen(os.dup(number), "wb")
    return None if stat.S_ISREG(found.st_mode) else path.open("wb")


@contextmanager
def _replacing(path: Path) -> Generator[IO[bytes], None, None]:
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name[:200]}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as file:
            with suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
