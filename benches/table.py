"""Writes the table of ``vmemmap bench`` into docs/performance.md, with the commit and the host that it is of: ``make
bench-table``.

Figures of another commit or host do not stand beside it: the table is replaced as a whole, never edited.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "performance.md"
MARKS = ("<!-- bench: written by benches/table.py -->", "<!-- bench: end -->")


def commit() -> str:
    """The commit that was measured; a tree with changes says so."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return described.stdout.strip()


def host() -> str:
    """What the figures hang on, without the host's name."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    model = found[1] if found else platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} CPUs, {platform.machine()}, load {os.getloadavg()[0]:.1f}"


def table(rows: Sequence[Mapping[str, Any]], measured: str, where: str) -> str:
    lines = [
        f"Commit `{measured}`, on {where}.",
        "",
        "| row | value | limit | unit | ratio | median | what |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = (
            f"{row['value']:.4g} | {row['limit']:.4g} | {row['unit']} | {row['ratio']:.3f} | {row['ratio_median']:.3f}"
        )
        lines.append(f"| `{row['name']}` | {figures} | {row['what'].replace('against', '**against**')} |")
    return "\n".join(lines)


def replaced(text: str, new: str) -> str:
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n\n{new}\n\n{MARKS[1]}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, help="take these rows, of `vmemmap bench --json`, instead of measuring")
    arguments = parser.parse_args()
    where = host()
    if arguments.rows:
        answer = arguments.rows.read_text(encoding="utf-8")
    else:
        program = "import sys; from vmemmap.cli import main; sys.exit(main())"
        answer = subprocess.run(
            [sys.executable, "-c", program, "bench", "--json"], capture_output=True, text=True, check=True
        ).stdout
    DOCS.write_text(
        replaced(DOCS.read_text(encoding="utf-8"), table(json.loads(answer), commit(), where)), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
