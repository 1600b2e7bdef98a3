"""``vmemmap bench``: which rows, in what shape. Never how fast: that is for a host of one's own."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = [sys.executable, "-c", "import sys; from vmemmap.cli import main; sys.exit(main())", "bench"]
UNITS = {
    "exchange": "ns",
    "exchange-2t-disjoint": "/s",
    "exchange-2t-shared": "/s",
    "checked-exchange-2t": "/s",
    "optimise-2m": "ns",
    "optimise-2m-2t": "/s",
    "optimise-2m-whole": "ns",
    "optimise-2m-whole-2t": "/s",
    "walk-plain": "/s",
    "walk-plain-2t": "/s",
    "walk-optimised": "/s",
    "ptdump-text": "/s",
    "ptdump-parse": "/s",
    "ptdump-print": "/s",
    "populate": "s",
    "populate-2t": "/s",
    "hotplug-section": "s",
    "hotplug-section-2t": "/s",
    "pool-free": "ns",
    "checked-exchange": "ns",
    "python-exchange-bulk": "ns",
    "python-2t": "/s",
    "explore-step": "ns",
    "explore-executions": "/s",
    "explore-three-actors": "s",
    "explore-toy-step": "ns",
    "explore-executions-25": "/s",
    "import-time": "s",
}


@pytest.fixture(scope="module")
def table() -> list[dict[str, Any]]:
    answer = subprocess.run([*PROGRAM, "--quick", "--json"], capture_output=True, text=True, timeout=100, check=True)
    return json.loads(answer.stdout)


def test_every_promised_row_is_there_once(table: list[dict[str, Any]]) -> None:
    names = [row["name"] for row in table]
    assert len(names) == len(set(names))
    assert set(UNITS) <= set(names)


def test_rows_have_the_promised_units(table: list[dict[str, Any]]) -> None:
    units = {row["name"]: row["unit"] for row in table}
    for name, unit in UNITS.items():
        assert units[name].endswith("/s") if unit == "/s" else units[name] == unit, name


def test_every_figure_stands_beside_its_limit(table: list[dict[str, Any]]) -> None:
    for row in table:
        assert {"name", "value", "unit", "limit", "ratio", "what"} <= row.keys()
        for key in ("value", "limit", "value_median", "limit_median"):
            assert math.isfinite(row[key]) and row[key] > 0, (row["name"], key)
        assert row["ratio"] == pytest.approx(row["value"] / row["limit"])
        assert "limit: " in row["what"], row["name"]


def test_medians_are_no_better_than_the_best(table: list[dict[str, Any]]) -> None:
    for row in table:
        if row["name"].endswith("-2t") or row["name"] == "exchange-2t-disjoint":  # their limits are made of several
            continue
        better = max if row["unit"].endswith("/s") else min
        for side in ("value", "limit"):
            assert better(row[side], row[f"{side}_median"]) == row[side], row["name"]


def test_ctrl_c_ends_it_soon_and_what_was_measured_is_printed() -> None:
    run = subprocess.Popen(PROGRAM, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert run.stdout is not None
        _heading, first = run.stdout.readline(), run.stdout.readline()
        run.send_signal(signal.SIGINT)
        rest, err = run.communicate(timeout=60)
    finally:
        run.kill()
    assert first.startswith("exchange ")
    assert "import-time" not in rest
    assert run.returncode == 130
    assert "Traceback" not in err


def test_an_unknown_option_is_one_line_and_exit_2() -> None:
    answer = subprocess.run([*PROGRAM, "--slow"], capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stdout, len(answer.stderr.splitlines())) == (2, "", 1)
