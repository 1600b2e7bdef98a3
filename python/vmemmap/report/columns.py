"""A trace as text for a terminal: the lanes of the actors side by side, time downwards."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from ..lab.trace import RUN_ENDS, WHOLE_RUN, Step, functions
from .lanes import cut, descriptor

__all__ = ["columns"]

#: What the core writes of a violation into the note of its step.
_VIOLATED = re.compile(r"I\d+ (?:violated|falls): .*")
#: Characters of a lane.
LANE = 60
_NUMBER = 7


def columns(trace: Sequence[Step]) -> str:
    """Each step in the lane of its actor. The middle of a long run of one actor is one line that counts what it
    leaves out.
    """
    actors = {step.actor: step.cpu for step in trace}
    lanes = list(actors)
    heads = (f"CPU{cpu} {actor}".ljust(LANE) for actor, cpu in actors.items())
    lines = [" " * _NUMBER + "| ".join(heads).rstrip()]
    for actor, steps in groupby(trace, key=lambda step: step.actor):
        lane, run = lanes.index(actor), list(steps)
        if len(run) <= WHOLE_RUN:
            shown, rest = run, []
        else:
            shown, rest = run[:RUN_ENDS], run[-RUN_ENDS:]
        for step in shown:
            lines += _cells(step, lane, len(lanes))
        if rest:
            middle = run[RUN_ENDS:-RUN_ENDS]
            lines.append(_line("…", f"{len(middle):,} more steps ({functions(middle)})", lane, len(lanes)))
            for step in rest:
                lines += _cells(step, lane, len(lanes))
    return "\n".join(lines)


def _cells(step: Step, lane: int, lanes: int) -> Iterator[str]:
    """The operation and its place; under it words and kernel function, if there are any."""
    yield _line(str(step.step), f"{step.op} {step.place}".rstrip(), lane, lanes)
    words = ""
    if step.old is not None and step.new is not None:
        words = f"{descriptor(step.old)} → {descriptor(step.new)}"
    elif step.new is not None:
        words = f"→ {descriptor(step.new)}"
    elif step.old is not None:
        words = f"= {descriptor(step.old)}"
    label = f"({step.label})" if step.label else ""
    below = "  ".join(part for part in (words, step.taken or "", label) if part)
    if below:
        yield _line("", f"  {below}", lane, lanes)
    violated = _VIOLATED.search(step.note)
    if violated:
        yield _line("", f"  *** {violated[0]}", lane, lanes)


def _line(number: str, text: str, lane: int, lanes: int) -> str:
    cells = [cut(text, LANE).ljust(LANE) if lane == at else " " * LANE for at in range(lanes)]
    return f"{number:>{_NUMBER - 2}}  {'| '.join(cells)}".rstrip(" ")
