"""What the core answers about dumps, and the objects of ``check --json`` and ``diff --json``."""

from __future__ import annotations

from typing import Literal, TypedDict

__all__ = [
    "ChangeDict",
    "CheckDict",
    "CheckReport",
    "DiffDict",
    "DiffReport",
    "DumpViolationDict",
    "MappingChangeDict",
    "Section",
    "Survey",
    "TextReport",
]


class CheckReport(TypedDict):
    """The core's answer to `_core.check_image` and `_core.check_text`."""

    findings: list[tuple[str, int, int | None, int | None, str]]
    """(invariant, address, Arm level, descriptor, message), at most 100 of each invariant."""
    counts: dict[str, int]
    """Invariant → how many times it is violated; those that are not are absent."""
    visible: list[str]
    """The invariants that such a dump can show."""


class TextReport(CheckReport):
    """The core's answer to `_core.check_text_alone`."""

    machines: list[tuple[int, int]]
    """(granule, VA bits) of the machines that the text can be of; it was judged as the first."""
    notes: list[str]
    holes: bool
    """It prints holes, as kernels since 5.6 do."""
    levels: bool
    """It names levels, as 4.4 does not."""
    vmemmap: bool
    efi: bool
    """It is ``efi_page_tables``."""
    layout: str | None
    """Which kernels had its layout, if none that is modelled."""


class _DumpViolationMaybe(TypedDict, total=False):
    level: int | None
    descriptor: str


class DumpViolationDict(_DumpViolationMaybe):
    """A violation in a dump; the descriptor in hexadecimal."""

    invariant: str
    address: int
    message: str


class CheckDict(TypedDict):
    """The object of ``vmemmap check --json``."""

    source: str
    kind: str
    machine: str
    verdict: Literal["clean", "violated"]
    violations: list[DumpViolationDict]
    violations_found: dict[str, int]
    invariants: dict[str, str]
    counts: dict[str, int | None]
    notes: list[str]
    gaps: list[list[int]]


class DiffReport(TypedDict):
    """The core's answer to `_core.diff`."""

    changed: int
    tables_added: int
    tables_removed: int
    frames_lost: int | None
    frames_gained: int | None
    hugepages_optimised: list[tuple[int, int]]
    """(PFN of the head, length in base pages)."""
    hugepages_restored: list[tuple[int, int]]
    blocks_split: list[int]
    sections_added: list[int]
    sections_removed: list[int]
    other: list[tuple[int, int, int, int, int]]
    """(address, Arm level, count, old word, new word)."""
    other_count: int


class ChangeDict(TypedDict):
    """Descriptors side by side that changed alike; the words in hexadecimal."""

    address: int
    level: int
    count: int
    old: str
    new: str


class MappingChangeDict(TypedDict):
    """Leaves of one kind in a region other than vmemmap: how many bytes they map in each dump."""

    region: str
    kind: str
    bytes_a: int
    bytes_b: int


class DiffDict(TypedDict):
    """The object of ``vmemmap diff --json``."""

    a: str
    b: str
    changed: int
    tables_added: int
    tables_removed: int
    frames_lost: int | None
    frames_gained: int | None
    hugepages_optimised: list[list[int]]
    hugepages_restored: list[list[int]]
    blocks_split: list[int]
    sections_added: list[int]
    sections_removed: list[int]
    other_changes: list[ChangeDict]
    other_changes_count: int
    changed_elsewhere: int | None
    mappings_elsewhere: list[MappingChangeDict]
    exact: bool
    pfns_absolute: bool
    notes: list[str]
    gaps: list[list[int]]
    summary: str


class Section(TypedDict):
    """One section of an image."""

    start: int
    early: bool
    online: bool
    style: str
    mapped: int
    self_hosted: int


class Survey(TypedDict):
    """The core's answer to `_core.survey`."""

    tables: int
    sections: list[Section]
    hugepages: list[tuple[int, int, str]]
    """(PFN of the head, length in base pages, state)."""
    vmemmap_extra_prot: int
    linear_blocks: bool
    linear_contiguous: bool
    linear_hot_added_prot: int | None
