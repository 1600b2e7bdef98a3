"""The process pool: workers of which each has a pool of its own, so that a death is the death of one job and not of
all.

`ProcessPoolExecutor` fails every future when one of its processes dies, and can't be used again. Here a lane is such an
executor with one process; a broken one is thrown away and the next job gets a fresh process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Any

__all__ = ["ProcessWorkers"]


def _begin() -> None:
    """In each worker: Ctrl-C is the coordinator's, and nobody outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: BaseProcess) -> None:
    # Its end of a pipe closes however it ends.
    parent.join()
    os._exit(1)


class _Lane:
    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._processes: list[BaseProcess] = []
        self.current: Future[Any] | None = None

    @property
    def is_idle(self) -> bool:
        return self.current is None or self.current.done()

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
        for _ in range(2):
            if self._pool is None:
                self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)
            before = set(multiprocessing.active_children())
            try:
                self.current = self._pool.submit(function, *arguments)
            except BrokenExecutor:
                # It died with nothing to do.
                self._renew()
                continue
            self._processes += [process for process in multiprocessing.active_children() if process not in before]
            self.current.add_done_callback(self._note)
            return self.current
        raise BrokenExecutor("a fresh worker cannot be started")

    def _note(self, done: Future[Any]) -> None:
        if not done.cancelled() and isinstance(done.exception(), BrokenExecutor):
            self._renew()

    def _renew(self) -> None:
        pool, self._pool, self._processes = self._pool, None, []
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def end(self) -> None:
        for process in self._processes:
            # Gone already, and waited for.
            with suppress(ValueError):
                process.kill()
        self._renew()


class ProcessWorkers(Executor):
    """Up to so many jobs at a time, each in a process of its own that takes one after the other. A job whose process
    dies fails with `BrokenExecutor`, and no other one does."""

    def __init__(self, workers: int) -> None:
        self._lanes = [_Lane() for _ in range(workers)]

    @property
    def slots(self) -> int:
        """Jobs that can run at once."""
        return len(self._lanes)

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """To an idle worker. Raises ``RuntimeError`` if there is none: nothing waits here."""
        if named:
            raise TypeError("arguments go by position")
        for lane in self._lanes:
            if lane.is_idle:
                return lane.submit(function, arguments)
        raise RuntimeError(f"all {len(self._lanes)} workers have a job")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers, whatever they do: what they have not answered is not lost but undone."""
        for lane in self._lanes:
            lane.end()
