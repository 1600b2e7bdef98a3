"""One job of a campaign: an exploration or a stress as data, independent of all others.

A job travels as JSON, to the database and to workers. Whoever reads one checks it again: a database may come from a
stranger.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, cast

from ..errors import SpecError
from ..lab.asked import chosen
from ..lab.description import Description
from ..lab.exploration import MAX_DEPTH, MAX_SPLIT, STRATEGIES
from ..lab.scenario import Scenario, Variant, find
from ..spec import format_size, parse_granule, parse_kernel

__all__ = ["KINDS", "MAX_SECONDS", "MAX_THREADS", "Case", "Job", "is_code", "source_digest"]

Kind = Literal["explore", "stress"]

KINDS: Final = ("explore", "stress")

MAX_SECONDS: Final = 86_400.0
"""Of one job: a day. What takes longer is more jobs."""

MAX_THREADS: Final = 256

_TEXT: Final = 4096


def is_code(scenario: str) -> bool:
    """Whether a scenario is named by a Python file, which would be run."""
    return scenario.partition(":")[0].endswith(".py")


def source_digest(scenario: str) -> str | None:
    """Of the file of such a scenario. Raises ``SpecError`` if there is none to read."""
    if not is_code(scenario):
        return None
    path = Path(scenario.partition(":")[0])
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror or error}") from error


@dataclass(frozen=True)
class Case:
    """The scenario of a job in the variant that it asks for."""

    scenario: Scenario
    variant: Variant
    #: What the scenario expects, if the job changed nothing of it.
    expect: str | None

    def describe(self, policies: Mapping[str, str]) -> Description:
        """Raises ``SpecError`` for a combination that cannot be."""
        return self.scenario.set_up(self.variant, policies)


@dataclass(frozen=True)
class Job:
    """What to explore or to stress. `kernel` and `granule` are set only where they replace those of the variant."""

    kind: Kind
    scenario: str
    variant: str
    policies: tuple[tuple[str, str], ...] = ()
    kernel: str | None = None
    granule: str | None = None
    #: Of an exploration.
    strategy: str | None = None
    depth: int | None = None
    executions: int | None = None
    shorten: float | None = None
    #: Of an exhaustive search in parts: the tree of so many operations, or what is behind one of its prefixes.
    split: int | None = None
    prefix: str | None = None
    #: The time budget of an exploration, the length of a stress.
    seconds: float | None = None
    seed: int | None = None
    #: Of a stress.
    threads: int | None = None
    checked: bool | None = None
    #: Of the Python file that defines the scenario; it is run only as it was.
    source: str | None = None

    def text(self) -> str:
        """Canonical JSON: the same job is the same text."""
        present = {name: value for name, value in vars(self).items() if value is not None and name != "policies"}
        return json.dumps({**present, "policies": dict(self.policies)}, sort_keys=True, separators=(",", ":"))

    @property
    def id(self) -> str:
        """By which a result is found again, whatever campaign it stands in."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:24]

    @property
    def longest(self) -> float:
        """Seconds that it may take, for an estimate before anything is known."""
        return self.seconds if self.seconds is not None else 10.0

    @property
    def group(self) -> Job:
        """What stays the same when only the seed differs, or the part of a split search."""
        return replace(self, seed=None, prefix=None)

    def case(self, allow_code: bool = False) -> Case:
        """Find the scenario, and its variant as this job wants it.

        Raises ``SpecError``: there is none; it is code and that was not allowed, or not the code it was.
        """
        if is_code(self.scenario):
            if not allow_code:
                raise SpecError(f"{self.scenario}: a scenario in a Python file is code; --allow-code runs it")
            if source_digest(self.scenario) != self.source:
                raise SpecError(f"{self.scenario.partition(':')[0]}: the file has changed since the campaign was made")
        scenario = find(self.scenario)
        own = variant = scenario.variant(self.variant)
        if self.kernel is not None:
            variant = replace(variant, kernel=self.kernel)
        if self.granule is not None and variant.arguments.get("granule") != self.granule:
            if "granule" not in inspect.signature(scenario.describe).parameters:
                raise SpecError(f"scenario {scenario.name} has no granule to choose")
            variant = replace(variant, arguments={**variant.arguments, "granule": self.granule})
        return Case(scenario, variant, own.expect if variant == own and not self.policies else None)

    @classmethod
    def parse(cls, text: str) -> Job:
        """What `text` made. Raises ``SpecError`` for anything else."""
        try:
            parsed: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"job: no JSON: {error}") from error
        if not isinstance(parsed, dict):
            raise SpecError("job: expected an object")
        document = cast("dict[str, Any]", parsed)
        unknown = sorted(set(document) - set(cls.__dataclass_fields__))
        if unknown:
            raise SpecError(f"job: unknown key {unknown[0]!r}: expected one of {', '.join(cls.__dataclass_fields__)}")
        return cls(
            kind=_one_of("kind", document.get("kind"), KINDS),
            scenario=_text("scenario", document.get("scenario")),
            variant=_text("variant", document.get("variant")),
            policies=_policies(document.get("policies", {})),
            kernel=None if (kernel := document.get("kernel")) is None else parse_kernel(kernel),
            granule=None if (granule := document.get("granule")) is None else format_size(parse_granule(granule)),
            strategy=None
            if (strategy := document.get("strategy")) is None
            else _one_of("strategy", strategy, STRATEGIES),
            depth=_integer("depth", document.get("depth"), 1, MAX_DEPTH),
            executions=_integer("executions", document.get("executions"), 1, (1 << 63) - 1),
            shorten=_seconds("shorten", document.get("shorten"), 0.0),
            split=_integer("split", document.get("split"), 1, MAX_SPLIT),
            prefix=None if (prefix := document.get("prefix")) is None else _text("prefix", prefix),
            seconds=_seconds("seconds", document.get("seconds"), 0.01),
            seed=_integer("seed", document.get("seed"), 0, (1 << 64) - 1),
            threads=_integer("threads", document.get("threads"), 1, MAX_THREADS),
            checked=_switch("checked", document.get("checked")),
            source=None if (source := document.get("source")) is None else _text("source", source),
        )


def _one_of(key: str, value: object, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        raise SpecError(f"{key} is {value!r:.60}: expected one of {', '.join(choices)}")
    return value


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _TEXT:
        raise SpecError(f"{key} is {value!r:.60}: expected text")
    return value


def _integer(key: str, value: object, low: int, high: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SpecError(f"{key} is {value!r:.60}: expected an integer of {low} to {high}")
    return value


def _seconds(key: str, value: object, low: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= MAX_SECONDS:
        raise SpecError(f"{key} is {value!r:.60}: expected {low:g} to {MAX_SECONDS:g} seconds")
    return float(value)


def _switch(key: str, value: object) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise SpecError(f"{key} is {value!r:.60}: expected true or false")
    return value


def _policies(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise SpecError(f"policies is {value!r:.60}: expected a table of names and values")
    table = cast("dict[str, object]", value)
    return tuple(sorted(chosen(f"{name}={choice}" for name, choice in table.items()).items()))
