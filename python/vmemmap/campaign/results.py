"""What a campaign has found: its jobs with their results, the same in groups that differ in the seed only, and beside
another version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import SpecError
from ..lab.scenario import find
from .job import Job, is_code
from .merged import Merged, Part, merged
from .store import Result, Round, Store

__all__ = ["Change", "Group", "Rate", "Row", "Shown", "Since", "shown", "trace_of"]


@dataclass(frozen=True)
class Row:
    """A job, and what came of it."""

    number: int
    job: Job
    result: Result | None
    #: Why it was given up.
    failed: str | None = None

    @property
    def state(self) -> str:
        """``finished``, ``failed`` (the next resume tries again) or ``waiting``."""
        return "finished" if self.result is not None else "failed" if self.failed is not None else "waiting"

    @property
    def differs(self) -> bool:
        """Whether the verdict is another one than the scenario expects; what is not decided differs from nothing. A
        violation that nobody expected, because the job changed what the scenario says, counts."""
        if self.result is None or self.result.verdict not in ("safe", "violated") or self.job.split is not None:
            # Of a part of a search nothing is expected; see `Shown.searches`.
            return False
        return self.result.verdict != (self.result.expect or "safe")

    def to_dict(self) -> dict[str, Any]:
        """An element of ``jobs`` of ``campaign show --json``."""
        job, result = self.job, self.result
        kernel, policies = (
            (result.kernel, result.policies) if result is not None and result.kernel else _of_variant(job)
        )
        known: dict[str, Any] = {} if result is None else result.document
        return {
            "number": self.number,
            "id": job.id,
            "kind": job.kind,
            "scenario": job.scenario,
            "variant": job.variant,
            "policies": policies,
            "kernel": kernel,
            "granule": job.granule,
            "strategy": job.strategy,
            "depth": job.depth,
            "split": job.split,
            "prefix": job.prefix,
            "seed": job.seed,
            "threads": job.threads,
            "budget": {"seconds": job.seconds, "executions": job.executions},
            "state": self.state,
            "failed": self.failed,
            "verdict": result.verdict if result else None,
            "expect": result.expect if result else None,
            "violated": list(result.violated) if result else None,
            "seconds": result.seconds if result else None,
            "host": result.host if result else None,
            "version": result.shown_version if result else None,
            "started": result.started if result else None,
            "finished": result.finished if result else None,
            **{key: value for key, value in known.items() if key not in ("threads", "scope")},
        }


def _of_variant(job: Job) -> tuple[str | None, dict[str, str]]:
    """Kernel and policies of a job that has no result yet. Code is not run for that."""
    try:
        if is_code(job.scenario):
            raise SpecError("code")
        variant = find(job.scenario).variant(job.variant)
    except SpecError:
        return job.kernel, dict(job.policies)
    return job.kernel or variant.kernel, {**variant.policies, **dict(job.policies)}


@dataclass
class Group:
    """Jobs that differ in their seed only, or are parts of one search."""

    job: Job
    rows: list[Row] = field(default_factory=list[Row])

    @property
    def finished(self) -> list[Result]:
        """Of these."""
        return [row.result for row in self.rows if row.result is not None]

    @property
    def verdicts(self) -> Counter[str]:
        """How many of each."""
        return Counter(result.verdict for result in self.finished)

    @property
    def violated(self) -> list[str]:
        """Every invariant violated in one of them, by number."""
        found = {name for result in self.finished for name in result.violated}
        return sorted(found, key=lambda name: (len(name), name))

    @property
    def seconds(self) -> float:
        """All together."""
        return sum(result.seconds for result in self.finished)

    @property
    def done(self) -> int:
        """Executions or operations, all together."""
        return sum(result.done for result in self.finished)

    @property
    def rate(self) -> float:
        """Executions or operations per second."""
        return self.done / self.seconds if self.seconds else 0.0

    @property
    def merged(self) -> Merged | None:
        """Of a split search: what its parts say together."""
        if self.job.split is None:
            return None
        return merged(self.job, [Part(row.number, row.job, row.result) for row in self.rows])

    @property
    def differs(self) -> bool:
        """Whether a verdict is not the expected one."""
        found = self.merged
        return found.differs if found is not None else any(row.differs for row in self.rows)

    @property
    def words(self) -> str:
        """``safe``, ``violated I1 I6``, ``violated I1 3 of 100``, ``4 waiting``, and what of these there is."""
        if (merged := self.merged) is not None:
            failed = sum(row.state == "failed" for row in self.rows)
            return f"{merged.words}, {failed} failed" if failed else merged.words
        parts: list[str] = []
        for verdict, count in sorted(self.verdicts.items(), key=lambda item: item[0] != "violated"):
            text = " ".join([verdict, *self.violated]) if verdict == "violated" else verdict
            parts.append(text if count == len(self.rows) else f"{text} {count} of {len(self.rows)}")
        for state in ("failed", "waiting"):
            if count := sum(row.state == state for row in self.rows):
                parts.append(state if count == len(self.rows) else f"{count} {state}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Change:
    """A job that two versions answer otherwise."""

    before: Result
    row: Row

    def to_dict(self) -> dict[str, Any]:
        """Of ``since`` in ``campaign show --json``."""
        now = self.row.result
        return {
            "number": self.row.number,
            "scenario": self.row.job.scenario,
            "variant": self.row.job.variant,
            "seed": self.row.job.seed,
            "verdict": [self.before.verdict, now.verdict if now else None],
            "violated": [list(self.before.violated), list(now.violated) if now else None],
            "version": [self.before.shown_version, now.shown_version if now else None],
        }


@dataclass(frozen=True)
class Rate:
    """What the same jobs did per second under two versions."""

    job: Job
    before: float
    now: float

    @property
    def ratio(self) -> float:
        """More than 1: faster."""
        return self.now / self.before if self.before else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Of ``since`` in ``campaign show --json``."""
        unit = "executions/s" if self.job.kind == "explore" else "operations/s"
        names = {"scenario": self.job.scenario, "variant": self.job.variant, "strategy": self.job.strategy}
        return {**names, "unit": unit, "rate": [self.before, self.now], "ratio": self.ratio}


@dataclass(frozen=True)
class Since:
    """The last results beside those of another version."""

    version: str
    compared: int
    changes: list[Change]
    rates: list[Rate]

    def to_dict(self) -> dict[str, Any]:
        """``since`` of ``campaign show --json``."""
        return {
            "version": self.version,
            "compared": self.compared,
            "changes": [change.to_dict() for change in self.changes],
            "rates": [rate.to_dict() for rate in self.rates],
        }


@dataclass(frozen=True)
class Shown:
    """All that `campaign show` knows."""

    path: Path
    round: Round
    rows: list[Row]
    #: (time, what happened), in the last round.
    events: list[tuple[str, str]]
    since: Since | None

    def count(self, state: str) -> int:
        """Jobs in that state."""
        return sum(row.state == state for row in self.rows)

    @property
    def searches(self) -> list[Merged]:
        """Those that were split."""
        return [found for group in self.groups if (found := group.merged) is not None]

    @property
    def differing(self) -> list[Row]:
        """Jobs whose verdict is not the expected one; of a split search its first."""
        split = {search.parts[0].number for search in self.searches if search.differs}
        return [row for row in self.rows if row.differs or row.number in split]

    @property
    def undecided(self) -> list[Row]:
        """Explorations whose budget ran out, and jobs without a result; of a split search that is not decided, its
        first. A stress decides nothing by seeing nothing, nor is it asked to."""
        split = {search.parts[0].number for search in self.searches if search.verdict not in ("safe", "violated")}
        return [
            row
            for row in self.rows
            if row.number in split
            or row.result is None
            or (row.job.kind == "explore" and row.job.split is None and row.result.verdict not in ("safe", "violated"))
        ]

    @property
    def groups(self) -> list[Group]:
        """In the order of the jobs."""
        found: dict[str, Group] = {}
        for row in self.rows:
            group = row.job.group
            found.setdefault(group.text(), Group(group)).rows.append(row)
        return list(found.values())

    def to_dict(self) -> dict[str, Any]:
        """What ``campaign show --json`` prints."""
        return {
            "title": self.round.title,
            "version": self.round.version,
            "started": self.round.started,
            **{state: self.count(state) for state in ("finished", "waiting", "failed")},
            "searches": [search.to_dict() for search in self.searches],
            "differing": [row.number for row in self.differing],
            "events": [{"at": at, "message": message} for at, message in self.events],
            "jobs": [row.to_dict() for row in self.rows],
            **({"since": self.since.to_dict()} if self.since is not None else {}),
        }


def shown(path: Path, *, since: str | None = None, documents: bool = False) -> Shown:
    """Read a campaign. Raises ``SpecError``: there is none, or nothing of that version."""
    with Store.read(path) as store:
        round = store.last_round()
        if round is None:
            raise SpecError(f"{path}: no campaign was begun here; vmemmap campaign run SPEC.toml begins one")
        jobs = store.jobs(round)
        latest: dict[str, Result] = {}
        before: dict[str, Result] = {}
        versions: dict[str, None] = {}
        # What a part has visited, and which parts there are, stands in its answer.
        for result in store.results(documents or any(job.split is not None for job in jobs)):
            versions[result.shown_version] = None
            # One of the round's own code is the one that counts; else what a resume under other code has found.
            known = latest.get(result.job)
            own = (result.package, result.core) == (round.code.package, round.code.core)
            if known is None or own or (known.package, known.core) != (round.code.package, round.code.core):
                latest[result.job] = result
            if since is not None and result.is_of(since):
                before[result.job] = result
        events = store.events(round)
        done = {job.id for job in jobs} - {job.id for job in store.pending(round)}
    if since is not None and not before:
        raise SpecError(f"{path}: no result of version {since!r:.60}; there are {', '.join(versions) or 'none at all'}")
    failed = {job: message for _, job, gave_up, message in events if gave_up}
    rows = [
        Row(number, job, latest[job.id], None) if job.id in done else Row(number, job, None, failed.get(job.id))
        for number, job in enumerate(jobs, 1)
    ]
    compared = _compare(rows, before, since) if since is not None else None
    return Shown(path, round, rows, [(at, message) for at, _, _, message in events], compared)


def _compare(rows: Sequence[Row], before: Mapping[str, Result], version: str) -> Since:
    both = [(before[row.job.id], row) for row in rows if row.result is not None and row.job.id in before]
    changes = [
        Change(old, row)
        for old, row in both
        if row.result and (old.verdict, old.violated) != (row.result.verdict, row.result.violated)
    ]
    groups: dict[str, tuple[Group, Group]] = {}
    for old, row in both:
        job = row.job.group
        then, now = groups.setdefault(job.text(), (Group(job), Group(job)))
        then.rows.append(Row(row.number, row.job, old))
        now.rows.append(row)
    return Since(version, len(both), changes, [Rate(then.job, then.rate, now.rate) for then, now in groups.values()])


def trace_of(shown: Shown, number: int) -> str:
    """The trace file of the violation that a job found, by the job's number. Raises ``SpecError``: it has none."""
    row = next((row for row in shown.rows if row.number == number), None)
    if row is None:
        raise SpecError(f"{shown.path}: no job {number}: they are numbered 1 to {len(shown.rows)}")
    with Store.read(shown.path) as store:
        trace = store.trace(row.job.id, shown.round.code)
    if trace is None:
        raise SpecError(
            f"{shown.path}: job {number} has no trace: it is {row.result.verdict if row.result else row.state}"
        )
    return trace
