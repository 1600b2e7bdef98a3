"""``stress --snapshots``: a line each second, which outlives the process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PROGRAM = [sys.executable, "-c", "import sys; from vmemmap.cli import main; sys.exit(main())"]


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_snapshots_outlive_kill_9_and_count_up(tmp_path: Path) -> None:
    file = tmp_path / "soak.jsonl"
    process = subprocess.Popen([*PROGRAM, "stress", "R6", "--seconds", "60", "--snapshots", str(file)])
    try:
        while not file.exists() or file.read_bytes().count(b"\n") < 3:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    found = lines(file)
    assert len(found) >= 3
    assert file.read_bytes().endswith(b"\n")
    for name in ("seconds", "operations"):
        values = [line[name] for line in found]
        assert values == sorted(values)
    assert found[-1]["violations"] == 0
    assert found[-1]["counters"]["tables_freed"] > 0
    assert found[-1]["rss_bytes"] > 0
    seconds = [int(line["seconds"]) for line in found]
    assert len(set(seconds)) == len(seconds), "one a second"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_with_an_answer_wherever_it_was_started(number: signal.Signals, tmp_path: Path) -> None:
    file = tmp_path / "soak.jsonl"
    command = [*PROGRAM, "stress", "R6", "--seconds", "60", "--json", "--snapshots", str(file)]
    # As a shell starts what goes on in the background.
    ignoring = [
        sys.executable,
        "-c",
        "import os, signal, sys; signal.signal(2, signal.SIG_IGN); os.execv(*sys.argv[1:2], sys.argv[1:])",
    ]
    process = subprocess.Popen([*ignoring, *command], stdout=subprocess.PIPE, text=True)
    while not file.exists() or not file.read_bytes().count(b"\n"):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    answer = json.loads(process.communicate()[0])
    assert (process.returncode, answer["interrupted"], answer["violations"]) == (130, True, [])
    assert answer["operations"] > 0


def test_snapshots_overwrite_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text("mine")
    for path in (file, tmp_path / "nowhere" / "a"):
        answer = subprocess.run([*PROGRAM, "stress", "R6", "--snapshots", str(path)], capture_output=True, text=True)
        assert (answer.returncode, answer.stdout, len(answer.stderr.splitlines())) == (2, "", 1)
    assert file.read_text() == "mine"
    new = tmp_path / "new"
    assert subprocess.run([*PROGRAM, "stress", "R99", "--snapshots", str(new)], capture_output=True).returncode == 2
    assert not new.exists()
