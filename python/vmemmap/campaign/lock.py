"""One coordinator for each database. The kernel drops the lock with its process, however that ends: it can't be left
behind."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import SpecError

__all__ = ["coordinating"]


@contextmanager
def coordinating(database: Path) -> Generator[None]:
    """Be the only one that writes to a campaign. Raises ``SpecError`` with the other's host and process id."""
    # Not the database itself: closing any descriptor of that file would drop SQLite's own locks on it.
    path = database.with_name(database.name + "-lock")
    handle = _locked(path, database)
    try:
        owner = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
        with suppress(OSError):  # A full disk: the lock holds without a name.
            os.ftruncate(handle, 0)
            os.pwrite(handle, owner, 0)
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def _locked(path: Path, database: Path) -> int:
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise SpecError(f"{path}: a campaign needs to write beside its database: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed the file between our opening and locking it.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return handle
            os.close(handle)
        except BlockingIOError:
            owner = os.pread(handle, 4096, 0)
            os.close(handle)
            raise SpecError(f"{database}: another coordinator is at it: {_named(owner)}") from None


def _named(owner: bytes) -> str:
    try:
        known = json.loads(owner)
        return f"process {int(known['pid'])} on {str(known['host'])[:100]}"
    except (ValueError, TypeError, KeyError):
        return "its process has not said which"
