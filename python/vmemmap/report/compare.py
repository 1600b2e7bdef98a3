"""The page of ``compare``: a row for each choice, and bars of what it takes on a modelled machine."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from . import environment

__all__ = ["compare_page"]

WIDTH, LINE, LABEL = 760, 16, 150
SHOWN = "allocate in a batch"
"""The operation of the bars: others are in the table."""


def _bars(rows: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Bars on a logarithmic scale, one for each choice and number of CPUs."""
    timed: list[tuple[str, int, float]] = []
    for row in rows:
        for figure in row["modelled"]:
            if figure["operation"] == SHOWN:
                timed.append((row["name"], figure["cpus"], figure["p50_ns"]))
    if not timed:
        return {}
    low, high = min(ns for *_, ns in timed) / 2, max(ns for *_, ns in timed)
    scale = (WIDTH - LABEL - 110) / max(math.log(high / low), 1e-9)
    bars = [
        {
            "name": name,
            "cpus": cpus,
            "first": not number or timed[number - 1][0] != name,
            "y": number * LINE,
            "width": round(max(1.0, math.log(ns / low) * scale), 1),
            "ns": ns,
        }
        for number, (name, cpus, ns) in enumerate(timed)
    ]
    return {"bars": bars, "width": WIDTH, "height": len(bars) * LINE, "label": LABEL}


def compare_page(document: Mapping[str, Any], about: str, command: Sequence[str]) -> str:
    """The page.

    Args:
        document: The object of ``compare --json``.
        about: The modelled machine, in words.
        command: What was typed.

    Returns:
        HTML.
    """
    rows = document["rows"]
    return (
        environment()
        .get_template("compare.html")
        .render(
            document=document,
            rows=rows,
            about=about,
            chart=_bars(rows),
            shown=SHOWN,
            scopes=list(dict.fromkeys(row["scope"] for row in rows)),
            command=shlex.join(command),
        )
    )
