"""Compares ``vmemmap bench`` with that of another commit: ``make bench-against COMMIT=…``.

The commit is built in a folder of its own, below target/. Row by row both builds are measured in turns; whoever goes
first in one turn goes last in the next. What is compared is the best round of each: "faster" is how many times as fast
the new one is. A row is worse if it is so by more than the margin twice over: by its figure, and by that figure's ratio
to the limit measured beside it, so that neither a host that slows down in between nor a limit that was made another
one says so alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
MEASURE = "import json, sys; from vmemmap.bench import measure; print(json.dumps(measure(sys.argv[1]).to_dict()))"
NAMES = "import json; from vmemmap.bench import NAMES; print(json.dumps(list(NAMES)))"


def refused(message: str) -> NoReturn:
    print(f"bench-against: {message}", file=sys.stderr)
    sys.exit(2)


def resolved(commit: str) -> str:
    asked = ["git", "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"]
    found = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        refused(f"there is no commit {commit} in this checkout")
    return found.stdout.strip()


def built(commit: str) -> Path:
    """The folder where that commit is checked out and built; kept for the next time."""
    folder = ROOT / "target" / "against" / commit[:12]
    if not (folder / "Makefile").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "worktree", "add", "--force", "--detach", str(folder), commit], cwd=ROOT, check=True)
    own = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    subprocess.run(["make", "build"], cwd=folder, env=own, check=True)
    return folder


def answer(folder: Path, program: str, *arguments: str) -> Any:
    python = folder / ".venv" / "bin" / "python"
    command = [str(python), "-c", program, *arguments]
    return json.loads(subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True).stdout)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The best rounds of one row by both builds."""

    name: str
    unit: str
    old: float
    new: float
    # Best ratios to the limits of their own runs.
    old_ratio: float
    new_ratio: float

    @property
    def is_rate(self) -> bool:
        return self.unit.endswith("/s")

    @property
    def faster(self) -> float:
        """How many times as fast the new build is."""
        return self.new / self.old if self.is_rate else self.old / self.new

    @property
    def faster_beside_limit(self) -> float:
        """The same of the ratios to the limits."""
        return self.new_ratio / self.old_ratio if self.is_rate else self.old_ratio / self.new_ratio

    def is_worse(self, margin: float) -> bool:
        return max(self.faster, self.faster_beside_limit) * margin < 1


def compared(name: str, old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> Comparison:
    unit = new[0]["unit"]
    best = max if unit.endswith("/s") else min

    def of(rows: Sequence[dict[str, Any]], key: str) -> float:
        return best(float(row[key]) for row in rows)

    return Comparison(name, unit, of(old, "value"), of(new, "value"), of(old, "ratio"), of(new, "ratio"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit", help="what to compare with")
    parser.add_argument("--build", type=Path, help="a folder where that commit is built already")
    parser.add_argument("--rows", nargs="*", default=[], help="these rows; otherwise all that both have")
    parser.add_argument("--turns", type=int, default=2, help="how often each build is measured")
    parser.add_argument("--margin", type=float, default=1.15, help="a row so many times slower is worse")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    arguments = parser.parse_args()
    folder = arguments.build.absolute() if arguments.build else built(resolved(arguments.commit))
    old_names = answer(folder, NAMES)
    shared = [name for name in answer(ROOT, NAMES) if name in old_names]
    unknown = sorted(set(arguments.rows) - set(shared))
    if unknown:
        refused(f"{', '.join(unknown)}: not a row of both; these are: {', '.join(shared)}")
    found: list[Comparison] = []
    if not arguments.json:
        print(f"{'':22} {'old':>11} {'new':>11} {'unit':12} {'faster':>8} {'old ÷ limit':>12} {'new ÷ limit':>12}")
    for name in [name for name in shared if not arguments.rows or name in arguments.rows]:
        rows: dict[Path, list[dict[str, Any]]] = {folder: [], ROOT: []}
        for turn in range(max(arguments.turns, 1)):
            for side in (folder, ROOT) if turn % 2 == 0 else (ROOT, folder):
                rows[side].append(answer(side, MEASURE, name))
        row = compared(name, rows[folder], rows[ROOT])
        found.append(row)
        if not arguments.json:
            worse = "  worse" if row.is_worse(arguments.margin) else ""
            figures = f"{row.old:11.4g} {row.new:11.4g} {row.unit:12} {row.faster:8.2f}"
            print(f"{name:22} {figures} {row.old_ratio:12.3f} {row.new_ratio:12.3f}{worse}", flush=True)
    worse = [row.name for row in found if row.is_worse(arguments.margin)]
    if arguments.json:
        rows_of = [
            {
                "name": row.name,
                "unit": row.unit,
                "old": row.old,
                "new": row.new,
                "faster": row.faster,
                "old_ratio": row.old_ratio,
                "new_ratio": row.new_ratio,
                "worse": row.is_worse(arguments.margin),
            }
            for row in found
        ]
        print(json.dumps({"commit": arguments.commit, "margin": arguments.margin, "rows": rows_of}, indent=2))
    elif worse:
        print(f"worse by more than {arguments.margin} x: {', '.join(worse)}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
