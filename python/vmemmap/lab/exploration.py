"""Exploration: what is asked of the search, and what its answers mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from .. import _core
from ..errors import SpecError
from ..shown import html_table
from ..spec import Budget, did_you_mean, parse_budget, parse_kernel
from .answers import Counterexample, Exploration, ExploreDict, TraceFile, Verdict
from .asked import AnyScenario, answer, check_seed, image, order, resolve
from .description import Description, Document, Scope
from .scenario import Variant
from .setup import kinds
from .trace import Step, Trace, Violation, switches

STRATEGIES = ("exhaustive", "random", "pct")

MAX_DEPTH = 1000
MAX_WORKERS = 64

#: Operations at most after which a search is split.
MAX_SPLIT = 64
MEMORIES = ("sc", "views")
"""Greatest depth of PCT."""

#: How much a search covered, as the core says it, the most first.
EXTENTS = ("every execution", "every execution up to its first violation", "some executions")
TO_FIRST_VIOLATION = EXTENTS[1]

DEFAULT_BUDGET = Budget(seconds=60.0)


@dataclass(frozen=True)
class Result:
    """What an exploration found. `to_dict` is exactly the object that ``vmemmap explore --json`` prints."""

    scenario: str
    variant: str
    kernel: str
    policies: Mapping[str, str]
    expect: str | None
    verdict: Verdict
    exhaustive: bool
    executions: int
    steps: int
    states: int | None
    seconds: float
    seed: int | None
    judged: tuple[str, ...]
    invariants: Mapping[str, str]
    invariant_steps: Mapping[str, int]
    scope: Scope
    digest: str
    violation: Violation | None = None
    trace: Trace = field(default_factory=Trace)
    shortest: bool = False
    interrupted: bool = False
    raw: Exploration = field(default_factory=lambda: cast("Exploration", {}), repr=False)
    document: Document = field(default_factory=lambda: cast("Document", {}), repr=False)

    @property
    def violated(self) -> list[str]:
        """Every violated invariant, judged or not, by number."""
        return sorted((i for i, state in self.invariants.items() if state == "violated"), key=order)

    @property
    def judged_violated(self) -> list[str]:
        """The violated ones among the judged."""
        return [i for i in self.violated if i in self.judged]

    @property
    def words(self) -> str:
        """The verdict as it may be said: ``safe`` only of a finished search that found no violation at all."""
        held = [i for i in self.judged if self.invariants.get(i) == "held"]
        besides = [i for i in self.violated if i not in self.judged]
        if self.verdict == "violated":
            text = f"{' '.join(self.judged_violated or self.violated)} violated"
            if held:
                text += f", {' '.join(held)} held" if self.exhaustive else ""
        elif self.verdict == "inconclusive" or not self.exhaustive:
            text = f"inconclusive: no violation of {' '.join(self.judged)} in {self.executions:,} executions"
        elif not besides:
            return "safe"
        else:
            text = f"{' '.join(held or self.judged)} held"
        return f"{text}, {' '.join(besides)} violated" if besides else text

    @property
    def prefixes(self) -> list[str]:
        """Of a search that was split: behind which the others are to go on."""
        return list(self.raw.get("prefixes", ()))

    @property
    def extent(self) -> str:
        """How far the search went. What ends an execution is its first violation of a judged invariant: behind it a
        search of its own looks, which may end before it has seen all.
        """
        if not self.exhaustive:
            return "not exhaustive"
        to_first = self.scope.get("covered") == TO_FIRST_VIOLATION
        return "exhaustive up to the first violation of each execution" if to_first else "exhaustive"

    @property
    def scope_words(self) -> str:
        """What the verdict covers, in the one line that stands beside it."""
        return scope_words(self.scope)

    @property
    def context_switches(self) -> int:
        """Of the trace."""
        return switches(self.trace)

    def trace_of(self, invariant: str) -> tuple[Violation, Trace, bool] | None:
        """The shortest known counterexample of one invariant.

        Args:
            invariant: ``I1`` and so on.

        Returns:
            The violation, the steps, and whether no execution with fewer steps shows it; None if it was
                not violated.
        """
        found = self._counterexamples.get(invariant)
        if found is None:
            return None
        steps = Trace(Step.from_dict(step) for step in found["shown"])
        return Violation.from_dict(found["violation"]), steps, found["shortest"]

    @property
    def _counterexamples(self) -> Mapping[str, Counterexample]:
        return self.raw.get("witnesses", {})

    @property
    def summary(self) -> str:
        """The verdict with its scope, what the search took, and what is violated: the head of what ``vmemmap
        explore`` prints.
        """
        states = f", {self.states:,} states" if self.states is not None else ""
        lines = [
            f"{self.scenario} {self.variant}: {self.words} [{self.scope_words}]",
            f"{self.executions:,} executions, {self.steps:,} steps{states}, {self.seconds:.2f} s, {self.extent}",
        ]
        for name in self.violated:
            steps = self.invariant_steps.get(name)
            judged = "" if name in self.judged else " (not judged here)"
            lines.append(f"  {name} violated{f' in {steps} steps' if steps else ''}{judged}")
        for pair in self.raw.get("lock_order", ()):
            (one, two), (here, there) = pair["locks"], zip(pair["actors"], pair["places"], strict=True)
            lines.append(
                f"  warning: {two} is taken under {one} ({' in '.join(here)}) and {one} under {two} "
                f"({' in '.join(there)})"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        states = self.invariants.items()
        shown = [(i, s, self.invariant_steps.get(i, "")) for i, s in states if s in ("violated", "held")]
        title = f"{self.scenario} {self.variant}: {self.words}"
        found = [("scope", self.scope_words, ""), ("executions", f"{self.executions:,}", "")]
        return html_table(title, ("", "", "steps"), [*shown, *found])

    def trace_file(self) -> TraceFile | None:
        """What ``--trace-out`` saves and `vmemmap.replay` takes: the scenario as the core was given it, the schedule of
        the first violation, and every step of it.

        Returns:
            The trace as `vmemmap.replay` takes it; None without a violation.
        """
        if self.violation is None:
            return None
        found = self._counterexamples.get(self.violation.invariant)
        return None if found is None else found["trace"]

    def to_dict(self) -> ExploreDict:
        """The object of ``explore --json``.

        Returns:
            The object that ``--json`` prints.
        """
        found: dict[str, object] = {
            **{key: value for key, value in self.raw.items() if key not in _OWN},
            "scenario": self.scenario,
            "variant": self.variant,
            "kernel": self.kernel,
            "policies": dict(self.policies),
            "expect": self.expect,
            "verdict": self.verdict,
            "words": self.words,
            "exhaustive": self.exhaustive,
            "executions": self.executions,
            "steps": self.steps,
            "states": self.states,
            "seconds": self.seconds,
            "seed": self.seed,
            "judged": list(self.judged),
            "invariants": dict(self.invariants),
            "invariant_steps": dict(self.invariant_steps),
            "scope": dict(self.scope),
            "digest": self.digest,
            "shortest": self.shortest,
            "interrupted": self.interrupted,
            "violation": self.violation.to_dict() if self.violation else None,
            "trace": [step.to_dict() for step in self.trace] if self.violation else None,
        }
        return cast("ExploreDict", found)


#: Keys of the core's answer that `Result` holds itself.
_OWN = frozenset(
    [
        *(
            "scenario",
            "variant",
            "kernel",
            "policies",
            "expect",
            "verdict",
            "words",
            "exhaustive",
            "executions",
            "steps",
        ),
        *("states", "seconds", "seed", "judged", "invariants", "invariant_steps", "scope", "digest", "shortest"),
        *("interrupted", "violation", "trace", "witnesses"),
    ]
)


def scope_words(scope: Scope) -> str:
    """Scope as one line: actors and rounds, those absent, tables, window, memory model, what else the core bounds.

    Args:
        scope: What a verdict covers.

    Returns:
        The line.
    """
    rounds = scope.get("rounds", {})
    actors = ", ".join(f"{name} × {rounds.get(name, 1)}" for name in scope.get("actors", ()))
    parts = [
        f"{scope.get('granule', '?')} pages, {scope.get('entries_per_table', '?')} entries per table",
        f"actors {actors}",
        scope.get("window", ""),
        scope.get("memory_model", ""),
        f"absent: {', '.join(scope.get('absent', ())) or 'none'}",
        *(scope.get(key, "") for key in ("environment", "machine", "bounds")),
    ]
    return "; ".join(part for part in parts if part)


def check_strategy(strategy: str) -> None:
    """Refuse what is no strategy.

    Args:
        strategy: ``exhaustive``, ``random`` or ``pct``.

    Raises:
        SpecError: No such strategy.
    """
    if strategy not in STRATEGIES:
        expected = did_you_mean(str(strategy), STRATEGIES, f"expected one of {', '.join(STRATEGIES)}")
        raise SpecError(f"strategy is {strategy!r}{expected}")


def _budget(budget: Budget | int | float | str | None) -> Budget:
    if budget is None:
        return DEFAULT_BUDGET
    return budget if isinstance(budget, Budget) else parse_budget(budget)


def explore(
    scenario: AnyScenario,
    *,
    variant: str | Variant | None = None,
    kernel: str | None = None,
    policies: Mapping[str, str] | None = None,
    memory: str | None = None,
    strategy: str = "exhaustive",
    depth: int | None = None,
    seed: int | None = None,
    budget: Budget | int | float | str | None = None,
    shorten: float | None = None,
    split: int | None = None,
    prefix: str | None = None,
    workers: int = 1,
    progress: Callable[[int, int, int], object] | None = None,
) -> Result:
    """Explore the interleavings of a scenario.

    Args:
        scenario: A `Scenario`, its name or corpus number, ``FILE.py[:NAME]``, or a bare scenario function.
        variant: The first listed by default.
        kernel: Kernel behaviour instead of the variant's; the expectation stands only without another one.
        policies: Choices by policy that override those of the variant; the expectation stands only without
            them.
        memory: ``sc`` (sequentially consistent) or ``views`` (plain stores wait in their CPU's buffer);
            that of the variant by default, and the expectation stands only with that.
        strategy: ``exhaustive`` (every interleaving up to commutation, sleep sets and persistent sets:
            Godefroid, LNCS 1032), ``random``, or ``pct`` (Burckhardt et al., ASPLOS 2010).
        depth: Of ``pct``, which preempts at most depth - 1 times in an execution; 3 by default.
        seed: Of ``random`` and ``pct``: 64 bits; the same seed draws the same executions.
        budget: Executions, or seconds as a float or text (``10s``); 60 s by default.
        shorten: Seconds, within the budget, for making each counterexample the shortest, and as many for
            what is violated behind a first violation; with 0 they stay as found and nothing more is looked
            for. By default a fixed amount of work, so that the answer does not depend on the host.
        split: Of an exhaustive search: only the first so many operations of each execution; `Result.prefixes`
            says behind which prefixes others are to go on. ``exhaustive`` and the invariants are those of this
            part alone, which is never safe by itself; `vmemmap.campaign` merges parts.
        prefix: Of an exhaustive search: only what is behind this one of `Result.prefixes`.
        workers: Threads that an exhaustive search is shared among once it takes long. Verdict, states, violated
            invariants and traces are the same with any number; executions and steps are not. Actors with
            Python steps are searched by one.
        progress: Called now and then with executions, steps and states so far; a `KeyboardInterrupt` that
            it raises ends the search with what was found.

    Returns:
        Verdict, state of every invariant, scope, and a counterexample of each that was violated.

    Raises:
        SpecError: No such scenario, variant, policy or strategy.
    """
    check_strategy(strategy)
    if depth is not None and (strategy != "pct" or not isinstance(depth, int) or not 1 <= depth <= MAX_DEPTH):
        raise SpecError(f"depth is {depth!r}: it goes with strategy pct and is between 1 and {MAX_DEPTH}")
    check_seed(seed)
    if shorten is not None and (isinstance(shorten, bool) or not isinstance(shorten, (int, float)) or not shorten >= 0):
        raise SpecError(f"shorten is {shorten!r}: expected seconds, 0 for none")
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= MAX_WORKERS:
        raise SpecError(f"workers is {workers!r}: expected a number of threads, 1 to {MAX_WORKERS}")
    resolved = resolve(scenario)
    chosen = variant if isinstance(variant, Variant) else resolved.variant(variant)
    as_listed = not policies and kernel in (None, chosen.kernel)
    if kernel is not None:
        chosen = replace(chosen, kernel=parse_kernel(kernel))
    if memory is not None and memory != chosen.environment.get("memory", "sc"):
        if memory not in MEMORIES:
            raise SpecError(f"memory is {memory!r}: {' or '.join(MEMORIES)}")
        chosen = replace(chosen, environment={**chosen.environment, "memory": memory})
        as_listed = False
    description = resolved.set_up(chosen, policies or {})
    limit = _budget(budget)
    options: dict[str, object] = {
        "strategy": strategy,
        "seed": seed or 0,
        "executions": limit.executions,
        "seconds": limit.seconds,
        "workers": workers,
    }
    if shorten is not None:
        options["shorten_seconds"] = shorten
    if depth is not None:
        options["depth"] = depth
    if split is not None:
        if isinstance(split, bool) or not isinstance(split, int) or not 1 <= split <= MAX_SPLIT:
            raise SpecError(f"split is {split!r}: expected 1 to {MAX_SPLIT} operations")
        options["split"] = split
    if prefix is not None:
        options["prefix"] = prefix
    answered = _core.explore(description.json(), json.dumps(options), image(description), progress, description.sources)
    raw = cast("Exploration", answer(answered))
    violation = Violation.from_dict(raw["violation"]) if raw["violation"] else None
    return Result(
        scenario=resolved.name,
        variant=chosen.name,
        kernel=description.kernel,
        policies=dict(description.policies),
        expect=chosen.expect if as_listed else None,
        verdict=raw["verdict"],
        exhaustive=raw["exhaustive"],
        executions=raw["executions"],
        steps=raw["steps"],
        states=raw["states"],
        seconds=float(raw["seconds"]),
        seed=raw["seed"],
        judged=resolved.judged,
        invariants=dict(sorted(raw["invariants"].items(), key=lambda item: order(item[0]))),
        invariant_steps=raw["invariant_steps"],
        scope={**description.scope, **raw["scope"], "absent": _absent(description, raw)},
        digest=description.digest,
        violation=violation,
        trace=Trace(Step.from_dict(step) for step in raw["trace"] or ()),
        shortest=raw["shortest"],
        interrupted=raw["interrupted"],
        raw=raw,
        document=description.document,
    )


def merge(results: Sequence[Result]) -> Result:
    """Several explorations of one policy, each with some of its actors, as one answer.

    Args:
        results: At least one, of the same policy.

    Returns:
        One result: violated if one is, held if all hold, exhaustive if all are.
    """
    first = results[0]
    names = sorted({name for result in results for name in result.invariants}, key=order)
    invariants: dict[str, str] = {}
    steps: dict[str, int] = {}
    for name in names:
        states = {result.invariants.get(name, "not judged") for result in results}
        invariants[name] = next((s for s in ("violated", "not judged", "not visible") if s in states), "held")
        found = [result.invariant_steps[name] for result in results if name in result.invariant_steps]
        if found:
            steps[name] = min(found)
    verdicts = {result.verdict for result in results}
    violated = min((r for r in results if r.violation), key=lambda r: len(r.trace), default=first)
    shortest: dict[str, Counterexample] = {}
    for result in results:
        for name, found in result.raw.get("witnesses", {}).items():
            if name not in shortest or found["steps"] < shortest[name]["steps"]:
                shortest[name] = found
    return replace(
        violated,
        verdict="violated" if "violated" in verdicts else "inconclusive" if "inconclusive" in verdicts else "safe",
        exhaustive=all(result.exhaustive for result in results),
        executions=sum(result.executions for result in results),
        steps=sum(result.steps for result in results),
        states=sum(result.states or 0 for result in results),
        seconds=sum(result.seconds for result in results),
        invariants=invariants,
        invariant_steps=steps,
        scope={
            **first.scope,
            "actors": [" beside ".join(result.scope.get("actors", ())) for result in results],
            "rounds": {},
            "absent": sorted(set[str].intersection(*(set(result.scope.get("absent", ())) for result in results))),
            "covered": max((r.scope.get("covered", EXTENTS[-1]) for r in results), key=EXTENTS.index),
            "bounds": "; ".join(dict.fromkeys(bounds for r in results if (bounds := r.scope.get("bounds")))),
        },
        interrupted=any(result.interrupted for result in results),
        raw={**first.raw, "witnesses": shortest},
    )


def _absent(description: Description, raw: Exploration) -> list[str]:
    """Kinds of actor that are absent: those that steps in Python turned out to be are not."""
    done = kinds(operation for steps in raw.get("asked", {}).values() for operation in steps["operations"])
    return sorted(set(description.scope.get("absent", ())) - done)
