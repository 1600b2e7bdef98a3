"""A trace as Chrome trace events, which the Perfetto UI opens: a track for each actor, a slice for each kernel function
with an instant for each of its operations, arrows between steps that depend on each other.

There is no time in an execution but the order of its steps: step n is at microsecond n.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..lab.trace import Step, Violation, word
from .lanes import conflicts

__all__ = ["document"]

_PROCESS = 1
#: Of the kernel function that a step belongs to, if it says none.
_UNNAMED = "operation"


def document(trace: Sequence[Step], violation: Violation | None, title: str) -> dict[str, Any]:
    """The whole file."""
    tracks = {actor: number for number, actor in enumerate(dict.fromkeys(step.actor for step in trace), start=1)}
    return {
        "displayTimeUnit": "ns",
        "otherData": {"title": title, "time": "step n is at microsecond n"},
        "traceEvents": [
            *_names(trace, tracks, title),
            *_functions(trace, tracks),
            *(_operation(step, tracks) for step in trace),
            *_arrows(trace, tracks),
            *([_violation(trace, violation, tracks)] if violation and trace else []),
        ],
    }


def _event(ph: str, name: str, step: Step, tracks: dict[str, int], **rest: Any) -> dict[str, Any]:
    return {
        "ph": ph,
        "name": name,
        "cat": "vmemmap",
        "ts": step.step,
        "pid": _PROCESS,
        "tid": tracks[step.actor],
        **rest,
    }


def _names(trace: Sequence[Step], tracks: dict[str, int], title: str) -> Iterator[dict[str, Any]]:
    def meta(kind: str, tid: int, **args: Any) -> dict[str, Any]:
        return {"ph": "M", "name": kind, "ts": 0, "pid": _PROCESS, "tid": tid, "args": args}

    yield meta("process_name", 0, name=title)
    for actor, track in tracks.items():
        cpu = next(step.cpu for step in trace if step.actor == actor)
        yield meta("thread_name", track, name=f"CPU{cpu} {actor}")
        yield meta("thread_sort_index", track, sort_index=track)


def _functions(trace: Sequence[Step], tracks: dict[str, int]) -> Iterator[dict[str, Any]]:
    """A function goes on while others run, until its actor does something of another function."""
    for actor in tracks:
        own = [step for step in trace if step.actor == actor]
        first = 0
        for at in range(1, len(own) + 1):
            if at == len(own) or own[at].label != own[first].label:
                began, ended = own[first], own[at - 1]
                steps = {"first step": began.step, "last step": ended.step, "operations": at - first}
                yield _event("X", began.label or _UNNAMED, began, tracks, dur=ended.step - began.step + 1, args=steps)
                first = at


def _operation(step: Step, tracks: dict[str, int]) -> dict[str, Any]:
    args: dict[str, Any] = {"step": step.step}
    if step.place:
        args["place"] = step.place
    if step.address is not None:
        args["address"] = f"{step.address:#x}"
    args.update({name: word(value) for name, value in (("old", step.old), ("new", step.new)) if value is not None})
    if step.taken:
        args["taken"] = step.taken
    if step.note:
        args["note"] = step.note
    return _event("i", step.op, step, tracks, s="t", args=args)


def _arrows(trace: Sequence[Step], tracks: dict[str, int]) -> Iterator[dict[str, Any]]:
    for number, (target, source) in enumerate(sorted(conflicts(trace).items()), start=1):
        name = trace[target].place or trace[target].op
        yield _event("s", name, trace[source], tracks, id=number)
        yield _event("f", name, trace[target], tracks, id=number, bp="e")


def _violation(trace: Sequence[Step], violation: Violation, tracks: dict[str, int]) -> dict[str, Any]:
    fatal = next((step for step in trace if step.step == violation.step), trace[-1])
    return _event("i", f"{violation.invariant} violated", fatal, tracks, s="g", args={"message": violation.message})
