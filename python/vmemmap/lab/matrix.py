"""Kernel behaviours against the corpus of races: what each kernel, as it is, does in each scenario.

A cell is one exploration, of the variant that a scenario names for that kernel (`Scenario.kernels`); nothing in the
table is written down beforehand but which variant *is* that kernel, and why a kernel has nothing to explore.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal

from ..spec import KERNELS
from .answers import CellDict
from .lab import Result, explore
from .scenario import Absent, Scenario, find, registry

__all__ = ["NOT_MODELLED", "Cell", "cells", "matrix"]

CellVerdict = Literal["violated", "safe", "inconclusive", "not applicable"]

BUDGET: Final = "60s"
"""Of one cell. What it does not decide is inconclusive, and says so."""

NOT_MODELLED: Final = {
    "R48": "no scenario: a memmap counter that a failed section lowers; no section fails to populate half way here",
    "R50": "no scenario: x86 attribute changes against collapse, two writers; arm64 has no collapse (R10: with a dump)",
    "R51": "no scenario: x86 boot order, a worker scheduled before workqueues exist",
    "R57": "no scenario: boot of HVO pages before their struct pages are initialised, x86 only (one thread)",
    "R58": "no scenario: stage-2 tables of a virtual machine, which are not init_mm's",
    "R59": "no scenario: an outcome of one task, -EBUSY for a block that a zone's tail lies in (7.x), or a head's copy "
    "(6.12, 7.x); no invariant falls; asserted in rust/kernel/tests/linux7.rs",
    "R62": "a list of further reports, mostly outside these tables",
}
"""Numbers of the corpus without a scenario, and why."""


@dataclass(frozen=True)
class Cell:
    """One kernel against one entry of the corpus."""

    corpus: str
    kernel: str
    verdict: CellVerdict
    invariant: str | None
    """The first judged invariant to fall."""
    why: str
    """What fell, how much was searched, or why there is nothing to search."""
    command: str | None
    """What shows it; None: nothing is run."""

    def to_dict(self) -> CellDict:
        """As ``vmemmap list --matrix --json`` has it.

        Returns:
            The object.
        """
        return {
            "corpus": self.corpus,
            "kernel": self.kernel,
            "verdict": self.verdict,
            "invariant": self.invariant,
            "why": self.why,
            "command": self.command,
        }


@dataclass(frozen=True)
class _Job:
    scenario: Scenario
    corpus: str
    kernel: str

    def run(self) -> Cell:
        found = self.scenario.on(self.kernel)
        if isinstance(found, Absent):
            return Cell(self.corpus, self.kernel, "not applicable", None, found.why, None)
        variant, kernel = found
        other = "" if kernel == variant.kernel else f" --kernel {kernel}"
        command = f"vmemmap explore {self.corpus} --variant {variant.name}{other}"
        result = explore(self.scenario, variant=variant, kernel=kernel, budget=BUDGET)
        return Cell(self.corpus, kernel, result.verdict, _fell(result), _why(result), command)


def _fell(result: Result) -> str | None:
    return result.violation.invariant if result.violation is not None else None


def _why(result: Result) -> str:
    if result.violation is not None:
        return f"{' '.join(result.judged_violated)}: {result.violation.message}"
    searched = f"{result.executions} executions, {'all there are' if result.exhaustive else 'not all there are'}"
    others = [name for name in result.violated if name not in result.judged]
    beside = f"; {' '.join(others)} violated" if others else ""
    return f"{' '.join(result.judged)} held; {searched}{beside}"


def cells(names: Sequence[str] = (), *, workers: int | None = None) -> Iterator[tuple[int, int, Cell]]:
    """Explore the cells of the matrix, in its order.

    Args:
        names: Scenarios by name or corpus number; all that have a number by default.
        workers: Explorations at a time; as many as there are CPUs by default.

    Yields:
        How many cells are done, how many there are, and the cell.

    Raises:
        SpecError: No such scenario.
    """
    scenarios = [find(name) for name in names] or list(registry())
    jobs = [_Job(s, s.corpus or s.name, kernel) for s in scenarios for kernel in KERNELS if s.corpus or names]
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        try:
            for done, cell in enumerate(pool.map(_Job.run, jobs), 1):
                yield done, len(jobs), cell
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def matrix(names: Sequence[str] = (), progress: Callable[[int, int], object] | None = None) -> list[Cell]:
    """The matrix of kernels and races.

    Args:
        names: Scenarios by name or corpus number; by default all that have a number, and the numbers that have no
            scenario.
        progress: Called with cells done and cells in all.

    Returns:
        The cells, by corpus number, then by kernel.

    Raises:
        SpecError: No such scenario.
    """
    found: list[Cell] = []
    for done, total, cell in cells(names):
        found.append(cell)
        if progress is not None:
            progress(done, total)
    if not names:
        found += _not_modelled({cell.corpus for cell in found})
    return sorted(found, key=lambda cell: _number(cell.corpus))


def _number(corpus: str) -> int:
    return int(corpus[1:]) if corpus[1:].isdigit() else 0


def _not_modelled(shown: Iterable[str]) -> list[Cell]:
    missing = [corpus for corpus in NOT_MODELLED if corpus not in set(shown)]
    return [
        Cell(corpus, kernel, "not applicable", None, NOT_MODELLED[corpus], None)
        for corpus in missing
        for kernel in KERNELS
    ]
