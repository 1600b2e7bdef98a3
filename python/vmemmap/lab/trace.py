"""Traces: what the core recorded, step by step, and how to read it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import Field, asdict, dataclass, fields
from itertools import groupby, pairwise
from typing import Any, TextIO, cast

from ..errors import SpecError
from ..shown import html_table
from .answers import StepDict, StressViolation, TraceFile, ViolationDict


def _optional(value: int | str | None) -> int | None:
    """Addresses and words arrive as integers, or as hexadecimal text where 64 bits would not survive a reader."""
    if value is None:
        return None
    return int(value, 0) if isinstance(value, str) else int(value)


@dataclass(frozen=True)
class Step:
    """One operation on the machine. `old` and `new` are the descriptor or word before and after, if it has one."""

    step: int
    cpu: int
    actor: str
    op: str
    address: int | None = None
    old: int | None = None
    new: int | None = None
    note: str = ""
    #: Kernel function, and symbolic place: the same in every run.
    label: str = ""
    place: str = ""
    #: The alternative of the environment that was taken, unless the first.
    taken: str | None = None
    #: The step in which began what takes effect here: a store that waited, or a load that was made early.
    since: int | None = None
    #: A judgement on the spot (`warn`), no operation.
    judgement: bool = False

    @classmethod
    def from_dict(cls, raw: StepDict) -> Step:
        """From the JSON of the core.

        Args:
            raw: The JSON of the core.

        Returns:
            The step.
        """
        return cls(
            step=int(raw["step"]),
            cpu=int(raw.get("cpu", 0)),
            actor=str(raw.get("actor", "")),
            op=str(raw["op"]),
            address=_optional(raw.get("address")),
            old=_optional(raw.get("old")),
            new=_optional(raw.get("new")),
            note=str(raw.get("note") or ""),
            label=str(raw.get("label") or ""),
            place=str(raw.get("place") or ""),
            taken=raw.get("taken"),
            since=raw.get("since"),
            judgement=bool(raw.get("judgement", False)),
        )

    def to_dict(self) -> StepDict:
        """As ``--json`` has it.

        Returns:
            The object.
        """
        return cast("StepDict", asdict(self))

    @property
    def change(self) -> str:
        """``old → new``, or the word read, or nothing."""
        if self.old is not None and self.new is not None:
            return f"{word(self.old)} → {word(self.new)}"
        if self.new is not None:
            return f"→ {word(self.new)}"
        return word(self.old) if self.old is not None else ""


def _column(item: Field[Any]) -> str:
    """``int``, ``str`` or ``bool``, whether or not a step may lack it."""
    return str(item.type).split(" ")[0]


class Trace(tuple[Step, ...]):
    """The steps of an execution, in order: a tuple that becomes a table."""

    __slots__ = ()

    def to_arrow(self) -> Any:
        """A `pyarrow.Table`, a row for each step; addresses and words as 64-bit integers.

        Returns:
            The table.

        Raises:
            SpecError: pyarrow is not installed (extra ``arrow``).
        """
        try:
            import pyarrow  # pyright: ignore[reportMissingTypeStubs]
        except ImportError as error:
            raise SpecError("to_arrow needs pyarrow: pip install 'vmemmap[arrow]'") from error
        arrow: Any = pyarrow
        kinds = {"int": arrow.uint64(), "str": arrow.string(), "bool": arrow.bool_()}
        schema = arrow.schema([(item.name, kinds[_column(item)]) for item in fields(Step)])
        return arrow.Table.from_pylist([asdict(step) for step in self], schema=schema)

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`, a row for each step. Words that a step does not have are missing, and those that it has
        are exact: the columns are pandas' nullable integers.

        Returns:
            The frame.

        Raises:
            SpecError: pandas is not installed (extra ``arrow``).
        """
        try:
            import pandas  # pyright: ignore[reportMissingModuleSource, reportMissingTypeStubs, reportMissingImports]
        except ImportError as error:
            raise SpecError("to_pandas needs pandas: pip install 'vmemmap[arrow]'") from error
        library: Any = pandas
        kinds = {"int": "UInt64", "str": "object", "bool": "bool"}
        columns = {
            item.name: library.array([getattr(step, item.name) for step in self], kinds[_column(item)])
            for item in fields(Step)
        }
        return library.DataFrame(columns)

    def _repr_html_(self) -> str:
        rows = ((s.step, f"{s.cpu} {s.actor}", s.op, s.place, s.change, s.label) for s in self)
        return html_table(f"{len(self):,} steps", ("step", "CPU", "operation", "place", "word", "function"), rows)


@dataclass(frozen=True)
class Violation:
    """The violated invariant, by whom, where."""

    invariant: str
    actor: str
    step: int
    address: int | None
    message: str

    @classmethod
    def from_dict(cls, raw: ViolationDict | StressViolation) -> Violation:
        """From the JSON of the core.

        Args:
            raw: The JSON of the core.

        Returns:
            The violation.
        """
        return cls(
            invariant=str(raw["invariant"]),
            actor=str(raw.get("actor", "")),
            step=int(raw.get("step") or 0),
            address=_optional(raw.get("address")),
            message=str(raw.get("message") or ""),
        )

    def to_dict(self) -> ViolationDict:
        """As ``--json`` has it.

        Returns:
            The object.
        """
        return cast("ViolationDict", asdict(self))


_HEAD = ("format", "version", "scenario", "variant", "digest", "violation")
_TAIL = ("document", "segments", "steps")


def write(trace: TraceFile, file: TextIO) -> None:
    """A trace as JSON: what it is first, then one segment and one step on each line.

    Args:
        trace: What `Result.trace_file` gives.
        file: Open for writing.
    """
    file.write("{")
    held = cast("Mapping[str, object]", trace)
    order = [*_HEAD, *sorted(held.keys() - {*_HEAD, *_TAIL}), *_TAIL]
    for number, (key, value) in enumerate((key, held[key]) for key in order if key in held):
        file.write(f"{',' if number else ''}\n {json.dumps(key)}: ")
        if key in ("segments", "steps") and value:
            for nth, item in enumerate(cast("Sequence[object]", value)):
                file.write(f"{',' if nth else '['}\n  {json.dumps(item)}")
            file.write("\n ]")
        else:
            file.write(json.dumps(value))
    file.write("\n}\n")


def word(value: int) -> str:
    """A descriptor as the kernel's people write it; 0 is none.

    Args:
        value: A descriptor.

    Returns:
        Hexadecimal text; ``none`` for 0.
    """
    return "none" if value == 0 else f"{value:#x}"


def switches(trace: Sequence[Step]) -> int:
    """Context switches of a trace, the measure of how likely it is to be met by chance.

    Args:
        trace: The steps, in order.

    Returns:
        How often the next step is another actor's.
    """
    return sum(1 for before, after in pairwise(trace) if before.actor != after.actor)


#: Consecutive steps of one actor that `text` prints in full; of longer runs only those at both ends.
WHOLE_RUN = 40
RUN_ENDS = 12


def text(trace: Sequence[Step]) -> str:
    """The trace as lines, one actor's steps indented further than the other's. The middle of a long run of one actor,
    such as the scan of a table, is one line that counts what it leaves out.

    Args:
        trace: The steps, in order.

    Returns:
        The lines.
    """
    actors = list(dict.fromkeys(step.actor for step in trace))
    lines: list[str] = []
    for actor, steps in groupby(trace, key=lambda step: step.actor):
        run, indent = list(steps), "    " * actors.index(actor)
        if len(run) <= WHOLE_RUN:
            lines += [_line(step, indent) for step in run]
            continue
        middle = run[RUN_ENDS:-RUN_ENDS]
        places = functions(middle)
        lines += [_line(step, indent) for step in run[:RUN_ENDS]]
        lines.append(
            f"   …  {indent}CPU{run[0].cpu} {actor}: {len(middle):,} more steps{f' ({places})' if places else ''}"
        )
        lines += [_line(step, indent) for step in run[-RUN_ENDS:]]
    return "\n".join(lines)


def functions(steps: Sequence[Step]) -> str:
    """The kernel functions of some steps, each named once.

    Args:
        steps: The steps, in order.

    Returns:
        Names, comma-separated.
    """
    return ", ".join(dict.fromkeys(step.note.split(":")[0] for step in steps if step.note))


def _line(step: Step, indent: str) -> str:
    at = "" if step.address is None else f" {step.address:#x}"
    change = f"  {step.change}" if step.change else ""
    note = f"  ({step.note})" if step.note else ""
    return f"{step.step:4}  {indent}CPU{step.cpu} {step.actor}: {step.op}{at}{change}{note}"
