"""Files from elsewhere, opened and read with suspicion: what cannot be read is one line, and no more memory is asked
for than the file has bytes.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from ..errors import ImageError

__all__ = ["opened", "read_at_most"]

# A file of debugfs says that its size is 0.
_LEAST: Final = 1 << 16


@contextmanager
def opened(path: Path) -> Generator[IO[bytes], None, None]:
    """The file at ``path``. Raises ``ImageError`` if it cannot be opened, or not be read within the block."""
    try:
        file = path.open("rb")
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
