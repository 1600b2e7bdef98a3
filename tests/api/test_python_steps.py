"""Actors in Python whose steps look at results: what they are sent, what they find, and what is wrong with them."""

from __future__ import annotations

import errno
import itertools
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

import vmemmap
from vmemmap import Actor, Operation, Scenario, Variant
from vmemmap.lab.setup import Setup

BLOCKS = {"linear-map": "blocks"}
Steps = Generator[Operation, int, None]


def own(describe: Any, *, judged: tuple[str, ...] = ("I1", "I2", "I18"), **policies: str) -> Scenario:
    variant = Variant("only", "safe", (), {**BLOCKS, **policies})
    return vmemmap.scenario(title="own", sources=["me"], judged=judged, variants=[variant])(describe)


def retries(m: Setup, tries: int = 3) -> list[Actor]:
    """A block is removed as soon as it is offline, while it is dumped."""
    block = m.memory.add("128M")
    m.setup(block, m.memory.online(block))

    def remover() -> Steps:
        for _ in range(tries):
            if (yield m.memory.remove(block)) != -errno.EBUSY:
                return

    return [Actor("offline", [m.memory.offline(block)]), Actor("remover", remover), Actor("ptdump", [m.ptdump(block)])]


def test_a_removal_tried_again_while_ebusy_meets_ptdump_unless_ptdump_locks() -> None:
    # The race of R6, `ptdump_walk_pgd` without `get_online_mems`. The block shares its table with boot memory, which
    # stays: an entry is cleared under the walk (I18), no table is freed (not I1).
    found = vmemmap.explore(own(retries, walker="mmap-only"), budget=60.0)
    assert (found.judged_violated, found.invariants["I1"]) == (["I18"], "held")
    assert found.raw["asked"]["remover"]["operations"] == ["memory_remove"]
    assert "hot remove" not in found.scope["absent"]
    # None, and EBUSY or 0 after each of one to three tries that were EBUSY before.
    assert found.raw["asked"]["remover"]["histories"] == 7
    safe = vmemmap.explore(own(retries), budget=60.0)
    assert (safe.words, safe.exhaustive) == ("safe", True)


def test_a_page_is_freed_by_the_pfn_that_its_allocation_returned() -> None:
    seen: set[tuple[int, int]] = set()

    def two_users(m: Setup) -> list[Actor]:
        m.configure(hvo=False)
        pool = m.hugetlb["2M"]

        def user() -> Steps:
            head = yield pool.allocate()
            freed = yield pool.free(head)
            seen.add((head, freed))

        return [Actor("a", user), Actor("b", user)]

    found = vmemmap.explore(own(two_users), budget=60.0)
    assert (found.words, found.exhaustive) == ("safe", True)
    # Whoever comes first has the first page; nobody frees the other's.
    assert len(seen) == 2
    assert all(head == freed > 0 for head, freed in seen)


def test_a_trace_runs_again_without_python(tmp_path: Path) -> None:
    trace = vmemmap.explore(own(retries, walker="mmap-only"), budget=60.0).trace_file()
    assert trace is not None
    remover = trace["document"]["actors"][1]
    assert "steps" not in remover
    assert {operation["op"] for operation in remover["program"]} == {"memory_remove"}
    saved = tmp_path / "trace.json"
    saved.write_text(json.dumps(trace))
    assert vmemmap.replay(saved).identical


def test_random_strategies_ask_too() -> None:
    found = vmemmap.explore(own(retries, walker="mmap-only"), strategy="random", seed=1, budget=300, shorten=0.0)
    assert found.raw["asked"]["remover"]["histories"] > 1


def test_a_stress_runs_them_in_a_thread_and_counts_what_they_did() -> None:
    def two_users(m: Setup) -> list[Actor]:
        pool = m.hugetlb["2M"]

        def user() -> Steps:
            head = yield pool.allocate()
            if head >= 0:
                yield pool.free(head)

        return [Actor("a", user), Actor("b", user)]

    result = vmemmap.stress(own(two_users), seconds=0.3)
    assert (result.violation_count, result.threads) == (0, 2)
    for user in result.actors:
        assert user["errors"] == {}
        assert user["by_kind"]["hugetlb_free"] > 1


def wrong(steps: Any) -> Scenario:
    return own(lambda m: [Actor("looks", lambda: steps(m))])


def raises(m: Setup) -> Steps:
    reached = yield m.hugetlb["2M"].use()
    raise LookupError(f"not {reached}")


def is_no_operation(m: Setup) -> Generator[Any, int, None]:
    yield -(yield m.hugetlb["2M"].use())


def has_no_such_field(m: Setup) -> Steps:
    reached = yield m.hugetlb["2M"].use()
    yield Operation("hugetlb_use", {"colour": int(reached)})


def names_an_errno_as_a_page(m: Setup) -> Steps:
    head = yield m.hugetlb["2M"].free()
    yield m.hugetlb["2M"].free(min(head, -1))


def cannot_be_written(m: Setup) -> Steps:
    reached = yield m.hugetlb["2M"].use()
    yield Operation("hugetlb_free", {"hstate": 1, "at": {reached}})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (raises, "LookupError: not "),
        (is_no_operation, "which is no operation"),
        (has_no_such_field, "unknown field `colour`"),
        (names_an_errno_as_a_page, "invalid value: integer `-"),
        (cannot_be_written, "not JSON serializable"),
    ],
)
def test_what_is_wrong_with_a_step_is_said_with_its_actor_and_number(steps: Any, said: str) -> None:
    for run in (lambda s: vmemmap.explore(s, budget=10.0), lambda s: vmemmap.stress(s, seconds=5.0)):
        with pytest.raises(vmemmap.SpecError) as refused:
            run(wrong(steps))
        assert str(refused.value).startswith("actor 'looks', step 2: ") or str(refused.value).startswith(
            'actor "looks", step 2: '
        )
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)


def test_steps_that_answer_otherwise_the_second_time_are_refused_with_both_answers() -> None:
    counter = itertools.count(1)

    def fickle(m: Setup) -> Steps:
        if (yield m.hugetlb["2M"].resize(next(counter))) >= 0:
            yield m.hugetlb["2M"].use()

    with pytest.raises(
        vmemmap.SpecError, match=r'step 1: .* \{"op": "nr_hugepages".*"count": 2\} once and .*"count": 3\} now'
    ):
        vmemmap.explore(wrong(fickle), budget=10.0)


def test_a_started_generator_that_looks_cannot_be_asked_again() -> None:
    def describe(m: Setup) -> list[object]:
        def steps() -> Steps:
            if (yield m.hugetlb["2M"].use()) == 0:
                yield m.hugetlb["2M"].use()

        return [steps()]

    with pytest.raises(vmemmap.SpecError, match="return the function instead"):
        vmemmap.explore(own(describe))


FILE = """
import vmemmap

@vmemmap.scenario(title="own", sources=["me"])
def raises(m):
    def steps():
        reached = yield m.hugetlb["2M"].use()
        raise LookupError(f"not {reached}")
    return [vmemmap.Actor("looks", steps)]
"""


@pytest.mark.parametrize("command", ["explore", "stress"])
def test_a_failing_step_is_exit_code_2_and_one_line(command: str, tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(FILE)
    program = "import sys; from vmemmap.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, command, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert re.search(
        rf"actor 'looks', step 2: LookupError: not \S+ \({re.escape(str(path))}:8; after hugetlb_use: (E[A-Z]+|\d+)\)",
        done.stderr,
    )
    assert "Traceback" not in done.stderr


def interrupt() -> threading.Timer:
    """Ctrl-C, soon after it is started."""
    # To the main thread, as a terminal's would be: another thread's would not wake it.
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    return threading.Timer(0.1, signal.pthread_kill, [main_thread, signal.SIGINT])


def test_ctrl_c_reaches_a_step_that_hangs() -> None:
    hung = threading.Event()

    def hangs(m: Setup) -> Steps:
        if (yield m.hugetlb["2M"].use()) <= 0:
            hung.set()
            timer.start()
            while True:
                time.sleep(0.01)

    timer = interrupt()
    found = vmemmap.explore(wrong(hangs), budget=60.0)
    timer.join()
    assert hung.is_set()
    assert (found.interrupted, found.exhaustive, found.verdict) == (True, False, "inconclusive")


def test_ctrl_c_ends_a_search_that_asks() -> None:
    timer = interrupt()

    def searched(m: Setup) -> list[Actor]:
        actors = retries(m, 200)

        def begins() -> Steps:
            # A step is asked for only by a search that runs.
            if timer.ident is None:
                timer.start()
            yield from ()

        return [*actors, Actor("begins", begins)]

    found = vmemmap.explore(own(searched), budget=60.0)
    timer.join()
    assert (found.interrupted, found.exhaustive) == (True, False)
    assert found.seconds < 30
