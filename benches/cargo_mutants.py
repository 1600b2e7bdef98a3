"""cargo-mutants on a sample of a crate, in a copy of this tree (`make cargo-mutants CRATE=kernel`).

    cargo_mutants.py CRATE [--shard K/N] [--seconds S] [--check]

Every Nth of the mutants that cargo-mutants makes of the crate is put to its quick tests; one that they let live is put
to the slow ones, then to the crates that test it from outside. What is alive then has to stand in
equivalent_mutants.toml, with the reason why no test sees it. `--check` runs nothing: it says whether the lines named
there still are in the sources.

Exit 1 if a mutant lives that is not listed, or one dies that is; exit 2 if nothing could be tried.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import mutants

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OUT: Final = mutants.COPY.parent / "mutants.out"
EQUIVALENT: Final = Path(__file__).with_name("equivalent_mutants.toml")

SHARD: Final = {"arch": "0/16", "kernel": "0/45", "machine": "0/60", "image": "0/46"}
"""Sample of each crate, as cargo-mutants is told with `--sharding round-robin`: mutant i is of shard i mod N."""

SLOW: Final = {"kernel": ("hugetlb_failure",), "machine": ("resident",)}
"""Test programs that take longer than all others of their crate together."""

OUTSIDE: Final = {
    "arch": ("vmemmap-kernel", "vmemmap-machine", "vmemmap-image"),
    "kernel": ("vmemmap-lab",),
    "machine": ("vmemmap-kernel", "vmemmap-litmus", "vmemmap-lab"),
    "image": ("vmemmap-lab",),
}
"""Packages whose tests are tried on what the crate's own let live."""


@dataclass(frozen=True, slots=True)
class Equivalent:
    file: str
    line: str
    mutation: str
    reason: str


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    """As cargo-mutants prints it: file, place, what is replaced, the function."""
    file: str
    line: str
    outcome: str
    text: str
    """The whole file with the mutation."""

    @property
    def mutation(self) -> str:
        return self.name.split(": ", maxsplit=1)[1]

    def is_listed(self, listed: Sequence[Equivalent]) -> bool:
        return any((e.file, e.line, e.mutation) == (self.file, self.line, self.mutation) for e in listed)


def equivalents() -> list[Equivalent]:
    return [Equivalent(**mutant) for mutant in tomllib.loads(EQUIVALENT.read_text()).get("mutant", [])]


def refused(message: str) -> NoReturn:
    print(f"cargo_mutants: {message}", file=sys.stderr)
    sys.exit(2)


def programs(crate: str) -> tuple[list[str], list[str]]:
    """Test programs of the crate, as `cargo test` is told: the quick ones, the slow ones."""
    slow = SLOW.get(crate, ())
    names = [path.stem for path in sorted((mutants.COPY / "rust" / crate / "tests").glob("*.rs"))]
    quick = ["--lib", *(f"--test={name}" for name in names if name not in slow)]
    return quick, [f"--test={name}" for name in slow]


def sampled(crate: str, shard: str, seconds: int) -> list[Mutant]:
    """What cargo-mutants says of the sample and the quick tests."""
    environment = {
        "PROPTEST_RNG_SEED": "1",
        **os.environ,
        "CARGO_TARGET_DIR": str(mutants.COPY / "target"),
        "CARGO_PROFILE_DEV_DEBUG": "0",
    }
    what = ("--package", f"vmemmap-{crate}", "--sharding", "round-robin", "--shard", shard)
    limits = ("--baseline", "skip", "--timeout", str(seconds), "--build-timeout", "900")
    tests = [f"--cargo-arg={program}" for program in programs(crate)[0]]
    subprocess.run(
        ["cargo", "mutants", "--in-place", "--output", OUT.parent, *what, *limits, *tests, "--caught", "--unviable"],
        cwd=mutants.COPY,
        env=environment,
        check=False,
    )
    outcomes = OUT / "outcomes.json"
    if not outcomes.is_file():
        refused("cargo mutants has tried nothing (`cargo install --locked cargo-mutants`)")
    return [read(outcome) for outcome in json.loads(outcomes.read_text())["outcomes"]]


def read(outcome: dict[str, Any]) -> Mutant:
    mutant = outcome["scenario"]["Mutant"]
    text = (mutants.COPY / mutant["file"]).read_text()
    lines = text.splitlines(keepends=True)

    def place(end: str) -> int:
        at = mutant["span"][end]
        return sum(map(len, lines[: at["line"] - 1])) + at["column"] - 1

    mutated = text[: place("start")] + mutant["replacement"] + text[place("end") :]
    line = lines[mutant["span"]["start"]["line"] - 1].strip()
    return Mutant(mutant["name"], mutant["file"], line, outcome["summary"], mutated)


def killer_of(mutant: Mutant, crate: str) -> str | None:
    """The first test that fails of the slow ones, then of those outside the crate."""
    path = mutants.COPY / mutant.file
    text = path.read_text()
    path.write_text(mutant.text)
    try:
        slow = programs(crate)[1]
        runs = [(f"vmemmap-{crate}", *slow)] if slow else []
        for package, *tests in [*runs, *((package, "--tests") for package in OUTSIDE[crate])]:
            if (killer := mutants.cargo_test(package, *tests)) is not None:
                return killer
        return None
    finally:
        path.write_text(text)


def run(crate: str, shard: str, seconds: int) -> int:
    mutants.copy_tree()
    listed = equivalents()
    found = sampled(crate, shard, seconds)
    count = Counter(mutant.outcome for mutant in found)
    alive, killed = [], count["CaughtMutant"] + count["Timeout"]
    for mutant in (m for m in found if m.outcome == "MissedMutant"):
        killer = killer_of(mutant, crate)
        print(f"{mutant.name}: {f'killed by {killer}' if killer else 'ALIVE'}", flush=True)
        if killer is None:
            alive.append(mutant)
    unexplained = [mutant for mutant in alive if not mutant.is_listed(listed)]
    wrong = [mutant for mutant in found if mutant.is_listed(listed) and mutant not in alive]
    for mutant in unexplained:
        print(f"! {mutant.name}: alive, nobody knows why\n    {mutant.line}")
    for mutant in wrong:
        print(f"! {mutant.name}: killed, though it is listed as equivalent")
    viable = len(found) - count["Unviable"]
    print(
        f"{crate} {shard}: {viable} viable mutants, {killed} killed by its own quick tests, {viable - len(alive)} by "
        f"all; {len(alive) - len(unexplained)} equivalent, {len(unexplained)} unexplained"
    )
    return 1 if unexplained or wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("crate", nargs="?", choices=sorted(SHARD))
    parser.add_argument("--shard", metavar="K/N", help="every Nth mutant, from the Kth on")
    parser.add_argument("--seconds", type=int, default=90, help="whoever takes longer hangs, and is noticed")
    parser.add_argument("--check", action="store_true", help="only whether the equivalent ones still stand")
    options = parser.parse_args()
    if options.check:
        texts = {e.file: (mutants.ROOT / e.file).read_text() for e in equivalents()}
        lines = {file: {line.strip() for line in text.splitlines()} for file, text in texts.items()}
        gone = [f"{e.file}: {e.line}" for e in equivalents() if e.line not in lines[e.file]]
        if gone:
            refused(f"the line of an equivalent mutant is gone: {'; '.join(gone)}")
        print(f"{len(equivalents())} equivalent mutants, each of a line that stands")
        return 0
    if options.crate is None:
        refused(f"which crate? ({', '.join(sorted(SHARD))})")
    return run(options.crate, options.shard or SHARD[options.crate], options.seconds)


if __name__ == "__main__":
    sys.exit(main())
