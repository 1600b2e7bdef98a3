"""``vmemmap run``."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import SpecError
from ..spec import parse_granule
from . import json_option, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from ..acceptance.acceptance import RunResult
    from ..acceptance.policy_table import Cell, Row

#: Seconds for all explorations together; with the acceptance test a run stays below a minute.
EXPLORE_SECONDS = 38.0


@click.command("run")
@click.option(
    "--input", "source", type=click.Path(path_type=Path), help="Table image (.npz) or kernel_page_tables text."
)
@click.option(
    "--seconds", type=click.FloatRange(0.1, 86_400.0), default=12.0, show_default=True, help="Of the acceptance test."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("vmemmap-report"),
    show_default=True,
    help="Where the report goes.",
)
@json_option
def command(source: Path | None, seconds: float, out: Path, as_json: bool) -> int:
    """Put the question of May 2021 to the tables of a real kernel.

    Exit codes: 0 the acceptance test held and every verdict is the expected one, 1 a difference, 2 wrong call or input,
    3 inconclusive, 130 interrupted.

    \b
    Examples:
      vmemmap run
      vmemmap run --input capture.npz --seconds 30 --out report
    """
    from rich.console import Console

    from .. import report, saving
    from ..acceptance import acceptance, found, policy_table
    from ._progress import bar, waiting

    if math.isnan(seconds):
        raise SpecError("--seconds nan: expected a number from 0.1 to 86400")
    begin = time.monotonic()
    terminal = Console(width=None if Console().is_terminal else 165)
    tables = found.find(source or found.shipped())
    run = acceptance.RunResult(tables, datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"))
    run.expected_rows = len(policy_table.cases())
    # Better now than when a minute's work is to be saved.
    if not out.exists():
        click.get_current_context().call_on_close(lambda: _remove_if_empty(out))
    out.mkdir(parents=True, exist_ok=True)
    if not os.access(out, os.W_OK):
        raise SpecError(f"{out}: the report cannot be saved there")
    if not as_json:
        _print_facts(terminal, run)
    try:
        with bar("acceptance test, real threads", seconds, "operations") as tick:

            def look(operations: int, violations: int, so_far: float, _counters: dict[str, int]) -> None:
                if tick is not None:
                    tick(so_far, operations, f"{violations:,} violations" if violations else "")

            run.acceptance = acceptance.accept(tables, seconds, look if tick is not None else None)
        run.interrupted = run.acceptance.result.interrupted
        if not run.interrupted:
            explored = policy_table.explore_all(os.cpu_count() or 1, EXPLORE_SECONDS)
            with bar("exploring policies", float(run.expected_rows), "policies") as tick, closing(explored) as rows:
                for row in rows:
                    run.rows.append(row)
                    if tick is not None:
                        tick(len(run.rows), len(run.rows), f"of {run.expected_rows}")
    except KeyboardInterrupt:
        run.interrupted = True
    run.rows = policy_table.in_order(run.rows)
    document = run.to_dict()
    if not run.interrupted:
        with waiting("modelling costs"):
            document["modelled"] = _modelled(run.rows)
    run.seconds = time.monotonic() - begin
    document["seconds"] = run.seconds
    if as_json:
        print_json(document)
    else:
        _print_result(terminal, run)
    if run.acceptance is not None:
        after = [(f"After: {words}", text) for words, text in [run.found.after] if text] if run.found.after else []
        dumps = [(f"Before: vmemmap of {run.found.path.name}" if after else "Its vmemmap", run.found.dump), *after]
        report.write(document, out / "report.html", dumps, run.found.granule)
        with saving.whole_text(out / "result.json") as file:
            file.write(json.dumps(document, indent=1) + "\n")
        if not as_json:
            terminal.print(f"report: {out / 'report.html'}", highlight=False, soft_wrap=True)
    return run.exit_code


def _remove_if_empty(folder: Path) -> None:
    """Interrupted before there was anything to report."""
    with suppress(OSError):
        folder.rmdir()


PAGE = "hugepage of the PMD's size"
#: CPUs of the modelled machine.
CPUS = 64


def _modelled(rows: Sequence[Row]) -> dict[str, object]:
    """What each policy that optimises costs on a modelled machine, as ``vmemmap compare`` says it of the approaches."""
    from ..comparison import machine_file, workload

    machine = machine_file.load("arm64")
    found: dict[tuple[str, str, str], dict[str, object]] = {}
    for row in rows:
        case = row.case
        key = (case.granule, case.policy, case.kernel)
        if row.cost is None or key in found:
            continue
        work = workload.run(machine, kernel=case.kernel, granule=case.granule, policies=case.policies, cpus=CPUS)
        found[key] = {
            "group": f"{case.granule} pages",
            "label": f"{case.policy}, {case.kernel}",
            "policies": dict(case.policies),
            "kernel": case.kernel,
            "ns": round(
                sum(work.phases[phase].quantile(0.5) for phase in ("allocate in a batch", "free in a batch")), 1
            ),
            "frames_saved": row.cost.frames_saved,
        }
    ordered = sorted(found.values(), key=lambda row: parse_granule(str(row["group"]).split()[0]))
    return {"machine": machine.name, "about": machine.about, "cpus": CPUS, "page": PAGE, "rows": ordered}


def _print_facts(console: Console, run: RunResult) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for label, value in run.found.facts:
        table.add_row(label, value)
    console.print(table)
    console.print()


def _print_result(console: Console, run: RunResult) -> None:
    from ..acceptance.acceptance import CAVEAT, COST_NOTE, WALKER_NOTE

    for title in dict.fromkeys(row.case.group for row in run.rows):
        _print_group(console, title, [row for row in run.rows if row.case.group == title])
    for note in (COST_NOTE, WALKER_NOTE) if run.rows else ():
        console.print(f"[dim]{note}[/dim]\n", highlight=False)
    console.print(f"[bold]{run.answer}[/bold]", highlight=False)
    console.print(CAVEAT, highlight=False)
    console.print(f"{run.seconds:.1f} s", highlight=False)


def _print_group(console: Console, title: str, rows: list[Row]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from ..acceptance.policy_table import COLUMNS

    table = Table(
        box=box.SIMPLE_HEAD,
        header_style="bold",
        padding=(0, 1, 0, 0),
        title=title,
        title_justify="left",
        title_style="bold",
    )
    table.add_column("policy", min_width=26)
    table.add_column("kernel", width=6)
    for name, ids in COLUMNS.items():
        heading = name.replace("before-", "before-\n")
        table.add_column(f"{heading}\n[dim]{' '.join(ids)}[/dim]", width=13)
    for name in ("TLBI", "DSB", "store", "frame\nsaved"):
        table.add_column(name, justify="right", width=5)
    table.add_column("verdict", min_width=20, ratio=1)
    for row in rows:
        spent = row.cost
        figures = (spent.tlbi, spent.dsb, spent.stores, spent.frames_saved) if spent else ("", "", "", "")
        table.add_row(
            escape(row.case.policy)
            if len({other.case.granule for other in rows}) == 1
            else f"{row.case.granule} {escape(row.case.policy)}",
            row.case.kernel,
            *(_cell(row.cells[name]) for name in COLUMNS),
            *(str(figure) for figure in figures),
            f"{escape(row.verdict)}, [dim]as expected[/dim]"
            if not row.differs
            else f"{escape(row.verdict)}, [bold red]NOT as expected: {escape(', '.join(row.differs))}[/bold red]",
        )
    console.print(table)
    for words in dict.fromkeys(row.result.scope_words for row in rows):
        console.print(f"[dim]scope: {escape(words)}[/dim]", highlight=False)
    console.print()


def _cell(cell: Cell) -> str:
    if cell.state == "violated":
        steps = f"\n{cell.steps} steps" if cell.steps else ""
        return f"[red]{' '.join(cell.invariants)}{steps}[/red]"
    return "[green]held[/green]" if cell.state == "held" else f"[dim]{cell.state}[/dim]"
