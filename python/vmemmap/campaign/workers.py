"""The process pool: worker processes of which each has a pipe of its own, so that a death is the death of one job and
not of all.

`ProcessPoolExecutor` fails every future when one of its processes dies, and can't be used again. It also keeps open the
end of the pipe by which its processes answer: one that is killed in the middle of an answer leaves it waiting for the
rest, for ever. Here only the worker has that end, so its death is the end of the pipe, whatever it was doing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final

__all__ = ["ProcessWorkers"]

_SPAWN: Final = multiprocessing.get_context("spawn")


def _serve(connection: Connection) -> None:
    """In each worker: one job after the other. Ctrl-C is the coordinator's, and nobody outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    while True:
        function, arguments = connection.recv()
        try:
            answer, error = function(*arguments), None
        except Exception as raised:
            answer, error = None, raised
        connection.send((answer, error))


def _follow(parent: BaseProcess) -> None:
    # Its end of a pipe closes however it ends.
    parent.join()
    os._exit(1)


class _Process:
    def __init__(self) -> None:
        self._connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs,))
        try:
            self._process.start()
        finally:
            theirs.close()

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def ask(self, function: Callable[..., Any], arguments: tuple[Any, ...], asked: Future[Any]) -> None:
        """Wait for the answer, or for its death."""
        try:
            self._connection.send((function, arguments))
            answer, error = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            asked.set_exception(BrokenExecutor(f"a process ended with {self._process.exitcode}"))
        except Exception as error:
            # No bytes that could be sent, or none that could be read.
            asked.set_exception(error)
        else:
            if error is None:
                asked.set_result(answer)
            else:
                asked.set_exception(error)

    def end(self) -> None:
        self._process.kill()
        self._process.join()


class _Lane:
    def __init__(self) -> None:
        self._process: _Process | None = None
        self._asked: Future[Any] | None = None

    @property
    def is_idle(self) -> bool:
        return self._asked is None or self._asked.done()

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
        if self._process is None or not self._process.is_alive:
            try:
                self._process = _Process()
            except OSError as error:
                raise BrokenExecutor(f"a worker cannot be started: {error}") from error
        self._asked = Future()
        # From here on it can't be cancelled, as nobody could tell the worker.
        self._asked.set_running_or_notify_cancel()
        threading.Thread(target=self._process.ask, args=(function, arguments, self._asked), daemon=True).start()
        return self._asked

    def end(self) -> None:
        if self._process is not None:
            self._process.end()


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
