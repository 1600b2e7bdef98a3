"""The faults of `make mutants` and `make cargo-mutants` keep up with the code that they break."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHES = Path(__file__).parents[1] / "benches"


@pytest.mark.parametrize("runner", ["mutants.py", "cargo_mutants.py"])
def test_every_fault_that_is_listed_still_applies(runner: str) -> None:
    done = subprocess.run([sys.executable, BENCHES / runner, "--check"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
