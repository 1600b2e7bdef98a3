"""One exhaustive search in parts: what they say together.

A *tree* (the first operations of each execution) names the prefixes behind which the parts go on. Together they visit
what one search would (docs/search.md §3.15), if none is missing and none was cut. Parts overlap, so that their states
and executions are sums over parts and no number of states of the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .job import Job
from .store import Result

__all__ = ["Merged", "Part", "merged"]


@dataclass(frozen=True)
class Part:
    """A job of a split search, and what came of it."""

    number: int
    job: Job
    result: Result | None

    @property
    def name(self) -> str:
        """Its prefix."""
        return "the tree" if self.job.prefix is None else self.job.prefix

    @property
    def is_whole(self) -> bool:
        """Whether it has visited all that it is there for."""
        return self.result is not None and self.result.document.get("exhaustive") is True


@dataclass(frozen=True)
class Merged:
    """The verdict of a split search."""

    job: Job
    parts: tuple[Part, ...]
    #: Prefixes that the tree names and no job is for.
    missing: tuple[str, ...]
    #: The tree has an answer, and each part is of the code that gave it.
    same_code: bool

    @property
    def finished(self) -> list[Result]:
        """Results of its parts."""
        return [part.result for part in self.parts if part.result is not None]

    @property
    def cut(self) -> list[str]:
        """Prefixes of parts that have an answer and have not visited all."""
        return [part.name for part in self.parts if part.result is not None and not part.is_whole]

    @property
    def exhaustive(self) -> bool:
        """All that the undivided search visits was visited."""
        return self.same_code and not self.missing and all(part.is_whole for part in self.parts)

    @property
    def violated(self) -> list[str]:
        """Every invariant that a part saw violated, by number."""
        found = {name for result in self.finished for name in result.violated}
        return sorted(found, key=lambda name: (len(name), name))

    @property
    def verdict(self) -> str | None:
        """``safe`` only if nothing is missing; None as long as a job is to come and none has seen a violation."""
        if any(result.verdict == "violated" for result in self.finished):
            return "violated"
        if self.exhaustive:
            return "safe"
        return "inconclusive" if len(self.finished) == len(self.parts) else None

    @property
    def expect(self) -> str | None:
        """Of the scenario."""
        return next((result.expect for result in self.finished), None)

    @property
    def differs(self) -> bool:
        """As of a job that was not split."""
        return self.verdict in ("safe", "violated") and self.verdict != (self.expect or "safe")

    @property
    def shows(self) -> int | None:
        """The number of the first job that has a trace of it."""
        found = (part.number for part in self.parts if part.result and part.result.verdict == "violated")
        return next(found, None)

    @property
    def words(self) -> str:
        """``safe in 24 parts``; of what is not whole, why."""
        count = f"{len(self.parts)} parts"
        done = len(self.finished)
        if self.verdict is None:
            return f"{done} of {count}"
        text = " ".join([self.verdict, *self.violated]) if self.verdict == "violated" else self.verdict
        text += f" in {count}" if done == len(self.parts) else f" in {done} of {count}"
        if self.shows is not None:
            text += f" (trace: job {self.shows})"
        why = [f"{len(self.cut)} cut: {_few(self.cut)}"] if self.cut else []
        why += [f"{len(self.missing)} missing: {_few(self.missing)}"] if self.missing else []
        why += ["of different versions"] if done and not self.same_code else []
        return f"{text}, not exhaustive: {'; '.join(why)}" if why else text

    def to_dict(self) -> dict[str, Any]:
        """An element of ``searches`` of ``campaign show --json``."""
        return {
            "scenario": self.job.scenario,
            "variant": self.job.variant,
            "policies": dict(self.job.policies),
            "kernel": self.job.kernel,
            "granule": self.job.granule,
            "split": self.job.split,
            "verdict": self.verdict,
            "exhaustive": self.exhaustive,
            "expect": self.expect,
            "violated": self.violated,
            "jobs": [part.number for part in self.parts],
            "finished": len(self.finished),
            "cut": self.cut,
            "missing": list(self.missing),
            "sum_of_parts": {
                "states": sum(result.document.get("states") or 0 for result in self.finished),
                "executions": sum(result.done for result in self.finished),
                "seconds": sum(result.seconds for result in self.finished),
                "longest_seconds": max((result.seconds for result in self.finished), default=0.0),
            },
        }


def _few(prefixes: Sequence[str]) -> str:
    return ", ".join(prefixes[:3]) + (f" and {len(prefixes) - 3} more" if len(prefixes) > 3 else "")


def merged(job: Job, parts: Sequence[Part]) -> Merged:
    """The search of these parts, the tree among them, that have all the same `Job.group`."""
    tree = next((part.result for part in parts if part.job.prefix is None), None)
    have = {part.job.prefix for part in parts}
    named: Sequence[str] = () if tree is None else tree.document.get("prefixes", ())
    codes = {(part.result.package, part.result.core) for part in parts if part.result is not None}
    return Merged(
        job,
        tuple(parts),
        tuple(prefix for prefix in named if prefix not in have),
        tree is not None and isinstance(tree.document.get("prefixes"), list) and len(codes) == 1,
    )
