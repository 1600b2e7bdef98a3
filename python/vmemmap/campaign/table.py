"""A campaign as people read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .job import Job
from .results import Group, Shown

__all__ = ["print_matrix", "print_since", "print_table"]

_MOST_FAILED: Final = 10
"""Lines of them below a table."""


def _plain(text: object) -> Text:
    """What came from a file goes to a terminal as text: no markup, and no control characters."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text)))


def _verdict(words: str) -> Text:
    text = _plain(words)
    text.stylize("red" if "violated" in words else "green" if words == "safe" or words.startswith("safe in") else "dim")
    return text


def _changes(job: Job) -> str:
    """What the job has otherwise than its variant."""
    parts = [f"{name}={value}" for name, value in job.policies]
    parts += [f"kernel {job.kernel}"] if job.kernel else []
    parts += [f"{job.granule} pages"] if job.granule else []
    return " ".join(parts)


def _how(job: Job) -> str:
    if job.kind == "stress":
        return (
            "stress"
            + (f" {job.threads} threads" if job.threads else "")
            + (" unchecked" if job.checked is False else "")
        )
    split = f" split {job.split}" if job.split else ""
    return f"{job.strategy}" + (f" depth {job.depth}" if job.depth else "") + split


def _rate(group: Group) -> str:
    return f"{group.rate:,.0f}" if group.finished else ""


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(
            column, justify="right" if column in ("jobs", "seconds", "rate /s", "before", "now", "ratio") else "left"
        )
    return table


def print_table(console: Console, shown: Shown) -> None:
    """One line for all jobs that differ in their seed only, or are parts of one search."""
    table = _table("scenario", "variant", "changed", "how", "jobs", "verdict", "seconds", "rate /s")
    for group in shown.groups:
        job = group.job
        words = _verdict(group.words)
        if group.differs:
            words.append(
                ", NOT as expected" if group.finished[0].expect else ", nothing was expected", style="bold red"
            )
        first = (_plain(job.scenario), _plain(job.variant), _plain(_changes(job)), _how(job), str(len(group.rows)))
        table.add_row(*first, words, f"{group.seconds:.1f}" if group.finished else "", _rate(group))
    console.print(table)
    _print_foot(console, shown)


def print_matrix(console: Console, shown: Shown) -> None:
    """What runs in the lines, how and on what in the columns."""
    columns: dict[str, None] = {}
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for group in shown.groups:
        job = group.job
        rest = " ".join(
            part for part in (_how(job), f"kernel {job.kernel}" if job.kernel else "", job.granule or "") if part
        )
        columns[rest] = None
        policies = " ".join(f"{name}={value}" for name, value in job.policies)
        cell = lines.setdefault((f"{job.scenario} {job.variant}", policies), {})
        cell[rest] = "; ".join(filter(None, (cell.get(rest), group.words)))
    table = _table("scenario", "policies")
    for column in columns:
        table.add_column(_plain(column))
    for (name, policies), cells in lines.items():
        table.add_row(_plain(name), _plain(policies), *(_verdict(cells.get(column, "")) for column in columns))
    console.print(table)
    _print_foot(console, shown)


def print_since(console: Console, shown: Shown) -> None:
    """What another version answered otherwise, and how fast it was."""
    since = shown.since
    if since is None:
        return
    if since.changes:
        table = _table("scenario", "variant", "seed", "before", "now")
        for change in since.changes:
            job, now = change.row.job, change.row.result
            verdicts = [_verdict(" ".join([r.verdict, *r.violated])) if r else Text("") for r in (change.before, now)]
            table.add_row(
                _plain(job.scenario), _plain(job.variant), str(job.seed if job.seed is not None else ""), *verdicts
            )
        console.print(table)
    table = _table("scenario", "variant", "how", "before", "now", "ratio")
    for rate in since.rates:
        names = (_plain(rate.job.scenario), _plain(rate.job.variant), _how(rate.job))
        table.add_row(*names, f"{rate.before:,.0f}", f"{rate.now:,.0f}", f"{rate.ratio:.2f}")
    console.print(table)
    changed = f"{len(since.changes) or 'no'} verdict{'' if len(since.changes) == 1 else 's'} changed"
    text = f"{since.compared} jobs compared with version {since.version}: {changed}; rates per second"
    console.print(_plain(text), highlight=False)


def _print_foot(console: Console, shown: Shown) -> None:
    counts = [
        f"{shown.count(state)} {state}"
        for state in ("finished", "waiting", "failed")
        if shown.count(state) or state == "finished"
    ]
    versions = dict.fromkeys(row.result.shown_version for row in shown.rows if row.result)
    hosts = dict.fromkeys(row.result.host for row in shown.rows if row.result)
    parts = [f"{shown.round.title}: " if shown.round.title else "", f"{len(shown.rows)} jobs: {', '.join(counts)}"]
    parts += [f"; version {_listed(versions)}; on {_listed(hosts)}"] if versions else []
    console.print(_plain("".join(parts)), highlight=False)
    failed = [row for row in shown.rows if row.state == "failed"]
    for row in failed[:_MOST_FAILED]:
        console.print(_plain(f"  {row.job.scenario} {row.job.variant} failed: {row.failed}"), highlight=False)
    if len(failed) > _MOST_FAILED:
        console.print(f"  and {len(failed) - _MOST_FAILED} more failed", highlight=False)


def _listed(names: Sequence[str] | dict[str, None]) -> str:
    found = list(names)
    return ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
