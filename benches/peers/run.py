"""The speed comparison with Spin, loom and shuttle: the same questions, in turns, in one run.

    make bench-peers                                      # the tables; --json for machines
    make bench-peers PEERS="--seconds 60 --docs"          # longer, and into docs/performance.md

Two machines are asked. The handmade model goes to everybody, so that searches are compared; the real algorithms on real
tables (`questions.py`) only to this project's explorer, and its time stands beside the peers' time for the handmade
model, which is what somebody without it would have to write. A cell that does not end within ``--seconds`` is shown as
``>60 s``; "covered" and "violated" are answers, all else is none. Times are wall clock, of short cells the best of
several in turns; those of Spin's search have the start of its process in them (about a millisecond), ours and the
crates' have not.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import questions

from vmemmap import _core

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.append(str(ROOT / "benches"))
from table import commit, host  # noqa: E402 (its folder is no package)

DOCS = ROOT / "docs" / "performance.md"
MARKS = ("<!-- peers: written by benches/peers/run.py --docs -->", "<!-- peers: end -->")
TURNS = 5
"""Rounds of a cell that takes less than `SHORT` seconds."""
SHORT = 2.0
HASH = 18
"""Spin's hash table, 2^18 slots: enough for every row, and far quicker to set up than the 2^24 it takes by itself."""
OURS = ("ours", "ours-cache-sleep", "ours-sleep")
CRATES = ("loom", "loom-loads", "shuttle-dfs")
SAMPLERS = ("shuttle-random", "shuttle-pct3")
SPINS = {"spin": [], "spin-no-por": ["-DNOREDUCE"]}


@dataclass(frozen=True)
class Cell:
    """One question, one checker. `executions` are transitions for Spin; `compile` seconds of spin -a and of the C
    compiler.
    """

    finished: bool
    violated: bool
    seconds: float
    executions: int
    states: int | None = None
    steps: int | None = None
    trace: int | None = None
    switches: int | None = None
    shortest: bool = False
    compile: float | None = None


def _wall(command: list[str], cwd: Path, limit: float | None = None) -> tuple[float, str | None]:
    """Seconds and output of a command; no output if it ran into its limit.

    :raises SystemExit: it failed, with its last line.
    """
    began = time.perf_counter()
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return time.perf_counter() - began, None
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{command[0]}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    return seconds, done.stdout


class Peers:
    """The stand-alone crate, built once, and what it says of a cell."""

    def __init__(self) -> None:
        target = ROOT / "target" / "peers"
        _wall(["cargo", "build", "--release", "--locked", "--quiet", "--target-dir", str(target)], HERE)
        self.program = str(target / "release" / "vmemmap-peers")

    def rows(self) -> list[dict[str, Any]]:
        return json.loads(subprocess.run([self.program, "rows"], capture_output=True, text=True, check=True).stdout)

    def cell(self, checker: str, row: str, seconds: float, seed: int) -> Cell:
        # Our own search keeps a fifth of its budget for the shortest trace.
        budget = seconds / 0.8 if checker in OURS else seconds
        # A checker looks at the clock between executions; one that hangs in one is no answer either.
        _, out = _wall([self.program, checker, row, str(budget), str(seed)], HERE, 2 * budget + 10)
        if out is None:
            return Cell(False, False, seconds, 0)
        a = json.loads(out)
        return Cell(
            a["finished"],
            a["violated"],
            a["seconds"],
            a["executions"],
            a.get("states"),
            a.get("steps"),
            a.get("trace"),
            a.get("switches"),
        )


class Spin:
    """The Promela model, translated and compiled for one row."""

    def __init__(self, spin: str, cc: str, row: dict[str, Any], flags: list[str], directory: Path) -> None:
        directory.mkdir()
        defines = [f"-D{key}={value}" for key, value in row.items() if key.isupper()]
        translate, _ = _wall([spin, *defines, "-a", str(HERE / "hvo.pml")], directory)
        compile_, _ = _wall([cc, "-O2", "-DSAFETY", *flags, "-o", "pan", "pan.c"], directory)
        self.compile = translate + compile_
        self.directory = directory

    def cell(self, seconds: float) -> Cell:
        took, out = _wall(["./pan", "-m10000", f"-w{HASH}"], self.directory, seconds)
        if out is None:
            return Cell(False, False, took, 0, compile=self.compile)
        count = {key: int(n) for n, key in re.findall(r"^ *(\d+) (transitions|states, stored)", out, re.MULTILINE)}
        errors = re.search(r"errors: (\d+)", out)
        violated = errors is None or errors[1] != "0"
        return Cell(True, violated, took, count["transitions"], count["states, stored"], compile=self.compile)


def real(name: str, seconds: float, *, shorten: float = 0.0) -> Cell:
    """A variant of `questions.peers` put to the explorer."""
    description = questions.peers.set_up(questions.peers.variant(name))
    options = {"seconds": seconds / 0.8, "shorten_seconds": shorten, "settle_seconds": 0.0}
    answer = json.loads(_core.explore(description.json(), json.dumps(options), None, None))
    first = (
        min(answer["witnesses"].values(), key=lambda w: (w["switches"], w["steps"]), default=None)
        if answer["violation"]
        else None
    )
    return Cell(
        answer["verdict"] != "inconclusive",
        answer["verdict"] == "violated",
        answer["seconds"],
        answer["executions"],
        answer["states"],
        answer["steps"],
        first and first["steps"],
        answer["switches"],
        answer["shortest"],
    )


def best(cells: list[Cell]) -> Cell:
    return min(cells, key=lambda c: (not c.finished, c.seconds))


def in_turns(checkers: dict[str, Callable[[], Cell]]) -> dict[str, Cell]:
    """Each checker once; those that were quick some rounds more, one after the other in each."""
    found = {name: [ask()] for name, ask in checkers.items()}
    quick = [name for name, cells in found.items() if cells[0].seconds < SHORT]
    for _ in range(TURNS - 1):
        for name in quick:
            found[name].append(checkers[name]())
    return {name: best(cells) for name, cells in found.items()}


def compare(
    row: dict[str, Any], peers: Peers, tools: tuple[str, str] | None, seconds: float, seed: int
) -> dict[str, Cell]:
    """All cells of a row."""
    name = row["name"]
    checkers: dict[str, Callable[[], Cell]] = {"real": lambda: real(name, seconds)}
    crates = (*OURS, *CRATES, *(SAMPLERS if row["violated"] else ()))
    for checker in crates:
        checkers[checker] = lambda checker=checker: peers.cell(checker, name, seconds, seed)
    with tempfile.TemporaryDirectory() as directory:
        if tools:
            for kind, flags in SPINS.items():
                spin = Spin(*tools, row, flags, Path(directory) / kind)
                checkers[kind] = lambda spin=spin: spin.cell(seconds)
        cells = in_turns(checkers)
    if row["violated"]:
        for kind, ask in (
            ("ours", lambda: peers.cell("ours-trace", name, seconds, seed)),
            ("real", lambda: real(name, seconds, shorten=seconds)),
        ):
            if cells[kind].finished:
                traced = ask()
                cells[kind] = replace(
                    cells[kind], trace=traced.trace, switches=traced.switches, shortest=traced.shortest
                )
    return cells


def wrong(row: dict[str, Any], cells: dict[str, Cell]) -> list[str]:
    """Checkers that gave an answer, and another than the one that was derived. A sampler that sees nothing gives
    none.
    """
    return [
        f"{row['name']}: {name}"
        for name, c in cells.items()
        if c.finished and c.violated != row["violated"] and name not in SAMPLERS
    ]


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.9995 * scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.2g} µs"


def _words(c: Cell | None, row: dict[str, Any], limit: float, unit: str = "") -> str:
    if c is None:
        return "–"
    amount = f"{c.executions:,}{unit}"
    if not c.finished:
        return f">{limit:g} s ({amount})"
    missed = "" if c.violated == row["violated"] else ", **missed it**"
    return f"{amount}, {_time(c.seconds)}{missed}"


def _ratio(ours: Cell, seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{'' if ours.finished else '>'}{ours.seconds / seconds:.3g}"


def _own(c: Cell, row: dict[str, Any], limit: float) -> list[str]:
    verdict = ("violated" if c.violated else "safe") if c.finished else f">{limit:g} s"
    each = f"{c.steps / max(1, c.executions):,.0f}" if c.steps is not None else "–"
    took = _time(c.seconds) if c.finished else "–"
    trace = f"{c.trace} steps, {c.switches} switches{', the shortest' if c.shortest else ''}" if c.trace else "–"
    return [verdict, f"{c.executions:,}", f"{c.states or 0:,}", each, took, trace if row["violated"] else "–"]


def _table(heads: list[str], lines: Iterable[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, ["---"] * len(heads), *lines))


def tables(rows: list[dict[str, Any]], found: dict[str, dict[str, Cell]], limit: float) -> str:
    """The comparison as Markdown."""

    def spins(name: str) -> tuple[float | None, float | None]:
        spin = found[name].get("spin")
        if spin is None or not spin.finished:
            return None, None
        return spin.seconds, spin.seconds + (spin.compile or 0.0)

    peers = _table(
        [
            "row",
            "Spin",
            "spin -a and cc",
            "Spin, no POR",
            "loom",
            "loom, plain loads",
            "shuttle DFS",
            "shuttle random",
            "shuttle PCT 3",
        ],
        [
            [
                f"`{r['name']}`",
                _words(c.get("spin"), r, limit, " transitions"),
                _time(c["spin"].compile or 0.0) if "spin" in c else "–",
                _words(c.get("spin-no-por"), r, limit, " transitions"),
                *(_words(c.get(name), r, limit) for name in (*CRATES, *SAMPLERS)),
            ]
            for r in rows
            for c in [found[r["name"]]]
        ],
    )
    heads = ["verdict", "executions", "states", "operations each", "time", "trace", "÷ Spin", "÷ Spin and cc"]

    def ours(kind: str, *more: str) -> list[list[str]]:
        return [
            [
                f"`{r['name']}`",
                *_own(c[kind], r, limit),
                *(_ratio(c[kind], s) for s in spins(r["name"])),
                *(_words(c.get(name), r, limit) for name in more),
            ]
            for r in rows
            for c in [found[r["name"]]]
        ]

    handmade = _table(["row", *heads, "cache and sleep sets", "sleep sets alone"], ours("ours", *OURS[1:]))
    real_tables = _table(["row", *heads], ours("real"))
    said = "\n".join(f"* `{r['name']}`: {r['what']} ({'violated' if r['violated'] else 'safe'})" for r in rows)
    return (
        f"{said}\n\nThe peers, on the handmade model (executions, time):\n\n{peers}\n\n"
        f"Our search on the same model:\n\n{handmade}\n\n"
        f"Our explorer on the real algorithms and real tables:\n\n{real_tables}\n"
    )


def write_docs(text: str) -> None:
    """Replace what stands between the marks.

    :raises SystemExit: the marks are not there.
    """
    old = DOCS.read_text()
    if not all(mark in old for mark in MARKS):
        raise SystemExit(f"{DOCS}: no marks to write between")
    before, rest = old.split(MARKS[0], 1)
    DOCS.write_text(
        f"{before}{MARKS[0]}\n\nCommit `{commit()}`, on {host()}.\n\n{text}\n{MARKS[1]}{rest.split(MARKS[1], 1)[1]}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each cell (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=0, help="of the samplers")
    parser.add_argument("--row", action="append", help="only this one; may be given more than once")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/performance.md")
    parser.add_argument("--need-spin", action="store_true", help="do nothing but say so if Spin is missing")
    given = parser.parse_args()
    spin, cc = shutil.which("spin"), shutil.which("gcc") or shutil.which("cc")
    tools = (spin, cc) if spin and cc else None
    if tools is None:
        missing = " and ".join(name for name, path in (("spin", spin), ("gcc", cc)) if not path)
        print(
            f"peers: {missing} not found, so there is no comparison with Spin (Debian: apt-get install spin gcc)",
            file=sys.stderr,
        )
        if given.need_spin:
            return 0
    peers = Peers()
    rows = [row for row in peers.rows() if not given.row or row["name"] in given.row]
    if not rows:
        parser.error(f"no such row; there are {', '.join(row['name'] for row in peers.rows())}")
    found: dict[str, dict[str, Cell]] = {}
    for row in rows:
        print(f"peers: {row['name']}", file=sys.stderr)
        found[row["name"]] = compare(row, peers, tools, given.seconds, given.seed)
    text = tables(rows, found, given.seconds)
    if given.json:
        cells = {name: {kind: asdict(cell) for kind, cell in cells.items()} for name, cells in found.items()}
        print(json.dumps({"seconds": given.seconds, "rows": rows, "cells": cells}))
    else:
        print(text)
    if given.docs:
        write_docs(text)
    # With plain loads loom is known to miss one (see src/memory.rs); any other difference is a fault of somebody's.
    faults = [
        fault for row in rows for fault in wrong(row, found[row["name"]]) if fault != "clear-then-set-3: loom-loads"
    ]
    for fault in faults:
        print(f"peers: {fault} gives another verdict than derived", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
