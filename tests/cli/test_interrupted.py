"""Ctrl-C, whenever and however often: exit code 130, what was found is saved, and no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "vmemmap"]


@pytest.mark.parametrize("times", [1, 3, 10])
def test_further_interrupts_leave_the_answer_of_the_first(tmp_path: Path, times: int) -> None:
    run = subprocess.Popen(
        [*COMMAND, "run", "--seconds", "600"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    # The facts come first: from then on there is work to interrupt.
    run.stdout.readline()
    for _ in range(times):
        run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=120)
    assert run.returncode == 130
    assert "Traceback" not in stderr
    folder = tmp_path / "vmemmap-report"
    assert not folder.exists() or {path.name for path in folder.iterdir()} == {"report.html", "result.json"}


def test_an_interrupt_of_the_imports_is_one_line(tmp_path: Path) -> None:
    # In the place of a library that is imported early.
    (tmp_path / "click.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor _ in range(9): pass\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    answer = subprocess.run([*COMMAND, "list"], env=environment, capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stdout, answer.stderr) == (130, "", "vmemmap: interrupted\n")
