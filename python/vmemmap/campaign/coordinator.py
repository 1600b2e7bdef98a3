"""The loop of a campaign: jobs to an executor, answers to the database, until nothing is left or somebody says stop.

Whatever kills a worker or this process, a job is either recorded or runs again. A job whose worker died may have killed
it, or only have stood beside: it runs again, and after the last try once more with nothing beside it, which decides.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from ..errors import SpecError
from .execution import execute
from .job import Job
from .store import Round, Store
from .version import Code, code, commit, difference

__all__ = ["Backend", "DiedBesideError", "Observer", "Summary", "coordinate"]

_POLL_SECONDS: Final = 0.1
"""How long a request to stop can go unnoticed."""

_TRIES: Final = 3
"""Of a job whose workers die, beside other jobs."""

_MOST_FORGOTTEN: Final = 10
"""Answers of one job that may get lost."""


class DiedBesideError(BrokenExecutor):
    """Workers died again and again with this job on them, whoever's fault that was: nobody will try it again but us."""


class Backend(Protocol):
    """What of an executor is needed, and how many jobs it runs at once."""

    @property
    def slots(self) -> int:
        """Jobs that can run at once; may change."""
        ...

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """`BrokenExecutor` in the future: the worker died."""
        ...


class Observer(Protocol):
    """Who is told how it goes."""

    def finished(self, job: Job, answer: dict[str, Any]) -> None:
        """A result is on the disk."""
        ...

    def happened(self, text: str) -> None:
        """One line for whoever looks."""
        ...

    def tick(self, running: Sequence[Job], waiting: int) -> None:
        """Called again and again."""
        ...


@dataclass
class Summary:
    """How a campaign ended."""

    recorded: int = 0
    failed: list[Job] = field(default_factory=list[Job])
    interrupted: bool = False


@dataclass
class _Campaign:
    store: Store
    round: Round
    backend: Backend
    observer: Observer
    allow_code: bool
    own: Code
    git: str | None
    waiting: deque[Job]
    summary: Summary = field(default_factory=Summary)
    running: dict[Future[Any], Job] = field(default_factory=dict[Future[Any], Job])
    #: To be run with nothing beside it.
    alone: deque[Job] = field(default_factory=deque[Job])
    deaths: Counter[str] = field(default_factory=Counter[str])
    forgotten: Counter[str] = field(default_factory=Counter[str])
    only: Job | None = None

    def submit(self) -> None:
        """As many as there are workers: what waits here is not lost with one."""
        if self.only is not None:
            return
        slots = self.backend.slots
        while self.waiting and len(self.running) < slots:
            self._start(self.waiting.popleft())
        if not self.running and not self.waiting and self.alone and slots:
            self.only = self.alone.popleft()
            self._start(self.only)

    def _start(self, job: Job) -> None:
        try:
            self.running[self.backend.submit(execute, job.text(), self.allow_code)] = job
        except BrokenExecutor as error:
            raise SpecError(
                f"no worker takes a job any more ({error}); what is finished is saved, resume goes on"
            ) from error

    def collect(self, done: Sequence[Future[Any]]) -> None:
        """Answers to the database, all of one moment in one transaction."""
        answers: list[tuple[Job, dict[str, Any]]] = []
        for future in done:
            job = self.running.pop(future)
            alone, self.only = self.only is job, None if self.only is job else self.only
            try:
                answer: dict[str, Any] = json.loads(future.result())
            except CancelledError:
                # Forgotten on the way: nobody's fault, unless it never ends.
                self.forgotten[job.id] += 1
                if self.forgotten[job.id] < _MOST_FORGOTTEN:
                    self.waiting.append(job)
                else:
                    self._fail(job, f"its answer was lost {_MOST_FORGOTTEN} times")
            except BrokenExecutor as error:
                self._died(job, error, alone)
            except Exception as error:
                self._fail(job, f"{type(error).__name__}: {error}")
            else:
                differs = difference(self.own, Code(**answer["code"]))
                if differs is not None:
                    raise SpecError(f"a worker on {answer['host']} {differs}; what is finished is saved")
                if "error" in answer:
                    self._fail(job, f"{answer['error']} (on {answer['host']})")
                else:
                    answers.append((job, answer))
        if answers:
            self.summary.recorded += self.store.record(self.round, answers, self.git)
            for job, answer in answers:
                self.observer.finished(job, answer)

    def _died(self, job: Job, why: BrokenExecutor, alone: bool) -> None:
        self.deaths[job.id] += 1
        name = f"{job.scenario} {job.variant}" + (f" seed {job.seed}" if job.seed is not None else "")
        beside = isinstance(why, DiedBesideError)
        if alone:
            self._fail(job, f"its worker died, with nothing beside it as well ({why})")
        elif beside or self.deaths[job.id] >= _TRIES:
            self.alone.append(job)
            words = str(why) if beside else f"its worker died {self.deaths[job.id]} times"
            self._tell(job, f"{name}: {words}; it runs again alone")
        else:
            self.waiting.append(job)
            self._tell(job, f"{name}: its worker died; it runs again")

    def _tell(self, job: Job, text: str) -> None:
        self.store.note(self.round, job, text)
        self.observer.happened(text)

    def _fail(self, job: Job, why: str) -> None:
        why = " ".join(why.split())[:500]
        self.summary.failed.append(job)
        self.store.note(self.round, job, why, failed=True)
        self.observer.happened(f"{job.scenario} {job.variant}: given up: {why}")


def coordinate(
    store: Store,
    round: Round,
    backend: Backend,
    observer: Observer,
    *,
    stop: Callable[[], bool] = lambda: False,
    allow_code: bool = False,
) -> Summary:
    """Run what is not done of a round. `stop` is looked at ten times a second; what runs then is dropped, and runs
    again at the next resume.

    Raises ``SpecError`` if it cannot go on: no room, no workers, workers with other code. What was recorded stays.
    """
    campaign = _Campaign(store, round, backend, observer, allow_code, code(), commit(), deque(store.pending(round)))
    while campaign.waiting or campaign.running or campaign.alone:
        if stop():
            campaign.summary.interrupted = True
            # What is finished by now is not thrown away.
            campaign.collect([future for future in campaign.running if future.done() and not future.cancelled()])
            break
        campaign.submit()
        observer.tick(list(campaign.running.values()), len(campaign.waiting) + len(campaign.alone))
        done, _ = (
            wait(campaign.running, _POLL_SECONDS, FIRST_COMPLETED) if campaign.running else _nothing(_POLL_SECONDS)
        )
        campaign.collect(list(done))
    return campaign.summary


def _nothing(seconds: float) -> tuple[set[Future[Any]], set[Future[Any]]]:
    """No worker at all: one may come."""
    time.sleep(seconds)
    return set(), set()
