"""The loop over any executor: who is blamed when workers die, what is kept when it must stop."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_store import JOB, NEW, answer, begin

from vmemmap import SpecError
from vmemmap.campaign import Given, coordinator
from vmemmap.campaign.coordinator import DiedBesideError, Summary, coordinate
from vmemmap.campaign.execution import execute
from vmemmap.campaign.job import Job
from vmemmap.campaign.store import Store
from vmemmap.campaign.version import code


class Silent:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.running: list[int] = []

    def finished(self, job: Job, answer: dict[str, Any]) -> None: ...

    def happened(self, text: str) -> None:
        self.lines.append(text)

    def tick(self, running: Any, waiting: int) -> None:
        self.running.append(len(running))


class Scripted:
    """An executor whose answers are told in advance: for each job, what becomes of its runs, then success."""

    slots = 2

    def __init__(self, script: dict[int, list[str]]) -> None:
        self.script = script
        self.runs: list[int] = []
        self.beside: dict[int, list[int]] = {}
        self.open: dict[int, Future[Any]] = {}

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        assert function is execute
        job = Job.parse(arguments[0])
        number = JOB.index(job)
        self.open = {other: future for other, future in self.open.items() if not future.done()}
        assert len(self.open) < self.slots
        self.runs.append(number)
        fate = script.pop(0) if (script := self.script.get(number, [])) else "done"
        future: Future[Any] = Future()
        if fate == "done":
            future.set_result(json.dumps(answer(code())))
        elif fate == "dies":
            future.set_exception(BrokenExecutor("gone"))
        elif fate == "beside":
            future.set_exception(DiedBesideError("the worker died beside it, the last one tcp://x"))
        elif fate == "forgotten":
            future.cancel()
            future.set_running_or_notify_cancel()
        elif fate == "raises":
            future.set_exception(ValueError("a\nfault"))
        elif fate == "error":
            future.set_result(json.dumps({**answer(code()), "error": "not enough memory"}))
        elif fate == "other code":
            future.set_result(json.dumps(answer(NEW)))
        return future


def run(path: Path, script: dict[int, list[str]], **options: Any) -> tuple[Summary, Scripted, Silent, Store]:
    path.unlink(missing_ok=True)
    store = Store.create(path)
    executor, observer = Scripted(script), Silent()
    with store:
        round = begin(store, code=code())
        summary = coordinate(store, round, executor, observer, **options)
        left = store.pending(round)
    assert sorted({JOB.index(job) for job in left}) == sorted(JOB.index(job) for job in summary.failed)
    return summary, executor, observer, store


def test_a_job_whose_worker_dies_runs_again(tmp_path: Path) -> None:
    summary, executor, observer, _ = run(tmp_path / "a.db", {1: ["dies"]})
    assert (summary.recorded, summary.failed) == (4, [])
    assert sorted(executor.runs) == [0, 1, 1, 2, 3]
    assert observer.lines == ["r06_ptdump_vs_hot_remove kernel seed 1: its worker died; it runs again"]


def test_what_may_only_have_stood_beside_runs_alone_and_that_decides(tmp_path: Path) -> None:
    summary, executor, observer, _ = run(tmp_path / "a.db", {0: ["beside"], 1: ["beside", "dies"]})
    assert (summary.recorded, summary.failed) == (3, [JOB[1]])
    assert sorted(executor.runs[-2:]) == [0, 1], "after all others"
    assert (
        "r06_ptdump_vs_hot_remove kernel seed 0: the worker died beside it, the last one tcp://x; it runs again alone"
        in observer.lines
    )
    assert observer.lines[-1].startswith(
        "r06_ptdump_vs_hot_remove kernel: given up: its worker died, with nothing beside it as well"
    )


FATES = st.lists(st.sampled_from(["dies", "beside", "forgotten", "raises", "error"]), max_size=5)


@given(st.dictionaries(st.integers(0, 3), FATES))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_dies_each_job_is_recorded_once_or_given_up(tmp_path: Path, script: dict[int, list[str]]) -> None:
    summary, executor, _, store = run(tmp_path / "a.db", {number: list(fates) for number, fates in script.items()})
    assert summary.recorded + len(summary.failed) == len(JOB)
    with Store.read(store.path) as read:
        assert sorted(result.job for result in read.results()) == sorted(
            job.id for job in JOB if job not in summary.failed
        )
    assert all(
        executor.runs.count(number) <= 2 + coordinator._TRIES + fates.count("forgotten")
        for number, fates in script.items()
    )


def test_a_worker_with_other_code_ends_it_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"a worker on here has vmemmap 0\.2\.0, the coordinator"):
        run(tmp_path / "a.db", {2: ["other code"]})


def test_who_is_asked_to_stop_keeps_what_is_finished(tmp_path: Path) -> None:
    asked = iter([False, True])
    executor = Scripted({})
    with Store.create(tmp_path / "a.db") as store:
        round = begin(store, code=code())
        summary = coordinate(store, round, executor, Silent(), stop=lambda: next(asked))
        assert store.pending(round) == JOB[2:]
    assert summary.interrupted
    assert (summary.recorded, executor.runs) == (2, [0, 1])


def test_any_executor_will_do(tmp_path: Path) -> None:
    with Store.create(tmp_path / "a.db") as store, ThreadPoolExecutor(2) as pool:
        round = begin(store, code=code())
        summary = coordinate(store, round, Given(pool, 2), Silent())
        assert (summary.recorded, store.pending(round)) == (4, [])
