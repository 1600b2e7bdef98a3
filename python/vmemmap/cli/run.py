"""``vmemmap run``."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import json_option, print_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from ..acceptance import RunResult
    from ..policy_table import Cell

#: Seconds that each exploration may take; a row that needs more is reported as not exhaustive.
ROW_BUDGET = 20.0


@click.command("run")
@click.option("--input", "source", type=click.Path(path_type=Path), help="Table image (.npz) or kernel_page_tables text.")
@click.option("--seconds", type=click.FloatRange(0.1, 86_400.0), default=10.0, show_default=True, help="Of the acceptance test.")
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
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from .. import acceptance, found, policy_table, report

    begin = time.monotonic()
    log = Console(stderr=True)
    terminal = Console(width=None if Console().is_terminal else 160)
    tables = found.find(source or found.shipped())
    run = acceptance.RunResult(tables, datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"))
    run.expected_rows = len(policy_table.cases())
    if not as_json:
        _print_facts(terminal, run)
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=log, transient=True) as progress:
            with _clock(progress, "acceptance test, real threads", seconds):
                run.acceptance = acceptance.accept(tables, seconds)
            run.interrupted = run.acceptance.result.interrupted
            task = progress.add_task("exploring policies", total=run.expected_rows)
            if not run.interrupted:
                for row in policy_table.explore_all(os.cpu_count() or 1, ROW_BUDGET):
                    run.rows.append(row)
                    progress.advance(task)
    except KeyboardInterrupt:
        run.interrupted = True
    run.rows = policy_table.in_order(run.rows)
    run.seconds = time.monotonic() - begin
    document = run.to_dict()
    if as_json:
        print_json(document)
    else:
        _print_result(terminal, run)
    if run.acceptance is not None:
        report.write(document, out / "report.html")
        (out / "result.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        if not as_json:
            terminal.print(f"report: {out / 'report.html'}", highlight=False, soft_wrap=True)
    return run.exit_code


@contextmanager
def _clock(progress: Progress, name: str, seconds: float) -> Iterator[None]:
    """A bar that follows the time, while the core works in this thread and may be interrupted there."""
    task: TaskID = progress.add_task(name, total=round(seconds * 10))
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.1):
            progress.advance(task)

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        over.set()
        ticker.join()
        progress.update(task, completed=round(seconds * 10))


def _print_facts(console: Console, run: RunResult) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for label, value in run.found.facts:
        table.add_row(label, value)
    console.print(table)
    console.print()


def _print_result(console: Console, run: RunResult) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ..policy_table import COLUMNS

    if run.rows:
        table = Table(show_lines=False, header_style="bold", title="policy → invariants", title_justify="left")
        table.add_column("layout, policy, kernel", min_width=34)
        for name, ids in COLUMNS.items():
            table.add_column(f"{name}\n[dim]{' '.join(ids)}[/dim]")
        for name in ("TLBI", "DSB", "stores", "frames\nsaved"):
            table.add_column(name, justify="right")
        table.add_column("verdict")
        table.add_column("as\nexpected")
        group = None
        for row in run.rows:
            if row.case.group != group:
                group = row.case.group
                table.add_section()
                table.add_row(f"[bold]{escape(group)}[/bold]")
            spent = row.cost
            figures = (spent.tlbi, spent.dsb, spent.stores, spent.frames_saved) if spent else ("", "", "", "")
            table.add_row(
                f"{row.case.layout} {escape(row.case.policy)} {row.case.kernel}",
                *(_cell(row.cells[name]) for name in COLUMNS),
                *(str(figure) for figure in figures),
                escape(row.result.words),
                "yes" if not row.differs else f"[bold red]NO: {escape(', '.join(row.differs))}[/bold red]",
            )
        console.print(table)
        seen: set[str] = set()
        for row in run.rows:
            if row.result.scope_words not in seen:
                seen.add(row.result.scope_words)
                console.print(f"[dim]scope: {escape(row.result.scope_words)}[/dim]", highlight=False)
    from ..acceptance import CAVEAT, COST_NOTE

    console.print()
    if run.rows:
        console.print(f"[dim]{COST_NOTE}[/dim]", highlight=False)
    console.print(run.answer, highlight=False)
    console.print(CAVEAT, highlight=False)
    console.print(f"{run.seconds:.1f} s", highlight=False)


def _cell(cell: Cell) -> str:
    if cell.state == "violated":
        steps = f" {cell.steps} steps" if cell.steps else ""
        return f"[red]{' '.join(cell.invariants)}{steps}[/red]"
    return "[green]held[/green]" if cell.state == "held" else f"[dim]{cell.state}[/dim]"
