"""``vmemmap compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import saving
from ..errors import SpecError
from . import HOLDS, INTERRUPTED, _complete, json_option, print_json, print_notes
from ._html import as_typed, html_option, save

if TYPE_CHECKING:
    from rich.table import Table

    from ..comparison.comparing import Row
    from ..comparison.published import Predicted

#: Columns of times: what is timed, and which quantile.
TIMES = (
    ("allocate in a batch", "batch\nallocate", 0.5),
    ("free in a batch", "batch\nfree", 0.5),
    ("demote", "demote", 0.5),
    ("allocate", "allocate\np99", 0.99),
)


@click.command("compare")
@click.argument("scenario", required=False, shell_complete=_complete.scenarios)
@click.option(
    "--policy",
    shell_complete=_complete.policy_names,
    help="Whose choices; without one, R3 compares A to D and what is beside them, R32 layouts and kernels.",
)
@click.option(
    "--variant", shell_complete=_complete.variants, help="Which variant of the scenario; the first listed by default."
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    shell_complete=_complete.rows,
    help="Only the rows of this name; may be repeated.",
)
@click.option("--cpus", multiple=True, type=int, help="CPUs of the modelled machine; may be repeated.")
@click.option(
    "--machine",
    "source",
    default="arm64",
    show_default=True,
    shell_complete=_complete.machines,
    help="Machine file (TOML), or its name.",
)
@click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), default=0, show_default=True, help="Of modelled CPUs.")
@click.option("--published", is_flag=True, help="Instead: published times, and what the model says of each.")
@html_option
@json_option
def command(
    scenario: str | None,
    policy: str | None,
    variant: str | None,
    only: tuple[str, ...],
    cpus: tuple[int, ...],
    source: str,
    seed: int,
    published: bool,
    html: Path | None,
    as_json: bool,
) -> int:
    """Put all choices of a policy side by side, on the actors of SCENARIO: verdict, operations counted, modelled cost.

    Counts are for one hugepage that is allocated and freed again. Times are modelled: kernel code run on a machine
    whose latencies come from a file, each with its source.

    Exit codes: 0 compared, 2 wrong call, 130 interrupted.

    \b
    Examples:
      vmemmap compare R3
      vmemmap compare R3 --only C --cpus 128 --json
      vmemmap compare R33 --policy update --html update.html
      vmemmap compare --published
    """
    from ..comparison.comparing import check_cpus
    from ..comparison.comparison import compare
    from ..comparison.published import SOURCES, table
    from ._progress import bar

    check_cpus(cpus)
    if published:
        cells: list[Predicted] = []
        with bar("calibrating and predicting", float(len(SOURCES)), "machines") as tick:
            for done, source_of in enumerate(SOURCES, 1):
                cells += table([source_of])[0]
                if tick is not None:
                    tick(done, done, f"of {len(SOURCES)}")
        _answer_published(cells, as_json)
        return HOLDS
    if scenario is None:
        raise SpecError("compare: a scenario is missing, such as R3; vmemmap list shows them")
    if html is not None:
        saving.check(html, "the page")
    with bar(f"comparing on {scenario}", 1.0, "choices") as tick:

        def progress(done: int, total: int) -> None:
            if tick is not None:
                tick(done / total, done, f"of {total}")

        found = compare(
            scenario, policy=policy, variant=variant, only=only, cpus=cpus, machine=source, seed=seed, progress=progress
        )
    if as_json:
        print_json(found.to_dict())
    elif found.rows:
        _print(found.scenario, found.rows)
    if html is not None and found.rows:
        from ..report.compare import compare_page

        words = as_typed()
        save(
            html, lambda: compare_page(found.to_dict(), [row.result for row in found.rows], found.machine.about, words)
        )
    if found.interrupted:
        print_notes([f"interrupted: {len(found.rows)} choices are answered, {', '.join(found.missing)} not"])
        return INTERRUPTED
    return HOLDS


def _new_table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 3 else "right")
    return table


def _print(name: str, rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.markup import escape

    from ..comparison import comparing

    console = Console(width=None if Console().is_terminal else 165)
    machine, size = rows[0].machine, comparing.size_name(rows[0].choice.granule)
    said = _new_table("choice", "kernel", "verdict", "steps", "switches")
    for row in rows:
        shortest = (str(len(row.result.trace)), str(row.switches)) if row.switches is not None else ("", "")
        words = row.result.words if row.result.exhaustive else f"{row.result.words}, search cut"
        title = f"[bold]{row.choice.name}[/bold] {escape(row.choice.title)}"
        remark = f"\n[dim]{escape(row.choice.remark)}[/dim]" if row.choice.remark else ""
        said.add_row(title + remark, row.choice.kernel, escape(words), *shortest)
    console.print(f"[bold]{name}[/bold]: what an exhaustive search says", highlight=False)
    console.print(said)
    console.print(
        f"[bold]One {size} page[/bold], allocated and freed, counted; microseconds a page, modelled on {machine.name} "
        f"({escape(machine.about)})",
        highlight=False,
    )
    console.print(_costs(rows))
    for words in comparing.scope(rows):
        console.print(f"[dim]scope: {escape(words)}[/dim]", highlight=False)


def _costs(rows: Sequence[Row]) -> Table:
    counted = ("TLBI", "DSB", "IPI", "grace\nperiods", "splits", "hole us", "frames\nsaved")
    table = _new_table("choice", "kernel", "CPUs", *counted, *(title for _, title, _ in TIMES))
    for row in rows:
        counts = row.counts()
        assert counts is not None
        figures = (
            f"{counts.tlbi:.1f}",
            f"{counts.dsb:.1f}",
            f"{counts.ipi:.1f}",
            f"{counts.grace_periods:.2f}",
            f"{counts.splits:.3f}",
            f"{counts.hole_ns / 1000:.2f}" if counts.hole_ns else "none",
            f"{row.frames_saved:.2f}",
        )
        for number, work in enumerate(row.works):
            times: list[str] = []
            for phase, _, quantile in TIMES:
                timed = phase in work.phases and not (row.choice.at_boot and phase.startswith("allocate"))
                times.append(f"{work.phases[phase].quantile(quantile) / 1000:.1f}" if timed else "")
            head = (row.choice.name, row.choice.kernel) if not number else ("", "")
            table.add_row(*head, str(work.cpus), *(figures if not number else [""] * len(figures)), *times)
    return table


def _answer_published(cells: list[Predicted], as_json: bool) -> None:
    from rich.console import Console
    from rich.markup import escape

    from ..comparison.published import unmap_range

    before, after = unmap_range()
    change = (after / before - 1) * 100
    if as_json:
        khandual = {"published_percent": -97.0, "modelled_percent": round(change, 1), "source": "48478b9f7913"}
        print_json({"cells": [cell.to_dict() for cell in cells], "unmap_hotplug_range": khandual})
        return
    console = Console(width=None if Console().is_terminal else 165)
    table = _new_table("machine", "figure", "", "published s", "modelled s", "error", "error of\nthe increase")
    for cell in cells:
        how = f"given, sets {cell.cell.sets}" if cell.given else "predicted"
        aimed = "" if cell.within is None else (", within 10 %" if cell.within else ", NOT within 10 %")
        increase = f"{cell.increase_error:+.1f} %" if cell.increase_error is not None else ""
        figures = (f"{cell.cell.seconds:.3f}", f"{cell.modelled:.3f}", f"{cell.error:+.1f} %", increase)
        table.add_row(cell.source.machine, cell.cell.name, how + aimed, *figures)
    console.print(table)
    for cell in cells:
        if cell.cell.remark:
            line = f"{cell.source.machine}, {cell.cell.name}: {cell.cell.remark}"
            console.print(escape(line), highlight=False)
    console.print(
        f"A. Khandual, 48478b9f7913: time in unmap_hotplug_range published -97 % for 2 GB in a guest, modelled "
        f"{change:.1f} % for a block of 128 MB, on latencies that are assumed (arm64) and no hypervisor.",
        highlight=False,
    )
    for source in {cell.source.machine: cell.source for cell in cells}.values():
        console.print(f"{source.machine}: {escape(source.about)}; {escape(source.source)}", highlight=False)
