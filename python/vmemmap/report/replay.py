"""A replay as one HTML page or as text: the lanes, both histories of the violation, and every step."""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.replay import ReplayResult
from . import environment
from .columns import columns
from .player import player

__all__ = ["history", "page", "text"]


def history(result: ReplayResult) -> list[str]:
    """Who gave the frame or table away and who still had it in hand, and who holds which lock: a line each."""
    lines: list[str] = []
    for entry in result.histories:
        how = {"freed": "freed by", "unlinked": "its entry cleared by", "held": "in the hands of"}[entry["role"]]
        what = " ".join(part for part in (entry["op"], entry["place"]) if part)
        label = f" ({entry['label']})" if entry["label"] else ""
        last = "last in step" if entry["role"] == "held" else "in step"
        lines.append(f"{how} {entry['actor']}, {last} {entry['step']}: {what}{label}")
    lines += [f"{held['lock']} held by {held['actor']} since step {held['step']}" for held in result.locks]
    return lines


def _facts(result: ReplayResult) -> Sequence[tuple[str, str]]:
    recorded = result.raw["recorded"]
    strategy = recorded["strategy"] + (f", seed {recorded['seed']}" if recorded["seed"] is not None else "")
    chosen = ", ".join(f"{row}={value}" for row, value in sorted(result.policies.items()))
    return [
        ("scenario", f"{result.scenario} {result.variant}"),
        ("kernel", result.kernel),
        ("found by", f"{strategy}; version {recorded['version']}"),
        ("memory model", recorded["memory_model"]),
        ("shortest", "no shorter trace exists" if recorded["shortest"] else "not proven"),
        ("policies", chosen),
    ]


def page(result: ReplayResult) -> str:
    """The page; opens without a network and is read without a script."""
    shown = environment()
    title = f"{result.scenario} {result.variant}: {result.invariant}"
    drawn = player(result.trace, result.violation, title, result.granule) if result.violation else None
    return shown.get_template("replay.html").render(
        title=title,
        result=result,
        facts=_facts(result),
        histories=history(result),
        player=drawn,
        version=result.raw["version"],
    )


def text(result: ReplayResult) -> str:
    """The same for a terminal."""
    lines = [f"{result.scenario} {result.variant}, kernel {result.kernel}: {result.words}", *result.notes]
    if result.trace:
        lines += ["", columns(result.trace), ""]
    if result.violation is not None:
        lines.append(f"{result.violation.invariant}: {result.violation.message}")
        lines += [f"  {line}" for line in history(result)]
    return "\n".join(lines)
