"""``vmemmap.compare``: choices of a policy side by side, as one answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import SpecError
from ..lab.asked import AnyScenario, resolve
from ..shown import html_table
from ..spec import did_you_mean
from .comparing import WITHOUT_POLICY, Choice, Row, check_cpus, choices_of, compare_choices, without_policy
from .machine_file import CostedMachine, load

__all__ = ["Comparison", "compare", "names_of_rows"]

#: Of all searches together, so that a whole page stays below a minute.
SEARCH_SECONDS = 50.0


@dataclass(frozen=True)
class Comparison:
    """Rows side by side. `to_dict` is exactly the object that ``vmemmap compare --json`` prints."""

    scenario: str
    machine: CostedMachine
    rows: tuple[Row, ...]
    missing: tuple[str, ...] = ()
    """Choices that were not answered, because somebody interrupted."""

    @property
    def interrupted(self) -> bool:
        """Whether rows are missing."""
        return bool(self.missing)

    def to_dict(self) -> dict[str, object]:
        """The object of ``compare --json``.

        Returns:
            The object that ``--json`` prints.
        """
        return {
            "scenario": self.scenario,
            "machine": self.machine.name,
            "rows": [row.to_dict() for row in self.rows],
            "interrupted": self.interrupted,
            "missing": list(self.missing),
        }

    def _repr_html_(self) -> str:
        head = ("choice", "kernel", "verdict", "TLBI", "DSB", "IPI", "splits", "frames saved")
        rows: list[tuple[object, ...]] = []
        for row in self.rows:
            counts = row.counts()
            counted = (counts.tlbi, counts.dsb, counts.ipi, counts.splits) if counts is not None else ("", "", "", "")
            shown = (round(one, 3) if isinstance(one, float) else one for one in counted)
            rows.append((row.choice.name, row.choice.kernel, row.result.words, *shown, row.frames_saved))
        partial = f", {len(self.missing)} not answered" if self.missing else ""
        return html_table(f"{self.scenario}: {len(rows)} choices, counted on {self.machine.name}{partial}", head, rows)


def _choices(scenario: AnyScenario, policy: str | None, variant: str | None) -> list[Choice]:
    resolved = resolve(scenario)
    if policy is not None:
        return choices_of(resolved, policy, variant)
    if resolved.corpus is not None and resolved.corpus in WITHOUT_POLICY and variant is None:
        return without_policy(resolved.corpus)
    resolved.variant(variant)
    raise SpecError(
        f"compare {resolved.corpus or resolved.name}: --policy is missing, such as update; only R3 (the "
        "approaches A to D) and R32 (the condition of May 2021), without a variant, have rows of their own"
    )


def names_of_rows(scenario: str, policy: str | None, variant: str | None) -> dict[str, str]:
    """What a comparison has rows for.

    Args:
        scenario: As `compare` takes it.
        policy: And this.
        variant: And this.

    Returns:
        The title of each row by its name.

    Raises:
        SpecError: No such scenario, variant or policy.
    """
    return {choice.name: choice.title for choice in _choices(scenario, policy, variant)}


def compare(
    scenario: AnyScenario,
    *,
    policy: str | None = None,
    variant: str | None = None,
    only: Sequence[str] = (),
    cpus: Sequence[int] = (),
    machine: str | Path | CostedMachine = "arm64",
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> Comparison:
    """Put choices side by side, on the actors of a scenario: verdict, operations counted, modelled cost.

    Counts are for one hugepage that is allocated and freed again. Times are modelled: kernel code run on a machine
    whose latencies come from a file, each with its source.

    Args:
        scenario: A `Scenario`, its name or corpus number, ``FILE.py[:NAME]``, or a bare scenario function.
        policy: Whose choices, each a row. Without one, R3 compares the approaches A to D and what is beside them, R32
            layouts and kernels.
        variant: Which variant of the scenario; the first listed by default.
        only: Only the rows of these names.
        cpus: Numbers of CPUs of the modelled machine; those that its file names by default.
        machine: A machine file, or the name of a machine that the package has.
        seed: Of when modelled CPUs mask interrupts.
        progress: Called with rows done and rows in all as each is done.

    Returns:
        The rows, in the order of the choices. On Ctrl-C those that were done, and which are missing.

    Raises:
        SpecError: No such scenario, variant, policy, row, machine or number of CPUs.
    """
    check_cpus(cpus)
    costed = machine if isinstance(machine, CostedMachine) else load(machine)
    resolved = resolve(scenario)
    choices = _choices(resolved, policy, variant)
    known = [choice.name for choice in choices]
    for wanted in only:
        if wanted not in known:
            rest = f"rows are {', '.join(known)}"
            raise SpecError(f"--only {wanted}: there is no such row{did_you_mean(wanted, known, rest)}")
    choices = [choice for choice in choices if not only or choice.name in only]
    found: dict[str, Row] = {}

    def tell(row: Row) -> None:
        found[row.choice.name] = row
        if progress is not None:
            progress(len(found), len(choices))

    with suppress(KeyboardInterrupt):
        compare_choices(choices, costed, cpus, seed=seed, seconds=SEARCH_SECONDS, tell=tell)
    rows = tuple(found[choice.name] for choice in choices if choice.name in found)
    missing = tuple(choice.name for choice in choices if choice.name not in found)
    return Comparison(resolved.name, costed, rows, missing)
