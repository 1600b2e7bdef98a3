"""``explore``, ``stress`` and ``list`` as a script uses them: exit codes, one JSON document, files saved whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def vmemmap(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    program = "import sys; from vmemmap.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=cwd, timeout=60
    )


OWN = """
import vmemmap

@vmemmap.scenario(title="own", sources=["me"], judged=["I1", "I18"])
def adjacent(m):
    block = m.memory.add()
    m.setup(block)
    def remover():
        yield m.memory.remove(block)
    return [remover, m.ptdump(block)]

@vmemmap.scenario(title="broken", sources=["me"])
def broken(m):
    raise KeyError("x")
"""


@pytest.mark.parametrize("name", ["R6", "r6", "r06_ptdump_vs_hot_remove"])
def test_a_scenario_has_a_number_in_any_case_and_a_name(name: str) -> None:
    answer = vmemmap("explore", name, "--json")
    assert (answer.returncode, answer.stderr) == (0, "")
    found = json.loads(answer.stdout)
    assert (found["verdict"], found["variant"], found["exhaustive"]) == ("safe", "kernel", True)
    assert found["violation"] is None


def test_a_trace_is_saved_whole_and_nothing_beside_it(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    answer = vmemmap("explore", "R6", "--set", "walker=mmap-only", "--trace-out", str(trace))
    assert answer.returncode == 1
    assert json.loads(trace.read_text())["document"]["machine"]["policies"]["walker"] == "mmap-only"
    assert list(tmp_path.iterdir()) == [trace]
    assert len(answer.stdout.splitlines()) < 100, "the scan of a table is not printed entry by entry"


def test_a_trace_that_is_not_there_is_said(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    answer = vmemmap("explore", "R6", "--trace-out", str(trace), "--json")
    assert (answer.returncode, json.loads(answer.stdout)["verdict"]) == (0, "safe")
    assert answer.stderr == f"vmemmap: note: {trace} is not written: no judged invariant was violated\n"
    assert not trace.exists()


@pytest.mark.parametrize("where", ["nowhere/trace.json", ""])
def test_where_no_trace_can_be_saved_nothing_is_explored(tmp_path: Path, where: str) -> None:
    answer = vmemmap("explore", "R6", "--trace-out", str(tmp_path / where))
    assert (answer.returncode, answer.stdout, len(answer.stderr.splitlines())) == (2, "", 1)
    assert list(tmp_path.iterdir()) == []


def test_no_command_is_a_wrong_call_of_one_line() -> None:
    answer = vmemmap()
    assert (answer.returncode, answer.stdout, len(answer.stderr.splitlines())) == (2, "", 1)


def test_a_budget_that_is_too_small_is_inconclusive() -> None:
    answer = vmemmap("explore", "R32", "--budget", "3", "--json")
    assert answer.returncode == 3
    assert json.loads(answer.stdout)["verdict"] == "inconclusive"


def test_scenarios_of_a_file_are_explored_and_stressed(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    assert vmemmap("explore", "own.py:adjacent", "--budget", "5s", cwd=tmp_path).returncode == 0
    # Threads of a busy host may not meet in so short a time.
    for seconds in ("0.2", "1", "5", "20"):
        answer = vmemmap("stress", "own.py", "--seconds", seconds, "--set", "walker=none", "--json", cwd=tmp_path)
        if answer.returncode != 0:
            break
    assert answer.returncode == 1, answer
    assert set(json.loads(answer.stdout)["violations_by_invariant"]) & {"I1", "I18"}
    answer = vmemmap("explore", "own.py:broken", cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (2, "vmemmap: scenario broken: KeyError: 'x'\n")


def test_a_stress_repeats_what_can_be_done_only_once() -> None:
    answer = vmemmap("stress", "R6", "--seconds", "0.3", "--json")
    assert answer.returncode == 0, answer
    found = json.loads(answer.stdout)
    assert found["errors"] == {}
    assert found["counters"]["tables_freed"] > 10
