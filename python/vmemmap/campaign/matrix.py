"""From matrices to jobs: each combination that is a question of its own, once."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import product
from typing import Final

from ..errors import SpecError
from ..lab.exploration import explore
from ..lab.scenario import Scenario, find
from ..spec import Budget
from .job import Job, is_code, source_digest
from .spec import MAX_JOBS, Matrix, Spec

__all__ = ["jobs_of"]


_TREE_SECONDS: Final = 60.0
"""Budget of the search that finds the prefixes of a split one. It has few operations."""


def jobs_of(spec: Spec, *, allow_code: bool = False, stop: Callable[[], bool] = lambda: False) -> list[Job]:
    """The jobs of a campaign in the order of its file; one that two matrices ask for stands where it is first asked
    for.

    Each is described once without being run, so that a job that cannot be is an error now. Raises ``SpecError``.
    """
    found: dict[str, Job] = {}
    seen: set[str] = set()
    for matrix in spec.matrices:
        for job in _jobs(matrix, spec, allow_code):
            group = job.group.text()
            if group not in seen:
                seen.add(group)
                _check(matrix, job, allow_code)
            found.setdefault(job.id, job)
            if job.split is not None:
                found.update((part.id, part) for part in _parts(matrix, job, allow_code, stop))
            if len(found) > MAX_JOBS:
                raise SpecError(f"{matrix.where}: more than {MAX_JOBS:,} jobs in one campaign")
    return list(found.values())


def _check(matrix: Matrix, job: Job, allow_code: bool) -> None:
    with _named(matrix, job):
        # The whole way that a worker goes: what a file says is checked where it is read.
        job.parse(job.text()).case(allow_code).describe(dict(job.policies))


def _parts(matrix: Matrix, job: Job, allow_code: bool, stop: Callable[[], bool]) -> list[Job]:
    """What is behind each prefix of a split search. Its tree is searched here, to know them, and again as a job, whose
    answer says which they must have been."""

    def progress(*_: int) -> None:
        if stop():
            raise KeyboardInterrupt

    with _named(matrix, job):
        case = job.case(allow_code)
        tree = explore(
            case.scenario,
            variant=case.variant,
            policies=dict(job.policies),
            budget=Budget(seconds=_TREE_SECONDS),
            shorten=0,
            split=job.split,
            progress=progress,
        )
        if tree.interrupted:
            raise KeyboardInterrupt
        if not tree.exhaustive:
            raise SpecError(
                f"split is {job.split}: so many operations alone are not searched in {_TREE_SECONDS:g} s; fewer are"
            )
    return [replace(job, prefix=prefix) for prefix in tree.prefixes]


@contextmanager
def _named(matrix: Matrix, job: Job) -> Generator[None]:
    try:
        yield
    except SpecError as error:
        changes = [job.scenario, job.variant, *(f"{name}={value}" for name, value in job.policies)]
        changes += [f"kernel {job.kernel}"] if job.kernel else []
        changes += [f"granule {job.granule}"] if job.granule else []
        raise SpecError(f"{matrix.where}: {' '.join(changes)}: {error}") from error


def _jobs(matrix: Matrix, spec: Spec, allow_code: bool) -> Iterator[Job]:
    named = [_scenario(matrix, name, spec, allow_code) for name in matrix.scenarios]
    pairs = list(_pairs(matrix, named))
    lists = (
        matrix.policies,
        matrix.kernels,
        matrix.granules,
        matrix.strategies,
        matrix.seconds,
        matrix.executions,
        matrix.threads,
    )
    count = len(pairs) * len(matrix.seeds) * math.prod(map(len, lists))
    if count > MAX_JOBS:
        raise SpecError(f"{matrix.where}: {count:,} jobs: at most {MAX_JOBS:,}; fewer seeds, or more campaigns")
    for (name, variant, source), policies, kernel, granule, strategy, seconds, executions, threads in product(
        pairs, *lists
    ):
        job = Job(
            kind="stress" if matrix.kind == "stress" else "explore",
            scenario=name,
            variant=variant,
            policies=tuple(sorted(policies.items())),
            kernel=kernel,
            granule=granule.strip().upper() if granule else None,
            strategy=strategy,
            depth=matrix.depth if strategy == "pct" else None,
            executions=executions,
            split=matrix.split,
            shorten=None if matrix.shorten is None else float(matrix.shorten),
            seconds=seconds,
            threads=threads,
            checked=matrix.checked,
            source=source,
        )
        # Nothing is drawn in an exhaustive search.
        for seed in (None,) if strategy == "exhaustive" else matrix.seeds:
            yield replace(job, seed=seed)


def _scenario(matrix: Matrix, name: str, spec: Spec, allow_code: bool) -> tuple[str, Scenario, str | None]:
    """The name that a worker finds it by, the scenario, and for a file the digest of its code."""
    try:
        if not is_code(name):
            scenario = find(name)
            return scenario.name, scenario, None
        if not allow_code:
            raise SpecError("a scenario in a Python file is code, which a campaign runs only with --allow-code")
        path, _, member = name.partition(":")
        whole = str((spec.folder / path).resolve())
        source = source_digest(whole)
        scenario = find(f"{whole}:{member}" if member else whole)
        return f"{whole}:{scenario.name}", scenario, source
    except SpecError as error:
        raise SpecError(f"{matrix.where}: scenarios: {name}: {error}") from error


def _pairs(matrix: Matrix, named: Sequence[tuple[str, Scenario, str | None]]) -> Iterator[tuple[str, str, str | None]]:
    unused = set(matrix.variants)
    for name, scenario, source in named:
        own = [variant.name for variant in scenario.variants]
        matching = {
            pattern: [variant for variant in own if fnmatchcase(variant, pattern)] for pattern in matrix.variants
        }
        unused -= {pattern for pattern, found in matching.items() if found}
        chosen = (
            [variant for variant in own if any(variant in found for found in matching.values())]
            if matrix.variants
            else own[:1]
        )
        if not chosen:
            raise SpecError(f"{matrix.where}: variants: {scenario.name} has none of these; it has {', '.join(own)}")
        for variant in chosen:
            yield name, variant, source
    if unused:
        raise SpecError(f"{matrix.where}: variants: {min(unused)!r:.60} is the name of none; vmemmap list shows them")
