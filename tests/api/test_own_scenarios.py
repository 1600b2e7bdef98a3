"""Scenarios that a user writes: what their functions may return, and what is said of one that returns something
else.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import vmemmap
from vmemmap.acceptance.policy_table import cases, explore_all
from vmemmap.lab.repetition import put_back
from vmemmap.lab.together import Search, as_finished


def own(function: Callable[..., Any]) -> vmemmap.Scenario:
    return vmemmap.scenario(title="own", sources=["me"])(function)


def names(function: Callable[..., Any]) -> list[str]:
    found = own(function)
    return [actor["name"] for actor in found.set_up(found.variant()).document["actors"]]


def test_actors_are_operations_generators_functions_lists_or_actors() -> None:
    def every_kind(m: Any) -> list[object]:
        block = m.memory.add()
        m.setup(block)
        pool = m.hugetlb["2M"]

        def use_a_page() -> Iterator[vmemmap.Operation]:
            yield pool.allocate()
            yield pool.use()

        return [
            m.memory.remove(block),
            use_a_page,
            use_a_page(),
            [pool.allocate(), pool.free()],
            vmemmap.Actor("x", [m.ptdump(block)]),
        ]

    assert names(every_kind) == ["memory remove", "use a page", "use a page 2", "hugetlb alloc", "x"]


def test_the_example_of_the_interface_explores_and_stresses() -> None:
    @vmemmap.scenario(title="a neighbour is removed", sources=["the thread of May 2021"])
    def adjacent(m: Any) -> list[vmemmap.Operation]:
        stays, goes = m.memory.add(), m.memory.add()
        m.setup(stays, m.memory.online(stays), goes)
        return [m.hugetlb["2M"].allocate(m.pfn(stays.start)), m.memory.remove(goes)]

    assert vmemmap.explore(adjacent, strategy="exhaustive", budget=10.0).judged_violated == []
    result = vmemmap.stress(adjacent, threads=4, seconds=0.2)
    assert (result.violation_count, result.threads) == (0, 4)
    assert result.operations > 100


@pytest.mark.parametrize("returned", [None, 3, "R6", [3], [None], [[]], {"a": 1}, []], ids=repr)
def test_what_is_no_actor_is_refused_in_one_line(returned: object) -> None:
    with pytest.raises(vmemmap.SpecError) as refused:
        vmemmap.explore(own(lambda m: returned))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("seed", [-1, 1 << 64, "5", 1.5])
def test_what_is_no_seed_is_refused(seed: Any) -> None:
    with pytest.raises(vmemmap.SpecError, match="seed is"):
        vmemmap.explore("R6", strategy="random", seed=seed, budget=10)
    with pytest.raises(vmemmap.SpecError, match="seed is"):
        vmemmap.stress("R6", seed=seed, seconds=0.1)


@pytest.mark.parametrize(
    ("policies", "right"),
    [
        ({"update": 3}, "store, swap"),
        ({"colour": 1}, "no argument 'colour': arguments are granule, .* and the policies"),
        ({"granul": "4K"}, "did you mean granule"),
        ({"updat": "bbm"}, "did you mean update"),
    ],
    ids=str,
)
def test_what_is_no_policy_is_refused_with_what_there_is(policies: Any, right: str) -> None:
    with pytest.raises(vmemmap.SpecError, match=right):
        vmemmap.Machine(boot_memory="256M", **policies)


def test_ctrl_c_ends_the_exploration_of_policies_before_its_end() -> None:
    # To the main thread, as a terminal's would be: another thread's would not wake it.
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.05, signal.pthread_kill, [main, signal.SIGINT])
    seen = 0
    with pytest.raises(KeyboardInterrupt), closing(explore_all(2, 60.0)) as rows:
        for _ in rows:
            if not seen:
                timer.start()
            seen += 1
    timer.join()
    assert seen < len(cases())


def test_whoever_stops_listening_does_not_wait_for_what_still_runs() -> None:
    release, ended = threading.Event(), threading.Event()

    def one(number: int, _search: Search) -> int:
        if number:
            release.wait(60)
            ended.set()
        return number

    answers = as_finished([0, 1], one, seconds=60, workers=2)
    assert next(answers) == 0
    answers.close()
    waited = ended.is_set()
    release.set()
    assert not waited


def test_a_program_is_followed_by_its_way_back() -> None:
    block = {"start": 1 << 30, "bytes": 1 << 27}
    add, remove = {"op": "memory_add", **block, "memmap_on_memory": False}, {"op": "memory_remove", **block}
    online, offline = {"op": "memory_online", **block, "zone": "movable"}, {"op": "memory_offline", **block}
    alloc, free = {"op": "hugetlb_alloc", "hstate": 1, "at": None}, {"op": "hugetlb_free", "hstate": 1, "at": None}
    assert put_back([add], [remove]) == [add]
    assert put_back([add, online], [offline, remove]) == [add, online]
    assert put_back([], [add, online, alloc]) == [free, offline, remove]
    assert put_back([alloc], [free, alloc]) == []
    assert put_back([], [add, online, offline, remove]) == []


def test_a_scenario_file_that_exits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "exits.py"
    path.write_text("raise SystemExit(7)\n")
    with pytest.raises(vmemmap.SpecError, match="SystemExit: 7"):
        vmemmap.explore(str(path))
