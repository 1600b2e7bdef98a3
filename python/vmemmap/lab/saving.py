"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ..errors import SpecError

__all__ = ["check", "whole"]


def check(path: Path, what: str) -> None:
    """Before work whose result is to be saved.

    Raises:
        SpecError: Nothing can be written to that place.
    """
    if path.is_dir():
        raise SpecError(f"{path}: {what} cannot be saved there: it is a directory")
    if not os.access(path.parent, os.W_OK):
        raise SpecError(f"{path}: {what} cannot be saved there: {path.parent} is no directory to write to")


@contextmanager
def whole(path: Path) -> Generator[TextIO, None, None]:
    """A file beside `path` to write to, which takes its name if nothing went wrong."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    beside = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yield file
        beside.chmod(0o644)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
