"""How a campaign goes, and when it will be over."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from .job import Job

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Estimate", "Watch"]

_LINE_SECONDS: Final = 10.0
"""Between lines where no bar can be drawn."""


class Estimate:
    """Seconds until the end: what is left, at what the same job took with another seed, or one of its kind, or its
    budget."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._groups: dict[str, Job] = {}
        self._group_of: dict[str, str] = {}
        self._left: Counter[str] = Counter()
        self._took: defaultdict[object, list[float]] = defaultdict(lambda: [0, 0.0])
        for job in jobs:
            group = job.group.text()
            self._groups.setdefault(group, job)
            self._group_of[job.id] = group
            self._left[group] += 1

    def done(self, job: Job, seconds: float) -> None:
        """A job is finished, after so long."""
        group = self._group_of[job.id]
        self._left[group] -= 1
        for known in (group, (job.kind, job.strategy)):
            self._took[known][0] += 1
            self._took[known][1] += seconds

    def remaining(self, slots: int) -> float:
        """With so many jobs at a time."""
        total = 0.0
        for group, left in self._left.items():
            job = self._groups[group]
            known = next(
                (took for key in (group, (job.kind, job.strategy)) if (took := self._took.get(key)) is not None), None
            )
            total += left * (known[1] / known[0] if known else job.longest)
        return total / max(1, slots)


class Watch:
    """An observer that draws a bar on standard error, or prints a line now and then where that is no terminal."""

    def __init__(self, jobs: Sequence[Job], finished: int, slots: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True)
        self._estimate = Estimate(jobs)
        self._slots = slots
        self._count = finished
        self._total = finished + len(jobs)
        self._violated = 0
        self._shown = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if self._console.is_terminal:
            columns = (
                TextColumn("campaign"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("", total=self._total, completed=finished)

    def __enter__(self) -> Watch:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def finished(self, job: Job, answer: dict[str, Any]) -> None:
        """One more."""
        self._count += 1
        self._violated += answer["verdict"] == "violated"
        self._estimate.done(job, answer["seconds"])
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._count)

    def happened(self, text: str) -> None:
        """A line above the bar."""
        if self._bar is not None:
            self._console.print(text, markup=False, highlight=False)
        else:
            print(f"vmemmap: {text}", file=sys.stderr, flush=True)

    def tick(self, running: Sequence[Job], waiting: int) -> None:
        """Say how it stands, not more often than somebody reads."""
        now = time.monotonic()
        if now - self._shown < (1.0 if self._bar is not None else _LINE_SECONDS):
            return
        self._shown = now
        text = self._words(len(running))
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=text)
        else:
            print(f"vmemmap: {self._count} of {self._total} finished, {text}", file=sys.stderr, flush=True)

    def _words(self, running: int) -> str:
        if not running:
            return f"{self._violated} violated, no worker"
        seconds = self._estimate.remaining(self._slots)
        end = datetime.now() + timedelta(seconds=seconds)
        return f"{self._violated} violated, {running} running, ends about {end:%H:%M:%S} (in {_length(seconds)})"


def _length(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
