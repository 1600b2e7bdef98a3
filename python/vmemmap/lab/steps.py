"""What an actor does: operations in order, or a generator that yields them.

A generator that never looks at a result is run once, and is a program. One that looks is a *source*: the search asks it
what comes next, once for each distinct history of results, and keeps the answer. It is sent the number that the
operation returns (docs/operations.md), from 0 up, or the errno as a negative one.
"""

from __future__ import annotations

import errno
import hashlib
import inspect
import json
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TypeAlias, TypedDict, cast

from ..errors import SpecError

Value: TypeAlias = int | bool | str | Mapping[str, int] | None
OperationDict: TypeAlias = dict[str, Value]
"""An operation in a document: its name under ``op``, its fields beside it."""


@dataclass(frozen=True)
class Operation:
    """One kernel operation as data; executed in Rust."""

    name: str
    arguments: Mapping[str, Value] = field(default_factory=dict[str, Value])

    def to_dict(self) -> OperationDict:
        """As it stands in a document.

        Returns:
            Its name under ``op``, and its fields.
        """
        return {"op": self.name, **self.arguments}


Function: TypeAlias = Callable[[], Generator[Operation, int, None]]
Steps: TypeAlias = Sequence[Operation] | Function

#: Results that are told with a step that failed.
_MOST_SHOWN = 12

#: Steps that yield more operations than this without looking at one result are taken to be endless.
MAX_STEPS = 10_000


class _Looked(Exception):
    """Steps that are tried out look at a result."""


class Reply:
    """What steps are sent while it is found out whether they look at results."""

    def __init__(self, looked: list[bool]) -> None:
        """Report looks to `looked`.

        Args:
            looked: Gets an entry each time it is looked at.
        """
        object.__setattr__(self, "looked", looked)

    def __getattribute__(self, name: str) -> object:
        # Steps may well catch what is raised here.
        object.__getattribute__(self, "looked").append(True)
        raise _Looked


def _look(self: Reply, *_: object) -> object:
    return self.value  # type: ignore[attr-defined]


for _name in (
    *(
        "bool",
        "int",
        "index",
        "float",
        "complex",
        "hash",
        "repr",
        "str",
        "format",
        "bytes",
        "iter",
        "next",
        "len",
        "contains",
        "getitem",
    ),
    *(
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "neg",
        "pos",
        "abs",
        "invert",
        "round",
        "trunc",
        "floor",
        "ceil",
        "call",
        "setattr",
    ),
    *(
        f"{side}{operator}"
        for operator in (
            "add",
            "sub",
            "mul",
            "truediv",
            "floordiv",
            "mod",
            "divmod",
            "pow",
            "lshift",
            "rshift",
            "and",
            "or",
            "xor",
            "matmul",
        )
        for side in ("", "r", "i")
        if side + operator != "idivmod"
    ),
):
    setattr(Reply, f"__{_name}__", _look)


def program(name: str, function: Function) -> list[Operation] | None:
    """The operations of steps that do not look at results.

    Args:
        name: Of the actor, for messages.
        function: Yields operations.

    Returns:
        The operations; None if they depend on results.

    Raises:
        SpecError: They yield something else, or have no end.
    """
    operations: list[Operation] = []
    looked: list[bool] = []
    steps = function()
    try:
        operation = next(steps)
        while len(operations) < MAX_STEPS:
            if not isinstance(operation, Operation):
                raise SpecError(_no_operation(name, len(operations) + 1, operation))
            if any(isinstance(value, Reply) for value in operation.arguments.values()):
                return None
            operations.append(operation)
            operation = steps.send(cast("int", Reply(looked)))
            if looked:
                return None
    except StopIteration:
        return None if looked else operations
    except Exception:
        if looked:
            return None
        raise
    raise SpecError(f"actor {name!r} yielded {MAX_STEPS} operations without an end")


def _no_operation(name: str, number: int, yielded: object) -> str:
    return f"actor {name!r}, step {number}: it yielded {yielded!r}, which is no operation"


class StepsDocument(TypedDict):
    """The function that yields an actor's operations: its name, and a digest of its source."""

    python: str
    source: str | None


@dataclass(frozen=True)
class Source:
    """Steps that look at results. Called with the results so far, it tells what they yielded on the way and what comes
    next.

    The function is called anew, twice for each check: its steps may depend on nothing but the results they are sent.
    """

    name: str
    function: Function

    def __call__(self, results: Sequence[int]) -> str:
        """What the steps yield after these results.

        Args:
            results: What the operations so far returned: a number from 0 up, or the errno as a negative
                one.

        Returns:
            JSON of the operations after no result, after the first, and so on; ``null`` for the end.

        Raises:
            SpecError: The steps raise, yield no operation, or differ from one time to the next; with
                the step's number.
        """
        first, second = self._drive(results), self._drive(results)
        for number, (once, now) in enumerate(zip_longest(first, second), 1):
            if once != now:
                raise SpecError(
                    f"actor {self.name!r}, step {number}: after the same results it answered {_shown(once)} once and "
                    f"{_shown(now)} now; steps may depend on results only"
                )
        try:
            return json.dumps(first)
        except (TypeError, ValueError) as error:
            raise SpecError(f"actor {self.name!r}, step {len(first)}: {error} in {_shown(first[-1])}") from error

    def _drive(self, results: Sequence[int]) -> list[OperationDict | None]:
        yielded: list[OperationDict | None] = []
        try:
            steps = self.function()
            for result in (None, *results):
                operation = next(steps) if result is None else steps.send(result)
                if not isinstance(operation, Operation):
                    raise SpecError(_no_operation(self.name, len(yielded) + 1, operation))
                yielded.append(operation.to_dict())
            steps.close()
        except StopIteration:
            yielded.append(None)
        except SpecError as error:
            said = str(error)
            raise SpecError(
                said if said.startswith("actor ") else f"actor {self.name!r}, step {len(yielded) + 1}: {said}"
            ) from error
        except Exception as error:
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise SpecError(
                f"actor {self.name!r}, step {len(yielded) + 1}: {what} ({_place(error)}{_history(yielded, results)})"
            ) from error
        return yielded

    def to_dict(self) -> StepsDocument:
        """What a document says of it.

        Returns:
            Name of the function, and a digest of its source if that is known.
        """
        try:
            source = hashlib.sha256(inspect.getsource(self.function).encode()).hexdigest()[:16]
        except (OSError, TypeError):
            source = None
        return {"python": str(getattr(self.function, "__qualname__", type(self.function).__name__)), "source": source}


def _place(error: Exception) -> str:
    """File and line at which it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}"


def _history(yielded: Sequence[OperationDict | None], results: Sequence[int]) -> str:
    """The actor's own operations so far and what came of each: what its steps knew."""
    known = [
        f"{operation['op']}: {errno.errorcode.get(-result, result) if result < 0 else result}"
        for operation, result in zip(yielded, results, strict=False)
        if operation is not None
    ]
    left_out = f"{len(known) - _MOST_SHOWN} results, then " if len(known) > _MOST_SHOWN else ""
    return f"; after {left_out}{', '.join(known[-_MOST_SHOWN:])}" if known else ""


def _shown(operation: OperationDict | None) -> str:
    return "nothing more" if operation is None else json.dumps(operation, default=repr)
