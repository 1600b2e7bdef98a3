"""The page of ``compare``: a row for each choice, and bars of what it takes on a modelled machine."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..lab.exploration import Result
from . import duration, environment
from .charts import Column, chart
from .player import Player, player

__all__ = ["compare_page"]

SHOWN = "allocate in a batch"
"""The operation of the bars: others are in the table."""


def _without_name(row: Mapping[str, Any]) -> str:
    """What its title says beside its name."""
    return str(row["title"]).removeprefix(f"{row['name']}: ")


def _timed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """What is drawn: a bar for each choice and number of CPUs."""
    return [
        {"group": row["name"], "title": _without_name(row), "label": f"{figure['cpus']} CPUs", "ns": figure["p50_ns"]}
        for row in rows
        for figure in row["modelled"]
        if figure["operation"] == SHOWN
    ]


def _times(rows: Sequence[Mapping[str, Any]], operations: Sequence[str]) -> list[tuple[str, int, list[object]]]:
    """A line for each choice and number of CPUs, with the figures of every operation in their order."""
    found: dict[tuple[str, int], dict[str, object]] = {}
    for row in rows:
        for figure in row["modelled"]:
            found.setdefault((row["name"], figure["cpus"]), {})[figure["operation"]] = figure
    return [(name, cpus, [one.get(operation) for operation in operations]) for (name, cpus), one in found.items()]


def _drawn(row: Mapping[str, Any], result: Result) -> Player | None:
    """The counterexample of a row: of the judged invariant, or of any other where none of them is violated."""
    found = result.trace_of(row["invariant"]) if row["invariant"] else None
    if found is None:
        return None
    violation, steps, _ = found
    return player(steps, violation, f"{row['name']}: {violation.invariant}", result.scope.get("granule", "4K"))


def compare_page(document: Mapping[str, Any], results: Sequence[Result], about: str, command: Sequence[str]) -> str:
    """The page.

    Args:
        document: The object of ``compare --json``.
        results: What the search of each row found.
        about: The modelled machine, in words.
        command: What was typed.

    Returns:
        HTML.
    """
    rows = document["rows"]
    operations = list(dict.fromkeys(figure["operation"] for row in rows for figure in row["modelled"]))
    saved = [{"group": "", "label": row["name"], "frames_saved": row["frames_saved"]} for row in rows]
    return (
        environment()
        .get_template("compare.html")
        .render(
            document=document,
            rows=rows,
            about=about,
            chart=chart(_timed(rows), [Column("modelled time of a page", "ns", duration)]),
            savings=chart(saved, [Column("frames saved", "frames_saved", lambda n: f"{n:g}", gain=True)]),
            operations=operations,
            times=_times(rows, operations),
            falls=[
                (row, drawn) for row, one in zip(rows, results, strict=True) if (drawn := _drawn(row, one)) is not None
            ],
            said={row["name"]: _without_name(row) for row in rows},
            shown=SHOWN,
            scopes=list(dict.fromkeys(row["scope"] for row in rows)),
            command=shlex.join(command),
        )
    )
