"""Bars of a report: rows of figures, each with a bar as long as its share of the largest in its column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Chart", "Column", "chart"]


@dataclass(frozen=True)
class Column:
    """A figure of each row: its name, its key, how it is written, and whether more of it is better."""

    name: str
    key: str
    written: Callable[[float], str]
    gain: bool = False


@dataclass(frozen=True)
class Chart:
    """Groups of rows; a row has a label and for each column (per cent, figure in words), or None without one."""

    columns: tuple[Column, ...]
    groups: tuple[tuple[str, str, tuple[tuple[str, tuple[tuple[float, str] | None, ...]], ...]], ...]


def chart(rows: Sequence[Mapping[str, object]], columns: Sequence[Column]) -> Chart | None:
    """Bars side by side. Scales are linear and begin at 0: a bar twice as long is twice as much.

    Args:
        rows: Each with ``group``, ``title`` (of the group), ``label``, and the keys of the columns, numbers or None.
        columns: What is drawn.

    Returns:
        The chart; None without rows.
    """
    if not rows:
        return None

    def number(row: Mapping[str, object], column: Column) -> float | None:
        value = row.get(column.key)
        return float(value) if isinstance(value, (int, float)) else None

    most = {c.key: max((n for row in rows if (n := number(row, c)) is not None), default=0.0) for c in columns}

    def bar(row: Mapping[str, object], column: Column) -> tuple[float, str] | None:
        found = number(row, column)
        if found is None:
            return None
        share = 100 * found / most[column.key] if most[column.key] else 0.0
        return round(share, 1), column.written(found)

    groups: dict[str, tuple[str, list[tuple[str, tuple[tuple[float, str] | None, ...]]]]] = {}
    for row in rows:
        _, listed = groups.setdefault(str(row["group"]), (str(row.get("title", "")), []))
        listed.append((str(row["label"]), tuple(bar(row, column) for column in columns)))
    return Chart(tuple(columns), tuple((name, title, tuple(listed)) for name, (title, listed) in groups.items()))
