"""VMCOREINFO: what a kernel tells the readers of its dumps (``Documentation/admin-guide/kdump/vmcoreinfo.rst``).

A list of lines ``KEY=value``, written by ``kernel/crash_core.c`` and ``arch/arm64/kernel/crash_core.c`` in 6.1, by the
two ``vmcore_info.c`` in 6.12. Which keys are decimal and which hexadecimal is fixed by the kernel's format strings.
"""

from __future__ import annotations

import re
from typing import Final

from ..errors import ImageError

__all__ = ["Vmcoreinfo"]

_LIMIT: Final = 1 << 16
"""Most bytes that are looked at; the kernel's own limit is a page (of up to 64 KiB)."""
_LINE: Final = re.compile(rb"([A-Z][A-Z-]{1,20}(?:\([\w.]{1,60}\))?)=([\x20-\x7e]{0,200})")


class Vmcoreinfo:
    """The lines of one dump. Every error is one line that names the file and the key."""

    def __init__(self, where: str, data: bytes | None) -> None:
        """``where`` names the file in errors; ``data`` is the note, ``None`` if the dump has none."""
        self._where = where
        self.present = data is not None
        self._lines: dict[str, str] = {}
        for line in (data or b"")[:_LIMIT].rstrip(b"\0").split(b"\n"):
            match = _LINE.fullmatch(line)
            if match is None:
                continue
            key, value = (group.decode("ascii") for group in match.groups())
            if self._lines.setdefault(key, value) != value:
                raise self.bad(key, f"one value, found {self._lines[key]!r} and {value!r}")

    def bad(self, key: str, expected: str) -> ImageError:
        """The error that ``key`` is not what was expected."""
        return ImageError(f"{self._where}: VMCOREINFO: {key}: expected {expected}")

    def missing(self, key: str, argument: str) -> ImageError:
        """The error that nothing says what ``key`` would; ``argument`` is what can be given instead."""
        reason = f"VMCOREINFO has no {key}" if self.present else f"the dump has no VMCOREINFO, which would say {key}"
        return ImageError(f"{self._where}: {reason}: give {argument}")

    def text(self, key: str) -> str | None:
        """The value of a key as it stands."""
        return self._lines.get(key)

    def decimal(self, key: str) -> int | None:
        """A value that the kernel prints with ``%ld``: ``PAGESIZE``, ``SIZE(page)``, ``NUMBER(VA_BITS)``."""
        return self._number(key, r"-?[0-9]{1,19}", 10, "a decimal number")

    def address(self, key: str) -> int | None:
        """A 64-bit value that the kernel prints in hexadecimal: with ``0x`` in ``NUMBER(kimage_voffset)`` and the like,
        without in ``SYMBOL(swapper_pg_dir)``.
        """
        return self._number(key, r"(?:0x)?[0-9a-fA-F]{1,16}", 16, "a hexadecimal number of 64 bits")

    def _number(self, key: str, pattern: str, base: int, expected: str) -> int | None:
        value = self._lines.get(key)
        if value is None:
            return None
        if not re.fullmatch(pattern, value):
            raise self.bad(key, f"{expected}, found {value[:40]!r}")
        return int(value, base)
