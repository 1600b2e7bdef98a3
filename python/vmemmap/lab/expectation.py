"""An exploration and what it is expected to show: the arguments of the mark ``vmemmap_explore``, judged and put in
words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import TypedDict, cast

from .. import _core
from ..errors import SpecError
from ..spec import Budget, parse_budget
from .asked import AnyScenario, chosen, resolve
from .exploration import Result, check_strategy, explore
from .scenario import Expect, Scenario, Variant

__all__ = ["Case", "Miss", "cases", "parse_cases"]

#: As a variant: all that the scenario lists.
EVERY = "*"

AnyBudget = Budget | int | float | str


@dataclass(frozen=True)
class Miss:
    """An expectation that was not met."""

    line: str
    """What was expected and what was found."""
    hint: str = ""
    """What would decide it, if the search ended undecided."""


class Options(TypedDict, total=False):
    """Keywords of `vmemmap.explore` that a case passes on."""

    strategy: str
    seed: int | None
    depth: int | None
    policies: Mapping[str, str]


@dataclass(frozen=True)
class Case:
    """One variant to explore, and what it is expected to show."""

    scenario: Scenario
    variant: Variant
    expect: Expect
    invariants: tuple[str, ...]
    """Judged whether or not the scenario judges them. With ``violated`` each of them has to be, with ``safe`` to
    hold.
    """
    listed: bool
    """The expectation is the one that the variant lists."""
    budget: AnyBudget | None
    options: Options = field(default_factory=lambda: Options())

    @property
    def name(self) -> str:
        """Scenario, by its corpus number if it has one, and variant."""
        return f"{self.scenario.corpus or self.scenario.name}-{self.variant.name}"

    def explore(
        self, *, override: AnyBudget | None = None, default: AnyBudget | None = None, seed: int | None = None
    ) -> Result:
        """Run the search, under the budget `override`, that of the case, or `default`: the first that there is.

        Args:
            override: Executions or seconds that count more than the budget of the case.
            default: Executions or seconds for a case without a budget.
            seed: Counts more than the seed of the case, where a strategy draws.

        Returns:
            What was found.

        Raises:
            SpecError: What `vmemmap.explore` refuses.
        """
        budget = next((given for given in (override, self.budget, default) if given is not None), None)
        options: Options = {**self.options}
        if seed is not None and options.get("strategy", "exhaustive") != "exhaustive":
            options["seed"] = seed
        return explore(self.scenario, variant=self.variant, budget=budget, **options)

    @property
    def expected(self) -> str:
        """The expectation in words: ``safe``, ``I6 I1 violated``."""
        names = " ".join(self.invariants)
        if self.expect == "safe":
            return f"safe and {names} held" if names else "safe"
        return f"{names or 'an invariant'} violated{f' (as {self.variant.name} lists)' if self.listed else ''}"

    def judge(self, result: Result) -> Miss | None:
        """Compare a result with what is expected. A search that did not finish shows a violation, and never that there
        is none.

        Args:
            result: What the exploration found.

        Returns:
            None if it shows what is expected, else what was missed.
        """
        if self.expect == "violated":
            met = (
                all(name in result.violated for name in self.invariants)
                if self.invariants
                else result.verdict == "violated"
            )
        else:
            finished = result.verdict == "safe" and result.exhaustive
            met = finished and all(result.invariants.get(name) == "held" for name in self.invariants)
        if met:
            return None
        found = [result.words]
        # A column that nothing fills is neither held nor violated, and the words do not speak of it.
        if result.exhaustive:
            found += [
                f"{name} {state}"
                for name in self.invariants
                if (state := result.invariants.get(name, "not judged")) not in _IN_WORDS
            ]
        line = f"expected {self.expected}, found {', '.join(found)}"
        if result.exhaustive or (self.expect == "safe" and result.verdict == "violated"):
            return Miss(line)
        why = str(result.scope.get("bounds") or "the search did not finish")
        hint = f"undecided: {why}"
        if "budget" in why:
            hint += "; a longer one may decide it: budget= of the mark, or --vmemmap-budget"
        return Miss(line, hint)


_IN_WORDS = ("held", "violated")


def _names(given: object, what: str) -> list[str]:
    """One name, or several.

    Raises:
        SpecError: Neither a name nor a list of names.
    """
    if given is None:
        return []
    several: list[object] = (
        [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(cast("Iterable[object]", given))
    )
    names = [name for name in several if isinstance(name, str)]
    if len(names) < len(several):
        raise SpecError(f"{what} is {given!r}: expected a name, or several in a list")
    return names


def _variants(scenario: Scenario, variant: object) -> list[Variant]:
    if variant is None or isinstance(variant, Variant):
        return [variant or scenario.variant()]
    if variant == EVERY:
        return list(scenario.variants)
    several: list[object] = list(cast("Iterable[object]", variant)) if isinstance(variant, (list, tuple)) else [variant]
    if not several:
        raise SpecError(f"variant is an empty list: {scenario.name} has {', '.join(v.name for v in scenario.variants)}")
    found: list[Variant] = []
    for one in several:
        found.append(one if isinstance(one, Variant) else scenario.variant(*_names(one, "variant")))
    return found


def cases(
    scenario: AnyScenario,
    *,
    variant: str | Variant | Iterable[str | Variant] | None = None,
    expect: Expect | None = None,
    invariant: str | Iterable[str] | None = None,
    budget: AnyBudget | None = None,
    strategy: str = "exhaustive",
    seed: int | None = None,
    depth: int | None = None,
    policies: Mapping[str, str] | None = None,
) -> list[Case]:
    """The explorations that one mark asks for, one for each variant; its keywords are those of `vmemmap.explore`, and:

    Args:
        scenario: A `Scenario`, its name or corpus number, ``FILE.py[:NAME]``, or a bare scenario function.
        variant: One by name, several in a list, or ``"*"``: all that the scenario lists.
        expect: ``safe`` or ``violated``; what each variant lists by default, and ``safe`` under other
            policies than its own.
        invariant: One or several: those that have to be violated, or, where ``safe`` is expected, to hold; judged
            also if the scenario does not judge them.
        budget: Executions, or seconds as a float or text (``10s``).
        strategy: ``exhaustive``, ``random`` or ``pct``.
        seed: 64 bits; the same seed draws the same executions.
        depth: Of ``pct``: one more than the preemptions of an execution.
        policies: Other choices than the variant's.

    Returns:
        One case for each variant.

    Raises:
        SpecError: An argument is wrong, or the expectation is one that such a search cannot show.
    """
    resolved = resolve(scenario)
    if expect not in (None, "safe", "violated"):
        raise SpecError(f"expect is {expect!r}: expected safe or violated")
    known = {number for number, _, _ in _core.invariants()}
    invariants = tuple(_names(invariant, "invariant"))
    for name in invariants:
        if name not in known:
            raise SpecError(f"invariant is {name!r}: expected one of I1 to I{len(known)}")
    if budget is not None and not isinstance(budget, Budget):
        parse_budget(budget)
    if policies is not None and not isinstance(policies, Mapping):
        raise SpecError(f"policies is {policies!r}: expected choices by policy, like {{'update': 'bbm'}}")
    check_strategy(strategy)
    settings = chosen(f"{row}={value}" for row, value in (policies or {}).items())
    options: Options = {"strategy": strategy, "seed": seed, "depth": depth, "policies": settings}
    found: list[Case] = []
    for one in _variants(resolved, variant):
        listed = expect is None and not settings
        expected = expect or (one.expect if listed else "safe")
        if expected == "safe" and strategy != "exhaustive":
            raise SpecError(
                f"strategy {strategy} samples: it never shows {one.name} safe; expect violated, or search exhaustively"
            )
        wanted = invariants or (one.invariants if listed else ())
        # What is not judged only fills its column when it is violated: that it holds can be said of what the search
        # looked for.
        judging = replace(resolved, judged=tuple(dict.fromkeys((*resolved.judged, *wanted))))
        found.append(Case(judging, one, expected, wanted, listed and not invariants, budget, options))
    return found


def parse_cases(arguments: Iterable[object], keywords: Mapping[str, object]) -> list[Case]:
    """`cases` of arguments as a mark holds them.

    Args:
        arguments: Positional arguments of the mark.
        keywords: Its keywords.

    Returns:
        One case for each variant.

    Raises:
        SpecError: Also for a keyword that there is not.
    """
    takes = signature(cases)
    try:
        bound = takes.bind(*arguments, **keywords)
    except TypeError as error:
        raise SpecError(f"{error}; it takes {', '.join(takes.parameters)}") from None
    return cases(*bound.args, **bound.kwargs)
