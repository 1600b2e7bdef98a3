"""Stress: a scenario's actors in real threads, and what they did and saw."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from .. import _core
from ..errors import SpecError
from ..shown import html_table
from .answers import ActorCount, Latency, StressDict, StressReport
from .asked import AnyScenario, answer, check_seed, image, order, resolve
from .description import ActorDocument, Document
from .repetition import put_back
from .scenario import Variant
from .steps import OperationDict
from .trace import Violation

__all__ = ["StressResult", "stress"]


@dataclass(frozen=True)
class StressResult:
    """What a stress did and saw. `to_dict` is exactly the object that ``vmemmap stress --json`` prints."""

    scenario: str
    variant: str
    policies: Mapping[str, str]
    operations: int
    seconds: float
    threads: int
    checked: bool
    violations: tuple[Violation, ...]
    counters: Mapping[str, int]
    latency_ns: Mapping[str, Latency]
    actors: tuple[ActorCount, ...]
    overlaps: Mapping[str, int]
    #: Operations that an actor adds to its program, to put back what a round took: what they meet no exploration of one
    #: round has.
    put_back: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, "tuple[str, ...]"])
    #: Invariants that these rounds are expected to violate, though one round does not (`Variant.repeated`).
    repeated: tuple[str, ...] = ()
    #: The variant is listed as safe, and no policy was chosen beside its own.
    listed_safe: bool = False
    interrupted: bool = False
    raw: StressReport = field(default_factory=lambda: cast("StressReport", {}), repr=False)

    @property
    def violation_count(self) -> int:
        """All that happened; `violations` may be cut to the first of each kind."""
        return max(self.raw.get("violation_count", 0), len(self.violations))

    @property
    def judged_violations(self) -> int:
        """Those of invariants that the scenario judges and real threads can show."""
        return self.raw.get("judged_violations", 0)

    @property
    def refuted(self) -> bool:
        """What the exit code is about: something was violated that real threads can show. What is listed as safe is so
        as to what its scenario judges, and nothing else decides of it."""
        seen = any(state == "violated" for state in self.raw.get("invariants", {}).values())
        return self.judged_violations > 0 if self.listed_safe else seen

    @property
    def violated(self) -> list[str]:
        """The judged invariants among those of `counts`."""
        states = self.raw.get("invariants", {})
        return [i for i in self.counts if i in self.raw["judged"] and states[i] == "violated"]

    @property
    def counts(self) -> dict[str, int]:
        """How often each invariant was violated, by number."""
        counted = self.raw.get("violations_by_invariant", {})
        return {i: counted[i] for i in sorted(counted, key=order)}

    def _repr_html_(self) -> str:
        title = f"{self.scenario} {self.variant}: {self.violation_count:,} violations in {self.operations:,} operations"
        rows = [(name, *(f"{value:,}" for value in latency.values())) for name, latency in self.latency_ns.items()]
        head = ("operation, ns", *(next(iter(self.latency_ns.values())) if self.latency_ns else ()))
        return html_table(title, head, rows)

    def to_dict(self) -> StressDict:
        """The object of ``stress --json``.

        Returns:
            The object that ``--json`` prints.
        """
        return {
            **self.raw,
            "scenario": self.scenario,
            "variant": self.variant,
            "policies": dict(self.policies),
            "operations": self.operations,
            "seconds": self.seconds,
            "threads": self.threads,
            "checked": self.checked,
            "violations": [violation.to_dict() for violation in self.violations],
            "counters": dict(self.counters),
            "latency_ns": dict(self.latency_ns),
            "actors": list(self.actors),
            "overlaps": dict(self.overlaps),
            "put_back": {actor: list(operations) for actor, operations in self.put_back.items()},
            "repeated": list(self.repeated),
            "interrupted": self.interrupted,
        }


def stress(
    scenario: AnyScenario,
    *,
    variant: str | Variant | None = None,
    policies: Mapping[str, str] | None = None,
    threads: int | None = None,
    seconds: float = 2.0,
    seed: int | None = None,
    checked: bool = True,
    progress: Callable[[int, int, float, dict[str, int]], object] | None = None,
) -> StressResult:
    """Run a scenario's actors in real threads on the native machine, each repeating its program until the time is over.
    What a program takes away it puts back before the next round (`vmemmap.lab.repetition`); steps that look at results
    do that themselves.

    Args:
        scenario: A `Scenario`, its name or corpus number, ``FILE.py[:NAME]``, or a bare scenario function.
        variant: One of its variants, by name; the first by default.
        policies: Choices by policy, such as ``{"update": "bbm"}``; they override those of the variant.
        threads: One for each actor by default; more repeat the actors in turn. At most 256.
        seconds: How long; at most a day.
        seed: 64 bits; the same seed draws the same executions.
        checked: Check each access, as a sanitizer does: frame generations, presence, permissions.
        progress: Called now and then with operations, violations, seconds and the machine's counters so far.

    Returns:
        Operations, violations, counters, latencies in nanoseconds.

    Raises:
        SpecError: No such scenario, variant or policy; a time or a number of threads that makes no sense.
    """
    if not isinstance(seconds, (int, float)) or not 0.0 < seconds <= 86_400.0:
        raise SpecError(f"seconds is {seconds!r}: expected more than 0, at most a day")
    if threads is not None and (not isinstance(threads, int) or not 1 <= threads <= 256):
        raise SpecError(f"threads is {threads!r}: expected 1 to 256")
    check_seed(seed)
    resolved = resolve(scenario)
    chosen = variant if isinstance(variant, Variant) else resolved.variant(variant)
    description = resolved.set_up(chosen, policies or {})
    options = {"threads": threads, "seconds": seconds, "seed": seed or 0, "checked": checked}
    back = _put_back(description.document)
    document = json.dumps(_repeated(description.document, back))
    answered = _core.stress(document, json.dumps(options), image(description), progress, description.sources)
    raw = cast("StressReport", answer(answered))
    return StressResult(
        scenario=resolved.name,
        variant=chosen.name,
        policies=dict(description.policies),
        operations=raw["operations"],
        seconds=float(raw["seconds"]),
        threads=raw["threads"],
        checked=checked,
        violations=tuple(Violation.from_dict(violation) for violation in raw["violations"]),
        counters=raw["counters"],
        latency_ns=raw["latency_ns"],
        actors=tuple(raw["actors"]),
        overlaps=raw["overlaps"],
        put_back={actor: tuple(str(o["op"]) for o in operations) for actor, operations in back.items()},
        repeated=chosen.repeated,
        listed_safe=chosen.expect == "safe" and not policies,
        interrupted=raw["interrupted"],
        raw=raw,
    )


def _put_back(document: Document) -> dict[str, list[OperationDict]]:
    """By actor, what its program needs behind it. Steps that look at results put back themselves what they took."""
    found = {
        actor["name"]: put_back(document["setup"], actor["program"])
        for actor in document["actors"]
        if actor["program"] is not None
    }
    return {actor: operations for actor, operations in found.items() if operations}


def _repeated(document: Document, back: Mapping[str, list[OperationDict]]) -> Document:
    """A scenario document whose programs can be run over and over."""

    def often(actor: ActorDocument) -> ActorDocument:
        program = actor["program"]
        return actor if program is None else {**actor, "program": [*program, *back.get(actor["name"], [])]}

    return {**document, "actors": [often(actor) for actor in document["actors"]]}
