"""The seeded faults of `make mutants` keep up with the code that they break."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RUNNER = Path(__file__).parents[1] / "benches" / "mutants.py"


def test_every_seeded_fault_still_applies() -> None:
    done = subprocess.run([sys.executable, RUNNER, "--check"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
