"""``replay`` as typed: the same execution, what differs if the kernel does, and whatever is no trace."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import vmemmap
from vmemmap.cli import main
from vmemmap.lab.trace import write


def typed(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    program = "import sys; from vmemmap.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)


def complains(answer: subprocess.CompletedProcess[str], *words: str) -> None:
    assert (answer.returncode, answer.stdout, len(answer.stderr.splitlines())) == (2, "", 1), answer
    for word in ("vmemmap: ", *words):
        assert word in answer.stderr


def refused(capsys: pytest.CaptureFixture[str], path: Path, *words: str, options: Sequence[str] = ()) -> None:
    """The same without a process of its own."""
    code = main(["replay", str(path), *options])
    shown = capsys.readouterr()
    complains(subprocess.CompletedProcess([], code, shown.out, shown.err), *(words or [path.name]))


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """R6: ptdump without get_online_mems reads a table that hot remove has freed (I1)."""
    path = tmp_path_factory.mktemp("traces") / "r6.json"
    answer = typed("explore", "R6", "--variant", "mmap-only", "--budget", "3s", "--trace-out", path)
    assert answer.returncode == 1, answer
    return path


@pytest.fixture(scope="module")
def exchange() -> dict[str, Any]:
    """R3: a store over a live entry breaks break-before-make (I19)."""
    found = vmemmap.explore("R3", variant="store", budget="3s", shorten=0.5).trace_file()
    assert found is not None
    return found


def test_a_trace_says_what_it_is_and_how_it_was_found(trace: Path) -> None:
    saved = json.loads(trace.read_text())
    assert list(saved)[:2] == ["format", "version"]
    assert saved["format"] == 2
    assert saved["document"]["machine"]["policies"]["walker"] == saved["policies"]["walker"] == "mmap-only"
    assert set(saved) >= {
        "scenario",
        "variant",
        "digest",
        "violation",
        "strategy",
        "seed",
        "memory_model",
        "bounds",
        "shortest",
    }
    assert sum(segment["operations"] for segment in saved["segments"]) == saved["operations"] == len(saved["steps"])
    for segment in saved["segments"]:
        assert set(segment) == {"actor", "until", "operations", "alternatives", "observed"}
        assert set(segment["until"]) == {"op", "label", "place", "nth"}
    lines = trace.read_text().splitlines()
    assert len(lines) > saved["operations"], "a step has a line of its own"


def test_the_same_execution_runs_again_and_both_histories_are_told(trace: Path) -> None:
    answer = typed("replay", trace)
    assert (answer.returncode, answer.stderr) == (1, "")
    assert "identical: I1 is violated again" in answer.stdout
    assert "freed by hot remove, in step" in answer.stdout
    assert "its entry cleared by hot remove, in step" in answer.stdout
    assert "in the hands of ptdump, last in step" in answer.stdout
    assert "mem_hotplug_lock held by hot remove since step" in answer.stdout
    assert "CPU0 ptdump" in answer.stdout.splitlines()[2]
    assert max(map(len, answer.stdout.splitlines())) < 140


def test_json_is_one_object_with_its_keys(trace: Path) -> None:
    answer = typed("replay", trace, "--json")
    assert answer.returncode == 1
    found = json.loads(answer.stdout)
    keys = {
        "scenario",
        "variant",
        "kernel",
        "policies",
        "digest",
        "version",
        "invariant",
        "identical",
        "fell",
        "tolerant",
        "seed",
    }
    keys |= {
        "divergence",
        "resynchronised",
        "continued",
        "violation",
        "recorded",
        "steps",
        "switches",
        "histories",
        "locks",
        "trace",
    }
    assert set(found) >= keys
    assert (found["identical"], found["fell"], found["divergence"]) == (True, True, None)
    assert found["violation"] == found["recorded"]["violation"]
    saved = json.loads(trace.read_text())
    assert [step["op"] for step in found["trace"]] == [step["op"] for step in saved["steps"]]
    assert [(h["role"], h["actor"]) for h in found["histories"]] == [
        ("unlinked", "hot remove"),
        ("freed", "hot remove"),
        ("held", "ptdump"),
    ]


def test_another_policy_differs_in_a_step_that_is_named(trace: Path) -> None:
    complains(
        typed("replay", trace, "--set", "walker=none"),
        "diverged in segment 1, step 1: expected ptdump: queue",
        "init_mm.mmap_lock",
        "walker is none, was mmap-only when recorded",
    )
    answer = typed("replay", trace, "--set", "walker=none", "--json")
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1)
    assert json.loads(answer.stdout)["divergence"]["step"] == 1


def test_a_tolerant_replay_tells_the_same_fall_from_the_same_execution(trace: Path) -> None:
    answer = typed("replay", trace, "--set", "walker=none", "--tolerant", "--json")
    found = json.loads(answer.stdout)
    assert (answer.returncode, found["fell"], found["identical"]) == (1, True, False)
    assert found["divergence"]["segment"] == 1


def test_a_tolerant_replay_on_the_fix_ends_without_the_fall(trace: Path) -> None:
    for seed in ((), ("--seed", "3")):
        answer = typed("replay", trace, "--set", "walker=kernel", "--tolerant", *seed)
        assert answer.returncode == 0, answer
        assert "I1 was not violated again" in answer.stdout
        assert "left out" in answer.stdout


def test_a_changed_kernel_is_told_by_the_word_that_it_stores(exchange: dict[str, Any]) -> None:
    assert vmemmap.replay(exchange).identical
    other = vmemmap.replay(exchange, policies={"mutant": "writable-tails"})
    assert other.divergence is not None
    step = exchange["steps"][other.divergence["step"] - 1]
    assert (step["op"], step["label"]) == ("write", "hugetlb_vmemmap_optimize")
    assert other.divergence["expected"].endswith(f"→ {step['new']:#x}")
    # PAGE_KERNEL rather than PAGE_KERNEL_RO: PTE_WRITE (bit 51) set and PTE_RDONLY (bit 7) clear.
    assert int(other.divergence["found"].rpartition("→ ")[2], 16) ^ step["new"] == 1 << 51 | 1 << 7


def test_an_equivalent_update_makes_the_same_invariant_fall(exchange: dict[str, Any]) -> None:
    swapped = vmemmap.replay(exchange, policies={"update": "swap"})
    assert swapped.divergence is not None and "found HVO: swap" in swapped.divergence["message"]
    again = vmemmap.replay(exchange, policies={"update": "swap"}, tolerant=True)
    assert (again.violated, again.identical) == (True, False)
    assert again.violation is not None and again.violation.invariant == "I19"


@pytest.mark.parametrize(("how", "name"), [("html", "r6.html"), ("perfetto", "r6.pftrace.json"), ("text", "r6.txt")])
def test_a_view_is_saved_whole_and_nothing_beside_it(trace: Path, tmp_path: Path, how: str, name: str) -> None:
    answer = typed("replay", trace, "--format", how, "--out", tmp_path / name)
    assert (answer.returncode, answer.stdout, answer.stderr) == (1, "", "")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).stat().st_size > 1000


@pytest.mark.parametrize("where", ["nowhere/r6.html", ""])
def test_where_nothing_can_be_saved_nothing_is_run(trace: Path, tmp_path: Path, where: str) -> None:
    complains(typed("replay", trace, "--format", "html", "--out", tmp_path / where), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda saved: saved.pop(key)


def of_format(number: int) -> Callable[[dict[str, Any]], object]:
    return lambda saved: saved.update(format=number)


def of_another_document(saved: dict[str, Any]) -> None:
    saved["document"]["machine"]["kernel"] = "6.12"


def of_an_unknown_policy(saved: dict[str, Any]) -> None:
    saved["document"]["machine"]["policies"]["colour"] = "red"


def with_a_step_too_few(saved: dict[str, Any]) -> None:
    del saved["steps"][3]


def with_a_segment_of_somebody_else(saved: dict[str, Any]) -> None:
    saved["segments"][1]["actor"] = "nobody"


def of_words(saved: dict[str, Any]) -> None:
    saved["segments"] = "many"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (of_format(1), ["format 1", "reads format 2"]),
        (of_format(3), ["format 3", "reads format 2"]),
        (without("format"), ["no trace"]),
        (without("document"), ["scenario"]),
        (without("violation"), ["violation"]),
        (of_another_document, ["digest"]),
        (of_an_unknown_policy, ["colour"]),
        (with_a_step_too_few, ["segment"]),
        (with_a_segment_of_somebody_else, ["segment 2", "nobody"]),
        (of_words, ["not the JSON of a trace", "line"]),
    ],
)
def test_a_wrong_trace_is_refused_in_one_line(
    trace: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], object],
    words: list[str],
) -> None:
    saved = json.loads(trace.read_text())
    change(saved)
    path = tmp_path / "wrong.json"
    with path.open("w") as file:
        write(saved, file)
    refused(capsys, path, path.name, *words)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_a_cut_trace_is_refused(trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: float) -> None:
    path = tmp_path / "cut.json"
    path.write_bytes(trace.read_bytes()[: int(trace.stat().st_size * part)])
    refused(capsys, path)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 100_000], ids=lambda c: repr(c[:8])
)
def test_what_is_no_trace_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    (tmp_path / "trace.json").write_bytes(content)
    refused(capsys, tmp_path / "trace.json")


def test_a_wrong_call_is_told_in_one_line(trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, tmp_path / "none.json")
    refused(capsys, tmp_path)
    refused(capsys, trace, "gif", options=["--format", "gif"])
    refused(capsys, trace, "seed", options=["--seed", "3"])
    refused(capsys, trace, "bicycle", options=["--set", "walker=bicycle"])
    complains(typed("replay"), "TRACE")
    complains(typed("explore", "none.py", cwd=tmp_path), "none.py")
