"""Writes what bounds each row of ``vmemmap bench``, by profile, into docs/performance.md: ``make bench-profile``.

`perf` samples a whole run of each row of the core, its limit and what is made before it included; what is printed are
the functions in which most samples fall, with their share of all. What a compiler put into its caller is the caller's.
Rows of Python are not among them.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from table import DOCS, ROOT, commit, host

MARKS = ("<!-- profile: written by benches/profile.py -->", "<!-- profile: end -->")
PROGRAM = ["cargo", "build", "--quiet", "--profile", "profiling", "-p", "vmemmap-bench", "--example", "row"]
HOST = "the host's kernel"
# Samples; a row with fewer is run again and again.
ENOUGH = 1000
_GENERIC = re.compile(r"<[^<>]*>")


def short(symbol: str) -> str:
    """The end of a path in Rust, without type parameters: of a method its type and its name."""
    name = symbol.split(" as ")[0].lstrip("<") + "::" + symbol.rpartition("::")[2] if " as " in symbol else symbol
    while (stripped := _GENERIC.sub("", name)) != name:
        name = stripped
    parts = [part for part in name.replace("::::", "::").split("::") if part and part != "{{closure}}"]
    return "::".join(parts[-2:])


def shares(row: str, program: Path, frequency: int, times: int = 1) -> Counter[str]:
    """Samples of a run by function, of so many runs one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "data")
        record = ["perf", "record", "--quiet", "--freq", str(frequency), "--output", data, str(program)]
        subprocess.run([*record, *[row] * times], check=True, stdout=subprocess.DEVNULL)
        script = ["perf", "script", "--input", data, "--fields", "ip,sym,dso"]
        text = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    found = Counter[str]()
    for line in text.splitlines():
        _address, _, rest = line.strip().partition(" ")
        symbol, _, place = rest.rpartition(" (")
        if symbol:
            found[HOST if "kernel" in place else short(symbol)] += 1
    return found


def table(rows: Iterable[str], program: Path, frequency: int, most: int) -> Iterable[str]:
    yield "| row | samples | where they fall |"
    yield "|---|---|---|"
    for row in rows:
        found = shares(row, program, frequency)
        if found.total() < ENOUGH:
            found = shares(row, program, frequency, min(ENOUGH // max(found.total(), 1) + 1, 40))
        total = found.total()
        parts = [(name, count / total) for name, count in found.most_common(most)]
        where = ", ".join(f"`{name}` {part:.0%}" for name, part in parts if part >= 0.02)
        yield f"| `{row}` | {total} | {where.replace(f'`{HOST}`', HOST)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", help="these rows; otherwise all of the core")
    parser.add_argument("--program", type=Path, help="examples/row as it is built already")
    parser.add_argument("--frequency", type=int, default=2000, help="samples each second")
    parser.add_argument("--most", type=int, default=6, help="functions that are named for each row")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/performance.md")
    arguments = parser.parse_args()
    if not shutil.which("perf"):
        print("bench-profile: perf not found", file=sys.stderr)
        return 2
    program: Path = arguments.program or ROOT / "target" / "profiling" / "examples" / "row"
    if not arguments.program:
        subprocess.run(PROGRAM, cwd=ROOT, check=True)
    from vmemmap import _core

    lines = [f"Commit `{commit()}`, on {host()}.", ""]
    for line in table(arguments.rows or _core.bench_rows(), program, arguments.frequency, arguments.most):
        print(line, flush=True)
        lines.append(line)
    if arguments.docs:
        before, _, rest = DOCS.read_text(encoding="utf-8").partition(MARKS[0])
        _, found, after = rest.partition(MARKS[1])
        if not found:
            print(f"bench-profile: the marks are missing in {DOCS}", file=sys.stderr)
            return 2
        DOCS.write_text("\n".join([before + MARKS[0], "", *lines, "", MARKS[1] + after]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
