"""Files of ``/proc`` and ``/sys``, of this host or of a copy of them, read with care: nothing is written, only regular
files are opened, none leads out of the tree, and what could not be read is kept with its reason.
"""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path
from typing import Final

from .collected import collected_files, find_root

__all__ = ["HostTree"]

_LIMIT: Final = 16 << 20
_PIECE: Final = 64 << 10
_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_HEXADECIMAL: Final = re.compile(r"(?:0x)?[0-9a-fA-F]{1,16}")


class HostTree:
    """The directory that ``proc`` and ``sys`` lie in: ``/``, or a copy such as a sosreport, or a directory with one of
    them; or the YAML of a node.

    Raises:
        SpecError: It is none of these.
    """

    def __init__(self, root: str | os.PathLike[str] = "/") -> None:
        self.root = find_root(Path(root))
        self._real = os.path.realpath(self.root)
        self.live: bool = self._real == "/"
        """The tree is this host's own."""
        self._collected: dict[str, str] = {} if self.live else collected_files(self.root)
        self.unread: dict[str, str] = {}
        """Path as on the host → why it could not be read."""

    def has(self, path: str) -> bool:
        """There is such a file or directory in the tree, readable or not."""
        real = self._inside(path)
        if real is not None and os.path.lexists(real):
            return True
        return any(name == path or name.startswith(path + "/") for name in self._collected)

    def text(self, path: str, optional: bool = False) -> str | None:
        """What a file holds, printable characters only, or ``None``;
        if it is `optional` that it is not there is no failure.
        """
        data = self.data(path, optional)
        if data is None:
            return None
        return "".join(
            c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in data.decode(errors="replace")
        )

    def data(self, path: str, optional: bool = False) -> bytes | None:
        """The bytes of a file, or ``None``."""
        try:
            real = self._inside(path)
            if real is None:
                return self.failed(path, "leads out of the tree")
            if not real.is_file():
                # A pipe would block; a missing file is told apart.
                real.stat()
                return self.failed(path, "is no regular file")
            data = bytearray()
            with real.open("rb", buffering=0) as file:
                # In pieces: /proc/sys fails with ENOMEM if asked for megabytes.
                while len(data) <= _LIMIT and (piece := file.read(_PIECE)):
                    data += piece
        except (FileNotFoundError, NotADirectoryError):
            if path in self._collected:
                return self._collected[path].encode()
            return None if optional else self.failed(path, "is not there")
        except OSError as error:
            return self.failed(path, error.strerror or str(error))
        except ValueError as error:
            return self.failed(path, str(error))
        return bytes(data) if len(data) <= _LIMIT else self.failed(path, f"is larger than {_LIMIT >> 20}M")

    def gzip_text(self, path: str) -> str | None:
        """What a gzip file holds, or ``None``; that it is not there is no failure."""
        data = self.data(path, optional=True)
        if data is None:
            return None
        try:
            plain = zlib.decompressobj(wbits=31).decompress(data, _LIMIT)
        except zlib.error:
            return self.failed(path, "is no gzip file")
        return plain.decode(errors="replace")

    def number(self, path: str, optional: bool = False) -> int | None:
        """The decimal number that a file holds, or ``None``."""
        return self._parsed(path, optional, _NUMBER, 10)

    def hexadecimal(self, path: str, optional: bool = False) -> int | None:
        """The hexadecimal number that a file holds, or ``None``."""
        return self._parsed(path, optional, _HEXADECIMAL, 16)

    def names(self, path: str, pattern: str) -> list[re.Match[str]]:
        """Names in a directory that match the whole of `pattern`, sorted; none if it is not there."""
        collected = {
            name.removeprefix(path + "/").split("/")[0] for name in self._collected if name.startswith(path + "/")
        }
        try:
            real = self._inside(path)
            names = sorted({entry.name for entry in real.iterdir()} | collected) if real is not None else []
        except (FileNotFoundError, NotADirectoryError):
            names = sorted(collected)
        except OSError as error:
            self.failed(path, error.strerror or str(error))
            return []
        return [found for name in names if (found := re.fullmatch(pattern, name)) is not None]

    def failed(self, path: str, reason: str) -> None:
        """Keep that a file could not be read or understood."""
        self.unread[f"/{path}"] = reason

    def _inside(self, path: str) -> Path | None:
        """Where a path leads, unless it leads out of the tree."""
        real = Path(os.path.realpath(self.root / path))
        return real if self.live or real.is_relative_to(self._real) else None

    def _parsed(self, path: str, optional: bool, pattern: re.Pattern[str], base: int) -> int | None:
        text = self.text(path, optional)
        if text is None:
            return None
        if not pattern.fullmatch(text.strip()):
            return self.failed(path, f"expected a number, found {text.strip()[:32]!r}")
        return int(text.strip(), base)
