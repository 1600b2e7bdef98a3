"""Worker processes: a death is the death of one job, at whatever moment it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import BrokenExecutor, wait
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from vmemmap.campaign.workers import ProcessWorkers

SOON = 60
"""Seconds, at most: of what happens at once or never."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_the_middle_of_the_answer() -> bytes:
    whole = Connection._send

    def half(self: Connection, buffer: Any, *rest: Any) -> None:
        whole(self, buffer[: len(buffer) // 2], *rest)
        die()

    Connection._send = half
    return b"answer" * 1000


def fail(text: str) -> None:
    raise ValueError(text)


def unsendable() -> Any:
    return lambda: None


@pytest.fixture
def pool() -> Generator[ProcessWorkers]:
    workers = ProcessWorkers(2)
    yield workers
    workers.shutdown()


@pytest.mark.parametrize("death", [die, die_in_the_middle_of_the_answer, unsendable])
def test_a_death_is_the_death_of_one_job(pool: ProcessWorkers, death: Any) -> None:
    dead, beside = pool.submit(death), pool.submit(os.getpid)
    assert isinstance(dead.exception(SOON), BrokenExecutor)
    first = beside.result(SOON)
    # Both take jobs again, one of them in a fresh process.
    assert first in {future.result(SOON) for future in [pool.submit(os.getpid), pool.submit(os.getpid)]}
    assert first != os.getpid()


def test_an_idle_worker_that_died_is_replaced(pool: ProcessWorkers) -> None:
    first = pool.submit(os.getpid).result(SOON)
    os.kill(first, signal.SIGKILL)
    # Its death may be seen by the one who asks, or before.
    again = pool.submit(os.getpid)
    if again.exception(SOON) is not None:
        again = pool.submit(os.getpid)
    assert again.result(SOON) != first


def test_what_a_job_raises_is_its_own(pool: ProcessWorkers) -> None:
    with pytest.raises(ValueError, match="seven"):
        pool.submit(fail, "seven").result(SOON)
    with pytest.raises(Exception, match="pickle"):
        pool.submit(lambda: None).result(SOON)
    assert pool.submit(abs, -7).result(SOON) == 7


def test_it_ends_whatever_its_workers_do() -> None:
    program = (
        "import test_worker_processes as t, time\n"
        "pool = t.ProcessWorkers(2)\n"
        "print('asked', pool.submit(time.sleep, 1000), pool.submit(abs, -1).result())\n"
        "pool.shutdown()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=SOON,
    )
    assert (done.returncode, done.stderr) == (0, ""), done


def test_a_worker_does_not_outlive_its_coordinator() -> None:
    program = (
        "import os, test_worker_processes as t, time\n"
        "pool = t.ProcessWorkers(1)\n"
        "print(pool.submit(os.getpid).result())\n"
        "pool.submit(time.sleep, 1000)\n"
        "t.die()\n"
    )
    # Its output is open for as long as somebody can write into it.
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=SOON,
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.strip().isdigit()


def test_only_as_many_jobs_as_workers(pool: ProcessWorkers) -> None:
    for _ in range(100):
        # Who is told of an answer may ask again at once.
        wait([pool.submit(abs, 1), pool.submit(abs, 1)], SOON)
    busy = [pool.submit(signal.pause), pool.submit(signal.pause)]
    with pytest.raises(RuntimeError, match="all 2 workers have a job"):
        pool.submit(abs, 1)
    assert not any(future.done() for future in busy)
