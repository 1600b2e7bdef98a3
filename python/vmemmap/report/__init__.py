"""Reports: one HTML file each, that opens without a network and is read without a script.

The script of a page only steps through what is there; a policy in the page's head names it by its hash and allows
nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .. import __version__
from ..lab.trace import Step, Violation, switches
from ..saving import whole_text
from .charts import Column, chart
from .glossary import TERMS, anchor, linked
from .kinds import Case, kinds
from .mapped import Map, mapped_text
from .player import player

__all__ = ["duration", "environment", "render", "write"]


def environment() -> Environment:
    """Templates of this package, every value escaped."""
    loader = PackageLoader(__name__, "")
    shown = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown.filters["thousands"] = lambda value: f"{value:,}"
    shown.filters["ns"] = duration
    shown.filters["terms"] = linked
    shown.filters["anchor"] = anchor
    script = shown.get_template("player.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # What jinja2 puts there itself is all that its type allows.
    known = cast("dict[str, object]", shown.globals)
    known |= {
        "script": Markup(script),
        "script_hash": f"sha256-{digest}",
        "style": Markup(shown.get_template("style.css").render()),
        "terms": TERMS,
        "version": __version__,
    }
    return shown


def duration(ns: float) -> str:
    """Nanoseconds as people write them."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.0f} ns"


_MODELLED: Final = (
    Column("modelled time of a page", "ns", duration),
    Column("frames saved, net", "frames_saved", lambda n: f"{n:g}", gain=True),
)


def _cases(rows: Sequence[Mapping[str, Any]]) -> list[Case]:
    """The violated rows, each with the drawing of its trace if it has one."""
    found: list[Case] = []
    for row in rows:
        result: Mapping[str, Any] = row["result"]
        if not any(cell["state"] == "violated" for cell in row["cells"].values()):
            continue
        steps = [Step.from_dict(step) for step in result.get("trace") or ()]
        raw = result.get("violation")
        violation = Violation.from_dict(raw) if raw else None
        title = f"{row['layout']}, {row['policy']}, kernel {row['kernel']}"
        drawn = player(steps, violation, title, row["layout"].partition(",")[0])
        found.append(Case(row, drawn, violation.step if violation else 0, switches(steps)))
    return found


def _maps(dumps: Sequence[tuple[str, str]], granule: int) -> list[tuple[str, Map]]:
    """Titles and drawings of those that show a vmemmap."""
    return [(title, found) for title, text in dumps if (found := mapped_text(text, granule)) is not None]


def render(document: Mapping[str, Any], dumps: Sequence[tuple[str, str]] = (), granule: int = 4096) -> str:
    """The page for what `vmemmap run` found, as `acceptance.RunResult.to_dict` gives it; `dumps` are titles and texts
    of the vmemmaps that are drawn.
    """
    rows: list[dict[str, Any]] = [{**row, "anchor": f"row-{index}"} for index, row in enumerate(document["rows"])]
    cases = _cases(rows)
    gathered = kinds(cases)
    drawn = {
        case.row["anchor"]: kind.anchor if case is kind.first else case.row["anchor"]
        for kind in gathered
        for case in kind.cases
    }
    costs = [row for row in rows if row["cost"]]
    most = {
        layout: {name: max(row["cost"][name] for row in costs if row["layout"] == layout) for name in costs[0]["cost"]}
        for layout in {row["layout"] for row in costs}
    }
    return (
        environment()
        .get_template("page.html")
        .render(
            run={**document, "rows": rows},
            kinds=gathered,
            violated=len(cases),
            drawn=drawn,
            costs=costs,
            most=most,
            maps=_maps(dumps, granule),
            modelled=chart(document.get("modelled", {}).get("rows", ()), _MODELLED),
        )
    )


def write(document: Mapping[str, Any], path: Path, dumps: Sequence[tuple[str, str]] = (), granule: int = 4096) -> None:
    """Write the page, whole or not at all."""
    text = render(document, dumps, granule)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_text(path) as file:
        file.write(text)
