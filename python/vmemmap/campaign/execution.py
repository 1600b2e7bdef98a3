"""What a worker does: one job, from JSON to JSON."""

from __future__ import annotations

import json
import os
import socket
import time
from datetime import datetime, timezone
from typing import Any, Final

from ..errors import InternalError, VmemmapError
from ..lab.exploration import explore
from ..lab.stressing import stress
from ..spec import Budget
from .job import Case, Job
from .version import code

__all__ = ["execute"]

_SAVED: Final = frozenset(
    [
        *(
            "exhaustive",
            "executions",
            "steps",
            "states",
            "judged",
            "invariants",
            "invariant_steps",
            "violation",
            "first_violation",
            "digest",
            "prefixes",
        ),
        *(
            "operations",
            "threads",
            "checked",
            "counters",
            "violation_count",
            "judged_violations",
            "put_back",
            "violations_by_invariant",
            "errors",
            "overlaps",
            "scope",
        ),
    ]
)
"""Keys of an answer that are kept beside the columns. The steps of a trace can be had again by a replay."""


def execute(text: str, allow_code: bool) -> str:
    """Run the job that `text` describes and say what came of it. Nothing that a job can cause is raised, or a scheduler
    would take it for a fault of the worker."""
    started = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    began = time.monotonic()
    answer: dict[str, Any]
    try:
        job = Job.parse(text)
        case = job.case(allow_code)
        answer = _explored(job, case) if job.kind == "explore" else _stressed(job, case)
    except InternalError as error:
        answer = {"error": f"{error}"}
    except VmemmapError as error:
        # No verdict: what a scenario's file or this version refuses now the next resume may have again.
        answer = {"error": f"refused: {error}"}
    except MemoryError:
        answer = {"error": "not enough memory on that machine"}
    ours = code()
    answer.setdefault("seconds", time.monotonic() - began)
    answer.update(
        host=socket.gethostname(),
        pid=os.getpid(),
        started=started,
        code={"version": ours.version, "package": ours.package, "core": ours.core},
    )
    return json.dumps(answer)


def _explored(job: Job, case: Case) -> dict[str, Any]:
    limit = Budget(executions=job.executions) if job.executions is not None else Budget(seconds=job.seconds)
    result = explore(
        case.scenario,
        variant=case.variant,
        policies=dict(job.policies),
        strategy=job.strategy or "exhaustive",
        depth=job.depth,
        seed=job.seed,
        budget=limit,
        shorten=job.shorten,
        split=job.split if job.prefix is None else None,
        prefix=job.prefix,
    )
    if result.interrupted:
        return {"error": "interrupted"}
    return {
        "verdict": result.verdict,
        "expect": case.expect,
        "kernel": result.kernel,
        "policies": dict(result.policies),
        "seconds": result.seconds,
        "violated": " ".join(result.violated),
        "done": result.executions,
        "document": {key: value for key, value in result.to_dict().items() if key in _SAVED},
        "trace": result.trace_file(),
    }


def _stressed(job: Job, case: Case) -> dict[str, Any]:
    result = stress(
        case.scenario,
        variant=case.variant,
        policies=dict(job.policies),
        threads=job.threads,
        seconds=job.seconds or 2.0,
        seed=job.seed,
        checked=job.checked is not False,
    )
    if result.interrupted:
        return {"error": "interrupted"}
    return {
        # A stress that sees nothing has decided nothing.
        "verdict": "violated" if result.violated else "inconclusive",
        # The scenario's word is about one round.
        "expect": "violated" if case.expect == "safe" and set(result.violated) & set(result.repeated) else case.expect,
        "kernel": case.variant.kernel,
        "policies": dict(result.policies),
        "seconds": result.seconds,
        "violated": " ".join(result.violated),
        "done": result.operations,
        "document": {key: value for key, value in result.to_dict().items() if key in _SAVED},
        "trace": None,
    }
