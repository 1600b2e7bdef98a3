"""Rows of a comparison: of each choice what a search says, and what its operations cost on a modelled machine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from types import MappingProxyType

from .. import _core
from ..errors import SpecError
from ..lab.asked import AnyScenario, resolve
from ..lab.description import Environment, Value
from ..lab.exploration import Result, merge
from ..lab.scenario import Scenario, Variant
from ..lab.together import Search, as_finished
from ..spec import did_you_mean, format_size
from .approaches import APPROACHES, CONDITIONS, Approach, approach
from .machine_file import MAX_CPUS, CostedMachine
from .workload import Counts, Work, modelled, run

__all__ = ["WITHOUT_POLICY", "Choice", "Row", "choices_of", "compare_choices", "the_approaches", "without_policy"]

#: Seconds for making a trace shorter, and for proving that none is.
SHORTEN = 1.0

WITHOUT_POLICY: Mapping[str, Sequence[Approach]] = MappingProxyType({"R3": APPROACHES, "R32": CONDITIONS})
"""Scenarios whose comparison without a policy has rows of its own: the approaches A to D, the condition of May 2021."""


@dataclass(frozen=True)
class Choice:
    """What a row is about: which executions are searched, and which policies are run on the modelled machine."""

    name: str
    title: str
    kernel: str
    policies: Mapping[str, str]
    searches: tuple[tuple[Scenario, Variant], ...]
    granule: int
    remark: str = ""
    #: HVO has done its work before anything is timed.
    at_boot: bool = False
    environment: Environment = field(default_factory=dict[str, Value])
    #: The comparison that it is a row of, if that names no policy.
    corpus: str | None = None
    #: The variant that its policies are put over, where it is none itself.
    base: str | None = None


def without_policy(corpus: str) -> list[Choice]:
    """The rows of a comparison that names no policy.

    Args:
        corpus: ``R3`` or ``R32``.

    Returns:
        One for each approach.
    """
    return [_approach(each, corpus) for each in WITHOUT_POLICY[corpus]]


def the_approaches() -> list[Choice]:
    """The rows of ``vmemmap compare R3``.

    Returns:
        One for each of `APPROACHES`.
    """
    return without_policy("R3")


def _approach(each: Approach, corpus: str) -> Choice:
    if each.elsewhere:
        scenario = resolve(each.elsewhere[0])
        searches = ((scenario, scenario.variant(each.elsewhere[1])),)
    else:
        searches = tuple((approach, variant) for variant in each.variants())
    return Choice(
        each.name,
        each.title,
        each.kernel,
        each.policies,
        searches,
        4096,
        each.remark,
        each.at_boot,
        each.environment,
        corpus,
    )


def choices_of(of: AnyScenario, policy: str, variant: str | None = None) -> list[Choice]:
    """The rows of a comparison of all choices of one policy, on a variant of a scenario.

    Args:
        of: A scenario, as `vmemmap.explore` takes it.
        policy: Name of a policy.
        variant: Its variant; the first by default.

    Returns:
        One row for each choice.

    Raises:
        SpecError: No such scenario, variant or policy.
    """
    scenario = resolve(of)
    base = scenario.variant(variant)
    known = _core.policies()
    if policy not in known:
        there_are = did_you_mean(policy, known, f"policies are {', '.join(known)}", f"there are {len(known)} policies")
        raise SpecError(f"no policy {policy!r}{there_are}")
    granule = scenario.set_up(base).document["machine"]["granule"]
    rows: list[Choice] = []
    for value, sentence in known[policy].items():
        policies = {**base.policies, policy: value}
        searched = Variant(
            f"{base.name}, {policy}={value}", "safe", (), policies, base.kernel, base.arguments, base.environment
        )
        searches, over = ((scenario, searched),), f"{base.name} --set {policy}={value}"
        rows.append(Choice(f"{policy}={value}", sentence, base.kernel, policies, searches, granule, base=over))
    return rows


@dataclass(frozen=True)
class Row:
    """A choice with what was found. Counts are for one hugepage that is allocated and freed again, and modelled."""

    choice: Choice
    result: Result
    works: tuple[Work, ...]
    machine: CostedMachine

    @property
    def verdict(self) -> str:
        """``safe`` only where no invariant at all was violated and the search came to its end."""
        if self.result.verdict == "safe" and self.result.violated:
            return "violated"
        return self.result.verdict

    @property
    def invariant(self) -> str | None:
        """The judged one of the shortest trace; any other where none of the judged is violated."""
        if self.result.violation is not None:
            return self.result.violation.invariant
        return next(iter(self.result.violated), None)

    @property
    def switches(self) -> int | None:
        """Context switches of the shortest trace."""
        return self.result.context_switches if self.result.violation is not None else None

    def counts(self, allocate: str = "allocate", free: str = "free") -> Counts | None:
        """What a hugepage takes, on the machine with the fewest CPUs that was asked for.

        Args:
            allocate: The phase in which it is allocated.
            free: And freed.

        Returns:
            The counts; None without such phases.
        """
        phases = self.works[0].phases
        if allocate not in phases or free not in phases:
            return None
        # At boot nobody allocates by exchanging anything.
        allocated = Counts() if self.choice.at_boot else phases[allocate].counts
        return allocated.plus(phases[free].counts)

    @property
    def frames_saved(self) -> float:
        """Base pages for each PMD-sized hugepage, net of tables and copies."""
        phase = self.works[0].phases["allocate"]
        pages = {4096: 512, 16384: 2048, 65536: 8192}[self.choice.granule]
        return round(pages - phase.frames_taken / phase.pages, 2)

    @property
    def command(self) -> str:
        """What replays the search of this row."""
        scenario, variant = self.choice.searches[0]
        if scenario is approach:
            return f"vmemmap compare {self.choice.corpus} --only {self.choice.name}"
        return f"vmemmap explore {scenario.corpus or scenario.name} --variant {self.choice.base or variant.name}"

    def to_dict(self) -> dict[str, object]:
        """A row of ``compare --json``.

        Returns:
            The keys of the interface, and those added.
        """
        counts, large = self.counts() or Counts(), self.counts("allocate 1G", "free 1G")
        latencies = [
            figure
            for work in self.works
            for figure in modelled(work, self.machine)
            if not (self.choice.at_boot and str(figure["operation"]).startswith("allocate"))
        ]
        return {
            "name": self.choice.name,
            "title": self.choice.title,
            "policies": dict(self.choice.policies),
            "environment": dict(self.choice.environment),
            "kernel": self.choice.kernel,
            "verdict": self.verdict,
            "words": self.result.words,
            "exhaustive": self.result.exhaustive,
            "invariant": self.invariant,
            "violated": self.result.violated,
            "switches": self.switches,
            "steps": len(self.result.trace) if self.result.violation else None,
            **{
                key: round(getattr(counts, key), 3)
                for key in ("tlbi", "dsb", "ipi", "grace_periods", "splits", "hole_ns", "hole_total_ns")
            },
            "per_1g": large.to_dict() if large else None,
            "frames_saved": self.frames_saved,
            "modelled": latencies,
            "scope": self.result.scope_words,
            "remark": self.choice.remark,
            "command": self.command,
        }


def check_cpus(cpus: Sequence[int]) -> None:
    """Refuse what is no number of CPUs.

    Args:
        cpus: Numbers of CPUs.

    Raises:
        SpecError: One is below 1 or above the most that a machine has.
    """
    for count in cpus:
        if not isinstance(count, int) or not 1 <= count <= MAX_CPUS:
            raise SpecError(f"--cpus {count!r}: a modelled machine has 1 to {MAX_CPUS} CPUs")


def compare_choices(
    choices: Sequence[Choice],
    machine: CostedMachine,
    cpus: Sequence[int] = (),
    *,
    seed: int = 0,
    seconds: float = 50.0,
    shorten: float | None = SHORTEN,
    tell: Callable[[Row], object] | None = None,
) -> list[Row]:
    """Search and run every choice.

    Args:
        choices: What to compare.
        machine: What operations cost.
        cpus: Numbers of CPUs; those of the machine by default.
        seed: Of when modelled CPUs mask interrupts.
        seconds: Budget of all searches together.
        shorten: As `vmemmap.explore` takes it.
        tell: Called with each row as it is done.

    Returns:
        The rows, in the order of the choices.
    """
    check_cpus(cpus)
    rows: dict[str, Row] = {}
    with closing(_as_they_finish(choices, machine, tuple(cpus) or machine.cpus, seed, seconds, shorten)) as found:
        for row in found:
            rows[row.choice.name] = row
            if tell is not None:
                tell(row)
    return [rows[choice.name] for choice in choices]


def _as_they_finish(
    choices: Sequence[Choice],
    machine: CostedMachine,
    cpus: Sequence[int],
    seed: int,
    seconds: float,
    shorten: float | None,
) -> Generator[Row, None, None]:
    def one(choice: Choice, search: Search) -> Row:
        found = [search(scenario, variant) for scenario, variant in choice.searches]
        works = tuple(
            run(machine, kernel=choice.kernel, granule=choice.granule, policies=choice.policies, cpus=n, seed=seed)
            for n in cpus
        )
        return Row(choice, merge(found), works, machine)

    # Those with a split first: their searches are the longest.
    order = sorted(choices, key=lambda choice: "split" in choice.policies, reverse=True)
    return as_finished(order, one, seconds=seconds, shorten=shorten)


def scope(rows: Sequence[Row]) -> list[str]:
    """The scopes of all rows, each once.

    Args:
        rows: The rows.

    Returns:
        Lines.
    """
    return list(dict.fromkeys(row.result.scope_words for row in rows))


def size_name(granule: int) -> str:
    """The PMD's hugepage size.

    Args:
        granule: Bytes of a base page.

    Returns:
        ``2M``, ``32M`` or ``512M``.
    """
    return format_size({4096: 2 << 20, 16384: 32 << 20, 65536: 512 << 20}[granule])
