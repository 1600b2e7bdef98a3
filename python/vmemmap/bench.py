"""The project's own benchmarks: each figure beside the limit that it is compared with, measured in the same run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["MEASURES", "Row", "rows"]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. For times a smaller `ratio` is better, for rates (``…/s``) a larger one."""

    name: str
    value: float
    unit: str
    limit: float
    what: str

    @property
    def ratio(self) -> float:
        """How the value compares with its limit."""
        return self.value / self.limit

    def to_dict(self) -> dict[str, Any]:
        """The object of ``bench --json``."""
        return {**asdict(self), "ratio": self.ratio}


def _start(program: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - began


def import_time() -> Row:
    """Interleaved, the best of five each: a start of Python with and without the package."""
    pairs = [(_start("import vmemmap"), _start("import dataclasses, json, re")) for _ in range(5)]
    value, limit = (min(column) for column in zip(*pairs, strict=True))
    return Row("import-time", value, "s", limit, "a process that imports vmemmap, against one that imports what it needs of Python")


MEASURES: dict[str, Callable[[], Row]] = {"import-time": import_time}
"""Row name → what measures it, in the order of the table."""


def rows() -> Iterator[Row]:
    """Measure everything, one row after the other.

    A debug build measures itself as it is; ``_core.BUILD_PROFILE`` tells.
    """
    for measure in MEASURES.values():
        yield measure()
