"""What a person at a terminal sees of work that takes longer than two seconds: how much, how fast, and when it ends.

Only on standard error, only if that is a terminal: neither a pipe nor a log ever holds any of it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..spec import Budget

__all__ = ["AFTER_SECONDS", "Tick", "bar", "searching", "waiting"]

AFTER_SECONDS: Final = 2.0
"""Shorter work shows nothing."""

#: Called with how much of the total is done, how many things that is, and what else there is to say; "of 44" stands
#: behind the number.
Tick = Callable[[float, int, str], None]


def _is_watched() -> bool:
    return sys.stderr.isatty()


def _rate(each_second: float) -> str:
    return f"{each_second:,.0f}" if each_second >= 10 else f"{each_second:.2g}"


class _Bar:
    """A bar of rich, which is imported and begun only once it is wanted."""

    def __init__(self, what: str, total: float | None, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._began = time.monotonic()
        self._shown: Progress | None = None

    def __call__(self, done: float, count: int, detail: str = "") -> None:
        seconds = time.monotonic() - self._began
        if seconds < AFTER_SECONDS:
            return
        shown = self._shown or self._begin()
        rate = f"{_rate(count / seconds)} {self._unit}/s" if self._unit else ""
        of, detail = (f" {detail}", "") if detail.startswith("of ") else ("", detail)
        counted = f"{count:,}{of} {self._unit}" if self._unit else ""
        words = ", ".join(part for part in (counted, rate, detail) if part)
        shown.update(shown.task_ids[0], completed=done, words=words)

    def _begin(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[words]}"))
        # What is printed on standard output is the answer: rich must not take it over.
        self._shown = Progress(
            *columns,
            TimeElapsedColumn(),
            *((TimeRemainingColumn(),) if self._total is not None else ()),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._shown.add_task(self._what, total=self._total, words="")
        self._shown.start()
        return self._shown

    def close(self) -> None:
        """The line goes, before the answer is printed."""
        if self._shown is not None:
            self._shown.stop()


@contextmanager
def bar(what: str, total: float | None, unit: str) -> Generator[Tick | None, None, None]:
    """A bar for `what`, of `total`; ``None`` where nobody would see it. It is gone when the block ends."""
    if not _is_watched():
        yield None
        return
    shown = _Bar(what, total, unit)
    try:
        yield shown
    finally:
        shown.close()


@contextmanager
def searching(what: str, budget: Budget) -> Generator[Callable[[int, int, int], object] | None, None, None]:
    """For an exploration, which ends with its budget if not before."""
    began = time.monotonic()
    total = float(budget.executions) if budget.executions is not None else budget.seconds
    with bar(what, total, "executions") as tick:
        if tick is None:
            yield None
            return

        def look(executions: int, _steps: int, states: int) -> None:
            done = float(executions) if budget.executions is not None else time.monotonic() - began
            tick(done, executions, f"{states:,} states" if states else "")

        yield look


@contextmanager
def waiting(what: str) -> Generator[None, None, None]:
    """For work that does not say how far it is: that it goes on, and for how long."""
    if not _is_watched():
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        with bar(what, None, "") as tick:
            while tick is not None and not ended.wait(0.2):
                tick(0.0, 0, "")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
