"""Every variant of every scenario, explored, as one table that two builds can be compared by (`make variants`).

    variants.py --write TABLE            explore all variants, write the table
    variants.py --against TABLE          explore them, print what differs from the table; exit 1 if anything does
    variants.py --against OLD --table NEW  compare two tables, explore nothing

A row: corpus, variant, kernel, verdict, whether the search was exhaustive, executions, states, and each violated
invariant with the steps of its counterexample. Seconds are left out: nothing in the table depends on the host.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

COLUMNS = ("corpus", "variant", "kernel", "expect", "verdict", "exhaustive", "executions", "states", "violated")
BUDGET = "60s"

Row = dict[str, str]


def vmemmap(*arguments: str) -> Any:
    command = [str(Path(sys.executable).with_name("vmemmap")), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def explore(name: str, variant: str, expect: str, threads: int) -> Row:
    result = vmemmap("explore", name, "--variant", variant, "--json", "--budget", BUDGET, "--workers", str(threads))
    steps = result["invariant_steps"]
    violated = sorted(
        (i for i, status in result["invariants"].items() if status == "violated"), key=lambda i: int(i[1:])
    )
    values = {
        "corpus": name,
        "variant": variant,
        "kernel": result["kernel"],
        "expect": expect,
        "verdict": result["verdict"],
        "exhaustive": "yes" if result["exhaustive"] else "no",
        "executions": str(result["executions"]),
        "states": str(result["states"]),
        "violated": " ".join(f"{i}:{steps.get(i, '-')}" for i in violated) or "-",
    }
    print(".", end="", file=sys.stderr, flush=True)
    return values


def explored(workers: int, threads: int) -> list[Row]:
    jobs = [
        (scenario["corpus"] or scenario["name"], variant["name"], variant["expect"])
        for scenario in vmemmap("list", "--json")
        for variant in scenario["variants"]
    ]
    with ThreadPoolExecutor(workers) as pool:
        rows = list(pool.map(lambda job: explore(*job, threads), jobs))
    print(file=sys.stderr)
    return rows


def read(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return [dict(row) for row in csv.DictReader(file, delimiter="\t")]


def write(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def differences(old: list[Row], new: list[Row]) -> list[str]:
    """A line for each row that is gone, is new, or has another value."""
    before = {(row["corpus"], row["variant"]): row for row in old}
    after = {(row["corpus"], row["variant"]): row for row in new}
    lines = [f"{' '.join(key)}: gone" for key in before if key not in after]
    for key, row in after.items():
        if key not in before:
            lines.append(f"{' '.join(key)}: new ({row['verdict']}, {row['violated']})")
            continue
        changes = [f"{c} {before[key][c]} -> {row[c]}" for c in COLUMNS if before[key][c] != row[c]]
        if changes:
            lines.append(f"{' '.join(key)}: {', '.join(changes)}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="TABLE")
    parser.add_argument("--against", type=Path, metavar="TABLE")
    parser.add_argument("--table", type=Path, help="compare this table instead of exploring")
    parser.add_argument("--workers", type=int, default=2, help="searches at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each search (vmemmap explore --workers)")
    options = parser.parse_args()
    old = read(options.against) if options.against else None
    rows = read(options.table) if options.table else explored(options.workers, options.threads)
    if options.write:
        write(options.write, rows)
    unexpected = [row for row in rows if row["verdict"] != row["expect"]]
    print(f"{len(rows)} variants, {len(rows) - len(unexpected)} as expected")
    for row in unexpected:
        print(f"{row['corpus']} {row['variant']}: expected {row['expect']}, {row['verdict']}")
    lines = differences(old, rows) if old is not None else []
    if old is not None:
        print(f"{len(lines)} of {len(rows)} rows differ from {options.against}")
    print("\n".join(lines), end="\n" if lines else "")
    return 1 if lines or unexpected else 0


if __name__ == "__main__":
    raise SystemExit(main())
