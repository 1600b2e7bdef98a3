"""What the core answers about scenarios, and what the commands print of it: the keys, and what they hold.

The core writes JSON (``rust/lab``: verdict, trace, stress, replay report). Keys are added, never renamed; a key that is
not always there stands in a base class with ``total=False``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict

from .description import Document, Scope, Value

__all__ = [
    "CellDict",
    "Counterexample",
    "Exploration",
    "ExploreDict",
    "InvariantState",
    "ReplayDict",
    "ReplayReport",
    "ScenarioDict",
    "StepDict",
    "StressDict",
    "StressReport",
    "TraceFile",
    "VariantDict",
    "Verdict",
    "ViolationDict",
]

Verdict = Literal["safe", "violated", "inconclusive"]
InvariantState = str
"""``held`` (of a stress: ``not seen``), ``violated``, ``not judged``, ``not visible``."""


class CellDict(TypedDict):
    """One kernel against one entry of the corpus, in ``vmemmap list --matrix --json``."""

    corpus: str
    kernel: str
    verdict: Literal["violated", "safe", "inconclusive", "not applicable"]
    invariant: str | None
    why: str
    command: str | None


class _StepMaybe(TypedDict, total=False):
    taken: str | None
    since: int | None
    judgement: bool


class StepDict(_StepMaybe):
    """One step of a trace. Addresses and words are integers of 64 bits."""

    step: int
    cpu: int
    actor: str
    op: str
    label: str
    place: str
    address: int | None
    old: int | None
    new: int | None
    note: str


class ViolationDict(TypedDict):
    """The invariant that was violated, by whom, in which step."""

    invariant: str
    actor: str
    step: int
    address: int | None
    message: str


class Point(TypedDict):
    """A place in the program of an actor: the `nth` operation of that name, label and place in its segment."""

    op: str
    label: str
    place: str
    nth: int


class Alternative(Point):
    """An alternative of the environment that was taken there."""

    taken: str


class Segment(TypedDict):
    """One actor runs, until it has done the operation at `until`."""

    actor: str
    until: Point
    operations: int
    alternatives: list[Alternative]
    observed: str


class Bounds(TypedDict):
    """What bounded the search."""

    rounds: dict[str, int]
    step_bound: int


class TraceFile(TypedDict):
    """What ``--trace-out`` saves and ``vmemmap replay`` reads."""

    format: int
    version: str
    scenario: str
    variant: str
    digest: str
    policies: dict[str, str]
    strategy: str
    seed: int | None
    memory_model: str
    bounds: Bounds
    violation: ViolationDict
    operations: int
    switches: int
    shortest: bool
    document: Document
    segments: list[Segment]
    steps: list[StepDict]


class Counterexample(TypedDict):
    """The shortest known execution that violates one invariant; the core's key for all of them is ``witnesses``."""

    violation: ViolationDict
    steps: int
    switches: int
    shortest: bool
    minimal: bool
    shown: list[StepDict]
    trace: TraceFile


class LockOrder(TypedDict):
    """Two locks taken in both orders: which, by whom, in which functions."""

    locks: tuple[str, str]
    actors: tuple[str, str]
    places: tuple[str, str]


class FirstViolation(TypedDict):
    """What it took to find the first violation."""

    executions: int
    seconds: float


class Asked(TypedDict):
    """What steps in Python were asked: histories of results, and the operations that they yielded."""

    histories: int
    operations: list[str]


class _ExplorationMaybe(TypedDict, total=False):
    asked: dict[str, Asked]
    first_violation: FirstViolation | None
    interleavings: float | None
    lock_order: list[LockOrder]
    workers: int
    rounds: int
    switches: int | None


class _Found(_ExplorationMaybe):
    scenario: str
    variant: str
    digest: str
    verdict: Verdict
    exhaustive: bool
    interrupted: bool
    executions: int
    steps: int
    states: int | None
    seconds: float
    seed: int | None
    judged: list[str]
    invariants: dict[str, InvariantState]
    invariant_steps: dict[str, int]
    scope: Scope
    violation: ViolationDict | None
    trace: list[StepDict] | None
    shortest: bool


class _Part(TypedDict, total=False):
    """Of a search that was split, and of a part of one."""

    prefixes: list[str]
    prefix: str


class Exploration(_Found, _Part):
    """The core's answer to `_core.explore`."""

    witnesses: dict[str, Counterexample]


class ExploreDict(_Found):
    """The object of ``vmemmap explore --json``."""

    kernel: str
    policies: dict[str, str]
    expect: str | None
    words: str


class StressViolation(TypedDict):
    """A violation on the native machine: whose access, and of a frame or table who freed it and who still held it."""

    invariant: str
    actor: str
    cpu: int
    step: int
    address: int
    message: str
    freed: str | None
    held: str | None


class ActorCount(TypedDict):
    """What one thread did."""

    name: str
    cpu: int
    operations: int
    rounds: int
    by_kind: dict[str, int]
    errors: dict[str, int]


class Latency(TypedDict):
    """Nanoseconds of one kind of operation."""

    p50: int
    p99: int
    p999: int
    max: int
    count: int


class _Stressed(TypedDict):
    scenario: str
    variant: str
    operations: int
    seconds: float
    threads: int
    checked: bool
    seed: int
    interrupted: bool
    violation_count: int
    judged_violations: int
    violations_by_invariant: dict[str, int]
    judged: list[str]
    invariants: dict[str, InvariantState]
    not_visible: list[str]
    counters: dict[str, int]
    latency_ns: dict[str, Latency]
    actors: list[ActorCount]
    errors: dict[str, int]
    overlaps: dict[str, int]


class StressReport(_Stressed):
    """The core's answer to `_core.stress`."""

    violations: list[StressViolation]


class StressDict(_Stressed):
    """The object of ``vmemmap stress --json``."""

    violations: list[ViolationDict]
    policies: dict[str, str]
    put_back: dict[str, list[str]]
    repeated: list[str]


class Divergence(TypedDict):
    """The first difference between a trace and its replay; counted from 1."""

    segment: int | None
    step: int | None
    expected: str | None
    found: str | None
    message: str


class Resync(TypedDict):
    """A segment of a tolerant replay that was found again, or left out."""

    segment: int
    actor: str
    by: str | None


class History(TypedDict):
    """Who did what to the frame or table that a violation is about."""

    role: str
    actor: str
    cpu: int
    step: int
    op: str
    label: str
    place: str


class HeldLock(TypedDict):
    """Who holds which lock at the end, since which step."""

    actor: str
    lock: str
    step: int


class Recorded(TypedDict):
    """What a trace says of the search that recorded it."""

    digest: str
    memory_model: str
    policies: dict[str, str]
    seed: int | None
    shortest: bool
    steps: int
    strategy: str
    switches: int
    version: str
    violation: ViolationDict


class ReplayReport(TypedDict):
    """The core's answer to `_core.replay`."""

    scenario: str
    variant: str
    kernel: str
    digest: str
    version: str
    policies: dict[str, str]
    identical: bool
    fell: bool
    tolerant: bool
    seed: int | None
    divergence: Divergence | None
    resynchronised: list[Resync]
    continued: int
    violation: ViolationDict | None
    steps: int
    switches: int
    histories: list[History]
    locks: list[HeldLock]
    recorded: Recorded
    trace: list[StepDict]


class ReplayDict(ReplayReport):
    """The object of ``vmemmap replay --json``."""

    invariant: str
    words: str
    notes: list[str]


class VariantDict(TypedDict):
    """A variant in ``vmemmap list --json``."""

    name: str
    expect: str
    invariants: list[str]
    policies: dict[str, str]
    kernel: str
    environment: Mapping[str, Value]


class ScenarioDict(TypedDict):
    """A scenario in ``vmemmap list --json``."""

    name: str
    corpus: str | None
    title: str
    sources: list[str]
    variants: list[VariantDict]
