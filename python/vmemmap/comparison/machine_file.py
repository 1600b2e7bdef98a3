"""The TOML of a modelled machine: a latency for each operation, and where each number comes from."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

from .. import _core
from ..dumps.reading import read_at_most
from ..errors import SpecError

__all__ = ["BROADCASTS", "MAX_CPUS", "CostedMachine", "Latency", "load", "shipped"]

BROADCASTS: Final = ("dvm", "ipi")
"""How an invalidate reaches the other CPUs: by the interconnect, or by an interrupt to each."""

MAX_CPUS: Final = 1024
MAX_BYTES: Final = 1 << 20

_toml: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
_FOLDER: Final = Path(__file__).resolve().parent.parent / "data" / "machines"
_TOP: Final = ("name", "about", "broadcast", "cpus", "latency")
_LATENCY: Final = ("ns", "source")


@dataclass(frozen=True)
class Latency:
    """One number of a machine file."""

    ns: float
    source: str


@dataclass(frozen=True)
class CostedMachine:
    """A modelled machine. `cpus` are the numbers of CPUs that a comparison takes by default."""

    name: str
    about: str
    broadcast: str
    cpus: tuple[int, ...]
    latencies: Mapping[str, Latency]

    @property
    def ns(self) -> dict[str, float]:
        """The latencies alone.

        Returns:
            Nanoseconds by name.
        """
        return {name: latency.ns for name, latency in self.latencies.items()}


def shipped() -> list[str]:
    """Machines that the package has.

    Returns:
        Their names.
    """
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load(source: str | Path) -> CostedMachine:
    """Read a machine file.

    Args:
        source: A file, or the name of a machine that the package has.

    Returns:
        The machine.

    Raises:
        SpecError: The file cannot be read, or what it says is not a machine; the message names the key.
    """
    path = Path(source)
    if not path.suffix and not path.exists():
        if str(source) not in shipped():
            raise SpecError(f"machine {source}: there is no such file or machine; machines are {', '.join(shipped())}")
        path = _FOLDER / f"{source}.toml"
    try:
        table = cast("dict[str, Any]", _toml.loads(read_at_most(path, MAX_BYTES, "machine file").decode()))
    except (UnicodeDecodeError, _toml.TOMLDecodeError) as error:
        raise SpecError(f"{path}: {error}") from None
    return _machine(str(path), table)


def _machine(path: str, table: Mapping[str, Any]) -> CostedMachine:
    _known(path, table, _TOP, "key")
    texts = {key: _text(path, table, key) for key in ("name", "about", "broadcast")}
    if texts["broadcast"] not in BROADCASTS:
        raise SpecError(f"{path}: broadcast: {texts['broadcast']!r} is none of {', '.join(BROADCASTS)}")
    return CostedMachine(**texts, cpus=_cpus(path, table.get("cpus")), latencies=_latencies(path, table.get("latency")))


def _known(where: str, table: Mapping[str, Any], names: tuple[str, ...], what: str) -> None:
    for key in table:
        if key not in names:
            raise SpecError(f"{where}: unknown {what} {key!r}; it is one of {', '.join(names)}")


def _text(path: str, table: Mapping[str, Any], key: str) -> str:
    text = table.get(key)
    if not isinstance(text, str) or not text.strip():
        raise SpecError(f"{path}: {key}: a text is missing")
    if not text.isprintable():
        raise SpecError(f"{path}: {key}: a text of one line is expected, without control characters")
    return text


def _cpus(path: str, value: object) -> tuple[int, ...]:
    cpus = cast("list[object]", value) if isinstance(value, list) else []
    counts = [n for n in cpus if isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= MAX_CPUS]
    if not counts or len(counts) != len(cpus):
        raise SpecError(f"{path}: cpus: a list of numbers from 1 to {MAX_CPUS} is missing")
    return tuple(counts)


def _latencies(path: str, value: object) -> dict[str, Latency]:
    if not isinstance(value, dict):
        raise SpecError(f"{path}: latency: a table is missing")
    table = cast("dict[str, object]", value)
    names = tuple(name for name, _ in _core.latencies())
    _known(f"{path}: latency", table, names, "latency")
    found = {name: _latency(f"{path}: latency.{name}", table[name]) for name in table}
    for name in names:
        if name not in found:
            raise SpecError(f"{path}: latency.{name}: it is missing, with ns and source")
    return found


def _latency(where: str, value: object) -> Latency:
    if not isinstance(value, dict):
        raise SpecError(f"{where}: a table with ns and source is missing")
    entry = cast("dict[str, object]", value)
    _known(where, entry, _LATENCY, "key")
    ns, source = entry.get("ns"), entry.get("source")
    if isinstance(ns, bool) or not isinstance(ns, (int, float)) or not math.isfinite(ns):
        raise SpecError(f"{where}: ns: a number is missing")
    if ns < 0:
        raise SpecError(f"{where}: ns: {ns} is negative")
    if not isinstance(source, str) or not source.strip():
        raise SpecError(f"{where}: source: where the number comes from is missing")
    return Latency(float(ns), source)
