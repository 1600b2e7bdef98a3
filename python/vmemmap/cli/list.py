"""``vmemmap list``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import click

from ..spec import KERNELS
from . import HOLDS, INCONCLUSIVE, INTERRUPTED, _complete, json_option, print_json, print_notes

if TYPE_CHECKING:
    from ..lab.matrix import Cell


@click.command("list")
@click.argument("scenarios", nargs=-1, shell_complete=_complete.scenarios)
@click.option("--matrix", "as_matrix", is_flag=True, help="Explore each on every kernel behaviour as that kernel is.")
@json_option
def command(scenarios: tuple[str, ...], as_matrix: bool, as_json: bool) -> int:
    """List the scenarios, or those named: corpus number, variants, and what each variant is expected to show.

    With --matrix the answer is found, not listed: one exploration for each kernel behaviour and scenario. It takes a
    minute or two. Exit code 3 if a cell was not decided; 130 if interrupted, with the cells that were found.

    \b
    Examples:
      vmemmap list R6
      vmemmap list --json
      vmemmap list --matrix R6 R36
    """
    from ..lab.scenario import find, registry

    if as_matrix:
        return _matrix(scenarios, as_json)
    listed = [find(name) for name in scenarios] or registry()
    if as_json:
        print_json([scenario.to_dict() for scenario in listed])
        return HOLDS
    for scenario in listed:
        click.echo(f"{scenario.corpus or '-':4} {scenario.name}: {scenario.title}")
        for source in scenario.sources:
            click.echo(f"       {source}")
        width = max(len(variant.name) for variant in scenario.variants)
        for variant in scenario.variants:
            violated = f" {' '.join(variant.invariants)}" if variant.invariants else ""
            differs = ", ".join(f"{row}={value}" for row, value in variant.policies.items()) or "as the kernel does"
            click.echo(f"     {variant.name:{width}}  {variant.expect}{violated}  (kernel {variant.kernel}; {differs})")
    return HOLDS


def _matrix(scenarios: Sequence[str], as_json: bool) -> int:
    from ..lab import matrix
    from ._progress import bar

    found: list[Cell] = []
    total: int | None = None
    interrupted = False
    try:
        with bar("exploring the matrix", 1.0, "cells") as tick, closing(matrix.cells(scenarios)) as cells:
            for total, cell in cells:
                found.append(cell)
                if tick is not None:
                    tick(len(found) / total, len(found), f"of {total}")
    except KeyboardInterrupt:
        interrupted = True
    cells_found = matrix.in_order(found if scenarios or interrupted else [*found, *matrix.not_modelled()])
    if as_json:
        print_json([cell.to_dict() for cell in cells_found])
    elif cells_found:
        _print(cells_found)
    if interrupted:
        print_notes([f"interrupted: {len(found)} of {total or 'all'} cells"])
        return INTERRUPTED
    return INCONCLUSIVE if any(cell.verdict == "inconclusive" for cell in found) else HOLDS


def _print(cells: Sequence[Cell]) -> None:
    kernels = [kernel for kernel in KERNELS if any(cell.kernel == kernel for cell in cells)]
    rows = list(dict.fromkeys(cell.corpus for cell in cells))
    words = {(cell.corpus, cell.kernel): _word(cell) for cell in cells}
    width = max(len(corpus) for corpus in rows)
    click.echo(" " * width + "".join(f"  {kernel:8}" for kernel in kernels).rstrip())
    for corpus in rows:
        line = "".join(f"  {words.get((corpus, kernel), ''):8}" for kernel in kernels)
        click.echo(f"{corpus:{width}}{line}".rstrip())
    click.echo("\nI…: the invariant that falls, safe: every interleaving searched, -: not applicable.\n")
    for cell in cells:
        click.echo(f"{cell.corpus:{width}}  {cell.kernel:8}  {cell.command or 'not applicable'}: {cell.why}")


def _word(cell: Cell) -> str:
    return {"violated": cell.invariant or "violated", "not applicable": "-"}.get(cell.verdict, cell.verdict)
