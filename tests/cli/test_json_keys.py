"""The keys of ``list --json`` and ``explore --json`` that scripts rely on: keys are added, never renamed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

STATES = {"held", "violated", "not judged", "not visible"}


def answer(*arguments: str) -> tuple[int, Any]:
    program = "import sys; from vmemmap.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--json"], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_list_has_each_scenario_with_what_each_variant_is_expected_to_show() -> None:
    code, scenarios = answer("list")
    assert code == 0
    assert {"R3", "R6", "R32", "R33", "R35"} <= {scenario["corpus"] for scenario in scenarios}
    for scenario in scenarios:
        assert set(scenario) >= {"name", "corpus", "title", "sources", "variants"}
        assert scenario["sources"] and scenario["variants"]
        for variant in scenario["variants"]:
            assert set(variant) >= {"name", "expect", "invariants", "policies", "kernel"}
            assert variant["expect"] in ("safe", "violated")
            assert bool(variant["invariants"]) == (variant["expect"] == "violated")


@pytest.mark.parametrize(("variant", "code"), [("kernel", 0), ("mmap-only", 1)])
def test_explore_answers_with_one_object(variant: str, code: int) -> None:
    returned, found = answer("explore", "R6", "--variant", variant, "--budget", "5s")
    assert returned == code
    keys = {
        "scenario",
        "variant",
        "policies",
        "verdict",
        "exhaustive",
        "executions",
        "steps",
        "states",
        "seconds",
        "seed",
    }
    assert set(found) >= {*keys, "invariants", "invariant_steps", "scope", "violation", "trace"}
    assert list(found["invariants"]) == [f"I{number}" for number in range(1, 35)]
    assert set(found["invariants"].values()) <= STATES
    assert set(found["invariant_steps"]) == {name for name, state in found["invariants"].items() if state == "violated"}
    assert set(found["scope"]) >= {"memory_model", "entries_per_table", "rounds", "actors", "absent", "window"}
    if code == 0:
        assert (found["verdict"], found["violation"], found["trace"]) == ("safe", None, None)
        return
    assert found["verdict"] == "violated"
    assert set(found["violation"]) >= {"invariant", "actor", "step", "address", "message"}
    assert found["violation"]["invariant"] == "I1"
    for step in found["trace"]:
        assert set(step) >= {"step", "cpu", "actor", "op", "address", "old", "new", "note"}
    assert found["trace"][-1]["step"] == found["violation"]["step"] == found["invariant_steps"]["I1"]
