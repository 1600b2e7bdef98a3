"""A campaign from its file: begin, go on, and what a script learns from how it ended."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import SpecError
from .coordinator import Backend, Observer, Summary, coordinate
from .job import Job, is_code
from .lock import coordinating
from .matrix import jobs_of
from .spec import load
from .store import Round, Store
from .version import code, commit
from .workers import ProcessWorkers

__all__ = ["Ended", "Given", "database_of", "processes", "resume", "run"]

Open = Callable[[], AbstractContextManager[Backend]]


class Watcher(Protocol):
    """Makes an observer, once it is known what there is to do."""

    def __call__(self, jobs: list[Job], finished: int, backend: Backend) -> AbstractContextManager[Observer]:
        """An observer of these jobs.

        Args:
            jobs: Those that are left.
            finished: How many others there are.
            backend: Where they run.

        Returns:
            The observer, to be entered and left.
        """
        ...


@dataclass(frozen=True)
class Given:
    """Any ``concurrent.futures.Executor``, with how many jobs it runs at once. A process pool must be one whose workers
    can import this package (``spawn``); if one of its processes dies, all its jobs do (`ProcessWorkers` is better at
    that)."""

    executor: Executor
    slots: int

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """To the executor.

        Args:
            function: What to call.
            *arguments: With what.

        Returns:
            Its future.
        """
        return self.executor.submit(function, *arguments)


@dataclass(frozen=True)
class Ended:
    """How `run` or `resume` ended."""

    database: Path
    round: Round
    summary: Summary


def processes(workers: int | None = None) -> Open:
    """Worker processes of this machine.

    Args:
        workers: How many; by default as many as there are CPUs for this process.

    Returns:
        What `run` and `resume` take as their backend.

    Raises:
        SpecError: No number of workers.
    """
    count = workers if workers is not None else len(os.sched_getaffinity(0))
    if not 1 <= count <= 1024:
        raise SpecError(f"workers is {count}: expected 1 to 1024")

    @contextmanager
    def opened() -> Generator[Backend]:
        pool = ProcessWorkers(count)
        try:
            yield pool
        finally:
            pool.shutdown()

    return opened


def database_of(path: Path) -> Path:
    """The database of a campaign, which is named by that or by its TOML.

    Args:
        path: ``SPEC.toml`` or ``SPEC.db``.

    Returns:
        ``SPEC.db``.
    """
    return path.with_suffix(".db") if path.suffix == ".toml" else path


class _Silent:
    def finished(self, job: Job, answer: dict[str, Any]) -> None: ...
    def happened(self, text: str) -> None: ...
    def tick(self, running: Any, waiting: int) -> None: ...


def _unwatched(jobs: list[Job], finished: int, backend: Backend) -> AbstractContextManager[Observer]:
    return nullcontext(_Silent())


def run(
    path: str | Path,
    *,
    backend: Open | None = None,
    watcher: Watcher = _unwatched,
    stop: Callable[[], bool] = lambda: False,
    allow_code: bool = False,
) -> Ended:
    """Run the campaign that a TOML file describes, into the database beside it.

    What this code has answered there already is not asked again.

    Args:
        path: ``SPEC.toml``.
        backend: Where jobs run; `processes` by default.
        watcher: Makes the observer that is told how it goes.
        stop: Looked at ten times a second; once it is true, what runs is dropped.
        allow_code: Run scenarios that are Python files.

    Returns:
        The database, and how it ended.

    Raises:
        SpecError: The file is wrong, or somebody else is at it, and nothing has been written; or it cannot go on, and
            what is finished is kept.
    """
    path = Path(path)
    if path.suffix != ".toml":
        raise SpecError(f"{path}: a campaign is a file SPEC.toml; resume and show take its database as well")
    spec = load(path)
    jobs = jobs_of(spec, allow_code=allow_code, stop=stop)

    def begin(store: Store) -> Round:
        return store.begin(spec.title, jobs, code(), commit(), socket.gethostname())

    return _go_on(database_of(path), begin, backend or processes(), watcher, stop, allow_code)


def resume(
    path: str | Path,
    *,
    backend: Open | None = None,
    watcher: Watcher = _unwatched,
    stop: Callable[[], bool] = lambda: False,
    allow_code: bool = False,
) -> Ended:
    """Run what is not done yet of the last round of a campaign.

    Args:
        path: Its database or its TOML.
        backend: Where jobs run; `processes` by default.
        watcher: Makes the observer that is told how it goes.
        stop: Looked at ten times a second; once it is true, what runs is dropped.
        allow_code: Run scenarios that are Python files.

    Returns:
        The database, and how it ended.

    Raises:
        SpecError: There is no campaign, or somebody else is at it; or it cannot go on, and what is finished is kept.
    """
    database = database_of(Path(path))

    def last(store: Store) -> Round:
        round = store.last_round()
        if round is None:
            raise SpecError(f"{database}: no campaign was begun here; vmemmap campaign run SPEC.toml begins one")
        if not allow_code and (
            coded := next((job.scenario for job in store.pending(round) if is_code(job.scenario)), None)
        ):
            raise SpecError(f"{database}: {coded} is a Python file, whose code a campaign runs only with --allow-code")
        return round

    if not database.is_file():
        raise SpecError(f"{database}: no such campaign; vmemmap campaign run SPEC.toml begins one")
    return _go_on(database, last, backend or processes(), watcher, stop, allow_code)


def _go_on(
    database: Path,
    begin: Callable[[Store], Round],
    backend: Open,
    watcher: Watcher,
    stop: Callable[[], bool],
    allow_code: bool,
) -> Ended:
    with coordinating(database), backend() as workers, Store.create(database) as store:
        round = begin(store)
        pending = store.pending(round)
        with watcher(pending, len(store.jobs(round)) - len(pending), workers) as observer:
            summary = coordinate(store, round, workers, observer, stop=stop, allow_code=allow_code)
    return Ended(database, round, summary)
