"""The report of ``vmemmap run``: one HTML file that opens without a network and is read without a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..lab.saving import whole
from ..lab.trace import Step, Violation, switches
from .lanes import svg

__all__ = ["environment", "render", "write"]


def environment() -> Environment:
    """Templates of this package, every value escaped."""
    shown = Environment(
        loader=PackageLoader(__name__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown.filters["thousands"] = lambda value: f"{value:,}"
    shown.filters["ns"] = _duration
    return shown


def _duration(ns: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.0f} ns"


def _pictures(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One picture for each violated row that has a trace; `anchor` is what the table links to."""
    found: list[dict[str, Any]] = []
    for row in rows:
        result: Mapping[str, Any] = row["result"]
        if not result.get("violation") or not result.get("trace"):
            continue
        trace = [Step.from_dict(step) for step in result["trace"]]
        violation = Violation.from_dict(result["violation"])
        title = f"{row['layout']}, {row['policy']}, kernel {row['kernel']}: {violation.invariant}"
        found.append(
            {
                "anchor": row["anchor"],
                "title": title,
                "row": row,
                "violation": violation.to_dict(),
                "switches": switches(trace),
                "svg": Markup(svg(trace, violation, title)),
            }
        )
    return found


def render(document: Mapping[str, Any]) -> str:
    """The page for what `vmemmap run` found, as `acceptance.RunResult.to_dict` gives it."""
    shown = environment()
    rows: list[dict[str, Any]] = [{**row, "anchor": f"trace-{index}"} for index, row in enumerate(document["rows"])]
    style = shown.get_template("style.css").render()
    pictures = _pictures(rows)
    return shown.get_template("page.html").render(
        run={**document, "rows": rows},
        style=Markup(style),
        pictures=pictures,
        drawn={picture["anchor"] for picture in pictures},
    )


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write the page, whole or not at all."""
    text = render(document)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as file:
        file.write(text)
