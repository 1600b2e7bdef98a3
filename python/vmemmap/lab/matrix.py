"""Kernel behaviours against the corpus of races: what each kernel, as it is, does in each scenario.

A cell is one exploration, of the variant that a scenario names for that kernel (`Scenario.kernels`); nothing in the
table is written down beforehand but which variant *is* that kernel, and why a kernel has nothing to explore.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from ..spec import KERNELS
from .answers import CellDict
from .exploration import Result
from .scenario import Absent, Scenario, find, registry
from .together import Search, as_finished

__all__ = ["NOT_MODELLED", "Cell", "cells", "in_order", "matrix", "not_modelled"]

CellVerdict = Literal["violated", "safe", "inconclusive", "not applicable"]

BUDGET: Final = 60.0
"""Seconds of one cell. What it does not decide is inconclusive, and says so."""

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

    def run(self, search: Search) -> Cell:
        found = self.scenario.on(self.kernel)
        if isinstance(found, Absent):
            return Cell(self.corpus, self.kernel, "not applicable", None, found.why, None)
        variant, kernel = found
        other = "" if kernel == variant.kernel else f" --kernel {kernel}"
        command = f"vmemmap explore {self.corpus} --variant {variant.name}{other}"
        result = search(self.scenario, replace(variant, kernel=kernel))
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


def cells(names: Sequence[str] = (), *, workers: int | None = None) -> Generator[tuple[int, Cell], None, None]:
    """Explore the cells of the matrix; whoever stops listening has those that came before.

    Args:
        names: Scenarios by name or corpus number; all that have a number by default.
        workers: Explorations at a time; as many as there are CPUs by default.

    Yields:
        How many cells there are, and a cell, in the order in which they are done.

    Raises:
        SpecError: No such scenario.
    """
    scenarios = [find(name) for name in names] or list(registry())
    jobs = [_Job(s, s.corpus or s.name, kernel) for s in scenarios for kernel in KERNELS if s.corpus or names]
    for cell in as_finished(jobs, _Job.run, each=BUDGET, workers=workers):
        yield len(jobs), cell


def in_order(found: Iterable[Cell]) -> list[Cell]:
    """The cells as the matrix lists them.

    Args:
        found: Cells.

    Returns:
        By corpus number, then by kernel.
    """
    return sorted(found, key=lambda cell: (_number(cell.corpus), cell.corpus, KERNELS.index(cell.kernel)))


def matrix(names: Sequence[str] = ()) -> list[Cell]:
    """The matrix of kernels and races.

    Args:
        names: Scenarios by name or corpus number; by default all that have a number, and the numbers that have no
            scenario.

    Returns:
        The cells, by corpus number, then by kernel.

    Raises:
        SpecError: No such scenario.
    """
    found = [cell for _, cell in cells(names)]
    return in_order(found if names else [*found, *not_modelled()])


def _number(corpus: str) -> int:
    return int(corpus[1:]) if corpus[1:].isdigit() else 0


def not_modelled() -> list[Cell]:
    """Numbers of the corpus that no scenario has.

    Returns:
        A cell of each for each kernel.
    """
    return [
        Cell(corpus, kernel, "not applicable", None, why, None)
        for corpus, why in NOT_MODELLED.items()
        for kernel in KERNELS
    ]
