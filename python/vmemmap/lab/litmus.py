"""herd's litmus tests on the machines of the laboratory (docs/memory-model.md)."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .. import _core
from ..dumps.reading import opened, read_at_most
from ..errors import ImageError, SpecError
from ..shown import html_table
from ..spec import Budget, did_you_mean, parse_budget

__all__ = ["Answer", "LitmusAnswers", "Unsupported", "as_they_come", "litmus", "read_kinds"]

OBSERVED: Final = {
    "Forbidden": ("Never",),
    "Allowed": ("Sometimes", "Always"),
    "Required": ("Always",),
}
"""What a kind of a kinds file says may be observed."""

MEMORIES: Final = ("sc", "views", "promises")
ETS: Final = ("none", "2", "3")

MAX_BYTES: Final = 1 << 20
"""Most bytes of a test that is read; herd's longest have some kilobytes."""

MAX_KINDS_BYTES: Final = 64 << 20

_SHORT: Final = {"Forbid": "Forbidden", "Allow": "Allowed", "Require": "Required"}


@dataclass(frozen=True)
class Unsupported:
    """A test that is not read, and what stands in the way."""

    file: str
    line: int
    what: str

    def text(self) -> str:
        """As an error names it.

        Returns:
            ``FILE:LINE: what``.
        """
        return f"{self.file}:{self.line}: {self.what}"


@dataclass(frozen=True)
class Answer:
    """What the machine says of one test."""

    file: str
    found: Mapping[str, Any]
    kind: str | None = None

    @property
    def name(self) -> str:
        """The test's name."""
        return self.found["name"]

    @property
    def observation(self) -> str:
        """``Never``, ``Sometimes``, ``Always``, or ``Unknown`` if the budget ran out before that was decided."""
        return self.found["observation"]

    @property
    def agrees(self) -> bool | None:
        """Whether the observation is one that the kind names; ``None`` without a kind or an observation."""
        if self.kind is None or self.observation == "Unknown":
            return None
        return self.observation in OBSERVED[self.kind]

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON holds it.

        Returns:
            What the machine says, and the kind that was expected.
        """
        found = {key: value for key, value in self.found.items() if key != "text"}
        return {"file": self.file, **found, "kind": self.kind, "agrees": self.agrees}


@dataclass(frozen=True)
class LitmusAnswers:
    """Of a run of many tests."""

    memory: str
    ets: str
    tests: list[Answer] = field(default_factory=list[Answer])
    unsupported: list[Unsupported] = field(default_factory=list[Unsupported])

    def add(self, answer: Answer | Unsupported) -> None:
        """Takes in one more.

        Args:
            answer: As `as_they_come` yields it.
        """
        if isinstance(answer, Answer):
            self.tests.append(answer)
        else:
            self.unsupported.append(answer)

    @property
    def differences(self) -> list[Answer]:
        """Tests whose observation is none that their kind names."""
        return [answer for answer in self.tests if answer.agrees is False]

    @property
    def unknown(self) -> list[Answer]:
        """Tests that the budget left undecided."""
        return [answer for answer in self.tests if answer.observation == "Unknown"]

    def counts(self) -> dict[str, int]:
        """How the tests compare with their kinds.

        Returns:
            How many agree, accuse (possible, but forbidden), miss (never, but allowed), are undecided or not read.
        """
        accusations = sum(a.kind == "Forbidden" for a in self.differences)
        return {
            "equal": sum(a.agrees is True for a in self.tests),
            "accusations": accusations,
            "misses": len(self.differences) - accusations,
            "unknown": len(self.unknown),
            "unsupported": len(self.unsupported),
        }

    def _repr_html_(self) -> str:
        rows = [(answer.name, answer.observation, answer.kind or "") for answer in self.tests]
        rows += [(refused.file, "unsupported", refused.text()) for refused in self.unsupported]
        title = f"{len(self.tests)} tests, memory {self.memory}, ETS {self.ets}"
        return html_table(title, ("test", "observation", "kind"), rows)

    def to_dict(self) -> dict[str, Any]:
        """The run as JSON holds it.

        Returns:
            Every test, what is not read, what differs, and the counts.
        """
        return {
            "memory": self.memory,
            "ets": self.ets,
            "tests": [answer.to_dict() for answer in self.tests],
            "unsupported": [{"file": u.file, "line": u.line, "what": u.what} for u in self.unsupported],
            "differences": [{"name": a.name, "kind": a.kind, "observation": a.observation} for a in self.differences],
            **{key: value for key, value in self.counts().items() if key != "unsupported"},
        }


def read_kinds(path: str | Path) -> tuple[dict[str, str], list[str]]:
    """Read a kinds file of herd: on each line a test's name and ``Allowed``, ``Forbidden`` or ``Required``.

    Args:
        path: The file.

    Returns:
        The kind of each test, and what is said of lines that are none of that.

    Raises:
        SpecError: A file that is no text.
        ImageError: A file that cannot be read, or is larger than any kinds file.
    """
    kinds: dict[str, str] = {}
    notes: list[str] = []
    try:
        text = read_at_most(Path(path), MAX_KINDS_BYTES, "kinds file").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: no text, hence no kinds file") from error
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        kind = _SHORT.get(words[1], words[1]) if len(words) == 2 else ""
        if kind not in OBSERVED:
            notes.append(f"{path}:{number}: no test's name with Allowed, Forbidden or Required: {line.strip()}")
        else:
            if kinds.get(words[0], kind) != kind:
                notes.append(f"{path}:{number}: {words[0]} was {kinds[words[0]]} above; {kind} is taken")
            kinds[words[0]] = kind
    return kinds, notes


def litmus(
    files: str | Path | Sequence[str | Path],
    *,
    memory: str = "sc",
    ets: str = "2",
    kinds: Mapping[str, str] | None = None,
    budget: Budget | int | float | str | None = None,
) -> LitmusAnswers:
    """Run litmus tests of herd's AArch64 format.

    Args:
        files: The tests, one in each file; or one file.
        memory: ``sc`` (the explored machine), ``views`` (weak memory in program order) or ``promises`` (stores early
            too).
        ets: FEAT_ETS2 of the CPUs: ``none``, ``2`` or ``3``. A test that asks for more by its own ``Variant`` has more.
        kinds: What is expected of each test, by name.
        budget: Steps, or seconds as a float or text (``10s``), for each test; without one each runs to its end.

    Returns:
        An answer for each test that is read, and why the others are not.

    Raises:
        ImageError: A file that cannot be opened; then none was run.
        SpecError: No such memory, ETS or budget.
    """
    answers = LitmusAnswers(memory, ets)
    listed = [files] if isinstance(files, (str, Path)) else files
    limit = budget if budget is None or isinstance(budget, Budget) else parse_budget(budget)
    for answer in as_they_come(listed, memory=memory, ets=ets, kinds=kinds, budget=limit):
        answers.add(answer)
    return answers


def as_they_come(
    files: Sequence[str | Path],
    *,
    memory: str = "sc",
    ets: str = "2",
    kinds: Mapping[str, str] | None = None,
    budget: Budget | None = None,
) -> Generator[Answer | Unsupported, None, None]:
    """The same as `litmus`, one after the other: whoever is interrupted has those that came before.

    Args:
        files: The tests, one in each file.
        memory: ``sc``, ``views`` or ``promises``.
        ets: FEAT_ETS2 of the CPUs: ``none``, ``2`` or ``3``.
        kinds: What is expected of each test, by name.
        budget: Steps or seconds for each test; without one each runs to its end.

    Yields:
        Of each test an answer, or why it is not read.

    Raises:
        ImageError: A file that cannot be opened; then none was run.
        SpecError: No such memory or ETS.
    """
    for what, given, known in (("memory", memory, MEMORIES), ("ets", ets, ETS)):
        if given not in known:
            expected = did_you_mean(str(given), known, f"expected one of {', '.join(known)}")
            raise SpecError(f"{what} is {given!r}{expected}")
    budget = budget or Budget()
    for path in files:
        with opened(Path(path)):
            pass
    for path in files:
        try:
            text = read_at_most(Path(path), MAX_BYTES, "litmus test").decode("utf-8-sig")
        except UnicodeDecodeError:
            yield Unsupported(str(path), 1, "no text, hence no litmus test")
            continue
        except ImageError as error:
            yield Unsupported(str(path), 1, str(error).removeprefix(f"{path}: "))
            continue
        found = json.loads(_core.litmus(text, memory, ets, budget.executions, budget.seconds))
        if "refused" in found:
            yield Unsupported(str(path), found["line"], found["refused"])
        else:
            yield Answer(str(path), found, (kinds or {}).get(found["name"]))
