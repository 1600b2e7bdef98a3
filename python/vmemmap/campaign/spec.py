"""The TOML of a campaign: matrices of jobs. It is data; nothing in it is run, and what is wrong is one line that says
where."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

from ..dumps.reading import read_at_most
from ..errors import SpecError
from .job import KINDS

__all__ = ["MAX_BYTES", "MAX_JOBS", "Matrix", "Spec", "load", "parse"]

MAX_BYTES: Final = 1 << 20
"""Of a campaign's TOML."""

MAX_JOBS: Final = 100_000
"""Of one campaign; a job is some hundred bytes here and a row in the database."""

_toml: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

_TOP: Final = ("title", "matrix")
_BOTH: Final = ("kind", "scenarios", "variants", "policies", "kernels", "granules", "seeds", "seconds")
_EXPLORE: Final = (*_BOTH, "strategies", "depth", "executions", "shorten", "split")
_STRESS: Final = (*_BOTH, "threads", "checked")


@dataclass(frozen=True)
class Matrix:
    """One ``[[matrix]]``: every combination of its lists is a job. `None` in a list: whatever the variant has."""

    where: str
    kind: str
    scenarios: tuple[str, ...]
    #: Patterns, as a shell's; empty: the first variant of each scenario.
    variants: tuple[str, ...]
    policies: tuple[Mapping[str, str], ...]
    kernels: tuple[str | None, ...]
    granules: tuple[str | None, ...]
    strategies: tuple[str | None, ...]
    seeds: Sequence[int]
    seconds: tuple[float | None, ...]
    executions: tuple[int | None, ...]
    threads: tuple[int | None, ...]
    depth: int | None
    #: Operations after which an exhaustive search is cut into parts.
    split: int | None
    shorten: float | None
    checked: bool | None


@dataclass(frozen=True)
class Spec:
    """A campaign as written."""

    title: str
    matrices: tuple[Matrix, ...]
    #: Where the file stood: a scenario's file is named from there.
    folder: Path


def load(path: Path) -> Spec:
    """The campaign in a TOML file. Raises ``VmemmapError`` with one line."""
    data = read_at_most(path, MAX_BYTES, "campaign")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: byte {error.start}: not UTF-8, which TOML is") from error
    return parse(text, str(path), path.parent)


def parse(text: str, name: str, folder: Path) -> Spec:
    """The campaign in a text; `name` says in errors where it is from."""
    try:
        document: dict[str, Any] = _toml.loads(text)
    except _toml.TOMLDecodeError as error:
        raise SpecError(f"{name}: not TOML: {error}") from error
    except RecursionError:
        raise SpecError(f"{name}: nested too deeply") from None
    _known(name, document, _TOP)
    title = document.get("title", "")
    if not isinstance(title, str) or len(title) > 200:
        raise SpecError(f"{name}: title: expected text of at most 200 characters")
    given: object = document.get("matrix")
    tables = cast("list[Any]", given) if isinstance(given, list) else []
    if not tables or not all(isinstance(table, dict) for table in tables):
        raise SpecError(f'{name}: matrix: expected at least one [[matrix]] table, with scenarios = ["R6"]')
    matrices = tuple(_matrix(f"{name}: matrix {number}", table) for number, table in enumerate(tables, 1))
    return Spec(title, matrices, folder)


def _known(where: str, table: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in table:
        if key not in keys:
            raise SpecError(f"{where}: unknown key {key!r:.40}: expected one of {', '.join(keys)}")


def _matrix(where: str, table: Mapping[str, Any]) -> Matrix:
    kind = table.get("kind", "explore")
    if kind not in KINDS:
        raise SpecError(f"{where}: kind is {kind!r:.40}: expected explore or stress")
    _known(f"{where} ({kind})", table, _EXPLORE if kind == "explore" else _STRESS)
    if "scenarios" not in table:
        raise SpecError(f'{where}: scenarios is missing: a list of names or corpus numbers, like ["R6", "R33"]')
    if "seconds" in table and "executions" in table:
        raise SpecError(f"{where}: seconds and executions: a search has one budget")
    timed = "executions" not in table
    default_seconds = 60.0 if kind == "explore" else 2.0
    explores = kind == "explore"
    return Matrix(
        where=where,
        kind=kind,
        scenarios=tuple(_list(where, table, "scenarios", str)),
        variants=tuple(_list(where, table, "variants", str, [])),
        policies=_policies(where, table.get("policies", {})),
        kernels=tuple(_list(where, table, "kernels", str, [None])),
        granules=tuple(_list(where, table, "granules", str, [None])),
        strategies=tuple(_list(where, table, "strategies", str, ["exhaustive"])) if explores else (None,),
        seeds=_seeds(where, table.get("seeds", [0])),
        seconds=tuple(float(s) for s in _list(where, table, "seconds", (int, float), [default_seconds]))
        if timed
        else (None,),
        executions=(None,) if timed else tuple(_list(where, table, "executions", int)),
        threads=tuple(_list(where, table, "threads", int, [None])),
        depth=_single(where, table, "depth", int),
        split=_split(where, table),
        shorten=_single(where, table, "shorten", (int, float)),
        checked=_single(where, table, "checked", bool),
    )


def _split(where: str, table: Mapping[str, Any]) -> int | None:
    depth = _single(where, table, "split", int)
    if depth is not None and _list(where, table, "strategies", str, ["exhaustive"]) != ["exhaustive"]:
        raise SpecError(f"{where}: split is {depth}: only an exhaustive search has parts; another matrix samples")
    return depth


_NAMES: Final[Mapping[object, str]] = {str: "text", int: "an integer", bool: "true or false", (int, float): "a number"}


def _is(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _list(where: str, table: Mapping[str, Any], key: str, kind: Any, default: Sequence[Any] | None = None) -> list[Any]:
    """One value or a list of them, without repetition."""
    if key not in table and default is not None:
        return list(default)
    value = table.get(key)
    values: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not values:
        raise SpecError(f"{where}: {key} is empty, so there is no job: expected at least one, or no such key")
    for item in values:
        if not _is(item, kind):
            raise SpecError(f"{where}: {key} is {item!r:.40}: expected {_NAMES[kind]}, or a list of such")
        if isinstance(item, str) and not 0 < len(item) <= 1024:
            raise SpecError(f"{where}: {key} is {item!r:.40}: expected 1 to 1024 characters")
    return list(dict.fromkeys(values))


def _single(where: str, table: Mapping[str, Any], key: str, kind: Any) -> Any:
    value = table.get(key)
    if value is not None and not _is(value, kind):
        raise SpecError(f"{where}: {key} is {value!r:.40}: expected {_NAMES[kind]}")
    return value


def _policies(where: str, table: object) -> tuple[Mapping[str, str], ...]:
    """``{update = ["store", "bbm"], walker = "none"}`` is every combination."""
    if not isinstance(table, dict):
        raise SpecError(f'{where}: policies is {table!r:.40}: expected a table, like {{update = ["store", "bbm"]}}')
    found: list[dict[str, str]] = [{}]
    named = cast("dict[str, Any]", table)
    for name in named:
        choices = _list(f"{where}: policies", named, name, str)
        if len(found) * len(choices) > MAX_JOBS:
            raise SpecError(f"{where}: policies: more than {MAX_JOBS:,} combinations")
        found = [{**known, name: choice} for known in found for choice in choices]
    return tuple(found)


_RANGE: Final = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")


def _seeds(where: str, value: object) -> Sequence[int]:
    """A seed, a list of them, or text as the kernel writes lists of CPUs: ``0-99,200``."""
    expected = 'a list of integers, or ranges like "0-99,200"'
    if isinstance(value, str):
        found: list[int] = []
        for part in value.split(","):
            match = _RANGE.fullmatch(part.strip())
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if not 0 <= first <= last < 1 << 64:
                raise SpecError(f"{where}: seeds is {value!r:.40}: expected {expected}")
            if last - first >= MAX_JOBS:
                raise SpecError(f"{where}: seeds: {last - first + 1:,} of them: at most {MAX_JOBS:,} jobs")
            found += range(first, last + 1)
            if len(found) > MAX_JOBS:
                raise SpecError(f"{where}: seeds: at most {MAX_JOBS:,} jobs")
        return list(dict.fromkeys(found))
    values: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not values:
        raise SpecError(f"{where}: seeds is empty, so there is no job: expected {expected}")
    for seed in values:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 64:
            raise SpecError(f"{where}: seeds is {seed!r:.40}: expected {expected}")
    return list(dict.fromkeys(values))
