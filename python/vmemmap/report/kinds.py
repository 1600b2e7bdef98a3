"""Violated rows gathered by kind: what is lost, by which actors, because of which policy. One card tells each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .player import Player

__all__ = ["Case", "Kind", "kinds"]

#: Column of the table of `vmemmap run` → what it means for whoever runs such a kernel.
_MEANS: Mapping[str, str] = {
    "table freed in use": "A translation table is given back to the page allocator while somebody still uses it.",
    "hole": "For a while a struct page has no translation: whoever reads it takes a fault in the kernel.",
    "stale translation": "A CPU goes on using a translation whose frame belongs to somebody else by then.",
    "break-before-make": (
        "A valid descriptor is changed to another valid one in one store. No interleaving loses anything by it here, "
        "but the architecture promises nothing about what the hardware does meanwhile."
    ),
    "lost store": "A store goes to a frame that nobody reads any more.",
}


@dataclass(frozen=True)
class Case:
    """A row in which the kind is seen."""

    row: Mapping[str, Any]
    player: Player | None
    steps: int
    switches: int


@dataclass(frozen=True)
class Kind:
    """Rows that are violated alike; the one with the shortest trace comes first."""

    anchor: str
    title: str
    means: str
    cases: tuple[Case, ...]

    @property
    def first(self) -> Case:
        """The one that is drawn; the others are folded."""
        return self.cases[0]

    @property
    def layouts(self) -> list[str]:
        """Where it is seen, each named once."""
        return list(dict.fromkeys(case.row["layout"] for case in self.cases))

    @property
    def kernels(self) -> list[str]:
        """Under which kernel behaviours."""
        return list(dict.fromkeys(case.row["kernel"] for case in self.cases))

    @property
    def policies(self) -> list[str]:
        """Of which policies."""
        return list(dict.fromkeys(case.row["policy"] for case in self.cases))


def _column(row: Mapping[str, Any]) -> str | None:
    """The worst column that is violated: they stand in that order."""
    return next((name for name, cell in row["cells"].items() if cell["state"] == "violated"), None)


def _key(case: Case) -> tuple[str, ...]:
    row = case.row
    column = _column(row)
    actors = tuple(name for name, _ in case.player.actors) if case.player else ()
    return (column or row["words"], row["policy"].partition("=")[0], *actors)


def _title(key: tuple[str, ...]) -> str:
    column, policy, *actors = key
    beside = " beside ".join(actors) if len(actors) > 1 else (actors[0] + " alone" if actors else "")
    how = {"update": "the update of a hugepage's entries", "split": "the split of a block"}.get(policy, policy)
    heading = f"{column[:1].upper()}{column[1:]}: {how}"
    return f"{heading} ({beside})" if beside and "beside" not in how and how != policy else heading


def kinds(cases: Sequence[Case]) -> list[Kind]:
    """Kinds in the order in which the table first shows them, the worst column first."""
    grouped: dict[tuple[str, ...], list[Case]] = {}
    for case in cases:
        grouped.setdefault(_key(case), []).append(case)
    rank = {name: at for at, name in enumerate(_MEANS)}
    ordered = sorted(grouped.items(), key=lambda item: rank.get(item[0][0], len(rank)))
    return [
        Kind(
            f"kind-{number}",
            _title(key),
            _MEANS.get(key[0], ""),
            tuple(sorted(found, key=lambda case: (case.player is None, case.switches, case.steps))),
        )
        for number, (key, found) in enumerate(ordered, 1)
    ]
