"""The project's own benchmarks: each figure beside the limit that it is compared with, measured in the same run.

Both sides are measured in turns. A row shows the best round of each side, since others may use the host too, and the
medians beside it. The core measures itself without Python in between; here are only the rows that are about Python.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from threading import Barrier, Thread
from typing import TYPE_CHECKING, TypedDict

from . import _core

if TYPE_CHECKING:
    from .machine.hugetlb import HugeTLBPool

__all__ = ["NAMES", "Figure", "Row", "RowDict", "measure", "rows"]


class Figure(TypedDict):
    """What the core measured: the best round of the value and of its limit, and the medians."""

    value: float
    unit: str
    limit: float
    what: str
    value_median: float
    limit_median: float


class RowDict(Figure):
    """A row of ``vmemmap bench --json``."""

    name: str
    ratio: float
    ratio_median: float


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. For times a smaller `ratio` is better, for rates (``…/s``) a larger one."""

    name: str
    value: float
    unit: str
    limit: float
    what: str
    value_median: float
    limit_median: float

    @property
    def ratio(self) -> float:
        """How the best round compares with the limit's."""
        return self.value / self.limit

    @property
    def ratio_median(self) -> float:
        """How the median round compares with the limit's."""
        return self.value_median / self.limit_median

    def to_dict(self) -> RowDict:
        """The object of ``bench --json``.

        Returns:
            The object that ``--json`` prints.
        """
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "limit": self.limit,
            "what": self.what,
            "value_median": self.value_median,
            "limit_median": self.limit_median,
            "ratio": self.ratio,
            "ratio_median": self.ratio_median,
        }


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _row(name: str, unit: str, what: str, rounds: int, sides: tuple[Callable[[], float], Callable[[], float]]) -> Row:
    """`sides` return their seconds, or whatever else of which less is better; the first round is not counted."""
    samples = [[side() for side in sides] for _ in range(rounds + 1)][1:]
    value, limit = zip(*samples, strict=True)
    return Row(name, min(value), unit, min(limit), what, median(value), median(limit))


def _rate(row: Row, amount: float) -> Row:
    """The row with seconds turned into so much a second."""
    return Row(
        row.name,
        amount / row.value,
        row.unit,
        amount / row.limit,
        row.what,
        amount / row.value_median,
        amount / row.limit_median,
    )


def _start(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)


def _import_time(name: str, quick: bool) -> Row:
    sides = (
        lambda: _seconds(lambda: _start("import vmemmap")),
        lambda: _seconds(lambda: _start("import dataclasses, json, re")),
    )
    what = "a process that imports vmemmap, whose parts load on use; limit: one that imports dataclasses, json and re"
    return _row(name, "s", what, 1 if quick else 9, sides)


def _ptdump_text(name: str, quick: bool) -> Row:
    from .machine.machine import Machine

    m = Machine(granule="4K", va_bits=48, kernel="6.1", boot_memory="2G", hvo=True)
    m.hugetlb["2M"].nr_hugepages = 16 if quick else 512
    text = m.ptdump()
    lines = text.splitlines(keepends=True)
    what = f"the kernel's text of a machine, {len(lines)} lines as a str of Python; limit: the same lines joined"
    sides = (lambda: _seconds(m.ptdump), lambda: _seconds(lambda: "".join(lines)))
    return _rate(_row(name, "MB/s", what, 3 if quick else 25, sides), len(text) / 1e6)


_LINES = (
    "0xffff000000210000-0xffff000000400000        1984K PTE       ro NX SHD AF            UXN    MEM/NORMAL",
    "0xffff000000400000-0xffff000001000000          12M PMD       ro NX SHD AF        BLK UXN    MEM/NORMAL",
    "0xffff000001000000-0xffff000001800000           8M PMD",
    "0xffff000001800000-0xffff000001801000           4K PTE       RW NX SHD AF            UXN    MEM/NORMAL-TAGGED",
)


def _large_dump(quick: bool) -> bytes:
    """A text of 100 MB (100 KB if `quick`), of lines as kernels print them: pages of four kinds in turns."""
    import numpy as np

    from .dumps.ptdump import Ptdump, parse_ptdump

    known = [parse_ptdump(f"{line}\n") for line in _LINES]
    ranges = (100_000 if quick else 100_000_000) // (sum(map(len, _LINES)) // len(_LINES) + 1)
    turn = np.arange(ranges) % len(known)
    bounds = np.concatenate(
        [np.zeros(1, np.uint64), np.cumsum(np.array([int(dump.size[0]) for dump in known], np.uint64)[turn])]
    )
    texts = tuple(dump[0].columns for dump in known)
    level = np.array([dump.level[0] for dump in known], np.uint8)[turn]
    return Ptdump(
        bounds.astype(np.uint64) + np.uint64(0xFFFF << 48), level, turn.astype(np.uint32), texts, ()
    ).to_bytes()


def _ptdump_parse(name: str, quick: bool) -> Row:
    from .dumps.ptdump import parse_ptdump

    text = _large_dump(quick)
    what = f"{len(text) // 1000} kB of text taken apart into arrays; limit: its newlines counted (bytes.count)"
    sides = (lambda: _seconds(lambda: parse_ptdump(text)), lambda: _seconds(lambda: text.count(b"\n")))
    return _rate(_row(name, "MB/s", what, 3 if quick else 9, sides), len(text) / 1e6)


def _ptdump_print(name: str, quick: bool) -> Row:
    from .dumps.ptdump import parse_ptdump

    text = _large_dump(quick)
    dump, copy = parse_ptdump(text), bytearray(text)
    what = f"{len(text) // 1000} kB of text printed from arrays; limit: one copy of it into memory that is there"
    sides = (lambda: _seconds(dump.to_bytes), lambda: _seconds(lambda: copy.__setitem__(slice(None), text)))
    return _rate(_row(name, "MB/s", what, 3 if quick else 9, sides), len(text) / 1e6)


def _python_exchange_bulk(name: str, quick: bool) -> Row:
    from .machine.machine import Machine

    m = Machine(granule="4K", va_bits=48, kernel="6.1", boot_memory="2G", hvo=True, mapping="basepages", update="swap")
    pool, count = m.hugetlb["2M"], 16 if quick else 512

    def resize() -> float:
        seconds, done = 0.0, 0
        # Several: the first finds the CPUs and their caches as the bare loop left them.
        for _ in range(8):
            before = m.counters["exchanges"]
            seconds += _seconds(lambda: setattr(pool, "nr_hugepages", count))
            done += m.counters["exchanges"] - before
            pool.nr_hugepages = 0
        return seconds * 1e9 / done

    bare = 10_240 if quick else 1_024_000
    sides = (resize, lambda: _core.bare_exchanges(bare) * 1e9 / bare)
    what = (
        f"one of the exchanges that nr_hugepages = {count} makes (update=swap), with all else that a new hugepage "
        "takes; limit: one bare AtomicU64::swap"
    )
    return _row(name, "ns", what, 3 if quick else 15, sides)


def _together(works: Sequence[Callable[[], object]]) -> float:
    """Seconds in which threads do these, from the moment that all of them are there."""
    gate = Barrier(len(works) + 1)

    def run(work: Callable[[], object]) -> None:
        gate.wait()
        work()

    threads = [Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    gate.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def _python_threads(name: str, quick: bool) -> Row:
    from .machine.machine import Machine

    count, bare = (16, 100_000) if quick else (2_000, 20_000_000)
    pools = [
        Machine(kernel="6.1", boot_memory="8G", hvo=True, mapping="basepages", update="swap").hugetlb["2M"]
        for _ in range(2)
    ]

    def cycle(pool: HugeTLBPool) -> Callable[[], None]:
        def work() -> None:
            for pages in (count, 0):
                pool.nr_hugepages = pages

        return work

    def exchanges() -> None:
        _core.bare_exchanges(bare)

    ours, theirs = [cycle(pool) for pool in pools], [exchanges, exchanges]
    sides = (
        lambda: _together(ours),
        lambda: _together(ours[:1]) * _together(theirs) / _together(theirs[:1]),
    )
    what = (
        f"{count} hugepages allocated and freed by each of two Python threads, on a machine of its own; limit: what "
        "one thread does, times what two bare loops gain over one"
    )
    return _rate(_row(name, "pages/s", what, 3 if quick else 9, sides), 2 * count)


_OURS: dict[str, Callable[[str, bool], Row]] = {
    "ptdump-text": _ptdump_text,
    "ptdump-parse": _ptdump_parse,
    "ptdump-print": _ptdump_print,
    "python-exchange-bulk": _python_exchange_bulk,
    "python-2t": _python_threads,
    "import-time": _import_time,
}

NAMES: tuple[str, ...] = (*_core.bench_rows(), *_OURS)
"""The rows, in the order of the table."""


def measure(name: str, *, quick: bool = False) -> Row:
    """Measure one row. `quick` shows that it can be measured, not how fast it is.

    Args:
        name: One of `NAMES`.
        quick: Show that it can be measured, not how fast it is.

    Returns:
        The row: best and median round of the value and of its limit, in the unit that it names.
    """
    if name in _OURS:
        return _OURS[name](name, quick)
    return Row(name, **_core.bench(name, quick))


def rows(*, quick: bool = False) -> Iterator[Row]:
    """Measure everything, one row after the other.

    Args:
        quick: Show that everything can be measured, not how fast it is.

    Yields:
        One after the other.
    """
    for name in NAMES:
        yield measure(name, quick=quick)
