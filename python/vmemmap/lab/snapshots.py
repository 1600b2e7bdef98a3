"""What a long stress has counted, each second, in a file that survives it."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from ..errors import SpecError

__all__ = ["EVERY_SECONDS", "Snapshots", "snapshots"]

EVERY_SECONDS: Final = 1.0


class Snapshots:
    """To be called as a stress's progress: appends a line of JSON when a second has passed."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._next = 0.0

    def __call__(self, operations: int, violations: int, seconds: float, counters: Mapping[str, int]) -> None:
        """A line in one write: whole for whoever reads it, and the system's from then on, whatever becomes of this
        process."""
        if seconds < self._next:
            return
        self._next = (seconds // EVERY_SECONDS + 1) * EVERY_SECONDS
        line = {
            "at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "seconds": round(seconds, 3),
            "operations": operations,
            "violations": violations,
            "rss_bytes": _resident(),
            "counters": dict(counters),
        }
        os.write(self._handle, json.dumps(line).encode() + b"\n")


@contextmanager
def snapshots(path: Path) -> Generator[Snapshots, None, None]:
    """Snapshots into a new file at `path`. Raises ``SpecError`` if there is something already, or nothing can be
    written."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise SpecError(f"{path}: snapshots cannot be saved there: {error.strerror}") from error
    try:
        yield Snapshots(handle)
    finally:
        # Of a stress that never began.
        if not os.fstat(handle).st_size:
            path.unlink(missing_ok=True)
        os.close(handle)


def _resident() -> int | None:
    """Bytes of memory that this process has, on Linux."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
