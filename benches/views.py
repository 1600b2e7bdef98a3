"""The corpus in weak memory beside sequentially consistent memory, as a table (`make views-table`).

    views.py [--budget 20s] [--table docs/views.tsv]

A row: corpus, variant (the first of each scenario), and under `sc` and `views` the verdict with the judged invariants
that are violated, whether the search was exhaustive, and its states; then how many times the seconds of `sc` the search
under `views` took. Seconds themselves are left out: they are the host's.
"""

from __future__ import annotations

import argparse
import csv
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from variants import vmemmap

MEMORIES = ("sc", "views")
COLUMNS = ("corpus", "variant", *(f"{m}{part}" for m in MEMORIES for part in ("", "-exhaustive", "-states")), "times")


def row(name: str, variant: str, budget: str) -> dict[str, str]:
    values = {"corpus": name, "variant": variant}
    seconds: dict[str, float] = {}
    for memory in MEMORIES:
        found = vmemmap("explore", name, "--variant", variant, "--memory", memory, "--budget", budget, "--json")
        judged = (i for i in found["judged"] if found["invariants"][i] == "violated")
        values[memory] = " ".join([found["verdict"], *judged])
        values[f"{memory}-exhaustive"] = "yes" if found["exhaustive"] else "no"
        values[f"{memory}-states"] = str(found["states"])
        seconds[memory] = found["seconds"]
    values["times"] = f"{seconds['views'] / max(seconds['sc'], 0.01):.0f}"
    print(".", end="", file=sys.stderr, flush=True)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--budget", default="20s")
    parser.add_argument("--table", type=Path, default=Path("docs/views.tsv"))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    jobs = [(s["corpus"], s["variants"][0]["name"]) for s in vmemmap("list", "--json") if s["corpus"]]
    with ThreadPoolExecutor(arguments.workers) as pool:
        rows = list(pool.map(lambda job: row(*job, arguments.budget), jobs))
    print(file=sys.stderr)
    with arguments.table.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    differ = [r for r in rows if r["sc"] != r["views"]]
    print(f"{len(rows)} scenarios, {len(differ)} with another answer under views")
    for r in differ:
        print(f"{r['corpus']} {r['variant']}: {r['sc']}; under views {r['views']}")


if __name__ == "__main__":
    main()
