"""Replay: a recorded execution once more, on the machine of the document that its trace carries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .. import _core
from ..dumps.reading import read_at_most
from ..errors import InternalError, SpecError, VmemmapError
from ..shown import html_table
from .answers import Divergence, HeldLock, History, Recorded, ReplayDict, ReplayReport, TraceFile
from .trace import Step, Trace, Violation

__all__ = ["ReplayResult", "replay"]


@dataclass(frozen=True)
class ReplayResult:
    """What came of a replay. `to_dict` is exactly the object that ``vmemmap replay --json`` prints.

    `identical`: every step as recorded, and the same violation. `violated`: the invariant of the trace was, in whatever
        way; a tolerant
    replay of changed code can have the one without the other.
    """

    scenario: str
    variant: str
    kernel: str
    policies: Mapping[str, str]
    identical: bool
    violated: bool
    tolerant: bool
    seed: int | None
    #: The invariant of the trace.
    invariant: str
    violation: Violation | None
    trace: Trace
    switches: int
    #: What differs that may explain a difference: version, document, policies.
    notes: tuple[str, ...]
    raw: ReplayReport
    #: Bytes of a base page of the machine.
    granule: int = 4096

    @property
    def divergence(self) -> Divergence | None:
        """The first difference: `segment` and `step` (from 1), `expected`, `found`, and all of it as a `message`."""
        return self.raw["divergence"]

    @property
    def histories(self) -> list[History]:
        """Of the frame or table that the violation is about: who `freed` or `unlinked` it, who still `held` it, in
        which step.
        """
        return self.raw["histories"]

    @property
    def locks(self) -> list[HeldLock]:
        """Who holds which lock at the end, since which step."""
        return self.raw["locks"]

    @property
    def words(self) -> str:
        """The answer in one line."""
        steps = sum(not step.judgement for step in self.trace)
        length = f"{steps:,} steps, {self.switches:,} context switches"
        if self.identical:
            return f"identical: {self.invariant} is violated again in {length}"
        if not self.tolerant:
            return self.divergence["message"] if self.divergence else "diverged"
        how = "with a seeded scheduler" if self.seed is not None else "without a choice"
        went = f", {self.raw['continued']:,} of them past the last segment, {how}" if self.raw["continued"] else ""
        if self.violated:
            return f"not identical, but {self.invariant} is violated again in {length}{went}"
        return f"{self.invariant} was not violated again in {length}{went}"

    def _repr_html_(self) -> str:
        pairs = [
            ("scenario", f"{self.scenario} {self.variant}"),
            ("kernel", self.kernel),
            *(("note", n) for n in self.notes),
        ]
        return html_table(self.words, (), pairs)

    def to_dict(self) -> ReplayDict:
        """The object of ``replay --json``.

        Returns:
            The object that ``--json`` prints.
        """
        return {
            **self.raw,
            "invariant": self.invariant,
            "words": self.words,
            "notes": list(self.notes),
            "violation": self.violation.to_dict() if self.violation else None,
            "trace": [step.to_dict() for step in self.trace],
        }


MAX_BYTES: Final = 256 << 20
"""Of a trace file; one of a million steps has as much."""


def _text(trace: TraceFile | Mapping[str, object] | str | Path) -> tuple[str, str]:
    """The JSON of a trace, and where it came from.

    Raises:
        SpecError: It is not the JSON of a trace.
    """
    if isinstance(trace, Mapping):
        try:
            return json.dumps(trace), "trace"
        except (TypeError, ValueError) as error:
            raise SpecError(f"trace: {error}") from error
    path = Path(trace)
    try:
        return read_at_most(path, MAX_BYTES, "trace").decode("utf-8"), str(path)
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not the JSON of a trace: {error}") from error


def replay(
    trace: TraceFile | Mapping[str, object] | str | Path,
    *,
    tolerant: bool = False,
    seed: int | None = None,
    policies: Mapping[str, str] | None = None,
) -> ReplayResult:
    """Run a trace again, on the machine of its own document.

    Exactly: function, operation, place and words of each step are compared, and the first difference is the answer.

    Args:
        trace: A file that ``explore --trace-out`` wrote, or what `Result.trace_file` gives.
        tolerant: Past the first difference, resynchronise: each segment is followed to its end by name, one
            that cannot be is left out, and after the last one whoever can go goes, until the same
            invariant is violated or nothing is left to do.
        seed: Who goes after the last segment, and which alternatives are taken, is drawn; without it the
            actor that went last goes on, then the first that can.
        policies: Other choices than the trace's: does the same schedule violate it under them?

    Returns:
        Whether every step came again, and what came instead.

    Raises:
        InternalError: A fault of the core.
        SpecError: Not a trace, one of another format, or one whose document is wrong; a seed without
            `tolerant`.
        OSError: The file cannot be read.
    """
    if seed is not None and not (isinstance(seed, int) and 0 <= seed < 1 << 64):
        raise SpecError(f"seed is {seed!r}: expected an integer of 64 bits")
    if seed is not None and not tolerant:
        raise SpecError("an exact replay draws nothing: a seed is for a tolerant one")
    text, where = _text(trace)
    options = {"tolerant": tolerant, "seed": seed, "policies": dict(policies or {})}
    try:
        raw: ReplayReport = json.loads(_core.replay(text, json.dumps(options)))
    except InternalError:
        raise
    except VmemmapError as error:
        raise SpecError(f"{where}: {error}") from error
    recorded = raw["recorded"]
    return ReplayResult(
        scenario=raw["scenario"],
        variant=raw["variant"],
        kernel=raw["kernel"],
        policies=raw["policies"],
        identical=raw["identical"],
        violated=raw["fell"],
        tolerant=tolerant,
        seed=seed,
        invariant=recorded["violation"]["invariant"],
        violation=Violation.from_dict(raw["violation"]) if raw["violation"] else None,
        trace=Trace(Step.from_dict(step) for step in raw["trace"]),
        switches=raw["switches"],
        notes=tuple(_notes(raw, recorded)),
        raw=raw,
        granule=_granule(text),
    )


def _granule(trace: str) -> int:
    """Of the machine that the document of a trace describes; 4K where an older one does not say."""
    held: Mapping[str, Mapping[str, Mapping[str, object]]] = json.loads(trace)
    found = held.get("document", {}).get("machine", {}).get("granule")
    return found if isinstance(found, int) else 4096


def _notes(raw: ReplayReport, recorded: Recorded) -> list[str]:
    """What is otherwise than when the trace was recorded."""
    notes: list[str] = []
    if recorded["version"] != raw["version"]:
        notes.append(f"recorded by version {recorded['version']}, this is {raw['version']}")
    before, now = recorded["policies"], raw["policies"]
    for row in sorted({*before, *now}):
        if before.get(row) != now.get(row):
            notes.append(f"{row} is {now.get(row, 'gone')}, was {before.get(row, 'absent')} when recorded")
    for sync in raw["resynchronised"]:
        by = f"its end found again by {sync['by']}" if sync["by"] else "left out"
        notes.append(f"segment {sync['segment']} ({sync['actor']}): {by}")
    return notes
