"""Actors: who does what, on which CPU, and how often."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from ..errors import SpecError
from .steps import Function, Operation, Source, Steps, program


@dataclass(frozen=True)
class Actor:
    """A CPU's work, `rounds` times: operations in order; or a function that yields operations and is sent their
    results.
    """

    name: str
    steps: Steps
    rounds: int = 1
    #: CPU of a task; None: one of its own. Of an interrupt: the one that it interrupts.
    cpu: int | None = None
    #: ``irq``: an interrupt that may come between any two operations of its CPU's tasks, or never, unless they mask it;
    #: ``nmi``: a pseudo-NMI, which ``irq_disable`` does not mask. On real threads both are just one thread more.
    context: Literal["task", "irq", "nmi"] = "task"

    def program(self) -> list[Operation] | None:
        """The operations of one round, if they do not depend on results.

        Returns:
            The operations of one round; None if they depend on results.

        Raises:
            SpecError: The steps never end or yield something else.
        """
        return program(self.name, self.steps) if callable(self.steps) else list(self.steps)

    def source(self) -> Source:
        """What answers for steps that depend on results.

        Returns:
            The source of its operations.

        Raises:
            SpecError: The steps are a program.
        """
        if not callable(self.steps):
            raise SpecError(f"actor {self.name!r} is a program")
        return Source(self.name, self.steps)


def as_actors(given: object) -> list[Actor]:
    """What a scenario function returned, as actors.

    Args:
        given: Each an `Actor`, an operation, a function that yields operations, such a generator itself, or
            operations in order.

    Returns:
        Actors with names of their own.

    Raises:
        SpecError: Something else.
    """
    expected = "expected actors: operations, functions that yield operations, or Actor(name, steps)"
    if isinstance(given, (Operation, Actor)) or callable(given):
        given = [cast("object", given)]
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise SpecError(f"the scenario returned {cast('object', given)!r}: {expected}")
    actors: list[Actor] = []
    for item in cast("Iterable[object]", given):
        if isinstance(item, Actor):
            actors.append(item)
            continue
        steps: Steps
        if isinstance(item, Operation):
            name, steps = item.name, [item]
        elif isinstance(item, Generator):
            started = cast("Generator[Operation, int, None]", item)
            name = str(getattr(started, "__name__", "steps"))
            listed = Actor(name, lambda started=started: started).program()
            if listed is None:
                raise SpecError(
                    f"{name!r} looks at results, and a generator cannot be started again: return the function instead"
                )
            steps = listed
        elif callable(item):
            name, steps = str(getattr(item, "__name__", "steps")), cast("Function", item)
        elif operations := _operations(item):
            name, steps = operations[0].name, operations
        else:
            raise SpecError(f"the scenario returned {item!r}: {expected}")
        name = name.replace("_", " ")
        taken = {actor.name for actor in actors}
        names = (name, *(f"{name} {number}" for number in range(2, len(taken) + 2)))
        actors.append(Actor(next(free for free in names if free not in taken), steps))
    return actors


def _operations(item: object) -> list[Operation]:
    """The operations of a list or tuple that holds nothing else; none of anything else."""
    listed = cast("Iterable[object]", item) if isinstance(item, (list, tuple)) else ()
    found = [step for step in listed if isinstance(step, Operation)]
    return found if isinstance(item, (list, tuple)) and len(found) == len(cast("list[object]", item)) else []
