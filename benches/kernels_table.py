"""Writes the tables of docs/kernels.md, from ``vmemmap list --matrix --json``: ``make kernels-table``.

    kernels_table.py            explore all cells, write the tables
    kernels_table.py --against  explore all cells, print what differs from the page; exit 1 if anything does

What stands outside the marks is written by hand and stays.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TypedDict

DOCS = Path(__file__).resolve().parent.parent / "docs" / "kernels.md"
MARKS = ("<!-- matrix: written by benches/kernels_table.py -->", "<!-- matrix: end -->")


class Cell(TypedDict):
    """An object of ``vmemmap list --matrix --json``."""

    corpus: str
    kernel: str
    verdict: str
    invariant: str | None
    why: str
    command: str | None


def vmemmap(*arguments: str) -> object:
    command = [str(Path(sys.executable).with_name("vmemmap")), *arguments]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}")
    return json.loads(done.stdout)


def word(cell: Cell) -> str:
    if cell["verdict"] == "violated":
        return f"**{cell['invariant']}**"
    return "–" if cell["verdict"] == "not applicable" else cell["verdict"]


def overview(cells: Sequence[Cell], titles: dict[str, str]) -> list[str]:
    kernels = list(dict.fromkeys(cell["kernel"] for cell in cells))
    lines = [f"| | {' | '.join(kernels)} | |", "|---|" + "---|" * (len(kernels) + 1)]
    for corpus, row in groupby(cells, key=lambda cell: cell["corpus"]):
        lines.append(f"| {corpus} | {' | '.join(word(cell) for cell in row)} | {titles.get(corpus, 'no scenario')} |")
    return lines


def commands(cells: Sequence[Cell]) -> list[str]:
    """A row for each cell; kernels that are not applicable for the same reason share one."""
    lines = ["| | kernel | | shown by | |", "|---|---|---|---|---|"]
    for (corpus, _, _), same in groupby(cells, key=lambda cell: (cell["corpus"], cell["command"], cell["why"])):
        group = list(same)
        first = group[0]
        command = f"`{first['command']}`" if first["command"] else ""
        kernels = ", ".join(cell["kernel"] for cell in group)
        lines.append(f"| {corpus} | {kernels} | {word(first)} | {command} | {first['why'].replace('|', '&#124;')} |")
    return lines


def page(cells: Sequence[Cell], titles: dict[str, str]) -> str:
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    tables = [*overview(cells, titles), "", "## Each cell, and the command that shows it", "", *commands(cells)]
    return f"{before}{MARKS[0]}\n\n" + "\n".join(tables) + f"\n\n{MARKS[1]}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes the tables of docs/kernels.md.")
    parser.add_argument("--against", action="store_true", help="compare with the page instead of writing it")
    against = parser.parse_args().against
    cells: list[Cell] = vmemmap("list", "--matrix", "--json")  # type: ignore[assignment]
    scenarios: list[dict[str, str]] = vmemmap("list", "--json")  # type: ignore[assignment]
    titles: dict[str, str] = {}
    for scenario in scenarios:
        titles.setdefault(scenario["corpus"], scenario["title"])
    new, old = page(cells, titles), DOCS.read_text(encoding="utf-8")
    if not against:
        DOCS.write_text(new, encoding="utf-8")
        return 0
    missing = set(old.splitlines()) ^ set(new.splitlines())
    print("\n".join(line for line in (*old.splitlines(), *new.splitlines()) if line in missing))
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
