"""Campaigns as a script runs them: a small spec, the command line in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = "import sys; from vmemmap.cli import main; sys.exit(main())"

#: Some forty short jobs of all kinds. None has a budget of time that could decide a verdict.
SMALL = """
title = "small"

[[matrix]]
scenarios = ["R6"]
variants = ["kernel", "mmap-only", "unlocked"]

[[matrix]]
scenarios = ["R6"]
variants = ["mmap-only"]
split = 3

[[matrix]]
scenarios = ["R33"]
variants = ["4k-split-bbm-6.1", "4k-split-store-6.1"]
strategies = ["random", "pct"]
seeds = "0-8"
executions = 20
shorten = 0

[[matrix]]
kind = "stress"
scenarios = ["R6"]
seconds = 0.05
"""
#: The tree of a split search, and four prefixes.
PARTS = 1 + 4
JOBS = 3 + PARTS + 2 * 2 * 9 + 1


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", PROGRAM, "campaign", *map(str, arguments)]


def campaign(*arguments: str | Path, timeout: float = 100, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout, **options)


def jobs(file: Path) -> list[dict[str, Any]]:
    answer = campaign("show", file, "--json")
    assert (answer.returncode, answer.stderr) == (0, "")
    return json.loads(answer.stdout)["jobs"]


def merged(file: Path) -> list[dict[str, Any]]:
    """The verdicts of split searches, without what depends on the host."""
    found = json.loads(campaign("show", file, "--json").stdout)["searches"]
    return [{key: value for key, value in search.items() if key != "sum_of_parts"} for search in found]


def verdicts(listed: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What must be the same however often a campaign was killed; a stress counts what happened, which is never twice
    the same."""
    keys = ("id", "scenario", "variant", "policies", "kernel", "strategy", "seed", "prefix", "verdict", "violated")
    return [tuple(json.dumps(job[key]) for key in keys) for job in listed if job["kind"] == "explore"]
