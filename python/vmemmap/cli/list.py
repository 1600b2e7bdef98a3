"""``vmemmap list``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from . import HOLDS, INCONCLUSIVE, _complete, json_option, print_json

if TYPE_CHECKING:
    from ..lab.matrix import Cell


@click.command("list")
@click.argument("scenarios", nargs=-1, shell_complete=_complete.scenarios)
@click.option("--matrix", "as_matrix", is_flag=True, help="Explore each on every kernel behaviour as that kernel is.")
@json_option
def command(scenarios: tuple[str, ...], as_matrix: bool, as_json: bool) -> int:
    """List the scenarios, or those named: corpus number, variants, and what each variant is expected to show.

    With --matrix the answer is found, not listed: one exploration for each kernel behaviour and scenario. It takes a
    minute or two; the cells done are counted on standard error. Exit code 3 if a cell was not decided.

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
    from ..lab.matrix import matrix

    def progress(done: int, total: int) -> None:
        if done % 20 == 0 or done == total:
            click.echo(f"vmemmap: {done} of {total} cells", err=True)

    cells = matrix(scenarios, None if as_json and scenarios else progress)
    if as_json:
        print_json([cell.to_dict() for cell in cells])
    else:
        _print(cells)
    return INCONCLUSIVE if any(cell.verdict == "inconclusive" for cell in cells) else HOLDS


def _print(cells: Sequence[Cell]) -> None:
    kernels = list(dict.fromkeys(cell.kernel for cell in cells))
    rows = list(dict.fromkeys(cell.corpus for cell in cells))
    by_place = {(cell.corpus, cell.kernel): cell for cell in cells}
    width = max(len(corpus) for corpus in rows)
    click.echo(" " * width + "".join(f"  {kernel:8}" for kernel in kernels).rstrip())
    for corpus in rows:
        words = (_word(by_place[corpus, kernel]) for kernel in kernels)
        click.echo(f"{corpus:{width}}" + "".join(f"  {word:8}" for word in words).rstrip())
    click.echo("\nI…: the invariant that falls, safe: every interleaving searched, -: not applicable.\n")
    for cell in cells:
        click.echo(f"{cell.corpus:{width}}  {cell.kernel:8}  {cell.command or 'not applicable'}: {cell.why}")


def _word(cell: Cell) -> str:
    return {"violated": cell.invariant or "violated", "not applicable": "-"}.get(cell.verdict, cell.verdict)
